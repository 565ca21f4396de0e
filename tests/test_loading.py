"""Batches that arrive on the device."""

import pytest
import torch
from notebook_tools import NOTEBOOKS, code_cells, read_notebook
from torch.utils.data import DataLoader, TensorDataset

from course_utils.loading import DeviceLoader

NOTEBOOK = NOTEBOOKS / "03_datasets_and_dataloaders.ipynb"


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
