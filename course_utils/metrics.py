"""Loss and accuracy of an epoch, without making the GPU wait after every batch."""

import math
from collections.abc import Callable

import torch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
FETCH = 20  # batches between two looks at the numbers: each look waits for the GPU


class Meter:
    """Sums up losses and right answers. They stay on the device until FETCH of them are read at once."""

    def __init__(self, loss_fn: Loss, where: str) -> None:
        keywords = getattr(loss_fn, "keywords", {})  # of a functools.partial
        reduction = getattr(loss_fn, "reduction", keywords.get("reduction", "mean"))
        if reduction != "mean":
            raise ValueError(f"loss_fn has reduction={reduction!r}: the mean over the batch is expected.")
        self.where, self.waiting = where, []
        self.loss = self.right = 0.0
        self.batches = self.samples = self.answers = 0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> bool:
        """Note a batch; return whether the sums have just been brought up to date."""
        if loss.ndim:
            raise ValueError(
                f"loss_fn returned shape {tuple(loss.shape)}: the mean over the batch is expected."
            )
        if targets.is_floating_point() or logits.ndim != targets.ndim + 1:
            right = torch.tensor(math.nan)
        else:
            right = (logits.detach().argmax(1) == targets).sum()
        self.waiting.append((loss.detach(), right, len(targets), targets.numel()))
        if len(self.waiting) == FETCH:
            self.fetch()
        return not self.waiting

    def fetch(self) -> None:
        """Read what waits, and see that each loss is a number."""
        losses, rights, samples, answers = zip(*self.waiting, strict=True)
        self.waiting = []
        for loss, size in zip(torch.stack(losses).tolist(), samples, strict=True):
            self.batches += 1
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"{self.where}, batch {self.batches}: the loss is {loss}. Look for NaN in the data, use "
                    "a smaller learning rate, or clip the gradients (max_norm=1.0). The weights may hold NaN "
                    "by now: make the model anew, or load a checkpoint."
                )
            self.loss += loss * size
        self.right += torch.stack(rights).sum().item()
        self.samples += sum(samples)
        self.answers += sum(answers)

    def means(self) -> tuple[float, float]:
        """The mean loss per sample and the accuracy."""
        if self.waiting:
            self.fetch()
        if not self.samples:
            raise ValueError(
                f"{self.where}: the loader gave no batch. Is the data set empty, or smaller than a batch "
                "with drop_last=True, or the loader an iterator that is used up?"
            )
        return self.loss / self.samples, self.right / self.answers
