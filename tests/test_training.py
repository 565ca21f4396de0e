"""Training: equal to the bare loop, to the big batch, and to itself after a stop; clear where it refuses."""

import functools
import io
import math
import os
import signal
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, ReduceLROnPlateau, StepLR
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

from course_utils.training import EarlyStopping, History, evaluate, fit, train_one_epoch

DEVICE = torch.device(os.environ.get("COURSE_DEVICE") or "cpu")


def data(size: int = 50, dtype: torch.dtype = torch.float32) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(size, 5, generator=generator, dtype=torch.float64).to(dtype)
    return TensorDataset(inputs, (inputs.sum(dim=1) > 0).long() + (inputs[:, 0] > 1).long())


def network(dtype: torch.dtype = torch.float32, *more: nn.Module) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), *more, nn.Linear(8, 3)).to(DEVICE, dtype)


def run(epochs: int = 2, model: nn.Module | None = None, loader=None, **options):
    """Fit the small network on the small data; return it and the history."""
    model = network() if model is None else model
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(model.parameters(), 0.1)
    batches = DataLoader(data(), 8) if loader is None else loader
    history = fit(model, batches, DataLoader(data(), 16), optimizer, epochs=epochs, **options)
    return model, history


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).cpu()


class Batches(list):
    """Batches of the given sizes, cut from the data in order."""

    def __init__(self, sizes: list[int], dtype: torch.dtype = torch.float64) -> None:
        inputs, targets = data(sum(sizes), dtype).tensors
        super().__init__(zip(inputs.split(sizes), targets.split(sizes), strict=True))


# What is drawn


def test_a_run_draws_one_bar_which_is_closed_at_its_end(monkeypatch):
    bars, names = [], []

    class Bar(tqdm):
        def __init__(self, **options):
            super().__init__(**options | {"file": io.StringIO(), "disable": False})
            bars.append(self)

        def set_description(self, desc=None, refresh=True):
            names.append(desc)
            super().set_description(desc, refresh)

    monkeypatch.setattr("course_utils.training.tqdm", Bar)
    run(epochs=2)
    assert names == ["epoch 1/2", "epoch 1/2, validation", "epoch 2/2", "epoch 2/2, validation"]
    assert (len(bars), bars[0].n, bars[0].total) == (1, 4, 4)  # the last validation's batches
    assert bars[0] not in Bar._instances


# What is computed


def test_fit_is_the_bare_loop_to_the_bit():
    model, expected = network(torch.float32, nn.Dropout(0.5)), []
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    scheduler = StepLR(optimizer, 1, 0.5)
    loader = DataLoader(data(), 8, shuffle=True, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    for _ in range(3):
        model.train()
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs.to(DEVICE)), targets.to(DEVICE)).backward()
            optimizer.step()
        scheduler.step()
        model.eval()
        with torch.no_grad():  # the loader draws a random number, which the next dropout feels
            batches = [[tensor.to(DEVICE) for tensor in batch] for batch in DataLoader(data(), 16)]
            losses = [F.cross_entropy(model(x), y, reduction="sum").item() for x, y in batches]
        expected.append(sum(losses) / 50)

    ours = network(torch.float32, nn.Dropout(0.5))
    optimizer = torch.optim.Adam(ours.parameters(), 0.01)
    loader.generator.manual_seed(1)
    torch.manual_seed(2)
    _, history = run(3, ours, loader, optimizer=optimizer, scheduler=StepLR(optimizer, 1, 0.5))
    assert torch.equal(weights(ours), weights(model))
    assert history["valid_loss"] == pytest.approx(expected, rel=1e-6)
    assert history["lr"] == [0.01, 0.005, 0.0025]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize(
    ("sizes", "accumulate"),
    [([8, 8, 8, 8], 2), ([8, 8, 8, 3], 2), ([8, 8, 8, 8, 8], 3), ([4, 9, 1, 7, 2], 2), ([5], 4), ([6, 2], 1)],
)
def test_accumulation_is_the_big_batch(sizes, accumulate, max_norm, scaled):
    if scaled and DEVICE.type == "mps":
        pytest.skip("MPS has no float64")
    single = DEVICE.type == "mps"
    dtype = torch.float32 if single else torch.float64
    small = Batches(sizes, dtype)
    groups = [small[i : i + accumulate] for i in range(0, len(small), accumulate)]
    big = [tuple(torch.cat(parts) for parts in zip(*group, strict=True)) for group in groups]
    results = []
    for batches, count in ((big, 1), (small, accumulate)):
        model = network(dtype)
        optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9)
        scaler = torch.amp.GradScaler(DEVICE.type, init_scale=1024.0) if scaled and count > 1 else None
        train_one_epoch(model, batches, optimizer, accumulate=count, max_norm=max_norm, scaler=scaler)
        results.append(weights(model))
    torch.testing.assert_close(*results, rtol=0, atol=1e-5 if single else 1e-12)


def test_gradients_are_clipped_to_the_norm_as_they_are_without_the_scale():
    norms = []
    for scaler in (None, torch.amp.GradScaler(DEVICE.type, init_scale=2.0**12)):
        model = network()
        before = weights(model)
        train_one_epoch(
            model,
            Batches([50], torch.float32),
            torch.optim.SGD(model.parameters(), 1.0),
            max_norm=0.01,
            scaler=scaler,
        )
        norms.append((weights(model) - before).norm().item())
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


def test_loss_and_accuracy_are_per_sample_with_a_short_last_batch():
    model, (inputs, targets) = network(), (tensor.to(DEVICE) for tensor in data().tensors)
    frozen = torch.optim.SGD(model.parameters(), 0.0)
    with torch.no_grad():
        logits = model(inputs)
    expected = F.cross_entropy(logits, targets).item(), (logits.argmax(1) == targets).float().mean().item()
    for loader in (DataLoader(data(), 8), DataLoader(data(), 49), Batches([1, 2, 47], torch.float32)):
        assert evaluate(model, loader) == pytest.approx(expected, rel=1e-5)
        assert train_one_epoch(model, loader, frozen) == pytest.approx(expected, rel=1e-5)


def test_accuracy_of_pixels_and_of_no_classes():
    model = nn.Conv2d(2, 3, 1).to(DEVICE)
    images, labels = torch.randn(4, 2, 5, 6), torch.randint(3, (4, 5, 6))
    right = (model(images.to(DEVICE)).argmax(1).cpu() == labels).float().mean().item()
    assert evaluate(model, [(images, labels)])[1] == pytest.approx(right)
    loss, accuracy = evaluate(
        nn.Linear(5, 1).to(DEVICE), [(torch.randn(4, 5), torch.randn(4, 1))], F.mse_loss
    )
    assert loss > 0
    assert math.isnan(accuracy)


def test_accuracy_is_exact_beyond_what_a_float32_counts():
    class Guess(nn.Module):
        def forward(self, inputs):
            return torch.zeros(1, 1, 1).expand(1, 2, inputs.shape[1])  # class 0

    batches = [
        (torch.zeros(1, 1).expand(1, size), torch.zeros(1, 1).long().expand(1, size)) for size in (2**24, 1)
    ]
    assert evaluate(Guess(), batches, lambda logits, targets: torch.zeros(()))[1] == 1.0


class Waits(TorchDispatchMode):
    """Counts how often a number is read from a tensor, for which a GPU must have computed it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_a_batch_waits_once_for_the_gpu():
    model = network()
    with Waits() as waits:
        train_one_epoch(model, Batches([8] * 5, torch.float32), torch.optim.SGD(model.parameters(), 0.1))
    assert waits.count == 5 + 1  # each loss, and at the end the right answers
    with Waits() as waits:
        evaluate(model, Batches([8] * 5, torch.float32))
    assert waits.count == 5 + 1


def test_a_scaler_adds_one_wait():
    model, scaler = network(), torch.amp.GradScaler(DEVICE.type)
    with Waits() as waits:
        train_one_epoch(
            model, Batches([8] * 5, torch.float32), torch.optim.SGD(model.parameters(), 0.1), scaler=scaler
        )
    assert waits.count == 2 * 5 + 1  # its own: was a gradient infinite?


def test_an_autocast_around_stays():
    class Seen(nn.Linear):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            seen.append(outputs.dtype)
            return outputs

    seen, model = [], Seen(5, 3).to(DEVICE)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        evaluate(model, DataLoader(data(8), 8))
    evaluate(model, DataLoader(data(8), 8))
    assert seen == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype):
    seen = set()

    def loss_fn(logits, targets):
        seen.add(logits.dtype)
        return F.cross_entropy(logits, targets)

    scaler = torch.amp.GradScaler(DEVICE.type) if dtype == torch.float16 else None
    _, history = run(3, loss_fn=loss_fn, amp_dtype=dtype, scaler=scaler, max_norm=1.0)
    assert seen == {dtype}
    assert history["train_loss"][2] < history["train_loss"][0]


def test_evaluation_keeps_no_graph():
    def loss_fn(logits, targets):
        assert not logits.requires_grad
        return F.cross_entropy(logits, targets)

    evaluate(network(), DataLoader(data(), 8), loss_fn)


def test_fit_clips():
    model = network()
    before = weights(model)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    run(1, model, loader=Batches([50], torch.float32), optimizer=optimizer, max_norm=0.01)
    assert (weights(model) - before).norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("sizes", [[1, 256], [256, 1], [8, 8, 8]])
def test_no_loss_is_scaled_up_while_gradients_are_summed(sizes):
    seen = []

    def loss_fn(logits, targets):
        loss = F.cross_entropy(logits, targets)
        loss.register_hook(lambda gradient: seen.append(gradient.item()))
        return loss

    model = network(torch.float64)
    train_one_epoch(
        model, Batches(sizes), torch.optim.SGD(model.parameters(), 0.1), loss_fn, accumulate=len(sizes)
    )
    assert len(seen) == len(sizes)
    assert max(seen) <= 1  # the scale of float16 may leave no room for more


# Modes


def test_modes_are_kept():
    model = network(torch.float32, nn.BatchNorm1d(8), nn.Dropout())
    model.train()[2].eval()
    frozen, modes = model[2].running_mean.clone(), [module.training for module in model.modules()]
    run(1, model)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[2].running_mean, frozen)
    with pytest.raises(RuntimeError):
        evaluate(model, [(torch.zeros(2, 7), torch.zeros(2).long())])
    assert [module.training for module in model.modules()] == modes


def test_a_model_in_evaluation_mode_is_set_to_training_as_a_whole():
    model = network(torch.float32, nn.BatchNorm1d(8)).eval()
    train_one_epoch(model, Batches([8], torch.float32), torch.optim.SGD(model.parameters(), 0.1))
    assert all(module.training for module in model.modules())


# Schedulers


def test_a_scheduler_is_stepped_by_steps_of_the_optimizer():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = OneCycleLR(optimizer, 0.1, total_steps=2 * 4)  # 7 batches, 2 a step
    run(2, model, optimizer=optimizer, scheduler=scheduler, scheduler_each="batch", accumulate=2)
    assert scheduler.last_epoch == 8


def test_a_scheduler_waits_for_a_skipped_step():
    model, calls = network(), []

    def poison(gradient):
        calls.append(1)
        return gradient * math.inf if len(calls) == 2 else gradient

    model[0].weight.register_hook(poison)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = OneCycleLR(optimizer, 0.1, total_steps=7)
    scaler = torch.amp.GradScaler(DEVICE.type)
    train_one_epoch(model, DataLoader(data(), 8), optimizer, scheduler=scheduler, scaler=scaler)
    assert (len(calls), scheduler.last_epoch) == (7, 6)
    assert weights(model).isfinite().all()


@pytest.mark.parametrize(("mode", "column"), [("min", "valid_loss"), ("max", "valid_accuracy")])
def test_plateau_gets_what_it_watches(mode, column, monkeypatch):
    optimizer = torch.optim.SGD((model := network()).parameters(), 0.1)
    scheduler, seen = ReduceLROnPlateau(optimizer, mode), []
    monkeypatch.setattr(scheduler, "step", seen.append)
    _, history = run(3, model, optimizer=optimizer, scheduler=scheduler)
    assert seen == history[column]


# The history


def test_history_goes_on_to_the_total():
    seen = []
    model, history = run(2, after_epoch=lambda history: seen.append(len(history)))
    run(3, model, history=history, after_epoch=lambda history: seen.append(len(history)))
    _, same = run(2, model, history=history)
    assert same is history
    assert repr(history) == "History(epochs=3, interrupted=False)"
    assert (seen, history["epoch"], history.interrupted) == ([1, 2, 3], [1, 2, 3], False)
    columns = "epoch train_loss train_accuracy valid_loss valid_accuracy lr seconds"
    assert " ".join(history.rows[0]) == columns
    assert {type(value) for row in history.rows for value in row.values()} == {int, float}


def test_history_passes_through_a_file(tmp_path):
    _, history = run(2)
    torch.save(history.state_dict(), tmp_path / "h.pt")
    again = History()
    again.load_state_dict(torch.load(tmp_path / "h.pt", weights_only=True))
    assert again.rows == history.rows
    again.rows[0]["epoch"] = 7
    assert history["epoch"] == [1, 2]
    again.load_state_dict(history.state_dict())
    again.rows.pop()
    assert history["epoch"] == [1, 2]


def test_a_column_that_is_not_there():
    _, trained = run(1)
    for history in (History(), trained):
        with pytest.raises(KeyError, match=r"no column 'loss': choose from epoch, .*, seconds"):
            history["loss"]
    assert History()["valid_loss"] == []
    trained.rows[0]["mine"] = 3.0
    assert trained["mine"] == [3.0]


# Early stopping


@pytest.mark.parametrize(
    ("options", "values", "stops", "best"),
    [
        ({"patience": 2}, [3.0, 2.0, 2.0, 2.1], 4, 2.0),
        ({"patience": 1}, [3.0, 3.0], 2, 3.0),
        ({"patience": 2}, [3.0, 4.0, 2.0, 4.0, 1.0], None, 1.0),
        ({"patience": 2}, [3.0, math.nan, math.nan], 3, 3.0),
    ],
)
def test_early_stopping(options, values, stops, best):
    stopping, model = EarlyStopping(**options), network()
    said = []
    for value in values:
        with torch.no_grad():
            model[0].bias.fill_(value)
        said.append(stopping.step(value, model))
    assert (said.index(True) + 1 if True in said else None) == stops
    if stops is None or stops == len(values):
        assert stopping.best == best
        assert stopping.weights["0.bias"][0].item() == pytest.approx(best)  # a copy, not the live tensor
        stopping.restore(model)
        assert model[0].bias[0].item() == pytest.approx(best)


def test_early_stopping_ends_the_run_and_goes_on_from_its_state():
    model = network()
    stopping = EarlyStopping(2)
    frozen = torch.optim.SGD(model.parameters(), 0.0)
    _, history = run(9, model, optimizer=frozen, early_stopping=stopping)
    assert (len(history), history.interrupted) == (3, False)
    run(9, model, optimizer=frozen, early_stopping=stopping, history=history)  # it stays stopped
    assert len(history) == 3
    again = EarlyStopping(3)
    again.load_state_dict(stopping.state_dict())
    run(4, model, optimizer=frozen, early_stopping=again, history=history)  # with more patience
    assert len(history) == 4
    again.load_state_dict(stopping.state_dict())
    assert again.step(math.inf, model)
    assert again.best == history["valid_loss"][0]


def test_early_stopping_refuses():
    with pytest.raises(ValueError, match="patience=0: expected at least 1"):
        EarlyStopping(0)
    with pytest.raises(RuntimeError, match="no best weights yet"):
        EarlyStopping(1).restore(network())


# Errors


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loss_that_is_no_number(value, where):
    good, bad = Batches([8] * 30, torch.float32), Batches([8] * 30, torch.float32)
    bad[24][0][3] = math.nan
    model = network()

    def loss_fn(logits, targets):
        return F.cross_entropy(logits, targets).nan_to_num(value)

    loaders = (bad, good) if where == "training" else (good, bad)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    place = "epoch 1/2" + ", validation" * (where == "validation")
    text = rf"{place}, batch 25: the loss is {value}\. .*learning rate"
    with pytest.raises(FloatingPointError, match=text):
        fit(model, *loaders, optimizer, epochs=2, loss_fn=loss_fn)


def test_nan_is_told_before_it_reaches_the_weights():
    bad = Batches([8] * 5, torch.float32)
    bad[2][0][3] = math.nan
    model = network()
    with pytest.raises(FloatingPointError, match="batch 3"):
        train_one_epoch(model, bad, torch.optim.SGD(model.parameters(), 0.1))
    assert weights(model).isfinite().all()


CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 3.0], device=DEVICE)


def test_class_weights_are_refused_and_the_remedy_is_right():
    with pytest.raises(ValueError, match=r"no plain mean .*class weights .*reduction='none'"):
        evaluate(network(), DataLoader(data(), 8), nn.CrossEntropyLoss(CLASS_WEIGHTS))

    def remedy(logits, targets):
        return (CLASS_WEIGHTS[targets] * F.cross_entropy(logits, targets, reduction="none")).mean()

    whole = evaluate(network(), DataLoader(data(), 50), remedy)
    assert evaluate(network(), DataLoader(data(), 8), remedy) == pytest.approx(whole)


@pytest.mark.parametrize("loader", [[], DataLoader(data(5), 8, drop_last=True), iter(())])
def test_an_empty_loader(loader):
    with pytest.raises(ValueError, match=r"the epoch: the loader gave no batch\. Is the data set empty"):
        evaluate(network(), loader)
    with pytest.raises(ValueError, match="epoch 1/2: the loader gave no batch"):
        run(2, loader=[])


def test_a_loss_that_is_no_mean():
    with pytest.raises(ValueError, match="is no plain mean over the batch"):
        evaluate(network(), DataLoader(data(), 8), nn.CrossEntropyLoss(reduction="sum"))
    with pytest.raises(RuntimeError, match="a Tensor with 8 elements cannot be converted to Scalar"):
        evaluate(network(), DataLoader(data(), 8), lambda x, y: F.cross_entropy(x, y, reduction="none"))


@pytest.mark.parametrize("options", [{"reduction": "none"}, {"reduction": "sum"}, {"weight": CLASS_WEIGHTS}])
@pytest.mark.parametrize("function", [F.cross_entropy, F.nll_loss])
def test_a_partial_loss_that_is_no_plain_mean(function, options):
    with pytest.raises(ValueError, match="is no plain mean over the batch"):
        evaluate(network(), DataLoader(data(), 8), functools.partial(function, **options))


class Weighted(nn.Module):
    """A loss of your own with a factor that it calls `weight`."""

    weight = 0.3

    def forward(self, logits, targets):
        return self.weight * F.cross_entropy(logits, targets)


TWO = torch.tensor([2.0], device=DEVICE)


@pytest.mark.parametrize(
    ("loss_fn", "classes"),
    [
        (nn.BCEWithLogitsLoss(weight=TWO), False),
        (functools.partial(F.binary_cross_entropy_with_logits, weight=TWO), False),
        (nn.KLDivLoss(reduction="batchmean"), False),
        (Weighted(), True),
        (functools.partial(F.cross_entropy, label_smoothing=0.1), True),
    ],
)
def test_what_is_a_plain_mean_is_taken(loss_fn, classes):
    inputs, targets = data().tensors
    samples = TensorDataset(inputs, targets if classes else F.one_hot(targets, 3).float())
    whole, parts = (evaluate(network(), DataLoader(samples, size), loss_fn)[0] for size in (50, 8))
    assert parts == pytest.approx(whole)


def test_a_batch_of_ignored_targets_is_named_as_a_cause():
    with pytest.raises(FloatingPointError, match=r"batch 1: the loss is nan.*targets are all ignored"):
        evaluate(network(), [(torch.zeros(2, 5), torch.full((2,), -100))])


PLATEAU = ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], 0.1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"accumulate": 0}, "accumulate=0"),
        ({"max_norm": 0.0}, "max_norm=0.0"),
        ({"amp_dtype": torch.float16}, r"give scaler=torch\.amp\.GradScaler"),
        ({"scheduler_each": "step"}, "choose 'epoch' or 'batch'"),
        ({"scheduler": PLATEAU, "scheduler_each": "batch"}, "for ReduceLROnPlateau 'epoch'"),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(ValueError, match=text):
        run(1, **options)


# The stop button


class Pressing(Dataset):
    """Samples of the data; Ctrl-C is pressed when the given one is asked for in the given epoch."""

    def __init__(self, sample: int, epoch: int = 2, times: int = 1) -> None:
        self.data, self.sample, self.left, self.times = data(), sample, epoch, times

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int):
        if index == self.sample:
            self.left -= 1
            for _ in range(self.times if self.left == 0 else 0):
                os.kill(os.getpid(), signal.SIGINT)
        return self.data[index]


@pytest.fixture
def handler():
    """The handler of SIGINT, which must be the same after the test."""
    before = signal.getsignal(signal.SIGINT)
    yield before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("sample", [0, 3, 20, 49])
def test_one_press_ends_the_run_after_a_batch(handler, capsys, sample):
    model, history = run(5, loader=DataLoader(Pressing(sample), 8))
    assert (len(history), history.interrupted) == (1, True)
    assert capsys.readouterr().out == "Interrupted in epoch 2: 1 finished epochs are in the history.\n"
    assert weights(model).isfinite().all()
    run(3, model, history=history)
    assert (history["epoch"], history.interrupted) == ([1, 2, 3], False)


def test_a_press_during_validation(handler):
    model = network()
    loaders = DataLoader(data(), 8), DataLoader(Pressing(20), 8)
    history = fit(model, *loaders, torch.optim.SGD(model.parameters(), 0.1), epochs=3)
    assert (len(history), history.interrupted, model.training) == (1, True, True)


def test_a_press_after_an_epoch_keeps_its_row(handler):
    def press(history):
        os.kill(os.getpid(), signal.SIGINT)

    _, history = run(3, after_epoch=press)
    assert (len(history), history.interrupted) == (1, True)
    _, history = run(1, after_epoch=press)
    assert (len(history), history.interrupted) == (1, False)  # there was nothing left to interrupt


def test_a_press_after_an_epoch_draws_no_order(handler):
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(data(), 8, shuffle=True, generator=generator)
    states = []

    def press(history):
        states.append(generator.get_state())
        os.kill(os.getpid(), signal.SIGINT)

    run(3, loader=loader, after_epoch=press)
    assert torch.equal(generator.get_state(), states[0])


@pytest.mark.parametrize("kind", [OneCycleLR, ExponentialLR])
def test_a_stopped_run_goes_on_with_its_schedule(handler, kind):
    def made():
        optimizer = torch.optim.SGD((model := network()).parameters(), 0.1, momentum=0.9)
        options = {"max_lr": 0.1, "total_steps": 21} if kind is OneCycleLR else {"gamma": 0.9}
        scheduler = kind(optimizer, **options)
        return model, {"optimizer": optimizer, "scheduler": scheduler, "scheduler_each": "batch"}

    model, options = made()
    _, history = run(3, model, loader=DataLoader(Pressing(20), 8), **options)
    assert (len(history), history.interrupted, options["scheduler"].last_epoch) == (1, True, 7)
    run(3, model, history=history, **options)
    assert (len(history), options["scheduler"].last_epoch) == (3, 21)
    model, options = made()
    assert history["lr"] == run(3, model, **options)[1]["lr"]


def test_two_presses_raise_at_once(handler):
    with pytest.raises(KeyboardInterrupt):
        run(5, loader=DataLoader(Pressing(3, times=2), 8))


def test_the_handler_is_restored_after_an_error(handler):
    with pytest.raises(ValueError, match="no batch"):
        run(1, loader=[])


def test_what_is_loaded_while_the_button_is_pressed_is_not_trained(handler):
    trained = []

    def loss_fn(logits, targets):
        trained.append(len(targets))
        return F.cross_entropy(logits, targets)

    run(1, loader=DataLoader(Pressing(20, epoch=1), 8), loss_fn=loss_fn)
    assert trained == [8, 8]


def test_what_follows_a_press_is_not_loaded(handler):
    loaded = []

    def batches():
        for batch in Batches([8] * 5, torch.float32):
            loaded.append(batch)
            yield batch

    def loss_fn(logits, targets):
        os.kill(os.getpid(), signal.SIGINT)
        return F.cross_entropy(logits, targets)

    run(1, loader=batches(), loss_fn=loss_fn)
    assert len(loaded) == 1


def test_an_error_of_the_loader_after_a_press_is_the_press(handler):
    def dying(press):
        yield from Batches([8, 8], torch.float32)
        if press:
            os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

    _, history = run(1, loader=dying(press=True))
    assert (len(history), history.interrupted) == (0, True)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        run(1, loader=dying(press=False))


def test_another_thread_handles_no_signal(handler):
    done = []
    thread = threading.Thread(
        target=lambda: done.append(
            run(1, after_epoch=lambda history: done.append(signal.getsignal(signal.SIGINT)))[1]
        )
    )
    thread.start()
    thread.join()
    assert done[0] is handler
    assert len(done[1]) == 1


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, history = run(2, loader=DataLoader(Pressing(3), 8))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(history) == 2
