"""The checkers of chapter 09, Out of memory. Each answer is a reference solution."""

import contextlib
import gc
import linecache
import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import pairwise
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.utils.checkpoint import checkpoint_sequential
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.compare import difference
from course_utils.exercises.grading import Result, exercise
from course_utils.exercises.modules import _Chain
from course_utils.exercises.text import kind_of, show
from course_utils.memory import MemoryMeter

# What several exercises share


class _Token:
    """Put into a graph, it lives as long as the graph does."""


class _Watch:
    """What a model goes through while an answer uses it; a list has one entry for each forward pass.

    `at` is the layer whose calls count as forward passes; default: the model itself.
    """

    def __init__(self, model: nn.Module, *others: Any, at: nn.Module | None = None) -> None:
        torch.set_num_threads(1)  # several cost more than they save here; set back after the check
        self.model, self.meter = model, MemoryMeter("cpu")
        self.sizes, self.modes, self.alive, self.live, self.graphs = [], [], [], [], []
        self.started_in = [module.training for module in model.modules()]
        entry = model if at is None else at
        entry.register_forward_pre_hook(self._before)
        entry.register_forward_hook(self._after)
        with self.meter:
            self.meter.watch(model, *others, *self.gradients())
        self.base, self.start = self.meter.live, self.held()

    def _before(self, module: nn.Module, args: tuple) -> None:
        self.sizes.append(len(args[0]) if args else 0)
        self.modes.append(module.training)
        self.alive.append(self.graphs_alive())
        self.live.append(self.held())

    def _after(self, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
        if output.grad_fn is not None:
            token = output.grad_fn.metadata["course"] = _Token()
            self.graphs.append(weakref.ref(token))

    def __deepcopy__(self, memo: dict) -> "_Watch":
        return self  # an answer may copy the model, and with it the hooks

    def graphs_alive(self) -> int:
        return sum(graph() is not None for graph in self.graphs)

    def gradients(self) -> list[torch.Tensor]:
        return [p.grad for p in self.model.parameters() if p.grad is not None]

    def held(self) -> int:
        """Bytes that are alive, but for the gradients, which may be cleared sooner or later."""
        return self.meter.live - sum(gradient.nbytes for gradient in self.gradients())

    def growth(self) -> float:
        """Bytes by which each batch leaves more behind, from the third of equal size on."""
        live = [n for n, size in zip(self.live, self.sizes, strict=True) if size == self.sizes[0]][2:]
        return (live[-1] - live[0]) / (len(live) - 1) if len(live) > 1 else 0.0

    def stuck(self, allowed: int) -> str | None:
        """What is wrong if a forward pass begins with more bytes than its batch and what may be left need."""
        extra = [n - self.start - allowed for n in self.live]
        if max(extra, default=0) <= 0:
            return None
        if extra[0] > 0:
            return "several batches are in memory when the model gets the first: take them one by one"
        why = f"{max(extra)} bytes too many are alive when the model gets a batch: of earlier batches keep"
        return f"{why} numbers only, no inputs or outputs, and no graph, as by retain_graph"

    def trouble(self, calls: int | None, spare: int = 0) -> str | None:
        """What is wrong after an answer that was to call the model so often, and may keep `spare` bytes."""
        now = [module.training for module in self.model.modules()]
        if calls is not None and len(self.sizes) != calls:
            return f"the model is called {len(self.sizes)} times; expected: {calls}"
        if self.graphs_alive():
            return "a graph is still alive after the call: keep numbers only"
        if (left := self.held() - self.start - spare) > 256:
            return f"{left} bytes more than before are alive after the call"
        if not torch.is_grad_enabled():
            return "gradients stay switched off for all that comes after: write `with torch.no_grad():`"
        if now != self.started_in:
            was, now = ("training" if mode else "evaluation" for mode in (self.started_in[0], now[0]))
            return f"the model was in {was} mode before the call, and is in {now} mode after it"
        return None


def _numbers(model: nn.Module, seed: int = 5) -> nn.Module:
    """Give a model's weights and buffers values of its own, and gradients that are left from earlier work."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                numbers = torch.rand(tensor.shape, generator=generator)
                spread = math.sqrt(24 / tensor[0].numel()) if tensor.dim() > 1 else 0.2
                tensor.copy_(spread * (numbers - 0.5) if tensor.dim() > 1 else spread * numbers + 0.1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    return model


def _data(samples: int, *shape: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(samples)
    inputs = torch.randn(samples, *shape, generator=generator)
    return inputs, torch.randint(classes, (samples,), generator=generator)


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


# 1. What stays from step to step


_STATES = {"sgd": lambda n: 0, "momentum": lambda n: n, "adam": lambda n: 2 * n + 4}


def _stays(
    size: Callable = lambda p: p.nbytes,
    trained: Callable = lambda p: p.requires_grad,
    own: Callable = nn.Module.parameters,
    **states: Callable,
) -> Callable:
    def training_bytes(model: nn.Module, optimizer: str) -> dict[str, int]:
        state = (_STATES | states)[optimizer]
        moved = [size(p) for p in own(model) if trained(p)]
        return {
            "parameters": sum(map(size, own(model))),
            "gradients": sum(moved),
            "optimizer_state": sum(map(state, moved)),
        }

    return training_bytes


def _but(wrong: Callable, key: str = "optimizer_state") -> Callable:
    """The right answer, but for one key."""
    return lambda model, optimizer: _stays()(model, optimizer) | {key: wrong(model, optimizer)}


_all = _stays(trained=lambda p: True)


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3, bias=False))
    model[0].requires_grad_(False)
    return model


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


@exercise(
    cases=lambda: [
        (nn.Linear(3, 2), "sgd"),
        (nn.Linear(3, 2), "momentum"),
        (nn.Linear(3, 2), "adam"),
        (nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), "adam"),
        (_frozen(), "momentum"),
        (_frozen(), "adam"),
        (nn.Linear(7, 5).to(torch.bfloat16), "adam"),
        (nn.Sequential(nn.Linear(2, 3).double(), nn.Linear(3, 1)), "momentum"),
        (nn.Linear(3, 2).requires_grad_(False), "adam"),
        (_tied(), "adam"),
    ],
    mistakes={
        "these are numbers of elements; expected: bytes, each with its element_size()": _stays(torch.numel),
        "the step counters are missing: 4 bytes for each trained parameter": _stays(adam=lambda n: 2 * n),
        "the step counters are missing: 4 bytes for each trained tensor": _stays(
            trained=lambda p: True, adam=lambda n: 2 * n
        ),
        "Adam keeps two tensors for each trained parameter: the means of the gradient and of its square": (
            _stays(adam=lambda n: n + 4)
        ),
        "momentum keeps a tensor for each trained parameter": _stays(momentum=lambda n: 0),
        "plain SGD keeps no state": _stays(sgd=lambda n: n),
        "one step counter for the whole model; expected: one for each trained parameter": _but(
            lambda m, o: _stays(adam=lambda n: 2 * n)(m, o)["optimizer_state"] + 4 * (o == "adam")
        ),
        "the step counters have 4 bytes for each parameter tensor, and not for each of its elements": _stays(
            adam=lambda n: 3 * n
        ),
        "frozen parameters have neither gradient nor state": _all,
        "frozen parameters have no state": _but(lambda m, o: _all(m, o)["optimizer_state"]),
        "frozen parameters have no gradient": _but(lambda m, o: _all(m, o)["gradients"], "gradients"),
        "an element does not always have 4 bytes: ask element_size()": _stays(lambda p: 4 * p.numel()),
        "buffers, such as running_mean, are counted; expected: parameters only": _but(
            lambda m, o: sum(t.nbytes for t in [*m.parameters(), *m.buffers()]), "parameters"
        ),
        "a weight that two layers share is counted twice: model.parameters() gives it once": _stays(
            own=lambda m: [p for part in m.modules() for p in part.parameters(recurse=False)]
        ),
    },
)  # fmt: skip
def training_bytes(model, optimizer):
    return _stays()(model, optimizer)


# 2. What autograd keeps


@exercise(
    cases=lambda: [
        ([5, 3, 2], 6), ([4, 7], 3), ([3, 8, 6, 2], 5), ([784, 256, 64, 10], 128), ([2, 9, 9, 9, 9, 1], 1)
    ],
    mistakes={
        "this counts elements; expected: bytes, 4 for each": lambda w, b: b * sum(w[:-1]),
        "this is for one sample: the batch size is missing": lambda w, b: 4 * sum(w[:-1]),
        "the last layer's output is counted, which no layer needs": lambda w, b: 4 * b * sum(w),
        "the batch itself is missing: the first layer needs it for its weight's gradient": (
            lambda w, b: 4 * b * sum(w[1:-1])
        ),
        "the outputs of the Linear layers are counted; expected: the inputs": lambda w, b: 4 * b * sum(w[1:]),
        "a ReLU's output is the next Linear's input: the same tensor, which counts once": (
            lambda w, b: 4 * b * (sum(w[:-1]) + sum(w[1:-1]))
        ),
        "this is the parameters; expected: what autograd keeps of the batch": (
            lambda w, b: 4 * sum((i + 1) * o for i, o in pairwise(w))
        ),
    },
)  # fmt: skip
def saved_bytes(widths, batch_size):
    return 4 * batch_size * sum(widths[:-1])


# 3. Bytes of storages


class _Made(list):
    """A list of tensors that shows how it is made of x: which of them are views."""

    def __init__(self, tensors: list[torch.Tensor], text: str) -> None:
        super().__init__(tensors)
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _case(gone: str, kept: str, x: str) -> tuple[_Made, _Made]:
    names = {"torch": torch, "x": eval(x)}
    return _Made(eval(gone, names), gone), _Made(eval(kept, names), f"{kept} with x = {x}")


def _behind(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _whole(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _freed(key: Callable = _behind, size: Callable = _whole) -> Callable:
    def answer(gone: list[torch.Tensor], kept: list[torch.Tensor]) -> int:
        held = {key(t) for t in kept}
        return sum({key(t): size(t) for t in gone if key(t) not in held}.values())

    return answer


def _each(size: Callable) -> Callable:
    return lambda gone, kept: sum(size(t) for t in gone if _behind(t) not in {_behind(k) for k in kept})


@exercise(
    cases=lambda: [
        ([torch.zeros(2, 3), torch.zeros(5, dtype=torch.float64)], []),
        _case("[x, x.T, x.view(6)]", "[]", "torch.arange(6.0).view(2, 3)"),
        _case("[x[:3]]", "[]", "torch.arange(10.0)"),
        _case("[x, x.clone()]", "[x[0]]", "torch.zeros(2, 5)"),
        _case("[x[1], torch.zeros(3, dtype=torch.float64)]", "[x[3]]", "torch.arange(40.0).view(5, 8)"),
        _case("[x]", "[x.clone(), torch.zeros(9)]", "torch.zeros(4)"),
        _case("[x[:3], x[2:]]", "[]", "torch.arange(5)"),
        _case("[x.detach(), x.view(torch.int32)]", "[x]", "torch.ones(4, requires_grad=True)"),
        _case("[x.expand(100), torch.zeros(0), torch.tensor(True)]", "[]", "torch.ones(1)"),
        _case("[]", "[x]", "torch.ones(3)"),
    ],
    mistakes={
        "this counts elements; expected: bytes": _freed(size=lambda t: _whole(t) // t.element_size()),
        "a view shares its storage, which counts once": _each(lambda t: t.nbytes),
        "a storage that several tensors share counts once": _each(_whole),
        "a part keeps the whole storage alive: count the storage, and not what the tensor sees of it": (
            _freed(size=lambda t: t.nbytes)
        ),
        "a tensor's data_ptr() is where it begins, and a view may begin later in the same storage: take "
        "the storage's": _freed(key=lambda t: t.data_ptr()),
        "an element does not always have 4 bytes": _freed(
            size=lambda t: 4 * _whole(t) // t.element_size()
        ),
        "a storage that a kept tensor uses stays": lambda gone, kept: _freed()(gone, []),
        "what is kept counts only where a tensor of gone shares it": (
            lambda gone, kept: _freed()(gone, []) - _freed()(kept, [])
        ),
    },
)  # fmt: skip
def freed_bytes(gone, kept):
    return _freed()(gone, kept)


# 4. An epoch that keeps nothing


def _epoch(answer: Callable, samples: int, batch_size: int) -> Any:
    """train_epoch(model, loader, optimizer)"""
    inputs, targets = _data(samples, 64, classes=20)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size)
    model = _numbers(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 20)))
    optimizer, steps = torch.optim.SGD(model.parameters(), lr=0.4), []
    optimizer.register_step_post_hook(lambda *_: steps.append(len(watch.sizes)))
    watch, before = _Watch(model, inputs, targets), _flat(model.parameters())
    with watch.meter:
        got = answer(model, loader, optimizer)
    weights = _flat(model.parameters())
    if isinstance(got, torch.Tensor):
        graph = ", with the graphs of all batches behind it" if got.requires_grad else ""
        return Result(..., f"it returns a tensor{graph}; expected: a float: take each loss by item()")
    many = max([*watch.alive, watch.graphs_alive()], default=0)
    if got is None:
        return None
    if len(steps) != len(loader):
        wrong = f"the optimizer steps {len(steps)} times in {len(loader)} batches; expected: after each"
        return Result(..., wrong)
    if torch.equal(weights, before):
        return Result(..., "the weights are as before: no gradient reaches them")
    if many > 1:
        wrong = f"the graphs of {many} batches are alive at once: add up numbers, by item(); keep no outputs"
    elif watch.growth() > 64:
        wrong = f"each batch leaves {watch.growth():.0f} bytes behind: keep numbers only"
    elif not all(watch.modes):
        wrong = "the model is to stay in training mode"
    else:
        wrong = watch.stuck((264 + 160) * batch_size + 64) or watch.trouble(len(loader))
    return Result({"returned": got, "the weights": weights}, wrong)


def _trains(total: Callable = lambda each, n: sum(each) / len(each), clear: str = "before") -> Callable:
    """An answer: total(losses, sizes) makes the result of the batches' losses and sizes."""

    def train_epoch(model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
        losses, sizes = [], []
        for inputs, targets in loader:
            if clear == "before":
                optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            if clear == "after":
                optimizer.zero_grad()
            losses.append(loss.item())
            sizes.append(len(targets))
        return total(losses, sizes)

    return train_epoch


@exercise(
    cases=lambda: [(16, 4), (30, 5), (22, 8), (3, 7)],
    call=_epoch,
    mistakes={
        "this is the sum of the batches' losses; expected: their mean": _trains(lambda each, n: sum(each)),
        "this is the last batch's loss; expected: the mean of all": _trains(lambda each, n: each[-1]),
        "this is the mean over the samples; expected: over the batches": _trains(
            lambda each, n: sum(map(mul, each, n)) / sum(n)
        ),
        "the sum is divided by the number of samples; expected: of batches": _trains(
            lambda each, n: sum(each) / sum(n)
        ),
        "gradients are never cleared": _trains(clear="never"),
        "the first step uses gradients from before, too: clear them before backward": _trains(clear="after"),
    },
)
def train_epoch(model, loader, optimizer):
    return _trains()(model, loader, optimizer)


# 5. Predictions of a whole data set


def _predicted(answer: Callable, samples: int, batch_size: int, training: bool) -> Any:
    """collect_predictions(model, loader)"""
    inputs, targets = _data(samples, 64, classes=20)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size)
    model = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 20))
    model = _numbers(model).train(training)
    watch = _Watch(model, inputs, targets)
    with watch.meter:
        got = answer(model, loader)
    kept = got.untyped_storage().nbytes() if isinstance(got, torch.Tensor) else 0
    if any(watch.modes):
        return Result(..., "the model predicts in training mode, with dropout: call eval() first")
    if watch.graphs:
        wrong = "a graph is built for each batch: predict under torch.no_grad()"
    elif watch.growth() > 8 * batch_size + 16:
        wrong = (
            f"each batch leaves {watch.growth():.0f} bytes behind, where its classes have {8 * batch_size}: "
            "keep the classes only, not the logits or the inputs, nor a view, which keeps all of its tensor: "
            "clone() it"
        )
    else:
        wrong = watch.stuck((264 + 160) * batch_size + 8 * samples + 64)
        wrong = wrong or watch.trouble(len(loader), spare=kept)
    return Result(got, wrong)


def _collects(pick: Callable = lambda x: x.argmax(1).cpu(), join: Callable = torch.cat) -> Callable:
    def collect_predictions(model: nn.Module, loader: DataLoader) -> torch.Tensor:
        training = model.training
        model.eval()
        with torch.no_grad():
            picked = [pick(model(inputs)) for inputs, _ in loader]
        model.train(training)
        return join(picked)

    return collect_predictions


@exercise(
    cases=lambda: [(5, 3, True), (60, 6, True), (44, 7, False), (2, 8, True), (7, 3, False)],
    call=_predicted,
    mistakes={
        "these are the logits; expected: the class, the place of each row's largest": _collects(lambda x: x),
        "these are the largest logits; expected: their places, the classes": _collects(lambda x: x.amax(1)),
        "argmax over the batch; expected: over the classes, dim=1": _collects(lambda x: x.argmax(0)),
        "argmax without dim counts through the batch; expected: dim=1": _collects(torch.argmax, torch.stack),
        "only the last batch is returned": _collects(join=lambda picked: picked[-1]),
        "a list, one entry for each batch; expected: one tensor, by torch.cat": _collects(join=list),
        "a list of numbers; expected: a tensor": _collects(join=lambda picked: torch.cat(picked).tolist()),
        "the classes have kept a second dimension": _collects(lambda x: x.argmax(1, keepdim=True)),
        "of a batch of one sample squeeze() leaves no dimension at all: argmax(1) needs none": _collects(
            lambda x: x.argmax(1, keepdim=True).squeeze()
        ),
    },
)
def collect_predictions(model, loader):
    return _collects()(model, loader)


# 6. What flows through a model


class _Broken(Exception):
    """What a model raises in the midst of a forward pass."""


class _Breaks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise _Broken


def _hooks(model: nn.Module) -> list:
    """All forward hooks of a model, and those for all modules."""
    owners = [vars(module) for module in model.modules()] + [vars(global_hooks)]
    names = ("_forward_hooks", "_forward_pre_hooks", "_global_forward_hooks", "_global_forward_pre_hooks")
    return [hook for owner in owners for name in names for hook in owner.get(name, {}).values()]


def _normed(answer: Callable, widths: list[int], samples: int, breaks: bool) -> Any:
    """activation_norms(model, batch)"""
    body = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    end = {"broken": _Breaks()} if breaks else {"head": nn.Linear(widths[-1], 3)}
    whole = _Chain(body=nn.Sequential(*body), **end)
    model = _numbers(whole if body else nn.Linear(*widths, 3))
    batch, _ = _data(samples, widths[0], classes=3)
    watch, raised, got = _Watch(model, batch), False, None
    before = _hooks(model)
    try:
        with watch.meter:
            got = answer(model, batch)
    except _Broken:
        raised = True
    now = _hooks(model)
    if more := [hook for hook in now if hook not in before]:
        when = "when the model has raised an error: remove them in `finally`" if breaks else "after the call"
        return Result(..., f"{len(more)} hooks are still there {when}")
    if len(now) < len(before):
        return Result(..., "hooks of others are gone: remove only your own, by their handles")
    if breaks and not raised:
        return Result(..., "the model's error is swallowed; expected: it is passed on")
    if breaks:
        return "raises"
    if isinstance(got, dict) and any(isinstance(value, torch.Tensor) for value in got.values()):
        return Result(..., "the norms are tensors; expected: floats, by item()")
    largest, peak = 4 * samples * max(widths), watch.meter.peak - watch.base
    if watch.graphs:
        wrong = "a graph is built, which keeps the activations: call the model under torch.no_grad()"
    elif peak > 8 * largest and len(widths) > 9:
        wrong = (
            f"at its peak it holds {peak / largest:.0f} activations at once: take the norm in the hook, and "
            "keep the number only"
        )
    else:
        wrong = watch.trouble(1)
    return Result(got, wrong)


def _leaf(module: nn.Module) -> bool:
    return not any(True for _ in module.children())


def _norms(
    norm: Callable = torch.Tensor.norm, modules: Callable = nn.Module.named_modules, ask: Callable = _leaf,
    late: bool = False,
) -> Callable:  # fmt: skip
    def activation_norms(model: nn.Module, batch: torch.Tensor) -> dict[str, float]:
        norms, handles, chosen = {}, [], [(n, m) for n, m in modules(model) if ask(m)]

        def hook(name: str, module: nn.Module, args: tuple, output: torch.Tensor) -> None:
            norms[chosen[-1][0] if late else name] = norm(args[0] if norm is _of_input else output).item()

        try:
            handles += [module.register_forward_hook(partial(hook, name)) for name, module in chosen]
            with torch.no_grad():
                model(batch)
        finally:
            for handle in handles:
                handle.remove()
        return norms

    return activation_norms


_of_input = partial(torch.norm)  # an object of its own


@exercise(
    cases=lambda: [
        ([4, 3], 2, False), ([5, 7, 6], 4, False), ([32] * 16, 16, False), ([3, 4], 2, True), ([5], 4, False),
    ],
    call=_normed,
    mistakes={
        "modules that hold others, such as `body`, are there as well; expected: leaves only": _norms(
            ask=lambda module: True
        ),
        "not only an nn.Sequential holds others: ask whether a module has children": _norms(
            ask=lambda module: not isinstance(module, nn.Sequential)
        ),
        "only the model's children; expected: all leaves, from named_modules()": _norms(
            modules=nn.Module.named_children, ask=lambda module: True
        ),
        "a model without children is a leaf, too, with the name ''": _norms(
            modules=lambda model: list(model.named_modules())[1:]
        ),
        "only the Linear layers are there": _norms(ask=lambda module: isinstance(module, nn.Linear)),
        "all hooks use the last name of the loop: bind each its own, as by `name=name`": _norms(late=True),
        "this is the mean; expected: the norm": _norms(torch.mean),
        "these are the norms of the inputs; expected: of the outputs": _norms(_of_input),
    },
)  # fmt: skip
def activation_norms(model, batch):
    return _norms()(model, batch)


# 7. Try a step


@contextlib.contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Let the collector run only when it is called, and look only at objects made from here on."""
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if enabled:
            gc.enable()


class _Step:
    """A training step that ends in one of several ways."""

    def __init__(self, ending: str) -> None:
        self.ending, self.runs = ending, []

    def __call__(self, *args: Any) -> Any:
        self.runs.append(args)
        held = [torch.ones(1000) for _ in range(3)]
        if "cycle" in self.ending:
            held.append(held)
        if "memory" in self.ending:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. 3.12 MiB is free.")
        if "Error" in self.ending:
            broken = RuntimeError("CUDA error: an illegal memory access was encountered")
            raise {"ValueError": ValueError("sizes do not fit"), "RuntimeError": broken}[self.ending]
        return {"returns False": False, "returns its tensors": held}.get(self.ending)


def _tried(answer: Callable, ending: str, args: tuple) -> Any:
    """try_step(step, *args)"""
    step, meter = _Step(ending), MemoryMeter("cpu")
    with _only_new_garbage():
        try:
            with meter:
                got = answer(step, *args)
        except torch.OutOfMemoryError:
            return Result(..., "the OutOfMemoryError is passed on; expected: False")
        except (ValueError, RuntimeError) as error:
            if type(error).__name__ != ending:
                raise
            return "raises"
        left = meter.live
        gc.collect()
        cyclic = left - meter.live
        if "Error" in ending:
            why = "catch torch.OutOfMemoryError only: any other error is to reach the caller"
            return Result(..., f"the step's {ending} is swallowed: {why}")
    wrong = None
    if len(step.runs) != 1:
        wrong = f"step runs {len(step.runs)} times; expected: once"
    elif step.runs != [args]:
        wrong = f"step gets the arguments {show(step.runs[0])}; expected: {show(args)}, by *args"
    elif cyclic and "cycle" in ending:
        wrong = (
            f"{cyclic} bytes of the failed step are still alive, in a reference cycle, until gc.collect() is "
            "called; inside the `except` block that frees nothing: the error still holds the step's variables"
        )
    elif left:
        wrong = (
            f"{left} bytes of the step are still alive: a variable or a list holds the error, and with it "
            "the step's variables, or a result: note a boolean"
        )
    return Result(got, wrong)


@exercise(
    cases=lambda: [
        ("runs out of memory", (8,)), ("succeeds", (8,)), ("returns False", (3, "x")),
        ("raises an out of memory error, its tensors in a cycle", ()), ("ValueError", (8,)),
        ("RuntimeError", (8, 9)), ("returns its tensors", (2,)),
    ],
    call=_tried,
    mistakes={"True and False are exchanged": lambda step, *args: not try_step.reference(step, *args)},
)  # fmt: skip
def try_step(step, *args):
    fits = True
    try:
        step(*args)
    except torch.OutOfMemoryError:
        fits = False
    if not fits:
        gc.collect()
    return fits


# 8. The largest batch


def _largest(answer: Callable, largest: int, start: int, limit: int) -> Any:
    """largest_batch(fits, start, limit)"""
    tried, most = [], 2 * math.log2(limit) + 2

    def fits(batch_size: int) -> bool:
        tried.append(batch_size)
        return batch_size <= largest

    got = answer(fits) if (start, limit) == (1, 4096) else answer(fits, start, limit)  # the defaults
    odd = [size for size in tried if isinstance(size, bool) or not isinstance(size, int) or size < 1]
    if odd:
        return Result(..., f"it tries a batch of {show(odd[0])}")
    if tried and max(tried) > limit:
        return Result(..., f"it tries a batch of {max(tried)}, and the limit is {limit}")
    wrong = None
    safe = max(start, 2 * min(largest, limit))
    if tried and tried[0] != start:
        wrong = f"the first size that it tries is {tried[0]}; expected: start, which is {start}"
    elif tried and max(tried) > safe:
        wrong = (
            f"it tries {max(tried)}, when nothing above {max((s for s in tried if s <= largest), default=0)} "
            "is known to fit: double first, and bisect when a size has failed"
        )
    elif len(tried) > most:
        wrong = f"it calls fits {len(tried)} times; at most {most:.0f} are allowed"
    return Result(got, wrong)


def _searched(
    last: Callable = lambda low, high: low, top: int = 1, below: bool = True, bisect: bool = True
) -> Callable:
    def largest_batch(fits: Callable, start: int = 1, limit: int = 4096) -> int:
        low, high = 0, start
        while high <= limit and fits(high):
            low, high = high, 2 * high
        high = min(high, limit + top)
        if not bisect or (low == 0 and not below):
            return low
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return last(low, high)

    return largest_batch


@exercise(
    cases=lambda: [
        (11, 1, 64), (0, 1, 64), (16, 1, 4096), (100, 1, 100), (10**6, 1, 3000), (5, 8, 64), (2999, 1, 4096),
        (700, 32, 1000), (1, 1, 1), (0, 16, 64), (4095, 3, 4096), (10**6, 1, 4096),
    ],
    call=_largest,
    mistakes={
        "this is the smallest size that does not fit; expected: the largest that does": (
            _searched(lambda low, high: high)
        ),
        "this is one too small": _searched(lambda low, high: max(0, low - 1)),
        "this is the last size that fitted while doubling; expected: bisection after that": _searched(
            bisect=False
        ),
        "the limit itself is a size to try": _searched(top=0),
        "if start does not fit, a smaller size may": _searched(below=False),
    },
)  # fmt: skip
def largest_batch(fits, start=1, limit=4096):
    return _searched()(fits, start, limit)


# 9. Name the leak: spoilers below

_SCRIPTS = {
    "A": """
def train(meter, report):
    model = network()
    average = RunningMean(model)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(8):
        train_step(model, optimizer, *batch())
        meter.mark(f"step {step + 1}")
    report()

class RunningMean:
    def __init__(self, model):
        self.rows, me = [], weakref.ref(self)
        model[2].register_forward_hook(lambda module, args, output: me().rows.append(output.detach()))
""",
    "B": """
def train(meter, report):
    model, source = network(), Source()
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(8):
        train_step(model, optimizer, *source.read(step % 5))
        meter.mark(f"step {step + 1}")
    report()

class Source:
    def __init__(self):
        self.files = {}

    def read(self, number):
        if number not in self.files:
            self.files[number] = batch()
        return self.files[number]
""",
    "C": """
def train(meter, report):
    model, curve = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(8):
        data = batch()
        train_step(model, optimizer, *data)
        curve.append(loss_of(model, *data))
        del data
        meter.mark(f"step {step + 1}")
    report()
""",
    "D": """
def train(meter, report):
    model, skipped = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(8):
        try:
            train_step(model, optimizer, *batch(127 if step == 2 else 128))
        except ValueError as error:
            skipped.append(error)
        meter.mark(f"step {step + 1}")
    report()
""",
}
_COMMON = """
def network():
    layers = nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    return nn.Sequential(*layers).to(device)

def batch(count=128):
    inputs = torch.randn(128, 128).to(device)
    targets = torch.randint(10, (count,)).to(device)
    return inputs, targets

def loss_of(model, inputs, targets):
    logits = model(inputs)
    return F.cross_entropy(logits, targets)

def train_step(model, optimizer, inputs, targets):
    optimizer.zero_grad()
    loss_of(model, inputs, targets).backward()
    optimizer.step()
"""
_CAUSES = dict(
    A="a hook keeps activations", B="data set cached on the device", C="loss kept with its graph",
    D="the traceback of an error",
)  # fmt: skip
_SIGNS = {
    "loss kept with its graph": "at every step the activations of all layers would stay, with one number",
    "detached outputs kept in a list": "at every step one tensor would stay, made by the model's last layer",
    "no torch.no_grad in validation": "a phase of validation would have a high peak, and leave nothing",
    "a hook keeps activations": "at every step the output of one inner layer would stay, and of no other",
    "the traceback of an error": "one single step would leave behind all that a function had made until then",
    "data set cached on the device": "inputs would stay, more of them until every one has been read once",
    "optimizer state": "after the first step, when the kind optimizer state appears, nothing would grow",
    "Out of the notebook": "results of cells would stay, held by Out",
}
CAUSES = tuple(_SIGNS)


def leaking_script(letter: str) -> Callable[[MemoryMeter, Callable[[], None]], None]:
    """A training script with a leak: `script(meter, report)` trains for 8 steps, and marks each on the meter.

    At its end it calls report(), while all that it has kept is still alive.
    """
    if letter not in _SCRIPTS:
        raise ValueError(f"there is no script {letter!r}: choose from {', '.join(_SCRIPTS)}")
    text, file = (_SCRIPTS[letter] + _COMMON).strip() + "\n", f"script_{letter}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    names = {"torch": torch, "nn": nn, "F": F, "weakref": weakref}
    exec(compile(text, file, "exec"), names)  # the file's name is no library's: its lines stand in the table

    def script(meter: MemoryMeter, report: Callable[[], None]) -> None:
        names["device"] = meter.device
        names["train"](meter, report)

    return script


def _named(answer: Callable, script: str) -> Result:
    """name_the_leak()"""
    named = answer()
    if not isinstance(named, dict):
        return Result(..., f"it returns {kind_of(named)}; expected: a dict")
    if sorted(map(str, named)) != list(_CAUSES):
        return Result(..., f"the keys are {show(list(named))}; expected: 'A' to 'D'")
    for letter, cause in named.items():
        if not isinstance(cause, str) or cause not in CAUSES:
            return Result(..., f"{show(cause)} at {letter!r} is none of check.CAUSES: copy its text")
    cause = named[script]
    if cause != _CAUSES[script] and (times := list(named.values()).count(cause)) > 1:
        return Result(..., f"{cause!r} occurs {times} times; each script has another cause")
    if cause != _CAUSES[script]:
        return Result(..., f"script {script} has another cause: with {cause!r}, {_SIGNS[cause]}")
    return Result(cause)


@exercise(cases=lambda: [(letter,) for letter in _CAUSES], call=_named)
def name_the_leak():
    return dict(_CAUSES)


# 10. A step in a sixth of the memory


def _pictures_model() -> nn.Sequential:
    layers = [layer for i in range(16) for layer in (nn.Conv2d(8 if i else 3, 8, 3, padding=1), nn.ReLU())]
    return _numbers(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)))


def _stepped(answer: Callable, samples: int, side: int, momentum: float) -> tuple[_Watch, dict, Any, str]:
    """Run an answer: how it went, what became of the model, the result, what it changed of the batch."""
    batch = dict(zip(("inputs", "targets"), _data(samples, 3, side, side, classes=5), strict=True))
    model, gradients, before = _pictures_model(), [], {name: t.clone() for name, t in batch.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    optimizer.register_step_pre_hook(
        lambda *_: gradients.append(
            _flat(torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters())
        )
    )
    watch = _Watch(model, *batch.values(), at=model[0])
    with watch.meter:
        got = answer(model, *batch.values(), optimizer)
    state = {"steps": len(gradients), "gradients": gradients, "weights": _flat(model.parameters())}
    return watch, state, got, " and ".join(n for n, t in batch.items() if not torch.equal(t, before[n]))


@cache
def _plain(*case: Any) -> tuple[int, dict, float]:
    """The plain step: the bytes that it adds at its peak, what becomes of the model, and the loss."""
    watch, state, loss, _ = _stepped(_chunks(case[0]), *case)
    return watch.meter.peak - watch.base, state, loss


def _in_budget(answer: Callable, samples: int, side: int, momentum: float) -> Any:
    """train_in_budget(model, inputs, targets, optimizer)"""
    case = samples, side, momentum
    most, right, loss = _plain(*case)
    watch, state, got, changed = _stepped(answer, *case)
    share = (watch.meter.peak - watch.base) / most
    if isinstance(got, torch.Tensor):
        return Result(..., "it returns a tensor; expected: a float, the mean loss")
    if got is None:
        return None
    if changed:
        return Result(..., f"it changes its {changed} in place")
    if state["steps"] != 1:
        return Result(..., f"the optimizer steps {state['steps']} times; expected: once, for the whole batch")
    if wrong := difference({"loss": got, **state}, {"loss": loss, **right}):
        size = max([1, *watch.sizes[:1]])
        for why, options in _MISTAKES.items():
            _, theirs, told, _ = _stepped(_chunks(size, **options), *case)
            if not difference({"loss": got, **state}, {"loss": told, **theirs}):
                return Result(..., why)
        good, mine = (part["gradients"][0] for part in (right, state))
        off = ((mine - good).norm() / good.norm()).item()
        summed = _stepped(_chunks(size, weight=_sum), *case)[1]["gradients"][0]
        parts = [len(part) for part in torch.arange(samples).split(size)]
        by = next((n for n in range(2, 33) if not difference(n * mine, summed)), len(parts))
        if not mine.any():
            wrong = "at the optimizer's step there are no gradients: backward is to run for each part"
        elif not mine[: watch.model[0].weight.numel()].any():
            wrong = (
                "the first layers get no gradient: with use_reentrant=True a segment whose input needs none "
                "gets none; write use_reentrant=False"
            )
        elif by != len(parts):
            wrong = (
                f"each part's loss is divided by {by}, and there are {len(parts)} parts, of {show(parts)} "
                "pictures (chunk(n) may make fewer than n): weigh each part's mean by len(part) / N"
            )
        elif 1e-5 < off < 0.1:
            wrong = f"the gradients are off by {off:.2%}: is a part computed in half precision?"
        return Result(..., wrong)
    if share > 1.05 / 6:
        told = f"your peak is {share:.2f} of the plain step's, allowed: {1 / 6:.2f}"
        wrong = f"{told}. {_advice(watch, samples)}"
    else:
        wrong = watch.trouble(None, spare=sum(p.nbytes for p in watch.model.parameters()))
    return Result({"loss": got, **state}, wrong)


def _advice(watch: _Watch, samples: int) -> str:
    """What a step that needs too much memory may do next."""
    again = sum(watch.sizes) > samples  # the first layer has seen a picture more than once
    if max(watch.alive, default=0) > 1:
        return f"The graphs of {max(watch.alive) + 1} parts are alive at once: backward frees each"
    if max(watch.sizes, default=1) > 1:
        also = "" if again else ", and keeps all activations of each"
        return f"The model gets {max(watch.sizes)} pictures at once{also}"
    if again:
        return "Too many activations are kept or computed again at once: segments of several layers keep few"
    return "All activations of a picture are alive when its backward begins: keep a few, compute others again"


_share, _sum = (lambda n, samples, parts: n / samples), (lambda n, samples, parts: 1.0)
_equal = lambda n, samples, parts: 1 / parts  # noqa: E731


def _chunks(
    size: int, weight: Callable = _share, told: Callable = _share, clear: str = "once", rest: bool = True
) -> Callable:
    """An answer: weight and told multiply a part's mean loss, for backward and for the result."""

    def train(
        model: Callable, inputs: torch.Tensor, targets: torch.Tensor, optimizer: torch.optim.Optimizer
    ) -> float:
        total, parts = 0.0, math.ceil(len(inputs) / size)
        if clear == "once":
            optimizer.zero_grad()
        for x, y in zip(inputs.split(size), targets.split(size), strict=True):
            if len(x) < size and not rest:
                continue
            if clear == "each":
                optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            (loss * weight(len(x), len(inputs), parts)).backward()
            total += loss.item() * told(len(x), len(inputs), parts)
        optimizer.step()
        return total

    return train


_UNEQUAL = "divided by the number of parts; the last part has fewer samples: weigh each by its share of them"
_MISTAKES: dict[str, dict[str, Any]] = {
    "the parts' mean losses are added up for backward; expected: each weighed by its share": {"weight": _sum},
    "the parts' mean losses are added up; expected: each weighed by its share of the samples": {
        "weight": _sum, "told": _sum
    },
    f"each part's loss is {_UNEQUAL}": {"weight": _equal},
    f"each part's loss, and the result, is {_UNEQUAL}": {"weight": _equal, "told": _equal},
    f"the result is {_UNEQUAL}": {"told": _equal},
    "the result is the sum of the parts' means; expected: the mean over the batch": {"told": _sum},
    "gradients are cleared before each part: only those of the last are left": {"clear": "each"},
    "gradients left from earlier work are added in: clear them first": {"clear": "never"},
    "the last, smaller part is left out": {"rest": False},
}  # fmt: skip


@exercise(cases=lambda: [(4, 32, 0.0), (5, 20, 0.9)], call=_in_budget)
def train_in_budget(model, inputs, targets, optimizer):
    segments = partial(checkpoint_sequential, model, 4, use_reentrant=False)
    return _chunks(1)(segments, inputs, targets, optimizer)
