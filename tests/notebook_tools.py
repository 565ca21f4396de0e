"""What the checks of the course share: its notebooks, their exercises and items, and their kernels."""

import ast
import copy
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
SANITIZE = ROOT / "tests" / "sanitize.cfg"
CELL_SECONDS = 120  # the longest that a cell may run

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

SETUP = """\
# Where the course is not installed (Colab, or a lone notebook): fetch it. Installs nothing else.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("course_utils") is None:
    course = Path("..").resolve()  # the folder around this notebook, if it is a clone of the course
    if not (course / "course_utils").is_dir():
        address = "ADDRESS"
        course = Path("FOLDER").resolve()
        if not (course / "course_utils").is_dir():
            subprocess.run(["git", "clone", "--quiet", "--depth=1", address, str(course)], check=True)
    sys.path.insert(0, str(course))"""

DETAILS = re.compile(
    r"<details>\s*<summary>(?P<title>[^<]*)</summary>[ \t]*\n[ \t]*\n(?P<body>.*?)</details>", re.S
)
NEEDS = re.compile(
    r"^\| \*\*Runs in\*\* \| about (\d+) seconds on two CPU cores, in ([\d.]+) GB of memory \|$", re.M
)
FENCE = re.compile(r"^```python\n(.*?)^```", re.S | re.M)


@dataclass(frozen=True)
class Item:
    """One thing that a chapter must teach, as the syllabus lists it."""

    number: str
    title: str
    exercise: bool = False
    mistake: bool = False


@dataclass
class Exercise:
    """An exercise of a notebook: its cell, and what the folded blocks under it hold."""

    index: int
    cell: NotebookNode
    names: list[str]
    hints: list[str] = field(default_factory=list)
    solutions: list[str] = field(default_factory=list)


def notebooks(folder: Path = NOTEBOOKS) -> list[Path]:
    """Return the notebooks of a folder, in the order of the chapters."""
    return sorted(folder.glob("*.ipynb"))


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook as it is, without bringing it to another version of the format."""
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def code_cells(nb: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """Yield each code cell with its index among all cells."""
    return ((i, cell) for i, cell in enumerate(nb.cells) if cell.cell_type == "code")


def tags(cell: NotebookNode) -> list[str]:
    """Return a cell's tags."""
    return cell.metadata.get("tags", [])


def items(cell: NotebookNode) -> set[str]:
    """Return the numbers of the syllabus's items that a cell teaches: tag `item:1.02` → `1.02`."""
    return {tag.removeprefix("item:") for tag in tags(cell) if tag.startswith("item:")}


def needs(nb: NotebookNode) -> tuple[int, float] | None:
    """Return the seconds, and the GB of memory (of 10⁹ bytes), that a notebook states at its top, if any."""
    found = NEEDS.search(nb.cells[0].source) if nb.cells else None
    return (int(found[1]), float(found[2])) if found else None


def syllabus() -> dict[str, list[Item]]:
    """Return the items of each chapter by the name of its notebook, such as `01_tensors`."""
    chapters = tomllib.loads((ROOT / "tests" / "syllabus.toml").read_text(encoding="utf-8"))
    return {name: [Item(**item) for item in chapter] for name, chapter in chapters.items()}


def repository() -> str:
    """Return the address of the course's repository, which is set in pyproject.toml only."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def setup_source() -> str:
    """Return the first code cell of every notebook, for the address of this repository."""
    return SETUP.replace("ADDRESS", repository()).replace("FOLDER", setup_folder())


def setup_folder() -> str:
    """Return the folder that the setup cell clones into: the last part of the address."""
    return repository().rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")


def kernel_environment(ipython_folder: str) -> dict[str, str]:
    """Return the variables under which every kernel of the tests runs.

    The number of threads is left as it is: the outputs hold for any.

    Args:
        ipython_folder: an empty folder in place of the user's own, whose start-up files would run.
    """
    return {
        "COLUMNS": "80",
        "COURSE_PROGRESS": "off",  # what a learner has solved is neither read nor written
        "IPYTHONDIR": ipython_folder,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else the debugger warns about frozen modules
        "PYTHONHASHSEED": "0",
        # Calls in cells. Those in course_utils fail in the tests, by pyproject.toml; elsewhere a library may
        # call its own old functions, which is not for the course to fail on.
        "PYTHONWARNINGS": "error::DeprecationWarning:__main__,error::FutureWarning:__main__",
        "TQDM_DISABLE": "1",  # a progress bar is never the same twice
    }


def parsed(source: str) -> ast.Module:
    """Parse a cell's Python, without its magics and shell commands.

    Raises:
        SyntaxError: the rest is no Python.
    """
    if source.lstrip().startswith("%%"):
        return ast.parse("")  # all of the cell is another language
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M))


def check_lines(source: str) -> list[str]:
    """Return the lines `check.NAME(NAME)` of an exercise's cell."""
    return [ast.get_source_segment(source, node) for node in parsed(source).body if _checked(node)]


def exercises(nb: NotebookNode) -> list[Exercise]:
    """Return a notebook's exercises, each with the hints and solutions that follow its cell."""
    found: list[Exercise] = []
    for index, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            if "exercise" in tags(cell):
                names = [name for node in parsed(cell.source).body if (name := _checked(node))]
                found.append(Exercise(index, cell, names))
        elif found:
            for block in DETAILS.finditer(cell.source):
                title, body = block["title"].strip().lower(), block["body"].strip()
                if title.startswith("hint"):
                    found[-1].hints.append(body)
                elif title.startswith("solution"):
                    found[-1].solutions += [code.strip() for code in FENCE.findall(body)]
    return found


def with_solutions(nb: NotebookNode) -> NotebookNode:
    """Return a copy of a notebook in which each exercise is solved as its folded solution says.

    Raises:
        ValueError: an exercise has not exactly one solution.
    """
    solved = copy.deepcopy(nb)
    for exercise in exercises(solved):
        if len(exercise.solutions) != 1:
            raise ValueError(f"cell {exercise.index} has {len(exercise.solutions)} solutions, not one.")
        lines = check_lines(exercise.cell.source)
        exercise.cell.source = "\n".join([exercise.solutions[0], "", "", *lines])
    return solved


def _checked(node: ast.stmt) -> str | None:
    """Return NAME if a statement is `check.NAME(NAME)`, else None."""
    match node:
        case ast.Expr(ast.Call(ast.Attribute(ast.Name("check"), name), [ast.Name(given)], [])):
            return name if name == given else None
    return None
