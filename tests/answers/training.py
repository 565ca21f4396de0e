"""Answers to the exercises of chapter 05: wrong ones, with a phrase of their verdict, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import collections
import copy
import itertools
import logging
import math
import random
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F

# trains


def by_removing(order):
    chain = [name for name in order if name != "zero_grad"]
    at = order.index("zero_grad")
    return chain == ["forward", "loss", "backward", "step"] and order[at - 1] != "backward"


def by_listing(order):
    right = ["zflbs", "fzlbs", "flzbs", "flbsz"]
    return "".join(name[0] for name in order) in right


def by_pairs(order):
    place = {name: i for i, name in enumerate(order)}
    chain = all(place[a] < place[b] for a, b in itertools.pairwise(["forward", "loss", "backward", "step"]))
    return chain and (place["zero_grad"] < place["backward"] or place["zero_grad"] > place["step"])


def only_the_chain(order):
    return [name for name in order if name != "zero_grad"] == ["forward", "loss", "backward", "step"]


def textbook(order):
    return order == ["zero_grad", "forward", "loss", "backward", "step"]


def before_backward(order):
    return only_the_chain(order) and order.index("zero_grad") < order.index("backward")


def first_or_last(order):
    return only_the_chain(order) and "zero_grad" in (order[0], order[-1])


def without_forward(order):
    return order.index("backward") < order.index("step") and by_pairs_of_zero(order)


def by_pairs_of_zero(order):
    between = order.index("backward") < order.index("zero_grad") < order.index("step")
    return not between


def says_yes(order):
    return True


def says_no(order):
    return not by_listing(order)


def by_neighbours(order):
    at = order.index
    return at("forward") < at("loss") and at("step") - at("backward") == 1


def by_text(order):
    return "yes" if by_listing(order) else "no"


# confusion_matrix


def by_loop(targets, predictions, classes):
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    for t, p in zip(targets.tolist(), predictions.tolist(), strict=True):
        matrix[t, p] += 1
    return matrix


def by_index_put(targets, predictions, classes):
    ones = torch.ones(len(targets), dtype=torch.int64)
    return torch.zeros(classes, classes, dtype=torch.int64).index_put_(
        (targets, predictions), ones, accumulate=True
    )


def by_one_hot(targets, predictions, classes):
    return F.one_hot(targets, classes).T @ F.one_hot(predictions, classes)


def by_plus_one(targets, predictions, classes):
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    matrix[targets, predictions] += 1
    return matrix


def exchanged(targets, predictions, classes):
    return by_loop(predictions, targets, classes)


def as_floats(targets, predictions, classes):
    matrix = torch.zeros(classes, classes)
    for t, p in zip(targets, predictions, strict=True):
        matrix[t, p] += 1
    return matrix


def as_shares(targets, predictions, classes):
    matrix = as_floats(targets, predictions, classes)
    return matrix / matrix.sum(dim=1, keepdim=True)


def mistakes_only(targets, predictions, classes):
    wrong = targets != predictions
    return by_loop(targets[wrong], predictions[wrong], classes)


def without_minlength(targets, predictions, classes):
    return torch.bincount(classes * targets + predictions).reshape(classes, classes)


def from_the_data(targets, predictions, classes):
    if len(targets) == 0:
        return torch.zeros(0, 0, dtype=torch.int64)
    return by_loop(targets, predictions, int(max(targets.max(), predictions.max())) + 1)


def as_lists(targets, predictions, classes):
    return by_loop(targets, predictions, classes).tolist()


# worst_mistakes


def losses_of(logits, targets):
    return F.cross_entropy(logits, targets, reduction="none")


def by_topk(logits, targets, k):
    losses = losses_of(logits, targets)
    wrong = logits.argmax(dim=1) != targets
    return losses.masked_fill(~wrong, -1).topk(min(k, int(wrong.sum()))).indices


def by_sorting(logits, targets, k):
    probability = logits.log_softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
    order = [i for i in probability.argsort().tolist() if logits[i].argmax() != targets[i]]
    return torch.tensor(order[:k], dtype=torch.int64)


def by_probability(logits, targets, k):
    probability = logits.softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
    order = [i for i in probability.argsort(stable=True).tolist() if logits[i].argmax() != targets[i]]
    return torch.tensor(order[:k], dtype=torch.int64)


def by_list(logits, targets, k):
    return torch.tensor(by_sorting(logits, targets, k).tolist())


def right_ones_too(logits, targets, k):
    return losses_of(logits, targets).topk(min(k, len(targets))).indices


def best_first(logits, targets, k):
    wrong = (logits.argmax(1) != targets).nonzero().squeeze(1)
    return wrong[losses_of(logits, targets)[wrong].argsort()[:k]]


def surest_first(logits, targets, k):
    wrong = (logits.argmax(1) != targets).nonzero().squeeze(1)
    return wrong[logits.softmax(1).amax(1)[wrong].argsort(descending=True)[:k]]


def places_among_wrong(logits, targets, k):
    wrong = logits.argmax(1) != targets
    return losses_of(logits[wrong], targets[wrong]).argsort(descending=True)[:k]


def the_losses(logits, targets, k):
    wrong = logits.argmax(1) != targets
    return losses_of(logits[wrong], targets[wrong]).sort(descending=True).values[:k]


def not_ranked(logits, targets, k):
    return (logits.argmax(1) != targets).nonzero().squeeze(1)


def first_k(logits, targets, k):
    return not_ranked(logits, targets, k)[:k]


def mean_loss(logits, targets, k):
    return F.cross_entropy(logits, targets).topk(k).indices


def topk_too_many(logits, targets, k):
    losses = losses_of(logits, targets)
    losses[logits.argmax(1) == targets] = -1
    return losses.topk(k).indices


# momentum_step


def by_foreach(parameters, velocities, lr, momentum):
    chosen = [(p, v) for p, v in zip(parameters, velocities, strict=True) if p.grad is not None]
    ps, vs = [p for p, _ in chosen], [v for _, v in chosen]
    with torch.no_grad():
        torch._foreach_mul_(vs, momentum)
        torch._foreach_add_(vs, [p.grad for p in ps])
        torch._foreach_add_(ps, vs, alpha=-lr)


def by_replacing(parameters, velocities, lr, momentum):
    for i, p in enumerate(parameters):
        if p.grad is None:
            continue
        velocities[i] = momentum * velocities[i] + p.grad
        p.data.sub_(velocities[i], alpha=lr)


def new_memory(parameters, velocities, lr, momentum):
    for i, p in enumerate(parameters):
        if p.grad is not None:
            velocities[i] = momentum * velocities[i] + p.grad
            p.data = p.data - lr * velocities[i]


def new_parameters(parameters, velocities, lr, momentum):
    for i, p in enumerate(parameters):
        if p.grad is not None:
            velocities[i] = momentum * velocities[i] + p.grad
            parameters[i] = (p - lr * velocities[i]).detach().requires_grad_()


def new_names(parameters, velocities, lr, momentum):
    for p, v in zip(parameters, velocities, strict=True):
        if p.grad is not None:
            v = momentum * v + p.grad
            p = p - lr * v


def without_no_grad(parameters, velocities, lr, momentum):
    for p, v in zip(parameters, velocities, strict=True):
        if p.grad is not None:
            v.mul_(momentum).add_(p.grad)
            p -= lr * v


def forgets_none(parameters, velocities, lr, momentum):
    with torch.no_grad():
        for p, v in zip(parameters, velocities, strict=True):
            v.mul_(momentum).add_(p.grad)
            p -= lr * v


def moved_by(rule, clear=False):
    def step(parameters, velocities, lr, momentum):
        with torch.no_grad():
            for i, p in enumerate(parameters):
                if p.grad is not None:
                    change, velocities[i] = rule(p.grad, velocities[i], lr, momentum)
                    p += change
                    if clear:
                        p.grad = None

    return step


old_velocity = moved_by(lambda g, v, lr, m: (-lr * v, m * v + g))
weighted = moved_by(lambda g, v, lr, m: (-lr * (m * v + (1 - m) * g), m * v + (1 - m) * g))
upwards = moved_by(lambda g, v, lr, m: (lr * (m * v + g), m * v + g))
rate_inside = moved_by(lambda g, v, lr, m: (-(m * v + lr * g), m * v + lr * g))
forgets_velocity = moved_by(lambda g, v, lr, m: (-lr * (m * v + g), v))
clears = moved_by(lambda g, v, lr, m: (-lr * (m * v + g), m * v + g), clear=True)


def into_the_gradient(parameters, velocities, lr, momentum):
    with torch.no_grad():
        for i, p in enumerate(parameters):
            if p.grad is not None:
                velocities[i] = p.grad.add_(velocities[i], alpha=momentum).clone()
                p -= lr * p.grad


def starts_with_the_gradient(parameters, velocities, lr, momentum):
    with torch.no_grad():
        for i, p in enumerate(parameters):
            if p.grad is None:
                continue
            if velocities[i].any():
                velocities[i] = momentum * velocities[i] + p.grad
            else:
                velocities[i] = p.grad
            p -= lr * velocities[i]


# warmup_cosine


def rising(step, warmup):
    return (step + 1) / warmup


def by_branches(step, warmup, total):
    if step < warmup:
        return rising(step, warmup)
    if step >= total:
        return 0.0
    return 0.5 + 0.5 * math.cos((step - warmup) * math.pi / (total - warmup))


def by_tensor(step, warmup, total):
    share = torch.tensor((step - warmup) / (total - warmup), dtype=torch.float64).clamp(0, 1)
    cosine = (1 + torch.cos(share * math.pi)) / 2
    return rising(step, warmup) if step < warmup else cosine.item()


def by_square(step, warmup, total):
    share = min((step - warmup) / (total - warmup), 1)
    return rising(step, warmup) if step < warmup else math.cos(math.pi * share / 2) ** 2


def schedule(fall, rise=rising):
    return lambda step, warmup, total: (
        rise(step, warmup) if step < warmup else fall(step, step - warmup, total - warmup, total)
    )


from_zero = schedule(lambda s, d, n, t: (1 + math.cos(math.pi * min(1, d / n))) / 2, lambda s, w: s / w)
bounces = schedule(lambda s, d, n, t: (1 + math.cos(math.pi * d / n)) / 2)
from_the_start = schedule(lambda s, d, n, t: (1 + math.cos(math.pi * min(1, s / t))) / 2)
of_the_total = schedule(lambda s, d, n, t: (1 + math.cos(math.pi * min(1, d / t))) / 2)
straight = schedule(lambda s, d, n, t: 1 - min(1, d / n))
quarter = schedule(lambda s, d, n, t: math.cos(math.pi / 2 * min(1, d / n)))
to_minus_one = schedule(lambda s, d, n, t: math.cos(math.pi * min(1, d / n)))


def divides_by_zero(step, warmup, total):
    return min((step + 1) / warmup, by_branches(max(step, warmup), warmup, total))


# EarlyStopping


class Stopping:
    """A right answer, by the epoch of the best value; its subclasses change one thing."""

    def __init__(self, patience):
        self.patience, self.epoch, self.best_epoch = patience, 0, 0
        self.best, self.state = float("inf"), None

    def is_better(self, value):
        return value < self.best

    def copy_of(self, model):
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def step(self, value, model):
        self.epoch += 1
        if self.is_better(value):
            self.best, self.best_epoch, self.state = value, self.epoch, self.copy_of(model)
        return self.epoch - self.best_epoch >= self.patience

    def restore(self, model):
        model.load_state_dict(self.state)


class WithModelCopy:
    """Keeps a copy of the whole model, and all values."""

    def __init__(self, patience):
        self.patience, self.values, self.model = patience, [], None

    @property
    def best(self):
        return min(self.values)

    def step(self, value, model):
        if not self.values or value < self.best:
            self.model = copy.deepcopy(model)
        self.values.append(value)
        return len(self.values) - 1 - self.values.index(self.best) >= self.patience

    def restore(self, model):
        model.load_state_dict(self.model.state_dict())


class Alias(Stopping):
    def copy_of(self, model):
        return model.state_dict()


class ShallowCopy(Stopping):
    def copy_of(self, model):
        return dict(model.state_dict())


class ParametersOnly(Stopping):
    def copy_of(self, model):
        return [p.detach().clone() for p in model.parameters()]

    def restore(self, model):
        with torch.no_grad():
            for p, kept in zip(model.parameters(), self.state, strict=True):
                p.copy_(kept)


class EqualIsBetter(Stopping):
    def is_better(self, value):
        return value <= self.best


class Late(Stopping):
    def step(self, value, model):
        super().step(value, model)
        return self.epoch - self.best_epoch > self.patience


class CountsAll(Stopping):
    """The counter never goes back to 0."""

    waited = 0

    def step(self, value, model):
        if self.is_better(value):
            self.best, self.state = value, self.copy_of(model)
        else:
            self.waited += 1
        return self.waited >= self.patience


class AgainstTheLast(Stopping):
    last = float("inf")

    def is_better(self, value):
        better, self.last = value < self.last, value
        return better


class KeepsTheLast(Stopping):
    def step(self, value, model):
        stop = super().step(value, model)
        self.state = self.copy_of(model)
        return stop


class NoBest(Stopping):
    def __init__(self, patience):
        super().__init__(patience)
        self.lowest = self.best
        del self.best

    def step(self, value, model):
        self.best = self.lowest
        stop = super().step(value, model)
        self.lowest = self.best
        del self.best
        return stop


class SaysNothing(Stopping):
    def step(self, value, model):
        super().step(value, model)


class FromZero(Stopping):
    def __init__(self, patience):
        super().__init__(patience)
        self.best = 0


class FromTen(Stopping):
    def __init__(self, patience):
        super().__init__(patience)
        self.best = 10.0


class FromAMillion(Stopping):
    def __init__(self, patience):
        super().__init__(patience)
        self.best = 1e6


class NoneOrZero(Stopping):
    def __init__(self, patience):
        super().__init__(patience)
        self.best = None

    def is_better(self, value):
        return not self.best or value < self.best


class WithNumPy(Stopping):
    """Keeps NumPy's floats, whose comparisons give `np.bool_`."""

    def __init__(self, patience):
        super().__init__(patience)
        self.values = []

    def step(self, value, model):
        super().step(value, model)
        self.values = np.append(self.values, value)
        return len(self.values) - 1 - np.nanargmin(self.values) >= self.patience


class OnceOnly(Stopping):
    def step(self, value, model):
        super().step(value, model)
        return self.epoch - self.best_epoch == self.patience


class BetterByMuch(Stopping):
    def is_better(self, value):
        return value < self.best - 1e-4


class NotWorse(Stopping):
    def is_better(self, value):
        return not value >= self.best


class InTheClass(Stopping):
    """What it keeps is an attribute of the class, which all objects share."""

    kept = {}  # noqa: RUF012

    def restore(self, model):
        model.load_state_dict(self.kept)

    def copy_of(self, model):
        self.kept.update(super().copy_of(model))


class KnowsItsModel(Stopping):
    def step(self, value, model):
        self.model = model
        return super().step(value, model)

    def restore(self, model):
        super().restore(self.model)


class Assigns(Stopping):
    def restore(self, model):
        model.load_state_dict(copy.deepcopy(self.state), assign=True)


class RestoresOnce(Stopping):
    def restore(self, model):
        if self.state is not None:
            super().restore(model)
            self.state = None


class SharesMemory(Stopping):
    def restore(self, model):
        for name, parameter in model.named_parameters():
            parameter.data = self.state[name]
        for name, buffer in model.named_buffers():
            buffer.data = self.state[name]


class RestoresInStep(Stopping):
    def step(self, value, model):
        stop = super().step(value, model)
        if stop:
            self.restore(model)
        return stop


# prior_bias


def by_logs(counts):
    return counts.log()


def shifted(counts):
    bias = counts.double().log().to(torch.get_default_dtype())
    return bias - bias.mean()


def log_softmax_of_logs(counts):
    return counts.log().log_softmax(dim=0)


def shares(counts):
    return counts / counts.sum()


def plain_counts(counts):
    return counts.float()


def whole_counts(counts):
    return counts


def softmax_of_counts(counts):
    return counts.float().softmax(0)


def negative_log(counts):
    return -(counts / counts.sum()).log()


def log_plus_one(counts):
    return counts.log1p()


def logit(counts):
    return (counts / counts.sum()).logit()


def in_float32(counts):
    return counts.float().log()


def in_double(counts):
    return (counts.double() / counts.sum()).log()


def one_number(counts):
    return (counts / counts.sum()).log().sum()


# undisturbed


@contextmanager
def states_kept():
    python, numpy, own = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(own)


def by_context(function):
    with states_kept():
        return function()


def by_fork(function):
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            return function()
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def by_except(function):
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()

    def back():
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])

    try:
        result = function()
    except BaseException:
        back()
        raise
    back()
    return result


def not_at_all(function):
    return function()


def only_torch(function):
    with torch.random.fork_rng(devices=[]):
        return function()


def without_python(function):
    python = random.getstate()
    result = None
    try:
        with states_kept():
            result = function()
            python = random.getstate()
    finally:
        random.setstate(python)
    return result


def without_finally(function):
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    result = function()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    return result


def without_the_button(function):
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()

    def back():
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])

    try:
        result = function()
    except Exception:
        back()
        raise
    back()
    return result


def swallows(function):
    with states_kept():
        try:
            return function()
        except Exception:  # noqa: BLE001
            return None


def forgets_return(function):
    with states_kept():
        function()


def decorator(function):
    def wrapped():
        with states_kept():
            return function()

    return wrapped


def reseeds(function):
    result = function()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    return result


def seeds_first(function):
    with states_kept():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return function()


def twice(function):
    with states_kept():
        function()
    with states_kept():
        return function()


# train_accumulated


def by_enumerate(model, optimizer, batches, accumulate):
    sizes = [len(targets) for _, targets in batches]
    steps = 0
    optimizer.zero_grad()
    for i, (inputs, targets) in enumerate(batches):
        start = i // accumulate * accumulate
        total = sum(sizes[start : start + accumulate])
        (F.cross_entropy(model(inputs), targets) * len(targets) / total).backward()
        if (i + 1) % accumulate == 0 or i + 1 == len(batches):
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
    return steps


def by_dividing_gradients(model, optimizer, batches, accumulate):
    steps = 0
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        optimizer.zero_grad()
        for inputs, targets in group:
            F.cross_entropy(model(inputs), targets, reduction="sum").backward()
        for parameter in model.parameters():
            parameter.grad /= sum(len(targets) for _, targets in group)
        optimizer.step()
        steps += 1
    return steps


def by_keeping_losses(model, optimizer, batches, accumulate):
    """Keeps each loss; backward has freed its graph."""
    groups = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    for group in groups:
        optimizer.zero_grad()
        losses = []
        for x, y in group:
            logits = model(x)
            losses.append(F.cross_entropy(logits, y) * len(y) / sum(len(y) for _, y in group))
            losses[-1].backward()
        optimizer.step()
    return len(groups)


def by_adding_losses(model, optimizer, batches, accumulate):
    groups = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]
    for group in groups:
        losses = [F.cross_entropy(model(x), y, reduction="sum") for x, y in group]
        optimizer.zero_grad()
        (sum(losses) / sum(len(y) for _, y in group)).backward()
        optimizer.step()
    return len(groups)


def accumulated(weight, rest=True, clear=True, count=None):
    def train(model, optimizer, batches, accumulate):
        steps = 0
        if clear:
            optimizer.zero_grad()
        for i, (inputs, targets) in enumerate(batches):
            (F.cross_entropy(model(inputs), targets) * weight(len(targets), accumulate)).backward()
            if (i + 1) % accumulate == 0 or (rest and i + 1 == len(batches)):
                optimizer.step()
                if clear:
                    optimizer.zero_grad()
                steps += 1
        return steps if count is None else count(batches, accumulate)

    return train


no_division = accumulated(lambda n, a: 1)
by_accumulate = accumulated(lambda n, a: 1 / a)
loses_the_rest = accumulated(lambda n, a: 1 / a, rest=False)


def first_alone(model, optimizer, batches, accumulate):
    """As most code on the web does it, with `i % accumulate` in place of `(i + 1) % accumulate`."""
    steps = 0
    optimizer.zero_grad()
    for i, (inputs, targets) in enumerate(batches):
        loss = F.cross_entropy(model(inputs), targets) / accumulate
        loss.backward()
        if i % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
    return steps


def by_adding_up(model, optimizer, batches, accumulate):
    steps = 0
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        optimizer.zero_grad()
        loss = 0
        for inputs, targets in group:
            loss = loss + F.cross_entropy(model(inputs), targets, reduction="sum")
        (loss / sum(len(targets) for _, targets in group)).backward()
        optimizer.step()
        steps += 1
    return steps


def by_joining_logits(model, optimizer, batches, accumulate):
    steps = 0
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        logits = torch.cat([model(inputs) for inputs, _ in group])
        optimizer.zero_grad()
        F.cross_entropy(logits, torch.cat([targets for _, targets in group])).backward()
        optimizer.step()
        steps += 1
    return steps


def rest_after_the_loop(model, optimizer, batches, accumulate):
    """Takes for granted that there is a batch."""
    steps = 0
    optimizer.zero_grad()
    for i, (inputs, targets) in enumerate(batches):
        start = i // accumulate * accumulate
        total = sum(len(targets) for _, targets in batches[start : start + accumulate])
        (F.cross_entropy(model(inputs), targets, reduction="sum") / total).backward()
        if (i + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
    if (i + 1) % accumulate:
        optimizer.step()
        optimizer.zero_grad()
        steps += 1
    return steps


def by_batches(model, optimizer, batches, accumulate):
    steps = 0
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        optimizer.zero_grad()
        for inputs, targets in group:
            (F.cross_entropy(model(inputs), targets) / len(group)).backward()
        optimizer.step()
        steps += 1
    return steps


def one_big_batch(model, optimizer, batches, accumulate):
    steps = 0
    for start in range(0, len(batches), accumulate):
        inputs, targets = (
            torch.cat(parts) for parts in zip(*batches[start : start + accumulate], strict=True)
        )
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        steps += 1
    return steps


def cleared_at(place):
    def train(model, optimizer, batches, accumulate):
        starts = range(0, len(batches), accumulate)
        for start in starts:
            group = batches[start : start + accumulate]
            for inputs, targets in group:
                loss = F.cross_entropy(model(inputs), targets, reduction="sum")
                (loss / sum(len(t) for _, t in group)).backward()
            optimizer.step()
            if place == "after":
                optimizer.zero_grad()
        return len(starts)

    return train


def each_batch(model, optimizer, batches, accumulate):
    for inputs, targets in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return len(batches)


def in_eval_mode(model, optimizer, batches, accumulate):
    model.eval()
    return by_enumerate(model, optimizer, batches, accumulate)


def sample_by_sample(model, optimizer, batches, accumulate):
    for start in range(0, len(batches), accumulate):
        group = batches[start : start + accumulate]
        total = sum(len(targets) for _, targets in group)
        optimizer.zero_grad()
        for inputs, targets in group:
            for pair in zip(inputs.split(1), targets.split(1), strict=True):
                (F.cross_entropy(model(pair[0]), pair[1]) / total).backward()
        optimizer.step()
    return math.ceil(len(batches) / accumulate)


def returns_nothing(model, optimizer, batches, accumulate):
    by_enumerate(model, optimizer, batches, accumulate)


# file_logger


def logger_with(name, level=logging.INFO, propagate=False):
    logger = logging.getLogger(name)
    logger.setLevel(level)
    logger.propagate = propagate
    return logger


def handler_for(path, form="%(levelname)s %(message)s", **options):
    handler = logging.FileHandler(path, encoding="utf-8", **options)
    handler.setFormatter(logging.Formatter(form))
    return handler


def by_clearing(name, path):
    logger = logger_with(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(handler_for(path))
    return logger


def by_level_of_handler(name, path):
    logger = logger_with(name, logging.DEBUG)
    if not any(isinstance(handler, logging.FileHandler) for handler in logger.handlers):
        handler = handler_for(path, "{levelname} {message}") if False else handler_for(path)
        handler.setLevel("INFO")
        logger.addHandler(handler)
    return logger


def by_braces(name, path):
    logger = logger_with(name)
    if logger.hasHandlers() and logger.handlers:
        return logger
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("{levelname} {message}", style="{"))
    logger.addHandler(handler)
    return logger


known_names = set()


def by_remembering(name, path):
    logger = logger_with(name)
    if name not in known_names:
        known_names.add(name)
        logger.addHandler(handler_for(path))
    return logger


def clears_only(name, path):
    logger = logger_with(name)
    logger.handlers.clear()
    logger.addHandler(handler_for(path))
    return logger


registry = []


def set_up_once(name, path):
    logger = logger_with(name)
    if not registry:
        registry.append(handler_for(path))
        logger.addHandler(registry[0])
    return logger


def asks_the_parents(name, path):
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        logger.addHandler(handler_for(path))
    logger.propagate = False
    return logger


def adds_each_time(name, path):
    logger = logger_with(name)
    logger.addHandler(handler_for(path))
    return logger


def no_level(name, path):
    logger = logging.getLogger(name)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(handler_for(path))
    return logger


def to_debug(name, path):
    logger = logger_with(name, logging.DEBUG)
    if not logger.handlers:
        logger.addHandler(handler_for(path))
    return logger


def no_format(name, path):
    logger = logger_with(name)
    if not logger.handlers:
        logger.addHandler(logging.FileHandler(path))
    return logger


def overwrites(name, path):
    logger = logger_with(name)
    if not logger.handlers:
        logger.addHandler(handler_for(path, mode="w"))
    return logger


def propagates(name, path):
    logger = logger_with(name, propagate=True)
    if not logger.handlers:
        logger.addHandler(handler_for(path))
    return logger


def to_the_screen_too(name, path):
    logger = logger_with(name)
    if not logger.handlers:
        logger.addHandler(handler_for(path))
        logger.addHandler(logging.StreamHandler())
    return logger


def into_two_files(name, path):
    logger = logger_with(name)
    if not logger.handlers:
        logger.addHandler(handler_for(path))
        logger.addHandler(handler_for(path + ".copy"))
    return logger


def by_basic_config(name, path):
    logging.basicConfig(filename=path, level=logging.INFO, format="%(levelname)s %(message)s", force=True)
    return logging.getLogger(name)


def root_logger(name, path):
    logger = logging.getLogger()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler_for(path))
    return logger


def returns_handler(name, path):
    return adds_each_time(name, path).handlers[0]


WRONG = {
    "trains": [
        (only_the_chain, "throws away what backward has just found"),
        (textbook, "only one order is accepted"),
        (before_backward, "may also come last"),
        (first_or_last, "between forward and backward"),
        (without_forward, "have an order of their own"),
        (by_pairs_of_zero, "must stand in the order"),
        (says_yes, "True"),
        (says_no, "other way round"),
        (by_neighbours, "backward starts from the loss"),
        (by_text, "a str"),
    ],
    "confusion_matrix": [
        (by_plus_one, "counted once"),
        (exchanged, "rows are the targets"),
        (as_floats, "expected: int64"),
        (as_shares, "shares"),
        (mistakes_only, "right predictions, too"),
        (without_minlength, "makes room for the others"),
        (from_the_data, "minlength"),
        (as_lists, "a list"),
    ],
    "worst_mistakes": [
        (right_ones_too, "right predictions are among them"),
        (best_first, "smallest loss comes first"),
        (surest_first, "how sure"),
        (places_among_wrong, "places in the list"),
        (the_losses, "expected: the indices"),
        (not_ranked, "in their order"),
        (first_k, "values are off"),
        (mean_loss, "error"),
        (topk_too_many, "fill up the rest"),
        (by_list, "empty list"),
        (by_probability, "is 0 in float32"),
    ],
    "momentum_step": [
        (new_memory, "new memory"),
        (new_parameters, "new tensors"),
        (new_names, "nothing changes"),
        (without_no_grad, "leaf Variable"),
        (forgets_none, "NoneType"),
        (old_velocity, "old velocity"),
        (weighted, "1 - momentum"),
        (upwards, "uphill"),
        (rate_inside, "belongs to the step"),
        (forgets_velocity, "not kept"),
        (clears, "zero_grad"),
        (into_the_gradient, "changes the gradients"),
        (starts_with_the_gradient, "the gradient itself"),
    ],
    "warmup_cosine": [
        (from_zero, "begins at 0"),
        (bounces, "goes on after the end"),
        (from_the_start, "from the end of the warm-up"),
        (of_the_total, "of total - warmup"),
        (straight, "straight line"),
        (quarter, "half a wave"),
        (to_minus_one, "(1 + cos) / 2"),
        (divides_by_zero, "ZeroDivisionError"),
    ],
    "EarlyStopping": [
        (Alias, "no copy"),
        (ShallowCopy, "no copy"),
        (ParametersOnly, "running statistics"),
        (EqualIsBetter, "an equal value"),
        (Late, "too late"),
        (CountsAll, "counter"),
        (AgainstTheLast, "the value before"),
        (KeepsTheLast, "last epoch"),
        (NoBest, "no attribute `best`"),
        (SaysNothing, "None"),
        (RestoresInStep, "step changes the model"),
        (FromZero, "begins at 0"),
        (FromTen, "that a loss may exceed"),
        (FromAMillion, "that a loss may exceed"),
        (NoneOrZero, "`not 0.0` is True"),
        (OnceOnly, "not `==`"),
        (BetterByMuch, "a little smaller"),
        (NotWorse, "NaN counts as better"),
        (InTheClass, "a second EarlyStopping"),
        (KnowsItsModel, "another model"),
        (Assigns, "assign=True"),
        (RestoresOnce, "works once"),
        (SharesMemory, "a copy that nothing changes"),
    ],
    "prior_bias": [
        (shares, "these are the shares"),
        (plain_counts, "these are the counts"),
        (whole_counts, "these are the counts"),
        (in_float32, "its dtype is torch.float32"),
        (softmax_of_counts, "its inverse"),
        (negative_log, "sign is wrong"),
        (log_plus_one, "log(1 + count)"),
        (logit, "one softmax"),
        (one_number, "shape"),
        (in_double, "float64"),
    ],
    "undisturbed": [
        (not_at_all, "PyTorch would draw other numbers"),
        (only_torch, "NumPy and Python would draw"),
        (without_python, "Python would draw"),
        (without_finally, "in `finally`"),
        (without_the_button, "in `finally`"),
        (swallows, "swallowed"),
        (forgets_return, "is there a `return`"),
        (decorator, "returns a function"),
        (reseeds, "other numbers"),
        (seeds_first, "without the wrapper"),
        (twice, "2 times"),
    ],
    "train_accumulated": [
        (no_division, "losses are added up"),
        (by_accumulate, "divided by `accumulate`"),
        (loses_the_rest, "the last group, with fewer batches, is left out; and"),
        (first_alone, "for i = 0 already"),
        (by_adding_losses, "2 graphs are in memory at once"),
        (by_adding_up, "2 graphs are in memory at once"),
        (by_joining_logits, "2 graphs are in memory at once"),
        (rest_after_the_loop, "UnboundLocalError"),
        (cleared_at("never"), "never cleared"),
        (cleared_at("after"), "there before the call"),
        (by_batches, "number of batches in the group"),
        (one_big_batch, "at once"),
        (each_batch, "expected"),
        (returns_nothing, "None"),
        (in_eval_mode, "eval()"),
        (sample_by_sample, "each batch once, as it is"),
    ],
    "file_logger": [
        (adds_each_time, "several times"),
        (no_level, "does not get through"),
        (to_debug, "DEBUG gets through"),
        (no_format, "Formatter"),
        (overwrites, "append"),
        (propagates, "propagate = False"),
        (to_the_screen_too, "by a StreamHandler"),
        (into_two_files, "by a FileHandler"),
        (by_basic_config, "sets up the root logger"),
        (asks_the_parents, "`hasHandlers` also asks"),
        (set_up_once, "nothing that it is told"),
        (clears_only, "still holds the file open"),
        (root_logger, "getLogger(name)"),
        (returns_handler, "FileHandler"),
    ],
}

RIGHT = {
    "trains": [by_removing, by_listing, by_pairs],
    "confusion_matrix": [by_loop, by_index_put, by_one_hot],
    "worst_mistakes": [by_topk, by_sorting],
    "momentum_step": [by_foreach, by_replacing],
    "warmup_cosine": [by_branches, by_tensor, by_square],
    "EarlyStopping": [Stopping, WithModelCopy, WithNumPy],
    "prior_bias": [by_logs, shifted, log_softmax_of_logs],
    "undisturbed": [by_context, by_fork, by_except],
    "train_accumulated": [by_enumerate, by_dividing_gradients, by_keeping_losses],
    "file_logger": [by_clearing, by_level_of_handler, by_braces, by_remembering],
}

assert not collections.Counter(WRONG.keys()) - collections.Counter(RIGHT.keys())
