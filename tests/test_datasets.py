"""The data that the course ships."""

import hashlib
import pickle
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from course_utils import datasets
from course_utils.datasets import Digits, load_digits


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the data that a test may spoil."""
    copy = tmp_path / "data"
    copy.mkdir()
    for name in datasets.SHA256:
        shutil.copy(datasets.DATA / name, copy)
    monkeypatch.setattr(datasets, "DATA", copy)
    return copy


def test_digits_are_as_described():
    images, labels = load_digits()
    assert (tuple(images.shape), images.dtype) == ((1797, 8, 8), torch.uint8)
    assert (tuple(labels.shape), labels.dtype) == ((1797,), torch.int64)
    assert (images.min().item(), images.max().item()) == (0, 16)
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.device.type == labels.device.type == "cpu"


def test_digits_are_scikit_learns():
    original = pytest.importorskip("sklearn.datasets").load_digits()
    images, labels = load_digits()
    assert np.array_equal(images.numpy(), original.images)
    assert np.array_equal(labels.numpy(), original.target)


def test_each_call_gives_tensors_of_its_own():
    first, _ = load_digits()
    first.zero_()
    assert load_digits()[0].max() == 16


def test_the_recorded_checksum_is_the_files():
    for name, digest in datasets.SHA256.items():
        assert hashlib.sha256((datasets.DATA / name).read_bytes()).hexdigest() == digest


def test_items():
    digits, (images, labels) = Digits(), load_digits()
    assert len(digits) == 1797
    for i in (0, 5, 1796, -1):
        image, label = digits[i]
        assert (tuple(image.shape), image.dtype) == ((1, 8, 8), torch.float32)
        assert (tuple(label.shape), label.dtype) == ((), torch.int64)
        assert torch.equal(image[0] * 16, images[i].float())
        assert label == labels[i]
    everything = torch.stack([image for image, _ in digits])
    assert (everything.min().item(), everything.max().item()) == (0.0, 1.0)
    with pytest.raises(IndexError):
        digits[1797]


def test_digits_can_be_pickled():
    again = pickle.loads(pickle.dumps(Digits()))
    assert torch.equal(again[3][0], Digits()[3][0])


@pytest.mark.parametrize("start", [None, "spawn"])
def test_batches_from_worker_processes(start):
    loader = DataLoader(Digits(), batch_size=600, num_workers=1, multiprocessing_context=start)
    batches = list(loader)
    assert [tuple(images.shape) for images, _ in batches] == [(600, 1, 8, 8)] * 2 + [(597, 1, 8, 8)]
    assert torch.equal(torch.cat([labels for _, labels in batches]), load_digits()[1])


def test_a_missing_file(folder):
    (folder / "digits.npz").unlink()
    for load in (load_digits, Digits):
        with pytest.raises(
            FileNotFoundError, match=r"digits\.npz is missing\. Restore it with `git checkout"
        ):
            load()


def test_a_missing_folder(folder):
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match=r"clone it and run `pip install -e \.` there"):
        load_digits()


def test_a_folder_in_place_of_the_file(folder):
    (folder / "digits.npz").unlink()
    (folder / "digits.npz").mkdir()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_digits()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\n",
        lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
        lambda data: b"version https://git-lfs.github.com/spec/v1\n",
        lambda data: data.replace(b"\n", b"\r\n"),
    ],
    ids=["empty", "cut off", "longer", "one bit", "pointer", "line ends"],
)
def test_a_changed_file(folder, spoil):
    path = folder / "digits.npz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(
        RuntimeError, match=r"digits\.npz has changed: sha256 .*… Restore it|has changed"
    ) as error:
        load_digits()
    assert "git checkout -- data/digits.npz" in str(error.value)
    shutil.copy(datasets.Path(datasets.__file__).parents[1] / "data" / "digits.npz", path)
    assert len(load_digits()[0]) == 1797
