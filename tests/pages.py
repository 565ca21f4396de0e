"""Write the pages that gather what the notebooks hold: `python tests/pages.py [--check]`.

- docs/calls.md: where each function, class and method of the libraries is taught.
- docs/glossary.md: each term, in the sentence of the notebooks that defines it. There, and only there, a
  term is bold: bold text of up to three words, without digits or marks, outside of tables, folded blocks
  and headings. **Predict** is no term.
- docs/exercises.md: each exercise with its checker, and how many answers the tests put to it.
"""

import argparse
import ast
import builtins
import importlib
import pathlib
import re
import sys
import typing
from collections import ChainMap, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import torch
from nbformat import NotebookNode
from notebook_tools import (
    DETAILS,
    ROOT,
    code_cells,
    exercises,
    items,
    notebooks,
    parsed,
    read_notebook,
)
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from course_utils.exercises.limits import undisturbed

DOCS = ROOT / "docs"
TERM = re.compile(r"\*\*(?!predict\*)([^\W\d][\w'’-]*(?: [\w'’-]+){0,2})\*\*", re.I)
BLOCKS = re.compile(r"\n\s*\n|\n(?=\s*(?:[-#|]|\d+\.)\s*\S)")
SENTENCES = re.compile(r"(?<=[.?!])(?:[)*\"]*)\s+(?=[(*`\"√A-Z])")
MOST_ITEMS = 4  # of a call that many items use, the first few are listed


# Reading a chapter


def walk(nb: NotebookNode) -> Iterator[tuple[str, str | NotebookNode]]:
    """Yield each paragraph, list item and table row of the text, and each code cell, under its heading."""
    heading = ""
    for cell in nb.cells:
        if cell.cell_type == "code":
            yield heading, cell
            continue
        text = re.sub(r"^```.*?^```", "", DETAILS.sub("", cell.source), flags=re.S | re.M)
        for block in filter(None, (" ".join(block.split()) for block in BLOCKS.split(text))):
            if block.startswith("#"):
                heading = re.sub("[`*]", "", block.lstrip("# "))
            else:
                yield heading, block


def link(text: str, path: Path, heading: str) -> str:
    """Return a link from a page in docs/ to a heading of a notebook, with JupyterLab's anchor."""
    return f"[{text}](../notebooks/{path.name}#{quote(heading.replace(' ', '-'))})"


def table(*rows: tuple[object, ...]) -> str:
    """Return a table in Markdown; the first row is its head."""
    lines = ["| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


# The glossary


@dataclass
class Term:
    """A term, the sentence that defines it, and where it stands."""

    name: str
    sentence: str
    path: Path
    heading: str


def terms(path: Path, nb: NotebookNode) -> Iterator[Term]:
    """Yield the terms that a chapter defines."""
    for heading, block in walk(nb):
        if not isinstance(block, str) or block.startswith("|"):
            continue
        block = re.sub(r"^(?:-|\d+\.) ", "", block)
        plain = re.sub(r"`[^`]*`", lambda code: "`" + "x" * (len(code[0]) - 2) + "`", block)
        ends = [0, *(m.end() for m in SENTENCES.finditer(plain)), len(block)]
        for start, end in zip(ends, ends[1:], strict=False):
            for found in TERM.finditer(plain, start, end):
                at_start = not re.search(r"\w", plain[start : found.start()])
                name = found[1][0].lower() + found[1][1:] if at_start else found[1]
                sentence = re.sub(r"(?<=[\w*`])$", ".", block[start:end].strip(" :;,"))
                sentence = re.sub(r"^([*(]*)([a-z])", lambda m: m[1] + m[2].upper(), sentence)
                sentence = re.sub(
                    r"\]\((?!https?:)([^)#]*)", lambda m: f"](../notebooks/{m[1] or path.name}", sentence
                )
                yield Term(name, sentence, path, heading)


def glossary() -> str:
    """Return the page of all terms.

    Raises:
        ValueError: a term is defined twice.
    """
    found: dict[str, Term] = {}
    for path in notebooks():
        for term in terms(path, read_notebook(path)):
            if other := found.get(term.name.casefold()):
                places = f"{other.path.stem}, {other.heading!r}, and in {term.path.stem}, {term.heading!r}"
                raise ValueError(
                    f"{term.name!r} is bold in {places}: a term is bold where it is defined, once."
                )
            found[term.name.casefold()] = term
    rows = [
        (term.name, term.sentence, link(f"{term.path.stem[:2]} {term.heading}", term.path, term.heading))
        for _, term in sorted(found.items())
    ]
    return table(("Term", "In the words of the course", "Where"), *rows)


# The index of calls

LIBRARIES = {
    "course_utils", "safetensors", "tensorboard", "torch", "torchinfo", "torchsummary", "torchvision", "transformers",
}  # fmt: skip
RECEIVERS = {
    "torch.Tensor": torch.Tensor,
    "torch.UntypedStorage": torch.UntypedStorage,
    "torch.nn.Module": nn.Module,
    "torch.optim.Optimizer": torch.optim.Optimizer,
    "torch.optim.lr_scheduler.LRScheduler": torch.optim.lr_scheduler.LRScheduler,
    "torch.utils.data.DataLoader": DataLoader,
    "torch.utils.tensorboard.SummaryWriter": SummaryWriter,
}
OTHERS = (str, bytes, int, float, list, dict, set, tuple, pathlib.Path, np.ndarray, pd.DataFrame, pd.Series)


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

    returns: Instance | None


TENSOR = Instance(torch.Tensor, "torch.Tensor")


class Calls(ast.NodeVisitor):
    """Collects what a chapter calls of the libraries, by reading alone: no cell is run.

    Names are followed through imports, assignments and annotations, and what a library says that its
    functions return. A method whose object stays unknown counts if one class alone has that name.
    """

    def __init__(self) -> None:
        self.names: ChainMap = ChainMap(dict(vars(builtins)))
        self.found: list[Known] = []

    def read(self, source: str) -> list[Known]:
        """Return what a cell calls; the names that it binds hold for the next one."""
        self.found = []
        self.visit(parsed(source))
        return self.found

    # What an expression is

    def infer(self, node: ast.expr | None) -> Known | Instance | Local | tuple | None:
        match node:
            case ast.Name(id=name):
                found = self.names.get(name)
                return found if isinstance(found, (Known, Instance, Local, tuple)) else None
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
            case ast.Constant(value=str(text)):  # an annotation in quotes
                return self.infer(ast.parse(text, mode="eval").body) if text.isidentifier() else None
        return None

    def attribute(self, owner: object, attr: str) -> Known | Instance | None:
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
                if len(names) == 1:
                    return Known(getattr(RECEIVERS[names[0]], attr), f"{names[0]}.{attr}")
        return None

    def returned(self, function: object) -> Instance | tuple | None:
        match function:
            case Local(returns):
                return returns
            case Instance(cls, _) if issubclass(cls, nn.Module):
                return TENSOR
            case Known(type() as cls, name):
                return Instance(cls, name)
            case Known(value, _) if callable(value):
                if re.search(r"-> Tensor", (value.__doc__ or "").strip().split("\n\n")[0]):
                    return TENSOR
                try:
                    return self.instance(typing.get_type_hints(value).get("return"))
                except (NameError, TypeError):  # no annotations, or such as hold in type checkers only
                    return None
        return None

    def instance(self, cls: object) -> Instance | tuple | None:
        """Return what an annotation stands for, as far as the libraries are concerned."""
        if typing.get_origin(cls) is tuple:
            return tuple(self.instance(part) for part in typing.get_args(cls))
        if isinstance(cls, type) and cls.__module__.split(".")[0] in LIBRARIES:
            return (
                Instance(cls, f"{cls.__module__}.{cls.__qualname__}") if cls is not torch.Tensor else TENSOR
            )
        return None

    def annotated(self, node: ast.expr | None) -> Instance | tuple | None:
        match node:
            case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=parts)):
                return tuple(map(self.annotated, parts))
        return self.returned(found) if isinstance(found := self.infer(node), Known) else None

    # What binds a name

    def bind(self, target: ast.expr, value: object) -> None:
        match target:
            case ast.Name(id=name):
                self.names[name] = value
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                values = (
                    value
                    if isinstance(value, tuple) and len(value) == len(targets)
                    else [None] * len(targets)
                )
                for part, one in zip(targets, values, strict=True):
                    self.bind(part, one)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            name = alias.name if alias.asname else alias.name.split(".")[0]
            importlib.import_module(alias.name)
            self.names[alias.asname or name] = Known(importlib.import_module(name), name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = importlib.import_module(node.module)
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            value = (
                getattr(module, alias.name) if hasattr(module, alias.name) else importlib.import_module(name)
            )
            self.names[alias.asname or alias.name] = Known(value, name)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        parts = node.value.elts if isinstance(node.value, ast.Tuple) else None
        value = tuple(map(self.infer, parts)) if parts else self.infer(node.value)
        for target in node.targets:
            self.bind(target, value)

    def visit_For(self, node: ast.For) -> None:
        self.bind(node.target, None)
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            if item.optional_vars:
                self.bind(item.optional_vars, self.infer(item.context_expr))
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names[node.name] = Local(self.annotated(node.returns))
        for part in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(part)
        arguments = [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]
        self.inside({part.arg: self.annotated(part.annotation) for part in arguments}, node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.inside({a.arg: None for a in ast.walk(node.args) if isinstance(a, ast.arg)}, [node.body])

    def visit_ListComp(self, node: ast.expr) -> None:
        targets = [n.id for part in node.generators for n in ast.walk(part.target) if isinstance(n, ast.Name)]
        self.inside(dict.fromkeys(targets), list(ast.iter_child_nodes(node)))

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        bases = [self.infer(b.value if isinstance(b, ast.Subscript) else b) for b in node.bases]
        known = [base for base in bases if isinstance(base, Known)]
        self.found += known
        itself = (
            self.returned(known[0])
            if known
            else next((b.returns for b in bases if isinstance(b, Local)), None)
        )
        self.names[node.name] = Local(itself)
        for part in node.body:
            self.visit(part)

    def inside(self, names: dict, body: list[ast.AST]) -> None:
        self.names = self.names.new_child(names)
        for node in body:
            self.visit(node)
        self.names = self.names.parents

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(found := self.infer(node.func), Known):
            self.found.append(found)
        self.generic_visit(node)


def calls() -> str:
    """Return the page of what the chapters call, with the items that call it in the order of the course."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    names: dict[int, str] = {}
    for path in notebooks():
        reader = Calls()
        for heading, cell in walk(read_notebook(path)):
            for call in () if isinstance(cell, str) else reader.read(cell.source):
                if call.name.split(".")[0] in LIBRARIES and not call.name.startswith(
                    "course_utils.exercises"
                ):
                    name = names.setdefault(id(call.value), call.name)
                    for number in sorted(items(cell)):
                        places[name].setdefault(number, link(number, path, heading))
    parts = []
    for library in sorted({name.split(".")[0] for name in places}):
        rows = []
        for name in sorted((n for n in places if n.startswith(library + ".")), key=str.casefold):
            first, *more = places[name].values()
            rows.append((f"`{name}`", ", ".join([f"**{first}**", *more[: MOST_ITEMS - 1]])))
        parts += [f"## {library}", table(("Call", "Items"), *rows)]
    return "\n\n".join(parts)


# The table of exercises


def exercises_page() -> str:
    """Return the page of all exercises: checks, and answers that the tests put to the checkers."""
    totals, parts = [], []
    for path in notebooks():
        nb = read_notebook(path)
        module = next(
            node.names[0].name
            for _, cell in code_cells(nb)
            for node in ast.walk(parsed(cell.source))
            if isinstance(node, ast.ImportFrom) and node.module == "course_utils.exercises"
        )
        checkers = importlib.import_module(f"course_utils.exercises.{module}")
        answers = importlib.import_module(f"answers.{module}")
        headings = {cell.id: heading for heading, cell in walk(nb) if not isinstance(cell, str)}
        rows = []
        for number, exercise in enumerate(exercises(nb), start=1):
            (name,) = exercise.names
            checker, heading = getattr(checkers, name), headings[exercise.cell.id]
            with undisturbed():
                checks = len(checker.cases())
            wrong = len(answers.WRONG[name]) + len(checker.mistakes)
            right = len(answers.RIGHT[name]) + len(exercise.solutions)
            numbers = ", ".join(sorted(items(exercise.cell)))
            rows.append((number, link(f"`{name}`", path, heading), numbers, checks, wrong, right))
        total = [sum(row[i] for row in rows) for i in (3, 4, 5)]
        totals.append((f"[{path.stem}](#{path.stem})", len(rows), *total))
        head = ("", "Exercise", "Items", "Checks", "Wrong answers refused", "Right answers accepted")
        source = f"[{module}.py](../course_utils/exercises/{module}.py)"
        parts.append(f"## {path.stem}\n\nCheckers: {source}\n\n{table(head, *rows)}")
    everything = [sum(row[i] for row in totals) for i in range(1, 5)]
    head = ("Chapter", "Exercises", "Checks", "Wrong answers refused", "Right answers accepted")
    return "\n\n".join([table(head, *totals, ("**all**", *everything)), *parts])


# The pages

PAGES: dict[str, tuple[str, str, Callable[[], str]]] = {
    "calls.md": (
        "Index of calls",
        "What the chapters call, and the items of the course that call it, each linked to its section. Bold is the"
        f" first, then at most {MOST_ITEMS - 1} more are listed. A method stands under its class. The list was"
        " read from the cells without running them: a call whose object could not be told is missing.",
        calls,
    ),
    "glossary.md": (
        "Glossary",
        "Each term, with the sentence of the notebooks that defines it, and the section where it stands.",
        glossary,
    ),
    "exercises.md": (
        "Exercises",
        "Each exercise and how well its checker is tested. Its name leads to the exercise. *Checks*: how many"
        " cases an answer must get right. *Wrong answers refused* counts those of tests/answers and the mistakes"
        " that the checker knows by name; *Right answers accepted* those of tests/answers and the notebook's own"
        " solution. tests/test_exercises.py puts each of them to the checker.",
        exercises_page,
    ),
}


def page(name: str) -> str:
    """Return the text of a page of docs/."""
    title, words, body = PAGES[name]
    return f"# {title}\n\n{words}\n\n{body()}\n\n*Written by `python tests/pages.py`; do not edit.*\n"


def main() -> int:
    """Write the pages; with --check write nothing, and return 1 if one is not what would be written."""
    parser = argparse.ArgumentParser(description="Write the pages that gather what the notebooks hold.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page would change")
    check = parser.parse_args().check
    stale = []
    for name in PAGES:
        path, text = DOCS / name, page(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8", newline="\n")
    print("\n".join(f"{'stale' if check else 'written':<8} docs/{name}" for name in stale) or "unchanged")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
