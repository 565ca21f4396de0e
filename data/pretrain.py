"""Make data/surfaces.safetensors: the small ResNet-18 of chapter 07, trained on drawn surfaces.

    python data/pretrain.py

The source pictures come from surfaces.py and are drawn while the training runs: batch i has the seed i,
so none is seen twice and every run sees the same. Three questions are trained at once, with a part of
the logits each: which outline, which finish, which condition. One thread, on the CPU: other numbers of
threads sum in another order, and end in slightly other weights.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from surfaces import CONDITIONS, FINISHES, HEADS, OUTLINES, draw
from torch import nn
from tqdm import tqdm

from course_utils.models import ResNet18

# What decides the weights, and is told in the file.
TRAINING = {"seed": 0, "steps": 8000, "batch": 80, "rate": 4e-3, "warm-up": 0.12, "weight decay": 0.05}
MEAN, STD = 0.5, 0.25  # of the network's input, from pixels of 0 to 1
HELD_OUT = range(10_000_000, 10_000_050)  # seeds of batches that no step draws
FILE = Path(__file__).with_name("surfaces.safetensors")


def network() -> nn.Module:
    """Return the network as it is before the training."""
    torch.manual_seed(TRAINING["seed"])
    return ResNet18(sum(HEADS), width=16)


def train(model: nn.Module, steps: int = TRAINING["steps"]) -> Iterator[float]:
    """Train by the first `steps` steps; yield the loss of each after it is done."""
    rate, warm_up, decay = (TRAINING[name] for name in ("rate", "warm-up", "weight decay"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=TRAINING["steps"], pct_start=warm_up
    )
    for step in range(steps):
        pictures, labels = draw(TRAINING["batch"], seed=step)
        loss = sum(F.cross_entropy(logits, labels[:, i]) for i, logits in enumerate(answers(model, pictures)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.item()


def answers(model: nn.Module, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the logits of outline, finish and condition for pictures (N, 3, 64, 64) uint8."""
    return model((pictures / 255 - MEAN) / STD).split(HEADS, dim=1)


@torch.inference_mode()
def accuracy(model: nn.Module) -> dict[str, float]:
    """Return the share of right answers on held-out pictures, by question."""
    model.eval()
    right = torch.zeros(len(HEADS))
    for seed in HELD_OUT:
        pictures, labels = draw(TRAINING["batch"], seed)
        guesses = torch.stack([logits.argmax(1) for logits in answers(model, pictures)], dim=1)
        right += (guesses == labels).float().mean(0)
    return dict(zip(("outline", "finish", "condition"), (right / len(HELD_OUT)).tolist(), strict=True))


def main() -> None:
    torch.set_num_threads(1)
    model, losses = network(), []
    for loss in (progress := tqdm(train(model), total=TRAINING["steps"])):
        losses.append(loss)
        progress.set_postfix(loss=f"{loss:.2f}", refresh=False)
    half = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    model.load_state_dict(half)  # the accuracy is that of the rounded weights
    metadata = {
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "classes": {"outline": list(OUTLINES), "finish": FINISHES, "condition": CONDITIONS},
        "accuracy": {name: round(value, 4) for name, value in accuracy(model).items()},
        "training": TRAINING,
        "first losses": losses[:10],
    }
    # One entry, since safetensors writes several in any order.
    save_file(half, FILE, metadata={"about": json.dumps(metadata)})
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes, held-out accuracy {metadata['accuracy']}")


if __name__ == "__main__":
    main()
