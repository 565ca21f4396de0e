"""Answers to the exercises of chapter 04: wrong ones, with a phrase of their verdict, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import contextlib
import copy
import functools
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.resnet import BasicBlock as TorchvisionBasicBlock
from torchvision.models.resnet import Bottleneck as TorchvisionBottleneck

# Temperature


class WithoutSuper(nn.Module):
    def __init__(self, start):
        self.temperature = nn.Parameter(torch.tensor(start))

    def forward(self, logits):
        return logits / self.temperature


class BareTensor(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.temperature = torch.tensor(start, requires_grad=True)

    def forward(self, logits):
        return logits / self.temperature


class Scaled(nn.Module):
    """A right Temperature; its subclasses change one thing."""

    def __init__(self, start):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(start))

    def forward(self, logits):
        return logits / self.temperature


class Multiplied(Scaled):
    def forward(self, logits):
        return logits * self.temperature


class ByItem(Scaled):
    def forward(self, logits):
        return logits / self.temperature.item()


class ByTheStart(Scaled):
    def __init__(self, start):
        super().__init__(start)
        self.start = start

    def forward(self, logits):
        return logits / self.start


class Frozen(Scaled):
    def __init__(self, start):
        super().__init__(start)
        self.temperature = nn.Parameter(torch.tensor(start), requires_grad=False)


class WithoutReturn(Scaled):
    def forward(self, logits):
        logits / self.temperature


class InPlace(Scaled):
    def forward(self, logits):
        return logits.div_(self.temperature.detach())


class InPlaceOnTheGraph(Scaled):
    def forward(self, logits):
        logits /= self.temperature
        return logits


class OfANumber(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.temperature = nn.Parameter(start)


class OtherName(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.t = nn.Parameter(torch.tensor(start))

    def forward(self, logits):
        return logits / self.t


class OneElement(Scaled):
    def __init__(self, start):
        super().__init__(start)
        self.temperature = nn.Parameter(torch.tensor([start]))


class NoForward(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(start))


class ByRegistering(nn.Module):
    def __init__(self, start=1.0):
        super().__init__()
        self.register_parameter("temperature", nn.Parameter(torch.full((), start)))

    def forward(self, logits):
        return torch.div(logits, self.temperature)


class ByReciprocal(nn.Module):
    def __init__(self, start):
        nn.Module.__init__(self)
        self.temperature = nn.Parameter(torch.ones(()) * start)

    def forward(self, x):
        return x * self.temperature.reciprocal()


# parameter_counts


def counts_by_prefix(model):
    counts = {name: 0 for name, _ in model.named_children()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            counts[name.partition(".")[0]] += parameter.numel()
    return counts


def counts_of_all_parts(model):
    def own(module):
        return sum(p.numel() for p in module.parameters(recurse=False) if p.requires_grad)

    return {name: sum(map(own, child.modules())) for name, child in model.named_children()}


def counts_by_parts(model):
    def own(child):
        tensors = {p for part in child.modules() for p in part.parameters(recurse=False) if p.requires_grad}
        return sum(map(torch.numel, tensors))

    return {name: own(child) for name, child in model.named_children()}


def counts_by_product(model):
    counts = {}
    for name, child in model.named_children():
        counts[name] = 0
        for parameter in child.parameters():
            if parameter.requires_grad:
                counts[name] += math.prod(parameter.shape)
    return counts


# classify


def classify_in_training_mode(model, images):
    with torch.no_grad():
        probabilities = model(images).softmax(dim=1)
    best = probabilities.max(dim=1)
    return best.indices, best.values


def classify_and_leave(model, images):
    model.eval()
    with torch.no_grad():
        best = model(images).softmax(dim=1).max(dim=1)
    return best.indices, best.values


def classify_and_train(model, images):
    result = classify_and_leave(model, images)
    model.train()
    return result


def classify_with_graph(model, images):
    training = model.training
    model.eval()
    best = model(images).softmax(dim=1).max(dim=1)
    model.train(training)
    return best.indices, best.values


def classify_logits(model, images):
    training = model.training
    model.eval()
    with torch.no_grad():
        best = model(images).max(dim=1)
    model.train(training)
    return best.indices, best.values


def classify_squeezed(model, images):
    training = model.training
    model.eval()
    with torch.no_grad():
        probabilities = model(images).softmax(dim=1)
    model.train(training)
    labels = probabilities.argmax(dim=1)
    return labels, probabilities.gather(1, labels[:, None]).squeeze()


def classify_pair(model, images):
    training = model.training
    model.eval()
    with torch.no_grad():
        best = model(images).softmax(dim=1).max(dim=1)
    model.train(training)
    return best


def classify_and_leave_the_parts(model, images):
    training = model.training
    result = classify_and_leave(model, images)
    model.training = training
    return result


def classify_without_a_block(model, images):
    training = model.training
    torch.set_grad_enabled(False)
    best = model.eval()(images).softmax(dim=1).max(dim=1)
    model.train(training)
    return best.indices, best.values


def classify_detached(model, images):
    training = model.training
    best = model.eval()(images).detach().softmax(dim=1).max(dim=1)
    model.train(training)
    return best.indices, best.values


def classify_columns(model, images):
    training = model.training
    with torch.no_grad():
        best = model.eval()(images).softmax(dim=0).max(dim=1)
    model.train(training)
    return best.indices, best.values


def classify_by_forward(model, images):
    training = model.training
    model.eval()
    with torch.no_grad():
        best = model.forward(images).softmax(dim=1).max(dim=1)
    model.train(training)
    return best.indices, best.values


def naive_softmax(logits):
    return torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)


def classify_naively(model, images):
    training = model.training
    model.eval()
    with torch.no_grad():
        best = naive_softmax(model(images)).max(dim=1)
    model.train(training)
    return best.indices, best.values


def classify_half_naively(model, images):
    return classify_with_a_copy(model, images)[0], classify_naively(model, images)[1]


def classify_by_inference_mode(model, images):
    was_training = model.training
    try:
        with torch.inference_mode():
            logits = model.eval()(images)
        chosen = logits.argmax(dim=-1)
        return chosen, F.softmax(logits, dim=-1)[range(len(chosen)), chosen]
    finally:
        model.train(was_training)


def classify_with_a_copy(model, images):
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        log_probabilities = twin(images).log_softmax(1)
    labels = log_probabilities.argmax(1)
    return labels, log_probabilities.gather(1, labels[:, None]).squeeze(1).exp()


# make_mlp


def mlp_relu_everywhere(sizes):
    layers = [nn.Flatten()]
    for i in range(len(sizes) - 1):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers)


def mlp_without_flatten(sizes):
    return nn.Sequential(*list(mlp_relu_everywhere(sizes))[1:-1])


def mlp_without_relu(sizes):
    return nn.Sequential(nn.Flatten(), *[nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])


def mlp_as_a_list(sizes):
    return list(mlp_relu_everywhere(sizes))[:-1]


def mlp_of_a_list(sizes):
    return nn.Sequential(mlp_as_a_list(sizes))


def mlp_softmax(sizes):
    return nn.Sequential(*mlp_as_a_list(sizes), nn.Softmax(dim=1))


def mlp_without_return(sizes):
    nn.Sequential(*mlp_as_a_list(sizes))


def mlp_off_by_one(sizes):
    layers = [nn.Flatten()]
    for i in range(len(sizes) - 2):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU()]
    return nn.Sequential(*layers)


def mlp_by_sizes(sizes):
    layers = [nn.Flatten()]
    for a, b in itertools.pairwise(sizes):
        layers.append(nn.Linear(a, b))
        if b != sizes[-1]:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def mlp_by_index(sizes):
    layers = [nn.Flatten()]
    for a in sizes[:-1]:
        i = sizes.index(a)
        layers += [nn.Linear(a, sizes[i + 1]), *[nn.ReLU()] * (i < len(sizes) - 2)]
    return nn.Sequential(*layers)


def mlp_appended(sizes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(sizes[0], sizes[1]))
    for inputs, outputs in itertools.pairwise(sizes[1:]):
        model.append(nn.ReLU()).append(nn.Linear(inputs, outputs))
    return model


class Mlp(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    def forward(self, x):
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def mlp_cut_off(sizes):
    return mlp_relu_everywhere(sizes)[:-1]


class MlpInAList(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = mlp_as_a_list(sizes)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def mlp_flat_batch(sizes):
    return nn.Sequential(nn.Flatten(0), *mlp_as_a_list(sizes)[1:])


# Ensemble


class InAList(nn.Module):
    def __init__(self, models):
        super().__init__()
        self.models = models

    def forward(self, x):
        return sum(model(x).softmax(dim=1) for model in self.models) / len(self.models)


class InAModuleList(nn.Module):
    """A right Ensemble; its subclasses change one thing."""

    def __init__(self, models):
        super().__init__()
        self.members = nn.ModuleList(models)

    def forward(self, x):
        return sum(model(x).softmax(dim=1) for model in self.members) / len(self.members)


class Copied(InAModuleList):
    def __init__(self, models):
        super().__init__(copy.deepcopy(models))


class SetsTheMode(InAModuleList):
    def forward(self, x):
        return sum(model.eval()(x).softmax(dim=1) for model in self.members) / len(self.members)


class SetsTheModeBack(InAModuleList):
    def forward(self, x):
        self.eval()
        mean = super().forward(x)
        self.train()
        return mean


class SetsOneModeBack(InAModuleList):
    def forward(self, x):
        mode = self.training
        self.eval()
        mean = super().forward(x)
        self.train(mode)
        return mean


class Halved(InAModuleList):
    def forward(self, x):
        return sum(model(x).softmax(dim=1) for model in self.members) / 2


class MeanLogits(InAModuleList):
    def forward(self, x):
        return (sum(model(x) for model in self.members) / len(self.members)).softmax(dim=1)


class Summed(InAModuleList):
    def forward(self, x):
        return sum(model(x).softmax(dim=1) for model in self.members)


class ByForward(InAModuleList):
    def forward(self, x):
        return sum(model.forward(x).softmax(dim=1) for model in self.members) / len(self.members)


class Naive(InAModuleList):
    def forward(self, x):
        return sum(naive_softmax(model(x)) for model in self.members) / len(self.members)


class OverSamples(InAModuleList):
    def forward(self, x):
        return torch.stack([model(x).softmax(dim=0) for model in self.members]).mean(0)


class EarlyReturn(InAModuleList):
    def forward(self, x):
        for model in self.members:
            return model(x).softmax(dim=1)


class ListCalled(InAModuleList):
    def forward(self, x):
        return self.members(x).softmax(dim=1)


class ByAddModule(nn.Module):
    def __init__(self, models):
        super().__init__()
        for i, model in enumerate(models):
            self.add_module(f"member{i}", model)

    def forward(self, x):
        return torch.cat([F.softmax(m(x), 1)[None] for m in self.children()]).mean(dim=0)


class ByNames(nn.Module):
    def __init__(self, models):
        super().__init__()
        self.members = nn.ModuleDict({str(i): model for i, model in enumerate(models)})

    def forward(self, x):
        total = 0
        for model in self.members.values():
            total = total + model(x).softmax(-1)
        return total / len(self.members)


# output_shape


def run_it(conv, shape):
    return tuple(conv(torch.zeros(shape)).shape)


def run_one(conv, shape):
    return (shape[0], *conv(torch.zeros(1, *shape[1:])).shape[1:])


def run_its_like(conv, shape):
    settings = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    return tuple(nn.Conv2d(conv.in_channels, conv.out_channels, *settings)(torch.zeros(shape)).shape)


def run_one_like_it(conv, shape):
    settings = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    like = nn.Conv2d(conv.in_channels, conv.out_channels, *settings)
    return (shape[0], *like(torch.zeros(1, *shape[1:])).shape[1:])


def run_one_by_forward(conv, shape):
    return (shape[0], *conv.forward(torch.zeros(1, *shape[1:])).shape[1:])


def run_one_as_a_function(conv, shape):
    x = torch.zeros(1, *shape[1:])
    out = F.conv2d(
        input=x, weight=conv.weight, stride=conv.stride, padding=conv.padding, dilation=conv.dilation
    )
    return (shape[0], *out.shape[1:])


def run_one_like_it_on_meta(conv, shape):
    settings = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    like = nn.Conv2d(conv.in_channels, conv.out_channels, *settings, device="meta")
    return (shape[0], *like(torch.empty(1, *shape[1:], device="meta")).shape[1:])


def run_it_on_meta(conv, shape):
    return tuple(copy.deepcopy(conv).to("meta")(torch.empty(shape, device="meta")).shape)


def shape_from(height, width, channels=None):
    return lambda conv, shape: (
        shape[0],
        channels(conv) if channels else conv.out_channels,
        height(conv, shape),
        width(conv, shape),
    )


def sizes_by(rule, second=1):
    def shape(conv, shape):
        def size(n, i):
            return rule(n, conv.kernel_size[i], conv.stride[i], conv.padding[i], conv.dilation[i])

        return shape[0], conv.out_channels, size(shape[2], 0), size(shape[3], second)

    return shape


def counted_positions(conv, shape):
    sizes = []
    for i, n in enumerate(shape[2:]):
        reach = conv.dilation[i] * (conv.kernel_size[i] - 1) + 1
        sizes.append(len(range(0, n + 2 * conv.padding[i] - reach + 1, conv.stride[i])))
    return (shape[0], conv.out_channels, *sizes)


# receptive_field


def field_by_walking_back(layers):
    field = 1
    for kernel, stride in reversed(layers):
        field = (field - 1) * stride + kernel
    return field


def field_by_jump(layers):
    field, jump = 1, 1
    for kernel, stride in layers:
        field += (kernel - 1) * jump
        jump *= stride
    return field


def field_jump_too_early(layers):
    field, jump = 1, 1
    for kernel, stride in layers:
        jump *= stride
        field += (kernel - 1) * jump
    return field


def field_without_stride(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def field_of_sums(layers):
    field, jump = 0, 1
    for kernel, stride in layers:
        field += kernel * jump
        jump *= stride
    return field


def field_from_zero(layers):
    return field_by_jump(layers) - 1


def field_by_gradient(layers):
    size = 1 + sum(kernel for kernel, _ in layers) * math.prod(stride for _, stride in layers)
    x = torch.zeros(1, 1, size, requires_grad=True)
    out = x
    for kernel, stride in layers:
        out = F.conv1d(out, torch.ones(1, 1, kernel), stride=stride)
    out[0, 0, 0].backward()
    return int((x.grad != 0).sum())


def field_without_return(layers):
    field_by_jump(layers)
    return


# add_counts


def described_without_the_old_text(model):
    def describe(module):
        count = sum(p.numel() for p in module.parameters(recurse=False))
        if count:
            module.extra_repr = lambda: f"{count} parameters"

    model.apply(describe)


def described_recursively(model):
    for module in model.modules():
        count = sum(p.numel() for p in module.parameters(recurse=False))
        if count:
            module.extra_repr = functools.partial(
                lambda m, n: f"{m.extra_repr()}, {n} parameters", module, count
            )


def described_too_late(model):
    for module in model.modules():
        if list(module.parameters(recurse=False)):
            module.extra_repr = lambda: ", ".join(
                filter(
                    None,
                    [
                        type(module).extra_repr(module),  # noqa: B023 - the mistake that is shown
                        f"{sum(p.numel() for p in module.parameters(recurse=False))} parameters",  # noqa: B023
                    ],
                )
            )


def described_by_a_late_lambda(model):
    for module in model.modules():
        count = sum(p.numel() for p in module.parameters(recurse=False))
        if count:
            before = module.extra_repr()
            module.extra_repr = lambda: f"{before}, {count} parameters"  # noqa: B023


def described_by_a_late_function(model):
    for module in model.modules():
        before, count = module.extra_repr(), sum(p.numel() for p in module.parameters(recurse=False))

        def described():
            return ", ".join(text for text in (before, f"{count} parameters") if text)  # noqa: B023

        if count:
            module.extra_repr = described


def described_in_total(model):
    for module in model.modules():
        if list(module.parameters(recurse=False)):
            module.extra_repr = lambda: f"{sum(p.numel() for p in model.parameters())} parameters"


def described_with_children(model):
    for module in model.modules():
        text, count = module.extra_repr(), sum(p.numel() for p in module.parameters())
        if count:
            module.extra_repr = functools.partial(
                str, f"{text}, {count} parameters" if text else f"{count} parameters"
            )


def described_everywhere(model):
    for module in model.modules():
        text, count = module.extra_repr(), sum(p.numel() for p in module.parameters(recurse=False))
        module.extra_repr = functools.partial(
            str, f"{text}, {count} parameters" if text else f"{count} parameters"
        )


def described_as_text(model):
    for module in model.modules():
        module.extra_repr = (
            f"{module.extra_repr()}, {sum(p.numel() for p in module.parameters(recurse=False))}"
        )


def described_with_a_comma(model):
    def describe(module):
        text, count = module.extra_repr(), sum(p.numel() for p in module.parameters(recurse=False))
        if count:
            module.extra_repr = lambda: f"{text}, {count} parameters"

    model.apply(describe)


def described_by_closure(model):
    def describe(module):
        before, count = module.extra_repr, sum(p.numel() for p in module.parameters(recurse=False))
        if count:
            module.extra_repr = lambda: ", ".join(t for t in [before(), f"{count} parameters"] if t)

    model.apply(describe)


def described_by_default_argument(model):
    for m in model.modules():
        n = sum(math.prod(p.shape) for p in m._parameters.values() if p is not None)
        if n > 0:
            m.extra_repr = lambda old=m.extra_repr, n=n: (old() + f", {n} parameters").removeprefix(", ")


def described_by(text):
    def add(model):
        for m in model.modules():
            n = sum(p.numel() for p in m.parameters(recurse=False))
            if n:
                m.extra_repr = functools.partial(str, text(m, n).removeprefix(", "))

    return add


def described_if_trained(model):
    for m in model.modules():
        n = sum(p.numel() for p in m.parameters(recurse=False) if p.requires_grad)
        if n:
            m.extra_repr = functools.partial(str, f"{m.extra_repr()}, {n} parameters".removeprefix(", "))


def described_without_parts(model):
    for m in model.modules():
        n = sum(p.numel() for p in m.parameters())
        if n and not list(m.children()):
            m.extra_repr = functools.partial(str, f"{m.extra_repr()}, {n} parameters".removeprefix(", "))


def described_by_class(model):
    for m in model.modules():
        if list(m.parameters(recurse=False)):
            type(m).extra_repr = lambda self: f"{sum(p.numel() for p in self.parameters())} parameters"


def described_by_the_class_repr(model):
    for m in model.modules():
        n = sum(p.numel() for p in m.parameters(recurse=False))
        if n:
            before = repr(m).removesuffix(")")
            type(m).__repr__ = lambda self, before=before, n=n: f"{before}, {n} parameters)"


# capture


def capture_by(keep, remove=True):
    def capture(model, images, names):
        maps, handles = {}, []
        for name in names:

            def hook(module, args, output, name=name):
                maps[name] = keep(output)

            handles.append(model.get_submodule(name).register_forward_hook(hook))
        model(images)
        for handle in handles if remove else []:
            handle.remove()
        return maps

    return capture


def capture_late(model, images, names):
    maps = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            module = model.get_submodule(name)
            stack.enter_context(
                module.register_forward_hook(
                    lambda module, args, output: maps.update({name: output.detach().clone()})  # noqa: B023
                )
            )
        model(images)
    return maps


def capture_inputs(model, images, names):
    maps = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(
                model.get_submodule(name).register_forward_hook(
                    lambda module, args, output, name=name: maps.update({name: args[0].detach().clone()})
                )
            )
        model(images)
    return maps


def capture_by_attribute(model, images, names):
    return {name: getattr(model, name)(images) for name in names}


def capture_and(do):
    def capture(model, images, names):
        maps = capture_with_stack(model, images, names)
        do(model)
        return maps

    return capture


def clear_all(model):
    for module in model.modules():
        module._forward_hooks.clear()


def capture_by_forward(model, images, names):
    maps, handles = {}, []
    try:
        for name in names:
            hook = functools.partial(lambda n, m, a, output: maps.update({n: output.detach().clone()}), name)
            handles.append(model.get_submodule(name).register_forward_hook(hook))
        model.forward(images)
    finally:
        for handle in handles:
            handle.remove()
    return maps


def capture_and_replace(model, images, names):
    maps = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            hook = functools.partial(
                lambda n, m, a, output: maps.setdefault(n, output.detach().clone()), name
            )
            stack.enter_context(model.get_submodule(name).register_forward_hook(hook))
        model(images)
    return maps


def capture_in_eval_mode(model, images, names):
    model.eval()
    try:
        return capture_with_stack(model, images, names)
    finally:
        model.train()


def capture_switching_off(model, images, names):
    torch.set_grad_enabled(False)
    return capture_with_stack(model, images, names)


def capture_with_a_late_try(model, images, names):
    maps, handles = {}, []
    for name in names:
        hook = functools.partial(lambda n, m, a, output: maps.update({n: output.detach().clone()}), name)
        handles.append(model.get_submodule(name).register_forward_hook(hook))
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    return maps


def capture_with_stack(model, images, names):
    maps = {}

    def hook(name, module, args, output):
        maps[name] = output.clone().detach()

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(
                model.get_submodule(name).register_forward_hook(functools.partial(hook, name))
            )
        model(images)
    return maps


def capture_with_stack_detached(model, images, names):
    maps = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            hook = functools.partial(lambda n, m, a, output: maps.update({n: output.detach()}), name)
            stack.enter_context(model.get_submodule(name).register_forward_hook(hook))
        model(images)
    return maps


def capture_without_grad(model, images, names):
    maps, handles, modules = {}, [], dict(model.named_modules())
    try:
        for name in names:
            handles.append(
                modules[name].register_forward_hook(
                    lambda m, a, out, key=name: maps.__setitem__(key, out.clone())
                )
            )
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return maps


# silence


def silence_in_place(module, channel):
    def hook(module, args, output):
        output[:, channel] = 0
        return output

    return module.register_forward_hook(hook)


def silence_a_copy(module, channel):
    def hook(module, args, output):
        output = output.clone()
        output[:, channel] = 0

    return module.register_forward_hook(hook)


def silence_a_picture(module, channel):
    def hook(module, args, output):
        output = output.clone()
        output[channel] = 0
        return output

    return module.register_forward_hook(hook)


def silence_without_handle(module, channel):
    silence_by_mask(module, channel)


def silence_the_input(module, channel):
    def hook(module, args):
        x = args[0].clone()
        x[:, channel] = 0
        return x

    return module.register_forward_pre_hook(hook)


def silence_by_mask(module, channel):
    def hook(module, args, output):
        mask = torch.ones(output.shape[1])
        mask[channel] = 0
        return output * mask[:, None, None]

    return module.register_forward_hook(hook)


def silence_by_multiplying(module, channel):
    def hook(module, args, output):
        output = output.clone()
        output[:, channel] *= 0
        return output

    return module.register_forward_hook(hook)


def silence_by_where(module, channel):
    def hook(module, args, output):
        chosen = torch.arange(output.shape[1]) == channel
        return torch.where(chosen[:, None, None], 0.0, output)

    return module.register_forward_hook(hook)


def silence_by_copy(module, channel):
    def hook(module, args, output):
        output = output.clone()
        output[:, channel] = 0
        return output

    return module.register_forward_hook(hook)


def silence_detached(module, channel):
    def hook(module, args, output):
        output = output.detach().clone()
        output[:, channel] = 0
        return output

    return module.register_forward_hook(hook)


def silence_by_data(module, channel):
    def hook(module, args, output):
        output = output.clone()
        output.data[:, channel] = 0
        return output

    return module.register_forward_hook(hook)


def silence_detaching_the_others(module, channel):
    def hook(module, args, output):
        result = output.detach().clone()
        result[:, channel] = 0 * output[:, channel].nan_to_num(0, 0, 0)
        return result

    return module.register_forward_hook(hook)


def silence_under_no_grad(module, channel):
    def hook(module, args, output):
        with torch.no_grad():
            output = output.clone()
            output[:, channel] = 0
        return output

    return module.register_forward_hook(hook)


def silence_in_a_with(module, channel):
    with silence_by_copy(module, channel) as handle:
        return handle


def silence_the_weights(module, channel):
    with torch.no_grad():
        module.weight[channel] = 0
        module.bias[channel] = 0
    return module.register_forward_hook(lambda module, args, output: None)


# mismatches


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def mismatches_by_loop(model, reference):
    a, b, names = model.state_dict(), reference.state_dict(), []
    for name in {*a, *b}:
        if name not in a or name not in b or a[name].shape != b[name].shape:
            names.append(name)
    return sorted(names)


def mismatches_of_registered(model, reference):
    a, b = (
        {name: tensor.shape for name, tensor in [*m.named_parameters(), *m.named_buffers()]}
        for m in (model, reference)
    )
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


def mismatches_of_items(model, reference):
    return sorted({name for name, _ in shapes(model).items() ^ shapes(reference).items()})


# Bottleneck


def conv1x1(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 1, stride, bias=False)


class RightBottleneck(TorchvisionBottleneck):
    """torchvision's own, which is given its downsample."""

    def __init__(self, in_channels, channels, stride=1):
        downsample = None
        if stride > 1 or in_channels != 4 * channels:
            downsample = nn.Sequential(
                conv1x1(in_channels, 4 * channels, stride), nn.BatchNorm2d(4 * channels)
            )
        super().__init__(in_channels, channels, stride, downsample)


class AnotherBottleneck(nn.Module):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__()
        self.downsample = None
        if (in_channels, 1) != (4 * channels, stride):
            self.downsample = nn.Sequential(
                conv1x1(in_channels, 4 * channels, stride), nn.BatchNorm2d(4 * channels)
            )
        sizes = [
            (in_channels, channels, 1, 1),
            (channels, channels, 3, stride),
            (channels, 4 * channels, 1, 1),
        ]
        for i, (inputs, outputs, kernel, step) in enumerate(sizes, start=1):
            conv = nn.Conv2d(inputs, outputs, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = x
        for i in (1, 2, 3):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = out.relu() if i < 3 else out
        return (out + (self.downsample(x) if self.downsample else x)).relu()


class WithARelu(AnotherBottleneck):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        self.relu = nn.ReLU()


class CalledAct(RightBottleneck):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        self.act = self.relu
        del self.relu

    def forward(self, x):
        shortcut = self.downsample(x) if self.downsample else x
        out = self.act(self.bn1(self.conv1(x)))
        out = self.act(self.bn2(self.conv2(out)))
        return self.act(self.bn3(self.conv3(out)) + shortcut)


class WithoutADefault(RightBottleneck):
    def __init__(self, in_channels, channels, stride):
        super().__init__(in_channels, channels, stride)


class StrideTwoByDefault(RightBottleneck):
    def __init__(self, in_channels, channels, stride=2):
        super().__init__(in_channels, channels, stride)


class WithTheOldCondition(RightBottleneck):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        if stride != 1 or in_channels != channels:
            out = 4 * channels
            self.downsample = nn.Sequential(conv1x1(in_channels, out, stride), nn.BatchNorm2d(out))


class StridedFirst(RightBottleneck):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        self.conv1.stride, self.conv2.stride = self.conv2.stride, self.conv1.stride


class LikeBasicBlock(TorchvisionBasicBlock):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)


class WithBias(RightBottleneck):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1)


class WithoutShortcut(RightBottleneck):
    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.relu(self.bn3(self.conv3(out)))


class ReluTooEarly(RightBottleneck):
    def forward(self, x):
        shortcut = self.downsample(x) if self.downsample else x
        return WithoutShortcut.forward(self, x) + shortcut


class WithoutSecondRelu(RightBottleneck):
    def forward(self, x):
        shortcut = self.downsample(x) if self.downsample else x
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(self.bn3(self.conv3(out)) + shortcut)


class ReluTwice(ReluTooEarly):
    def forward(self, x):
        return super().forward(x).relu()


class ShortcutForgottenInInit(RightBottleneck):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        self.downsample = None


class OtherDownsample(RightBottleneck):
    def __init__(self, in_channels, channels, stride=1):
        super().__init__(in_channels, channels, stride)
        if self.downsample:
            self.downsample = self.downsample[0]


# model_bytes


def bytes_of(model):
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])


def bytes_on_meta(count):
    def model_bytes(build):
        with torch.device("meta"):
            return count(build())

    return model_bytes


def bytes_by_nbytes(build):
    with torch.device("meta"):
        model = build()
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))


def bytes_by_default_device(build):
    torch.set_default_device("meta")
    try:
        model = build()
    finally:
        torch.set_default_device(None)
    return bytes_of(model)


WRONG = {
    "Temperature": [
        (WithoutSuper, "cannot assign parameters before Module.__init__() call"),
        (BareTensor, "neither a number nor a bare tensor"),
        (Multiplied, "it multiplies"),
        (ByItem, "does not depend on the parameter"),
        (WithoutReturn, "is there a `return`"),
        (InPlace, "changes its argument `logits` in place"),
        (InPlaceOnTheGraph, "why       it changes its argument `logits` in place"),
        (OfANumber, "nn.Parameter takes a tensor"),
        (OtherName, "called temperature"),
        (OneElement, "shape (1,); expected: shape ()"),
        (NoForward, "missing the required"),
        (Scaled(2.0), "error"),
        (ByTheStart, "divide by self.temperature itself"),
        (Frozen, "requires_grad=False freezes the parameter"),
    ],
    "parameter_counts": [
        (lambda model: {n: len(list(c.parameters())) for n, c in model.named_children()}, "counts tensors"),
        (
            lambda model: {n: sum(p.numel() for p in c.parameters()) for n, c in model.named_children()},
            "frozen",
        ),
        (
            lambda model: {n: p.numel() for n, p in model.named_parameters()},
            "names are those of the parameters",
        ),
        (
            lambda model: sum(p.numel() for p in model.parameters() if p.requires_grad),
            "one number for the whole model",
        ),
        (lambda model: {n: c.weight.numel() for n, c in model.named_children()}, "no attribute 'weight'"),
        (
            lambda model: {
                n: sum(t.numel() for t in c.state_dict().values()) for n, c in model.named_children()
            },
            "buffers are counted",
        ),
        (counts_by_prefix, "counts for both"),
        (counts_of_all_parts, "the child's parameters() lists it once"),
    ],
    "classify": [
        (classify_in_training_mode, "the model ran in training mode"),
        (classify_and_leave, "stays in evaluation mode"),
        (classify_and_train, "remember model.training first"),
        (classify_with_graph, "hangs on the graph"),
        (classify_logits, "these are logits"),
        (classify_pair, "labels and probabilities are exchanged"),
        (classify_and_leave_the_parts, "its parts are not"),
        (classify_without_a_block, "ends with its block"),
        (classify_detached, "drops only afterwards"),
        (classify_by_forward, "goes past its hooks"),
        (classify_naively, "infinite / infinite is nan"),
        (classify_half_naively, "infinite / infinite is nan"),
        (classify_columns, "each column adds up to 1"),
        (lambda model, images: model(images).argmax(1), "a tensor, not a tuple"),
        (classify_squeezed, "write squeeze(1)"),
    ],
    "make_mlp": [
        (mlp_relu_everywhere, "a ReLU follows the last layer"),
        (mlp_without_flatten, "is nn.Flatten() first?"),
        (mlp_flat_batch, "one row of the whole batch"),
        (MlpInAList, "no parameters are registered"),
        (mlp_without_relu, "no ReLU between"),
        (mlp_as_a_list, "of type list, not a module"),
        (mlp_of_a_list, "list is not a Module subclass"),
        (mlp_softmax, "softmax at the end"),
        (mlp_without_return, "is there a `return`"),
        (mlp_off_by_one, "parameter shapes"),
        (mlp_by_sizes, "tell the last layer by its place"),
        (mlp_by_index, "finds the first of equal sizes"),
    ],
    "Ensemble": [
        (InAList, "a Python list or tuple hides the models"),
        (Copied, "are copies"),
        (SetsTheMode, "changes the mode"),
        (SetsTheModeBack, "changes the mode"),
        (SetsOneModeBack, "changes the mode"),
        (Halved, "divided by 2"),
        (MeanLogits, "the softmax of the mean logits"),
        (Summed, "the sum of the probabilities"),
        (ByForward, "goes past its hooks"),
        (Naive, "infinite / infinite is nan"),
        (OverSamples, "softmax ran over the samples"),
        (EarlyReturn, "only the first model is heard"),
        (ListCalled, 'missing the required "forward"'),
    ],
    "output_shape": [
        (run_it, "this runs the convolution: compute the shape from the formula"),
        (run_one, "this runs the convolution: compute the shape from the formula"),
        (run_its_like, "this runs the convolution: compute the shape from the formula"),
        (run_one_like_it, "this runs the convolution"),
        (run_one_by_forward, "this runs the convolution"),
        (run_one_as_a_function, "this runs the convolution"),
        (lambda conv, shape: conv(torch.zeros(shape)).shape, "this runs the convolution"),
        (sizes_by(lambda n, k, s, p, d: (n + p - d * (k - 1) - 1) // s + 1), "both sides"),
        (sizes_by(lambda n, k, s, p, d: (n + 2 * p - k) // s + 1), "dilation is ignored"),
        (sizes_by(lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) // s), "+ 1 at the end"),
        (sizes_by(lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) / s + 1), "gives a float"),
        (sizes_by(lambda n, k, s, p, d: round((n + 2 * p - d * (k - 1) - 1) / s) + 1), "not to the nearest"),
        (sizes_by(lambda n, k, s, p, d: (n + 2 * p - d * (k - 1) - 1) // s + 1, second=0), "entry 0"),
        (lambda conv, shape: (shape[0], conv.out_channels, *shape[2:]), "value 3 of 4"),
        (lambda conv, shape: counted_positions(conv, shape)[1:], "batch dimension is missing"),
        (lambda conv, shape: (conv.out_channels, *counted_positions(conv, shape)[1:]), "value 1 of 4"),
    ],
    "receptive_field": [
        (field_without_stride, "strides are ignored"),
        (field_jump_too_early, "own stride does not widen"),
        (field_of_sums, "adds up the kernel sizes"),
        (field_from_zero, "begin with 1"),
        (field_by_gradient, "gaps included"),
        (field_without_return, "is there a `return`"),
        (lambda layers: field_by_jump(layers[::-1]), "read from the end"),
        (lambda layers: max((kernel for kernel, _ in layers), default=1), "the value is 5, not 7"),
    ],
    "add_counts": [
        (described_without_the_old_text, "what the modules said before is lost"),
        (described_recursively, "RecursionError: the new extra_repr calls itself"),
        (described_too_late, "every layer shows the last layer's text"),
        (described_by_a_late_lambda, "every layer shows the last layer's text"),
        (described_by_a_late_function, "every layer shows the last layer's text"),
        (described_in_total, "value 2 of 5"),
        (described_with_children, "count its own parameters only"),
        (described_everywhere, "must stay as they were"),
        (described_by(lambda m, n: f"{type(m).extra_repr(m)}, {n} parameters"), "not its class's"),
        (described_by(lambda m, n: f"{m.extra_repr()}, {n:,} parameters"), "digits only"),
        (described_if_trained, "frozen parameters are left out"),
        (described_by_class, "you changed the class Linear"),
        (described_by_the_class_repr, "you changed the class Linear"),
        (described_as_text, "'str' object is not callable"),
        (described_with_a_comma, "begins with a comma"),
        (described_without_parts, "may hold parameters itself"),
    ],
    "capture": [
        (capture_by(lambda output: output.detach().clone(), remove=False), "the hooks are still there"),
        (capture_by(lambda output: output.detach().clone()), "stay when the model raises"),
        (capture_by(lambda output: output), "hang on the graph"),
        (capture_by(lambda output: output.detach()), "stay when the model raises"),
        (capture_with_stack_detached, "works in place"),
        (capture_and(clear_all), "remove only your own"),
        (capture_and(lambda model: model.eval()), "left in another mode"),
        (capture_by_forward, "not model.forward(images)"),
        (capture_and_replace, "replaced the module's output"),
        (capture_with_a_late_try, "register inside the `try`"),
        (capture_late, "the hook looks up `name` only when it runs"),
        (capture_inputs, "these are the inputs"),
        (capture_by_attribute, "hang on the graph"),
        (capture_in_eval_mode, "left in another mode"),
        (capture_switching_off, "gradients stay off for all that follows"),
    ],
    "silence": [
        (silence_in_place, "write into output.clone()"),
        (silence_under_no_grad, "no_grad cut it off"),
        (silence_in_a_with, "leave out `with`"),
        (silence_a_copy, "it returned nothing"),
        (silence_a_picture, "a whole picture is zero"),
        (silence_without_handle, "expected: the handle"),
        (silence_the_input, "not a pre-hook"),
        (silence_detached, "off the graph"),
        (silence_by_data, "the values are right, the gradients are not"),
        (silence_detaching_the_others, "the values are right, the gradients are not"),
        (silence_the_weights, "error"),
        (silence_by_mask, "0 times infinity is nan"),
        (silence_by_multiplying, "0 times infinity is nan"),
    ],
    "mismatches": [
        (
            lambda m, r: sorted(
                n for n in shapes(m).keys() & shapes(r).keys() if shapes(m)[n] != shapes(r)[n]
            ),
            "a name that one of them lacks",
        ),
        (lambda m, r: sorted(set(shapes(m)) ^ set(shapes(r))), "shapes are not compared"),
        (lambda m, r: sorted(n for n in shapes(m) if shapes(m)[n] != shapes(r)[n]), "error     KeyError"),
        (
            lambda m, r: sorted(n for n, s in shapes(m).items() if shapes(r).get(n) != s),
            "only `reference` has",
        ),
        (lambda m, r: {n for n, _ in shapes(m).items() ^ shapes(r).items()}, "it returns a set, not a list"),
        (
            lambda m, r: sorted({n for n, _ in m.named_parameters()} ^ {n for n, _ in r.named_parameters()}),
            "shapes are not compared",
        ),
        (mismatches_of_registered, "compare the state_dicts"),
    ],
    "Bottleneck": [
        (StridedFirst, "expected: in the 3 × 3 one"),
        (LikeBasicBlock, "conv3.weight"),
        (WithBias, "conv1.bias"),
        (WithoutShortcut, "the shortcut is not added"),
        (WithoutSecondRelu, "after bn2 is missing"),
        (ReluTwice, "one too many"),
        (ReluTooEarly, "stands before the addition"),
        (ShortcutForgottenInInit, "downsample.0.weight"),
        (OtherDownsample, "downsample.weight"),
        (WithTheOldCondition, "in_channels != 4 * channels"),
        (CalledAct, "a module called relu"),
        (WithoutADefault, "missing 1 required positional argument: 'stride'"),
        (StrideTwoByDefault, "downsample"),
        (AnotherBottleneck, "a module called relu"),
    ],
    "model_bytes": [
        (bytes_of, "error"),
        (lambda build: bytes_of(build()), "check 5 of 5"),
        (lambda build: bytes_of(build().to("meta")), "made in real memory first"),
        (bytes_on_meta(lambda m: sum(p.numel() for p in m.parameters())), "that is the number of parameters"),
        (bytes_on_meta(lambda m: 4 * sum(p.numel() for p in m.parameters())), "not every number has 4 bytes"),
        (bytes_on_meta(lambda m: sum(p.nbytes for p in m.parameters())), "buffers are left out"),
        (
            bytes_on_meta(lambda m: sum(t.element_size() for t in m.state_dict().values())),
            "is the size of one number",
        ),
        (
            bytes_on_meta(lambda m: sum(t.numel() for t in m.state_dict().values())),
            "these are numbers, not bytes",
        ),
        (bytes_on_meta(lambda m: 4 * sum(t.numel() for t in m.state_dict().values())), "use element_size()"),
        (bytes_on_meta(lambda m: sum(t.nbytes for t in m.state_dict().values())), "two modules share"),
    ],
}

RIGHT = {
    "Temperature": [ByRegistering, ByReciprocal, Scaled],
    "parameter_counts": [counts_by_parts, counts_by_product],
    "classify": [classify_by_inference_mode, classify_with_a_copy],
    "make_mlp": [mlp_appended, Mlp, mlp_cut_off],
    "Ensemble": [ByAddModule, ByNames, InAModuleList],
    "output_shape": [
        run_it_on_meta,
        run_one_like_it_on_meta,
        counted_positions,
        sizes_by(lambda n, k, s, p, d: math.floor((n + 2 * p - d * (k - 1) - 1) / s + 1)),
    ],
    "receptive_field": [field_by_walking_back, field_by_jump],
    "add_counts": [described_by_closure, described_by_default_argument],
    "capture": [capture_with_stack, capture_without_grad],
    "silence": [silence_by_where, silence_by_copy],
    "mismatches": [mismatches_by_loop, mismatches_of_items],
    "Bottleneck": [RightBottleneck, WithARelu],
    "model_bytes": [bytes_on_meta(bytes_of), bytes_by_nbytes, bytes_by_default_device],
}
