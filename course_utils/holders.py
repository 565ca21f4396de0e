"""Which names keep tensors alive: a walk from a program's names to the storages that they lead to."""

import gc
import inspect
import linecache
import re
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator
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
SHELL = re.compile(r"_+|_\d+|_i+\d*|_oh|_dh|_ih|_exit_code|In|Out|exit|quit|get_ipython|__\w+__")
MACHINERY = ("IPython", "ipykernel", "traitlets", "zmq", "asyncio", "_pytest", "matplotlib", "logging")
COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>")  # functions of their own before Python 3.12
MOST = 300_000  # objects that one walk looks at
Step = tuple[Any, str, bool]  # an object, how it was reached, and whether through an autograd graph


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
    optimiser its state; for anything else the first two names are given that hold it themselves, or,
    if there are none, that hold it by their autograd graph.
    """
    owners: dict[int, str] = {}
    direct: dict[int, dict[str, None]] = {}  # dictionaries serve as sets that keep their order
    graphs: dict[int, dict[str, None]] = {}
    with _disable_current_modes():
        roots = list(_roots(frame))
        for owner in (nn.Module, Optimizer):
            for name, thing, where in roots:
                if isinstance(thing, owner):
                    for tensor in _owned(thing):
                        for key in _keys(tensor):
                            if key in storages:
                                owners.setdefault(key, name + where)
        rest = storages - owners.keys()
        for root, thing, where in roots if rest else ():
            for key, name, by_graph in _walk(thing, root, rest):
                (graphs if by_graph else direct).setdefault(key, {})[name + where] = None
        roots = thing = None
    for key, names in (graphs | direct).items():
        owners[key] = ", ".join([name for name in names if name][:2])
    return owners


def _owned(thing: nn.Module | Optimizer) -> Iterator[torch.Tensor]:
    """A model's parameters, their gradients and its buffers; an optimiser's state, and what it optimises."""
    if isinstance(thing, nn.Module):
        tensors = [*thing.parameters(), *thing.buffers()]
    else:
        states = [value for state in thing.state.values() for value in state.values()]
        tensors = [tensor for tensor in states if isinstance(tensor, torch.Tensor)]
        tensors += [parameter for group in thing.param_groups for parameter in group["params"]]
    for tensor in tensors:
        yield tensor
        if tensor.is_leaf and tensor.grad is not None:
            yield tensor.grad


def _keys(tensor: torch.Tensor) -> list[int]:
    """The addresses of a tensor's storages."""
    return [storage._cdata for storage in storages_of(tensor)]


# ----------------------------------------------------------------------------------- where to begin


def _roots(frame: FrameType | None) -> Iterator[tuple[str, Any, str]]:
    """Names, what they stand for, and where: running functions, modules, the notebook, the last error."""
    while frame is not None:
        code = frame.f_code
        if not in_library(code) or code.co_filename.startswith(TRAINING):
            for name, value in _locals(frame):
                yield name, value, f" in {code.co_name}"
        frame = frame.f_back
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and _is_yours(module):
            for name, value in list(vars(module).items()):
                if not SHELL.fullmatch(name):
                    yield name, value, ""
    yield from _notebook()
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
    file = getattr(module, "__file__", None)
    if module.__name__ == "__main__":
        return file is None or not file.startswith(LIBRARIES)  # a notebook's names are in a __main__
    return file is not None and not file.startswith(LIBRARIES) and "site-packages" not in file


def _notebook() -> Iterator[tuple[str, Any, str]]:
    """What IPython keeps: outputs, and the last error where `%debug` looks for it."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    names = shell.user_ns
    outputs = names.get("Out", {})
    for number, value in outputs.items():
        yield f"Out[{number}]", value, ""
    for name in ("_", "__", "___"):
        if not any(names.get(name) is value for value in outputs.values()):
            yield name, names.get(name), ""
    tracer = getattr(shell, "InteractiveTB", None)
    yield "", getattr(tracer, "evalue", None), ""
    yield "", getattr(tracer, "tb", None), ""
    for result in (
        getattr(shell, "last_execution_result", None),
        getattr(getattr(shell, "displayhook", None), "exec_result", None),
    ):
        yield "", getattr(result, "error_in_exec", None), ""
        if getattr(result, "result", None) is not None:
            yield "the last result", result.result, ""


# ----------------------------------------------------------------------------------- the walk


def _walk(thing: Any, label: str, wanted: set[int]) -> Iterator[tuple[int, str, bool]]:
    """What an object leads to, nearest first: the storages that are wanted, each once."""
    queue: deque[Step] = deque([(thing, label, False)])
    graphs: deque[Step] = deque()  # later, so that what is held in a plain way is told so
    seen = {id(queue), id(graphs)}
    alive = []  # objects made on the way: their ids must not be used again
    while (queue or graphs) and len(seen) < MOST:
        thing, label, by_graph = (queue or graphs).popleft()
        if id(thing) in seen or thing is None or isinstance(thing, (int, float, str, bytes)):
            continue
        seen.add(id(thing))
        alive.append(thing)
        if isinstance(thing, torch.Tensor):
            for key in _keys(thing):
                if key in wanted:
                    yield key, f"the graph of {label}" if by_graph else label, by_graph
        for child in _children(thing, label, by_graph):
            (graphs if child[2] else queue).append(child)


def _children(thing: Any, label: str, by_graph: bool) -> Iterator[Step]:
    """What an object keeps alive, as far as names of yours matter."""
    if isinstance(thing, torch.Tensor):
        if thing.is_leaf:
            yield thing.grad, label, by_graph
        else:
            yield thing.grad_fn, label, True
        yield thing._base if thing._is_view() else None, label, by_graph
        hooks = getattr(thing, "_backward_hooks", None), getattr(thing, "_post_accumulate_grad_hooks", None)
        yield from ((hook, _hook(label), by_graph) for hook in hooks)
        yield getattr(thing, "__dict__", None), label, by_graph
    elif isinstance(thing, torch.autograd.graph.Node):
        yield from ((child, label, True) for child in _saved(thing))
    elif isinstance(thing, np.ndarray):
        yield thing.base, label, by_graph
    elif isinstance(thing, nn.Module):
        for name, value in vars(thing).items():
            if name == "_modules":
                yield from ((child, f"{label}.{key}", by_graph) for key, child in value.items())
            elif name in ("_parameters", "_buffers"):
                yield value, label, by_graph
            elif "_hooks" in name:
                yield value, _hook(label), by_graph
            else:
                yield value, f"{label}.{name}", by_graph
    elif isinstance(thing, (BaseException, TracebackType, FrameType)):
        yield from _of_error(thing, label, by_graph)
    elif isinstance(thing, FunctionType):
        for cell in thing.__closure__ or ():
            inner = label if label.startswith(("a hook", "the closure")) else f"the closure of {label}"
            yield cell, inner, by_graph
        for value in (thing.__defaults__, thing.__kwdefaults__, thing.__dict__):
            yield value, label, by_graph
    elif isinstance(thing, type):
        if thing.__module__ in sys.modules and _is_yours(sys.modules[thing.__module__]):
            for name, value in list(vars(thing).items()):
                yield value, f"{label}.{name}", by_graph
    elif not isinstance(thing, (ModuleType, CodeType)) and not _is_machinery(thing):
        attributes = getattr(thing, "__dict__", None)
        if isinstance(attributes, dict) and label.count(".") < 4:
            for name, value in attributes.items():
                yield value, f"{label}.{name}" if label else "", by_graph
        yield from ((child, label, by_graph) for child in gc.get_referents(thing))


def _hook(label: str) -> str:
    return label if label.startswith("a hook") else f"a hook of {label}"


def _is_machinery(thing: Any) -> bool:
    """Whether an object belongs to the shell, to this tool or the like, and leads to everything."""
    name = type(thing).__module__ or ""
    return name.partition(".")[0] in MACHINERY or name == "course_utils.memory"


def _of_error(thing: Any, label: str, by_graph: bool) -> Iterator[Step]:
    """An error holds its traceback, that holds frames, and those hold their variables."""
    if isinstance(thing, BaseException):
        label = label or _error_label(thing.__traceback__)
        for part in (thing.__traceback__, thing.__cause__, thing.__context__, thing.args, thing.__dict__):
            yield part, label, by_graph
    elif isinstance(thing, TracebackType):
        label = label or _error_label(thing)
        yield thing.tb_frame, label, by_graph
        yield thing.tb_next, label, by_graph
    elif not in_library(thing.f_code) or thing.f_code.co_filename.startswith(TRAINING):
        yield from ((value, label, by_graph) for _, value in _locals(thing))


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
