"""Notebooks come out byte for byte the same, refreshing spoils none, and `pytest --nbval` is strict."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_tools import METADATA, ROOT, notebooks, setup_source

pytestmark = pytest.mark.slow


def run(*command: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module or a script of this Python in a folder; both of its streams are its output."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
    )


def write(path: Path, *cells: tuple[str, str], tags: tuple[str, ...] = ()) -> Path:
    """Write a notebook of cells given as (source, what they print) to a path, and return the path."""
    nb = new_notebook(cells=[new_markdown_cell("# A sample", id="title")], metadata=METADATA)
    for count, (source, text) in enumerate(cells, start=1):
        outputs = [new_output("stream", name="stdout", text=text)] if text else []
        metadata = {"tags": list(tags)} if tags else {}
        nb.cells.append(
            new_code_cell(
                source, id=f"cell-{count}", execution_count=count, outputs=outputs, metadata=metadata
            )
        )
    nbformat.write(nb, path)
    return path


@pytest.fixture
def course(tmp_path: Path) -> Path:
    """Return a copy of the course, without what is neither a notebook nor needed to run one."""
    for name in ("notebooks", "tests", "data", "course_utils"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """Return a sound notebook that has been refreshed."""
    path = write(tmp_path / "sample.ipynb", (setup_source(), ""), ("print('accuracy ≈ 97 %', 6 * 7)", ""))
    nb = nbformat.read(path, as_version=4)
    nb.cells[1].metadata["tags"] = ["setup"]
    nbformat.write(nb, path)
    result = run(ROOT / "tests" / "refresh.py", path, folder=tmp_path)
    assert result.returncode == 0, result.stdout
    assert result.stdout.startswith("updated")
    return path


# The notebooks of the course


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_another_number_of_threads_changes_no_byte(course: Path, path: Path) -> None:
    stored = path.read_bytes()
    copied = course / "notebooks" / path.name
    threads = "2" if torch.get_num_threads() == 1 else "1"
    result = run("tests/refresh.py", copied, folder=course, OMP_NUM_THREADS=threads)
    assert result.returncode == 0, result.stdout
    assert copied.read_bytes() == stored


# Refreshing


def test_an_unchanged_notebook_stays_as_it_is(sample: Path) -> None:
    stored = sample.read_bytes()
    for arguments in ([sample], ["--check", sample]):
        result = run(ROOT / "tests" / "refresh.py", *arguments, folder=sample.parent)
        assert (result.returncode, result.stdout.split()[0]) == (0, "unchanged")
        assert sample.read_bytes() == stored


def test_what_changes_is_stored_and_nothing_else(sample: Path) -> None:
    stored = sample.read_text(encoding="utf-8")
    stale = stored.replace("≈ 97 % 42", "≈ 96 % 41").replace("--quiet", "--loud")
    stale = stale.replace('"metadata": {}', '"metadata": {"collapsed": true}')
    stale = stale.replace('"execution_count": 2', '"execution_count": 7')
    sample.write_text(stale, encoding="utf-8")
    checked = run(ROOT / "tests" / "refresh.py", "--check", sample, folder=sample.parent)
    assert (checked.returncode, checked.stdout.split()[0]) == (1, "stale")
    assert sample.read_text(encoding="utf-8") == stale
    assert run(ROOT / "tests" / "refresh.py", sample, folder=sample.parent).returncode == 0
    assert sample.read_text(encoding="utf-8") == stored


def test_only_digits_behind_the_sign_keep_the_stored_output(sample: Path) -> None:
    stored = sample.read_text(encoding="utf-8").replace("≈ 97 % 42\\n", "≈ 96 % 42\\n")
    sample.write_text(stored, encoding="utf-8")
    result = run(ROOT / "tests" / "refresh.py", sample, folder=sample.parent)
    assert (result.returncode, result.stdout.split()[0]) == (0, "unchanged")


def test_the_setup_cell_is_inserted(tmp_path: Path) -> None:
    path = write(tmp_path / "new.ipynb", ("print(1)", ""))
    assert run(ROOT / "tests" / "refresh.py", path, folder=tmp_path).returncode == 0
    first, second = nbformat.read(path, as_version=4).cells[1:]
    assert (first.source, first.metadata.tags, first.execution_count) == (setup_source(), ["setup"], 1)
    assert (second.id, second.execution_count, second.outputs[0].text) == ("cell-1", 2, "1\n")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = {}\nx['here']", r"raises KeyError\n    x = {}\n    x\['here'\]\n  \| .*KeyError: 'here'"),
        ("import os\nos._exit(1)", "ends the kernel"),
        ("import sys\nprint('careful', file=sys.stderr)", "writes to stderr.*careful"),
        ("import warnings\nwarnings.warn('old', FutureWarning)", "FutureWarning: old"),
    ],
)
def test_a_notebook_that_fails_is_left_as_it_was(tmp_path: Path, source: str, complaint: str) -> None:
    path = write(tmp_path / "bad.ipynb", ("print(1)", "2\n"), (source, ""))
    before = path.read_bytes()
    result = run(ROOT / "tests" / "refresh.py", path, folder=tmp_path)
    assert result.returncode == 1
    assert re.search(rf"failed +{re.escape(str(path))}: cell 3 .*{complaint}", result.stdout, re.S)
    assert path.read_bytes() == before


# pytest --nbval

WARN = "import warnings\nwarnings.warn('old', {}Warning)"
SAMPLES = {  # name: (is right, source, stored output)
    "faithful": (True, "print(6 * 7)", "42\n"),
    "digit": (False, "print(6 * 7)", "43\n"),
    "added": (False, "print(6 * 7)", ""),
    "missing": (False, "6 * 7 == 42 or print()", "42\n"),
    "approximate": (True, "print('accuracy ≈ 97 %')", "accuracy ≈ 96.5 %\n"),
    "beyond": (False, "print('accuracy ≈ 97 %, 12')", "accuracy ≈ 97 %, 13\n"),
    "device": (True, "print('on cpu')", "on cuda:0\n"),
    "deprecated": (False, WARN.format("Deprecation"), ""),
    "future": (False, WARN.format("Future"), ""),
    "stderr": (False, "import sys\nprint('careful', file=sys.stderr)", ""),
    "error": (False, "1 / 0", ""),
    "own_start_up_files": (True, "print('poison' in globals())", "False\n"),
    "hashes": (True, "import os\nprint(os.environ['PYTHONHASHSEED'])", "0\n"),
    "folder": (True, "from pathlib import Path\nprint(Path('conftest.py').exists())", "False\n"),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run pytest over the samples, from another folder, as a user with start-up files; say who passed."""
    course = tmp_path_factory.mktemp("course")
    (course / "tests").mkdir()
    (course / "notebooks").mkdir()
    for name in ("conftest.py", "pyproject.toml", "tests/notebook_tools.py", "tests/sanitize.cfg"):
        shutil.copy(ROOT / name, course / name)
    start_up = course / "home" / "profile_default" / "startup"
    start_up.mkdir(parents=True)
    (start_up / "00.py").write_text("poison = 1\n")
    for name, (_, source, text) in SAMPLES.items():
        write(course / "notebooks" / f"{name}.ipynb", (source, text))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    result = run(
        *("-m", "pytest", "--nbval", "-q", "-rA", "--color=no", course / "notebooks"),
        folder=elsewhere,
        IPYTHONDIR=str(course / "home"),
    )
    found = re.findall(r"^(PASSED|FAILED) \S*?(\w+)\.ipynb::Cell 0", result.stdout, re.M)
    assert len(found) == len(SAMPLES), result.stdout
    return {name: verdict for verdict, name in found}


@pytest.mark.parametrize("name", SAMPLES)
def test_nbval_is_strict(outcomes: dict[str, str], name: str) -> None:
    assert outcomes[name] == ("PASSED" if SAMPLES[name][0] else "FAILED")


@pytest.mark.parametrize("path", notebooks()[:1], ids=lambda path: path.stem)
def test_one_digit_of_a_chapter_is_enough(course: Path, path: Path) -> None:
    copied = course / "notebooks" / path.name
    nb = json.loads(copied.read_text(encoding="utf-8"))
    printed = [o["text"] for cell in nb["cells"] for o in cell.get("outputs", []) if "text" in o]
    text = next(text for text in printed if re.search(r"\d", text[0]) and "≈" not in text[0])
    text[0] = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), text[0], count=1)
    copied.write_text(json.dumps(nb), encoding="utf-8")
    result = run("-m", "pytest", "--nbval", "-q", "--color=no", copied, folder=course / "tests")
    assert result.returncode == 1
    assert re.search(r"^1 failed, \d+ passed", result.stdout, re.M), result.stdout


def test_without_nbval_the_missing_plugin_is_named(course: Path) -> None:
    result = run("-m", "pytest", "-p", "no:nbval", "--nbval", folder=course)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--nbval needs the plugin nbval: pip install -r requirements.txt" in result.stdout
