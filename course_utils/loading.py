"""What chapter 03 builds around a `DataLoader`: batches of similar lengths, statistics, the device."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader


def length_buckets(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Return all indices in batches of similar lengths, the batches in random order.

    Args:
        lengths: the lengths of the samples, in any unit.
        batch_size: the number of indices in a batch; only that of the longest samples may have fewer.
        generator: draws the order, on the CPU.

    Raises:
        ValueError: batch_size is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"{batch_size=}: give at least 1.")
    by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])
    batches = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def channel_statistics(loader: Iterable[Sequence[torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean and the standard deviation of each channel over all pixels of all images.

    One pass, in the memory of one batch: per channel, the pixels' sum and the sum of their squares
    are kept, in float64.

    Args:
        loader: its batches begin with the images: (B, C, H, W), any dtype; B, H and W may differ
            from batch to batch.

    Returns:
        mean (C,) and std (C,), float64, in the images' own units. The variance is divided by the
        number of pixels, not by one less.

    Raises:
        ValueError: there is no pixel.
    """
    count, total, squares = 0, 0.0, 0.0
    for images, *_ in loader:
        pixels = images.double()
        count += pixels.numel() // pixels.shape[1]
        total = total + pixels.sum(dim=(0, 2, 3))
        squares = squares + pixels.square().sum(dim=(0, 2, 3))
    if count == 0:
        raise ValueError("there are no pixels: is the loader empty, or used up by an earlier loop?")
    mean = total / count
    return mean, (squares / count - mean.square()).clamp(min=0).sqrt()


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
