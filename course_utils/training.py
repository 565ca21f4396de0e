"""Training a model, as chapter 05 builds it: an epoch, an evaluation, a whole run that can be stopped.

A batch is a pair (inputs, targets) and is moved to where the model is. `loss_fn(logits, targets)` returns
the plain mean over the batch, as PyTorch's losses do by default. A mean that is weighted by classes, or
that leaves targets out (`ignore_index`), is another in each batch: the loss of an epoch would be wrong.
"""

import contextlib
import copy
import functools
import math
import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm.auto import tqdm

from course_utils.history import COLUMNS, EarlyStopping, History
from course_utils.stopping import StopButton, Stoppable, Stopped

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


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
    progress: str | None = None,
    bar: tqdm | None = None,
) -> tuple[float, float]:
    """Train once over all batches; return the mean loss per sample and the accuracy, as seen on the way.

    A model in evaluation mode is set to training mode. One in training mode is left as it is, so that
    layers in it that you have set to `eval()`, such as a frozen BatchNorm, stay so.

    Args:
        loss_fn: returns the plain mean over the batch.
        scheduler: stepped after each step of the optimizer.
        accumulate: how many batches make one step. The gradient is that of the mean over all their
            samples, also where batches differ in size; BatchNorm still sees one batch at a time.
        max_norm: gradients with a larger norm are scaled down to it.
        amp_dtype: torch.bfloat16 or torch.float16 for mixed precision; float16 needs a scaler.
        progress: the name of a progress bar, and of this epoch in errors; None for no bar.
        bar: an open bar to draw in, in place of a new one.

    Returns:
        loss and accuracy; the accuracy is NaN if the targets are no class indices.

    Raises:
        ValueError: an argument is out of range, there is no batch, or the loss is no plain mean.
        FloatingPointError: a loss is NaN or infinite; the weights are still those before that batch.
    """
    if accumulate < 1 or (max_norm is not None and not max_norm > 0):
        raise ValueError(f"{accumulate=}, {max_norm=}: expected at least 1, and more than 0 or None.")
    if amp_dtype == torch.float16 and scaler is None:
        raise ValueError("small gradients vanish in float16: give scaler=torch.amp.GradScaler(device.type).")
    scaler = torch.amp.GradScaler(enabled=False) if scaler is None else scaler
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not model.training:
        model.train()

    def step() -> None:
        if max_norm is not None:
            scaler.unscale_(optimizer)
            clip_grad_norm_(parameters, max_norm)
        scale = 0.0 if scheduler is None else scaler.get_scale()  # which waits for the GPU
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if scheduler is not None and scaler.get_scale() >= scale:  # a smaller one: the step was left out
            scheduler.step()

    optimizer.zero_grad()
    waiting = samples = 0  # batches and samples since the last step
    batches = _Pass(model, loader, loss_fn, amp_dtype, progress, bar)
    for loss, size in batches:
        waiting, samples = waiting + 1, samples + size
        if waiting > 1:  # the gradient is at any time that of the mean over the samples so far
            loss = loss * (size / samples)
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(1 - size / samples)
        scaler.scale(loss).backward()
        if waiting == accumulate:
            step()
            waiting = samples = 0
    if waiting:
        step()
    return batches.means()


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: Loss = F.cross_entropy,
    *,
    amp_dtype: torch.dtype | None = None,
    progress: str | None = None,
    bar: tqdm | None = None,
) -> tuple[float, float]:
    """Return the mean loss per sample and the accuracy, in evaluation mode and without gradients.

    Every module is left in the mode in which it was. Arguments, results and errors are those of
    `train_one_epoch`.
    """
    batches = _Pass(model, loader, loss_fn, amp_dtype, progress, bar)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            for _ in batches:
                pass
    finally:
        for module, mode in modes:
            module.training = mode
    return batches.means()


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
        scheduler_each: "epoch", or "batch" to step it after each step of the optimizer (OneCycleLR).
        early_stopping: watches the validation loss. Its `restore(model)` is yours. With one that has
            `stopped`, there is nothing to train: take a new one for a new run.
        history: goes on with this one, and adds to it.
        after_epoch: called with the history after each epoch, when all else is done: for checkpoints.

    All else, and the errors, are those of `train_one_epoch`.
    """
    plateau = isinstance(scheduler, ReduceLROnPlateau)
    if scheduler_each not in ("epoch", "batch") or (plateau and scheduler_each == "batch"):
        raise ValueError(f"{scheduler_each=}: choose 'epoch' or 'batch', for ReduceLROnPlateau 'epoch'.")
    history = History() if history is None else history
    history.interrupted = False
    with StopButton() as stop, _open_bar("") as bar:  # one for all: a notebook hides what follows 50 outputs
        while len(history) < epochs and not (early_stopping and early_stopping.stopped):
            epoch, start = len(history) + 1, time.perf_counter()
            groups = copy.deepcopy(optimizer.state_dict()["param_groups"])  # with what a scheduler sets
            schedule = copy.deepcopy(scheduler.state_dict()) if scheduler else None
            try:
                train = train_one_epoch(
                    model,
                    Stoppable(train_loader, stop),
                    optimizer,
                    loss_fn,
                    scheduler=scheduler if scheduler_each == "batch" else None,
                    accumulate=accumulate,
                    max_norm=max_norm,
                    amp_dtype=amp_dtype,
                    scaler=scaler,
                    progress=f"epoch {epoch}/{epochs}",
                    bar=bar,
                )
                valid = evaluate(
                    model,
                    Stoppable(valid_loader, stop),
                    loss_fn,
                    amp_dtype=amp_dtype,
                    progress=f"epoch {epoch}/{epochs}, validation",
                    bar=bar,
                )
            except Stopped:
                history.interrupted = True
                bar.clear()
                if scheduler:
                    scheduler.load_state_dict(schedule)
                    for group, before in zip(optimizer.param_groups, groups, strict=True):
                        group.update(before | {"params": group["params"]})
                print(f"Interrupted in epoch {epoch}: {len(history)} finished epochs are in the history.")
                break
            row = (epoch, *train, *valid, float(groups[0]["lr"]), time.perf_counter() - start)
            history.rows.append(dict(zip(COLUMNS, row, strict=True)))
            if plateau:
                scheduler.step(valid[0] if scheduler.mode == "min" else valid[1])
            elif scheduler and scheduler_each == "epoch":
                scheduler.step()
            if early_stopping:
                early_stopping.step(valid[0], model)
            bar.clear()
            if after_epoch:
                after_epoch(history)
    for loader in (train_loader, valid_loader) if stop.pressed else ():
        if getattr(loader, "persistent_workers", False):  # Ctrl-C has ended them, too
            loader._iterator = None  # starts new ones; torch has no public way
    return history


@dataclass
class _Pass:
    """A pass over all batches: gives the loss and the size of each, and adds up losses and right answers."""

    model: nn.Module
    loader: Iterable[Any]
    loss_fn: Loss
    amp_dtype: torch.dtype | None
    progress: str | None
    bar: tqdm | None
    loss: float = 0.0
    right: torch.Tensor | float = 0  # a tensor: read at the end only, since reading waits for the GPU
    samples: int = 0
    answers: int = 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        _refuse_other_means(self.loss_fn)
        device = next((parameter.device for parameter in self.model.parameters()), torch.device("cpu"))
        autocast = contextlib.nullcontext()  # leaves an autocast around this pass as it is
        if self.amp_dtype is not None:
            autocast = torch.autocast(device.type, self.amp_dtype)
        where = self.progress or "the epoch"
        total = operator.length_hint(self.loader) or None
        # The loader is not given to tqdm, which may begin it twice: that would draw two orders.
        with _open_bar(self.progress) if self.bar is None else contextlib.nullcontext(self.bar) as bar:
            bar.set_description(self.progress, refresh=False)
            bar.reset(total)
            bar.total = total
            for batch, pair in enumerate(self.loader, start=1):
                inputs, targets = (tensor.to(device, non_blocking=True) for tensor in pair)
                with autocast:
                    logits = self.model(inputs)
                    loss = self.loss_fn(logits, targets)
                if not math.isfinite(value := loss.item()):
                    raise FloatingPointError(
                        f"{where}, batch {batch}: the loss is {value}. Look in the data for NaN, and for a "
                        "batch whose targets are all ignored; use a smaller learning rate, or clip the "
                        "gradients (max_norm=1.0)."
                    )
                self.loss += value * len(targets)
                self.samples += len(targets)
                self.answers += targets.numel()
                classes = not targets.is_floating_point() and logits.ndim == targets.ndim + 1
                self.right = self.right + ((logits.argmax(1) == targets).sum() if classes else math.nan)
                if not bar.disable:
                    bar.set_postfix(loss=f"{self.loss / self.samples:.4f}", refresh=False)
                bar.update()
                yield loss, len(targets)
        if not self.samples:
            raise ValueError(
                f"{where}: the loader gave no batch. Is the data set empty, or smaller than a batch with "
                "drop_last=True, or the loader an iterator that is used up?"
            )

    def means(self) -> tuple[float, float]:
        """The mean loss per sample and the accuracy."""
        return self.loss / self.samples, float(self.right) / self.answers


def _open_bar(name: str | None) -> tqdm:
    """A progress bar; without a name, or where TQDM_DISABLE is set, one that draws nothing."""
    quiet = name is None or bool(os.environ.get("TQDM_DISABLE"))  # which notebooks' tqdm ignores
    return tqdm(desc=name, leave=False, disable=quiet)


def _refuse_other_means(loss_fn: Loss) -> None:
    """Raise ValueError if a loss says of itself that it is no plain mean over the batch."""
    if isinstance(loss_fn, functools.partial):
        option, by_class = loss_fn.keywords.get, loss_fn.func in (F.cross_entropy, F.nll_loss)
    else:
        option = functools.partial(getattr, loss_fn)
        by_class = isinstance(loss_fn, nn.CrossEntropyLoss | nn.NLLLoss)
    weighted = by_class and option("weight", None) is not None  # others' weights leave it a plain mean
    if weighted or option("reduction", "mean") not in ("mean", "batchmean"):
        raise ValueError(
            f"{loss_fn} is no plain mean over the batch. With class weights give "
            "lambda logits, targets: (weight[targets] * F.cross_entropy(logits, targets, "
            "reduction='none')).mean()."
        )
