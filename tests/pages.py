"""Write the pages that gather what the notebooks hold: `python tests/pages.py [--check]`.

- docs/calls.md: where each function, class and method of the libraries is taught.
- docs/glossary.md: each term, in the sentence of the notebooks that defines it. There, and only there, a
  term is bold: bold text of up to three words, without digits or marks, outside of tables, folded blocks
  and headings. **Predict** is no term.
- docs/exercises.md: each exercise with its checker, and how many answers the tests put to it.
"""

import argparse
import ast
import importlib
import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from called import LIBRARIES, Calls, Known
from nbformat import NotebookNode
from notebook_tools import (
    DETAILS,
    ROOT,
    code_cells,
    exercises,
    items,
    notebooks,
    parsed,
    read_notebook,
)

from course_utils.exercises.limits import undisturbed

DOCS = ROOT / "docs"
TERM = re.compile(r"\*\*(?!predict\*)([^\W\d][\w'’-]*(?: [\w'’-]+){0,2})\*\*", re.I)
BLOCKS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-#|]|\d+\.)\s*\S)")
SENTENCES = re.compile(r"(?<=[.?!])(?:[)*\"]*)\s+(?=[(*`\"√A-Z])")
MOST_ITEMS = 4  # of a call that many items use, the first few are listed


# Reading a chapter


def walk(nb: NotebookNode) -> Iterator[tuple[str, str | NotebookNode]]:
    """Yield each paragraph, list item and table row of the text, and each code cell, under its heading."""
    heading = ""
    for cell in nb.cells:
        if cell.cell_type == "code":
            yield heading, cell
            continue
        text = re.sub(r"^```.*?^```", "", DETAILS.sub("", cell.source), flags=re.S | re.M)
        for block in filter(None, (" ".join(block.split()) for block in BLOCKS.split(text))):
            if block.startswith("#"):
                heading = re.sub("[`*]", "", block.lstrip("# "))
            else:
                yield heading, block


def link(text: str, path: Path, heading: str) -> str:
    """Return a link from a page in docs/ to a heading of a notebook, with JupyterLab's anchor."""
    anchor = quote(heading.replace(" ", "-"), safe=":,'?")
    return f"[{text}](../notebooks/{path.name}#{anchor})"


def table(*rows: tuple[object, ...]) -> str:
    """Return a table in Markdown; the first row is its head."""
    lines = ["| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


# The glossary


@dataclass
class Term:
    """A term, the sentence that defines it, and where it stands."""

    name: str
    sentence: str
    path: Path
    heading: str


def terms(path: Path, nb: NotebookNode) -> Iterator[Term]:
    """Yield the terms that a chapter defines."""
    for heading, block in walk(nb):
        if not isinstance(block, str) or block.startswith("|"):
            continue
        block = re.sub(r"^(?:-|\d+\.) ", "", block)
        plain = re.sub(r"`[^`]*`", lambda code: "`" + "x" * (len(code[0]) - 2) + "`", block)
        ends = [0, *(m.end() for m in SENTENCES.finditer(plain)), len(block)]
        for start, end in itertools.pairwise(ends):
            for found in TERM.finditer(plain, start, end):
                at_start = not re.search(r"\w", plain[start : found.start()])
                name = found[1][0].lower() + found[1][1:] if at_start else found[1]
                sentence = re.sub(r"(?<=[\w*`])$", ".", block[start:end].strip(" :;,"))
                sentence = re.sub(r"^([*(]*)([a-z])", lambda m: m[1] + m[2].upper(), sentence)
                sentence = re.sub(
                    r"\]\((?!https?:)([^)#]*)", lambda m: f"](../notebooks/{m[1] or path.name}", sentence
                )
                yield Term(name, sentence, path, heading)


def glossary() -> str:
    """Return a table of all terms.

    Raises:
        ValueError: a term is defined twice.
    """
    found: dict[str, Term] = {}
    for path in notebooks():
        for term in terms(path, read_notebook(path)):
            if other := found.get(term.name.casefold()):
                places = f"{other.path.stem}, {other.heading!r}, and in {term.path.stem}, {term.heading!r}"
                raise ValueError(f"{term.name!r} is bold in {places}. Let one be bold: where it is defined.")
            found[term.name.casefold()] = term
    rows = []
    for _, term in sorted(found.items()):
        place = f"{term.path.stem[:2]} {re.sub(r'^[0-9]{2} | [(].* minutes[)]$', '', term.heading)}"
        rows.append((term.name, term.sentence, link(place, term.path, term.heading)))
    return table(("Term", "In the words of the course", "Where"), *rows)


# The index of calls


def index_of_calls() -> str:
    """Return a table of what the chapters call, for each library, with the items in the order they come."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    names: dict[int, Known] = {}  # one name for each object
    for path in notebooks():
        reader = Calls()
        for heading, cell in walk(read_notebook(path)):
            for call in () if isinstance(cell, str) else reader.read(cell.source):
                library, _, rest = call.name.partition(".")
                if library in LIBRARIES and not rest.startswith("exercises."):
                    name = names.setdefault(id(call.value), call).name
                    for number in sorted(items(cell)):
                        places[name].setdefault(number, link(number, path, heading))
    parts = []
    for library in sorted(LIBRARIES, key=lambda name: (name == "course_utils", name)):
        rows = []
        for name in sorted((n for n in places if n.startswith(library + ".")), key=str.casefold):
            first, *more = places[name].values()
            rows.append((f"`{name}`", ", ".join([f"**{first}**", *more[: MOST_ITEMS - 1]])))
        parts += [f"## {library}", table(("Call", "Items"), *rows)] if rows else []
    return "\n\n".join(parts)


# The table of exercises


COUNTS = ("Checks", "Wrong answers refused", "Mistakes named", "Right answers accepted")


def table_of_exercises() -> str:
    """Return tables of all exercises: checks, and the answers that the tests put to the checkers."""
    totals, parts = [], []
    for path in notebooks():
        nb = read_notebook(path)
        module = next(
            node.names[0].name
            for _, cell in code_cells(nb)
            for node in ast.walk(parsed(cell.source))
            if isinstance(node, ast.ImportFrom) and node.module == "course_utils.exercises"
        )
        checkers = importlib.import_module(f"course_utils.exercises.{module}")
        answers = importlib.import_module(f"answers.{module}")
        headings = {cell.id: heading for heading, cell in walk(nb) if not isinstance(cell, str)}
        rows = []
        for number, exercise in enumerate(exercises(nb), start=1):
            (name,) = exercise.names
            checker, heading = getattr(checkers, name), headings[exercise.cell.id]
            with undisturbed():
                checks = len(checker.cases())
            right = len(answers.RIGHT[name]) + len(exercise.solutions)
            counts = (checks, len(answers.WRONG[name]), len(checker.mistakes), right)
            numbers = ", ".join(sorted(items(exercise.cell)))
            rows.append((number, link(f"`{name}`", path, heading), numbers, *counts))
        total = [sum(row[i] for row in rows) for i in range(3, 7)]
        totals.append((f"[{path.stem}](#{path.stem})", len(rows), *total))
        head = ("", "Exercise", "Items", *COUNTS)
        source = f"[{module}.py](../course_utils/exercises/{module}.py)"
        parts.append(f"## {path.stem}\n\nCheckers: {source}\n\n{table(head, *rows)}")
    everything = [sum(row[i] for row in totals) for i in range(1, 6)]
    head = ("Chapter", "Exercises", *COUNTS)
    return "\n\n".join([table(head, *totals, ("**all**", *everything)), *parts])


# The pages

PAGES: dict[str, tuple[str, str, Callable[[], str]]] = {
    "calls.md": (
        "Index of calls",
        "What the chapters call, and the items of the course where they do, each linked to its section. The"
        f" first is bold; at most {MOST_ITEMS} are listed. A method stands under its class. The cells were"
        " read, not run: a method of an object whose class reading does not tell may be missing.",
        index_of_calls,
    ),
    "glossary.md": (
        "Glossary",
        "Each term, with the sentence of the notebooks that defines it, and the section where it stands.",
        glossary,
    ),
    "exercises.md": (
        "Exercises",
        "Each exercise, and how its checker is tested by tests/test_exercises.py. *Checks*: the cases that"
        " an answer must get right. *Wrong answers refused*: those of tests/answers, each with its reason."
        " *Mistakes named*: those that the checker itself knows, and explains. *Right answers accepted*:"
        " those of tests/answers, and the solution in the notebook.",
        table_of_exercises,
    ),
}


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    title, words, body = PAGES[name]
    return f"# {title}\n\n{words}\n\n{body()}\n\n*Written by `python tests/pages.py`; do not edit.*\n"


def main() -> int:
    """Write the pages; with --check write nothing, and return 1 if one is not what would be written."""
    parser = argparse.ArgumentParser(description="Write the pages that gather what the notebooks hold.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page would change")
    check = parser.parse_args().check
    stale = []
    for name in PAGES:
        path, text = DOCS / name, page(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8", newline="\n")
    print("\n".join(f"{'stale' if check else 'written':<8} docs/{name}" for name in stale) or "unchanged")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
