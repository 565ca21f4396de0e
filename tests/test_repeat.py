"""The commands that run notebooks and tests elsewhere: what they refuse, and a silent end."""

import shutil
import subprocess
from pathlib import Path

import pytest
import repeat
import versions
from notebook_tools import NOTEBOOKS


@pytest.mark.parametrize(
    "name", [str(NOTEBOOKS / "01_tensors.ipynb"), "../course/notebooks", "notebooks/no.ipynb"]
)
def test_a_notebook_outside_the_clone_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["repeat.py", "--only", "no-home", name])
    monkeypatch.setattr(repeat, "run", lambda *arguments: pytest.fail("it runs"))
    with pytest.raises(SystemExit):
        repeat.main()
    assert f"{name}: name a notebook from the root of the course" in capsys.readouterr().err


def test_the_oldest_packages_are_the_lower_bounds() -> None:
    assert versions.lower_bounds("# a comment\ntorch>=2.11\nnbval>=0.11\n-e .") == [
        "torch==2.11",
        "nbval==0.11",
    ]


def test_surroundings_may_be_chosen_several_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["repeat.py", "--only", "no-home", "--only", "read-only"])
    monkeypatch.setattr(repeat, "run", lambda surroundings, names: "1 passed")
    assert repeat.main() == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["no-home", "read-only"]


def test_a_silent_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.CompletedProcess([], 1, stdout="")
    monkeypatch.setattr(subprocess, "run", lambda *arguments, **options: ended)
    assert repeat.run(repeat.SURROUNDINGS["no-home"], ["notebooks"]) == "FAILED: nothing was said"


@pytest.mark.skipif(shutil.which("false") is None, reason="needs a program that fails in silence")
def test_a_silent_end_of_the_suite_is_reported(tmp_path: Path) -> None:
    assert versions.run_tests(Path(shutil.which("false")), tmp_path, []) == "FAILED: nothing was said"
