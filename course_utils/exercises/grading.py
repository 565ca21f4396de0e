"""How an answer is judged: the learner's function runs beside a reference, case by case.

A chapter's module writes an exercise as its reference solution under the decorator `exercise`,
with the cases to try and the mistakes that people make. In the notebook, `check.NAME(NAME)` prints
one of three verdicts: `○` not started, `✔` right, `✘` wrong, and then why.
"""

import _thread
import builtins
import contextlib
import copy
import dis
import functools
import inspect
import io
import linecache
import math
import os
import random
import re
import reprlib
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np
import torch

from course_utils.device import seed_everything

SEED = 20_240  # the generators' state before each call; a call that reseeds shows by another seed
WIDTH = 200  # characters in a printed line
_SINGLE = (type, torch.dtype, torch.layout, torch.memory_format)  # told apart by identity


@dataclass
class Verdict:
    """What a checker found: `mark` is `○`, `✔` or `✘`; `text` is all that the learner reads."""

    mark: str
    text: str


class Result(NamedTuple):
    """What `call` may return: the value to compare, and what else is wrong with the answer.

    The second is told where the value is right, or where it is `...`, for there is none to compare.
    """

    value: Any
    wrong: str | None = None


def _value(result: Any) -> Any:
    return result.value if type(result) is Result else result


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
        call: Callable | None = None,
    ) -> None:
        self.reference, self.name, self.call = reference, reference.__name__, call
        self.cases, self.mistakes, self.also = cases, mistakes, also
        self.in_place, self.seconds = in_place, seconds

    def __call__(self, answer: Callable) -> None:
        print(self.grade(answer).text)

    def grade(self, answer: Callable) -> Verdict:
        """Judge `answer` under PyTorch's defaults; leave random states and settings as they were."""
        if not callable(answer):
            advice = f"give the function itself, check.{self.name}({self.name}), without calling it"
            return Verdict("✘", f"✘ {self.name}: {advice}")
        if is_stub(answer) and isinstance(answer, type) == isinstance(self.reference, type):
            return Verdict("○", f"○ {self.name}: not started")
        answer = self._usable(answer)
        with _undisturbed():
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
            total = len(self.cases())
            for number in range(total):
                printed = _FirstCharacters()
                reasons = self._judge(answer, number, printed)
                if reasons:
                    head = f"✘ {self.name}: check {number + 1} of {total}"
                    return Verdict("✘", "\n".join([head, *reasons, *printed.lines()]))
        return Verdict("✔", "\n".join([f"✔ {self.name}: {total} of {total} checks", *printed.lines()]))

    def _case(self, number: int) -> tuple:
        """Make a case's arguments afresh, always the same ones, so that no call can spoil another's."""
        seed_everything(0)
        case = self.cases()[number]
        with contextlib.suppress(TypeError, RuntimeError):  # generators and non-leaf tensors have no copy
            return copy.deepcopy(case)
        return case

    def _judge(self, answer: Callable, number: int, printed: io.StringIO) -> list[str]:
        """Return what is wrong with `answer` on one case, a line each; an empty list if nothing is."""
        arguments, untouched = self._case(number), self._case(number)
        signature = inspect.signature(self.call or self.reference)
        names = list(signature.parameters)[bool(self.call) :][: len(arguments)]
        share = max(50, (WIDTH - 20) // max(len(names), 1) - 10)
        shown = (f"{n} = {show(a, share)}" for n, a in zip(names, untouched, strict=False))
        given = _line("given", ", ".join(shown))
        expected, expected_arguments, expected_seed = self._run(self.reference, number)

        seed_everything(SEED)
        try:
            got, seed = self._guarded(answer, arguments, printed)
        except TimeUp:
            why = f"stopped after {self.seconds:g} s: is there a loop that does not end?"
            return [given, _line("why", why)]
        except KeyboardInterrupt:  # the learner's own Ctrl-C
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the learner's code raises is reported
            calling = (self.call and inspect.getdoc(self.call)) or f"{self.name}({', '.join(names)})"
            lines = _explain_error(error, calling)
            why = self._known(answer, number)
            return [given, *lines, _line("why", why)] if why else [given, *lines]

        if seed != SEED and expected_seed == SEED:
            return [given, _line("why", "it reseeds PyTorch's global generator: leave out torch.manual_seed")]

        got, wrong = got if type(got) is Result else (got, None)
        if wrong and got is ...:
            return [given, _line("why", wrong)]

        def compare() -> tuple[list[str], str | None, bool]:
            """What to show, what is wrong if anything is, and whether it is the outcome that is wrong."""
            if not self.in_place:
                for name, before, after in zip(names, untouched, arguments, strict=False):
                    if how := _changed(after, before):
                        how = "it switches requires_grad instead of watching a copy; " * (
                            how == "requires_grad"
                        )
                        return [], f"{how}it changes its argument `{name}` in place: work on a copy", False
            if why := difference(got, expected):
                values = [_line("expected", show(expected))]
                if not why.startswith("its device"):  # mixed devices may leave meaningless numbers
                    values.append(_line("got", show(got)))
            elif not self.in_place:
                values = [_line("got", show(got))]
            else:
                pairs = zip(names, arguments, expected_arguments, strict=False)
                for name, have, want in pairs:
                    if why := difference(have, want, f"`{name}` becomes"):
                        break
                values = [_line("expected", f"{name} = {show(want)}"), _line("got", f"{name} = {show(have)}")]
            if not why:
                return (
                    [] if self.in_place else values,
                    wrong or (self.also(got, *arguments) if self.also else None),
                    False,
                )
            return values, why, True

        try:
            (values, why, spoiled), _ = self._guarded(compare, (), printed)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - an odd object may fail, or loop, in any method
            why = f"it returns {_kind(got)} that cannot be compared: {type(error).__name__}"
            return [given, _line("why", why)]
        if spoiled:
            why = self._known(answer, number) or why
        return [given, *values, _line("why", why)] if why else []

    def _usable(self, answer: Callable) -> Callable:
        """What takes a case's arguments: the answer itself, or `call` with the answer as its first one."""
        return functools.partial(self.call, answer) if self.call else answer

    def _guarded(self, function: Callable, arguments: tuple, printed: io.StringIO) -> tuple[Any, int]:
        """Call a function within the time limit; return its result, and PyTorch's seed after it."""
        with (
            _undisturbed(),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            sys.stdin, builtins.input, warnings.showwarning = io.StringIO(), _no_input, _print_warning
            with time_limit(self.seconds, _apply):
                result = _apply(function, arguments)
            return result, torch.initial_seed()

    def _run(self, function: Callable, number: int) -> tuple[Any, tuple, int]:
        """What `function` makes of a case: its result, the arguments after it, and PyTorch's seed."""
        arguments = self._case(number)
        seed_everything(SEED)
        result = self._usable(function)(*arguments)
        return _value(result), arguments, torch.initial_seed()

    def _known(self, answer: Callable, number: int) -> str | None:
        """The diagnosis, if it can be had: the answer may be endless, or odd, on another case."""
        try:
            return self._guarded(self._diagnosis, (answer, number), _FirstCharacters())[0]
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - without a diagnosis there is still the difference
            return None

    def _outcome(self, run: Callable[[], tuple]) -> Any:
        """What a run makes of a case, to compare two: its result, or the text of its error."""
        try:
            result, arguments, *_ = run()
        except (KeyboardInterrupt, TimeUp):
            raise
        except BaseException as error:  # noqa: BLE001 - compared with the error of a known mistake
            return f"{type(error).__name__}: {error.args}"
        return (result, *arguments) if self.in_place else result

    def _diagnosis(self, answer: Callable, number: int) -> str | None:
        """Name the known mistake that goes wrong just as the answer does.

        On a small case two mistakes may give the same numbers: the answer must agree with the mistake
        on every case that the mistake spoils.
        """

        def guarded(n: int) -> tuple:
            arguments = self._case(n)
            seed_everything(SEED)
            return _value(self._guarded(answer, arguments, _FirstCharacters())[0]), arguments

        mine = functools.cache(lambda n: self._outcome(lambda: guarded(n)))
        right = functools.cache(lambda n: self._outcome(lambda: self._run(self.reference, n)))
        for explanation, mistaken in self.mistakes.items():
            wrong = functools.cache(
                lambda n, mistaken=mistaken: self._outcome(lambda: self._run(mistaken, n))
            )
            if difference(mine(number), wrong(number)):
                continue
            told = [n for n in range(len(self.cases())) if not getattr(right(n), "is_meta", False)]
            if not any(difference(wrong(n), right(n)) and difference(mine(n), wrong(n)) for n in told):
                return explanation
        return None


def exercise(
    cases: Callable[[], list[tuple]],
    mistakes: dict[str, Callable] | None = None,
    also: Callable[..., str | None] | None = None,
    in_place: bool = False,
    seconds: float = 5.0,
    call: Callable | None = None,
) -> Callable[[Callable], Exercise]:
    """Turn a reference solution into the checker of its exercise.

    Args:
        cases: makes the list of argument tuples to try; called anew before each run, with the global
            generators seeded.
        mistakes: what went wrong → a function that goes wrong that way.
        also: `also(got, *arguments)` returns what is still wrong with a result of the right value.
        in_place: the function is to change its arguments; these are compared, too.
        seconds: how long one call may take. The limit holds in the main thread, where cells run.
        call: for an answer that is a class, or whose result says too little by itself:
            `call(answer, *arguments)` uses the answer and returns what is compared, perhaps as a
            `Result`. Its docstring is the call as the learner would write it, such as `Scale(size)(x)`.
    """
    return lambda reference: Exercise(reference, cases, mistakes or {}, also, in_place, seconds, call)


def is_stub(function: Callable) -> bool:
    """Tell whether a function's body is still only a docstring, `...` or `pass`; for a class, all methods.

    Python compiles a lone `return` or `return None` to the same code, so that these count, too.
    """
    if isinstance(function, type):
        members = [getattr(member, "__func__", member) for member in vars(function).values()]
        members = [member for member in members if isinstance(member, FunctionType)]
        methods = [m for m in members if not m.__name__.startswith("__annotate")]  # Python 3.14 adds these
        return bool(methods) and all(is_stub(method) for method in methods)
    if not isinstance(function, (FunctionType, MethodType)):
        return False
    steps = [s for s in dis.get_instructions(function.__code__) if s.opname not in {"RESUME", "NOP", "CACHE"}]
    loads = {"LOAD_CONST", "RETURN_CONST"}
    return all(s.opname == "RETURN_VALUE" or (s.opname in loads and s.argval is None) for s in steps)


def difference(got: Any, expected: Any, verb: str = "it returns") -> str | None:
    """Say how `got` differs from `expected` in type, shape, dtype, device or value; None if it does not.

    Floating-point numbers may differ by rounding, and NaN equals NaN. Objects whose class defines no
    equality are only told apart by their class.
    """
    if got is None and expected is not None and verb == "it returns":
        return "it returns None: is there a `return`?"
    if not _same_family(got, expected):
        return f"{verb} {_kind(got)}, not {_kind(expected)}"
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
    return None if same else f"the value is {_number(got)}, not {_number(expected)}"


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


def _changed(after: Any, before: Any) -> str | None:
    """How an argument changed during a call: its values, or whether it records gradients."""
    if isinstance(before, torch.Tensor) and after.requires_grad != before.requires_grad:
        return "requires_grad"
    return difference(after, before)


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
        return f"the value is {_number(got.item())}, not {_number(expected.item())}"
    where = tuple((~close).nonzero()[0].tolist())
    return (
        f"the right shape and dtype, but {int((~close).sum())} of {close.numel()} values are off; "
        f"at {list(where)}: {_number(got[where].item())}, not {_number(expected[where].item())}"
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


def show(value: Any, most: int = WIDTH - 12) -> str:
    """One short line for a value: small tensors in full, large ones by shape and dtype."""
    text = " ".join(_ONE_LINE.repr(value).split())
    return _cut(re.sub(r" at 0x[0-9a-fA-F]+", "", text), most)


class _OneLine(reprlib.Repr):
    """Python's own short form of nested and long values, which also knows tensors."""

    def __init__(self) -> None:
        super().__init__()  # sets Python's own limits, as attributes of the object
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict, self.maxset = 4, 24, 24, 8, 8
        self.maxstring, self.maxlong, self.maxother = 80, 40, 300

    def repr1(self, value: Any, level: int) -> str:
        if isinstance(value, (torch.Tensor, np.ndarray)):
            dense = value.layout == torch.strided if isinstance(value, torch.Tensor) else True
            if dense and math.prod(value.shape) <= 24 and not getattr(value, "is_meta", False):
                return repr(value)
            text = f"{_kind(value)} of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
            return text if dense else f"{text}, {str(value.layout).removeprefix('torch.')}"
        try:
            return super().repr1(value, level)
        except Exception:  # noqa: BLE001 - an object may do anything, and a number have too many digits
            return f"<{type(value).__name__}>"

    def repr_instance(self, value: Any, level: int) -> str:
        """The start of an object's own text; `repr1` sees to one that fails."""
        return _cut(repr(value), self.maxother)


_ONE_LINE = _OneLine()


def _number(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, (float, complex)) else show(value, 60)


def _kind(value: Any) -> str:
    """A value's type with its article: `a tensor`, `an int`."""
    if value is None:
        return "None"
    if type(value).__module__ == "torch.return_types" and hasattr(value, "indices"):
        return "a pair (values, indices)"
    name = {torch.Tensor: "tensor", np.ndarray: "NumPy array"}.get(type(value), type(value).__name__)
    return f"an {name}" if name[0] in "aeio" else f"a {name}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _line(label: str, text: str) -> str:
    return f"  {label:<9} {_cut(text, 2 * WIDTH if label == 'why' else WIDTH - 12)}"


def _explain_error(error: BaseException, call: str) -> list[str]:
    """Two lines: the error, and the learner's own line that led to it."""
    try:
        message = (str(error).strip().splitlines() or [""])[0]
    except Exception:  # noqa: BLE001 - the learner's exception may have a broken __str__
        message = ""
    lines = [_line("error", f"{type(error).__name__}: {message}" if message else type(error).__name__)]
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        code = frame.f_code
        source = linecache.getline(code.co_filename, number).strip()
        if source and not _is_library(code.co_filename):
            place = "" if code.co_name in {call.partition("(")[0], "<lambda>"} else f"  (in {code.co_name})"
            return [*lines, _line("in line", f"{number}: {source}{place}")]
    return [*lines, _line("why", f"the checker calls it as {call}")]


def _is_library(file: str) -> bool:
    """Whether a file belongs to Python, an installed package or this course, not to the learner."""
    roots = [Path(module.__file__).parent for module in (os, torch, np)] + [Path(__file__).parents[1]]
    path = Path(file)
    return (
        file.startswith("<frozen")
        or any(path.is_relative_to(root) for root in roots)
        or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    )


def _call(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)


def _apply(function: Callable, arguments: tuple) -> Any:
    """Call a function; the time limit holds in what runs under this."""
    return function(*arguments)


def _print_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    print(f"{category.__name__}: {message}")  # without the cell's file, whose name says nothing


def _no_input(prompt: object = "") -> str:
    raise RuntimeError("input() waits for the keyboard: take what you need from the arguments")


class TimeUp(BaseException):
    """Raised in the learner's code past its time; no Exception, so that `except Exception` lets it by."""


@contextlib.contextmanager
def time_limit(seconds: float, function: Callable) -> Iterator[None]:
    """Raise TimeUp inside the Python function `function` once the block has run for `seconds`.

    A bare `except:` may swallow it, so it is raised again and again until the function gives in.
    Code in C that never returns to Python, such as `sum(itertools.count())`, cannot be stopped. In a
    thread other than the main one, where Python runs no signal handlers, there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    code, over, late, rings = function.__code__, threading.Event(), threading.Event(), 0
    hook = sys.unraisablehook  # it hears of a TimeUp that Python cannot raise, such as one in a `__del__`

    def ring(signum: int, frame: FrameType | None) -> None:
        nonlocal rings
        if not late.is_set():
            if callable(previous):
                previous(signum, frame)  # not our signal: on Windows it may be the learner's Ctrl-C
        elif _runs_in(code, frame):
            rings += 1
            if rings > 1:
                insist(frame, rings - 2)
            raise TimeUp

    def insist(frame: FrameType, lines: int) -> None:
        """Raise TimeUp a number of lines later, too: some line is outside of the `try`."""

        def trace(frame: FrameType, event: str, _) -> Callable:
            nonlocal lines
            if event == "line" and _runs_in(code, frame):
                lines -= 1
                if lines < 0:
                    raise TimeUp
            return trace

        while frame.f_code is not code:
            frame.f_trace = trace
            frame = frame.f_back
        sys.settrace(trace)

    def wait() -> None:
        pause = seconds
        while not over.wait(pause):
            late.set()
            pause = 0.02
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(main, number)  # a real signal: it wakes time.sleep, too
            else:
                _thread.interrupt_main(number)  # Windows

    main, number, tracer = threading.get_ident(), getattr(signal, "SIGALRM", signal.SIGINT), sys.gettrace()
    previous = signal.signal(number, ring)
    sys.unraisablehook = lambda event: None if event.exc_type is TimeUp else hook(event)
    clock = threading.Thread(target=wait, daemon=True)
    clock.start()
    try:
        yield
    except Exception:
        if not rings:
            raise
    finally:
        if rings:
            sys.settrace(tracer)
        over.set()
        clock.join()
        sys.unraisablehook = hook
        signal.signal(number, signal.SIG_DFL if previous is None else previous)
    if rings:
        raise TimeUp  # the function swallowed it, and then returned or raised something else


def _runs_in(code: CodeType, frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is code:
            return True
        frame = frame.f_back
    return False


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


_SETTINGS: list[tuple[Callable, Callable]] = [  # how to read and how to set what a function may change
    (torch.get_default_dtype, torch.set_default_dtype),
    (
        torch.get_default_device,
        lambda device: torch.set_default_device(None if device.type == "cpu" else device),
    ),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (torch.get_num_threads, torch.set_num_threads),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (lambda: dict(os.environ), _set_environment),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    (torch._tensor_str.get_printoptions, lambda options: torch.set_printoptions(**options)),
    (os.getcwd, os.chdir),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (lambda: sys.stdin, lambda stream: setattr(sys, "stdin", stream)),
    (lambda: builtins.input, lambda function: setattr(builtins, "input", function)),
]


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Put back the random states, the settings of _SETTINGS and the environment variables."""
    settings = [(read, write, read()) for read, write in _SETTINGS]
    states = [(torch.set_rng_state, torch.get_rng_state()), (random.setstate, random.getstate())]
    states.append((np.random.set_state, np.random.get_state()))  # noqa: NPY002 - the global generator
    if torch.cuda.is_initialized():
        states.append((torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
    if torch.backends.mps.is_available():
        states.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    seed = torch.initial_seed()
    with warnings.catch_warnings(), np.printoptions(), np.errstate():
        try:
            yield
        finally:
            torch.manual_seed(seed)  # a GPU that starts only later is seeded with the last one given
            for write, state in states:
                write(state)
            for read, write, value in settings:
                if read() != value:
                    write(value)


class _FirstCharacters(io.StringIO):
    """Keeps the first of what the learner's function prints, however much that is."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, 2_000 - self.tell())])
        return len(text)

    def close(self) -> None:
        """Stay open: what was printed is still to be read."""

    def lines(self, most: int = 5) -> list[str]:
        lines = self.getvalue().splitlines()
        last = [_line("", "…")] if len(lines) > most else []
        return [_line("printed", line) for line in lines[: most - len(last)]] + last
