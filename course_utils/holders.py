"""Which names keep tensors alive: a walk from a program's names to the storages that they lead to."""

import gc
import inspect
import linecache
import re
import sys
import sysconfig
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

LIBRARIES = tuple(
    {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *(str(Path(file).parent) for file in (torch.__file__, __file__)),
        "<frozen",
    }
)
TRAINING = tuple(str(Path(file).parent) for file in (torch.__file__, __file__))
MACHINERY = ("IPython", "ipykernel", "traitlets", "zmq", "asyncio", "_pytest", "matplotlib", "logging")
COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>")  # functions of their own before Python 3.12
PLAIN = {type(None), bool, int, float, complex, str, bytes, *weakref.ProxyTypes}  # keep nothing alive
CONTAINERS = {dict, list, tuple, set, frozenset, deque}
MOST = 1_000_000  # objects that a search looks at
Name = tuple[str, Any, str]  # a name, what it stands for, and where
Step = tuple[Iterable[Any], str, int]  # objects, how they were reached, the number of the name


_libraries: dict[str, bool] = {}  # by file


def in_library(code: CodeType) -> bool:
    """Whether a function is one of PyTorch, Python, this course or another package, and not your own."""
    file = code.co_filename
    known = _libraries.get(file)
    if known is None:
        known = _libraries[file] = file.startswith(LIBRARIES) or "site-packages" in file
    return known


def line_of(frame: FrameType | None) -> tuple[CodeType, int] | None:
    """The line of your own code that runs now: the innermost one that is in no library."""
    while frame is not None:
        code = frame.f_code
        own = not _libraries.get(code.co_filename) and not in_library(code)
        if own and code.co_name not in COMPREHENSIONS:
            return code, frame.f_lineno
        frame = frame.f_back
    return None


def line_text(line: tuple[CodeType, int] | None) -> str:
    """A line as text, with no path: `train, line 5: loss.backward()`."""
    if line is None:
        return "backward"
    code, number = line
    source = linecache.getline(code.co_filename, number).strip()
    source = source if len(source) <= 60 else f"{source[:59]}…"
    name = "cell" if code.co_name == "<module>" else code.co_name
    return f"{name}, line {number}" + (f": {source}" if source else "")


def storages_of(tensor: torch.Tensor) -> list[torch.UntypedStorage]:
    """The storages in which a tensor's values lie: several if it is sparse, or wraps other tensors."""
    if isinstance(tensor, UninitializedTensorMixin):
        return []
    layout = tensor.layout
    if type(tensor) is not torch.Tensor and hasattr(tensor, "__tensor_flatten__"):
        parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    elif layout == torch.strided:
        return [tensor.untyped_storage()]
    elif layout == torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif layout in (torch.sparse_csc, torch.sparse_bsc):
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        return []  # an opaque layout, such as that of oneDNN
    return [storage for part in parts for storage in storages_of(part)]


def find_names(storages: set[int], frame: FrameType | None) -> dict[int, str]:
    """Return, for storages given by their addresses, the names that keep them alive.

    Names are looked for in your modules and in the functions that run, from `frame` outwards; then come
    the notebook's outputs and the last error. A model owns its parameters, buffers and their gradients, an
    optimiser its state; for anything else two names are given that hold it themselves, or, if there are
    none, that hold it by their autograd graph. The search looks at MOST objects, those nearest to a name
    first: of what lies behind them, as in a very large data set, no name is found.
    """
    owners: dict[int, str] = {}
    with _disable_current_modes():
        roots = list(_roots(frame))
        for owner in (nn.Module, Optimizer):
            for name, thing, where in roots:
                if issubclass(type(thing), owner):
                    for tensor in _owned(thing):
                        for storage in storages_of(tensor):
                            if storage._cdata in storages:
                                owners.setdefault(storage._cdata, name + where)
        rest = storages - owners.keys()
        found = _walk(roots, rest) if rest else {}
        roots = thing = None
    return {key: ", ".join(names) for key, names in found.items()} | owners


def tensors_in(thing: Any) -> Iterator[torch.Tensor]:
    """The tensors in an optimiser's state: in dictionaries and lists, or as they are."""
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, (dict, list, tuple)):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from tensors_in(part)


def _owned(thing: nn.Module | Optimizer) -> Iterator[torch.Tensor]:
    """A model's parameters, their gradients and its buffers; an optimiser's state, and what it optimises."""
    if isinstance(thing, nn.Module):
        tensors = [*thing.parameters(), *thing.buffers()]
    else:
        tensors = list(tensors_in([*thing.state.values()]))
        tensors += [parameter for group in thing.param_groups for parameter in group["params"]]
    for tensor in tensors:
        yield tensor
        if tensor.is_leaf and tensor.grad is not None:
            yield tensor.grad


# ----------------------------------------------------------------------------------- where to begin


def _roots(frame: FrameType | None) -> Iterator[Name]:
    """Names, what they stand for, and where: running functions, modules, the notebook, the last error."""
    while frame is not None:
        code = frame.f_code
        if not in_library(code) or code.co_filename.startswith(TRAINING):
            for name, value in _locals(frame):
                yield name, value, f" in {code.co_name}"
        frame = frame.f_back
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    hidden = {} if shell is None else shell.user_ns_hidden  # the shell's own names: In, exit, _i5, ...
    for module in list(sys.modules.values()):
        if issubclass(type(module), ModuleType) and _is_yours(module):
            for name, value in list(vars(module).items()):
                own = name in hidden and hidden[name] is value and module.__name__ == "__main__"
                if not own and not re.fullmatch(r"__\w+__", name):
                    yield name, value, ""
    if shell is not None:
        yield from _notebook(shell)
    for name in ("last_exc", "last_value", "last_traceback"):
        yield "", getattr(sys, name, None), ""
    yield "", sys.exception(), ""


def _locals(frame: FrameType) -> list[tuple[str, Any]]:
    """A function's variables; none if the frame is a module's or a class's: those are found by name."""
    if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return []
    variables = frame.f_locals
    items = list(variables.items())
    if isinstance(variables, dict):  # before Python 3.13 the frame keeps this copy, and all that is in it
        variables.clear()
    return items


def _is_yours(module: ModuleType) -> bool:
    name, file = vars(module).get("__name__"), vars(module).get("__file__")
    if not isinstance(file, str):
        return name == "__main__"  # a notebook's names are in a __main__ without a file
    return not file.startswith(LIBRARIES) and (name == "__main__" or "site-packages" not in file)


def _notebook(shell: Any) -> Iterator[Name]:
    """What IPython keeps: outputs, and the last error where `%debug` looks for it."""
    outputs = shell.user_ns.get("Out", {})
    yield from [(f"Out[{number}]", value, "") for number, value in outputs.items()]
    known = {id(value) for value in outputs.values()}
    for names in (shell.user_ns, shell.user_ns_hidden, vars(shell.displayhook)):
        for name, value in list(names.items()):  # `%reset out` leaves some of them
            if re.fullmatch(r"_{1,3}|_\d+", name) and id(value) not in known:
                yield name, value, ""
    tracer = getattr(shell, "InteractiveTB", None)
    yield "", getattr(tracer, "evalue", None), ""
    yield "", getattr(tracer, "tb", None), ""
    for name in ("botframe", "stopframe"):
        yield "%debug", getattr(getattr(tracer, "pdb", None), name, None), ""
    for result in (
        getattr(shell, "last_execution_result", None),
        getattr(getattr(shell, "displayhook", None), "exec_result", None),
    ):
        yield "", getattr(result, "error_in_exec", None), ""
        if getattr(result, "result", None) is not None:
            yield "the last result", result.result, ""


# ----------------------------------------------------------------------------------- the walk


def _walk(roots: list[Name], wanted: set[int]) -> dict[int, list[str]]:
    """Up to two names for each storage that is wanted: those nearest to it.

    All names are followed at once, and each object is looked at for the first two names that reach it.
    Graphs come last, so that what is held in a plain way is told so.
    """
    direct: deque[Step] = deque()
    graphs: deque[Step] = deque()
    places: list[str] = []
    numbers: dict[str, int] = {}
    for name, thing, where in roots:
        number = numbers.setdefault(name + where, len(places))
        places += [where] * (number == len(places))
        direct.append(((thing,), name, number))
    first: dict[int, int] = {}  # by the address of an object: the name that reached it first
    twice: set[int] = set()
    alive = []  # objects made on the way: their addresses must not be used again
    found: dict[int, dict[str, int]] = {}
    for queue, words in ((direct, ""), (graphs, "the graph of ")):
        left, named = MOST // 2, found.keys() | set()
        while queue and left > 0:
            things, label, number = queue.popleft()
            for thing in things:
                kind, address = type(thing), id(thing)
                if kind in PLAIN:
                    continue
                before = first.setdefault(address, -1)
                if before == number or address in twice or left == 0:
                    continue
                left -= 1
                if before == -1:
                    first[address] = number
                    alive.append(thing)
                else:
                    twice.add(address)
                if kind in CONTAINERS:
                    queue.append((gc.get_referents(thing), label, number))
                    continue
                try:
                    for key in _storages_at(thing) & wanted - named if label else ():
                        found.setdefault(key, {})[words + label + places[number]] = number
                    for child, inner, by_graph in _children(thing, label):
                        (graphs if by_graph else queue).append(((child,), inner, number))
                except Exception:  # noqa: BLE001 - an object that fails when it is asked, in any way
                    queue.append((gc.get_referents(thing), label, number))
    return {key: sorted(list(names)[:2], key=names.get) for key, names in found.items()}


def _storages_at(thing: Any) -> set[int]:
    """The addresses of the storages that an object itself is, or has as a tensor."""
    if issubclass(type(thing), torch.Tensor):
        return {storage._cdata for storage in storages_of(thing)}
    return {thing._cdata} if type(thing) is torch.UntypedStorage else set()


def _children(thing: Any, label: str) -> Iterator[tuple[Any, str, bool]]:
    """What an object keeps alive, as far as names of yours matter; how it is called; whether by a graph.

    Classes are compared by `type`: `isinstance` asks the object, and a lazy one may fail, or load.
    """
    kind = type(thing)
    if issubclass(kind, torch.Tensor):
        yield (thing.grad, label, False) if thing.is_leaf else (thing.grad_fn, label, True)
        yield thing._base if thing._is_view() else None, label, False
        hooks = getattr(thing, "_backward_hooks", None), getattr(thing, "_post_accumulate_grad_hooks", None)
        yield from ((hook, _hook(label), False) for hook in hooks)
        yield getattr(thing, "__dict__", None), label, False
    elif issubclass(kind, torch.autograd.graph.Node) or hasattr(kind, "next_functions"):
        yield from ((child, label, True) for child in _saved(thing))
    elif issubclass(kind, np.ndarray):
        yield thing.base, label, False
    elif issubclass(kind, nn.Module):
        for name, value in list(vars(thing).items()):
            if name == "_modules":
                yield from ((child, f"{label}.{key}", False) for key, child in value.items())
            elif name in ("_parameters", "_buffers"):
                yield value, label, False
            elif "_hooks" in name:
                yield value, _hook(label), False
            else:
                yield value, f"{label}.{name}", False
    elif issubclass(kind, (BaseException, TracebackType, FrameType)):
        yield from _of_error(thing, label)
    elif issubclass(kind, FunctionType):
        inner = label if label.startswith(("a hook", "the closure")) else f"the closure of {label}"
        yield from ((cell, inner, False) for cell in thing.__closure__ or ())
        for value in (thing.__defaults__, thing.__kwdefaults__, thing.__dict__):
            yield value, label, False
    elif issubclass(kind, type):
        if thing.__module__ in sys.modules and _is_yours(sys.modules[thing.__module__]):
            for name, value in list(vars(thing).items()):
                yield value, f"{label}.{name}", False
    elif not issubclass(kind, (ModuleType, CodeType)) and not _is_machinery(kind):
        attributes = getattr(thing, "__dict__", None)
        if type(attributes) is dict and label.count(".") < 4:
            for name, value in list(attributes.items()):
                yield value, f"{label}.{name}" if label else "", False
        yield from ((child, label, False) for child in gc.get_referents(thing))


def _hook(label: str) -> str:
    return label if label.startswith("a hook") else f"a hook of {label}"


def _is_machinery(kind: type) -> bool:
    """Whether objects of a class belong to the shell, to this tool or the like, and lead to everything."""
    name = str(kind.__module__)
    return name.partition(".")[0] in MACHINERY or name == "course_utils.meter"


def _of_error(thing: Any, label: str) -> Iterator[tuple[Any, str, bool]]:
    """An error holds its traceback, that holds frames, and those hold their variables."""
    if issubclass(type(thing), BaseException):
        label = label or _error_label(thing.__traceback__)
        for part in (thing.__traceback__, thing.__cause__, thing.__context__, thing.args, thing.__dict__):
            yield part, label, False
    elif isinstance(thing, TracebackType):
        label = label or _error_label(thing)
        yield thing.tb_frame, label, False
        yield thing.tb_next, label, False
    elif not in_library(thing.f_code) or thing.f_code.co_filename.startswith(TRAINING):
        yield from ((value, label, False) for _, value in _locals(thing))


def _error_label(traceback: TracebackType | None) -> str:
    """The innermost line of your code in a traceback: `the last error (train, line 5)`."""
    place = ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not in_library(code):
            name = "cell" if code.co_name == "<module>" else code.co_name
            place = f" ({name}, line {traceback.tb_lineno})"
        traceback = traceback.tb_next
    return f"the last error{place}"


@cache
def _saved_names(kind: type) -> tuple[str, ...]:
    return tuple(name for name in dir(kind) if name.startswith("_raw_saved"))


def _saved(node: Any) -> Iterator[Any]:
    """What a node of an autograd graph keeps: the nodes before it and saved tensors, not unpacked.

    To unpack would run hooks, such as those by which activation checkpointing computes anew.
    """
    yield from (before for before, _ in node.next_functions)
    for name in _saved_names(type(node)):
        try:
            saved = getattr(node, name)
        except RuntimeError:  # freed by a backward pass
            continue
        for part in saved if isinstance(saved, (list, tuple)) else (saved,):
            try:
                yield getattr(part, "data", None)
            except RuntimeError:
                continue
    yield getattr(node, "__dict__", None)
    if hasattr(node, "variable"):
        yield node.variable
