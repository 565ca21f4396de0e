"""Answers to the exercises of chapter 01: wrong ones, each with a phrase of its verdict, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import copy

import numpy as np
import torch
import torch.nn.functional as F


def invert_by_loop(image):
    result = torch.zeros_like(image)
    for i in range(image.shape[0]):
        for j in range(image.shape[1]):
            result[i, j] = 16 - image[i, j]
    return result


def zero_rows_in_place(images):
    images[:, [0, -1]] = 0
    images[:, :, [0, -1]] = 0
    return images


def zero_only_rows(images):
    images = images.clone()
    images[:, 0] = images[:, -1] = 0
    return images


def zero_pictures(images):
    images = images.clone()
    images[0] = images[-1] = 0
    return images


def forget_the_batch(images):
    images = images.clone()
    images[0] = images[-1] = 0
    images[:, 0] = images[:, -1] = 0
    return images


def inside_only(images):
    return images[:, 1:-1, 1:-1]


def zero_top_left(images):
    images = images.clone()
    images[:, 0] = 0
    images[:, :, 0] = 0
    return images


def copy_the_inside(images):
    result = torch.zeros_like(images)
    result[:, 1:-1, 1:-1] = images[:, 1:-1, 1:-1]
    return result


def copy_the_inside_as_uint8(images):
    result = torch.zeros(images.shape, dtype=torch.uint8)
    result[:, 1:-1, 1:-1] = images[:, 1:-1, 1:-1]
    return result


def pad_the_inside(images):
    return F.pad(images[:, 1:-1, 1:-1], (1, 1, 1, 1))


def mask_the_border(images):
    inside = torch.zeros(images.shape[1:], dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    return images * inside


def joined_by_loop(images):
    rows = []
    for r in range(images.shape[1]):
        rows.append(torch.cat([image[r] for image in images]))
    return torch.stack(rows)


def areas_by_loop(id_map, ids):
    return torch.tensor([int((id_map == number).sum()) for number in ids])


def distances_by_loop(a, b):
    return torch.stack([torch.stack([((x - y) ** 2).sum() for y in b]) for x in a])


def expanded_square(a, b):
    return a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T


def softmax_without_maximum(x, dim):
    return x.exp() / x.exp().sum(dim, keepdim=True)


def softmax_global_maximum_last_dim(x, dim):
    e = (x - x.max()).exp()
    return e / e.sum(-1, keepdim=True)


def softmax_global_maximum(x, dim):
    e = (x - x.max()).exp()
    return e / e.sum(dim, keepdim=True)


def softmax_in_float32(x, dim):
    return softmax_by_maximum_with_indices(x.float(), dim)


def softmax_clamped_maximum(x, dim):
    e = (x - x.amax(dim, keepdim=True).clamp(min=0)).exp()
    return e / e.sum(dim, keepdim=True)


def softmax_without_keepdim(x, dim):
    e = (x - x.amax(dim, keepdim=True)).exp()
    return e / e.sum(dim)


def softmax_by_maximum_with_indices(x, dim):
    e = torch.exp(x - x.max(dim, keepdim=True)[0])
    return e.div(e.sum(dim=dim, keepdim=True))


def accuracy_by_loop(logits, labels):
    right = 0
    for row, label in zip(logits, labels, strict=True):
        right += int(row.argmax()) == int(label)
    return torch.tensor(right / len(labels))


def cross_entropy_by_loop(logits, targets):
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        total = total - row.log_softmax(0)[target]
    return total / len(targets)


def one_hot_cross_entropy(logits, targets):
    return -(logits.log_softmax(1) * F.one_hot(targets, logits.shape[1])).sum() / len(logits)


def class_means(x, y):
    return torch.stack([x[y == c].mean(0) for c in range(int(y.max()) + 1)])


def means_of_ten_classes(x, y, t):
    means = torch.stack([x[y == c].mean(0) for c in range(10)])
    return (t[:, None] - means).square().sum((2, 3)).argmin(1)


def means_from_zeros(x, y, t):
    means = torch.zeros(10, *x.shape[1:])
    for c in y.unique():
        means[c] = x[y == c].mean(0)
    return (t[:, None] - means).square().sum((2, 3)).argmin(1)


def means_without_dim(x, y, t):
    means = torch.stack([x[y == c].mean() for c in range(int(y.max()) + 1)])
    return (t.flatten(1)[:, None] - means[:, None]).square().sum(2).argmin(1)


def class_distances(x, y, t):
    return (t[:, None] - class_means(x, y)).square().sum((2, 3))


def nearest_by_loop(x, y, t):
    means = class_means(x, y)
    return torch.tensor(
        [min(range(len(means)), key=lambda c: (image - means[c]).square().sum()) for image in t]
    )


def nearest_by_one_hot(x, y, t):
    members = F.one_hot(y).float()
    means = members.T @ x.flatten(1) / members.sum(0)[:, None]
    return torch.cdist(t.flatten(1), means).argmin(1)


WRONG = {
    "invert": [
        (lambda image: -image, "wraps around"),
        (lambda image: image - 16, "write 16 - image"),
        (lambda image: 255 - image, "not to 255"),
        (lambda image: 1 - image, "not from 0 to 1"),
        (lambda image: image.max() - image, "need not be 16"),
        (lambda image: 16 - image.float(), "dtype is torch.float32, not torch.uint8"),
        (lambda image: image.flip(0), "values are off"),
        (invert_by_loop, "16 - image needs no loop"),
    ],
    "to_unit": [
        (lambda images: images / images.max(), "pale pictures darker"),
        (lambda images: images / 255, "full ink is 16"),
        (lambda images: images // 16, "dtype is torch.uint8, not torch.float32"),
        (lambda images: (images // 16).float(), "throws the fraction away"),
        (lambda images: images.double() / 16, "dtype is torch.float64"),
        (lambda images: images.div_(16), "error     RuntimeError"),
    ],
    "blank_border": [
        (forget_the_batch, "the batch dimension is forgotten"),
        (zero_rows_in_place, "changes its argument `images` in place"),
        (zero_only_rows, "columns are not"),
        (zero_pictures, "whole pictures are blank"),
        (inside_only, "its shape is"),
        (zero_top_left, "only the top and the left"),
        (lambda images: images - copy_the_inside(images), "the other way round"),
        (lambda images: copy_the_inside(images).float(), "dtype is torch.float32"),
        (copy_the_inside_as_uint8, "dtype is torch.uint8, not torch.float32"),
    ],
    "share_and_copy": [
        (lambda array: (torch.tensor(array), torch.tensor(array)), "neither shares"),
        (lambda array: (torch.from_numpy(array), torch.from_numpy(array)), "both share"),
        (lambda array: (torch.tensor(array), torch.from_numpy(array)), "wrong order"),
        (lambda array: torch.from_numpy(array), "it returns a tensor, not a tuple"),
        (lambda array: (torch.from_numpy(array).float(), torch.tensor(array).float()), "dtype"),
        (lambda array: (array, array.copy()), "NumPy array, not a tensor"),
        (lambda array: (torch.as_tensor(array), torch.from_numpy(array).view(array.shape)), "both share"),
    ],
    "side_by_side": [
        (lambda images: images.reshape(images.shape[1], -1), "scrambled"),
        (lambda images: images.reshape(-1, images.shape[2]), "below each other"),
        (lambda images: images.permute(1, 2, 0).reshape(images.shape[1], -1), "interleaved"),
        (lambda images: images.permute(2, 0, 1).reshape(images.shape[2], -1), "exchanged"),
        (lambda images: images.permute(1, 0, 2), "now merge the last two dimensions"),
        (
            lambda images: images.permute(1, 0, 2).view(images.shape[1], -1),
            "reshape copies where it must",
        ),
        (lambda images: torch.cat(list(images)), "below each other"),
        (lambda images: torch.cat(images, dim=1), "cat takes a list of tensors"),
    ],
    "to_nchw": [
        (lambda photos: torch.stack(photos), "channels still come last"),
        (lambda photos: torch.cat(photos), "stack makes the new batch dimension"),
        (lambda photos: torch.stack(photos).reshape(len(photos), 3, *photos[0].shape[:2]), "scrambled"),
        (lambda photos: torch.stack(photos).transpose(1, 3), "height and width are exchanged"),
        (lambda photos: torch.stack(photos, dim=1).permute(0, 3, 1, 2), "its shape is"),
        (lambda photos: [photo.permute(2, 0, 1) for photo in photos], "it returns a list, not a tensor"),
        (lambda photos: torch.tensor(photos), "error     ValueError"),
    ],
    "accuracy": [
        (lambda logits, labels: (logits.argmax(1) == labels).sum(), "number of correct rows"),
        (lambda logits, labels: (logits.argmax(1) != labels).float().mean(), "share of wrong rows"),
        (lambda logits, labels: 100 * (logits.argmax(1) == labels).float().mean(), "from 0 to 1"),
        (lambda logits, labels: (logits.argmax(1) == labels).float(), "the mean over the rows"),
        (lambda logits, labels: (logits.abs().argmax(1) == labels).float().mean(), "accuracy: check 3"),
        (
            lambda logits, labels: ((logits.argmax(1) == labels).sum() // len(labels)).float(),
            "throws the fraction",
        ),
        (lambda logits, labels: (logits.argmax() == labels).float().mean(), "argmax without dim=1"),
        (
            lambda logits, labels: (logits.argmax(0) == labels).float().mean(),
            "RuntimeError: The size of tensor a",
        ),
        (lambda logits, labels: (logits.argmax(1) == labels).mean(), "a bool tensor has no mean"),
        (lambda logits, labels: (logits.argmax(1) == labels).float().mean().item(), "a float, not a tensor"),
        (lambda logits, labels: (logits.max(1) == labels).float().mean(), "returns a pair (values, indices)"),
        (
            lambda logits, labels: (logits.argmax(1, keepdim=True) == labels).float().mean(),
            "argmax kept its dimension",
        ),
        (lambda logits, labels: (logits.amax(1) == labels).float().mean(), "take their places"),
        (lambda z, y: (z.argmax(1) == y).type_as(z).mean(), "dtype is torch.float64, not torch.float32"),
    ],
    "softmax": [
        (softmax_without_maximum, "NaN"),
        (softmax_global_maximum_last_dim, "dim is ignored"),
        (softmax_without_keepdim, "keepdim=True"),
        (lambda x, dim: x.softmax(-1), "always runs along the last dimension"),
        (lambda x, dim: x.softmax(1), "always runs along dimension 1"),
        (softmax_clamped_maximum, "values are off"),
        (lambda x, dim: x.exp() / x.exp().sum(), "sum along dim"),
        (lambda x, dim: x.log_softmax(dim), "logarithm"),
        (lambda x, dim: (x - x.max(dim, keepdim=True)).exp(), "returns a pair (values, indices)"),
        (softmax_global_maximum, "Use the largest along dim"),
        (softmax_in_float32, "dtype is torch.float32, not torch.float64"),
    ],
    "object_areas": [
        (lambda id_map, ids: (id_map == ids).sum(), "ids lined up with the columns"),
        (lambda id_map, ids: (id_map == ids[:, None]).sum(1), "it lines up with the rows"),
        (lambda id_map, ids: id_map == ids[:, None, None], "now count the True"),
        (lambda id_map, ids: (id_map == ids[:, None, None]).sum(), "keep the dimension of the objects"),
        (lambda id_map, ids: (id_map == ids[:, None, None]).sum(1), "only the rows"),
        (lambda id_map, ids: (id_map == ids[:, None, None]).float().sum((1, 2)), "as floats"),
        (lambda id_map, ids: (id_map == ids[:, None, None]).float().mean((1, 2)), "shares of the picture"),
        (lambda id_map, ids: (id_map != ids[:, None, None]).sum((1, 2)), "do not belong"),
        (lambda id_map, ids: [(id_map == i).sum() for i in ids], "it returns a list, not a tensor"),
        (lambda id_map, ids: id_map.flatten().bincount()[1:], "its shape is"),
        (
            lambda id_map, ids: (id_map == ids[:, None, None]).sum((1, 2), dtype=torch.uint8).long(),
            "values are off",
        ),
    ],
    "squared_distances": [
        (torch.cdist, "leave out the root"),
        (lambda a, b: (a - b).square().sum(1), "rows are compared in pairs"),
        (lambda a, b: (a[:, None] - b).sum(-1).square(), "cancel"),
        (lambda a, b: (b[:, None] - a).square().sum(-1), "transposed"),
        (lambda a, b: (a[:, None] - b).square(), "sum over the last dimension"),
        (lambda a, b: (a[:, None] - b).abs().sum(-1), "absolute differences"),
        (lambda a, b: (a[:, None] - b).square().mean(-1), "expected: the sum"),
        (lambda a, b: (a[:, None] - b).square().sum(1), "must run over the features"),
    ],
    "cross_entropy": [
        (lambda z, y: z.log_softmax(1)[range(len(y)), y].mean(), "sign is missing"),
        (lambda z, y: -z.log_softmax(1)[range(len(y)), y].sum(), "expected: the mean"),
        (lambda z, y: -z.log_softmax(1)[:, y].mean(), "every target's column"),
        (lambda z, y: -z[range(len(y)), y].mean(), "raw logits"),
        (lambda z, y: -z.softmax(1)[range(len(y)), y].mean(), "expected: their logarithms"),
        (lambda z, y: -z.log_softmax(0)[range(len(y)), y].mean(), "compared the rows with each other"),
        (lambda z, y: -z.softmax(1).log()[range(len(y)), y].mean(), "log_softmax does the two steps safely"),
        (
            lambda z, y: -z.log_softmax(1).gather(1, y).mean(),
            "error     RuntimeError: Index tensor must have",
        ),
        (lambda z, y: F.cross_entropy(z, y).item(), "a float, not a tensor"),
    ],
    "snapshot": [
        (lambda x: x, "x itself"),
        (copy.deepcopy, "requires_grad is True"),
        (lambda x: x.detach(), "shares x's memory"),
        (lambda x: x.clone(), "only detach leaves it"),
        (lambda x: x.data, "shares x's memory"),
        (lambda x: x.detach().numpy().copy(), "NumPy array, not a tensor"),
        (lambda x: torch.tensor(x.tolist()), "dtype"),
        (lambda x: x.clone().requires_grad_(False), "error"),
    ],
    "scores": [
        (lambda pixels, weights: pixels @ weights, "make it a tensor first"),
        (lambda pixels, weights: torch.tensor(pixels) @ weights.T, "give the pixels the dtype of weights"),
        (lambda pixels, weights: torch.tensor(pixels).float() @ weights, "not transposed"),
        (lambda pixels, weights: weights @ torch.tensor(pixels, dtype=weights.dtype).T, "transposed"),
        (lambda pixels, weights: torch.tensor(pixels).float() @ weights.T.float(), "dtype of weights"),
        (
            lambda pixels, weights: torch.tensor(pixels, dtype=weights.dtype) @ weights.T,
            "create it on the device of the arguments",
        ),
        (lambda pixels, weights: torch.tensor(pixels) @ weights.T.long(), "dtype is torch.int64"),
    ],
    "nearest_mean": [
        (lambda x, y, t: class_distances(x, y, t).argmax(1), "farthest"),
        (lambda x, y, t: class_distances(x, y, t).argmin(0), "dim=1"),
        (lambda x, y, t: class_distances(x, y, t).argmin(), "without dim=1"),
        (lambda x, y, t: class_distances(x, y, t), "the class of the smallest"),
        (lambda x, y, t: class_distances(x, y, t).amin(1), "its class"),
        (lambda x, y, t: class_distances(x, y, t).min(1), "a pair (values, indices)"),
        (lambda x, y, t: (t[:, None] - class_means(x, y)).sum((2, 3)).argmin(1), "square"),
        (
            lambda x, y, t: y[torch.cdist(t.flatten(1), x.flatten(1)).argmin(1)],
            "nearest single training image",
        ),
        (lambda x, y, t: class_distances(x, y, x).argmin(1), "the training images were classified"),
        (means_of_ten_classes, "which argmin picks"),
        (means_without_dim, "let the mean of a class be a picture"),
        (means_from_zeros, "has the mean 0"),
    ],
}

RIGHT = {
    "invert": [
        lambda image: (16 - image.int()).to(torch.uint8),
        lambda i: -i + 16,
    ],
    "to_unit": [lambda images: images / 16, lambda images: images.to(torch.float32).mul(0.0625)],
    "blank_border": [copy_the_inside, pad_the_inside, mask_the_border],
    "share_and_copy": [
        lambda array: (torch.as_tensor(array), torch.from_numpy(array.copy())),
        lambda a: (torch.asarray(a), torch.from_numpy(a).clone()),
        lambda a: (torch.from_numpy(a), torch.from_numpy(np.array(a))),
    ],
    "side_by_side": [
        lambda images: torch.cat(list(images), dim=1),
        joined_by_loop,
        lambda images: images.transpose(0, 1).flatten(1),
        lambda images: torch.hstack(images.unbind()),
    ],
    "to_nchw": [
        lambda photos: torch.stack([photo.permute(2, 0, 1) for photo in photos]),
        lambda photos: torch.stack(photos).movedim(-1, 1),
        lambda photos: torch.cat([p.permute(2, 0, 1)[None] for p in photos]),
    ],
    "accuracy": [
        accuracy_by_loop,
        lambda logits, labels: (logits.max(1).indices == labels).sum() / len(labels),
        lambda logits, labels: logits.argmax(-1).eq(labels).to(torch.float32).mean(),
    ],
    "softmax": [torch.softmax, softmax_by_maximum_with_indices, lambda x, dim: x.log_softmax(dim).exp()],
    "object_areas": [
        areas_by_loop,
        lambda id_map, ids: id_map.eq(ids.view(-1, 1, 1)).flatten(1).sum(dim=1),
        lambda id_map, ids: id_map.flatten().bincount(minlength=int(ids.max()) + 1)[ids],
    ],
    "squared_distances": [distances_by_loop, lambda a, b: torch.cdist(a, b).pow(2), expanded_square],
    "cross_entropy": [F.cross_entropy, cross_entropy_by_loop, one_hot_cross_entropy],
    "snapshot": [lambda x: x.clone().detach(), lambda x: torch.from_numpy(x.detach().numpy().copy())],
    "scores": [
        lambda pixels, weights: F.linear(torch.tensor(pixels).to(weights), weights),
        lambda pixels, weights: torch.einsum("nd,cd->nc", weights.new_tensor(pixels), weights),
    ],
    "nearest_mean": [
        lambda x, y, t: torch.cdist(t.flatten(1), class_means(x, y).flatten(1)).argmin(1),
        nearest_by_loop,
        nearest_by_one_hot,
    ],
}
