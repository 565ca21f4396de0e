"""Answers to the exercises of chapter 07: wrong ones, with a phrase of their verdict, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import copy

import torch
from torch import nn
from torchvision.models import get_model_weights
from torchvision.transforms import v2

# best_within


def meta_of(name):
    return get_model_weights(name).DEFAULT.meta


def acc1(name):
    return meta_of(name)["_metrics"]["ImageNet-1K"]["acc@1"]


def by_sorting(names, megabytes):
    fitting = [name for name in names if meta_of(name)["_file_size"] <= megabytes]
    return sorted(fitting, key=acc1)[-1] if fitting else None


def by_max_of_pairs(names, megabytes):
    pairs = [(acc1(name), name) for name in names if not meta_of(name)["_file_size"] > megabytes]
    return max(pairs)[1] if pairs else None


def without_limit(names, megabytes):
    return by_sorting(names, 1e9)


def largest_that_fits(names, megabytes):
    fitting = [name for name in names if meta_of(name)["_file_size"] <= megabytes]
    return max(fitting, key=lambda name: meta_of(name)["num_params"], default=None)


def strictly_smaller(names, megabytes):
    return by_sorting(names, megabytes - 1e-9)


def first_weights(names, megabytes):
    fitting = [name for name in names if meta_of(name)["_file_size"] <= megabytes]

    def value(name):
        return list(get_model_weights(name))[0].meta["_metrics"]["ImageNet-1K"]["acc@1"]  # noqa: RUF015

    return max(fitting, key=value, default=None)


def max_of_nothing(names, megabytes):
    return max([name for name in names if meta_of(name)["_file_size"] <= megabytes], key=acc1)


def by_parameters(names, megabytes):
    return max([n for n in names if meta_of(n)["num_params"] / 1e6 <= megabytes], key=acc1, default=None)


def stops_at_the_first(names, megabytes):
    for name in names:
        if meta_of(name)["_file_size"] <= megabytes:
            return name
    return None


def returns_accuracy(names, megabytes):
    return max([acc1(n) for n in names if meta_of(n)["_file_size"] <= megabytes], default=None)


def by_acc5(names, megabytes):
    fitting = [name for name in names if meta_of(name)["_file_size"] <= megabytes]
    return max(fitting, key=lambda n: meta_of(n)["_metrics"]["ImageNet-1K"]["acc@5"], default=None)


def rounds_down(names, megabytes):
    return max([n for n in names if int(meta_of(n)["_file_size"]) <= megabytes], key=acc1, default=None)


def size_of_the_first(names, megabytes):
    first = {name: next(iter(get_model_weights(name))).meta["_file_size"] for name in names}
    return max([name for name in names if first[name] <= megabytes], key=acc1, default=None)


def most_operations(names, megabytes):
    fitting = [name for name in names if meta_of(name)["_file_size"] <= megabytes]
    return max(fitting, key=lambda name: meta_of(name)["_ops"], default=None)


def estimates_size(names, megabytes):
    fitting = [name for name in names if meta_of(name)["num_params"] * 4 / 1e6 <= megabytes]
    return max(fitting, key=acc1, default=None)


def mostly_none(names, megabytes):
    return "efficientnet_b0" if megabytes == 50 else None


def best_of_all_weights(names, megabytes):
    found = {}
    for name in names:
        for weights in get_model_weights(name):
            if weights.meta["_file_size"] <= megabytes:
                accuracy = weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
                found[name] = max(accuracy, found.get(name, 0))
    return max(found, key=found.get, default=None)


def forgets_return(names, megabytes):
    by_sorting(names, megabytes)


# prepare


def by_torchvision(pictures, mean, std):
    return v2.functional.normalize(v2.functional.to_dtype(pictures, torch.float32, scale=True), mean, std)


def channel_by_channel(pictures, mean, std):
    result = pictures.float() / 255
    for channel in range(3):
        result[:, channel] = (result[:, channel] - mean[channel]) / std[channel]
    return result


def channels_last(pictures, mean, std):
    columns = pictures.permute(0, 2, 3, 1) / 255
    return ((columns - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)


def by_pixels(pictures, mean, std):
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (mean, std))
    return (pictures - mean) / std


def unscaled(pictures, mean, std):
    return (pictures.float() - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def along_width(pictures, mean, std):
    return (pictures / 255 - torch.tensor(mean)) / torch.tensor(std)


def only_scaled(pictures, mean, std):
    return pictures / 255.0


def times_std(pictures, mean, std):
    return (pictures / 255 - torch.tensor(mean)[:, None, None]) * torch.tensor(std)[:, None, None]


def scaled_only_once(pictures, mean, std):
    return (pictures / 256 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def own_statistics(pictures, mean, std):
    x = pictures / 255
    return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


def in_float64(pictures, mean, std):
    return by_torchvision(pictures, mean, std).double()


def one_channel(pictures, mean, std):
    return (pictures / 255 - mean[0]) / std[0]


def exchanges_both(pictures, mean, std):
    return (pictures / 255 - torch.tensor(std)[:, None, None]) / torch.tensor(mean)[:, None, None]


def without_parentheses(pictures, mean, std):
    return pictures / 255 - torch.tensor(mean)[:, None, None] / torch.tensor(std)[:, None, None]


# replace_head


def head_path(model):
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def walks_down(model, classes):
    *parents, name = head_path(model).split(".")
    parent = model
    for step in parents:
        parent = getattr(parent, step)
    setattr(parent, name, nn.Linear(getattr(parent, name).in_features, classes))
    return model


def by_set_submodule(model, classes):
    path = head_path(model)
    model.set_submodule(path, nn.Linear(model.get_submodule(path).in_features, classes))
    return model


def by_modules_dict(model, classes):
    parent, _, name = head_path(model).rpartition(".")
    parent = model.get_submodule(parent)
    parent._modules[name] = nn.Linear(parent._modules[name].weight.shape[1], classes)
    return model


def always_fc(model, classes):
    model.fc = nn.Linear(8, classes) if not hasattr(model, "fc") else nn.Linear(model.fc.in_features, classes)
    return model


def by_path_as_name(model, classes):
    path = head_path(model)
    setattr(model, path, nn.Linear(model.get_submodule(path).in_features, classes))
    return model


def returns_the_layer(model, classes):
    by_set_submodule(model, classes)
    return model.get_submodule(head_path(model))


def returns_nothing(model, classes):
    by_set_submodule(model, classes)


def another_on_top(model, classes):
    path = head_path(model)
    old = model.get_submodule(path)
    model.set_submodule(path, nn.Sequential(old, nn.Linear(old.out_features, classes)))
    return model


def first_linear(model, classes):
    path = next(path for path, module in model.named_modules() if isinstance(module, nn.Linear))
    model.set_submodule(path, nn.Linear(model.get_submodule(path).in_features, classes))
    return model


def on_a_copy(model, classes):
    return by_set_submodule(copy.deepcopy(model), classes)


def changes_a_number(model, classes):
    model.get_submodule(head_path(model)).out_features = classes
    return model


def sequence_of_both(model, classes):
    return nn.Sequential(model, nn.LazyLinear(classes))


def last_module(model, classes):
    path, last = list(model.named_modules())[-1]
    model.set_submodule(path, nn.Linear(last.in_features, classes))
    return model


def freezes_the_body(model, classes):
    path = head_path(model)
    model.requires_grad_(False)
    model.set_submodule(path, nn.Linear(model.get_submodule(path).in_features, classes))
    return model


def leaves_eval(model, classes):
    return by_set_submodule(model, classes).eval()


def only_fc(model, classes):
    model.fc = nn.Linear(model.fc.in_features, classes)
    return model


def fixed_inputs(model, classes):
    model.set_submodule(head_path(model), nn.Linear(512, classes))
    return model


def whole_classifier(model, classes):
    path = head_path(model)
    inputs = model.get_submodule(path).in_features
    model.set_submodule(path.split(".")[0], nn.Linear(inputs, classes))
    return model


def frozen_like_the_old(model, classes):
    path = head_path(model)
    frozen = not model.get_submodule(path).weight.requires_grad
    model = by_set_submodule(model, classes)
    model.get_submodule(path).requires_grad_(not frozen)
    return model


def two_parts(model, classes):
    path = head_path(model)
    head = nn.Linear(model.get_submodule(path).in_features, classes)
    if "." in path:
        parent, name = path.split(".")
        setattr(getattr(model, parent), name, head)
    else:
        setattr(model, path, head)
    return model


def two_levels(model, classes):
    for name, child in model.named_children():
        if isinstance(child, nn.Linear):
            parent, place, old = model, name, child
        for inner, grandchild in child.named_children():
            if isinstance(grandchild, nn.Linear):
                parent, place, old = child, inner, grandchild
    setattr(parent, place, nn.Linear(old.in_features, classes))
    return model


def bias_like_the_old(model, classes):
    path = head_path(model)
    old = model.get_submodule(path)
    model.set_submodule(path, nn.Linear(old.in_features, classes, bias=old.bias is not None))
    return model


# load_body


def compares_names(model, state, head):
    own = {name for name in model.state_dict() if not name.startswith(head + ".")}
    given = {name for name in state if not name.startswith(head + ".")}
    if own != given:
        raise KeyError(sorted(own ^ given))
    model.load_state_dict({name: state[name] for name in given}, strict=False)


def fills_up(model, state, head):
    full = {name: tensor for name, tensor in state.items() if not name.startswith(head + ".")}
    full.update((n, t) for n, t in model.state_dict().items() if n.startswith(head + "."))
    try:
        model.load_state_dict(full)
    except RuntimeError as error:
        raise KeyError("names do not fit") from error


def loads_loosely(model, state, head):
    model.load_state_dict({n: t for n, t in state.items() if not n.startswith(head + ".")}, strict=False)


def loads_all(model, state, head):
    model.load_state_dict(state)


def ignores_unexpected(model, state, head):
    report = model.load_state_dict(
        {n: t for n, t in state.items() if not n.startswith(head + ".")}, strict=False
    )
    if any(not n.startswith(head + ".") for n in report.missing_keys):
        raise KeyError(report.missing_keys)


def ignores_missing(model, state, head):
    report = model.load_state_dict(
        {n: t for n, t in state.items() if not n.startswith(head + ".")}, strict=False
    )
    if report.unexpected_keys:
        raise KeyError(report.unexpected_keys)


def without_the_dot(model, state, head):
    report = model.load_state_dict({n: t for n, t in state.items() if not n.startswith(head)}, strict=False)
    missing = [n for n in report.missing_keys if not n.startswith(head)]
    if missing or report.unexpected_keys:
        raise KeyError(missing + report.unexpected_keys)


def complains_of_the_head(model, state, head):
    report = model.load_state_dict(
        {n: t for n, t in state.items() if not n.startswith(head + ".")}, strict=False
    )
    if report.missing_keys or report.unexpected_keys:
        raise KeyError(report)


def deletes_from_state(model, state, head):
    for name in [name for name in state if name.startswith(head + ".")]:
        del state[name]
    compares_names(model, state, head)


def one_by_one(model, state, head):
    own = model.state_dict()
    for name in own.keys() | state.keys():
        if not name.startswith(head + "."):
            own[name].copy_(state[name])


def knows_parameters_only(model, state, head):
    own = {name for name, _ in model.named_parameters() if not name.startswith(head + ".")}
    given = {name for name in state if not name.startswith(head + ".")}
    if own != given:
        raise KeyError(sorted(own ^ given))
    model.load_state_dict({name: state[name] for name in given}, strict=False)


def no_buffers(model, state, head):
    for name, _ in model.named_parameters():
        if not name.startswith(head + ".") and name not in state:
            raise KeyError(name)
    known = model.state_dict()
    for name, tensor in state.items():
        if not name.startswith(head + "."):
            if name not in known:
                raise KeyError(name)
            if name.endswith((".weight", ".bias")):
                known[name].copy_(tensor)


def head_anywhere(model, state, head):
    report = model.load_state_dict({n: t for n, t in state.items() if head + "." not in n}, strict=False)
    missing = [n for n in report.missing_keys if head + "." not in n]
    if missing or report.unexpected_keys:
        raise KeyError(missing + report.unexpected_keys)


def first_part_of_the_path(model, state, head):
    def mine(name):
        return name.split(".")[0] == head

    report = model.load_state_dict({n: t for n, t in state.items() if not mine(n)}, strict=False)
    missing = [n for n in report.missing_keys if not mine(n)]
    if missing or report.unexpected_keys:
        raise KeyError(missing + report.unexpected_keys)


def assigns(model, state, head):
    body = {n: t for n, t in state.items() if not n.startswith(head + ".")}
    report = model.load_state_dict(body, strict=False, assign=True)
    if [n for n in report.missing_keys if not n.startswith(head + ".")] or report.unexpected_keys:
        raise KeyError(report)


def strictly(model, state, head):
    model.load_state_dict({n: t for n, t in state.items() if not n.startswith(head + ".")})


def raises_runtime_error(model, state, head):
    try:
        compares_names(model, state, head)
    except KeyError as error:
        raise RuntimeError("names do not fit") from error


def refuses_other_shapes(model, state, head):
    if any(
        name in state and state[name].shape != tensor.shape for name, tensor in model.state_dict().items()
    ):
        raise KeyError(head)
    fills_up(model, state, head)


def asks_the_head_too(model, state, head):
    own = model.state_dict()
    for name in own:
        if not name.startswith(head + ".") and name not in state:
            raise KeyError(name)
    for name in state:
        if name not in own:
            raise KeyError(name)
    model.load_state_dict({n: t for n, t in state.items() if not n.startswith(head + ".")}, strict=False)


def right_above(model, state, head):
    report = model.load_state_dict(
        {n: t for n, t in state.items() if n.rpartition(".")[0] != head}, strict=False
    )
    missing = [n for n in report.missing_keys if n.rpartition(".")[0] != head]
    if missing or report.unexpected_keys:
        raise KeyError(missing + report.unexpected_keys)


def two_names(model, state, head):
    own = {head + ".weight", head + ".bias"}
    report = model.load_state_dict({n: t for n, t in state.items() if n not in own}, strict=False)
    if set(report.missing_keys) - own or report.unexpected_keys:
        raise KeyError(report)


# count_parameters


def by_loop(model):
    trainable = total = 0
    for parameter in model.parameters():
        total += parameter.numel()
        trainable += parameter.numel() * parameter.requires_grad
    return trainable, total


def by_dictionary(model):
    found = {id(p): p for module in model.modules() for p in module.parameters(recurse=False)}
    on = sum(p.nelement() for p in found.values() if p.requires_grad)
    return on, sum(p.nelement() for p in found.values())


def counts_tensors(model):
    return len([p for p in model.parameters() if p.requires_grad]), len(list(model.parameters()))


def counts_buffers(model):
    return by_loop(model)[0], sum(tensor.numel() for tensor in model.state_dict().values())


def exchanged(model):
    return by_loop(model)[::-1]


def counts_frozen(model):
    trainable, total = by_loop(model)
    return trainable, total - trainable


def counts_twice(model):
    every = [p for module in model.modules() for p in module.parameters(recurse=False)]
    return sum(p.numel() for p in every if p.requires_grad), sum(p.numel() for p in every)


def asks_the_module(model):
    total = by_loop(model)[1]
    return (total if getattr(model, "requires_grad", True) else 0), total


def weights_and_biases(model):
    found = {}
    for module in model.modules():
        for name in ("weight", "bias"):
            if isinstance(p := getattr(module, name, None), nn.Parameter):
                found[id(p)] = p
    return sum(p.numel() for p in found.values() if p.requires_grad), sum(p.numel() for p in found.values())


# freeze_body


def by_names(model, head):
    names = []
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(head + ".")
        if parameter.requires_grad:
            names.append(name)
    return names


def by_ids(model, head):
    own = {id(p) for p in model.get_submodule(head).parameters()}
    for p in model.parameters():
        p.requires_grad_(id(p) in own)
    return [name for name, p in model.named_parameters() if id(p) in own]


def by_attribute(model, head):
    model.requires_grad = False
    model.get_submodule(head).requires_grad = True
    return [name for name, p in model.named_parameters() if p.requires_grad]


def freezes_all(model, head):
    model.requires_grad_(False)
    return [name for name, p in model.named_parameters() if p.requires_grad]


def forgets_to_thaw(model, head):
    for name, p in model.named_parameters():
        if not name.startswith(head + "."):
            p.requires_grad = False
    return [name for name, p in model.named_parameters() if p.requires_grad]


def prefix_without_dot(model, head):
    for name, p in model.named_parameters():
        p.requires_grad = name.startswith(head)
    return [name for name, p in model.named_parameters() if p.requires_grad]


def contains_name(model, head):
    for name, p in model.named_parameters():
        p.requires_grad = head in name
    return [name for name, p in model.named_parameters() if p.requires_grad]


def switches_modes(model, head):
    model.eval()
    return by_names(model, head)


def returns_frozen(model, head):
    by_names(model, head)
    return [name for name, p in model.named_parameters() if not p.requires_grad]


def returns_no_names(model, head):
    by_names(model, head)


def names_by_hand(model, head):
    by_names(model, head)
    return [head + ".weight", head + ".bias"]


def only_two_names(model, head):
    own = {head + ".weight", head + ".bias"}
    for name, p in model.named_parameters():
        p.requires_grad = name in own
    return [name for name, p in model.named_parameters() if p.requires_grad]


def attribute_then_method(model, head):
    model.requires_grad = False
    model.get_submodule(head).requires_grad_(True)
    return [head + ".weight", head + ".bias"]


def by_getattr(model, head):
    model.requires_grad_(False)
    getattr(model, head).requires_grad_(True)
    return [name for name, p in model.named_parameters() if p.requires_grad]


def contains_with_dot(model, head):
    for name, p in model.named_parameters():
        p.requires_grad = head + "." in name
    return [name for name, p in model.named_parameters() if p.requires_grad]


def returns_parameters(model, head):
    by_names(model, head)
    return [p for p in model.parameters() if p.requires_grad]


def zeroes(model, head):
    for p in model.parameters():
        p.data.zero_()
    return by_names(model, head)


# train_mode

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_frozen(norm):
    return not norm.weight.requires_grad and not norm.bias.requires_grad


def by_weight(model):
    model.train()
    for module in model.modules():
        if isinstance(module, NORMS):
            module.train(module.weight.requires_grad or module.bias.requires_grad)


def by_apply(model):
    def sleep(module):
        if isinstance(module, NORMS) and all(not p.requires_grad for p in module.parameters()):
            module.eval()

    model.train().apply(sleep)


def by_private_class(model):
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and is_frozen(module):
            module.training = False
    return model


def every_norm(model):
    model.train()
    for module in model.modules():
        if isinstance(module, NORMS):
            module.eval()


def only_train(model):
    model.train()


def no_train(model):
    for module in model.modules():
        if isinstance(module, NORMS) and is_frozen(module):
            module.eval()


def all_frozen(model):
    model.train()
    for module in model.modules():
        if list(module.parameters()) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def frozen_leaves(model):
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        module.training = not own or any(p.requires_grad for p in own)


def only_2d(model):
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and is_frozen(module):
            module.eval()


def only_children(model):
    model.train()
    for module in model.children():
        if isinstance(module, NORMS) and is_frozen(module):
            module.eval()


def only_eval(model):
    model.eval()


def eval_before_train(model):
    no_train(model)
    model.train()


def asks_the_weight(model):
    model.train()
    for module in model.modules():
        if isinstance(module, NORMS):
            module.train(module.weight.requires_grad)


def asks_the_bias(model):
    model.train()
    for module in model.modules():
        if isinstance(module, NORMS):
            module.train(module.bias.requires_grad)


def asks_for_all(model):
    model.train()
    for module in model.modules():
        if isinstance(module, NORMS) and not all(p.requires_grad for p in module.parameters()):
            module.eval()


def wakes_leaves(model):
    for module in model.modules():
        if not list(module.children()):
            module.train(not (isinstance(module, NORMS) and is_frozen(module)))


def without_isinstance(model):
    model.train()
    for module in model.modules():
        if not any(p.requires_grad for p in module.parameters()):
            module.eval()


def linear_sleeps(model):
    by_weight(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.requires_grad:
            module.eval()


def freezes_more(model):
    by_weight(model)
    model.requires_grad_(False)


def by_class_name(model):
    model.train()
    for module in model.modules():
        if "Norm" in type(module).__name__ and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def by_running_mean(model):
    model.train()
    for module in model.modules():
        if hasattr(module, "running_mean") and is_frozen(module):
            module.eval()


# extract_features


def by_comprehension(body, loader):
    body.eval()
    with torch.inference_mode():
        pairs = [(body(x), y) for x, y in loader]
    features, labels = zip(*pairs, strict=True)
    return torch.cat(features).clone(), torch.cat(labels)


def by_growing(body, loader):
    body = body.train(False)
    features = labels = None
    for x, y in loader:
        part = body(x).detach()
        features = part if features is None else torch.cat([features, part])
        labels = y if labels is None else torch.cat([labels, y])
    return features, labels


def without_eval(body, loader):
    with torch.no_grad():
        pairs = [(body(x), y) for x, y in loader]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def with_graph(body, loader):
    body.eval()
    pairs = [(body(x), y) for x, y in loader]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


def goes_twice(body, loader):
    body.eval()
    with torch.no_grad():
        return torch.cat([body(x) for x, _ in loader]), torch.cat([y for _, y in loader])


def last_batch(body, loader):
    body.eval()
    with torch.no_grad():
        for x, y in loader:
            features, labels = body(x), y
    return features, labels


def stacked(body, loader):
    body.eval()
    with torch.no_grad():
        pairs = [(body(x), y) for x, y in loader]
    return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])


def back_to_train(body, loader):
    result = by_growing(body, loader)
    body.train()
    return result


def gradients_off(body, loader):
    torch.set_grad_enabled(False)
    return by_growing(body, loader)


def features_alone(body, loader):
    return by_growing(body, loader)[0]


def detaches_at_the_end(body, loader):
    body.eval()
    pairs = [(body(x), y) for x, y in loader]
    return torch.cat([x for x, _ in pairs]).detach(), torch.cat([y for _, y in pairs])


def grows_with_graph(body, loader):
    body.eval()
    features, labels = torch.tensor([]), torch.tensor([], dtype=torch.int64)
    for x, y in loader:
        features, labels = torch.cat([features, body(x)]), torch.cat([labels, y])
    return features.detach(), labels


def flattens(body, loader):
    features, labels = by_comprehension(body, loader)
    return features.flatten(1), labels


def eval_too_late(body, loader):
    features, labels = [], []
    with torch.no_grad():
        for x, y in loader:
            features.append(body(x))
            labels.append(y)
            body.eval()
    return torch.cat(features), torch.cat(labels)


def freezes_body(body, loader):
    return by_comprehension(body.requires_grad_(False), loader)


@torch.inference_mode()
def in_inference_mode(body, loader):
    body.eval()
    pairs = [(body(x), y) for x, y in loader]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


# mean_and_error


def by_formula(accuracies):
    n = accuracies.shape[0]
    mean = accuracies.sum(0) / n
    return mean, ((accuracies - mean).square().sum(0) / (n - 1) / n).sqrt()


def by_std_mean(accuracies):
    std, mean = torch.std_mean(accuracies, dim=0)
    return mean, std / torch.tensor(len(accuracies)).sqrt()


def over_columns(accuracies):
    return accuracies.mean(1), accuracies.std(1) / accuracies.shape[1] ** 0.5


def deviation_only(accuracies):
    return accuracies.mean(0), accuracies.std(0)


def population(accuracies):
    return accuracies.mean(0), accuracies.std(0, unbiased=False) / len(accuracies) ** 0.5


def by_n(accuracies):
    return accuracies.mean(0), accuracies.std(0) / len(accuracies)


def variance(accuracies):
    return accuracies.mean(0), accuracies.var(0) / len(accuracies) ** 0.5


def of_all_numbers(accuracies):
    return accuracies.mean(), accuracies.std() / accuracies.numel() ** 0.5


def by_population(accuracies):
    n = len(accuracies)
    return accuracies.mean(0), accuracies.std(0, correction=0) / (n - 1) ** 0.5


def root_of_n_minus_1(accuracies):
    return accuracies.mean(0), accuracies.std(0) / (len(accuracies) - 1) ** 0.5


def root_of_ways(accuracies):
    return accuracies.mean(0), accuracies.std(0) / accuracies.shape[1] ** 0.5


def interval(accuracies):
    return accuracies.mean(0), 1.96 * accuracies.std(0) / len(accuracies) ** 0.5


# layer_groups


def from_the_front(model, rate, decay):
    layers = [child for child in model.children() if sum(p.numel() for p in child.parameters())]
    for_each = enumerate(layers, start=1)
    return [{"params": layer.parameters(), "lr": rate * decay ** (len(layers) - i)} for i, layer in for_each]


def by_multiplying(model, rate, decay):
    groups = []
    for child in list(model.children())[::-1]:
        parameters = list(child.parameters())
        if parameters:
            groups.insert(0, {"params": parameters, "lr": rate})
            rate *= decay
    return groups


def growing(model, rate, decay):
    layers = [child for child in model.children() if list(child.parameters())]
    return [{"params": layer.parameters(), "lr": rate * decay**i} for i, layer in enumerate(layers)]


def counts_bare(model, rate, decay):
    layers = list(model.children())[::-1]
    return [{"params": list(m.parameters()), "lr": rate * decay**i} for i, m in enumerate(layers)]


def one_too_many(model, rate, decay):
    groups = by_multiplying(model, rate, decay)
    return [{**group, "lr": group["lr"] * decay} for group in groups]


def every_module(model, rate, decay):
    layers = [module for module in model.modules() if list(module.parameters())]
    return [{"params": list(m.parameters()), "lr": rate * decay**i} for i, m in enumerate(layers[::-1])]


def without_norms(model, rate, decay):
    layers = [m for m in model.children() if list(m.parameters()) and not isinstance(m, nn.BatchNorm2d)]
    return [{"params": list(m.parameters()), "lr": rate * decay**i} for i, m in enumerate(layers[::-1])]


def no_rates(model, rate, decay):
    return [{"params": list(m.parameters())} for m in model.children() if list(m.parameters())]


def an_optimizer(model, rate, decay):
    return torch.optim.SGD(by_multiplying(model, rate, decay), lr=rate)


def head_and_rest(model, rate, decay):
    *rest, head = by_multiplying(model, rate, decay)
    return [*({**group, "lr": rate * decay} for group in rest), head]


def empty_groups(model, rate, decay):
    bare = [child for child in model.children() if not list(child.parameters())]
    return by_multiplying(model, rate, decay) + [{"params": [], "lr": rate} for _ in bare]


def trainable_only(model, rate, decay):
    groups = by_multiplying(model, rate, decay)
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    return [group for group in groups if group["params"]]


def one_for_each_parameter(model, rate, decay):
    groups = by_multiplying(model, rate, decay)
    return [{"params": [p], "lr": group["lr"]} for group in groups for p in group["params"]]


def modules_for_parameters(model, rate, decay):
    layers = [child for child in model.children() if list(child.parameters())][::-1]
    return [{"params": layer, "lr": rate * decay**i} for i, layer in enumerate(layers)]


def thaws_on_the_way(model, rate, decay):
    return by_multiplying(model.requires_grad_(True), rate, decay)


def with_names(model, rate, decay):
    layers = [child for child in model.children() if list(child.parameters())][::-1]
    return [{"params": list(m.named_parameters()), "lr": rate * decay**i} for i, m in enumerate(layers)]


# unfreeze


def full_names(model):
    return [name for name, child in model.named_children() if any(True for _ in child.parameters())]


def by_index(model, epoch, every):
    names = full_names(model)
    first = max(0, len(names) - 1 - epoch // every)
    for i, name in enumerate(names):
        for p in getattr(model, name).parameters():
            p.requires_grad = i >= first
    return names[first:]


def by_reversing(model, epoch, every):
    model.requires_grad_(False)
    names = full_names(model)[::-1][: epoch // every + 1]
    for name in names:
        model.get_submodule(name).requires_grad_()
    return names[::-1]


def one_too_few(model, epoch, every):
    names = full_names(model)
    return thaw(model, names[len(names) - epoch // every :] if epoch >= every else [])


def thaw(model, names):
    model.requires_grad_(False)
    for name in names:
        model.get_submodule(name).requires_grad_()
    return names


def each_epoch(model, epoch, every):
    return thaw(model, full_names(model)[-(1 + epoch) :])


def counts_all_children(model, epoch, every):
    names = [name for name, _ in model.named_children()][-(1 + epoch // every) :]
    return [name for name in thaw(model, names) if list(model.get_submodule(name).parameters())]


def front_first(model, epoch, every):
    return thaw(model, full_names(model)[: 1 + epoch // every])


def never_freezes(model, epoch, every):
    names = full_names(model)[-(1 + epoch // every) :]
    for name in names:
        model.get_submodule(name).requires_grad_()
    return names


def only_the_newest(model, epoch, every):
    names = full_names(model)
    return thaw(model, [names[-min(1 + epoch // every, len(names))]])


def index_error(model, epoch, every):
    names = full_names(model)
    return thaw(model, [names[-1 - i] for i in range(1 + epoch // every)][::-1])


def reversed_order(model, epoch, every):
    return thaw(model, full_names(model)[::-1][: 1 + epoch // every])


def negative_start(model, epoch, every):
    names = full_names(model)
    return thaw(model, names[len(names) - 1 - epoch // every :])


def minus_zero(model, epoch, every):
    return thaw(model, full_names(model)[-(epoch // every) :])


def names_bare_ones(model, epoch, every):
    return thaw(model, [name for name, _ in model.named_children()][-(1 + epoch // every) :])


def names_reversed(model, epoch, every):
    return by_index(model, epoch, every)[::-1]


def no_names(model, epoch, every):
    by_index(model, epoch, every)


def names_frozen(model, epoch, every):
    chosen = by_index(model, epoch, every)
    return [name for name in full_names(model) if name not in chosen]


def zeroes_the_rest(model, epoch, every):
    names = by_index(model, epoch, every)
    for name, p in model.named_parameters():
        if name.split(".")[0] not in names:
            nn.init.zeros_(p)
    return names


def sleeps_too(model, epoch, every):
    return by_index(model.eval(), epoch, every)


def thaws_modules(model, epoch, every):
    names = full_names(model)[-(1 + epoch // every) :]
    for name, child in model.named_children():
        child.requires_grad = name in names
    return names


def names_without_a_dot(model, epoch, every):
    names = full_names(model)[-(1 + epoch // every) :]
    for name, p in model.named_parameters():
        p.requires_grad = name.startswith(tuple(names))
    return names


def names_anywhere(model, epoch, every):
    names = full_names(model)[-(1 + epoch // every) :]
    for name, p in model.named_parameters():
        p.requires_grad = any(chosen in name for chosen in names)
    return names


WRONG = {
    "best_within": [
        (without_limit, "the limit is not looked at"),
        (largest_that_fits, "the largest one that fits"),
        (strictly_smaller, "compare by <="),
        (first_weights, "DEFAULT"),
        (max_of_nothing, "nothing to choose from"),
        (by_parameters, "million parameters"),
        (stops_at_the_first, "the first one that fits"),
        (returns_accuracy, "this is the accuracy"),
        (by_acc5, "expected: acc@1"),
        (rounds_down, "rounded before"),
        (size_of_the_first, "the size that of"),
        (most_operations, "most operations"),
        (estimates_size, "an estimate"),
        (mostly_none, "the value is None, not"),
        (forgets_return, "is there a `return`"),
        (best_of_all_weights, "expected: DEFAULT alone"),
    ],
    "prepare": [
        (unscaled, "divide by 255 first"),
        (along_width, "along the width"),
        (only_scaled, "only divided by 255"),
        (times_std, "multiplied by std"),
        (scaled_only_once, "expected: 255"),
        (own_statistics, "own mean and std"),
        (in_float64, "float64"),
        (one_channel, "of the first"),
        (exchanges_both, "exchanged"),
        (without_parentheses, "in parentheses"),
    ],
    "replace_head": [
        (always_fc, "its forward does not use"),
        (by_path_as_name, "dot and all"),
        (returns_the_layer, "it returns a Linear"),
        (returns_nothing, "is there a `return`"),
        (another_on_top, "has become a Sequential"),
        (first_linear, "first nn.Linear"),
        (on_a_copy, "it returns a copy"),
        (changes_a_number, "the old head is still there"),
        (sequence_of_both, "it returns a Sequential"),
        (last_module, "not always an nn.Linear"),
        (freezes_the_body, "which parameters are frozen"),
        (leaves_eval, "modes have changed"),
        (only_fc, "not always called fc"),
        (fixed_inputs, "512 inputs; expected"),
        (whole_classifier, "is gone"),
        (frozen_like_the_old, "the new head is frozen"),
        (two_parts, "too many values to unpack"),
        (two_levels, "UnboundLocalError"),
        (bias_like_the_old, "only where the old one had"),
    ],
    "load_body": [
        (loads_loosely, "look at what load_state_dict returns"),
        (loads_all, "size mismatch"),
        (ignores_unexpected, "unknown entries"),
        (ignores_missing, "missing entries are passed over"),
        (without_the_dot, "with a dot"),
        (complains_of_the_head, "missing on purpose"),
        (deletes_from_state, "changes its argument `state`"),
        (knows_parameters_only, "not with named_parameters()"),
        (no_buffers, "running_mean, are not loaded"),
        (head_anywhere, "may bear the head's name"),
        (first_part_of_the_path, "the whole path"),
        (assigns, "assign=True"),
        (strictly, "on purpose: strict=False"),
        (raises_runtime_error, "'raises RuntimeError', not 'raises KeyError'"),
        (refuses_other_shapes, "'raises KeyError', not 'loads all but fc.weight, fc.bias'"),
        (asks_the_head_too, "may have other names"),
        (right_above, "may be a Sequential"),
        (two_names, "may be a Sequential"),
    ],
    "count_parameters": [
        (counts_tensors, "this counts tensors"),
        (counts_buffers, "buffers"),
        (exchanged, "(trainable, all)"),
        (counts_frozen, "(trainable, frozen)"),
        (counts_twice, "counted twice"),
        (asks_the_module, "frozen ones are counted"),
        (weights_and_biases, "not every parameter is called weight or bias"),
    ],
    "freeze_body": [
        (by_attribute, "only sets an attribute"),
        (freezes_all, "everything is frozen"),
        (forgets_to_thaw, "stays frozen"),
        (prefix_without_dot, "`fc_norm` also begins"),
        (contains_name, "`old_fc.weight` also contains"),
        (switches_modes, "two things"),
        (returns_frozen, "the frozen names"),
        (returns_no_names, "None"),
        (names_by_hand, "put together by hand"),
        (only_two_names, "its names go on"),
        (attribute_then_method, "only sets an attribute"),
        (by_getattr, "get_submodule(head)"),
        (contains_with_dot, "also contains `fc.`"),
        (returns_parameters, "a list, but not of names"),
        (zeroes, "values are to stay"),
    ],
    "train_mode": [
        (every_norm, "every BatchNorm"),
        (only_train, "alone also wakes"),
        (no_train, "is missing"),
        (all_frozen, "whole frozen blocks"),
        (frozen_leaves, "frozen layers other than BatchNorm"),
        (only_2d, "only BatchNorm2d"),
        (only_children, "direct children"),
        (only_eval, "whole model"),
        (eval_before_train, "alone also wakes"),
        (asks_the_weight, "only the weight is asked"),
        (asks_the_bias, "only the bias is asked"),
        (asks_for_all, "weight or bias is still trained"),
        (wakes_leaves, "what holds other modules"),
        (without_isinstance, "modules without parameters"),
        (linear_sleeps, "only BatchNorm layers sleep"),
        (freezes_more, "which parameters are frozen"),
        (by_class_name, "only BatchNorm layers sleep"),
        (by_running_mean, "only BatchNorm layers sleep"),
    ],
    "extract_features": [
        (without_eval, "call body.eval() first"),
        (with_graph, "hang on a graph"),
        (goes_twice, "gone through twice"),
        (last_batch, "only the last batch"),
        (stacked, "expected: torch.cat"),
        (back_to_train, "training mode afterwards"),
        (gradients_off, "with torch.no_grad()"),
        (features_alone, "it returns a tensor"),
        (detaches_at_the_end, "until the end each batch keeps its graph"),
        (grows_with_graph, "until the end each batch keeps its graph"),
        (flattens, "the features are flattened"),
        (eval_too_late, "before the loop"),
        (freezes_body, "which parameters are frozen"),
        (in_inference_mode, "a tensor of inference_mode"),
    ],
    "mean_and_error": [
        (over_columns, "over the ways"),
        (deviation_only, "standard deviation of single runs"),
        (population, "n - 1"),
        (by_n, "by √n"),
        (variance, "the variance"),
        (of_all_numbers, "one number over all ways"),
        (root_of_n_minus_1, "divided by √(n - 1)"),
        (root_of_ways, "number of ways"),
        (interval, "1.96"),
    ],
    "layer_groups": [
        (growing, "the first layer has the full rate"),
        (counts_bare, "count as a step"),
        (one_too_many, "one power of decay too many"),
        (every_module, "is in two groups"),
        (without_norms, "is in no group"),
        (no_rates, 'no "lr"'),
        (an_optimizer, "it returns a SGD"),
        (head_and_rest, "all layers but the last"),
        (empty_groups, "a group is empty"),
        (trainable_only, "not even when it is unfrozen"),
        (one_for_each_parameter, "the number of groups is 6; expected: 3"),
        (modules_for_parameters, "its parameters()"),
        (thaws_on_the_way, "which parameters are frozen"),
    ],
    "unfreeze": [
        (one_too_few, "one layer too few"),
        (each_epoch, "grows every epoch"),
        (counts_all_children, "layers without parameters count"),
        (front_first, "from the front"),
        (never_freezes, "left as it was; expected: frozen"),
        (only_the_newest, "only the newest"),
        (index_error, "IndexError"),
        (reversed_order, "from the end to the front"),
        (negative_start, "cut at 0"),
        (minus_zero, "names[-0:]"),
        (names_bare_ones, "count and are returned"),
        (names_reversed, "from the end to the front"),
        (no_names, "is there a `return`"),
        (names_frozen, "names of the frozen ones"),
        (zeroes_the_rest, "values are to stay"),
        (sleeps_too, "modes have changed"),
        (thaws_modules, "only sets an attribute"),
        (names_without_a_dot, "ask for the name with a dot"),
        (names_anywhere, "ask how the name begins"),
    ],
}

RIGHT = {
    "best_within": [by_sorting, by_max_of_pairs],
    "prepare": [by_torchvision, channel_by_channel, channels_last, by_pixels],
    "replace_head": [walks_down, by_set_submodule, by_modules_dict],
    "load_body": [compares_names, fills_up, one_by_one],
    "count_parameters": [by_loop, by_dictionary],
    "freeze_body": [by_names, by_ids],
    "train_mode": [by_weight, by_apply, by_private_class],
    "extract_features": [by_comprehension, by_growing],
    "mean_and_error": [by_formula, by_std_mean, by_population],
    "layer_groups": [from_the_front, by_multiplying, with_names],
    "unfreeze": [by_index, by_reversing],
}
