"""Answers to the exercises of chapter 09: wrong ones, with a phrase of their verdict, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import contextlib
import gc
import itertools
import math
import sys
from collections import defaultdict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from course_utils.memory import MemoryMeter

# training_bytes


def by_measuring(model, optimizer):
    make = {
        "sgd": lambda ps: torch.optim.SGD(ps),
        "momentum": lambda ps: torch.optim.SGD(ps, momentum=0.9),
        "adam": lambda ps: torch.optim.Adam(ps),
    }[optimizer]
    trained = [p for p in model.parameters() if p.requires_grad]
    states = 0
    if trained:
        copies = [p.detach().clone().requires_grad_() for p in trained]
        for p in copies:
            p.grad = torch.zeros_like(p)
        real = make(copies)
        real.step()
        states = sum(t.nbytes for s in real.state.values() for t in s.values() if torch.is_tensor(t))
    return {
        "parameters": sum(p.numel() * p.element_size() for p in model.parameters()),
        "gradients": sum(p.nbytes for p in trained),
        "optimizer_state": states,
    }


def by_loop(model, optimizer):
    totals = defaultdict(int)
    for p in model.parameters():
        size = p.numel() * p.element_size()
        totals["parameters"] += size
        totals["gradients"] += size * p.requires_grad
        if p.requires_grad:
            totals["optimizer_state"] += {"sgd": 0, "momentum": size, "adam": 2 * size + 4}[optimizer]
        else:
            totals["optimizer_state"] += 0
    return dict(totals)


def four_bytes(model, optimizer):
    n = 4 * sum(p.numel() for p in model.parameters())
    g = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    k = sum(1 for p in model.parameters() if p.requires_grad)
    return {
        "parameters": n,
        "gradients": g,
        "optimizer_state": {"sgd": 0, "momentum": g, "adam": 2 * g + 4 * k}[optimizer],
    }


def counts_frozen(model, optimizer):
    n = sum(p.nbytes for p in model.parameters())
    k = len(list(model.parameters()))
    state = {"sgd": 0, "momentum": n, "adam": 2 * n + 4 * k}[optimizer]
    return {"parameters": n, "gradients": n, "optimizer_state": state}


def no_counters(model, optimizer):
    got = by_loop(model, optimizer)
    return {**got, "optimizer_state": got["gradients"] * ["sgd", "momentum", "adam"].index(optimizer)}


def no_counters_frozen(model, optimizer):
    n = sum(p.nbytes for p in model.parameters())
    return {
        "parameters": n,
        "gradients": n,
        "optimizer_state": {"adam": 2 * n, "momentum": n}.get(optimizer, 0),
    }


def with_buffers(model, optimizer):
    buffers = sum(b.nbytes for b in model.buffers())
    got = by_loop(model, optimizer)
    return {**got, "parameters": got["parameters"] + buffers}


def elements(model, optimizer):
    n = sum(p.numel() for p in model.parameters())
    g = sum(p.numel() for p in model.parameters() if p.requires_grad)
    k = len([p for p in model.parameters() if p.requires_grad])
    state = {"sgd": 0, "momentum": g, "adam": 2 * g + 4 * k}[optimizer]
    return {"parameters": n, "gradients": g, "optimizer_state": state}


def other_keys(model, optimizer):
    got = by_loop(model, optimizer)
    return {**got, "optimizer state": got.pop("optimizer_state")}


def as_sum(model, optimizer):
    return sum(by_loop(model, optimizer).values())


def module_by_module(model, optimizer):
    every = [p for module in model.modules() for p in module.parameters(recurse=False)]
    trained = [p for p in every if p.requires_grad]
    n = sum(p.nbytes for p in trained)
    state = {"sgd": 0, "momentum": n, "adam": 2 * n + 4 * len(trained)}[optimizer]
    return {"parameters": sum(p.nbytes for p in every), "gradients": n, "optimizer_state": state}


# saved_bytes


def by_hooks(widths, batch_size):
    layers = []
    for i, o in itertools.pairwise(widths):
        layers += [nn.Linear(i, o), nn.ReLU()]
    model, saved = nn.Sequential(*layers[:-1]), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(torch.zeros(batch_size, widths[0]))
    del output
    return sum(saved.values())


def by_meter(widths, batch_size):
    layers = []
    for i, o in itertools.pairwise(widths):
        layers += [nn.Linear(i, o), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    with MemoryMeter("cpu") as meter:
        meter.watch(model)
        start = meter.live
        total = model(torch.zeros(batch_size, widths[0])).sum()
        return meter.live - start - total.nbytes


def by_layers(widths, batch_size):
    total = batch_size * widths[0] * 4
    for width in widths[1:-1]:
        total += batch_size * width * 4
    return total


def all_widths(widths, batch_size):
    return batch_size * 4 * sum(widths)


def without_batch(widths, batch_size):
    return sum(w * batch_size * 4 for w in widths[1:-1])


def twice(widths, batch_size):
    return 4 * batch_size * (widths[0] + 2 * sum(widths[1:-1]))


def in_elements(widths, batch_size):
    return batch_size * sum(widths[:-1])


def for_one(widths, batch_size):
    return sum(widths[:-1]) * 4


def the_outputs(widths, batch_size):
    return sum(w * batch_size * 4 for w in widths[1:])


def as_float(widths, batch_size):
    return 32 / 8 * batch_size * sum(widths[:-1])


# freed_bytes


def by_dictionary(gone, kept):
    sizes = {}
    for t in gone:
        storage = t.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    for t in kept:
        sizes.pop(t.untyped_storage().data_ptr(), None)
    return sum(sizes.values())


def by_cdata(gone, kept):
    seen, total = {t.untyped_storage()._cdata for t in kept}, 0
    for t in gone:
        storage = t.untyped_storage()
        if storage._cdata not in seen:
            seen.add(storage._cdata)
            total += len(storage)
    return total


def by_pairs(gone, kept):
    died, lives = (
        {(t.untyped_storage().data_ptr(), t.untyped_storage().size()) for t in ts} for ts in (gone, kept)
    )
    return sum(size for _, size in died - lives)


def by_difference(gone, kept):
    def alive(tensors):
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    return alive([*gone, *kept]) - alive(kept)


def each_tensor(gone, kept):
    held = {t.untyped_storage().data_ptr() for t in kept}
    return sum(t.numel() * t.element_size() for t in gone if t.untyped_storage().data_ptr() not in held)


def each_storage(gone, kept):
    held = {t.untyped_storage().data_ptr() for t in kept}
    storages = [t.untyped_storage() for t in gone]
    return sum(storage.nbytes() for storage in storages if storage.data_ptr() not in held)


def by_start(gone, kept):
    held = {t.data_ptr() for t in kept}
    return sum(
        {t.data_ptr(): t.untyped_storage().nbytes() for t in gone if t.data_ptr() not in held}.values()
    )


def what_is_seen(gone, kept):
    seen, total = {t.untyped_storage().data_ptr() for t in kept}, 0
    for t in gone:
        if t.untyped_storage().data_ptr() not in seen:
            seen.add(t.untyped_storage().data_ptr())
            total += t.numel() * t.element_size()
    return total


def all_of_gone(gone, kept):
    return by_dictionary(gone, [])


def by_object(gone, kept):
    return by_dictionary([t for t in gone if all(t is not k for k in kept)], [])


def taken_off(gone, kept):
    return by_dictionary(gone, []) - by_dictionary(kept, [])


def of_kept(gone, kept):
    return by_dictionary(kept, gone)


# train_epoch


def by_detaching(model, loader, optimizer):
    losses = []
    for x, y in loader:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        model.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


def clears_first(model, loader, optimizer):
    optimizer.zero_grad()
    return by_detaching(model, loader, optimizer)


def by_tensor_sum(model, loader, optimizer):
    total = torch.zeros(())
    for x, y in loader:
        model.zero_grad(set_to_none=False)
        loss = nn.CrossEntropyLoss()(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.detach()
    return float(total / len(loader))


def epoch(keep, finish=lambda kept, loader: sum(kept) / len(loader), **backward):
    def train_epoch(model, loader, optimizer):
        kept = []
        for x, y in loader:
            logits = model(x)
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward(**backward)
            optimizer.step()
            kept.append(keep(loss, logits, x))
        return finish(kept, loader)

    return train_epoch


leaky = epoch(lambda loss, logits, x: loss)
item_at_the_end = epoch(lambda loss, *_: loss, lambda kept, loader: (sum(kept) / len(loader)).item())
retains = epoch(lambda loss, *_: loss, lambda k, loader: (sum(k) / len(loader)).item(), retain_graph=True)
keeps_logits = epoch(
    lambda loss, logits, x: (loss.item(), logits.detach()),
    lambda kept, _: sum(n for n, _ in kept) / len(kept),
)
keeps_inputs = epoch(
    lambda loss, logits, x: (loss.item(), x), lambda kept, _: sum(n for n, _ in kept) / len(kept)
)
sums = epoch(lambda loss, *_: loss.item(), lambda kept, _: sum(kept))
last = epoch(lambda loss, *_: loss.item(), lambda kept, _: kept[-1])
by_samples = epoch(lambda loss, _, x: loss.item() * len(x), lambda k, loader: sum(k) / len(loader.dataset))
detached_tensor = epoch(lambda loss, *_: loss.detach())
returns_nothing = epoch(lambda loss, *_: loss.item(), lambda kept, _: None)


def keeps_the_last(model, loader, optimizer):
    for x, y in loader:
        keeps_the_last.loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        keeps_the_last.loss.backward()
        optimizer.step()
    return keeps_the_last.loss.item()


def cuts_the_graph(model, loader, optimizer):
    total = 0.0
    for x, y in loader:
        loss = F.cross_entropy(model(x).detach().requires_grad_(), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def keeps_one_graph(model, loader, optimizer):
    total = 0.0
    for x, y in loader:
        loss = keeps_one_graph.loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def deletes_loss(model, loader, optimizer):
    total = 0
    for x, y in loader:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss
        del loss
        gc.collect()
    return total / len(loader)


def trains_nothing(model, loader, optimizer):
    total = 0.0
    with torch.no_grad():
        for x, y in loader:
            total += F.cross_entropy(model(x), y).item()
    return total / len(loader)


def sums_before_backward(model, loader, optimizer):
    total = 0
    for x, y in loader:
        total = total + F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return total.item() / len(loader)


def in_evaluation(model, loader, optimizer):
    got = clears_first(model, loader, optimizer)
    model.eval()
    return got


def on_the_model(model, loader, optimizer):
    model.kept = []
    model.register_forward_hook(lambda module, args, output: model.kept.append(output.detach()))
    return clears_first(model, loader, optimizer)


def loads_the_epoch(model, loader, optimizer):
    return clears_first(model, list(loader), optimizer)


def keeps_the_first(model, loader, optimizer):
    model.first = next(iter(loader))
    return clears_first(model, loader, optimizer)


def keeps_an_older(model, loader, optimizer):
    """Keep the batch before the last one, with what the model made of it."""
    older = []
    total = 0.0
    for x, y in loader:
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        older = [*older[-1:], (x, logits.detach())]
    return total / len(loader)


def retains_each(model, loader, optimizer):
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward(retain_graph=True)
        optimizer.step()
        total += loss.item()
    return total / len(loader)


def many_variables(model, loader, optimizer):
    mean = 0.0
    for number, batch in enumerate(loader, 1):
        inputs, targets = batch
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets)
        loss.backward()
        optimizer.step()
        mean += (loss.item() - mean) / number
    return mean


def clears_after(model, loader, optimizer):
    return by_detaching(model, loader, optimizer)


# collect_predictions


@torch.inference_mode()
def by_decorator(model, loader):
    mode = model.training
    model.eval()
    try:
        return torch.cat([model(x).argmax(dim=1) for x, _ in loader]).cpu()
    finally:
        model.train(mode)


def by_filling(model, loader):
    mode, at = model.training, 0
    model.eval()
    classes = torch.empty(len(loader.dataset), dtype=torch.int64)
    with torch.no_grad():
        for x, _ in loader:
            classes[at : at + len(x)] = model(x).softmax(1).max(1).indices
            at += len(x)
    if mode:
        model.train()
    return classes


def by_lists(model, loader):
    mode, classes = model.training, []
    model.eval()
    with torch.no_grad():
        for x, _ in loader:
            classes += model(x).argmax(-1).tolist()
    model.train(mode)
    return torch.tensor(classes)


def collect(evaluate=True, graph=False, keep=lambda logits: logits.argmax(1), join=torch.cat, back=None):
    def collect_predictions(model, loader):
        mode = model.training
        if evaluate:
            model.eval()
        kept = []
        with contextlib.nullcontext() if graph else torch.no_grad():
            for x, _ in loader:
                kept.append(keep(model(x)))
        if evaluate:
            model.train(mode if back is None else back)
        return join(kept)

    return collect_predictions


keeps_outputs = collect(graph=True, keep=lambda logits: logits, join=lambda kept: torch.cat(kept).argmax(1))
keeps_all_logits = collect(keep=lambda logits: logits, join=lambda kept: torch.cat(kept).argmax(1))
detaches = collect(graph=True, keep=lambda logits: logits.detach().argmax(1))
in_training = collect(evaluate=False)
stays_in_evaluation = collect(back=False)
back_to_training = collect(back=True)
as_logits = collect(keep=lambda logits: logits)
wrong_dim = collect(keep=lambda logits: logits.argmax(0))
only_last = collect(join=lambda kept: kept[-1])
as_list = collect(join=lambda kept: torch.cat(kept).tolist())
by_sorting = collect(keep=lambda logits: logits.sort(1).indices[:, -1])
pairs = collect(keep=lambda logits: logits.max(1), join=lambda kept: torch.cat([p.indices for p in kept]))
as_float_classes = collect(keep=lambda logits: logits.argmax(1).float())
stacked = collect(join=torch.stack)
squeezed = collect(keep=lambda logits: logits.topk(1).indices.squeeze().clone())


def switches_off(model, loader):
    torch.set_grad_enabled(False)
    return by_decorator(model, loader)


def remembers_logits(model, loader):
    model.logits = []
    model.register_forward_hook(lambda module, args, output: model.logits.append(output))
    return by_decorator(model, loader)


def by_growing(model, loader):
    mode, classes = model.training, torch.empty(0, dtype=torch.int64)
    model.eval()
    for x, _ in loader:
        with torch.no_grad():
            classes = torch.cat([classes, model(x).argmax(1).cpu()])
    model.train(mode)
    return classes


def loads_all(model, loader):
    return by_growing(model, list(loader))


def loads_one_ahead(model, loader):
    """Have the next two batches at hand while one is predicted."""
    batches = itertools.chain(loader, [None, None])
    ahead = [next(batches), next(batches)]

    def in_turn():
        for batch in batches:
            ahead.append(batch)
            yield ahead.pop(0)

    return by_growing(model, in_turn())


def keeps_the_batch_before(model, loader):
    def in_turn():
        batches = []
        for batch in loader:
            batches = [*batches[-1:], batch]
            yield batch

    return by_growing(model, in_turn())


# activation_norms


def by_with_stack(model, batch):
    norms = {}
    with contextlib.ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            if list(module.children()):
                continue

            def hook(module, args, output, name=name):
                norms[name] = output.pow(2).sum().sqrt().item()

            stack.callback(module.register_forward_hook(hook).remove)
        model(batch)
    return norms


def by_vector_norm(model, batch):
    norms, handles = {}, []
    leaves = {module: name for name, module in model.named_modules() if len(list(module.children())) == 0}

    def hook(module, args, output):
        norms[leaves[module]] = float(torch.linalg.vector_norm(output))

    for module in leaves:
        handles.append(module.register_forward_hook(hook))
    try:
        with torch.inference_mode():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return norms


def hooked(norm=lambda t: t.norm().item(), finally_=True, remove=True, graph=False, late=False, all_=False):
    def activation_norms(model, batch):
        norms, handles = {}, []
        for name, module in model.named_modules():
            if all_ or not list(module.children()):
                if late:
                    hook = lambda m, a, o: norms.__setitem__(name, norm(o))  # noqa: B023, E731
                else:
                    hook = lambda m, a, o, name=name: norms.__setitem__(name, norm(o))  # noqa: E731
                handles.append(module.register_forward_hook(hook))

        def undo():
            for handle in handles:
                if remove:
                    handle.remove()

        with contextlib.nullcontext() if graph else torch.no_grad():
            if finally_:
                try:
                    model(batch)
                finally:
                    undo()
            else:
                model(batch)
                undo()
        return norms

    return activation_norms


not_in_finally = hooked(finally_=False)
never_removed = hooked(remove=False)
as_tensors = hooked(norm=torch.norm)
with_graph = hooked(graph=True)
last_name = hooked(late=True)
containers_too = hooked(all_=True)
mean_size = hooked(norm=lambda t: t.abs().mean().item())


def keeps_until_the_end(model, batch):
    outputs, handles = {}, []
    for name, module in model.named_modules():
        if not list(module.children()):
            handles.append(
                module.register_forward_hook(lambda m, a, o, name=name: outputs.__setitem__(name, o.clone()))
            )
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: output.norm().item() for name, output in outputs.items()}


def swallows(model, batch):
    try:
        return hooked()(model, batch)
    except Exception:  # noqa: BLE001
        return {}


def clears_all_hooks(model, batch):
    norms = hooked(remove=False)(model, batch)
    for module in model.modules():
        module._forward_hooks.clear()
    return norms


def keeps_on_module(model, batch):
    def hook(module, args, output):
        module.last = output

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        return hooked()(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def goes_by_hand(model, batch):
    norms = {}
    with torch.no_grad():
        for name, module in model.named_modules():
            if not list(module.children()):
                batch = module(batch)
                norms[name] = batch.norm().item()
    return norms


def without_root(model, batch):
    norms = by_vector_norm(model, batch)
    return {name: norm for name, norm in norms.items() if name}


def switches_mode(model, batch):
    return hooked()(model.eval(), batch)


def all_but_sequential(model, batch):
    norms, handles = {}, []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Sequential):
            handles.append(
                module.register_forward_hook(lambda m, a, o, name=name: norms.update({name: o.norm().item()}))
            )
    try:
        with torch.no_grad():
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return norms


# try_step


def by_function(step, *args):
    def run():
        try:
            step(*args)
            return True
        except torch.OutOfMemoryError:
            return False

    fits = run()
    gc.collect()
    return fits


def by_else(step, *args):
    failed = None
    try:
        step(*args)
    except torch.cuda.OutOfMemoryError:
        failed = True
    else:
        return True
    gc.collect()
    return not failed


def by_message(step, *args):
    try:
        step(*args)
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
    else:
        return True
    gc.collect()
    return False


def by_one_word(step, *args):
    try:
        step(*args)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
    else:
        return True
    gc.collect()
    return False


def collects_inside(step, *args):
    try:
        step(*args)
        return True
    except torch.OutOfMemoryError:
        gc.collect()
        return False


def returns_only(step, *args):
    try:
        step(*args)
    except torch.OutOfMemoryError:
        return False
    return True


def catches_all(step, *args):
    fits = True
    try:
        step(*args)
    except Exception:  # noqa: BLE001
        fits = False
    gc.collect()
    return fits


def catches_runtime(step, *args):
    fits = True
    try:
        step(*args)
    except RuntimeError:
        fits = False
    gc.collect()
    return fits


def bare(step, *args):
    fits = True
    try:
        step(*args)
    except:  # noqa: E722
        fits = False
    gc.collect()
    return fits


ERRORS = []


def remembers(step, *args):
    fits = True
    try:
        step(*args)
    except torch.OutOfMemoryError as error:
        ERRORS[:] = [error]
        fits = False
    gc.collect()
    return fits


def keeps_error(step, *args):
    caught = None
    try:
        step(*args)
    except torch.OutOfMemoryError as error:
        caught = error
    gc.collect()
    return caught is None


def tries_again(step, *args):
    return any(by_function(step, *args) for _ in range(2))


def gives_the_result(step, *args):
    try:
        result = step(*args)
    except torch.OutOfMemoryError:
        result = False
    gc.collect()
    return result


def memory_error(step, *args):
    fits = True
    try:
        step(*args)
    except MemoryError:
        fits = False
    gc.collect()
    return fits


def empties(step, *args):
    fits = True
    try:
        step(*args)
    except torch.OutOfMemoryError:
        fits = False
    torch.cuda.empty_cache()
    return fits


def forgets_args(step, *args):
    return by_function(step)


def by_finally(step, *args):
    try:
        step(*args)
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        gc.collect()


def clears_traceback(step, *args):
    try:
        step(*args)
    except torch.OutOfMemoryError:
        sys.exc_info()[1].__traceback__ = None
        gc.collect()
        return False
    return True


# largest_batch


def by_powers(fits, start=1, limit=4096):
    good, size = 0, start
    while size <= limit and fits(size):
        good, size = size, size * 2
    bad = min(size, limit + 1)
    while bad > good + 1:
        half = good + (bad - good) // 2
        if fits(half):
            good = half
        else:
            bad = half
    return good


def by_recursion(fits, start=1, limit=4096):
    def between(good, bad):
        if bad - good <= 1:
            return good
        half = (good + bad) // 2
        return between(half, bad) if fits(half) else between(good, half)

    def double(good, size):
        if good == limit:
            return good
        return double(size, min(2 * size, limit)) if fits(size) else between(good, size)

    return double(0, start)


def one_by_one(fits, start=1, limit=4096):
    best = 0
    for size in range(1, limit + 1):
        if not fits(size):
            break
        best = size
    return best


def bisects_at_once(fits, start=1, limit=4096):
    low, high = 0, limit + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def start_then_limit(fits, start=1, limit=4096):
    low, high = (start, limit + 1) if fits(start) else (0, start)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def quadruples(fits, start=1, limit=4096):
    low, high = 0, start
    while high <= limit and fits(high):
        low, high = high, 4 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def doubles_only(fits, start=1, limit=4096):
    if not fits(start):
        return 0
    while 2 * start <= limit and fits(2 * start):
        start *= 2
    return start


def past_the_limit(fits, start=1, limit=4096):
    low, high = 0, start
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return min(low, limit)


def starts_at_least(fits, start=1, limit=4096):
    if not fits(start):
        return 0
    return by_powers(fits, start, limit)


def one_short(fits, start=1, limit=4096):
    return by_powers(fits, start, limit - 1) if limit > 1 else 0


def returns_failing(fits, start=1, limit=4096):
    return by_powers(fits, start, limit) + 1


def counts_down(fits, start=1, limit=4096):
    return next((size for size in range(limit, 0, -1) if fits(size)), 0)


def none_for_nothing(fits, start=1, limit=4096):
    return by_powers(fits, start, limit) or None


def in_floats(fits, start=1, limit=4096):
    low, high = 0, start
    while high <= limit and fits(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return int(low)


def tries_twice(fits, start=1, limit=4096):
    for _ in range(2):
        got = by_powers(fits, start, limit)
    return got


# name_the_leak

NAMED = {
    "A": "a hook keeps activations",
    "B": "data set cached on the device",
    "C": "loss kept with its graph",
    "D": "the traceback of an error",
}


def named(**other):
    return lambda: {**NAMED, **other}


# train_in_budget


def in_parts(size, weigh=None, told=None, **options):
    """Accumulate over parts; weigh and told take a part's size, all samples and the number of parts."""
    share = lambda n, samples, parts: n / samples  # noqa: E731

    def train_in_budget(model, inputs, targets, optimizer):
        parts = math.ceil(len(inputs) / size)
        if options.get("clear", True):
            optimizer.zero_grad()
        total = 0.0
        for i in range(0, len(inputs), size):
            x, y = inputs[i : i + size], targets[i : i + size]
            if options.get("full_only") and len(x) < size:
                continue
            if options.get("clear_each"):
                optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=options.get("half", False)):
                loss = F.cross_entropy(options.get("run", model)(x), y)
            part = (len(x), len(inputs), parts)
            (loss * (weigh or share)(*part)).backward()
            total += loss.item() * (told or share)(*part)
            if options.get("step_each"):
                optimizer.step()
        if not options.get("step_each"):
            optimizer.step()
        return total

    return train_in_budget


def segments(model, x, count=4):
    return checkpoint_sequential(model, count, x, use_reentrant=False)


def by_sum(model, inputs, targets, optimizer):
    model.zero_grad()
    total = 0.0
    for x, y in zip(inputs.split(1), targets.split(1), strict=True):
        loss = F.cross_entropy(segments(model, x, 3), y, reduction="sum") / len(targets)
        loss.backward()
        total += loss.detach()
    optimizer.step()
    return total.item()


def by_slices(model, inputs, targets, optimizer):
    """Checkpoint slices of the model, the last one included."""
    optimizer.zero_grad()
    losses = []
    for i in range(len(inputs)):
        x = inputs[i : i + 1]
        for start in range(0, len(model), 7):
            x = checkpoint(model[start : start + 7], x, use_reentrant=False)
        loss = F.cross_entropy(x, targets[i : i + 1])
        (loss / len(inputs)).backward()
        losses.append(loss.item())
        del x, loss
    optimizer.step()
    return sum(losses) / len(losses)


def by_hand(model, inputs, targets, optimizer):
    """Compute again without checkpoint: run without a graph, then go back slice by slice."""
    optimizer.zero_grad()
    slices, total = [model[i : i + 8] for i in range(0, len(model), 8)], 0.0
    for x, y in zip(inputs.split(1), targets.split(1), strict=True):
        starts = []
        with torch.no_grad():
            for part in slices:
                starts.append(x)
                x = part(x)
        x.requires_grad_()
        loss = F.cross_entropy(x, y, reduction="sum") / len(inputs)
        loss.backward()
        total += loss.item()
        gradient = x.grad
        for part in reversed(slices):
            x = starts.pop().detach().requires_grad_()
            part(x).backward(gradient)
            gradient = x.grad
    optimizer.step()
    return total


def to_numpy(model, inputs, targets, optimizer):
    """Keep what autograd saves elsewhere: as arrays of NumPy, which stand for another memory here."""
    weights = {p.data_ptr() for p in model.parameters()}

    def pack(tensor):
        return tensor if tensor.data_ptr() in weights else np.array(tensor.detach())

    def unpack(packed):
        return torch.from_numpy(packed) if isinstance(packed, np.ndarray) else packed

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return in_parts(1)(model, inputs, targets, optimizer)


def by_grad(model, inputs, targets, optimizer):
    parameters = list(model.parameters())
    for p in parameters:
        p.grad = torch.zeros_like(p)
    total = 0.0
    for i in range(len(inputs)):
        loss = F.cross_entropy(segments(model, inputs[i : i + 1], 5), targets[i : i + 1]) / len(inputs)
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad += g
        total += float(loss.detach())
    optimizer.step()
    return total


def segmented(size, count=4):
    def train_in_budget(model, *others):
        return in_parts(size, run=lambda x: segments(model, x, count))(model, *others)

    return train_in_budget


def each_layer(model, *others):
    def run(x):
        for layer in model:
            x = checkpoint(layer, x, use_reentrant=False)
        return x

    return in_parts(1, run=run)(model, *others)


def plain(model, inputs, targets, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), targets)
    loss.backward()
    optimizer.step()
    return loss.item()


def checkpoint_all(model, inputs, targets, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(checkpoint(model, inputs, use_reentrant=False), targets)
    loss.backward()
    optimizer.step()
    return loss.item()


def chunked(count):
    """Accumulate as the chapter does, where a batch always has as many parts as chunk is asked for."""

    def train_in_budget(model, inputs, targets, optimizer):
        optimizer.zero_grad()
        total = 0.0
        for x, y in zip(inputs.chunk(count), targets.chunk(count), strict=True):
            loss = F.cross_entropy(segments(model, x), y) / count
            loss.backward()
            total += loss.item()
        optimizer.step()
        return total

    return train_in_budget


def reentrant(model, *others):
    return in_parts(1, run=lambda x: checkpoint_sequential(model, 4, x, use_reentrant=True))(model, *others)


def backward_at_the_end(model, inputs, targets, optimizer):
    optimizer.zero_grad()
    total = 0
    for x, y in zip(inputs.split(1), targets.split(1), strict=True):
        total = total + F.cross_entropy(model(x), y, reduction="sum") / len(targets)
    total.backward()
    optimizer.step()
    return total.item()


def as_tensor(model, inputs, targets, optimizer):
    return torch.tensor(in_parts(2)(model, inputs, targets, optimizer))


def first_part_only(model, inputs, targets, optimizer):
    return plain(model, inputs[:2], targets[:2], optimizer)


def in_float16(model, inputs, targets, optimizer):
    optimizer.zero_grad()
    loss = F.cross_entropy(model.half()(inputs.half()).float(), targets)
    loss.backward()
    optimizer.step()
    model.float()
    return loss.item()


def without_training(model, inputs, targets, optimizer):
    optimizer.zero_grad()
    total = 0.0
    for x, y in zip(inputs.split(2), targets.split(2), strict=True):
        with torch.no_grad():
            total += F.cross_entropy(model(x), y, reduction="sum").item() / len(targets)
    optimizer.step()
    return total


def into_the_batch(which):
    def train_in_budget(model, inputs, targets, optimizer):
        got = segmented(1)(model, inputs, targets, optimizer)
        [inputs, targets][which].zero_()
        return got

    return train_in_budget


WRONG = {
    "training_bytes": [
        (four_bytes, "ask element_size()"),
        (counts_frozen, "neither gradient nor state"),
        (no_counters, "step counters are missing"),
        (no_counters_frozen, "4 bytes for each trained tensor"),
        (with_buffers, "buffers, such as running_mean"),
        (elements, "numbers of elements"),
        (other_keys, "the keys are"),
        (as_sum, "it returns an int, not a dict"),
        (module_by_module, "counted twice"),
    ],
    "saved_bytes": [
        (all_widths, "which no layer needs"),
        (without_batch, "the batch itself is missing"),
        (twice, "the same tensor, which counts once"),
        (in_elements, "4 for each"),
        (for_one, "the batch size is missing"),
        (the_outputs, "expected: the inputs"),
        (as_float, "it returns a float, not an int"),
    ],
    "freed_bytes": [
        (each_tensor, "a view shares its storage"),
        (each_tensor, "gone = [x, x.T, x.view(6)]"),
        (each_storage, "several tensors share counts once"),
        (by_start, "may begin later"),
        (what_is_seen, "a part keeps the whole storage"),
        (all_of_gone, "a storage that a kept tensor uses stays"),
        (by_object, "a storage that a kept tensor uses stays"),
        (taken_off, "only where a tensor of gone shares it"),
        (of_kept, "the value is 0, not 64"),
    ],
    "train_epoch": [
        (leaky, "take each loss by item()"),
        (item_at_the_end, "are alive at once"),
        (retains, "are alive at once"),
        (keeps_logits, "bytes behind: keep numbers only"),
        (keeps_inputs, "bytes behind: keep numbers only"),
        (keeps_the_last, "the last batch's loss"),
        (keeps_one_graph, "a graph is still alive"),
        (cuts_the_graph, "no gradient reaches them"),
        (deletes_loss, "with the graphs of all batches behind it"),
        (sums, "the sum of the batches' losses"),
        (last, "the last batch's loss"),
        (by_samples, "the mean over the samples"),
        (detached_tensor, "it returns a tensor; expected: a float"),
        (returns_nothing, "is there a `return`"),
        (trains_nothing, "steps 0 times in 4 batches"),
        (sums_before_backward, "steps 1 times in 4 batches"),
        (in_evaluation, "was in training mode before"),
        (on_the_model, "bytes behind"),
        (loads_the_epoch, "take them one by one"),
        (keeps_the_first, "take them one by one"),
        (keeps_an_older, "of earlier batches keep numbers only"),
        (retains_each, "by retain_graph"),
        (clears_after, "clear them before backward"),
    ],
    "collect_predictions": [
        (switches_off, "stay switched off"),
        (loads_all, "take them one by one"),
        (loads_one_ahead, "take them one by one"),
        (keeps_the_batch_before, "of earlier batches keep numbers only"),
        (remembers_logits, "400 bytes more than before"),
        (keeps_outputs, "a graph is built"),
        (keeps_all_logits, "not the logits"),
        (detaches, "a graph is built"),
        (in_training, "call eval() first"),
        (stays_in_evaluation, "was in training mode before the call"),
        (back_to_training, "was in evaluation mode before the call"),
        (as_logits, "these are the logits"),
        (wrong_dim, "expected: over the classes"),
        (only_last, "only the last batch"),
        (as_list, "a list of numbers"),
        (pairs, "keep the classes only"),
        (by_sorting, "nor a view, which keeps all"),
        (as_float_classes, "its dtype is torch.float32"),
        (stacked, "RuntimeError"),
        (squeezed, "a batch of one sample"),
    ],
    "activation_norms": [
        (not_in_finally, "remove them in `finally`"),
        (never_removed, "hooks are still there after the call"),
        (as_tensors, "the norms are tensors"),
        (with_graph, "a graph is built"),
        (last_name, "bind each its own"),
        (containers_too, "expected: leaves only"),
        (mean_size, "not"),
        (keeps_until_the_end, "activations at once"),
        (without_root, "is a leaf, too"),
        (swallows, "the model's error is swallowed"),
        (clears_all_hooks, "hooks of others are gone"),
        (keeps_on_module, "bytes more than before"),
        (goes_by_hand, "the model is called 0 times"),
        (switches_mode, "is in evaluation mode after it"),
        (all_but_sequential, "whether a module has children"),
    ],
    "try_step": [
        (collects_inside, "inside the `except` block that frees nothing"),
        (returns_only, "until gc.collect() is called"),
        (catches_all, "the step's ValueError is swallowed"),
        (catches_runtime, "the step's RuntimeError is swallowed"),
        (by_one_word, "the step's RuntimeError is swallowed"),
        (bare, "the step's ValueError is swallowed"),
        (remembers, "holds the error"),
        (keeps_error, "holds the error"),
        (tries_again, "runs 2 times"),
        (gives_the_result, "it returns None"),
        (memory_error, "OutOfMemoryError is passed on"),
        (empties, "until gc.collect() is called"),
        (forgets_args, "by *args"),
    ],
    "largest_batch": [
        (one_by_one, "it calls fits 100 times"),
        (bisects_at_once, "expected: start, which is 1"),
        (start_then_limit, "is known to fit"),
        (quadruples, "double first"),
        (doubles_only, "bisection after that"),
        (past_the_limit, "the limit is"),
        (starts_at_least, "a smaller size may"),
        (one_short, "the limit itself"),
        (returns_failing, "the smallest size that does not fit"),
        (counts_down, "the first size that it tries is 64"),
        (none_for_nothing, "it returns None"),
        (in_floats, "it tries a batch of"),
        (tries_twice, "it calls fits"),
        (lambda fits, start, limit: by_powers(fits, start, limit), "missing 2 required positional arguments"),
        (lambda fits, start=1, limit=4095: by_powers(fits, start, limit), "4095, not 4096"),
    ],
    "name_the_leak": [
        (named(A="detached outputs kept in a list"), "script A has another cause"),
        (named(B="optimizer state"), "nothing would grow"),
        (named(C="no torch.no_grad in validation"), "a phase of validation"),
        (named(D="data set cached on the device"), "occurs 2 times"),
        (named(C="a hook keeps activations"), "script = 'C'"),
        (named(A="loss kept with its graph", C="a hook keeps activations"), "script A has another cause"),
        (named(D="an error"), "none of check.CAUSES"),
        (lambda: list(NAMED.values()), "expected: a dict"),
        (lambda: {"a": "optimizer state"}, "expected: 'A' to 'D'"),
    ],
    "train_in_budget": [
        (
            plain,
            "your peak is 1.00 of the plain step's, allowed: 0.17. The model gets 4 pictures at once, and",
        ),
        (in_parts(2), "The model gets 2 pictures at once, and keeps"),
        (in_parts(1), "0.25 of the plain step's, allowed: 0.17. All activations of a picture"),
        (segmented(4), "your peak is 0.49 of the plain step's"),
        (segmented(2), "The model gets 2 pictures at once"),
        (segmented(1, 12), "segments of several layers"),
        (each_layer, "segments of several layers"),
        (checkpoint_all, "The model gets 4 pictures at once"),
        (backward_at_the_end, "parts are alive at once: backward frees each"),
        (in_parts(2, weigh=lambda n, samples, parts: 1), "are added up"),
        (in_parts(3, weigh=lambda n, samples, parts: 1 / parts), "last part has fewer samples"),
        (
            in_parts(3, weigh=lambda n, s, parts: 1 / parts, told=lambda n, s, parts: 1 / parts),
            "last part has fewer samples",
        ),
        (in_parts(2, told=lambda n, samples, parts: 1), "the sum of the parts' means"),
        (chunked(4), "divided by 4, and there are 3 parts, of [2, 2, 1] pictures (chunk"),
        (chunked(8), "divided by 8, and there are 4 parts, of [1, 1, 1, 1] pictures (chunk"),
        (chunked(3), "divided by 3, and there are 2 parts, of [2, 2] pictures (chunk"),
        (reentrant, "write use_reentrant=False"),
        (in_parts(2, clear=False), "left from earlier work"),
        (in_parts(2, clear_each=True), "only those of the last"),
        (in_parts(2, step_each=True), "the optimizer steps 2 times"),
        (in_parts(3, full_only=True), "the last, smaller part is left out"),
        (in_parts(2, half=True), "in half precision?"),
        (in_float16, "in half precision?"),
        (as_tensor, "it returns a tensor"),
        (first_part_only, "the value is"),
        (without_training, "backward is to run"),
        (into_the_batch(0), "changes its inputs in place"),
        (into_the_batch(1), "changes its targets in place"),
    ],
}

RIGHT = {
    "training_bytes": [by_measuring, by_loop],
    "saved_bytes": [by_hooks, by_meter, by_layers],
    "freed_bytes": [by_dictionary, by_cdata, by_pairs, by_difference],
    "train_epoch": [clears_first, by_tensor_sum, many_variables],
    "collect_predictions": [by_decorator, by_filling, by_lists, by_growing],
    "activation_norms": [by_with_stack, by_vector_norm],
    "try_step": [by_function, by_else, by_message, by_finally, clears_traceback],
    "largest_batch": [by_powers, by_recursion],
    "name_the_leak": [named(), lambda: dict(reversed(NAMED.items()))],
    "train_in_budget": [by_sum, by_slices, by_hand, to_numpy, by_grad, segmented(1, 2)],
}
