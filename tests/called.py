"""What a chapter's cells call of the libraries, found by reading them: nothing is run but their imports."""

import ast
import io
import typing
from collections import ChainMap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from notebook_tools import parsed
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

LIBRARIES = {
    *("course_utils", "safetensors", "tensorboard", "torch", "torchinfo", "torchsummary", "torchvision"),
    "transformers",
}
RECEIVERS = {
    "torch.Tensor": torch.Tensor,
    "torch.UntypedStorage": torch.UntypedStorage,
    "torch.nn.Module": nn.Module,
    "torch.optim.Optimizer": torch.optim.Optimizer,
    "torch.optim.lr_scheduler.LRScheduler": torch.optim.lr_scheduler.LRScheduler,
    "torch.utils.data.DataLoader": DataLoader,
    "torch.utils.tensorboard.SummaryWriter": SummaryWriter,
}  # under which methods are listed: name → class
OTHERS = (
    *(str, bytes, int, float, list, dict, set, tuple, Path, io.IOBase),
    *(np.ndarray, pd.DataFrame, pd.Series, Image.Image, Figure),
)  # other objects in cells: a method that one of these has, too, may be theirs


@dataclass
class Known:
    """An object of a library, and the name under which one imports it."""

    value: object
    name: str


@dataclass
class Instance:
    """Some object of a class; `name` is that under which one imports the class."""

    cls: type
    name: str


@dataclass
class Local:
    """A function or class that a cell defines, and what a call of it returns."""

    returns: "Meaning"


Meaning = Known | Instance | Local | tuple | None  # of an expression; a tuple for several values at once
TENSOR = Instance(torch.Tensor, "torch.Tensor")


class Calls(ast.NodeVisitor):
    """Reads a chapter's cells one after the other, and tells what each calls of the libraries.

    Names are followed through imports, assignments and annotations; libraries say in annotations and
    docstrings what their functions return. A method of an object that stays unknown counts if it can
    belong to one class only.
    """

    def __init__(self) -> None:
        self.names: ChainMap[str, Meaning] = ChainMap()
        self.found: list[Known] = []

    def read(self, source: str) -> list[Known]:
        """Return what a cell calls or derives a class from; the next cell knows the names that it binds."""
        self.found = []
        self.visit(parsed(source))
        return self.found

    # What an expression is

    def infer(self, node: ast.expr | None) -> Meaning:
        match node:
            case ast.Name(id=name):
                return self.names.get(name)
            case ast.Attribute(value=value, attr=attr):
                return self.attribute(self.infer(value), attr)
            case ast.Call(func=function):
                return self.returned(self.infer(function))
            case ast.Subscript(value=value):
                return TENSOR if self.infer(value) == TENSOR else None
            case ast.UnaryOp(operand=operand):
                return self.infer(operand)
            case ast.BinOp(left=left, right=right) | ast.Compare(left=left, comparators=[right]):
                return TENSOR if TENSOR in (self.infer(left), self.infer(right)) else None
        return None

    def attribute(self, owner: Meaning, attr: str) -> Meaning:
        match owner:
            case Known(value, name) if hasattr(value, attr):
                return Known(getattr(value, attr), f"{name}.{attr}")
            case Instance(cls, _) if cls is torch.Tensor and attr in ("T", "mT", "grad", "data"):
                return TENSOR
            case Instance(cls, name) if callable(getattr(cls, attr, None)):
                names = [n for n, base in RECEIVERS.items() if issubclass(cls, base) and hasattr(base, attr)]
                return Known(getattr(cls, attr), f"{(names or [name])[0]}.{attr}")
            case None if not any(hasattr(other, attr) for other in OTHERS):
                names = [n for n, cls in RECEIVERS.items() if hasattr(cls, attr)]
                return (
                    self.attribute(Instance(RECEIVERS[names[0]], names[0]), attr) if len(names) == 1 else None
                )
        return None

    def returned(self, function: Meaning) -> Meaning:
        match function:
            case Local(returns):
                return returns
            case Instance(cls, _) if issubclass(cls, nn.Module):
                return TENSOR
            case Known(type() as cls, name):
                return Instance(cls, name)
            case Known(value, _) if callable(value):
                if "-> Tensor" in (value.__doc__ or "").lstrip().partition("\n\n")[0]:
                    return TENSOR
                try:
                    return self.instance(typing.get_type_hints(value).get("return"))
                except (NameError, TypeError):  # it has none, or they hold for type checkers only
                    return None
        return None

    def instance(self, hint: object) -> Meaning:
        """Return what an annotation of a library stands for."""
        if typing.get_origin(hint) is tuple:
            return tuple(map(self.instance, typing.get_args(hint)))
        if hint is torch.Tensor:
            return TENSOR
        if isinstance(hint, type) and hint.__module__.split(".")[0] in LIBRARIES:
            imported = (known.name for known in self.names.values() if getattr(known, "value", None) is hint)
            return Instance(hint, next(imported, f"{hint.__module__}.{hint.__qualname__}"))
        return None

    def annotated(self, node: ast.expr | None) -> Meaning:
        """Return what an annotation in a cell stands for."""
        match node:
            case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=parts)):
                return tuple(map(self.annotated, parts))
        return self.returned(found) if isinstance(found := self.infer(node), Known) else None

    # What binds a name

    def bind(self, target: ast.expr, value: Meaning) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = value
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                fits = isinstance(value, tuple) and len(value) == len(parts)
                for part, one in zip(parts, value if fits else [None] * len(parts), strict=True):
                    self.bind(part, one)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        namespace: dict = {}
        exec(compile(ast.Module([node], []), "an import", "exec"), namespace)
        for alias in node.names:
            bound = alias.asname or alias.name.split(".")[0]
            name = alias.name if alias.asname else bound
            if isinstance(node, ast.ImportFrom):
                name = f"{node.module}.{alias.name}"
            self.names[bound] = Known(namespace[bound], name)

    visit_ImportFrom = visit_Import

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        parts = node.value.elts if isinstance(node.value, ast.Tuple) else None
        value = tuple(map(self.infer, parts)) if parts else self.infer(node.value)
        for target in node.targets:
            self.bind(target, value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self.bind(node.target, self.annotated(node.annotation) or self.infer(node.value))

    def visit_For(self, node: ast.For) -> None:
        self.bind(node.target, None)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            self.bind(item.optional_vars, self.infer(item.context_expr))
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names[node.name] = Local(self.annotated(node.returns))
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)
        parameters = [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]
        bound = {part.arg: self.annotated(part.annotation) for part in parameters if part.arg != "self"}
        self.visit_inside(bound, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        parameters = [part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)]
        self.visit_inside(dict.fromkeys(parameters), [node.body])

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        targets = [n.id for part in node.generators for n in ast.walk(part.target) if isinstance(n, ast.Name)]
        self.visit_inside(dict.fromkeys(targets), ast.iter_child_nodes(node))

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [self.infer(b.value if isinstance(b, ast.Subscript) else b) for b in node.bases]
        self.found += [base for base in bases if isinstance(base, Known)]
        made = self.returned(bases[0]) if bases else None
        self.names[node.name] = Local(made)
        self.visit_inside({"self": made}, node.body)

    def visit_inside(self, names: dict[str, Meaning], body: Iterable[ast.AST]) -> None:
        """Visit a body with names of its own."""
        self.names = self.names.new_child(names)
        for node in body:
            self.visit(node)
        self.names = self.names.parents

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(found := self.infer(node.func), Known):
            self.found.append(found)
        self.generic_visit(node)
