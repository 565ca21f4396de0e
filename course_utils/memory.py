"""Memory: who holds how many bytes, what does not fit, and what to do about it.

`MemoryMeter` counts the bytes of live tensors on any device, `memory_budget` makes the CPU run out of
memory as a small GPU does, and the rest is for what comes after: the largest batch that fits, errors
that keep tensors alive, and a prediction without running.
"""

import gc
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import patch

import torch

from course_utils.holders import error_places
from course_utils.meter import KINDS, MemoryMeter, format_bytes, is_out_of_memory, parse_bytes  # noqa: F401


def memory_budget(limit: str | int, device: torch.device | str | None = None) -> MemoryMeter:
    """A meter with a limit, for `with memory_budget("64 MiB") as meter:`.

    The operation whose result would pass the limit raises `torch.OutOfMemoryError`, as the GPU's
    allocator would. Catch it, free something, and go on. Only a tensor that grows in place (by `resize_`
    or `out=`) has grown already, and counts.

    On a CUDA device PyTorch's own allocator is limited, too: to what it holds at the start, plus the limit.

    Raises:
        ValueError: the limit is no size.
    """
    return MemoryMeter(device, limit)


def find_batch_size(step: Callable[[int], object], start: int = 1, max_batch: int = 65536) -> int:
    """Return the largest batch size for which `step(batch_size)` does not run out of memory, or 0.

    Doubles the size from `start` on until it fails (or `max_batch` is reached), then halves the gap between
    what fits and what does not. `step` runs one whole training step: it should begin with
    `optimizer.zero_grad()`, so that a failed step leaves no gradients, and leave nothing else behind.

    Raises:
        ValueError: not 1 <= start <= max_batch.
    """
    if not 1 <= start <= max_batch:
        raise ValueError(f"{start=}, {max_batch=}: expected 1 <= start <= max_batch.")
    fits, fails, size = 0, max_batch + 1, start
    while fails - fits > 1:
        try:
            step(size)
            fits = size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fails = size
        if fails == size:  # here the error is gone, and with it all that it kept alive
            gc.collect()
            if torch.accelerator.is_available():
                torch.get_device_module().empty_cache()
        size = min(2 * size, max_batch) if fails > max_batch else (fits + fails) // 2
    return fits


def forget_last_error() -> None:
    """Free what the last error of a notebook's cell, or of a prompt, keeps alive: locals of what failed.

    Python stores an error that nobody caught in `sys.last_value` and its traceback in
    `sys.last_traceback` (from 3.12 on also in `sys.last_exc`); IPython stores it again for `%debug`, and
    in the result of the last cell. All of them are emptied, so `%debug` has nothing to show after this.
    """
    for place, name in error_places():
        if place is sys:
            delattr(sys, name)
        else:
            setattr(place, name, None)
    gc.collect()


def predict_memory(step: Callable[[], object], device: torch.device | str | None = None) -> MemoryMeter:
    """Run `step()` with fake tensors, which have shapes and no memory, and return the meter that watched.

    `step` makes all it needs: the model, the optimizer, the data. Fake tensors hold no values, so it
    must read none (`.item()`, `if loss > 1`, `x[x > 0]`). Without a GPU predict on "cpu": float32 takes
    as many bytes there, only what the kernels need while they run is different.

    Raises:
        ImportError: this version of PyTorch has no `FakeTensorMode` where it is looked for.
        ValueError: `step` uses a tensor from outside, reads a value, or uses a GPU that is not there.
    """
    from torch._subclasses import fake_tensor

    meter = MemoryMeter(device)
    meter._only_fake = True
    # What PyTorch's modes and the meter keep weakly must not stop `model.to`, which changes fake parameters
    # in their place: they stay the same objects.
    movable = patch.object(torch.utils, "weakref", SimpleNamespace(getweakrefs=lambda tensor: []))
    reads = fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException
    try:
        with movable, fake_tensor.FakeTensorMode(), meter:
            step()
    except Exception as error:
        text = str(error)
        if isinstance(error, reads) or ".numpy() is not supported" in text:
            reason = "reads a value of a tensor (item(), float(), if, print): fake tensors have none."
        elif "convert all Tensors to FakeTensors" in text:
            reason = "uses a tensor from outside: make the model, the optimizer and the data inside step."
        elif not torch.cuda.is_available() and re.search("CUDA|hasPrimaryContext", text):
            reason = 'uses "cuda", and there is no GPU: predict on the CPU, with device="cpu".'
        else:
            raise
        raise ValueError(f"step {reason}") from error
    return meter
