"""The grading of exercises: every verdict, and that nothing else is disturbed, hung or flooded."""

import builtins
import copy
import functools
import itertools
import linecache
import os
import random
import signal
import sys
import threading
import time
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.exercises import grading
from course_utils.exercises.compare import difference
from course_utils.exercises.grading import Exercise, Result, exercise, is_stub
from course_utils.exercises.limits import FirstCharacters
from course_utils.exercises.text import show

LIMIT = 0.1  # seconds that `hurried` gives


@exercise(
    cases=lambda: [(torch.tensor([1.0, 2.0, 4.0]),), (torch.randn(2, 3),), (torch.zeros(0),)],
    mistakes={"that is the square": lambda x: x * x},
)
def double(x):
    return x * 2


hurried = copy.copy(double)
hurried.seconds = LIMIT


@exercise(cases=lambda: [(torch.ones(3), [1, 2]), (torch.zeros(2), [])], in_place=True)
def fill(x, values):
    x.fill_(len(values))
    values.append(9)


def returning(make, expected):
    """An exercise without arguments whose right result is `expected`, graded on `make()`."""
    return toy(lambda: expected, [()]).grade(lambda: make())


def toy(reference, cases, seconds=5.0):
    """An exercise named toy."""
    made = exercise(cases if callable(cases) else lambda: cases, seconds=seconds)(reference)
    made.name = "toy"
    return made


def learner(source, name="f", file="<cell 1>", **names):
    """Define a function as IPython does: compiled from text that only linecache knows."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names["torch"] = torch
    exec(compile(source, file, "exec"), names)
    return names[name]


def grade(source, by=double, **names):
    return by.grade(learner(source, **names))


@pytest.fixture(autouse=True)
def _short_and_undisturbed(monkeypatch):
    """In every test: the process is after each verdict as before it, and no verdict is long."""
    judge = Exercise.grade

    def checked(self, answer):
        before = _process_state()
        try:
            verdict = judge(self, answer)
        finally:
            after = _process_state()
            assert [what for what in after if before[what] != after[what]] == []
        lines = verdict.text.splitlines()
        assert len(lines) <= 10, verdict.text
        assert max(map(len, lines)) <= 200, verdict.text
        assert "Traceback" not in verdict.text
        assert verdict.text.startswith(f"{verdict.mark} {self.name}: ")
        return verdict

    monkeypatch.setattr(Exercise, "grade", checked)


def _process_state():
    return {
        "cpu": torch.get_rng_state().numpy().tobytes(),
        "torch seed": torch.initial_seed(),
        "cuda": [s.tolist() for s in torch.cuda.get_rng_state_all()] if torch.cuda.is_initialized() else [],
        "numpy": str(np.random.get_state()),  # noqa: NPY002 - the global generator is meant
        "random": random.getstate(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.get_deterministic_debug_mode(),
        "print": repr(torch.tensor([1e-9, 1.23456789])) + repr(np.array([1.23456789])),
        "numpy errors": np.geterr(),
        "folder": os.getcwd(),
        "recursion": sys.getrecursionlimit(),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "input": builtins.input,
        "warnings": (list(warnings.filters), warnings.showwarning),
        "alarm": signal.getsignal(getattr(signal, "SIGALRM", signal.SIGINT)),
        "interrupt": signal.getsignal(signal.SIGINT),
        "trace": sys.gettrace(),
        "unraisable": sys.unraisablehook,
        "python threads": [t for t in threading.enumerate() if not isinstance(t, threading.Timer)],
    }


# --- not started -----------------------------------------------------------------------------------

STUBS = {
    "docstring": 'def f(x):\n    """Twice x."""',
    "docstring and ...": 'def f(x):\n    """Twice x."""\n    ...',
    "...": "def f(x): ...",
    "pass": "def f(x):\n    pass",
    "docstring and pass": 'def f(x: "int") -> "int":\n    """Twice x."""\n    pass',
    "docstring and comment": 'def f(x):\n    """Twice x."""\n    # your code',
    "return None": "def f(x):\n    return None",
    "return": "def f(x):\n    return",
}


@pytest.mark.parametrize("source", STUBS.values(), ids=STUBS)
def test_stub_is_not_started(source, capsys):
    assert is_stub(learner(source))
    assert double(learner(source)) is None
    assert capsys.readouterr().out == "○ double: not started\n"


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return ...",
        "def f(x):\n    x * 2",
        "def f(x):\n    return 0",
        "def f(x):\n    y = None\n    return y",
        "def f(x):\n    if x is None:\n        return None",
        "def f(x):\n    yield",
        "f = torch.compile(lambda x: None)",
        "f = torch.no_grad()(lambda x: None)",
    ],
)
def test_attempts_are_no_stubs(source):
    assert not is_stub(learner(source))
    assert grade(source).mark == "✘"


@exercise(call=lambda answer, x: answer.apply(x), cases=lambda: [(torch.tensor([1.0, -2.0]),)])
class Halve:
    @staticmethod
    def apply(x):
        return x / 2


def test_a_class_is_graded_by_what_the_call_makes_of_it():
    class Right:
        apply = staticmethod(lambda x: x * 0.5)

    class Wrong:
        apply = staticmethod(lambda x: x * 2)

    assert Halve.grade(Right).text == "✔ Halve: 1 of 1 checks"
    assert "expected  tensor([ 0.5000, -1.0000])" in Halve.grade(Wrong).text
    assert "given     x = tensor([ 1., -2.])" in Halve.grade(Wrong).text
    assert "AttributeError" in Halve.grade(lambda x: x / 2).text


def test_a_class_is_a_stub_while_none_of_its_methods_is_written():
    class Stub:
        """Halve."""

        @staticmethod
        def apply(x):
            """Return half of x."""
            ...

        def other(self):
            pass

    class Begun(Stub):
        @staticmethod
        def apply(x): ...

        def other(self):
            return 1

    assert Halve.grade(Stub).text == "○ Halve: not started"
    assert is_stub(Stub)
    assert not is_stub(Begun)
    assert Halve.grade(Begun).mark == "✘"
    assert double.grade(Stub).mark == "✘"  # where a function is expected, a class is no start


class Coded:
    __code__ = "not Python's"

    def __call__(self, x): ...


@pytest.mark.parametrize("answer", [torch.add, functools.partial(print), nn.Identity(), int, Coded()])
def test_callables_without_python_code_are_no_stubs(answer):
    assert not is_stub(answer)


# --- right -----------------------------------------------------------------------------------------


class Doubler(nn.Module):
    def forward(self, x):
        return 2 * x


class Method:
    def __call__(self, x):
        return x + x

    twice = __call__


RIGHT = {
    "as the reference": lambda x: x * 2,
    "in numpy and back": lambda x: torch.from_numpy(x.numpy() * 2),
    "value by value": lambda x: torch.tensor([v * 2 for v in x.reshape(-1).tolist()]).reshape(x.shape),
    "builtin": functools.partial(torch.mul, other=2),
    "partial": functools.partial(lambda k, x: k * x, 2),
    "module": Doubler(),
    "object": Method(),
    "method": Method().twice,
    "decorated": torch.no_grad()(lambda x: x * 2),
    "compiled": torch.compile(lambda x: x * 2, backend="eager"),
    "cached": functools.lru_cache(lambda x: x * 2),
    "parameter": lambda x: nn.Parameter(x * 2),
    "other names": lambda images, more=2, *rest, **options: images * more,
    "rounding": lambda x: x * 2 * (1 + 1e-6),
    "view": lambda x: (x * 2).view_as(x),
    "own generator": lambda x: x * 2 + 0 * torch.rand(1, generator=torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("answer", RIGHT.values(), ids=RIGHT)
def test_right_answers_pass(answer):
    verdict = double.grade(answer)
    assert (verdict.mark, verdict.text) == ("✔", "✔ double: 3 of 3 checks")


def test_right_answer_that_seeds_inside_a_fork_passes():
    source = "def f(x):\n    with torch.random.fork_rng():\n        torch.manual_seed(0)\n    return x * 2"
    assert grade(source).mark == "✔"


def test_calling_prints_the_verdict(capsys):
    double(lambda x: x * 2)
    double(lambda x: x * 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["✔ double: 3 of 3 checks", "✘ double: check 1 of 3"]
    assert [line.split()[0] for line in lines[2:]] == ["given", "expected", "got", "why"]


# --- wrong -----------------------------------------------------------------------------------------


def test_wrong_value_is_shown_whole():
    assert double.grade(lambda x: x * 3).text.splitlines() == [
        "✘ double: check 1 of 3",
        "  given     x = tensor([1., 2., 4.])",
        "  expected  tensor([2., 4., 8.])",
        "  got       tensor([ 3., 6., 12.])",
        "  why       the right shape and dtype, but 3 of 3 values are off; at [0]: 3, not 2",
    ]


def test_known_mistake_is_named():
    assert "  why       that is the square" in double.grade(lambda x: x.square()).text


WRONG = {
    "forgot return": ("def f(x):\n    y = x * 2", "it returns None: is there a `return`?"),
    "float": ("def f(x):\n    return 2.5", "it returns a float, not a tensor"),
    "int": ("def f(x):\n    return 2", "it returns an int, not a tensor"),
    "list": ("def f(x):\n    return (x * 2).tolist()", "it returns a list, not a tensor"),
    "array": ("def f(x):\n    return x.numpy() * 2", "it returns a NumPy array, not a tensor"),
    "tuple": ("def f(x):\n    return x * 2, 1", "it returns a tuple, not a tensor"),
    "trailing comma": ("def f(x):\n    return x * 2,", "it returns a tuple, not a tensor"),
    "generator": ("def f(x):\n    yield x * 2", "it returns a generator, not a tensor"),
    "itself": ("def f(x):\n    return f", "it returns a function, not a tensor"),
    "class": ("class f:\n    def __init__(self, x): self.x = x", "it returns a f, not a tensor"),
    "shape": ("def f(x):\n    return x[None] * 2", "its shape is (1, 3), not (3,)"),
    "dtype": ("def f(x):\n    return x.double() * 2", "its dtype is torch.float64, not torch.float32"),
    "bool": ("def f(x):\n    return x > 0", "its dtype is torch.bool, not torch.float32"),
    "complex": ("def f(x):\n    return x * 2j", "its dtype is torch.complex64, not torch.float32"),
    "device": ("def f(x):\n    return (x * 2).to('meta')", "its device is meta, not cpu"),
    "sparse": (
        "def f(x):\n    return (x * 2).to_sparse()",
        "its layout is torch.sparse_coo, not torch.strided",
    ),
    "one value": (
        "def f(x):\n    y = x * 2\n    y[1] = -1\n    return y",
        "1 of 3 values are off; at [1]: -1, not 4",
    ),
    "NaN": ("def f(x):\n    return x * float('nan')", "3 of 3 values are off; at [0]: nan, not 2"),
    "infinity": ("def f(x):\n    return x / 0", "at [0]: inf, not 2"),
    "changes and returns": ("def f(x):\n    x *= 2\n    return x", "it changes its argument `x` in place"),
    "changes a part": ("def f(x):\n    x[0] = 5\n    return x * 2", "it changes its argument `x` in place"),
    "changes and fails to return": ("def f(x):\n    x.mul_(2)", "it changes its argument `x` in place"),
    "reshapes the argument": (
        "def f(x):\n    x.unsqueeze_(0)\n    return x[0] * 2",
        "it changes its argument `x`",
    ),
    "records gradients": ("def f(x):\n    return x.requires_grad_() * 2", "it changes its argument `x`"),
    "seeds": (
        "def f(x):\n    torch.manual_seed(0)\n    return x * 2",
        "it reseeds PyTorch's global generator",
    ),
    "seeds by chance": (
        "def f(x):\n    torch.seed()\n    return x * 2",
        "it reseeds PyTorch's global generator",
    ),
}


@pytest.mark.parametrize(("source", "why"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_told_why(source, why):
    verdict = grade(source)
    assert verdict.mark == "✘"
    assert why in verdict.text.splitlines()[-1]
    assert verdict.text.splitlines()[1] == "  given     x = tensor([1., 2., 4.])"


def test_wrong_only_in_a_later_check():
    verdict = double.grade(lambda x: x * 2 if x.dim() == 1 else x.T * 2)
    assert "check 2 of 3" in verdict.text
    assert "its shape is (3, 2), not (2, 3)" in verdict.text


@pytest.mark.parametrize("given", [None, 3, torch.ones(2), "double"])
def test_a_result_in_place_of_the_function(given):
    assert double.grade(given).text == (
        "✘ double: give the function itself, check.double(double), without calling it"
    )


@pytest.mark.parametrize(
    "answer",
    [lambda: 1, lambda x, y: x, lambda *, x: x * 2, torch.add, divmod, Doubler],
    ids=["none", "two", "keyword only", "builtin", "of Python", "class"],
)
def test_wrong_number_of_parameters(answer):
    verdict = double.grade(answer)
    assert "\n  error     TypeError: " in verdict.text
    assert verdict.text.endswith("\n  why       the checker calls it as double(x)")


def test_in_place_exercise():
    def right(x, values):
        x[:] = len(values)
        values += [9]

    assert fill.grade(right).mark == "✔"
    lines = fill.grade(lambda x, values: values.append(9)).text.splitlines()
    assert lines[1:] == [
        "  given     x = tensor([1., 1., 1.]), values = [1, 2]",
        "  expected  x = tensor([2., 2., 2.])",
        "  got       x = tensor([1., 1., 1.])",
        "  why       the right shape and dtype, but 3 of 3 values are off; at [0]: 1, not 2",
    ]
    lines = fill.grade(lambda x, values: x.fill_(len(values)).zero_()).text.splitlines()
    assert lines[-3:] == [
        "  expected  None",
        "  got       tensor([0., 0., 0.])",
        "  why       it returns a tensor, not None",
    ]
    lines = fill.grade(
        lambda x, values: x.fill_(len(values)) and None if len(x) > 5 else None
    ).text.splitlines()
    assert "got       x = tensor([1., 1., 1.])" in lines[-2]


@pytest.mark.parametrize(
    "later",
    ["while True: pass", "import time; time.sleep(9)", "raise SystemExit", "return 10**400", "return Odd()"],
)
@pytest.mark.parametrize("first", ["return x * x", "return x[9]"])
def test_a_diagnosis_survives_what_the_answer_does_on_other_cases(later, first):
    source = (
        "class Odd:\n    def __eq__(self, other): raise SystemExit\n"
        f"def f(x):\n    if x.dim() == 1 and len(x):\n        {first}\n    {later}"
    )
    start = time.monotonic()
    text = grade(source, hurried).text
    assert time.monotonic() - start < 2 * LIMIT + 1
    assert "check 1 of 3" in text
    assert ("at [0]: 1, not 2" if "*" in first else "in line   5: return x[9]") in text


def test_mistakes_of_in_place_exercises_are_named():
    @exercise(
        cases=lambda: [(torch.ones(2),)],
        in_place=True,
        mistakes={"twice": lambda x: None if x.add_(2) is x else x, "only the name x": lambda x: None},
    )
    def add(x):
        x.add_(1)

    def rebinds(x):
        x = x + 1

    assert "why       only the name x" in add.grade(rebinds).text


def test_also_asks_for_more():
    @exercise(cases=lambda: [(torch.ones(2),)], also=lambda got, x: "a view" if got is x else None)
    def same(x):
        return x.clone()

    assert same.grade(lambda x: x * 1).mark == "✔"
    verdict = same.grade(lambda x: x)
    assert verdict.mark == "✘"
    assert verdict.text.endswith("why       a view")


def test_seeding_may_be_the_task():
    @exercise(cases=lambda: [(1,), (2,)])
    def draw(seed):
        torch.manual_seed(seed)
        return torch.rand(2)

    assert draw.grade(lambda seed: torch.manual_seed(seed) and torch.rand(2)).mark == "✔"
    assert "values are off" in draw.grade(lambda seed: torch.rand(2)).text


def test_random_answers_are_repeatable():
    @exercise(cases=lambda: [(3,)])
    def noise(n):
        return torch.randn(n) + random.random() + np.random.rand()  # noqa: NPY002

    for _ in range(2):
        assert noise.grade(lambda n: random.random() + np.random.rand() + torch.randn(n)).mark == "✔"  # noqa: NPY002


# --- exceptions ------------------------------------------------------------------------------------


def test_exception_is_reported_with_its_line():
    assert grade("def f(x):\n    y = x + 1\n    return y[7]  # too far\n").text.splitlines() == [
        "✘ double: check 1 of 3",
        "  given     x = tensor([1., 2., 4.])",
        "  error     IndexError: index 7 is out of bounds for dimension 0 with size 3",
        "  in line   3: return y[7]  # too far  (in f)",
    ]


def test_exception_of_a_function_of_the_right_name_needs_no_place():
    answer = learner("def double(x):\n    return x @ torch.ones(7)", name="double")
    assert double.grade(answer).text.endswith("in line   2: return x @ torch.ones(7)")


def test_exception_in_a_helper_of_another_cell():
    helper = learner("# helpers\n\ndef helper(x):\n    return x.nope()\n", "helper", "<cell 7>")
    text = grade("def f(x):\n    return helper(x)\n", helper=helper).text
    assert text.endswith("in line   4: return x.nope()  (in helper)")


def test_exception_inside_a_library_names_the_learners_line():
    text = grade("import json\ndef f(x):\n    return json.loads('{')\n").text
    assert "error     JSONDecodeError: Expecting property name" in text
    assert text.endswith("in line   3: return json.loads('{')  (in f)")


def test_exception_inside_a_module_names_the_learners_line():
    source = "class f(torch.nn.Module):\n    def forward(self, x):\n        return self.layer(x)\n"
    text = double.grade(learner(source)()).text
    assert text.endswith("in line   3: return self.layer(x)  (in forward)")


def test_exception_without_a_message():
    assert "\n  error     AssertionError\n" in grade("def f(x):\n    assert False").text


def test_exceptions_of_many_lines_and_of_broken_text():
    assert "error     ValueError: one\n" in grade("def f(x):\n    raise ValueError('one\\ntwo' * 50)").text
    announced = grade("def f(x):\n    raise ValueError('two faults:\\n\\tone\\n\\ttwo')").text
    assert "error     ValueError: two faults: one\n" in announced
    assert "error     ValueError: nothing:\n" in grade("def f(x):\n    raise ValueError('nothing:')").text
    assert "…" in grade("def f(x):\n    raise ValueError('long' * 500)").text
    broken = "class Broken(Exception):\n    def __str__(self): 1 / 0\ndef f(x):\n    raise Broken"
    assert "error     Broken\n" in grade(broken).text


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def f(x):\n    return f(x)", "RecursionError: maximum recursion depth exceeded"),
        ("def g():\n    yield from g()\ndef f(x):\n    return list(g())", "RecursionError"),
        ("def f(x):\n    return [y for y in f(x)]", "RecursionError"),
        ("def f(x):\n    import sys\n    sys.exit()", "SystemExit"),
        ("def f(x):\n    raise SystemExit('bye')", "SystemExit: bye"),
        ("def f(x):\n    exit()", "SystemExit"),
        ("def f(x):\n    raise GeneratorExit", "GeneratorExit"),
        ("class Odd(BaseException): ...\ndef f(x):\n    raise Odd('odd')", "Odd: odd"),
        ("def f(x):\n    raise NotImplementedError", "NotImplementedError"),
        ("def f(x):\n    return y", "NameError: name 'y' is not defined"),
        ("def f(x):\n    return eval('1 +')", "SyntaxError"),
        ("def f(x):\n    import no_such_package", "ModuleNotFoundError"),
        ("def f(x):\n    raise ExceptionGroup('both', [ValueError(), TypeError()])", "ExceptionGroup: both"),
        ("def f(x):\n    raise KeyError('a')", "KeyError: 'a'"),
        ("def f(x):\n    return input('number? ')", "RuntimeError: input() waits for the keyboard"),
        ("import sys\ndef f(x):\n    return sys.stdin.readline()[0]", "IndexError"),
        (
            "def f(x):\n    import warnings\n    warnings.simplefilter('error')\n    warnings.warn('w')",
            "UserWarning: w",
        ),
    ],
)
def test_everything_raised_is_reported(source, error):
    verdict = grade(source)
    assert verdict.mark == "✘"
    assert f"error     {error}" in verdict.text
    assert "in line " in verdict.text


def test_in_ipython_cells(capsys):
    """In IPython each cell is a file of its own."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    main, hook = sys.modules["__main__"], sys.displayhook
    config = Config({"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}})
    shell = InteractiveShell(config=config)
    try:
        shell.user_ns["check"] = types.SimpleNamespace(double=hurried)
        for cell in (
            "def helper(x):\n    # deep\n    return x.nope",
            "def double(x):\n    return helper(x)\ncheck.double(double)",
            "def double(x):\n    y = 1 / 0",
            "check.double(double)",
            "def double(x):\n    '''Twice x.'''\n\ncheck.double(double)",
            "def double(x):\n    return 2 * x\n\ncheck.double(double)",
            "def double(x):\n    while True: pass\n\ncheck.double(double)",
        ):
            assert shell.run_cell(cell).success
    finally:
        sys.modules["__main__"], sys.displayhook = main, hook
    out = capsys.readouterr().out
    assert "Traceback" not in out
    assert [line.split(maxsplit=1)[1] for line in out.splitlines() if "in line" in line] == [
        "line   3: return x.nope  (in helper)",
        "line   2: y = 1 / 0",
    ]
    assert "○ double: not started\n✔ double: 3 of 3 checks\n✘ double" in out
    assert "stopped after" in out.splitlines()[-1]


# --- endless ---------------------------------------------------------------------------------------

ENDLESS = {
    "loop": "while True: pass",
    "sleep": "while True: time.sleep(1)",
    "long sleep": "time.sleep(30)",
    "except Exception": "while True:\n        try: time.sleep(1)\n        except Exception: pass",
    "bare except": "while True:\n        try: time.sleep(1)\n        except: pass",
    "bare except, busy": "while True:\n        try: sum(range(100))\n        except: continue",
    "two bare excepts": (
        "def g():\n        try: time.sleep(1)\n        except: pass\n"
        "    while True:\n        try: g()\n        except: pass"
    ),
    "finally": "while True:\n        try: time.sleep(1)\n        finally: continue",
    "hides that it was stopped": "try: time.sleep(9)\n    except: return x * 2",
    "raises something else": "try: time.sleep(9)\n    except: 1 / 0",
    "print": "while True: print('again')",
    "print to stderr": "import sys\n    while True: print('again', file=sys.stderr)",
    "warn": "import warnings\n    while True: warnings.warn('again')",
    "generator": "return sum(1 for _ in iter(int, 1))",
    "tensors": "while True: x = x + 1",
    "in a helper": "return [helper() for _ in range(3)]",
    "lock": "import threading\n    threading.Lock().acquire() and threading.Event().wait()",
    "dataset": "n = 0\n    while n < 10: n -= 1",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
def test_endless_answers_are_stopped(body):
    def helper():
        while True:
            pass

    start = time.monotonic()
    verdict = grade(f"import time\ndef f(x):\n    {body}", hurried, helper=helper)
    assert time.monotonic() - start < LIMIT + 1
    assert verdict.mark == "✘"
    assert f"why       stopped after {LIMIT:g} s: is there a loop that does not end?" in verdict.text
    assert torch.equal(double.reference(torch.ones(1)), torch.tensor([2.0]))


def _endless(*_):
    while True:
        pass


class EndlessModule(nn.Module):
    forward = _endless


@pytest.mark.parametrize(
    "answer",
    [
        functools.partial(_endless, 1),
        EndlessModule(),
        torch.no_grad()(_endless),
        functools.lru_cache(_endless),
    ],
    ids=["partial", "module", "decorated", "cached"],
)
def test_endless_callables_are_stopped(answer):
    assert "stopped after" in hurried.grade(answer).text


@pytest.mark.parametrize(
    "method", ["__repr__", "__eq__", "__len__", "__iter__", "__getattr__", "__class__", "__bool__", "__str__"]
)
@pytest.mark.parametrize("body", ["1 / 0", "return 5", "print('x' * 10**6)", "raise SystemExit", "endless()"])
@pytest.mark.parametrize("base", ["", "(list)"])
def test_hostile_objects_do_not_break_the_report(method, body, base):
    if body == "endless()" and method not in {"__repr__", "__len__"}:
        return
    source = (
        f"class Odd{base}:\n    {'@property' if method == '__class__' else ''}\n"
        f"    def {method}(self, *rest):\n        {body}\n"
        "def f(x):\n    return Odd()"
    )
    assert grade(source, hurried, endless=_endless).mark == "✘"
    answer = learner(source, endless=_endless)
    assert toy(lambda: [1], [()], LIMIT).grade(lambda: answer(None)).mark == "✘"


def test_the_users_interrupt_passes():
    main = threading.get_ident()
    for body in ("while True: pass", "import time\n    time.sleep(9)"):
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            grade(f"def f(x):\n    {body}")
        timer.join()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no alarms")
def test_a_foreign_alarm_reaches_its_own_handler():
    heard = []
    previous = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert grade("import time\ndef f(x):\n    time.sleep(0.1)\n    return x * 2").mark == "✔"
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert heard == [1]


def test_the_limit_holds_in_the_function_only():
    with grading.time_limit(0.02, _endless):
        time.sleep(0.1)
    with pytest.raises(grading.TimeUp), grading.time_limit(0.02, _endless):
        _endless()


def test_other_threads_grade_without_a_limit():
    marks = []
    answers = [lambda x: x * 2, lambda x: x, lambda x: 1 / 0, lambda x: time.sleep(LIMIT + 0.1)]

    def work():
        marks.extend(hurried.grade(answer).text.splitlines()[-1] for answer in answers)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert marks[0] == "✔ double: 3 of 3 checks"
    assert "values are off" in marks[1]
    assert "in line" in marks[2]
    assert "it returns None" in marks[3]


# --- nothing is disturbed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("torch.zeros(2)", "a[0] = 1"),
        ("torch.zeros(2)", "a.data = torch.ones(2)"),
        ("torch.zeros(2)", "a.resize_(3)"),
        ("torch.zeros(2, requires_grad=True) * 1", "a.detach()[0] = 1"),
        ("torch.zeros(2)", "a.requires_grad = True"),
        ("[1, 2]", "a.append(3)"),
        ("[2, 1]", "a.sort()"),
        ("[[1], [2]]", "a[0].clear()"),
        ("[torch.zeros(2)]", "a[0] += 1"),
        ("(torch.zeros(2), 1)", "a[0].add_(1)"),
        ("np.zeros(2)", "a += 1"),
        ("np.zeros(2)", "a.shape = (2, 1)"),
        ("{'w': torch.zeros(2)}", "a['w'] += 1"),
        ("{'w': 1}", "a['v'] = 2"),
        ("{'w': 1}", "a.clear()"),
        ("{1, 2}", "a.add(3)"),
        ("bytearray(b'ab')", "a.reverse()"),
        ("torch.nn.Linear(2, 2)", "a.weight.data.zero_()"),
        ("torch.nn.Linear(2, 2)", "a.eval()"),
    ],
)
def test_a_changed_argument_is_reported(argument, change):
    make = lambda: eval(argument, {"torch": torch, "np": np})  # noqa: E731
    shared = make()
    for cases in (lambda: [(make(), 1), (make(), 2)], lambda: [(shared, 1), (shared, 2)]):
        by = toy(lambda a, n: n, cases)
        source = f"def f(a, n):\n    {change}\n    return n"
        if "requires_grad=True" in argument and cases()[0][0] is shared:
            continue  # what cannot be copied must be made anew, as `cases` asks
        verdict = grade(source, by, np=np)
        assert "check 1 of 2" in verdict.text
        assert verdict.text.endswith("it changes its argument `a` in place: work on a copy")
        assert by.grade(lambda a, n: n).mark == "✔"


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.relu,
        lambda: lambda x: x,
        lambda: torch.Generator().manual_seed(1),
        lambda: nn.Linear(2, 2),
        lambda: object(),
        lambda: (i for i in range(3)),
        lambda: torch.ones(2, requires_grad=True) * 2,
        lambda: torch.tensor([float("nan")]),
        lambda: np.array([np.nan]),
        lambda: float("nan"),
        lambda: [None, ..., torch.float32, slice(3), range(2), "a", b"b", {1: 2}],
        lambda: torch.ones(2, device="meta"),
        lambda: torch.eye(2).to_sparse(),
    ],
)
def test_an_argument_of_any_kind_may_stay_as_it_is(make):
    by = toy(lambda a: 1, lambda: [(make(),), (make(),)])
    assert by.grade(lambda a: 1).text == "✔ toy: 2 of 2 checks"


@pytest.mark.parametrize(
    "change",
    [
        "torch.manual_seed(1)",
        "torch.seed()",
        "torch.rand(3)",
        "random.seed(1)",
        "random.random()",
        "np.random.seed(1)",
        "np.random.rand()",
        "torch.set_default_dtype(torch.float64)",
        "torch.set_default_device('meta')",
        "torch.set_grad_enabled(False)",
        "torch.set_num_threads(torch.get_num_threads() + 1)",
        "torch.use_deterministic_algorithms(True)",
        "torch.set_printoptions(precision=1, sci_mode=True)",
        "np.set_printoptions(precision=1)",
        "np.seterr(all='raise')",
        "warnings.simplefilter('error')",
        "os.chdir('/')",
        "sys.setrecursionlimit(5000)",
        "setattr(sys, 'stdout', None)",
        "setattr(builtins, 'input', len)",
        "sys.stdout.close()",
        "sys.stdin.close()",
    ],
)
@pytest.mark.parametrize("end", ["return x * 2", "1 / 0"])
def test_global_state_is_put_back(change, end):
    """The comparison is the fixture's."""
    names = {"random": random, "np": np, "warnings": warnings, "os": os, "sys": sys, "builtins": builtins}
    verdict = grade(f"def f(x):\n    {change}\n    {end}", **names)
    if end == "return x * 2" and change not in ("torch.manual_seed(1)", "torch.seed()"):
        assert verdict.text == "✔ double: 3 of 3 checks"
    else:
        assert verdict.mark == "✘"


def test_the_users_settings_hold_after_grading_and_not_in_it():
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        made = []
        assert (
            double.grade(lambda x: made.append((torch.ones(1), torch.is_grad_enabled())) or x * 2).mark == "✔"
        )
        assert made[0][0].dtype == torch.float32
        assert made[0][0].device.type == "cpu"
        assert made[0][1]
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device().type == "meta"
        assert not torch.is_grad_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)


def test_a_gpu_that_starts_later_gets_the_users_seed(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    torch.manual_seed(77)
    double.grade(lambda x: x * 2)
    assert seeds[-1] == 77


def test_the_learners_objects_stay():
    source = (
        "seen = []\nw = torch.ones(3, requires_grad=True)\ndef f(x):\n    seen.append(x)\n    return x * 2"
    )
    answer = learner(source)
    names = dict(answer.__globals__)
    double.grade(answer)
    assert {k: id(v) for k, v in answer.__globals__.items()} == {k: id(v) for k, v in names.items()}
    assert names["w"].grad is None
    assert torch.equal(names["w"], torch.ones(3))
    assert torch.equal(names["seen"][0], torch.tensor([1.0, 2.0, 4.0]))
    assert len(names["seen"]) == 3


# --- what is printed -------------------------------------------------------------------------------


def test_prints_are_shown_in_at_most_five_lines(capsys):
    text = grade("def f(x):\n    print('shape', x.shape)\n    return x * 2").text
    assert text == "✔ double: 3 of 3 checks\n  printed   shape torch.Size([0])"
    text = grade("def f(x):\n    for i in range(99): print(i)\n    return x").text
    assert [line[2:] for line in text.splitlines()[-5:]] == [
        "printed   0", "printed   1", "printed   2", "printed   3", "          …",
    ]  # fmt: skip
    assert "shape torch.Size([3])" in grade("def f(x):\n    print('shape', x.shape)\n    return x").text
    assert grade("def f(x):\n    print('a' * 10**6)\n    return x").text.splitlines()[-1].endswith("a…")
    assert capsys.readouterr() == ("", "")


def test_endless_prints_fill_no_memory():
    printed = FirstCharacters()
    assert [print("x" * 10**5, file=printed) for _ in range(3)]
    assert len(printed.getvalue()) == 2_000


def test_prints_to_stderr_are_shown_with_the_verdict(capsys):
    text = grade("import sys\ndef f(x):\n    print('note', file=sys.stderr)\n    return x * 2").text
    assert text == "✔ double: 3 of 3 checks\n  printed   note"
    assert capsys.readouterr() == ("", "")


def test_warnings_are_shown_with_the_verdict(capsys):
    text = grade("import warnings\ndef f(x):\n    warnings.warn('careful')\n    return x * 2").text
    assert text == "✔ double: 3 of 3 checks\n  printed   UserWarning: careful"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.rand(1000, 1000),
        lambda: list(range(10**6)),
        lambda: [[torch.rand(24)] * 50] * 50,
        lambda: "word " * 10**5,
        lambda: {i: "x" * 100 for i in range(10**4)},
        lambda: 7 ** (10**4),
        lambda: np.zeros((300, 300)),
        lambda: nn.Sequential(*[nn.Linear(3, 3) for _ in range(100)]),
        lambda: set(range(10**5)),
        lambda: functools.reduce(lambda a, _: [a], range(500), []),
        lambda: (lambda a: a.append(a) or a)([]),
    ],
)
def test_huge_results_are_summarised(make):
    verdict = returning(make, 1)
    assert verdict.mark == "✘"
    assert len(verdict.text) < 700
    assert len(show(make())) < 200


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.tensor([1.0, 2.5]), "tensor([1.0000, 2.5000])"),
        (torch.zeros(2, 0), "tensor([], size=(2, 0))"),
        (torch.zeros(5, 5), "a tensor of shape (5, 5), float32"),
        (torch.zeros(2, device="meta"), "a tensor of shape (2,), float32"),
        (torch.eye(2).to_sparse(), "a tensor of shape (2, 2), float32, sparse_coo"),
        (np.zeros((9, 9)), "a NumPy array of shape (9, 9), float64"),
        ((torch.tensor(1), [2, "a"]), "(tensor(1), [2, 'a'])"),
        ((1,), "(1,)"),
        ({"b": torch.tensor(1), "a": {"d": 2, "c": []}}, "{'b': tensor(1), 'a': {'d': 2, 'c': []}}"),
        ({}, "{}"),
        (
            dict.fromkeys(range(9, 0, -1)),
            "{9: None, 8: None, 7: None, 6: None, 5: None, 4: None, 3: None, 2: None, ...}",
        ),
        ([[[[{1: 2}]]]], "[[[[{...}]]]]"),
        (None, "None"),
        (len, "<built-in function len>"),
    ],
)
def test_show(value, text):
    assert show(value) == text


def test_show_gives_no_addresses():
    assert "0x" not in show([object(), lambda: 1, double, Method()])


# --- what counts as equal --------------------------------------------------------------------------

nan, inf = float("nan"), float("inf")
SAME = [
    (torch.tensor([nan, inf, 1.0]), torch.tensor([nan, inf, 1.0])),
    (torch.tensor([1.0 + 5e-5]), torch.tensor([1.0])),
    (torch.tensor([1.0 + 1 / 128], dtype=torch.bfloat16), torch.tensor([1.0], dtype=torch.bfloat16)),
    (torch.tensor([1.0 + 1 / 1024], dtype=torch.float16), torch.tensor([1.0], dtype=torch.float16)),
    (torch.tensor([1.0]).to(torch.float8_e4m3fn), torch.tensor([1.0]).to(torch.float8_e4m3fn)),
    (torch.tensor([1 + 1e-6j, nan]), torch.tensor([1 + 0j, nan])),
    (torch.tensor(True), torch.tensor(True)),
    (torch.zeros(0, 3), torch.zeros(0, 3)),
    (torch.ones(2, requires_grad=True), torch.ones(2)),
    (torch.ones(2), nn.Parameter(torch.ones(2), requires_grad=False)),
    (torch.ones(2, requires_grad=True) * 2, torch.full((2,), 2.0, requires_grad=True)),
    (torch.eye(2).to_sparse(), torch.eye(2).to_sparse()),
    (torch.ones(3, 2).T, torch.ones(2, 3)),
    (torch.ones(2, device="meta"), torch.zeros(2, device="meta")),
    (torch.ones(2, 3).shape, (2, 3)),
    ((2, 3), torch.Size([2, 3])),
    (torch.ones(2, 2).max(dim=1), (torch.ones(2), torch.zeros(2, dtype=torch.int64))),
    (2, 2.0),
    (np.float64(0.5), 0.5),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (nan, nan),
    (0.1 + 0.2, 0.3),
    (np.array([nan, 1.0]), np.array([nan, 1.0])),
    (np.array(["a"]), np.array(["a"])),
    ({"a": torch.ones(1)}, {"a": torch.ones(1)}),
    ([1, [2.0, None]], [1, [2.0, None]]),
    (torch.float32, torch.float32),
    (torch.device("cpu"), torch.device("cpu")),
    (None, None),
]


@pytest.mark.parametrize(("got", "expected"), SAME)
def test_equal(got, expected):
    assert difference(got, expected) is None
    assert returning(lambda: got, expected).mark == "✔"


OTHER = [
    (torch.tensor(2.5), torch.tensor(3.0), "the value is 2.5, not 3"),
    (torch.tensor(True), torch.tensor(False), "the value is True, not False"),
    (torch.tensor([1]), torch.tensor([1], dtype=torch.int32), "its dtype is torch.int64, not torch.int32"),
    (torch.tensor([255], dtype=torch.uint8), torch.tensor([0], dtype=torch.uint8), "at [0]: 255, not 0"),
    (torch.tensor([12345678]), torch.tensor([12345679]), "at [0]: 12345678, not 12345679"),
    (
        torch.tensor([True, True]),
        torch.tensor([True, False]),
        "1 of 2 values are off; at [1]: True, not False",
    ),
    (torch.tensor([1.0]), torch.tensor([nan]), "at [0]: 1, not nan"),
    (torch.tensor([1 + 1j]), torch.tensor([1 - 1j]), "at [0]: 1+1j, not 1-1j"),
    (torch.tensor([1.001]), torch.tensor([1.0]), "at [0]: 1.001, not 1"),
    (torch.tensor([1e-3]), torch.tensor([0.0]), "at [0]: 0.001, not 0"),
    (torch.zeros(0), torch.zeros(0, 3), "its shape is (0,), not (0, 3)"),
    (torch.tensor([1.0]), torch.tensor(1.0), "its shape is (1,), not ()"),
    (torch.ones(2), torch.ones(2, requires_grad=True), "cut off from the graph"),
    (torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse(), "2 of 4 values are off"),
    (1.0, 1, "it returns a float, not an int"),
    (True, 1, "it returns a bool, not an int"),
    (1, True, "it returns an int, not a bool"),
    (True, 1.0, "it returns a bool, not a float"),
    (torch.tensor(1.0), 1.0, "it returns a tensor, not a float"),
    (torch.tensor(True), True, "it returns a tensor, not a bool"),
    (2, 3.0, "the value is 2, not 3"),
    (10**400, 3.0, "cannot be compared"),
    (0.5, 0.25, "the value is 0.5, not 0.25"),
    ("a", "b", "the value is 'a', not 'b'"),
    ([1, 2], (1, 2), "it returns a list, not a tuple"),
    ((1, 2), [1, 2], "it returns a tuple, not a list"),
    ((1, 2, 3), (1, 2), "it returns 3 values, not 2"),
    ((torch.ones(1), 2.0), (torch.ones(1), torch.ones(1)), "value 2 of 2: it is a float, not a tensor"),
    ((1, None), (1, 2), "value 2 of 2: it is None, not an int"),
    ({"a": 1}, {"b": 1}, "the keys are ['a'], not ['b']"),
    ({"a": 1}, {"a": 2}, "at key 'a': the value is 1, not 2"),
    (np.zeros(2), np.zeros(3), "its shape is (2,), not (3,)"),
    (np.zeros(2), np.zeros(2, np.float32), "its dtype is float64, not float32"),
    (np.zeros(2), np.ones(2), "the array has other values"),
    (np.zeros(2), torch.zeros(2), "it returns a NumPy array, not a tensor"),
    (np.uint8(1), torch.zeros(2), "it returns a uint8, not a tensor"),
    (torch.float32, torch.float64, "the value is torch.float32, not torch.float64"),
    (int, float, "not <class 'float'>"),
    (1, None, "it returns an int, not None"),
]


@pytest.mark.parametrize(("got", "expected", "why"), OTHER)
def test_other(got, expected, why):
    verdict = returning(lambda: got, expected)
    assert verdict.mark == "✘"
    assert why in verdict.text.splitlines()[-1]
    assert why.startswith("cannot") or why in difference(got, expected)


def test_an_endless_stream_may_be_an_argument():
    assert toy(lambda a: 3, lambda: [(itertools.count(),)]).grade(lambda a: 3).mark == "✔"


def test_verdicts_are_marked_alike_in_text_and_attribute():
    assert {double.grade(f).mark for f in (lambda x: None, lambda x: x, lambda x: 2 * x)} == {"○", "✘", "✔"}
    assert isinstance(double.grade(len), grading.Verdict)


# --- Answers that are classes, and `call` -----------------------------------------------------------


def _use(answer, size, x):
    """Scale(size)(x)"""
    model = answer(size)
    if not isinstance(model, nn.Module):
        return Result(..., "it is no module")
    return Result(model(x).detach(), None if list(model.parameters()) else "it has no parameter")


@exercise(
    cases=lambda: [(2, torch.tensor([1.0, 3.0])), (3, torch.randn(4, 3))],
    call=_use,
    mistakes={"it adds": lambda size: _Applied(size, torch.add)},
)
class Scale(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.factor = nn.Parameter(torch.full((size,), 2.0))

    def forward(self, x):
        return x * self.factor


class _Applied(Scale.reference):
    def __init__(self, size, operation):
        super().__init__(size)
        self.operation = operation

    def forward(self, x):
        return self.operation(x, self.factor)


MODULE = (
    "class Scale(torch.nn.Module):\n    def __init__(self, size):\n        super().__init__()\n        {}\n"
)
MODULE += "    def forward(self, x):\n        {}\n"
PARAMETER = "self.f = torch.nn.Parameter(torch.full((size,), 2.0))"


@pytest.mark.parametrize(
    ("source", "mark", "text"),
    [
        (MODULE.format(PARAMETER, "return self.f * x"), "✔", "✔ Scale: 2 of 2 checks"),
        (MODULE.format(PARAMETER, "return self.f + x"), "✘", "it adds"),
        (MODULE.format(PARAMETER, "return self.f + 2 * x"), "✘", "2 of 2 values are off"),
        (MODULE.format("self.f = 2", "return x * self.f"), "✘", "why       it has no parameter"),
        (MODULE.format("self.f = 2", "return x + self.f"), "✘", "it adds"),  # the value comes first
        (MODULE.format(PARAMETER, "return x * self.g"), "✘", "in line   6: return x * self.g  (in forward)"),
        ("class Scale:\n    def __init__(self, size): self.f = 2", "✘", "why       it is no module"),
        ("class Scale:\n    def __init__(self): self.f = 2", "✘", "Scale.__init__() takes 1 positional"),
        (MODULE.format(PARAMETER, "return x.mul_(2)"), "✘", "changes its argument `x` in place"),
    ],
)
def test_a_class_is_made_and_called(source, mark, text):
    verdict = Scale.grade(learner(source, "Scale"))
    assert verdict.mark == mark
    assert text in verdict.text
    if mark == "✘":
        assert "given     size = 2, x = tensor([1., 3.])" in verdict.text


@pytest.mark.parametrize(
    "source",
    [
        "class Scale(torch.nn.Module):\n    def __init__(self, size): ...\n    def forward(self, x): ...",
        'class Scale(torch.nn.Module):\n    """Multiply."""\n    def forward(self, x):\n        pass',
    ],
)
def test_a_class_of_stubs_is_not_started(source):
    assert Scale.grade(learner(source, "Scale")).text == "○ Scale: not started"


def test_a_class_with_one_written_method_is_started():
    assert Scale.grade(learner(MODULE.format(PARAMETER, "..."), "Scale")).mark == "✘"


def test_long_values_are_cut_where_the_class_says():
    assert len(show(list(range(24)), 300)) > 80
    assert show("x" * 70) == repr("x" * 70)
