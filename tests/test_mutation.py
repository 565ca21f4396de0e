"""The mutation test of the checkers: what the mutator makes, what it notices, what it says of the course."""

import inspect
import os
import subprocess
import sys
import textwrap
import time
import types

import mutation
import pytest
from notebook_tools import ROOT

from course_utils.exercises.grading import exercise

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has run PyTorch")

SOLUTION = """\
def area(x: torch.Tensor, dim: int) -> torch.Tensor:
    if x.ndim > 1:
        x = x.clone()
    return torch.abs(x - 2).sum(dim, keepdim=True)
"""
CHANGES = {
    "if x.ndim > 1: → if x.ndim >= 1:",
    "if x.ndim > 1: → if x.ndim < 1:",
    "if x.ndim > 1: → if x.ndim > 2:",
    "if x.ndim > 1: → if x.ndim > 0:",
    "if x.ndim > 1: → if not x.ndim > 1:",
    "if x.ndim > 1: → if True:",
    "if x.ndim > 1: ¶ x = x.clone() → pass",
    "x = x.clone() → x = x",
    "x = x.clone() → pass",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → pass",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → return torch.abs(x - 2)",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → return torch.abs(x - 2).sum(dim)",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → return torch.abs(x - 2).sum(dim, keepdim=False)",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → return (x - 2).sum(dim, keepdim=True)",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → return torch.abs(x + 2).sum(dim, keepdim=True)",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → return torch.abs(2 - x).sum(dim, keepdim=True)",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → return torch.abs(x - 3).sum(dim, keepdim=True)",
    "return torch.abs(x - 2).sum(dim, keepdim=True) → return torch.abs(x - 1).sum(dim, keepdim=True)",
}


def test_one_place_is_changed_at_a_time() -> None:
    assert mutation.mutants(SOLUTION, {"torch"}).keys() == CHANGES


@pytest.mark.parametrize(
    ("body", "mutants"),
    [
        ("return f(a, b)", ["return f(b, a)", "return a"]),
        ("return (a, b)", ["return (b, a)"]),
        ("return a / b", ["return a * b", "return a // b", "return b / a"]),
        ("return a and (not b)", ["return a or not b", "return a", "return not b", "return a and b"]),
        ("return -a[1:b]", ["return a[1:b]", "return -a[:b]", "return -a[1:]", "return -a[2:b]"]),
        ("return {'a': 0.5}", ["return {'a_': 0.5}", "return {'a': 0.25}", "return {'a': 1.5}"]),
        ("return a if b else 0", ["return a if not b else 0", "return a if b else 1"]),
        ("return [x for x in a if b]", ["return [x for x in a]"]),
        ("a += b", ["a -= b", "a = b", "pass"]),
        ("with a:\n    b()", ["b()", "pass", "with a:\n    pass"]),
        ("try:\n    a()\nfinally:\n    b()", ["a()\nb()", "try:\n    a()\nfinally:\n    pass"]),
        ("for x in a:\n    b(x)", ["for x in a:\n    b(x)\n    break", "for x in a:\n    pass"]),
        ("while a < b:\n    a()", ["while a <= b:\n    a()", "while not a < b:\n    a()"]),
    ],
)
def test_what_is_changed(body: str, mutants: list[str]) -> None:
    def function(body: str) -> str:
        return f"def f(a, b):\n{textwrap.indent(body, '    ')}"

    assert {function(mutant) for mutant in mutants} <= set(mutation.mutants(function(body), set()).values())


def double(n):
    return n + n


@pytest.fixture
def doubling() -> dict:
    """The marks of a function's mutants: by a checker that looks, and by one that lets all pass."""
    marks = {}
    for name, call in (("strict", None), ("blind", lambda answer, n: None)):
        checker = exercise(cases=lambda: [(3,), (4,)], call=call)(double)
        marks[name] = mutation.graded(checker, inspect.getsource(double), {})
    return marks


def test_a_blind_checker_is_noticed(doubling: dict) -> None:
    assert doubling["strict"] == {"return n + n → pass": "○", "return n + n → return n - n": "✘"}
    assert doubling["blind"] == {"return n + n → pass": "○", "return n + n → return n - n": "✔"}
    for name, good in (("strict", True), ("blind", False)):
        text, enough = mutation.report({name: doubling[name]}, {})
        assert enough == good
        assert ("blind: return n + n → return n - n [✔]" in text) != good


def test_a_mutant_that_hangs_or_crashes_is_not_refused() -> None:
    for mark in ("hung", "crashed"):
        text, good = mutation.report({"e": {"a → b": mark}}, {})
        assert not good
        assert f"e: a → b [{mark}]" in text


def test_a_solution_must_pass_in_time() -> None:
    slow = exercise(cases=lambda: [(3,)], call=lambda answer, n: time.sleep(0.3), seconds=0.1)(double)
    with pytest.raises(ValueError, match="double takes too long"):
        mutation.graded(slow, inspect.getsource(double), {})
    checker = exercise(cases=lambda: [(3,)])(double)
    with pytest.raises(ValueError, match="solution of double does not pass"):
        mutation.graded(checker, "def double(n):\n    return 1", {})


def test_a_mutant_that_is_alike_counts_for_nothing_and_must_be_there(doubling: dict) -> None:
    alike = {"return n + n → return n - n": "said for the test"}
    assert mutation.report({"blind": doubling["blind"]}, {"blind": alike})[1]
    text, good = mutation.report({"strict": doubling["strict"]}, {"strict": alike})
    assert not good
    assert "no such mutant passes\nstrict: return n + n → return n - n" in text


def test_a_mutant_that_is_alike_without_a_gpu_may_be_refused_with_one(
    doubling: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = {"strict": {"return n + n → return n - n": "without a GPU all is on the CPU"}}
    for gpu in (True, False):
        monkeypatch.setattr(mutation, "GPU", gpu)
        assert mutation.report({"strict": doubling["strict"]}, alike)[1] == gpu


def test_a_checker_that_ends_python_or_never_ends_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutation, "SECONDS", 2)
    for end, mark in ((lambda: os._exit(0), "crashed"), (lambda: sum(iter(int, 1)), "hung")):
        checker = types.SimpleNamespace(name="double", grade=lambda answer, end=end: end())
        assert mutation._forked(checker, inspect.getsource(double), {}) == mark


@pytest.mark.slow
def test_the_checkers_refuse_what_behaves_differently() -> None:
    run = subprocess.run(
        [sys.executable, "tests/mutation.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
