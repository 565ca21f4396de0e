"""What a learner has solved: kept once, lost never, shown by chapter, and out of the way of the tests."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from notebook_tools import NOTEBOOKS, ROOT, exercises, notebooks, read_notebook
from refresh import run

from course_utils import progress
from course_utils.exercises import tensors
from course_utils.progress import chapters, record

TENSORS, AUTOGRAD, *_ = chapters()
ALL = len(TENSORS.exercises)
INVERTED = "✔ invert: {0} of {0} checks".format(len(tensors.invert.cases()))
COURSE_FILE = ROOT / "progress.txt"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where progress is kept during a test: in a folder with spaces and Hangul in its name."""
    folder = tmp_path / "my course 파이토치"
    folder.mkdir()
    monkeypatch.setenv("COURSE_PROGRESS", str(folder / "solved.txt"))
    return folder / "solved.txt"


def test_chapters_and_exercises_are_those_of_the_notebooks():
    found = {chapter.number: chapter for chapter in chapters()}
    assert list(found) == [path.name[:2] for path in notebooks()]
    for path in notebooks():
        nb, chapter = read_notebook(path), found[path.name[:2]]
        assert nb.cells[0].source.startswith(f"# {chapter.number} {chapter.title}\n")
        names = [name for exercise in exercises(nb) for name in exercise.names]
        assert sorted(e.partition(".")[2] for e in chapter.exercises) == sorted(names)


# In the notebook


def test_a_check_mark_is_kept_and_counted_once(file, capsys):
    for answer in (lambda image: 16 - image, lambda image: image, lambda image: 16 - image):
        tensors.invert(answer)
    tensors.to_unit(lambda images: images / 16)
    lines = capsys.readouterr().out.splitlines()
    counts = [line for line in lines if line.startswith("  progress  ")]
    assert counts == [f"  progress  chapter 01: {n} of {ALL} solved" for n in (1, 1, 2)]
    assert file.read_text().split() == ["tensors.invert", "tensors.to_unit"]


def test_what_is_not_right_is_not_kept(file, capsys):
    tensors.invert(lambda image: image)
    tensors.invert(lambda image: None)
    tensors.invert(None)
    assert [line[0] for line in capsys.readouterr().out.splitlines() if line[0] != " "] == ["✘", "○", "✘"]
    assert not file.exists()


def test_the_end_of_a_chapter_names_the_next_that_is_open(file):
    file.write_text("\n".join(TENSORS.exercises[1:]))
    assert record(TENSORS.exercises[0]) == f"chapter 01: all {ALL} solved. Next: chapter 02, Autograd"
    file.write_text("\n".join(TENSORS.exercises + AUTOGRAD.exercises))
    assert record(TENSORS.exercises[0]).endswith("Next: chapter 03, Dataset and DataLoader")
    file.write_text("\n".join(AUTOGRAD.exercises[1:]))  # chapter 01 is open, but comes before
    assert record(AUTOGRAD.exercises[0]).endswith("Next: chapter 03, Dataset and DataLoader")
    last = chapters()[-1]
    file.write_text("\n".join(last.exercises))
    assert record(last.exercises[0]).endswith("Next: chapter 01, Tensors")
    file.write_text("\n".join(exercise for chapter in chapters() for exercise in chapter.exercises))
    assert record(TENSORS.exercises[0]) == f"chapter 01: all {ALL} solved. So is the course. Well done!"


def test_an_exercise_of_no_chapter_is_not_kept(file):
    assert record("test_grading.double") is None
    assert not file.exists()


@pytest.mark.parametrize("off", ["off", "OFF", "Off"])
def test_off_keeps_nothing(monkeypatch, tmp_path, off):
    monkeypatch.setenv("COURSE_PROGRESS", off)
    monkeypatch.setattr(progress, "COURSE", tmp_path)
    assert record(TENSORS.exercises[0]) is None
    assert not list(tmp_path.iterdir())


# The file


@pytest.mark.parametrize(
    ("name", "expected"), [(None, "progress.txt"), ("", "progress.txt"), ("mine", "mine")]
)
def test_the_file_is_in_the_folder_of_the_course_wherever_python_starts(
    name, expected, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COURSE_PROGRESS") if name is None else monkeypatch.setenv("COURSE_PROGRESS", name)
    assert progress.progress_file() == ROOT / expected


def test_git_ignores_the_file_of_the_learner():
    ignored = subprocess.run(
        ["git", "check-ignore", "progress.txt"], cwd=ROOT, capture_output=True, text=True
    )
    if ignored.returncode > 1:
        pytest.skip("not a git checkout")
    assert ignored.stdout == "progress.txt\n"


def test_processes_at_once_lose_nothing(file):
    everything = [exercise for chapter in chapters() for exercise in chapter.exercises]
    script = "import sys\nfrom course_utils.progress import record\nprint('ready', flush=True)\ninput()\n"
    script += "for exercise in sys.argv[1:]: record(exercise)"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *everything[part::2]],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(2)
    ]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:  # both have been waiting for this line
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in started] == ["", ""]
    assert sorted(file.read_text().split()) == sorted(everything)


@pytest.mark.parametrize("damage", [b"\xff\xfe\x00", b"\0" * 9, b"tensors.inv", b"{}\n\nmine\n"])
def test_a_damaged_file_keeps_what_is_legible(file, capsys, damage):
    before = f"{TENSORS.exercises[2]}\r\n{AUTOGRAD.exercises[0]}\n".encode() + damage
    file.write_bytes(before)
    tensors.invert(lambda image: 16 - image)
    told = capsys.readouterr().out.splitlines()
    assert told == [INVERTED, f"  progress  chapter 01: 2 of {ALL} solved"]
    assert file.read_bytes() == before + b"\ntensors.invert"


def test_a_file_that_cannot_be_written_leaves_the_verdict(file, capsys):
    file.mkdir()  # not even root can write to it
    tensors.invert(lambda image: 16 - image)
    verdict, complaint = capsys.readouterr().out.splitlines()
    assert verdict == INVERTED
    assert complaint.startswith(f"  progress  not kept: {file}: ")
    assert complaint.endswith("Set COURSE_PROGRESS to a file that you may read and write, or to off.")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions of Unix")
def test_a_read_only_folder_is_named(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # others may enter it, unlike pytest's
        os.chmod(folder, 0o555)
        monkeypatch.setenv("COURSE_PROGRESS", f"{folder}/progress.txt")
        chapters()  # read the checkers while we may
        user = os.geteuid()
        try:
            if user == 0:
                os.seteuid(65534)  # root may write anywhere
            told = record(TENSORS.exercises[0])
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o755)
        assert told == (
            f"not kept: {folder}/progress.txt: Permission denied. "
            "Set COURSE_PROGRESS to a file that you may read and write, or to off."
        )


# The command


def test_the_command_counts_each_chapter_and_names_what_is_left(file, tmp_path):
    file.write_text("\n".join([*TENSORS.exercises, *AUTOGRAD.exercises[1:-1], "?"]), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    environment.pop("HOME", None)
    program = [sys.executable, "-m", "course_utils.progress"]
    shown = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    ours = len(AUTOGRAD.exercises)
    assert lines[:3] == [
        f"01  Tensors                 {ALL:>3} of {ALL:>2} solved",
        f"02  Autograd                {ours - 2:>3} of {ours:>2} solved",
        f"    left: {AUTOGRAD.exercises[0][9:]}, {AUTOGRAD.exercises[-1][9:]}",
    ]
    assert [line[:2] for line in lines[3:-2]] == [chapter.number for chapter in chapters()[2:]]
    total = sum(len(chapter.exercises) for chapter in chapters())
    assert lines[-2:] == ["", f"{ALL + ours - 2} of {total} solved, as kept in {file}"]


def test_the_command_without_a_file_counts_nothing(file, capsys):
    progress.main()
    assert "\n0 of " in capsys.readouterr().out
    assert not file.exists()


def test_the_command_says_why_it_shows_nothing(file, monkeypatch):
    file.mkdir()
    with pytest.raises(SystemExit, match="Set COURSE_PROGRESS to a file"):
        progress.main()
    monkeypatch.setenv("COURSE_PROGRESS", "off")
    with pytest.raises(SystemExit, match="so that no progress is kept: unset it"):
        progress.main()


# The tests


def test_in_the_surroundings_of_the_tests_progress_is_neither_read_nor_written(file):
    before = COURSE_FILE.read_bytes() if COURSE_FILE.exists() else None
    file.write_text("\n".join(TENSORS.exercises[1:]))
    source = "from course_utils.exercises import tensors as check\ncheck.invert(lambda image: 16 - image)"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    run(nb, NOTEBOOKS)
    assert [output.text for output in nb.cells[0].outputs] == [INVERTED + "\n"]
    assert "tensors.invert" not in file.read_text()
    assert (COURSE_FILE.read_bytes() if COURSE_FILE.exists() else None) == before


def test_in_this_process_progress_is_off():
    assert os.environ["COURSE_PROGRESS"] == "off"
