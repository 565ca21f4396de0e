"""The checkers of chapter 03, Dataset and DataLoader: reference solutions; read them after yours."""

import itertools
import math
import random
import string
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from course_utils.exercises.compare import difference
from course_utils.exercises.grading import Result, exercise


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _use_other_random_numbers() -> None:
    """Move the global generators on: what should come from a generator of its own must not notice."""
    torch.rand(7)
    random.random()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _flower(row, classes, skip=lambda row: "species", start=0):
    features = [float(text) for column, text in row.items() if column != skip(row)]
    return torch.tensor(features), torch.tensor(classes.index(row["species"]) + start)


@exercise(
    cases=lambda: [
        ({"width": "5.1", "petals": "12", "species": "rose"}, ["lily", "tulip", "rose"]),
        ({"species": "tulip", "tall": "30", "age": "6", "wide": "2.5"}, ["tulip", "rose"]),
        ({"wide": "0.5", "tall": "8", "species": "7"}, ["8", "rose", "7"]),
        ({"depth": "0.5", "species": "lily", "warmth": "-1e3"}, ["rose", "aster", "lily", "tulip"]),
        ({"wide": "7", "tall": "8", "species": "7"}, ["8", "7"]),
    ],
    mistakes={
        "the label counts from 1: the first class is 0": lambda row, classes: _flower(row, classes, start=1),
        "the classes were sorted first: the label is the place in the list as it is given": (
            lambda row, classes: _flower(row, sorted(classes))
        ),
        "the label is float32: an int in torch.tensor becomes int64": lambda row, classes: (
            _flower(row, classes)[0],
            _flower(row, classes)[1].float(),
        ),
        "the columns were sorted: keep the row's order": lambda row, classes: _flower(
            dict(sorted(row.items())), classes
        ),
        "a species may look like a number: leave it out by the column's name, not by what float() takes": (
            lambda row, classes: (
                torch.tensor([float(text) for text in row.values() if _is_number(text)]),
                _flower(row, classes)[1],
            )
        ),
        "a feature may have the value of the species: leave the species out by the column's name": (
            lambda row, classes: (
                torch.tensor([float(text) for text in row.values() if text != row["species"]]),
                _flower(row, classes)[1],
            )
        ),
        "the cells of a row are text: float(text) makes a number of one": lambda row, classes: torch.tensor(
            [text for column, text in row.items() if column != "species"]
        ),
        "the species need not be the last column: leave it out by its name": lambda row, classes: (
            torch.tensor([float(text) for text in list(row.values())[:-1]]),
            _flower(row, classes)[1],
        ),
        "the label comes first: features first, then the label": lambda row, classes: _flower(row, classes)[
            ::-1
        ],
        "the features are cut to whole numbers: float(text) keeps what is behind the point": (
            lambda row, classes: (_flower(row, classes)[0].trunc(), _flower(row, classes)[1])
        ),
        "the label is a Python int: make a tensor of it, too": lambda row, classes: (
            _flower(row, classes)[0],
            classes.index(row["species"]),
        ),
    },
)
def read_flower(row, classes):
    return _flower(row, classes)


class _Windows:
    def __init__(self, series, size, less=0, step=1, target=0, wider=0):
        self.series, self.size, self.less = series, size, less
        self.step, self.target, self.wider = step, target, wider

    def __len__(self):
        return len(self.series) - self.size - self.less

    def __getitem__(self, index):
        start = index * self.step
        end = start + self.size
        return self.series[start : end + self.wider], self.series[end + self.target]


def _all_samples(answer, series, size):
    """Windows(series, size)[index]"""
    dataset = answer(series, size)

    def samples() -> dict:
        seen = {"len(dataset)": len(dataset)}
        for i in range(len(series) - size):
            sample = dataset[i]
            seen[f"dataset[{i}]"] = tuple(sample) if isinstance(sample, list) else sample
        return seen

    seen = samples()
    looped = sum(1 for _ in itertools.islice(dataset, len(series)))  # `for` asks until an IndexError
    try:
        dataset[len(dataset)]
        ends = False
    except IndexError:
        ends = True
    if looped > len(series) - size or not ends:
        return Result(
            seen,
            "a `for` loop does not stop after the last sample: a slice that ends too early, or a remainder, "
            "raises no error; raise IndexError from index len(self) on",
        )
    answer(-series.repeat(2), size + 1)
    if difference(samples(), seen):
        return Result(seen, "a second object changes the first: keep what it needs in self, not in the class")
    return Result(seen)


@exercise(
    cases=lambda: [
        (torch.tensor([10, 11, 13, 16, 20]), 2),
        (torch.tensor([0.5, -1.0, 2.0, 4.0, 8.0, 1.5, 7.0, 3.0]), 3),
        (torch.randn(20), 1),
        (torch.randn(5, dtype=torch.float64), 4),
    ],
    call=_all_samples,
    mistakes={
        "the length is one too many: the last window would have no reading after it": (
            lambda series, size: _Windows(series, size, less=-1)
        ),
        "the length is one too few: the last reading is a target, too": (
            lambda series, size: _Windows(series, size, less=1)
        ),
        "the length is that of the series, but not every reading begins a window": (
            lambda series, size: _Windows(series, size, less=-size)
        ),
        "the target is the last reading of the window: take the one that follows it": (
            lambda series, size: _Windows(series, size, target=-1)
        ),
        "the window has a reading too many: a slice leaves its end out": (
            lambda series, size: _Windows(series, size, wider=1)
        ),
        "the windows must overlap: window i begins at reading i": lambda series, size: _Windows(
            series, size, step=size
        ),
        "the window has a reading too few: a slice leaves its end out, so [index : index + size] has size": (
            lambda series, size: _Windows(series, size, wider=-1)
        ),
    },
)
class Windows(_Windows):
    def __init__(self, series, size):
        super().__init__(series, size)


@exercise(
    cases=lambda: [
        (10, 4, 3, False),
        (10, 4, 3, True),
        (12, 4, 5, False),
        (12, 4, 5, True),
        (3, 8, 5, False),
        (3, 8, 5, True),
        (1000, 64, 7, False),
    ],
    mistakes={
        "the short last batch counts as well, unless drop_last is True": lambda n, b, e, d: e * (n // b),
        "a short batch was added although the last batch is full: 12 samples are three batches of 4": (
            lambda n, b, e, d: e * (n // b + (not d))
        ),
        "the epochs were run together: each epoch ends with its own short batch": (
            lambda n, b, e, d: n * e // b if d else math.ceil(n * e / b)
        ),
        "drop_last makes no difference here: it leaves the short batch out": (
            lambda n, b, e, d: e * math.ceil(n / b)
        ),
        "drop_last took away a full batch, too: nothing is dropped where the last batch is full": (
            lambda n, b, e, d: e * (math.ceil(n / b) - d)
        ),
        "that is one epoch; expected: all epochs together": (
            lambda n, b, e, d: n // b if d else math.ceil(n / b)
        ),
        "the last batch is counted as a part of one: round up": lambda n, b, e, d: e * n / b,
        "that is the number of samples in all epochs, not of batches": lambda n, b, e, d: n * e,
    },
)
def iterations(samples, batch_size, epochs, drop_last):
    per_epoch = samples // batch_size if drop_last else math.ceil(samples / batch_size)
    return epochs * per_epoch


def _scaled(answer, labels, shares):
    """sampling_weights(labels, shares)"""
    weights = answer(labels, shares)
    if weights is None:
        return None
    if not isinstance(weights, torch.Tensor):
        return Result(..., f"the weights are of type {type(weights).__name__}: make a tensor (N,) of them")
    if (weights < 0).any():
        return Result(..., "weights must not be negative")
    if not weights.is_floating_point():
        return Result(..., f"the weights are {weights.dtype}: expected float, so that none is cut off")
    return {"scaled to sum 1": weights.double() / weights.double().sum()}


@exercise(
    cases=lambda: [
        (torch.tensor([0, 0, 0, 1]), torch.tensor([0.6, 0.4])),
        (torch.tensor([2, 0, 1, 0, 2, 2, 0]), torch.tensor([0.2, 0.5, 0.3])),
        (torch.tensor([0, 1, 1]), torch.tensor([0.25, 0.75, 0.0])),
        (torch.randint(0, 5, (60,)).sort().values, torch.tensor([0.1, 0.3, 0.05, 0.35, 0.2])),
        (torch.tensor([2, 0, 2]), torch.tensor([0.25, 0.0, 0.75])),
    ],
    call=_scaled,
    mistakes={
        "each sample has the whole share of its class; the samples of a class must divide it among them": (
            lambda y, s: s[y]
        ),
        "that balances the classes: multiply by the share that each is to have": lambda y, s: (
            1 / y.bincount()[y]
        ),
        "frequent classes weigh more: divide by the class's count": lambda y, s: (
            s * y.bincount(minlength=len(s))
        )[y],
        "the weights of the classes; expected: one for each sample, so index by labels": lambda y, s: (
            s / y.bincount(minlength=len(s)).clamp(min=1)
        ),
        "a class may have no sample: count with bincount(minlength=len(shares)), or divide after indexing": (
            lambda y, s: (s / y.bincount())[y]
        ),
        "unique leaves out a class without a sample, and the counts move up: bincount has a 0 there": (
            lambda y, s: s[y] / y.unique(return_counts=True)[1][y]
        ),
        "all samples weigh the same": lambda y, s: torch.ones(len(y)),
    },
)
def sampling_weights(labels, shares):
    return (shares / labels.bincount(minlength=len(shares)))[labels]


def _padded(samples, front=False, mask=None):
    lengths = torch.tensor([len(s["X"]) for s in samples])
    longest = int(lengths.max())
    gaps = [longest - len(s["X"]) for s in samples]
    x = torch.stack(
        [F.pad(s["X"], (0, 0, g, 0) if front else (0, 0, 0, g)) for s, g in zip(samples, gaps, strict=True)]
    )
    real = torch.arange(longest) < lengths[:, None]
    y = torch.tensor([s["y"] for s in samples])
    return {"X": x, "y": y, "mask": real if mask is None else mask(x, real)}


def _pad_columns(samples):
    longest = max(len(s["X"]) for s in samples)
    x = torch.stack([F.pad(s["X"], (0, longest - len(s["X"]))) for s in samples])
    return {**_padded(samples), "X": x}


def _pad_pair(samples):
    first, second = samples
    return _padded([first, second])


def _recordings(*lengths: int, sensors: int) -> list[dict]:
    return [{"X": torch.randn(n, sensors), "y": i + 3} for i, n in enumerate(lengths)]


def _with_zeros() -> list[dict]:
    samples = _recordings(3, 5, 2, 1, sensors=2)
    samples[0]["X"][2] = 0
    samples[1]["X"][0] = 0
    return samples


@exercise(
    cases=lambda: [
        (
            [
                {"X": torch.tensor([[1.0], [2.0], [3.0]]), "y": 1},
                {"X": torch.tensor([[4.0]]), "y": 0},
            ],
        ),
        (_recordings(4, 7, 2, sensors=3),),
        (_recordings(6, sensors=2),),
        (_with_zeros(),),
        (_recordings(3, 3, sensors=1),),
        ([{**sample, "X": sample["X"].double()} for sample in _recordings(2, 4, 3, sensors=5)],),
    ],
    mistakes={
        "the dtype of X is lost: make the zeros with dtype=samples[0]['X'].dtype": lambda s: {
            **_padded(s),
            "X": _padded(s)["X"].float(),
        },
        "the mask is inverted: True must mean that a step is real": lambda s: _padded(
            s, mask=lambda x, real: ~real
        ),
        "a real step may hold zeros: make the mask from the lengths, not from the numbers": lambda s: _padded(
            s, mask=lambda x, real: (x != 0).any(dim=-1)
        ),
        "the columns were padded: F.pad counts dimensions from the last one, and the steps are the last but "
        "one": _pad_columns,
        "the lengths need a second dimension, to be compared with each step: lengths[:, None]": lambda s: (
            _padded(s, mask=lambda x, real: torch.arange(x.shape[1]) < real.sum(dim=1))
        ),
        "there may be any number of samples, not only two": _pad_pair,
        "only the first two samples are used: there may be any number": lambda s: _padded(s[:2]),
        "the mask has numbers in it; expected: bool": lambda s: _padded(s, mask=lambda x, real: real.float()),
        "the mask has an entry for each number; expected: one for each step, (B, longest)": lambda s: _padded(
            s, mask=lambda x, real: real[..., None].expand(x.shape)
        ),
        "the zeros stand in front of the recording: put them after its end": lambda s: _padded(s, front=True),
        "y is float; whole numbers in torch.tensor become int64": lambda s: {
            **_padded(s),
            "y": _padded(s)["y"].float(),
        },
        "y is a list: make a tensor of it": lambda s: {**_padded(s), "y": [sample["y"] for sample in s]},
    },
)
def pad_samples(samples):
    return _padded(samples)


def _canvas(images, place=lambda h, w, height, width: (0, 0), square=False):
    height, width = (max(image.shape[d] for image in images) for d in (1, 2))
    if square:
        height = width = max(height, width)
    batch = images[0].new_zeros(len(images), images[0].shape[0], height, width)
    for target, image in zip(batch, images, strict=True):
        h, w = image.shape[1:]
        top, left = place(h, w, height, width)
        target[:, top : top + h, left : left + w] = image
    return batch


def _pad_height_first(images):
    height, width = (max(image.shape[d] for image in images) for d in (1, 2))
    return torch.stack([F.pad(i, (0, height - i.shape[1], 0, width - i.shape[2])) for i in images])


def _photos(*sizes: tuple[int, int], channels: int = 3) -> list[torch.Tensor]:
    return [torch.randint(1, 256, (channels, *size), dtype=torch.uint8) for size in sizes]


@exercise(
    cases=lambda: [
        ([torch.tensor([[[1, 2, 3]]]), torch.tensor([[[4, 5], [6, 7]]])],),
        (_photos((2, 5), (4, 1)),),
        ([photo / 255 for photo in _photos((6, 3), (4, 4), (5, 7))],),
        (_photos((3, 2), channels=1),),
        (_photos((4, 6), (4, 6), (2, 6), (4, 3)),),
    ],
    mistakes={
        "the dtype is lost: make the zeros with images[0].new_zeros, or pass dtype=": lambda images: _canvas(
            images
        ).float(),
        "all is padded to a square; expected: the largest height by the largest width": lambda images: (
            _canvas(images, square=True)
        ),
        "the pictures stand in the middle; expected: in the upper left corner": lambda images: _canvas(
            images, place=lambda h, w, height, width: ((height - h) // 2, (width - w) // 2)
        ),
        "the pictures stand in the lower right corner: F.pad wants (left, right, top, bottom)": (
            lambda images: _canvas(images, place=lambda h, w, height, width: (height - h, width - w))
        ),
        "the padding stands above the pictures: F.pad wants (left, right, top, bottom)": lambda images: (
            _canvas(images, place=lambda h, w, height, width: (height - h, 0))
        ),
        "the padding stands to the left of the pictures: F.pad wants (left, right, top, bottom)": (
            lambda images: _canvas(images, place=lambda h, w, height, width: (0, width - w))
        ),
        "F.pad wants (left, right, top, bottom): the width comes first": _pad_height_first,
        "height and width are exchanged: a picture is (C, height, width)": lambda images: _canvas(
            images
        ).transpose(2, 3),
    },
)
def pad_images(images):
    return _canvas(images)


def _about_batches(answer, lengths, batch_size, generator):
    """bucket_batches(lengths, batch_size, generator)"""
    seed, n = generator.initial_seed(), len(lengths)
    got = answer(lengths, batch_size, generator)
    if not isinstance(got, (list, tuple)):
        return got
    plain = all(isinstance(batch, list) and all(type(i) is int for i in batch) for batch in got)
    got = [list(map(int, batch)) for batch in got]
    used = sorted(itertools.chain.from_iterable(got))
    if used != list(range(n)):
        if used == sorted(lengths):
            why = "the batches hold lengths; expected: indices"
        elif len(set(used)) < len(used):
            why = "an index comes twice: equal lengths share one `.index`; sort the indices instead"
        else:
            why = f"{n - len(used)} of {n} indices are missing: every sample must come, the short batch, too"
        return Result(..., why)

    def batches(generator: torch.Generator) -> list[list[int]]:
        _use_other_random_numbers()
        return [list(map(int, batch)) for batch in answer(lengths, batch_size, generator)]

    def longest(batches: list[list[int]]) -> tuple[int, ...]:
        return tuple(max(lengths[i] for i in batch) for batch in batches)

    orders = [longest(batches(_seeded(seed + i))) for i in range(30)]
    one = _seeded(seed)
    fixed = [place for place, seen in enumerate(zip(*orders, strict=True)) if len(set(seen)) == 1]
    if got != batches(_seeded(seed)) or orders[:5] != [longest(batches(_seeded(seed + i))) for i in range(5)]:
        why = "the random order does not come from the generator: pass generator=generator"
    elif set(orders) == {tuple(sorted(orders[0]))}:
        why = "the batches come in the order of their lengths: shuffle the list of batches"
    elif len(set(orders)) == 1:
        why = "every seed gives the same order: draw from `generator`"
    elif len({longest(batches(one)) for _ in range(10)}) == 1:
        why = "every call gives the same order: draw from the generator itself, not from one with its seed"
    elif fixed:
        why = f"place {fixed[0]} of the list always holds a batch of the same length: shuffle all batches"
    elif len(set(orders)) <= len(got):
        why = "too few orders, as if the list were only rotated: torch.randperm draws from all orders"
    elif not plain:
        why = "the types are others; expected: lists of ints, as .tolist() makes them of a tensor or an array"
    else:
        why = None
    padding = sum(max(lengths[i] for i in b) * len(b) for b in got) - sum(lengths)
    return Result({"sizes of the batches": sorted(map(len, got)), "zeros that pad them": padding}, why)


def _buckets(lengths, batch_size, generator):
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


@exercise(
    cases=lambda: [
        ([9, 2, 8, 3, 7], 2, _seeded()),
        ([5, 1, 4, 2, 6, 3, 8, 7, 12, 11, 10], 3, _seeded(1)),
        (torch.randint(10, 200, (40,)).tolist(), 8, _seeded(2)),
        (torch.randint(1, 4, (30,)).tolist(), 7, _seeded(3)),
    ],
    call=_about_batches,
    mistakes={
        "the samples are not sorted by their lengths, so long and short ones share a batch": lambda n, b, g: (
            _buckets(range(len(n)), b, g)
        ),
        "the longest come first, so the short batch holds the shortest samples: sort upwards": (
            lambda n, b, g: _buckets([-length for length in n], b, g)
        ),
        "the samples were shuffled first and never sorted: similar lengths must share a batch": (
            lambda n, b, g: [batch.tolist() for batch in torch.randperm(len(n), generator=g).split(b)]
        ),
        "a list takes one index, not a tensor of them: [batches[i] for i in …]": lambda n, b, g: _buckets(
            n, b, g
        )[torch.randperm(math.ceil(len(n) / b))],
        "a list takes one index, not a list of them: [batches[i] for i in …]": lambda n, b, g: _buckets(
            n, b, g
        )[[0]],
    },
)
def bucket_batches(lengths, batch_size, generator):
    return _buckets(lengths, batch_size, generator)


def _encode(names, classes, start=0):
    return classes, torch.tensor([classes.index(name) + start for name in names])


@exercise(
    cases=lambda: [
        (["nut", "bottle", "nut", "cable"],),
        (["tile-oil", "tile-crack", "tile-good", "cable-good", "tile-crack", "bottle-good"],),
        (["cable", "Nut", "bottle", "Nut"],),
        (["nut"],),
        ([random.choice(string.ascii_lowercase) for _ in range(60)],),
    ],
    mistakes={
        "the classes stand in the order in which they first appear; sort them": lambda names: _encode(
            names, list(dict.fromkeys(names))
        ),
        "the classes are sorted downwards; expected: from a to z": lambda names: _encode(
            names, sorted(set(names), reverse=True)
        ),
        "a set has no order: make the classes with sorted(set(names))": lambda names: _encode(
            names, list(set(names))
        ),
        "capitals come first in the order of `sorted`: leave out key=": lambda names: _encode(
            names, sorted(set(names), key=str.lower)
        ),
        "a class is listed as often as it appears; expected: once": lambda names: _encode(
            names, sorted(names)
        ),
        "the numbers begin at 1; the first class is 0": lambda names: _encode(names, sorted(set(names)), 1),
        "the indices are a list: make a tensor of them": lambda names: (
            sorted(set(names)),
            _encode(names, sorted(set(names)))[1].tolist(),
        ),
        "the indices come first; expected: (classes, indices)": lambda names: _encode(
            names, sorted(set(names))
        )[::-1],
        "these are the places of the names in sorted order; expected: the place of each name's class": (
            lambda names: (
                sorted(set(names)),
                torch.tensor(sorted(range(len(names)), key=names.__getitem__)),
            )
        ),
    },
)
def encode_labels(names):
    return _encode(names, sorted(set(names)))


class _Watched(DataLoader):
    """A loader of ready-made batches of pictures that knows how it is read."""

    def __init__(self, *batches: torch.Tensor) -> None:
        pictures = [(image, number) for batch in batches for number, image in enumerate(batch)]
        ends = list(itertools.accumulate(map(len, batches)))
        spans = [list(range(end - len(batch), end)) for end, batch in zip(ends, batches, strict=True)]
        super().__init__(pictures, batch_sampler=spans)
        self.passes, self.most = 0, 0

    def __iter__(self) -> Iterator:
        self.passes += 1
        given: list[weakref.ref] = []
        for batch in super().__iter__():
            given.append(weakref.ref(batch[0]))
            self.most = max(self.most, sum(images() is not None for images in given))
            yield batch

    def __repr__(self) -> str:
        images = [self.dataset[span[0]][0] for span in self.batch_sampler]
        shapes = [(len(span), *image.shape) for span, image in zip(self.batch_sampler, images, strict=True)]
        if len(self.dataset) == 3 and len(shapes) == 2:
            first, second, third = (image.tolist() for image, _ in self.dataset)
            return f"loader with a batch of {first} and {second}, and a batch of {third}"
        return f"loader with batches {', '.join(map(str, shapes))}, {str(images[0].dtype)[6:]}"


def _greys(*levels: float) -> list[torch.Tensor]:
    """Batches without spread; so few pixels that the order in which they are added changes no digit.

    A cast to float64 copies nothing here, and each batch can be flattened as a view: who keeps its
    pixels keeps the batch, and `_Watched` notices.
    """
    return [torch.tensor(levels, dtype=torch.float64)[:, None, None].expand(1, -1, 1, 2)] * 5


def _read_well(got, loader) -> str | None:
    if loader.passes == 0:
        return "right, but the loader was never read: use its batches, for images, _ in loader"
    if loader.passes > 1:
        return f"right, but the loader was read {loader.passes} times: keep sums, and read it once"
    if loader.most > 2:
        return f"right, but {loader.most} batches were kept, and they may not fit in memory: keep sums only"
    return None


def _pixels(loader) -> torch.Tensor:
    """All pixels of each channel, (C, number of pixels), in float64."""
    return torch.cat([images.double().transpose(0, 1).flatten(1) for images, _ in loader], dim=1)


def _both(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return pixels.mean(dim=1), pixels.std(dim=1, correction=0)


def _means(loader, *of) -> tuple[torch.Tensor, ...]:
    """The means of what functions make of each batch of images in float64, in one pass."""
    results = [[f(images.double()) for f in of] for images, _ in loader]
    return tuple(torch.cat(values).mean(dim=0) for values in zip(*results, strict=True))


def _mean(x):
    return x.mean(dim=(0, 2, 3))[None]


def _std(x):
    return x.std(dim=(0, 2, 3), correction=0)[None]


def _own_stds(x):
    return x.std(dim=(2, 3), correction=0)


def _var(x):
    return x.var(dim=(0, 2, 3), correction=0)[None]


def _count(x):
    return x.numel() // x.shape[1]


def _within(loader) -> tuple[torch.Tensor, torch.Tensor]:
    """The true mean, and the root of the mean variance within the batches, weighted by their sizes."""
    batches = [images.double() for images, _ in loader]
    sizes = torch.tensor([_count(x) for x in batches]).double()[:, None]
    means, variances = (torch.cat([f(x) for x in batches]) for f in (_mean, _var))
    mean, variance = ((sizes * x).sum(dim=0) / sizes.sum() for x in (means, variances))
    return mean, variance.sqrt()


def _sums(loader, dtype=torch.float64, count=_count, wrap=False, least=0.0) -> tuple[torch.Tensor, ...]:
    """Mean and deviation, by sums, with what can go wrong; `least` is where the variance is clamped."""
    pixels, total, squares = 0, 0.0, 0.0
    for images, _ in loader:
        cast = images.to(dtype)
        pixels += count(images)
        total = total + cast.sum(dim=(0, 2, 3))
        to_square = images if wrap and images.dtype == torch.uint8 else cast
        squares = squares + to_square.square().to(dtype).sum(dim=(0, 2, 3))
    mean = total / pixels
    return tuple(x.double() for x in (mean, (squares / pixels - mean.square()).clamp(min=least).sqrt()))


@exercise(
    cases=lambda: [
        (_Watched(torch.tensor([[[[0.0, 2.0]]], [[[4.0, 10.0]]]]), torch.tensor([[[[6.0, 14.0]]]])),),
        (_Watched(torch.rand(3, 2, 4, 5), torch.rand(3, 2, 4, 5) * 3, torch.rand(1, 2, 4, 5) * 9),),
        (_Watched(torch.rand(2, 3, 4, 5), torch.rand(2, 3, 8, 6) * 2, torch.rand(4, 3, 3, 3)),),
        (_Watched(*(torch.randint(0, n, (4, 3, 6, 5), dtype=torch.uint8) for n in (100, 180, 256, 40))),),
        (_Watched(*(10_000 + torch.randn(6, 2, 7, 9) for _ in range(3))),),
        (_Watched(*_greys(0.11, 0.23, 0.42)),),
    ],
    also=_read_well,
    mistakes={
        "an average over batches counts a small batch as much as a large one: keep sums and a count": (
            lambda loader: _means(loader, _mean, _std)
        ),
        "the mean of the pictures' own deviations leaves out how the pictures differ from each other": (
            lambda loader: _means(loader, _mean, _own_stds)
        ),
        "how the batches differ from each other is missing: keep sums of the squares, not variances": _within,
        "how the batches differ is missing, and a small one counts as much as a large one: keep sums": (
            lambda loader: (lambda mean, var: (mean, var.sqrt()))(*_means(loader, _mean, _var))
        ),
        "the batches' means were averaged, and a small batch counts as much as a large one: divide once": (
            lambda loader: (lambda mean, squares: (mean, (squares - mean.square()).clamp(min=0).sqrt()))(
                *_means(loader, _mean, lambda x: _mean(x.square()))
            )
        ),
        "the count holds all channels: numel() counts a pixel once for each channel": lambda loader: _sums(
            loader, count=torch.Tensor.numel
        ),
        "the count leaves out the number of pictures: a batch has B × H × W pixels": lambda loader: _sums(
            loader, count=lambda x: x[0, 0].numel()
        ),
        "the count leaves out the number of pictures, so a root is NaN: a batch has B × H × W pixels": (
            lambda loader: _sums(loader, count=lambda x: x[0, 0].numel(), least=-math.inf)
        ),
        "the pictures were counted: a batch has B × H × W pixels": lambda loader: _sums(loader, count=len),
        "the pictures were counted, so a root is NaN: a batch has B × H × W pixels": lambda loader: _sums(
            loader, count=len, least=-math.inf
        ),
        "uint8 was divided by 255; expected: the units of the pictures": lambda loader: _sums(
            (x / 255 if x.dtype == torch.uint8 else x, y) for x, y in loader
        ),
        "squares of uint8 wrap around at 256: cast the batch with .double() first": lambda loader: _sums(
            loader, wrap=True
        ),
        "squares of uint8 wrap around at 256, so a root is NaN: cast the batch with .double() first": (
            lambda loader: _sums(loader, wrap=True, least=-math.inf)
        ),
        "that is the variance: its square root is the deviation": lambda loader: (
            lambda mean, std: (mean, std.square())
        )(*_both(_pixels(loader))),
        "the variance was divided by one less than the number of pixels: correction=0": lambda loader: (
            lambda pixels: (pixels.mean(dim=1), pixels.std(dim=1))
        )(_pixels(loader)),
        "one number over all channels; expected: one for each channel": lambda loader: tuple(
            x.squeeze(0) for x in _both(_pixels(loader).reshape(1, -1))
        ),
        "float32 loses too many digits in the sums: cast the batch with .double() first": lambda loader: (
            _sums(loader, torch.float32)
        ),
        "float32 loses too many digits, so a root may be NaN: cast the batch with .double() first": (
            lambda loader: _sums(loader, torch.float32, least=-math.inf)
        ),
        "rounding made the difference negative, and its root NaN: clamp(min=0) before sqrt()": (
            lambda loader: _sums(loader, least=-math.inf)
        ),
        "deviation first, then mean; expected: (mean, std)": lambda loader: _both(_pixels(loader))[::-1],
        "only the first batch was read: return after the loop, not in it": lambda loader: _sums(
            [next(iter(loader))]
        ),
    },
)
def channel_stats(loader):
    return _sums(loader)


def _undo(batch, mean, std):
    return (batch * std[:, None, None] + mean[:, None, None]).clamp(0, 1).float()


@exercise(
    cases=lambda: [
        (
            torch.tensor([[[[-1.0, 0.0]], [[1.0, -2.0]]]]),
            torch.tensor([0.5, 0.6]),
            torch.tensor([0.2, 0.1]),
        ),
        (torch.randn(2, 3, 4, 5), torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.1, 0.2, 0.3])),
        (torch.randn(4, 3, 3, 3), torch.tensor([0.7, 0.5, 0.2]), torch.tensor([0.3, 0.1, 0.2])),
        (torch.randn(3, 3, 2, 6) * 3, torch.rand(3).double(), torch.rand(3).double()),
    ],
    mistakes={
        "mean and std were lined up with the columns: give them two more dimensions, mean[:, None, None]": (
            lambda x, m, s: (x * s + m).clamp(0, 1).float()
        ),
        "mean and std were lined up with the rows: give them two more dimensions, mean[:, None, None]": (
            lambda x, m, s: (x * s[:, None] + m[:, None]).clamp(0, 1).float()
        ),
        "values below 0 or above 1 are left: clamp(0, 1)": lambda x, m, s: (
            x * s[:, None, None] + m[:, None, None]
        ).float(),
        "the mean was added before the multiplication: undo the last step first": lambda x, m, s: (
            ((x + m[:, None, None]) * s[:, None, None]).clamp(0, 1).float()
        ),
        "that divides by std once more: multiply": lambda x, m, s: (
            (x / s[:, None, None] + m[:, None, None]).clamp(0, 1).float()
        ),
        "that normalises once more: multiply by std, then add the mean": lambda x, m, s: (
            ((x - m[:, None, None]) / s[:, None, None]).clamp(0, 1).float()
        ),
        "the dtype is float64 where mean and std are: cast the result with .float()": lambda x, m, s: (
            x * s[:, None, None] + m[:, None, None]
        ).clamp(0, 1),
        "stretched to reach from 0 to 1: clip what lies outside, leave the rest as it is": lambda x, m, s: (
            lambda y: ((y - y.min()) / (y.max() - y.min())).float()
        )(x * s[:, None, None] + m[:, None, None]),
    },
)
def to_pictures(batch, mean, std):
    return _undo(batch, mean, std)


class _View(Dataset):
    """A data set whose samples say where they come from."""

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.name, range(self.size)[index]

    def __repr__(self) -> str:
        return f"<{self.name}: {self.size} samples>"


def _about_split(answer, train_view, plain_view, labels, share, generator):
    """stratified_split(train_view, plain_view, labels, share, generator)"""
    seed = generator.initial_seed()
    got = answer(train_view, plain_view, labels, share, generator)
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        return got
    if not all(isinstance(part, Subset) for part in got):
        return Result(..., "return two Subsets: Subset(train_view, …) and Subset(plain_view, …)")
    if any(isinstance(i, list) or getattr(i, "ndim", 0) for part in got for i in part.indices):
        return Result(..., "an index is a row of its own: nonzero() gives a row for each place; squeeze(1)")
    views, indices = [], []
    for part in got:
        samples = [part[i] for i in range(len(part))]
        views.append(sorted({view for view, _ in samples}))
        indices.append(sorted(index for _, index in samples))

    def validation(generator: torch.Generator) -> list[int]:
        _use_other_random_numbers()
        part = answer(train_view, plain_view, labels, share, generator)[1]
        return sorted(part[i][1] for i in range(len(part)))

    def by_class(indices: list[int]) -> list[int]:
        return labels[indices].bincount(minlength=int(labels.max()) + 1).tolist()

    training, held_out = indices
    sizes = labels.bincount()
    largest = int(sizes.argmax())
    n, k = int(sizes[largest]), int(int(sizes[largest]) * share)
    others = [validation(_seeded(seed + i)) for i in range(n + 20)]
    drawn = {tuple(i for i in other if labels[i] == largest) for other in others}
    one = _seeded(seed)
    again = {tuple(validation(one)) for _ in range(10)}
    both = len(set(training) & set(held_out))
    if len({*training, *held_out}) < len(training + held_out) and max(training + held_out) < n:
        why = "torch.randperm gives positions within the class, not indices: write places[torch.randperm(…)]"
    elif both:
        why = f"{both} samples are in both parts: shuffle the indices of a class once, then cut them in two"
    elif missing := set(range(len(labels))) - set(training) - set(held_out):
        why = f"{len(missing)} samples are in neither part"
        if not set(labels[list(missing)].tolist()) & set(labels[training + held_out].tolist()):
            why += ", since whole classes are left out: labels.unique() gives all of them"
    elif len(training) + len(held_out) > len(labels):
        why = "a sample comes more than once"
    elif len({tuple(by_class(other)) for other in others}) > 1:
        why = "not stratified: the samples were split as a whole, not class by class"
    elif len({tuple(other) for other in others}) == 1:
        why = "every seed gives the same split: shuffle before you cut, by randperm(…, generator=generator)"
    elif held_out != validation(_seeded(seed)):
        why = "the random order does not come from the generator: pass generator=generator"
    elif len(again) == 1:
        why = "every call gives the same split: draw from the generator itself, and do not seed it again"
    elif len(drawn) <= n < math.comb(n, k) // 2:
        why = "each class is only rotated, so neighbours stay together: torch.randperm draws from all orders"
    else:
        why = None
    value = {
        "validation, by class": by_class(held_out),
        "training from": views[0],
        "validation from": views[1],
    }
    return Result(value if by_class(held_out) == _cuts(labels, share) or not why else ..., why)


def _cuts(labels, share) -> list[int]:
    return [int(n * share) for n in labels.bincount().tolist()]


def _split(train_view, plain_view, labels, share, generator, squeeze=(1,), whole=int):
    training, held_out = [], []
    for c in labels.unique():
        places = (labels == c).nonzero().squeeze(*squeeze)
        places = places[torch.randperm(len(places), generator=generator)]
        cut = whole(len(places) * share)
        held_out += places[:cut].tolist()
        training += places[cut:].tolist()
    return Subset(train_view, training), Subset(plain_view, held_out)


def _split_case(labels: torch.Tensor, share: float, seed: int) -> tuple:
    n = len(labels)
    return _View("train_view", n), _View("plain_view", n), labels, share, _seeded(seed)


@exercise(
    cases=lambda: [
        _split_case(torch.tensor([0, 1, 0, 0, 1, 0, 0, 1, 0, 1]), 0.25, 0),
        _split_case(torch.arange(3).repeat_interleave(torch.tensor([7, 12, 5])), 0.25, 1),
        _split_case(torch.arange(4).repeat(10)[torch.randperm(40)], 0.2, 2),
        _split_case(torch.tensor([1] * 9 + [0] * 30), 0.2, 3),
        _split_case(torch.tensor([0] * 8 + [2] + [1] * 12), 0.25, 4),
        _split_case(torch.tensor([2] * 8 + [11] * 12), 0.3, 5),
    ],
    call=_about_split,
    mistakes={
        "validation comes from train_view and would be augmented: take it from plain_view": (
            lambda t, p, y, s, g: _split(t, t, y, s, g)
        ),
        "training comes from plain_view and would not be augmented: take it from train_view": (
            lambda t, p, y, s, g: _split(p, p, y, s, g)
        ),
        "the two parts are exchanged: training first": lambda t, p, y, s, g: _split(t, p, y, s, g)[::-1],
        "the two views are exchanged: training is a Subset of train_view": lambda t, p, y, s, g: _split(
            p, t, y, s, g
        ),
        "a class may have one sample, and squeeze() then leaves no dimension: write squeeze(1)": (
            lambda t, p, y, s, g: _split(t, p, y, s, g, squeeze=())
        ),
        "`round` may go up, and int(len(places) * share) always goes down": lambda t, p, y, s, g: _split(
            t, p, y, s, g, whole=round
        ),
        "1 / share may be no whole number: int(len(places) * share) go to validation": lambda t, p, y, s, g: (
            _split(t, p, y, s, g, whole=lambda part: round(part / s) // int(1 / s))
        ),
        "share is what validation gets, not training": lambda t, p, y, s, g: tuple(
            Subset(view, part.indices) for view, part in zip((t, p), _split(t, p, y, s, g)[::-1], strict=True)
        ),
    },
)
def stratified_split(train_view, plain_view, labels, share, generator):
    return _split(train_view, plain_view, labels, share, generator)


class _Stream:
    """An iterator that knows how many of its items were taken."""

    def __init__(self, items) -> None:
        self.items, self.taken = list(items), 0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        if self.taken == len(self.items):
            raise StopIteration
        self.taken += 1
        return self.items[self.taken - 1]

    def __repr__(self) -> str:
        return f"a stream of {', '.join(map(str, self.items[:6]))}{', …' if len(self.items) > 6 else ''}"


def _handed_on(answer, items, info):
    """share(items, info)"""
    try:
        result = answer(items, info)
        if result is None:
            return None
        result, out, read = iter(result), [], []
        for _ in range(2):
            out += itertools.islice(result, 1)
            read.append(items.taken)
        return {"items": out + list(result), "read for the first and the second": read}
    except (StopIteration, RuntimeError) as error:
        if "StopIteration" not in repr(error):
            raise
        return Result(..., "the stream ended inside your next(): give it a default, or use a `for` loop")


def _by_rounds(items, info):
    workers, worker = (info.num_workers, info.id) if info else (1, 0)
    while part := list(itertools.islice(items, workers)):
        yield from part[worker : worker + 1]


def _dealt(items, info, start=0):
    worker, workers = (info.id, info.num_workers) if info else (0, 1)
    return (item for number, item in enumerate(items, start) if number % workers == worker)


def _blocks(items, info):
    items = list(items)
    worker, workers = (info.id, info.num_workers) if info else (0, 1)
    size = math.ceil(len(items) / workers)
    return iter(items[worker * size : (worker + 1) * size])


def _worker(number: int, of: int) -> SimpleNamespace:
    return SimpleNamespace(id=number, num_workers=of)


@exercise(
    cases=lambda: [
        (_Stream("abcdefg"), _worker(1, 3)),
        (_Stream("abcdefg"), _worker(0, 3)),
        (_Stream("abcde"), None),
        (_Stream("abcdefgh"), _worker(2, 3)),
        (_Stream("ab"), _worker(3, 4)),
        (_Stream(range(2_000)), _worker(1, 2)),
        (_Stream(range(0, 20, 2)), _worker(0, 1)),
    ],
    call=_handed_on,
    mistakes={
        "each worker still gives everything": lambda items, info: (item for item in items),
        "in the main process nothing comes: `return items` in a function with `yield` hands nothing on; "
        "write `yield from items`": lambda items, info: iter(()) if info is None else _dealt(items, info),
        "the items are numbered from 1; worker 0 takes the first": lambda items, info: _dealt(items, info, 1),
        "each worker takes a block; deal the items out in turn, since nobody knows how many will come": (
            _blocks
        ),
        "right items, but the whole stream is read before the first is handed on: it may not fit in memory": (
            lambda items, info: list(_dealt(items, info))
        ),
        "right items, but a whole round is read before one of it is handed on": _by_rounds,
        "the items themselves were divided by the number of workers; their places in the stream count": (
            lambda items, info: (
                item for item in items if info is None or hash(item) % info.num_workers == info.id
            )
        ),
    },
)
def share(items, info):
    return _dealt(items, info)
