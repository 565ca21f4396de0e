"""The mutation test of the checkers: what the mutator makes, what it notices, what it says of the course."""

import inspect
import os
import subprocess
import sys
import types

import mutation
import pytest
from notebook_tools import ROOT

from course_utils.exercises.grading import exercise

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")

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


def test_a_mutant_that_is_alike_counts_for_nothing_and_must_be_there(doubling: dict) -> None:
    alike = {"return n + n → return n - n": "said for the test"}
    assert mutation.report({"blind": doubling["blind"]}, {"blind": alike})[1]
    text, good = mutation.report({"strict": doubling["strict"]}, {"strict": alike})
    assert not good
    assert "no such mutant passes\nstrict: return n + n → return n - n" in text


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
