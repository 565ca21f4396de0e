"""The checkers of chapter 08, TensorBoard. Each answer is a reference solution; read them after yours."""

import contextlib
import copy
import functools
import itertools
import math
import operator
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_ndarray
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

from course_utils.exercises.compare import difference
from course_utils.exercises.grading import Result, exercise
from course_utils.exercises.text import kind_of, show

NO_LIMIT = {"scalars": 0, "histograms": 0}

# 1. Losses on the disk


def _log(folder: Path, rows: Iterable[tuple[str, float, int]]) -> None:
    """Write rows of tag, value and step as a run."""
    with SummaryWriter(folder) as writer:
        for row in rows:
            writer.add_scalar(*row)


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[dict[EventFileWriter, bool]]:
    """Note for each writer to the folder whether it was given events since its last flush or close."""
    waits: dict[EventFileWriter, bool] = {}

    def noting(method: Callable, waiting: bool) -> Callable:
        def noted(self: EventFileWriter, *args: Any) -> None:
            method(self, *args)
            if Path(self.get_logdir()).resolve().is_relative_to(folder.resolve()):
                waits[self] = waiting

        return noted

    kinds = {"add_event": True, "flush": False, "close": False}
    try:
        with contextlib.ExitStack() as stack:
            for name, waiting in kinds.items():
                method = noting(getattr(EventFileWriter, name), waiting)
                stack.enter_context(mock.patch.object(EventFileWriter, name, method))
            yield waits
    finally:
        for writer in waits:
            writer.close()


def _scalars_in(file: Path) -> list[tuple[str, int, float]]:
    """The tag, step and value of each scalar in an event file, of add_scalar's old and its new style."""
    values = ((e.step, value) for e in EventFileLoader(str(file)).Load() for value in e.summary.value)
    return [
        (value.tag, step, make_ndarray(value.tensor).item())
        for step, value in values
        if value.metadata.plugin_data.plugin_name == "scalars"
    ]


def _logged(answer: Callable, losses: list[float], first_step: int) -> Result:
    """log_losses(folder, losses, first_step)"""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place) / "run"
        with _watched(folder) as waits:
            returned = answer(folder, losses, first_step)
            waiting = any(waits.values())
        files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
        inside = [path for path in files if path.parent != folder]
        if not files:
            return Result(..., "there is no event file in the folder: SummaryWriter(folder)")
        if inside == files:
            return Result(..., "the events lie in a folder inside `folder`; expected: in `folder` itself")
        if inside:
            why = "some events lie in a folder inside the run: add_scalars makes a run for each line"
            return Result(..., why)
        if waiting:
            return Result(..., "not everything is on the disk when it returns: close the writer, or flush it")
        if len(files) > 1:
            return Result(..., f"it writes {len(files)} event files: open one writer, before the loop")
        events = _scalars_in(files[0])
        tags = list(dict.fromkeys(tag for tag, _, _ in events))
        if tags != ["loss/train"]:
            return Result(..., f"the tags are {show(tags)}; expected: 'loss/train'")
        wrong = "it returns something; expected: nothing" if returned is not None else None
        return Result([(step, round(value, 5)) for _, step, value in events], wrong)


def _by_pairs(pairs: Callable) -> Callable:
    return lambda folder, losses, first_step: _log(
        folder, [("loss/train", value, step) for step, value in pairs(losses, first_step)]
    )


@exercise(
    cases=lambda: [
        ([0.9, 0.7], 10),
        ([2.5, 1.25, 0.5, 0.75], 1),
        ([0.25] * 3 + [0.125], 0),
        ([3.0, 2.0], 1000),
    ],
    call=_logged,
    mistakes={
        "global_step is missing: all values stand at step 0": _by_pairs(lambda v, n: [(0, x) for x in v]),
        "the steps begin at 0; expected: at first_step": _by_pairs(lambda v, n: list(enumerate(v))),
        "the steps begin one too late: the first loss belongs to first_step": _by_pairs(
            lambda v, n: list(enumerate(v, n + 1))
        ),
        "every value has the step first_step: count on": _by_pairs(lambda v, n: [(n, x) for x in v]),
        "only the last loss is there": _by_pairs(lambda v, n: [(n + len(v) - 1, v[-1])]),
        "the mean is logged; expected: each loss": _by_pairs(lambda v, n: [(n, sum(v) / len(v))]),
    },
)
def log_losses(folder, losses, first_step):
    _log(folder, [("loss/train", loss, step) for step, loss in enumerate(losses, first_step)])


# 2. All scalars of a run


SHORT, TWO, LONG = (
    "a run of 3 events",
    "a run continued in a second file, steps 0 to 3, then 2 to 5",
    "a run of 10,500 events",
)


def _rows(run: str) -> list[list[tuple[str, float, int]]]:
    """What is in each event file of a run."""
    if run == SHORT:
        return [[("loss/train", 0.9, 10), ("loss/train", 0.7, 11), ("loss/train", 0.8, 13)]]
    if run == LONG:
        return [[("loss/train", i % 97, 2 * i) for i in range(10_500)]]
    files: list[list] = [[], []]
    for again, file in enumerate(files):
        for step in range(2 * again, 2 * again + 4):
            file.append(("loss/train", (1 + again) / (1 + step), step))
            file.append(("accuracy", (2 * step + again) / 20, step))
    return files


@functools.cache
def _files(run: str) -> dict[str, bytes]:
    """The event files of a run: names, which sort in the order of time, and contents."""
    contents = {}
    for number, rows in enumerate(_rows(run)):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _log(Path(folder), rows)
            (file,) = Path(folder).iterdir()
            contents[f"events.out.tfevents.{number}"] = file.read_bytes()
    return contents


@functools.cache
def _events(run: str, tag: str, limited: bool = False, only_first: bool = False) -> list[Any]:
    """The events of a tag in a run, read once: 10,500 of them take a while."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for name, data in list(_files(run).items())[: 1 if only_first else None]:
            (Path(folder) / name).write_bytes(data)
        return EventAccumulator(folder, None if limited else NO_LIMIT).Reload().Scalars(tag)


def _given_a_run(answer: Callable, run: str, tag: str) -> Result:
    """read_scalars(folder, tag)"""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place) / run
        folder.mkdir()
        for name, data in _files(run).items():
            (folder / name).write_bytes(data)
        got = answer(folder, tag)
        if run == LONG and isinstance(got, tuple):  # 10,500 numbers are quicker compared at once
            got = tuple(torch.tensor(part, dtype=torch.float64) for part in got)
        left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return Result(got, None if left == _files(run) else "it changes the files of the run: only read")


def _pair(events: Iterable[Any]) -> tuple[list[int], list[float]]:
    events = list(events)
    return [event.step for event in events], [event.value for event in events]


def _read(pick: Callable = _pair, **options: bool) -> Callable:
    return lambda folder, tag: pick(_events(folder.name, tag, **options))


@exercise(
    cases=lambda: [
        (SHORT, "loss/train"),
        (TWO, "loss/train"),
        (TWO, "accuracy"),
        (LONG, "loss/train"),
    ],
    call=_given_a_run,
    mistakes={
        "of 10,500 events 10,000 are here, which is what EventAccumulator keeps unless size_guidance says "
        "otherwise": _read(limited=True),
        "values come first; expected: steps, then values": _read(lambda es: _pair(es)[::-1]),
        "these are the times; expected: the steps": _read(
            lambda es: ([e.wall_time for e in es], [e.value for e in es])
        ),
        "the steps are counted from 0; expected: as they stand in the events": _read(
            lambda es: (list(range(len(es))), [e.value for e in es])
        ),
        "this is a list of pairs; expected: a pair of lists": _read(
            lambda es: [(e.step, e.value) for e in es]
        ),
        "the run has two event files, and only one is read: give EventAccumulator the folder": _read(
            only_first=True
        ),
        "the events are sorted by step; expected: as they stand in the files, even where steps go back": (
            _read(lambda es: _pair(sorted(es, key=lambda e: e.step)))
        ),
        "a step that was logged twice is here once, as the key of a dict would be; expected: all events": (
            _read(lambda es: _pair({e.step: e for e in es}.values()))
        ),
    },
    seconds=20.0,
)
def read_scalars(folder, tag):
    return _read()(folder, tag)


# 3. TensorBoard's slider


def _smooth(
    values: list[float],
    weight: float,
    start: float | None = 0.0,
    debias: bool = True,
    past: Callable = lambda weight: weight,
) -> list[float]:
    result, m = [], start
    for t, value in enumerate(values, start=1):
        m = value if m is None else past(weight) * m + (1 - past(weight)) * value
        result.append(m / (1 - weight**t) if debias else m)
    return result


def _feeds_back(values: list[float], weight: float) -> list[float]:
    result, m = [], 0.0
    for t, value in enumerate(values, start=1):
        m = (weight * m + (1 - weight) * value) / (1 - weight**t)
        result.append(m)
    return result


def _from_zero(values: list[float], weight: float) -> list[float]:
    raw = _smooth(values, weight, debias=False)
    return [m / (1 - weight ** (t or 1)) for t, m in enumerate(raw)]


@exercise(
    cases=lambda: [
        ([8.0, 4.0, 6.0], 0.5),
        ([2.3, 1.9, 2.0, 1.1, 0.4], 0.9),
        ([1.0, 5.0, 2.0], 0.0),
        ([3.0], 0.6),
        ([], 0.6),
        ([random.random() for _ in range(300)], 0.98),
    ],
    mistakes={
        "the start is not corrected: divide by 1 - weight**t": lambda v, w: _smooth(v, w, debias=False),
        "it begins with the first value, which then weighs too much; expected: from 0, and the division by "
        "1 - weight**t": lambda v, w: _smooth(v, w, start=None, debias=False),
        "the corrected value goes on into the next step: keep the running value apart from it": _feeds_back,
        "the weight belongs to the past, 1 - weight to the new value; here it is the other way round": (
            lambda v, w: _smooth(v, 1 - w)
        ),
        "the running value is weight * m + (1 - weight) * value; here weight and 1 - weight are exchanged": (
            lambda v, w: _smooth(v, w, past=lambda w: 1 - w)
        ),
        "the exponent counts from 0; expected: 1 for the first value": _from_zero,
    },
)
def smooth(values, weight):
    return _smooth(values, weight)


# 4. A batch as one picture


def _grid(order: Callable, divide: float = 255, **options: Any) -> Callable:
    return lambda images, columns: make_grid(order(images) / divide, nrow=columns, **options)


def _first(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2)


def _shuffled(images: torch.Tensor) -> torch.Tensor:
    n, h, w, c = images.shape
    return images.reshape(n, c, h, w)


@exercise(
    cases=lambda: [
        (torch.randint(0, 256, (5, 4, 6, 3)).float(), 2),
        (torch.randint(100, 200, (3, 5, 2, 3)).float(), 3),
        (torch.randint(0, 256, (7, 3, 3, 3)).float(), 4),
        (torch.randint(0, 256, (2, 6, 5, 3)).float(), 1),
        (255 * torch.rand(4, 3, 4, 3), 3),
    ],
    mistakes={
        "the channels are still the last axis; make_grid wants (N, C, H, W): permute(0, 3, 1, 2)": _grid(
            lambda x: x
        ),
        "the channels are still the last axis, and the values reach 255: make_grid mends neither": _grid(
            lambda x: x, divide=1
        ),
        "the values reach 255; add_image wants floats from 0 to 1": _grid(_first, divide=1),
        "reshape keeps the order of the numbers and mixes pixels and channels: permute moves axes": _grid(
            _shuffled
        ),
        "height and width are exchanged: permute(0, 3, 1, 2)": _grid(lambda x: x.permute(0, 3, 2, 1)),
        "nrow is the number of images in a row; these are `columns` rows": lambda x, columns: make_grid(
            _first(x) / 255, nrow=math.ceil(len(x) / columns)
        ),
        "the columns are ignored: nrow=columns": lambda x, columns: make_grid(_first(x) / 255),
        "normalize=True stretches each batch to its own darkest and brightest value: divide by 255": _grid(
            _first, divide=1, normalize=True
        ),
        "the lines between the images are missing: leave padding=2": _grid(_first, padding=0),
        "the lines are white; expected: black": _grid(_first, pad_value=1.0),
        "uint8 cuts off the fractions of pixels: divide the floats": _grid(
            lambda x: _first(x.to(torch.uint8))
        ),
        "the channels are last; add_image wants them first": lambda x, columns: make_grid(
            _first(x) / 255, nrow=columns
        ).permute(1, 2, 0),
    },
)
def batch_picture(images, columns):
    return make_grid(_first(images) / 255, nrow=columns)


# 5. Histograms of gradients


def _state(model: nn.Module) -> dict[str, Any]:
    """A copy of what an answer that only looks leaves as it is."""
    parts = {
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "weights": list(model.parameters()),
        "buffers": list(model.buffers()),
        "gradients": [p.grad for p in model.parameters()],
        "mode, train or eval": [module.training for module in model.modules()],
    }
    return copy.deepcopy(parts)


def _histograms(answer: Callable, model: str, step: int) -> Result:
    """log_gradients(writer, model, step)"""
    network = _model(model)
    before = _state(network)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        writer = SummaryWriter(place)
        try:
            returned = answer(writer, network, step)
            if writer.file_writer is None:
                return Result(..., "it closes the writer, which the training still needs: flush at most")
        finally:
            writer.close()
        found = EventAccumulator(place, NO_LIMIT).Reload()
    for part, after in _state(network).items():
        if difference(after, before[part]):
            return Result(..., f"it changes the model ({part}): only look")
    logged = {}
    for tag in sorted(found.Tags()["histograms"]):
        logged[tag] = [
            {"step": e.step, "numbers": int(e.histogram_value.num), "min": e.histogram_value.min,
             "max": e.histogram_value.max, "sum": e.histogram_value.sum}
            for e in found.Histograms(tag)
        ]  # fmt: skip
    return Result(logged, "it returns something; expected: nothing" if returned is not None else None)


TRAINED, STOPPED, FROZEN, FRESH = (
    "Linear(3, 4), ReLU, Linear(4, 2) after backward",
    "Linear(3, 4), ReLU, Linear(4, 2) after backward, and [0] frozen after that",
    "a frozen Conv2d, BatchNorm2d, Flatten, Linear after backward, in eval mode",
    "Linear(2, 3) before any backward",
)


@functools.cache
def _gradients_of(kind: str) -> tuple[nn.Module, list[torch.Tensor | None]]:
    generator = torch.Generator().manual_seed(3)
    if kind == FRESH:
        return nn.Linear(2, 3), [None, None]
    if kind in (TRAINED, STOPPED):
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        x = torch.randn(5, 3, generator=generator)
    else:
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 3))
        model[0].requires_grad_(False)
        x = torch.randn(6, 1, 5, 5, generator=generator)
    F.cross_entropy(model(x), torch.arange(len(x)) % 2).backward()
    if kind == STOPPED:
        model[0].requires_grad_(False)
    return model.train(kind != FROZEN), [p.grad for p in model.parameters()]


def _model(kind: str) -> nn.Module:
    """A model with gradients, which a copy of a model, as a case is, would not have."""
    model, gradients = copy.deepcopy(_gradients_of(kind))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    return model


def _gradients(
    log: Callable,
    names: Callable = lambda name: f"gradients/{name}",
    chosen: Callable = lambda parameter: parameter.grad is not None,
) -> Callable:
    def logger(writer: SummaryWriter, model: nn.Module, step: int) -> None:
        for name, parameter in model.named_parameters():
            if chosen(parameter):
                log(writer, names(name), parameter, step)

    return logger


def _log_gradient(writer: SummaryWriter, tag: str, parameter: nn.Parameter, step: int) -> None:
    writer.add_histogram(tag, parameter.grad, step)


@exercise(
    cases=lambda: [(TRAINED, 7), (FROZEN, 1200), (FRESH, 3), (STOPPED, 5)],
    call=_histograms,
    mistakes={
        "these are the weights; expected: their gradients": _gradients(
            lambda writer, tag, p, step: writer.add_histogram(tag, p, step)
        ),
        "the step is missing": _gradients(lambda writer, tag, p, step: writer.add_histogram(tag, p.grad)),
        "all gradients have one tag: put the parameter's name into it": _gradients(
            _log_gradient, lambda name: "gradients"
        ),
        "the tags lack their group, 'gradients/'": _gradients(_log_gradient, lambda name: name),
        "these are the absolute values; expected: the gradients with their signs": _gradients(
            lambda writer, tag, p, step: writer.add_histogram(tag, p.grad.abs(), step)
        ),
        "this is the norm of each gradient; expected: all its numbers": _gradients(
            lambda writer, tag, p, step: writer.add_histogram(tag, p.grad.norm(), step)
        ),
        "parameters without a gradient are logged, too, as zeros: leave them out": _gradients(
            lambda writer, tag, p, step: writer.add_histogram(
                tag, torch.zeros_like(p) if p.grad is None else p.grad, step
            ),
            chosen=lambda p: True,
        ),
        "the gradient of a frozen parameter is None: leave such parameters out": _gradients(
            _log_gradient, chosen=lambda p: True
        ),
        "before the first backward p.grad is None, whatever requires_grad says: look at p.grad": _gradients(
            _log_gradient, chosen=lambda p: p.requires_grad
        ),
        "a layer that is frozen after backward still has its gradient: ask only whether it is None": (
            _gradients(_log_gradient, chosen=lambda p: p.requires_grad and p.grad is not None)
        ),
    },
)
def log_gradients(writer, model, step):
    _gradients(_log_gradient)(writer, model, step)


# 6. Precision and recall


def _probability(logits: torch.Tensor, cls: int) -> torch.Tensor:
    return logits.softmax(dim=1)[:, cls]


def _points(
    score: Callable = _probability,
    compare: Callable = torch.ge,
    precision_of: Callable = lambda called, is_class: called,
    recall_of: Callable = lambda called, is_class: is_class,
    empty: float = 0.0,
) -> Callable:
    def points(logits: torch.Tensor, targets: torch.Tensor, cls: int, thresholds: torch.Tensor) -> tuple:
        called = compare(score(logits, cls)[:, None], thresholds)
        is_class = (targets == cls)[:, None].expand_as(called)
        tp = (called & is_class).sum(dim=0).to(logits.dtype)
        shares = []
        for kind in (precision_of, recall_of):
            whole = kind(called, is_class).sum(dim=0)
            shares.append(torch.where(whole > 0, tp / whole.clamp(min=1), empty).to(logits.dtype))
        return tuple(shares)

    return points


def _by_argmax(logits: torch.Tensor, targets: torch.Tensor, cls: int, thresholds: torch.Tensor) -> tuple:
    chosen = (logits.argmax(dim=1) == cls)[:, None]
    probability = _probability(logits, cls)[:, None]
    called, is_class = chosen & (probability >= thresholds), (targets == cls)[:, None]
    tp = (called & is_class).sum(dim=0).to(logits.dtype)
    return tp / called.sum(dim=0).clamp(min=1), tp / is_class.sum(dim=0).clamp(min=1)


def _logs(*rows: list[float]) -> torch.Tensor:
    """Logits whose softmax gives these probabilities, in another scale for each row."""
    return torch.tensor(rows).log() + torch.arange(len(rows))[:, None] * 0.5


_PR = _points()


@exercise(
    cases=lambda: [
        (
            _logs([0.9, 0.04, 0.06], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.45, 0.5, 0.05], [0.35, 0.05, 0.6]),
            torch.tensor([0, 1, 0, 0, 2]),
            0,
            torch.tensor([0.5, 0.4, 0.95]),
        ),
        (2 * torch.randn(40, 4), torch.randint(4, (40,)), 2, torch.linspace(0, 1, 7)),
        (2 * torch.randn(30, 3).double(), torch.randint(2, (30,)), 2, torch.tensor([0.1, 0.5]).double()),
        (torch.zeros(6, 2), torch.tensor([0, 1, 1, 0, 1, 1]), 1, torch.tensor([0.5, 0.6])),
        (_logs([0.8, 0.2], [0.3, 0.7], [0.1, 0.9]), torch.tensor([0, 1, 1]), 0, torch.tensor([0.5, 0.2])),
    ],
    mistakes={
        "the logits are compared with the thresholds; expected: probabilities, by softmax": _points(
            lambda logits, cls: logits[:, cls]
        ),
        "sigmoid makes probabilities of single logits; here the classes exclude each other: softmax": _points(
            lambda logits, cls: logits.sigmoid()[:, cls]
        ),
        "softmax runs over the samples; expected: over the classes, dim=1": _points(
            lambda logits, cls: logits.softmax(dim=0)[:, cls]
        ),
        "a probability that equals the threshold counts, too: >=": _points(compare=torch.gt),
        "precision and recall are exchanged": lambda *a: _PR(*a)[::-1],
        "this is accuracy or the like: precision is the share of those called": _points(
            precision_of=lambda called, is_class: torch.ones_like(called)
        ),
        "where nothing is called, precision is 1; expected: 0": _points(empty=1.0),
        "0 / 0 gives NaN; expected: 0": _points(empty=math.nan),
        "only samples whose largest logit is that of the class are called: a low threshold may call others": (
            _by_argmax
        ),
        "the other classes are judged, too: only `targets == cls` counts as positive": lambda z, t, c, th: (
            _PR(z, torch.where(z.argmax(1) == t, c, -1), c, th)
        ),
    },
)
def pr_points(logits, targets, cls, thresholds):
    return _PR(logits, targets, cls, thresholds)


# 7. A configuration to log


def _flat(
    keep: Callable = lambda v: isinstance(v, (int, float, str)) and not isinstance(v, bool),
    name_of: Callable = lambda outer, inner: f"{outer}.{inner}",
    depth: int = 99,
    other: Callable = str,
    opened: Callable = lambda v: isinstance(v, dict),
) -> Callable:
    def flat(config: dict, level: int = 0) -> dict:
        result = {}
        for name, value in config.items():
            if opened(value) and level < depth:
                result |= {name_of(name, inner): v for inner, v in flat(value, level + 1).items()}
            elif keep(value):
                result[name] = value
            elif other(value) is not ...:
                result[name] = other(value)
        return result

    return flat


def _configs() -> list[tuple[dict]]:
    return [
        ({"lr": 0.1, "model": {"sizes": [64, 10], "bias": True}},),
        ({"seed": 3, "note": "first try", "decay": None, "betas": (0.9, 0.999)},),
        ({"a": {"b": {"c": {"d": 1.5}, "e": False}}, "f": 2, "g": {"h": None}},),
        ({"device": torch.device("cpu"), "dtype": torch.float32, "shuffle": True},),
        ({},),
        ({"lr": 0.1, "extra": {}, "model": {"options": {}, "width": 8}},),
    ]


def _ordered(answer: Callable, config: dict) -> Result:
    """flat_config(config)"""
    got = answer(config)
    if not isinstance(got, dict):
        return Result(got)
    expected = _flat()(config)
    types = {k: (type(v), type(expected[k])) for k, v in got.items() if k in expected}
    for name, (mine, right) in types.items():
        if mine is not right and got.keys() == expected.keys() and got[name] == expected[name]:
            return Result(
                {k: (type(v).__name__, v) for k, v in got.items()},
                f"at {name!r} is {kind_of(got[name])}; expected: {kind_of(expected[name])}",
            )
    wrong = "the order is another one" if list(got) != list(expected) else None
    return Result({k: (type(v).__name__, v) for k, v in got.items()}, wrong)


@exercise(
    cases=_configs,
    call=_ordered,
    mistakes={
        "booleans stay, and add_hparams stores them as 1.0 and 0.0: isinstance(True, int) is True": _flat(
            lambda v: isinstance(v, (int, float, str))
        ),
        "numbers have become texts, too; expected: only what is no number": _flat(
            lambda v: isinstance(v, str)
        ),
        "only one level is opened: a dict inside a dict stays, or becomes a text": _flat(depth=1),
        "dicts inside have become texts; expected: entries of their own": _flat(depth=0),
        "an empty dict inside has become the text '{}'; expected: no entry": _flat(
            opened=lambda v: isinstance(v, dict) and v != {}
        ),
        "the names of the outer dicts are missing: 'model.sizes'": _flat(name_of=lambda a, b: b),
        "None is left out; expected: 'None'": _flat(other=lambda v: ... if v is None else str(v)),
        "what is no number or text is left out; expected: str(value)": _flat(other=lambda v: ...),
        "the names are joined by a slash; expected: a dot": _flat(name_of=lambda a, b: f"{a}/{b}"),
        "the names are joined by an underscore; expected: a dot": _flat(name_of=lambda a, b: f"{a}_{b}"),
        "lists and None stay as they are, which add_hparams refuses or drops: str(value)": _flat(
            lambda v: not isinstance(v, bool)
        ),
    },
)
def flat_config(config):
    return _flat()(config)


# 8. Six faults: spoilers below

SEALED: dict[str, dict[str, Any]] = {
    "A": {"clear": False},
    "B": {"lr": 0.001},
    "C": {"samples": 15},
    "D": {"bias": -8.0},
    "E": {"shuffle": False},
    "F": {"lr": 1.6},
}
_FAULTS = dict(
    zip(
        SEALED,
        ("no zero_grad", "rate too low", "overfitting", "dead ReLU", "no shuffle", "rate too high"),
        strict=True,
    )
)
_SIGNS = {
    "rate too high": "the losses would leap about soon after the start, while the norm of the gradient "
    "goes up and down and does not climb",
    "rate too low": "both losses would fall together, slowly and evenly, with few silent units",
    "no shuffle": "the training loss would swing in the rhythm of an epoch of 20 batches",
    "dead ReLU": "all units would be silent from the first validation on, and the loss would never move",
    "overfitting": "the training loss would go to zero, far below the validation loss",
    "no zero_grad": "the norm of .grad would climb from step to step, and the losses would begin well",
}


def agrees(found: dict[str, str]) -> bool:
    """Tell whether the faults found for the runs A to F are those of the sealed settings."""
    return found == _FAULTS


def _named(answer: Callable, run: str) -> Result:
    """name_the_faults()"""
    named = answer()
    if not isinstance(named, dict):
        return Result(..., f"it returns {kind_of(named)}; expected: a dict")
    if sorted(map(str, named)) != list(SEALED):
        return Result(..., f"the keys are {show(list(named))}; expected: 'A' to 'F'")
    for letter, fault in named.items():
        if not isinstance(fault, str) or fault not in _SIGNS:
            return Result(..., f"{show(fault)} at {letter!r} is none of the faults: {', '.join(_SIGNS)}")
    if len(set(named.values())) < len(SEALED):
        twice = next(fault for fault in named.values() if list(named.values()).count(fault) > 1)
        return Result(..., f"{twice!r} occurs more than once; each fault occurs once")
    if named[run] != _FAULTS[run]:
        return Result(..., f"run {run} has another fault: with {named[run]!r}, {_SIGNS[named[run]]}")
    return Result(named[run])


@exercise(cases=lambda: [(letter,) for letter in SEALED], call=_named)
def name_the_faults():
    return dict(_FAULTS)


# 9. Since when does it overfit?


def _since(
    best_of: Callable = lambda train, valid: valid.index(min(valid)),
    rises: Callable = lambda valid, best, tolerance: valid[-1] > (1 + tolerance) * valid[best],
    learns: Callable = lambda train, best: train[-1] < train[best],
    value: Callable = lambda steps, best: steps[best],
) -> Callable:
    def since(steps: list[int], train: list[float], valid: list[float], tolerance: float) -> int | None:
        best = best_of(train, valid)
        return value(steps, best) if rises(valid, best, tolerance) and learns(train, best) else None

    return since


def _before_a_rise(train: list[float], valid: list[float]) -> int:
    return next((i for i in range(len(valid) - 1) if valid[i + 1] > valid[i]), len(valid) - 1)


def _step(answer: Callable, steps: list, train: list, valid: list, tolerance: float) -> dict[str, Any]:
    """overfits_since(steps, train, valid, tolerance)"""
    return {"step": answer(steps, train, valid, tolerance)}  # a bare None would pass for a missing return


@exercise(
    cases=lambda: [
        ([10, 20, 30], [0.9, 0.4, 0.1], [1.0, 0.8, 1.2], 0.1),
        ([5, 10, 15, 20], [0.9, 0.5, 0.3, 0.2], [1.0, 0.8, 0.7, 0.6], 0.1),
        ([20, 40, 60, 80], [0.9, 0.5, 0.2, 0.1], [0.9, 0.50, 0.53, 0.54], 0.1),
        ([20, 40, 60, 80], [0.9, 0.5, 0.2, 0.1], [0.9, 0.50, 0.53, 0.54], 0.05),
        ([1, 2, 3, 4], [0.9, 0.4, 0.6, 0.8], [1.0, 0.5, 0.9, 1.3], 0.1),
        ([3, 6, 9, 12, 15], [0.9, 0.6, 0.4, 0.2, 0.1], [1.0, 0.5, 0.9, 0.5, 0.7], 0.2),
        ([2, 4, 6, 8], [0.9, 0.5, 0.3, 0.2], [1.0, 0.5, 0.9, 0.52], 0.1),
        ([4, 8, 12], [0.9, 0.5, 0.3], [0.5, 0.6, 0.9], 0.0),
        ([7, 9, 12, 14], [0.9, 0.3, 0.5, 0.4], [1.0, 0.5, 0.9, 0.8], 0.1),
        ([1, 2, 3], [8.0, 2.0, 1.0], [40.0, 10.0, 10.5], 0.1),
        ([1, 2, 3], [0.5, 0.4, 0.7], [1.0, 0.5, 0.9], 0.1),
        ([2, 3, 5, 6, 8], [0.9, 0.7, 0.5, 0.3, 0.2], [1.0, 0.7, 0.8, 0.4, 0.6], 0.1),
        ([1, 2, 3], [0.9, 0.4, 0.1], [1.0, 0.5, 0.75], 0.5),
        ([1, 2, 3], [0.9, 0.4, 0.4], [1.0, 0.5, 0.9], 0.1),
        ([0, 10, 20], [0.9, 0.5, 0.3], [0.5, 0.6, 0.9], 0.1),
        ([1, 2, 3, 4], [0.9, 0.4, 0.1, 0.6], [1.0, 0.5, 0.8, 0.9], 0.1),
        ([1, 2, 3, 4], [0.9, 0.4, 0.5, 0.2], [1.0, 0.5, 0.8, 0.9], 0.1),
    ],
    call=_step,
    mistakes={
        "the search ends at the first rise; expected: the lowest validation loss of the whole run": _since(
            best_of=_before_a_rise
        ),
        "the last validation loss must be larger than (1 + tolerance) times the lowest: >, not >=": _since(
            rises=lambda valid, best, tolerance: valid[-1] >= (1 + tolerance) * valid[best]
        ),
        "the last training loss must be smaller than at that step: <, not <=": _since(
            learns=lambda train, best: train[-1] <= train[best]
        ),
        "this is the place in the list; expected: the step": _since(value=lambda steps, best: best),
        "this is the step of the lowest training loss; expected: of the validation loss": _since(
            best_of=lambda train, valid: train.index(min(train)), learns=lambda train, best: True
        ),
        "the last step is returned; expected: the step where the validation loss was lowest": _since(
            value=lambda steps, best: steps[-1]
        ),
        "the tolerance is ignored: a small rise is noise": _since(
            rises=lambda valid, best, tolerance: valid[-1] > valid[best]
        ),
        "the tolerance is a share: (1 + tolerance) times the lowest value; here it is added": _since(
            rises=lambda valid, best, tolerance: valid[-1] > valid[best] + tolerance
        ),
        "the training loss is not looked at: where it rises, too, the run does not overfit": _since(
            learns=lambda train, best: True
        ),
        "the training loss must be smaller than at that step, not than at the start": _since(
            learns=lambda train, best: train[-1] < train[0]
        ),
        "any later training loss counts here; expected: the last": _since(
            learns=lambda train, best: min(train[best:]) < train[best]
        ),
        "the training loss need not fall at every step: compare the last with that step's": _since(
            learns=lambda train, best: all(b < a for a, b in itertools.pairwise(train[best:]))
        ),
        "step 0 is a step, too, though it counts as false: ask `is None`": _since(
            value=lambda steps, best: steps[best] or None
        ),
        "any later peak counts here; expected: the last validation loss": _since(
            rises=lambda valid, best, tolerance: max(valid[best:]) > (1 + tolerance) * valid[best]
        ),
        "of equal lowest values the first counts": _since(
            best_of=lambda train, valid: len(valid) - 1 - valid[::-1].index(min(valid))
        ),
        "it returns None wherever a step is expected: no `return`, or conditions that never hold together": (
            _since(learns=lambda train, best: False)
        ),
    },
)
def overfits_since(steps, train, valid, tolerance):
    return _since()(steps, train, valid, tolerance)


# 10. Self times


def _event(name: str, ts: float, dur: float) -> dict[str, Any]:
    return {"name": name, "ts": ts, "dur": dur}


def _table() -> list[dict[str, Any]]:
    return [
        _event("forward", 0, 100),
        _event("conv", 10, 60),
        _event("copy", 20, 25),
        _event("step", 110, 30),
    ]


def _shuffled_events(count: int) -> list[dict[str, Any]]:
    """A random tree of events, in random order, with names that occur often and at any depth."""
    events: list[dict[str, Any]] = []

    def grow(start: float, end: float, depth: int) -> None:
        at = start + 1
        while at < end - 4 and len(events) < count:
            dur = random.randint(3, max(3, int(end - at - 1)))
            events.append(_event(random.choice("abcde"), at, dur))
            if depth < 5 and dur > 6:
                grow(at, at + dur, depth + 1)
            at += dur + random.randint(0, 3)

    grow(0, 2000, 0)
    random.shuffle(events)
    return events


def _self(
    events: list[dict],
    taken: Callable = lambda stack, event: stack[-1:],
    over: Callable = operator.le,
    add: bool = True,
) -> dict[str, float]:
    """The times of all names; taken(stack, event) gives those of the open events to take the time off."""
    times: dict[str, float] = {}
    stack: list[dict] = []
    for event in sorted(events, key=lambda e: e["ts"]):
        while stack and over(stack[-1]["ts"] + stack[-1]["dur"], event["ts"]):
            stack.pop()
        for caller in taken(stack, event):
            times[caller["name"]] -= event["dur"]
        times[event["name"]] = event["dur"] + (times.get(event["name"], 0.0) if add else 0.0)
        stack.append(event)
    return times


def _never_over(events: list[dict]) -> dict[str, float]:
    ordered = sorted(events, key=lambda e: e["ts"])
    times = _self(events, lambda stack, e: [])
    for caller in ordered[:-1]:
        times[caller["name"]] -= ordered[ordered.index(caller) + 1]["dur"]
    return times


def _unsorted(events: list[dict]) -> dict[str, float]:
    times: dict[str, float] = {}
    stack: list[dict] = []
    for event in events:
        while stack and stack[-1]["ts"] + stack[-1]["dur"] <= event["ts"]:
            stack.pop()
        if stack:
            times[stack[-1]["name"]] -= event["dur"]
        times[event["name"]] = times.get(event["name"], 0) + event["dur"]
        stack.append(event)
    return times


def _last_only(events: list[dict]) -> dict[str, float]:
    times = {}
    for e in sorted(events, key=lambda e: e["ts"]):
        inside = [o for o in events if e["ts"] < o["ts"] and o["ts"] + o["dur"] <= e["ts"] + e["dur"]]
        direct = [o for o in inside if not any(_within(o, other) for other in inside)]
        times[e["name"]] = e["dur"] - sum(o["dur"] for o in direct)
    return times


def _within(inner: dict, outer: dict) -> bool:
    return outer["ts"] < inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]


@exercise(
    cases=lambda: [
        (_table(),),
        ([_event("b", 30, 5), _event("a", 0, 50), _event("b", 10, 15), _event("c", 12, 4)],),
        ([_event("a", 0, 12), _event("note", 5, 0), _event("b", 7, 3)],),
        ([_event("a", 0, 10), _event("a", 10, 20), _event("a", 12, 6), _event("b", 18, 12)],),
        ([],),
        (_shuffled_events(80),),
    ],
    mistakes={
        "these are total times: take off what an event calls": lambda es: _self(es, lambda stack, e: []),
        "an event is taken off all that it lies in; expected: off its direct caller only": lambda es: _self(
            es, lambda stack, e: stack
        ),
        "an event is taken off the outermost one; expected: off the innermost": lambda es: _self(
            es, lambda stack, e: stack[:1]
        ),
        "the events come in any order: sort them by ts first": _unsorted,
        "an event that is over is taken for the caller of a later one: remove it once ts reaches its end": (
            _never_over
        ),
        "a name that occurs several times has the time of one event only: add up": _last_only,
        "= replaces the time of earlier events of the same name: add up": lambda es: _self(es, add=False),
        "an event whose end is the next one's ts is over, too: <=, not <": lambda es: _self(
            es, over=operator.lt
        ),
        "names whose self time is 0 are missing: all names belong to the result": lambda es: {
            name: time for name, time in _self(es).items() if time
        },
        "an event's own name is passed over where it calls itself; it is a caller like any other": (
            lambda es: _self(es, lambda stack, e: [c for c in stack[-1:] if c["name"] != e["name"]])
        ),
    },
)
def self_times(events):
    return _self(events)


__all__ = [
    "SEALED", "agrees", "batch_picture", "flat_config", "log_gradients", "log_losses", "name_the_faults",
    "overfits_since", "pr_points", "read_scalars", "self_times", "smooth",
]  # fmt: skip
