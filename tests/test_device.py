"""The choice of the device, and repeatable random numbers."""

import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import course_utils
from course_utils import get_device, seed_everything


@pytest.fixture
def machine(monkeypatch):
    """Pretend that a machine has some GPUs."""

    def has(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    return has


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(0, False, "cpu"), (1, False, "cuda"), (2, True, "cuda"), (0, True, "mps")]
)
def test_without_a_wish_the_best_device_is_chosen(machine, cuda, mps, device):
    machine(cuda, mps)
    assert get_device() == torch.device(device)


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_an_empty_wish_is_none(machine, monkeypatch, name):
    machine(cuda=1)
    monkeypatch.setenv("COURSE_DEVICE", name)
    assert get_device() == torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("cpu", "cpu"),
        ("CPU", "cpu"),
        (" cpu ", "cpu"),
        ("cpu:0", "cpu:0"),
        ("cuda", "cuda"),
        ("CUDA", "cuda"),
        ("Cuda:1", "cuda:1"),
        ("mps", "mps"),
    ],
)
def test_a_wish_is_granted(machine, monkeypatch, name, device):
    machine(cuda=2, mps=True)
    monkeypatch.setenv("COURSE_DEVICE", name)
    assert get_device() == torch.device(device)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("cuda", "cuda"), ("cuda:0", "cuda"), ("CUDA:7", "cuda"), ("mps", "mps"), ("meta", "meta")],
)
def test_a_device_that_is_not_there(machine, monkeypatch, name, kind):
    machine()
    monkeypatch.setenv("COURSE_DEVICE", name)
    with pytest.raises(RuntimeError, match=f"it finds 0 of kind '{kind}'.*set COURSE_DEVICE=cpu"):
        get_device()


@pytest.mark.parametrize("name", ["cuda:2", "cuda:7", "cuda:128", "cpu:1", "mps:1"])
def test_an_index_that_is_not_there(machine, monkeypatch, name):
    machine(cuda=2, mps=True)
    monkeypatch.setenv("COURSE_DEVICE", name)
    with pytest.raises(RuntimeError, match=r"does not see here: it finds [12] of kind"):
        get_device()


@pytest.mark.parametrize(
    "name",
    [
        "gpu",
        "cuda:",
        "cuda:-1",
        "cuda:x",
        "cuda:1.0",
        "cuda: 1",
        "cuda:²",
        "cuda:١",
        "cuda:0:0",
        ":0",
        "cuda:99999999999999999999",
        "0",
    ],
)
def test_nonsense_is_refused(machine, monkeypatch, name):
    machine(cuda=2)
    monkeypatch.setenv("COURSE_DEVICE", name)
    with pytest.raises(ValueError, match="is not a device: use cpu, cuda, cuda:1 or mps, or unset"):
        get_device()


def _draws():
    return random.random(), np.random.rand(), torch.rand(3).tolist()  # noqa: NPY002 - the global generator


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, np.int64(7), np.uint32(7), torch.tensor(7)])
def test_a_seed_repeats_all_generators(seed):
    seed_everything(seed)
    first = _draws()
    between = _draws()
    seed_everything(seed)
    assert _draws() == first
    assert all(a != b for a, b in zip(first, between, strict=True))


def test_seeds_differ():
    seed_everything(0)
    zero = _draws()
    seed_everything(1)
    assert all(a != b for a, b in zip(zero, _draws(), strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_seeds_out_of_range(seed):
    with pytest.raises(ValueError, match=r"between 0 and 2\*\*32 - 1"):
        seed_everything(seed)


@pytest.mark.parametrize("seed", [1.0, "1", None, [1], float("nan")])
def test_seeds_of_a_wrong_type_change_nothing(seed):
    states = random.getstate(), torch.get_rng_state()
    with pytest.raises(TypeError, match=re.escape(f"{seed=}: give an integer from 0 to 2**32 - 1")):
        seed_everything(seed)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_the_package_offers_its_helpers_and_loads_nothing_heavy():
    code = (
        "import torch, sys; before = set(sys.modules); import course_utils; "
        "print(sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['course_utils']"
    assert {"get_device", "seed_everything", "approx"} <= set(course_utils.__all__)
    assert all(hasattr(course_utils, name) for name in course_utils.__all__)
