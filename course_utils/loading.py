"""What chapter 03 builds around a `DataLoader`, and chapter 05 uses: batches that arrive on the device."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader


class DeviceLoader:
    """A loader whose batches arrive on the device, ready for the model.

    Args:
        loader: gives batches that are tuples or lists of tensors.
        device: where the batches go.
        prepare: called with a batch's tensors, on the device; it returns what the loop is to see.
    """

    def __init__(
        self, loader: DataLoader, device: torch.device, prepare: Callable[..., Any] | None = None
    ) -> None:
        self.loader, self.device, self.prepare = loader, device, prepare

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            # non_blocking: a copy from pinned memory runs while the CPU goes on
            moved = tuple(tensor.to(self.device, non_blocking=True) for tensor in batch)
            yield self.prepare(*moved) if self.prepare else moved
