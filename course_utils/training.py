"""Training a model, as chapter 05 builds it: an epoch, an evaluation, a whole run that can be stopped.

A batch is a pair (inputs, targets), and `loss_fn(logits, targets)` returns the mean over the samples
of the batch, as PyTorch's losses do by default.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm.auto import tqdm

from course_utils.history import COLUMNS, EarlyStopping, History
from course_utils.metrics import Loss, Meter
from course_utils.stopping import StopButton, Stoppable, Stopped

__all__ = ["EarlyStopping", "History", "evaluate", "fit", "train_one_epoch"]


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
    meter = Meter(loss_fn, progress or "training")
    if not model.training:
        model.train()
    optimizer.zero_grad()
    sizes: list[int] = []  # of the batches since the last step
    batches = loader if progress is None else _bar(loader, progress)
    for batch in batches:
        loss, logits, targets = _forward(model, loss_fn, batch, device, amp_dtype)
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
    meter = Meter(loss_fn, progress or "evaluation")
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            for batch in loader if progress is None else _bar(loader, progress, delay=1):
                meter.add(*_forward(model, loss_fn, batch, device, amp_dtype))
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
    with StopButton() as stop:
        while len(history) < epochs:
            epoch, start = len(history) + 1, time.perf_counter()
            lr = float(optimizer.param_groups[0]["lr"])
            common = {"amp_dtype": amp_dtype, "device": device}
            try:
                train = train_one_epoch(
                    model,
                    Stoppable(train_loader, stop),
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
                    Stoppable(valid_loader, stop),
                    loss_fn,
                    progress=f"epoch {epoch}/{epochs}, validation",
                    **common,
                )
            except Stopped:
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


def _bar(loader: Iterable[Any], name: str, **options: Any) -> tqdm:
    """A progress bar over a loader. TQDM_DISABLE is read here: tqdm's form for notebooks ignores it."""
    silent = bool(os.environ.get("TQDM_DISABLE"))
    return tqdm(loader, desc=name, leave=False, disable=silent, **options)


def _forward(
    model: nn.Module,
    loss_fn: Loss,
    batch: tuple[torch.Tensor, torch.Tensor],
    device: torch.device,
    amp_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Move a batch to the device; return the loss, the logits and the targets."""
    inputs, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
    with nullcontext() if amp_dtype is None else torch.amp.autocast(device.type, dtype=amp_dtype):
        logits = model(inputs)
        return loss_fn(logits, targets), logits, targets


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


def _device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is; the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
