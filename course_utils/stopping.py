"""Ctrl-C and the stop button of a notebook, heard between two batches."""

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any


class Stopped(Exception):
    """The stop button was pressed: raised between two batches."""


class StopButton:
    """While it is entered, the first SIGINT only sets `pressed`; the second one acts as before.

    Only the main thread may handle signals: in any other thread nothing changes.
    """

    def __enter__(self) -> "StopButton":
        main = threading.current_thread() is threading.main_thread()
        self.pressed, self.old = False, signal.getsignal(signal.SIGINT) if main else None
        if callable(self.old):  # else SIGINT is ignored, or no business of Python's
            signal.signal(signal.SIGINT, self._press)
        return self

    def _press(self, *_: object) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, self.old)

    def __exit__(self, *_: object) -> None:
        if callable(self.old):
            signal.signal(signal.SIGINT, self.old)


class Stoppable:
    """A loader that raises `Stopped` instead of giving the next batch once the button is pressed."""

    def __init__(self, loader: Iterable[Any], stop: StopButton) -> None:
        self.loader, self.stop = loader, stop

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        try:
            for batch in () if self.stop.pressed else self.loader:  # which would draw an order at its start
                if self.stop.pressed:  # while the batch was loaded
                    break
                yield batch
                if self.stop.pressed:  # while it was trained: the next one is not loaded
                    break
        except Exception:
            if not self.stop.pressed:  # a notebook's stop button also ends the loader's workers
                raise
        if self.stop.pressed:
            raise Stopped
