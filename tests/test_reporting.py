"""Numbers with a range, expected errors, expected warnings."""

import math
import warnings

import numpy as np
import pytest
import torch

from course_utils import approx, expect_error, expect_warning

# --- approx ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "low", "high", "fmt", "text"),
    [
        (97.2, 95, 99, "{:.0f} %", "≈ 97 %"),
        (0.972, 0, 1, "{:.1%}", "≈ 97.2%"),
        (1.23456, 1, 2, "{:.3g}", "≈ 1.23"),
        (3, 1, 5, "{:.2f}", "≈ 3.00"),
        (1, 1, 2, "{:g}", "≈ 1"),
        (2, 1, 2, "{:g}", "≈ 2"),
        (-1.5, -2, -1, "{}", "≈ -1.5"),
        (1e9, 0, math.inf, "{:.1e}", "≈ 1.0e+09"),
        (True, 0, 1, "{:g}", "≈ 1"),
        (torch.tensor(0.5), 0, 1, "{:.1f}", "≈ 0.5"),
        (torch.tensor([[0.5]], requires_grad=True), 0, 1, "{:.1f}", "≈ 0.5"),
        (np.float32(0.5), np.float32(0), torch.tensor(1), "{:.1f} s", "≈ 0.5 s"),
        (2, 1, 3, "{0:.0f}: {0:.0f}", "≈ 2: 2"),
        (-1, -2, 0, "{:+.1f} m", "≈ -1.0 m"),
    ],
)
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
def test_approx(value, low, high, fmt, text):
    assert approx(value, low, high, fmt) == text


def test_approx_has_a_format_of_its_own():
    assert approx(1.23456, 1, 2) == "≈ 1.23"


@pytest.mark.parametrize("value", [0.9, 2.1, -1.5, math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_approx_outside_its_range(value):
    with pytest.raises(AssertionError, match="is outside its range: expected 1 to 2"):
        approx(value, 1, 2)


def test_infinity_is_outside_every_range():
    with pytest.raises(AssertionError, match="inf is outside its range"):
        approx(math.inf, 0, math.inf)


def test_the_message_shows_more_digits_than_the_format():
    with pytest.raises(AssertionError, match=r"99\.4 is outside its range: expected 95 to 99"):
        approx(99.4, 95, 99, "{:.0f} %")


@pytest.mark.parametrize(
    ("low", "high"), [(2, 1), (1, 1), (math.nan, 1), (1, math.nan), (math.nan, math.nan)]
)
def test_approx_with_an_empty_range(low, high):
    with pytest.raises(ValueError, match=r"the range from .* to .* is empty: give low < high"):
        approx(1, low, high)


@pytest.mark.parametrize("fmt", ["%.2f", "%", "", "loss", "{{}}", "loss {:.2f}"])
def test_approx_with_a_format_that_shows_no_value(fmt):
    with pytest.raises(ValueError, match="must begin with its field"):
        approx(1, 0, 2, fmt)


@pytest.mark.parametrize("value", ["one", None, [1], torch.ones(2), 1j])
def test_approx_of_what_is_no_number(value):
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        approx(value, 0, 2)


# --- expect_error ----------------------------------------------------------------------------------


def test_an_expected_error_is_printed(capsys):
    with expect_error(ZeroDivisionError):
        1 / 0  # noqa: B018
    with expect_error(ValueError, RuntimeError):
        raise RuntimeError("  first line \n second line")
    with expect_error(LookupError):
        raise KeyError("a")
    assert capsys.readouterr().out.splitlines() == [
        "ZeroDivisionError: division by zero",
        "RuntimeError: first line",
        "LookupError: 'a'",  # the kind that was named, not the subclass
    ]


@pytest.mark.parametrize("message", [(), ("",), ("\n \n",)])
def test_an_error_without_a_message(message, capsys):
    with expect_error(ValueError):
        raise ValueError(*message)
    assert capsys.readouterr().out == "ValueError\n"


def test_no_error_is_an_error(capsys):
    with pytest.raises(AssertionError, match="expected ValueError or KeyError, but nothing was raised"):  # noqa: SIM117
        with expect_error(ValueError, KeyError):
            pass
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [KeyError("a"), KeyboardInterrupt(), SystemExit(1), AssertionError("x")])
def test_other_errors_pass(error, capsys):
    with pytest.raises(type(error)) as caught:  # noqa: SIM117
        with expect_error(ValueError):
            raise error
    assert caught.value is error
    assert capsys.readouterr().out == ""


# --- expect_warning --------------------------------------------------------------------------------


def test_expected_warnings_are_printed(capsys):
    with expect_warning():
        warnings.warn("one\ntwo", stacklevel=1)
        warnings.warn("", stacklevel=1)
    with expect_warning(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert capsys.readouterr().out.splitlines() == [
        "UserWarning: one",
        "UserWarning",
        "DeprecationWarning: old",
    ]


def test_no_warning_is_an_error():
    with pytest.raises(AssertionError, match="expected a UserWarning, but there was none"):  # noqa: SIM117
        with expect_warning():
            pass


def test_other_warnings_are_shown_as_usual(capsys):
    with warnings.catch_warnings(record=True) as shown, expect_warning(UserWarning):
        warnings.warn("soon", FutureWarning, stacklevel=1)
        warnings.warn("now", UserWarning, stacklevel=1)
    assert [(w.category, str(w.message), w.filename) for w in shown] == [(FutureWarning, "soon", __file__)]
    assert capsys.readouterr().out == "UserWarning: now\n"


def test_errors_pass_through_an_expected_warning():
    filters, always = list(warnings.filters), torch.is_warn_always_enabled()
    with pytest.raises(ZeroDivisionError), expect_warning():
        1 / 0  # noqa: B018
    assert (list(warnings.filters), torch.is_warn_always_enabled()) == (filters, always)


def test_a_warning_that_torch_gives_once_is_given_each_time(capsys):
    array = np.zeros(2)
    array.flags.writeable = False
    for _ in range(2):
        with expect_warning():
            torch.from_numpy(array)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert lines[0].startswith("UserWarning: The given NumPy array is not writable")
