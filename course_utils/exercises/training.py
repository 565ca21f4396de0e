"""The checkers of chapter 05, Training. Each answer is a reference solution; read them after yours."""

import copy
import functools
import itertools
import logging
import math
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from course_utils.exercises.grading import Result, exercise, left_off
from course_utils.exercises.text import kind_of

# 1. The order of the loop

NAMES = ("zero_grad", "forward", "loss", "backward", "step")


def _places(order: list[str]) -> tuple[int, ...]:
    return tuple(order.index(name) for name in NAMES)


def _order(text: str) -> tuple[list[str]]:
    names = {"z": "zero_grad", "f": "forward", "l": "loss", "b": "backward", "s": "step"}
    return ([names[letter] for letter in text],)


def _orders() -> list[tuple[list[str]]]:
    """All 120, the telling ones first: a rule that only looks right fails in one of the others."""
    first = (
        "sblfz",
        "zflbs",
        "flbsz",
        "flbzs",
        "fzlbs",
        "flzbs",
        "zlfbs",
        "zflsb",
        "fslbz",
        "zfbls",
        "szflb",
    )
    rest = ("".join(letters) for letters in itertools.permutations("zflbs"))
    return [_order(text) for text in dict.fromkeys((*first, *rest))]


def _chain(order: list[str]) -> bool:
    _, forward, loss, backward, step = _places(order)
    return forward < loss < backward < step


@exercise(
    cases=_orders,
    mistakes={
        "it is the other way round: this is True where the loop goes wrong": lambda order: (
            not trains.reference(order)
        ),
        "zero_grad between backward and step throws away what backward has just found": _chain,
        "only one order is accepted; zero_grad may stand in more than one place": lambda order: (
            order == list(NAMES)
        ),
        "zero_grad may also stand between forward and backward: the forward pass leaves .grad alone": (
            lambda order: _chain(order) and order.index("zero_grad") in (0, 4)
        ),
        "zero_grad may also come last: then the gradients are cleared for the next turn": lambda order: (
            _chain(order) and order.index("zero_grad") < order.index("backward")
        ),
        "forward, loss and backward have an order of their own, too": lambda order: (
            order.index("backward") < order.index("step")
            and not order.index("backward") < order.index("zero_grad") < order.index("step")
        ),
        "the four others must stand in the order forward, loss, backward, step": lambda order: (
            not order.index("backward") < order.index("zero_grad") < order.index("step")
        ),
        "loss and backward have an order of their own, too: backward starts from the loss": lambda order: (
            order.index("forward") < order.index("loss")
            and order.index("step") - order.index("backward") == 1
        ),
    },
)
def trains(order):
    zero_grad, forward, loss, backward, step = _places(order)
    return forward < loss < backward < step and not backward < zero_grad < step


# 2. Who is taken for whom


def _count(targets: torch.Tensor, predictions: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.bincount(classes * targets + predictions, minlength=classes**2).reshape(classes, classes)


def _once(targets: torch.Tensor, predictions: torch.Tensor, classes: int) -> torch.Tensor:
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    matrix[targets, predictions] += 1
    return matrix


@exercise(
    cases=lambda: [
        (torch.tensor([0, 2, 2, 2]), torch.tensor([0, 1, 1, 2]), 3),
        (torch.tensor([3, 1, 1, 0, 3]), torch.tensor([0, 1, 2, 0, 0]), 5),
        (torch.randint(7, (60,)), torch.randint(7, (60,)), 7),
        (torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64), 2),
        (torch.full((300,), 1), torch.full((300,), 0), 2),
    ],
    mistakes={
        "rows and columns are exchanged: rows are the targets": lambda t, p, c: _count(p, t, c),
        "a pair that occurs several times is counted once: matrix[targets, predictions] += 1 writes the same "
        "sum several times": _once,
        "the counts are floats; expected: int64": lambda t, p, c: _count(t, p, c).float(),
        "these are shares of each row; expected: counts": lambda t, p, c: (
            _count(t, p, c) / _count(t, p, c).sum(1, keepdim=True)
        ),
        "only mistakes are counted; expected: right predictions, too, on the diagonal": lambda t, p, c: (
            _count(t, p, c).fill_diagonal_(0)
        ),
        "classes that do not occur are missing at the end: give bincount minlength": lambda t, p, c: (
            _count(t, p, int(max(t.max(), p.max())) + 1) if len(t) else torch.zeros(0, 0, dtype=torch.int64)
        ),
        "bincount ends at the largest pair that occurs: minlength=classes**2 makes room for the others": (
            lambda t, p, c: torch.bincount(c * t + p).reshape(c, c)
        ),
    },
)
def confusion_matrix(targets, predictions, classes):
    return _count(targets, predictions, classes)


# 3. The worst mistakes


def _ranked(logits: torch.Tensor, targets: torch.Tensor, k: int, score: Callable, wrong: bool = True) -> Any:
    scores = score(logits, targets)
    chosen = (logits.argmax(1) != targets).nonzero().squeeze(1) if wrong else torch.arange(len(targets))
    return chosen[scores[chosen].argsort(descending=True)[:k]]


def _losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, targets, reduction="none")


@exercise(
    cases=lambda: [
        (torch.tensor([[3.0, 0], [0, 2], [0, 1], [9, 0]]), torch.tensor([0, 0, 0, 1]), 2),
        (
            torch.tensor([[1.0, 0.9, 0.8], [0, 4, 0], [2, 1, -3], [5, 4.5, 5.5], [4, 0, 3.9]]),
            torch.tensor([0, 2, 2, 0, 0]),
            2,
        ),
        (torch.randn(50, 10), torch.randint(10, (50,)), 8),
        (torch.tensor([[2.0, 0], [0, 1], [3, 0]]), torch.tensor([0, 0, 0]), 3),
        (torch.tensor([[2.0, 0], [0, 1]]), torch.tensor([0, 1]), 2),
        (torch.tensor([[300.0, 0], [200, 0], [250, 0]]), torch.tensor([1, 1, 1]), 3),
    ],
    mistakes={
        "right predictions are among them: a close call has a large loss, too": lambda z, t, k: _ranked(
            z, t, k, _losses, wrong=False
        ),
        "the smallest loss comes first; expected: the largest": lambda z, t, k: _ranked(
            z, t, k, lambda z, t: -_losses(z, t)
        ),
        "sorted by the largest logit; expected: by the loss": lambda z, t, k: _ranked(
            z, t, k, lambda z, t: z.amax(1)
        ),
        "sorted by how sure the network was; expected: by the loss, which is large where the *right* class "
        "has a small probability": lambda z, t, k: _ranked(z, t, k, lambda z, t: z.softmax(1).amax(1)),
        "a probability below 10⁻⁴⁵ is 0 in float32, so that the very worst ones tie: sort by the loss, which "
        "cross_entropy takes from the logits": lambda z, t, k: _ranked(
            z, t, k, lambda z, t: -z.softmax(1)[range(len(t)), t]
        ),
        "these are places in the list of the wrong predictions; expected: places in the batch": (
            lambda z, t, k: _losses(z, t)[z.argmax(1) != t].argsort(descending=True)[:k]
        ),
        "these are the losses; expected: the indices": lambda z, t, k: _losses(z, t)[
            _ranked(z, t, k, _losses)
        ],
        "these are all the wrong predictions, in their order; expected: the k worst": lambda z, t, k: (
            (z.argmax(1) != t).nonzero().squeeze(1)
        ),
        "all the wrong predictions; expected: the first k of them": lambda z, t, k: _ranked(
            z, t, len(t), _losses
        ),
        "fewer than k are wrong, and right predictions fill up the rest: return only the wrong ones": (
            lambda z, t, k: _losses(z, t).masked_fill(z.argmax(1) == t, -1).sort(descending=True).indices[:k]
        ),
        "the shape is (k, 1): nonzero() gives a column, squeeze(1) makes it a list": lambda z, t, k: _ranked(
            z, t, k, _losses
        ).unsqueeze(1),
        "where nothing is wrong, torch.tensor of an empty list is a tensor of floats: give it "
        "dtype=torch.int64": lambda z, t, k: torch.tensor(_ranked(z, t, k, _losses).tolist()),
    },
)
def worst_mistakes(logits, targets, k):
    return _ranked(logits, targets, k, _losses)


# 4. Momentum


def _weights(*pairs: tuple[torch.Tensor, torch.Tensor | None]) -> list[torch.Tensor]:
    made = []
    for values, gradient in pairs:
        made.append(values.clone().requires_grad_())
        made[-1].grad = gradient
    return made


def _shared(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _moved(answer: Callable, parameters: list, velocities: list, lr: float, momentum: float) -> Result:
    """momentum_step(parameters, velocities, lr, momentum)"""
    own, gradients = list(parameters), [None if p.grad is None else p.grad.clone() for p in parameters]
    addresses = [p.data_ptr() for p in own]
    returned = answer(parameters, velocities, lr, momentum)
    wrong = None
    if returned is not None:
        wrong = "it returns something; expected: the parameters change in place, and nothing is returned"
    elif any(v.requires_grad for v in velocities):
        wrong = "the velocities hang on a graph: compute under torch.no_grad()"
    elif switched_off := left_off():
        wrong = switched_off
    elif any(mine is not its for mine, its in zip(own, parameters, strict=True)):
        return Result(
            ...,
            "the list holds new tensors, and the parameters themselves, which the model uses, have not "
            "changed: update them in place, parameter -= ...",
        )
    elif addresses != [p.data_ptr() for p in own]:
        wrong = "a parameter gets new memory, and its views keep the old values: write into it, p -= ..."
    elif any(not p.requires_grad for p in own):
        wrong = "it switches requires_grad off: the next backward would fail"
    elif any((p.grad is None) != (g is None) for p, g in zip(own, gradients, strict=True)):
        wrong = "it clears the gradients: that is the business of zero_grad"
    elif any(g is not None and not torch.equal(p.grad, g) for p, g in zip(own, gradients, strict=True)):
        wrong = "it changes the gradients: the velocity needs memory of its own"
    elif any(_shared(v, p.grad) for p, v in zip(own, velocities, strict=True) if p.grad is not None):
        wrong = (
            "a velocity is the gradient itself, which the next backward changes: it needs memory of its own"
        )
    values = {"parameters": [p.detach().clone() for p in own], "velocities": [v.detach() for v in velocities]}
    return Result(values, wrong)


def _step(rule: Callable) -> Callable:
    """rule(parameter, gradient, velocity, lr, momentum) gives the new parameter and the new velocity."""

    def step(parameters: list, velocities: list, lr: float, momentum: float) -> None:
        with torch.no_grad():
            for i, p in enumerate(parameters):
                if p.grad is not None:
                    new, velocities[i] = rule(p, p.grad, velocities[i], lr, momentum)
                    p.copy_(new)

    return step


def _rule(p: torch.Tensor, g: torch.Tensor, v: torch.Tensor, lr: float, m: float) -> tuple:
    v = m * v + g
    return p - lr * v, v


@exercise(
    cases=lambda: [
        (_weights((torch.tensor([1.0]), torch.tensor([2.0]))), [torch.tensor([10.0])], 0.1, 0.5),
        (
            _weights((torch.randn(3, 2), torch.randn(3, 2)), (torch.randn(4), torch.randn(4))),
            [torch.randn(3, 2), torch.randn(4)],
            0.2,
            0.9,
        ),
        (
            _weights((torch.randn(2), None), (torch.randn(3), torch.randn(3))),
            [torch.ones(2), torch.zeros(3)],
            0.5,
            0.8,
        ),
    ],
    call=_moved,
    in_place=True,
    mistakes={
        "the step uses the old velocity; expected: first the velocity, then the step with the new one": _step(
            lambda p, g, v, lr, m: (p - lr * v, m * v + g)
        ),
        "the gradient enters with the weight 1 - momentum; expected: whole": _step(
            lambda p, g, v, lr, m: (p - lr * (m * v + (1 - m) * g), m * v + (1 - m) * g)
        ),
        "uphill: the step goes against the velocity": _step(
            lambda p, g, v, lr, m: (p + lr * (m * v + g), m * v + g)
        ),
        "the learning rate belongs to the step, not into the velocity": _step(
            lambda p, g, v, lr, m: (p - (m * v + lr * g), m * v + lr * g)
        ),
        "the parameter moves by the gradient alone; expected: by the velocity": _step(
            lambda p, g, v, lr, m: (p - lr * g, m * v + g)
        ),
        "the new velocity is not kept: write it into the list, or change it in place": _step(
            lambda p, g, v, lr, m: (p - lr * (m * v + g), v)
        ),
        "nothing changes: `parameter = ...` only names a new tensor; change the old one in place": (
            _step(lambda p, g, v, lr, m: (p, v))
        ),
        "the parameters do not move": _step(lambda p, g, v, lr, m: (p, m * v + g)),
    },
)
def momentum_step(parameters, velocities, lr, momentum):
    _step(_rule)(parameters, velocities, lr, momentum)


# 5. A schedule


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def _schedule(rise: Callable, fall: Callable) -> Callable:
    return lambda step, warmup, total: rise(step, warmup) if step < warmup else fall(step, warmup, total)


def _rise(step: int, warmup: int) -> float:
    return (step + 1) / warmup


def _fall(step: int, warmup: int, total: int) -> float:
    return _cosine(min(1.0, (step - warmup) / (total - warmup)))


@exercise(
    cases=lambda: [
        (8, 4, 12),
        (0, 4, 12),
        (3, 4, 12),
        (4, 4, 12),
        (12, 4, 12),
        (5, 0, 20),
        (7, 3, 10),
        (11, 3, 10),
        (25, 3, 10),
        (0, 0, 5),
        (1, 5, 9),
    ],
    mistakes={
        "the warm-up begins at 0, so that the first step is lost; expected: 1 / warmup in step 0": _schedule(
            lambda step, warmup: step / warmup, _fall
        ),
        "the cosine goes on after the end, and the rate rises again: keep it at 0": _schedule(
            _rise, lambda s, w, t: _cosine((s - w) / (t - w))
        ),
        "the cosine counts from step 0; expected: from the end of the warm-up, where it is 1": _schedule(
            _rise, lambda s, w, t: _cosine(min(1.0, s / t))
        ),
        "the share is step - warmup of all steps; expected: of total - warmup": _schedule(
            _rise, lambda s, w, t: _cosine(min(1.0, (s - w) / t))
        ),
        "it falls in a straight line; expected: half a cosine wave": _schedule(
            _rise, lambda s, w, t: 1 - min(1.0, (s - w) / (t - w))
        ),
        "the cosine wave is a whole or a quarter one; expected: half a wave, cos from 0 to π": _schedule(
            _rise, lambda s, w, t: math.cos(math.pi / 2 * min(1.0, (s - w) / (t - w)))
        ),
        "cos goes from 1 to -1; expected: (1 + cos) / 2, from 1 to 0": _schedule(
            _rise, lambda s, w, t: math.cos(math.pi * min(1.0, (s - w) / (t - w)))
        ),
        "there is no warm-up": lambda s, w, t: _cosine(min(1.0, max(0, s - w) / (t - w))),
    },
)
def warmup_cosine(step, warmup, total):
    return _schedule(_rise, _fall)(step, warmup, total)


# 6. Stop in time


def _watched(answer: type, patience: int, values: list[float]) -> Result:
    """EarlyStopping(patience).step(value, model)"""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    stopping, stops = answer(patience), []
    for epoch, value in enumerate(values):
        _mark(model, epoch)
        stop = stopping.step(value, model)
        stops.append(bool(stop) if isinstance(stop, np.bool_) else stop)
        if not _holds(model, epoch):
            return Result(..., "step changes the model: it only looks, restore gives the weights back")
    for stop in stops:
        if not isinstance(stop, bool):
            return Result({"step returns": stops})
    found = {"step returns": stops}
    if not hasattr(stopping, "best"):
        return Result(found, "it has no attribute `best`")
    if stops == _stops(patience, values):
        best = float(stopping.best)
        expected = np.nanmin(values).item()
        if best != expected:
            return Result(found, f"best is {best:g} after the values so far; expected: {expected:g}")
        parameters = list(model.parameters())
        stopping.restore(_mark(model, 99))
        epoch = values.index(expected)
        for e in range(100):
            if e != epoch and _holds(model, e):
                return Result(found, _restored(e, epoch, len(stops)))
        if not _holds(model, epoch):
            return Result(
                found,
                "restore gives back only a part of the model: state_dict() holds parameters and buffers, "
                "such as BatchNorm's running statistics",
            )
        if any(new is not old for new, old in zip(model.parameters(), parameters, strict=True)):
            return Result(
                found,
                "restore puts new parameters into the model, and the optimizer goes on with the old ones: "
                "copy the values into those that are there, without assign=True",
            )
        fresh = copy.deepcopy(model)
        stopping.restore(_mark(model, 98))
        if not _holds(model, epoch):
            return Result(
                found, "restore works once, and not a second time: keep a copy that nothing changes"
            )
        stopping.restore(_mark(fresh, 97))
        if not _holds(fresh, epoch):
            return Result(found, "restore changes another model than the one that it is given")
        answer(patience).step(expected - 1, _mark(fresh, 96))
        stopping.restore(_mark(model, 95))
        if not _holds(model, epoch):
            return Result(
                found, "a second EarlyStopping changes what the first one has kept: keep it in `self`"
            )
    return Result(found)


def _restored(got: int, best: int, steps: int) -> str:
    if got == 99:
        return (
            "restore gives back the weights that the model has now, not those of the best epoch: "
            "model.state_dict() is no copy, take copy.deepcopy(model.state_dict())"
        )
    if got == steps - 1:
        return (
            f"restore gives back the weights of the last epoch; expected: those of epoch {best + 1}, the best"
        )
    return f"restore gives back the weights of epoch {got + 1}; expected: those of epoch {best + 1}, the best"


def _mark(model: nn.Module, epoch: int) -> nn.Module:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(epoch)
    return model


def _holds(model: nn.Module, epoch: int) -> bool:
    return all((tensor == epoch).all() for tensor in model.state_dict().values())


def _stops(patience: int, values: list[float]) -> list[bool]:
    best, waited, stops = math.inf, 0, []
    for value in values:
        best, waited = (value, 0) if value < best else (best, waited + 1)
        stops.append(waited >= patience)
    return stops


class _Stopping:
    """A right answer; the mistakes are made of it."""

    def __init__(self, patience: int) -> None:
        self.patience, self.best, self.waited, self.weights = patience, math.inf, 0, None

    def better(self, value: float) -> bool:
        return value < self.best

    def stop(self) -> bool:
        return self.waited >= self.patience

    def step(self, value: float, model: nn.Module) -> bool:
        if self.better(value):
            self.best, self.waited = value, 0
            self.weights = copy.deepcopy(model.state_dict())
        else:
            self.waited += 1
        return self.stop()

    def restore(self, model: nn.Module) -> None:
        model.load_state_dict(self.weights)


class _EqualCounts(_Stopping):
    def better(self, value: float) -> bool:
        return value <= self.best


class _OneTooLate(_Stopping):
    def stop(self) -> bool:
        return self.waited > self.patience


class _OneTooEarly(_Stopping):
    def stop(self) -> bool:
        return self.waited >= max(1, self.patience - 1)


class _OnceOnly(_Stopping):
    def stop(self) -> bool:
        return self.waited == self.patience


class _ByMuch(_Stopping):
    def better(self, value: float) -> bool:
        return value < self.best - 1e-4


class _NotANumber(_Stopping):
    def better(self, value: float) -> bool:
        return not value >= self.best


class _NeverReset(_Stopping):
    def step(self, value: float, model: nn.Module) -> bool:
        waited = self.waited
        stop = super().step(value, model)
        self.waited = max(self.waited, waited)
        return stop if self.waited == waited + 1 else self.stop()


class _LastOnly(_Stopping):
    """Compares with the value before, not with the best."""

    last = math.inf

    def better(self, value: float) -> bool:
        better, self.last = value < self.last, value
        return better


class _FromZero(_Stopping):
    def __init__(self, patience: int) -> None:
        super().__init__(patience)
        self.best = 0.0


class _FromTen(_Stopping):
    def __init__(self, patience: int) -> None:
        super().__init__(patience)
        self.best = 10.0


class _ZeroIsNone(_Stopping):
    def __init__(self, patience: int) -> None:
        super().__init__(patience)
        self.best = None

    def better(self, value: float) -> bool:
        return not self.best or value < self.best


class _Upside(_Stopping):
    def better(self, value: float) -> bool:
        return self.best == math.inf or value > self.best


@exercise(
    cases=lambda: [
        (2, [5.0, 4.0, 6.0, 4.5]),
        (2, [5.0, 4.0, 4.0, 6.0]),
        (3, [5.0, 6.0, 7.0, 4.0, 4.5, 3.5, 3.6, 3.9, 3.7, 3.0]),
        (1, [2.0, 1.0, 1.5, 0.5]),
        (2, [9.0, 8.0, 8.5, 8.2, 7.0]),
        (5, [3.0, 2.0, 1.0]),
        (2, [0.5, 0.0, 0.25, 0.125, -1.0]),
        (2, [-1.0, -3.0, -2.0, -4.0, -3.5, -3.0]),
        (2, [1e30, 9e29, 8e29, 8.5e29, 7e29]),
        (2, [5.0, 6.0, 7.0, 8.0, 4.0, 4.5]),
        (2, [1.0, 0.99995, 1.0, 1.0]),
        (2, [5.0, math.nan, math.nan, 4.0]),
        (2, [math.inf, 3.0, 4.0, 3.5]),
    ],
    call=_watched,
    mistakes={
        "an equal value counts as better; expected: only a smaller one": _EqualCounts,
        "after its first True it says False, though nothing was better: `>=` patience, not `==`": _OnceOnly,
        "it overlooks a value that is a little smaller; expected: any smaller value is better": _ByMuch,
        "NaN counts as better, as in `not value >= best`: all comparisons with NaN are False": _NotANumber,
        "it stops one epoch too late": _OneTooLate,
        "it stops one epoch too early": _OneTooEarly,
        "a better value does not set the counter back to 0": _NeverReset,
        "it compares with the value before; expected: with the best so far": _LastOnly,
        "it takes larger values for better ones": _Upside,
        "`best` begins at 0, so that no loss is ever better: begin with math.inf": _FromZero,
        "`best` begins at a number that a loss may exceed: begin with math.inf": _FromTen,
        "a best of 0.0 is taken for none, since `not 0.0` is True: ask `self.best is None`": _ZeroIsNone,
    },
)
class EarlyStopping:
    def __init__(self, patience):
        self.patience, self.best, self.waited, self.weights = patience, math.inf, 0, None

    def step(self, value, model):
        if value < self.best:
            self.best, self.waited = value, 0
            self.weights = copy.deepcopy(model.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.patience

    def restore(self, model):
        model.load_state_dict(self.weights)


# 7. The first guess


def _guess(answer: Callable, counts: torch.Tensor) -> Result:
    """prior_bias(counts)"""
    wrong = None
    for default in (torch.float64, torch.float32):
        torch.set_default_dtype(default)
        bias = answer(counts)
        if bias is None:
            return Result(..., "it returns None: is there a `return`?")
        if not isinstance(bias, torch.Tensor):
            return Result(..., f"it returns {kind_of(bias)}; expected: a tensor (C,)")
        if bias.shape != counts.shape:
            return Result(..., f"its shape is {tuple(bias.shape)}; expected: {tuple(counts.shape)}")
        if bias.dtype != default:
            wrong = f"where the default type is {default}, its dtype is {bias.dtype}; expected: the default"
    return Result({"softmax(bias)": bias.softmax(0, dtype=torch.float32)}, wrong)


@exercise(
    cases=lambda: [
        (torch.tensor([1, 3]),),
        (torch.tensor([20, 50, 10, 120]),),
        (torch.tensor([7] * 10),),
        (torch.tensor([1, 999_999, 1000]),),
    ],
    call=_guess,
    mistakes={
        "these are the shares; softmax takes e to their power. Which function undoes that?": lambda c: (
            c / c.sum()
        ),
        "a softmax of the counts; expected: its inverse for the shares": lambda c: c.float().softmax(0),
        "these are the counts; softmax takes e to their power": lambda c: c.float(),
        "log(1 + count) is not log(count)": lambda c: c.log1p(),
        "the sign is wrong: the frequent classes get the small logits": lambda c: -(c / c.sum()).log(),
        "a sigmoid's inverse, log(p / (1 - p)), belongs to a yes or no for each class; here one softmax "
        "is over all classes": lambda c: (c / c.sum()).logit(),
        "log2 and log10 are not the inverse of e to the power": lambda c: c.log2(),
    },
)
def prior_bias(counts):
    return (counts / counts.sum()).log()


# 8. As if nothing had happened


class _Broken(Exception):
    """What a function of the cases raises."""


class _Pressed(KeyboardInterrupt):
    """The same for the stop button, whose error is no `Exception`."""


def _draws(kinds: str, fails: type[BaseException] | None = None) -> Callable:
    """A function that draws from PyTorch (t), NumPy (n) and Python (p), reseeds (s), or raises at its end."""

    def function() -> list:
        drawn = []
        for kind in kinds:
            if kind == "t":
                drawn.append(torch.rand(3).tolist())
            elif kind == "n":
                drawn.append(float(np.random.rand()))
            elif kind == "p":
                drawn.append(random.random())
            else:
                torch.manual_seed(5), np.random.seed(5), random.seed(5)
        if fails:
            raise fails("the function failed")
        return drawn

    names = {"t": "PyTorch", "n": "NumPy", "p": "Python", "s": "new seeds"}
    function.__qualname__ = "draws from " + ", ".join(dict.fromkeys(names[kind] for kind in kinds))
    function.__qualname__ += {None: "", _Broken: " and fails", _Pressed: " and is interrupted"}[fails]
    return function


def _streams() -> dict[str, list]:
    return {
        "PyTorch": torch.rand(4).tolist(),
        "NumPy": np.random.rand(4).tolist(),
        "Python": [random.random() for _ in range(4)],
    }


def _quietly(answer: Callable, function: Callable) -> Result:
    """undisturbed(function)"""
    torch.rand(1), np.random.rand(3), random.random()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    result = function_result = None
    outcome: dict[str, Any] = {}
    calls = 0

    @functools.wraps(function)
    def counted() -> list:
        nonlocal calls
        calls += 1
        return function()

    try:
        result = answer(counted)
    except (_Broken, _Pressed):
        outcome["raises"] = True
    after = _streams()
    torch.set_rng_state(states[0]), np.random.set_state(states[1]), random.setstate(states[2])
    expected = _streams()
    torch.set_rng_state(states[0]), np.random.set_state(states[1]), random.setstate(states[2])
    try:
        function_result = function()
    except (_Broken, _Pressed):
        if "raises" not in outcome:
            return Result(..., "the function's error is swallowed: it must pass through")
    if "raises" in outcome and function_result is not None:
        return Result(..., "it raises an error where the function does not")
    disturbed = [name for name in after if after[name] != expected[name]]
    if result is None and function_result is not None:
        return Result(..., "it returns None: is there a `return`?")
    if callable(result):
        return Result(..., "it returns a function; expected: what function() returns")
    if calls > 1:
        return Result(..., f"it calls the function {calls} times; expected: once")
    wrong = None
    if disturbed:
        wrong = f"afterwards {' and '.join(disturbed)} would draw other numbers than without the call"
        if function_result is None:
            wrong += ", because an error skips what comes after it: put the states back in `finally`"
    elif result != function_result:
        wrong = "the function does not draw what it would draw without the wrapper"
    return Result(result if wrong is None else ..., wrong)


def _kept(
    torch_too: bool = True, numpy_too: bool = True, python_too: bool = True, safely: bool = True
) -> Callable:
    def undisturbed(function: Callable) -> Any:
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()

        def restore() -> None:
            if torch_too:
                torch.set_rng_state(states[0])
            if numpy_too:
                np.random.set_state(states[1])
            if python_too:
                random.setstate(states[2])

        try:
            result = function()
        except (_Broken, _Pressed):
            if safely:
                restore()
            raise
        restore()
        return result

    return undisturbed


@exercise(
    cases=lambda: [
        (_draws("t"),),
        (_draws("tnp"),),
        (_draws("ppnt"),),
        (_draws("stn"),),
        (_draws("tnp", fails=_Broken),),
        (_draws("tnp", fails=_Pressed),),
    ],
    call=_quietly,
)
def undisturbed(function):
    return _kept()(function)


# 9. One step for several batches


def _trained(answer: Callable, sizes: list[int], accumulate: int) -> Result:
    """train_accumulated(model, optimizer, batches, accumulate)"""
    generator = torch.Generator().manual_seed(3)
    model = nn.Linear(2, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)  # left over from earlier work
    seen, modes, states, graphs, alive = [], [], [], [], []

    def before(module: nn.Module, args: tuple) -> torch.Tensor:
        """Give the model a copy, which the graph keeps for backward; count the copies still kept."""
        seen.append(len(args[0]))
        modes.append(module.training)
        alive.append(sum(not kept.expired() for kept in graphs))
        rows = args[0].clone()
        graphs.append(StorageWeakRef(rows.untyped_storage()))
        return rows

    model.register_forward_pre_hook(before)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    optimizer.register_step_post_hook(lambda *_: states.append(model.weight.detach().clone()))
    batches = [
        (torch.randn(n, 2, generator=generator), torch.randint(2, (n,), generator=generator)) for n in sizes
    ]
    steps = answer(model, optimizer, batches, accumulate)
    wrong = None
    if seen and max(seen) > max(sizes):
        wrong = f"the model saw {max(seen)} samples at once; expected: one batch at a time"
    elif any(alive):
        wrong = (
            f"{max(alive) + 1} graphs are in memory at once: call backward for each batch, which frees its "
            "graph, before the next forward pass"
        )
    elif seen != sizes:
        wrong = f"the model saw batches of {seen}; expected: each batch once, as it is: {sizes}"
    elif not all(modes):
        wrong = "it switches the model to eval(): leave it in the mode in which it is"
    return Result({"returned": steps, "steps taken": len(states), "weights after each step": states}, wrong)


def _accumulated(
    weight: Callable[[int, list[int], int], float], clear: str = "before", rest: bool = True
) -> Callable:
    """An answer: weight(size, sizes of the group, accumulate) multiplies a batch's mean loss."""

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list, accumulate: int) -> int:
        steps = 0
        for start in range(0, len(batches), accumulate):
            group = batches[start : start + accumulate]
            if len(group) < accumulate and not rest:
                break
            sizes = [len(t) for _, t in group]
            if clear == "before":
                optimizer.zero_grad()
            for inputs, targets in group:
                if clear == "each":
                    optimizer.zero_grad()
                loss = F.cross_entropy(model(inputs), targets) * weight(len(targets), sizes, accumulate)
                loss.backward()
            optimizer.step()
            if clear == "after":
                optimizer.zero_grad()
            steps += 1
        return steps

    return train


def _by_remainder(first: int) -> Callable:
    """The answer found everywhere: loss / accumulate, and a step where i % accumulate is 0."""

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list, accumulate: int) -> int:
        steps = 0
        optimizer.zero_grad()
        for i, (inputs, targets) in enumerate(batches, first):
            (F.cross_entropy(model(inputs), targets) / accumulate).backward()
            if i % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                steps += 1
        return steps

    return train


@exercise(
    cases=lambda: [
        ([2, 2, 2, 2], 2),
        ([3, 3, 3, 1], 2),
        ([4, 4, 4, 4, 2], 2),
        ([1, 5, 2, 3, 4, 2, 1], 3),
        ([6], 4),
        ([], 2),
    ],
    call=_trained,
    mistakes={
        "the losses are added up; expected: the mean over all samples of the group": _accumulated(
            lambda n, sizes, accumulate: 1.0
        ),
        "each loss is divided by `accumulate`, also where batches differ in size or a group has fewer; "
        "expected: each batch counts by its share of the group's samples": _accumulated(
            lambda n, sizes, accumulate: 1 / accumulate
        ),
        "each loss is divided by the number of batches in the group, so that a short batch counts as much "
        "as a full one; expected: by its share of the samples": _accumulated(
            lambda n, sizes, accumulate: 1 / len(sizes)
        ),
        "the weights take the first batch's size for all": _accumulated(
            lambda n, sizes, accumulate: n / (sizes[0] * accumulate)
        ),
        "the last group, with fewer batches, is left out": _accumulated(
            lambda n, sizes, accumulate: n / sum(sizes), rest=False
        ),
        "gradients are never cleared": _accumulated(
            lambda n, sizes, accumulate: n / sum(sizes), clear="never"
        ),
        "the first step uses gradients that were there before the call, too: clear them first": (
            _accumulated(lambda n, sizes, accumulate: n / sum(sizes), clear="after")
        ),
        "gradients are cleared before each batch: clear once for each group": _accumulated(
            lambda n, sizes, accumulate: n / sum(sizes), clear="each"
        ),
        "the last group, with fewer batches, is left out; and dividing by `accumulate` is right only where "
        "all batches have the same size": _by_remainder(first=1),
        "i % accumulate is 0 for i = 0 already, so that the first step comes after a single batch": (
            _by_remainder(first=0)
        ),
        "the sum over the samples; expected: the mean": _accumulated(lambda n, sizes, accumulate: float(n)),
    },
)
def train_accumulated(model, optimizer, batches, accumulate):
    return _accumulated(lambda n, sizes, _: n / sum(sizes))(model, optimizer, batches, accumulate)


# 10. A log


class _Ear(logging.Handler):
    """What the root logger hears."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


_numbers = itertools.count(1)  # each check has a logger of its own: an answer may remember names


def _silence(name: str) -> logging.Logger:
    """Bring a logger back to its beginning."""
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate, logger.disabled = True, False
    return logger


def _elsewhere(handler: logging.Handler, path: Path) -> bool:
    """Whether a handler writes into a stream, or into another file."""
    file = getattr(handler, "baseFilename", None) or getattr(getattr(handler, "stream", None), "name", None)
    known = isinstance(file, str) and Path(file).resolve() == path.resolve()
    return isinstance(handler, logging.StreamHandler) and not known


def _logged(answer: Callable, messages: list[tuple[str, str]], calls: int) -> Result:
    """file_logger(name, path)"""
    name, root, ear = f"course.exercise{next(_numbers)}", logging.getLogger(), _Ear()
    before = list(root.handlers), root.level
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.log"
        path.write_text("INFO from yesterday\n", encoding="utf-8")
        root.addHandler(ear)
        root.setLevel(logging.WARNING)
        try:
            loggers, given = [], []
            for _ in range(calls):
                loggers.append(answer(name, str(path)))
                given += logging.getLogger(name).handlers
            for logger in loggers:
                if not isinstance(logger, logging.Logger):
                    return Result(logger)
            for level, message in messages:
                getattr(loggers[-1], level)(message)
            for handler in [*logging.getLogger(name).handlers, *root.handlers]:
                handler.flush()
            lines = path.read_text(encoding="utf-8").splitlines()
            own = [*logging.getLogger(loggers[-1].name).handlers]
            elsewhere = [type(handler).__name__ for handler in own if _elsewhere(handler, path)]
            left = [h for h in given if h not in own and getattr(h, "stream", None) is not None]
            added = set(root.handlers) - {*before[0], ear}
        finally:
            handlers = list(root.handlers)
            for handler in handlers:
                if handler not in before[0]:
                    root.removeHandler(handler)
                    handler.close()
            for handler in given:
                handler.close()
            for handler in set(before[0]) - set(handlers):
                root.addHandler(handler)
            root.setLevel(before[1])
            names = [logger.name for logger in loggers if isinstance(logger, logging.Logger)]
            for other in {name, *names} - {"root"}:
                _silence(other)
    if names[-1] != name:
        return Result(..., f"the logger is called {names[-1]!r}; expected: logging.getLogger(name)")
    if lines[:1] != ["INFO from yesterday"]:
        return Result(..., "what was in the file is gone: append to it, mode='a', which is the default")
    if not own:
        why = "nothing that it is told reaches the file"
        if "hasHandlers" in getattr(getattr(answer, "__code__", None), "co_names", ()):
            why = "`hasHandlers` also asks the parents; `handlers` are its own"
        if added:
            why = "basicConfig sets up the root logger, so that every library's messages go into the file"
        return Result(..., f"the logger has no handler of its own: {why}")
    wrong = None
    if ear.heard:
        wrong = "the messages also go on to the root logger: set logger.propagate = False"
    elif left:
        wrong = "a handler that was taken away still holds the file open: close() it, or keep it as it is"
    elif elsewhere:
        wrong = f"the messages also go elsewhere, by a {elsewhere[0]}; expected: only into the file"
    return Result(lines, wrong)


def _file_logger(
    level: int = logging.INFO, form: str | None = "%(levelname)s %(message)s", once: bool = True,
    propagate: bool = False, own: bool = True,
) -> Callable:  # fmt: skip
    def file_logger(name: str, path: str) -> logging.Logger:
        logger = logging.getLogger(name)
        if own:
            logger.setLevel(level)
        logger.propagate = propagate
        if not (once and logger.handlers):
            handler = logging.FileHandler(path, encoding="utf-8")
            if not own:
                handler.setLevel(level)
            handler.setFormatter(logging.Formatter(form))
            logger.addHandler(handler)
        return logger

    return file_logger


@exercise(
    cases=lambda: [
        ([("info", "epoch 1"), ("warning", "the loss is NaN")], 1),
        ([("debug", "batch 3"), ("info", "epoch 1"), ("debug", "batch 4"), ("error", "stopped")], 1),
        ([("info", "epoch 1"), ("critical", "the disk is full")], 3),
    ],
    call=_logged,
    mistakes={
        "every line comes several times after several calls: add a handler if there is none": _file_logger(
            once=False
        ),
        "INFO does not get through: without setLevel a logger takes the root's level, WARNING; the handler's "
        "own level comes after that": _file_logger(own=False),
        "DEBUG gets through as well; expected: INFO and above": _file_logger(level=logging.DEBUG),
        "the level's name is missing: give the handler a Formatter": _file_logger(form=None),
        "between level and message stands a colon, as in basicConfig; expected: a space": _file_logger(
            form="%(levelname)s:%(message)s"
        ),
    },
)
def file_logger(name, path):
    return _file_logger()(name, path)
