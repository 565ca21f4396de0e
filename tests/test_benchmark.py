"""What the notebooks state at their tops about memory, and the benchmark that measures it."""

from pathlib import Path

import nbformat
import pytest
from benchmark_notebooks import run_plain
from nbformat.v4 import new_code_cell, new_notebook
from notebook_tools import needs, notebooks, read_notebook


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_a_chapter_takes_no_more_memory_than_it_states(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    cost, said = run_plain(path)
    assert not said.startswith("FAILED"), said
    assert cost.memory / 1e9 <= needs(read_notebook(path))[1]


def script(folder: Path, *sources: str) -> Path:
    path = folder / "script.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def test_memory_of_child_processes_counts(tmp_path: Path) -> None:
    child = "import time; held = b'x' * 200_000_000; time.sleep(1)"
    source = f'import subprocess, sys\nsubprocess.run([sys.executable, "-c", "{child}"], check=True)'
    cost, said = run_plain(script(tmp_path, source))
    assert said == ""
    assert 0.2e9 < cost.memory < 0.4e9


def test_a_run_keeps_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_PROGRESS", str(tmp_path / "progress.txt"))
    _, said = run_plain(script(tmp_path, 'import os\nprint(os.environ["COURSE_PROGRESS"])'))
    assert said == "off"


def test_an_error_fails_a_script_which_still_runs_to_its_end(tmp_path: Path) -> None:
    path = script(tmp_path, "!ls", "int('no')", "print('the end')")
    _, said = run_plain(path)
    assert said.startswith("FAILED: <cell 1> ValueError(")
    nb = read_notebook(path)
    nb.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(nb, path)
    assert run_plain(path)[1] == "the end"
