"""Checkpoints that survive a crash and resume to the bit, as chapter 06 builds them.

A checkpoint is a file of `torch.save` with a line behind it that holds the CRC-32 of all bytes before:
`torch.load` overlooks that line, and overlooks a changed byte in a tensor, too, which the line tells.
It is no sandbox: a file made to do harm runs no code, but may still crash the process or fill the memory.
"""

import math
import pickle
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_utils.resume import check_weights, restore_training, training_state
from course_utils.safe_files import (
    SEAL,
    CheckpointError,
    Crc32Writer,
    cause,
    check_bytes,
    explaining,
    replacing,
)

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "export_safetensors",
    "load_checkpoint",
    "load_safetensors",
    "restore_training",
    "save_checkpoint",
    "training_state",
]


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that at any moment the old file, or the new one, is there as a whole.

    The state is written to a temporary file in the same folder, forced to the disk, and then renamed.

    Args:
        state: tensors, numbers, texts, and lists, tuples and dicts of them: what `weights_only` loads.

    Raises:
        CheckpointError: no space, no folder, no permission, or something in the state that could not be
            loaded again. The old file is as it was, and no temporary file is left.
    """
    with ThreadPoolExecutor(1) as pool, replacing(Path(path)) as temporary, temporary.open("xb") as file:
        writer = Crc32Writer(file, pool)
        try:
            torch.save(dict(state), writer)
            file.write(SEAL % writer.crc)
            file.flush()  # no tensor is read here: they are only mapped into memory
            torch.load(temporary, map_location="cpu", mmap=True, weights_only=True)
        except OSError:
            raise
        except Exception as error:
            if writer.error is not None:
                raise writer.error from None
            raise CheckpointError(
                f"{path} was not saved: the state holds something that could not be loaded again. Save "
                f"state_dict()s, tensors, numbers and texts only. Cause: {cause(error)}"
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
            check_bytes(path, file)
            state = torch.load(file, map_location=map_location, weights_only=True)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        there = sorted(p.name for p in path.parent.glob("*.pt"))
        raise CheckpointError(
            f"{path} is missing. In its folder: {', '.join(there) or 'no checkpoint'}. Check the name."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}. Check the path and its permissions."
        ) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} was refused, and no code in it was run: it holds something other than tensors and plain "
            f"values. Do not use it. Cause: {cause(error)}"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} could not be loaded, and no code in it was run. If there is memory enough, and "
            f"map_location is right, use another checkpoint. Cause: {cause(error)}"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds a {type(state).__name__}, no dict: it is no checkpoint. Use another."
        )
    return state


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
        self._best_value: float | None = None  # read from best.pt when it is first needed

    def save(self, epoch: int, state: Mapping[str, Any], value: float | None = None) -> Path:
        """Save the state of an epoch, also as the best if its value is better than that of `best.pt`.

        What the file holds is the state and `epoch`, `value` and `mode`.

        Raises:
            CheckpointError: saving failed, or the folder holds a later epoch. If only `best.pt` cannot be
                read or written, or is that of another mode, the epoch is saved all the same.
            ValueError: the value is NaN.
        """
        if value is not None and math.isnan(value):
            raise ValueError(f"the value of epoch {epoch} is NaN: it can be neither better nor worse.")
        path = self.folder / f"epoch_{epoch:04d}.pt"
        with explaining(f"{path} was not saved"):
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".*.pt.*.tmp"):  # by a process that was killed while saving
                left.unlink(missing_ok=True)
        last = self.last()
        if last is not None and _epoch(last) > epoch:
            raise CheckpointError(
                f"{path} was not saved: the folder holds the later {last.name}. Resume from that one, remove "
                "it, or use another folder."
            )
        state = {**state, "epoch": epoch, "value": None if value is None else float(value), "mode": self.mode}
        trouble = None
        try:
            if value is not None and self._is_best(value):
                save_checkpoint(self.folder / "best.pt", state)  # first: after a kill it is not too old
                self._best_value = state["value"]
        except CheckpointError as error:
            trouble = error
        save_checkpoint(path, state)
        with explaining(f"{path} was saved, but an old one could not be removed"):
            for old in self._epochs()[: -self.keep]:
                old.unlink(missing_ok=True)
        if trouble is not None:
            raise CheckpointError(
                f"{path} was saved, but best.pt was not brought up to date. If that file is the cause, move "
                f"it away. Cause: {trouble}"
            ) from trouble
        return path

    def last(self) -> Path | None:
        """Return the path of the newest epoch; None if there is none."""
        return next(reversed(self._epochs()), None)

    def best(self) -> Path | None:
        """Return the path of the best one; None if no value has been given yet."""
        path = self.folder / "best.pt"
        return path if path.exists() else None

    def _is_best(self, value: float) -> bool:
        path = self.best()
        if self._best_value is None and path is not None:
            best = load_checkpoint(path)
            if best.get("mode") != self.mode:
                raise CheckpointError(f"{path} is that of mode={best.get('mode')!r}, this is {self.mode!r}.")
            self._best_value = best["value"]
        sign = 1 if self.mode == "min" else -1
        return self._best_value is None or sign * value < sign * self._best_value

    def _epochs(self) -> list[Path]:
        found = self.folder.glob("epoch_*.pt")
        return sorted((path for path in found if re.fullmatch(r"epoch_\d+", path.stem)), key=_epoch)


def export_safetensors(model: nn.Module, path: str | Path) -> None:
    """Write a model's weights in the format safetensors, which can hold no code; atomic like a checkpoint.

    Of tensors that share memory, such as tied weights, one is written.

    Raises:
        CheckpointError: as `save_checkpoint`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_model

    with replacing(Path(path)) as temporary:
        try:
            save_model(model, str(temporary))
        except SafetensorError as error:  # that of the system is only a text in it
            raise OSError(cause(error)) from error


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
        raise CheckpointError(f"{path} cannot be read as safetensors: {cause(error)}") from error
    places = {name: (t.data_ptr(), t.shape) for name, t in model.state_dict().items() if t.numel()}
    kept = {places[name]: name for name in weights if name in places}
    for name, place in places.items():
        if name not in weights and place in kept:  # tied to one that was written
            weights[name] = weights[kept[place]]
    check_weights(weights, model.state_dict())
    model.load_state_dict(weights)


def _epoch(path: Path) -> int:
    return int(path.stem.removeprefix("epoch_"))
