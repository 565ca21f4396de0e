"""Answers to the exercises of chapter 02: wrong ones with a phrase of their verdict, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import math

import numpy as np
import torch
from torch.autograd import Function
from torch.distributions import Normal
from torch.func import grad, vmap


def watched(x):
    return x.detach().clone().requires_grad_()


def tangent_with_height(f, x0):
    x = torch.tensor(x0, requires_grad=True)
    y = f(x)
    y.backward()
    return x.grad.item(), y.item()


def tangent_of_tensors(f, x0):
    x = torch.tensor(x0, requires_grad=True)
    y = f(x)
    y.backward()
    return x.grad, y - x.grad * x


def tangent_unwatched(f, x0):
    x = torch.tensor(x0)
    y = f(x)
    y.backward()
    return x.grad.item(), y.item() - x.grad.item() * x0


def tangent_swapped(f, x0):
    slope, height = tangent_with_height(f, x0)
    return height - slope * x0, slope


def tangent_plus(f, x0):
    slope, height = tangent_with_height(f, x0)
    return slope, height + slope * x0


def tangent_with_brackets(f, x0):
    x = torch.tensor([x0], requires_grad=True)
    y = f(x)
    y.backward()
    return x.grad.item(), (y - x.grad * x).item()


def tangent_by_func(f, x0):
    x = torch.tensor(x0)
    slope = grad(f)(x).item()
    return slope, f(x).item() - slope * x0


def tangent_by_small_steps(f, x0):
    low, high = (f(torch.tensor(x0 + d, dtype=torch.float64)).item() for d in (-1e-5, 1e-5))
    slope = (high - low) / 2e-5
    return slope, (low + high) / 2 - slope * x0


def tangent_at_zero(f, x0):
    x = torch.tensor(x0, dtype=torch.float64, requires_grad=True)
    y = f(x)
    (slope,) = torch.autograd.grad(y, x)
    return float(slope), (y - slope * x).item()


def gradient_watching_the_argument(score, image):
    image.requires_grad_()
    score(image).backward()
    return image.grad


def gradient_unwatched(score, image):
    copy = image.clone()
    score(copy).backward()
    return copy.grad


def gradient_of_a_result(score, image):
    pixels = image.clone().requires_grad_() * 1
    score(pixels).backward()
    return pixels.grad


def gradient_of_a_clone(score, image):
    copy = image.clone().requires_grad_()
    score(copy).backward()
    return copy.grad


def gradient_watching_for_a_while(score, image):
    watched_before = image.requires_grad
    image.requires_grad_()
    score(image).backward()
    image.requires_grad_(watched_before)
    return image.grad


def gradient_switching_for_a_while(score, image):
    image.requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(image), image)
    image.requires_grad_(False)
    return gradient


def gradient_by_backward(score, image):
    pixels = watched(image)
    score(pixels).backward()
    return pixels.grad


def gradient_by_pixel(score, image):
    result = torch.zeros_like(image)
    wide = image.double()
    for place in np.ndindex(*image.shape):
        step = torch.zeros_like(wide)
        step[place] = 1e-5
        result[place] = ((score(wide + step) - score(wide - step)) / 2e-5).item()
    return result


def step_with_new_names(parameters, lr):
    with torch.no_grad():
        for p in parameters:
            if p.grad is not None:
                p = p - lr * p.grad
                p.grad = None


def step_with_new_names_for_all(parameters, lr):
    for q in parameters:
        q = q - lr * q.grad
        q.grad = None


def step_watched(parameters, lr):
    for p in parameters:
        p -= lr * p.grad
        p.grad = None


def step_uphill(parameters, lr):
    with torch.no_grad():
        for p in parameters:
            if p.grad is not None:
                p += lr * p.grad
                p.grad = None


def step_without_clearing(parameters, lr):
    with torch.no_grad():
        for p in parameters:
            if p.grad is not None:
                p -= lr * p.grad


def step_with_zeros(parameters, lr):
    with torch.no_grad():
        for p in parameters:
            if p.grad is not None:
                p -= lr * p.grad
                p.grad.zero_()


def step_for_all(parameters, lr):
    with torch.no_grad():
        for p in parameters:
            p -= lr * p.grad
            p.grad = None


def step_for_all_by_lr(parameters, lr):
    with torch.no_grad():
        for p in parameters:
            p -= p.grad * lr
            p.grad = None


def step_returns(parameters, lr):
    step_by_optimizer(parameters, lr)
    return parameters


def step_switching_off(parameters, lr):
    torch.set_grad_enabled(False)
    for p in parameters:
        if p.grad is not None:
            p -= lr * p.grad
            p.grad = None


def step_with_new_data(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
            p.grad = None


def step_by_data(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p.data.sub_(p.grad, alpha=lr)
            p.grad = None


def step_by_optimizer(parameters, lr):
    optimizer = torch.optim.SGD(parameters, lr=lr)
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def step_by_copy(parameters, lr):
    for p in parameters:
        if p.grad is not None:
            p.copy_(p - lr * p.grad)
        p.grad = None


def descend_with(step):
    """Make an answer for `descend` from its update, which returns the next x."""

    def answer(f, start, lr, steps):
        x = watched(start)
        for _ in range(steps):
            f(x).backward()
            x = step(x, lr)
        return x.detach()

    return answer


def clearing_a_new_tensor(x, lr):
    x = x - lr * x.grad
    x.grad.zero_()
    return x


def descend_in_place(f, start, lr, steps):
    start.requires_grad_()
    for _ in range(steps):
        f(start).backward()
        with torch.no_grad():
            start -= lr * start.grad
        start.grad = None
    return start.detach()


def descend_on_the_graph(f, start, lr, steps):
    x = watched(start)
    for _ in range(steps):
        x = x - lr * torch.autograd.grad(f(x), x)[0]
    return x


def descend_detached_at_the_end(f, start, lr, steps):
    return descend_on_the_graph(f, start, lr, steps).detach()


def descend_one_gradient(f, start, lr, steps):
    x = watched(start)
    f(x).backward()
    with torch.no_grad():
        for _ in range(steps):
            x -= lr * x.grad
    return x.detach()


def descend_from_a_clone(f, start, lr, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        f(x).backward()
        with torch.no_grad():
            x -= lr * x.grad
        x.grad = None
    return x.detach()


def descend_uphill(f, start, lr, steps):
    return descend_by_func(lambda x: -f(x), start, lr, steps)


def descend_while_it_falls(f, start, lr, steps):
    x = start.detach()
    for _ in range(steps):
        new = descend_by_func(f, x, lr, 1)
        if f(new) >= f(x):
            break
        x = new
    return x.clone()


def descend_switching_off(f, start, lr, steps):
    x = watched(start)
    for _ in range(steps):
        torch.set_grad_enabled(True)
        f(x).backward()
        torch.set_grad_enabled(False)
        x -= lr * x.grad
        x.grad = None
    return x.detach()


def descend_by_func(f, start, lr, steps):
    start = start.detach()
    for _ in range(steps):
        start = start - lr * grad(f)(start)
    return start


def descend_by_optimizer(f, start, lr, steps):
    x = watched(start)
    optimizer = torch.optim.SGD([x], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        f(x).backward()
        optimizer.step()
    return x.detach()


def descend_by_data(f, start, lr, steps):
    x = start.clone()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        f(x).backward()
        x.data -= lr * x.grad
    return x.detach()


def chunks(x, y, size):
    return zip(x.split(size), y.split(size), strict=True)


def chunks_weighted(weight):
    """Make an answer for `gradient_in_chunks` from weight(rows in the chunk, all rows, size)."""

    def answer(loss_of, w, x, y, size):
        w = watched(w)
        for a, b in chunks(x, y, size):
            (loss_of(w, a, b) * weight(len(a), len(x), size)).backward()
        return w.grad

    return answer


def chunks_kept(loss_of, w, x, y, size):
    w = watched(w)
    losses = [loss_of(w, a, b) for a, b in chunks(x, y, size)]
    (sum(losses) / len(losses)).backward()
    return w.grad


def chunks_retained(loss_of, w, x, y, size):
    w = watched(w)
    for a, b in chunks(x, y, size):
        loss = loss_of(w, a, b) * len(a) / len(x)
        loss.backward(retain_graph=True)
    return w.grad


def chunks_cleared(loss_of, w, x, y, size):
    w = watched(w)
    for a, b in chunks(x, y, size):
        w.grad = None
        loss_of(w, a, b).backward()
    return w.grad


def chunks_all_at_once(loss_of, w, x, y, size):
    w = watched(w)
    loss_of(w, x, y).backward()
    return w.grad


def chunks_without_rest(loss_of, w, x, y, size):
    w = watched(w)
    n = max(len(x) // size, 1) * size
    for start in range(0, n, size):
        a, b = x[start : start + size], y[start : start + size]
        (loss_of(w, a, b) * len(a) / min(n, len(x))).backward()
    return w.grad


def chunks_only_full(loss_of, w, x, y, size):
    w = watched(w)
    for start in range(0, len(x) - size + 1, size):
        rows = slice(start, start + size)
        (loss_of(w, x[rows], y[rows]) * size / len(x)).backward()
    return w.grad


def chunks_in_place(loss_of, w, x, y, size):
    w.requires_grad_()
    for a, b in chunks(x, y, size):
        (loss_of(w, a, b) * len(a) / len(x)).backward()
    return w.grad


def chunks_watching_for_a_while(loss_of, w, x, y, size):
    gradient = chunks_in_place(loss_of, w, x, y, size)
    w.requires_grad_(False)
    return gradient


def chunks_returned(loss_of, w, x, y, size):
    w, total = watched(w), 0
    for a, b in chunks(x, y, size):
        total = total + torch.autograd.grad(loss_of(w, a, b), w)[0] * len(a)
    return total / len(x)


def chunks_row_by_row(loss_of, w, x, y, size):
    rows = [grad(loss_of)(w, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return torch.stack(rows).mean(dim=0)


def chunks_by_one_loss(loss_of, w, x, y, size):
    w = watched(w)
    loss = sum(loss_of(w, a, b) * len(a) for a, b in chunks(x, y, size)) / len(x)
    loss.backward()
    return w.grad


def chunks_by_losses(loss_of, w, x, y, size):
    w, losses = watched(w), []
    for a, b in chunks(x, y, size):
        losses.append(loss_of(w, a, b) * len(a) / len(x))
        losses[-1].backward()
    return w.grad


def network(change):
    """Make an answer for `tanh_gradients` in which one line may be another one."""

    def answer(x, y, w1, b1, w2):
        z = x @ w1 + b1
        h = np.tanh(z)
        parts = {"scale": 2 / len(x), "slope": 1 - h**2, "bias": lambda d, _: d.sum(0), "pick": lambda *g: g}
        parts |= change(x, y, z, h)
        d_scores = (h @ w2 - y) * parts["scale"]
        d_h = d_scores @ w2.T
        d_z = d_h * parts["slope"]
        return parts["pick"](x.T @ d_z, parts["bias"](d_z, d_h), h.T @ d_scores)

    return answer


def tanh_untransposed(x, y, w1, b1, w2):
    h = np.tanh(x @ w1 + b1)
    d_scores = 2 * (h @ w2 - y) / len(x)
    return x @ (d_scores @ w2 * (1 - h**2)), 0, h @ d_scores


def tanh_by_autograd(x, y, w1, b1, w2):
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    w1, b1, w2 = (torch.from_numpy(w).clone().requires_grad_() for w in (w1, b1, w2))
    loss = ((torch.tanh(x @ w1 + b1) @ w2 - y) ** 2).sum() / len(x)
    return tuple(g.numpy() for g in torch.autograd.grad(loss, (w1, b1, w2)))


def tanh_by_rows(x, y, w1, b1, w2):
    g1, gb, g2 = np.zeros_like(w1), np.zeros_like(b1), np.zeros_like(w2)
    for row, target in zip(x, y, strict=True):
        h = np.tanh(row @ w1 + b1)
        d = 2 * (h @ w2 - target)
        d_z = (w2 @ d) / np.cosh(row @ w1 + b1) ** 2
        g1, gb, g2 = g1 + np.outer(row, d_z), gb + d_z, g2 + np.outer(h, d)
    return g1 / len(x), gb / len(x), g2 / len(x)


def tanh_by_func(x, y, w1, b1, w2):
    x, y, *ws = (torch.from_numpy(a) for a in (x, y, w1, b1, w2))
    found = grad(lambda a, b, c: (torch.tanh(x @ a + b) @ c - y).square().sum() / len(x), (0, 1, 2))(*ws)
    return tuple(g.numpy() for g in found)


def tanh_by_einsum(x, y, w1, b1, w2):
    h = np.tanh(x @ w1 + b1)
    d = (h @ w2 - y) / (len(x) / 2)
    d_z = np.einsum("nk,hk,nh->nh", d, w2, (1 + h) * (1 - h))
    return np.einsum("nd,nh->dh", x, d_z), np.ones(len(x)) @ d_z, np.einsum("nh,nk->hk", h, d)


def relu_like(backward, forward=lambda x: x.clamp(min=0)):
    """Make a Function from two plain functions."""

    class Relu(Function):
        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

    Relu.forward = staticmethod(forward)
    Relu.backward = staticmethod(lambda ctx, g: backward(ctx.saved_tensors[0], g))
    return Relu


class NoStatic:
    def forward(self, x):
        return x.clamp(min=0)


class ForwardOnly(Function):
    @staticmethod
    def forward(x):
        return x.clamp(min=0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)


class OldForwardOnly(Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(min=0)


def unpack(ctx, g):
    (x,) = ctx.saved_tensors
    return g * (x > 0)


def relu_without_saving(backward):
    class Relu(OldForwardOnly):
        pass

    Relu.backward = staticmethod(backward)
    return Relu


def relu_with_context(setup_context, backward=unpack):
    class Relu(ForwardOnly):
        pass

    Relu.setup_context = staticmethod(setup_context)
    Relu.backward = staticmethod(backward)
    return Relu


def change_in_place(x, g):
    g *= x > 0
    return g


class ForgetsToUnpack(ForwardOnly):
    @staticmethod
    def backward(ctx, grad_output):
        x = ctx.saved_tensors
        return grad_output * (x > 0)


class BothForms(ForwardOnly):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    backward = staticmethod(unpack)


class NoContext(Function):
    @staticmethod
    def forward(x):
        return x.clamp(min=0)

    backward = staticmethod(unpack)


class KeepsItInTheClass(Function):
    @staticmethod
    def forward(ctx, x):
        KeepsItInTheClass.mask = x > 0
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output * KeepsItInTheClass.mask


class KeepsTheInput(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output * (ctx.x > 0)


def keep_input(ctx, inputs, output):
    (ctx.x,) = inputs


def keep_output(ctx, inputs, output):
    ctx.y = output


def save_output(ctx, inputs, output):
    ctx.save_for_backward(output)


class ChangesTheInput(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_(min=0)

    backward = staticmethod(unpack)


class OldForm(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    backward = staticmethod(unpack)


class SavesTheOutput(Function):
    @staticmethod
    def forward(ctx, x):
        y = torch.relu(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, grad_output):
        (y,) = ctx.saved_tensors
        return torch.where(y > 0, grad_output, 0)


class SavesTheMask(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.positive = x > 0
        return x * ctx.positive

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output * ctx.positive


class WithSetupContext(Function):
    @staticmethod
    def forward(x):
        return torch.maximum(x, torch.zeros_like(x))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad_output):
        result = grad_output.clone()
        result[ctx.saved_tensors[0] <= 0] = 0
        return result


def nll(x, mean, log_std):
    return 0.5 * math.log(2 * math.pi) + log_std + (x - mean) ** 2 / (2 * torch.exp(2 * log_std))


def nll_of_numbers(x, mean, log_std):
    std = math.exp(log_std.item())
    return (math.log(std) + 0.5 * math.log(2 * math.pi) + ((x - mean) / std) ** 2 / 2).mean()


def nll_by_density(x, mean, log_std):
    std = log_std.exp()
    return -torch.log(torch.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi))).mean()


def nll_of_std(x, mean, std):
    return (0.5 * math.log(2 * math.pi) + torch.log(std) + (x - mean) ** 2 / (2 * std**2)).mean()


def rate_by_descent(lr, steps, value=lambda a: a.exp(), sign=1, over=torch.mean):
    def answer(counts):
        counts = counts.double()
        a = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
        for _ in range(steps):
            rate = a.exp()
            loss = over(rate - counts * a + sign * torch.log(1 - torch.exp(-rate)))
            (slope,) = torch.autograd.grad(loss, a)
            with torch.no_grad():
                a -= lr * slope
        return value(a).item()

    return answer


def rate_of_integers(counts):
    return counts.mean().item()


def rate_by_newton(counts):
    mean = rate = counts.double().mean().item()
    for _ in range(100):
        gap = rate - mean * (1 - math.exp(-rate))
        rate = max(1e-3, rate - gap / (1 - mean * math.exp(-rate)))
    return rate


def rate_by_iteration(counts):
    mean = rate = counts.double().mean().item()
    for _ in range(500):
        rate = mean * (1 - math.exp(-rate))
    return rate


def rate_by_adam(counts):
    a = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([a], lr=0.05)
    k = counts.double()
    for _ in range(800):
        optimizer.zero_grad()
        (a.exp() - k * a + torch.log1p(-torch.exp(-a.exp()))).mean().backward()
        optimizer.step()
    return a.exp().item()


def samples(loss, w, x, y):
    return vmap(grad(loss), in_dims=(None, 0, 0))(w, x, y)


def norms(g):
    return torch.linalg.vector_norm(g, dim=1, keepdim=True)


def clip_the_mean(loss, w, x, y, most):
    g = samples(loss, w, x, y).mean(0)
    return g * min(1.0, most / g.norm().item())


def clip_to_the_norm(loss, w, x, y, most):
    g = samples(loss, w, x, y)
    return (g / norms(g) * most).mean(0)


def clip_without_keepdim(loss, w, x, y, most):
    g = samples(loss, w, x, y)
    return (g * (most / g.norm(dim=1)).clamp(max=1)).mean(0)


def clip_without_clamp(loss, w, x, y, most):
    g = samples(loss, w, x, y)
    return (g * (most / (norms(g) + 1e-12))).mean(0)


def clip_turned_round(loss, w, x, y, most):
    g = samples(loss, w, x, y)
    return (g * (norms(g) / most).clamp(max=1)).mean(0)


def clip_by_columns(loss, w, x, y, most):
    g = samples(loss, w, x, y)
    return (g * (most / g.norm(dim=0)).clamp(max=1)).mean(0)


def clip_by_absolute_values(loss, w, x, y, most):
    g = samples(loss, w, x, y)
    return (g * (most / g.abs().sum(1, keepdim=True)).clamp(max=1)).mean(0)


def clip_by_loop(loss, w, x, y, most):
    total = torch.zeros_like(w)
    for a, b in zip(x, y, strict=True):
        v = watched(w)
        loss(v, a, b).backward()
        norm = v.grad.norm()
        total += v.grad * most / norm if norm > most else v.grad
    return total / len(x)


def clip_slices(loss, w, x, y, most):
    return clip_by_loop(lambda *row: loss(*row).sum(), w, x.split(1), y.split(1), most)


def clip_by_where(loss, w, x, y, most):
    g = samples(loss, w, x, y)
    return torch.where(norms(g) > most, g * most / norms(g), g).mean(0)


def clip_by_minimum(loss, w, x, y, most):
    g = samples(loss, w, x, y)
    return (g / (norms(g) / most).clamp(min=1)).mean(dim=0)


WRONG = {
    "tangent": [
        (tangent_with_height, "height of the line at x0"),
        (tangent_of_tensors, "value 1 of 2: it is a tensor, not a float"),
        (tangent_unwatched, "make it with requires_grad=True"),
        (tangent_swapped, "wrong order"),
        (tangent_plus, "by -slope * x0"),
        (lambda f, x0: tangent_with_height(f, x0)[0], "it returns a float, not a tuple"),
        (tangent_with_brackets, "x has shape (1,)"),
    ],
    "pixel_gradient": [
        (gradient_watching_the_argument, "it switches requires_grad instead of watching a copy"),
        (gradient_unwatched, "call requires_grad_() on it"),
        (gradient_of_a_result, "the .grad of a tensor that is no watched leaf is None"),
        (gradient_of_a_clone, "a clone of a watched image is not a leaf"),
        (gradient_watching_for_a_while, "image.grad is filled now"),
        (lambda score, image: gradient_by_backward(score, image).abs(), "sizes without a sign"),
        (lambda score, image: gradient_by_backward(score, image) * image, "the gradient alone"),
        (lambda score, image: score(image), "the score itself"),
        (lambda score, image: gradient_by_backward(score, image.float()), "dtype"),
        (gradient_by_backward, "fills the .grad of the weights inside score"),
        (gradient_switching_for_a_while, "it switches requires_grad instead of watching a copy"),
    ],
    "sgd_step": [
        (step_with_new_names, "the parameters have not moved"),
        (step_with_new_names_for_all, "nothing has moved: `p = p - ...`"),
        (step_watched, "error     RuntimeError: a leaf Variable"),
        (step_watched, "under torch.no_grad()"),
        (step_uphill, "uphill"),
        (step_without_clearing, "still holds the old gradient"),
        (step_with_zeros, "full of zeros"),
        (step_for_all, "its .grad is None: leave it as it is"),
        (step_for_all_by_lr, "None, which cannot be multiplied"),
        (step_returns, "it returns a tuple, not None"),
        (step_switching_off, "use `with torch.no_grad():`"),
        (step_with_new_data, "a parameter gets new memory"),
    ],
    "descend": [
        (
            descend_with(torch.no_grad()(lambda x, lr: x.sub_(lr * x.grad))),
            "clear .grad before each backward",
        ),
        (descend_in_place, "changes its argument `start` in place"),
        (descend_on_the_graph, "still on the graph"),
        (descend_one_gradient, "computed once, at the start"),
        (descend_with(lambda x, lr: x.sub_(lr * x.grad)), "error     RuntimeError: a leaf Variable"),
        (descend_with(lambda x, lr: x.sub_(lr * x.grad)), "under torch.no_grad()"),
        (descend_with(lambda x, lr: x - lr * x.grad), "no longer a leaf after `x = x - ...`"),
        (descend_with(clearing_a_new_tensor), "x is a new tensor, and its .grad is None"),
        (descend_with(torch.no_grad()(lambda x, lr: x - lr * x.grad)), "makes a new, unwatched tensor"),
        (descend_from_a_clone, "a clone of a watched start is not a leaf"),
        (descend_detached_at_the_end, "its graph grows with every step"),
        (descend_uphill, "uphill"),
        (lambda f, x, lr, n: f(descend_by_func(f, x, lr, n)), "the point where it is reached"),
        (descend_while_it_falls, "it stops early"),
        (descend_switching_off, "gradients stay off for all that follows"),
    ],
    "gradient_in_chunks": [
        (chunks_weighted(lambda n, total, size: 1), "the sum of the chunks' gradients"),
        (chunks_weighted(lambda n, total, size: 1 / -(-total // size)), "the weight of its number of rows"),
        (chunks_weighted(lambda n, total, size: size / total), "the last one has fewer rows than size"),
        (chunks_weighted(lambda n, total, size: 1 / total), "the weight 1 / (all rows)"),
        (chunks_by_one_loss, "graphs of earlier chunks are still in memory"),
        (chunks_kept, "call backward for each chunk"),
        (chunks_retained, "call backward for each chunk"),
        (chunks_cleared, "last chunk alone"),
        (chunks_all_at_once, "MemoryError: 5 rows at once, but only 2 fit"),
        (chunks_without_rest, "short last chunk are missing"),
        (chunks_only_full, "where it has fewer than size"),
        (chunks_in_place, "it switches requires_grad instead of watching a copy"),
        (chunks_watching_for_a_while, "w.grad is filled now"),
    ],
    "tanh_gradients": [
        (network(lambda x, y, z, h: {"slope": z > 0}), "ReLU's derivative"),
        (network(lambda x, y, z, h: {"slope": 1}), "derivative of tanh is missing"),
        (network(lambda x, y, z, h: {"slope": 1 - np.tanh(h) ** 2}), "tanh is applied twice"),
        (network(lambda x, y, z, h: {"slope": 1 - z**2}), "from before tanh"),
        (network(lambda x, y, z, h: {"scale": 1 / len(x)}), "factor of 2"),
        (network(lambda x, y, z, h: {"scale": 2}), "divided by their number"),
        (network(lambda x, y, z, h: {"scale": 2 / y.size}), "number of outputs"),
        (network(lambda x, y, z, h: {"scale": -2 / len(x)}), "scores - y"),
        (network(lambda x, y, z, h: {"bias": lambda d, _: d.mean(0)}), "not their mean"),
        (network(lambda x, y, z, h: {"bias": lambda d, _: d}), "sum over the rows"),
        (
            network(lambda x, y, z, h: {"bias": lambda d, _: d.sum(0, keepdims=True)}),
            "value 2 of 3: its shape",
        ),
        (network(lambda x, y, z, h: {"bias": lambda _, d_h: d_h.sum(0)}), "b1 is added before it"),
        (network(lambda x, y, z, h: {"pick": lambda a, b, c: (a, c, b)}), "in the order w1, w2, b1"),
        (network(lambda x, y, z, h: {"pick": lambda a, b, c: (c, b, a)}), "in the order w2, b1, w1"),
        (network(lambda x, y, z, h: {"pick": lambda *g: list(g)}), "it returns a list, not a tuple"),
        (tanh_untransposed, "error     ValueError: matmul"),
        (tanh_by_autograd, "use NumPy alone"),
        (tanh_by_func, "use NumPy alone"),
    ],
    "ReLU": [
        (relu_like(lambda x, g: (x > 0).to(x.dtype)), "multiplied by grad_output"),
        (relu_like(lambda x, g: g), "passed back unchanged"),
        (relu_like(lambda x, g: g.clamp(min=0)), "sign of x that counts"),
        (relu_like(lambda x, g: g * (x >= 0)), "use x > 0"),
        (relu_like(lambda x, g: g * x.clamp(min=0)), "1 where x is positive"),
        (relu_like(lambda x, g: g[x > 0]), "error     RuntimeError"),
        (relu_like(lambda x, g: None), "backward returns nothing"),
        (relu_like(lambda x, g: g * (x > 0), lambda x: x.clamp_(min=0)), "forward returns x itself"),
        (ChangesTheInput, "changes its argument `x` in place"),
        (relu_like(lambda x, g: g * (x > 0), lambda x: x.abs()), "at key 'output'"),
        (relu_like(lambda x, g: (g * (x > 0)).float(), lambda x: x.clamp(min=0).float()), "keep the dtype"),
        (relu_like(change_in_place), "changes grad_output in place"),
        (relu_without_saving(unpack), "nothing was saved"),
        (relu_without_saving(lambda ctx, g: g * (ctx.saved_tensors[0] > 0)), "nothing was saved"),
        (relu_with_context(lambda ctx, inputs, output: None), "nothing was saved"),
        (relu_with_context(lambda ctx, inputs, output: ctx.save_for_backward(inputs)), "inputs is a tuple"),
        (BothForms, "with a setup_context, forward takes no ctx"),
        (NoContext, "it needs a setup_context(ctx, inputs, output)"),
        (KeepsItInTheClass, "a second call spoils the backward of the first"),
        (KeepsTheInput, "where its input is changed in place before backward"),
        (relu_with_context(keep_input, lambda ctx, g: g * (ctx.x > 0)), "where its input is changed"),
        (relu_with_context(keep_output, lambda ctx, g: g * (ctx.y > 0)), "where its output is changed"),
        (ForgetsToUnpack, "`(x,) = ctx.saved_tensors`"),
        (ForwardOnly, "error     NotImplementedError"),
        (OldForwardOnly, "error     NotImplementedError"),
        (NoStatic, "error     AttributeError"),
        (torch.relu, "error     AttributeError"),
    ],
    "gaussian_nll": [
        (lambda x, m, s: -nll(x, m, s).mean(), "minus that"),
        (lambda x, m, s: nll(x, m, s).sum(), "expected: the mean"),
        (lambda x, m, s: nll(x, m, s), "now take the mean"),
        (lambda x, m, s: (nll(x, m, s) - 0.5 * math.log(2 * math.pi)).mean(), "constant"),
        (lambda x, m, s: (nll(x, m, s) - s).mean(), "log_std is missing"),
        (lambda x, m, s: (nll(x, m, s) - 2 * s).mean(), "log_std comes with the other sign"),
        (nll_by_density, "exp underflows to 0"),
        (lambda x, m, s: -(-nll(x, m, s)).exp().mean().log(), "the mean of the logarithms"),
        (lambda x, m, s: torch.tensor(nll(x, m, s).mean().item()), "cut off from the graph"),
        (nll_of_std, "std is log_std.exp()"),
        (nll_of_numbers, "its gradient with respect to log_std"),
        (lambda x, m, s: nll(x, m, s).mean().item(), "a float, not a tensor"),
        (lambda x, m, s: nll(x, m.detach(), s.detach()).mean(), "cut off from the graph"),
        (lambda x, m, s: nll(x.mean(), m, s), "each measurement has its own square"),
    ],
    "fit_rate": [
        (rate_of_integers, "could not infer output dtype"),
        (lambda counts: counts.double().mean().item(), "the intervals with 0 are missing"),
        (rate_by_descent(0.1, 1000, value=lambda a: a), "logarithm of the rate"),
        (rate_by_descent(-0.1, 1000), "goes uphill"),
        (lambda counts: math.nan * counts.sum().item(), "Is lr too large"),
        (rate_by_descent(0.1, 1000, over=torch.sum), "the loss a sum instead of a mean"),
        (rate_by_descent(1.0, 1000), "the counts before came out right. Are the steps too large?"),
        (rate_by_descent(0.1, 1000, sign=-1), "has the wrong sign"),
        (rate_by_descent(0.1, 1000, sign=0), "every factor of the probability"),
        (rate_by_descent(0.1, 5), "still falling at the end? More steps"),
        (rate_by_descent(0.1, 200), "the value is 0.46524, not 0.46421: between the start"),
        (lambda counts: torch.tensor(rate_by_newton(counts)), "it returns a tensor, not a float"),
    ],
    "clipped_gradient": [
        (clip_the_mean, "the mean gradient was clipped"),
        (clip_to_the_norm, "stay as they are"),
        (clip_without_keepdim, "use keepdim=True"),
        (clip_without_clamp, "the factor is never more than 1"),
        (lambda loss, w, x, y, m: samples(loss, w, x, y).mean(0), "nothing was clipped"),
        (lambda loss, w, x, y, m: samples(loss, w, x, y).clamp(-m, m).mean(0), "clamped by itself"),
        (lambda loss, w, x, y, m: len(x) * clip_by_where(loss, w, x, y, m), "the sum over the rows"),
        (clip_turned_round, "most / norm, not norm / most"),
        (clip_by_columns, "norms of the columns"),
        (clip_by_absolute_values, "the sum of the absolute values"),
        (lambda loss, w, x, y, m: grad(loss)(w, x, y), "error"),
        (clip_slices, "give it x[i], not x[i : i + 1]"),
    ],
}

RIGHT = {
    "tangent": [tangent_by_func, tangent_by_small_steps, tangent_at_zero],
    "pixel_gradient": [
        lambda score, image: grad(score)(image),
        lambda score, image: torch.autograd.grad(score(p := image.clone().requires_grad_()), p)[0],
        gradient_by_pixel,
    ],
    "sgd_step": [step_by_data, step_by_optimizer, step_by_copy],
    "descend": [descend_by_func, descend_by_optimizer, descend_by_data],
    "gradient_in_chunks": [chunks_returned, chunks_row_by_row, chunks_by_losses],
    "tanh_gradients": [tanh_by_einsum, tanh_by_rows],
    "ReLU": [OldForm, SavesTheOutput, SavesTheMask, WithSetupContext, relu_with_context(save_output)],
    "gaussian_nll": [
        lambda x, m, s: nll(x, m, s).mean(),
        lambda x, m, s: -Normal(m, s.exp()).log_prob(x).mean(),
        lambda x, m, s: -sum(Normal(m, s.exp()).log_prob(v) for v in x) / len(x),
    ],
    "fit_rate": [rate_by_newton, rate_by_iteration, rate_by_adam, rate_by_descent(0.1, 1000)],
    "clipped_gradient": [clip_by_loop, clip_by_where, clip_by_minimum],
}
