"""What a run remembers: a row of numbers for each epoch, and the weights of its best one."""

import copy
import math
from typing import Any

import torch
from torch import nn

# What `fit` notes of an epoch.
COLUMNS = ("epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr", "seconds")


class History:
    """What a run has measured: `history["valid_loss"]` is a column, as a list with a number for each epoch.

    Attributes:
        rows: a dict for each finished epoch: `epoch`, counted from 1; `train_loss`, `train_accuracy`,
            `valid_loss`, `valid_accuracy`, means per sample, accuracies between 0 and 1; `lr`, the rate at
            which the epoch began; `seconds`.
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
        """Return a column, with a number for each epoch; KeyError if there is no such column."""
        columns = self.rows[-1] if self.rows else COLUMNS
        if column not in columns:
            raise KeyError(f"there is no column {column!r}: choose from {', '.join(columns)}.")
        return [row[column] for row in self.rows]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "interrupted": self.interrupted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.interrupted = copy.deepcopy(state["rows"]), state["interrupted"]


class EarlyStopping:
    """Tells when a loss has stopped improving, and keeps the weights of its best moment.

    Args:
        patience: stop when so many values in a row have brought nothing smaller; at least 1.

    Attributes:
        best: the smallest value so far, at first infinite.
        stopped: whether the last `step` returned True.

    Raises:
        ValueError: `patience` is less than 1.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"{patience=}: expected at least 1.")
        self.patience, self.best, self.waited = patience, math.inf, 0
        self.weights: dict[str, torch.Tensor] | None = None

    @property
    def stopped(self) -> bool:
        return self.waited >= self.patience

    def step(self, value: float, model: nn.Module) -> bool:
        """Note the value of an epoch, with a copy of the weights if it is the best; return True to stop."""
        if value < self.best:
            self.best, self.waited = float(value), 0
            self.weights = copy.deepcopy(model.state_dict())  # state_dict alone would change with the model
        else:
            self.waited += 1
        return self.stopped

    def restore(self, model: nn.Module) -> None:
        """Load the best weights into the model; RuntimeError if there are none yet."""
        if self.weights is None:
            raise RuntimeError("there are no best weights yet: call step(value, model) first.")
        model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]
