"""Training a model, as chapter 05 builds it: an epoch, an evaluation, a whole run that can be stopped.

A batch is a pair (inputs, targets), and `loss_fn(logits, targets)` returns the plain mean over the batch,
as PyTorch's losses do by default. A mean that is weighted by classes, or that leaves targets out, would
make the sums over batches wrong: such losses of PyTorch are refused; one of your own cannot be seen.
"""

import copy
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
from course_utils.stopping import StopButton, Stoppable, Stopped, forget_workers

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
    device: torch.device | str | None = None,
    progress: str | None = None,
) -> tuple[float, float]:
    """Train once over all batches; return the mean loss per sample and the accuracy, as seen on the way.

    A model in evaluation mode is set to training mode. One in training mode is left as it is, so that
    layers in it that you have set to `eval()`, such as a frozen BatchNorm, stay so.

    Args:
        loss_fn: returns the plain mean over the batch.
        scheduler: stepped after each step of the optimiser.
        accumulate: how many batches make one step. The gradient is that of the mean over all their
            samples, also where batches differ in size. BatchNorm still sees one batch at a time, so with
            it the step is not that of one big batch.
        max_norm: gradients with a larger norm are scaled down to it.
        amp_dtype: torch.bfloat16 or torch.float16 for mixed precision; float16 needs a scaler.
        device: where to compute; by default where the model is. The model is not moved.
        progress: the name of a progress bar, and of this epoch in errors; None for no bar.

    Returns:
        loss and accuracy; the accuracy is NaN if the targets are no class indices.

    Raises:
        ValueError: an argument is out of range, there is no batch, or the loss is no plain mean.
        FloatingPointError: a loss is NaN or infinite; told at once on the CPU, some batches later on a GPU.
    """
    if accumulate < 1 or (max_norm is not None and not max_norm > 0):
        raise ValueError(f"{accumulate=}, {max_norm=}: expected at least 1, and more than 0 or None.")
    if amp_dtype == torch.float16 and scaler is None:
        raise ValueError("small gradients vanish in float16: give scaler=torch.amp.GradScaler(device.type).")
    device = _device(device, model)
    meter = Meter(loss_fn, progress or "training", device)
    if not model.training:
        model.train()
    optimizer.zero_grad()
    waiting = samples = 0  # batches and samples since the last step
    batches = loader if progress is None else _bar(loader, progress)
    for batch in batches:
        loss, logits, targets = _forward(model, loss_fn, batch, device, amp_dtype)
        fresh = meter.add(loss, logits, targets)
        if fresh and progress is not None and not batches.disable:
            batches.set_postfix(loss=f"{meter.loss / meter.samples:.4f}", refresh=False)
        waiting, samples = waiting + 1, samples + len(targets)
        if waiting > 1:  # the gradient is at any time that of the mean over the samples so far
            share = len(targets) / samples
            loss = loss * share
            for parameter in _with_gradients(optimizer):
                parameter.grad.mul_(1 - share)
        (loss if scaler is None else scaler.scale(loss)).backward()
        if waiting == accumulate:
            _step(optimizer, scaler, scheduler, max_norm)
            waiting = samples = 0
    if waiting:
        _step(optimizer, scaler, scheduler, max_norm)
    return meter.means()


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: Loss = F.cross_entropy,
    *,
    amp_dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    progress: str | None = None,
) -> tuple[float, float]:
    """Return the mean loss per sample and the accuracy, in evaluation mode and without gradients.

    Every module is left in the mode in which it was. Arguments, results and errors are those of
    `train_one_epoch`.
    """
    device = _device(device, model)
    meter = Meter(loss_fn, progress or "evaluation", device)
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
    device: torch.device | str | None = None,
) -> History:
    """Train, and validate after each epoch, until the history has `epochs` rows; return the history.

    Ctrl-C, or the stop button of a notebook, lets the running batch finish and ends the run with
    `history.interrupted` True: the model keeps what it has learned, the unfinished epoch gets no row, and
    a scheduler goes back to where that epoch began. To end with the bits of a run that was never stopped,
    go on from a checkpoint. A second Ctrl-C raises KeyboardInterrupt at once. What follows in a cell still
    runs: in a loop over several runs write `if history.interrupted: break`.

    Args:
        epochs: the total, with those of a given history: with 3 rows in it, epochs=5 trains 2 more.
        scheduler: any; ReduceLROnPlateau gets the validation loss (mode="max": accuracy).
        scheduler_each: "epoch", or "batch" to step it after each step of the optimiser (OneCycleLR).
        early_stopping: watches the validation loss (mode="max": accuracy). Its `restore(model)` is yours.
            With one that has `stopped`, there is nothing to train: take a new one for a new run.
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
        while len(history) < epochs and not (early_stopping is not None and early_stopping.stopped):
            epoch, start = len(history) + 1, time.perf_counter()
            lr = float(optimizer.param_groups[0]["lr"])
            common = {"amp_dtype": amp_dtype, "device": device}
            bring_back = _keep_schedule(optimizer, scheduler)
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
                bring_back()
                print(f"Interrupted in epoch {epoch}: {len(history)} finished epochs are in the history.")
                break
            values = (epoch, *train, *valid, lr, time.perf_counter() - start)
            history.rows.append(dict(zip(COLUMNS, values, strict=True)))
            watched = {"min": valid[0], "max": valid[1]}
            if scheduler is not None and scheduler_each == "epoch":
                scheduler.step(watched[scheduler.mode]) if plateau else scheduler.step()
            if early_stopping is not None:
                early_stopping.step(watched[early_stopping.mode], model)
            if after_epoch is not None:
                after_epoch(history)
    if stop.pressed:
        for loader in (train_loader, valid_loader):
            forget_workers(loader)
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
) -> None:
    """One step of the optimiser, and of the scheduler unless the scaler skipped it (infinite gradients)."""
    if max_norm is not None:
        if scaler is not None:
            scaler.unscale_(optimizer)
        clip_grad_norm_(_with_gradients(optimizer), max_norm)
    scale = None if scaler is None or scheduler is None else scaler.get_scale()  # makes a GPU wait
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad()
    if scheduler is not None and (scale is None or scaler.get_scale() >= scale):
        scheduler.step()


def _with_gradients(optimizer: Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _keep_schedule(optimizer: Optimizer, scheduler: Any) -> Callable[[], None]:
    """Keep the state of a scheduler, and the options that it sets; return what brings them back."""
    if scheduler is None:
        return lambda: None
    options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    state, options = copy.deepcopy((scheduler.state_dict(), options))

    def bring_back() -> None:
        scheduler.load_state_dict(state)
        for group, kept in zip(optimizer.param_groups, options, strict=True):
            group.update(kept)

    return bring_back


def _device(device: torch.device | str | None, model: nn.Module) -> torch.device:
    """The given device; else where the model's first parameter is; the CPU if it has none."""
    if device is not None:
        return torch.device(device)
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
