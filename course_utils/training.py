"""Training a model, as chapter 05 builds it: an epoch, an evaluation, a whole run that can be stopped.

A batch is a pair (inputs, targets), and `loss_fn(logits, targets)` returns the mean over the samples
of the batch, as PyTorch's losses do by default.
"""

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm.auto import tqdm

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
COLUMNS = ("epoch", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "lr", "seconds")
FETCH = 20  # batches between two looks at the numbers: each look waits for the GPU


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
        return self.waited >= self.patience

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
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` has returned."""
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]


def train_one_epoch(
    model: nn.Module,
    loader: Iterable[Any],
    optimizer: Optimizer,
    loss_fn: Loss = F.cross_entropy,
    *,
    scheduler: LRScheduler | None = None,
    accumulate: int = 1,
    max_norm: float | None = None,
    amp_dtype: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    device: torch.device | None = None,
    progress: str | None = None,
) -> tuple[float, float]:
    """Train once over all batches; return the mean loss per sample and the accuracy, as seen on the way.

    A model in evaluation mode is set to training mode. One in training mode is left as it is, so that
    layers in it that you have set to `eval()`, such as a frozen BatchNorm, stay so.

    Args:
        loss_fn: returns the mean over the batch.
        scheduler: stepped after each step of the optimiser.
        accumulate: how many batches make one step. The gradient is that of the mean over all their
            samples, also where batches differ in size; BatchNorm still sees one batch at a time.
        max_norm: gradients with a larger norm are scaled down to it.
        amp_dtype: torch.bfloat16 or torch.float16 for mixed precision; float16 needs a scaler.
        device: where to compute; by default where the model is. The model is not moved.
        progress: the name of a progress bar, and of this epoch in errors; None for no bar.

    Returns:
        loss and accuracy; the accuracy is NaN if the targets are no class indices.

    Raises:
        ValueError: an argument is out of range, there is no batch, or the loss is no mean.
        FloatingPointError: a loss is NaN or infinite.
    """
    if accumulate < 1 or (max_norm is not None and not max_norm > 0):
        raise ValueError(f"{accumulate=}, {max_norm=}: expected at least 1, and more than 0 or None.")
    if amp_dtype == torch.float16 and scaler is None:
        raise ValueError("small gradients vanish in float16: give scaler=torch.amp.GradScaler(device.type).")
    device = device or _device_of(model)
    meter = _Meter(loss_fn, progress or "training")
    if not model.training:
        model.train()
    optimizer.zero_grad()
    sizes: list[int] = []  # of the batches since the last step
    batches = loader if progress is None else tqdm(loader, desc=progress, leave=False)
    for inputs, targets in batches:
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        with _autocast(device, amp_dtype):
            logits = model(inputs)
            loss = loss_fn(logits, targets)
        if meter.add(loss, logits, targets) and progress is not None:
            batches.set_postfix(loss=f"{meter.loss / meter.samples:.4f}", refresh=False)
        sizes.append(len(targets))
        if accumulate > 1:  # the weights add up to 1 if all batches are as large as the first
            loss = loss * (sizes[-1] / (accumulate * sizes[0]))
        (loss if scaler is None else scaler.scale(loss)).backward()
        if len(sizes) == accumulate:
            _step(optimizer, scaler, scheduler, max_norm, accumulate * sizes[0] / sum(sizes))
            sizes = []
    if sizes:
        _step(optimizer, scaler, scheduler, max_norm, accumulate * sizes[0] / sum(sizes))
    return meter.means()


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: Loss = F.cross_entropy,
    *,
    amp_dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    progress: str | None = None,
) -> tuple[float, float]:
    """Return the mean loss per sample and the accuracy, in evaluation mode and without gradients.

    Every module is left in the mode in which it was. Arguments, results and errors are those of
    `train_one_epoch`.
    """
    device = device or _device_of(model)
    meter = _Meter(loss_fn, progress or "evaluation")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            for inputs, targets in loader if progress is None else tqdm(loader, desc=progress, leave=False):
                inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
                with _autocast(device, amp_dtype):
                    logits = model(inputs)
                    loss = loss_fn(logits, targets)
                meter.add(loss, logits, targets)
    finally:
        for module, mode in modes:
            module.training = mode
    return meter.means()


def fit(
    model: nn.Module,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    optimizer: Optimizer,
    *,
    epochs: int,
    loss_fn: Loss = F.cross_entropy,
    scheduler: LRScheduler | None = None,
    scheduler_each: str = "epoch",
    accumulate: int = 1,
    max_norm: float | None = None,
    amp_dtype: torch.dtype | None = None,
    scaler: torch.amp.GradScaler | None = None,
    early_stopping: EarlyStopping | None = None,
    history: History | None = None,
    after_epoch: Callable[[History], object] | None = None,
    device: torch.device | None = None,
) -> History:
    """Train, and validate after each epoch, until the history has `epochs` rows; return the history.

    Ctrl-C, or the stop button of a notebook, lets the running batch finish and ends the run with
    `history.interrupted` True: the model keeps what it has learned, the unfinished epoch gets no row. A
    second one raises KeyboardInterrupt at once.

    Args:
        epochs: the total, with those of a given history: with 3 rows in it, epochs=5 trains 2 more.
        scheduler: any; ReduceLROnPlateau gets the validation loss (mode="max": accuracy).
        scheduler_each: "epoch", or "batch" to step it after each step of the optimiser (OneCycleLR).
        early_stopping: watches the validation loss (mode="max": accuracy). Its `restore(model)` is yours.
        history: goes on with this one, and adds to it.
        after_epoch: called with the history after each epoch, when all else is done: for checkpoints.

    All else, and the errors, are those of `train_one_epoch`.
    """
    if scheduler_each not in ("epoch", "batch"):
        raise ValueError(f"{scheduler_each=}: choose 'epoch' or 'batch'.")
    plateau = isinstance(scheduler, ReduceLROnPlateau)
    if plateau and scheduler_each == "batch":
        raise ValueError("ReduceLROnPlateau needs the validation loss: use scheduler_each='epoch'.")
    history = History() if history is None else history
    history.interrupted = False
    with _StopButton() as stop:
        while len(history) < epochs:
            epoch, start = len(history) + 1, time.perf_counter()
            lr = float(optimizer.param_groups[0]["lr"])
            common = {"amp_dtype": amp_dtype, "device": device}
            try:
                train = train_one_epoch(
                    model,
                    _Stoppable(train_loader, stop),
                    optimizer,
                    loss_fn,
                    scheduler=scheduler if scheduler_each == "batch" else None,
                    accumulate=accumulate,
                    max_norm=max_norm,
                    scaler=scaler,
                    progress=f"epoch {epoch}/{epochs}",
                    **common,
                )
                valid = evaluate(
                    model,
                    _Stoppable(valid_loader, stop),
                    loss_fn,
                    progress=f"epoch {epoch}/{epochs}, validation",
                    **common,
                )
            except _Stopped:
                history.interrupted = True
                print(f"Interrupted in epoch {epoch}: {len(history)} finished epochs are in the history.")
                break
            values = (epoch, *train, *valid, lr, time.perf_counter() - start)
            history.rows.append(dict(zip(COLUMNS, values, strict=True)))
            watched = {"min": valid[0], "max": valid[1]}
            if scheduler is not None and scheduler_each == "epoch":
                scheduler.step(watched[scheduler.mode]) if plateau else scheduler.step()
            stops = early_stopping is not None and early_stopping.step(watched[early_stopping.mode], model)
            if after_epoch is not None:
                after_epoch(history)
            if stops:
                break
    return history


def _step(
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler | None,
    scheduler: LRScheduler | None,
    max_norm: float | None,
    correction: float,
) -> None:
    """One step of the optimiser, and of the scheduler unless the scaler skipped it (infinite gradients)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if scaler is not None and (max_norm is not None or correction != 1):
        scaler.unscale_(optimizer)
    if correction != 1:  # a short group, or batches of different sizes
        for parameter in parameters:
            parameter.grad.mul_(correction)
    if max_norm is not None:
        clip_grad_norm_(parameters, max_norm)
    skipped = False
    if scaler is None:
        optimizer.step()
    else:
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped = scaler.get_scale() < scale
    optimizer.zero_grad()
    if scheduler is not None and not skipped:
        scheduler.step()


class _Meter:
    """Sums up losses and right answers. They stay on the device until FETCH of them are read at once."""

    def __init__(self, loss_fn: Loss, where: str) -> None:
        keywords = getattr(loss_fn, "keywords", {})  # of a functools.partial
        reduction = getattr(loss_fn, "reduction", keywords.get("reduction", "mean"))
        if reduction != "mean":
            raise ValueError(f"loss_fn has reduction={reduction!r}: the mean over the batch is expected.")
        self.where, self.waiting = where, []
        self.loss = self.right = 0.0
        self.batches = self.samples = self.answers = 0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> bool:
        """Note a batch; return whether the sums have just been brought up to date."""
        if loss.ndim:
            raise ValueError(
                f"loss_fn returned shape {tuple(loss.shape)}: the mean over the batch is expected."
            )
        if targets.is_floating_point() or logits.ndim != targets.ndim + 1:
            right = torch.tensor(math.nan)
        else:
            right = (logits.detach().argmax(1) == targets).sum()
        self.waiting.append((loss.detach(), right, len(targets), targets.numel()))
        if len(self.waiting) == FETCH:
            self.fetch()
        return not self.waiting

    def fetch(self) -> None:
        """Read what waits, and see that each loss is a number."""
        losses, rights, samples, answers = zip(*self.waiting, strict=True)
        self.waiting = []
        for loss, size in zip(torch.stack(losses).tolist(), samples, strict=True):
            self.batches += 1
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"{self.where}, batch {self.batches}: the loss is {loss}. Look for NaN in the data, use "
                    "a smaller learning rate, or clip the gradients (max_norm=1.0). The weights may hold NaN "
                    "by now: make the model anew, or load a checkpoint."
                )
            self.loss += loss * size
        self.right += torch.stack(rights).sum().item()
        self.samples += sum(samples)
        self.answers += sum(answers)

    def means(self) -> tuple[float, float]:
        """The mean loss per sample and the accuracy."""
        if self.waiting:
            self.fetch()
        if not self.samples:
            raise ValueError(
                f"{self.where}: the loader gave no batch. Is the data set empty, or smaller than a batch "
                "with drop_last=True, or the loader an iterator that is used up?"
            )
        return self.loss / self.samples, self.right / self.answers


class _Stopped(Exception):
    """The stop button was pressed: raised between two batches."""


class _StopButton:
    """While it is entered, the first SIGINT only sets `pressed`; the second one acts as before.

    Only the main thread may handle signals: in any other thread nothing changes.
    """

    def __init__(self) -> None:
        self.pressed, self.old = False, None

    def __enter__(self) -> "_StopButton":
        if threading.current_thread() is threading.main_thread():
            self.old = signal.getsignal(signal.SIGINT)
        if callable(self.old):  # else SIGINT is ignored, or no business of Python's
            signal.signal(signal.SIGINT, self._press)
        return self

    def _press(self, *_: object) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, self.old)

    def __exit__(self, *_: object) -> None:
        if callable(self.old):
            signal.signal(signal.SIGINT, self.old)


class _Stoppable:
    """A loader that raises `_Stopped` instead of giving the next batch once the button is pressed."""

    def __init__(self, loader: Iterable[Any], stop: _StopButton) -> None:
        self.loader, self.stop = loader, stop

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        try:
            for batch in self.loader:
                if self.stop.pressed:
                    break
                yield batch
                if self.stop.pressed:
                    break
        except Exception:
            if not self.stop.pressed:  # a notebook's stop button also ends the loader's workers
                raise
        if self.stop.pressed:
            raise _Stopped


def _device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager:
    """Mixed precision in this dtype; without one, nothing."""
    return nullcontext() if dtype is None else torch.amp.autocast(device.type, dtype=dtype)
