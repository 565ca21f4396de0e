"""Answers to the exercises of chapter 06: wrong ones, with a phrase of their verdict, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import collections
import copy
import io
import itertools
import os
import re
import shutil
import tempfile
from os import fsync, remove, replace
from pathlib import Path

import torch

# load_for_use


def use_without_eval(model, path):
    model.load_state_dict(torch.load(path))
    return model


def use_without_return(model, path):
    model.load_state_dict(torch.load(path))
    model.eval()


def use_the_report(model, path):
    return model.load_state_dict(torch.load(path))


def use_the_path(model, path):
    model.load_state_dict(path)
    return model.eval()


def use_module_load(model, path):
    model.load_state_dict(model.load(path))
    return model.eval()


def use_eval_first(model, path):
    model.eval()
    return torch.load(path)


def use_a_copy(model, path):
    model = copy.deepcopy(model)
    model.load_state_dict(torch.load(path))
    return model.eval()


def use_one_flag(model, path):
    model.load_state_dict(torch.load(path))
    model.training = False
    return model


def use_only_eval(model, path):
    torch.load(path)
    return model.eval()


def use_not_strict(model, path):
    model.load_state_dict(torch.load(path), strict=False)
    return model.eval()


def use_printing(model, path):
    try:
        model.load_state_dict(torch.load(path))
    except RuntimeError as error:
        print(error)
    return model.eval()


def use_unexpected_only(model, path):
    report = model.load_state_dict(torch.load(path), strict=False)
    if report.unexpected_keys:
        raise RuntimeError(f"unexpected: {report.unexpected_keys}")
    return model.eval()


def use_step_by_step(model, path):
    with open(path, "rb") as file:
        weights = torch.load(file, map_location="cpu", weights_only=True)
    report = model.load_state_dict(weights, strict=True)
    assert not report.missing_keys
    for module in model.modules():
        module.training = False
    return model


def use_assign(model, path):
    model.load_state_dict(torch.load(path), assign=True)
    model.train(False)
    return model


# without_prefix


def prefix_in_place(state, prefix):
    for name in list(state):
        state[name.removeprefix(prefix)] = state.pop(name)
    return state


def prefix_to_the_end(state, prefix):
    result = dict(state)
    for name in state:
        if name.startswith(prefix):
            result[name.removeprefix(prefix)] = result.pop(name)
    return result


def prefix_by_slice(state, prefix):
    result = collections.OrderedDict()
    for name, tensor in state.items():
        if name.startswith(prefix):
            name = name[len(prefix) :]
        result[name] = tensor
    return result


def prefix_by_pattern(state, prefix):
    return {re.sub("^" + re.escape(prefix), "", name): tensor for name, tensor in state.items()}


def prefix_of_one_part(state, prefix):
    return {
        n.removeprefix(prefix) if n.split(".")[0] + "." == prefix else n: tensor
        for n, tensor in state.items()
    }


# load_matching


def matching_strict_false(model, state):
    return sorted(model.load_state_dict(state, strict=False).missing_keys)


def matching_by_name(model, state):
    own = model.state_dict()
    fitting = {name: tensor for name, tensor in state.items() if name in own}
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


def matching_by_size(model, state):
    own = model.state_dict()
    left = []
    with torch.no_grad():
        for name, tensor in own.items():
            if name in state and state[name].numel() == tensor.numel():
                tensor.copy_(state[name].reshape(tensor.shape))
            else:
                left.append(name)
    return sorted(left)


def matching_by_trial(model, state):
    left = []
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            try:
                tensor.copy_(state[name])
            except (KeyError, RuntimeError):
                left.append(name)
    return sorted(left)


def matching_by_assignment(model, state):
    own = model.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and t.shape == own[n].shape}
    model.load_state_dict(fitting, strict=False, assign=True)
    return sorted(own.keys() - fitting.keys())


def matching_with_a_set(model, state):
    own = model.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and t.shape == own[n].shape}
    model.load_state_dict(fitting, strict=False)
    return own.keys() - fitting.keys()


def matching_unexpected(model, state):
    own = model.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and t.shape == own[n].shape}
    model.load_state_dict(fitting, strict=False)
    return sorted(state.keys() - fitting.keys())


def matching_that_empties(model, state):
    own = model.state_dict()
    for name in list(state):
        if name not in own or state[name].shape != own[name].shape:
            del state[name]
    return sorted(model.load_state_dict(state, strict=False).missing_keys)


def matching_unsorted(model, state):
    own = model.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and t.shape == own[n].shape}
    model.load_state_dict(fitting, strict=False)
    return [n for n in own if n not in fitting]


def matching_dry(model, state):
    own = model.state_dict()
    return sorted(n for n in own if n not in state or state[n].shape != own[n].shape)


def matching_by_report(model, state):
    own = model.state_dict()
    fitting = {n: t for n, t in state.items() if n in own and t.shape == own[n].shape}
    return sorted(model.load_state_dict(fitting, strict=False).missing_keys)


def matching_rebound(model, state):
    own = model.state_dict()
    left = [n for n in own if n not in state or state[n].shape != own[n].shape]
    own.update({n: t for n, t in state.items() if n in own and n not in left})
    return sorted(left)


def matching_by_copy(model, state):
    left = []
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in state and state[name].shape == tensor.shape:
                tensor.copy_(state[name])
            else:
                left.append(name)
    return sorted(left)


def matching_full(model, state):
    full = model.state_dict()
    fitting = [n for n in full if n in state and list(state[n].shape) == list(full[n].shape)]
    full.update({name: state[name] for name in fitting})
    model.load_state_dict(full)
    return sorted(set(full) - set(fitting))


def matching_by_dtype(model, state):
    own = model.state_dict()
    fitting = {
        n: t for n, t in state.items() if n in own and t.shape == own[n].shape and t.dtype == own[n].dtype
    }
    model.load_state_dict(fitting, strict=False)
    return sorted(own.keys() - fitting.keys())


# stored_bytes


def stored_by_loop(state):
    seen, total = set(), 0
    for tensor in state.values():
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += len(storage)
    return total


def stored_in_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


def stored_by_saving(state):
    import zipfile

    file = io.BytesIO()
    torch.save(state, file)
    with zipfile.ZipFile(file) as archive:
        return sum(entry.file_size for entry in archive.infolist() if "/data/" in entry.filename)


# differences


def differences_flat(a, b):
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def differences_by_str(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in a.keys() | b.keys():
            found += [f"{key}.{p}" if p else str(key) for p in differences_by_str(a.get(key), b.get(key))]
        return sorted(found)
    return [] if str(a) == str(b) else [""]


def differences_without_dtype(a, b):
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in a.keys() | b.keys():
            inner = differences_without_dtype(a[key], b[key]) if key in a and key in b else [""]
            found += [f"{key}.{p}" if p else str(key) for p in inner]
        return sorted(found)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [""]
    return [] if type(a) is type(b) and a == b else [""]


def differences_with_dots_first(a, b, place=""):
    found = []
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            found += differences_with_dots_first(a.get(key), b.get(key), f"{place}.{key}")
        return sorted(found)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) and a.dtype == b.dtype else [place]
    return [] if type(a) is type(b) and a == b else [place]


def differences_zipped(a, b):
    found = []
    for (key, x), y in zip(a.items(), b.values(), strict=False):
        same = torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        if not same:
            found.append(key)
    return found


def differences_by(equal=None, lists=max, get=False):
    def run(a, b):
        if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
            length = lists(len(a), len(b))
            a, b = dict(enumerate(a[:length])), dict(enumerate(b[:length]))
        if isinstance(a, dict) and isinstance(b, dict):
            found = []
            for key in a.keys() | b.keys():
                inner = run(a.get(key), b.get(key)) if get or (key in a and key in b) else [""]
                found += [f"{key}.{p}" if p else str(key) for p in inner]
            return sorted(found)
        return [] if (equal or equal_leaves)(a, b) else [""]

    return run


def close_leaves(x, y):
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
        return x.dtype == y.dtype and x.shape == y.shape and torch.allclose(x, y)
    return equal_leaves(x, y)


def leaves_by_equality(x, y):
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
        return x.dtype == y.dtype and torch.equal(x, y)
    return bool(x == y)


def differences_as_found(a, b):
    found = differences_by_flattening(a, b)
    return found[1:] + found[:1]


def differences_unsorted(a, b):
    return differences_by_flattening(a, b)[::-1]


def differences_by_type(x, y):
    return type(x) is type(y) and equal_leaves(x, y)


def differences_of_dictionaries(a, b):
    """Each side's lists become dictionaries, whatever the other side has."""
    a, b = (dict(enumerate(x)) if isinstance(x, (list, tuple)) else x for x in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in a.keys() | b.keys():
            inner = differences_of_dictionaries(a[key], b[key]) if key in a and key in b else [""]
            found += [f"{key}.{p}" if p else str(key) for p in inner]
        return sorted(found)
    return [] if equal_leaves(a, b) else [""]


def flattened(thing, place=()):
    kind = dict if isinstance(thing, dict) else list if isinstance(thing, (list, tuple)) else None
    if kind is None:
        return {place: thing}
    leaves = {place: kind}
    for key, value in thing.items() if kind is dict else enumerate(thing):
        leaves |= flattened(value, (*place, key))
    return leaves


def equal_leaves(x, y):
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
        return x.dtype == y.dtype and x.shape == y.shape and bool((x == y).all())
    if isinstance(x, torch.Tensor) or isinstance(y, torch.Tensor):
        return False
    return x == y


def differences_by_flattening(a, b):
    a, b = flattened(a), flattened(b)
    places = [p for p in a.keys() | b.keys() if p not in a or p not in b or not equal_leaves(a[p], b[p])]
    tops = [p for p in places if not any(p[:n] in places for n in range(1, len(p)))]
    return sorted(".".join(map(str, p)) for p in tops)


def differences_with_a_list(a, b):
    found = []

    def walk(x, y, place):
        if isinstance(x, (list, tuple)) and isinstance(y, (list, tuple)):
            for i in range(max(len(x), len(y))):
                if i < len(x) and i < len(y):
                    walk(x[i], y[i], [*place, i])
                else:
                    found.append([*place, i])
        elif isinstance(x, dict) and isinstance(y, dict):
            for key in {*x, *y}:
                if key in x and key in y:
                    walk(x[key], y[key], [*place, key])
                else:
                    found.append([*place, key])
        elif not equal_leaves(x, y):
            found.append(place)

    walk(a, b, [])
    return sorted(".".join(map(str, place)) for place in found)


def differences_of_exact_types(a, b):
    if type(a) in (list, tuple) and type(b) in (list, tuple):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if type(a) is dict and type(b) is dict:
        found = []
        for key in a.keys() | b.keys():
            inner = differences_of_exact_types(a[key], b[key]) if key in a and key in b else [""]
            found += [f"{key}.{p}" if p else str(key) for p in inner]
        return sorted(found)
    return [] if equal_leaves(a, b) else [""]


def differences_by_sorted_keys(a, b):
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict):
        found = []
        for key in sorted(a.keys() | b.keys()):
            inner = differences_by_sorted_keys(a[key], b[key]) if key in a and key in b else [""]
            found += [f"{key}.{p}" if p else str(key) for p in inner]
        return found
    return [] if equal_leaves(a, b) else [""]


# remaining_batches


def remaining_without_state(loader, begin, done):
    return list(loader)[done:]


def remaining_pictures(loader, begin, done):
    loader.generator.set_state(begin)
    return [batch[0] for batch in loader][done:]


def remaining_one_more(loader, begin, done):
    loader.generator.set_state(begin)
    return list(loader)[done + 1 :]


def remaining_in_two_loops(loader, begin, done):
    loader.generator.set_state(begin)
    for i, _ in enumerate(loader):
        if i + 1 >= done:
            break
    return list(loader)


def remaining_after_setting_late(loader, begin, done):
    batches = iter(loader)
    loader.generator.set_state(begin)
    return list(batches)[done:]


def remaining_by_global_state(loader, begin, done):
    torch.set_rng_state(begin)
    return list(loader)[done:]


def remaining_done(loader, begin, done):
    loader.generator.set_state(begin)
    return list(loader)[:done]


def remaining_length(loader, begin, done):
    loader.generator.set_state(begin)
    return len(loader) - done


def remaining_with_another_generator(loader, begin, done):
    again = copy.copy(loader)
    generator = torch.Generator()
    generator.set_state(begin)
    object.__setattr__(again, "generator", generator)
    object.__setattr__(again.batch_sampler.sampler, "generator", generator)
    return list(again)[done:]


def remaining_by_length(loader, begin, done):
    loader.generator.set_state(begin)
    batches = iter(loader)
    for _ in range(done):
        next(batches)
    return [next(batches) for _ in range(len(loader) - done)]


def remaining_iterator(loader, begin, done):
    loader.generator.set_state(begin)
    return itertools.islice(loader, done, None)


def remaining_by_slice(loader, begin, done):
    loader.generator.set_state(begin)
    return list(loader)[done:]


def remaining_by_next(loader, begin, done):
    loader.generator.set_state(begin)
    batches = iter(loader)
    for _ in range(done):
        next(batches)
    return list(batches)


def remaining_by_enumerate(loader, begin, done):
    loader.generator.set_state(begin)
    return [batch for i, batch in enumerate(loader) if i >= done]


# write_safely


def write_in_place(path, write):
    with open(path, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def write_without_fsync(path, write):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_without_flush(path, write):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_untidy(path, write):
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_elsewhere(path, write):
    with tempfile.TemporaryDirectory() as other:
        temporary = Path(other) / path.name
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        shutil.move(temporary, path)


def write_and_swallow(path, write):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, ValueError):
        temporary.unlink(missing_ok=True)


def write_and_replace_anyway(path, write):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    finally:
        os.replace(temporary, path)


def write_a_copy(path, write):
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    shutil.copy(temporary, path)


def write_with_the_path(path, write):
    write(path.with_name(path.name + ".tmp"))


def write_as_text(path, write):
    with open(path.with_name("t"), "w") as file:
        write(file)


def write_synced_late(path, write):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
        os.replace(temporary, path)
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    finally:
        temporary.unlink(missing_ok=True)


def write_and_copy(path, write):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        shutil.copy(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_and_remove(path, write, remove=Path.unlink):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            remove(path)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_and_set_aside(path, write):
    write_and_remove(path, write, lambda path: os.replace(path, path.with_name("old")))
    path.with_name("old").unlink(missing_ok=True)


def write_after_removing(path, write):
    path.unlink(missing_ok=True)
    write_by_tempfile(path, write)


def write_over_a_neighbour(path, write):
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_from_memory_in_place(path, write, force=os.fsync):
    memory = io.BytesIO()
    write(memory)
    with open(path, "wb") as file:
        file.write(memory.getvalue())
        file.flush()
        force(file.fileno())


def write_tidy_after_exceptions(path, write):
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except Exception:
        temporary.unlink()
        raise
    os.replace(temporary, path)


def write_by_imported_names(path, write):
    temporary = path.with_name("." + path.name)
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            fsync(file.fileno())
        replace(temporary, path)
    finally:
        if temporary.exists():
            remove(temporary)


def write_by_tempfile(path, write):
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file)
        Path(name).replace(path)
    except BaseException:
        os.remove(name)
        raise


def write_from_memory(path, write):
    memory = io.BytesIO()
    write(memory)
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "wb", buffering=0) as file:
        file.write(memory.getvalue())
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_from_memory_beside(path, write):
    memory = io.BytesIO()
    write(memory)
    temporary = path.with_suffix(".new")
    with open(temporary, "wb", buffering=0) as file:
        file.write(memory.getvalue())
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_to_a_part(path, write):
    temporary = path.with_suffix(".part")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_by_named_file(path, write, force, **options):
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False, **options) as file:
        try:
            write(file)
            file.flush()
            force(file.fileno())
        except BaseException:
            file.close()
            os.remove(file.name)
            raise
    os.replace(file.name, path)


def write_by_fdatasync(path, write):
    write_by_named_file(path, write, getattr(os, "fdatasync", os.fsync), prefix=path.stem + ".")


def write_by_named_fsync(path, write):
    write_by_named_file(path, write, os.fsync)


def write_named(name, mode="wb"):
    def write_safely(path, write):
        temporary = path.with_name(name(path))
        try:
            with open(temporary, mode) as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    return write_safely


# outdated

PATTERN = re.compile(r"epoch_(\d+)\.pt")


def number(name):
    return int(re.search(r"\d+", name)[0])


def outdated_as_text(names, keep):
    return sorted(n for n in names if n.startswith("epoch_"))[:-keep]


def outdated_without_filter(names, keep):
    return sorted(names, key=number)[:-keep]


def outdated_newest(names, keep):
    return sorted((n for n in names if PATTERN.fullmatch(n)), key=number)[-keep:]


def outdated_by_prefix(names, keep):
    found = [n for n in names if n.startswith("epoch_") and n.endswith(".pt")]
    return sorted(found, key=lambda n: int(n[6:-3]))[:-keep]


def outdated_by_loose_pattern(names, keep):
    return sorted((n for n in names if re.fullmatch(r"epoch_\d+.pt", n)), key=number)[:-keep]


def outdated_by_int(names, keep):
    numbered = []
    for n in names:
        if n.startswith("epoch_") and n.endswith(".pt"):
            try:
                numbered.append((int(n[6:-3]), n))
            except ValueError:
                continue
    return [n for _, n in sorted(numbered)[:-keep]]


def outdated_by_match(names, keep):
    return sorted((n for n in names if PATTERN.match(n)), key=number)[:-keep]


def outdated_newest_first(names, keep):
    return sorted((n for n in names if PATTERN.fullmatch(n)), key=number, reverse=True)[keep:]


def outdated_by_count(names, keep):
    found = sorted((n for n in names if PATTERN.fullmatch(n)), key=number)
    return found[: len(found) - keep]


def outdated_as_given(names, keep):
    return [n for n in names if PATTERN.fullmatch(n)][:-keep]


def outdated_by_length(names, keep):
    return sorted((n for n in names if PATTERN.fullmatch(n)), key=lambda n: (len(n), n))[:-keep]


def outdated_by_zfill(names, keep):
    return sorted((n for n in names if PATTERN.fullmatch(n)), key=lambda n: n[6:-3].zfill(4))[:-keep]


def outdated_in_pairs(names, keep):
    numbered = sorted((int(m[1]), n) for n in names if (m := PATTERN.fullmatch(n)))
    return [n for _, n in numbered[: max(len(numbered) - keep, 0)]]


def outdated_by_set(names, keep):
    found = [n for n in names if PATTERN.fullmatch(n)]
    newest = sorted(found, key=number, reverse=True)[:keep]
    return sorted(set(found) - set(newest), key=number)


# keep_best


def best_by(take, better=lambda now, best: now > best, first=float("-inf"), load=True):
    def run(model, train_epoch, score, epochs):
        best, weights = first, None
        for _ in range(epochs):
            train_epoch(model)
            now = score(model)
            if better(now, best):
                best, weights = now, take(model)
        if load:
            model.load_state_dict(weights, strict=False)
        return best

    return run


def best_of_parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def best_unbound(model, train_epoch, score, epochs):
    best = 0
    for _ in range(epochs):
        train_epoch(model)
        if (now := score(model)) > best:
            best, weights = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return best


def best_returns_model(model, train_epoch, score, epochs):
    best, kept = float("-inf"), None
    for _ in range(epochs):
        train_epoch(model)
        if (now := score(model)) > best:
            best, kept = now, copy.deepcopy(model)
    return kept


def best_rebinds(model, train_epoch, score, epochs):
    best, kept = float("-inf"), None
    for _ in range(epochs):
        train_epoch(model)
        if (now := score(model)) > best:
            best, kept = now, copy.deepcopy(model)
    model = kept
    return best


def best_by_assignment(model, train_epoch, score, epochs):
    best, weights = float("-inf"), None
    for _ in range(epochs):
        train_epoch(model)
        if (now := score(model)) > best:
            best, weights = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights, assign=True)
    return best


def best_by_dictionary(model, train_epoch, score, epochs):
    best, kept = float("-inf"), None
    for _ in range(epochs):
        train_epoch(model)
        if (now := score(model)) > best:
            best, kept = now, copy.deepcopy(model)
    model.__dict__.update(kept.__dict__)
    return best


def best_scored_twice(model, train_epoch, score, epochs):
    best = float("-inf")
    for _ in range(epochs):
        train_epoch(model)
        if score(model) > best:
            best, weights = score(model), copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return best


def best_by_data(model, train_epoch, score, epochs):
    best, kept = float("-inf"), None
    for _ in range(epochs):
        train_epoch(model)
        if (now := score(model)) > best:
            best, kept = now, copy.deepcopy(model)
    for mine, its in zip(model.parameters(), kept.parameters(), strict=True):
        mine.data = its.data
    for mine, its in zip(model.buffers(), kept.buffers(), strict=True):
        mine.copy_(its)
    return best


def best_before_training(model, train_epoch, score, epochs):
    best, weights = score(model), copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        train_epoch(model)
        if (now := score(model)) > best:
            best, weights = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return best


def best_if_not(model, train_epoch, score, epochs):
    best = None
    for _ in range(epochs):
        train_epoch(model)
        now = score(model)
        if not best or now > best:
            best, weights = now, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return best


def best_by_clones(model, train_epoch, score, epochs):
    kept = []
    for _ in range(epochs):
        train_epoch(model)
        kept.append((score(model), {n: t.clone() for n, t in model.state_dict().items()}))
    best, weights = max(kept, key=lambda pair: pair[0])
    model.load_state_dict(weights)
    return best


def best_by_bytes(model, train_epoch, score, epochs):
    best = None
    for _ in range(epochs):
        train_epoch(model)
        now = score(model)
        if best is None or now > best:
            best, file = now, io.BytesIO()
            torch.save(model.state_dict(), file)
    file.seek(0)
    model.load_state_dict(torch.load(file))
    return best


# halve


def halve_by(change):
    return lambda state: {name: change(tensor) for name, tensor in state.items()}


def halve_in_place(state):
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.half().isfinite().all():
            state[name] = tensor.half()
    return state


def halve_by_maximum(state):
    result = {}
    for name, tensor in state.items():
        if tensor.is_floating_point() and (tensor.numel() == 0 or tensor.abs().max() <= 65504):
            tensor = tensor.to(torch.float16)
        result[name] = tensor
    return result


def halve_if_any(tensor):
    if not tensor.is_floating_point():
        return tensor
    small = tensor.half()
    return tensor if small.isinf().any() else small


def halve_from_a_copy(state):
    result = dict(state)
    for name in state:
        if torch.is_floating_point(state[name]):
            small = state[name].to(torch.float16)
            if not small.isinf().any():
                result[name] = small
    return result


def halve_by_largest(tensor):
    small = tensor.half()
    finite = tensor.numel() == 0 or small.float().abs().max() < float("inf")
    return small if tensor.is_floating_point() and finite else tensor


def halve_but_int64(tensor):
    if tensor.dtype in (torch.int64, torch.bool):
        return tensor
    return tensor.half() if tensor.half().isfinite().all() else tensor


def halve_copies(state):
    result = copy.deepcopy(state)
    for name, tensor in state.items():
        if tensor.dtype in (torch.float32, torch.float64) and tensor.half().isfinite().all():
            result[name] = tensor.half()
    return result


WRONG = {
    "load_for_use": [
        (use_without_eval, "still in training mode: call model.eval()"),
        (use_without_return, "is there a `return`"),
        (use_the_report, "expected: the model"),
        (use_the_path, "Expected state_dict to be dict-like"),
        (use_module_load, "no attribute 'load'"),
        (use_eval_first, "it returns a OrderedDict; expected: the model"),
        (use_a_copy, "returns another model"),
        (use_one_flag, "the layers in the model are still in training mode"),
        (use_not_strict, "without strict=False"),
        (use_printing, "let load_state_dict raise"),
        (use_unexpected_only, "nobody learns of it"),
        (use_only_eval, "still has its own weights"),
    ],
    "without_prefix": [
        (lambda s, p: {n.lstrip(p): t for n, t in s.items()}, "take off letters"),
        (lambda s, p: {n.strip(p): t for n, t in s.items()}, "take off letters"),
        (lambda s, p: {n.replace(p, ""): t for n, t in s.items()}, "further inside"),
        (lambda s, p: {n[len(p) :]: t for n, t in s.items()}, "cut as well"),
        (lambda s, p: {n.split(".", 1)[1]: t for n, t in s.items()}, "IndexError"),
        (lambda s, p: {n.removeprefix(p): t for n, t in s.items() if n.startswith(p)}, "are missing"),
        (lambda s, p: [n.removeprefix(p) for n in s], "it returns a list, not a dict"),
        (prefix_in_place, "in place"),
        (prefix_to_the_end, "another order"),
        (prefix_of_one_part, "may have several parts"),
    ],
    "load_matching": [
        (matching_strict_false, "for Linear: size mismatch for weight"),
        (matching_by_name, "for Linear: size mismatch for weight"),
        (matching_by_report, "num_batches_tracked is not in missing_keys"),
        (matching_by_size, "as many numbers are not the same shape"),
        (matching_by_trial, "repeats its numbers"),
        (matching_by_assignment, "shares its memory"),
        (matching_with_a_set, "expected: a list of names"),
        (matching_unexpected, "names of `state` that did not fit"),
        (matching_that_empties, "it changes its argument `state` in place"),
        (matching_unsorted, "not sorted"),
        (matching_dry, "nothing was loaded"),
        (matching_rebound, "nothing was loaded"),
        (matching_by_dtype, "another dtype is no obstacle"),
    ],
    "stored_bytes": [
        (lambda s: sum(t.nbytes for t in s.values()), "each storage once"),
        (lambda s: sum(t.untyped_storage().nbytes() for t in s.values()), "more than once"),
        (lambda s: sum(t.numel() for t in s.values()), "numbers, not bytes"),
        (lambda s: sum({t.data_ptr(): t.nbytes for t in s.values()}.values()), "the value is 40, not 224"),
        (
            lambda s: sum({t.data_ptr(): t.untyped_storage().nbytes() for t in s.values()}.values()),
            "of the storage, not of the tensor",
        ),
        (lambda s: sum({t.untyped_storage().nbytes() for t in s.values()}), "tell them apart"),
        (lambda s: {t.untyped_storage().data_ptr() for t in s.values()}, "it returns a set"),
        (stored_in_a_file, "the size of a file"),
        (lambda s: sum(t.numel() * 4 for t in s.values()), "not every number has 4 bytes"),
    ],
    "differences": [
        (differences_flat, "'losses', not 'losses.1'"),
        (differences_by_str, "the places within lists and tuples are missing"),
        (differences_without_dtype, "overlooks the dtype"),
        (differences_with_dots_first, "the value is '.epoch'"),
        (differences_zipped, "'losses', not 'losses.1'"),
        (differences_unsorted, "the places are right, but not sorted"),
        (differences_as_found, "the places are right, but not sorted"),
        (differences_by(close_leaves), "close is not equal: use torch.equal"),
        (differences_by(lists=min), "zip ends with the shorter one"),
        (differences_by(get=True), "not a.get(key)"),
        (differences_by(differences_by_type), "3 and 3.0 are equal"),
        (differences_of_dictionaries, "a list and a dictionary differ"),
        (differences_by(leaves_by_equality), "even where == says True"),
        (lambda a, b: a == b, "it returns a bool, not a list"),
        (differences_of_exact_types, "an OrderedDict"),
        (differences_by_sorted_keys, "the places are right, but not sorted"),
    ],
    "remaining_batches": [
        (remaining_without_state, "bring loader.generator to the state"),
        (remaining_pictures, "these are parts of batches"),
        (remaining_one_more, "not done + 1"),
        (remaining_in_two_loops, "draws a new order"),
        (remaining_after_setting_late, "comes too late"),
        (remaining_by_global_state, "set loader.generator, the loader's own"),
        (remaining_by_length, "to the end: the loader may draw"),
        (remaining_iterator, "expected: a list of batches"),
        (remaining_done, "batches that are done"),
        (remaining_length, "it returns an int; expected: a list of batches"),
        (remaining_with_another_generator, "the generator is not where"),
    ],
    "write_safely": [
        (write_in_place, "the file itself is open"),
        (write_without_fsync, "nothing forces the bytes"),
        (write_without_flush, "os.fsync comes too early"),
        (write_untidy, "table.csv.tmp is left in the folder"),
        (write_elsewhere, "not in the folder of `path`"),
        (write_and_swallow, "does not pass on"),
        (write_and_replace_anyway, "do not rename then"),
        (write_a_copy, "the file itself is open"),
        (write_and_copy, "the file itself is open"),
        (write_and_remove, "neither old nor new"),
        (write_and_set_aside, "neither old nor new"),
        (write_after_removing, "neither old nor new"),
        (write_over_a_neighbour, "another file of the folder is lost"),
        (write_to_a_part, "with_suffix drops"),
        (write_from_memory_beside, "with_suffix drops"),
        (write_from_memory_in_place, "the file itself is open"),
        (lambda p, w: write_from_memory_in_place(p, w, lambda _: None), "the file itself is open"),
        (write_tidy_after_exceptions, "table.csv.tmp is left in the folder"),
        (write_with_the_path, "open for writing"),
        (write_as_text, "must be str, not bytes"),
        (write_synced_late, "new name already"),
        (lambda path, write: path.touch(), "called 0 times"),
        (write_named(lambda path: "temporary.tmp"), "append .tmp to the whole name"),
        (write_named(lambda path: path.stem + "_tmp" + path.suffix), "append .tmp to the whole name"),
        (write_named(lambda path: path.name + ".tmp", "ab"), "stands in the way"),
        (write_named(lambda path: path.name + ".tmp", "xb"), "stands in the way"),
    ],
    "outdated": [
        (outdated_as_text, "as text"),
        (outdated_without_filter, "'NoneType' object is not subscriptable"),
        (outdated_newest, "these are the newest"),
        (outdated_by_prefix, "ValueError"),
        (outdated_by_loose_pattern, "a dot is any character"),
        (outdated_by_int, "int takes 1_0 for 10"),
        (outdated_by_match, "re.match looks at the beginning"),
        (outdated_newest_first, "oldest first"),
        (outdated_by_count, "counts from the back"),
        (outdated_as_given, "sort by number"),
        (outdated_by_length, "a longer name"),
        (outdated_by_zfill, "more digits than zfill"),
    ],
    "keep_best": [
        (best_by(lambda m: m.state_dict()), "those of the last epoch"),
        (best_by(lambda m: m.state_dict().copy()), "those of the last epoch"),
        (best_by(lambda m: copy.deepcopy(m.state_dict()), load=False), "those of the last epoch"),
        (best_by(best_of_parameters), "the buffers are not"),
        (best_by(lambda m: copy.deepcopy(m.state_dict()), better=lambda n, b: n >= b), "by >, not by >="),
        (best_by(lambda m: copy.deepcopy(m.state_dict()), first=0.0), "scores may be negative"),
        (best_by(lambda m: copy.deepcopy(m.state_dict()), first=-100.0), "scores may be negative"),
        (best_by_assignment, "the parameters were replaced"),
        (best_by_dictionary, "the parameters were replaced"),
        (best_scored_twice, "once after each epoch"),
        (best_unbound, "scores may be negative"),
        (
            best_by(lambda m: copy.deepcopy(m.state_dict()), better=lambda n, b: n < b, first=float("inf")),
            "lowest score",
        ),
        (best_returns_model, "it returns a Linear, not a float"),
        (best_rebinds, "those of the last epoch"),
        (best_before_training, "before the first epoch"),
        (best_if_not, "`best is None`"),
    ],
    "halve": [
        (halve_by(lambda t: t.half()), "everything was converted"),
        (halve_by(lambda t: t.half() if t.is_floating_point() else t), "became infinite"),
        (halve_by(lambda t: t.half() if t.half().isfinite().all() else t), "integers or booleans"),
        (
            halve_by(lambda t: t.half() if t.is_floating_point() and (t < 65504).all() else t),
            "large negative numbers",
        ),
        (halve_by(lambda t: t.bfloat16() if t.is_floating_point() else t), "this is bfloat16"),
        (halve_by_maximum, "convert first, then ask"),
        (halve_copies, "bfloat16 is a floating-point type, too"),
        (halve_in_place, "in place"),
        (
            halve_by(lambda t: t.half() if t.dtype == torch.float32 and t.half().isfinite().all() else t),
            "float32 is not the only floating-point type",
        ),
        (lambda s: {n: t.half() for n, t in s.items() if t.is_floating_point()}, "the keys are"),
        (halve_by(halve_but_int64), "int64 is not the only integer type"),
    ],
}

RIGHT = {
    "load_for_use": [use_step_by_step, use_assign],
    "without_prefix": [prefix_by_slice, prefix_by_pattern],
    "load_matching": [matching_by_copy, matching_full],
    "stored_bytes": [stored_by_loop, stored_by_saving],
    "differences": [differences_by_flattening, differences_with_a_list],
    "remaining_batches": [remaining_by_slice, remaining_by_next, remaining_by_enumerate],
    "write_safely": [
        write_by_tempfile,
        write_from_memory,
        write_by_imported_names,
        write_by_named_fsync,
        write_by_fdatasync,
        write_named(lambda path: "tmp_" + path.name, "w+b"),
    ],
    "outdated": [outdated_in_pairs, outdated_by_set],
    "keep_best": [
        best_by_clones,
        best_by_bytes,
        best_by_data,
        best_by(lambda m: copy.deepcopy(m.state_dict())),
    ],
    "halve": [halve_by(halve_if_any), halve_by(halve_by_largest), halve_from_a_copy],
}
