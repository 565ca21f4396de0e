"""The checkers of chapter 01, Tensors. Each function is a reference solution; read them after yours."""

import numpy as np
import torch

from course_utils.exercises.grading import exercise


def _pictures(*shape: int) -> torch.Tensor:
    """Random pictures like the digits: uint8 from 0 to 16, each with some ink and some paper."""
    pictures = torch.randint(0, 17, shape, dtype=torch.uint8)
    pictures[..., 0, 0], pictures[..., 1, 1] = 16, 0
    return pictures


@exercise(
    cases=lambda: [
        (torch.tensor([[0, 12], [5, 11]], dtype=torch.uint8),),
        (_pictures(8, 8),),
        (_pictures(3, 8, 8),),
        (torch.tensor([0, 3, 16], dtype=torch.uint8),),
    ],
    mistakes={
        "uint8 has no negative numbers: -image wraps around, 256 - 5 = 251. Subtract from 16": lambda x: -x,
        "the order is reversed, and uint8 wraps around below 0: write 16 - image": lambda x: x - 16,
        "these digits reach from 0 to 16, not to 255": lambda x: 255 - x,
        "these digits reach from 0 to 16, not from 0 to 1": lambda x: 1 - x,
        "the darkest pixel of a picture need not be 16; full ink is": lambda x: x.max() - x,
        "15 is one short: the values 0 to 16 mirror at 16": lambda x: 15 - x,
        "the image may have any number of dimensions: 16 - image needs no loop": lambda x: (
            16 - x + 0 * x.shape[1]
        ),
    },
)
def invert(image):
    return 16 - image


@exercise(
    cases=lambda: [
        (torch.tensor([[0, 8, 16]], dtype=torch.uint8),),
        (torch.tensor([[0, 3, 4]], dtype=torch.uint8),),
        (_pictures(2, 8, 8),),
    ],
    mistakes={
        "full ink is 16 in every picture; dividing by the largest value present makes pale pictures darker": (
            lambda x: x / x.max()
        ),
        "255 is full in an 8-bit photograph; in these digits full ink is 16": lambda x: x / 255,
        "// throws the fraction away; / divides": lambda x: (x // 16).float(),
    },
)
def to_unit(images):
    return images.float() / 16


def _blank(pictures, *places):
    pictures = pictures.clone()
    for place in places:
        pictures[place] = 0
    return pictures


@exercise(
    cases=lambda: [
        (_pictures(1, 3, 3) + 1,),
        (_pictures(3, 4, 5) + 1,),
        (_pictures(5, 8, 8) + 1,),
        (torch.rand(2, 4, 3) + 1,),
    ],
    mistakes={
        "the first index counts pictures: whole pictures are blank. Rows are the second index": (
            lambda x: _blank(x, 0, -1)
        ),
        "rows are blank, columns are not: the last index counts columns": (
            lambda x: _blank(x, (slice(None), 0), (slice(None), -1))
        ),
        "columns are blank, rows are not: the second index counts rows": (
            lambda x: _blank(x, (..., 0), (..., -1))
        ),
        "the inside is blank, the border is kept: the other way round": (
            lambda x: _blank(x, (slice(None), slice(1, -1), slice(1, -1)))
        ),
        "two lists side by side are paired up: only corners are blank. Blank rows, then columns": (
            lambda x: _blank(x, (slice(None), [0, -1], [0, -1]))
        ),
        "the batch dimension is forgotten: dimension 0 counts pictures, 1 rows, 2 columns": (
            lambda x: _blank(x, 0, -1, (slice(None), 0), (slice(None), -1))
        ),
        "only the top and the left side are blank: index -1 is the last row or column": (
            lambda x: _blank(x, (slice(None), 0), (..., 0))
        ),
        "slices leave their end out: :-1 up to the last is everything but the last": (
            lambda x: _blank(x, (slice(None), slice(None, -1), slice(None, -1)))
        ),
    },
)
def blank_border(images):
    images = images.clone()
    images[:, [0, -1], :] = 0
    images[:, :, [0, -1]] = 0
    return images


def _shares(tensor: torch.Tensor, array: np.ndarray) -> bool:
    return bool(np.shares_memory(tensor.detach().numpy(), array))


def _one_shares(got, array) -> str | None:
    shared, copied = (_shares(tensor, array) for tensor in got)
    if shared and copied:
        return "both share the array's memory: a change of the array would reach the second, too"
    if not shared and not copied:
        return "neither shares the array's memory: torch.tensor always copies"
    return "the two are in the wrong order: first the one that shares, then the copy" if copied else None


@exercise(
    cases=lambda: [(np.arange(4),), (np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),), (np.eye(2),)],
    also=_one_shares,
    mistakes={
        "the values are right, but the dtype is another: keep that of the array": (
            lambda a: (torch.from_numpy(a).float(), torch.tensor(a).float())
        ),
    },
)
def share_and_copy(array):
    return torch.from_numpy(array), torch.tensor(array)


@exercise(
    cases=lambda: [
        (torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),),
        (_pictures(3, 2, 4),),
        (_pictures(1, 3, 3),),
        (_pictures(10, 8, 8),),
    ],
    mistakes={
        "the shape is right and the picture is scrambled: reshape keeps the reading order, picture after "
        "picture. First bring the row dimension to the front": lambda x: x.reshape(x.shape[1], -1),
        "cat takes a list of tensors: list(images)": lambda x: torch.cat(x, dim=1),
        "the pictures stand below each other, not beside each other": lambda x: x.reshape(-1, x.shape[2]),
        "each picture's rows and columns are exchanged": lambda x: x.permute(2, 0, 1).reshape(x.shape[2], -1),
        "the order is right; now merge the last two dimensions with reshape": lambda x: x.permute(1, 0, 2),
        "view cannot express this shape with strides; reshape copies where it must": (
            lambda x: x.permute(1, 0, 2).view(x.shape[1], -1)
        ),
        "the columns are interleaved: pixel 0 of every picture, then pixel 1. The picture index must come "
        "before the column index": lambda x: x.permute(1, 2, 0).reshape(x.shape[1], -1),
    },
)
def side_by_side(images):
    n, height, width = images.shape
    return images.permute(1, 0, 2).reshape(height, n * width)


@exercise(
    cases=lambda: [
        ([torch.arange(6).reshape(1, 2, 3), torch.arange(6, 12).reshape(1, 2, 3)],),
        ([_pictures(4, 5, 3) for _ in range(3)],),
        ([torch.rand(3, 3, 3)],),
    ],
    mistakes={
        "the shape is right and the pictures are scrambled: reshape does not move channels. Use permute": (
            lambda p: torch.stack(p).reshape(len(p), 3, *p[0].shape[:2])
        ),
        "permute lists the old dimensions in their new order: the channels, dimension 3, come second": (
            lambda p: torch.stack(p).permute(0, 2, 3, 1)
        ),
        "stacked, but the channels still come last: permute(0, 3, 1, 2)": lambda p: torch.stack(p),
        "cat joins the pictures along their rows; stack makes the new batch dimension": lambda p: torch.cat(
            p
        ),
        "height and width are exchanged: the channels move to the front, the other two keep their order": (
            lambda p: torch.stack(p).permute(0, 3, 2, 1)
        ),
    },
)
def to_nchw(photos):
    return torch.stack(photos).permute(0, 3, 1, 2)


@exercise(
    cases=lambda: [
        (torch.tensor([[0.0, 1.0, 5.0], [2.0, 1.0, 0.0]]), torch.tensor([2, 1])),
        (
            torch.tensor([[1.0, 4.0, 2.0], [3.0, 0.0, 2.0], [2.0, 6.0, 1.0], [7.0, 5.0, 6.0]]),
            torch.tensor([1, 0, 1, 2]),
        ),
        (torch.tensor([[-9.0, 1.0], [-3.0, 2.0], [-1.0, -8.0]]), torch.tensor([1, 1, 1])),
        (torch.randn(50, 10), torch.randint(0, 10, (50,))),
        (torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 2])),
    ],
    mistakes={
        "that is the number of correct rows; the accuracy is their share, the mean": (
            lambda z, y: (z.argmax(1) == y).sum()
        ),
        "that is the number of correct rows; the accuracy is their share": (
            lambda z, y: (z.argmax(1) == y).float().sum()
        ),
        "that is the share of wrong rows": lambda z, y: (z.argmax(1) != y).float().mean(),
        "a percentage; expected: a share from 0 to 1": lambda z, y: (z.argmax(1) == y).float().mean() * 100,
        "right for each row; now the mean over the rows": lambda z, y: (z.argmax(1) == y).float(),
        "right for each row; now cast to float and take the mean": lambda z, y: z.argmax(1) == y,
        "argmax without dim=1 numbers the cells of the whole table; one class for each row is needed": (
            lambda z, y: (z.argmax() == y).float().mean()
        ),
        "argmax kept its dimension: (N, 1) == (N,) compares every prediction with every label": (
            lambda z, y: (z.argmax(1, keepdim=True) == y).float().mean()
        ),
        "max with a dim returns a pair (values, indices); take argmax, or .indices": (
            lambda z, y: (z.max(1) == y).float().mean()
        ),
        "the largest logits themselves were compared with the labels; take their places, argmax": (
            lambda z, y: (z.amax(1) == y).float().mean()
        ),
        "argmax compared the pictures with each other, dim=0; compare the classes, dim=1": (
            lambda z, y: (z.argmax(0) == y).float().mean()
        ),
        "// throws the fraction away; the accuracy is a share, /": (
            lambda z, y: ((z.argmax(1) == y).sum() // len(y)).float()
        ),
        "a bool tensor has no mean: cast the comparison with .float() first": lambda z, y: (
            z.argmax(1) == y
        ).mean(),
        "the row's smallest logit was taken": lambda z, y: (z.argmin(1) == y).float().mean(),
    },
)
def accuracy(logits, labels):
    return (logits.argmax(dim=1) == labels).float().mean()


def _exp(x, dim):
    return (x - x.amax(dim, keepdim=True)).exp()


@exercise(
    cases=lambda: [
        (torch.tensor([[0.0, 1.0], [2.0, 2.0]]), 1),
        (torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.0, -1.0]]), 0),
        (torch.randn(2, 3, 4), 1),
        (torch.tensor([[1000.0, 1001.0], [0.0, 1.0]]), 1),
        (torch.tensor([[-1000.0, 0.0, 1000.0], [-1002.0, -1001.0, -1000.0]]), 1),
        (torch.randn(2, 3, 4), -1),
        (torch.randn(3, 4, dtype=torch.float64), 0),
    ],
    mistakes={
        "e to the 1000 is infinite, and infinity divided by infinity is NaN: subtract the largest "
        "value along dim first": lambda x, dim: x.exp() / x.exp().sum(dim, keepdim=True),
        "the sum runs over the whole tensor; sum along dim, with keepdim=True": (
            lambda x, dim: (x - x.max()).exp() / (x - x.max()).exp().sum()
        ),
        "the largest value of the whole tensor was subtracted: in a row far below it, every exp becomes 0, "
        "and 0 / 0 is NaN. Use the largest along dim": (
            lambda x, dim: (x - x.max()).exp() / (x - x.max()).exp().sum(dim, keepdim=True)
        ),
        "the sum runs over the whole tensor; sum along dim. And exp overflows for logits of 1000": (
            lambda x, dim: x.exp() / x.exp().sum()
        ),
        "dim is ignored: it always runs along the last dimension": lambda x, dim: x.softmax(-1),
        "dim is ignored: it always runs along dimension 1": lambda x, dim: x.softmax(1),
        "the exponentials are right; now divide by their sum along dim": lambda x, dim: _exp(x, dim),
        "dim is ignored: it always runs along dimension 0": lambda x, dim: x.softmax(0),
        "without keepdim=True the sums are lined up with another dimension": (
            lambda x, dim: _exp(x, dim) / _exp(x, dim).sum(dim)
        ),
        "without keepdim=True the largest values are lined up with another dimension": (
            lambda x, dim: (x - x.amax(dim)).exp() / (x - x.amax(dim)).exp().sum(dim, keepdim=True)
        ),
        "both reductions need keepdim=True: without it they are lined up with another dimension": (
            lambda x, dim: (x - x.amax(dim)).exp() / (x - x.amax(dim)).exp().sum(dim)
        ),
        "max with a dim returns a pair (values, indices); take amax, or .values": (
            lambda x, dim: (x - x.max(dim, keepdim=True)).exp()
        ),
        "shares without the exponential: softmax divides exp(x) by its sum": (
            lambda x, dim: x / x.sum(dim, keepdim=True)
        ),
        "that is the logarithm of softmax": lambda x, dim: x.log_softmax(dim),
    },
)
def softmax(x, dim):
    e = _exp(x, dim)
    return e / e.sum(dim, keepdim=True)


@exercise(
    cases=lambda: [
        (torch.tensor([[0, 1, 1, 5], [2, 1, 0, 0]]), torch.tensor([2, 1, 7])),
        (torch.randint(0, 4, (5, 6)), torch.tensor([3, 1, 2])),
        (torch.full((20, 20), 150), torch.tensor([7, 150])),
        (torch.randint(0, 3, (3, 3)), torch.tensor([2, 0, 1])),
    ],
    mistakes={
        "ids lined up with the columns of the map. It needs two more dimensions: ids[:, None, None]": (
            lambda m, i: (m == i).sum()
        ),
        "ids needs two more dimensions, ids[:, None, None]; with one it lines up with the rows": (
            lambda m, i: (m == i[:, None]).sum(1)
        ),
        "these are the masks; now count the True in each, over dimensions 1 and 2": (
            lambda m, i: m == i[:, None, None]
        ),
        "summed over everything: keep the dimension of the objects, sum over 1 and 2": (
            lambda m, i: (m == i[:, None, None]).sum()
        ),
        "only the rows of each mask were summed; sum over both, dim=(1, 2)": (
            lambda m, i: (m == i[:, None, None]).sum(1)
        ),
        "only the columns of each mask were summed; sum over both, dim=(1, 2)": (
            lambda m, i: (m == i[:, None, None]).sum(2)
        ),
        "shares of the picture; expected: numbers of pixels": (
            lambda m, i: (m == i[:, None, None]).float().mean((1, 2))
        ),
        "right numbers, but as floats; a sum of booleans is int64": (
            lambda m, i: (m == i[:, None, None]).float().sum((1, 2))
        ),
        "pixels that do not belong to the object are counted": lambda m, i: (m != i[:, None, None]).sum(
            (1, 2)
        ),
        "the areas stand in the order of the numbers; expected: the order of ids": (
            lambda m, i: (m == i.sort().values[:, None, None]).sum((1, 2))
        ),
        "numbers 0, 1, 2, ... were counted; expected: the numbers in ids": (
            lambda m, i: (m == torch.arange(len(i))[:, None, None]).sum((1, 2))
        ),
    },
)
def object_areas(id_map, ids):
    return (id_map == ids[:, None, None]).sum(dim=(1, 2))


@exercise(
    cases=lambda: [
        (torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0]])),
        (torch.randn(3, 5), torch.randn(3, 5)),
        (torch.randn(4, 2, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)),
    ],
    mistakes={
        "these are the distances; expected: their squares, so leave out the root": torch.cdist,
        "rows are compared in pairs, 0 with 0, 1 with 1; expected: each row of a with each row of b": (
            lambda a, b: (a - b).square().sum(-1)
        ),
        "the table is transposed: row i belongs to a[i], column j to b[j]": (
            lambda a, b: (b[:, None] - a).square().sum(-1)
        ),
        "positive and negative differences cancel: square before you sum": (
            lambda a, b: (a[:, None] - b).sum(-1).square()
        ),
        "absolute differences; expected: squares": lambda a, b: (a[:, None] - b).abs().sum(-1),
        "the mean over the features; expected: the sum": lambda a, b: (a[:, None] - b).square().mean(-1),
        "the sum runs over the rows of b; it must run over the features, the last dimension": (
            lambda a, b: (a[:, None] - b).square().sum(1)
        ),
        "the differences do not line up: (N, 1, D) against (M, D) gives (N, M, D)": (
            lambda a, b: (a[:, :, None] - b).square().sum(-1)
        ),
        "still one value for each feature: sum over the last dimension": lambda a, b: (
            a[:, None] - b
        ).square(),
    },
)
def squared_distances(a, b):
    return (a[:, None, :] - b[None, :, :]).square().sum(dim=2)


def _chosen(z, y):
    return z.log_softmax(1)[range(len(y)), y]


@exercise(
    cases=lambda: [
        (torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 5.0]]), torch.tensor([2, 0])),
        (torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1])),
        (torch.tensor([[1.0, 3.0], [0.0, 1.0], [2.0, -1.0]]), torch.tensor([1, 1, 0])),
        (torch.randn(20, 10), torch.randint(0, 10, (20,))),
        (torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]), torch.tensor([0, 0])),
        (torch.randn(4, 3, dtype=torch.float64), torch.tensor([2, 0, 1, 1])),
    ],
    mistakes={
        "the sign is missing: the loss is minus the mean log-probability": lambda z, y: _chosen(z, y).mean(),
        "the sum; expected: the mean over the rows": lambda z, y: -_chosen(z, y).sum(),
        "right for each row; now the mean": lambda z, y: -_chosen(z, y),
        "these are raw logits: take log_softmax over the classes first": lambda z, y: (
            -z[range(len(y)), y].mean()
        ),
        "softmax was applied twice: start from the logits as they are": (
            lambda z, y: torch.nn.functional.cross_entropy(z.softmax(1), y)
        ),
        "probabilities; expected: their logarithms": lambda z, y: -z.softmax(1)[range(len(y)), y].mean(),
        "log_softmax compared the rows with each other, dim=0; the classes are dimension 1": (
            lambda z, y: -z.log_softmax(0)[range(len(y)), y].mean()
        ),
        "[:, targets] takes every target's column for every row; pair row i with targets[i] instead": (
            lambda z, y: -z.log_softmax(1)[:, y].mean()
        ),
        "[targets] takes whole rows; pair row i with targets[i] instead": (
            lambda z, y: -z.log_softmax(1)[y % len(y)].mean()
        ),
        "gather took the targets as row numbers, dim=0; the classes are dimension 1": (
            lambda z, y: -z.log_softmax(1).gather(0, y[:, None]).mean()
        ),
        "gather needs an index with as many dimensions as its input: targets[:, None]": (
            lambda z, y: -z.log_softmax(1).gather(1, y).mean()
        ),
        "logits are no probabilities, some are negative: take log_softmax, not log": (
            lambda z, y: -z.log()[range(len(y)), y].mean()
        ),
        "the logarithm of the mean probability; expected: the mean of the logarithms": (
            lambda z, y: -z.softmax(1)[range(len(y)), y].mean().log()
        ),
        "exp overflows for logits of 1000: log_softmax does the two steps safely": (
            lambda z, y: -(z.exp() / z.exp().sum(1, keepdim=True))[range(len(y)), y].log().mean()
        ),
        "the logarithm of a probability that was rounded to 0: log_softmax does the two steps safely": (
            lambda z, y: -z.softmax(1).log()[range(len(y)), y].mean()
        ),
        "the mean over all classes; expected: the target's class only": lambda z, y: -z.log_softmax(1).mean(),
    },
)
def cross_entropy(logits, targets):
    log_probabilities = logits.log_softmax(dim=1)
    return -log_probabilities.gather(1, targets[:, None]).mean()


def _is_free_copy(got, x) -> str | None:
    if got is x:
        return "it is x itself, under a second name"
    if got.grad_fn is not None:
        return "it is still part of x's graph: clone is recorded there, only detach leaves it"
    if got.requires_grad:
        return "requires_grad is True: what is computed from it would be recorded again"
    if got.is_inference():
        return "it was made in inference mode, where tensors cannot be changed later"
    if got.untyped_storage().data_ptr() == x.untyped_storage().data_ptr():
        return "it shares x's memory: the next in-place change of x would reach it. detach does not copy"
    return None


@exercise(
    cases=lambda: [
        (torch.ones(3, requires_grad=True),),
        (torch.ones(2, 2, requires_grad=True) * 3,),
        (torch.arange(4),),
        (torch.rand(2, 3, dtype=torch.float64),),
        (torch.tensor([True, False]),),
    ],
    also=_is_free_copy,
    mistakes={"the dtype is float32 now: a copy keeps the dtype": lambda x: x.detach().clone().float()},
)
def snapshot(x):
    return x.detach().clone()


@exercise(
    cases=lambda: [
        ([[1, 2], [3, 4], [5, 6]], torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])),
        ([[0, 16, 8]], torch.randn(2, 3)),
        (torch.randint(0, 17, (5, 64)).tolist(), torch.randn(10, 64)),
        ([[3, 1], [2, 2]], torch.randn(2, 2, dtype=torch.float64)),
        ([[3, 1], [2, 2]], torch.ones(5, 2, device="meta")),
    ],
    mistakes={
        "the table is transposed: a row for each picture, a column for each class": (
            lambda p, w: w @ torch.tensor(p, dtype=w.dtype).T
        ),
        "float32 is written into the code; take the dtype of weights": lambda p, w: (
            torch.tensor(p, device=w.device).float() @ w.float().T
        ),
        "pixels is a list: make it a tensor first": lambda p, w: p @ w,
        "int64 and float32 do not multiply: give the pixels the dtype of weights": (
            lambda p, w: torch.tensor(p) @ w.T
        ),
        "reshape deals the numbers out anew; .T exchanges rows and columns": (
            lambda p, w: torch.tensor(p, dtype=w.dtype, device=w.device) @ w.reshape(w.shape[1], -1)
        ),
        "weights was not transposed: each of its rows belongs to a class": (
            lambda p, w: torch.tensor(p, dtype=w.dtype) @ w
        ),
        "a product of single numbers, picture n with class n; each picture needs a score from each class": (
            lambda p, w: (torch.tensor(p, dtype=w.dtype) * w).sum(1)
        ),
    },
)
def scores(pixels, weights):
    return torch.tensor(pixels, dtype=weights.dtype, device=weights.device) @ weights.T


def _classes(y):
    return range(int(y.max()) + 1)


def _means(x, y):
    return torch.stack([x[y == c].mean(dim=0) for c in _classes(y)])


def _distances(x, y, t):
    return (t[:, None] - _means(x, y)).square().sum((2, 3))


def _nearest(means, t):
    return (t[:, None] - means).square().sum((2, 3)).argmin(1)


@exercise(
    cases=lambda: [
        (
            torch.tensor([[[0.0, 1.0, 2.0]], [[9.0, 5.0, 1.0]], [[2.0, 3.0, 2.0]], [[8.0, 9.0, 1.0]]]),
            torch.tensor([0, 1, 0, 1]),
            torch.tensor([[[9.0, 9.0, 9.0]], [[1.0, 1.0, 1.0]], [[7.0, 3.0, 0.0]]]),
        ),
        (
            torch.tensor([[[0.0, 9.0]], [[9.0, 0.0]], [[2.0, 2.0]]]),
            torch.tensor([2, 1, 0]),
            torch.tensor([[[1.0, 7.0]], [[3.0, 2.0]]]),
        ),
        (torch.rand(20, 8, 8), torch.arange(20) % 3, torch.rand(9, 8, 8)),
        (torch.rand(12, 2, 3) * 16, torch.arange(12) // 2, torch.rand(6, 2, 3) * 16),
        (torch.rand(6, 2, 3) + 3, torch.arange(6) % 2, torch.rand(4, 2, 3) + 0.5),
    ],
    mistakes={
        "that is the farthest mean: take argmin": lambda x, y, t: _distances(x, y, t).argmax(1),
        "argmin ran over the test images; it must run over the classes, dim=1": (
            lambda x, y, t: _distances(x, y, t).argmin(0)
        ),
        "that is the smallest distance itself; expected: its class, by argmin": (
            lambda x, y, t: _distances(x, y, t).amin(1)
        ),
        "argmin without dim=1 numbers the cells of the whole table": lambda x, y, t: _distances(
            x, y, t
        ).argmin(),
        "only the brightness of whole pictures was compared: square each pixel's difference before you sum, "
        "and let the mean of a class be a picture, mean(dim=0)": (
            lambda x, y, t: (t[:, None] - _means(x, y)).sum((2, 3)).abs().argmin(1)
        ),
        "differences without a square: the smallest is the most negative, not the nearest": (
            lambda x, y, t: (t[:, None] - _means(x, y)).sum((2, 3)).argmin(1)
        ),
        "absolute differences; expected: squared ones, which may have another minimum": (
            lambda x, y, t: (t[:, None] - _means(x, y)).abs().sum((2, 3)).argmin(1)
        ),
        "the largest dot product is not the smallest distance": (
            lambda x, y, t: (t.flatten(1) @ _means(x, y).flatten(1).T).argmax(1)
        ),
        "the sum of a class's images; expected: the mean": (
            lambda x, y, t: _nearest(torch.stack([x[y == c].sum(dim=0) for c in _classes(y)]), t)
        ),
        "a class that does not occur has the mean NaN, which argmin picks: there are max + 1 classes": (
            lambda x, y, t: _nearest(torch.stack([x[y == c].mean(dim=0) for c in range(10)]), t)
        ),
        "a class that does not occur has the mean 0, which may be nearest: there are max + 1 classes": (
            lambda x, y, t: _nearest(torch.stack([x[y == c].mean(dim=0) for c in range(10)]).nan_to_num(), t)
        ),
        "the last class is missing: there are max + 1 classes": (
            lambda x, y, t: _nearest(_means(x, y)[:-1], t)
        ),
        "all the distances are right; now the class of the smallest in each row": _distances,
        "that is the nearest training image itself; expected: its class, by the mean of each class": (
            lambda x, y, t: torch.cdist(t.flatten(1), x.flatten(1)).argmin(1)
        ),
        "that is the class of the nearest single training image; expected: of the nearest mean": (
            lambda x, y, t: y[torch.cdist(t.flatten(1), x.flatten(1)).argmin(1)]
        ),
        "the training images were classified; expected: the test images": (
            lambda x, y, t: _distances(x, y, x).argmin(1)
        ),
    },
)
def nearest_mean(train_images, train_labels, test_images):
    return _distances(train_images, train_labels, test_images).argmin(dim=1)
