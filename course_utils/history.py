"""What a run remembers: a row of numbers for each epoch, and the weights of its best one."""

import copy
import math
from typing import Any

import torch
from torch import nn

COLUMNS = ("epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr", "seconds")


class History:
    """What a run has measured: a row of plain numbers for each finished epoch.

    `history["valid_loss"]` is a column as a list. The columns are `COLUMNS`: epochs count from 1, losses
    are means per sample, accuracies lie between 0 and 1, `lr` is the rate at which the epoch began, and
    `seconds` is what training and validation took.

    Attributes:
        rows: a dict for each epoch.
        interrupted: whether the last `fit` was stopped before its end.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.interrupted = False

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"History(epochs={len(self)}, interrupted={self.interrupted})"

    def __getitem__(self, column: str) -> list[float]:
        if column not in COLUMNS:
            raise KeyError(f"there is no column {column!r}: choose one of {', '.join(COLUMNS)}.")
        return [row[column] for row in self.rows]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"rows": copy.deepcopy(self.rows), "interrupted": self.interrupted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` has returned."""
        self.rows, self.interrupted = copy.deepcopy(state["rows"]), state["interrupted"]


class EarlyStopping:
    """Tells when a value has stopped improving, and keeps the weights of its best moment.

    Args:
        patience: stop when so many values in a row have brought nothing better.
        min_delta: what is better by no more than this does not count as better.
        mode: "min" if smaller is better (a loss), "max" if larger is (an accuracy).

    Attributes:
        best: the best value so far; None before the first.
        stopped: whether the last `step` returned True.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, patience: int, min_delta: float = 0.0, mode: str = "min") -> None:
        if patience < 1 or min_delta < 0 or mode not in ("min", "max"):
            raise ValueError(
                f"{patience=}, {min_delta=}, {mode=}: expected at least 1, at least 0, and 'min' or 'max'."
            )
        self.patience, self.min_delta, self.mode = patience, min_delta, mode
        self.best: float | None = None
        self.waited = 0
        self.weights: dict[str, torch.Tensor] | None = None

    @property
    def stopped(self) -> bool:
        return self.waited >= self.patience

    def step(self, value: float, model: nn.Module) -> bool:
        """Note the value of an epoch, with a copy of the weights if it is the best; return True to stop.

        Raises:
            ValueError: the value is NaN.
        """
        if math.isnan(value):
            raise ValueError("the watched value is NaN: nothing can be better or worse than that.")
        sign = 1 if self.mode == "min" else -1
        if self.best is None or sign * value < sign * self.best - self.min_delta:
            self.best, self.waited = float(value), 0
            self.weights = copy.deepcopy(model.state_dict())  # state_dict alone would change with the model
        else:
            self.waited += 1
        return self.stopped

    def restore(self, model: nn.Module) -> None:
        """Load the best weights into the model.

        Raises:
            RuntimeError: there are none yet, or they are those of another model.
        """
        if self.weights is None:
            raise RuntimeError("there are no best weights yet: call step(value, model) first.")
        model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"mode": self.mode, "best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` has returned.

        Raises:
            ValueError: it is that of another mode.
        """
        if state["mode"] != self.mode:
            raise ValueError(f"the state is that of mode={state['mode']!r}, and this one has {self.mode!r}.")
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]
