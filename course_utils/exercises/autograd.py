"""The checkers of chapter 02, Autograd. Each function is a reference solution; read them after yours."""

import contextlib
import inspect
import itertools
import math
import warnings

import numpy as np
import torch
from torch.autograd import Function, gradcheck
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from course_utils.exercises.grading import Result, exercise, left_off


def parabola(x):
    return x**2 + 2 * x + 5


def cube_minus_x(x):
    return x**3 - x


def halves_or_squares(x):
    return x / 2 if x < 1 else x * x


def polynomial(x):
    return torch.stack([x, x**2, x**3]) @ torch.tensor([1.0, -2.0, 0.5], dtype=x.dtype)


def _touch(f, x0):
    x = torch.tensor(x0, requires_grad=True)
    y = f(x)
    y.backward()
    return x.grad.item(), y.item()


@exercise(
    cases=lambda: [
        (parabola, 3.0),
        (cube_minus_x, -1.5),
        (torch.sin, 2.0),
        (halves_or_squares, 0.5),
        (polynomial, 1.5),
    ],
    mistakes={
        "f(x0) is the height of the line at x0; its intercept is the height at 0": _touch,
        "the slope is right, the intercept is not: from x0 back to 0 the line changes by -slope * x0": (
            lambda f, x0: (_touch(f, x0)[0], _touch(f, x0)[1] + _touch(f, x0)[0] * x0)
        ),
        "the slope is right, the intercept has the opposite sign: at x0 the line must reach f(x0)": (
            lambda f, x0: (_touch(f, x0)[0], _touch(f, x0)[0] * x0 - _touch(f, x0)[1])
        ),
        "the two are in the wrong order: first the slope, then the intercept": (
            lambda f, x0: (_touch(f, x0)[1] - _touch(f, x0)[0] * x0, _touch(f, x0)[0])
        ),
        "the first value is f(x0); the slope is what backward leaves in x.grad": (
            lambda f, x0: (_touch(f, x0)[1], _touch(f, x0)[1] - _touch(f, x0)[1] * x0)
        ),
        "x is not watched, so nothing was recorded: make it with requires_grad=True": (
            lambda f, x0: f(torch.tensor(x0)).backward()
        ),
        "x has shape (1,), and f takes a scalar tensor: torch.tensor(x0), without brackets": (
            lambda f, x0: (lambda slope, height: (slope, height - slope * x0))(*_touch(f, [x0]))
        ),
    },
)
def tangent(f, x0):
    slope, height = _touch(f, x0)
    return slope, height - slope * x0


def ink_squared(image):
    return image.sum() ** 2


def left_minus_right(image):
    middle = image.shape[1] // 2
    return (image[:, :middle].square().sum() - 3 * image[:, middle:].square().sum()).exp()


def entropy(image):
    shares = image.flatten().softmax(0)
    return -(shares * shares.log()).sum()


def _pixel_gradient(score, image):
    pixels = image.detach().clone().requires_grad_()
    return torch.autograd.grad(score(pixels), pixels)[0]


def _model(rows, columns):
    """Make a score with watched weights, as a model has them."""
    weights = torch.randn(rows, columns, requires_grad=True)

    def model(image):
        return (weights * image).sum().tanh()

    model.__qualname__, model.weights = "model", weights
    return model


def _leaves_no_gradient(_, score, image) -> str | None:
    if image.grad is not None:
        return (
            "the values are right, but image.grad is filled now: watch a copy, and leave the image as it was"
        )
    if getattr(getattr(score, "weights", None), "grad", None) is not None:
        return (
            "the values are right, but backward also fills the .grad of the weights inside score: "
            "torch.autograd.grad(score(pixels), pixels) fills none"
        )
    return None


@exercise(
    cases=lambda: [
        (ink_squared, torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.0, 1.25]])),
        (left_minus_right, torch.rand(2, 5) / 2),
        (entropy, torch.rand(8, 6)),
        (ink_squared, torch.rand(3, 4, dtype=torch.float64)),
        (left_minus_right, (torch.rand(2, 3) / 2).requires_grad_()),
        (_model(2, 3), torch.rand(2, 3)),
    ],
    also=_leaves_no_gradient,
    mistakes={
        "the copy is not watched, so nothing was recorded: call requires_grad_() on it": (
            lambda f, x: f(x.clone()).backward()
        ),
        "a clone of a watched image is not a leaf, so its .grad is None: detach it, too": (
            lambda f, x: None if x.requires_grad else _pixel_gradient(f, x)
        ),
        "it returns None: is there a `return`? And the .grad of a tensor that is no watched leaf is None": (
            lambda f, x: print(end="")
        ),
        "these are sizes without a sign: a pixel may also lower the score": (
            lambda f, x: _pixel_gradient(f, x).abs()
        ),
        "the gradient times the pixel; expected: the gradient alone": lambda f, x: (
            _pixel_gradient(f, x) * x.detach()
        ),
        "the sign is turned round: a positive number says that more ink raises the score": (
            lambda f, x: -_pixel_gradient(f, x)
        ),
        "that is the score itself; expected: its gradient, one number for each pixel": lambda f, x: f(
            x
        ).detach(),
        "one number for all pixels together; expected: one for each": lambda f, x: _pixel_gradient(
            f, x
        ).sum(),
        "that is a step, the image plus its gradient; expected: the gradient alone": (
            lambda f, x: x.detach() + _pixel_gradient(f, x)
        ),
    },
)
def pixel_gradient(score, image):
    return _pixel_gradient(score, image)


def _parameter(values, gradient, dtype=torch.float32):
    parameter = torch.tensor(values, dtype=dtype, requires_grad=True)
    parameter.grad = None if gradient is None else torch.tensor(gradient, dtype=dtype)
    return parameter


def _stepped(parameters, lr, sign=-1, ask=True, recording=False, product=lambda lr, gradient: lr * gradient):
    with torch.set_grad_enabled(recording):
        for parameter in parameters:
            if parameter.grad is not None or not ask:
                parameter += sign * product(lr, parameter.grad)
                parameter.grad = None


def _given_a_new_name(parameters, lr):
    for parameter in parameters:
        parameter = parameter - lr * parameter.grad


def _is_clear(_, parameters, lr) -> str | None:
    for i, parameter in enumerate(parameters):
        if parameter.grad is not None and parameter.grad.any():
            return f"the step is right, but parameters[{i}].grad still holds the old gradient: set it to None"
        if parameter.grad is not None:
            return f"parameters[{i}].grad is full of zeros; expected: None, for 'nothing computed yet'"
    return None


def _stepping(answer, parameters, lr):
    """sgd_step(parameters, lr)"""
    addresses = [p.data_ptr() for p in parameters]
    result, wrong = answer(parameters, lr), left_off()
    if not wrong and addresses != [p.data_ptr() for p in parameters]:
        wrong = "a parameter gets new memory, and its views keep the old values: write into it, p -= ..."
    return Result(..., wrong) if wrong else result


@exercise(
    call=_stepping,
    cases=lambda: [
        ((_parameter([1.0, 2.0], [0.5, -1.0]),), 0.1),
        (
            (
                _parameter([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[1.0, 0.0, -2.0], [3.0, 0.5, 1.0]]),
                _parameter([7.0], None),
                _parameter(5.0, 8.0, torch.float64),
            ),
            0.25,
        ),
        ((_parameter([3.0, -1.0], None),), 0.5),
    ],
    in_place=True,
    also=_is_clear,
    mistakes={
        "it goes uphill: subtract the gradient": lambda p, lr: _stepped(p, lr, sign=1),
        "the learning rate is missing: the step is lr times the gradient": lambda p, lr: _stepped(p, 1.0),
        "the parameters have not moved. `p = p - ...` gives the name p to a new tensor; change p itself, "
        "with -= or sub_": lambda p, lr: print(end=""),
        "nothing has moved: `p = p - ...` gives the name p to a new tensor; use `p -= ...`": (
            _given_a_new_name
        ),
        "one parameter has no gradient, its .grad is None: leave it as it is": (
            lambda p, lr: _stepped(p, lr, ask=False)
        ),
        "the .grad of one parameter is None, which cannot be multiplied: leave that parameter as it is": (
            lambda p, lr: _stepped(p, lr, ask=False, product=lambda lr, gradient: gradient * lr)
        ),
        "a watched leaf may change only where nothing is recorded: under torch.no_grad()": (
            lambda p, lr: _stepped(p, lr, recording=True)
        ),
        "divided by lr; the step is lr times the gradient": lambda p, lr: _stepped(p, 1 / lr),
    },
)
def sgd_step(parameters, lr):
    _stepped(parameters, lr)


def distance_to_three(x):
    return (x - 3).square()


def long_valley(x):
    return x[0] ** 2 + 4 * (x[1] - 1) ** 2


def banana(x):
    return (1 - x[0]) ** 2 + 5 * (x[1] - x[0] ** 2) ** 2


def _walk(f, start, lr, steps, clear=True, once=False, sign=-1):
    x, gradient = start.detach().clone(), torch.zeros_like(start)
    for step in range(steps):
        leaf = x.clone().requires_grad_()
        new = torch.autograd.grad(f(leaf), leaf)[0]
        gradient = new if clear and not (once and step) else gradient if once else gradient + new
        x = x + sign * lr * gradient
    return x


def _history(x):
    """How many operations are recorded behind x."""
    seen, waiting = set(), [x.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return len(seen)


def _descending(answer, f, start, lr, steps):
    """descend(f, start, lr, steps)"""
    histories = []

    def noted(x):
        if len(histories) < 3:
            histories.append(_history(x) if isinstance(x, torch.Tensor) else 0)
        return f(x)

    got = answer(noted, start, lr, steps)
    if switched_off := left_off():
        return Result(..., switched_off)
    grown = any(later > histories[0] for later in histories)
    wrong = (
        "the values are right, but x is no leaf after the first step, and its graph grows with every step: "
    )
    return Result(
        got, wrong + "update x in place, under no_grad, or detach it in each step" if grown else None
    )


def _renamed(f, start, lr, steps, recording=True, then=lambda x: None):
    x = start.detach().clone().requires_grad_()
    for _ in range(steps):
        f(x).backward()
        with torch.set_grad_enabled(recording), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, about the .grad of a tensor that is no leaf
            x = x - lr * x.grad
            then(x)
    return x.detach()


def _is_off_the_graph(got, *_) -> str | None:
    if got.requires_grad:
        return "the values are right, but the result is still on the graph: detach it before you return it"
    return None


@exercise(
    call=_descending,
    cases=lambda: [
        (distance_to_three, torch.tensor(0.0), 0.1, 1),
        (distance_to_three, torch.tensor(0.0), 0.1, 3),
        (long_valley, torch.tensor([2.0, -1.0]), 0.05, 10),
        (banana, torch.tensor([-0.5, 0.5], dtype=torch.float64), 0.02, 100),
        (long_valley, torch.tensor([2.0, -1.0]), 0.05, 0),
        (long_valley, torch.tensor([-1.0, 0.5], requires_grad=True), 0.05, 2),
        (distance_to_three, torch.tensor(0.0), 1.25, 3),
    ],
    also=_is_off_the_graph,
    mistakes={
        "x is no longer a leaf after `x = x - ...`, so its .grad is None: update in place, with `x -= ...` "
        "under no_grad": _renamed,
        "after `x = x - ...`, x is a new tensor, and its .grad is None: update in place, with `x -= ...` "
        "under no_grad": lambda *a: _renamed(*a, then=lambda x: x.grad.zero_()),
        "a clone of a watched start is not a leaf, so its .grad is None: detach it, too": (
            lambda f, x, lr, n: lr * x.grad if x.requires_grad else _walk(f, x, lr, n)
        ),
        "a watched leaf may change only where nothing is recorded: under torch.no_grad()": (
            lambda f, x, lr, n: x.detach().clone().requires_grad_().sub_(lr) if n else x.detach()
        ),
        "`x = ...` under no_grad makes a new, unwatched tensor: use `x -= ...`": (
            lambda *a: _renamed(*a, recording=False)
        ),
        "the gradients of all steps so far add up: clear .grad before each backward": (
            lambda f, x, lr, n: _walk(f, x, lr, n, clear=False)
        ),
        "the gradient is computed once, at the start, and used in every step": (
            lambda f, x, lr, n: _walk(f, x, lr, n, once=True)
        ),
        "it goes uphill: subtract the gradient": lambda f, x, lr, n: _walk(f, x, lr, n, sign=1),
        "the learning rate is missing: the step is lr times the gradient": (
            lambda f, x, lr, n: _walk(f, x, 1.0, n)
        ),
        "it stops early, where f grows; expected: all the steps": (
            lambda f, x, lr, n: _walk(f, x, lr, n if f(_walk(f, x, lr, 1)) < f(x) else 0)
        ),
        "one step too many": lambda f, x, lr, n: _walk(f, x, lr, n + 1),
        "one step too few": lambda f, x, lr, n: _walk(f, x, lr, n - 1),
        "that is the smallest value of f; expected: the point where it is reached": (
            lambda f, x, lr, n: f(_walk(f, x, lr, n))
        ),
        "that is where it started: nothing has moved": lambda f, x, lr, n: x.clone(),
    },
)
def descend(f, start, lr, steps):
    return _walk(f, start, lr, steps)


def _limited(most, power=2):
    """Make a mean loss that refuses more rows than fit, as a device without enough memory would.

    Rows stay in memory as long as a graph needs them: `backward` frees them.
    """
    held = []

    def chunk_loss(w, x, y):
        held[:] = [(rows, n) for rows, n in held if not rows.expired()]
        total = len(x) + sum(n for _, n in held)
        if total > most:
            raise MemoryError(f"{total} rows at once, but only {most} fit")
        x = x.clone()
        with contextlib.suppress(NotImplementedError):  # torch.func's tensors; it frees its graphs itself
            held.append((StorageWeakRef(x.untyped_storage()), len(x)))
        return (x @ w - y).abs().pow(power).mean()

    chunk_loss.__qualname__ = "chunk_loss"
    return chunk_loss


def _chunk_losses(chunk_loss, leaf, x, y, size):
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        yield chunk_loss(leaf, x[rows], y[rows]), len(x[rows])


def _chunk_gradients(chunk_loss, w, x, y, size):
    leaf = w.detach().clone().requires_grad_()
    for loss, n in _chunk_losses(chunk_loss, leaf, x, y, size):
        yield torch.autograd.grad(loss, leaf)[0], n


def _one_backward(chunk_loss, w, x, y, size):
    leaf = w.detach().clone().requires_grad_()
    losses = list(_chunk_losses(chunk_loss, leaf, x, y, size))
    return torch.autograd.grad(sum(loss * n / len(x) for loss, n in losses), leaf)[0]


def _weighted(*arguments, drop_last=False):
    chunks = list(_chunk_gradients(*arguments))
    if drop_last and len(chunks) > 1 and chunks[-1][1] < arguments[-1]:
        chunks.pop()
    return sum(g * n for g, n in chunks) / sum(n for _, n in chunks)


def _full_chunks(chunk_loss, w, x, y, size):
    gradients = [g * n / len(x) for g, n in _chunk_gradients(chunk_loss, w, x, y, size) if n == size]
    return sum(gradients) if gradients else None


def _leaves_w(_, chunk_loss, w, *rows) -> str | None:
    if w.grad is not None:
        return "the values are right, but w.grad is filled now: watch a copy, and leave w as it was"
    return None


@exercise(
    cases=lambda: [
        (
            _limited(2),
            torch.tensor([1.0, -2.0]),
            torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0], [1.0, 1.0], [4.0, -1.0]]),
            torch.tensor([3.0, -1.0, 2.0, 0.5, 1.0]),
            2,
        ),
        (_limited(3), torch.randn(4), torch.randn(10, 4), torch.randn(10), 3),
        (_limited(4, 3), torch.randn(2), torch.randn(8, 2), torch.randn(8), 4),
        (_limited(50), torch.randn(3), torch.randn(7, 3), torch.randn(7), 50),
    ],
    also=_leaves_w,
    mistakes={
        "the sum of the chunks' gradients; each is the gradient of a mean over its own rows, so give it the "
        "weight (rows in the chunk) / (all rows)": lambda *a: sum(g for g, _ in _chunk_gradients(*a)),
        "the mean over the chunks counts the short last chunk as much as a full one: give each chunk the "
        "weight of its number of rows": lambda *a: torch.stack([g for g, _ in _chunk_gradients(*a)]).mean(0),
        "each chunk has the weight size / (all rows), but the last one has fewer rows than size": (
            lambda *a: sum(g for g, _ in _chunk_gradients(*a)) * a[-1] / len(a[2])
        ),
        "each chunk has the weight 1 / (all rows); expected: (rows in the chunk) / (all rows)": (
            lambda *a: sum(g for g, _ in _chunk_gradients(*a)) / len(a[2])
        ),
        "the graphs of earlier chunks are still in memory: call backward for each chunk before the next one, "
        "which frees its graph": _one_backward,
        "that is the gradient of the last chunk alone: let the gradients add up": (
            lambda *a: list(_chunk_gradients(*a))[-1][0]
        ),
        "that is the gradient of the first chunk alone": lambda *a: next(_chunk_gradients(*a))[0],
        "the rows of the short last chunk are missing": lambda *a: _weighted(*a, drop_last=True),
        "the rows of the last chunk are missing where it has fewer than size": _full_chunks,
        "that is the gradient of the sum over all rows; expected: of the mean": (
            lambda *a: sum(g * n for g, n in _chunk_gradients(*a))
        ),
    },
)
def gradient_in_chunks(chunk_loss, w, x, y, size):
    return _weighted(chunk_loss, w, x, y, size)


class _NumpyOnly(TorchFunctionMode):
    def __torch_function__(self, *_):
        raise RuntimeError("this exercise is done by hand: derive the gradients, and use NumPy alone")


def _by_hand(answer, x, y, w1, b1, w2):
    """tanh_gradients(x, y, w1, b1, w2)"""
    with _NumpyOnly():
        return answer(x, y, w1, b1, w2)


def _tanh_gradients(
    x, y, w1, b1, w2, factor=2, rows=True, slope=lambda z, h: 1 - h**2, bias=lambda d_z, d_h: d_z.sum(0)
):
    z = x @ w1 + b1
    h = np.tanh(z)
    d_scores = factor * (h @ w2 - y) / (len(x) if rows else 1)
    d_h = d_scores @ w2.T
    d_z = d_h * slope(z, h)
    return x.T @ d_z, bias(d_z, d_h), h.T @ d_scores


def _in_order(names):
    return lambda *a: tuple(dict(zip(("w1", "b1", "w2"), _tanh_gradients(*a), strict=True))[n] for n in names)


def _network(*sizes):
    """Random x, y, w1, b1, w2 for a number of rows, inputs, hidden units and outputs."""
    rows, inputs, hidden, outputs = sizes
    shapes = ((rows, inputs), (rows, outputs), (inputs, hidden), (hidden,), (hidden, outputs))
    return tuple(torch.randn(shape, dtype=torch.float64).numpy() for shape in shapes)


@exercise(
    call=_by_hand,
    cases=lambda: [
        (
            np.array([[1.0], [2.0]]),
            np.array([[1.0], [-1.0]]),
            np.array([[0.5, -0.25, 0.1]]),
            np.array([0.0, 0.5, -0.3]),
            np.array([[1.0], [2.0], [-1.5]]),
        ),
        _network(5, 3, 4, 2),
        _network(1, 2, 3, 4),
        _network(7, 4, 2, 3),
    ],
    mistakes={
        "the derivative of tanh is missing: multiply by 1 - h**2 on the way back through it": (
            lambda *a: _tanh_gradients(*a, slope=lambda z, h: 1)
        ),
        "that is ReLU's derivative; that of tanh is 1 - h**2": (
            lambda *a: _tanh_gradients(*a, slope=lambda z, h: z > 0)
        ),
        "tanh is applied twice: h is tanh(z) already, so its derivative is 1 - h**2": (
            lambda *a: _tanh_gradients(*a, slope=lambda z, h: 1 - np.tanh(h) ** 2)
        ),
        "1 - z**2, with z from before tanh; the derivative is 1 - h**2, with h = tanh(z)": (
            lambda *a: _tanh_gradients(*a, slope=lambda z, h: 1 - z**2)
        ),
        "that is 1 + h**2; the derivative of tanh is 1 - h**2": (
            lambda *a: _tanh_gradients(*a, slope=lambda z, h: 1 + h**2)
        ),
        "a factor of 2 is missing: the derivative of u**2 is 2 * u": lambda *a: _tanh_gradients(*a, factor=1),
        "the sign is turned round: the differences are scores - y": lambda *a: _tanh_gradients(*a, factor=-2),
        "the loss is a mean over the rows, so its gradient is divided by their number": (
            lambda *a: _tanh_gradients(*a, rows=False)
        ),
        "the loss is the mean over the rows only; here it was divided by the number of outputs, too": (
            lambda *a: _tanh_gradients(*a, factor=2 / a[1].shape[1])
        ),
        "b1 is used by every row, so its gradient is the sum over the rows, not their mean": (
            lambda *a: _tanh_gradients(*a, bias=lambda d_z, d_h: d_z.mean(0))
        ),
        "the gradient of b1 still has a row for each row of x: sum over the rows": (
            lambda *a: _tanh_gradients(*a, bias=lambda d_z, d_h: d_z)
        ),
        "the gradient of b1 was taken after tanh, from d_h; b1 is added before it, so sum up d_z": (
            lambda *a: _tanh_gradients(*a, bias=lambda d_z, d_h: d_h.sum(0))
        ),
        **{
            f"the right gradients in the order {', '.join(names)}; expected: w1, b1, w2": _in_order(names)
            for names in itertools.permutations(("w1", "b1", "w2"))
            if names != ("w1", "b1", "w2")
        },
    },
)
def tanh_gradients(x, y, w1, b1, w2):
    return _tanh_gradients(x, y, w1, b1, w2)


def _disagreement(function) -> str | None:
    """Whether `forward` takes ctx where `setup_context` does, too, or where nothing does."""
    if not (isinstance(function, type) and issubclass(function, Function)):
        return None
    taken = inspect.signature(function.forward).parameters.values()
    taken = [p for p in taken if p.kind is not p.VAR_POSITIONAL and p.default is p.empty]
    separate = function.setup_context is not Function.setup_context
    if separate and len(taken) == 2:
        return "with a setup_context, forward takes no ctx: write forward(x), and save in setup_context"
    if not separate and len(taken) == 1:
        return "forward takes no ctx, so it needs a setup_context(ctx, inputs, output) beside it, which saves"
    return None


def _forgotten(function) -> str | None:
    """Whether what is kept for backward is lost by a second call, or changed in place unnoticed."""
    first = torch.tensor([-1.0, 2.0], requires_grad=True)
    output = function.apply(first)
    function.apply(torch.tensor([3.0, -4.0], requires_grad=True))
    output.sum().backward()
    if first.grad is None or first.grad.tolist() != [0, 1]:
        return "a second call spoils the backward of the first: keep what it needs in ctx, not in the class"
    for place in ("input", "output"):
        leaf = torch.tensor([-1.0, 2.0], requires_grad=True)
        kept = {"input": leaf + 0}
        kept["output"] = function.apply(kept["input"])
        with torch.no_grad():
            kept[place].neg_()
        with contextlib.suppress(RuntimeError):  # autograd has noticed the change
            kept["output"].sum().backward()
            if leaf.grad.tolist() != [0, 1]:
                why = f"where its {place} is changed in place before backward, the gradient is wrong"
                return f"{why}, in silence: keep tensors by ctx.save_for_backward, not as ctx.x = x"
    return None


def _use_function(function, x, upstream):
    """ReLU.apply(x) with x watched, and then (output * upstream).sum().backward()"""
    if wrong := _disagreement(function):
        return Result(..., wrong)
    before = x.clone()
    leaf = x.detach().requires_grad_()  # has x's memory, so that a change of x is seen
    output = function.apply(leaf)
    if not torch.equal(x, before):
        return None
    sent = []
    if isinstance(output, torch.Tensor) and output.requires_grad:
        output.register_hook(lambda g: sent.append((g, g.clone())))
    (output * upstream).sum().backward()
    away = x[x != 0].double().requires_grad_()
    kept = all(torch.equal(after, before) for after, before in sent)
    found = {
        "output": output.detach(),
        "gradient": leaf.grad,
        "gradcheck": gradcheck(function.apply, (away,), raise_exception=False),
    }
    wrong = "backward changes grad_output in place; others may still need it: make a new tensor"
    return Result(found, _forgotten(function) if kept else wrong)


def _relu_like(backward, forward=lambda x: x.clamp(min=0)):
    """Make a Function from two plain functions."""

    class Mistaken(Function):
        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

    Mistaken.forward = staticmethod(forward)
    Mistaken.backward = staticmethod(lambda ctx, grad_output: backward(ctx.saved_tensors[0], grad_output))
    return Mistaken


def _unpack(ctx, grad_output):
    (x,) = ctx.saved_tensors
    return grad_output * (x > 0)


def _saving(save, backward=_unpack):
    """Make a Function from what setup_context does with ctx and inputs."""

    class Mistaken(Function):
        @staticmethod
        def forward(x):
            return x.clamp(min=0)

        @staticmethod
        def setup_context(ctx, inputs, output):
            save(ctx, inputs)

    Mistaken.backward = staticmethod(backward)
    return Mistaken


@exercise(
    call=_use_function,
    cases=lambda: [
        (torch.tensor([-2.0, 0.5, 3.0, -1.0]), torch.tensor([1.0, 10.0, 100.0, 1000.0])),
        (torch.tensor([0.0, -1.0, 2.0]), torch.tensor([5.0, 7.0, -11.0])),
        (torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)),
    ],
    mistakes={
        "that is ReLU's own derivative, 0 or 1; by the chain rule it is multiplied by grad_output": (
            _relu_like(lambda x, g: (x > 0).to(x.dtype))
        ),
        "grad_output is passed back unchanged; where x was negative, nothing may pass": (
            _relu_like(lambda x, g: g.clone())
        ),
        "the mask asks for the sign of grad_output; it is the sign of x that counts": (
            _relu_like(lambda x, g: g * (g > 0))
        ),
        "the derivative is multiplied by x instead of grad_output": _relu_like(lambda x, g: x * (x > 0)),
        "multiplied by the output, max(x, 0); ReLU's derivative is 1 where x is positive": (
            _relu_like(lambda x, g: g * x.clamp(min=0))
        ),
        "at x = 0 the gradient is to be 0, as in PyTorch: use x > 0": _relu_like(lambda x, g: g * (x >= 0)),
        "the mask is turned round: the gradient passes where x is positive": (
            _relu_like(lambda x, g: g * (x < 0))
        ),
        "the output is float32, whatever x is: keep the dtype of x": (
            _relu_like(lambda x, g: g * (x > 0), lambda x: x.clamp(min=0).float())
        ),
        "backward returns nothing: is there a `return`?": _relu_like(lambda x, g: None),
        "saved_tensors is a tuple, even of one tensor: `(x,) = ctx.saved_tensors`": (
            _relu_like(lambda x, g: g * ((x,) > 0))
        ),
        "nothing was saved for backward: call ctx.save_for_backward(x) in setup_context": (
            _saving(lambda ctx, inputs: None)
        ),
        "nothing was saved, so saved_tensors is empty: call ctx.save_for_backward(x) in setup_context": (
            _saving(lambda ctx, inputs: None, lambda ctx, g: g * (ctx.saved_tensors[0] > 0))
        ),
        "inputs is a tuple, even of one tensor: `(x,) = inputs`": (
            _saving(lambda ctx, inputs: ctx.save_for_backward(inputs))
        ),
        "forward returns x itself, perhaps changed in place: make a new tensor, as clamp(min=0) does": (
            _relu_like(lambda x, g: g * (x > 0), lambda x: x.clamp_(min=0))
        ),
        "forward returns x as it is: negative numbers become 0": _relu_like(lambda x, g: g, torch.clone),
    },
)
class ReLU(Function):
    @staticmethod
    def forward(x):
        return x.clamp(min=0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        (x,) = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output * (x > 0)


HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


def _nll(x, mean, log_std, constant=HALF_LOG_2_PI, scale=1.0):
    return scale * log_std + ((x - mean) / log_std.exp()).square() / 2 + constant


def _reaches_both(got, x, mean, log_std) -> str | None:
    if not got.requires_grad:
        return None
    expected = torch.autograd.grad(_nll(x, mean, log_std).mean(), (mean, log_std))
    found = torch.autograd.grad(got, (mean, log_std), allow_unused=True, retain_graph=True)
    for name, have, want in zip(("mean", "log_std"), found, expected, strict=True):
        if have is None or not torch.allclose(have, want, rtol=1e-3, atol=1e-5):
            return f"the value is right, but not its gradient with respect to {name}: keep {name} a tensor"
    return None


@exercise(
    cases=lambda: [
        (torch.tensor([1.0, 4.0, 2.0]), torch.tensor(2.0), torch.tensor(0.5)),
        (torch.randn(20) * 3 + 1, torch.tensor(0.5), torch.tensor(-0.7)),
        (torch.tensor([30.0, 0.5, -1.0]), torch.tensor(0.0), torch.tensor(0.0)),
        (
            torch.tensor([0.5, -1.0, 2.0]),
            torch.tensor(0.25, requires_grad=True),
            torch.tensor(-0.5, requires_grad=True),
        ),
        (
            torch.randn(10, dtype=torch.float64),
            torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
            torch.tensor(0.4, dtype=torch.float64, requires_grad=True),
        ),
        (torch.tensor([5.0]), torch.tensor(5.0), torch.tensor(0.0)),
    ],
    also=_reaches_both,
    mistakes={
        "far from the mean, exp underflows to 0, whose logarithm is infinite: simplify the "
        "logarithm on paper": (lambda x, m, s: -(-_nll(x, m, s)).exp().log().mean()),
        "that is the mean log-density; the negative log-likelihood is minus that": (
            lambda x, m, s: -_nll(x, m, s).mean()
        ),
        "the sum over the measurements; expected: the mean": lambda x, m, s: _nll(x, m, s).sum(),
        "right for each measurement; now take the mean": _nll,
        "the constant 0.5 * log(2 * pi) is missing": lambda x, m, s: _nll(x, m, s, constant=0).mean(),
        "the constant is 0.5 * log(2 * pi), half of what was added": (
            lambda x, m, s: _nll(x, m, s, constant=2 * HALF_LOG_2_PI).mean()
        ),
        "the constant comes with the other sign: minus the logarithm of 1 / sqrt(2 pi) is positive": (
            lambda x, m, s: _nll(x, m, s, constant=-HALF_LOG_2_PI).mean()
        ),
        "the term log_std is missing: without it, a wider Gaussian would always look better": (
            lambda x, m, s: _nll(x, m, s, scale=0).mean()
        ),
        "log_std comes with the other sign: minus the logarithm of 1 / std is + log_std": (
            lambda x, m, s: _nll(x, m, s, scale=-1).mean()
        ),
        "log_std was used as the standard deviation itself; std is log_std.exp()": (
            lambda x, m, s: (s.log() + ((x - m) / s).square() / 2 + HALF_LOG_2_PI).mean()
        ),
        "the difference is divided by std once; square the quotient, so that it is divided by std squared": (
            lambda x, m, s: (s + (x - m).square() / s.exp() / 2 + HALF_LOG_2_PI).mean()
        ),
        "the square is to be divided by 2": (
            lambda x, m, s: (s + ((x - m) / s.exp()).square() + HALF_LOG_2_PI).mean()
        ),
        "the mean over x was taken before the square: each measurement has its own square": (
            lambda x, m, s: s + ((x.mean() - m) / s.exp()).square() / 2 + HALF_LOG_2_PI
        ),
        "that is the likelihood's density; the loss is minus its logarithm": (
            lambda x, m, s: (-_nll(x, m, s)).exp().mean()
        ),
        "the logarithm of the mean density; expected: the mean of the logarithms": (
            lambda x, m, s: -(-_nll(x, m, s)).exp().mean().log()
        ),
    },
)
def gaussian_nll(x, mean, log_std):
    return _nll(x, mean, log_std).mean()


def _counts(*intervals):
    """How often 1, 2, 3, ... were counted → the counts, one for each interval."""
    return torch.arange(1, len(intervals) + 1).repeat_interleave(torch.tensor(intervals))


def _rate(counts, expected_mean=lambda rate: rate / -math.expm1(-rate)):
    """Solve rate / (1 - exp(-rate)) = mean, where the likelihood is largest, by halving an interval."""
    mean = counts.double().mean().item()
    low, high = 1e-9, 2 * mean + 1
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_mean(middle) < mean else (low, middle)
    return middle


def _uphill(counts):
    log_rate, mean = torch.tensor(0.0, dtype=torch.float64, requires_grad=True), counts.double().mean()
    for _ in range(1000):
        rate = log_rate.exp()
        loss = rate - mean * log_rate + torch.log(1 - torch.exp(-rate))
        log_rate.data += 0.1 * torch.autograd.grad(loss, log_rate)[0]
    return log_rate.exp().item()


def _fitting(answer, counts):
    """fit_rate(counts)"""
    got, best, wrong = answer(counts), _rate(counts), None
    if not isinstance(got, float) or math.isclose(got, best, rel_tol=1e-4):
        return got
    if math.isnan(got):
        wrong = "the steps ran away. Is lr too large, the loss a sum instead of a mean, or its sign wrong?"
    elif best < got < 1:
        wrong = "between the start, rate 1, and the goal: is the loss still falling at the end? More steps"
    elif len(counts) > 4:
        wrong = "the counts before came out right. Are the steps too large? Is the loss the mean, or the sum?"
    return Result(..., f"the value is {got:.5g}, not {best:.5g}: {wrong}") if wrong else got


@exercise(
    call=_fitting,
    cases=lambda: [
        (torch.tensor([1, 2, 1, 1]),),
        (_counts(60, 25, 9, 2),),
        (_counts(203, 383, 525, 532, 408, 273, 139, 45, 27, 10, 4, 0, 1, 1),),
        (_counts(30, 55, 40, 20, 5),),
    ],
    mistakes={
        "that is the mean of the recorded counts, and the intervals with 0 are missing from it. Is every "
        "factor of the probability in the loss?": lambda k: k.double().mean().item(),
        "log(1 - exp(-rate)) has the wrong sign: in the loss it is added": (
            lambda k: _rate(k, lambda rate: rate - rate / math.expm1(rate))
        ),
        "the steps ran away: has the loss the wrong sign, so that it goes uphill?": _uphill,
        "that is the logarithm of the rate: return the rate itself": lambda k: math.log(_rate(k)),
        "that is e to the rate": lambda k: math.exp(_rate(k)),
    },
)
def fit_rate(counts):
    return _rate(counts)


def squared_error(w, x, y):
    return (x @ w - y).square()


def absolute_error(w, x, y):
    return (x @ w - y).abs() * x.sum()


def dotted(w, x, y):
    return (torch.dot(x, w) - y.squeeze()).square()


def _each(loss, w, x, y):
    return torch.stack(
        [_pixel_gradient(lambda v, a=a, b=b: loss(v, a, b), w) for a, b in zip(x, y, strict=True)]
    )


def _norms(g, order=2, dim=1):
    return torch.linalg.vector_norm(g, order, dim=dim, keepdim=True)


def _clip(g, most, norms=None):
    return g * (most / (_norms(g) if norms is None else norms)).clamp(max=1)


def _rowwise(change):
    """Make an answer from what it makes of the table of gradients, (N, D), and `most`."""
    return lambda loss, w, x, y, most: change(_each(loss, w, x, y), most)


@exercise(
    cases=lambda: [
        (
            squared_error,
            torch.tensor([1.0, -1.0]),
            torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.5, 1.0]]),
            torch.tensor([-1.5, 1.0, 1.0]),
            3.0,
        ),
        (squared_error, torch.randn(4), torch.randn(7, 4), torch.randn(7), 2.0),
        (
            absolute_error,
            torch.randn(3, dtype=torch.float64),
            torch.randn(5, 3, dtype=torch.float64),
            torch.randn(5, dtype=torch.float64),
            1.5,
        ),
        (squared_error, torch.tensor([2.0]), torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 5.0]), 1.0),
        (dotted, torch.randn(3), torch.randn(4, 3), torch.randn(4, 1), 1.0),
    ],
    mistakes={
        "nothing was clipped: this is the mean of the whole gradients": _rowwise(lambda g, m: g.mean(0)),
        "the mean gradient was clipped; expected: each gradient on its own, and then the mean": (
            _rowwise(lambda g, m: _clip(g.mean(0, keepdim=True), m)[0])
        ),
        "every gradient was brought to the norm `most`; those that are shorter stay as they are": (
            _rowwise(lambda g, m: (g * m / _norms(g)).mean(0))
        ),
        "short gradients were made longer, up to the norm `most`: the factor is never more than 1": (
            _rowwise(lambda g, m: (g * m / (_norms(g) + 1e-12)).mean(0))
        ),
        "each number was clamped by itself, which turns the gradient; scale the whole vector by its norm": (
            _rowwise(lambda g, m: g.clamp(-m, m).mean(0))
        ),
        "the sum over the rows; expected: the mean": _rowwise(lambda g, m: _clip(g, m).sum(0)),
        "right for each row; now take the mean over the rows": _rowwise(_clip),
        "one factor for all rows, from the norm of the whole table; expected: a norm for each row": (
            _rowwise(lambda g, m: _clip(g, m, torch.linalg.vector_norm(g)).mean(0))
        ),
        "the factor is turned round: it is most / norm, not norm / most": (
            _rowwise(lambda g, m: (g * (_norms(g) / m).clamp(max=1)).mean(0))
        ),
        "the norms have the shape (N,), which does not fit to (N, D) row by row: use keepdim=True": (
            _rowwise(lambda g, m: _clip(g, m, _norms(g)[:, 0]).mean(0))
        ),
        "these are the norms of the columns, dim=0; expected: a norm for each row, dim=1": (
            _rowwise(lambda g, m: _clip(g, m, _norms(g, dim=0)).mean(0))
        ),
        "the norm is the sum of the absolute values; expected: the root of the sum of the squares": (
            _rowwise(lambda g, m: _clip(g, m, _norms(g, order=1)).mean(0))
        ),
        "gradients that are too long were left out; expected: shortened to `most`": (
            _rowwise(lambda g, m: (g * (_norms(g) <= m)).mean(0))
        ),
        "a row whose gradient is 0 gives 0 / 0, which is NaN: look at the case in which the norm is 0": (
            _rowwise(lambda g, m: (g / _norms(g) * _norms(g).clamp(max=m)).mean(0))
        ),
        "loss takes one row, (D,): give it x[i], not x[i : i + 1]": (
            lambda loss, w, x, y, most: _clip(_each(loss, w, x[:, None], y[:, None]), most).mean(0)
        ),
    },
)
def clipped_gradient(loss, w, x, y, most):
    return _clip(_each(loss, w, x, y), most).mean(0)
