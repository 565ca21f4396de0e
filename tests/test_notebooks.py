"""Rules that every chapter keeps, checked on the file alone: nothing is executed here.

A rule is a function that takes a chapter and yields what is wrong with it; `test_notebook_rules`
shows for each that it can fail.
"""

import ast
import base64
import functools
import importlib
import io
import itertools
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mistune
import nbformat
import pytest
from nbformat import NotebookNode
from notebook_tools import (
    METADATA,
    Item,
    code_cells,
    exercises,
    items,
    needs,
    notebooks,
    parsed,
    read_notebook,
    setup_source,
    syllabus,
    tags,
)
from PIL import Image, UnidentifiedImageError

from course_utils.exercises.grading import Exercise as Checker

CELL_LINES, MEDIAN_LINES, PARAGRAPH_WORDS, FILE_BYTES = 25, 15, 90, 1_000_000
UNCOMPARED = {"nbval-ignore-output", "nbval-skip", "pytest-validate-ignore-output"}
FILLER = re.compile(r"\b(simply|just|powerful|in this section)\b", re.I)
NOT_OURS = re.compile(
    r"\b(?:behaviors?|center|colors?|gray|neighbors?|optimiser\w*|(?:initial|minim|normal|recogn)iz\w+)\b",
    re.I,
)
ENDING = "## Recap\n", "| When you want … | write … |\n|---|---|\n", "\n**Next:** "
UNREPEATABLE = re.compile(
    r"^\s*%%?(?:capture|prun|time|timeit)\b|\b(?:clear_output|display_id|update_display)\b"
    r"|#\s*(?:NBVAL|PYTEST_VALIDATE)_\w+|;\s*\Z",
    re.M,
)
MACHINE_DEPENDENT = re.compile(
    r"(?<![\w./<:~])/\w[\w.-]*/[\w.-]+|\b[A-Za-z]:\\\w+"
    r"|\bat 0x[0-9a-fA-F]+|\b(?:cuda|mps):\d|\bipykernel_\d+|\b\d+\.\d+\.\d+\b"
)
markdown = mistune.create_markdown(renderer=None, plugins=["table", "math"])


@dataclass
class Chapter:
    """A notebook, where it is, and the items of the syllabus that it must teach."""

    path: Path
    nb: NotebookNode
    items: list[Item]


Rule = Callable[[Chapter], Iterable[str]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Add a function to the rules."""
    RULES.append(function)
    return function


@functools.cache
def chapter(path: Path) -> Chapter:
    return Chapter(path, read_notebook(path), syllabus().get(path.stem, []))


@pytest.mark.parametrize("check", RULES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_chapter(path: Path, check: Rule) -> None:
    problems = list(check(chapter(path)))
    assert not problems, "\n".join([f"{path.name}: {check.__doc__}", *problems])


# The file


@rule
def format_is_valid(chapter: Chapter) -> Iterator[str]:
    """A notebook is a valid one of format 4.5, and its cells' ids differ."""
    version = (chapter.nb.nbformat, chapter.nb.nbformat_minor)
    if version != (4, 5):
        yield f"format {version[0]}.{version[1]}"
    for error in nbformat.validator.iter_validate(chapter.nb, version=4, version_minor=5):
        yield error.message
    ids = [cell.get("id") for cell in chapter.nb.cells]
    for name in sorted({str(i) for i in ids if ids.count(i) > 1}):
        yield f"the id {name} is given to {ids.count(name)} cells"


@rule
def metadata_is_bare(chapter: Chapter) -> Iterator[str]:
    """Metadata is what tests/refresh.py writes: the kernel, and the tags of cells."""
    if chapter.nb.metadata != METADATA:
        yield f"notebook: {dict(chapter.nb.metadata)}"
    for i, cell in enumerate(chapter.nb.cells):
        for name in sorted(set(cell.metadata) - {"tags"}):
            yield f"cell {i}: {name}"


@rule
def file_is_small(chapter: Chapter) -> Iterator[str]:
    """A notebook's file stays below 1 MB."""
    size = len(nbformat.writes(chapter.nb).encode())
    if size >= FILE_BYTES:
        yield f"{size:,} bytes"


@rule
def setup_cell_is_current(chapter: Chapter) -> Iterator[str]:
    """The first code cell, tagged `setup`, is the one that tests/refresh.py writes."""
    index, cell = next(code_cells(chapter.nb), (0, None))
    if cell is None or "setup" not in tags(cell) or cell.source != setup_source():
        yield f"cell {index}: run `python tests/refresh.py`"


# What is stored under the cells


@rule
def cells_ran_in_order(chapter: Chapter) -> Iterator[str]:
    """Every code cell has run, from top to bottom, once; nbval compares no other."""
    for count, (i, cell) in enumerate(code_cells(chapter.nb), start=1):
        if not cell.source.strip():
            yield f"cell {i}: is empty"
        if cell.execution_count != count:
            yield f"cell {i}: its count is {cell.execution_count}, not {count}"


@rule
def no_stderr(chapter: Chapter) -> Iterator[str]:
    """No cell writes to stderr."""
    for i, output in _outputs(chapter):
        if output.get("name") == "stderr":
            yield f"cell {i}: {output.text[:80]!r}"


@rule
def errors_are_expected(chapter: Chapter) -> Iterator[str]:
    """A cell ends in an error if, and only if, it is tagged `raises-exception`."""
    for i, cell in code_cells(chapter.nb):
        names = [output.ename for output in cell.outputs if output.output_type == "error"]
        if names and "raises-exception" not in tags(cell):
            yield f"cell {i}: {names[0]}"
        if not names and "raises-exception" in tags(cell):
            yield f"cell {i}: tagged, but raises nothing"


@rule
def outputs_are_compared(chapter: Chapter) -> Iterator[str]:
    """Only a cell tagged `live` may go uncompared, and the next code cell asserts what it did."""
    cells = list(code_cells(chapter.nb))
    for place, (i, cell) in enumerate(cells):
        if UNCOMPARED.isdisjoint(tags(cell)):
            continue
        following = cells[place + 1][1].source if place + 1 < len(cells) else ""
        if "live" not in tags(cell):
            yield f"cell {i}: not tagged `live`"
        if not any(isinstance(node, ast.Assert) for node in ast.walk(parsed(following))):
            yield f"cell {i}: no assert in the next code cell"


@rule
def nothing_unrepeatable(chapter: Chapter) -> Iterator[str]:
    """Cells do without timing magics, cleared or updated outputs, comments to nbval and a closing `;`."""
    for i, cell in code_cells(chapter.nb):
        for found in UNREPEATABLE.finditer(cell.source):
            yield f"cell {i}: {found[0].strip()}"


@rule
def outputs_suit_any_machine(chapter: Chapter) -> Iterator[str]:
    """Stored outputs name no path, address, GPU or version, and hold no widget."""
    for i, output in _outputs(chapter):
        for kind, text in _texts(output):
            if found := MACHINE_DEPENDENT.search(text):
                yield f"cell {i}: {found[0]}"
            if "widget" in kind:
                yield f"cell {i}: a widget"


@rule
def approximations_are_checked(chapter: Chapter) -> Iterator[str]:
    """The sign ≈, behind which digits are not compared, comes from `approx`, which checks a range."""
    for i, cell in code_cells(chapter.nb):
        for node in ast.walk(parsed(cell.source)):
            if isinstance(node, ast.Constant) and "≈" in str(node.value):
                yield f"cell {i}: {node.value!r}"


@rule
def figures_are_whole(chapter: Chapter) -> Iterator[str]:
    """Every picture decodes, is not blank, and has its words in `Figure: ...` and in a caption under it."""
    for i, cell in code_cells(chapter.nb):
        for output, caption in itertools.zip_longest(cell.outputs, cell.outputs[1:], fillvalue={}):
            data = output.get("data", {})
            for kind in data:
                if kind.startswith("image/") and kind != "image/png":
                    yield f"cell {i}: {kind}; show pictures by course_utils.plotting.show"
            if "image/png" in data:
                if problem := _picture_problem(data["image/png"]):
                    yield f"cell {i}: {problem}"
                words = data.get("text/plain", "")
                if not re.fullmatch(r"Figure: .*\S.*", words, re.S):
                    yield f"cell {i}: no words for the picture"
                if caption.get("data", {}).get("text/markdown") != f"*{words}*":
                    yield f"cell {i}: no caption under the picture"


# What the chapter covers


@rule
def items_are_covered(chapter: Chapter) -> Iterator[str]:
    """The tags `item:` of the code cells are the items of the syllabus for this chapter, all of them."""
    expected = {item.number for item in chapter.items}
    if not expected:
        yield f"tests/syllabus.toml has no items for {chapter.path.stem}"
    found = set()
    for i, cell in enumerate(chapter.nb.cells):
        if cell.cell_type == "code":
            found |= items(cell)
        elif items(cell):
            yield f"cell {i}: {', '.join(sorted(items(cell)))} is on a cell without code"
    if missing := expected - found:
        yield f"missing: {', '.join(sorted(missing))}"
    if foreign := found - expected:
        yield f"not in the syllabus: {', '.join(sorted(foreign))}"


@rule
def exercises_and_mistakes_are_there(chapter: Chapter) -> Iterator[str]:
    """Items that ask for it have an exercise, or a cell that shows a real mistake live."""
    for tag in ("exercise", "mistake"):
        found = set().union(*(items(cell) for _, cell in code_cells(chapter.nb) if tag in tags(cell)))
        for item in chapter.items:
            if getattr(item, tag) and item.number not in found:
                yield f"{item.number} {item.title}: no cell tagged `{tag}`"


# Exercises


@rule
def exercises_are_stubs(chapter: Chapter) -> Iterator[str]:
    """An exercise's cell defines what it checks, ends in `check.NAME(NAME)` and is stored unsolved."""
    for exercise in exercises(chapter.nb):
        body, where = parsed(exercise.cell.source).body, f"cell {exercise.index}"
        if not exercise.names or exercise.names[-1] not in ast.unparse(body[-1:]):
            yield f"{where}: its last line is not `check.NAME(NAME)`"
        if undefined := set(exercise.names) - set(_signatures(exercise.cell.source)):
            yield f"{where}: {', '.join(sorted(undefined))} is not defined there"
        stored = "".join(text for output in exercise.cell.outputs for _, text in _texts(output))
        if stored != "".join(f"○ {name}: not started\n" for name in exercise.names):
            yield f"{where}: its output is {stored!r}"


@rule
def exercises_have_hint_and_solution(chapter: Chapter) -> Iterator[str]:
    """Under an exercise stand a folded hint and one folded solution: the same functions, and no more."""
    for exercise in exercises(chapter.nb):
        where = f"cell {exercise.index}"
        if not exercise.hints or not all(exercise.hints):
            yield f"{where}: no hint"
        if len(exercise.solutions) != 1:
            yield f"{where}: {len(exercise.solutions)} solutions"
            continue
        try:
            solved = _signatures(exercise.solutions[0])
        except SyntaxError as error:
            yield f"{where}: the solution is no Python: {error}"
            continue
        stubs = _signatures(exercise.cell.source)
        if solved != {name: stubs.get(name) for name in exercise.names}:
            yield f"{where}: the solution defines {solved}, the exercise {stubs}"


@rule
def exercises_have_headings(chapter: Chapter) -> Iterator[str]:
    """Each exercise has a heading `Exercise 3: NAME`, with its number in the chapter, and time for it."""
    text = "\n".join(cell.source for _, cell in _prose_cells(chapter))
    headings = re.findall(r"^### Exercise (\d+): `(\w+)` \(.*\d minutes\)$", text, re.M)
    expected = [(str(n), name) for n, name in enumerate((e.names[0] for e in exercises(chapter.nb)), start=1)]
    if headings != expected:
        wrong = sorted(set(headings) ^ set(expected), key=lambda heading: int(heading[0]))
        yield f"missing, or not where they should be: {wrong or 'their order'}"


@rule
def folds_are_well_formed(chapter: Chapter) -> Iterator[str]:
    """`<details>` blocks are closed, and a blank line follows `</summary>`: else Markdown is not rendered."""
    for i, cell in _prose_cells(chapter):
        if len(re.findall(r"<details\b", cell.source)) != cell.source.count("</details>"):
            yield f"cell {i}: <details> without </details>"
        if re.search(r"</summary>(?![ \t]*\n[ \t]*\n)", cell.source):
            yield f"cell {i}: no blank line after </summary>"


@rule
def checkers_and_exercises_agree(chapter: Chapter) -> Iterator[str]:
    """The chapter's module of checkers has a checker for each exercise, and no more."""
    asked = {name for exercise in exercises(chapter.nb) for name in exercise.names}
    checkers = set()
    for _, cell in code_cells(chapter.nb):
        for node in ast.walk(parsed(cell.source)):
            match node:
                case ast.ImportFrom("course_utils.exercises", [ast.alias(name, "check")]):
                    module = importlib.import_module(f"course_utils.exercises.{name}")
                    checkers |= {n for n, value in vars(module).items() if isinstance(value, Checker)}
    if without := asked - checkers:
        yield f"without a checker: {', '.join(sorted(without))}"
    if unused := checkers - asked:
        yield f"without an exercise: {', '.join(sorted(unused))}"


# How the chapter reads


@rule
def opening_is_complete(chapter: Chapter) -> Iterator[str]:
    """The first cell has the title, what the reader can do afterwards, and a table of what it takes."""
    first = chapter.nb.cells[0] if chapter.nb.cells else {}
    if first.get("cell_type") != "markdown" or not first.source.startswith("# "):
        yield "cell 0: no title"
        return
    if "\n\nAfter this chapter you can " not in first.source:
        yield "cell 0: not what you can do after this chapter"
    for row in ("Time", "Prerequisites", "Device"):
        if not re.search(rf"^\| \*\*{row}\*\* \| .*\w", first.source, re.M):
            yield f"cell 0: no row **{row}**"
    if needs(chapter.nb) is None:
        yield "cell 0: no row **Runs in**, or in other words than tests/notebook_tools.py reads"


@rule
def ending_is_complete(chapter: Chapter) -> Iterator[str]:
    """The last cell has the recap, a table `When you want … | write …`, and what comes next."""
    last = chapter.nb.cells[-1].source if chapter.nb.cells else ""
    for part in ENDING:
        if part not in last:
            yield f"no {part.strip()!r} in the last cell"


@rule
def headings_are_in_order(chapter: Chapter) -> Iterator[str]:
    """One title comes first, and no heading skips a level."""
    levels = [(i, t["attrs"]["level"]) for i, t in _tokens(chapter) if t["type"] == "heading"]
    if [level for _, level in levels[:1]] != [1]:
        yield "the first heading is no title"
    if sum(level == 1 for _, level in levels) > 1:
        yield "more than one title"
    for (_, above), (i, level) in itertools.pairwise(levels):
        if level > above + 1:
            yield f"cell {i}: a heading of level {level} under one of level {above}"


@rule
def cells_are_short(chapter: Chapter) -> Iterator[str]:
    """Code cells have at most 25 lines, and half of them at most 15."""
    lengths = {i: sum(map(bool, map(str.strip, c.source.splitlines()))) for i, c in code_cells(chapter.nb)}
    for i, lines in lengths.items():
        if lines > CELL_LINES:
            yield f"cell {i}: {lines} lines"
    if lengths and statistics.median(lengths.values()) > MEDIAN_LINES:
        yield f"the median is {statistics.median(lengths.values())} lines"


@rule
def paragraphs_are_short(chapter: Chapter) -> Iterator[str]:
    """A paragraph has at most about 80 words."""
    for i, token in _tokens(chapter):
        if token["type"] in {"paragraph", "block_text"}:
            words = re.findall(r"\S*\w\S*", _text(token))
            if len(words) > PARAGRAPH_WORDS:
                yield f"cell {i}: {len(words)} words from {' '.join(words[:6])!r}"


@rule
def no_filler(chapter: Chapter) -> Iterator[str]:
    """No word stands in the text that could be left out."""
    for i, token in _tokens(chapter):
        if token["type"] == "text" and (found := FILLER.search(token["raw"])):
            yield f"cell {i}: {found[0]!r} in {token['raw'][:60]!r}"


@rule
def spelling_is_british(chapter: Chapter) -> Iterator[str]:
    """The text is spelled as in Britain, except for `optimizer`, which is the field's own word."""
    for i, token in _tokens(chapter):
        if token["type"] == "text" and (found := NOT_OURS.search(token["raw"])):
            yield f"cell {i}: {found[0]!r} in {token['raw'][:60]!r}"


@rule
def links_resolve(chapter: Chapter) -> Iterator[str]:
    """Links within the course lead to files and headings that exist; pictures have a text."""
    for i, token in _tokens(chapter):
        if token["type"] == "image" and not _text(token).strip():
            yield f"cell {i}: a picture without words"
        if "html" in token["type"] and re.search(r"<img(?![^>]*\balt=\"[^\"]+\")", token["raw"]):
            yield f"cell {i}: <img> without alt"
        for link in _links(token):
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue  # outside the course
            target = chapter.path.parent / unquote(url.path) if url.path else chapter.path
            if url.path and not target.exists():
                yield f"cell {i}: {link}: no such file"
            elif url.fragment and target.suffix == ".ipynb":
                nb = chapter.nb if target == chapter.path else read_notebook(target)
                if unquote(url.fragment) not in _anchors(Chapter(target, nb, [])):
                    yield f"cell {i}: {link}: no such heading"


# Reading notebooks


def _outputs(chapter: Chapter) -> Iterator[tuple[int, NotebookNode]]:
    return ((i, output) for i, cell in code_cells(chapter.nb) for output in cell.outputs)


def _texts(output: NotebookNode) -> Iterator[tuple[str, str]]:
    """Yield what an output says, with its kind; pictures say nothing."""
    yield "text", output.get("text", "")
    yield "error", "\n".join([output.get("evalue", ""), *output.get("traceback", [])])
    for kind, data in output.get("data", {}).items():
        yield kind, "" if kind.startswith("image/") else str(data)


def _picture_problem(data: str) -> str | None:
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data))).convert("L")
    except (ValueError, OSError, UnidentifiedImageError) as error:
        return f"the picture does not decode: {error}"
    low, high = picture.getextrema()
    return "the picture is blank" if low == high else None


def _signatures(source: str) -> dict[str, str]:
    """Return the functions and classes that a source defines, with the names of their parameters."""
    found = {}
    for node in parsed(source).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ", ".join(a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg))
        elif isinstance(node, ast.ClassDef):
            found[node.name] = "class"
    return found


def _prose_cells(chapter: Chapter) -> Iterator[tuple[int, NotebookNode]]:
    return ((i, cell) for i, cell in enumerate(chapter.nb.cells) if cell.cell_type == "markdown")


def _tokens(chapter: Chapter) -> Iterator[tuple[int, dict]]:
    """Yield all parts of the Markdown, large and small, with the index of their cell."""

    def walk(tokens: list[dict]) -> Iterator[dict]:
        for token in tokens:
            yield token
            yield from walk(token.get("children", []))

    return ((i, token) for i, cell in _prose_cells(chapter) for token in walk(markdown(cell.source)))


def _text(token: dict) -> str:
    if token["type"] in {"softbreak", "linebreak"}:
        return " "
    return token.get("raw", "") + "".join(map(_text, token.get("children", [])))


def _links(token: dict) -> list[str]:
    if token["type"] in {"link", "image"}:
        return [token["attrs"]["url"]]
    if "html" in token["type"]:
        return re.findall(r"\b(?:href|src)=\"([^\"]*)\"", token["raw"])
    return []


def _anchors(chapter: Chapter) -> set[str]:
    """Return the anchors of a notebook's headings as JupyterLab makes them: spaces become dashes."""
    return {_text(t).strip().replace(" ", "-") for _, t in _tokens(chapter) if t["type"] == "heading"}
