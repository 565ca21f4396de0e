"""How an answer is judged: the learner's function runs beside a reference, case by case.

A chapter's module writes an exercise as its reference solution under the decorator `exercise`,
with the cases to try and the mistakes that people make. In the notebook, `check.NAME(NAME)` prints
one of three verdicts: `○` not started, `✔` right, `✘` wrong, and then why.
"""

import contextlib
import dis
import inspect
import io
import linecache
import random
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType
from typing import Any

import _thread
import numpy as np
import torch

SEED = 20_240  # the generator's state before each call; a call that reseeds shows by another seed


@dataclass
class Verdict:
    """What a checker found: `mark` is `○`, `✔` or `✘`; `text` is all that the learner reads."""

    mark: str
    text: str


class Exercise:
    """Compares an answer with `reference`; call it with the learner's function to print a verdict."""

    def __init__(
        self,
        reference: Callable,
        cases: Callable[[], list[tuple]],
        mistakes: dict[str, Callable],
        also: Callable[..., str | None] | None,
        in_place: bool,
        seconds: float,
    ) -> None:
        self.reference, self.name = reference, reference.__name__
        self.cases, self.mistakes, self.also = cases, mistakes, also
        self.in_place, self.seconds = in_place, seconds

    def __call__(self, answer: Callable) -> None:
        print(self.grade(answer).text)

    def grade(self, answer: Callable) -> Verdict:
        """Judge `answer`; leave random states, gradient mode and default dtype as they were."""
        if not callable(answer):
            advice = f"give the function itself, check.{self.name}({self.name}), without calling it"
            return Verdict("✘", f"✘ {self.name}: {advice}")
        if is_stub(answer):
            return Verdict("○", f"○ {self.name}: not started")
        printed = _FirstCharacters()
        with _undisturbed():
            total = len(self._cases())
            for number in range(total):
                reasons = self._judge(answer, number, printed)
                if reasons:
                    head = f"✘ {self.name}: check {number + 1} of {total}"
                    return Verdict("✘", "\n".join([head, *reasons, *printed.lines()]))
        return Verdict("✔", "\n".join([f"✔ {self.name}: {total} of {total} checks", *printed.lines()]))

    def _cases(self) -> list[tuple]:
        """Make all the cases afresh, always the same ones, so that no call can spoil another's."""
        torch.manual_seed(0)
        return self.cases()

    def _judge(self, answer: Callable, number: int, printed: io.StringIO) -> list[str]:
        """Return what is wrong with `answer` on one case, a line each; an empty list if nothing is."""
        arguments = self._cases()[number]
        untouched = self._cases()[number]
        names = list(inspect.signature(self.reference).parameters)
        given = _line("given", ", ".join(f"{n} = {show(a)}" for n, a in zip(names, untouched, strict=True)))
        expected = self._outcome(self.reference, number)

        torch.manual_seed(SEED)
        try:
            with contextlib.redirect_stdout(printed), time_limit(self.seconds, answer):
                got = answer(*arguments)
        except TimeUp:
            return [given, _line("why", f"stopped after {self.seconds:g} s: is there a loop that does not end?")]
        except Exception as error:  # whatever the learner's code raises is reported, not hidden
            return [given, *_explain_error(error, answer)]

        if torch.initial_seed() != SEED:
            return [given, _line("why", "it reseeds PyTorch's global generator: leave out torch.manual_seed")]
        if not self.in_place:
            for name, before, after in zip(names, untouched, arguments, strict=True):
                if difference(after, before):
                    return [given, _line("why", f"it changes its argument `{name}` in place: work on a copy")]
        outcome = (got, *arguments) if self.in_place else got
        why = difference(outcome, expected)
        if why:
            lines = [given, _line("expected", show(self._result(expected))), _line("got", show(got))]
            return [*lines, _line("why", self._diagnosis(outcome, number) or why)]
        why = self.also(got, *arguments) if self.also else None
        return [given, _line("got", show(got)), _line("why", why)] if why else []

    def _outcome(self, function: Callable, number: int) -> Any:
        """What `function` makes of a case: its result, with the arguments if they are to change."""
        torch.manual_seed(SEED)
        arguments = self._cases()[number]
        torch.manual_seed(SEED)
        result = function(*arguments)
        return (result, *arguments) if self.in_place else result

    def _result(self, outcome: Any) -> Any:
        return outcome[1] if self.in_place else outcome

    def _diagnosis(self, outcome: Any, number: int) -> str | None:
        """Name the mistake that gives just this outcome, if it is a known one."""
        for explanation, mistaken in self.mistakes.items():
            with contextlib.suppress(Exception):  # a mistake may not run on every case
                if not difference(outcome, self._outcome(mistaken, number)):
                    return explanation
        return None


def exercise(
    cases: Callable[[], list[tuple]],
    mistakes: dict[str, Callable] | None = None,
    also: Callable[..., str | None] | None = None,
    in_place: bool = False,
    seconds: float = 5.0,
) -> Callable[[Callable], Exercise]:
    """Turn a reference solution into the checker of its exercise.

    Args:
        cases: makes the list of argument tuples to try; called anew before each run.
        mistakes: what went wrong → a function that goes wrong that way.
        also: `also(got, *arguments)` returns what is still wrong with a result of the right value.
        in_place: the function is to change its arguments; these are compared, too.
        seconds: how long one call may take. The limit holds in the main thread, where cells run.
    """
    return lambda reference: Exercise(reference, cases, mistakes or {}, also, in_place, seconds)


def is_stub(function: Callable) -> bool:
    """Tell whether a function's body is still only a docstring, `...` or `pass`."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    steps = [s for s in dis.get_instructions(code) if s.opname not in {"RESUME", "NOP", "CACHE"}]
    loads = {"LOAD_CONST", "RETURN_CONST"}
    return all(s.opname == "RETURN_VALUE" or (s.opname in loads and s.argval is None) for s in steps)


def difference(got: Any, expected: Any) -> str | None:
    """Say how `got` differs from `expected` in type, shape, dtype, device or value; None if it does not."""
    if got is None and expected is not None:
        return "it returns None: is there a `return`?"
    if type(got) is not type(expected) and not (isinstance(got, torch.Tensor) and isinstance(expected, torch.Tensor)):
        return f"it returns {_kind(got)}, not {_kind(expected)}"
    if isinstance(expected, (tuple, list)):
        if len(got) != len(expected):
            return f"it returns {len(got)} values, not {len(expected)}"
        return next((why for pair in zip(got, expected, strict=True) if (why := difference(*pair))), None)
    if isinstance(expected, torch.Tensor):
        return _tensor_difference(got, expected)
    if isinstance(expected, np.ndarray):
        same = got.shape == expected.shape and got.dtype == expected.dtype and np.array_equal(got, expected)
        return None if same else "the array has other values"
    if isinstance(expected, float):
        return None if np.isclose(got, expected, rtol=1e-4, atol=1e-6, equal_nan=True) else "the number is another"
    return None if got == expected else "the value is another"


def _tensor_difference(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    for what in ("shape", "dtype", "device"):
        have, want = getattr(got, what), getattr(expected, what)
        if have != want:
            have, want = (tuple(have), tuple(want)) if what == "shape" else (have, want)
            return f"its {what} is {have}, not {want}"
    if expected.device.type == "meta":
        return None  # a meta tensor has no values
    got, expected = got.detach(), expected.detach()
    close = torch.isclose(got, expected, rtol=1e-4, atol=1e-6, equal_nan=True) if expected.is_floating_point() else got == expected
    if close.all():
        return None
    where = tuple((~close).nonzero()[0].tolist())
    place = f"at {list(where)}: {got[where].item():.5g}, not {expected[where].item():.5g}" if where else "differs"
    return f"the right shape and dtype, but {int((~close).sum())} of {close.numel()} values are off; {place}"


def show(value: Any) -> str:
    """One short line for a value: small tensors in full, large ones by dtype and shape."""
    if isinstance(value, torch.Tensor):
        if value.numel() <= 24 and value.device.type != "meta":
            return " ".join(repr(value).split())
        return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(show, value)) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(show, value)) + "]"
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else text[:200] + "…"


def _kind(value: Any) -> str:
    name = {torch.Tensor: "tensor", np.ndarray: "NumPy array"}.get(type(value), type(value).__name__)
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _line(label: str, text: str) -> str:
    return f"  {label:<9} {text}"


def _explain_error(error: Exception, answer: Callable) -> list[str]:
    """Two lines: the error, and the learner's own line that led to it."""
    message = (str(error).strip().splitlines() or [""])[0]
    lines = [_line("error", f"{type(error).__name__}: {message}")]
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    if frames:
        source = linecache.getline(file, frames[-1].lineno).strip()
        lines.append(_line("in line", f"{frames[-1].lineno}: {source}"))
    return lines


class TimeUp(BaseException):
    """Raised in the learner's code past its time; no Exception, so that `except Exception` lets it by."""


@contextlib.contextmanager
def time_limit(seconds: float, function: Callable) -> Iterator[None]:
    """Raise TimeUp inside `function` once it has run for `seconds`, and again until it gives in."""
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    if code is None or threading.current_thread() is not threading.main_thread():
        yield  # a built-in function cannot loop in Python, and signals reach the main thread only
        return

    def ring(signum, frame) -> None:
        if _runs_in(code, frame):
            raise TimeUp

    def wait() -> None:
        pause = seconds
        while not over.wait(pause):
            pause = 0.05
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, number)  # a real signal: it wakes time.sleep, too
            else:
                _thread.interrupt_main(number)  # Windows

    over, main = threading.Event(), threading.get_ident()
    number = getattr(signal, "SIGALRM", signal.SIGINT)
    previous = signal.signal(number, ring)
    clock = threading.Thread(target=wait, daemon=True)
    clock.start()
    try:
        yield
    finally:
        over.set()
        clock.join()
        signal.signal(number, previous)


def _runs_in(code: CodeType, frame) -> bool:
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put back every global state that a learner's function or a case could change."""
    cpu, gpus = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    numpy_state, python_state = np.random.get_state(), random.getstate()
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


class _FirstCharacters(io.StringIO):
    """Keeps what the learner's function prints, but not without end."""

    def write(self, text: str) -> int:
        return super().write(text) if self.tell() < 2_000 else len(text)

    def lines(self, most: int = 5) -> list[str]:
        lines = self.getvalue().splitlines()
        more = [_line("", "…")] if len(lines) > most else []
        return [_line("printed", line[:120]) for line in lines[:most]] + more
