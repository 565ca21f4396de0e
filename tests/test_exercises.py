"""Every checker against its stub, the notebook's solution, and the wrong and right answers in `answers/`.

For a chapter whose notebook imports `course_utils.exercises.NAME as check`, `answers/NAME.py` holds
WRONG (exercise → answers, each with a phrase that the verdict must hold) and RIGHT.
"""

import ast
import contextlib
import importlib
import io
import linecache
import re
import socket
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from nbformat import NotebookNode
from notebook_tools import (
    NOTEBOOKS,
    code_cells,
    exercises,
    notebooks,
    parsed,
    read_notebook,
    tags,
    with_solutions,
)

from course_utils.exercises.grading import Exercise

CHAPTERS = {path: read_notebook(path) for path in notebooks()}
MODULES = {
    path: node.names[0].name
    for path, nb in CHAPTERS.items()
    for _, cell in code_cells(nb)
    for node in ast.walk(parsed(cell.source))
    if isinstance(node, ast.ImportFrom) and node.module == "course_utils.exercises"
}
CHECKERS = [
    pytest.param(checker, importlib.import_module(f"answers.{module}"), id=f"{module}.{name}")
    for module in MODULES.values()
    for name, checker in vars(importlib.import_module(f"course_utils.exercises.{module}")).items()
    if isinstance(checker, Exercise)
]


def tries(cells: list[NotebookNode]) -> list[str]:
    """The code that the text under an exercise suggests: `Try it: ...`, then code between backticks."""
    lines = [line for cell in cells for line in cell.source.splitlines() if line.startswith("Try it")]
    return [code for line in lines for code in re.findall(r"`([^`]*[(][^`]*)`", line)]


def _no_network(host: object, *args: object, look_up=socket.getaddrinfo, **kwargs: object) -> object:
    """In place of the look-up of addresses: this computer is found, no other."""
    if host in ("localhost", "127.0.0.1", "::1"):
        return look_up(host, *args, **kwargs)
    raise OSError("a notebook asked for the network")


def is_import(node: ast.stmt) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def test_every_chapter_has_checkers() -> None:
    assert list(MODULES) == list(CHAPTERS)
    assert len(CHECKERS) == sum(len(exercises(nb)) for nb in CHAPTERS.values())


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_stubs_are_not_started(path: Path) -> None:
    """Runs the imports and the unchanged exercise cells."""
    imports = [n for _, c in code_cells(CHAPTERS[path]) for n in parsed(c.source).body if is_import(n)]
    namespace: dict = {}
    exec(compile(ast.Module(imports, []), path.name, "exec"), namespace)
    for exercise in exercises(CHAPTERS[path]):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(exercise.cell.source, namespace)
        assert printed.getvalue() == "".join(f"○ {name}: not started\n" for name in exercise.names)


@pytest.fixture
def settings() -> Iterator[None]:
    """Put back what a notebook that fails half-way would leave behind for the tests after it."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_solutions_pass(path: Path, monkeypatch: pytest.MonkeyPatch, settings: None) -> None:
    """Runs the whole notebook in this process, without a network: solutions, and what they say to try."""
    monkeypatch.chdir(NOTEBOOKS)
    monkeypatch.setattr("socket.getaddrinfo", _no_network)
    for module in ("plotting", "diagrams"):
        monkeypatch.setattr(f"course_utils.{module}.show", lambda fig, alt: plt.close(fig))
    solved = with_solutions(CHAPTERS[path])
    main = types.ModuleType("__main__")  # as in a kernel: pickle looks there for what cells define
    monkeypatch.setitem(sys.modules, "__main__", main)
    namespace = vars(main)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for index, cell in code_cells(solved):
            if "nbval-skip" in tags(cell):
                continue
            name = f"{path.name}, cell {index}"
            lines = cell.source.splitlines(keepends=True)
            linecache.cache[name] = (len(cell.source), None, lines, name)  # for inspect.getsource
            exec(compile(cell.source, name, "exec"), namespace)
            for suggestion in tries(solved.cells[index + 1 : index + 2]):
                exec(compile(suggestion, f"{path.name}, under cell {index}", "exec"), namespace)
    verdicts = [line for line in printed.getvalue().splitlines() if line[:1] in "○✔✘" and line]
    names = [name for e in exercises(CHAPTERS[path]) for name in e.names]
    assert [line.split(":")[0] for line in verdicts] == [f"✔ {name}" for name in names]


@pytest.mark.parametrize(("checker", "answers"), CHECKERS)
def test_wrong_answers_are_refused_with_their_cause(checker: Exercise, answers) -> None:
    wrong = answers.WRONG[checker.name]
    assert len(wrong) >= 4
    for answer, phrase in wrong:
        verdict = checker.grade(answer)
        assert verdict.mark == "✘", phrase
        assert phrase in verdict.text
        assert len(verdict.text.splitlines()) <= 10


@pytest.mark.parametrize(("checker", "answers"), CHECKERS)
def test_answers_right_in_another_way_pass(checker: Exercise, answers) -> None:
    right = answers.RIGHT[checker.name]
    assert len(right) >= 2
    for answer in right:
        verdict = checker.grade(answer)
        assert verdict.mark == "✔", verdict.text


@pytest.mark.parametrize(("checker", "answers"), CHECKERS)
def test_each_known_mistake_is_named(checker: Exercise, answers) -> None:
    for explanation, mistaken in checker.mistakes.items():
        verdict = checker.grade(mistaken)
        assert verdict.mark == "✘", explanation
        assert explanation in verdict.text
