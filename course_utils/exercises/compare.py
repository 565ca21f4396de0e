"""How an answer's result differs from the expected one."""

from typing import Any

import numpy as np
import torch

from course_utils.exercises.text import kind_of, number_text, show

_SINGLE = (type, torch.dtype, torch.layout, torch.memory_format)  # told apart by identity


def difference(got: Any, expected: Any, verb: str = "it returns") -> str | None:
    """Say how `got` differs from `expected` in type, shape, dtype, device or value; None if it does not.

    Floating-point numbers may differ by rounding, and NaN equals NaN. Objects whose class defines no
    equality are only told apart by their class.
    """
    if got is None and expected is not None and verb == "it returns":
        return "it returns None: is there a `return`?"
    if not _same_family(got, expected):
        return f"{verb} {kind_of(got)}, not {kind_of(expected)}"
    if isinstance(expected, (tuple, list)):
        if len(got) != len(expected):
            return f"{verb} {len(got)} values, not {len(expected)}"
        for i, pair in enumerate(zip(got, expected, strict=True)):
            if why := difference(*pair, verb="it is"):
                return f"value {i + 1} of {len(expected)}: {why}"
        return None
    if isinstance(expected, dict):
        if got.keys() != expected.keys():
            return f"the keys are {show(list(got))}, not {show(list(expected))}"
        whys = ((key, difference(got[key], expected[key], "it is")) for key in expected)
        return next((f"at key {show(key)}: {why}" for key, why in whys if why), None)
    if isinstance(expected, torch.Tensor):
        return _tensor_difference(got, expected)
    if isinstance(expected, np.ndarray):
        return _array_difference(got, expected)
    if isinstance(expected, torch.nn.Module):
        got, expected = ({"training": m.training, **m.state_dict()} for m in (got, expected))
        return difference(got, expected)
    if type(expected).__eq__ is object.__eq__ and not isinstance(expected, _SINGLE):
        return None
    if isinstance(expected, (float, complex)):
        same = np.isclose(got, expected, rtol=1e-4, atol=1e-6, equal_nan=True)
    else:
        same = got == expected
    return None if same else f"the value is {number_text(got)}, not {number_text(expected)}"


def _same_family(got: Any, expected: Any) -> bool:
    """Whether the types agree; a subclass will do, and an int where a float is expected."""
    if isinstance(expected, bool) or isinstance(got, (bool, np.bool_)):
        return isinstance(expected, bool) and isinstance(got, (bool, np.bool_))
    families = (
        (int, (int, np.integer)),
        (float, (int, np.integer, float, np.floating)),
        (tuple, tuple),
        (torch.Tensor, torch.Tensor),
    )
    accepted = (others for kind, others in families if isinstance(expected, kind))
    return isinstance(got, next(accepted, type(expected)))


def _tensor_difference(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    for what in ("layout", "shape", "dtype", "device"):
        have, want = getattr(got, what), getattr(expected, what)
        if have != want:
            have, want = (tuple(have), tuple(want)) if what == "shape" else (have, want)
            cure = ": create it on the device of the arguments" if what == "device" else ""
            return f"its {what} is {have}, not {want}{cure}"
    if expected.requires_grad and not got.requires_grad:
        return "the values are right, but it is cut off from the graph: requires_grad is False"
    if expected.device.type == "meta":
        return None  # a meta tensor has no values
    got, expected = (t.detach().to_dense().cpu() for t in (got, expected))
    if expected.is_floating_point() or expected.is_complex():
        rounding = max(1e-4, 4 * torch.finfo(expected.dtype).eps)
        wide = torch.complex128 if expected.is_complex() else torch.float64
        close = torch.isclose(
            got.to(wide), expected.to(wide), rtol=rounding, atol=rounding / 100, equal_nan=True
        )
    else:
        close = got == expected
    if close.all():
        return None
    if not close.dim():
        return f"the value is {number_text(got.item())}, not {number_text(expected.item())}"
    where = tuple((~close).nonzero()[0].tolist())
    return (
        f"the right shape and dtype, but {int((~close).sum())} of {close.numel()} values are off; "
        f"at {list(where)}: {number_text(got[where].item())}, not {number_text(expected[where].item())}"
    )


def _array_difference(got: np.ndarray, expected: np.ndarray) -> str | None:
    for what in ("shape", "dtype"):
        if getattr(got, what) != getattr(expected, what):
            return f"its {what} is {getattr(got, what)}, not {getattr(expected, what)}"
    if np.issubdtype(expected.dtype, np.inexact):
        same = np.allclose(got, expected, rtol=1e-4, atol=1e-6, equal_nan=True)
    else:
        same = np.array_equal(got, expected)
    return None if same else "the right shape and dtype, but the array has other values"
