"""The checkers of chapter 07, Transfer learning. Each answer is a reference solution."""

import copy
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import get_model_weights

from course_utils.exercises.grading import Result, exercise, left_off
from course_utils.exercises.text import kind_of
from course_utils.models import ResNet18

# What several exercises share


def _below(head: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(f"{head}.")


def _watch(model: nn.Module, free: str = "", but: str = "-") -> Callable[[], str | None]:
    """Remember a model; what is returned says what has changed since, but for `free` and the module `but`.

    free: "values" of the weights, "modes" of the modules, or "frozen", which of the parameters are.
    """

    def snapshot() -> tuple[dict, ...]:
        modules = {name: m for name, m in model.named_modules() if name != but and not _below(but)(name)}
        state = {n: t for n, t in model.state_dict(keep_vars=True).items() if not _below(but)(n)}
        values = {n: t.detach().clone() for n, t in state.items()}
        modes = {n: m.training for n, m in modules.items()}
        return modules, state, values, modes, {n: t.requires_grad for n, t in state.items()}

    before = snapshot()

    def changed() -> str | None:
        modules, state, values, modes, frozen = (
            old.keys() != new.keys() or any(not same(old[name], new[name]) for name in old)
            for old, new, same in zip(before, snapshot(), _SAME, strict=True)
        )
        if modules:
            return "modules have been added, removed or replaced: they are to stay"
        if state:
            return "parameters have been replaced: an optimizer made before would no longer know them"
        if values and free != "values":
            return "weights or buffers have changed: their values are to stay"
        if modes and free != "modes":
            return "modes have changed, as by eval() or train(); that and freezing are two things"
        if frozen and free != "frozen":
            return "it changes which parameters are frozen: that is to stay"
        return None

    return changed


def _is(old: Any, new: Any) -> bool:
    return old is new


_SAME = (_is, _is, torch.equal, _is, _is)  # how the parts of a snapshot are compared


def _trained(result: Any, trainable: dict[str, str], model: nn.Module, wrong: str | None) -> Result:
    """What an exercise has made trainable, and the list of names that it returns."""
    if result is None:
        return Result(..., "it returns None: is there a `return`?")
    if not isinstance(result, list) or not all(isinstance(name, str) for name in result):
        what = "a list, but not of names" if isinstance(result, list) else kind_of(result)
        return Result(..., f"it returns {what}; expected: a list of names")
    if any("requires_grad" in vars(module) for module in model.modules()):
        return Result(
            ...,
            "`requires_grad = ...` on a module only sets an attribute, which nobody reads: set that of each "
            "parameter, or call the module's requires_grad_()",
        )
    return Result({**trainable, "returned": ", ".join(result)}, wrong)


def _stages(**layers: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(layers))


# 1. The best model that fits

FAMILY = ["resnet18", "mobilenet_v3_small", "resnet50", "efficientnet_b0"]


def _meta(name: str, first: bool = False) -> dict:
    weights = get_model_weights(name)
    return (next(iter(weights)) if first else weights.DEFAULT).meta


def _accuracy(name: str, first: bool = False, metric: str = "acc@1") -> float:
    return _meta(name, first)["_metrics"]["ImageNet-1K"][metric]


def _megabytes(name: str, first: bool = False) -> float:
    return _meta(name, first)["_file_size"]


def _fitting(names: list[str], megabytes: float) -> list[str]:
    return [name for name in names if _megabytes(name) <= megabytes]


def _best(size: Callable = _megabytes, key: Callable = _accuracy) -> Callable:
    """The function that takes the largest by `key` among those whose `size` is within the limit."""
    return lambda names, mb: max((name for name in names if size(name) <= mb), key=key, default=None)


class _NoName(str):
    """Stands for None where a name is expected: None may be meant, so do not ask for a `return`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "None"


def _chosen(answer: Callable, names: list[str], megabytes: float) -> Any:
    """best_within(names, megabytes)"""
    got = answer(names, megabytes)
    return _NoName() if got is None and _fitting(names, megabytes) else got


@exercise(
    cases=lambda: [
        (FAMILY, 50),
        (FAMILY, 10),
        (["resnet50", "vgg16", "swin_t", "mobilenet_v3_small"], 108.5),
        (["mobilenet_v3_small", "resnet18"], 44.661),
        (["efficientnet_b0", "resnet50"], 100.0),
        (FAMILY, 4),
        (["resnet50", "resnext50_32x4d"], 100),
        (["squeezenet1_1", "resnet18"], 44.5),
        (["shufflenet_v2_x1_0", "mobilenet_v2"], 13.58),
        (["squeezenet1_0", "shufflenet_v2_x1_0", "mobilenet_v3_small"], 9.9),
        (["googlenet", "resnet18"], 48),
        (["wide_resnet101_2", "resnet152"], 300),
    ],
    call=_chosen,
    mistakes={
        "it returns None, whatever fits: is there a `return`?": _best(size=lambda name: float("inf")),
        "the limit is not looked at": _best(size=lambda name: 0),
        "this is the first one that fits; expected: the most accurate": lambda names, mb: (
            _fitting(names, mb) or [None]
        )[0],
        "this is the largest one that fits; expected: the most accurate": _best(key=_megabytes),
        "this is the one with most operations that fits; expected: the most accurate": _best(
            key=lambda name: _meta(name)["_ops"]
        ),
        "this is the smallest one; expected: the most accurate that fits": _best(
            key=lambda name: -_megabytes(name)
        ),
        "this is the last one that fits; expected: the most accurate": lambda names, mb: (
            _fitting(names, mb) or [None]
        )[-1],
        "a file of exactly so many MB fits, too: compare by <=": lambda names, mb: _best()(names, mb - 1e-9),
        "the size is rounded before it is compared": _best(size=lambda name: int(_megabytes(name))),
        "this goes by acc@5; expected: acc@1": _best(key=lambda name: _accuracy(name, metric="acc@5")),
        "these are the first weights of the enum; expected: DEFAULT, the best": _best(
            key=lambda name: _accuracy(name, first=True)
        ),
        "the size is an estimate, 4 bytes for each parameter; expected: the file's own, _file_size": _best(
            size=lambda name: _meta(name)["num_params"] * 4 / 1e6
        ),
        "the size is an estimate, 4 bytes for each parameter; a file may hold more: _file_size": _best(
            size=lambda name: _meta(name)["num_params"] * 4 / 2**20
        ),
        "the accuracy is that of DEFAULT, and the size that of the enum's first weights": _best(
            size=lambda name: _megabytes(name, first=True)
        ),
        "where none fits, max() has nothing to choose from; expected: None": lambda names, mb: max(
            _fitting(names, mb), key=_accuracy
        ),
        "this counts million parameters; expected: MB of the file": _best(
            size=lambda name: _meta(name)["num_params"] / 1e6
        ),
        "this is the accuracy; expected: the name": lambda names, mb: max(
            map(_accuracy, _fitting(names, mb)), default=None
        ),
        "this takes whichever weights of a name fit; expected: DEFAULT alone": lambda names, mb: max(
            (
                (w.meta["_metrics"]["ImageNet-1K"]["acc@1"], name)
                for name in names
                for w in get_model_weights(name)
                if w.meta["_file_size"] <= mb
            ),
            default=(0, None),
        )[1],
    },
)
def best_within(names, megabytes):
    return _best()(names, megabytes)


# 2. Prepare a batch by hand


def _column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _pictures(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


@exercise(
    cases=lambda: [
        (
            torch.tensor([0, 51, 102, 153, 204, 255], dtype=torch.uint8).view(1, 3, 1, 2),
            [0.5, 0.4, 0.2],
            [0.25, 0.5, 0.2],
        ),
        (_pictures(2, 3, 4, 5), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        (_pictures(3, 3, 2, 3), [0.1, 0.5, 0.9], [0.2, 0.3, 0.1]),
        (_pictures(4, 3, 3, 3), [0.7, 0.2, 0.4], [0.3, 0.1, 0.6]),
    ],
    mistakes={
        "the pixels reach from 0 to 255; mean and std are those of 0 to 1: divide by 255 first": (
            lambda p, m, s: (p - _column(m)) / _column(s)
        ),
        "only divided by 255; expected: the mean taken off and divided by std as well": (
            lambda p, m, s: p / 255
        ),
        "mean and std are exchanged": lambda p, m, s: (p / 255 - _column(s)) / _column(m),
        "/ comes before -: only the mean is divided by std; put the difference in parentheses": (
            lambda p, m, s: p / 255 - _column(m) / _column(s)
        ),
        "not divided by std": lambda p, m, s: p / 255 - _column(m),
        "multiplied by std; expected: divided": lambda p, m, s: (p / 255 - _column(m)) * _column(s),
        "divided by std before the mean is taken off": lambda p, m, s: p / 255 / _column(s) - _column(m),
        "the mean is added; expected: taken off": lambda p, m, s: (p / 255 + _column(m)) / _column(s),
        "divided by 256; expected: 255, so that white becomes 1": lambda p, m, s: (
            (p / 256 - _column(m)) / _column(s)
        ),
        "mean and std are spread along the width, the last dimension; expected: along the channels, by "
        "view(3, 1, 1)": lambda p, m, s: (p / 255 - torch.tensor(m)) / torch.tensor(s),
        "mean and std are spread along the height; expected: along the channels, by view(3, 1, 1)": (
            lambda p, m, s: (p / 255 - torch.tensor(m).view(3, 1)) / torch.tensor(s).view(3, 1)
        ),
        "mean and std are spread along the pictures; expected: along the channels, by view(3, 1, 1)": (
            lambda p, m, s: (p / 255 - torch.tensor(m).view(3, 1, 1, 1)) / torch.tensor(s).view(3, 1, 1, 1)
        ),
        "every channel gets the mean and std of the first": lambda p, m, s: (p / 255 - m[0]) / s[0],
        "this is the batch's own mean and std; expected: the given ones, of the training pictures": (
            lambda p, m, s: (
                (p / 255 - (p / 255).mean((0, 2, 3), keepdim=True)) / (p / 255).std((0, 2, 3), keepdim=True)
            )
        ),
        "the result is float64; expected: float32, as the weights": lambda p, m, s: (
            (p / 255 - _column(m).double()) / _column(s).double()
        ),
        "// divides integers, so that only 0 and 1 are left; expected: /": lambda p, m, s: (
            (p // 255 - _column(m)) / _column(s)
        ),
    },
)
def prepare(pictures, mean, std):
    return (pictures / 255 - _column(mean)) / _column(std)


# 3. A new head


class _Net(nn.Module):
    """A small picture network whose head sits where a family of torchvision's models has it."""

    def __init__(self, width: int, **head: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        for name, module in head.items():
            setattr(self, name, module)
        self.order = list(head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.avgpool(self.features(x)).flatten(1)
        for name in self.order:
            x = getattr(self, name)(x)
        return x


def _deep() -> nn.Module:
    layers = OrderedDict(norm=nn.LayerNorm(10), head=nn.Linear(10, 9))
    return _Net(10, neck=nn.Linear(10, 10), heads=nn.Sequential(layers))


NETS: dict[str, Callable[[], nn.Module]] = {
    "a ResNet, head: fc": lambda: ResNet18(7, width=4),
    "a DenseNet, head: classifier": lambda: _Net(5, classifier=nn.Linear(5, 11)),
    "a VGG, head: classifier[3]": lambda: _Net(
        6, classifier=nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 12))
    ),
    "a vision transformer, head: heads.head": _deep,
    "a Swin, frozen, head: head": lambda: (
        _Net(4, norm=nn.LayerNorm(4), head=nn.Linear(4, 6)).requires_grad_(False).eval()
    ),
    "a network with dropout at its end, head: classifier[0]": lambda: _Net(
        3, classifier=nn.Sequential(nn.Linear(3, 10), nn.Dropout())
    ),
    "a head three levels down: head.mlp.fc": lambda: _Net(
        4, head=_stages(mlp=_stages(act=nn.ReLU(), fc=nn.Linear(4, 8)))
    ),
    "a head without a bias: classifier": lambda: _Net(3, classifier=nn.Linear(3, 10, bias=False)),
}


def _last_linear(model: nn.Module) -> str:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def _with_new_head(answer: Callable, model: str, classes: int) -> Any:
    """replace_head(model, classes)"""
    net = NETS[model]()
    place = _last_linear(net)
    old = net.get_submodule(place)
    changed = _watch(net, but=place)
    modules = {name for name, _ in net.named_modules()}
    got = answer(net, classes)
    if isinstance(got, nn.Module) and got is not net and not isinstance(got, type(net)):
        return Result(..., f"it returns {kind_of(got)}; expected: the model itself, with a new head in it")
    if not isinstance(got, nn.Module):
        return got
    if dotted := [name for name, _ in got.named_children() if "." in name]:
        return Result(
            ...,
            f"there is a new attribute called {dotted[0]!r}, dot and all: setattr takes one name: find the "
            "parent first, by get_submodule",
        )
    added = sorted({name for name, _ in got.named_modules()} - modules)
    head = dict(got.named_modules()).get(place)
    if head is None:
        return Result(..., f"{place!r} is gone: replace this Linear alone, and not the module around it")
    if isinstance(head, nn.Linear) and head.in_features != old.in_features:
        wrong = f"the new head has {head.in_features} inputs; expected: as the old one, {old.in_features}"
        return Result(..., wrong)
    try:
        with torch.no_grad():
            output = str(tuple(copy.deepcopy(got).eval()(torch.zeros(2, 3, 40, 40)).shape))
    except Exception as error:  # noqa: BLE001 - the learner's model may fail in any way
        output = f"{type(error).__name__}: {error}"
    if added and output == f"(2, {old.out_features})":
        return Result(
            ...,
            f"the model has a new module {added[0]!r}, which its forward does not use: the output still has "
            f"{old.out_features} columns. The head is {place!r}",
        )
    if added or not isinstance(head, nn.Linear):
        return Result(..., f"{place!r} has become {kind_of(head)}; expected: a Linear in the old one's place")
    if got is not net:
        wrong = "it returns a copy; expected: the same model, with a new head in it"
    elif not all(parameter.requires_grad for parameter in head.parameters()):
        wrong = "the new head is frozen"
    else:
        wrong = changed()
    state = "the old head is still there" if head is old else "a new nn.Linear"
    return Result({"head": state, "output": output, "bias": head.bias is not None}, wrong)


def _replace(model: nn.Module, classes: int, which: int = -1, **options: Any) -> nn.Module:
    places = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    parent, _, name = places[which].rpartition(".")
    old = model.get_submodule(places[which])
    setattr(model.get_submodule(parent), name, nn.Linear(old.in_features, classes, **options))
    return model


def _fc(model: nn.Module, classes: int) -> nn.Module:
    model.fc = nn.Linear(model.fc.in_features, classes)
    return model


def _last_module(model: nn.Module, classes: int) -> nn.Module:
    path, last = list(model.named_modules())[-1]
    model.set_submodule(path, nn.Linear(last.in_features, classes))
    return model


@exercise(
    cases=lambda: [(name, 3 + 2 * i) for i, name in enumerate(NETS)],
    call=_with_new_head,
    mistakes={
        "this is the model's first nn.Linear; expected: the last": lambda m, c: _replace(m, c, which=0),
        "the head is not always called fc: find the last nn.Linear": _fc,
        "the last module is not always an nn.Linear: ask isinstance(module, nn.Linear)": _last_module,
        "the new head has no bias": lambda m, c: _replace(m, c, bias=False),
        "the new head has a bias only where the old one had; expected: always": lambda m, c: _replace(
            m, c, bias=m.get_submodule(_last_linear(m)).bias is not None
        ),
    },
)
def replace_head(model, classes):
    return _replace(model, classes)


# 4. Load all but the head


def _body_loaded(answer: Callable, model: nn.Module, state: dict[str, torch.Tensor], head: str) -> Any:
    """load_body(model, state, head)"""
    model = copy.deepcopy(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    strangers = {name for name in before.keys() ^ state.keys() if not _below(head)(name)}
    changed = _watch(model, "values")
    try:
        returned = answer(model, state, head)
    except (KeyError, RuntimeError, ValueError) as error:
        if not strangers and not isinstance(error, KeyError):
            raise
        return f"raises {type(error).__name__}"
    now = model.state_dict()
    missed = [name for name in now if name not in state or not torch.equal(now[name], state[name])]
    if returned is not None:
        wrong = f"it returns {kind_of(returned)}; expected: nothing, the model is changed"
    elif {t.data_ptr() for t in now.values()} & {t.data_ptr() for t in state.values()}:
        wrong = (
            "the model now holds the tensors of `state` themselves, as by assign=True, and training would "
            "change `state`: copy the values"
        )
    elif any(not torch.equal(now[name], before[name]) for name in missed):
        wrong = "it changes weights to values that are not in `state`"
    else:
        wrong = changed()
    return Result("loads " + ("all but " + ", ".join(missed) if missed else "all"), wrong)


def _load(model: nn.Module, state: dict[str, torch.Tensor], mine: Callable, ask: Callable) -> None:
    report = model.load_state_dict({n: t for n, t in state.items() if not mine(n)}, strict=False)
    problems = ask([n for n in report.missing_keys if not mine(n)], report.unexpected_keys)
    if problems:
        raise KeyError(problems)


def _fits(name: str, own: dict, state: dict) -> bool:
    return name in own and state.get(name, own[name]).shape == own[name].shape


def _by_parameters(model: nn.Module, state: dict[str, torch.Tensor], head: str) -> None:
    own = {name for name, _ in model.named_parameters()}
    if strangers := {name for name in own ^ state.keys() if not _below(head)(name)}:
        raise KeyError(strangers)
    load_body.reference(model, state, head)


def _without_buffers(model: nn.Module, state: dict[str, torch.Tensor], head: str) -> None:
    def learned(name: str) -> bool:
        return name.endswith((".weight", ".bias"))

    given = {name: tensor for name, tensor in state.items() if learned(name)}
    _load(model, given, _below(head), lambda missing, unexpected: [*filter(learned, missing), *unexpected])


def _strictly(model: nn.Module, state: dict[str, torch.Tensor], head: str) -> None:
    model.load_state_dict({name: t for name, t in state.items() if not _below(head)(name)})


def _tree(*names: str, **sizes: int) -> nn.Module:
    """A module with Linear layers at these places."""
    model = nn.Module()
    for i, name in enumerate(names):
        setattr(model, name, nn.Linear(3, sizes.get(name, 4 + i)))
    return model


def _state(model: nn.Module, rename: Callable[[str], str] = str, without: str = "-") -> dict:
    tensors = {rename(name): t for name, t in model.state_dict().items() if name != without}
    return {n: torch.rand_like(t) if t.is_floating_point() else t + 5 for n, t in tensors.items()}


def _attentive() -> nn.Module:
    """A model whose body has a layer of the head's name, deeper down."""
    model = _tree("stem", "fc")
    model.stem.attention = _tree("fc")
    return model


def _bodies() -> list[tuple]:
    wide = {"fc": 9}
    return [
        (_tree("conv", "fc"), _state(_tree("conv", "fc", **wide)), "fc"),
        (_tree("conv", "fc"), _state(_tree("conv", "fc", **wide), lambda n: f"backbone.{n}"), "fc"),
        (_tree("stem", "conv", "fc"), _state(_tree("stem", "conv", "fc", **wide), without="conv.bias"), "fc"),
        (_tree("stem", "fc"), _state(_tree("stem", "extra", "fc", **wide)), "fc"),
        (_tree("fc_norm", "stem", "fc"), _state(_tree("fc_norm", "stem", "fc", **wide)), "fc"),
        (_tree("stem", "head"), _state(_tree("stem")), "head"),
        (_tree("fc_norm", "fc"), _state(_tree("fc_norm", "fc", **wide), without="fc_norm.bias"), "fc"),
        (_tree("stem", "fc"), _state(_tree("stem", "fc")), "fc"),
        (_attentive(), _state(_attentive()), "fc"),
        (_deep(), _state(_deep()), "heads.head"),
        (_Net(4, fc=nn.Linear(4, 3)), _state(_Net(4, fc=nn.Linear(4, 9))), "fc"),
        (
            _Net(4, fc=nn.Linear(4, 3)),
            _state(_Net(4, fc=nn.Linear(4, 9)), without="features.1.running_mean"),
            "fc",
        ),
        (_sequential(2), _state(_sequential(9)), "classifier"),
        (_tree("stem", "fc"), _state(_tree("stem", "fc"), lambda n: n.replace("fc.", "fc.0.")), "fc"),
    ]


def _sequential(classes: int) -> nn.Module:
    return _Net(4, classifier=nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, classes)))


@exercise(
    cases=_bodies,
    call=_body_loaded,
    mistakes={
        "unknown entries are passed over in silence; expected: a KeyError": lambda m, s, h: _load(
            m, s, _below(h), lambda missing, unexpected: missing
        ),
        "missing entries are passed over in silence; expected: a KeyError": lambda m, s, h: _load(
            m, s, _below(h), lambda missing, unexpected: unexpected
        ),
        "strict=False passes over both missing and unknown entries in silence: look at what "
        "load_state_dict returns": lambda m, s, h: _load(m, s, _below(h), lambda *_: []),
        "the head is missing on purpose: strict=False": _strictly,
        "BatchNorm's buffers are in `state`, too, and belong to the body: compare with state_dict(), "
        "not with named_parameters()": _by_parameters,
        "BatchNorm's buffers, such as running_mean, are not loaded: they belong to the body": (
            _without_buffers
        ),
        "a layer in the body may bear the head's name: ask how the name begins": lambda m, s, h: _load(
            m, s, lambda n: f"{h}." in n, lambda a, b: a + b
        ),
        "the head may lie deeper, as heads.head: ask whether the name begins with the whole path": (
            lambda m, s, h: _load(m, s, lambda n: n.split(".")[0] == h, lambda a, b: a + b)
        ),
        "the head's own entries are missing on purpose: leave them out of what you complain about": (
            lambda m, s, h: _load(
                m, {n: t for n, t in s.items() if not _below(h)(n)}, lambda n: False, lambda a, b: a + b
            )
        ),
        "`fc_norm` also begins with `fc`: ask for the head's name with a dot": lambda m, s, h: _load(
            m, s, lambda n: n.startswith(h), lambda a, b: a + b
        ),
        "the head is loaded, too, where its shape fits; expected: it keeps its new weights": lambda m, s, h: (
            _load(m, s, lambda n: _below(h)(n) and not _fits(n, m.state_dict(), s),
                  lambda a, b: [n for n in a if not _below(h)(n)] + b)
        ),
        "the head in `state` may have other names than the model's: do not complain about them": (
            lambda m, s, h: _load(m, s, _below(h), lambda a, b: [*a, *(s.keys() - m.state_dict().keys())])
        ),
        "the head may be a Sequential: its names go on, as classifier.0.weight": lambda m, s, h: _load(
            m, s, lambda n: n.rpartition(".")[0] == h, lambda a, b: a + b
        ),
    },
)  # fmt: skip
def load_body(model, state, head):
    _load(model, state, _below(head), lambda missing, unexpected: missing + unexpected)


# 5. Count


def _counting() -> list[tuple]:
    first = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    first[0].requires_grad_(False)
    tied = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2))
    tied[1].weight = tied[0].weight
    tied[2].requires_grad_(False)
    half = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    half[0].weight.requires_grad_(False)
    frozen = nn.Sequential(nn.Linear(2, 7), nn.BatchNorm1d(7)).requires_grad_(False)
    return [(first,), (half,), (frozen,), (tied,), (nn.Linear(3, 8),), (nn.GRU(2, 3),)]


def _sizes(parameters: Iterable[torch.Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def _trainable(model: nn.Module) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.requires_grad]


@exercise(
    cases=_counting,
    mistakes={
        "the order is (trainable, all)": lambda m: (_sizes(m.parameters()), _sizes(_trainable(m))),
        "this counts tensors; expected: their numbers, by numel()": lambda m: (
            len(_trainable(m)),
            len(list(m.parameters())),
        ),
        "this is (trainable, frozen); expected: (trainable, all)": lambda m: (
            _sizes(_trainable(m)),
            _sizes(p for p in m.parameters() if not p.requires_grad),
        ),
        "state_dict() also holds BatchNorm's buffers, which are no parameters": lambda m: (
            _sizes(_trainable(m)),
            _sizes(m.state_dict().values()),
        ),
        "a weight that two layers share is counted twice: model.parameters() gives it once": lambda m: (
            _sizes(p for _, p in m.named_parameters(remove_duplicate=False) if p.requires_grad),
            _sizes(p for _, p in m.named_parameters(remove_duplicate=False)),
        ),
        "frozen ones are counted as trainable: ask each parameter's requires_grad": lambda m: (
            _sizes(m.parameters()),
            _sizes(m.parameters()),
        ),
        "not every parameter is called weight or bias: model.parameters() gives all": lambda m: tuple(
            _sizes(p for n, p in m.named_parameters() if n.endswith(("weight", "bias")) and chosen(p))
            for chosen in (lambda p: p.requires_grad, torch.is_tensor)
        ),
    },
)
def count_parameters(model):
    return _sizes(_trainable(model)), _sizes(model.parameters())


# 6. Freeze the body


def _frozen_body(answer: Callable, model: nn.Module, head: str) -> Any:
    """freeze_body(model, head)"""
    model = copy.deepcopy(model)
    changed = _watch(model, "frozen")
    names = answer(model, head)
    state = {n: "trainable" if p.requires_grad else "frozen" for n, p in model.named_parameters()}
    return _trained(names, state, model, changed())


def _freeze(model: nn.Module, trainable: Callable[[str], bool], also: bool = True) -> list[str]:
    for name, parameter in model.named_parameters():
        if trainable(name):
            parameter.requires_grad_(parameter.requires_grad or also)
        else:
            parameter.requires_grad_(False)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _by_getattr(model: nn.Module, head: str) -> list[str]:
    model.requires_grad_(False)
    getattr(model, head).requires_grad_(True)
    return _freeze(model, _below(head))


def _returns(model: nn.Module, head: str, choose: Callable) -> Any:
    return choose(_freeze(model, _below(head)), [name for name, _ in model.named_parameters()])


@exercise(
    cases=lambda: [
        (nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), fc=nn.Linear(4, 2))), "fc"),
        (_tree("fc_norm", "stem", "fc"), "fc"),
        (_tree("old_fc", "stem", "fc"), "fc"),
        (_tree("stem", "fc").requires_grad_(False), "fc"),
        (_deep(), "heads.head"),
        (_Net(4, classifier=nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))), "classifier"),
        (_Net(4, head=nn.Linear(4, 2, bias=False)), "head"),
        (ResNet18(5, width=2), "fc"),
    ],
    call=_frozen_body,
    mistakes={
        "getattr takes one name; a path with dots needs model.get_submodule(head)": _by_getattr,
        "everything is frozen, the head too": lambda m, h: _freeze(m, lambda n: False),
        "nothing is frozen": lambda m, h: _freeze(m, lambda n: True),
        "it is the other way round: the head is frozen and the body is not": lambda m, h: _freeze(
            m, lambda n: not _below(h)(n)
        ),
        "`old_fc.weight` also contains `fc`: ask how the name begins": (
            lambda m, h: _freeze(m, lambda n: h in n)
        ),
        "`old_fc.weight` also contains `fc.`: ask how the name begins": (
            lambda m, h: _freeze(m, lambda n: f"{h}." in n)
        ),
        "`fc_norm` also begins with `fc`: ask for the head's name with a dot": lambda m, h: _freeze(
            m, lambda n: n.startswith(h)
        ),
        "a head that was frozen before stays frozen: switch it on": lambda m, h: _freeze(
            m, _below(h), also=False
        ),
        "BatchNorm's weight and bias are still trainable": lambda m, h: _freeze(
            m, lambda n: _below(h)(n) or n.split(".")[-2].startswith("bn")
        ),
        "the names are put together by hand; a head may be a Sequential, or have no bias": lambda m, h: (
            _returns(m, h, lambda on, _: [f"{h}.weight", f"{h}.bias"])
        ),
        "a head may be a Sequential: its names go on, as classifier.0.weight": lambda m, h: _freeze(
            m, lambda n: n in {f"{h}.weight", f"{h}.bias"}
        ),
        "only the head's weight is trainable; expected: its bias, too": lambda m, h: _freeze(
            m, lambda n: n == f"{h}.weight"
        ),
        "it returns the frozen names; expected: the trainable ones": lambda m, h: _returns(
            m, h, lambda on, all_names: [n for n in all_names if n not in on]
        ),
    },
)
def freeze_body(model, head):
    return _freeze(model, _below(head))


# 7. Training mode, but for frozen BatchNorm

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _modes(answer: Callable, model: nn.Module) -> Any:
    """train_mode(model)"""
    model = copy.deepcopy(model)
    changed = _watch(model, "modes")
    returned = answer(model)
    wrong = changed()
    if returned is not None and returned is not model:
        wrong = f"it returns {kind_of(returned)}; expected: nothing"
    asleep = {True: "evaluation", False: "evaluation, but only BatchNorm layers sleep"}
    return Result(
        {
            name or "model": "training" if module.training else asleep[isinstance(module, NORMS)]
            for name, module in model.named_modules()
        },
        wrong,
    )


def _block(frozen: bool, norm: type = nn.BatchNorm2d) -> nn.Sequential:
    linear = nn.Linear(4, 4) if norm is nn.BatchNorm1d else nn.Conv2d(4, 4, 3)
    return nn.Sequential(linear, norm(4), nn.Dropout()).requires_grad_(not frozen)


def _mode_cases() -> list[tuple]:
    nested = nn.Sequential(OrderedDict(body=nn.Sequential(_block(True), _block(True)), fc=nn.Linear(4, 2)))
    mixed = nn.Sequential(_block(True), _block(False))
    dense = nn.Sequential(_block(True, nn.BatchNorm1d), _block(False, nn.BatchNorm1d)).eval()
    sleeping = nn.Sequential(_block(False), _block(True)).eval()
    halves = nn.Sequential(*(nn.BatchNorm2d(4) for _ in range(3)))
    for parameter in (halves[0].weight, halves[1].bias, *halves[2].parameters()):
        parameter.requires_grad_(False)
    resnet = ResNet18(3, width=2)
    resnet.requires_grad_(False)
    resnet.layer4.requires_grad_(True)
    resnet.fc.requires_grad_(True)
    other = nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
    others = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4), other).requires_grad_(False)
    models = mixed, nested, dense, sleeping, halves, _block(True, nn.BatchNorm3d), resnet
    return [(model,) for model in (*models, _stages(body=others, fc=nn.Linear(4, 2)))]


def _set_modes(model: nn.Module, sleeps: Callable[[nn.Module], bool], start: bool = True) -> None:
    if start:
        model.train()
    for module in model.modules():
        if sleeps(module):
            module.training = False


def _has_frozen(module: nn.Module) -> bool:
    return bool(list(module.parameters(recurse=False))) and not any(
        p.requires_grad for p in module.parameters(recurse=False)
    )


def _leaves_only(model: nn.Module) -> None:
    for module in model.modules():
        if not list(module.children()):
            module.training = not (isinstance(module, NORMS) and _has_frozen(module))


def _in_frozen_block(model: nn.Module) -> Callable[[nn.Module], bool]:
    asleep = set()
    for block in model.modules():
        if list(block.parameters()) and not any(p.requires_grad for p in block.parameters()):
            asleep |= set(block.modules())
    return lambda module: module in asleep


@exercise(
    cases=_mode_cases,
    call=_modes,
    mistakes={
        "every BatchNorm is in evaluation mode; expected: those with frozen parameters only": lambda m: (
            _set_modes(m, lambda x: isinstance(x, NORMS))
        ),
        "model.train() alone also wakes the frozen BatchNorm layers": lambda m: _set_modes(
            m, lambda x: False
        ),
        "model.train() is missing: what was in evaluation mode stays there": lambda m: _set_modes(
            m, lambda x: isinstance(x, NORMS) and _has_frozen(x), start=False
        ),
        "whole frozen blocks are in evaluation mode, and with them their Dropout; expected: only BatchNorm": (
            lambda m: _set_modes(m, _in_frozen_block(m))
        ),
        "frozen layers other than BatchNorm are in evaluation mode, too": lambda m: _set_modes(
            m, _has_frozen
        ),
        "modules without parameters, such as ReLU and Dropout, are in evaluation mode, too": lambda m: (
            _set_modes(m, lambda x: not any(p.requires_grad for p in x.parameters()))
        ),
        "only the weight is asked; frozen: neither weight nor bias requires a gradient": lambda m: _set_modes(
            m, lambda x: isinstance(x, NORMS) and not x.weight.requires_grad
        ),
        "only the bias is asked; frozen: neither weight nor bias requires a gradient": lambda m: _set_modes(
            m, lambda x: isinstance(x, NORMS) and not x.bias.requires_grad
        ),
        "BatchNorm of which weight or bias is still trained is in evaluation mode": lambda m: _set_modes(
            m, lambda x: isinstance(x, NORMS) and not (x.weight.requires_grad and x.bias.requires_grad)
        ),
        "what holds other modules, such as Sequential and the model itself, is not set to training mode": (
            _leaves_only
        ),
        "only BatchNorm2d is looked for; there are 1d and 3d, too": lambda m: _set_modes(
            m, lambda x: isinstance(x, nn.BatchNorm2d) and _has_frozen(x)
        ),
        "only BatchNorm1d and BatchNorm2d are looked for; there is 3d, too": lambda m: _set_modes(
            m, lambda x: isinstance(x, NORMS[:2]) and _has_frozen(x)
        ),
        "only the model's direct children are looked at: model.modules() goes through all": lambda m: (
            _set_modes(m, lambda x: x in list(m.children()) and isinstance(x, NORMS) and _has_frozen(x))
        ),
        "it is the other way round: BatchNorm that still learns is in evaluation mode": lambda m: _set_modes(
            m, lambda x: isinstance(x, NORMS) and not _has_frozen(x)
        ),
        "the whole model is in evaluation mode": lambda m: _set_modes(m, lambda x: True),
    },
)
def train_mode(model):
    _set_modes(model, lambda module: isinstance(module, NORMS) and _has_frozen(module))


# 8. Features, once


class _Tagged(torch.autograd.Function):
    """Copies a tensor, and leaves on its graph something that lives as long as the graph does."""

    @staticmethod
    def forward(ctx, x, tags):
        ctx.tag = set()
        tags.append(weakref.ref(ctx.tag))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def _features(answer: Callable, body: nn.Module, loader: Iterable) -> Any:
    """extract_features(body, loader)"""
    body, tags, graphs, modes = copy.deepcopy(body), [], [0], set()
    changed = _watch(body, "modes")

    def look(module: nn.Module, _: tuple, output: torch.Tensor) -> torch.Tensor:
        modes.update(part.training for part in module.modules())
        graphs.append(sum(tag() is not None for tag in tags))
        return _Tagged.apply(output, tags)

    body.register_forward_hook(look)
    got = answer(body, loader)
    wrong = changed()
    if True in modes:
        return Result(
            ...,
            "in training mode BatchNorm uses the batch and dropout drops features: call body.eval() first, "
            "before the loop",
        )
    pair = isinstance(got, tuple) and len(got) == 2 and isinstance(got[0], torch.Tensor)
    if pair and got[0].requires_grad:
        wrong = "the features hang on a graph, which keeps every batch in memory: use torch.no_grad()"
    elif pair and any(isinstance(part, torch.Tensor) and part.is_inference() for part in got):
        wrong = "a head cannot be trained on a tensor of inference_mode as it is: use torch.no_grad()"
    elif max(graphs) > 1:
        wrong = "until the end each batch keeps its graph in memory: use torch.no_grad() around the loop"
    elif switched_off := left_off():
        wrong = switched_off
    elif any(module.training for module in body.modules()):
        wrong = "the body is in training mode afterwards; expected: evaluation mode"
    return Result(got, wrong)


def _collect(
    body: nn.Module,
    loader: Iterable,
    passes: int = 1,
    chosen: slice = slice(None),
    join: Callable = torch.cat,
    change: Callable = lambda features: features,
) -> tuple:
    body.eval()
    with torch.no_grad():
        pairs = [(body(x), y) for x, y in loader]
    labels = [y for _, y in loader] if passes == 2 else [y for _, y in pairs]
    return change(join([x for x, _ in pairs][chosen])), join(labels[chosen])


def _bodies_and_loaders() -> list[tuple]:
    def data(count: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(count, *shape), torch.randint(9, (count,))

    plain = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    dropped = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.3))
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    maps = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return [
        (normed, [data(3, 3), data(2, 3)]),
        (plain, [data(2, 2), data(1, 2)]),
        (dropped, [data(3, 4), data(3, 4), data(2, 4)]),
        (plain, DataLoader(TensorDataset(*data(11, 2)), batch_size=4, shuffle=True)),
        (conv.eval(), DataLoader(TensorDataset(*data(5, 3, 6, 6)), batch_size=2)),
        (maps, [data(2, 3, 6, 5), data(1, 3, 6, 5)]),
    ]


@exercise(
    cases=_bodies_and_loaders,
    call=_features,
    mistakes={
        "only the last batch is returned: collect all, then torch.cat": lambda body, loader: _collect(
            body, loader, chosen=slice(-1, None)
        ),
        "torch.stack puts batches along a new dimension, all of one size; expected: torch.cat": (
            lambda body, loader: _collect(body, loader, join=torch.stack)
        ),
        "the features are flattened; expected: the shape that the body gives them": lambda body, loader: (
            _collect(body, loader, change=lambda features: features.flatten(1))
        ),
        "the loader is gone through twice, and shuffles anew each time, so that labels and features do not "
        "belong together": lambda body, loader: _collect(body, loader, passes=2),
    },
)
def extract_features(body, loader):
    return _collect(body, loader)


# 9. Mean and standard error


def _spread(values: torch.Tensor, dim: int = 0, correction: int = 1, power: float = 0.5) -> tuple:
    return values.mean(dim), values.std(dim, correction=correction) / values.shape[dim] ** power


@exercise(
    cases=lambda: [
        (torch.tensor([[40.0, 60.0], [44.0, 75.0], [48.0, 66.0]]),),
        (100 * torch.rand(5, 3),),
        (100 * torch.rand(2, 4),),
        (100 * torch.rand(4, 4),),
    ],
    mistakes={
        "this is over the ways; expected: over the runs, the rows": lambda a: _spread(a, dim=1),
        "this is the standard deviation of single runs; expected: that of their mean, smaller by √n": (
            lambda a: _spread(a, power=0)
        ),
        "divided by n; expected: by √n": lambda a: _spread(a, power=1),
        "the standard deviation has n in its denominator; expected: n - 1, as torch.std has by default": (
            lambda a: _spread(a, correction=0)
        ),
        "divided by √(n - 1); expected: by √n": lambda a: (a.mean(0), a.std(0) / (len(a) - 1) ** 0.5),
        "divided by √ of the number of ways, the columns; expected: of the runs": lambda a: (
            a.mean(0),
            a.std(0) / a.shape[1] ** 0.5,
        ),
        "this is 1.96 standard errors, half a 95 % interval; expected: one": lambda a: (
            a.mean(0),
            1.96 * _spread(a)[1],
        ),
        "this takes the variance; expected: the standard deviation": lambda a: (
            a.mean(0),
            a.var(0) / len(a) ** 0.5,
        ),
        "this is the median; expected: the mean": lambda a: (a.median(0).values, _spread(a)[1]),
        "the order is (mean, error)": lambda a: _spread(a)[::-1],
        "divided by √ of all the numbers; expected: √ of the number of runs": lambda a: (
            a.mean(0),
            a.std(0) / a.numel() ** 0.5,
        ),
        "one number over all ways; expected: one for each way": lambda a: (
            a.mean(),
            a.std() / a.numel() ** 0.5,
        ),
    },
)
def mean_and_error(accuracies):
    return _spread(accuracies)


# 10. Rates by layer


def _grouped(answer: Callable, model: nn.Module, rate: float, decay: float) -> Any:
    """layer_groups(model, rate, decay)"""
    changed = _watch(model)
    groups = answer(model, rate, decay)
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, dict) for group in groups):
        return groups
    groups = [dict(group) for group in groups]
    if any("lr" not in group for group in groups):
        return Result(..., 'a group has no "lr": each is a dictionary with "params" and "lr"')
    if any("params" not in group for group in groups):
        return Result(..., 'a group has no "params": each is a dictionary with "params" and "lr"')
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates: dict[str, float] = {}
    for group in groups:
        if isinstance(group["params"], torch.Tensor):
            group["params"] = [group["params"]]
        if isinstance(group["params"], nn.Module) or not isinstance(group["params"], Iterable):
            return Result(..., f'"params" is {kind_of(group["params"])}; expected: its parameters()')
        pairs = list(group["params"])  # an optimizer takes named_parameters(), too
        group["params"] = [p[1] if isinstance(p, tuple) and len(p) == 2 else p for p in pairs]
        for parameter in group["params"]:
            if not isinstance(parameter, torch.Tensor):
                return Result(..., f'"params" holds {kind_of(parameter)}; expected: parameters')
            name = names.get(id(parameter))
            if name is None:
                return Result(..., "a tensor in a group is no parameter of the model")
            if name in rates:
                return Result(..., f"{name} is in two groups, and the optimizer refuses that")
            rates[name] = float(group["lr"])
    if missing := [name for name in names.values() if name not in rates]:
        off = ", not even when it is unfrozen" * (not model.get_parameter(missing[0]).requires_grad)
        return Result(..., f"{missing[0]} is in no group: the optimizer would never train it{off}")
    wrong, full = None, len(_children(model))
    if not all(group["params"] for group in groups):
        wrong = "a group is empty; expected: no group for a child without parameters"
    elif len(groups) != full:
        wrong = f"the number of groups is {len(groups)}; expected: {full}, one for each child with parameters"
    return Result({name: rates[name] for name in names.values()}, wrong or changed())


def _frozen_at_first() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def _children(model: nn.Module, bare: bool = False) -> list[nn.Module]:
    return [child for child in model.children() if bare or list(child.parameters())]


def _groups(
    model: nn.Module, rate: float, decay: float, place: Callable[[int, int], int], bare: bool = False
) -> list[dict]:
    layers = _children(model, bare)
    return [
        {"params": list(layer.parameters()), "lr": rate * decay ** place(i, len(layers))}
        for i, layer in enumerate(layers)
    ]


@exercise(
    cases=lambda: [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Linear(4, 2)), 1.0, 0.5),
        (_Net(3, neck=nn.Linear(3, 3), act=nn.ReLU(), fc=nn.Linear(3, 2)), 0.2, 0.3),
        (ResNet18(5, width=2), 0.01, 0.8),
        (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Dropout()), 0.3, 0.1),
        (_frozen_at_first(), 0.5, 0.2),
    ],
    call=_grouped,
    mistakes={
        "the first layer has the full rate; expected: the last": lambda m, r, d: _groups(
            m, r, d, lambda i, n: i
        ),
        "every layer has one power of decay too many: the last has the full rate": lambda m, r, d: _groups(
            m, r, d, lambda i, n: n - i
        ),
        "layers without parameters, such as ReLU, count as a step: they have nothing to train": (
            lambda m, r, d: _groups(m, r, d, lambda i, n: n - 1 - i, bare=True)
        ),
        "all layers have the same rate": lambda m, r, d: _groups(m, r, d, lambda i, n: 0),
        "all layers but the last have one rate; expected: each its own": lambda m, r, d: _groups(
            m, r, d, lambda i, n: min(1, n - 1 - i)
        ),
    },
)
def layer_groups(model, rate, decay):
    return _groups(model, rate, decay, lambda i, n: n - 1 - i)


# 11. Gradual unfreezing


def _unfrozen(answer: Callable, model: nn.Module, epoch: int, every: int) -> Any:
    """unfreeze(model, epoch, every)"""
    model = copy.deepcopy(model)
    changed = _watch(model, "frozen")
    names = answer(model, epoch, every)
    words = {1: "frozen", 2: "trainable", 3: "trainable in part"}
    state = {
        name: words[sum({1 + parameter.requires_grad for parameter in child.parameters()})]
        for name, child in model.named_children()
        if list(child.parameters())
    }
    return _trained(names, state, model, changed())


def _thaw(model: nn.Module, chosen: list[str], thaw: bool = True, freeze: bool = True) -> list[str]:
    for name, child in model.named_children():
        if name in chosen and thaw:
            child.requires_grad_(True)
        elif name not in chosen and freeze:
            child.requires_grad_(False)
    return chosen


def _thaw_by(model: nn.Module, chosen: list[str], belongs: Callable[[str, str], bool]) -> list[str]:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(belongs(name, child) for child in chosen))
    return chosen


def _with_parameters(model: nn.Module) -> list[str]:
    return [name for name, child in model.named_children() if list(child.parameters())]


def _last(model: nn.Module, count: int) -> list[str]:
    """The names of the last `count` children that have parameters."""
    return _with_parameters(model)[-count:] if count > 0 else []


def _last_of_all(model: nn.Module, count: int) -> list[str]:
    return [name for name, _ in model.named_children()][-count:]


def _bare_omitted(model: nn.Module, names: list[str]) -> list[str]:
    return [name for name in names if name in _with_parameters(model)]


def _small(frozen: bool = False) -> nn.Module:
    return _stages(
        conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4), relu=nn.ReLU(), deep=nn.Linear(4, 4),
        drop=nn.Dropout(), fc=nn.Linear(4, 2),
    ).requires_grad_(not frozen)  # fmt: skip


@exercise(
    cases=lambda: [
        (_small(), 0, 2),
        (_small(), 2, 2),
        (_small(frozen=True), 3, 2),
        (_small(), 4, 2),
        (_small(frozen=True), 4, 3),
        (ResNet18(3, width=2), 3, 1),
        (_small(), 50, 2),
        (_small(frozen=True), 3, 1),
        (_small(), 8, 2),
        (_small(frozen=True), 10, 2),
        (
            _stages(
                conv=nn.Linear(3, 3), fc_norm=nn.LayerNorm(3), old_fc=nn.Linear(3, 3), fc=nn.Linear(3, 2)
            ),
            1,
            2,
        ),
    ],
    call=_unfrozen,
    mistakes={
        "one layer too few: in epoch 0 the last layer is trained already": lambda m, e, k: _thaw(
            m, _last(m, e // k)
        ),
        "one layer too few, and names[-0:] is the whole list: in epoch 0 count 1": lambda m, e, k: _thaw(
            m, _with_parameters(m)[-(e // k) :]
        ),
        "once all are trained, the start of the slice is negative: cut at 0": lambda m, e, k: _thaw(
            m, _with_parameters(m)[len(_with_parameters(m)) - 1 - e // k :]
        ),
        "the number of layers grows every epoch; expected: every `every` epochs": lambda m, e, k: _thaw(
            m, _last(m, 1 + e)
        ),
        "the next layer comes one epoch too early": lambda m, e, k: _thaw(m, _last(m, 1 + (e + 1) // k)),
        "`every` is multiplied; expected: one more layer after each `every` epochs": lambda m, e, k: _thaw(
            m, _last(m, 1 + e * k)
        ),
        "layers without parameters count; there is nothing in them to unfreeze": lambda m, e, k: (
            _bare_omitted(m, _thaw(m, _last_of_all(m, 1 + e // k)))
        ),
        "layers without parameters count and are returned; leave them out first": lambda m, e, k: _thaw(
            m, _last_of_all(m, 1 + e // k)
        ),
        "the layers come from the front; expected: from the end": lambda m, e, k: _thaw(
            m, _with_parameters(m)[: 1 + e // k]
        ),
        "the names come from the end to the front; expected: in the order of the model": lambda m, e, k: (
            _thaw(m, _last(m, 1 + e // k))[::-1]
        ),
        "these are the names of the frozen ones; expected: the trainable ones": lambda m, e, k: [
            name for name in _with_parameters(m) if name not in _thaw(m, _last(m, 1 + e // k))
        ],
        "what is not yet to be trained is left as it was; expected: frozen": lambda m, e, k: _thaw(
            m, _last(m, 1 + e // k), freeze=False
        ),
        "what is to be trained is left as it was; expected: switched on": lambda m, e, k: _thaw(
            m, _last(m, 1 + e // k), thaw=False
        ),
        "only the newest layer is trained; expected: all from there to the end": lambda m, e, k: _thaw(
            m, _last(m, 1 + e // k)[:1]
        ),
        "`fc_norm.weight` also begins with `fc`: ask for the name with a dot": lambda m, e, k: _thaw_by(
            m, _last(m, 1 + e // k), str.startswith
        ),
        "`old_fc.weight` also contains `fc`: ask how the name begins": lambda m, e, k: _thaw_by(
            m, _last(m, 1 + e // k), str.__contains__
        ),
    },
)
def unfreeze(model, epoch, every):
    return _thaw(model, _last(model, 1 + epoch // every))
