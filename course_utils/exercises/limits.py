"""What keeps a learner's code from doing harm: a time limit, and settings that are put back."""

import _thread
import builtins
import contextlib
import io
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import CodeType, FrameType

import numpy as np
import torch

from course_utils.exercises.text import labelled


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
def undisturbed() -> Iterator[None]:
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


class FirstCharacters(io.StringIO):
    """Keeps the first of what the learner's function prints, however much that is."""

    def write(self, text: str) -> int:
        super().write(text[: max(0, 2_000 - self.tell())])
        return len(text)

    def close(self) -> None:
        """Stay open: what was printed is still to be read."""

    def lines(self, most: int = 5) -> list[str]:
        lines = self.getvalue().splitlines()
        last = [labelled("", "…")] if len(lines) > most else []
        return [labelled("printed", line) for line in lines[: most - len(last)]] + last
