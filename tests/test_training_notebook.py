"""What chapter 05 builds in its cells is what `course_utils.training` gives: same weights, same rows."""

import ast
import copy
import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from notebook_tools import NOTEBOOKS, code_cells, exercises, read_notebook, tags
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils import training

NB = read_notebook(NOTEBOOKS / "05_training.ipynb")
NAMES = ("evaluate", "train_one_epoch", "fit")


@pytest.fixture(scope="module")
def built() -> dict:
    """The chapter's functions from the cells tagged with their names, and the solution of EarlyStopping."""
    names = {"torch": torch, "nn": nn, "F": F, "copy": copy, "math": math, "np": np}
    names |= {"Callable": Callable, "Iterable": Iterable}
    for name in NAMES:
        (cell,) = (cell for _, cell in code_cells(NB) if name in tags(cell))
        assert [node.name for node in ast.parse(cell.source).body] == [name]
        exec(cell.source, names)
    (exercise,) = (e for e in exercises(NB) if e.names == ["EarlyStopping"])
    exec(exercise.solutions[0], names)
    return names


def loaders(batch_size: int = 7) -> tuple[DataLoader, DataLoader]:
    generator = torch.Generator().manual_seed(0)
    pictures, labels = torch.rand(40, 1, 4, 4, generator=generator), torch.arange(40) % 3
    train, valid = TensorDataset(pictures[:30], labels[:30]), TensorDataset(pictures[30:], labels[30:])
    order = torch.Generator().manual_seed(1)
    return DataLoader(train, batch_size, shuffle=True, generator=order), DataLoader(valid, 4)


def model() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 3)
    )


def trained(fit: Callable, **options) -> tuple[nn.Module, list[dict]]:
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    torch.manual_seed(3)  # dropout
    history = fit(network, *loaders(), optimizer, epochs=2, **options)
    return network, getattr(history, "rows", history)


def test_fit_is_the_package_s(built: dict) -> None:
    (mine, rows), (theirs, package_rows) = trained(built["fit"]), trained(training.fit)
    for (name, tensor), other in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name
    assert rows == [{key: row[key] for key in rows[0]} for row in package_rows]
    assert set(package_rows[0]) - set(rows[0]) == {"seconds"}


def test_train_one_epoch_and_evaluate_are_the_package_s(built: dict) -> None:
    results = []
    for source in (built, vars(training)):
        network = model()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        torch.manual_seed(3)
        train = source["train_one_epoch"](network, loaders()[0], optimizer)
        network.eval()
        results.append((train, source["evaluate"](network, loaders()[1]), network.training))
        network.train()
        source["evaluate"](network, loaders()[1])
        assert network.training
    assert results[0] == results[1]


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_early_stopping_is_the_package_s(built: dict, patience: int) -> None:
    generator = torch.Generator().manual_seed(patience)
    for _ in range(50):
        values = torch.randint(5, (8,), generator=generator).tolist()
        both = []
        for kind in (built["EarlyStopping"], training.EarlyStopping):
            network, stopping, stops = model(), kind(patience), []
            for value in values:
                with torch.no_grad():
                    network[-1].bias += 1
                stops.append(stopping.step(float(value), network))
            stopping.restore(network)
            both.append((stops, stopping.best, network[-1].bias.tolist()))
        assert both[0] == both[1]
