"""Loss and accuracy of an epoch, without a wait for the GPU after every batch."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
FETCH = 20  # batches between two looks at the numbers, where each look waits for the GPU
WEIGHTED = (F.cross_entropy, F.nll_loss, nn.CrossEntropyLoss, nn.NLLLoss)  # a mean by their class weights


class Meter:
    """Sums up losses and right answers. On a GPU they stay there until FETCH of them are read at once."""

    def __init__(self, loss_fn: Loss, where: str, device: torch.device) -> None:
        self.ignored = _ignored_target(loss_fn)
        self.where, self.waiting, self.each = where, [], 1 if device.type == "cpu" else FETCH
        self.loss = self.right = 0.0
        self.batches = self.samples = self.answers = 0

    def add(self, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> bool:
        """Note a batch; return whether the sums have just been brought up to date."""
        if loss.ndim:
            raise ValueError(
                f"loss_fn returned shape {tuple(loss.shape)}: the mean over the batch is expected."
            )
        if targets.is_floating_point() or logits.ndim != targets.ndim + 1:
            right, ignored = torch.tensor(math.nan), torch.tensor(False)
        else:
            right = (logits.detach().argmax(1) == targets).sum()
            ignored = (targets == self.ignored).any()
        self.waiting.append((loss.detach(), right, ignored, len(targets), targets.numel()))
        if len(self.waiting) == self.each:
            self.fetch()
        return not self.waiting

    def fetch(self) -> None:
        """Read what waits, and see that each loss is a number."""
        losses, rights, ignored, samples, answers = zip(*self.waiting, strict=True)
        self.waiting = []
        if any(_numbers(ignored)):
            raise ValueError(
                f"{self.where}: the loss ignores targets of {self.ignored}, and such are there, so that its "
                "means have unequal numbers of samples. Leave them out of the data set."
            )
        for loss, size in zip(_numbers(losses), samples, strict=True):
            self.batches += 1
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"{self.where}, batch {self.batches}: the loss is {loss}. Look for NaN in the data, use "
                    "a smaller learning rate, or clip the gradients (max_norm=1.0). The weights may hold NaN "
                    "by now: make the model anew, or load a checkpoint."
                )
            self.loss += loss * size
        self.right += sum(_numbers(rights))
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


def _numbers(tensors: Sequence[torch.Tensor]) -> list[float]:
    """Read tensors of one element with one wait for the GPU; a single one takes the short way."""
    return torch.stack(tensors).tolist() if len(tensors) > 1 else [tensors[0].item()]


def _ignored_target(loss_fn: Loss) -> int:
    """See that a loss is a plain mean, as far as it tells; return the target that it leaves out."""
    given = getattr(loss_fn, "keywords", {})  # of a functools.partial
    options = {
        name: getattr(loss_fn, name, given.get(name)) for name in ("reduction", "weight", "ignore_index")
    }
    if options["reduction"] not in (None, "mean"):
        raise ValueError(
            f"loss_fn has reduction={options['reduction']!r}: the mean over the batch is expected."
        )
    kind = getattr(loss_fn, "func", type(loss_fn))
    if options["weight"] is not None and kind in WEIGHTED:
        raise ValueError(
            "loss_fn has class weights: it divides by their sum in each batch, and such means cannot be "
            "added up. Use lambda logits, targets: (weight[targets] * F.cross_entropy(logits, targets, "
            "reduction='none')).mean()."
        )
    return -100 if options["ignore_index"] is None else options["ignore_index"]
