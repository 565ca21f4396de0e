"""Printing what a cell found so that a machine can check it: ranges, expected errors and warnings."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def approx(value: float, low: float, high: float, fmt: str = "{:.3g}") -> str:
    """Return `value` as text such as `≈ 97 %`, after checking that it lies in its range.

    Numbers that differ from machine to machine (losses, accuracies, times) are printed this way:
    the tests ignore the digits behind the sign ≈, and the range is checked wherever the cell runs.

    Args:
        value: a number, or a tensor with one element.
        low, high: the smallest and the largest value that is still right.
        fmt: a format with one field, for example `"{:.0f} %"`.

    Raises:
        ValueError: `low` is not below `high`, or `fmt` does not begin with its field.
        AssertionError: `value` is NaN, infinite or outside the range.
    """
    value, low, high = float(value), float(low), float(high)
    if not low < high:
        raise ValueError(f"the range from {low} to {high} is empty: give low < high.")
    if not (math.isfinite(value) and low <= value <= high):
        raise AssertionError(f"{value:.6g} is outside its range: expected {low:g} to {high:g}.")
    text = fmt.format(value)
    if not text.lstrip(" +-")[:1].isdigit():
        raise ValueError(f"fmt={fmt!r} must begin with its field: the tests overlook the number behind ≈.")
    return f"≈ {text}"


@contextmanager
def expect_error(*kinds: type[Exception]) -> Iterator[None]:
    """Run a block that must fail, and print the kind of error named and the message's first line.

    A subclass is printed under the name given here, since newer versions of PyTorch raise finer kinds.

    Example:
        >>> with expect_error(ZeroDivisionError):
        ...     1 / 0
        ZeroDivisionError: division by zero

    Raises:
        AssertionError: the block did not raise. An error of another kind passes through.
    """
    try:
        yield
    except kinds as error:
        print(_headline(next(kind for kind in kinds if isinstance(error, kind)), error))
    else:
        raise AssertionError(f"expected {' or '.join(k.__name__ for k in kinds)}, but nothing was raised.")


@contextmanager
def expect_warning(kind: type[Warning] = UserWarning) -> Iterator[None]:
    """Run a block that must warn, and print each warning's name and its first line.

    PyTorch gives some of its warnings once in a process; here it gives them each time, so that the
    cell can be run again.

    Raises:
        AssertionError: the block did not warn. Warnings of another kind are shown as usual.
    """
    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.set_warn_always(True)
        try:
            yield
        finally:
            torch.set_warn_always(always)
    expected = [w for w in caught if issubclass(w.category, kind)]
    for w in caught:
        if w not in expected:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    if not expected:
        raise AssertionError(f"expected a {kind.__name__}, but there was none.")
    for w in expected:
        print(_headline(w.category, w.message))


def _headline(kind: type, message: Exception | Warning) -> str:
    """The name of an error or a warning and the first line of its message, if it has one."""
    lines = str(message).strip().splitlines()
    return f"{kind.__name__}: {lines[0].rstrip()}" if lines else kind.__name__
