"""Checkpoints that survive a crash and resume to the bit, as chapter 06 builds them.

A checkpoint is a file of `torch.save` with a line behind it that holds the CRC-32 of all bytes before:
`torch.load` overlooks that line, and overlooks a changed byte in a tensor, too, which the line tells.
"""

import contextlib
import copy
import math
import os
import random
import re
import secrets
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

SEAL = b"course_utils crc32 %08x\n"  # the last line of a checkpoint
SEAL_SIZE = len(SEAL % 0)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be saved, read or used; the message says which, why, and what to do."""


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that at any moment the old file, or the new one, is there as a whole.

    The state is written to a temporary file in the same folder, forced to the disk, and then renamed.

    Args:
        state: tensors, numbers, texts, and lists, tuples and dicts of them: what `weights_only` loads.

    Raises:
        CheckpointError: no space, no folder, no permission, or something in the state that could not be
            loaded again. The old file is as it was, and no temporary file is left.
    """
    with _replacing(Path(path)) as temporary:
        with temporary.open("xb") as file:
            writer = _Crc32Writer(file)
            try:
                torch.save(dict(state), writer)
            except RuntimeError as error:  # of torch, which hides that the disk is full
                raise writer.error or error from None
            file.write(SEAL % writer.crc)
        try:  # no tensor is read here: they are only mapped into memory
            torch.load(temporary, map_location="cpu", mmap=True, weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{path} was not saved: the state holds something that could not be loaded again. Save "
                f"state_dict()s, tensors, numbers and texts only. Cause: {_first_line(error)}"
            ) from error


def load_checkpoint(path: str | Path, *, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, after checking that no byte has changed; nothing in it is run as code.

    Args:
        map_location: where its tensors go, as in `torch.load`.

    Raises:
        CheckpointError: the file is missing, cut short, changed, of another kind, or holds what
            `weights_only=True` refuses.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            _check_bytes(path, file)
            state = torch.load(file, map_location=map_location, weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        there = sorted(p.name for p in path.parent.glob("*.pt"))
        raise CheckpointError(
            f"{path} is missing. In its folder: {', '.join(there) or 'no checkpoint'}. Check the name."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. Is it a file of yours?") from error
    except Exception as error:
        raise CheckpointError(
            f"{path} was refused, and no code in it was run: it holds something other than tensors and plain "
            f"values. Do not use it unless you know who made it. Cause: {_first_line(error)}"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not the dict of a checkpoint.")
    return state


def training_state(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: Any = None,
    scaler: torch.amp.GradScaler | None = None,
    history: Any = None,
    early_stopping: Any = None,
    generator: torch.Generator | None = None,
) -> dict[str, Any]:
    """Return all that a run needs to go on to the same bits, for `save_checkpoint`.

    The tensors are the live ones, which training changes: save them at once.

    Args:
        generator: that of the training `DataLoader`, which shuffles.
    """
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    parts |= {"history": history, "early_stopping": early_stopping}
    parts = {name: part for name, part in parts.items() if part is not None}
    state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
    if generator is not None:
        parts["generator"], state["generator"] = generator, generator.get_state()
    state["kinds"] = {
        name: f"{'' if len(state[name]) else 'disabled '}{type(part).__name__}"  # as a GradScaler may be
        for name, part in parts.items()
        if name != "model"
    }
    state["parameters"] = _names(model, optimizer)
    state["random"] = _random_states()
    return state


def restore_training(
    state: Mapping[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    *,
    scheduler: Any = None,
    scaler: torch.amp.GradScaler | None = None,
    history: Any = None,
    early_stopping: Any = None,
    generator: torch.Generator | None = None,
) -> None:
    """Bring a run back to where `training_state` saw it, with every random state of Python, NumPy and torch.

    Give the same parts as there. The states of GPUs' random numbers are set where there are as many GPUs.

    Raises:
        CheckpointError: the state does not fit. Then nothing has been changed.
    """
    parts = {"scheduler": scheduler, "scaler": scaler, "history": history}
    parts |= {"early_stopping": early_stopping, "generator": generator}
    now = training_state(model, optimizer, **parts)
    if missing := {"model", "kinds", "parameters", "random"} - set(state):
        raise CheckpointError(f"the state has no {', '.join(sorted(missing))}: make it by training_state.")
    _check_weights(state["model"], now["model"])
    for name in sorted({*state["kinds"], *now["kinds"]}):
        saved, given = state["kinds"].get(name), now["kinds"].get(name)
        if saved != given:
            raise CheckpointError(
                f"{name}: the checkpoint holds {saved or 'none'}, given was {given or 'none'}. Restore with "
                "the same parts as those that were saved."
            )
    if state["parameters"] != now["parameters"]:
        raise CheckpointError("the optimizer has other parameters, in another order, or in other groups.")
    parts = {"model": model, "optimizer": optimizer, **parts}
    before = copy.deepcopy(now)
    try:
        _restore(state, parts)
    except Exception as error:
        _restore(before, parts)
        raise CheckpointError(f"the state does not fit, nothing was changed: {_first_line(error)}") from error


class Checkpoints:
    """A folder of checkpoints: the newest few as `epoch_0007.pt`, and the best as `best.pt`.

    One process at a time may save into a folder.

    Args:
        folder: is made if it is not there.
        keep: how many of the newest to keep.
        mode: "min" if a smaller value is better (a loss), "max" if a larger one is (an accuracy).

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, folder: str | Path, keep: int = 3, mode: str = "min") -> None:
        if keep < 1 or mode not in ("min", "max"):
            raise ValueError(f"{keep=}, {mode=}: expected at least 1, and 'min' or 'max'.")
        self.folder, self.keep, self.mode = Path(folder), keep, mode

    def save(self, epoch: int, state: Mapping[str, Any], value: float | None = None) -> Path:
        """Save the state of an epoch, also as the best if its value is better than that of `best.pt`.

        What the file holds is the state and `epoch` and `value`.

        Raises:
            CheckpointError: saving failed, or the folder holds a later epoch.
            ValueError: the value is NaN.
        """
        if value is not None and math.isnan(value):
            raise ValueError(f"the value of epoch {epoch} is NaN: it can be neither better nor worse.")
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self.folder.glob(".*.pt.*.tmp"):  # left by a process that was killed while saving
            name.unlink(missing_ok=True)
        path = self.folder / f"epoch_{epoch:04d}.pt"
        last = self.last()
        if last is not None and _epoch(last) > epoch:
            raise CheckpointError(
                f"{path} was not saved: the folder holds the later {last.name}. Resume from that one, remove "
                "it, or use another folder."
            )
        state = {**state, "epoch": epoch, "value": None if value is None else float(value)}
        if value is not None:
            sign = 1 if self.mode == "min" else -1
            best = None if self.best() is None else load_checkpoint(self.best())["value"]
            if best is None or sign * value < sign * best:
                save_checkpoint(self.folder / "best.pt", state)  # first: after a kill it is not too old
        save_checkpoint(path, state)
        for old in self._epochs()[: -self.keep]:
            old.unlink()
        return path

    def last(self) -> Path | None:
        """Return the path of the newest epoch; None if there is none."""
        return next(reversed(self._epochs()), None)

    def best(self) -> Path | None:
        """Return the path of the best one; None if no value has been given yet."""
        path = self.folder / "best.pt"
        return path if path.exists() else None

    def _epochs(self) -> list[Path]:
        found = self.folder.glob("epoch_*.pt")
        return sorted((path for path in found if re.fullmatch(r"epoch_\d+", path.stem)), key=_epoch)


def export_safetensors(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights in the format safetensors, which can hold no code; atomic like a checkpoint.

    Of tensors that share memory, such as tied weights, one is written.

    Raises:
        CheckpointError: as `save_checkpoint`.
    """
    from safetensors.torch import save_model

    with _replacing(Path(path)) as temporary:
        save_model(model, str(temporary))


def load_safetensors(model: nn.Module, path: str | Path) -> None:
    """Load weights that `export_safetensors` wrote; unlike `safetensors.torch.load_model` all or nothing.

    Raises:
        CheckpointError: the file cannot be read, or is that of another model, which is left as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {_first_line(error)}") from error
    places = {name: (t.data_ptr(), t.shape) for name, t in model.state_dict().items() if t.numel()}
    kept = {places[name]: name for name in weights if name in places}
    for name, place in places.items():
        if name not in weights and place in kept:  # tied to one that was written
            weights[name] = weights[kept[place]]
    _check_weights(weights, model.state_dict())
    model.load_state_dict(weights)


class _Crc32Writer:
    """Writes to a file and computes the CRC-32 of what goes through, without a copy."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.crc, self.error = file, 0, None

    def write(self, data: Any) -> int:
        self.crc = zlib.crc32(data, self.crc)
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a new name in the folder of `path`; what is written there is moved to `path`, or removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # the bytes are on the disk before the name points to them
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"{path} was not saved: {error.strerror or error}. Free some space, or save to a folder that is "
            "there and that you may write to. What was saved before is as it was."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk, too, where a folder can be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_bytes(path: Path, file: BinaryIO) -> None:
    """See that the file ends with the right checksum, and that its contents are stored as torch does.

    Leaves the file at its beginning.
    """
    size = file.seek(0, os.SEEK_END) - SEAL_SIZE
    file.seek(max(size, 0))
    seal = file.read()
    if size < 0 or not seal.startswith(SEAL[:19]):
        whole = zipfile.is_zipfile(file)  # has its end
        raise CheckpointError(
            f"{path} was not written by save_checkpoint: it has no checksum. "
            "If you know who made it, read it by torch.load(path, weights_only=True)."
            if whole
            else f"{path} is cut short, or no checkpoint: it has no checksum at its end. Use an earlier one."
        )
    file.seek(0)
    crc, left = 0, size
    while left:
        block = file.read(min(left, 1 << 20))
        crc, left = zlib.crc32(block, crc), left - len(block)
    if seal != SEAL % crc:
        raise CheckpointError(f"{path} has changed since it was saved: its checksum is wrong. Use another.")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(m.compress_type for m in members) or sum(m.file_size for m in members) > size:
        raise CheckpointError(f"{path} was refused: it would unpack to more than its size. Do not use it.")
    file.seek(0)


def _check_weights(saved: Mapping[str, torch.Tensor], model: Mapping[str, torch.Tensor]) -> None:
    """See that the names and shapes of a saved model are those of the given one."""
    wrong = {
        "missing in the checkpoint": [name for name in model if name not in saved],
        "unknown to the model": [name for name in saved if name not in model],
        "of another shape": [
            f"{name} (saved {tuple(saved[name].shape)}, model {tuple(model[name].shape)})"
            for name in model
            if name in saved and saved[name].shape != model[name].shape
        ],
    }
    found = [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
    if found:
        raise CheckpointError(f"the checkpoint is that of another model. {'; '.join(found)}.")


def _names(model: nn.Module, optimizer: Optimizer) -> list[list[str]]:
    """The names of the parameters in each group of the optimizer."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = (group["params"] for group in optimizer.param_groups)
    return [[names.get(id(parameter), "not of the model") for parameter in group] for group in groups]


def _random_states() -> dict[str, Any]:
    """The states of all global generators, as types that `weights_only=True` loads."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the global generator
    states = {"python": random.getstate(), "torch": torch.get_rng_state()}
    states["numpy"] = (kind, torch.from_numpy(keys.astype(np.int64)), *rest)
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore(state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Load each part, then the random states, which loading could move."""
    for name, part in parts.items():
        if part is not None and name != "generator":
            part.load_state_dict(state[name])
    if parts["generator"] is not None:
        parts["generator"].set_state(state["generator"].cpu())
    states = state["random"]
    kind, keys, *rest = states["numpy"]
    random.setstate(states["python"])
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"].cpu())
    if len(states.get("cuda", [])) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all([cuda.cpu() for cuda in states["cuda"]])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"].cpu())


def _epoch(path: Path) -> int:
    return int(path.stem.removeprefix("epoch_"))


def _first_line(error: BaseException) -> str:
    """The part of an error's message that tells the cause, without torch's advice around it."""
    lines = re.sub(r"\x1b\[\d+m", "", str(error)).strip().splitlines() or [type(error).__name__]
    told = [line.partition("WeightsUnpickler error: ")[2] for line in lines]
    return next(filter(None, told), lines[0]).strip()
