"""Checkpoints that survive a crash and resume to the bit, as chapter 06 builds them.

A checkpoint is a file of `torch.save` with a line behind it that holds the CRC-32 of all bytes before:
`torch.load` overlooks that line, and overlooks a changed byte in a tensor, too, which the line tells.
It is no sandbox: a file made to do harm runs no code, but may still crash the process or fill the memory.

A run resumes to the same bits on the CPU, and on a GPU with deterministic algorithms, at the end of an epoch,
if workers of a `DataLoader` start anew in each epoch: persistent ones keep random states out of reach.
"""

import contextlib
import copy
import math
import os
import random
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import nn
from torch.optim import Optimizer

SEAL = b"course_utils crc32 %08x\n"  # the last line of a checkpoint


class CheckpointError(RuntimeError):
    """A checkpoint cannot be saved, read or used; the message says which, why, and what to do."""


# Files


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that at any moment the old file, or the new one, is there as a whole.

    Args:
        state: tensors, numbers, texts, and lists, tuples and dicts of them: what `weights_only` loads.

    Raises:
        CheckpointError: no space, no folder, no permission, or something in the state that could not be
            loaded again. The old file is as it was, and no temporary file is left.
    """
    with _replacing(Path(path)) as temporary, temporary.open("wb+") as file:
        try:
            torch.save(dict(state), file)
            size = file.tell()
            file.flush()  # before it is opened a second time
            torch.load(temporary, map_location="cpu", mmap=True, weights_only=True)  # reads no tensor
        except Exception as error:
            for trouble in (error, error.__context__):  # torch hides the error of a full disk
                if isinstance(trouble, OSError):
                    raise trouble from None
            raise CheckpointError(
                f"{path} was not saved: the state holds something that could not be loaded again. Save "
                f"state_dict()s, tensors, numbers and texts only. Cause: {_cause(error)}"
            ) from error
        file.write(SEAL % _crc32(file, size))


def load_checkpoint(path: str | Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, after checking that no byte has changed; nothing in it is run as code.

    Args:
        map_location: where its tensors go, as in `torch.load`.

    Raises:
        CheckpointError: the file is missing, cut short, changed, of another kind, or holds what
            `weights_only=True` refuses.
    """
    try:
        with Path(path).open("rb") as file:
            _check(path, file)
            state = torch.load(file, map_location=map_location, weights_only=True)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} was refused, and no code in it was run. If the cause is not map_location or memory, do "
            f"not use it. Cause: {_cause(error)}"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, no dict: it is no checkpoint.")
    return state


def export_safetensors(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights in the format safetensors, which can hold no code; atomic like a checkpoint.

    Of tensors that share memory, such as tied weights, one is written; `safetensors.torch.load_model`
    fills both. Raises CheckpointError as `save_checkpoint`.
    """
    with _replacing(Path(path)) as temporary:
        save_model(model, str(temporary))


class Checkpoints:
    """A folder of checkpoints: the newest few as `epoch_0007.pt`, and the best as `best.pt`.

    One process at a time may save into a folder.

    Args:
        folder: is made if it is not there.
        keep: how many of the newest to keep, at least 1.

    Raises:
        ValueError: `keep` is less than 1.
    """

    def __init__(self, folder: str | Path, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"{keep=}: expected at least 1.")
        self.folder, self.keep = Path(folder), keep
        self._best: float | None = None  # the value of best.pt, read when it is first needed

    def save(self, epoch: int, state: Mapping[str, Any], value: float | None = None) -> Path:
        """Save the state of an epoch with `epoch` and `value`; if its value is the best so far, also as best.

        Args:
            value: the smaller the better, such as a loss. For an accuracy give its negative.

        Raises:
            CheckpointError: saving failed, or the folder holds a later epoch. If only `best.pt` cannot be
                read or written, the epoch is saved all the same, and the message says so.
        """
        path = self.folder / f"epoch_{epoch:04d}.pt"
        with _explaining(f"{path} was not saved"):
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".*.pt.*.tmp"):  # by a process that was killed while saving
                left.unlink(missing_ok=True)
        if later := [name for number, name in self._epochs().items() if number > epoch]:
            raise CheckpointError(
                f"{path} was not saved: the folder holds the later {later[-1].name}. Resume from that one, "
                "remove it, or use another folder."
            )
        value = None if value is None else float(value)
        state, trouble = {**state, "epoch": epoch, "value": value}, None
        try:
            if value is not None and value < self._best_value():
                save_checkpoint(self.folder / "best.pt", state)  # first: after a kill it is not too old
                self._best = value
        except CheckpointError as error:
            trouble = error
        save_checkpoint(path, state)
        with _explaining(f"{path} was saved, but an old one could not be removed"):
            for old in list(self._epochs().values())[: -self.keep]:
                old.unlink(missing_ok=True)
        if trouble:
            raise CheckpointError(
                f"{path} was saved, but best.pt is not up to date; move it away if it is the cause. "
                f"Cause: {trouble}"
            ) from trouble
        return path

    def last(self) -> Path | None:
        """Return the path of the newest epoch; None if there is none."""
        return next(reversed(self._epochs().values()), None)

    def best(self) -> Path | None:
        """Return the path of the best one; None if no value has been given yet."""
        path = self.folder / "best.pt"
        return path if path.exists() else None

    def _best_value(self) -> float:
        if self._best is None:
            best = self.best()
            value = math.inf if best is None else load_checkpoint(best).get("value")
            if not isinstance(value, float):
                raise CheckpointError(f"{best} holds {value!r} as its value, no number.")
            self._best = value
        return self._best

    def _epochs(self) -> dict[int, Path]:
        paths = {path.stem.removeprefix("epoch_"): path for path in self.folder.glob("epoch_*.pt")}
        return dict(sorted((int(number), path) for number, path in paths.items() if number.isdecimal()))


# The state of a run


def training_state(model: nn.Module, optimizer: Optimizer, **parts: Any) -> dict[str, Any]:
    """Return what a run needs to go on to the same bits, for `save_checkpoint`.

    The tensors are the live ones, which training changes: save them at once.

    Args:
        parts: what else the run has: scheduler, scaler, history, early_stopping, the generator of the
            `DataLoader` that shuffles; under any names anything with a `state_dict`, or None.

    Raises:
        ValueError: a part has a name that a checkpoint uses itself.
    """
    if taken := {"kinds", "order", "random", "epoch", "value"} & parts.keys():
        raise ValueError(f"{sorted(taken)}: a checkpoint uses these names itself, choose others.")
    parts = {name: part for name, part in parts.items() if part is not None}
    names = {parameter: name for name, parameter in model.named_parameters()}
    order = [[names.get(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    kinds = {name: _kind(part) for name, part in {"optimizer": optimizer, **parts}.items()}
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    for name, part in parts.items():
        state[name] = part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
    return {**state, "kinds": kinds, "order": order, "random": _random_states()}


def restore_training(state: Mapping[str, Any], model: nn.Module, optimizer: Optimizer, **parts: Any) -> None:
    """Bring a run back to where `training_state` saw it, with every random state of Python, NumPy and torch.

    Give the same parts as there. The states of GPUs' random numbers are set where there are as many GPUs.

    Raises:
        CheckpointError: the state does not fit. Then nothing has been changed.
        ValueError: as in `training_state`.
    """
    before = _copied(training_state(model, optimizer, **parts))
    parts = {"model": model, "optimizer": optimizer, **parts}
    try:
        for name in {**state["kinds"], **before["kinds"]}:
            saved, given = (kinds.get(name, "none") for kinds in (state["kinds"], before["kinds"]))
            if saved != given:
                raise ValueError(f"{name}: the checkpoint holds {saved}, given was {given}")
        if state["order"] != before["order"]:
            raise ValueError("the optimizer was made with other parameters, or in another order")
        _restore(state, parts)
    except BaseException as error:  # also Ctrl-C
        _restore(before, parts)
        if not isinstance(error, Exception):
            raise
        raise CheckpointError(
            "the state does not fit, and nothing was changed. Restore with the same parts as those that were "
            f"saved. Cause: {type(error).__name__}: {error}"
        ) from error


def _copied(state: Any) -> Any:
    """Return a copy; the tensors in its dicts and lists go to the CPU's memory: a GPU may have no room."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        copied = copy.copy(state)  # with the versions that a module's state_dict has as an attribute
        copied.update((name, _copied(value)) for name, value in state.items())
        return copied
    return [_copied(value) for value in state] if type(state) is list else copy.deepcopy(state)


def _restore(state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Load each part, then the random states, which loading could move."""
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            part.set_state(state[name].cpu())
        elif part is not None:
            part.load_state_dict(state[name])
    states = state["random"]
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002 - the global generator
    torch.set_rng_state(states["torch"].cpu())
    if len(states.get("cuda", [])) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all([cuda.cpu() for cuda in states["cuda"]])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"].cpu())


def _kind(part: Any) -> str:
    """What a part must be again; a disabled GradScaler is another kind: it loads any state and drops it."""
    disabled = isinstance(part, torch.amp.GradScaler) and not part.is_enabled()
    return "disabled " * disabled + type(part).__name__


def _random_states() -> dict[str, Any]:
    """The states of all global generators, as types that `weights_only=True` loads."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator
    states = {"python": random.getstate(), "numpy": (kind, keys.tolist(), *rest)}
    states["torch"] = torch.get_rng_state()
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


# What files need


@contextlib.contextmanager
def _explaining(what: str) -> Iterator[None]:
    """Turn an error of the system into a CheckpointError that begins with `what`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{what}: {getattr(error, 'strerror', None) or error}. Free some space, or save to a folder that "
            "is there and that you may write to. What was saved before is as it was."
        ) from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a new name in the folder of `path`; what is written there is moved to `path`, or removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _explaining(f"{path} was not saved"):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # the bytes are on the disk before the name points to them
            os.replace(temporary, path)
        with contextlib.suppress(OSError):  # the new name, too, where a folder can be opened: not on Windows
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _crc32(file: BinaryIO, size: int) -> int:
    """The CRC-32 of the first `size` bytes; leaves the file behind them."""
    file.seek(0)
    crc = 0
    for start in range(0, size, 1 << 20):
        crc = zlib.crc32(file.read(min(1 << 20, size - start)), crc)
    return crc


def _check(path: str | Path, file: BinaryIO) -> None:
    """See that a file ends with the right checksum, and that its contents are stored as torch does."""
    size = file.seek(0, os.SEEK_END) - len(SEAL % 0)
    crc = _crc32(file, size)
    seal = file.read()
    if not seal.startswith(SEAL.partition(b"%")[0]):
        raise CheckpointError(
            f"{path} has no checksum at its end: it is cut short, or not by save_checkpoint. Use another. "
            "What torch.save alone wrote, read by torch.load(path, weights_only=True)."
        )
    if seal != SEAL % crc:
        raise CheckpointError(f"{path} has changed since it was saved: its checksum is wrong. Use another.")
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > size:  # compressed, or parts that overlap
        raise CheckpointError(f"{path} was refused: it would unpack to more than its size. Do not use it.")
    file.seek(0)


def _cause(error: BaseException) -> str:
    """What an error tells, in a line, without torch's advice on how to switch the safety off."""
    text = str(error).strip() or type(error).__name__
    if text.startswith("Weights only load failed"):
        text = text.partition("Check the documentation")[0].strip().splitlines()[-1]
        text = text.rpartition("WeightsUnpickler error: ")[2].partition(" Please use ")[0]
    return text.splitlines()[0]
