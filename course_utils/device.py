"""Which device to compute on, and how to make random numbers repeatable."""

import operator
import os
import random

import numpy as np
import torch


def get_device() -> torch.device:
    """Return the device to compute on: CUDA if there is one, else Apple's MPS, else the CPU.

    The environment variable `COURSE_DEVICE` overrides the choice: `cpu`, `cuda`, `cuda:1`, `mps`,
    in capital or small letters.

    Raises:
        ValueError: `COURSE_DEVICE` is not the name of a device.
        RuntimeError: `COURSE_DEVICE` names a device that this machine or this PyTorch lacks.
    """
    name = os.environ.get("COURSE_DEVICE", "").strip().lower()
    if not name:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"COURSE_DEVICE={name!r} is not a device: use cpu, cuda, cuda:1 or mps, "
            "or unset the variable to let the course choose."
        ) from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    available = counts.get(device.type, 0)
    if not 0 <= (device.index or 0) < available:
        raise RuntimeError(
            f"COURSE_DEVICE={name!r} asks for a device that PyTorch does not see here: it finds "
            f"{available} of kind {device.type!r}. Unset COURSE_DEVICE, or set COURSE_DEVICE=cpu."
        )
    return device


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and PyTorch (the CPU and every GPU).

    Raises:
        TypeError: `seed` is not an integer.
        ValueError: `seed` is not from 0 to 2**32 - 1, the range of NumPy.
    """
    try:
        seed = operator.index(seed)  # takes NumPy's integers, too; refuses 1.0 and "1"
    except TypeError as error:
        raise TypeError(f"{seed=}: give an integer from 0 to 2**32 - 1.") from error
    np.random.seed(seed)  # noqa: NPY002 - the global generator; first, since it checks the range
    random.seed(seed)
    torch.manual_seed(seed)
