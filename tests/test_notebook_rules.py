"""Each rule of the notebooks can fail: a small sound notebook, broken once for each thing it forbids."""

import base64
import copy
import io
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_tools import METADATA, SANITIZE, Item, exercises, setup_source, syllabus, with_solutions
from PIL import Image
from test_notebooks import RULES, Chapter

from course_utils.exercises.grading import exercise

OPENING = """\
# A small chapter

After this chapter you can double a number.

| | |
|---|---|
| **Time** | 5 minutes |
| **Runs in** | about 10 seconds on two CPU cores, in 0.5 GB of memory |
| **Prerequisites** | none |
| **Device** | any |"""
FOLDED = """\
<details>
<summary>Hint</summary>

Multiply.

</details>
<details>
<summary>Solution</summary>

```python
def double(x):
    return 2 * x
```

</details>"""
ENDING = """\
## Recap

| When you want … | write … |
|---|---|
| twice | `2 * x` |

**Next:** nothing."""
SETUP, IMPORT, EXERCISE, FIGURE, MISTAKE = 1, 3, 4, 7, 8  # where the sample's cells are


def picture(low: int = 0, high: int = 255) -> str:
    image = Image.new("L", (4, 4), low)
    image.putpixel((1, 1), high)
    png = io.BytesIO()
    image.save(png, format="png")
    return base64.b64encode(png.getvalue()).decode()


def said(text: str, name: str = "stdout") -> NotebookNode:
    return new_output("stream", name=name, text=text)


def failed(name: str = "ValueError") -> NotebookNode:
    return new_output("error", ename=name, evalue="no", traceback=["no"])


def code(source: str, *tags: str, outputs: list[NotebookNode] | None = None) -> NotebookNode:
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, outputs=outputs or [])


@pytest.fixture
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chapter:
    """Return a chapter that keeps every rule."""
    checkers = types.ModuleType("course_utils.exercises.sample")

    @exercise(cases=lambda: [(1,)])
    def double(x):
        return 2 * x

    checkers.double = double
    monkeypatch.setitem(sys.modules, checkers.__name__, checkers)
    stub = 'def double(x):\n    """Return twice x."""\n\n\ncheck.double(double)'
    shown = new_output("display_data", {"image/png": picture(), "text/plain": "Figure: a dot."})
    caption = new_output("display_data", {"text/markdown": "*Figure: a dot.*", "text/plain": "<Markdown>"})
    cells = [
        new_markdown_cell(OPENING),
        code(setup_source(), "setup"),
        new_markdown_cell(
            "## Twice\n\nTo [the top](#A-small-chapter), or to [it](01_sample.ipynb#Twice).\n\n"
            "### Exercise 1: `double` (2 minutes)"
        ),
        code("from course_utils.exercises import sample as check"),
        code(stub, "exercise", "item:1.01", outputs=[said("○ double: not started\n")]),
        new_markdown_cell(FOLDED),
        new_markdown_cell("### Look\n\nA dot."),
        code("show(dot)", outputs=[shown, caption]),
        code("raise ValueError('no')", "mistake", "item:1.02", "raises-exception", outputs=[failed()]),
        new_markdown_cell(ENDING),
    ]
    nb = new_notebook(cells=cells, metadata=METADATA)
    for count, cell in enumerate([c for c in cells if c.cell_type == "code"], start=1):
        cell.execution_count = count
    path = tmp_path / "01_sample.ipynb"
    nbformat.write(nb, path)
    return Chapter(path, nb, [Item("1.01", "Twice", exercise=True), Item("1.02", "Errors", mistake=True)])


def problems(chapter: Chapter, name: str) -> list[str]:
    return [problem for rule in RULES if rule.__name__ == name for problem in rule(chapter)]


def test_a_sound_notebook_keeps_every_rule(chapter: Chapter) -> None:
    assert {rule.__name__: list(rule(chapter)) for rule in RULES} == {rule.__name__: [] for rule in RULES}


# Ways to break the sample: (rule, what its complaint says, what to do to the cells)
Break = Callable[[list[NotebookNode]], object]


def prose(text: str) -> Break:
    return lambda cells: cells.insert(len(cells) - 1, new_markdown_cell(text))  # before the recap


def source(index: int, old: str, new: str) -> Break:
    def change(cells: list[NotebookNode]) -> None:
        assert old in cells[index].source
        cells[index].source = cells[index].source.replace(old, new)

    return change


def added(text: str, *tags: str, outputs: list[NotebookNode] | None = None) -> Break:
    return lambda cells: cells.append(code(text, *tags, outputs=outputs))


def printed(text: str) -> Break:
    return added("print(it)", outputs=[said(text)])


def tagged(index: int, *tags: str) -> Break:
    return lambda cells: cells[index].metadata.update(tags=list(tags))


def data(**kinds: str) -> Break:
    def change(cells: list[NotebookNode]) -> None:
        first = cells[FIGURE].outputs[0].data
        first.update({kind.replace("_", "/"): text for kind, text in kinds.items()})

    return change


BREAKS: list[tuple[str, str, Break]] = [
    ("format_is_valid", "4 cells", lambda cells: [cell.update(id="a") for cell in cells[:4]]),
    ("format_is_valid", "id", lambda cells: cells[0].pop("id")),
    ("format_is_valid", "outputs", lambda cells: cells[IMPORT].pop("outputs")),
    ("metadata_is_bare", "collapsed", lambda cells: cells[IMPORT].metadata.update(collapsed=True)),
    ("file_is_small", "bytes", prose("long" * 250_000)),
    ("setup_cell_is_current", "refresh.py", source(SETUP, "--quiet", "--loud")),
    ("setup_cell_is_current", "refresh.py", tagged(SETUP)),
    ("setup_cell_is_current", "refresh.py", lambda cells: cells.insert(SETUP, code("import torch"))),
    ("cells_ran_in_order", "None", lambda cells: cells[IMPORT].update(execution_count=None)),
    ("cells_ran_in_order", "5, not 2", lambda cells: cells[IMPORT].update(execution_count=5)),
    ("cells_ran_in_order", "empty", added(" ")),
    ("no_stderr", "careful", added("warn()", outputs=[said("careful", "stderr")])),
    ("errors_are_expected", "KeyError", added("{}[1]", outputs=[failed("KeyError")])),
    ("errors_are_expected", "raises nothing", added("1", "raises-exception")),
    ("outputs_are_compared", "not tagged", added("now()", "nbval-ignore-output")),
    ("outputs_are_compared", "no assert", added("now()", "nbval-skip", "live")),
    ("nothing_unrepeatable", "%%time", added("%%time\nfit()")),
    ("nothing_unrepeatable", "%timeit", added("%timeit fit()")),
    ("nothing_unrepeatable", "clear_output", added("clear_output(wait=True)")),
    ("nothing_unrepeatable", "display_id", added("display(it, display_id=True)")),
    ("nothing_unrepeatable", "NBVAL_SKIP", added("# NBVAL_SKIP\nfit()")),
    ("nothing_unrepeatable", ";", added("plot();\n")),
    ("outputs_suit_any_machine", "/home/", printed("saved /home/me/model.pt")),
    ("outputs_suit_any_machine", "C:", printed(r"saved C:\me\model.pt")),
    ("outputs_suit_any_machine", "0x7f", printed("<A object at 0x7f3a1b2c>")),
    ("outputs_suit_any_machine", "cuda:0", printed("on cuda:0")),
    ("outputs_suit_any_machine", "2.15.0", printed("torch 2.15.0+cpu")),
    ("outputs_suit_any_machine", "/usr/", lambda cells: cells[MISTAKE].outputs[0].update(evalue="/usr/lib")),
    ("outputs_suit_any_machine", "widget", lambda cells: data(widget="")(cells)),
    ("approximations_are_checked", "≈ 97", added("print('accuracy ≈ 97 %')")),
    ("approximations_are_checked", "≈", added("print(f'accuracy ≈ {accuracy}')")),
    ("figures_are_whole", "blank", data(image_png=picture(255, 255))),
    ("figures_are_whole", "decode", data(image_png="iVBORw0KGgo=")),
    ("figures_are_whole", "image/svg", data(image_svg="<svg/>")),
    ("figures_are_whole", "no words", data(text_plain="<Figure size 640x480>")),
    ("figures_are_whole", "no words", data(text_plain="Figure: ")),
    ("figures_are_whole", "no caption", data(text_plain="Figure: a line.")),
    ("figures_are_whole", "no caption", lambda cells: cells[FIGURE].outputs.pop()),
    ("items_are_covered", "missing: 1.01", tagged(EXERCISE, "exercise")),
    ("items_are_covered", "not in the syllabus: 2.01", added("1", "item:2.01")),
    ("items_are_covered", "without code", tagged(0, "item:1.01")),
    ("exercises_and_mistakes_are_there", "1.01 Twice", tagged(EXERCISE, "item:1.01")),
    ("exercises_and_mistakes_are_there", "1.02 Errors", tagged(MISTAKE, "item:1.02")),
    ("exercises_are_stubs", "last line", added("def f(): ...", "exercise")),
    ("exercises_are_stubs", "last line", added("%%bash\nls *", "exercise")),
    ("exercises_are_stubs", "last line", source(EXERCISE, "double(double)", "double(double)\nprint(1)")),
    ("exercises_are_stubs", "double is not defined", source(EXERCISE, "def double", "def twice")),
    ("exercises_are_stubs", "✔", lambda cells: cells[EXERCISE].update(outputs=[said("✔ double: 1 of 1")])),
    ("exercises_have_hint_and_solution", "no hint", source(EXERCISE + 1, "Hint", "Note")),
    ("exercises_have_hint_and_solution", "no hint", source(EXERCISE + 1, "Multiply.", "")),
    ("exercises_have_hint_and_solution", "0 solutions", source(EXERCISE + 1, "Solution", "Note")),
    ("exercises_have_hint_and_solution", "2 solutions", prose(FOLDED)),
    ("exercises_have_hint_and_solution", "no Python", source(EXERCISE + 1, "2 * x", "2 x")),
    ("exercises_have_hint_and_solution", "defines", source(EXERCISE + 1, "double(x)", "double(y)")),
    ("exercises_have_hint_and_solution", "defines", source(EXERCISE + 1, "double", "twice")),
    ("exercises_have_headings", "double", source(2, "### Exercise 1", "### Exercise 2")),
    ("exercises_have_headings", "double", source(2, "`double`", "`triple`")),
    ("exercises_have_headings", "double", source(2, " (2 minutes)", "")),
    ("folds_are_well_formed", "</details>", prose("<details>")),
    ("folds_are_well_formed", "blank line", source(EXERCISE + 1, "Hint</summary>\n", "Hint</summary>")),
    ("checkers_and_exercises_agree", "without an exercise: double", tagged(EXERCISE, "item:1.01")),
    ("checkers_and_exercises_agree", "without a checker: double", source(IMPORT, "check", "c")),
    ("opening_is_complete", "no title", lambda cells: cells.pop(0)),
    ("opening_is_complete", "Time", source(0, "5 minutes", "")),
    ("opening_is_complete", "Runs in", source(0, "10 seconds", "a moment")),
    ("opening_is_complete", "Prerequisites", source(0, "Prerequisites", "It takes")),
    ("opening_is_complete", "Device", source(0, "**Device**", "Device")),
    ("opening_is_complete", "what you can do", source(0, "After this chapter", "Soon")),
    ("ending_is_complete", "Recap", source(-1, "## Recap", "## End")),
    ("ending_is_complete", "When you want", source(-1, "…", "...")),
    ("ending_is_complete", "Next", source(-1, "**Next:**", "Next:")),
    ("headings_are_in_order", "no title", source(0, "# A", "## A")),
    ("headings_are_in_order", "more than one", prose("# Another")),
    ("headings_are_in_order", "level 4", prose("## Next\n\n#### Deep")),
    ("cells_are_short", "26 lines", added("\n\n".join(["fit()"] * 26))),
    ("cells_are_short", "median", lambda cells: [added("fit()\n" * 16)(cells) for _ in range(6)]),
    ("paragraphs_are_short", "91 words", prose("word " * 91)),
    ("paragraphs_are_short", "91 words", prose("- a\n- " + "word\n" * 91)),
    ("no_filler", "simply", prose("You simply *add* it.")),
    ("no_filler", "Just", prose("- Just add it.")),
    ("no_filler", "In this section", prose("In this section you add.")),
    ("no_filler", "powerful", prose("| a |\n|-|\n| powerful |")),
    ("spelling_is_british", "optimiser", prose("An optimiser steps.")),
    ("spelling_is_british", "Normalized", prose("- Normalized *colours*.")),
    *(
        ("spelling_is_british", word, prose(f"This {word} that."))
        for word in (
            "behavior",
            "center",
            "colors",
            "gray",
            "neighbors",
            "initialize",
            "minimizing",
            "recognize",
        )
    ),
    ("links_resolve", "no such file", prose("[the next chapter](02_missing.ipynb)")),
    ("links_resolve", "no such file", prose('<a href="missing.md">the guide</a>')),
    ("links_resolve", "no such heading", prose("[below](#Thrice)")),
    ("links_resolve", "no such heading", prose("[there](01_sample.ipynb#Thrice)")),
    ("links_resolve", "without words", prose("![](01_sample.ipynb)")),
    ("links_resolve", "without alt", prose('<img src="01_sample.ipynb">')),
]


@pytest.mark.parametrize(("name", "complaint", "change"), BREAKS)
def test_a_broken_notebook_is_seen(chapter: Chapter, name: str, complaint: str, change: Break) -> None:
    change(chapter.nb.cells)
    assert [problem for problem in problems(chapter, name) if complaint in problem]


def test_every_rule_is_broken_once() -> None:
    assert {rule.__name__ for rule in RULES} == {name for name, *_ in BREAKS}


def test_what_is_not_in_the_cells_is_seen(chapter: Chapter) -> None:
    chapter.nb.metadata["authors"] = []
    chapter.nb.nbformat_minor = 4
    chapter.items.clear()
    assert problems(chapter, "metadata_is_bare")
    assert "format 4.4" in problems(chapter, "format_is_valid")
    assert "no items" in problems(chapter, "items_are_covered")[0]


@pytest.mark.parametrize(
    "text",
    [
        "`just` a name",
        "```\nsimply\n```",
        "adjust",
        "`color`, an optimizer",
        "[out](https://example.org/#a)",
        "word " * 90,
    ],
)
def test_what_is_allowed_passes(chapter: Chapter, text: str) -> None:
    prose(text)(chapter.nb.cells)
    assert not any(problems(chapter, rule.__name__) for rule in RULES)


@pytest.mark.parametrize(
    "text", ["https://example.org/a/b", "3/4/5", "<b>a</b>/<i>b</i>", "~/runs/1", "a/b/c"]
)
def test_what_any_machine_prints_passes(chapter: Chapter, text: str) -> None:
    printed(text)(chapter.nb.cells)
    assert not problems(chapter, "outputs_suit_any_machine")


def test_a_live_cell_may_go_uncompared(chapter: Chapter) -> None:
    added("%tensorboard --logdir runs", "nbval-skip", "live")(chapter.nb.cells)
    added("assert port_is_open()")(chapter.nb.cells)
    assert not problems(chapter, "outputs_are_compared")


# The tools


def test_solutions_take_the_place_of_stubs(chapter: Chapter) -> None:
    before = copy.deepcopy(chapter.nb)
    solved = with_solutions(chapter.nb)
    assert solved.cells[EXERCISE].source == "def double(x):\n    return 2 * x\n\n\ncheck.double(double)"
    assert chapter.nb == before
    assert [(e.index, e.names, e.hints) for e in exercises(chapter.nb)] == [
        (EXERCISE, ["double"], ["Multiply."])
    ]


def test_a_missing_solution_is_named(chapter: Chapter) -> None:
    chapter.nb.cells.pop(EXERCISE + 1)
    with pytest.raises(ValueError, match=f"cell {EXERCISE} has 0 solutions"):
        with_solutions(chapter.nb)


def test_the_syllabus_has_sixteen_chapters_of_numbered_items() -> None:
    chapters = syllabus()
    assert [name[:2] for name in chapters] == [f"{n:02}" for n in range(1, 17)]
    for name, listed in chapters.items():
        assert [item.number for item in listed] == [
            f"{int(name[:2])}.{n:02}" for n in range(1, len(listed) + 1)
        ]


# What nbval overlooks, and what it does not


def sanitized(text: str) -> str:
    plugin = pytest.importorskip("nbval.plugin")
    for pattern, replacement in plugin.get_sanitize_patterns(SANITIZE.read_text(encoding="ascii")):
        text = re.sub(pattern, replacement, text)
    return text


OVERLOOKED = [
    ("accuracy ≈ 97 %", "accuracy ≈ 96.5 %"),
    ("loss ≈ 9.5e-05, accuracy ≈ 9 %", "loss ≈ 0.00012, accuracy ≈ 10 %"),
    ("≈  9.75 s", "≈ 10.25 s"),
    ("≈ 1,024 kB", "≈ -3 kB"),
    ("tensor([1., 2.])", "tensor([1., 2.], device='cuda:0')"),
    ("tensor([1], dtype=torch.int8)", "tensor([1],\n       device='cuda:0', dtype=torch.int8)"),
    ("tensor([1.],\n       requires_grad=True)", "tensor([1.], device='mps:0', requires_grad=True)"),
    ("device(type='cpu')", "device(type='cuda', index=0)"),
    ("cpu", "cuda:0"),
    ("the device is 'cpu'.", "the device is 'mps:0'."),
    ("found cpu and cpu!", "found cuda:0 and cpu!"),
    ("<A object at 0x7f3a1b2c3d4e>", "<A object at 0x7f0000000001>"),
]
SEEN = [
    ("≈ 97 %", "≈ 97 s"),
    ("≈ 97 %", "≈ nan %"),
    ("≈ 97 %, 12 images", "≈ 97 %, 13 images"),
    ("97 %", "98 %"),
    ("tensor([1., 2.])", "tensor([1., 3.], device='cuda:0')"),
    ("tensor([1])", "tensor([[1]], device='cuda:0')"),
    ("tensor([1], dtype=torch.int8)", "tensor([1], device='cuda:0')"),
    ("tensor([1],\n       [2])", "tensor([1], [2])"),
    ("device(type='cpu')", "device(type='meta')"),
    ("tensor([1], device='meta')", "tensor([1])"),
    ("2 cpus", "2 cudas"),
    ("torch.cuda.synchronize", "torch.cpu.synchronize"),
    ("on cuda:0, shape (2, 3)", "on cpu, shape (3, 2)"),
    ("0x3f800000", "0x3f800001"),
    ("loss 2.12", "loss 2.13"),
]


@pytest.mark.parametrize(("stored", "new"), OVERLOOKED)
def test_overlooked(stored: str, new: str) -> None:
    assert sanitized(stored) == sanitized(new)


@pytest.mark.parametrize(("stored", "new"), SEEN)
def test_seen(stored: str, new: str) -> None:
    assert sanitized(stored) != sanitized(new)
