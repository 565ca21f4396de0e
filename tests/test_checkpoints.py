"""Checkpoints: what is saved is whole, what is loaded was saved, what does not fit changes nothing."""

import contextlib
import copy
import errno
import io
import itertools
import math
import os
import pickle
import random
import stat
import threading
import time
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hostile import archive, calls, containers, forms, greedy, sealed
from safetensors.torch import load_model
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset

from course_utils.checkpoints import (
    CheckpointError,
    Checkpoints,
    export_safetensors,
    load_checkpoint,
    restore_training,
    save_checkpoint,
    training_state,
)
from course_utils.device import seed_everything
from course_utils.training import EarlyStopping, History, fit

STATE = {
    "model": nn.Linear(7, 5).state_dict(),
    "half": torch.arange(6.0).half().reshape(2, 3),
    "plain": {"a": [1, 2.5, None, True], "b": ("text", b"bytes"), 3: float("inf")},
}


def same(a: object, b: object) -> bool:
    """Whether two states are equal to the bit, in types, too."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(itertools.starmap(same, zip(a, b, strict=True)))
    return a == b or a != a


@pytest.fixture
def path(tmp_path):
    """A checkpoint of STATE, alone in its folder."""
    save_checkpoint(tmp_path / "state.pt", STATE)
    return tmp_path / "state.pt"


def assert_whole(path):
    """The checkpoint of STATE is as it was, and nothing else lies beside it."""
    assert same(load_checkpoint(path), STATE)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# Saving


def test_what_is_saved_is_loaded(path):
    assert_whole(path)
    assert same(load_checkpoint(str(path)), STATE)
    assert same(torch.load(path, weights_only=True), STATE)  # torch overlooks the last line
    assert same(torch.load(path, weights_only=True, mmap=True), STATE)
    assert load_checkpoint(path, map_location="meta")["half"].is_meta


@pytest.mark.filterwarnings("ignore")  # torch calls CSR a beta, and quantized tensors deprecated
def test_sparse_and_quantized_tensors(path):
    dense = torch.eye(3)
    state = {
        "coo": dense.to_sparse().coalesce(),
        "csr": dense.to_sparse_csr(),
        "quantized": torch.quantize_per_tensor(dense, 0.5, 0, torch.qint8),
    }
    save_checkpoint(path, state)
    loaded = load_checkpoint(path)
    assert {name: tensor.layout for name, tensor in loaded.items()} == {
        name: tensor.layout for name, tensor in state.items()
    }
    assert torch.equal(loaded["coo"].to_dense(), dense)
    assert torch.equal(loaded["csr"].to_dense(), dense)
    assert torch.equal(loaded["quantized"], state["quantized"])


def test_what_could_not_be_loaded_is_not_saved(path):
    file = path.open("rb")
    for bad in (
        *(nn.Linear(1, 1), len, {"a": [path]}, np.zeros(3)),
        *(lambda: 0, threading.Lock(), (n for n in ()), file),  # not even pickle takes these
    ):
        with pytest.raises(
            CheckpointError, match=r"state\.pt was not saved: the state holds .*Save state_dict"
        ):
            save_checkpoint(path, {"a": bad})
        assert_whole(path)
    file.close()


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failing", ["open", "write", "fsync", "replace"])
def test_a_full_disk_at_any_moment(path, monkeypatch, failing):
    target = {
        "open": "pathlib.Path.open",
        "write": "pathlib.Path.open",
        "fsync": "os.fsync",
        "replace": "os.replace",
    }[failing]
    with monkeypatch.context() as patch:
        if failing == "write":  # a file that takes no more than 300 bytes
            patch.setattr(target, lambda path, mode: Small(path, mode))
        else:
            patch.setattr(target, full)
        with pytest.raises(CheckpointError, match=r"state\.pt was not saved: No space left.*Free some space"):
            save_checkpoint(path, STATE)
    assert_whole(path)


class Small(io.FileIO):
    """A file on a disk that has room for 300 bytes."""

    def write(self, data) -> int:
        if self.tell() + len(data) > 300:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_the_new_name_is_forced_to_the_disk(path, monkeypatch):
    events, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr("os.replace", lambda *names: events.append("replaced") or replace(*names))
    monkeypatch.setattr(
        "os.fsync", lambda file: events.append(stat.S_ISDIR(os.fstat(file).st_mode)) or fsync(file)
    )
    save_checkpoint(path, STATE)
    assert events == [False, "replaced", True]


def test_zip_tools_find_no_fault(path):
    with zipfile.ZipFile(path) as whole:
        assert whole.testzip() is None


def test_what_was_saved_is_tried_without_reading_its_tensors(path, monkeypatch):
    load, asked = torch.load, []
    monkeypatch.setattr(
        "torch.load", lambda *args, **options: asked.append(options) or load(*args, **options)
    )
    save_checkpoint(path, STATE)
    assert [(options["mmap"], options["weights_only"]) for options in asked] == [(True, True)]


def test_ctrl_c_while_saving_leaves_no_file(path, monkeypatch):
    def press(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", press)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, STATE)
    assert_whole(path)


def test_no_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"a\.pt was not saved: No such file .*folder that is there"):
        save_checkpoint(tmp_path / "none" / "a.pt", STATE)


# Loading what is damaged


def test_torch_overlooks_a_flipped_byte_and_the_checksum_does_not(path):
    whole = path.read_bytes()
    place = whole.index(STATE["model"]["weight"].numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    changed = torch.load(path, weights_only=True)  # no error, another number
    assert not torch.equal(changed["model"]["weight"], STATE["model"]["weight"])
    with pytest.raises(CheckpointError, match=r"state\.pt has changed .*checksum is wrong\. Use another"):
        load_checkpoint(path)


def test_large_tensors_are_sealed_as_small_ones_are(path):
    state = {"large": torch.rand(300_000), "small": torch.rand(3), "larger": torch.rand(500_000)}
    save_checkpoint(path, state)
    loaded = load_checkpoint(path)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    whole = path.read_bytes()
    for place in (100_000, 2_000_000, len(whole) // 2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="has changed since it was saved"):
            load_checkpoint(path)


def test_1000_flipped_bytes(path):
    whole, draw = path.read_bytes(), random.Random(0)
    places = [*range(60), *range(len(whole) - 140, len(whole))]  # the first header, the last ones, the seal
    places += [draw.randrange(len(whole)) for _ in range(1000 - len(places))]
    for place in places:
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :]
        )
        with pytest.raises(CheckpointError, match=r"state\.pt has (changed|no checksum)"):
            load_checkpoint(path)


def test_truncated_anywhere(path):
    whole = path.read_bytes()
    headers = [
        i for i in range(len(whole)) if whole.startswith((b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"), i)
    ]
    sizes = {0, 1, 3, *range(len(whole) - 130, len(whole)), *range(5, len(whole), 97)}
    for size in sizes | {header + more for header in headers for more in (-1, 0, 1, 4, 30)}:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"state\.pt has no checksum at its end: .*Use another"):
            load_checkpoint(path)
    path.write_bytes(whole + b"\n")
    with pytest.raises(CheckpointError, match="no checksum"):
        load_checkpoint(path)


def test_a_file_of_torch_alone(path):
    torch.save(STATE, path)
    with pytest.raises(
        CheckpointError, match=r"or not by save_checkpoint\. .*torch\.load\(path, weights_only"
    ):
        load_checkpoint(path)


def test_files_that_are_no_checkpoint(path):
    for raw in (b"", b"epoch,loss\n1,0.5\n" * 50, pickle.dumps(STATE["plain"]), bytes(10_000)):
        path.write_bytes(raw)
        with pytest.raises(CheckpointError, match=r"state\.pt has no checksum at its end"):
            load_checkpoint(path)
    with pytest.raises(
        CheckpointError, match=r"none\.pt cannot be read: No such file or directory\. Check the path"
    ):
        load_checkpoint(path.parent / "none.pt")
    with pytest.raises(CheckpointError, match=r"cannot be read: Is a directory"):
        load_checkpoint(path.parent)
    path.write_bytes(sealed(archive(pickle.dumps([1, 2], 2))))
    with pytest.raises(CheckpointError, match=r"state\.pt holds a list"):
        load_checkpoint(path)


# Hostile files


@pytest.fixture
def canary(tmp_path):
    """A path at which hostile files would leave something."""
    return tmp_path / "canary"


def remove(canary) -> bool:
    """Remove what lies there; return whether something did."""
    for _ in range(40):
        if os.path.lexists(canary):
            canary.rmdir() if canary.is_dir() and not canary.is_symlink() else canary.unlink()
            return True
        time.sleep(0.005)
    return False


def test_the_calls_are_live(canary):
    for name, opcodes in calls(canary).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(RuntimeError):  # after the call, at what it returned
                pickle.loads(b"\x80\x02" + opcodes + b".")
        assert remove(canary), name


def test_the_forms_are_live(canary):
    dead = []
    for name, pickled in forms(canary).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(Exception):  # after the call, at what it returned
                torch.load(io.BytesIO(archive(pickled)), weights_only=False)
        if not remove(canary):
            dead.append(name)
    assert dead == []


@pytest.mark.parametrize("kind", ["calls", "forms", "greedy", "containers"])
def test_hostile_files(path, canary, kind, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # must not matter
    files = {
        "calls": lambda: {n: archive(b"\x80\x02" + ops + b".") for n, ops in calls(canary).items()},
        "forms": lambda: {name: archive(pickled) for name, pickled in forms(canary).items()},
        "greedy": lambda: {name: archive(pickled) for name, pickled in greedy().items()},
        "containers": lambda: containers(canary),
    }[kind]()
    assert len(files) >= {"calls": 25, "forms": 24, "greedy": 10, "containers": 8}[kind]
    stranger = path.with_name("stranger.pt")
    for name, raw in files.items():
        for contents in (raw, sealed(raw)):
            stranger.write_bytes(contents)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with pytest.raises(CheckpointError, match=r"stranger\.pt") as caught:
                    load_checkpoint(stranger)
            assert kind != "calls" or contents is raw or "no code in it was run" in str(caught.value), name
            assert not os.path.lexists(canary), name
    stranger.unlink()
    (path.parent / "hostile_module.py").unlink(missing_ok=True)
    assert_whole(path)


def test_a_refusal_names_what_was_asked_for(path, canary):
    path.write_bytes(sealed(archive(b"\x80\x02" + calls(canary)["os.system"] + b".")))
    with pytest.raises(
        CheckpointError,
        match=r"was refused, and no code in it was run\. .*not use it\. Cause: .*GLOBAL os\.system",
    ):
        load_checkpoint(path)


# The state of a run


class Noisy(Dataset):
    """40 samples with noise of all three global generators, as augmentation adds."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int):
        noise = torch.rand(4) + random.random() + np.random.rand()  # noqa: NPY002
        return torch.full((4,), index / 40) + noise, index % 3


def everything(kind: str = "adam", each: str = "batch", workers: int = 0) -> dict:
    """A model with dropout and BatchNorm, and all else that a run may have."""
    seed_everything(5)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    optimizer = {
        "adam": lambda p: torch.optim.Adam(p, 0.01),
        "adamw": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
        "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    }[kind](model.parameters())
    scheduler = {
        "batch": lambda: OneCycleLR(optimizer, 0.05, total_steps=5 * 5),
        "epoch": lambda: CosineAnnealingLR(optimizer, 5),
        "plateau": lambda: ReduceLROnPlateau(optimizer, patience=0),
    }[each]()
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(Noisy(), 8, shuffle=True, generator=generator, num_workers=workers)
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "scaler": torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3),
        "history": History(),
        "early_stopping": EarlyStopping(50),
        "generator": generator,
        "loader": loader,
        "each": "batch" if each == "batch" else "epoch",
    }


def parts(run: dict) -> dict:
    return {name: part for name, part in run.items() if name not in ("loader", "each")}


def go(run: dict, epochs: int, folder=None) -> None:
    def save(history):
        if folder is not None:
            Checkpoints(folder).save(len(history), training_state(**parts(run)), history["valid_loss"][-1])

    named = {name: run[name] for name in ("scheduler", "scaler", "history", "early_stopping")}
    valid = DataLoader(Noisy(), 16)
    fit(
        run["model"],
        run["loader"],
        valid,
        run["optimizer"],
        epochs=epochs,
        scheduler_each=run["each"],
        amp_dtype=torch.bfloat16,
        after_epoch=save,
        **named,
    )


def numbers(run: dict) -> dict:
    """All that must agree: the state, less the times."""
    state = copy.deepcopy(training_state(**parts(run)))
    for row in state.get("history", {"rows": []})["rows"]:
        del row["seconds"]
    return state


CASES = [("adam", "batch", 0), ("adamw", "epoch", 0), ("sgd", "plateau", 0)]


@pytest.mark.parametrize(
    ("kind", "each", "workers"),
    [*CASES, *(pytest.param(kind, each, 2, marks=pytest.mark.slow) for kind, each, _ in CASES)],
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, kind, each, workers):
    whole = everything(kind, each, workers)
    go(whole, 5)

    go(everything(kind, each, workers), 3, tmp_path)
    resumed = everything(kind, each, workers)
    seed_everything(99)
    restore_training(load_checkpoint(Checkpoints(tmp_path).last()), **parts(resumed))
    go(resumed, 5)
    assert same(numbers(resumed), numbers(whole))
    assert len(resumed["history"]) == 5


def test_random_states_of_all_three():
    run = everything()
    state = copy.deepcopy(training_state(**parts(run)))

    def draw():
        return random.gauss(0, 1), np.random.randn(3).tolist(), torch.randn(3).tolist()  # noqa: NPY002

    np.random.randn()  # noqa: NPY002 - the second half of a pair waits now
    expected = [draw() for _ in range(2)]
    restore_training(state, **parts(run))
    np.random.randn()  # noqa: NPY002
    assert [draw() for _ in range(2)] == expected


def stopped() -> EarlyStopping:
    """One that nothing pleases: it stops after the first epoch."""
    stopping = EarlyStopping(1)
    stopping.best = -math.inf
    return stopping


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    run = everything()
    run["early_stopping"] = stopped()
    go(run, 5, tmp_path)
    assert len(run["history"]) == 1
    again = everything()
    again["early_stopping"] = stopped()
    restore_training(load_checkpoint(Checkpoints(tmp_path).last()), **parts(again))
    go(again, 5)
    assert same(numbers(again), numbers(run))


def test_the_random_states_of_gpus(monkeypatch):
    run, restored = everything(), []
    states = [torch.arange(16, dtype=torch.uint8)]
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_rng_state_all", lambda: states)
    monkeypatch.setattr("torch.cuda.set_rng_state_all", restored.append)
    state = copy.deepcopy(training_state(**parts(run)))
    restore_training(state, **parts(run))
    assert same(restored, [states])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_run_on_a_gpu_resumes(tmp_path):
    def made():
        seed_everything(5)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3)).cuda()
        scaler, generator = torch.amp.GradScaler("cuda"), torch.Generator("cuda").manual_seed(1)
        run = {"model": model, "optimizer": torch.optim.Adam(model.parameters(), 0.01), "history": History()}
        return run | {"scaler": scaler, "generator": generator}

    def train(run, epochs):
        options = {"amp_dtype": torch.float16, "scaler": run["scaler"], "history": run["history"]}
        fit(run["model"], batches, batches, run["optimizer"], epochs=epochs, **options)
        torch.rand(3, generator=run["generator"], device="cuda")

    batches = [(torch.randn(8, 4), torch.arange(8) % 3) for _ in range(4)]
    whole = made()
    train(whole, 2)
    save_checkpoint(tmp_path / "run.pt", training_state(**whole))
    train(whole, 4)
    resumed = made()
    seed_everything(99)
    restore_training(load_checkpoint(tmp_path / "run.pt"), **resumed)
    train(resumed, 4)
    assert same(numbers(resumed), numbers(whole))


def test_restoring_needs_no_second_copy_on_the_gpu(monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    saved, run = everything(), everything()
    go(saved, 1)
    state = copy.deepcopy(training_state(**parts(saved)))
    monkeypatch.setattr("torch.Tensor.__deepcopy__", full)  # a copy of a tensor goes where the tensor is
    restore_training(state, **parts(run))
    monkeypatch.undo()
    assert same(numbers(run), numbers(saved))


@pytest.mark.parametrize("name", ["kinds", "order", "random", "epoch", "value"])
def test_a_part_cannot_take_a_name_of_the_checkpoint(name):
    model, generator = nn.Linear(1, 1), torch.Generator()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match=rf"\['{name}'\]: a checkpoint uses these names itself"):
        training_state(model, optimizer, **{name: generator})
    with pytest.raises(ValueError, match=name):
        restore_training(training_state(model, optimizer), model, optimizer, **{name: generator})


class Remembering(nn.Linear):
    """A layer whose extra state is a dict."""

    def get_extra_state(self):
        return {"version": 2}

    def set_extra_state(self, state) -> None:
        self.version = state["version"]


def test_a_model_with_an_extra_state():
    model = Remembering(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    state = copy.deepcopy(training_state(model, optimizer))
    restore_training(state, model, optimizer)
    assert model.version == 2


def test_ctrl_c_while_restoring_changes_nothing(monkeypatch):
    saved = everything()
    go(saved, 1)
    state = copy.deepcopy(training_state(**parts(saved)))
    run = everything()
    before = numbers(run)

    def press(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(run["history"], "load_state_dict", press)
    with pytest.raises(KeyboardInterrupt):
        restore_training(state, **parts(run))
    assert same(numbers(run), before)


def other_optimizer(run):
    run["optimizer"] = torch.optim.SGD(run["model"].parameters(), 0.1)


def other_order(run):
    run["optimizer"] = torch.optim.Adam(reversed(list(run["model"].parameters())), 0.01)


def frozen_part(run):
    run["optimizer"] = torch.optim.Adam(run["model"][3].parameters(), 0.01)


def other_model(run):
    run["model"] = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.Linear(9, 3))


def larger_model(run):
    run["model"] = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.Dropout(0.3), nn.Linear(9, 3))
    run["optimizer"] = torch.optim.Adam(run["model"].parameters(), 0.01)
    run["scheduler"] = OneCycleLR(run["optimizer"], 0.05, total_steps=5 * 5)


def set_part(name, value):
    return lambda run: run.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (other_model, "the optimizer was made with other parameters"),
        (larger_model, r"the state does not fit(.|\n)*size mismatch for 0\.weight.*\[8, 4\].*\[9, 4\]"),
        (other_optimizer, "optimizer: the checkpoint holds Adam, given was SGD"),
        (other_order, "optimizer was made with other parameters, or in another order"),
        (frozen_part, "optimizer was made with other parameters"),
        (set_part("scheduler", None), "scheduler: the checkpoint holds OneCycleLR, given was none"),
        (set_part("history", None), "history: the checkpoint holds History, given was none"),
        (set_part("generator", None), "generator: the checkpoint holds Generator, given was none"),
        (
            set_part("scaler", torch.amp.GradScaler("cpu", enabled=False)),
            "scaler: the checkpoint holds GradScaler, given was disabled GradScaler",
        ),
    ],
)
def test_another_run_changes_nothing(change, text):
    saved = everything()
    go(saved, 1)
    state = copy.deepcopy(training_state(**parts(saved)))
    run = everything()
    change(run)
    before = numbers(run)
    with pytest.raises(CheckpointError, match=text):
        restore_training(state, **parts(run))
    assert same(numbers(run), before)


@pytest.mark.parametrize(
    "broken",
    [
        lambda state: state.pop("random"),
        lambda state: state.pop("scheduler"),
        lambda state: state.update(model=[1, 2]),
        lambda state: state.update(history={}),
        lambda state: state.update(early_stopping=None),
        lambda state: state["optimizer"].pop("state"),
        lambda state: state["scaler"].pop("scale"),
        lambda state: state["random"].update(numpy=("MT19937", torch.zeros(3), 1, 0, 0.0)),
        lambda state: state["random"].update(torch=torch.zeros(5)),
        lambda state: state.update(generator=torch.zeros(3)),
    ],
)
def test_a_broken_state_changes_nothing(broken):
    saved = everything()
    go(saved, 1)
    state = copy.deepcopy(training_state(**parts(saved)))
    broken(state)
    run = everything()
    go(run, 2)
    before = numbers(run)
    with pytest.raises(CheckpointError, match="the state "):
        restore_training(state, **parts(run))
    assert same(numbers(run), before)


def test_a_part_may_hold_what_no_checkpoint_does():
    """What the run that is given holds is copied, to go back, and never read as a file is."""
    state = copy.deepcopy(training_state(**parts(everything())))
    run = everything()
    run["history"].rows.append({"mine": np.float64(3)})
    wrong = {**state, "order": []}
    with pytest.raises(CheckpointError, match="in another order"):
        restore_training(wrong, **parts(run))
    assert run["history"].rows == [{"mine": 3}]
    restore_training(state, **parts(run))
    assert run["history"].rows == []


# A folder of checkpoints


def names(folder) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_the_newest_are_kept_and_the_best(tmp_path):
    kept = Checkpoints(tmp_path / "runs" / "a", keep=2)
    assert kept.last() is kept.best() is None
    for epoch, value in enumerate([0.5, 0.3, 0.4, 0.3], start=1):
        assert kept.save(epoch, STATE, value).name == f"epoch_{epoch:04d}.pt"
    assert names(kept.folder) == ["best.pt", "epoch_0003.pt", "epoch_0004.pt"]
    assert kept.last().name == "epoch_0004.pt"
    best = load_checkpoint(kept.best())
    assert (best.pop("epoch"), best.pop("value")) == (2, 0.3)
    assert same(best, STATE)

    again = Checkpoints(kept.folder, keep=1)  # as after a restart
    again.save(4, STATE, 0.31)
    again.save(10_000, STATE)
    assert names(kept.folder) == ["best.pt", "epoch_10000.pt"]
    assert load_checkpoint(again.best())["epoch"] == 2
    again.save(10_001, STATE, 0.2)
    assert load_checkpoint(again.best())["epoch"] == 10_001


def test_nan_is_never_the_best(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(1, STATE, math.nan)
    assert kept.best() is None
    kept.save(2, STATE, np.float64(0.5))
    kept.save(3, STATE, math.nan)
    assert load_checkpoint(kept.best())["epoch"] == 2


def test_what_the_caller_calls_epoch_does_not_matter(tmp_path):
    saved = load_checkpoint(Checkpoints(tmp_path).save(3, {"epoch": 99, "value": 99}, 0.5))
    assert saved == {"epoch": 3, "value": 0.5}


def test_a_best_that_cannot_be_read_stops_no_saving(tmp_path):
    Checkpoints(tmp_path).save(1, STATE, 0.5)
    best = tmp_path / "best.pt"
    best.write_bytes(best.read_bytes()[:-3])
    kept = Checkpoints(tmp_path, keep=2)
    for epoch in (3, 4):
        with pytest.raises(
            CheckpointError,
            match=rf"epoch_000{epoch}\.pt was saved, but best\.pt is not .*best\.pt has no checksum",
        ):
            kept.save(epoch, STATE, 0.4)
        assert load_checkpoint(kept.last())["epoch"] == epoch
    assert names(tmp_path) == ["best.pt", "epoch_0003.pt", "epoch_0004.pt"]
    best.unlink()
    kept.save(5, STATE, 0.4)
    assert load_checkpoint(kept.best())["epoch"] == 5


@pytest.mark.parametrize("stranger", [{"model": 1}, {"value": None}, {"value": "0.5"}])
def test_a_best_of_another_making_stops_no_saving(tmp_path, stranger):
    save_checkpoint(tmp_path / "best.pt", stranger)
    kept = Checkpoints(tmp_path)
    for epoch in (1, 2):
        with pytest.raises(CheckpointError, match=r"was saved, but best\.pt .*move it away.* as its value"):
            kept.save(epoch, STATE, 0.4)
        assert load_checkpoint(kept.last())["epoch"] == epoch
    kept.best().unlink()
    kept.save(3, STATE, 0.4)
    assert load_checkpoint(kept.best())["epoch"] == 3


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match=r"epoch_0001\.pt was not saved: .*folder that is there"):
            Checkpoints(folder).save(1, STATE)
    kept = Checkpoints(tmp_path / "runs", keep=1)
    kept.save(1, STATE).unlink()
    (tmp_path / "runs" / "epoch_0001.pt").mkdir()
    with pytest.raises(
        CheckpointError, match=r"epoch_0002\.pt was saved, but an old one could not be removed"
    ):
        kept.save(2, STATE)


def test_what_a_killed_process_left_is_removed(tmp_path):
    stale = tmp_path / ".epoch_0001.pt.123-0a0a0a0a.tmp"
    stale.write_bytes(b"half")
    other = tmp_path / ".notes.tmp"
    other.write_text("not ours")
    Checkpoints(tmp_path).save(1, STATE)
    assert names(tmp_path) == [".notes.tmp", "epoch_0001.pt"]


def test_a_failed_save_removes_no_old_one(tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, STATE, 0.5)
    with pytest.raises(CheckpointError):
        kept.save(2, {"bad": len}, 0.4)
    assert names(tmp_path) == ["best.pt", "epoch_0001.pt"]
    assert load_checkpoint(kept.best())["epoch"] == 1
    kept.save(2, STATE, 0.45)
    assert load_checkpoint(kept.best())["epoch"] == 2


def test_folder_refuses(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(7, STATE)
    with pytest.raises(
        CheckpointError, match=r"epoch_0003\.pt was not saved: .*later epoch_0007\.pt\. Resume"
    ):
        kept.save(3, STATE)
    assert names(tmp_path) == ["epoch_0007.pt"]
    with pytest.raises(ValueError, match="keep=0: expected at least 1"):
        Checkpoints(tmp_path, keep=0)


# safetensors


class Tied(nn.Module):
    """An output that shares its weights with the embedding, and a weight that is not contiguous."""

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, size)
        self.out = nn.Linear(size, 9, bias=False)
        self.out.weight = self.embedding.weight
        self.turned = nn.Parameter(torch.randn(size, 3).T)


def test_safetensors(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    for make in (Tied, lambda: nn.BatchNorm2d(3).half()):
        model, other = make(), make()
        export_safetensors(model, path)
        load_model(other, path)
        assert same(other.state_dict(), model.state_dict())
        assert names(tmp_path) == ["m.safetensors"]
    before = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"m\.safetensors was not saved: .*No such file.*folder that is"
    ):
        export_safetensors(nn.Linear(2, 2), tmp_path / "none" / "m.safetensors")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"m\.safetensors was not saved: No space left"):
        export_safetensors(nn.Linear(2, 2), path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["m.safetensors"]
