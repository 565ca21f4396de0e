"""What the meter costs: `python tests/benchmark_memory.py [--rounds N]`.

A training step of chapter 07's small ResNet: bare, under `MemoryMeter`, and under PyTorch's own
MemTracker where this version has it. What is compared takes turns, so that a machine that is busy for a
while slows down all; the medians of times and of ratios are printed, and the meter's extra time as a share
of the tracker's.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the course that this file belongs to

import torch
import torch.nn.functional as F
from benchmark_notebooks import seconds, take_turns

from course_utils.memory import MemoryMeter, format_bytes, predict_memory
from course_utils.models import ResNet18

try:
    from torch.distributed._tools.mem_tracker import MemTracker
except ImportError:
    MemTracker = None

BATCH, WIDTH, CLASSES, SIDE = 32, 16, 15, 64


def make_step(optimizer: type[torch.optim.Optimizer]) -> tuple[Callable[[], None], list]:
    """A training step, and the things that it uses."""
    torch.manual_seed(0)
    model = ResNet18(CLASSES, width=WIDTH)
    made = optimizer(model.parameters(), 1e-3)
    inputs, targets = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(0, CLASSES, (BATCH,))

    def step() -> None:
        made.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        made.step()

    step()  # what is only paid once
    return step, [model, made]


def compare(optimizer: type[torch.optim.Optimizer], rounds: int, steps: int) -> None:
    """Measure a few steps in each way once a round; print medians."""
    step, things = make_step(optimizer)

    def run(context: AbstractContextManager) -> float:
        def repeat(number: int) -> None:
            for _ in range(number):
                step()
                if context is not plain and not isinstance(context, MemoryMeter):
                    context.reset_mod_stats()  # the tracker wants it between steps

        with context:
            repeat(1)  # the first look at the model is no part of a step
            return seconds(lambda: repeat(steps)) / steps

    def tracker() -> AbstractContextManager:
        made = MemTracker()
        made.track_external(*things)
        return made

    plain = nullcontext()
    ways = {"bare": lambda: run(plain), "MemoryMeter": lambda: run(MemoryMeter("cpu"))}
    if MemTracker is not None:
        ways["torch's MemTracker"] = lambda: run(tracker())
    for way in ways.values():
        way()
    print(f"\n{f'training step, {optimizer.__name__}':<28}{'ms':>9}{'ratio':>8}")
    results = take_turns(ways, rounds, "bare")
    for name, (time_taken, ratio) in results.items():
        print(f"{name:<28}{1000 * time_taken:>9.2f}{ratio:>8.3f}", flush=True)
    if MemTracker is not None:
        ours, theirs = (results[name][1] - 1 for name in ("MemoryMeter", "torch's MemTracker"))
        print(f"{'extra time, ours / theirs':<28}{'':>9}{ours / theirs:>8.3f}")


def predict(rounds: int) -> None:
    """Time the prediction for torchvision's resnet50, two steps of Adam at batch 64."""
    from torchvision.models import resnet50

    def steps() -> None:
        model = resnet50()
        optimizer = torch.optim.Adam(model.parameters())
        for _ in range(2):
            inputs, targets = torch.randn(64, 3, 224, 224), torch.randint(0, 1000, (64,))
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()

    peak = predict_memory(steps, "cpu").peak
    taken = median(seconds(lambda: predict_memory(steps, "cpu")) for _ in range(rounds))
    print(f"\nresnet50, Adam, batch 64: peak {format_bytes(peak)}, predicted in {taken:.2f} s")


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="Time a training step under a memory meter.")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=5, help="in each measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.steps, arguments.threads) < 1:
        parser.error("--rounds, --steps and --threads must be at least 1.")
    torch.set_num_threads(arguments.threads)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; ResNet18({CLASSES}, width={WIDTH}),"
    )
    print(
        f"batches of {BATCH} images of {SIDE} x {SIDE}, {arguments.rounds} rounds of {arguments.steps} steps"
    )
    for optimizer in (torch.optim.SGD, torch.optim.Adam):
        compare(optimizer, arguments.rounds, arguments.steps)
    predict(min(arguments.rounds, 3))


if __name__ == "__main__":
    main()
