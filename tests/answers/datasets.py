"""Answers to the exercises of chapter 03: wrong ones with a phrase that the verdict holds, and right ones.

Each is what a learner might well write. The right ones differ from the solution in the notebook.
"""

import itertools
import random

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Subset, random_split


def read_flower_of(row, classes, features, label):
    return features(row), label(classes.index(row["species"]))


def floats(row):
    return torch.tensor([float(row[column]) for column in row if column != "species"])


def pop_the_species(row, classes):
    label = classes.index(row.pop("species"))
    return torch.tensor([float(v) for v in row.values()]), torch.tensor(label)


def copy_and_pop(row, classes):
    row = dict(row)
    label = torch.tensor(classes.index(row.pop("species")))
    return torch.tensor(list(map(float, row.values()))), label


def whatever_is_a_number(row, classes):
    features = []
    for value in row.values():
        try:
            features.append(float(value))
        except ValueError:
            continue
    return torch.tensor(features), torch.tensor(classes.index(row["species"]))


def whatever_is_not_the_species(row, classes):
    features = [float(text) for text in row.values() if text != row["species"]]
    return torch.tensor(features), torch.tensor(classes.index(row["species"]))


def whole_where_they_can_be(row, classes):
    texts = [text for column, text in row.items() if column != "species"]
    features = [float(text) if "." in text else int(float(text)) for text in texts]
    return torch.tensor(features), torch.tensor(classes.index(row["species"]))


class WindowsOfLists(Dataset):
    def __init__(self, series, size):
        self.samples = [(series[i : i + size], series[i + size]) for i in range(len(series) - size)]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


class WindowsByUnfold:
    def __init__(self, series, size):
        self.windows = series.unfold(0, size + 1, 1)

    def __len__(self):
        return self.windows.shape[0]

    def __getitem__(self, index):
        return self.windows[index, :-1], self.windows[index, -1]


class WindowsWithoutLength(Dataset):
    def __init__(self, series, size):
        self.series, self.size = series, size

    def __len__(self): ...

    def __getitem__(self, index):
        return self.series[index : index + self.size], self.series[index + self.size]


class WindowsTooLong(WindowsWithoutLength):
    def __len__(self):
        return len(self.series)


class WindowsOneTooLong(WindowsWithoutLength):
    def __len__(self):
        return len(self.series) - self.size + 1


class WindowsWithOldTarget(WindowsWithoutLength):
    def __len__(self):
        return len(self.series) - self.size

    def __getitem__(self, index):
        return self.series[index : index + self.size], self.series[index + self.size - 1]


class WindowsWithFloats(WindowsWithOldTarget):
    def __getitem__(self, index):
        return self.series[index : index + self.size], self.series[index + self.size].item()


class DisjointWindows(WindowsWithOldTarget):
    def __len__(self):
        return (len(self.series) - 1) // self.size

    def __getitem__(self, index):
        start = index * self.size
        return self.series[start : start + self.size], self.series[start + self.size]


class WindowsWithoutSelf(WindowsWithOldTarget):
    def __getitem__(self, index):
        return self.series[index : index + size], self.series[index + size]  # noqa: F821


class WindowsBySlice(WindowsWithOldTarget):
    def __getitem__(self, index):
        window = self.series[index : index + self.size + 1]
        return window[:-1], window[-1]


class WindowsByRemainder(WindowsBySlice):
    def __getitem__(self, index):
        return super().__getitem__(index % len(self))


class WindowsThatCount(WindowsByRemainder):
    def __iter__(self):
        return (self[i] for i in range(len(self)))


class WindowsOnTheClass(WindowsWithOldTarget):
    def __init__(self, series, size):
        type(self).series, type(self).size = series, size

    def __getitem__(self, index):
        return self.series[index : index + self.size], self.series[index + self.size]


class WindowsInARing(WindowsWithOldTarget):
    def __getitem__(self, index):
        return self.series[index : index + self.size], self.series[(index + self.size) % len(self.series)]


class WindowsOfNumbers(WindowsWithOldTarget):
    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        numbers = self.series.tolist()
        return torch.tensor(numbers[index : index + self.size]), torch.tensor(numbers[index + self.size])


def by_counter(samples, batch_size, epochs, drop_last):
    steps = 0
    for _ in range(epochs):
        left = samples
        while left >= batch_size or (left > 0 and not drop_last):
            left -= batch_size
            steps += 1
    return steps


def by_range(samples, batch_size, epochs, drop_last):
    starts = range(0, samples - (batch_size - 1 if drop_last else 0), batch_size)
    return epochs * len(starts)


def weights_by_loop(labels, shares):
    return torch.tensor([float(shares[c]) / int((labels == c).sum()) for c in labels])


def weights_as_list(labels, shares):
    counts = labels.bincount()
    return [1000 * float(shares[c] / counts[c]) for c in labels.tolist()]


def weights_by_unique(labels, shares):
    _, counts = labels.unique(return_counts=True)
    return shares[labels] / counts[labels]


def weights_per_class(labels, shares):
    return shares / labels.bincount(minlength=len(shares))


def padded(samples, x, mask=None):
    lengths = torch.tensor([len(s["X"]) for s in samples])
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    return {"X": x, "y": torch.tensor([s["y"] for s in samples]), "mask": real if mask is None else mask}


def pad_by_sequence(samples):
    return padded(samples, pad_sequence([s["X"] for s in samples], batch_first=True))


def pad_by_copy(samples, dtype=None):
    longest = max(s["X"].shape[0] for s in samples)
    x = torch.zeros(len(samples), longest, samples[0]["X"].shape[1], dtype=dtype)
    mask = torch.zeros(len(samples), longest, dtype=torch.bool)
    for i, s in enumerate(samples):
        x[i, : len(s["X"])] = s["X"]
        mask[i, : len(s["X"])] = True
    return {"X": x, "y": torch.tensor([s["y"] for s in samples]), "mask": mask}


def pad_pair(samples):
    first, second = samples
    longest = max(len(first["X"]), len(second["X"]))
    x = torch.stack([F.pad(s["X"], (0, 0, 0, longest - len(s["X"]))) for s in (first, second)])
    return padded(samples, x)


def pad_features(samples):
    longest = max(len(s["X"]) for s in samples)
    return padded(samples, torch.stack([F.pad(s["X"], (0, longest - len(s["X"]))) for s in samples]))


def pad_first_two(samples):
    return pad_by_sequence([samples[0], samples[1]])


def pad_with_flat_lengths(samples):
    batch = pad_by_sequence(samples)
    lengths = torch.tensor([len(s["X"]) for s in samples])
    return {**batch, "mask": torch.arange(batch["X"].shape[1]) < lengths}


def pad_without_mask(samples):
    batch = pad_by_sequence(samples)
    return {"X": batch["X"], "y": batch["y"]}


def pad_with_nonzero_mask(samples):
    batch = pad_by_sequence(samples)
    return {**batch, "mask": batch["X"].abs().sum(-1) > 0}


def pad_steps_first(samples):
    return padded(samples, pad_sequence([s["X"] for s in samples]))


def images_by_pad(images):
    h, w = max(i.shape[-2] for i in images), max(i.shape[-1] for i in images)
    return torch.stack([F.pad(i, (0, w - i.shape[-1], 0, h - i.shape[-2])) for i in images])


def images_centred(images):
    h, w = max(i.shape[-2] for i in images), max(i.shape[-1] for i in images)
    batch = images[0].new_zeros(len(images), images[0].shape[0], h, w)
    for k, i in enumerate(images):
        top, left = (h - i.shape[1]) // 2, (w - i.shape[2]) // 2
        batch[k, :, top : top + i.shape[1], left : left + i.shape[2]] = i
    return batch


def images_as_float(images):
    h, w = max(i.shape[-2] for i in images), max(i.shape[-1] for i in images)
    batch = torch.zeros(len(images), images[0].shape[0], h, w)
    for k, i in enumerate(images):
        batch[k, :, : i.shape[1], : i.shape[2]] = i
    return batch


def images_of_first_size(images):
    h, w = images[0].shape[-2:]
    return torch.stack([F.pad(i, (0, w - i.shape[-1], 0, h - i.shape[-2])) for i in images])


def images_top_first(images):
    h, w = max(i.shape[-2] for i in images), max(i.shape[-1] for i in images)
    return torch.stack([F.pad(i, (0, h - i.shape[-2], 0, w - i.shape[-1])) for i in images])


def images_by_numpy_loop(images):
    h = max([image.size(1) for image in images])
    w = max([image.size(2) for image in images])
    rows = [torch.cat([i, i.new_zeros(i.size(0), h - i.size(1), i.size(2))], dim=1) for i in images]
    return torch.stack([torch.cat([i, i.new_zeros(i.size(0), h, w - i.size(2))], dim=2) for i in rows])


def buckets(lengths, batch_size):
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def buckets_by_argsort(lengths, batch_size, generator):
    pieces = list(torch.tensor(lengths).argsort().split(batch_size))
    return [pieces[int(i)].tolist() for i in torch.randperm(len(pieces), generator=generator)]


def buckets_of_tensors(lengths, batch_size, generator):
    pieces = torch.tensor(lengths).argsort().split(batch_size)
    return [pieces[i] for i in torch.randperm(len(pieces), generator=generator)]


def buckets_of_lists_of_tensors(lengths, batch_size, generator):
    return [list(batch) for batch in buckets_of_tensors(lengths, batch_size, generator)]


def buckets_by_pop(lengths, batch_size, generator):
    batches, mixed = buckets(lengths, batch_size), []
    while batches:
        mixed.append(batches.pop(int(torch.randint(len(batches), (1,), generator=generator))))
    return mixed


def buckets_with_the_rest_last(lengths, batch_size, generator):
    *batches, last = buckets(lengths, batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)] + [last]


def buckets_rotated(lengths, batch_size, generator):
    batches = buckets(lengths, batch_size)
    start = int(torch.randint(0, len(batches), (1,), generator=generator))
    return batches[start:] + batches[:start]


def buckets_by_a_new_generator(lengths, batch_size, generator):
    return buckets_by_argsort(lengths, batch_size, torch.Generator().manual_seed(generator.initial_seed()))


def buckets_by_index(lengths, batch_size, generator):
    order = [lengths.index(x) for x in sorted(lengths)]
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def buckets_by_tensor_index(lengths, batch_size, generator):
    batches = buckets(lengths, batch_size)
    return batches[torch.randperm(len(batches), generator=generator)]


def buckets_by_list_index(lengths, batch_size, generator):
    batches = buckets(lengths, batch_size)
    return batches[torch.randperm(len(batches), generator=generator).tolist()]


def buckets_with_one_swap(lengths, batch_size, generator):
    batches = buckets(lengths, batch_size)
    i = int(torch.randint(len(batches), (1,), generator=generator))
    batches[0], batches[i] = batches[i], batches[0]
    return batches


def buckets_in_order(lengths, batch_size, generator):
    return buckets(lengths, batch_size)


def buckets_by_python_random(lengths, batch_size, generator):
    batches = buckets(lengths, batch_size)
    random.shuffle(batches)
    return batches


def buckets_without_rest(lengths, batch_size, generator):
    batches = [b for b in buckets(lengths, batch_size) if len(b) == batch_size]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def buckets_of_lengths(lengths, batch_size, generator):
    ordered = sorted(lengths)
    return [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]


def buckets_shuffled_inside(lengths, batch_size, generator):
    order = torch.randperm(len(lengths), generator=generator).tolist()
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def buckets_downwards(lengths, batch_size, generator):
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


def encode_by_unique(names):
    classes = []
    for name in sorted(names):
        if name not in classes:
            classes.append(name)
    return classes, torch.tensor([classes.index(name) for name in names])


def encode_by_counting(names):
    classes = sorted(set(names))
    return classes, torch.tensor([sum(c < name for c in classes) for name in names])


def encode_as(names, classes):
    return classes, torch.tensor([classes.index(name) for name in names])


def encode_by_appearance(names):
    classes = []
    for name in names:
        if name not in classes:
            classes.append(name)
    return classes, torch.tensor([classes.index(name) for name in names])


def stats_by_integer_sums(loader):
    n, s, q = 0, 0, 0
    for images, _ in loader:
        x = images.to(torch.float64).permute(1, 0, 2, 3).flatten(1)
        n, s, q = n + x.shape[1], s + x.sum(1), q + (x * x).sum(1)
    return s / n, torch.sqrt(torch.clamp(q / n - (s / n) ** 2, min=0.0))


def stats_of_the_dataset(loader):
    return stats_by_integer_sums((image[None], label) for image, label in loader.dataset)


def stats_by_merging(loader):
    count, mean, spread = 0, 0.0, 0.0
    for images, _ in loader:
        x = images.double()
        n = x.numel() // x.shape[1]
        m, v = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
        delta = m - mean
        mean = mean + delta * n / (count + n)
        spread = spread + v * n + delta**2 * count * n / (count + n)
        count += n
    return mean, (spread / count).sqrt()


def stats_of_everything(loader):
    x = torch.cat([images.double().transpose(0, 1).flatten(1) for images in [b[0] for b in list(loader)]], 1)
    return x.mean(1), x.std(1, correction=0)


def stats_of_cast_pixels(loader):
    pixels = []
    for images, _ in loader:
        pixels.append(images.double().transpose(0, 1).flatten(1))
    pixels = torch.cat(pixels, dim=1)
    return pixels.mean(dim=1), pixels.std(dim=1, correction=0)


def stats_by_sums(loader, count=lambda x: x.numel() // x.shape[1], cast=torch.Tensor.double, least=None):
    n, s, q = 0, 0, 0
    for images, _ in loader:
        x = cast(images)
        n, s, q = n + count(x), s + x.sum((0, 2, 3)), q + (x * x).sum((0, 2, 3))
    variance = q / n - (s / n) ** 2
    return s / n, (variance if least is None else variance.clamp(min=least)).sqrt()


def stats_of_mean_variances(loader):
    n, s, v = 0, 0, 0
    for images, _ in loader:
        x = images.double()
        m = x.numel() // x.shape[1]
        n, s, v = n + m, s + x.sum((0, 2, 3)), v + m * x.var((0, 2, 3), correction=0)
    return s / n, (v / n).sqrt()


def stats_of_mean_squares(loader, least=None):
    both = [(x.double().mean((0, 2, 3)), x.double().square().mean((0, 2, 3))) for x, _ in loader]
    mean, squares = (torch.stack(values).mean(0) for values in zip(*both, strict=True))
    variance = squares - mean**2
    return mean, (variance if least is None else variance.clamp(min=least)).sqrt()


def stats_in_two_passes(loader):
    n = sum(x.numel() // x.shape[1] for x, _ in loader)
    mean = sum(x.double().sum(dim=(0, 2, 3)) for x, _ in loader) / n
    var = sum((x.double() - mean[:, None, None]).square().sum(dim=(0, 2, 3)) for x, _ in loader) / n
    return mean, var.sqrt()


def stats_of_means_in_two_passes(loader):
    mean = torch.stack([x.double().mean(dim=(0, 2, 3)) for x, _ in loader]).mean(0)
    squares = [(x.double() - mean[:, None, None]).square().mean(dim=(0, 2, 3)) for x, _ in loader]
    return mean, torch.stack(squares).mean(0).sqrt()


def stats_cast_after_the_sums(loader):
    n, s, q = 0, 0, 0
    for x, _ in loader:
        n += x.numel() // x.shape[1]
        s, q = s + x.sum((0, 2, 3)).double(), q + x.square().sum((0, 2, 3)).double()
    return s / n, (q / n - (s / n) ** 2).sqrt()


def stats_of_means(loader):
    means = torch.stack([x.double().mean(dim=(0, 2, 3)) for x, _ in loader])
    return means.mean(0), means.std(0, correction=0)


def stats_of_batches(loader):
    both = [(x.double().mean((0, 2, 3)), x.double().std((0, 2, 3), correction=0)) for x, _ in loader]
    means, stds = zip(*both, strict=True)
    return torch.stack(means).mean(0), torch.stack(stds).mean(0)


def stats_in_float32(loader):
    n, s, q = 0, 0, 0
    for images, _ in loader:
        x = images.float()
        n, s, q = n + x.numel() // x.shape[1], s + x.sum((0, 2, 3)), q + (x * x).sum((0, 2, 3))
    return (s / n).double(), (q / n - (s / n) ** 2).sqrt().double()


def stats_without_a_root(loader):
    mean, std = stats_by_integer_sums(loader)
    return mean, std**2


def stats_that_square_uint8(loader):
    n, s, q = 0, 0, 0
    for images, _ in loader:
        n += images.numel() // images.shape[1]
        s = s + images.double().sum((0, 2, 3))
        q = q + images.square().double().sum((0, 2, 3))
    return s / n, (q / n - (s / n) ** 2).sqrt()


def undo_by_loop(batch, mean, std):
    result = torch.empty_like(batch)
    for c in range(len(mean)):
        result[:, c] = (batch[:, c] * std[c].item() + mean[c].item()).clamp(0, 1)
    return result


def undo_by_view(batch, mean, std):
    m, s = mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)
    return torch.clip(batch * s + m, min=0.0, max=1.0).to(torch.float32)


def undo_in_place(batch, mean, std):
    return batch.mul_(std[:, None, None]).add_(mean[:, None, None]).clamp_(0, 1)


def split_by_class(train_view, plain_view, labels, share, generator, own=None, validation_view=None):
    training, validation = [], []
    for c in range(int(labels.max()) + 1):
        places = [i for i, label in enumerate(labels.tolist()) if label == c]
        order = torch.randperm(len(places), generator=own or generator).tolist()
        cut = int(share * len(places))
        validation += [places[i] for i in order[:cut]]
        training += [places[i] for i in order[cut:]]
    return Subset(train_view, training), Subset(validation_view or plain_view, validation)


def split_of_classes(classes, cut=lambda n, share: int(n * share)):
    """Make an answer for `stratified_split` that goes over classes(labels) and holds out cut(n, share)."""

    def answer(train_view, plain_view, labels, share, generator):
        training, validation = [], []
        for c in classes(labels):
            places = (labels == c).nonzero().squeeze(1)
            places = places[torch.randperm(len(places), generator=generator)].tolist()
            first = cut(len(places), share)
            validation += places[:first]
            training += places[first:]
        return Subset(train_view, training), Subset(plain_view, validation)

    return answer


def split_by_walking(train_view, plain_view, labels, share, generator):
    wanted = {c: int(n * share) for c, n in enumerate(labels.bincount().tolist())}
    training, validation = [], []
    for i in torch.randperm(len(labels), generator=generator).tolist():
        c = int(labels[i])
        if wanted[c] > 0:
            validation.append(i)
            wanted[c] -= 1
        else:
            training.append(i)
    return Subset(train_view, training), Subset(plain_view, validation)


def split_as_a_whole(train_view, plain_view, labels, share, generator):
    order = torch.randperm(len(labels), generator=generator).tolist()
    cut = int(len(labels) * share)
    return Subset(train_view, order[cut:]), Subset(plain_view, order[:cut])


def split_of_one_view(train_view, plain_view, labels, share, generator):
    return split_by_class(train_view, plain_view, labels, share, generator, validation_view=train_view)


def split_with_the_global_generator(train_view, plain_view, labels, share, generator):
    training, validation = [], []
    for c in labels.unique():
        places = (labels == c).nonzero().squeeze(1)
        places = places[torch.randperm(len(places))].tolist()
        cut = int(len(places) * share)
        validation, training = validation + places[:cut], training + places[cut:]
    return Subset(train_view, training), Subset(plain_view, validation)


def split_with_a_fixed_seed(train_view, plain_view, labels, share, generator):
    return split_by_class(train_view, plain_view, labels, share, torch.Generator().manual_seed(0))


def split_with_its_seed(train_view, plain_view, labels, share, generator):
    own = torch.Generator().manual_seed(generator.initial_seed())
    return split_by_class(train_view, plain_view, labels, share, own)


def split_with_a_new_start(train_view, plain_view, labels, share, generator):
    training, validation = [], []
    for c in labels.unique():
        places = (labels == c).nonzero().squeeze(1)
        generator.manual_seed(generator.initial_seed())
        places = places[torch.randperm(len(places), generator=generator)].tolist()
        cut = int(len(places) * share)
        validation, training = validation + places[:cut], training + places[cut:]
    return Subset(train_view, training), Subset(plain_view, validation)


def split_with_bare_squeeze(train_view, plain_view, labels, share, generator):
    training, validation = [], []
    for c in labels.unique():
        places = (labels == c).nonzero().squeeze()
        places = places[torch.randperm(len(places), generator=generator)].tolist()
        cut = int(len(places) * share)
        validation, training = validation + places[:cut], training + places[cut:]
    return Subset(train_view, training), Subset(plain_view, validation)


def split_by_rotation(train_view, plain_view, labels, share, generator):
    training, validation = [], []
    for c in labels.unique():
        places = (labels == c).nonzero().squeeze(1)
        places = places.roll(int(torch.randint(len(places), (1,), generator=generator))).tolist()
        cut = int(len(places) * share)
        validation, training = validation + places[:cut], training + places[cut:]
    return Subset(train_view, training), Subset(plain_view, validation)


def split_in_variants(train_view, plain_view, labels, share, generator, change):
    training, validation = [], []
    for c in labels.unique():
        places = (labels == c).nonzero()
        order = torch.randperm(len(places), generator=generator)
        places = {"rows": places[order], "lists": places[order].tolist(), "positions": order.tolist()}[change]
        cut = int(len(places) * share)
        validation, training = [*validation, *places[:cut]], [*training, *places[cut:]]
    return Subset(train_view, training), Subset(plain_view, validation)


def split_shuffled_after(train_view, plain_view, labels, share, generator):
    training, validation = [], []
    for c in labels.unique():
        places = (labels == c).nonzero().squeeze(1)
        cut = int(len(places) * share)
        for part, half in ((validation, places[:cut]), (training, places[cut:])):
            part += half[torch.randperm(len(half), generator=generator)].tolist()
    return Subset(train_view, training), Subset(plain_view, validation)


def split_rounded(train_view, plain_view, labels, share, generator):
    training, validation = [], []
    for c in labels.unique():
        places = (labels == c).nonzero().squeeze(1)
        places = places[torch.randperm(len(places), generator=generator)].tolist()
        cut = round(len(places) * share)
        validation, training = validation + places[:cut], training + places[cut:]
    return Subset(train_view, training), Subset(plain_view, validation)


def split_by_random_split(train_view, plain_view, labels, share, generator):
    training, validation = random_split(range(len(labels)), [1 - share, share], generator=generator)
    return Subset(train_view, training.indices), Subset(plain_view, validation.indices)


def split_of_indices(train_view, plain_view, labels, share, generator):
    parts = split_by_class(train_view, plain_view, labels, share, generator)
    return parts[0].indices, parts[1].indices


def share_with_yield_from(items, info):
    if info is None:
        yield from items
        return
    for position, item in enumerate(items):
        if (position - info.id) % info.num_workers == 0:
            yield item


def share_by_islice(items, info):
    return itertools.islice(items, info.id, None, info.num_workers) if info else items


def share_in_a_list(items, info):
    return list(items)[info.id :: info.num_workers] if info else list(items)


def share_in_blocks(items, info):
    items = list(items)
    if info is None:
        return items
    size = -(-len(items) // info.num_workers)
    return items[info.id * size : (info.id + 1) * size]


def share_without_main(items, info):
    for position, item in enumerate(items):
        if position % info.num_workers == info.id:
            yield item


def share_from_one(items, info):
    for position, item in enumerate(items, 1):
        if info is None or position % info.num_workers == info.id:
            yield item


def share_with_return(items, info):
    if info is None:
        return items
    for position, item in enumerate(items):
        if position % info.num_workers == info.id:
            yield item


def share_by_next(items, info):
    worker, workers = (info.id, info.num_workers) if info else (0, 1)
    for _ in range(worker):
        next(items)
    while True:
        yield next(items)
        for _ in range(workers - 1):
            next(items)


def share_by_rounds(items, info):
    worker, workers = (info.id, info.num_workers) if info else (0, 1)
    part = []
    for item in items:
        part.append(item)
        if len(part) == workers:
            yield part[worker]
            part = []
    if len(part) > worker:
        yield part[worker]


WRONG = {
    "read_flower": [
        (
            lambda row, classes: read_flower_of(dict(sorted(row.items())), classes, floats, torch.tensor),
            "keep the row's order",
        ),
        (whatever_is_a_number, "may look like a number"),
        (pop_the_species, "changes its argument `row` in place"),
        (
            lambda row, classes: (
                torch.tensor([float(v) for v in list(row.values())[:-1]]),
                torch.tensor(classes.index(row["species"])),
            ),
            "the species need not be the last column",
        ),
        (
            lambda row, classes: (floats(row), torch.tensor(classes.index(row["species"]) + 1)),
            "counts from 1",
        ),
        (lambda row, classes: (floats(row), classes.index(row["species"])), "make a tensor of it, too"),
        (
            lambda row, classes: (floats(row), torch.tensor([classes.index(row["species"])])),
            "its shape is (1,)",
        ),
        (
            lambda row, classes: (
                torch.tensor([v for c, v in row.items() if c != "species"]),
                torch.tensor(0),
            ),
            "float(text) makes a number of one",
        ),
        (lambda row, classes: (floats(row).double(), torch.tensor(classes.index(row["species"]))), "float64"),
        (
            lambda row, classes: (floats(row), torch.tensor(sorted(classes).index(row["species"]))),
            "sorted first",
        ),
        (whatever_is_not_the_species, "may have the value of the species"),
        (whole_where_they_can_be, "dtype is torch.int64, not torch.float32"),
    ],
    "Windows": [
        (DisjointWindows, "window i begins at reading i"),
        (WindowsWithoutLength, "error     TypeError"),
        (WindowsTooLong, "that of the series"),
        (WindowsOneTooLong, "no reading after it"),
        (WindowsWithOldTarget, "take the one that follows it"),
        (WindowsWithFloats, "an int, not a tensor"),
        (WindowsBySlice, "a `for` loop does not stop after the last sample"),
        (WindowsByRemainder, "raise IndexError from index len(self) on"),
        (WindowsThatCount, "raise IndexError from index len(self) on"),
        (WindowsOnTheClass, "not in the class"),
        (WindowsInARing, "raise IndexError from index len(self) on"),
        (WindowsWithoutSelf, "NameError: name 'size' is not defined"),
        (lambda series, size: series.unfold(0, size, 1), "check 1 of 4"),
        (WindowsOfNumbers, "dtype is torch.float32, not torch.float64"),
    ],
    "iterations": [
        (lambda n, b, e, d: e * (-(-n // b) - int(d)), "nothing is dropped where the last batch is full"),
        (lambda n, b, e, d: e * (n // b), "the short last batch counts as well"),
        (lambda n, b, e, d: e * (n // b + 1), "check 2 of 7"),
        (lambda n, b, e, d: e * (n // b if d else n // b + 1), "although the last batch is full"),
        (lambda n, b, e, d: n * e // b if d else -(-n * e // b), "its own short batch"),
        (lambda n, b, e, d: -(-n // b) if not d else n // b, "all epochs together"),
        (lambda n, b, e, d: e * -(-n // b), "drop_last makes no difference"),
        (lambda n, b, e, d: e * n / b, "round up"),
        (lambda n, b, e, d: e * round(n / b), "check"),
    ],
    "sampling_weights": [
        (weights_as_list, "make a tensor"),
        (lambda y, s: -(s / y.bincount(minlength=len(s)))[y], "weights must not be negative"),
        (lambda y, s: (100 * s / y.bincount(minlength=len(s)))[y].long(), "expected float"),
        (lambda y, s: s[y], "divide it among them"),
        (lambda y, s: 1 / y.bincount()[y], "multiply by the share"),
        (weights_per_class, "check"),
        (lambda y, s: s[y] * y.bincount()[y], "divide by the class's count"),
        (lambda y, s: torch.ones(len(y)), "weigh the same"),
        (lambda y, s: (s / y.bincount())[y], "a class may have no sample"),
        (lambda y, s: float(s[0]), "of type float"),
        (weights_by_unique, "unique leaves out a class without a sample"),
    ],
    "pad_samples": [
        (pad_by_copy, "the dtype of X is lost"),
        (pad_pair, "not only two"),
        (pad_first_two, "only the first two samples are used"),
        (pad_features, "the columns were padded"),
        (pad_with_flat_lengths, "lengths[:, None]"),
        (pad_without_mask, "the keys are"),
        (pad_with_nonzero_mask, "make the mask from the lengths"),
        (pad_steps_first, "its shape is"),
        (lambda s: padded(s, pad_by_sequence(s)["X"], ~pad_by_sequence(s)["mask"]), "inverted"),
        (lambda s: pad_by_sequence(s)["X"], "it returns a tensor, not a dict"),
        (lambda s: {**pad_by_sequence(s), "mask": pad_by_sequence(s)["mask"].long()}, "dtype is torch.int64"),
        (lambda s: {**pad_by_sequence(s), "y": torch.tensor([float(t["y"]) for t in s])}, "y is float"),
    ],
    "pad_images": [
        (images_centred, "upper left corner"),
        (images_as_float, "the dtype is lost"),
        (images_of_first_size, "its shape is"),
        (images_top_first, "the width comes first"),
        (lambda images: torch.stack(images), "error     RuntimeError"),
        (lambda images: images_by_pad(images).transpose(2, 3), "exchanged"),
        (lambda images: list(images_by_pad(images)), "it returns a list, not a tensor"),
    ],
    "bucket_batches": [
        (buckets_with_the_rest_last, "place 2 of the list always holds"),
        (buckets_rotated, "only rotated"),
        (buckets_by_a_new_generator, "every call gives the same order"),
        (buckets_by_index, "an index comes twice"),
        (buckets_in_order, "shuffle the list of batches"),
        (buckets_by_python_random, "pass generator=generator"),
        (buckets_without_rest, "every sample must come"),
        (buckets_of_lengths, "the batches hold lengths"),
        (buckets_shuffled_inside, "similar lengths must share a batch"),
        (buckets_downwards, "sort upwards"),
        (buckets_by_tensor_index, "not a tensor of them"),
        (buckets_by_list_index, "not a list of them"),
        (buckets_with_one_swap, "too few orders"),
        (lambda n, b, g: buckets_by_argsort(n, b, None), "pass generator=generator"),
        (lambda n, b, g: buckets_by_argsort(n, b, torch.Generator().manual_seed(1)), "every seed gives"),
        (lambda n, b, g: torch.tensor(n).argsort().split(b), "in the order of their lengths"),
        (buckets_of_tensors, "expected: lists of ints"),
        (buckets_of_lists_of_tensors, "expected: lists of ints"),
    ],
    "encode_labels": [
        (lambda names: encode_as(names, list(set(names))), "a set has no order"),
        (lambda names: encode_as(names, sorted(set(names), key=str.lower)), "capitals come first"),
        (encode_by_appearance, "in which they first appear"),
        (
            lambda names: (sorted(names), torch.tensor([sorted(names).index(n) for n in names])),
            "expected: once",
        ),
        (
            lambda names: (sorted(set(names)), [sorted(set(names)).index(n) for n in names]),
            "make a tensor of them",
        ),
        (lambda names: (set(names), torch.tensor([0] * len(names))), "a set, not a list"),
        (
            lambda names: (
                sorted(set(names)),
                torch.tensor([sorted(set(names)).index(n) + 1 for n in names]),
            ),
            "the first class is 0",
        ),
        (lambda names: torch.tensor([sorted(set(names)).index(n) for n in names]), "a tensor, not a tuple"),
        (
            lambda names: (
                sorted(set(names)),
                torch.tensor([float(sorted(set(names)).index(n)) for n in names]),
            ),
            "dtype is torch.float32",
        ),
    ],
    "channel_stats": [
        (stats_of_cast_pixels, "5 batches were kept"),
        (stats_by_sums, "clamp(min=0) before sqrt()"),
        (stats_of_mean_variances, "how the batches differ from each other is missing"),
        (stats_of_mean_squares, "a small batch counts as much"),
        (lambda loader: stats_of_mean_squares(loader, least=0), "a small batch counts as much"),
        (lambda loader: stats_by_sums(loader, count=torch.numel), "holds all channels"),
        (lambda loader: stats_by_sums(loader, count=lambda x: x.shape[2] * x.shape[3]), "number of pictures"),
        (
            lambda loader: stats_by_sums(
                loader, cast=lambda x: x.double() / (255 if x.dtype == torch.uint8 else 1)
            ),
            "divided by 255",
        ),
        (stats_of_everything, "batches were kept"),
        (stats_in_two_passes, "was read 3 times"),
        (stats_of_means, "check"),
        (stats_of_means_in_two_passes, "a small batch counts as much"),
        (stats_cast_after_the_sums, "wrap around at 256"),
        (lambda loader: stats_by_sums(loader, count=len), "the pictures were counted, so a root is NaN"),
        (lambda loader: stats_by_sums(loader, count=len, least=0), "the pictures were counted: a batch has"),
        (stats_of_batches, "keep sums and a count"),
        (stats_in_float32, "float32 loses too many digits"),
        (stats_without_a_root, "its square root"),
        (stats_that_square_uint8, "wrap around at 256"),
        (lambda loader: tuple(x.float() for x in stats_by_integer_sums(loader)), "dtype is torch.float32"),
        (lambda loader: stats_by_integer_sums([next(iter(loader))]), "only the first batch"),
        (stats_of_the_dataset, "the loader was never read"),
    ],
    "to_pictures": [
        (lambda x, m, s: (x * s[:, None] + m[:, None]).clamp(0, 1).float(), "lined up with the rows"),
        (lambda x, m, s: (x * s + m).clamp(0, 1), "lined up with the columns"),
        (lambda x, m, s: (x * s[:, None, None] + m[:, None, None]).float(), "clamp(0, 1)"),
        (
            lambda x, m, s: ((x + m[:, None, None]) * s[:, None, None]).clamp(0, 1).float(),
            "undo the last step first",
        ),
        (undo_in_place, "changes its argument `batch` in place"),
        (lambda x, m, s: (x / s[:, None, None] + m[:, None, None]).clamp(0, 1).float(), "multiply"),
        (lambda x, m, s: (x * s[:, None, None] + m[:, None, None]).clamp(0, 1), "dtype is float64"),
        (lambda x, m, s: undo_by_view(x, m, s).permute(0, 2, 3, 1), "its shape is"),
    ],
    "stratified_split": [
        (split_with_bare_squeeze, "write squeeze(1)"),
        (split_by_rotation, "only rotated"),
        (split_by_random_split, "not stratified"),
        (split_as_a_whole, "not class by class"),
        (split_of_one_view, "would be augmented"),
        (split_with_the_global_generator, "pass generator=generator"),
        (split_with_its_seed, "every call gives the same split"),
        (split_with_a_new_start, "every call gives the same split"),
        (split_with_a_fixed_seed, "every seed gives the same split"),
        (split_of_indices, "return two Subsets"),
        (lambda *a: split_in_variants(*a, change="rows"), "squeeze(1)"),
        (lambda *a: split_in_variants(*a, change="lists"), "squeeze(1)"),
        (lambda *a: split_in_variants(*a, change="positions"), "positions within the class"),
        (split_shuffled_after, "before you cut"),
        (split_rounded, "always goes down"),
        (lambda t, p, y, s, g: split_by_class(t, p, y, s, g)[::-1], "training first"),
        (lambda t, p, y, s, g: split_by_class(t, p, y, 1 - s, g), "check"),
        (
            lambda t, p, y, s, g: (split_by_class(t, p, y, s, g)[0], split_by_class(t, p, y, s, g)[1]),
            "samples are in both parts",
        ),
        (split_of_classes(lambda labels: range(len(labels.unique()))), "whole classes are left out"),
        (split_of_classes(lambda labels: range(10)), "whole classes are left out"),
        (
            split_of_classes(torch.unique, lambda n, share: n // int(1 / share)),
            "1 / share may be no whole number",
        ),
    ],
    "share": [
        (share_with_return, "write `yield from items`"),
        (share_by_next, "the stream ended inside your next()"),
        (share_by_rounds, "a whole round is read"),
        (share_in_a_list, "may not fit in memory"),
        (share_in_blocks, "deal the items out in turn"),
        (share_without_main, "error     AttributeError"),
        (share_from_one, "numbered from 1"),
        (lambda items, info: iter(items), "still gives everything"),
        (lambda items, info: next(iter(items)), "check 1 of 7"),
    ],
}

RIGHT = {
    "read_flower": [
        copy_and_pop,
        lambda row, classes: read_flower_of(row, classes, floats, lambda i: torch.tensor(i)),
        lambda row, classes: (
            torch.tensor([float(row[c]) for c in row if c != "species"], dtype=torch.float32),
            torch.tensor([name == row["species"] for name in classes]).long().argmax(),
        ),
    ],
    "Windows": [WindowsOfLists, WindowsByUnfold],
    "iterations": [by_counter, by_range, lambda n, b, e, d: e * (n // b if d else (n + b - 1) // b)],
    "sampling_weights": [
        weights_by_loop,
        lambda y, s: s.double()[y] / y.bincount()[y],
    ],
    "pad_samples": [pad_by_sequence, lambda s: pad_by_copy(s, s[0]["X"].dtype)],
    "pad_images": [images_by_pad, images_by_numpy_loop],
    "bucket_batches": [buckets_by_argsort, buckets_by_pop],
    "encode_labels": [encode_by_unique, encode_by_counting],
    "channel_stats": [
        stats_by_integer_sums,
        stats_by_merging,
        lambda loader: stats_by_sums(loader, least=0),
    ],
    "to_pictures": [undo_by_loop, undo_by_view],
    "stratified_split": [split_by_class, split_by_walking],
    "share": [share_with_yield_from, share_by_islice],
}
