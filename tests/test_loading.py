"""Channel statistics against the textbook's formula in float64, and batches that arrive on the device."""

import weakref

import pytest
import torch
from notebook_tools import NOTEBOOKS, code_cells, read_notebook
from torch.utils.data import DataLoader, TensorDataset

from course_utils.loading import DeviceLoader, channel_statistics, length_buckets

NOTEBOOK = NOTEBOOKS / "03_datasets_and_dataloaders.ipynb"


def _reference(batches):
    pixels = torch.cat([batch.double().transpose(0, 1).flatten(1) for batch in batches], dim=1)
    return pixels.mean(dim=1), pixels.std(dim=1, correction=0)


@pytest.mark.parametrize(
    "batches",
    [
        [torch.rand(4, 3, 8, 6), torch.rand(4, 3, 8, 6), torch.rand(1, 3, 8, 6)],
        [torch.rand(2, 1, 5, 7), torch.rand(3, 1, 9, 2)],
        [torch.randint(0, 256, (4, 3, 8, 6), dtype=torch.uint8) for _ in range(3)],
        [10_000 + torch.randn(6, 2, 7, 9) for _ in range(4)],
        [torch.full((7, 1, 9, 11), 0.11)],  # rounding makes the variance negative
    ],
    ids=["a small last batch", "sizes", "uint8", "large mean", "no spread"],
)
def test_statistics_are_exact(batches):
    mean, std = channel_statistics((batch, None) for batch in batches)  # a generator: one pass
    expected_mean, expected_std = _reference(batches)
    assert mean.dtype == std.dtype == torch.float64
    torch.testing.assert_close(mean, expected_mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(std, expected_std, rtol=1e-6, atol=1e-7)


def test_statistics_of_unit_pictures_agree_to_twelve_digits():
    images = torch.rand(100, 3, 16, 16)
    mean, std = channel_statistics(DataLoader(TensorDataset(images), batch_size=7))
    expected_mean, expected_std = _reference([images])
    torch.testing.assert_close(mean, expected_mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(std, expected_std, rtol=0, atol=1e-12)


def test_statistics_keep_no_batch():
    given, most = [], 0

    def batches():
        nonlocal most
        for _ in range(10):
            images = torch.rand(2, 3, 4, 4)
            given.append(weakref.ref(images))
            most = max(most, sum(batch() is not None for batch in given))
            yield images, None

    channel_statistics(batches())
    assert most <= 2  # the new one, and the one that the loop still names


@pytest.mark.parametrize("size", [0, -1])
def test_buckets_of_no_size(size):
    with pytest.raises(ValueError, match=f"batch_size={size}: give at least 1"):
        length_buckets([3, 1, 2], size, torch.Generator())


def test_no_pixels():
    with pytest.raises(ValueError, match="no pixels"):
        channel_statistics([])


def _notebooks_loader():
    """The class DeviceLoader as the chapter writes it."""
    (source,) = (c.source for _, c in code_cells(read_notebook(NOTEBOOK)) if "class DeviceLoader" in c.source)
    namespace = {"DataLoader": DataLoader, "torch": torch}
    exec("from collections.abc import Iterator\n" + source[: source.index("\nraw = ")], namespace)
    return namespace["DeviceLoader"]


@pytest.mark.parametrize("make", [DeviceLoader, _notebooks_loader], ids=["package", "notebook"])
def test_device_loader(make):
    kind = make if make is DeviceLoader else make()
    data = TensorDataset(torch.arange(10.0)[:, None], torch.arange(10))
    ready = kind(DataLoader(data, batch_size=4), torch.device("meta"))
    assert len(ready) == 3
    for _ in range(2):  # each loop is an epoch of its own
        batches = list(ready)
        assert [tuple(x.shape) for x, _ in batches] == [(4, 1), (4, 1), (2, 1)]
        assert {tensor.device.type for batch in batches for tensor in batch} == {"meta"}
        assert {type(batch) for batch in batches} == {tuple}
    prepared = kind(DataLoader(data, batch_size=4), torch.device("cpu"), lambda x, y: (x * 2, y))
    x, y = next(iter(prepared))
    assert x.flatten().tolist() == [0, 2, 4, 6]
    assert y.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("make", [DeviceLoader, _notebooks_loader], ids=["package", "notebook"])
def test_copies_to_the_device_do_not_block(make):
    kind = make if make is DeviceLoader else make()

    class Batch:
        def to(self, device, non_blocking=False):
            return device, non_blocking

    assert list(kind([[Batch()]], torch.device("cuda"))) == [((torch.device("cuda"), True),)]


def test_buckets_hold_each_index_once_and_neighbours_in_length() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 2, 8, 3, 7]
    orders = [length_buckets(lengths, 2, generator) for _ in range(30)]
    assert all(sorted(batches) == [[0], [1, 3], [4, 2]] for batches in orders)
    assert len({str(batches) for batches in orders}) == 6
