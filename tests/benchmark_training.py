"""What the comfort costs: `python tests/benchmark_training.py [--rounds N]`.

`fit` against a bare loop that does the same work, and against Lightning's Trainer where it is
installed; `save_checkpoint` of 100 MB against `torch.save`. What is compared takes turns, so that a
machine that is busy for a while slows down all; the medians of times and of ratios are printed.
"""

import argparse
import gc
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["TQDM_DISABLE"] = "1"  # Lightning's bar is off, too; read when tqdm is imported

import torch
import torch.nn.functional as F
from benchmark_notebooks import seconds, take_turns
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.checkpoints import save_checkpoint
from course_utils.datasets import Digits
from course_utils.training import fit

try:
    import lightning
except ImportError:
    lightning = None

BATCH, TRAINING = 32, 1500


def make() -> tuple[nn.Module, torch.optim.Optimizer, DataLoader, DataLoader]:
    """A small CNN, its optimizer, and loaders of the digits, the same each time."""
    torch.manual_seed(0)
    images, labels = Digits().tensors
    train, valid = (
        TensorDataset(images[part], labels[part]) for part in (slice(TRAINING), slice(TRAINING, None))
    )
    layers = (
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    model = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    return model, optimizer, DataLoader(train, BATCH, shuffle=True), DataLoader(valid, 256)


def bare(epochs: int) -> None:
    """The loop as one writes it by hand, with the loss and the accuracy of training and validation."""
    model, optimizer, train, valid = make()
    for _ in range(epochs):
        model.train()
        total = right = count = 0
        for inputs, targets in train:
            optimizer.zero_grad()
            logits = model(inputs)
            loss = F.cross_entropy(logits, targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)
            right += (logits.argmax(1) == targets).sum().item()
            count += len(targets)
        model.eval()
        total = right = count = 0
        with torch.no_grad():
            for inputs, targets in valid:
                logits = model(inputs)
                total += F.cross_entropy(logits, targets).item() * len(targets)
                right += (logits.argmax(1) == targets).sum().item()
                count += len(targets)


def ours(epochs: int) -> None:
    """The same by `fit`."""
    model, optimizer, train, valid = make()
    fit(model, train, valid, optimizer, epochs=epochs)


def by_lightning(epochs: int) -> None:
    """The same by Lightning's Trainer, with all that it does beside training switched off."""

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.made, self.train_batches, self.valid_batches = make()

        def step(self, batch: list[torch.Tensor], name: str) -> torch.Tensor:
            inputs, targets = batch
            logits = self.model(inputs)
            loss = F.cross_entropy(logits, targets)
            accuracy = (logits.argmax(1) == targets).float().mean()
            values = {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
            self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(targets))
            return loss

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            return self.step(batch, "train")

        def validation_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            return self.step(batch, "valid")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return self.made

    module = Module()
    off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, num_sanity_val_steps=0, **dict.fromkeys(off, False)
    )
    trainer.fit(module, module.train_batches, module.valid_batches)


def savers(folder: Path) -> dict[str, Callable[[], None]]:
    """Ways to save 100 MB."""
    state = {f"layer{i}": torch.randn(2_500_000) for i in range(10)}

    def forced() -> None:
        with (folder / "forced.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    def anew() -> None:
        (folder / "new.pt").unlink(missing_ok=True)
        torch.save(state, folder / "new.pt")

    return {
        "torch.save over the old file": lambda: torch.save(state, folder / "plain.pt"),
        "torch.save to a new file": anew,
        "torch.save over the old, fsync": forced,
        "save_checkpoint": lambda: save_checkpoint(folder / "ours.pt", state),
    }


def table(title: str, functions: dict[str, Callable[[], object]], rounds: int, base: str) -> None:
    """Measure each function once a round, and print medians of times and of ratios to `base`."""

    def timed(function: Callable[[], object]) -> float:
        gc.collect()
        return seconds(function)

    for function in functions.values():
        function()  # what is only paid once
    turns = {name: lambda function=function: timed(function) for name, function in functions.items()}
    print(f"\n{title:<34}{'seconds':>9}{'ratio':>8}")
    for name, (time_taken, ratio) in take_turns(turns, rounds, base).items():
        print(f"{name:<34}{time_taken:>9.3f}{ratio:>8.3f}", flush=True)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="Time fit and save_checkpoint against simpler ways.")
    parser.add_argument("--rounds", type=int, default=9, help="of training; twice as many for saving")
    parser.add_argument("--epochs", type=int, default=0, help="of each training; default: about 1.5 s")
    parser.add_argument("--folder", type=Path, help="where to save; default: a temporary folder")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1.")

    torch.set_num_threads(1)  # of more, a busy machine makes noise, and so small a model no use
    bare(1)
    epochs = arguments.epochs or max(2, round(1.5 / (seconds(lambda: bare(3)) / 3)))
    runs: dict[str, Callable[[], object]] = {
        "bare loop": lambda: bare(epochs),
        "course_utils.training.fit": lambda: ours(epochs),
    }
    if lightning is None:
        print("Lightning is not installed: it is left out.")
    else:
        warnings.simplefilter("ignore")
        for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        runs[f"Lightning {lightning.__version__}"] = lambda: by_lightning(epochs)
    steps = -(-TRAINING // BATCH)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {epochs} epochs of {steps} steps")
    table("training", runs, arguments.rounds, "bare loop")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        table("saving 100 MB", savers(Path(folder)), 2 * arguments.rounds, "torch.save over the old file")


if __name__ == "__main__":
    main()
