"""What chapter 06 builds in the open, and `course_utils.checkpoints`, keep the same promises.

The functions of the notebook are taken from its cells by their names; nothing else of it runs.
"""

import ast
import os
import random
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from notebook_tools import NOTEBOOKS, code_cells, parsed, read_notebook

from course_utils import checkpoints, seed_everything

CHAPTER = NOTEBOOKS / "06_save_and_load.ipynb"
DEFINITIONS = {"DigitNet", "Run", "start", "train", "run_state", "resume", "save_atomically"}
EPOCHS, CUT = 3, 1


def taken_from_the_notebook() -> types.SimpleNamespace:
    """Return the names that the chapter's imports, its data and DEFINITIONS make."""
    nodes, found = [], set()
    for _, cell in code_cells(read_notebook(CHAPTER)):
        body = parsed(cell.source).body
        nodes += [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
        if "train_set =" in cell.source:
            nodes += [node for node in body if isinstance(node, ast.Assign)]
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in DEFINITIONS:
                nodes.append(node)
                found.add(node.name)
    assert found == DEFINITIONS
    module = types.ModuleType("chapter_06")
    exec(compile(ast.Module(nodes, []), CHAPTER.name, "exec"), vars(module))
    return types.SimpleNamespace(**vars(module))


CHAPTER_06 = taken_from_the_notebook()
SAVES = [
    pytest.param(CHAPTER_06.save_atomically, id="notebook"),
    pytest.param(checkpoints.save_checkpoint, id="course_utils"),
]


def parts(run: Any) -> dict[str, Any]:
    return {"scheduler": run.scheduler, "generator": run.generator}


def package_state(run: Any) -> dict[str, Any]:
    return {**checkpoints.training_state(run.model, run.optimizer, **parts(run)), "losses": run.losses}


def package_resume(state: dict[str, Any]) -> Any:
    run = CHAPTER_06.start()
    state = dict(state)
    run.losses = list(state.pop("losses"))
    checkpoints.restore_training(state, run.model, run.optimizer, **parts(run))
    return run


RESUMES = [
    pytest.param(CHAPTER_06.run_state, CHAPTER_06.resume, id="notebook"),
    pytest.param(package_state, package_resume, id="course_utils"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the chapter computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undisturbed() -> Any:
    run = CHAPTER_06.start()
    CHAPTER_06.train(run, EPOCHS)
    return run


@pytest.mark.parametrize("save", SAVES)
def test_a_saved_file_is_read_by_torch_load(save: Callable, tmp_path: Path) -> None:
    state = {"model": {"w": torch.arange(6.0).reshape(2, 3)}, "epoch": 7, "lr": [0.5, 0.25]}
    save(tmp_path / "a.pt", state)
    loaded = torch.load(tmp_path / "a.pt", weights_only=True)
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert (loaded["epoch"], loaded["lr"]) == (7, [0.5, 0.25])
    assert os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("save", SAVES)
def test_a_new_file_takes_the_place_of_the_old(save: Callable, tmp_path: Path) -> None:
    for epoch in (1, 2):
        save(tmp_path / "a.pt", {"epoch": epoch})
    assert torch.load(tmp_path / "a.pt") == {"epoch": 2}
    assert os.listdir(tmp_path) == ["a.pt"]


@pytest.mark.parametrize("moment", ["writing", "forcing", "renaming"])
@pytest.mark.parametrize("save", SAVES)
def test_a_failure_leaves_the_old_file(
    save: Callable, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "a.pt", {"epoch": 1})
    before = (tmp_path / "a.pt").read_bytes()
    meanwhile: list[bytes] = []  # compared at the end: an assertion in `fail` may be taken for its failure

    def fail(*arguments: Any, **_: Any) -> None:
        if moment == "writing":
            arguments[1].write(b"half")
        meanwhile.append((tmp_path / "a.pt").read_bytes())
        raise OSError(28, "No space left on device")

    target = {"writing": (torch, "save"), "forcing": (os, "fsync"), "renaming": (os, "replace")}[moment]
    with monkeypatch.context() as patch:
        patch.setattr(*target, fail)
        with pytest.raises((OSError, checkpoints.CheckpointError)):
            save(tmp_path / "a.pt", {"epoch": 2})
    assert meanwhile
    assert all(contents == before for contents in meanwhile)
    assert (tmp_path / "a.pt").read_bytes() == before
    assert torch.load(tmp_path / "a.pt") == {"epoch": 1}
    save(tmp_path / "a.pt", {"epoch": 3})  # what the failure has left behind does no harm
    assert torch.load(tmp_path / "a.pt") == {"epoch": 3}


@pytest.mark.parametrize("save", SAVES)
def test_the_file_is_forced_to_the_disk_before_the_rename(
    save: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file.flush() does not show here: nearly all of the file has left Python's buffer before."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def forced(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 500_000:
            events.append("forced")
        fsync(descriptor)

    def renamed(source: str | Path, target: str | Path) -> None:
        assert Path(source).parent == Path(target).parent
        events.append("renamed")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(os, "replace", renamed)
    save(tmp_path / "a.pt", {"w": torch.zeros(200_000)})
    assert events[:2] == ["forced", "renamed"]


@pytest.mark.parametrize(("state_of", "resume"), RESUMES)
def test_a_resumed_run_ends_with_the_bits_of_the_undisturbed_one(
    state_of: Callable, resume: Callable, undisturbed: Any, tmp_path: Path
) -> None:
    run = CHAPTER_06.start()
    CHAPTER_06.train(run, CUT, save=lambda run: torch.save(state_of(run), tmp_path / "run.pt"))
    del run
    seed_everything(12345)  # another process has other random states
    resumed = resume(torch.load(tmp_path / "run.pt", weights_only=True))
    assert len(resumed.losses) == CUT
    CHAPTER_06.train(resumed, EPOCHS)
    assert resumed.losses == undisturbed.losses
    for part in ("model", "optimizer", "scheduler"):
        mine, theirs = (flat(getattr(run, part).state_dict()) for run in (resumed, undisturbed))
        assert mine == theirs, part
    assert torch.equal(resumed.generator.get_state(), undisturbed.generator.get_state())


@pytest.mark.parametrize(("state_of", "resume"), RESUMES)
def test_resuming_restores_the_random_states(state_of: Callable, resume: Callable) -> None:
    run = CHAPTER_06.start()
    seed_everything(7)
    state = state_of(run)
    expected = torch.rand(3).tolist(), random.random(), torch.rand(2, generator=run.generator).tolist()
    seed_everything(8)
    resumed = resume(state)
    got = torch.rand(3).tolist(), random.random(), torch.rand(2, generator=resumed.generator).tolist()
    assert got == expected


def flat(thing: Any) -> Any:
    """Nested tensors as lists, which == compares."""
    if isinstance(thing, torch.Tensor):
        return thing.dtype, thing.tolist()
    if isinstance(thing, dict):
        return {key: flat(value) for key, value in thing.items()}
    return [flat(value) for value in thing] if isinstance(thing, (list, tuple)) else thing
