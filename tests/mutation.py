"""Mutation test of the checkers: `python tests/mutation.py [chapter or exercise ...] [--list]`.

Each solution in the notebooks is changed in one place at a time, mechanically: an operator, a constant, an
argument, a condition, a line. The exercise's checker grades every such mutant, in a process of its own.
A mutant that it accepts either does what the solution does, for a reason that `mutants_alike.toml` gives,
or shows something that the checker does not look at. Fails if the checkers refuse less than 99.9 % of the
mutants that behave differently, and if an entry of that file names no accepted mutant.

Needs Linux: every mutant is graded in a fork of a process that has imported what its chapter imports.
"""

import argparse
import ast
import difflib
import multiprocessing
import os
import sys
import tempfile
import tomllib
import types
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from notebook_tools import code_cells, exercises, notebooks, parsed, read_notebook

from course_utils.exercises.grading import Exercise

ALIKE = Path(__file__).with_name("mutants_alike.toml")
LEAST = 0.999  # the share of the mutants that behave differently which must be refused
SECONDS = 60  # how long one mutant may take; the checkers' own limits are far below
GPU = torch.cuda.is_available()
FORK = multiprocessing.get_context("fork")

SWAPPED = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult, ast.FloorDiv],
    ast.FloorDiv: [ast.Div], ast.Mod: [ast.FloorDiv], ast.Pow: [ast.Mult], ast.MatMult: [ast.Mult],
    ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd], ast.And: [ast.Or], ast.Or: [ast.And],
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.Lt],
    ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq],
    ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn], ast.NotIn: [ast.In],
}  # fmt: skip


def mutants(source: str, modules: set[str]) -> dict[str, str]:
    """Return all mutants of a solution: the change, as `line before → line after`, and then the source.

    Args:
        source: the solution: one function or class.
        modules: names of modules in it. `torch.stack(x)` becomes `x`, as `x.clone()` does, never `torch`.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):  # annotations do nothing when the function runs
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    before = ast.unparse(tree)
    found: dict[str, str] = {}
    for changed in _changed_trees(tree, modules):
        after = ast.unparse(changed)
        try:
            compile(after, "mutant", "exec")
        except SyntaxError:
            continue
        if after != before and after not in found.values():
            change = _change(before, after)
            while change in found:  # the same line twice, each changed
                change += " again"
            found[change] = after
    return found


def _change(before: str, after: str) -> str:
    """The lines that differ, such as `x = a + b → x = a - b`."""
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    gone, new = ([line[2:].strip() for line in lines if line.startswith(sign)] for sign in "-+")
    return f"{' ¶ '.join(gone)} → {' ¶ '.join(new)}"


def _changed_trees(tree: ast.Module, modules: set[str]) -> Iterator[ast.Module]:
    """Yield the tree again and again, each time with one place changed; the place is put back after."""
    for parent in ast.walk(tree):
        if parent is tree:
            continue  # the solution as a whole stays
        for name, value in ast.iter_fields(parent):
            if isinstance(value, list):
                for new in _lists(parent, name, value):
                    setattr(parent, name, new)
                    yield tree
                for i, node in enumerate(value):
                    for new in _nodes(node, modules):
                        setattr(parent, name, [*value[:i], *new, *value[i + 1 :]])
                        yield tree
            elif isinstance(value, ast.AST):
                for new in _nodes(value, modules):
                    if len(new) == 1:
                        setattr(parent, name, new[0])
                        yield tree
            setattr(parent, name, value)


def _lists(parent: ast.AST, name: str, value: list) -> Iterator[list]:
    """What may stand in place of a list of arguments, of elements or of statements."""
    loaded = isinstance(parent, (ast.Tuple, ast.List)) and isinstance(parent.ctx, ast.Load)
    if (isinstance(parent, ast.Call) and name == "args") or loaded:
        for i in range(len(value) - 1):  # neighbours swapped
            yield [*value[:i], value[i + 1], value[i], *value[i + 2 :]]
    if isinstance(parent, (ast.Call, ast.comprehension)) and name in ("keywords", "ifs"):
        for i in range(len(value)):  # dropped
            yield value[:i] + value[i + 1 :]
    if isinstance(parent, (ast.For, ast.While)) and name == "body":  # once only
        yield [*value, ast.Break()]


def _nodes(node: ast.AST, modules: set[str]) -> Iterator[list[ast.AST]]:
    """What may stand in place of one node; in a list of statements it may be several, or none."""
    for other in SWAPPED.get(type(node), []):
        yield [other()]
    match node:
        case ast.Constant(bool(value)):
            yield [ast.Constant(not value)]
        case ast.Constant(int(value)):
            yield [ast.Constant(value + 1)]
            yield [ast.Constant(value - 1)]
        case ast.Constant(float(value)):
            yield [ast.Constant(value / 2 if value else 1.0)]
            yield [ast.Constant(value + 1)]
        case ast.Constant(str(value)):
            yield [ast.Constant(value + "_")]
        case ast.BinOp(left, op, right) if not isinstance(op, (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr)):
            yield [ast.BinOp(right, op, left)]
        case ast.AugAssign(target, _, value):
            yield [ast.Assign([target], value, lineno=0)]
        case ast.BoolOp(op, values):
            for i in range(len(values)):
                yield [ast.BoolOp(op, rest) if len(rest := values[:i] + values[i + 1 :]) > 1 else rest[0]]
        case ast.UnaryOp(ast.USub() | ast.Not(), operand):
            yield [operand]
        case ast.Slice(lower, upper, step):
            for bounds in ((None, upper, step), (lower, None, step), (lower, upper, None)):
                yield [ast.Slice(*bounds)]
        case ast.Call(ast.Attribute(value)) if not _is_module(value, modules):
            yield [value]
        case ast.Call(_, [first, *_]):
            yield [first]
        case ast.IfExp(test, body, orelse):
            yield [ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse)]
        case ast.If(test, body, orelse) | ast.While(test, body, orelse):
            yield [type(node)(ast.UnaryOp(ast.Not(), test), body, orelse)]
            yield [type(node)(ast.Constant(True), body, orelse)]
        case ast.With(_, body):
            yield body
        case ast.Try(body, _, _, final):
            yield [*body, *final]
    if isinstance(node, ast.stmt):
        yield [ast.Pass()]


def _is_module(node: ast.expr, modules: set[str]) -> bool:
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id in modules


def chapter(path: Path, chosen: list[str]) -> dict[str, dict[str, str]]:
    """Grade the mutants of the chosen exercises of one chapter: exercise → change → mark.

    To be run in a process of its own, for it replaces `__main__`.

    Raises:
        ValueError: a checker refuses the solution itself.
    """
    main = sys.modules["__main__"] = types.ModuleType("__main__")  # pickle looks there for a cell's classes
    namespace, nb = vars(main), read_notebook(path)
    for _, cell in code_cells(nb):
        imports = [n for n in parsed(cell.source).body if isinstance(n, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(imports, []), path.name, "exec"), namespace)
    return {
        name: graded(getattr(namespace["check"], name), source, namespace)
        for exercise in exercises(nb)
        for name, source in zip(exercise.names, exercise.solutions, strict=True)
        if is_chosen(path, name, chosen)
    }


def is_chosen(path: Path, name: str, chosen: list[str]) -> bool:
    """Whether an exercise is asked for, by its name or its chapter's; if nothing is, each one is."""
    return not chosen or not {name, path.stem, path.stem[:2]}.isdisjoint(chosen)


def graded(checker: Exercise, source: str, namespace: dict) -> dict[str, str]:
    """Return the mark of each mutant of a solution, by the change.

    The marks are the checker's own, ✔, ✘ or ○, or else `hung` or `crashed`.

    Raises:
        ValueError: the checker refuses the solution itself.
    """
    torch.set_num_threads(1)  # the others would not be there in a fork
    checker.mistakes = {}  # they only explain a ✘
    own, checker.seconds = checker.seconds, SECONDS  # the first call may import much
    if _mark(checker, source, namespace) != "✔":
        raise ValueError(f"the solution of {checker.name} does not pass: mutants would prove nothing")
    checker.seconds = own
    if _forked(checker, source, namespace) != "✔":
        raise ValueError(f"the solution of {checker.name} takes too long: a mutant's ✘ would prove nothing")
    modules = {name for name, value in namespace.items() if isinstance(value, types.ModuleType)}
    return {c: _forked(checker, mutant, namespace) for c, mutant in mutants(source, modules).items()}


def _mark(checker: Exercise, source: str, namespace: dict) -> str:
    """Define what the source defines, and grade it."""
    try:
        exec(compile(source, "mutant", "exec"), namespace)
    except Exception:  # noqa: BLE001 - a class may fail while it is defined: the learner sees that
        return "✘"
    return checker.grade(namespace[checker.name]).mark


def _forked(checker: Exercise, source: str, namespace: dict) -> str:
    """Grade in a fork of this process, whose state no mutant can spoil."""
    receiver, sender = FORK.Pipe(duplex=False)

    def grade() -> None:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        sender.send(_mark(checker, source, namespace))

    process = FORK.Process(target=grade)
    process.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(SECONDS) else "hung"
    except EOFError:
        return "crashed"
    finally:
        process.kill()
        process.join()
        receiver.close()


def report(marks: dict[str, dict[str, str]], alike: dict[str, dict[str, str]]) -> tuple[str, bool]:
    """Return the table of exercises, what is to be mended, and whether that is little enough.

    Args:
        marks: exercise → change → mark.
        alike: exercise → change → why the mutant does what the solution does.
    """
    lines = [f"{'exercise':20}{'mutants':>10}{'refused':>10}{'alike':>10}{'missed':>10}"]
    missed, stale, totals = [], [], [0, 0, 0, 0]
    for name, rows in marks.items():
        same = alike.get(name, {})
        passed = {change: mark for change, mark in rows.items() if mark not in "✘○"}
        wrong = [f"{name}: {change} [{mark}]" for change, mark in passed.items() if change not in same]
        counts = [len(rows), len(rows) - len(passed), len(passed) - len(wrong), len(wrong)]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        lines.append(f"{name:20}" + "".join(f"{count:10}" for count in counts))
        missed += wrong
        gone = {change: why for change, why in same.items() if change not in passed}
        stale += [f"{name}: {c}" for c, why in gone.items() if not (GPU and why.startswith("without a GPU"))]
    share = totals[1] / max(1, totals[0] - totals[2])
    lines.append(f"{'all':20}" + "".join(f"{total:10}" for total in totals))
    lines.append(f"refused of those that behave differently: {share:.2%}; at least {LEAST:.1%} must be")
    if missed:
        lines += ["", f"missed: mend the checker, or say in {ALIKE.name} why it is alike", *missed]
    if stale:
        lines += ["", f"named in {ALIKE.name}, but no such mutant passes", *stale]
    return "\n".join(lines), share >= LEAST and not stale


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chosen", nargs="*", metavar="chapter or exercise", help="such as 03 or softmax")
    parser.add_argument("--list", action="store_true", help="show each mutant and its mark, too")
    options = parser.parse_args()
    chosen = options.chosen
    found = {p: [n for e in exercises(read_notebook(p)) for n in e.names] for p in notebooks()}
    paths = [path for path, names in found.items() if any(is_chosen(path, name, chosen) for name in names)]
    if not paths:
        parser.error(f"no chapter and no exercise is called {', '.join(chosen)}")
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,  # for files that a mutant writes where it should not
        ProcessPoolExecutor(os.cpu_count(), spawn, os.chdir, (folder,), max_tasks_per_child=1) as pool,
    ):
        runs = [pool.submit(chapter, path, chosen) for path in paths]
        marks = {name: rows for run in runs for name, rows in run.result().items()}
    alike = tomllib.loads(ALIKE.read_text(encoding="utf-8"))
    if unknown := alike.keys() - {name for names in found.values() for name in names}:
        parser.error(f"{ALIKE.name} names exercises that are not there: {', '.join(sorted(unknown))}")
    if options.list:
        for name, rows in marks.items():
            print(*(f"{mark} {name}: {change}" for change, mark in rows.items()), sep="\n")
    text, good = report(marks, alike)
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
