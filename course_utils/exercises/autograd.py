"""The checkers of chapter 02, Autograd. Each function is a reference solution; read them after yours."""

import math

import numpy as np
import torch
from torch.autograd import Function, gradcheck

from course_utils.exercises.grading import exercise


def parabola(x):
    return x**2 + 2 * x + 5


def cube_minus_x(x):
    return x**3 - x


def halves_or_squares(x):
    return x / 2 if x < 1 else x * x


def _touch(f, x0):
    x = torch.tensor(x0, requires_grad=True)
    y = f(x)
    y.backward()
    return x.grad.item(), y.item()


@exercise(
    cases=lambda: [(parabola, 3.0), (cube_minus_x, -1.5), (torch.sin, 2.0), (halves_or_squares, 0.5)],
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


@exercise(
    cases=lambda: [
        (ink_squared, torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.0, 1.25]])),
        (left_minus_right, torch.rand(2, 5) / 2),
        (entropy, torch.rand(8, 6)),
        (ink_squared, torch.rand(3, 4, dtype=torch.float64)),
    ],
    mistakes={
        "these are sizes without a sign: a pixel may also lower the score": (
            lambda f, x: _pixel_gradient(f, x).abs()
        ),
        "the gradient times the pixel; expected: the gradient alone": lambda f, x: _pixel_gradient(f, x) * x,
        "the sign is turned round: a positive number says that more ink raises the score": (
            lambda f, x: -_pixel_gradient(f, x)
        ),
        "that is the score itself; expected: its gradient, one number for each pixel": lambda f, x: f(x),
        "one number for all pixels together; expected: one for each": lambda f, x: _pixel_gradient(
            f, x
        ).sum(),
        "that is a step, the image plus its gradient; expected: the gradient alone": (
            lambda f, x: x + _pixel_gradient(f, x)
        ),
    },
)
def pixel_gradient(score, image):
    return _pixel_gradient(score, image)


def _parameter(values, gradient, dtype=torch.float32):
    parameter = torch.tensor(values, dtype=dtype, requires_grad=True)
    parameter.grad = None if gradient is None else torch.tensor(gradient, dtype=dtype)
    return parameter


def _stepped(parameters, lr, sign=-1, clear=True):
    with torch.no_grad():
        for parameter in parameters:
            if parameter.grad is not None:
                parameter += sign * lr * parameter.grad
                parameter.grad = None if clear else parameter.grad


def _is_clear(_, parameters, lr) -> str | None:
    for i, parameter in enumerate(parameters):
        if parameter.grad is not None and parameter.grad.any():
            return f"the step is right, but parameters[{i}].grad still holds the old gradient: set it to None"
        if parameter.grad is not None:
            return f"parameters[{i}].grad is full of zeros; expected: None, for 'nothing computed yet'"
    return None


@exercise(
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


def _is_off_the_graph(got, *_) -> str | None:
    if got.requires_grad:
        return "the values are right, but the result is still on the graph: detach it before you return it"
    return None


@exercise(
    cases=lambda: [
        (distance_to_three, torch.tensor(0.0), 0.1, 1),
        (distance_to_three, torch.tensor(0.0), 0.1, 3),
        (long_valley, torch.tensor([2.0, -1.0]), 0.05, 10),
        (banana, torch.tensor([-0.5, 0.5], dtype=torch.float64), 0.02, 100),
        (long_valley, torch.tensor([2.0, -1.0]), 0.05, 0),
    ],
    also=_is_off_the_graph,
    mistakes={
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
    """Make a mean loss that refuses more rows than fit, as a device without enough memory would."""

    def loss_of(w, x, y):
        if len(x) > most:
            raise MemoryError(f"{len(x)} rows at once, but only {most} fit")
        return (x @ w - y).abs().pow(power).mean()

    loss_of.__qualname__ = "loss_of"
    return loss_of


def _chunk_gradients(loss_of, w, x, y, size):
    leaf = w.detach().clone().requires_grad_()
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        yield torch.autograd.grad(loss_of(leaf, x[rows], y[rows]), leaf)[0], len(x[rows])


def _weighted(*arguments, drop_last=False):
    chunks = list(_chunk_gradients(*arguments))
    if drop_last and len(chunks) > 1 and chunks[-1][1] < arguments[-1]:
        chunks.pop()
    return sum(g * n for g, n in chunks) / sum(n for _, n in chunks)


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
    mistakes={
        "the sum of the chunks' gradients; each is the gradient of a mean over its own rows, so give it the "
        "weight (rows in the chunk) / (all rows)": lambda *a: sum(g for g, _ in _chunk_gradients(*a)),
        "the mean over the chunks counts the short last chunk as much as a full one: give each chunk the "
        "weight of its number of rows": lambda *a: torch.stack([g for g, _ in _chunk_gradients(*a)]).mean(0),
        "each chunk has the weight size / (all rows), but the last one has fewer rows than size": (
            lambda *a: sum(g for g, _ in _chunk_gradients(*a)) * a[-1] / len(a[2])
        ),
        "that is the gradient of the last chunk alone: let the gradients add up": (
            lambda *a: list(_chunk_gradients(*a))[-1][0]
        ),
        "that is the gradient of the first chunk alone": lambda *a: next(_chunk_gradients(*a))[0],
        "the rows of the short last chunk are missing": lambda *a: _weighted(*a, drop_last=True),
        "that is the gradient of the sum over all rows; expected: of the mean": (
            lambda *a: sum(g * n for g, n in _chunk_gradients(*a))
        ),
    },
)
def gradient_in_chunks(loss_of, w, x, y, size):
    return _weighted(loss_of, w, x, y, size)


def _tanh_gradients(x, y, w1, b1, w2, factor=2, rows=True, slope=lambda z, h: 1 - h**2, bias=np.sum):
    z = x @ w1 + b1
    h = np.tanh(z)
    d_scores = factor * (h @ w2 - y) / (len(x) if rows else 1)
    d_z = d_scores @ w2.T * slope(z, h)
    return x.T @ d_z, bias(d_z, axis=0), h.T @ d_scores


def _network(*sizes):
    """Random x, y, w1, b1, w2 for a number of rows, inputs, hidden units and outputs."""
    rows, inputs, hidden, outputs = sizes
    shapes = ((rows, inputs), (rows, outputs), (inputs, hidden), (hidden,), (hidden, outputs))
    return tuple(torch.randn(shape, dtype=torch.float64).numpy() for shape in shapes)


@exercise(
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
            lambda *a: _tanh_gradients(*a, bias=np.mean)
        ),
        "the gradient of b1 still has a row for each row of x: sum over the rows": (
            lambda *a: _tanh_gradients(*a, bias=lambda d, axis: d)
        ),
        "the right gradients in another order; expected: those of w1, b1, w2": (
            lambda *a: tuple(_tanh_gradients(*a)[i] for i in (0, 2, 1))
        ),
    },
)
def tanh_gradients(x, y, w1, b1, w2):
    return _tanh_gradients(x, y, w1, b1, w2)


def _use_function(function, x, upstream):
    """ReLU.apply(x) with x watched, and then (output * upstream).sum().backward()"""
    before = x.clone()
    leaf = x.detach().requires_grad_()  # has x's memory, so that a change of x is seen
    output = function.apply(leaf)
    if not torch.equal(x, before):
        return None
    (output * upstream).sum().backward()
    away = x[x != 0].double().requires_grad_()
    return {
        "output": output.detach(),
        "gradient": leaf.grad,
        "gradcheck": gradcheck(function.apply, (away,), raise_exception=False),
    }


def _relu_like(backward, forward=lambda x: x.clamp(min=0)):
    """Make a Function from two plain functions."""

    class Mistaken(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

    Mistaken.backward = staticmethod(lambda ctx, grad_output: backward(ctx.saved_tensors[0], grad_output))
    return Mistaken


class _Identity(Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output


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
        "forward returns x as it is: negative numbers become 0": _Identity,
    },
)
class ReLU(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

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
        (
            torch.randn(10, dtype=torch.float64),
            torch.tensor(0.3, dtype=torch.float64, requires_grad=True),
            torch.tensor(0.4, dtype=torch.float64, requires_grad=True),
        ),
        (torch.tensor([5.0]), torch.tensor(5.0), torch.tensor(0.0)),
    ],
    also=_reaches_both,
    mistakes={
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
    },
)
def gaussian_nll(x, mean, log_std):
    return _nll(x, mean, log_std).mean()


def _counts(*intervals):
    """How often 1, 2, 3, ... were counted → the counts, one for each interval."""
    return torch.arange(1, len(intervals) + 1).repeat_interleave(torch.tensor(intervals))


def _rate(counts):
    """Solve rate / (1 - exp(-rate)) = mean, where the likelihood is largest, by halving an interval."""
    mean = counts.double().mean().item()
    low, high = 1e-9, mean
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle / -math.expm1(-middle) < mean else (low, middle)
    return middle


@exercise(
    cases=lambda: [
        (torch.tensor([1, 2, 1, 1]),),
        (_counts(60, 25, 9, 2),),
        (_counts(203, 383, 525, 532, 408, 273, 139, 45, 27, 10, 4, 0, 1, 1),),
        (_counts(30, 55, 40, 20, 5),),
    ],
    mistakes={
        "that is the mean of the recorded counts; the intervals with 0 are missing from it": (
            lambda k: k.double().mean().item()
        ),
        "that is the logarithm of the rate: return the rate itself": lambda k: math.log(_rate(k)),
        "that is e to the rate": lambda k: math.exp(_rate(k)),
        "close, but not there yet: take more steps": lambda k: _few_steps(k),
    },
)
def fit_rate(counts):
    return _rate(counts)


def _few_steps(counts):
    log_rate, mean = 0.0, counts.double().mean().item()
    for _ in range(100):
        rate = math.exp(log_rate)
        log_rate -= 0.1 * (rate / -math.expm1(-rate) - mean)
    return math.exp(log_rate)


def squared_error(w, x, y):
    return (x @ w - y).square()


def absolute_error(w, x, y):
    return (x @ w - y).abs() * x.sum()


def _each(loss, w, x, y):
    return torch.stack(
        [_pixel_gradient(lambda v, a=a, b=b: loss(v, a, b), w) for a, b in zip(x, y, strict=True)]
    )


def _norms(g):
    return torch.linalg.vector_norm(g, dim=1, keepdim=True)


def _clip_mean(loss, w, x, y, most):
    mean = _each(loss, w, x, y).mean(0)
    return mean * min(1, most / torch.linalg.vector_norm(mean).item())


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
    ],
    mistakes={
        "nothing was clipped: this is the mean of the whole gradients": (
            lambda loss, w, x, y, m: _each(loss, w, x, y).mean(0)
        ),
        "the mean gradient was clipped; expected: each gradient on its own, and then the mean": _clip_mean,
        "every gradient was brought to the norm `most`; those that are shorter stay as they are": (
            lambda loss, w, x, y, m: (_each(loss, w, x, y) * m / _norms(_each(loss, w, x, y))).mean(0)
        ),
        "each number was clamped by itself, which turns the gradient; scale the whole vector by its norm": (
            lambda loss, w, x, y, m: _each(loss, w, x, y).clamp(-m, m).mean(0)
        ),
        "the sum over the rows; expected: the mean": (
            lambda loss, w, x, y, m: (
                _each(loss, w, x, y) * (m / _norms(_each(loss, w, x, y))).clamp(max=1)
            ).sum(0)
        ),
        "right for each row; now take the mean over the rows": (
            lambda loss, w, x, y, m: _each(loss, w, x, y) * (m / _norms(_each(loss, w, x, y))).clamp(max=1)
        ),
        "one factor for all rows, from the norm of the whole table; expected: a norm for each row": (
            lambda loss, w, x, y, m: (
                _each(loss, w, x, y) * (m / torch.linalg.vector_norm(_each(loss, w, x, y))).clamp(max=1)
            ).mean(0)
        ),
        "gradients that are too long were left out; expected: shortened to `most`": (
            lambda loss, w, x, y, m: (_each(loss, w, x, y) * (_norms(_each(loss, w, x, y)) <= m)).mean(0)
        ),
        "a row whose gradient is 0 gives 0 / 0, which is NaN: look at the case in which the norm is 0": (
            lambda loss, w, x, y, m: (
                _each(loss, w, x, y)
                / _norms(_each(loss, w, x, y))
                * _norms(_each(loss, w, x, y)).clamp(max=m)
            ).mean(0)
        ),
    },
)
def clipped_gradient(loss, w, x, y, most):
    g = _each(loss, w, x, y)
    return (g * (most / _norms(g)).clamp(max=1)).mean(0)
