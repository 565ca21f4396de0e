"""Counting the bytes of live tensors: the meter of `course_utils.memory`.

`MemoryMeter` stands between PyTorch and its operations (a dispatch mode): after each operation it looks
at the tensors that went in and came out, and counts each storage that it has not met yet. A weak
reference to the storage tells it when the bytes are free again. Views share a storage, so they count once.
What a kernel needs only while it runs, and what PyTorch's allocators keep in reserve, is not counted.
"""

import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.optim import Optimizer
from torch.optim import optimizer as optimizer_hooks
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode,
    _get_current_dispatch_mode_stack,
)

from course_utils.device import get_device
from course_utils.holders import find_names, line_of, line_text, storages_of, tensors_in

KINDS = ("parameters", "gradients", "optimizer state", "activations", "inputs", "other")
PARAMETERS, GRADIENTS, STATE, ACTIVATIONS, INPUTS, OTHER = KINDS
HISTORY = 200_000  # changes that a meter remembers; of older ones only their sum
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
Tensor = torch._C.TensorBase  # what all tensors are; quicker to test for than torch.Tensor
backward_pass = torch._C._current_graph_task_id  # its number, or -1 outside of backward passes
thread = threading.get_ident
ones_like = torch.ops.aten.ones_like.default
CALL = nn.Module._call_impl.__code__  # what runs while a module runs


def format_bytes(number: int) -> str:
    """Return a number of bytes as text, in the largest binary unit that it fills: 5505024 → "5.25 MiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if abs(number) >= UNITS[unit]:
            return f"{number / UNITS[unit]:.2f} {unit}"
    return f"{number} bytes"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: PyTorch's own, or what CPUs, GPUs and Macs say."""
    words = ("out of memory", "can't allocate memory", "alloc_failed")
    told = isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    return told or isinstance(error, (torch.OutOfMemoryError, MemoryError))


def parse_bytes(text: str | int) -> int:
    """Return "64 MiB" as a number of bytes, 67108864; a number stays as it is.

    Raises:
        ValueError: the text is no positive number with a unit, or the number is not positive.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    units = {unit.lower(): size for unit, size in UNITS.items()} | {"": 1, "bytes": 1}
    size = units.get(match[2].lower()) if match else None
    if size is None or float(match[1]) * size < 1:
        raise ValueError(f"{text!r} is no size: write a number and a unit, such as '64 MiB' or '1.5 GiB'.")
    return int(float(match[1]) * size)


class Holder(NamedTuple):
    """Bytes that stand together in a meter's table: tensors of one kind, made by one line."""

    bytes: int
    tensors: int
    kind: str
    module: str
    line: str
    held_by: str


class _Record(weakref.ref):
    """A storage that has been met; calls the meter back when the storage is freed."""

    __slots__ = ("bytes", "key", "kind", "line", "module")
    __eq__ = object.__eq__  # by itself: what it refers to dies before it
    __hash__ = object.__hash__


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
        self._records: dict[int, _Record] = {}  # by the address of the storage
        self._events: list[tuple[_Record, int]] = []  # each change: what, and by how many bytes
        self._base: dict[_Record, int] = {}  # what lived before the first remembered change
        self._peak_at: int | dict[_Record, int] = 0  # after how many events; or a snapshot, if forgotten
        self._end: int | None = None  # the number of events at the end of the block
        self._leaves: dict[int, weakref.ref] = {}  # tensors that get a gradient
        self._names: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()
        self._stacks: dict[int, list[nn.Module]] = {}  # by thread: the modules whose forward runs
        self._stepping = False  # whether an optimiser's step runs
        self._task = -1  # the backward pass of the last operation
        self._handles: list[Any] = []
        self._process, self._thread = os.getpid(), threading.get_ident()
        self._devices: dict[torch.device, bool] = {}  # whether tensors there are counted
        self._only_fake = False

    # ------------------------------------------------------------------------------- entering and leaving

    def __enter__(self) -> "MemoryMeter":
        if self._handles:
            raise RuntimeError(
                "this meter is counting already: make a second MemoryMeter() inside the first."
            )
        self._handles = [
            module_hooks.register_module_forward_pre_hook(self._enter_module),
            module_hooks.register_module_forward_hook(self._leave_module, always_call=True),
            module_hooks.register_module_parameter_registration_hook(self._registered),
            module_hooks.register_module_buffer_registration_hook(self._registered),
            optimizer_hooks.register_optimizer_step_pre_hook(self._before_step),
            optimizer_hooks.register_optimizer_step_post_hook(self._after_step),
        ]
        if self.limit is not None and self.device.type == "cuda":
            self._fraction = torch.cuda.get_per_process_memory_fraction(self.device)
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(self.device).total_memory
            room = torch.cuda.memory_reserved(self.device) + self.limit
            torch.cuda.set_per_process_memory_fraction(min(room / total, self._fraction), self.device)
        self._end = None
        self._stepping = False
        self._stacks.clear()
        self._thread = threading.get_ident()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._stepping = False
        self._stacks.clear()
        if self.limit is not None and self.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(self._fraction, self.device)
        self._find_gradients()
        self._end = len(self._events)
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
        refused: int | str = 0
        if self.limit is not None:  # what goes in comes first: nothing is done in place if it does not fit
            refused = self._look(func, args, kwargs, None)
        try:
            result = None if refused else func(*args, **kwargs) if kwargs else func(*args)
        except (RuntimeError, MemoryError) as error:
            self._stepping = False  # the step has ended by this error
            args = kwargs = None  # its traceback must keep no tensor alive here
            known = isinstance(error, torch.OutOfMemoryError)
            if self.limit is None or known or not is_out_of_memory(error):
                raise
            size = re.search(r"tried to allocate (\d+) bytes", str(error))
            refused = int(size[1]) if size else str(error) or "out of memory"
        if not refused:
            refused = self._look(func, args, kwargs, result)
            if not refused:
                return result
        self._stepping = False
        result = args = kwargs = None
        raise torch.OutOfMemoryError(refused if isinstance(refused, str) else self._message(refused))

    def _look(self, func: Callable, args: Sequence[Any], kwargs: dict | None, result: Any) -> int:
        """Count what is new among the tensors of an operation; return the bytes that pass the limit, or 0."""
        if self._stepping:
            if args and result is args[0] and self._met(result) is not None:
                return 0  # in place
            self._stepping = not torch.is_grad_enabled()  # else the step has ended, by an error
        task = backward_pass()
        if task != self._task:
            if self._task != -1:
                self._find_gradients()
            self._task = task
        derived = graph = False
        met = self._met
        for tensor in () if self._stepping else _tensors(args, kwargs):
            record = met(tensor)
            if record is None:
                if refused := self._add(tensor, INPUTS if task == -1 else OTHER):
                    return refused
                record = met(tensor)
            if record is not None and record.kind is not INPUTS:
                derived = True
            if tensor.requires_grad:
                graph = True
                if tensor.is_leaf and id(tensor) not in self._leaves:
                    self._new_leaf(tensor)
        for tensor in (result,) if isinstance(result, Tensor) else _tensors((result,)):
            if met(tensor) is None:
                if self._stacks.get(thread()):
                    kind = ACTIVATIONS
                elif graph and torch.is_grad_enabled() and func is not ones_like:
                    kind = ACTIVATIONS  # but not the ones with which a backward pass starts
                else:
                    kind = OTHER if derived or task != -1 or self._stepping else INPUTS
                if refused := self._add(tensor, kind):
                    return refused
        return 0

    def _met(self, tensor: torch.Tensor) -> "_Record | None":
        """The record of a tensor's storage, if it is known with the size that it has."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError, ValueError):  # sparse: it has several; lazy: none yet
            return None
        record = self._records.get(storage._cdata)
        return record if record is not None and record.bytes == storage.nbytes() else None

    def _add(self, tensor: torch.Tensor, kind: str, module: str = "") -> int:
        """Count a tensor's storages that are new or changed their size; return the bytes that are refused."""
        if not self._counts(tensor):
            return 0
        for storage in storages_of(tensor):
            key, size = storage._cdata, storage.nbytes()
            record = self._records.get(key)
            change = size - (record.bytes if record is not None else 0)
            if change == 0:
                continue
            if self.limit is not None and change > 0 and self.live + change > self.limit and self._at_home():
                if record is not None:  # it has grown in place, as by resize_, and stays so
                    record.bytes = size
                    self._change(record, change)
                return change
            if record is None:
                record = self._records[key] = _Record(storage, self._freed)
                stack = self._stacks.get(thread())
                record.key, record.kind, record.line = key, kind, line_of(sys._getframe(2))
                record.module = module or (self._names.get(stack[-1], "") if stack else "")
            record.bytes = size
            self._change(record, change)
        return 0

    def _counts(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on the meter's device (and fake, where nothing else is to be counted)."""
        device = tensor.device
        counted = self._devices.get(device)
        if counted is None:
            counted = device.type == self.device.type and self.device.index in (None, device.index)
            self._devices[device] = counted
        return counted and (not self._only_fake or hasattr(tensor, "fake_mode"))

    def _at_home(self) -> bool:
        """Whether this is no copy of the meter in a data loader's worker."""
        return os.getpid() == self._process

    def _change(self, record: _Record, change: int) -> None:
        events = self._events
        events.append((record, change))
        self.live += change
        if self.live > self.peak:
            self.peak = self.live
            self._peak_at = len(events)
        if len(events) > HISTORY:
            self._forget(HISTORY // 2)

    def _freed(self, record: _Record) -> None:
        if self._records.get(record.key) is record:
            del self._records[record.key]
            self._change(record, -record.bytes)

    def _forget(self, number: int) -> None:
        """Sum up the first changes, so that a long training does not fill the memory with its history."""
        if isinstance(self._peak_at, int):
            early = self._peak_at <= number
            self._peak_at = self._snapshot(self._peak_at) if early else self._peak_at - number
        self._base = self._snapshot(number)
        del self._events[:number]
        if self._end is not None:
            self._end = max(self._end - number, 0)
        self.marks = [(label, place - number) for label, place in self.marks if place >= number]

    def _message(self, size: int) -> str:
        kinds = {kind: number for kind, number in self.by_kind().items() if number}
        most = max(kinds, key=kinds.get, default=None)
        share = f", {format_bytes(kinds[most])} of it {most}" if most else ""
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
        if record is None:
            if add and (refused := self._add(tensor, kind, module)):
                raise torch.OutOfMemoryError(self._message(refused))
            storages = storages_of(tensor)
            records = [self._records.get(storage._cdata) for storage in storages]
        else:
            records = [record]
        for record in records:
            if record is not None:
                record.kind = kind
                if module:
                    record.module = module

    def _new_leaf(self, tensor: torch.Tensor) -> None:
        key, leaves = id(tensor), self._leaves
        leaves[key] = weakref.ref(tensor, lambda _: leaves.pop(key, None))
        if isinstance(tensor, nn.Parameter):
            self._label(tensor, PARAMETERS)

    def _module_of(self, tensor: torch.Tensor) -> str:
        record = self._met(tensor)
        return record.module if record is not None else ""

    def _find_gradients(self) -> None:
        for reference in list(self._leaves.values()):
            leaf = reference()
            if leaf is not None and leaf.grad is not None:
                self._label(leaf.grad, GRADIENTS, self._module_of(leaf), add=False)

    def _counts_here(self) -> bool:
        """Whether the meter counts the operations of this thread: hooks are called in all of them."""
        return thread() == self._thread or self in _get_current_dispatch_mode_stack()

    def _enter_module(self, module: nn.Module, args: tuple) -> None:
        if self._counts_here():
            self._stepping = False
            stack = self._running(module)
            if not stack and module not in self._names:
                self._name(module)
            self._know(module)
            stack.append(module)

    def _running(self, entered: nn.Module | None = None) -> list[nn.Module]:
        """The modules whose forward runs in this thread, without those that Ctrl-C or a hook has ended."""
        stack = self._stacks.setdefault(thread(), [])
        if stack and entered not in stack[-1]._modules.values():  # else all is well
            calls, frame = 0, sys._getframe(1)
            while frame is not None:
                calls += frame.f_code is CALL
                frame = frame.f_back
            del stack[calls - (entered is not None) :]
        return stack

    def _leave_module(self, module: nn.Module, args: tuple, result: Any) -> None:
        stack = self._stacks.get(thread(), [])
        if module in stack:
            while stack.pop() is not module:
                pass

    def _know(self, module: nn.Module) -> None:
        """Count the parameters and buffers that the module itself has."""
        name = self._names.get(module, "")
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                if tensor is not None:
                    self._label(tensor, PARAMETERS, name)

    def _name(self, root: nn.Module) -> None:
        """Name the modules of a model as it does itself; the model after its class."""
        own = {name: module for name, module in root.named_modules() if name}
        used = set(self._names.values())
        title, number = type(root).__name__, 1
        while title in used:
            number += 1
            title = f"{type(root).__name__} {number}"
        prefix = "" if used.isdisjoint(own) else f"{title}."
        for name, module in own.items():
            self._names[module] = prefix + name
        self._names[root] = title

    def _registered(self, module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
        if tensor is not None:
            self._label(tensor, PARAMETERS, add=False)

    def _before_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        if not self._counts_here():
            return
        self._running()
        for group in optimizer.param_groups:
            for value in group.values():
                if isinstance(value, Tensor):  # a learning rate may be one
                    self._add(value, OTHER)
            for parameter in group["params"]:
                self._label(parameter, PARAMETERS)
                if parameter.grad is not None:
                    self._label(parameter.grad, GRADIENTS, self._module_of(parameter))
        self._know_state(optimizer)
        closure = kwargs.get("closure") or next(iter(args[1:]), None)
        self._stepping = closure is None  # so all that goes into the operations is known

    def _after_step(self, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        if self._counts_here():
            self._stepping = False
            self._know_state(optimizer)

    def _know_state(self, optimizer: Optimizer) -> None:
        for parameter, state in list(optimizer.state.items()):
            module = self._module_of(parameter) if isinstance(parameter, torch.Tensor) else ""
            for tensor in tensors_in(state):
                self._label(tensor, STATE, module)

    # ------------------------------------------------------------------------------- questions

    def watch(self, *things: nn.Module | Optimizer | torch.Tensor) -> None:
        """Count at once what exists already: models, optimisers (with their state), tensors.

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
                for parameter in thing.parameters():
                    if parameter.grad is not None:
                        self._label(parameter.grad, GRADIENTS, self._module_of(parameter))
            elif isinstance(thing, Optimizer):
                self._know_state(thing)
            elif isinstance(thing, torch.Tensor):
                if refused := self._add(thing, INPUTS):
                    raise torch.OutOfMemoryError(self._message(refused))
            else:
                raise TypeError(f"watch got a {type(thing).__name__}: give modules, optimisers and tensors.")

    def mark(self, label: str) -> None:
        """Set a labelled mark on the timeline, here and now."""
        self._running()
        self._find_gradients()
        self.marks.append((label, len(self._events)))

    def reset_peak(self) -> None:
        """Set `peak` to what is live now."""
        self.peak, self._peak_at = self.live, len(self._events)

    @property
    def timeline(self) -> list[tuple[int, ...]]:
        """The live bytes by kind (a column for each of KINDS): at the start, then after each change.

        The mark (label, place) of `marks` belongs to `timeline[place]`. Very long runs keep only the
        last part. Changes after the block are left out.
        """
        self._find_gradients()
        column = {kind: number for number, kind in enumerate(KINDS)}
        row = [0] * len(KINDS)
        for record, size in self._base.items():
            row[column[record.kind]] += size
        rows = [tuple(row)]
        for record, change in self._events[: self._end]:
            row[column[record.kind]] += change
            rows.append(tuple(row))
        return rows

    def by_kind(self, at: str = "now") -> dict[str, int]:
        """The live bytes by kind, in the order of KINDS: "now", at the "peak", or at a mark's label."""
        sizes = dict.fromkeys(KINDS, 0)
        for record, size in self._at(at).items():
            sizes[record.kind] += size
        return sizes

    def by_module(self, at: str = "now") -> dict[str, int]:
        """The live bytes by module, largest first.

        Names are those of `named_modules` of the outermost module that was called, which itself goes by
        the name of its class; a second model whose names are the same has them behind its class. A
        gradient, and the optimiser's state, count to the module of their parameter. "" is what was made
        outside of modules.
        """
        sizes: dict[str, int] = {}
        for record, size in self._at(at).items():
            sizes[record.module] = sizes.get(record.module, 0) + size
        return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0])))

    def holders(self, top: int | None = 5, at: str = "now") -> list[Holder]:
        """Who holds the most bytes: tensors of one kind, made by one line of your code; largest first."""
        groups: dict[tuple[str, str, str], list[tuple[_Record, int]]] = {}
        sizes = self._at(at)
        alive = {record.key for record in sizes if self._records.get(record.key) is record}
        names = find_names(alive, sys._getframe(1))
        for record, size in sizes.items():
            held = names.get(record.key, "?") if record.key in alive else "(freed)"
            groups.setdefault((record.kind, line_text(record.line), held), []).append((record, size))
        rows = [
            Holder(sum(size for _, size in group), len(group), kind, _common(group), line, held)
            for (kind, line, held), group in groups.items()
        ]
        return sorted(rows, key=lambda row: (-row.bytes, row[2:]))[:top]

    def table(self, top: int | None = 5, at: str = "now") -> str:
        """The rows of `holders` as an aligned text with a head and a line for the rest."""
        rows = self.holders(None, at)
        top = len(rows) if top is None else top
        lines = [("bytes", "tensors", "kind", "module", "made by", "held by")]
        lines += [(format_bytes(row.bytes), str(row.tensors), *row[2:]) for row in rows[:top]]
        if rest := rows[top:]:
            tensors = str(sum(row.tensors for row in rest))
            lines.append((format_bytes(sum(row.bytes for row in rest)), tensors, "(the rest)", "", "", ""))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        align = (str.rjust, str.rjust, str.ljust, str.ljust, str.ljust, str.ljust)
        return "\n".join(
            "  ".join(put(text, width) for put, text, width in zip(align, line, widths, strict=True)).rstrip()
            for line in lines
        )

    def _at(self, at: str) -> Mapping[_Record, int]:
        """What lives at a point of the timeline, with its bytes."""
        self._find_gradients()
        if at == "now":
            return {record: record.bytes for record in list(self._records.values())}  # threads may free
        if at == "peak":
            return self._snapshot(self._peak_at) if isinstance(self._peak_at, int) else self._peak_at
        places = dict(self.marks)
        if at not in places:
            raise ValueError(f"at={at!r} is no point in time: give one of {['now', 'peak', *places]}.")
        return self._snapshot(places[at])

    def _snapshot(self, number: int) -> dict[_Record, int]:
        live = dict(self._base)
        for record, change in self._events[:number]:
            live[record] = live.get(record, 0) + change
        return {record: size for record, size in live.items() if size}


def _common(group: Sequence[tuple[_Record, int]]) -> str:
    """One name for the modules of several tensors."""
    names = {record.module for record, _ in group}
    if len(names) == 1:
        return names.pop()
    levels = zip(*(name.split(".") for name in names), strict=False)
    shared = ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))
    return f"{shared}.*" if shared else f"({len(names)} modules)"


def _tensors(values: Iterable[Any], more: Mapping[str, Any] | None = None) -> list[torch.Tensor]:
    """The tensors among an operation's arguments or results, also those in lists."""
    found = []
    for value in (*values, *more.values()) if more else values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found
