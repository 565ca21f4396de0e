"""The checkers of chapter 06, Save and load. Each answer is a reference solution; read them after yours."""

import contextlib
import copy
import io
import itertools
import os
import re
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.compare import difference
from course_utils.exercises.grading import Result, exercise
from course_utils.exercises.text import kind_of


def _filled(model: nn.Module, shift: float = 0.0) -> nn.Module:
    """Give a model's numbers fixed values, other ones for each tensor."""
    with torch.no_grad():
        for i, tensor in enumerate(model.state_dict().values()):
            if tensor.is_floating_point():
                wave = torch.arange(1, tensor.numel() + 1, dtype=tensor.dtype).mul(0.7).add(i + shift).sin()
                tensor.copy_(wave.add(1.5).reshape(tensor.shape))
            else:
                tensor.fill_(3 + i)
    return model


def _convolutional() -> nn.Module:
    layers = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5)
    return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Linear(8, 3))


def _without_a_bias() -> dict[str, torch.Tensor]:
    state = _filled(_convolutional(), shift=0.3).state_dict()
    return {name: tensor for name, tensor in state.items() if name != "2.bias"}


def _other(result: Any, expected: str) -> str:
    """Say that an answer returned something else."""
    if result is None:
        return f"it returns None: is there a `return`? Expected: {expected}"
    return f"it returns {kind_of(result)}; expected: {expected}"


# 1. From a file to predictions


def _loaded(answer: Callable, model: nn.Module, saved: dict[str, torch.Tensor]) -> Result:
    """load_for_use(model, path)"""
    given = copy.deepcopy(model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pt"
        torch.save(saved, file)
        try:
            result = answer(given, file)
        except RuntimeError:
            if saved.keys() == given.state_dict().keys():
                raise
            return Result("an error")
    if saved.keys() != given.state_dict().keys():
        return Result(
            ...,
            "this file does not fit the model, and nobody learns of it: let load_state_dict raise, without "
            "strict=False",
        )
    if not isinstance(result, nn.Module):
        return Result(..., _other(result, "the model"))
    weights = {name: tensor.detach() for name, tensor in result.state_dict().items()}
    wrong = None
    if result is not given:
        wrong = "it returns another model; expected: the one that was given, with new weights"
    elif given.training or any(module.training for module in given.modules()):
        where = "the model and its layers" if given.training else "the layers in the model"
        wrong = f"the weights are right, but {where} are still in training mode: call model.eval()"
    return Result(weights, wrong)


def _ready(prepare: Callable[[nn.Module, dict], object]) -> Callable[[nn.Module, Path], nn.Module]:
    def load(model: nn.Module, path: Path) -> nn.Module:
        prepare(model, torch.load(path, map_location="cpu"))
        return model.eval()

    return load


@exercise(
    cases=lambda: [
        (_filled(nn.Linear(3, 2)), _filled(nn.Linear(3, 2), shift=0.4).state_dict()),
        (_filled(_convolutional()), _filled(_convolutional(), shift=0.3).state_dict()),
        (_filled(_convolutional()).eval(), _filled(_convolutional(), shift=0.2).state_dict()),
        (_filled(nn.Linear(3, 2)), {**_filled(nn.Linear(3, 2)).state_dict(), "scale": torch.ones(2)}),
        (_filled(_convolutional()), _without_a_bias()),
    ],
    call=_loaded,
    mistakes={
        "the model still has its own weights: read the file by torch.load, fill by load_state_dict": _ready(
            lambda model, state: None
        ),
        "only the parameters are loaded; BatchNorm's buffers are part of the state_dict, too": _ready(
            lambda model, state: model.load_state_dict(
                {name: t for name, t in state.items() if name in dict(model.named_parameters())}, strict=False
            )
        ),
    },
)
def load_for_use(model, path):
    model.load_state_dict(torch.load(path, map_location="cpu"))
    return model.eval()


# 2. The prefix of a wrapper


def _rename(change: Callable[[str, str], str]) -> Callable:
    return lambda state, prefix: {change(name, prefix): tensor for name, tensor in state.items()}


def _numbered(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.arange(2.0 + i) + 10 * i for i, name in enumerate(names)}


def _in_order(got: Any, state: dict, prefix: str) -> str | None:
    if list(got) != [name.removeprefix(prefix) for name in state]:
        return "the names are right and stand in another order"
    return None


@exercise(
    cases=lambda: [
        (_numbered("module.conv.weight", "module.conv.bias", "steps"), "module."),
        (_numbered("module.encoder.module.weight", "module.encoder.bias", "encoder.module.bias"), "module."),
        (_numbered("modules.weight", "module.module.bias", "module.dome.weight"), "module."),
        (_numbered("_orig_mod.layer1.0.weight", "layer2._orig_mod.bias", "module.bias"), "_orig_mod."),
        ({}, "module."),
        (_numbered("_orig_mod.module.conv.weight", "module.fc.bias"), "_orig_mod.module."),
    ],
    also=_in_order,
    mistakes={
        "strip and lstrip take off letters, not a word: use removeprefix": _rename(lambda n, p: n.lstrip(p)),
        "replace changes a prefix further inside, too; expected: once, and at the beginning only": _rename(
            lambda n, p: n.replace(p, "")
        ),
        "replace(..., 1) takes the first place where the prefix stands, perhaps inside; expected: the "
        "beginning only": _rename(lambda n, p: n.replace(p, "", 1)),
        "names without the prefix are cut as well; expected: they stay as they are": _rename(
            lambda n, p: n[len(p) :]
        ),
        "the first part goes, whatever it is; expected: only the prefix that is given": _rename(
            lambda n, p: n.partition(".")[2] or n
        ),
        "names without the prefix are missing; expected: they stay as they are": lambda state, prefix: {
            n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)
        },
        "the prefix `module.` is written into the function; expected: the argument": _rename(
            lambda n, p: n.removeprefix("module.")
        ),
        "a prefix may have several parts: do not compare the first alone, ask startswith(prefix)": _rename(
            lambda n, p: n.removeprefix(p) if n.split(".")[0] + "." == p else n
        ),
        "the prefix goes again and again; expected: once": _rename(
            lambda n, p: n[len(p) * len(re.match(f"(?:{re.escape(p)})*", n)[0].split(p)[1:]) :]
        ),
    },
)
def without_prefix(state, prefix):
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


# 3. Load what fits


def _matched(answer: Callable, model: nn.Module, state: dict[str, torch.Tensor]) -> Result:
    """load_matching(model, state)"""
    given = copy.deepcopy(model)
    names = answer(given, state)
    if not isinstance(names, list):
        return Result(..., _other(names, "a list of names"))
    storages = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    if any(tensor.untyped_storage().data_ptr() in storages for tensor in given.state_dict().values()):
        return Result(..., "the model shares its memory with `state`: copy the numbers, without assign=True")
    return Result((names, {name: tensor.detach() for name, tensor in given.state_dict().items()}))


def _fitting(model: nn.Module, state: dict) -> dict:
    own = model.state_dict()
    return {name: t for name, t in state.items() if name in own and t.shape == own[name].shape}


def _load_and(report: Callable[[nn.Module, dict, dict], list[str]]) -> Callable:
    """Load what fits, and return another report."""

    def load(model: nn.Module, state: dict) -> list[str]:
        fitting = _fitting(model, state)
        model.load_state_dict(fitting, strict=False)
        return report(model, state, fitting)

    return load


def _copy_where(fits: Callable[[torch.Tensor, torch.Tensor], bool]) -> Callable:
    """Copy what fits by another rule."""

    def load(model: nn.Module, state: dict) -> list[str]:
        own = model.state_dict()
        fitting = [name for name in own if name in state and fits(own[name], state[name])]
        for name in fitting:
            same_count = own[name].numel() == state[name].numel()
            own[name].copy_(state[name].reshape(own[name].shape) if same_count else state[name])
        return sorted(own.keys() - set(fitting))

    return load


def _broadcasts(own: torch.Tensor, other: torch.Tensor) -> bool:
    try:
        return other.expand_as(own).shape == own.shape
    except RuntimeError:
        return False


def _without_loading(model: nn.Module, state: dict) -> list[str]:
    return sorted(model.state_dict().keys() - _fitting(model, state).keys())


def _head_of_other_width() -> tuple[nn.Module, dict]:
    state = _filled(_convolutional(), shift=0.5).state_dict()
    state = {name.replace("0.0.", "stem."): tensor for name, tensor in state.items()}
    state["2.weight"], state["2.bias"] = torch.ones(4, 8), torch.ones(4)
    return _filled(_convolutional()), state


def _two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2))


@exercise(
    cases=lambda: [
        (_filled(nn.Linear(5, 3)), {"bias": torch.tensor([7.0, 8.0, 9.0]), "weight": torch.zeros(3, 4)}),
        (
            _filled(_two_layers()),
            {"2.weight": torch.ones(2, 3), "2.scale": torch.ones(2), "extra": torch.ones(1)},
        ),
        _head_of_other_width(),
        (_filled(_two_layers()), _filled(_two_layers(), shift=0.5).state_dict()),
        (_filled(_two_layers()), {"0.weight": torch.ones(3, 5).T, "0.bias": torch.ones(3, 1)}),
        (_filled(nn.BatchNorm1d(3)), {"bias": torch.tensor([7.0, 8.0, 9.0])}),
        (_filled(_two_layers()), {"0.bias": torch.ones(1), "2.bias": torch.tensor(7.0)}),
        (_filled(nn.Linear(5, 3)), {"weight": torch.ones(3, 5).half(), "bias": torch.ones(3).double()}),
    ],
    call=_matched,
    mistakes={
        "the list is not sorted: model.state_dict() has its own order": _load_and(
            lambda model, state, fitting: [n for n in model.state_dict() if n not in fitting]
        ),
        "the list lacks names that are in `state` with another shape: they were not loaded either": _load_and(
            lambda model, state, fitting: sorted(model.state_dict().keys() - state.keys())
        ),
        "these are the names of `state` that did not fit; expected: those of the model that got nothing": (
            _load_and(lambda model, state, fitting: sorted(state.keys() - fitting.keys()))
        ),
        "names that only `state` has are in the list, too; expected: names of the model": _load_and(
            lambda model, state, fitting: sorted((model.state_dict().keys() | state.keys()) - fitting.keys())
        ),
        "these are the names that were loaded; expected: those that were not": _load_and(
            lambda model, state, fitting: sorted(fitting)
        ),
        "the list is right, but nothing was loaded": _without_loading,
        "copy_ takes a smaller shape, too, and repeats its numbers: compare the shapes": _copy_where(
            _broadcasts
        ),
        "as many numbers are not the same shape: compare the shapes": _copy_where(
            lambda own, other: own.numel() == other.numel()
        ),
        "another dtype is no obstacle, load_state_dict converts: compare names and shapes only": _copy_where(
            lambda own, other: own.shape == other.shape and own.dtype == other.dtype
        ),
        "num_batches_tracked is not in missing_keys of a dictionary made by hand: compare the names": (
            lambda model, state: sorted(
                model.load_state_dict(_fitting(model, state), strict=False).missing_keys
            )
        ),
    },
)
def load_matching(model, state):
    fitting = _fitting(model, state)
    model.load_state_dict(fitting, strict=False)
    return sorted(model.state_dict().keys() - fitting.keys())


# 4. Bytes in a file


def _views() -> dict[str, torch.Tensor]:
    base = torch.zeros(30)
    return {"head": base[:4], "tail": base[20:], "own": torch.zeros(7, dtype=torch.float64)}


def _tied() -> dict[str, torch.Tensor]:
    weight = torch.zeros(9, 5)
    return {"embedding": weight, "head": weight, "turned": weight.T, "steps": torch.tensor(3)}


def _file_size(state: dict[str, torch.Tensor]) -> int:
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


@exercise(
    cases=lambda: [
        (
            {
                "weight": torch.zeros(3, 2),
                "bias": torch.zeros(5, dtype=torch.float64),
                "scale": torch.zeros(6),
            },
        ),
        ({"w": torch.zeros(3, 2), "part": torch.zeros(50)[:4]},),
        (_tied(),),
        (_views(),),
        ({"half": torch.zeros(4, 3, dtype=torch.float16)[:, 1], "wide": torch.zeros(1).expand(1000)},),
        ({},),
    ],
    mistakes={
        "shared storages count more than once": lambda state: sum(
            t.untyped_storage().nbytes() for t in state.values()
        ),
        "a view counts only its own numbers, and shared ones repeatedly; expected: each storage once, as a "
        "whole": lambda state: sum(t.nbytes for t in state.values()),
        "these are numbers, not bytes": lambda state: sum(t.numel() for t in state.values()),
        "not every number has 4 bytes": lambda state: 4 * sum(t.numel() for t in state.values()),
        "views of one storage that begin at different places count twice: take data_ptr() of the storage, "
        "not of the tensor": lambda state: sum(
            {t.data_ptr(): t.untyped_storage().nbytes() for t in state.values()}.values()
        ),
        "a view counts only its own numbers; expected: the whole storage": lambda state: sum(
            {t.untyped_storage().data_ptr(): t.nbytes for t in state.values()}.values()
        ),
        "this is the size of a file, with its packaging; expected: the numbers alone": _file_size,
        "different storages of equal size count as one: tell them apart by data_ptr()": lambda state: sum(
            {t.untyped_storage().nbytes() for t in state.values()}
        ),
    },
)
def stored_bytes(state):
    storages = [tensor.untyped_storage() for tensor in state.values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


# 5. Where two checkpoints differ


def _checkpoint(steps: float = 76.0, rate: float = 0.05, last: float = 0.25) -> dict[str, Any]:
    averages = {"step": torch.tensor(steps), "exp_avg": torch.tensor([[0.5, -1.0, 2.0]])}
    groups = [{"lr": rate, "betas": (0.9, 0.999), "params": [0, 1]}]
    return {
        "model": {"layer.weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(4)},
        "optimizer": {"state": {0: averages}, "param_groups": groups},
        "losses": [0.5, last],
        "name": "digits",
        "best": None,
    }


def _changed(**changes: Any) -> dict[str, Any]:
    return {**_checkpoint(), **changes}


def _places(
    a: Any,
    b: Any,
    equal: Callable[[torch.Tensor, torch.Tensor], bool] = lambda a, b: (
        a.dtype == b.dtype and torch.equal(a, b)
    ),
    keys: Callable[[dict, dict], Any] = lambda a, b: a.keys() | b.keys(),
    sequences: tuple[type, ...] = (list, tuple),
    mixed: Callable[[Any, Any], bool] = lambda a, b: False,
    leaves: Callable[[Any, Any], bool] = lambda a, b: a == b,
    opened: Callable[[Any], bool] = lambda thing: isinstance(thing, dict),
) -> list[str]:
    """The reference, with parts to replace: the mistakes are made of it."""
    if isinstance(a, sequences) and isinstance(b, sequences) and sequences:
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if opened(a) and opened(b):
        places = []
        for key in keys(a, b):
            both = key in a and key in b
            inner = _places(a[key], b[key], equal, keys, sequences, mixed, leaves, opened) if both else [""]
            places += [f"{key}.{place}" if place else str(key) for place in inner]
        return sorted(places)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if equal(a, b) else [""]
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return [] if mixed(a, b) else [""]
    return [] if leaves(a, b) else [""]


def _named(answer: Callable, a: Any, b: Any) -> Result:
    """differences(a, b)"""
    places, expected = answer(a, b), _places(a, b)
    if isinstance(places, list) and places != expected and Counter(places) == Counter(expected):
        return Result(..., "the places are right, but not sorted as texts: return sorted(places)")
    return Result(places)


def _without_none(thing: Any) -> Any:
    """Leave out what `get` cannot tell from a missing key."""
    if isinstance(thing, (list, tuple)):
        return [_without_none(value) for value in thing]
    if isinstance(thing, dict):
        return {key: _without_none(value) for key, value in thing.items() if value is not None}
    return thing


def _dictionaries(thing: Any) -> Any:
    """Turn each list into a dictionary, whatever the other side holds."""
    if isinstance(thing, (list, tuple)):
        thing = dict(enumerate(thing))
    if isinstance(thing, dict):
        return {key: _dictionaries(value) for key, value in thing.items()}
    return thing


def _top_level(a: dict, b: dict) -> list[str]:
    return sorted({place.split(".")[0] for place in _places(a, b)})


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5)


def _same_values(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b)


@exercise(
    cases=lambda: [
        ({"epoch": 3, "losses": [0.5, 0.25]}, {"epoch": 4, "losses": [0.5]}),
        (_checkpoint(), _checkpoint()),
        (
            {"w": torch.tensor([1.0, 2.0]), "b": torch.zeros(3)},
            {"w": torch.tensor([1.0, 2.5]), "b": torch.zeros(3)},
        ),
        (_checkpoint(), _checkpoint(steps=152.0, rate=0.015)),
        (_checkpoint(), _changed(name="letters", losses=(0.5, 0.5), best=torch.tensor(1.0))),
        (
            {"half": torch.ones(2), "wide": torch.ones(2), "same": torch.ones(1), "near": torch.ones(1)},
            {
                "half": torch.ones(2).half(),
                "wide": torch.ones(2, 1),
                "same": torch.ones(1),
                "near": torch.ones(1) + 2**-23,
            },
        ),
        ({"old": 1, "both": {"x": {}}}, {"new": 1, "both": {"x": {"y": [1, (2, 3)]}}}),
        ({"best": None, "epoch": 3}, {"epoch": 3}),
        ({"loss": torch.tensor(1.5), "epoch": 3}, {"loss": 1.5, "epoch": 3}),
        ({"a": [1], "b": {}, "c": 3}, {"a": {0: 1}, "b": "dict", "c": 3.0}),
        ({"a": {0: 1}, "b": "dict", "loss": 1.5}, {"a": [1], "b": [], "loss": torch.tensor(1.5)}),
        ([0.5, 0.25, 0.125], [0.5, 0.5]),
        (
            {"model": OrderedDict(w=torch.tensor([1.0, 2.0]), b=torch.zeros(2))},
            {"model": OrderedDict(w=torch.tensor([1.0, 2.5]), b=torch.zeros(2))},
        ),
        ({"losses": [0.5] * 12}, {"losses": [0.5, 0.5, 0.25]}),
    ],
    call=_named,
    mistakes={
        "only the outermost keys are told; expected: the whole way to the place": _top_level,
        "keys that only one of the two has are missing: go through a.keys() | b.keys()": lambda a, b: _places(
            a, b, keys=lambda a, b: [k for k in a if k in b]
        ),
        "keys that only the second has are missing: go through a.keys() | b.keys()": lambda a, b: _places(
            a, b, keys=lambda a, b: list(a)
        ),
        "torch.equal overlooks the dtype: compare it, too": lambda a, b: _places(a, b, equal=_same_values),
        "close is not equal: use torch.equal, and compare the dtype": lambda a, b: _places(
            a, b, equal=_close
        ),
        "close is not equal: use torch.equal": lambda a, b: _places(
            a, b, equal=lambda a, b: a.dtype == b.dtype and _close(a, b)
        ),
        "an index that only one of two lists has is missing: zip ends with the shorter one": (
            lambda a, b: _places(
                a,
                b,
                keys=lambda a, b: [
                    k for k in a.keys() | b.keys() if not isinstance(k, int) or (k in a and k in b)
                ],
            )
        ),
        "a key with None is not a missing key: ask `key in a`, not a.get(key)": lambda a, b: _places(
            _without_none(a), _without_none(b)
        ),
        "a tensor and a number differ, even where == says True": lambda a, b: _places(
            a, b, mixed=lambda a, b: isinstance(a == b, torch.Tensor) and bool((a == b).all())
        ),
        "the places within lists and tuples are missing: turn them into dictionaries by enumerate": (
            lambda a, b: _places(a, b, sequences=())
        ),
        "tuples are not looked into: they are compared like lists": lambda a, b: _places(
            a, b, sequences=(list,)
        ),
        "a list and a dictionary differ, whatever they hold: enumerate only where both are lists or tuples": (
            lambda a, b: _places(_dictionaries(a), _dictionaries(b))
        ),
        "3 and 3.0 are equal: compare by ==, not the types": lambda a, b: _places(
            a, b, leaves=lambda a, b: type(a) is type(b) and a == b
        ),
        "an OrderedDict, as state_dict() gives, is a dictionary, too: ask isinstance(a, dict)": (
            lambda a, b: _places(a, b, opened=lambda thing: type(thing) is dict)
        ),
        "these are the places that agree": lambda a, b: sorted(a.keys() & b.keys() - set(_top_level(a, b))),
    },
)
def differences(a, b):
    return _places(a, b)


# 6. The rest of an epoch


class _Loader(DataLoader):
    """Counts how often somebody begins to iterate over it."""

    begun = 0

    def __iter__(self) -> Iterator[Any]:
        self.begun += 1
        return super().__iter__()


def _loader(length: int, **options: Any) -> _Loader:
    generator = torch.Generator().manual_seed(8)
    return _Loader(TensorDataset(torch.arange(length)), shuffle=True, generator=generator, **options)


def _interrupted(answer: Callable, loader: dict[str, Any], epoch: int, done: int) -> Result:
    """remaining_batches(loader, begin, done)"""
    working = _loader(**loader)
    for _ in range(epoch):
        list(working)
    state = working.generator.get_state()
    kept = state.clone()
    whole = [batch for (batch,) in working]
    end = working.generator.get_state()
    for _ in zip(range(1), working, strict=False):  # the process goes on for a while, elsewhere
        pass
    torch.rand(3, generator=working.generator)
    working.begun = 0
    before, seed = torch.get_rng_state(), torch.initial_seed()
    batches = answer(working, state, done)
    if torch.initial_seed() != seed:
        torch.set_rng_state(before)
        return Result(..., "this sets PyTorch's global generator: set loader.generator, the loader's own")
    if not isinstance(batches, (list, tuple)):
        return Result(..., _other(batches, "a list of batches"))
    if any(not isinstance(batch, (list, tuple)) for batch in batches):
        return Result(..., "these are parts of batches; expected: batches as the loader gives them")
    batches = [batch[0] for batch in batches]
    wrong = None
    if working.begun > 1 and difference(batches, whole[done:]):
        return Result(..., "a second loop over the loader draws a new order: iterate over it once")
    if not torch.equal(state, kept):
        wrong = "it changes `begin`: leave the state as it is"
    elif not torch.equal(working.generator.get_state(), end):
        wrong = (
            "the batches are right, but the generator is not where the epoch would leave it: set its state "
            "once, and iterate over the loader itself, to the end: the loader may draw after the last batch"
        )
    return Result(batches, wrong)


def _rest(choose: Callable[[list, int], list]) -> Callable:
    def run(loader: DataLoader, begin: torch.Tensor, done: int) -> list:
        loader.generator.set_state(begin)
        return choose(list(loader), done)

    return run


def _without_state(loader: DataLoader, begin: torch.Tensor, done: int) -> list:
    return list(itertools.islice(loader, done, None))


def _set_late(loader: DataLoader, begin: torch.Tensor, done: int) -> list:
    batches = iter(loader)
    loader.generator.set_state(begin)
    return list(batches)[done:]


@exercise(
    cases=lambda: [
        ({"length": 10, "batch_size": 3}, 0, 2),
        ({"length": 23, "batch_size": 4}, 2, 1),
        ({"length": 11, "batch_size": 2, "drop_last": True}, 1, 3),
        ({"length": 7, "batch_size": 3}, 1, 0),
        ({"length": 7, "batch_size": 3}, 1, 3),
    ],
    call=_interrupted,
    mistakes={
        "other pictures than the epoch's: bring loader.generator to the state `begin` first": _without_state,
        "these are the batches that are done; expected: those after them": _rest(lambda b, n: b[:n]),
        "the whole epoch comes again; expected: without the first `done` batches": _rest(lambda b, n: b),
        "one batch is missing: `done` batches are done, not done + 1": _rest(lambda b, n: b[n + 1 :]),
        "one batch comes again: `done` batches are done, not done - 1": _rest(
            lambda b, n: b[max(n - 1, 0) :]
        ),
        "the last `done` batches; expected: all after the first `done`": _rest(lambda b, n: b[-n:]),
        "one batch only; expected: all that remain": _rest(lambda b, n: b[n : n + 1]),
        "the state comes too late: iter(loader) draws already, so set it before": _set_late,
    },
)
def remaining_batches(loader, begin, done):
    loader.generator.set_state(begin)
    return list(itertools.islice(loader, done, None))


# 7. All or nothing


_NEIGHBOURS = {"notes.txt": b"keep me", "table.tmp": b"keep me, too"}


def _unharmed(folder: Path) -> bool:
    return all((folder / n).exists() and (folder / n).read_bytes() == b for n, b in _NEIGHBOURS.items())


class _Writer:
    """Writes pieces to a file, perhaps fails at the end, and watches the folder meanwhile."""

    def __init__(
        self, path: Path, before: bytes | None, pieces: list[bytes], error: type[BaseException] | None
    ) -> None:
        self.path, self.before, self.pieces, self.error = path, before, pieces, error
        self.calls, self.wrong = 0, None
        self.seen: set[str] = set()

    def look(self) -> set[str]:
        """Return the names of the files that the answer has made."""
        others = set(os.listdir(self.path.parent)) - {self.path.name, *_NEIGHBOURS}
        self.seen |= others
        return others

    def __call__(self, file: Any) -> None:
        self.calls += 1
        if not (hasattr(file, "writable") and file.writable()):
            raise TypeError("write needs a file that is open for writing")
        others = self.look()
        now = self.path.read_bytes() if self.path.exists() else None
        if now != self.before:
            self.wrong = _IN_PLACE
        elif not others and not isinstance(file, io.BytesIO) and _unharmed(self.path.parent):
            self.wrong = (
                "the temporary file is not in the folder of `path`: between two disks os.replace fails, and "
                "shutil.move copies, which can be cut half-way"
            )
        for piece in self.pieces:
            file.write(piece)
        if self.error:
            raise self.error("no space left on the disk")


_IN_PLACE = (
    "the file itself is open while it is written: a kill in between would leave a part of it. "
    "Write to a temporary file, and rename it over the old one"
)


@contextlib.contextmanager
def _instead(answer: Callable, **functions: Callable) -> Iterator[None]:
    """Replace functions of `os`, also where the answer has them by `from os import ...`."""
    names, real = getattr(answer, "__globals__", {}), {name: getattr(os, name) for name in functions}
    imported = {n: f for n, value in names.items() for f in functions if value is real[f]}
    with mock.patch.multiple(os, **functions):
        names.update({n: functions[f] for n, f in imported.items()})
        try:
            yield
        finally:
            names.update({n: real[f] for n, f in imported.items()})


def _destroys(answer: Callable, name: str) -> bool:
    """Whether a file of that name, beside table.csv, is lost: a name at random would be another one now."""
    with tempfile.TemporaryDirectory() as folder:
        neighbour = Path(folder) / name
        neighbour.write_bytes(b"keep me")
        with contextlib.suppress(Exception):
            answer(Path(folder) / "table.csv", lambda file: file.write(b"new"))
        return not neighbour.exists() or neighbour.read_bytes() != b"keep me"


def _trips_over(answer: Callable) -> bool:
    """Whether a leftover of a killed process keeps the answer from writing the new file."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "table.csv"
        target.with_name("table.csv.tmp").write_bytes(b"half of an older table")
        with contextlib.suppress(Exception):
            answer(target, lambda file: file.write(b"new"))
        return not target.exists() or target.read_bytes() != b"new"


def _written(
    answer: Callable, before: bytes | None, pieces: list[bytes], error: type[BaseException] | None = None
) -> Result:
    """write_safely(path, write)"""
    whole, forced, lost = b"".join(pieces), [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = folder / "table.csv"
        for neighbour, contents in _NEIGHBOURS.items():
            (folder / neighbour).write_bytes(contents)
        if before is not None:
            target.write_bytes(before)
        place = target.stat().st_ino if target.exists() else None
        writer = _Writer(target, before, pieces, error)

        def watched(function: Callable) -> Callable:
            def run(descriptor: Any) -> None:
                number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
                there = target.read_bytes() if target.exists() else None
                forced.append((os.fstat(number).st_size, there == before))
                writer.look()
                function(descriptor)

            return run

        def losing(function: Callable) -> Callable:
            def run(*arguments: Any, **options: Any) -> None:
                there = target.exists()
                function(*arguments, **options)
                if there and not target.exists():
                    lost.append(function.__name__)

            return run

        moves = {name: losing(getattr(os, name)) for name in ("remove", "unlink", "rename", "replace")}
        syncs = {name: watched(getattr(os, name)) for name in ("fsync", "fdatasync") if hasattr(os, name)}
        raised = None
        with _instead(answer, **syncs, **moves):
            try:
                answer(target, writer)
            except BaseException as problem:
                if error is None or not isinstance(problem, error):
                    raise
                raised = type(problem).__name__
        contents = target.read_bytes() if target.exists() else None
        same_place = target.exists() and target.stat().st_ino == place
        left = sorted(set(os.listdir(folder)) - {"table.csv", *_NEIGHBOURS})
        unharmed = _unharmed(folder)
    if lost and before is not None:
        return Result(
            ..., "for a while there is no file of that name, neither old nor new: only os.replace it"
        )
    if writer.calls != 1:
        return Result(..., f"write was called {writer.calls} times; expected: once, with an open file")
    if writer.wrong or (same_place and contents != before):
        return Result(..., writer.wrong or _IN_PLACE)
    if not unharmed:
        return Result(
            ..., "another file of the folder is lost, table.tmp: with_suffix drops the .csv of table.csv"
        )
    for made in sorted(writer.seen):
        if target.name not in made and _destroys(answer, made):
            drops = Path(made).stem == target.stem
            why = "with_suffix drops the .csv of table.csv" if drops else "append .tmp to the whole name"
            return Result(..., f"another file named {made} would be lost: {why}")
    if error and contents != before:
        return Result(..., "`write` has failed, and the file is not as it was before: do not rename then")
    wrong = None
    if error and raised is None:
        wrong = "the error of `write` does not pass on: nobody would learn that nothing was saved"
    elif left:
        wrong = f"{left[0]} is left in the folder: rename the temporary file, and remove it under `finally`"
    elif not error and not forced:
        wrong = "nothing forces the bytes to the disk before the rename: os.fsync(file.fileno())"
    elif not error and not any(size == len(whole) and early for size, early in forced):
        wrong = (
            "os.fsync comes too early or too late: the bytes are still in Python's buffer (file.flush() "
            "first), or the file has its new name already"
        )
    elif not error and _trips_over(answer):
        wrong = (
            "a leftover table.csv.tmp, of a process that was killed, stands in the way: open the temporary "
            'file with "wb", which empties it'
        )
    return Result(contents, wrong)


@exercise(
    cases=lambda: [
        (b"old table", [b"a,b\n", b"1,2\n"]),
        (None, [b"hello"]),
        (b"old table", [b"half of the new"], OSError),
        (None, [b"half"], ValueError),
        (b"x" * 10, [b"y" * 70_000, b"z"]),
        (b"old table", [b"half"], KeyboardInterrupt),
    ],
    call=_written,
    mistakes={},
)
def write_safely(path, write):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# 8. Which files can go

_NAME = re.compile(r"epoch_(\d+)\.pt")


def _number(name: str) -> int:
    return int(_NAME.fullmatch(name)[1])


def _read_by_int(name: str) -> int | None:
    try:
        return int(name[6:-3])
    except ValueError:
        return None


def _saved(names: list[str]) -> list[str]:
    return sorted((name for name in names if _NAME.fullmatch(name)), key=_number)


@exercise(
    cases=lambda: [
        (["epoch_10.pt", "best.pt", "epoch_9.pt", "epoch_8.pt"], 2),
        (["epoch_9.pt", "epoch_100.pt", "epoch_20.pt", "epoch_11.pt", "log.txt"], 1),
        (["epoch_0012.pt", "epoch_0007.pt", "epoch_0010.pt", "epoch_0011.pt", "epoch_0009.pt"], 3),
        (["epoch_4.pt", "epoch_3.pt"], 3),
        (
            [
                "epoch_5.pt",
                "epoch_6.pt",
                "epoch_7.pt",
                "epoch_5.pt.tmp",
                "my_epoch_5.pt",
                "epoch_five.pt",
                "z5.pt",
            ],
            1,
        ),
        (["best.pt"], 1),
        ([], 2),
        (["epoch_5.pt", "epoch_6_pt", "epoch_1_0.pt", "epoch_7.pt"], 1),
        (["epoch_0009.pt", "epoch_10.pt", "epoch_10000.pt", "epoch_9999.pt"], 1),
    ],
    mistakes={
        "sorted as text: epoch_10 comes before epoch_9": lambda names, keep: sorted(
            n for n in names if _NAME.fullmatch(n)
        )[:-keep],
        "a longer name need not have a larger number, as epoch_0009 and epoch_10: sort by int": (
            lambda names, keep: sorted(_saved(names), key=lambda n: (len(n), n))[:-keep]
        ),
        "a number may have more digits than zfill fills up: sort by int": lambda names, keep: sorted(
            _saved(names), key=lambda n: n[6:-3].zfill(4)
        )[:-keep],
        "these are the newest, to keep; expected: the others, to delete": lambda names, keep: _saved(names)[
            -keep:
        ],
        "the newest come first; expected: the oldest first": lambda names, keep: _saved(names)[:-keep][::-1],
        "these are the `keep` oldest; expected: all but the `keep` newest": lambda names, keep: _saved(names)[
            :keep
        ],
        "the order of `names` is taken for that of the epochs: sort by number": lambda names, keep: [
            n for n in names if _NAME.fullmatch(n)
        ][:-keep],
        "with fewer names than `keep`, a negative end of the slice counts from the back; expected: []": (
            lambda names, keep: _saved(names)[: len(_saved(names)) - keep]
        ),
        "these are numbers; expected: names": lambda names, keep: [_number(n) for n in _saved(names)[:-keep]],
        "other files would be deleted: in a pattern a dot is any character, write \\.": lambda names, keep: (
            sorted(
                (n for n in names if re.fullmatch(r"epoch_(\d+).pt", n)),
                key=lambda n: int(re.search(r"\d+", n)[0]),
            )[:-keep]
        ),
        "other files would be deleted: int takes 1_0 for 10, so use re.fullmatch": lambda names, keep: sorted(
            (
                n
                for n in names
                if n.startswith("epoch_") and n.endswith(".pt") and _read_by_int(n) is not None
            ),
            key=_read_by_int,
        )[:-keep],
        "other files would be deleted: the pattern must match the whole name, re.fullmatch": (
            lambda names, keep: sorted(
                (n for n in names if re.search(r"epoch_(\d+)\.pt", n)),
                key=lambda n: int(re.search(r"\d+", n)[0]),
            )[:-keep]
        ),
        "other files would be deleted: re.match looks at the beginning only, use re.fullmatch": (
            lambda names, keep: sorted(
                (n for n in names if re.match(r"epoch_(\d+)\.pt", n)),
                key=lambda n: int(re.search(r"\d+", n)[0]),
            )[:-keep]
        ),
    },
)
def outdated(names, keep):
    return _saved(names)[:-keep]


# 9. The best weights


class _Scores:
    """Trains a model by one step that depends on the epoch, and rates it by a list."""

    def __init__(self, scores: list[float]) -> None:
        self.scores, self.epoch, self.rated = scores, 0, 0
        self.seen: list[dict[str, torch.Tensor]] = []

    def train(self, model: nn.Module) -> None:
        self.epoch += 1
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.add_(self.epoch)
        self.seen.append(copy.deepcopy(dict(model.state_dict())))

    def score(self, model: nn.Module) -> float:
        self.rated += 1
        if self.epoch == 0:
            raise RuntimeError("score was called before the first epoch")
        return self.scores[self.epoch - 1]


def _kept(answer: Callable, model: nn.Module, training: str, scores: list[float], epochs: int) -> Result:
    """keep_best(model, train_epoch, score, epochs)"""
    given, run = copy.deepcopy(model), _Scores(scores)
    owned = list(given.parameters())
    try:
        best = answer(given, run.train, run.score, epochs)
    except Exception:
        if max(scores) > 0:
            raise
        return Result(..., "with no score above 0 it fails: scores may be negative, begin with float('-inf')")
    if run.epoch != epochs:
        return Result(..., f"it trained for {run.epoch} epochs; expected: {epochs}")
    if isinstance(best, (nn.Module, dict)) or best is None:
        return Result(best)
    if run.rated != epochs:
        return Result(..., f"score was called {run.rated} times; expected: once after each epoch")
    if [id(parameter) for parameter in given.parameters()] != [id(parameter) for parameter in owned]:
        return Result(
            ..., "the parameters were replaced, and an optimizer would train the old ones: copy into them"
        )
    expected = max(range(epochs), key=lambda i: scores[i])
    ends = {name: tensor.detach().clone() for name, tensor in given.state_dict().items()}
    wrong = None
    if best == scores[expected] and (epoch := _epoch_of(ends, run.seen)) != expected:
        parameters = [name for name, _ in given.named_parameters()]
        if epoch is None and all(torch.equal(ends[n], run.seen[expected][n]) for n in parameters):
            wrong = (
                "the parameters are those of the best epoch, the buffers are not: keep the whole state_dict"
            )
        elif epoch == epochs - 1:
            wrong = (
                "the score is right, but the weights are those of the last epoch: load the kept ones at the "
                "end, and keep a deep copy, since state_dict() and its copy() change with the training"
            )
        elif epoch is not None and scores[epoch] == scores[expected]:
            wrong = "of two equal scores the first counts: compare by >, not by >="
        else:
            wrong = "the score is right, but the weights of the model are not those of its epoch"
    return Result(best, wrong)


def _epoch_of(weights: dict, seen: list[dict]) -> int | None:
    matches = (i for i, old in enumerate(seen) if all(torch.equal(weights[n], old[n]) for n in weights))
    return next(matches, None)


def _keep(better: Callable[[float, float], bool], first: float) -> Callable:
    def run(model: nn.Module, train_epoch: Callable, score: Callable, epochs: int) -> float:
        best, weights = first, copy.deepcopy(model.state_dict())
        for _ in range(epochs):
            train_epoch(model)
            now = score(model)
            if better(now, best):
                best, weights = now, copy.deepcopy(model.state_dict())
        model.load_state_dict(weights)
        return best

    return run


def _last_score(model: nn.Module, train_epoch: Callable, score: Callable, epochs: int) -> float:
    for _ in range(epochs):
        train_epoch(model)
        now = score(model)
    return now


def _normalised() -> nn.Module:
    return _filled(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))


@exercise(
    cases=lambda: [
        (_filled(nn.Linear(3, 2)), "adds 1, then 2, then 3", [0.5, 0.9, 0.7], 3),
        (_normalised(), "adds 1, then 2, ..., then 5", [0.5, 0.9, 0.25, 0.9, 0.3], 5),
        (_normalised(), "adds 1, then 2, then 3", [-3.0, -1.5, -2.0], 3),
        (_filled(nn.Linear(2, 1)), "adds 1", [0.25], 1),
        (_normalised(), "adds 1, then 2", [0.25, 0.75], 2),
        (_normalised(), "adds 1, then 2, then 3", [0.75, 0.5, 0.25], 3),
        (_normalised(), "adds 1, then 2", [-2e9, -1e9], 2),
        (_normalised(), "adds 1, then 2", [0.0, -1.0], 2),
    ],
    call=_kept,
    mistakes={
        "it keeps the lowest score; expected: the highest": _keep(lambda a, b: a < b, float("inf")),
        "scores below the first `best` never count; expected: begin with float('-inf')": _keep(
            lambda a, b: a > b, 0.0
        ),
        "`not best` holds for a score of 0.0, too: ask `best is None`": _keep(
            lambda a, b: not b or a > b, 0.0
        ),
        "this is the score of the last epoch; expected: the highest": _last_score,
    },
)
def keep_best(model, train_epoch, score, epochs):
    return _keep(lambda a, b: a > b, float("-inf"))(model, train_epoch, score, epochs)


# 10. Half the bytes


def _convert(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable:
    return lambda state: {name: change(tensor) for name, tensor in state.items()}


def _fits(tensor: torch.Tensor) -> bool:
    return bool(torch.isfinite(tensor.half()).all())


def _small(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half() if tensor.is_floating_point() and _fits(tensor) else tensor


def _same_order(got: Any, state: dict) -> str | None:
    return "the names stand in another order" if list(got) != list(state) else None


@exercise(
    cases=lambda: [
        ({"w": torch.tensor([0.5, 3.0]), "v": torch.tensor([70000.0]), "n": torch.tensor(4)},),
        (
            {
                "z": torch.tensor([[1.5], [-66000.0]]),
                "a": torch.tensor([2.0, -60000.0]),
                "on": torch.tensor([True, False]),
            },
        ),
        (
            {
                "wide": torch.tensor([1.0, 1e300], dtype=torch.float64),
                "thin": torch.tensor([0.1], dtype=torch.float64),
            },
        ),
        ({"count": torch.tensor([70000, 2]), "w": torch.full((2, 3), 65504.0), "x": torch.zeros(0)},),
        ({},),
        ({"edge": torch.tensor([65510.0]), "brain": torch.ones(2, dtype=torch.bfloat16)},),
        ({"rng": torch.tensor([0, 200], dtype=torch.uint8), "n": torch.tensor([3], dtype=torch.int32)},),
    ],
    also=_same_order,
    mistakes={
        "values beyond 65,504 became infinite: such a tensor keeps its type": _convert(
            lambda t: t.half() if t.is_floating_point() else t
        ),
        "integers or booleans were converted; expected: floating-point tensors only": _convert(
            lambda t: t.half() if _fits(t) else t
        ),
        "int64 is not the only integer type: ask tensor.is_floating_point()": _convert(
            lambda t: t.half() if t.dtype not in (torch.int64, torch.bool) and _fits(t) else t
        ),
        "everything was converted; expected: floating-point tensors that stay finite": _convert(
            torch.Tensor.half
        ),
        "large negative numbers become infinite, too: look at abs(), or use torch.isfinite": _convert(
            lambda t: t.half() if t.is_floating_point() and not (t > 65504).any() else t
        ),
        "the tensors that would overflow are missing; expected: they keep their type": lambda state: {
            n: _small(t) for n, t in state.items() if _fits(t)
        },
        "one tensor that does not fit keeps all from being halved": lambda state: (
            {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
            if all(_fits(t) for t in state.values() if t.is_floating_point())
            else dict(state)
        ),
        "values are cut off at 65,504; expected: such a tensor keeps its type and values": _convert(
            lambda t: t.clamp(-65504, 65504).half() if t.is_floating_point() else t
        ),
        "up to 65,520 a number is rounded to 65,504, and stays finite: convert first, then ask": _convert(
            lambda t: t.half() if t.is_floating_point() and not (t.abs() > 65504).any() else t
        ),
        "bfloat16 is a floating-point type, too: ask tensor.is_floating_point()": _convert(
            lambda t: _small(t) if t.dtype in (torch.float32, torch.float64) else t
        ),
        "float32 is not the only floating-point type: ask tensor.is_floating_point()": _convert(
            lambda t: _small(t) if t.dtype == torch.float32 else t
        ),
        "this is bfloat16, for all; expected: float16, for those that stay finite": _convert(
            lambda t: t.bfloat16() if t.is_floating_point() else t
        ),
        "this is bfloat16; expected: float16": _convert(
            lambda t: t.bfloat16() if t.is_floating_point() and _fits(t) else t
        ),
    },
)
def halve(state):
    return {name: _small(tensor) for name, tensor in state.items()}
