"""Answers to the exercises of chapter 08: wrong ones, with a phrase of their verdict, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import functools
import itertools
import math
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray
from torch.utils.tensorboard import SummaryWriter
from torchvision.utils import make_grid

# log_losses


def with_close(folder, losses, first_step):
    writer = SummaryWriter(str(folder))
    for i in range(len(losses)):
        writer.add_scalar("loss/train", losses[i], first_step + i)
    writer.close()


def with_flush(folder, losses, first_step):
    writer = SummaryWriter(log_dir=folder)
    for step, loss in zip(itertools.count(first_step), losses, strict=False):
        writer.add_scalar(tag="loss/train", scalar_value=torch.tensor(loss), global_step=step)
    writer.flush()


def unclosed(folder, losses, first_step):
    writer = SummaryWriter(folder, max_queue=100)
    for step, loss in enumerate(losses, first_step):
        writer.add_scalar("loss/train", loss, step)


def without_step(folder, losses, first_step):
    with SummaryWriter(folder) as writer:
        for loss in losses:
            writer.add_scalar("loss/train", loss)


def from_step_zero(folder, losses, first_step):
    with SummaryWriter(folder) as writer:
        for step, loss in enumerate(losses):
            writer.add_scalar("loss/train", loss, step)


def other_tag(folder, losses, first_step):
    with SummaryWriter(folder) as writer:
        for step, loss in enumerate(losses, first_step):
            writer.add_scalar("loss", loss, step)


def as_lines(folder, losses, first_step):
    with SummaryWriter(folder) as writer:
        for step, loss in enumerate(losses, first_step):
            writer.add_scalars("loss", {"train": loss}, step)


def a_writer_each(folder, losses, first_step):
    for step, loss in enumerate(losses, first_step):
        with SummaryWriter(folder) as writer:
            writer.add_scalar("loss/train", loss, step)


def last_only(folder, losses, first_step):
    with SummaryWriter(folder) as writer:
        writer.add_scalar("loss/train", losses[-1], first_step + len(losses) - 1)


def elsewhere(folder, losses, first_step):
    with tempfile.TemporaryDirectory() as other, SummaryWriter(other) as writer:
        writer.add_scalar("loss/train", losses[0], first_step)


def new_style(folder, losses, first_step):
    with SummaryWriter(folder) as writer:
        for step, loss in enumerate(losses, first_step):
            writer.add_scalar("loss/train", loss, step, new_style=True)


@functools.cache
def own_board():
    """A writer that stays open from one call to the next, and its folder."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    return SummaryWriter(folder.name), folder


def beside_another_run(folder, losses, first_step):
    with_flush(folder, losses, first_step)
    own_board()[0].add_scalar("loss/first", losses[0], first_step)


def deeper(folder, losses, first_step):
    with SummaryWriter(folder / "train") as writer:
        for step, loss in enumerate(losses, first_step):
            writer.add_scalar("loss/train", loss, step)


def one_too_many(folder, losses, first_step):
    writer = SummaryWriter(folder)
    for i in range(len(losses) + 1):
        writer.add_scalar("loss/train", losses[i], first_step + i)
    writer.close()


def steps_first(folder, losses, first_step):
    with SummaryWriter(folder) as writer:
        for step, loss in enumerate(losses, first_step):
            writer.add_scalar("loss/train", step, loss)


# read_scalars


def events_of(folder, tag, limit=0):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": limit})
    accumulator.Reload()
    return accumulator.Scalars(tag)


def by_zip(folder, tag):
    steps, values = zip(*[(e.step, e.value) for e in events_of(folder, tag)], strict=True)
    return list(steps), list(values)


def large_limit(folder, tag):
    events = events_of(folder, tag, 10**9)
    return [e.step for e in events], [e.value for e in events]


def by_files(folder, tag):
    steps, values = [], []
    for file in sorted(folder.glob("events.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.tag == tag:
                    steps.append(event.step)
                    values.append(make_ndarray(value.tensor).item())
    return steps, values


def with_default(folder, tag):
    events = EventAccumulator(str(folder)).Reload().Scalars(tag)
    return [e.step for e in events], [e.value for e in events]


def swapped(folder, tag):
    return by_zip(folder, tag)[::-1]


def as_pairs(folder, tag):
    return [(e.step, e.value) for e in events_of(folder, tag)]


def wall_times(folder, tag):
    events = events_of(folder, tag)
    return [e.wall_time for e in events], [e.value for e in events]


def counted(folder, tag):
    values = by_zip(folder, tag)[1]
    return list(range(len(values))), values


def one_file(folder, tag):
    return by_zip(sorted(Path(folder).iterdir())[0], tag)


def by_step(folder, tag):
    pairs = sorted((e.step, e.value) for e in events_of(folder, tag))
    return [step for step, _ in pairs], [value for _, value in pairs]


def once_each(folder, tag):
    values = {}
    for event in events_of(folder, tag):
        values[event.step] = event.value
    return list(values), list(values.values())


def by_opening_a_writer(folder, tag):
    with SummaryWriter(folder):
        return by_zip(folder, tag)


def tidies_up(folder, tag):
    result = by_zip(folder, tag)
    for file in folder.iterdir():
        file.unlink()
    return result


def no_reload(folder, tag):
    events = EventAccumulator(str(folder)).Scalars(tag)
    return [e.step for e in events], [e.value for e in events]


# smooth


def by_two_sums(values, weight):
    result, total, weights = [], 0.0, 0.0
    for value in values:
        total, weights = weight * total + value, weight * weights + 1
        result.append(total / weights)
    return result


def by_definition(values, weight):
    result = []
    for t in range(len(values)):
        weights = [weight ** (t - s) for s in range(t + 1)]
        result.append(sum(w * v for w, v in zip(weights, values, strict=False)) / sum(weights))
    return result


def without_correction(values, weight):
    result, m = [], 0.0
    for value in values:
        m = weight * m + (1 - weight) * value
        result.append(m)
    return result


def from_the_first(values, weight):
    result = []
    for value in values:
        result.append(value if not result else weight * result[-1] + (1 - weight) * value)
    return result


def fed_back(values, weight):
    result, m = [], 0.0
    for t, value in enumerate(values, 1):
        m = (weight * m + (1 - weight) * value) / (1 - weight**t)
        result.append(m)
    return result


def exchanged(values, weight):
    result, m = [], 0.0
    for t, value in enumerate(values, 1):
        m = (1 - weight) * m + weight * value
        result.append(m / (1 - (1 - weight) ** t))
    return result


def exchanged_above(values, weight):
    result, m = [], 0.0
    for t, value in enumerate(values, 1):
        m += weight * (value - m)
        result.append(m / (1 - weight**t))
    return result


def exponent_from_zero(values, weight):
    result, m = [], 0.0
    for t, value in enumerate(values):
        m = weight * m + (1 - weight) * value
        result.append(m / (1 - weight**t))
    return result


# batch_picture


def by_einsum(images, columns):
    return make_grid(torch.einsum("nhwc->nchw", images).div(255), columns)


def by_hand(images, columns):
    n, h, w, c = images.shape
    rows = math.ceil(n / columns)
    picture = torch.zeros(c, rows * (h + 2) + 2, columns * (w + 2) + 2)
    for i, image in enumerate(images / 255):
        top, left = i // columns * (h + 2) + 2, i % columns * (w + 2) + 2
        picture[:, top : top + h, left : left + w] = image.permute(2, 0, 1)
    return picture


def to_255(images, columns):
    return make_grid(images.permute(0, 3, 1, 2), nrow=columns)


def reshaped(images, columns):
    n, h, w, c = images.shape
    return make_grid(images.reshape(n, c, h, w) / 255, nrow=columns)


def transposed(images, columns):
    return make_grid(images.transpose(1, 3) / 255, nrow=columns)


def as_rows(images, columns):
    return make_grid(images.permute(0, 3, 1, 2) / 255, nrow=math.ceil(len(images) / columns))


def default_columns(images, columns):
    return make_grid(images.permute(0, 3, 1, 2) / 255)


def stretched(images, columns):
    return make_grid(images.permute(0, 3, 1, 2), nrow=columns, normalize=True)


def channels_last(images, columns):
    return make_grid(images.permute(0, 3, 1, 2) / 255, nrow=columns).permute(1, 2, 0)


def not_permuted(images, columns):
    return make_grid(images / 255, nrow=columns)


def as_it_is(images, columns):
    return make_grid(images, nrow=columns)


def divides_in_place(images, columns):
    return make_grid(images.div_(255).permute(0, 3, 1, 2), nrow=columns)


def by_uint8(images, columns):
    return make_grid(images.to(torch.uint8).permute(0, 3, 1, 2) / 255, nrow=columns)


# log_gradients


def by_numpy(writer, model, step):
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        writer.add_histogram("gradients/" + name, parameter.grad.numpy().ravel(), global_step=step)


def by_dict(writer, model, step):
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, gradient in gradients.items():
        writer.add_histogram(f"gradients/{name}", gradient.detach().clone(), step)
    writer.flush()


def weights_instead(writer, model, step):
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            writer.add_histogram(f"gradients/{name}", parameter, step)


def trusts_gradients(writer, model, step):
    for name, parameter in model.named_parameters():
        writer.add_histogram(f"gradients/{name}", parameter.grad, step)


def steps_forgotten(writer, model, step):
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            writer.add_histogram(f"gradients/{name}", parameter.grad)


def names_only(writer, model, step):
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            writer.add_histogram(name, parameter.grad, step)


def closes(writer, model, step):
    with writer:
        by_numpy(writer, model, step)


def norms(writer, model, step):
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            writer.add_histogram(f"gradients/{name}", parameter.grad.norm(), step)


def clears(writer, model, step):
    by_numpy(writer, model, step)
    model.zero_grad()


def in_eval(writer, model, step):
    model.eval()
    by_numpy(writer, model, step)


def back_to_train(writer, model, step):
    model.eval()
    by_numpy(writer, model, step)
    model.train()


def in_eval_and_back(writer, model, step):
    training = {module: module.training for module in model.modules()}
    in_eval(writer, model, step)
    for module, mode in training.items():
        module.training = mode


def freezes(writer, model, step):
    by_numpy(writer, model.requires_grad_(False), step)


def resets(writer, model, step):
    by_numpy(writer, model, step)
    model.apply(lambda module: getattr(module, "reset_running_stats", lambda: None)())


def steps_on(writer, model, step):
    by_numpy(writer, model, step)
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def zeros_for_none(writer, model, step):
    for name, parameter in model.named_parameters():
        gradient = torch.zeros(parameter.shape) if parameter.grad is None else parameter.grad
        writer.add_histogram(f"gradients/{name}", gradient, step)


def by_requires_grad(writer, model, step):
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            writer.add_histogram(f"gradients/{name}", parameter.grad, step)


def trainable_with_gradient(writer, model, step):
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.grad is not None:
            writer.add_histogram(f"gradients/{name}", parameter.grad, step)


# pr_points


def by_loop(logits, targets, cls, thresholds):
    probabilities = F.softmax(logits, dim=1)[:, cls]
    precisions, recalls = [], []
    for threshold in thresholds:
        called = probabilities >= threshold
        tp = int((called & (targets == cls)).sum())
        precisions.append(tp / int(called.sum()) if called.any() else 0.0)
        recalls.append(tp / int((targets == cls).sum()) if (targets == cls).any() else 0.0)
    return torch.tensor(precisions, dtype=logits.dtype), torch.tensor(recalls, dtype=logits.dtype)


def by_nan_to_num(logits, targets, cls, thresholds):
    called = (logits.log_softmax(1).exp()[:, [cls]] >= thresholds).to(logits.dtype)
    positive = (targets == cls).to(logits.dtype)
    tp = positive @ called
    return (tp / called.sum(0)).nan_to_num(0.0), (tp / positive.sum()).nan_to_num(0.0)


def pr(score, compare=torch.ge, guard=True):
    def points(logits, targets, cls, thresholds):
        called = compare(score(logits)[:, cls, None], thresholds)
        positive = (targets == cls)[:, None]
        tp = (called & positive).sum(0).to(logits.dtype)
        low = 1 if guard else 0
        return tp / called.sum(0).clamp(min=low), tp / positive.sum(0).clamp(min=low)

    return points


from_logits = pr(lambda z: z)
from_sigmoid = pr(torch.sigmoid)
over_samples = pr(lambda z: z.softmax(dim=0))
strictly = pr(lambda z: z.softmax(dim=1), torch.gt)
divides_by_zero = pr(lambda z: z.softmax(dim=1), guard=False)


def recall_first(logits, targets, cls, thresholds):
    return by_loop(logits, targets, cls, thresholds)[::-1]


def largest_only(logits, targets, cls, thresholds):
    probability = logits.softmax(1)[:, cls, None]
    called = (probability >= thresholds) & (logits.argmax(1) == cls)[:, None]
    positive = (targets == cls)[:, None]
    tp = (called & positive).sum(0).to(logits.dtype)
    return tp / called.sum(0).clamp(min=1), tp / positive.sum(0).clamp(min=1)


def as_accuracy(logits, targets, cls, thresholds):
    called = logits.softmax(1)[:, cls, None] >= thresholds
    positive = (targets == cls)[:, None]
    tp = (called & positive).sum(0).to(logits.dtype)
    return tp / len(targets), tp / positive.sum(0).clamp(min=1)


# flat_config


def leaves(name, value):
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(f"{name}.{key}", inner)]
    return [(name, value if type(value) in (int, float, str) else str(value))]


def by_leaves(config):
    return dict(leaf for key, value in config.items() for leaf in leaves(key, value))


def by_prefix(config, prefix=""):
    flat = {}
    for key, value in config.items():
        name = prefix + key
        if isinstance(value, dict):
            flat.update(by_prefix(value, name + "."))
        elif isinstance(value, bool) or not isinstance(value, (int, float, str)):
            flat[name] = str(value)
        else:
            flat[name] = value
    return flat


def keeps_booleans(config):
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{k}": v for k, v in keeps_booleans(value).items()})
        else:
            flat[key] = value if isinstance(value, (int, float, str)) else str(value)
    return flat


def all_texts(config):
    return {name: str(value) for name, value in by_prefix(config).items()}


def one_level(config):
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            for k, v in value.items():
                flat[f"{key}.{k}"] = v if type(v) in (int, float, str) else str(v)
        else:
            flat[key] = value if type(value) in (int, float, str) else str(value)
    return flat


def unnamed(config):
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(unnamed(value))
        else:
            flat[key] = value if type(value) in (int, float, str) else str(value)
    return flat


def with_slashes(config):
    return {name.replace(".", "/"): value for name, value in by_prefix(config).items()}


def drops_none(config):
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{k}": v for k, v in drops_none(value).items()})
        elif value is not None:
            flat[key] = value if type(value) in (int, float, str) else str(value)
    return flat


def only_strings(config):
    return {key: value if type(value) in (int, float) else str(value) for key, value in config.items()}


def empty_as_text(config):
    flat = {}
    for key, value in config.items():
        if value and isinstance(value, dict):
            flat.update({f"{key}.{k}": v for k, v in empty_as_text(value).items()})
        else:
            flat[key] = value if type(value) in (int, float, str) else str(value)
    return flat


# name_the_faults

FAULTS = {
    "A": "no zero_grad",
    "B": "rate too low",
    "C": "overfitting",
    "D": "dead ReLU",
    "E": "no shuffle",
    "F": "rate too high",
}


def in_another_order():
    return dict(sorted(FAULTS.items(), reverse=True))


def by_pairs():
    return dict(zip("DBCAEF", [FAULTS[letter] for letter in "DBCAEF"], strict=True))


def exchanging(one, other):
    def named():
        return FAULTS | {one: FAULTS[other], other: FAULTS[one]}

    return named


def all_the_same():
    return dict.fromkeys("ABCDEF", "rate too high")


def five():
    return {letter: fault for letter, fault in FAULTS.items() if letter != "F"}


def misspelled():
    return FAULTS | {"D": "dead relu"}


def in_lists():
    return {letter: [fault] for letter, fault in FAULTS.items()}


def as_list():
    return list(FAULTS.values())


# overfits_since


def by_enumerate(steps, train, valid, tolerance):
    lowest = 0
    for i, value in enumerate(valid):
        if value < valid[lowest]:
            lowest = i
    if valid[-1] <= valid[lowest] * (1 + tolerance) or train[-1] >= train[lowest]:
        return None
    return steps[lowest]


def by_numpy_places(steps, train, valid, tolerance):
    best = int(np.argmin(valid))
    over = valid[-1] / valid[best] - 1 > tolerance
    return steps[best] if over and train[best] > train[-1] else None


def by_place(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    return best if valid[-1] > (1 + tolerance) * valid[best] and train[-1] < train[best] else None


def by_training(steps, train, valid, tolerance):
    best = train.index(min(train))
    return steps[best] if valid[-1] > (1 + tolerance) * valid[best] else None


def valid_only(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    return steps[best] if valid[-1] > (1 + tolerance) * valid[best] else None


def without_tolerance(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    return steps[best] if valid[-1] > valid[best] and train[-1] < train[best] else None


def added_tolerance(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    return steps[best] if valid[-1] > valid[best] + tolerance and train[-1] < train[best] else None


def any_peak(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    return (
        steps[best] if max(valid[best:]) > (1 + tolerance) * valid[best] and train[-1] < train[best] else None
    )


def at_first_rise(steps, train, valid, tolerance):
    for i in range(len(valid) - 1):
        if valid[i + 1] > valid[i]:
            rises = valid[-1] > (1 + tolerance) * valid[i]
            return steps[i] if rises and train[-1] < train[i] else None
    return None


def reaching(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    if valid[-1] < (1 + tolerance) * valid[best] or train[-1] >= train[best]:
        return None
    return steps[best]


def no_larger(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    if valid[-1] <= (1 + tolerance) * valid[best] or train[-1] > train[best]:
        return None
    return steps[best]


def no_return(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    if valid[-1] > (1 + tolerance) * valid[best] and train[-1] < train[best]:
        steps[best]


def by_training_throughout(steps, train, valid, tolerance):
    best = train.index(min(train))
    return steps[best] if valid[-1] > (1 + tolerance) * valid[best] and train[-1] < train[best] else None


def rises_both(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    return steps[best] if valid[-1] > (1 + tolerance) * valid[best] and train[-1] > train[best] else None


def last_two(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    return steps[best] if valid[-1] > (1 + tolerance) * valid[-2] and train[-1] < train[best] else None


def says_false(steps, train, valid, tolerance):
    return by_enumerate(steps, train, valid, tolerance) or False


def if_since(steps, train, valid, tolerance):
    since, lowest, trained = None, math.inf, None
    for step, t, v in zip(steps, train, valid, strict=True):
        if v < lowest:
            since, lowest, trained = step, v, t
    if since and valid[-1] > (1 + tolerance) * lowest and train[-1] < trained:
        return since
    return None


def lowest_training_since(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    rises = valid[-1] > (1 + tolerance) * valid[best]
    return steps[best] if rises and min(train[best:]) < train[best] else None


def falls_at_every_step(steps, train, valid, tolerance):
    best = valid.index(min(valid))
    falls = all(train[i + 1] < train[i] for i in range(best, len(train) - 1))
    return steps[best] if falls and valid[-1] > (1 + tolerance) * valid[best] else None


# self_times


def by_parents(events):
    times = defaultdict(float)
    for event in events:
        times[event["name"]] += event["dur"]
        around = [e for e in events if e["ts"] < event["ts"] and event["ts"] < e["ts"] + e["dur"]]
        if around:
            times[min(around, key=lambda e: e["dur"])["name"]] -= event["dur"]
    return dict(times)


def by_recursion(events):
    ordered = sorted(events, key=lambda e: e["ts"])
    times = {}

    def walk(i, end):
        inside = 0
        while i < len(ordered) and ordered[i]["ts"] < end:
            event = ordered[i]
            i, children = walk(i + 1, event["ts"] + event["dur"])
            times[event["name"]] = times.get(event["name"], 0) + event["dur"] - children
            inside += event["dur"]
        return i, inside

    walk(0, math.inf)
    return times


def totals(events):
    times = {}
    for event in events:
        times[event["name"]] = times.get(event["name"], 0) + event["dur"]
    return times


def off_all(events):
    times = totals(events)
    for event in events:
        for other in events:
            if other["ts"] < event["ts"] < other["ts"] + other["dur"]:
                times[other["name"]] -= event["dur"]
    return times


def in_given_order(events):
    times, open_events = {}, []
    for event in events:
        while open_events and open_events[-1]["ts"] + open_events[-1]["dur"] <= event["ts"]:
            open_events.pop()
        if open_events:
            times[open_events[-1]["name"]] -= event["dur"]
        times[event["name"]] = times.get(event["name"], 0) + event["dur"]
        open_events.append(event)
    return times


def overwrites(events):
    times = {}
    for event in sorted(events, key=lambda e: e["ts"]):
        end = event["ts"] + event["dur"]
        inside = [e for e in events if event["ts"] < e["ts"] < end]
        direct = [
            e for e in inside if not any(o["ts"] < e["ts"] < o["ts"] + o["dur"] for o in inside if o is not e)
        ]
        times[event["name"]] = event["dur"] - sum(e["dur"] for e in direct)
    return times


def sets(events):
    times, stack = {}, []
    for event in sorted(events, key=lambda e: e["ts"]):
        while stack and stack[-1]["ts"] + stack[-1]["dur"] <= event["ts"]:
            stack.pop()
        if stack:
            times[stack[-1]["name"]] -= event["dur"]
        times[event["name"]] = event["dur"]
        stack.append(event)
    return times


def too_long_open(events):
    times, stack = defaultdict(int), []
    for event in sorted(events, key=lambda e: e["ts"]):
        while stack and event["ts"] > stack[-1]["ts"] + stack[-1]["dur"]:
            stack.pop()
        times[event["name"]] += event["dur"]
        if stack:
            times[stack[-1]["name"]] -= event["dur"]
        stack.append(event)
    return times


def only_positive(events):
    return {name: time for name, time in by_parents(events).items() if time > 0}


def never_closes(events):
    times, stack = {}, []
    for event in sorted(events, key=lambda e: e["ts"]):
        if stack:
            times[stack[-1]["name"]] -= event["dur"]
        times[event["name"]] = times.get(event["name"], 0) + event["dur"]
        stack.append(event)
    return times


RIGHT = {
    "log_losses": [with_close, with_flush, new_style, beside_another_run],
    "read_scalars": [by_zip, large_limit, by_files],
    "smooth": [by_two_sums, by_definition],
    "batch_picture": [by_einsum, by_hand],
    "log_gradients": [by_numpy, by_dict, in_eval_and_back],
    "pr_points": [by_loop, by_nan_to_num],
    "flat_config": [by_leaves, by_prefix],
    "name_the_faults": [in_another_order, by_pairs],
    "overfits_since": [by_enumerate, by_numpy_places],
    "self_times": [by_parents, by_recursion],
}

WRONG = {
    "log_losses": [
        (unclosed, "close the writer, or flush"),
        (without_step, "global_step is missing"),
        (from_step_zero, "expected: at first_step"),
        (other_tag, "expected: 'loss/train'"),
        (as_lines, "add_scalars makes a run for each line"),
        (a_writer_each, "open one writer"),
        (last_only, "only the last loss"),
        (elsewhere, "no event file in the folder"),
        (steps_first, "not 10"),
        (deeper, "a folder inside `folder`"),
        (one_too_many, "IndexError"),
    ],
    "read_scalars": [
        (with_default, "10,000"),
        (swapped, "values come first"),
        (as_pairs, "a list of pairs"),
        (wall_times, "these are the times"),
        (counted, "counted from 0"),
        (one_file, "two event files"),
        (no_reload, "KeyError"),
        (by_step, "sorted by step"),
        (once_each, "a step that was logged twice"),
        (by_opening_a_writer, "changes the files of the run"),
        (tidies_up, "changes the files of the run"),
    ],
    "smooth": [
        (without_correction, "the start is not corrected"),
        (from_the_first, "it begins with the first value"),
        (fed_back, "keep the running value apart"),
        (exchanged, "the other way round"),
        (exchanged_above, "weight and 1 - weight are exchanged"),
        (exponent_from_zero, "ZeroDivisionError"),
    ],
    "batch_picture": [
        (to_255, "floats from 0 to 1"),
        (reshaped, "mixes pixels and channels"),
        (transposed, "height and width are exchanged"),
        (as_rows, "number of images in a row"),
        (default_columns, "the columns are ignored"),
        (stretched, "normalize=True"),
        (channels_last, "wants them first"),
        (not_permuted, "the channels are still the last axis; make_grid"),
        (as_it_is, "and the values reach 255"),
        (divides_in_place, "changes its argument"),
        (by_uint8, "uint8 cuts off the fractions"),
    ],
    "log_gradients": [
        (weights_instead, "these are the weights"),
        (trusts_gradients, "the gradient of a frozen parameter is None"),
        (steps_forgotten, "the step is missing"),
        (names_only, "lack their group"),
        (closes, "closes the writer"),
        (norms, "norm of each gradient"),
        (clears, "changes the model (gradients)"),
        (in_eval, "changes the model (mode, train or eval)"),
        (back_to_train, "changes the model (mode, train or eval)"),
        (freezes, "changes the model (requires_grad)"),
        (resets, "changes the model (buffers)"),
        (steps_on, "changes the model (weights)"),
        (zeros_for_none, "as zeros"),
        (by_requires_grad, "whatever requires_grad says"),
        (trainable_with_gradient, "frozen after backward"),
    ],
    "pr_points": [
        (from_logits, "the logits are compared"),
        (from_sigmoid, "sigmoid"),
        (over_samples, "over the samples"),
        (strictly, ">="),
        (divides_by_zero, "NaN"),
        (recall_first, "exchanged"),
        (largest_only, "largest logit"),
        (as_accuracy, "share of those called"),
    ],
    "flat_config": [
        (keeps_booleans, "booleans stay"),
        (all_texts, "numbers have become texts"),
        (one_level, "only one level"),
        (unnamed, "names of the outer dicts"),
        (with_slashes, "by a slash"),
        (drops_none, "None is left out"),
        (only_strings, "dicts inside have become texts"),
        (empty_as_text, "an empty dict inside"),
    ],
    "name_the_faults": [
        (exchanging("A", "F"), "run A has another fault"),
        (exchanging("B", "D"), "run B has another fault"),
        (exchanging("C", "E"), "run C has another fault"),
        (exchanging("D", "F"), "run D has another fault"),
        (all_the_same, "more than once"),
        (five, "'A' to 'F'"),
        (misspelled, "none of the faults"),
        (in_lists, "none of the faults"),
        (as_list, "expected: a dict"),
    ],
    "overfits_since": [
        (by_place, "place in the list"),
        (by_training, "lowest training loss"),
        (valid_only, "the training loss is not looked at"),
        (without_tolerance, "the tolerance is ignored"),
        (added_tolerance, "here it is added"),
        (any_peak, "any later peak"),
        (says_false, "False"),
        (at_first_rise, "the search ends at the first rise"),
        (reaching, ">, not >="),
        (no_larger, "<, not <="),
        (no_return, "no `return`"),
        (by_training_throughout, "never hold together"),
        (rises_both, "never hold together"),
        (last_two, "it is None, not an int"),
        (if_since, "step 0 is a step, too"),
        (lowest_training_since, "any later training loss"),
        (falls_at_every_step, "need not fall at every step"),
    ],
    "self_times": [
        (totals, "total times"),
        (off_all, "direct caller only"),
        (in_given_order, "sort them by ts"),
        (overwrites, "add up"),
        (never_closes, "an event that is over"),
        (sets, "= replaces"),
        (too_long_open, "<=, not <"),
        (only_positive, "whose self time is 0"),
    ],
}
