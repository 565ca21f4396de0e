"""The meter counts what lives, exactly: against a walk over all tensors, and C++'s own weak references."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _len_torch_dispatch_stack
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset, TensorDataset

from course_utils import holders as holders_module
from course_utils import meter as meter_module
from course_utils.memory import (
    KINDS,
    MemoryMeter,
    find_batch_size,
    forget_last_error,
    format_bytes,
    is_out_of_memory,
    memory_budget,
    parse_bytes,
    predict_memory,
)
from course_utils.models import ResNet18

MIB = 2**20

# ----------------------------------------------------------------------------------- independent counts


def all_storages() -> dict[int, int]:
    """The storages of all tensors that the garbage collector knows, or that graphs save, with their bytes."""
    gc.collect()
    found: dict[int, int] = {}
    queue = [thing for thing in gc.get_objects() if issubclass(type(thing), torch._C.TensorBase)]
    nodes: set[object] = set()
    while queue:
        thing = queue.pop()
        if isinstance(thing, (list, tuple)):
            queue += thing
        elif isinstance(thing, torch.Tensor) and thing.device.type == "cpu":
            if thing.layout == torch.strided:
                storage = thing.untyped_storage()
                found[storage._cdata] = storage.nbytes()
            else:
                queue += [thing._indices(), thing._values()]
            if thing.grad_fn is not None:
                queue.append(thing.grad_fn)
        elif hasattr(thing, "next_functions") and thing not in nodes:
            nodes.add(thing)
            queue += [before for before, _ in thing.next_functions]
            for name in dir(thing):
                if name.startswith("_raw_saved"):
                    try:
                        saved = getattr(thing, name)
                        queue += [part.data for part in (saved if isinstance(saved, tuple) else (saved,))]
                    except RuntimeError:
                        pass  # freed by a backward pass
    return found


class Reference(TorchDispatchMode):
    """After each operation, ask C++ which of all storages met so far are still alive: slow and simple."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: list[tuple[StorageWeakRef, int]] = []
        self.live = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                parts = [tensor]
                if tensor.layout == torch.sparse_coo:
                    parts = [tensor._indices(), tensor._values()]
                for part in parts:
                    storage = part.untyped_storage()
                    self.storages.append((StorageWeakRef(storage), storage.nbytes()))
        alive: dict[int, tuple[StorageWeakRef, int]] = {}
        for reference, size in self.storages:
            if not reference.expired():
                alive[reference.cdata] = (reference, size)
        self.storages = list(alive.values())
        self.live = sum(size for _, size in self.storages)
        self.peak = max(self.peak, self.live)
        return result


def check(run: Callable[[], Iterator[object]]) -> MemoryMeter:
    """Run a training that stops at marked points; compare the counts there, and the peak at the end."""
    points = 0
    gc.collect()
    gc.freeze()  # what exists already is no part of the walk
    with MemoryMeter("cpu") as meter, Reference() as reference:
        for _ in run():
            points += 1
            counted = {record.key: record.bytes for record in meter._records.values()}
            walked = {key: size for key, size in all_storages().items() if size}
            assert counted == walked
            assert meter.live == sum(walked.values())
            assert sum(meter.by_kind().values()) == sum(meter.by_module().values()) == meter.live
            assert meter.timeline[-1].tolist() == list(meter.by_kind().values())
    assert points >= 4
    assert meter.peak == reference.peak
    assert meter.peak == sum(meter.by_kind("peak").values()) == meter.timeline.sum(axis=1).max()
    gc.collect()
    assert meter.live == 0  # all of it was made in there
    return meter


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    """Spare the collector all that other tests made; see that no mode stays."""
    gc.freeze()
    yield
    gc.unfreeze()
    assert _len_torch_dispatch_stack() == 0


# ----------------------------------------------------------------------------------- twelve models


def steps(model: nn.Module, optimizers: list, make: Callable, loss_fn=F.cross_entropy) -> Iterator[None]:
    """Two training steps, with a stop after each part."""
    for _ in range(2):
        inputs, targets = make()
        yield
        output = model(inputs)
        loss = loss_fn(output, targets)
        yield
        del output
        loss.backward()
        yield
        for optimizer in optimizers:
            optimizer.step()
        yield
        for optimizer in optimizers:
            optimizer.zero_grad()
        del loss
        yield


def images(number=4, side=16, channels=3, classes=5):
    return lambda: (torch.randn(number, channels, side, side), torch.randint(0, classes, (number,)))


def linear():
    model = nn.Linear(7, 5)
    yield from steps(
        model, [torch.optim.SGD(model.parameters(), 0.1)], lambda: (torch.randn(6, 7), torch.arange(6) % 5)
    )


def cnn():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(5)
    )
    model(torch.randn(2, 3, 16, 16))
    yield from steps(model, [torch.optim.Adam(model.parameters())], images())


def resnet():
    model = ResNet18(5, width=4)
    yield from steps(model, [torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)], images(2, 32))


def vgg():
    layers = []
    for before, after in ((3, 4), (4, 8), (8, 8)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5))
    yield from steps(model, [torch.optim.RMSprop(model.parameters())], images())


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(
        nn.Embedding(11, 8),
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        nn.Flatten(),
        nn.Linear(40, 5),
    )

    def make():
        return torch.randint(0, 11, (3, 5)), torch.randint(0, 5, (3,))

    yield from steps(model, [torch.optim.AdamW(model.parameters())], make)


class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def lstm():
    model = Last()
    yield from steps(
        model,
        [torch.optim.Adam(model.parameters(), foreach=True)],
        lambda: (torch.randn(3, 7, 4), torch.randint(0, 5, (3,))),
    )


class Checkpointed(nn.Module):
    def __init__(self, reentrant=False):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(9, 9), nn.Tanh(), nn.GELU()) for _ in range(3))
        self.head = nn.Linear(9, 5)
        self.reentrant = reentrant

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant, preserve_rng_state=False)
        return self.head(x)


def checkpointing():
    model = Checkpointed()
    yield from steps(
        model,
        [torch.optim.SGD(model.parameters(), 0.1)],
        lambda: (torch.randn(6, 9), torch.randint(0, 5, (6,))),
    )


def amp():
    model = nn.Sequential(nn.Linear(9, 12), nn.ReLU(), nn.LayerNorm(12), nn.Linear(12, 5))

    def loss_fn(output, targets):
        return F.cross_entropy(output.float(), targets)

    run = steps(
        model,
        [torch.optim.Adam(model.parameters())],
        lambda: (torch.randn(6, 9), torch.arange(6) % 5),
        loss_fn,
    )
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if next(run, run) is run:
                return
        yield


def inference():
    model = ResNet18(5, width=4).eval()
    for _ in range(2):
        with torch.inference_mode():
            outputs = model(torch.randn(2, 3, 32, 32))
            yield
            kept = outputs.argmax(1)
            del outputs
            yield
    assert len(kept) == 2


def in_place():
    weight = nn.Parameter(torch.randn(8, 8))
    total = torch.zeros(8)
    for _ in range(2):
        x = torch.randn(5, 8)
        x.mul_(2).add_(1)
        hidden = (x @ weight).relu_()
        hidden = (hidden + x).add_(3)
        yield
        hidden.sum().backward()
        yield
        with torch.no_grad():
            weight -= 0.1 * weight.grad
            total += weight.detach()[0]
        buffer = torch.empty(0)
        torch.add(x, 1, out=buffer)
        buffer.resize_(30, 30)
        yield
        weight.grad = None
        buffer.set_(torch.ones(3, 4))
        yield


def views():
    weight = nn.Parameter(torch.randn(6, 8))
    for _ in range(2):
        x = torch.randn(4, 3, 8)
        parts = x.unbind(0)
        rows = [part[:2].T for part in parts]
        del x, parts
        yield
        heads = (rows[0].T @ weight.t()).view(2, 2, 3).permute(1, 0, 2)
        yield
        first = heads[0, :1].expand(5, 3)
        del heads
        yield
        first.sum().backward()
        numbers = rows[1].numpy()
        del rows
        yield
        assert numbers.shape == (8, 2)
        shared = torch.from_numpy(numbers)
        assert shared[0, 0] == shared[0][0]
        yield


def two_optimizers():
    model = nn.ModuleDict({"body": nn.Linear(9, 7), "head": nn.Linear(7, 5)})
    first = torch.optim.Adam(model["body"].parameters())
    second = torch.optim.SGD(model["head"].parameters(), 0.1, momentum=0.9, nesterov=True)

    class Both(nn.Module):
        def forward(self, x):
            return model["head"](model["body"](x).tanh())

    yield from steps(Both(), [first, second], lambda: (torch.randn(6, 9), torch.arange(6) % 5))


MODELS = (
    linear,
    cnn,
    resnet,
    vgg,
    transformer,
    lstm,
    checkpointing,
    amp,
    inference,
    in_place,
    views,
    two_optimizers,
)


@pytest.mark.parametrize("run", MODELS, ids=lambda run: run.__name__)
def test_live_and_peak_equal_the_independent_counts(run):
    torch.manual_seed(0)
    check(run)


def break_views(patch):
    patch.setattr(meter_module.MemoryMeter, "_met", lambda self, tensor: None)
    patch.setattr(meter_module, "storages_of", lambda tensor: [tensor.clone().untyped_storage()])


def break_frees(patch):
    patch.setattr(meter_module.MemoryMeter, "_freed", lambda self, record: None)


def break_sizes(patch):
    met = meter_module.MemoryMeter._met

    def forgetful(self, tensor):
        return met(self, tensor) or self._records.get(tensor.untyped_storage()._cdata)

    patch.setattr(meter_module.MemoryMeter, "_met", forgetful)


def break_lists(patch):
    patch.setattr(meter_module, "_tensors", lambda values: [v for v in values if isinstance(v, torch.Tensor)])


@pytest.mark.parametrize(
    ("run", "damage"),
    [(views, break_views), (linear, break_frees), (in_place, break_sizes), (lstm, break_lists)],
    ids=lambda thing: thing.__name__,
)
def test_the_comparison_sees_a_meter_that_counts_wrongly(run, damage, monkeypatch):
    damage(monkeypatch)
    with pytest.raises(AssertionError):
        check(run)


# ----------------------------------------------------------------------------------- kinds, modules, names


def test_formula_for_a_step_of_adam():
    weights, batch = 9 * 7 + 7 + 7 * 5 + 5, 6
    with MemoryMeter("cpu") as meter:
        model = nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 5))
        assert meter.by_kind()["parameters"] == meter.live == 4 * weights
        optimizer = torch.optim.Adam(model.parameters())
        inputs, targets = torch.randn(batch, 9), torch.arange(batch) % 5
        meter.mark("inputs")
        loss = F.cross_entropy(model(inputs), targets)
        meter.mark("forward")
        loss.backward()
        del loss
        meter.mark("backward")
        optimizer.step()
        meter.mark("step")
        optimizer.zero_grad()
    assert list(meter.by_kind()) == list(KINDS)
    assert meter.by_kind("inputs") == dict.fromkeys(KINDS, 0) | {
        "parameters": 4 * weights,
        "inputs": 4 * batch * 9 + 8 * batch,
    }
    # saved: the inputs of both layers (the second is the ReLU's output), the log-probabilities, and scalars
    assert 4 * batch * (7 + 5) <= meter.by_kind("forward")["activations"] <= 4 * batch * (7 + 5 + 5) + 16
    assert meter.by_kind("forward")["gradients"] == meter.by_kind()["gradients"] == 0
    assert meter.by_kind("backward")["gradients"] == meter.by_kind("step")["gradients"] == 4 * weights
    assert meter.by_kind("step")["optimizer state"] == 2 * 4 * weights + 4 * 4
    assert meter.by_kind("step")["activations"] == meter.by_kind("step")["other"] == 0
    modules = meter.by_module("step")
    assert modules["0"] == 4 * 4 * (9 * 7 + 7) + 8
    assert modules["2"] == 4 * 4 * (7 * 5 + 5) + 8
    assert modules[""] == 4 * batch * 9 + 8 * batch
    with pytest.raises(
        ValueError, match=r"at='begin' is no point in time: give one of \['now', 'peak', 'inputs'"
    ):
        meter.by_kind("begin")


def test_what_existed_before_counts_from_its_first_use_or_at_once_when_watched():
    model, x = nn.Linear(4, 3), torch.randn(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(x).sum().backward()
    optimizer.step()
    with MemoryMeter("cpu") as meter:
        assert meter.live == 0
        with torch.no_grad():
            model(x)
        assert meter.by_kind() == dict.fromkeys(KINDS, 0) | {"parameters": 60, "inputs": 80}
    with MemoryMeter("cpu") as meter:
        optimizer.step()
        expected = {"parameters": 60, "gradients": 60, "optimizer state": 60}
        assert meter.by_kind() == dict.fromkeys(KINDS, 0) | expected
    with MemoryMeter("cpu") as meter:
        meter.watch(model, optimizer, x)
        expected = {"parameters": 60, "gradients": 60, "optimizer state": 60, "inputs": 80}
        assert meter.by_kind() == dict.fromkeys(KINDS, 0) | expected
        with pytest.raises(TypeError, match="watch got a list: give modules, optimizers and tensors"):
            meter.watch([x])


def test_a_second_model_and_a_loss_have_names_of_their_own():
    with MemoryMeter("cpu") as meter:
        first, second = (nn.Sequential(nn.Linear(3, 3)) for _ in range(2))
        loss = nn.CrossEntropyLoss()(second(first(torch.randn(2, 3))), torch.tensor([0, 1]))
        assert set(meter.by_module()) == {"0", "Sequential 2.0", "CrossEntropyLoss", ""}
    del loss


def test_an_optimizers_state_is_what_it_keeps():
    with MemoryMeter("cpu") as meter:
        model = nn.Linear(100, 100, bias=False)
        optimizer = torch.optim.LBFGS(model.parameters())
        optimizer.state["rounds"] = 3
        x = torch.ones(3, 100)

        def closure():
            optimizer.zero_grad()
            loss = model(x).pow(2).sum()
            loss.backward()
            return loss

        for _ in range(2):
            optimizer.step(closure)
        sizes = meter.by_kind()
        assert sizes["optimizer state"] >= 4 * 40_000
        assert sizes["other"] < 100
        name = f"optimizer in {sys._getframe().f_code.co_name}"
        assert {row.held_by for row in meter.holders() if row.kind == "optimizer state"} == {name}


def test_a_step_that_fails_is_over():
    class Bad(torch.optim.SGD):
        def step(self, closure=None):
            raise ValueError("bad")

    x = torch.zeros(1000)
    with MemoryMeter("cpu") as meter:
        with pytest.raises(ValueError, match="bad"):
            Bad([nn.Parameter(torch.zeros(10))], 0.1).step()
        y = x * 2
        assert meter.live == 8000
    del y


def test_ctrl_c_in_a_module_is_over_with_the_next_step_and_the_block():
    class Interrupted(nn.Module):
        def forward(self, x):
            raise KeyboardInterrupt

    model, weight = nn.Sequential(Interrupted()), nn.Parameter(torch.zeros(2))
    with MemoryMeter("cpu") as meter:
        with pytest.raises(KeyboardInterrupt):
            model(torch.zeros(1))
        torch.optim.SGD([weight], 0.1).step()  # training goes on
        first = torch.zeros(100)
        assert meter.by_module() == {"": 400}
        with pytest.raises(KeyboardInterrupt):
            model(torch.zeros(1))
    with meter:
        third = torch.zeros(50)
        assert meter.by_module() == {"": 600}
    del first, third


def test_parameters_used_without_gradients_outside_modules_are_parameters():
    weight = nn.Parameter(torch.ones(100))
    with MemoryMeter("cpu") as meter, torch.no_grad():
        product = weight * 2
        assert meter.by_kind()["parameters"] == 400
        assert meter.by_kind()["activations"] == 0
    del product


def test_what_is_watched_outside_the_block_is_not_in_the_timeline():
    meter = MemoryMeter("cpu")
    before, after = torch.zeros(10), torch.zeros(20)
    meter.watch(before)
    assert meter.timeline[-1].sum() == 40
    with meter:
        assert meter.timeline[-1].sum() == 40
    meter.watch(after)
    assert meter.live == 120
    assert meter.timeline[-1].sum() == 40


def test_a_block_that_cannot_begin_leaves_nothing_behind(monkeypatch):
    def hooks():
        return len(meter_module.module_hooks._global_forward_hooks)

    def fail(device):
        raise RuntimeError("no such device")

    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", fail)
    before = hooks()
    with pytest.raises(RuntimeError, match="no such device"):
        memory_budget("1 MiB", "cuda").__enter__()
    assert hooks() == before


def test_a_module_within_itself_stays_what_runs():
    class Twice(nn.Module):
        def forward(self, x, again=True):
            x = self(x, False) if again else x
            self.made = x + torch.ones(40)
            return x

    with MemoryMeter("cpu") as meter:
        model = Twice()
        model(torch.zeros(40))
        assert meter.by_module() == {"Twice": 160}


def test_questions_while_another_thread_frees():
    with MemoryMeter("cpu") as meter:
        box = [torch.zeros(1) for _ in range(10_000)]

        def free():
            while box:
                box.pop()

        thread = threading.Thread(target=free)
        thread.start()
        while thread.is_alive():
            meter.by_kind()
        assert meter.live == 0


KEPT: dict[str, object] = {}


class Cached(nn.Module):
    cache: list[torch.Tensor] = []  # noqa: RUF012 - the mistake that is to be found

    def forward(self, x):
        self.features = x * 2
        self.cache.append(x + 1)
        return x * 3


def hooked(model):
    kept = []
    model.register_forward_hook(lambda module, args, output: kept.append(output))


def held(meter: MemoryMeter, size: int) -> set[str]:
    return {row.held_by for row in meter.holders(None) if row.bytes == size}


def test_the_table_names_what_holds_the_bytes():
    with MemoryMeter("cpu") as meter:
        model = nn.Sequential(nn.Linear(10, 10))
        total = 0
        for _ in range(3):
            total = total + (model(torch.randn(5, 10)) ** 2).sum()
        row = meter.holders(1)[0]
        assert (row.kind, row.held_by) == (
            "activations",
            "the graph of total in " + sys._getframe().f_code.co_name,
        )
        assert row.line.endswith("total = total + (model(torch.randn(5, 10)) ** 2).sum()")
        del total
        KEPT["losses"] = [torch.ones(30)]
        assert held(meter, 120) == {"KEPT"}
        KEPT.clear()
        cached = Cached()
        cached(torch.zeros(50))
        assert held(meter, 200) == {
            "cached.features in test_the_table_names_what_holds_the_bytes",
            "Cached.cache",
        }
        Cached.cache.clear()
        del cached
        hooked(model)
        with torch.no_grad():
            model(torch.zeros(7, 10))
        assert held(meter, 280) == {"a hook of model in test_the_table_names_what_holds_the_bytes"}
        assert held(meter, 440) == {"model in test_the_table_names_what_holds_the_bytes"}

        @cache
        def load(number):
            return torch.zeros(number)

        load(60)
        assert held(meter, 240) == {"load in test_the_table_names_what_holds_the_bytes"}

        def batches():
            batch = torch.zeros(75)
            yield batch.sum()

        generator = batches()
        next(generator)
        assert held(meter, 300) == {"generator in test_the_table_names_what_holds_the_bytes"}
        x = torch.zeros(90)
        names = held(meter, 360)
        assert names == {"x in test_the_table_names_what_holds_the_bytes"}
        live = meter.live
        del x
        assert meter.live == live - 360  # to look for names keeps nothing alive
        text = meter.table(2)
    lines = text.splitlines()
    assert lines[0].split() == ["bytes", "tensors", "kind", "module", "held", "by", "made", "by"]
    assert len(lines) == 4
    assert "(the rest)" in lines[3]
    assert "0x" not in text
    assert "/" not in text.replace(" / ", "")
    gc.collect()


def test_a_long_line_of_code_is_cut_in_the_table_and_who_holds_stands_before_it():
    with MemoryMeter("cpu") as meter:
        batch = torch.zeros(2, 3) + torch.zeros(2, 3) + torch.zeros(2, 3) + torch.zeros(2, 3)
        line = meter.table().splitlines()[1]
    assert len(line) == 110
    assert "  batch in test_a_long_line" in line
    assert line.endswith("…")
    del batch


class Hostile:
    """An object that fails when it is asked what it is, as lazy ones may."""

    def __init__(self, name):
        object.__setattr__(self, "asked", name)
        object.__setattr__(self, "kept", torch.zeros(70))

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "asked"):
            raise LookupError(name)
        return object.__getattribute__(self, name)


def test_objects_that_fail_do_not_stop_the_table_and_weak_ones_hold_nothing():
    class Box:
        pass

    with MemoryMeter("cpu") as meter:
        box, gone = Box(), Box()
        box.tensor = torch.zeros(250)
        proxies = [weakref.proxy(box), weakref.proxy(gone), weakref.ref(box)]
        alone = weakref.proxy(gone)
        del gone
        name = sys._getframe().f_code.co_name
        assert held(meter, 1000) == {f"box.tensor in {name}"}
        asked = Hostile("__class__"), Hostile("__dict__"), Hostile("__module__")
        assert held(meter, 280) == {f"asked in {name}"}  # the one without a __dict__
        assert held(meter, 560) == {f"asked.kept in {name}"}
        del asked
    del alone, proxies


def test_underscores_are_names_too(monkeypatch):
    with MemoryMeter("cpu") as meter:
        for name, size in (("_", 30), ("__", 31), ("exit", 32), ("_1", 33)):
            monkeypatch.setitem(globals(), name, torch.zeros(size))
            assert held(meter, 4 * size) == {name}


def test_of_a_large_data_set_only_a_part_is_searched(monkeypatch):
    data = [{"x": [number], "y": (number, number + 1)} for number in range(3000)]
    deep = [torch.zeros(30)]
    for _ in range(5):
        deep = [deep]
    with MemoryMeter("cpu") as meter:
        kept = [torch.zeros(10), torch.zeros(10)]
        total = (nn.Parameter(torch.zeros(20)) * 2).sum()
        deep[0][0][0][0][0][0].add_(1)
        names = {"data": data, "again": [data], "kept": kept, "total": total, "deep": deep}
        monkeypatch.setattr(holders_module, "_roots", lambda frame: [(*item, "") for item in names.items()])
        assert held(meter, 80) == {"kept", "the graph of total"}
        assert held(meter, 120) == {"deep"}
        monkeypatch.setattr(holders_module, "MOST", 10_000)
        assert held(meter, 80) == {"kept", "the graph of total"}
        assert held(meter, 120) == {"? (too much to search)"}
    del deep


def test_an_error_that_is_kept_is_named_and_forgotten():
    def train():
        batch = torch.zeros(250)
        raise RuntimeError(f"after {len(batch)}")

    with MemoryMeter("cpu") as meter:
        try:
            train()
        except RuntimeError as error:
            sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
            sys.last_exc = error
        line = train.__code__.co_firstlineno + 2
        assert held(meter, 1000) == {f"the last error (train, line {line})"}
        assert meter.live == 1000
        forget_last_error()
        assert meter.live == 0
        assert not any(name.startswith("last_") and name != "last_" for name in vars(sys))
        forget_last_error()  # nothing to forget


SHELL = """
import io, sys
from contextlib import redirect_stdout
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
def run(cell):
    with redirect_stdout(io.StringIO()):
        shell.run_cell(cell, store_history=True)
run("import torch; from course_utils.memory import *; meter = MemoryMeter('cpu'); meter.__enter__()")
meter = shell.user_ns["meter"]
run("def train():\\n    batch = torch.zeros(1000)\\n    1 / 0")
run("train()")
print(meter.live, {row.held_by for row in meter.holders()})
sys.stdin = io.StringIO("p 1\\nq\\n")
run("%debug")
run("z = 1")
print(meter.live, "?" in {row.held_by for row in meter.holders()})
shell.user_ns["forget_last_error"]()
print(meter.live)
run("train()")
run("forget_last_error()")
print(meter.live)
run("torch.zeros(1000)")
run("torch.ones(500)")
print(meter.live, sorted(row.held_by for row in meter.holders()))
run("%reset -f out")
run("z = 1")
print(meter.live, sorted(row.held_by for row in meter.holders()))
meter.__exit__(None, None, None)
"""


def test_an_ipython_shell_names_and_forgets():
    pytest.importorskip("IPython")
    done = subprocess.run([sys.executable, "-c", SHELL], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "4000 {'the last error (train, line 3)'}", done.stdout
    assert lines[1:4] == ["4000 False", "0", "0"]
    assert lines[4].startswith("6000 ['Out[")
    assert lines[5] == "6000 ['_', '__']"


# ----------------------------------------------------------------------------------- budgets


def test_a_budget_refuses_and_all_goes_on():
    with memory_budget("1 MiB", "cpu") as meter:
        kept = torch.zeros(MIB // 8)
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch.ones(MIB // 4)
        assert str(caught.value) == (
            "CPU out of memory. Tried to allocate 1.00 MiB. The budget is 1.00 MiB, "
            "of which 512.00 KiB is free. 512.00 KiB is in use by live tensors, 512.00 KiB of it inputs."
        )
        assert meter.live == meter.peak == MIB // 2
        del caught
        kept = None
        torch.ones(MIB // 4)
        with pytest.raises(torch.OutOfMemoryError, match="tried to allocate 4000000000000000 bytes"):
            torch.empty(10**15)
    assert kept is None
    torch.ones(MIB)  # no budget any more
    with pytest.raises(RuntimeError, match="can't allocate memory"), MemoryMeter("cpu"):
        torch.empty(10**15)  # without a budget, an error stays what it is


def test_the_error_reads_as_other_tools_expect_it():
    with memory_budget("1 KiB", "cpu"), pytest.raises(torch.OutOfMemoryError) as caught:
        torch.ones(1000)
    assert " out of memory." in str(caught.value)
    assert len(caught.value.args) == 1


def test_what_is_refused_in_place_is_not_done():
    x = torch.zeros(10_000)
    with memory_budget("1 KiB", "cpu") as meter:
        with pytest.raises(torch.OutOfMemoryError):
            x.add_(1)
        y = torch.zeros(10)
        with pytest.raises(torch.OutOfMemoryError):
            y.resize_(1000)
        assert meter.live == y.untyped_storage().nbytes() == 4000
        y.resize_(500).untyped_storage().resize_(2000)  # less, though still too much
        y.fill_(1)
        assert meter.live == 2000
    assert not x.any()


def test_what_existed_before_can_pass_the_budget():
    model = nn.Sequential(nn.Linear(100, 100))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 100)).sum().backward()
    optimizer.step()
    for use in (
        lambda meter: meter.watch(model),
        lambda meter: meter.watch(torch.ones(20_000)),
        lambda meter: model(torch.ones(1, 100)),
        lambda meter: optimizer.step(),
    ):
        meter = memory_budget("30 KiB", "cpu")
        with meter, pytest.raises(torch.OutOfMemoryError, match=r"The budget is 30.00 KiB"):
            use(meter)
        assert meter.peak <= 30 * 1024
        assert not meter._stack
    x, share = torch.ones(20_000), r"78\.91 KiB of it optimizer state"
    with memory_budget("200 KiB", "cpu") as meter, pytest.raises(torch.OutOfMemoryError, match=share):
        meter.watch(model, optimizer, x)


def test_an_error_of_the_budget_keeps_alive_only_what_your_code_holds():
    def step():
        hidden = torch.ones(1000)
        hidden = hidden * 2
        return hidden.repeat(1000)

    with memory_budget("100 KiB", "cpu") as meter:
        try:
            step()
        except torch.OutOfMemoryError:
            assert meter.live == 4000  # hidden, in the frame that failed
        assert meter.live == 0


def test_a_failed_step_of_the_optimizer_and_a_failed_backward():
    model = nn.Linear(100, 100)
    optimizer = torch.optim.Adam(model.parameters())
    with memory_budget("130 KiB", "cpu") as meter:
        model(torch.ones(1, 100)).sum().backward()
        with pytest.raises(torch.OutOfMemoryError):
            optimizer.step()
        before = meter.live
        new = torch.zeros(100)
        assert meter.live == before + 400
        del new
    with memory_budget("60 KiB", "cpu") as meter:
        model.zero_grad()
        output = model(torch.ones(1, 100)).sum()
        with pytest.raises(torch.OutOfMemoryError):
            output.backward()


@pytest.mark.parametrize(("start", "most"), [(1, 65536), (4, 65536), (64, 65536), (1, 20), (1, 37), (37, 37)])
def test_find_batch_size(start, most):
    calls = []

    def step(size):
        calls.append(size)
        torch.zeros(size, 1000)

    with memory_budget(4000 * 37 + 3999, "cpu"):
        assert find_batch_size(step, start, most) == min(37, most)
    assert len(calls) <= 14
    assert len(calls) == len(set(calls))


ERRORS = (
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you"),
        True,
    ),
    (RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB, max allowed: 9.07 GB)."), True),
    (RuntimeError("CUDA error: out of memory"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
    (MemoryError(), True),
    (RuntimeError("CUDA error: device-side assert triggered"), False),
    (ValueError("out of memory"), False),
)


@pytest.mark.parametrize(("error", "expected"), ERRORS, ids=lambda thing: type(thing).__name__)
def test_errors_of_all_allocators_are_recognised(error, expected):
    def step(size):
        if size > 5:
            raise error

    assert is_out_of_memory(error) is expected
    if expected:
        assert find_batch_size(step) == 5
    else:
        with pytest.raises(type(error)):
            find_batch_size(step)


@pytest.mark.parametrize(("error", "expected"), ERRORS, ids=lambda thing: type(thing).__name__)
def test_a_budget_gives_all_of_them_one_type(error, expected):
    class Fails(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            raise error

    kind = torch.OutOfMemoryError if expected else type(error)
    with Fails(), memory_budget("1 MiB", "cpu"), pytest.raises(kind) as caught:
        torch.zeros(3)
    assert caught.type is kind


def test_find_batch_size_frees_what_an_error_in_a_cycle_keeps():
    def step(size):
        batch = torch.zeros(size, 1000)
        try:
            batch * 2
        except torch.OutOfMemoryError as error:
            kept = error  # its traceback leads to this frame, and so to batch and to itself
            raise kept from None

    gc.disable()
    try:
        with memory_budget(4000 * 20, "cpu"):
            assert find_batch_size(step) == 10
    finally:
        gc.enable()


def test_find_batch_size_when_none_fits_and_other_errors():
    with memory_budget("1 KiB", "cpu"):
        assert find_batch_size(lambda size: torch.zeros(size, 1000)) == 0
        with pytest.raises(ZeroDivisionError):
            find_batch_size(lambda size: 1 / 0)
    with pytest.raises(ValueError, match="start=0, max_batch=65536: expected 1 <= start <= max_batch"):
        find_batch_size(lambda size: None, 0)


@pytest.mark.parametrize(
    ("text", "number"),
    [("64 MiB", 64 * MIB), ("1.5GiB", 3 * 2**29), ("2 kb", 2000), ("17", 17), (17, 17), ("8 bytes", 8)],
)
def test_parse_bytes(text, number):
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "MiB", "-3 MiB", "3 apples", 0, -1, "0 KiB", None])
def test_parse_bytes_refuses(text):
    with pytest.raises(ValueError, match="is no size: write a number and a unit, such as '64 MiB'"):
        parse_bytes(text)


def test_format_bytes():
    sizes = (0, 1023, 1024, 5505024, 3 * 2**40, -2048)
    expected = ["0 bytes", "1023 bytes", "1.00 KiB", "5.25 MiB", "3.00 TiB", "-2.00 KiB"]
    assert list(map(format_bytes, sizes)) == expected


# ----------------------------------------------------------------------------------- surroundings


def test_nested_meters_both_count_and_one_meter_is_not_entered_twice():
    with MemoryMeter("cpu") as outer:
        first = torch.zeros(10)
        with MemoryMeter("cpu") as inner:
            second = torch.zeros(20)
            with pytest.raises(RuntimeError, match="this meter is counting already"), outer:
                pass
        third = torch.zeros(30)
    assert (outer.live, inner.live) == (240, 80)
    del first, second, third
    assert (outer.live, inner.live) == (0, 0)
    with outer:  # one that is free again goes on
        fourth = torch.zeros(5)
        assert outer.live == 20
    del fourth


def test_threads_count_for_themselves():
    counts, barrier = {}, threading.Barrier(2)

    def work(size):
        with MemoryMeter("cpu") as meter:
            barrier.wait()
            model = nn.Linear(size, size, bias=False)
            model(torch.zeros(1, size)).sum().backward()
            barrier.wait()
            counts[size] = meter.live
            barrier.wait()

    threads = [threading.Thread(target=work, args=(size,)) for size in (10, 20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert counts == {10: 2 * 400, 20: 2 * 1600}


def test_an_error_in_a_module_and_in_the_block_leaves_no_hooks():
    class Fails(nn.Module):
        def forward(self, x):
            raise KeyError("here")

    hooks = torch.nn.modules.module
    before = [len(getattr(hooks, name)) for name in ("_global_forward_hooks", "_global_forward_pre_hooks")]
    model = nn.Sequential(nn.Linear(3, 3), Fails())
    meter = MemoryMeter("cpu")
    with pytest.raises(KeyError), meter:
        model(torch.zeros(2, 3))
    assert not meter._stack
    after = [len(getattr(hooks, name)) for name in ("_global_forward_hooks", "_global_forward_pre_hooks")]
    assert before == after


def test_a_generator_that_waits_with_its_meter():
    def batches():
        with MemoryMeter("cpu") as meter:
            yield meter
            yield meter

    generator = batches()
    outer = next(generator)
    with MemoryMeter("cpu") as inner:
        x = torch.zeros(10)
        generator.close()  # leaves the outer meter, though the inner one was entered later
        y = torch.zeros(10)
        assert (outer.live, inner.live) == (40, 80)
    del x, y


def test_other_devices_are_not_counted():
    with MemoryMeter("cpu") as meter:
        x = torch.zeros(10, device="meta")
        (x + 1).sum()
        assert meter.live == 0
        y = torch.zeros_like(x, device="cpu")
        assert meter.live == 40
    del y


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_sparse_tensors_and_subclasses():
    with MemoryMeter("cpu") as meter:
        dense = torch.eye(10)
        sparse = dense.to_sparse()
        del dense
        assert meter.live == 10 * (4 + 2 * 8)
        rows = sparse.to_sparse_csr()
        del sparse
        assert meter.live >= 10 * (4 + 8) + 11 * 8
        del rows
        assert meter.live == 0
        ragged = torch.nested.nested_tensor([torch.zeros(3), torch.zeros(4)], layout=torch.jagged)
        assert 28 + 24 <= meter.live <= 28 + 24 + 64
        del ragged


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_loader_are_counted_when_they_are_used(workers):
    loader = DataLoader(TensorDataset(torch.zeros(6, 5)), batch_size=3, num_workers=workers)
    with memory_budget("1 MiB", "cpu") as meter:
        for (batch,) in loader:
            batch + 1
            assert meter.by_kind()["inputs"] >= 60
        del batch
        gc.collect()
        assert meter.live <= 120  # the data set itself, if it was read here


class Wasteful(Dataset):
    """Items that take 1 MB to make, and are small."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.zeros(250_000)[:5] + index


@pytest.mark.skipif(sys.platform != "linux", reason="workers are copies of the process on Linux only")
def test_a_budget_does_not_bind_the_workers_of_a_loader():
    loader = DataLoader(Wasteful(), batch_size=2, num_workers=1, multiprocessing_context="fork")
    with memory_budget("100 KiB", "cpu"):
        assert [batch[:, 0].tolist() for batch in loader] == [[0, 1], [2, 3]]


def test_compiled_functions_run_uncompiled_and_are_counted():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    double = torch.compile(lambda x: x * 2 + 1, backend=backend)
    double(torch.ones(10))
    assert len(compiled) == 1
    with MemoryMeter("cpu") as meter:
        y = double(torch.ones(10))
        assert (meter.live, meter.peak) == (40, 120)  # the input, x * 2 and the sum
        double(torch.ones(3, 4, 5))
    assert len(compiled) == 1
    assert y.sum() == 30


def test_saved_tensors_moved_by_hooks():
    weight = nn.Parameter(torch.ones(100))
    with MemoryMeter("cpu") as meter, torch.autograd.graph.save_on_cpu():
        loss = (weight * 2).exp().sum()
        assert meter.by_kind()["activations"] == 404
        loss.backward()
        assert meter.holders()[0].bytes > 0


def test_old_history_is_summed_up(monkeypatch):
    monkeypatch.setattr(meter_module, "HISTORY", 50)
    with MemoryMeter("cpu") as meter:
        kept = torch.zeros(100)
        big = torch.zeros(1000)
        meter.mark("early")
        del big
        for _ in range(100):
            torch.zeros(10)
        assert len(meter.timeline) <= 52
        assert meter.timeline[-1].tolist() == [0, 0, 0, 0, 400, 0]
        assert meter.peak == sum(meter.by_kind("peak").values()) == 4400
        meter.reset_peak()
        assert meter.peak == meter.live == sum(meter.by_kind("peak").values()) == 400
        assert meter.marks == []
    del kept


def test_the_figure_shows_kinds_marks_and_the_limit(monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    from course_utils import plotting

    figures = []
    monkeypatch.setattr(plotting, "show", lambda fig, alt: figures.append((fig, alt)))
    with memory_budget("1 MiB", "cpu") as meter:
        weight = nn.Parameter(torch.ones(1000))
        for number in range(3000):
            (weight * 2).sum().backward()
            if number in (0, 2999):
                meter.mark(f"step {number}")
    plotting.show_memory(meter, title="The gradients stay", alt="flat")
    (fig, alt) = figures.pop()
    names = [text.get_text() for text in fig.legends[0].get_texts()]
    assert (names, alt) == (["limit", "other", "activations", "gradients", "parameters"], "flat")
    (ax,) = fig.axes
    heights = [area.get_paths()[0].vertices[:, 1].max() for area in ax.collections]
    assert max(heights) * MIB == pytest.approx(meter.peak)
    ticks = ax.child_axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == ["step 0", "step 2999"]
    plotting.show_memory(meter, title="The end", alt="flat", start="step 2999")
    assert figures.pop()[0].axes[0].get_xlim()[0] == dict(meter.marks)["step 2999"]
    with pytest.raises(ValueError, match="start='end' is no mark: the meter has"):
        plotting.show_memory(meter, title="", alt="flat", start="end")
    with pytest.raises(ValueError, match="the meter has counted nothing"):
        plotting.show_memory(MemoryMeter("cpu"), title="", alt="flat")
    plt.close("all")


# ----------------------------------------------------------------------------------- prediction


def small_training():
    layers = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 14 * 14, 5)
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(2):
        F.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.randint(0, 5, (4,))).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_prediction_is_what_is_measured():
    predicted = predict_memory(small_training, "cpu")
    with MemoryMeter("cpu") as measured:
        small_training()
    assert predicted.peak == measured.peak
    assert predicted.by_kind("peak") == measured.by_kind("peak")
    assert predicted.by_module("peak") == measured.by_module("peak")
    assert predicted.timeline.tolist() == measured.timeline.tolist()


def test_a_prediction_says_what_it_cannot():
    outside = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="step uses a tensor from outside: make the model"):
        predict_memory(lambda: outside(torch.zeros(2, 3)))
    with pytest.raises(ValueError, match="step reads a value of a tensor"):
        predict_memory(lambda: torch.zeros(3).sum().item())
    for reads in (lambda x: x[x > 0], lambda x: x.numpy(), lambda x: 1 if x[0] > 0 else 2):
        with pytest.raises(ValueError, match="step reads a value of a tensor") as caught:
            predict_memory(lambda reads=reads: reads(torch.zeros(3)))
        assert caught.value.__cause__ is not None
    with pytest.raises(ZeroDivisionError):
        predict_memory(lambda: 1 / 0)

    def own():
        raise RuntimeError("my FakeTensor")

    with pytest.raises(RuntimeError, match="my FakeTensor"):
        predict_memory(own)


def moved_training(device):
    model = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10)).to(device)
    model.to(torch.float64).float()
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(2):
        model(torch.randn(3, 10, device=device)).sum().backward()
        optimizer.step()
        model.to(device)


def test_a_prediction_moves_models():
    predicted = predict_memory(lambda: moved_training("cpu"), "cpu")
    with MemoryMeter("cpu") as measured:
        moved_training("cpu")
    assert predicted.by_kind("peak") == measured.by_kind("peak")
    assert predicted.by_kind("peak")["gradients"] == 4 * (110 + 20)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='step uses "cuda", and there is no GPU'):
            predict_memory(lambda: moved_training("cuda"), "cuda")


@pytest.mark.slow
def test_the_prediction_for_resnet50_agrees_with_torchs_tracker():
    trackers = pytest.importorskip("torch.distributed._tools.mem_tracker", reason="private, and gone")
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torchvision.models import resnet50

    def training(model, optimizer, after=lambda: None):
        for _ in range(2):
            inputs, targets = torch.randn(64, 3, 224, 224), torch.randint(0, 1000, (64,))
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            after()

    def step():
        model = resnet50()
        training(model, torch.optim.Adam(model.parameters()))

    ours = predict_memory(step, "cpu")
    with FakeTensorMode():
        model = resnet50()
        optimizer = torch.optim.Adam(model.parameters())
        tracker = trackers.MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            training(model, optimizer, tracker.reset_mod_stats)
        theirs = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    print(f"ours {ours.peak}, the tracker's {theirs}: {ours.peak / theirs:.4f}")
    assert ours.peak == theirs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("run", [linear, cnn, resnet, vgg, transformer, lstm], ids=lambda run: run.__name__)
def test_cuda_agrees_with_the_allocator(run):
    with torch.device("cuda"):
        for _ in run():  # workspaces that libraries keep are made now
            pass
        gc.collect()
        base = torch.cuda.memory_stats()["requested_bytes.all.current"]
        torch.cuda.reset_peak_memory_stats()
        with MemoryMeter("cuda") as meter:
            for _ in run():
                current = torch.cuda.memory_stats()["requested_bytes.all.current"] - base
                assert meter.live == pytest.approx(current, rel=0.01, abs=4096)
        peak = torch.cuda.memory_stats()["requested_bytes.all.peak"] - base
        assert meter.peak == pytest.approx(peak, rel=0.01, abs=4096)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_budget_limits_the_cuda_allocator_too():
    before = torch.cuda.get_per_process_memory_fraction()
    with memory_budget("64 MiB", "cuda"):
        assert torch.cuda.get_per_process_memory_fraction() < before
        with pytest.raises(torch.OutOfMemoryError):
            torch.ones(32 * MIB, device="cuda")
        torch.ones(MIB, device="cuda")
    assert torch.cuda.get_per_process_memory_fraction() == before


KERNEL = """import torch
from course_utils.memory import MemoryMeter, forget_last_error
meter = MemoryMeter("cpu")
meter.__enter__()
def train():
    batch = torch.zeros(1000)
    return batch @ torch.zeros(3)
"""


@pytest.mark.slow
def test_a_kernel_forgets_its_last_error_and_names_it():
    from jupyter_client.manager import start_new_kernel
    from notebook_tools import ROOT
    from test_training_live import run_cell

    manager, client = start_new_kernel(env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        run_cell(client, KERNEL)
        for _ in range(2):
            run_cell(client, "train()")
            said = run_cell(client, "print(meter.live, meter.table())")[0]
            assert said.startswith("4012")
            assert said.count("the last error (train, line 7)") == 2
            said = run_cell(client, "forget_last_error(); print(meter.live)")[0]
            assert said.strip() == "0"
        run_cell(client, "x = torch.ones(500); y = x + 1; y.view(2, 250)")
        run_cell(client, "del x, y")
        said = run_cell(client, "print(meter.live, [row.held_by for row in meter.holders()])")[0]
        assert said.startswith("2000 ['Out["), said
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
