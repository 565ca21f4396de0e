"""The data sets in worker processes, under every way that Python has to start one."""

import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, StackDataset, Subset

from course_utils.datasets import Digits, Iris, Parts


@pytest.fixture(scope="module")
def everything() -> Dataset:
    """The data sets side by side, so that one start of workers, which takes seconds, tries all of them."""
    sides = {"digits": Digits(), "iris": Iris(), "parts": Parts()}
    return StackDataset(**{name: Subset(side, range(150)) for name, side in sides.items()})


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_workers_give_the_same_batches(everything, start):
    workers = DataLoader(everything, batch_size=40, num_workers=2, multiprocessing_context=start)
    batches = list(workers)
    assert len(batches) == 4
    for batch, expected in zip(batches, DataLoader(everything, batch_size=40), strict=True):
        assert batch.keys() == {"digits", "iris", "parts"}
        for name, (inputs, labels) in batch.items():
            assert torch.equal(inputs, expected[name][0])
            assert torch.equal(labels, expected[name][1])


@pytest.mark.slow
@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("dataset", [Digits, Iris, Parts])
def test_shuffled_epochs_from_workers_that_stay(dataset, start):
    data = dataset()

    def epochs(workers: int) -> list[torch.Tensor]:
        options = {"multiprocessing_context": start, "persistent_workers": True} if workers else {}
        # The loader takes its workers' seeds from its own generator, and not as often when they stay.
        order = RandomSampler(data, generator=torch.Generator().manual_seed(0))
        loader = DataLoader(data, batch_size=64, sampler=order, num_workers=workers, **options)
        return [tensor for _ in range(2) for batch in loader for tensor in batch]

    given, expected = epochs(2), epochs(0)
    assert len(given) == len(expected)
    assert all(map(torch.equal, given, expected))
    assert not torch.equal(given[1], given[len(given) // 2 + 1])  # the second epoch has an order of its own
