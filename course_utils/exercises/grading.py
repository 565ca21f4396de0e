"""How an answer is judged: the learner's function runs beside a reference, case by case.

A chapter's module writes an exercise as its reference solution under the decorator `exercise`,
with the cases to try and the mistakes that people make. In the notebook, `check.NAME(NAME)` prints
one of three verdicts: `○` not started, `✔` right, `✘` wrong, and then why.
"""

import builtins
import contextlib
import copy
import dis
import functools
import inspect
import io
import linecache
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np
import torch

from course_utils import progress
from course_utils.device import seed_everything
from course_utils.exercises.compare import difference
from course_utils.exercises.limits import FirstCharacters, TimeUp, time_limit, undisturbed
from course_utils.exercises.text import WIDTH, kind_of, labelled, show

SEED = 20_240  # the generators' state before each call; a call that reseeds shows by another seed


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
        """Print the verdict on `answer`; keep a ✔ among the learner's progress, and tell how far that is."""
        verdict = self.grade(answer)
        print(verdict.text)
        if verdict.mark == "✔":
            module = self.reference.__module__.rpartition(".")[2]
            if told := progress.record(f"{module}.{self.name}"):
                print(f"  progress  {told}")

    def grade(self, answer: Callable) -> Verdict:
        """Judge `answer` under PyTorch's defaults; leave random states and settings as they were."""
        if not callable(answer):
            advice = f"give the function itself, check.{self.name}({self.name}), without calling it"
            return Verdict("✘", f"✘ {self.name}: {advice}")
        if is_stub(answer) and isinstance(answer, type) == isinstance(self.reference, type):
            return Verdict("○", f"○ {self.name}: not started")
        answer = self._usable(answer)
        with undisturbed():
            torch.set_grad_enabled(True)
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
            total = len(self.cases())
            for number in range(total):
                printed = FirstCharacters()
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
        given = labelled("given", ", ".join(shown))
        expected, expected_arguments, expected_seed = self._run(self.reference, number)

        seed_everything(SEED)
        try:
            got, seed = self._guarded(answer, arguments, printed)
        except TimeUp:
            why = f"stopped after {self.seconds:g} s: is there a loop that does not end?"
            return [given, labelled("why", why)]
        except KeyboardInterrupt:  # the learner's own Ctrl-C
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the learner's code raises is reported
            calling = (self.call and inspect.getdoc(self.call)) or f"{self.name}({', '.join(names)})"
            lines = _explain_error(error, calling)
            why = self._known(answer, number)
            return [given, *lines, labelled("why", why)] if why else [given, *lines]

        if seed != SEED and expected_seed == SEED:
            return [
                given,
                labelled("why", "it reseeds PyTorch's global generator: leave out torch.manual_seed"),
            ]

        got, wrong = got if type(got) is Result else (got, None)
        if wrong and got is ...:
            return [given, labelled("why", wrong)]

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
                values = [labelled("expected", show(expected))]
                if not why.startswith("its device"):  # mixed devices may leave meaningless numbers
                    values.append(labelled("got", show(got)))
            elif not self.in_place:
                values = [labelled("got", show(got))]
            else:
                pairs = zip(names, arguments, expected_arguments, strict=False)
                for name, have, want in pairs:
                    if why := difference(have, want, f"`{name}` becomes"):
                        break
                values = [
                    labelled("expected", f"{name} = {show(want)}"),
                    labelled("got", f"{name} = {show(have)}"),
                ]
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
            why = f"it returns {kind_of(got)} that cannot be compared: {type(error).__name__}"
            return [given, labelled("why", why)]
        if spoiled:
            why = self._known(answer, number) or why
        return [given, *values, labelled("why", why)] if why else []

    def _usable(self, answer: Callable) -> Callable:
        """What takes a case's arguments: the answer itself, or `call` with the answer as its first one."""
        return functools.partial(self.call, answer) if self.call else answer

    def _guarded(self, function: Callable, arguments: tuple, printed: io.StringIO) -> tuple[Any, int]:
        """Call a function within the time limit; return its result, and PyTorch's seed after it."""
        with (
            undisturbed(),
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
            return self._guarded(self._diagnosis, (answer, number), FirstCharacters())[0]
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
            return _value(self._guarded(answer, arguments, FirstCharacters())[0]), arguments

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


def _changed(after: Any, before: Any) -> str | None:
    """How an argument changed during a call: its values, or only whether it records gradients."""
    if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        switched = after.requires_grad != before.requires_grad
        if switched and not difference(after.detach(), before.detach()):
            return "requires_grad"
    return difference(after, before)


def left_off() -> str | None:
    """Let PyTorch record again; say so if the answer had left it off."""
    if torch.is_grad_enabled():
        return None
    torch.set_grad_enabled(True)
    return "gradients stay off for all that follows: use `with torch.no_grad():`, which ends with its block"


def _explain_error(error: BaseException, call: str) -> list[str]:
    """Two lines: the error, and the learner's own line that led to it.

    Of a message's lines the first, and the second where that only announces it: "Error(s) in loading:".
    """
    try:
        first, second, *_ = [*str(error).strip().splitlines(), "", ""]
        message = f"{first} {second.strip()}".rstrip() if first.endswith(":") else first
    except Exception:  # noqa: BLE001 - the learner's exception may have a broken __str__
        message = ""
    lines = [labelled("error", f"{type(error).__name__}: {message}" if message else type(error).__name__)]
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        code = frame.f_code
        source = linecache.getline(code.co_filename, number).strip()
        if source and not _is_library(code.co_filename):
            place = "" if code.co_name in {call.partition("(")[0], "<lambda>"} else f"  (in {code.co_name})"
            return [*lines, labelled("in line", f"{number}: {source}{place}")]
    return [*lines, labelled("why", f"the checker calls it as {call}")]


def _is_library(file: str) -> bool:
    """Whether a file belongs to Python, an installed package or this course, not to the learner."""
    roots = [Path(module.__file__).parent for module in (os, torch, np)] + [Path(__file__).parents[1]]
    path = Path(file)
    return (
        file.startswith("<frozen")
        or any(path.is_relative_to(root) for root in roots)
        or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    )


def _apply(function: Callable, arguments: tuple) -> Any:
    """Call a function; the time limit holds in what runs under this."""
    return function(*arguments)


def _print_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    print(f"{category.__name__}: {message}")  # without the cell's file, whose name says nothing


def _no_input(prompt: object = "") -> str:
    raise RuntimeError("input() waits for the keyboard: take what you need from the arguments")
