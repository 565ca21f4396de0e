"""The checkers of chapter 04, nn.Module. Each answer is a reference solution; read them after yours."""

import contextlib
import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from course_utils.exercises.grading import Result, exercise, left_off


def _module(made: Any) -> nn.Module:
    """Return what an answer made, if it is a module."""
    if made is None:
        raise TypeError("it returned None, not a module: is there a `return`?")
    if not isinstance(made, nn.Module):
        raise TypeError(f"it made an object of type {type(made).__name__}, not a module")
    return made


def _fill(model: nn.Module, shift: int = 0) -> nn.Module:
    """Give parameters and running statistics fixed values that depend on their place and shape only."""
    with torch.no_grad():
        tensors = [*model.named_parameters(), *model.named_buffers()]
        for i, (name, tensor) in enumerate(tensors, start=shift):
            if tensor.is_floating_point():
                wave = torch.sin(0.7 * torch.arange(1, tensor.numel() + 1, dtype=tensor.dtype) + i)
                tensor.copy_((1.2 + wave if name.endswith("running_var") else wave).reshape(tensor.shape))
    return model


def _hooks(model: nn.Module) -> int:
    """Return how many hooks hang on a model and its submodules."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


# 1. A module with one parameter


def _scale(answer: type, start: float, logits: torch.Tensor) -> Result:
    """Temperature(start)(logits)"""
    model = _module(answer(start))
    output = model(logits)
    if not isinstance(output, torch.Tensor):
        return Result(output)
    wrong, parameters = None, dict(model.named_parameters())
    if not parameters:
        wrong = (
            "the output is right, but the module has no parameter to train: neither a number nor a bare "
            "tensor is registered, even with requires_grad. Wrap the tensor in nn.Parameter"
        )
    elif list(parameters) != ["temperature"]:
        wrong = f"its parameters are {list(parameters)}; expected: one, called temperature"
    elif parameters["temperature"].dim():
        wrong = "the parameter has shape (1,); expected: shape (), from torch.tensor(start) without brackets"
    elif not parameters["temperature"].requires_grad:
        wrong = "requires_grad=False freezes the parameter, so that it would never be trained: leave it out"
    elif not output.requires_grad:
        wrong = (
            "for autograd the output does not depend on the parameter: divide by self.temperature itself, "
            "without .item(), .data, .detach() or no_grad()"
        )
    return Result(output.detach(), wrong)


class _Computed(nn.Module):
    """A temperature that `compute` puts to use; the mistakes are made of it."""

    def __init__(self, start: float, compute: Callable) -> None:
        super().__init__()
        self.temperature, self.compute = nn.Parameter(torch.tensor(start)), compute

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return self.compute(logits, self.temperature)


def _computed(compute: Callable) -> Callable:
    return functools.partial(_Computed, compute=compute)


@exercise(
    cases=lambda: [
        (2.0, torch.tensor([4.0, -1.0])),
        (0.5, torch.tensor([[3.0, 1.0, -2.0], [0.25, 0.0, 7.0]])),
        (1.0, torch.randn(3, 4, 2)),
    ],
    call=_scale,
    mistakes={
        "it multiplies; expected: logits divided by the temperature": _computed(torch.mul),
        "it subtracts; expected: logits divided by the temperature": _computed(torch.sub),
        "upside down: it divides the temperature by the logits": _computed(lambda x, t: t / x),
        "it applies softmax as well; expected: the scaled logits": _computed(
            lambda x, t: (x / t).softmax(-1)
        ),
        "the temperature does not begin at `start`": _computed(lambda x, t: x / (t * 0 + 1)),
        "nn.Parameter takes a tensor: nn.Parameter(torch.tensor(start))": nn.Parameter,
    },
)
class Temperature(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(start))

    def forward(self, logits):
        return logits / self.temperature


# 2. What a module knows


def _nested() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3, bias=False))
    return _Chain(body=body, pool=nn.Flatten(), head=nn.Linear(32, 5))


class _Tied(nn.Module):
    """Two layers with one weight, and a buffer that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)
        self.head.weight = self.embedding.weight
        self.register_buffer("mask", torch.zeros(7, dtype=torch.bool), persistent=False)


def _half_frozen() -> nn.Module:
    model = _Chain(stem=nn.Linear(5, 4), body=nn.Linear(4, 3), head=nn.Linear(3, 2))
    model.stem.requires_grad_(False)
    model.body.bias.requires_grad_(False)
    return model


def _counts(child_counts: Callable[[nn.Module], int]) -> Callable[[nn.Module], dict[str, int]]:
    return lambda model: {name: child_counts(child) for name, child in model.named_children()}


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _count_own(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters(recurse=False) if p.requires_grad)


@exercise(
    cases=lambda: [
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),),
        (_nested(),),
        (_half_frozen(),),
        (nn.Sequential(),),
        (_Tied(),),
        (_Chain(body=_Tied(), head=nn.Linear(3, 2)),),
    ],
    mistakes={
        "that counts tensors, a weight and a bias; expected: the numbers in them, numel()": _counts(
            lambda m: len(list(m.parameters()))
        ),
        "frozen parameters are counted, too: only those with requires_grad are trained": _counts(
            lambda m: sum(p.numel() for p in m.parameters())
        ),
        "buffers are counted, too: state_dict holds BatchNorm's running statistics, which nobody trains": (
            _counts(lambda m: sum(t.numel() for t in m.state_dict().values()))
        ),
        "the names are those of the parameters; expected: one entry for each child": lambda model: {
            n: p.numel() for n, p in model.named_parameters()
        },
        "children without trainable numbers are missing; expected: they count 0": lambda model: {
            n: _count(c) for n, c in model.named_children() if _count(c)
        },
        "named_modules goes down to every level, and begins with the model itself; expected: its children "
        "only": lambda model: {n: _count(m) for n, m in model.named_modules()},
        "only the children's own parameters are counted; expected: those of their submodules, too": _counts(
            _count_own
        ),
        "a parameter that two parts of one child share counts once: the child's parameters() lists it once": (
            _counts(lambda m: sum(_count_own(part) for part in m.modules()))
        ),
        "these are the counts by class; expected: by the child's name": lambda model: {
            type(c).__name__: _count(c) for c in model.children()
        },
        "one number for the whole model; expected: a dictionary with one for each child": _count,
        "a parameter that two children share counts for both, and the whole model's list has it only once: "
        "ask each child for its own parameters()": lambda model: {
            name: sum(
                p.numel()
                for path, p in model.named_parameters()
                if p.requires_grad and path.startswith(f"{name}.")
            )
            for name, _ in model.named_children()
        },
    },
)
def parameter_counts(model):
    return {name: _count(child) for name, child in model.named_children()}


# 3. Logits and probabilities


def _classified(answer: Callable, model: nn.Module, images: torch.Tensor) -> Result:
    """classify(model, images)"""
    model = copy.deepcopy(model)
    before, training = copy.deepcopy(dict(model.named_buffers())), model.training
    graphs = []  # whether each run of the model recorded one
    model.register_forward_hook(lambda module, args, output: graphs.append(output.requires_grad))
    result = answer(model, images)
    switched_off = left_off()
    if not (isinstance(result, tuple) and all(isinstance(part, torch.Tensor) for part in result)):
        return Result(result)
    wrong = None
    if not graphs:
        wrong = "call the model itself, model(images): model.forward(images) goes past its hooks"
    elif any(not torch.equal(buffer, before[name]) for name, buffer in model.named_buffers()):
        wrong = "the model ran in training mode: BatchNorm's running statistics have moved"
    elif any(part.requires_grad for part in result):
        wrong = (
            "the values are right, but the result hangs on the graph and keeps every activation in memory: "
            "compute under torch.no_grad()"
        )
    elif any(graphs):
        wrong = (
            "the model records a graph, which detach() drops only afterwards: run it under torch.no_grad()"
        )
    elif switched_off:
        wrong = switched_off
    elif model.training and not training:
        wrong = "it ends in training mode, whatever it was before: remember model.training first"
    elif training and not model.training:
        wrong = "the model stays in evaluation mode: bring it back into the mode in which it came"
    elif any(module.training != training for module in model.modules()):
        wrong = (
            "only the model itself is back in its mode, and its parts are not: "
            "model.train(mode) sets the mode of all its modules"
        )
    return Result(tuple(part.detach() for part in result), wrong)


def _predict(read: Callable[[torch.Tensor], tuple], training: bool | None = False) -> Callable:
    """A `classify` that runs the model in a mode (None: as it is) and reads its result from the logits."""

    def run(model: nn.Module, images: torch.Tensor) -> tuple:
        mode = model.training
        model.train(mode if training is None else training)
        with torch.no_grad():
            result = read(model(images))
        model.train(mode)
        return result

    return run


_OVERFLOW = "exp() of a large logit is infinite, and infinite / infinite is nan: use softmax"


def _naive_softmax(logits: torch.Tensor) -> torch.Tensor:
    return logits.exp() / logits.exp().sum(-1, keepdim=True)


def _best(logits: torch.Tensor) -> tuple:
    probabilities, labels = logits.softmax(1).max(1)
    return labels, probabilities


def _chained(images: int, *layers: nn.Module, training: bool, largest: float = 1.0) -> tuple:
    return _fill(nn.Sequential(*layers)).train(training), torch.rand(images, 1, 3, 2) * largest


@exercise(
    cases=lambda: [
        _chained(3, nn.Flatten(), nn.Linear(6, 4), training=False),
        _chained(4, nn.Flatten(), nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3), training=True),
        _chained(5, nn.Flatten(), nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Linear(7, 4), training=True),
        _chained(4, nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), training=False),
        _chained(2, nn.Flatten(), nn.Linear(6, 3), training=False, largest=1000.0),
        _chained(1, nn.Flatten(), nn.Linear(6, 4), training=False),
    ],
    call=_classified,
    seconds=20,  # more than enough: convolutions crawl where many processes share few cores
    mistakes={
        "these are logits; expected: probabilities, from softmax over the classes": _predict(
            lambda z: (z.argmax(1), z.amax(1))
        ),
        "softmax ran over the pictures; the classes are dim=1": _predict(
            lambda z: (z.argmax(1), z.softmax(0).gather(1, z.argmax(1, keepdim=True)).squeeze(1))
        ),
        "softmax ran over the pictures, so that each column adds up to 1; the classes are dim=1": _predict(
            lambda z: z.softmax(0).max(1)[::-1]
        ),
        "labels and probabilities are exchanged: expected (labels, probabilities)": _predict(
            lambda z: _best(z)[::-1]
        ),
        "the probabilities of all classes; expected: that of the chosen class, one for each picture": (
            _predict(lambda z: (z.argmax(1), z.softmax(1)))
        ),
        "softmax was applied twice: its result is no longer the probability": _predict(
            lambda z: _best(z.softmax(1))
        ),
        "for one picture, squeeze() takes its dimension away, too: write squeeze(1) or nothing": _predict(
            lambda z: (z.argmax(1), z.softmax(1).amax(1).squeeze())
        ),
        "that is the logarithm of the probability": _predict(
            lambda z: (z.argmax(1), z.log_softmax(1).amax(1))
        ),
        _OVERFLOW: _predict(lambda z: (z.argmax(1), _naive_softmax(z).amax(1))),
        "the model ran in training mode: dropout was active, and BatchNorm used this batch's statistics. "
        "Call model.eval() first": _predict(_best, training=None),
    },
)
def classify(model, images):
    return _predict(_best)(model, images)


# 4. Containers


def _stacked(answer: Callable, sizes: list[int], images: torch.Tensor) -> Result:
    """make_mlp(sizes)(images)"""
    model = _fill(_module(answer(sizes)))
    shapes = [tuple(p.shape) for p in model.parameters()]
    if not shapes:
        return Result(
            ..., "no parameters are registered: nn.Sequential and nn.ModuleList register, a list does not"
        )
    return Result({"parameter shapes": shapes, "output": model(images).detach()})


def _mlp(
    sizes: list[int],
    first: Callable[[], list] = lambda: [nn.Flatten()],
    between: Callable[[], list] = lambda: [nn.ReLU()],
    last: Callable[[], list] = list,
) -> nn.Sequential:
    layers = first()
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), *between()]
    layers = layers[: len(layers) - len(between())] if between() else layers
    return nn.Sequential(*layers, *last())


@exercise(
    cases=lambda: [
        ([6, 4, 3], torch.arange(12.0).reshape(2, 1, 2, 3) - 5),
        ([6, 2], torch.randn(3, 6)),
        ([8, 7, 5, 4, 3], torch.randn(5, 2, 2, 2)),
        ([6, 3, 6, 3], torch.randn(4, 6)),
    ],
    call=_stacked,
    mistakes={
        "a ReLU follows the last layer, so that no logit can be negative: leave it out": lambda s: _mlp(
            s, last=lambda: [nn.ReLU()]
        ),
        "there is no ReLU between the layers: without it, several linear layers are no more than one": (
            lambda s: _mlp(s, between=list)
        ),
        "softmax at the end; expected: logits, which is what the loss takes": lambda s: _mlp(
            s, last=lambda: [nn.Softmax(1)]
        ),
        "log_softmax at the end; expected: logits": lambda s: _mlp(s, last=lambda: [nn.LogSoftmax(1)]),
        "a ReLU stands before the first layer: it cuts off negative inputs": lambda s: _mlp(
            s, first=lambda: [nn.Flatten(), nn.ReLU()]
        ),
        "the layers have no bias; nn.Linear(inputs, outputs) has one": lambda s: nn.Sequential(
            nn.Flatten(),
            *[layer for i, o in itertools.pairwise(s) for layer in (nn.ReLU(), nn.Linear(i, o, bias=False))][
                1:
            ],
        ),
        "only the first and the last size are used: the hidden layers are missing": lambda s: _mlp(
            [s[0], s[-1]]
        ),
        "the pictures are not rows: is nn.Flatten() first?": lambda s: _mlp(s, first=list),
        "Flatten(0) makes one row of the whole batch: is nn.Flatten() first?": lambda s: _mlp(
            s, first=lambda: [nn.Flatten(0)]
        ),
        "another activation; expected: ReLU": lambda s: _mlp(s, between=lambda: [nn.Tanh()]),
        "sizes.index(size) finds the first of equal sizes: count the places, range(len(sizes) - 1)": (
            lambda s: nn.Sequential(
                nn.Flatten(),
                *[
                    layer
                    for i in map(s.index, s[:-1])
                    for layer in (nn.Linear(s[i], s[i + 1]), *[nn.ReLU()] * (i < len(s) - 2))
                ],
            )
        ),
        "a hidden layer may have as many outputs as the last one: tell the last layer by its place": (
            lambda s: nn.Sequential(
                nn.Flatten(),
                *[
                    layer
                    for i, o in itertools.pairwise(s)
                    for layer in ([nn.Linear(i, o)] if o == s[-1] else [nn.Linear(i, o), nn.ReLU()])
                ],
            )
        ),
    },
)
def make_mlp(sizes):
    return _mlp(sizes)


def _ensembled(answer: type, models: list[nn.Module], x: torch.Tensor) -> Result:
    """Ensemble(models)(x)"""
    members, calls = [_fill(copy.deepcopy(model), shift) for shift, model in enumerate(models)], []
    for member in members:
        member.register_forward_hook(lambda module, args, output: calls.append(module))
    expected = sum(_count(model) for model in members)
    given = {id(parameter) for model in members for parameter in model.parameters()}
    ensemble = _module(answer(members))
    output, wrong = ensemble.train()(x), None
    kept = all(module.training for model in members for module in model.modules())
    ensemble.eval()
    members[0].train()  # modes that differ, so that none of them can be guessed
    modes = [module.training for module in ensemble.modules()]
    ensemble(x)
    kept = kept and [module.training for module in ensemble.modules()] == modes
    if not _count(ensemble):
        wrong = (
            "the output is right, but a Python list or tuple hides the models: no parameters, and .eval() "
            "does not reach them. Use nn.ModuleList"
        )
    elif _count(ensemble) != expected:
        wrong = f"it has {_count(ensemble)} trainable numbers; expected: those of all models, {expected}"
    elif {id(parameter) for parameter in ensemble.parameters()} != given:
        wrong = "its parameters are copies; expected: those of the given models themselves"
    elif not kept:
        wrong = "a call changes the mode of the models: leave eval() and train() to the caller"
    elif not calls:
        wrong = "call each model itself, model(x): model.forward(x) goes past its hooks"
    return Result(output, wrong)


class _Members(nn.Module):
    def __init__(self, models: list[nn.Module], combine: Callable) -> None:
        super().__init__()
        self.models, self.combine = nn.ModuleList(models), combine

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.combine(torch.stack([model(x) for model in self.models]))


def _members(combine: Callable) -> Callable:
    return functools.partial(_Members, combine=combine)


@exercise(
    cases=lambda: [
        ([nn.Linear(2, 3), nn.Linear(2, 3)], torch.tensor([[1.0, -2.0]])),
        (
            [nn.Linear(4, 5), nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 5)), nn.Linear(4, 5)],
            torch.randn(7, 4),
        ),
        ([nn.Linear(3, 2)], torch.randn(4, 3)),
        ([nn.Linear(2, 3), nn.Linear(2, 3)], torch.tensor([[0.5, -1.0], [1000.0, -3000.0]])),
    ],
    call=_ensembled,
    mistakes={
        "the softmax of the mean logits; expected: the mean of the models' probabilities": _members(
            lambda z: z.mean(0).softmax(1)
        ),
        "the softmax of the summed logits; expected: the mean of the models' probabilities": _members(
            lambda z: z.sum(0).softmax(1)
        ),
        "the mean of the logits; expected: the mean of the models' probabilities": _members(
            lambda z: z.mean(0)
        ),
        "the sum of the probabilities; expected: their mean, so that each row adds up to 1": _members(
            lambda z: z.softmax(2).sum(0)
        ),
        "the sum is divided by 2; expected: by the number of models": _members(
            lambda z: z.softmax(2).sum(0) / 2
        ),
        "the probabilities of all models; expected: their mean": _members(lambda z: z.softmax(2)),
        "the mean over the classes; expected: the mean over the models": _members(
            lambda z: z.softmax(2).mean(2)
        ),
        "softmax ran over the samples; the classes are dim=1 of each model's output": _members(
            lambda z: z.softmax(1).mean(0)
        ),
        "softmax ran over the models; the classes are dim=1 of each model's output": _members(
            lambda z: z.softmax(0).mean(0)
        ),
        _OVERFLOW: _members(lambda z: _naive_softmax(z).mean(0)),
        "only the last model is heard": _members(lambda z: z[-1].softmax(1)),
        "only the first model is heard": _members(lambda z: z[0].softmax(1)),
    },
)
class Ensemble(nn.Module):
    def __init__(self, models):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, x):
        return torch.stack([model(x).softmax(dim=1) for model in self.models]).mean(dim=0)


# 5. Convolution arithmetic


def _sizes(shape: tuple, conv: nn.Conv2d, size: Callable[[int, int, int, int, int], int]) -> tuple:
    """The shape of a convolution's output; `size` takes n, kernel, stride, padding, dilation."""
    rules = zip(shape[2:], conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
    return (shape[0], conv.out_channels, *(size(*rule) for rule in rules))


def _sized(size: Callable[[int, int, int, int, int], int]) -> Callable:
    return lambda conv, shape: _sizes(shape, conv, size)


def _size(n: int, k: int, s: int, p: int, d: int) -> int:
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


class _OnlyShapes(TorchFunctionMode):
    """Under this, no convolution runs, but for those on the meta device, which compute shapes only."""

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.conv2d and not (args[0] if args else kwargs["input"]).is_meta:
            raise RuntimeError("this runs the convolution: compute the shape from the formula")
        return function(*args, **kwargs)


def _unrun(answer: Callable, conv: nn.Conv2d, shape: tuple) -> Any:
    """output_shape(conv, shape)"""
    with _OnlyShapes():
        return answer(conv, shape)


@exercise(
    cases=lambda: [
        (nn.Conv2d(1, 6, 3), (2, 1, 9, 8)),
        (nn.Conv2d(3, 8, 5, padding=1), (4, 3, 11, 9)),
        (nn.Conv2d(3, 64, 7, stride=2, padding=3), (1, 3, 224, 200)),
        (nn.Conv2d(1, 2, 3, stride=2), (5, 1, 10, 16)),
        (nn.Conv2d(4, 5, 3, padding=2, dilation=3), (2, 4, 20, 17)),
        (nn.Conv2d(2, 7, (5, 2), stride=(2, 3), padding=(0, 1), dilation=(1, 2)), (3, 2, 12, 21)),
        (nn.Conv2d(1, 2, 3), (10**12, 1, 30, 20)),  # a batch of 2.4 petabytes; one picture of it is small
    ],
    call=_unrun,
    mistakes={
        "padding is added on both sides: 2 × padding": _sized(
            lambda n, k, s, p, d: (n + p - d * (k - 1) - 1) // s + 1
        ),
        "padding is ignored": _sized(lambda n, k, s, p, d: _size(n, k, s, 0, d)),
        "the stride is ignored": _sized(lambda n, k, s, p, d: _size(n, k, 1, p, d)),
        "dilation is ignored: a kernel of size k reaches over dilation × (k - 1) + 1 pixels": _sized(
            lambda n, k, s, p, d: _size(n, k, s, p, 1)
        ),
        "the + 1 at the end is missing: the first position counts, too": _sized(
            lambda n, k, s, p, d: _size(n, k, s, p, d) - 1
        ),
        "a step that does not fit any more does not count: the division rounds down": _sized(
            lambda n, k, s, p, d: -(-(n + 2 * p - d * (k - 1) - 1) // s) + 1
        ),
        "a step that does not fit any more does not count: round down with //, not to the nearest": _sized(
            lambda n, k, s, p, d: round((n + 2 * p - d * (k - 1) - 1) / s) + 1
        ),
        "a division with / gives a float; a size is a whole number: use //": _sized(
            lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) / s + 1
        ),
        "height and width have their own kernel size, stride, padding and dilation: entry 0 is for the "
        "height, entry 1 for the width": lambda conv, shape: (
            shape[0],
            conv.out_channels,
            *(_size(n, *(getattr(conv, a)[0] for a in _CONV)) for n in shape[2:]),
        ),
        "height and width are exchanged": lambda conv, shape: tuple(
            _sizes(shape, conv, _size)[i] for i in (0, 1, 3, 2)
        ),
        "the channels are those of the input; expected: conv.out_channels": lambda conv, shape: (
            shape[0],
            conv.in_channels,
            *_sizes(shape, conv, _size)[2:],
        ),
        "the batch dimension is missing: (N, channels, H, W)": lambda conv, shape: _sizes(shape, conv, _size)[
            1:
        ],
        "the right numbers in a list; expected: a tuple": lambda conv, shape: list(
            _sizes(shape, conv, _size)
        ),
    },
)
def output_shape(conv, shape):
    return _sizes(shape, conv, _size)


_CONV = ("kernel_size", "stride", "padding", "dilation")


def _field(layers: list[tuple[int, int]], steps: Callable[[list[int]], list[int]]) -> int:
    """1 plus, for each layer, (kernel - 1) times the distance of its neighbours in input pixels."""
    strides = [stride for _, stride in layers]
    return 1 + sum((kernel - 1) * step for (kernel, _), step in zip(layers, steps(strides), strict=True))


def _before(strides: list[int]) -> list[int]:
    steps = [1]
    for stride in strides[:-1]:
        steps.append(steps[-1] * stride)
    return steps[: len(strides)]


def _pixels(layers: list[tuple[int, int]]) -> int:
    """How many pixels in a row one output depends on; where a stride skips some, fewer than the width."""
    seen = {0}
    for kernel, stride in reversed(layers):
        seen = {place * stride + i for place in seen for i in range(kernel)}
    return len(seen)


@exercise(
    cases=lambda: [
        ([(3, 1)],),
        ([(3, 1), (5, 1)],),
        ([(3, 2), (6, 3)],),
        ([(2, 2), (3, 3), (4, 1)],),
        ([(7, 2), (3, 2), (3, 1), (3, 1)],),
        ([(1, 2), (3, 1)],),
        ([],),
    ],
    mistakes={
        "the strides are ignored: after a layer of stride 2, one step means two input pixels": lambda ls: (
            _field(ls, lambda s: [1] * len(s))
        ),
        "a layer's own stride does not widen its own view, only that of the layers after it": lambda ls: (
            _field(ls, lambda s: [*_before([*s, 1])[1:]] if s else [])
        ),
        "only the stride of the layer before is used; the strides of all layers before multiply": lambda ls: (
            _field(ls, lambda s: [1, *s[:-1]][: len(s)])
        ),
        "each layer multiplies with its own stride only: the strides of all layers before it multiply": (
            lambda ls: _field(ls, lambda s: s)
        ),
        "the strides of the layers before are added; they multiply": lambda ls: _field(
            ls, lambda s: [sum(s[:i]) or 1 for i in range(len(s))]
        ),
        "that adds up the kernel sizes; each kernel adds kernel - 1 pixels, because it shares one with what "
        "was seen before": lambda ls: sum(
            k * step for (k, _), step in zip(ls, _before([s for _, s in ls]), strict=True)
        ),
        "the first pixel is missing: begin with 1": lambda ls: _field(ls, _before) - 1,
        "only the pixels that count are counted; expected: the width from the first to the last, gaps "
        "included": _pixels,
        "the layers are read from the end: the strides that count are those before a layer": lambda ls: (
            _field(ls[::-1], _before)
        ),
    },
)
def receptive_field(layers):
    return _field(layers, _before)


# 6. extra_repr


_TEXTS = ("extra_repr", "__repr__", "__str__", "_get_name")  # the methods that make a module's text


def _described(answer: Callable, model: nn.Module) -> Result:
    """add_counts(model); print(model)"""
    model = copy.deepcopy(model)
    holders = [module for module in model.modules() if _own(module)]
    classes = {
        kind for module in model.modules() for kind in type(module).__mro__ if kind.__module__ != "builtins"
    }
    before = {(kind, name): vars(kind).get(name) for kind in classes for name in _TEXTS}
    changed = set()
    try:
        answer(model)
    finally:  # a changed class would spoil all that follows
        for (kind, name), method in before.items():
            if vars(kind).get(name) is not method:
                changed.add(kind.__name__)
                if method:
                    setattr(kind, name, method)
                else:
                    delattr(kind, name)
    if changed:
        names = ", ".join(sorted(changed))
        return Result(
            ..., f"you changed the class {names}, for all its objects: set extra_repr on each module"
        )
    try:
        lines = [line.strip() for line in repr(model).splitlines()]
    except RecursionError:
        why = "RecursionError: the new extra_repr calls itself. Call the old one before you replace it"
        return Result(..., f"{why}: before = module.extra_repr()")
    told, last = {module.extra_repr() for module in holders}, f"{_own(holders[-1])} parameters"
    if len({_own(module) for module in holders}) > 1 and len(told) == 1 and last in told.pop():
        why = (
            "every layer shows the last layer's text: the function looks its names up only when it is called"
        )
        return Result(..., f"{why}. Bind them at once, with functools.partial")
    return Result(lines)


def _own(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters(recurse=False))


def _all(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _described_by(text: Callable[[nn.Module, str], str | None]) -> Callable[[nn.Module], None]:
    """An `add_counts` that sets extra_repr to `text(module, what it said before)`; None leaves a module."""

    def add(model: nn.Module) -> None:
        for module in model.modules():
            said = text(module, module.extra_repr())
            if said is not None:
                module.extra_repr = functools.partial(str, said)

    return add


def _extended(module: nn.Module, before: str, numbers: int | str) -> str:
    return ", ".join(part for part in (before, f"{numbers} parameters") if part)


class _Shift(nn.Module):
    """A layer with a parameter and nothing to say about itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


class _Shifted(nn.Module):
    """A module with a parameter of its own, and a part."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.layer = nn.Parameter(torch.zeros(7)), nn.Linear(7, 2)


def _labelled() -> nn.Module:
    """A model with a frozen layer of more than 1,000 numbers, and a layer that has its own text."""
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 2))
    model[0].requires_grad_(False)
    model[1].extra_repr = functools.partial(str, "the head")
    return model


@exercise(
    cases=lambda: [
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)),),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(1, 2))),),
        (nn.Sequential(_Shift(7), nn.Linear(5, 1, bias=False)),),
        (_labelled(),),
        (_Shifted(),),
    ],
    call=_described,
    mistakes={
        "what the modules said before is lost: the new text follows the old one, after a comma": (
            _described_by(lambda m, before: f"{_own(m)} parameters" if _own(m) else None)
        ),
        "modules without parameters of their own must stay as they were": _described_by(
            lambda m, before: _extended(m, before, _own(m))
        ),
        "a container repeats what its children say: count its own parameters only, "
        "parameters(recurse=False)": _described_by(
            lambda m, before: _extended(m, before, _all(m)) if _all(m) else None
        ),
        "a module that has parts may hold parameters itself: count those, too": _described_by(
            lambda m, before: _extended(m, before, _own(m)) if _own(m) and not [*m.children()] else None
        ),
        "a module that said nothing before now begins with a comma": _described_by(
            lambda m, before: f"{before}, {_own(m)} parameters" if _own(m) else None
        ),
        "frozen parameters are left out; expected: all of the module's own": _described_by(
            lambda m, before: (
                _extended(m, before, sum(p.numel() for p in m.parameters(recurse=False) if p.requires_grad))
                if any(p.requires_grad for p in m.parameters(recurse=False))
                else None
            )
        ),
        "an object's own text is lost: what it said before is what module.extra_repr() returned, not its "
        "class's": _described_by(
            lambda m, before: _extended(m, type(m).extra_repr(m), _own(m)) if _own(m) else None
        ),
        "the number has a separator; expected: digits only": _described_by(
            lambda m, before: _extended(m, before, f"{_own(m):,}") if _own(m) else None
        ),
        "that counts tensors; expected: the numbers in them": _described_by(
            lambda m, before: (
                _extended(m, before, len(list(m.parameters(recurse=False)))) if _own(m) else None
            )
        ),
        "nothing has changed: extra_repr must be set on each module": lambda model: list(model.modules()),
        "the count stands before the old text; expected: after it": _described_by(
            lambda m, before: f"{_own(m)} parameters, {before}" if _own(m) else None
        ),
    },
)
def add_counts(model):
    _described_by(lambda m, before: _extended(m, before, _own(m)) if _own(m) else None)(model)


# 7. Hooks


@contextlib.contextmanager
def _replaced_outputs() -> Iterator[list[nn.Module]]:
    """Collect the layers of a `_Chain` that do not get the very output of the layer before them."""
    replaced, last = [], []

    def arrive(module: nn.Module, args: tuple) -> None:
        if isinstance(module, _Chain):
            last.clear()
        elif last and not list(module.children()) and args and args[0] is not last[-1]:
            replaced.append(module)

    def leave(module: nn.Module, args: tuple, output: Any) -> None:  # runs before the module's own hooks
        if not list(module.children()):
            last.append(output)

    with (
        nn.modules.module.register_module_forward_pre_hook(arrive),
        nn.modules.module.register_module_forward_hook(leave),
    ):
        yield replaced


def _captured(answer: Callable, model: nn.Module, images: torch.Tensor, names: list[str]) -> Result:
    """capture(model, images, names)"""
    model = _fill(copy.deepcopy(model))
    calls, modes = [], [module.training for module in model.modules()]
    for module in (model, model.get_submodule(names[0])):  # the user's own
        module.register_forward_hook(lambda module, args, output: calls.append(module))
    own = _hooks(model)
    with _replaced_outputs() as replaced:
        maps = answer(model, images, names)
    if switched_off := left_off():
        return Result(..., switched_off)
    if not (isinstance(maps, dict) and all(isinstance(kept, torch.Tensor) for kept in maps.values())):
        return Result(maps)
    if replaced:
        return Result(..., "the hook returned a tensor, which replaced the module's output: return None")
    wrong, left = None, _hooks(model)
    called = any(type(module) is type(model) for module in calls)
    with contextlib.suppress(Exception):
        answer(model, images[..., :-1], names)  # too narrow: the last layer refuses
    failed = _hooks(model)
    with contextlib.suppress(Exception):
        answer(model, images, [*names, "no such module"])
    if any(kept.requires_grad for kept in maps.values()):
        wrong = "the captured tensors hang on the graph and keep it in memory: detach() them"
    elif left > own:
        wrong = (
            "the hooks are still there, and every later call of the model runs them: keep each handle and "
            "call its remove()"
        )
    elif left < own:
        wrong = "hooks that were there before are gone: remove only your own, each by its handle"
    elif not called:
        wrong = "the model's own hooks do not run: call model(images), not model.forward(images)"
    elif [module.training for module in model.modules()] != modes:
        wrong = "the model is left in another mode: run it in the mode in which it came"
    elif failed > own:
        wrong = (
            "the hooks stay when the model raises an error: remove them in `finally`, or use the handles in "
            "a `with`"
        )
    elif _hooks(model) > own:
        wrong = "after a wrong name the hooks of the names before it stay: register inside the `try`, too"
    return Result({name: kept.detach() for name, kept in maps.items()}, wrong)


def _capture(
    model: nn.Module,
    images: torch.Tensor,
    names: list[str],
    keep: Callable = torch.clone,
    pick: Callable = lambda args, output: output,
) -> dict[str, torch.Tensor]:
    maps = {}

    def hook(module: nn.Module, args: tuple, output: torch.Tensor, name: str) -> None:
        maps[name] = keep(pick(args, output).detach())

    with contextlib.ExitStack() as handles:
        for name in names:
            module = model.get_submodule(name)
            handles.enter_context(module.register_forward_hook(functools.partial(hook, name=name)))
        model(images)
    return maps


def _capturing(**options: Any) -> Callable:
    return functools.partial(_capture, **options)


def _capture_last(model: nn.Module, images: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
    maps = _capture(model, images, names)
    return {names[-1]: maps[names[-1]]} if names else {}


class _Chain(nn.Module):
    """Runs its children in order, under names."""

    def __init__(self, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for child in self.children():
            x = child(x)
        return x


def _small_cnn(in_place: bool) -> nn.Module:
    features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=in_place), nn.Conv2d(2, 3, 2))
    return _Chain(features=features, flatten=nn.Flatten(), head=nn.Linear(18, 2))


@exercise(
    cases=lambda: [
        (_Chain(body=nn.Linear(3, 2), relu=nn.ReLU(), head=nn.Linear(2, 1)), torch.ones(1, 3), ["body"]),
        (_small_cnn(False), torch.randn(2, 1, 5, 6), ["features.2", "head"]),
        (_small_cnn(True), torch.randn(3, 1, 5, 6), ["features.0", "features.1", "flatten"]),
        (_small_cnn(False).eval(), torch.randn(1, 1, 5, 6), ["head"]),
    ],
    call=_captured,
    seconds=20,
    mistakes={
        "the ReLU after it works in place and wrote over the captured values, for detach() shares memory: "
        "clone() as well": _capturing(keep=lambda output: output),
        "these are the inputs of the modules; expected: their outputs, the hook's third argument": (
            _capturing(pick=lambda args, output: args[0])
        ),
        "only the last name is captured: the hook looks up `name` only when it runs. Bind it at once, with "
        "functools.partial": _capture_last,
    },
)
def capture(model, images, names):
    return _capture(model, images, names)


def _silenced(answer: Callable, module: nn.Module, channel: int, x: torch.Tensor) -> Result:
    """handle = silence(module, channel); module(x).sum().backward(); handle.remove()"""
    module = _fill(copy.deepcopy(module))
    before = copy.deepcopy(module.state_dict())
    handle = answer(module, channel)
    if isinstance(handle, torch.utils.hooks.RemovableHandle) and not _hooks(module):
        return Result(..., "the hook was already removed when silence returned: leave out `with`")
    untouched = x.clone()
    output, wrong = module(x), None
    if not torch.equal(x, untouched):
        why = "the hook writes into the module's output, here the same tensor as the input x"
        return Result(..., f"{why}: write into output.clone()")
    if not hasattr(handle, "remove"):
        returned = "nothing" if handle is None else f"a {type(handle).__name__}"
        wrong = f"it returns {returned}; expected: the handle that register_forward_hook gives"
        return Result(..., wrong)
    leaf, gradient = x.clone().requires_grad_(), None
    tracked = module(leaf * 1)
    if tracked.requires_grad:
        (gradient,) = torch.autograd.grad(tracked.sum(), leaf, materialize_grads=True)
    else:
        wrong = (
            "the result is off the graph, so that nothing before it can be trained: detach(), .data or "
            "no_grad cut it off"
        )
    handle.remove()
    if _hooks(module):
        wrong = wrong or "handle.remove() leaves a hook: register one, and return its handle"
    if any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items()):
        wrong = wrong or "the module's weights have changed: change its output, in the hook"
    free = module(leaf * 1)
    others = [i for i in range(free.shape[1]) if i != channel]
    (expected,) = torch.autograd.grad(free[:, others].sum(), leaf)
    if gradient is not None and not torch.allclose(gradient, expected, atol=1e-5):
        wrong = wrong or (
            "the values are right, the gradients are not: none may come from the silenced channel, all must "
            "from the others. .data and detach() hide from autograd what the hook does"
        )
    return Result((output.detach(), module(x).detach()), wrong)


def _hooked(change: Callable, *, before: bool = False) -> Callable:
    """A `silence` whose hook returns `change(tensor, channel)`, of the output or, before, of the input."""

    def silence(module: nn.Module, channel: int) -> Any:
        if before:
            return module.register_forward_pre_hook(lambda module, args: change(args[0], channel))
        return module.register_forward_hook(lambda module, args, output: change(output, channel))

    return silence


def _zeroed(x: torch.Tensor, *place: Any) -> torch.Tensor:
    x = x.clone()
    x[place] = 0
    return x


@exercise(
    cases=lambda: [
        (nn.Identity(), 1, torch.arange(1.0, 13.0).reshape(2, 3, 2, 1)),
        (nn.Conv2d(2, 5, 2), 1, torch.randn(2, 2, 4, 3)),
        (nn.ReLU(), 0, torch.randn(4, 3, 2, 2)),
        (nn.Conv2d(1, 4, 3), 3, torch.randn(5, 1, 3, 4)),
        (nn.Identity(), 2, torch.tensor([1.0, 2.0, float("inf"), 4.0]).reshape(1, 4, 1, 1)),
    ],
    call=_silenced,
    seconds=20,
    mistakes={
        "nothing changes: a hook replaces the output by what it returns, and it returned nothing": _hooked(
            lambda output, channel: None
        ),
        "the first dimension counts pictures: a whole picture is zero. Channels are the second": _hooked(
            lambda output, channel: _zeroed(output, channel)
        ),
        "the input's channel is zero; expected: the output's, so register a forward hook, not a pre-hook": (
            _hooked(lambda x, channel: _zeroed(x, slice(None), channel), before=True)
        ),
        "all the other channels are zero; expected: only this one": _hooked(
            lambda output, channel: output - _zeroed(output, slice(None), channel)
        ),
        "the whole output is zero; expected: one channel": _hooked(
            lambda output, channel: torch.zeros_like(output)
        ),
        "0 times infinity is nan: write a zero in place of multiplying by it": _hooked(
            lambda output, channel: output * _zeroed(torch.ones_like(output), slice(None), channel)
        ),
        "the channel is gone; expected: the same shape, with zeros in it": _hooked(
            lambda output, channel: torch.cat([output[:, :channel], output[:, channel + 1 :]], 1)
        ),
        "rows are zero; channels are the second dimension, [:, channel]": _hooked(
            lambda output, channel: _zeroed(output, slice(None), slice(None), channel)
        ),
    },
)
def silence(module, channel):
    return _hooked(lambda output, channel: _zeroed(output, slice(None), channel))(module, channel)


# 8. ResNet


def _mismatches(a: dict, b: dict) -> list[str]:
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _parameters(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def _registered(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {**_parameters(model), **{name: tuple(b.shape) for name, b in model.named_buffers()}}


def _common(a: dict, b: dict) -> list[str]:
    return sorted(name for name in a.keys() & b.keys() if a[name] != b[name])


@exercise(
    cases=lambda: [
        (_Chain(conv=nn.Linear(4, 3), fc=nn.Linear(3, 2)), _Chain(conv=nn.Linear(4, 3), fc=nn.Linear(3, 5))),
        (_Chain(body=nn.Linear(4, 3), fc=nn.Linear(3, 2)), _Chain(conv=nn.Linear(4, 3), fc=nn.Linear(3, 2))),
        (
            _Chain(conv=nn.Conv2d(1, 2, 3, bias=False), bn=nn.BatchNorm2d(2, affine=False)),
            _Chain(conv=nn.Conv2d(1, 2, 3), bn=nn.BatchNorm2d(2, affine=False, track_running_stats=False)),
        ),
        (_Chain(a=nn.Linear(2, 2, bias=False), b=nn.Linear(3, 2)), _Chain(b=nn.Linear(2, 3), c=nn.ReLU())),
        (_Chain(fc=nn.Linear(3, 2)), _Chain(fc=nn.Linear(3, 2))),
        (_Tied(), _Chain(embedding=nn.Embedding(11, 6), head=nn.Linear(6, 11))),
    ],
    mistakes={
        "buffers are left out: state_dict holds parameters and buffers": lambda m, r: _mismatches(
            _parameters(m), _parameters(r)
        ),
        "compare the state_dicts: named_parameters() lists a shared parameter once, and named_buffers() has "
        "what state_dict() leaves out, too": lambda m, r: _mismatches(_registered(m), _registered(r)),
        "only names that both have are compared: a name that one of them lacks is a mismatch, too": (
            lambda m, r: _common(_shapes(m), _shapes(r))
        ),
        "shapes are not compared: the same name with another shape is a mismatch": lambda m, r: sorted(
            _shapes(m).keys() ^ _shapes(r).keys()
        ),
        "names that only `reference` has are missing": lambda m, r: sorted(
            n for n, shape in _shapes(m).items() if _shapes(r).get(n) != shape
        ),
        "names that only `model` has are missing": lambda m, r: sorted(
            n for n, shape in _shapes(r).items() if _shapes(m).get(n) != shape
        ),
        "that lists what agrees; expected: what does not": lambda m, r: sorted(
            n for n, shape in _shapes(m).items() if _shapes(r).get(n) == shape
        ),
        "the numbers of elements are compared; the same number can have another shape": lambda m, r: (
            _mismatches(*({n: t.numel() for n, t in x.state_dict().items()} for x in (m, r)))
        ),
        "the values are compared, too; expected: names and shapes only": lambda m, r: _mismatches(
            *({n: t.tolist() for n, t in x.state_dict().items()} for x in (m, r))
        ),
        "the right names in another order; expected: sorted": lambda m, r: _mismatches(
            _shapes(m), _shapes(r)
        )[::-1],
    },
)
def mismatches(model, reference):
    return _mismatches(_shapes(model), _shapes(reference))


def _blocked(answer: type, in_channels: int, channels: int, stride: int, x: torch.Tensor) -> Result:
    """Bottleneck(in_channels, channels, stride)(x)"""
    sizes = (in_channels, channels) if stride == 1 else (in_channels, channels, stride)  # 1 is the default
    block, reference = _module(answer(*sizes)), _Bottleneck(in_channels, channels, stride)
    got, expected = _shapes(block), _shapes(reference)
    missing, unexpected = [n for n in expected if n not in got], [n for n in got if n not in expected]
    wrong = [
        f"{n} has shape {got[n]}, not {expected[n]}" for n in expected if n in got and got[n] != expected[n]
    ]
    if missing or unexpected or wrong:
        lists = {"missing in its state_dict": missing, "not expected there": unexpected, "shapes": wrong}
        texts = [f"{what}: {', '.join(names)}" for what, names in lists.items() if names]
        if len({any(name.startswith("downsample") for name in names) for names in (got, expected)}) > 1:
            texts.append("downsample belongs where stride != 1 or in_channels != 4 * channels")
        return Result(..., "; ".join(texts))
    block.load_state_dict(_fill(reference).state_dict())
    wrong = None if isinstance(getattr(block, "relu", None), nn.ReLU) else _NO_RELU
    return Result((block.eval()(x), block.train()(x)), wrong)


_NO_RELU = (
    "the ReLU must be a module called relu, as in torchvision: hooks reach only modules, by their names"
)


class _Bottleneck(nn.Module):
    """The block of ResNet-50; `strided` says which convolution has the stride, `order` what follows what."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        strided: int = 2,
        order: str = "add relu",
        first: Callable = torch.relu,
        second: Callable = torch.relu,
    ) -> None:
        super().__init__()
        strides = {number: stride if number == strided else 1 for number in (1, 2, 3)}
        out = 4 * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, strides[1], bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, strides[2], padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out, 1, strides[3], bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu, self.downsample = nn.ReLU(), None
        self.order, self.first, self.second = order, first, second
        if in_channels != out or stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.first(self.bn1(self.conv1(x)))
        x = self.second(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        if self.order == "relu add":
            return torch.relu(x) + shortcut
        if self.order == "relu add relu":
            return torch.relu(torch.relu(x) + shortcut)
        return {"add relu": torch.relu(x + shortcut), "add": x + shortcut, "relu": torch.relu(x)}[self.order]


def _bottleneck(**options: Any) -> Callable:
    return functools.partial(_Bottleneck, **options)


@exercise(
    cases=lambda: [
        (8, 2, 1, torch.randn(2, 8, 3, 4)),
        (6, 3, 2, torch.randn(2, 6, 4, 5)),
        (4, 2, 1, torch.randn(3, 4, 3, 2)),
        (12, 3, 2, torch.randn(2, 12, 5, 4)),
    ],
    call=_blocked,
    seconds=20,
    mistakes={
        "the stride is in the first convolution; expected: in the 3 × 3 one, conv2, as in torchvision": (
            _bottleneck(strided=1)
        ),
        "the stride is in the last convolution; expected: in the 3 × 3 one, conv2": _bottleneck(strided=3),
        "the last ReLU stands before the addition; expected: after it": _bottleneck(order="relu add"),
        "the last ReLU is missing: it comes after the addition": _bottleneck(order="add"),
        "the shortcut is not added": _bottleneck(order="relu"),
        "a ReLU before the addition is one too many: it comes after bn1, after bn2 and after the addition": (
            _bottleneck(order="relu add relu")
        ),
        "the ReLU after bn1 is missing": _bottleneck(first=lambda x: x),
        "the ReLU after bn2 is missing": _bottleneck(second=lambda x: x),
        "the ReLU after bn1 and bn2 is missing": _bottleneck(first=lambda x: x, second=lambda x: x),
    },
)
class Bottleneck(_Bottleneck):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)


# 9. Sizes


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


_LISTS = {"": _tensors, " in state_dict()": lambda model: model.state_dict().values()}


def _built() -> Iterator[tuple[Callable]]:
    yield (functools.partial(nn.Linear, 5, 3),)
    yield (functools.partial(nn.Linear, 30, 20, dtype=torch.float16),)
    yield (functools.partial(nn.BatchNorm2d, 5),)
    yield (_Tied,)
    yield (functools.partial(nn.Embedding, 10**8, 10**8, dtype=torch.float64),)


def _bytes(tensors: Iterator[torch.Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _on_meta(count: Callable[[nn.Module], int]) -> Callable[[Callable], int]:
    def counted(build: Callable[[], nn.Module]) -> int:
        with torch.device("meta"):
            return count(build())

    return counted


@exercise(
    cases=lambda: list(_built()),
    mistakes={
        "that is the number of parameters; expected: bytes, numel() times element_size()": _on_meta(
            lambda m: sum(p.numel() for p in m.parameters())
        ),
        **{
            f"these are numbers, not bytes: multiply the numel() of each tensor{where} by its "
            "element_size()": _on_meta(lambda m, tensors=tensors: sum(t.numel() for t in tensors(m)))
            for where, tensors in _LISTS.items()
        },
        **{
            f"float16 has 2 bytes, int64 has 8: use element_size() of each tensor{where}": _on_meta(
                lambda m, tensors=tensors: 4 * sum(t.numel() for t in tensors(m))
            )
            for where, tensors in _LISTS.items()
        },
        "state_dict() repeats a tensor that two modules share, and leaves out non-persistent buffers: use "
        "parameters() and buffers()": _on_meta(lambda m: _bytes(iter(m.state_dict().values()))),
        "element_size() is the size of one number: multiply it by numel()": _on_meta(
            lambda m: sum(t.element_size() for t in m.state_dict().values())
        ),
        "not every number has 4 bytes: element_size() tells": _on_meta(
            lambda m: 4 * sum(p.numel() for p in m.parameters())
        ),
        "buffers are left out: BatchNorm's statistics take memory, too": _on_meta(
            lambda m: _bytes(m.parameters())
        ),
        'the model is made in real memory first, and .to("meta") no longer shares its weights: call build() '
        'under torch.device("meta")': lambda build: _bytes(_tensors(build().to("meta"))),
        "only the first parameter is counted": _on_meta(lambda m: _bytes(iter([next(m.parameters())]))),
    },
)
def model_bytes(build):
    return _on_meta(lambda m: _bytes(_tensors(m)))(build)
