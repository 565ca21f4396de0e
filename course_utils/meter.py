"""Counting the bytes of live tensors: the meter of `course_utils.memory`.

`MemoryMeter` stands between PyTorch and its operations (a dispatch mode): after each operation it looks
at the tensors that went in and came out, and counts each storage that it has not met yet. A weak
reference to the storage tells it when the bytes are free again. Views share a storage, so they count once.
What a kernel needs only while it runs, and what PyTorch's allocators keep in reserve, is not counted.
"""

import math
import os
import re
import sys
import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import count, takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode,
    _get_current_dispatch_mode_stack,
)

from course_utils.device import get_device
from course_utils.holders import find_names, line_of, line_text, storages_of

KINDS = ("parameters", "gradients", "optimizer state", "activations", "inputs", "other")
PARAMETERS, GRADIENTS, STATE, ACTIVATIONS, INPUTS, OTHER = KINDS
HISTORY = 200_000  # changes that a meter remembers
WIDTH = 110  # characters of a table's lines
UNITS = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
Tensor = torch._C.TensorBase  # what all tensors are; quicker to test for than torch.Tensor
backward_pass = torch._C._current_graph_task_id  # its number, or -1 outside of backward passes
ones_like = torch.ops.aten.ones_like.default


def format_bytes(number: int) -> str:
    """Return a number of bytes as text, in the largest binary unit that it fills: 5505024 → "5.25 MiB"."""
    for unit, size in UNITS.items():
        if abs(number) >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number} bytes"


def parse_bytes(text: str | int) -> int:
    """Return "64 MiB" as a number of bytes, 67108864; "2 kB" are 2000, and a number stays as it is.

    Raises:
        ValueError: the text is no positive number with a unit, or the number is not positive.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([KMGT]?)(I?)B|BYTES)?", str(text).strip().upper())
    size = float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2] or " ") if match else 0
    if size < 1:
        raise ValueError(f"{text!r} is no size: write a number and a unit, such as '64 MiB' or '1.5 GiB'.")
    return int(size)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: PyTorch's own, or what CPUs, GPUs and Macs say."""
    words = ("out of memory", "can't allocate memory", "alloc_failed")
    told = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    return told or isinstance(error, (torch.OutOfMemoryError, MemoryError))


class Holder(NamedTuple):
    """Bytes that stand together in a meter's table: tensors of one kind, made by one line."""

    bytes: int
    tensors: int
    kind: str
    module: str
    held_by: str
    line: str


class _Record(weakref.ref):
    """A storage with the size that it has: born and freed (or infinite) are numbers of changes."""

    __slots__ = ("born", "bytes", "freed", "key", "kind", "line", "module")


class MemoryMeter(TorchDispatchMode):
    """Count the bytes of tensors on one kind of device, while they live, for `with MemoryMeter() as meter:`.

    Counted is what operations inside the block make or use: a tensor from before the block counts from
    its first use, or at once after `watch`. Tensors that outlive the block are followed further: `live`
    falls when they are freed. Only operations of the thread that entered the block (and of the backward
    passes that it starts) are seen. Not seen is what PyTorch makes without an operation until one uses it,
    such as a generator's state, and the 8 bytes of a number that a graph keeps for `x * 3`. Functions
    compiled by `torch.compile` run uncompiled in the block.

    Args:
        device: the device to count on, such as "cpu" or "cuda:0"; default: that of `get_device()`.
        limit: the most bytes that may be live, as a number or a text such as "64 MiB"; see `memory_budget`.

    Attributes:
        live, peak: bytes now, and the largest that `live` was since the start or `reset_peak`.
        marks: pairs (label, place): what was marked, and its row in `timeline`.

    Raises:
        RuntimeError: on entering a meter that is already counting.
        torch.OutOfMemoryError: inside the block, from an operation whose result would pass the limit.
    """

    supports_higher_order_operators = True

    def __init__(self, device: torch.device | str | None = None, limit: str | int | None = None) -> None:
        super().__init__()
        self.device = get_device() if device is None else torch.device(device)
        self.limit = None if limit is None else parse_bytes(limit)
        self.live = self.peak = 0
        self.marks: list[tuple[str, int]] = []
        self._time = 0  # how many changes there were
        self._peak_at = 0
        self._end: int | None = 0  # the time at the end of the block, or None in it
        self._records: dict[int, _Record] = {}  # what lives, by the address of the storage
        self._history: list[_Record] = []  # the same, and what is freed
        self._leaves: weakref.WeakValueDictionary[int, torch.Tensor] = weakref.WeakValueDictionary()
        self._names: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._stack: list[nn.Module] = []  # those whose forward runs
        self._task = -1  # the backward pass of the last operation
        self._undo = ExitStack()
        self._process = os.getpid()
        self._only_fake = False

    # ------------------------------------------------------------------------------- entering and leaving

    def __enter__(self) -> "MemoryMeter":
        if self._end is None:
            raise RuntimeError(
                "this meter is counting already: make a second MemoryMeter() inside the first."
            )
        self._thread = threading.get_ident()
        with ExitStack() as undo:  # undone at once if the device refuses
            for handle in (
                module_hooks.register_module_forward_pre_hook(self._enter_module),
                module_hooks.register_module_forward_hook(self._leave_module, always_call=True),
                module_hooks.register_module_parameter_registration_hook(self._registered),
                module_hooks.register_module_buffer_registration_hook(self._registered),
                register_optimizer_step_post_hook(self._after_step),
            ):
                undo.callback(handle.remove)
            if self.limit is not None and self.device.type == "cuda":
                before = torch.cuda.get_per_process_memory_fraction(self.device)
                torch.cuda.empty_cache()
                total = torch.cuda.get_device_properties(self.device).total_memory
                room = torch.cuda.memory_reserved(self.device) + self.limit
                torch.cuda.set_per_process_memory_fraction(min(room / total, before), self.device)
                undo.callback(torch.cuda.set_per_process_memory_fraction, before, self.device)
            self._undo = undo.pop_all()
        self._end = None
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        self._undo.close()
        self._stack.clear()
        self._find_gradients()
        self._end = self._time
        above = []  # modes that were entered later and not left, as by a generator that waits
        while (mode := _get_current_dispatch_mode()) is not None and mode is not self:
            above.append(mode)
            mode.__exit__(None, None, None)
        super().__exit__(*error)
        for mode in reversed(above):
            TorchDispatchMode.__enter__(mode)

    # ------------------------------------------------------------------------------- counting

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        try:
            if self.limit is not None:  # what goes in first: nothing is done in place if it does not fit
                self._look(func, args, kwargs, None)
            result = func(*args, **kwargs) if kwargs else func(*args)
            self._look(func, args, kwargs, result)
            return result
        except (RuntimeError, MemoryError) as error:
            args = kwargs = result = None  # its traceback must keep no tensor alive here
            if self.limit is None or not is_out_of_memory(error):
                raise
            message = str(error) or "out of memory"
        raise torch.OutOfMemoryError(message)  # a new one, without the frames of this class

    def _look(self, func: Callable, args: Sequence[Any], kwargs: dict | None, result: Any) -> None:
        """Count what is new among the tensors of an operation."""
        task = backward_pass()
        if task != self._task:
            if self._task != -1:
                self._find_gradients()
            self._task = task
        derived = graph = False
        met = self._met
        for tensor in _tensors((*args, *kwargs.values()) if kwargs else args):
            record = met(tensor) or self._add(tensor, INPUTS if task == -1 else OTHER)
            if record is not None and record.kind is not INPUTS:
                derived = True
            if tensor.requires_grad:
                graph = torch.is_grad_enabled()
                if tensor.is_leaf and id(tensor) not in self._leaves:
                    self._leaves[id(tensor)] = tensor
                    if isinstance(tensor, nn.Parameter):
                        self._label(tensor, PARAMETERS)
        if args and result is args[0]:
            return  # in place: it has been looked at
        for tensor in (result,) if isinstance(result, Tensor) else _tensors((result,)):
            if met(tensor) is None:
                saved = graph and func is not ones_like  # with which a backward pass starts
                kind = OTHER if derived or task != -1 else INPUTS
                self._add(tensor, ACTIVATIONS if saved or self._stack else kind)

    def _met(self, tensor: torch.Tensor) -> _Record | None:
        """The record of a tensor's storage, if it is known with the size that it has."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError, ValueError):  # sparse: it has several; lazy: none yet
            return None
        record = self._records.get(storage._cdata)
        return record if record is not None and record.bytes == storage.nbytes() else None

    def _add(self, tensor: torch.Tensor, kind: str, module: str = "") -> _Record | None:
        """Count a tensor's storages that are new or changed their size; return the last one's record."""
        record = None
        if not _is_on(self.device, tensor.device) or (self._only_fake and not hasattr(tensor, "fake_mode")):
            return None
        for storage in storages_of(tensor):
            key, size = storage._cdata, storage.nbytes()
            record = self._records.get(key)
            change = size - (record.bytes if record is not None else 0)
            if change == 0:
                continue
            limit = self.limit if self.limit is not None and os.getpid() == self._process else math.inf
            refused = change > 0 and self.live + change > limit  # never in a copy in a loader's worker
            if refused and record is None:
                raise torch.OutOfMemoryError(self._message(size))
            if record is not None:  # it has grown or shrunk in place, as by resize_, and stays so
                self._freed(record)
            record = self._records[key] = _Record(storage, self._freed)
            self._history.append(record)
            self._time += 1
            record.key, record.bytes, record.kind = key, size, kind
            record.born, record.freed, record.line = self._time, math.inf, line_of(sys._getframe(2))
            record.module = module or (self._names.get(self._stack[-1], "") if self._stack else "")
            self.live += size
            if self.live > self.peak:
                self.reset_peak()
            if refused:
                raise torch.OutOfMemoryError(self._message(change))
            if self._time > HISTORY:
                self._forget(HISTORY // 2)
        return record

    def _freed(self, record: _Record) -> None:
        if self._records.get(record.key) is record:
            del self._records[record.key]
            self._time += 1
            record.freed = self._time
            self.live -= record.bytes

    def _forget(self, number: int) -> None:
        """Forget the first changes, but not the peak: no history of a long training must fill the memory."""
        peak = self._peak_at
        self._history = [r for r in self._history if r.freed > number or r.born <= peak < r.freed]
        for record in self._history:
            record.born -= number
            record.freed -= number
        self._time -= number
        self._peak_at -= number
        self.marks = [(label, place - number) for label, place in self.marks if place >= number]

    def _message(self, size: int) -> str:
        kind, most = max(self.by_kind().items(), key=lambda item: item[1])
        share = f", {format_bytes(most)} of it {kind}" if most else ""
        free = max(self.limit - self.live, 0)
        return (
            f"{self.device.type.upper()} out of memory. Tried to allocate {format_bytes(size)}. "
            f"The budget is {format_bytes(self.limit)}, of which {format_bytes(free)} is free. "
            f"{format_bytes(self.live)} is in use by live tensors{share}."
        )

    # ------------------------------------------------------------------------------- what a storage is

    def _label(self, tensor: torch.Tensor, kind: str, module: str = "", add: bool = True) -> None:
        """Say for certain what a tensor is, for the past as well; count it if it is new."""
        record = self._met(tensor)
        if record is None and add:
            self._add(tensor, kind, module)
        found = (record,) if record else [self._records.get(each._cdata) for each in storages_of(tensor)]
        for record in found:
            if record is not None:
                record.kind, record.module = kind, module or record.module

    def _module_of(self, tensor: Any) -> str:
        record = self._met(tensor) if isinstance(tensor, Tensor) else None
        return "" if record is None else record.module

    def _find_gradients(self, leaves: Iterable[torch.Tensor] | None = None, add: bool = False) -> None:
        for leaf in list(self._leaves.values()) if leaves is None else leaves:
            if leaf.grad is not None:
                self._label(leaf.grad, GRADIENTS, self._module_of(leaf), add)

    def _counts_here(self) -> bool:
        """Whether the meter counts the operations of this thread: hooks are called in all of them."""
        return threading.get_ident() == self._thread or self in _get_current_dispatch_mode_stack()

    def _enter_module(self, module: nn.Module, args: tuple) -> None:
        if self._counts_here():
            if not self._stack and module not in self._names:
                self._name(module)
            self._stack.append(module)
            self._know(module)

    def _leave_module(self, module: nn.Module, args: tuple, result: Any) -> None:
        if self._counts_here() and module in self._stack:
            self._stack.pop()

    def _know(self, module: nn.Module) -> None:
        """Count the parameters and buffers that the module itself has."""
        name = self._names.get(module, "")
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                self._label(tensor, PARAMETERS, name)

    def _name(self, root: nn.Module) -> None:
        """Name the modules of a model as it does itself; the model after its class."""
        own = {name: module for name, module in root.named_modules() if name}
        used = set(self._names.values())
        titles = (type(root).__name__ + (f" {number}" if number > 1 else "") for number in count(1))
        title = next(title for title in titles if title not in used)
        prefix = "" if used.isdisjoint(own) else f"{title}."
        self._names.update({module: prefix + name for name, module in own.items()} | {root: title})

    def _registered(self, module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        if tensor is not None:
            self._label(tensor, PARAMETERS, add=False)

    def _after_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        if self._counts_here():
            self._stack.clear()  # no step lies in a module: what is left there was interrupted
            self._know_state(optimizer)

    def _know_state(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                self._label(parameter, PARAMETERS, add=False)
            self._find_gradients(group["params"])
        for parameter, state in list(optimizer.state.items()):
            module = self._module_of(parameter)
            for tensor in _tensors([state]):
                self._label(tensor, STATE, module)

    # ------------------------------------------------------------------------------- questions

    def watch(self, *things: nn.Module | Optimizer | torch.Tensor) -> None:
        """Count at once what exists already: models, optimizers (with their state), tensors.

        Raises:
            TypeError: one of the things is something else.
            torch.OutOfMemoryError: they pass the limit.
        """
        for thing in things:
            if isinstance(thing, nn.Module):
                if thing not in self._names:
                    self._name(thing)
                for module in thing.modules():
                    self._know(module)
                self._find_gradients(thing.parameters(), add=True)
            elif isinstance(thing, Optimizer):
                self._know_state(thing)
            elif isinstance(thing, torch.Tensor):
                self._add(thing, INPUTS)
            else:
                raise TypeError(f"watch got a {type(thing).__name__}: give modules, optimizers and tensors.")

    def mark(self, label: str) -> None:
        """Set a labelled mark on the timeline, here and now."""
        self._find_gradients()
        self.marks.append((label, self._time))

    def reset_peak(self) -> None:
        """Set `peak` to what is live now."""
        self.peak, self._peak_at = self.live, self._time

    @property
    def timeline(self) -> np.ndarray:
        """The live bytes by kind: at the start, then after each change; (changes + 1, 6) int64.

        Column k is of KINDS[k]. Very long runs keep only the last part. Changes after the block are left out.
        """
        self._find_gradients()
        end = self._end or self._time  # before the block its end is 0
        changes = np.zeros((end + 1, len(KINDS)), dtype=np.int64)
        for record in self._history:
            column = KINDS.index(record.kind)
            if record.freed > 0 and record.born <= end:
                changes[max(record.born, 0), column] += record.bytes
            if 0 < record.freed <= end:
                changes[record.freed, column] -= record.bytes
        return changes.cumsum(axis=0)

    def by_kind(self, at: str = "now") -> dict[str, int]:
        """The live bytes by kind, in the order of KINDS: "now", at the "peak", or at a mark's label.

        Raises:
            ValueError: there is no such mark. (Also in the methods below.)
        """
        sizes = dict.fromkeys(KINDS, 0)
        for record in self._at(at):
            sizes[record.kind] += record.bytes
        return sizes

    def by_module(self, at: str = "now") -> dict[str, int]:
        """The live bytes by module, largest first.

        Names are those of `named_modules` of the outermost module that was called, which itself goes by
        the name of its class; a second model whose names are the same has them behind its class. A
        gradient, and the optimizer's state, count to the module of their parameter. "" is what was made
        outside of modules. After Ctrl-C inside a module, what follows counts to it, or in a second model
        to "", until an optimizer's step or the end of the block.
        """
        sizes = Counter()
        for record in self._at(at):
            sizes[record.module] += record.bytes
        return dict(sizes.most_common())

    def holders(self, top: int | None = 5, at: str = "now") -> list[Holder]:
        """Who holds the most bytes: tensors of one kind, made by one line of your code; largest first."""
        groups: dict[tuple[str, str, str], list[_Record]] = defaultdict(list)
        records = self._at(at)
        names = find_names({record.key for record in records if record.freed == math.inf}, sys._getframe(1))
        for record in records:
            held = names[record.key] if record.freed == math.inf else "(freed)"
            groups[record.kind, line_text(record.line), held].append(record)
        rows = [
            Holder(sum(record.bytes for record in group), len(group), kind, _common(group), held, line)
            for (kind, line, held), group in groups.items()
        ]
        return sorted(rows, key=lambda row: (-row.bytes, row[2:]))[:top]

    def table(self, top: int | None = 5, at: str = "now") -> str:
        """The rows of `holders` as an aligned text, cut at WIDTH, with a head and a line for the rest."""
        rows = self.holders(None, at)
        shown, rest = rows[:top], rows[len(rows[:top]) :]
        if rest:
            sums = sum(row.bytes for row in rest), sum(row.tensors for row in rest)
            shown.append(Holder(*sums, "(the rest)", "", "", ""))
        lines = [("bytes", "tensors", "kind", "module", "held by", "made by")]
        lines += [(format_bytes(row.bytes), str(row.tensors), *row[2:]) for row in shown]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        cells = (
            [f"{text:{to}{w}}" for text, to, w in zip(line, ">><<<<", widths, strict=True)] for line in lines
        )
        texts = ("  ".join(row).rstrip() for row in cells)
        return "\n".join(text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…" for text in texts)

    def _at(self, at: str) -> list[_Record]:
        """What lives at a point of the timeline."""
        self._find_gradients()
        if at == "now":
            return list(self._records.values())  # at once: threads may free
        times = {"peak": self._peak_at, **dict(self.marks)}
        if at not in times:
            raise ValueError(f"at={at!r} is no point in time: give one of {['now', *times]}.")
        return [record for record in self._history if record.born <= times[at] < record.freed]


@cache  # it is asked for each new storage
def _is_on(chosen: torch.device, device: torch.device) -> bool:
    return device.type == chosen.type and chosen.index in (None, device.index)


def _common(group: Sequence[_Record]) -> str:
    """One name for the modules of several tensors."""
    names = {record.module for record in group}
    levels = zip(*(name.split(".") for name in names), strict=False)
    shared = ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    return names.pop() if len(names) == 1 else f"{shared}.*" if shared else f"({len(names)} modules)"


def _tensors(values: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among an operation's arguments or results, or in an optimizer's state; also nested ones."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple, dict)):
            found += _tensors(value.values() if isinstance(value, dict) else value)
    return found
