"""Printing what a cell found so that a machine can check it: ranges, expected errors and warnings."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def approx(value: float, low: float, high: float, fmt: str = "{:.3g}") -> str:
    """Return `value` as text such as `≈ 97 %`, after checking that it lies in its range.

    Numbers that differ from machine to machine (losses, accuracies, times) are printed this way:
    the tests ignore the digits behind the sign ≈, and the range is checked wherever the cell runs.

    Args:
        value: a number, or a tensor with one element.
        low, high: the smallest and the largest value that is still right.
        fmt: a format with one field, for example `"{:.0f} %"`.

    Raises:
        ValueError: `low` is not below `high`, or one of the bounds is NaN.
        AssertionError: `value` is NaN or outside the range.
    """
    if not low < high:
        raise ValueError(f"the range from {low} to {high} is empty: give low < high.")
    value = float(value)
    text = fmt.format(value)
    if math.isnan(value) or not low <= value <= high:
        raise AssertionError(
            f"{text} is outside its range: expected {fmt.format(low)} to {fmt.format(high)}."
        )
    return f"≈ {text}"


@contextmanager
def expect_error(*kinds: type[Exception]) -> Iterator[None]:
    """Run a block that must fail, and print the error's name and its first line.

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
        print(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
    else:
        raise AssertionError(f"expected {' or '.join(k.__name__ for k in kinds)}, but nothing was raised.")


@contextmanager
def expect_warning(kind: type[Warning] = UserWarning) -> Iterator[None]:
    """Run a block that must warn, and print each warning's name and its first line.

    Raises:
        AssertionError: the block did not warn. Warnings of another kind are shown as usual.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    expected = [w for w in caught if issubclass(w.category, kind)]
    for w in caught:
        if w not in expected:
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    if not expected:
        raise AssertionError(f"expected a {kind.__name__}, but there was none.")
    for w in expected:
        print(f"{w.category.__name__}: {str(w.message).strip().splitlines()[0]}")
