"""Which names keep tensors alive: a walk from a program's names to the storages that they lead to."""

import gc
import inspect
import linecache
import sys
import sysconfig
import weakref
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes, is_traceable_wrapper_subclass

TRAINING = tuple(str(Path(file).parent) for file in (torch.__file__, __file__))
PATHS = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
LIBRARIES = (*TRAINING, *PATHS, "<frozen")
MACHINERY = (
    "IPython.",
    "ipykernel.",
    "traitlets.",
    "zmq.",
    "asyncio.",
    "_pytest.",
    "matplotlib.",
    "logging.",
)
MACHINERY += ("course_utils.meter.",)  # objects from there lead to everything
PLAIN = {type(None), bool, int, float, complex, str, bytes, CodeType, *weakref.ProxyTypes}  # lead nowhere
CONTAINERS = {dict, list, tuple, set, frozenset, deque}
SPARSE = {torch.sparse_coo: ("_indices", "_values")}
SPARSE |= dict.fromkeys((torch.sparse_csr, torch.sparse_bsr), ("crow_indices", "col_indices", "values"))
SPARSE |= dict.fromkeys((torch.sparse_csc, torch.sparse_bsc), ("ccol_indices", "row_indices", "values"))
OWNED = {  # what is held by an owner first of all, whatever else holds it
    nn.Module: lambda model: [*model.parameters(), *model.buffers()],
    Optimizer: lambda optimizer: [optimizer.state, optimizer.param_groups],
}
MOST = 1_000_000  # objects that a search looks at


@cache
def in_library(file: str) -> bool:
    """Whether a file of code is one of PyTorch, Python, this course or another package, and not your own."""
    return file.startswith(LIBRARIES) or "site-packages" in file


def line_of(frame: FrameType | None) -> tuple[CodeType, int] | None:
    """The line of your own code that runs now: the innermost one that is in no library."""
    while frame is not None:
        code = frame.f_code
        if not in_library(code.co_filename) and not code.co_name.endswith("comp>"):  # <listcomp> in 3.11
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
    if is_traceable_wrapper_subclass(tensor):
        parts = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
    elif tensor.layout == torch.strided:
        return [] if isinstance(tensor, UninitializedTensorMixin) else [tensor.untyped_storage()]
    else:  # none for a layout that is opaque, such as that of oneDNN
        parts = [getattr(tensor, name)() for name in SPARSE.get(tensor.layout, ())]
    return [storage for part in parts for storage in storages_of(part)]


def error_places() -> Iterator[tuple[Any, str]]:
    """Where Python and IPython keep the last error: objects, and the names of their attributes."""
    places = list(product([sys], ("last_exc", "last_type", "last_value", "last_traceback")))
    if (shell := _shell()) is not None:
        tracers, results = (shell.InteractiveTB, shell.SyntaxTB), _results(shell)
        places += product(tracers, ("tb", "etype", "evalue", "last_syntax_error", "pdb"))
        places += product(results, ("error_in_exec", "error_before_exec"))
    return ((place, name) for place, name in places if getattr(place, name, None) is not None)


def find_names(storages: set[int], frame: FrameType | None) -> dict[int, str]:
    """Return, for storages given by their addresses, a name that keeps each alive, or "?".

    Names are looked for in the functions that run, from `frame` outwards, and in your modules; then come
    the notebook's outputs and the last error. A model owns its parameters, buffers and gradients, an
    optimizer its state; anything else goes by the name that is nearest. What only an autograd graph keeps
    comes last, so that what is held in a plain way is told so. The search looks at MOST objects, and a
    "?" says so if there were more.
    """
    unknown = "?"
    found: dict[int, str] = {}
    seen: dict[int, Any] = {}  # by address; objects made on the way stay, so that no address comes twice
    direct, graphs = deque(), deque()  # of (objects, how they were reached, where)
    with _disable_current_modes():
        roots = list(_roots(frame))
        for kind, owned in OWNED.items():
            owners = [root for root in roots if issubclass(type(root[1]), kind)]
            direct += [(owned(thing), name, where) for name, thing, where in owners]
        direct += [((thing,), name, where) for name, thing, where in roots]
        for most, queue in ((MOST // 2, direct), (MOST, graphs)):
            while queue:
                things, label, where = queue.popleft()
                for thing in things:
                    kind = type(thing)
                    if kind in PLAIN or id(thing) in seen or len(seen) >= most:
                        continue
                    seen[id(thing)] = thing
                    if kind in CONTAINERS:
                        queue.append((gc.get_referents(thing), label, where))
                        continue
                    try:
                        for storage in storages_of(thing) if issubclass(kind, torch.Tensor) else ():
                            found.setdefault(storage._cdata, label + where)
                        for child, inner in _children(thing, label):
                            (graphs if "the graph of" in inner else queue).append(((child,), inner, where))
                    except Exception:  # noqa: BLE001 - an object that fails when it is asked, in any way
                        queue.append((gc.get_referents(thing), label, where))
            if len(seen) >= most:
                unknown = "? (too much to search)"
    return {key: found.get(key, unknown) for key in storages}


# ----------------------------------------------------------------------------------- where to begin


def _roots(frame: FrameType | None) -> Iterator[tuple[str, Any, str]]:
    """Names, what they stand for, and where: running functions, modules, the notebook, the last error."""
    while frame is not None:
        for name, value in _variables(frame).items():
            yield name, value, f" in {frame.f_code.co_name}"
        frame = frame.f_back
    shell = _shell()
    hidden = {} if shell is None else shell.user_ns_hidden  # the shell's own names: In, exit, _5, ...
    for module in list(sys.modules.values()):
        if issubclass(type(module), ModuleType) and _is_yours(module):
            for name, value in list(vars(module).items()):
                if name != "__builtins__" and hidden.get(name) is not value:
                    yield name, value, ""
    if shell is not None:
        last = [(name, getattr(shell.displayhook, name, None)) for name in ("_", "__", "___")]
        outputs = [(f"Out[{number}]", value) for number, value in shell.user_ns.get("Out", {}).items()]
        results = [("the last result", getattr(result, "result", None)) for result in _results(shell)]
        yield from ((name, value, "") for name, value in [*outputs, *hidden.items(), *last, *results])
    errors = [sys.exception(), *(getattr(place, name) for place, name in error_places())]
    yield from ((_error_label(error), error, "") for error in errors)


def _shell() -> Any:
    return sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None


def _results(shell: Any) -> tuple[Any, Any]:
    return getattr(shell, "last_execution_result", None), getattr(shell.displayhook, "exec_result", None)


def _variables(frame: FrameType) -> dict[str, Any]:
    """A function's variables; none of modules and classes, that are found by name, and of other libraries."""
    file = frame.f_code.co_filename
    yours = not in_library(file) or file.startswith(TRAINING)
    if not yours or not frame.f_code.co_flags & inspect.CO_OPTIMIZED:
        return {}
    variables = dict(frame.f_locals)
    if sys.version_info < (3, 13):  # the frame keeps the dictionary, and all that is in it
        frame.f_locals.clear()
    return variables


def _is_yours(module: ModuleType) -> bool:
    file = vars(module).get("__file__")  # a notebook's names are in a __main__ without a file
    return module.__name__ == "__main__" or (isinstance(file, str) and not in_library(file))


def _error_label(error: BaseException | TracebackType | None) -> str:
    """The innermost line of your code in a traceback: `the last error (train, line 5)`."""
    place, traceback = "", getattr(error, "__traceback__", error)
    while isinstance(traceback, TracebackType):
        code = traceback.tb_frame.f_code
        if not in_library(code.co_filename):
            place = f" ({line_text((code, traceback.tb_lineno)).partition(':')[0]})"
        traceback = traceback.tb_next
    return f"the last error{place}"


# ----------------------------------------------------------------------------------- the walk


def _children(thing: Any, label: str) -> Iterator[tuple[Any, str]]:
    """What an object keeps alive, as far as names of yours matter, and how it is called.

    Classes are compared by `type`: `isinstance` asks the object, and a lazy one may fail, or load.
    """
    kind = type(thing)
    if issubclass(kind, torch.Tensor):
        yield (thing.grad, label) if thing.is_leaf else (thing.grad_fn, _of("the graph", label))
        yield (thing._base, thing.__dict__), label
        yield (thing._backward_hooks, thing._post_accumulate_grad_hooks), _of("a hook", label)
    elif issubclass(kind, torch.autograd.graph.Node) or hasattr(kind, "next_functions"):
        yield from ((child, _of("the graph", label)) for child in _saved(thing))
    elif issubclass(kind, np.ndarray):
        yield thing.base, label
    elif issubclass(kind, nn.Module):
        for name, value in [*thing._modules.items(), *vars(thing).items()]:
            own = label if name in ("_parameters", "_buffers") else f"{label}.{name}"
            yield value, _of("a hook", label) if "_hooks" in name else own
    elif issubclass(kind, FrameType):
        yield _variables(thing), label
    elif issubclass(kind, FunctionType):
        yield thing.__closure__, label if "a hook of" in label else _of("the closure", label)
        yield (thing.__defaults__, thing.__kwdefaults__, thing.__dict__), label
    elif issubclass(kind, type):
        module = sys.modules.get(thing.__module__)
        if module is not None and _is_yours(module):
            yield from ((value, f"{label}.{name}") for name, value in vars(thing).items())
    elif not issubclass(kind, ModuleType) and not f"{kind.__module__}.".startswith(MACHINERY):
        attributes = getattr(thing, "__dict__", None)
        if type(attributes) is dict and label.count(".") < 4:
            yield from ((value, f"{label}.{name}") for name, value in list(attributes.items()))
        yield gc.get_referents(thing), label


def _of(what: str, label: str) -> str:
    return label if f"{what} of" in label else f"{what} of {label}"


def _saved(node: Any) -> Iterator[Any]:
    """What a node of an autograd graph keeps: the nodes before it and saved tensors, not unpacked.

    To unpack would run hooks, such as those by which activation checkpointing computes anew.
    """
    yield from (before for before, _ in node.next_functions)
    for name in _saved_names(type(node)):
        try:
            saved = getattr(node, name)
            yield [part.data for part in (saved if isinstance(saved, (list, tuple)) else (saved,))]
        except RuntimeError:  # freed by a backward pass
            continue
    yield getattr(node, "__dict__", None), getattr(node, "variable", None)


@cache
def _saved_names(kind: type) -> list[str]:
    return [name for name in dir(kind) if name.startswith("_raw_saved")]
