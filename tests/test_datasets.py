"""The data that the course ships."""

import csv
import http.client
import pickle
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from course_utils import datasets
from course_utils.datasets import (
    IRIS_CLASSES,
    IRIS_FEATURES,
    Digits,
    Iris,
    Parts,
    load_digits,
    load_iris,
    load_photo,
    parts_files,
    public_dataset,
)

LOADERS = {
    "digits.npz": load_digits,
    "iris.csv": load_iris,
    "parts": Parts,
    "parts.csv": parts_files,
    "photo.jpg": load_photo,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the data that a test may spoil."""
    copy = shutil.copytree(datasets.DATA, tmp_path / "data")
    monkeypatch.setattr(datasets, "DATA", copy)
    return copy


def test_importing_them_is_light():
    code = "import sys, course_utils.datasets; print(*{name.partition('.')[0] for name in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {"torch", "numpy"} <= set(modules.split())
    assert not {"torchvision", "PIL", "pandas", "sklearn", "matplotlib"} & set(modules.split())


def test_digits_are_as_described():
    images, labels = load_digits()
    assert (tuple(images.shape), images.dtype) == ((1797, 8, 8), torch.uint8)
    assert (tuple(labels.shape), labels.dtype) == ((1797,), torch.int64)
    assert (images.min().item(), images.max().item()) == (0, 16)
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.device.type == labels.device.type == "cpu"


@pytest.mark.slow  # scikit-learn is there with the tools of the wide checks
def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits as original_digits

    original = original_digits()
    images, labels = load_digits()
    assert np.array_equal(images.numpy(), original.images)
    assert np.array_equal(labels.numpy(), original.target)


def test_each_call_gives_tensors_of_its_own():
    first, _ = load_digits()
    first.zero_()
    assert load_digits()[0].max() == 16


def test_items_of_digits():
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


def test_irises_are_as_described():
    features, labels = load_iris()
    assert (tuple(features.shape), features.dtype) == ((150, 4), torch.float32)
    assert (tuple(labels.shape), labels.dtype) == ((150,), torch.int64)
    assert labels.bincount().tolist() == [50, 50, 50]
    assert features.amin(0).tolist() == pytest.approx([4.3, 2.0, 1.0, 0.1])
    assert features.amax(0).tolist() == pytest.approx([7.9, 4.4, 6.9, 2.5])


@pytest.mark.slow
def test_irises_are_scikit_learns():
    from sklearn.datasets import load_iris as original_iris

    original = original_iris()
    features, labels = load_iris()
    assert np.array_equal(features.numpy(), original.data.astype(np.float32))
    assert np.array_equal(labels.numpy(), original.target)
    assert tuple(original.target_names) == IRIS_CLASSES
    assert [f"{name} (cm)" for name in IRIS_FEATURES] == original.feature_names


def test_irises_are_fishers_and_not_uci_s():
    features, _ = load_iris()  # the two flowers that the repository's file has wrong
    assert features[34].tolist() == pytest.approx([4.9, 3.1, 1.5, 0.2])
    assert features[37].tolist() == pytest.approx([4.9, 3.6, 1.4, 0.1])


def test_items_of_iris():
    iris, (features, labels) = Iris(), load_iris()
    assert len(iris) == 150
    for i in (0, 77, 149, -1):
        flower, label = iris[i]
        assert (tuple(flower.shape), flower.dtype) == ((4,), torch.float32)
        assert (tuple(label.shape), label.dtype) == ((), torch.int64)
        assert torch.equal(flower, features[i])
        assert label == labels[i]
    with pytest.raises(IndexError):
        iris[150]


def test_files_of_parts():
    pictures, table = parts_files()
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"part_{number:04d}.jpg" for number in range(1, 601)]
    assert [row["file_name"] for row in rows] == names == sorted(path.name for path in pictures.iterdir())
    assert sum(path.stat().st_size for path in pictures.iterdir()) < 2.5e6


def test_classes_of_parts():
    parts = Parts()
    assert parts.classes == sorted(parts.classes)
    assert {"bottle-good", "metal_nut-scratch", "cable-missing_wire"} <= set(parts.classes)
    assert torch.tensor(parts.labels).bincount().tolist() == [40] * 15
    objects = [name.partition("-")[0] for name in parts.classes]
    assert [objects.count(name) for name in ("bottle", "cable", "capsule", "metal_nut", "tile")] == [3] * 5
    assert sum(name.endswith("-good") for name in parts.classes) == 5
    assert parts.labels != sorted(parts.labels)  # the order tells nothing


def test_items_of_parts():
    parts = Parts()
    assert len(parts) == len(parts.files) == 600
    for i in (0, 77, 599, -1, torch.tensor(5)):
        image, label = parts[i]
        assert (tuple(image.shape), image.dtype) == ((3, 64, 64), torch.uint8)
        assert image.is_contiguous()
        assert isinstance(label, int)
        assert label == parts.labels[i]
    assert parts[0][0].float().std() > 20
    assert len(list(zip(parts, range(1000), strict=False))) == 600  # iteration ends
    with pytest.raises(IndexError):
        parts[600]


def test_parts_are_the_pictures_that_the_csv_names():
    from PIL import Image

    parts, (pictures, table) = Parts(), parts_files()
    with table.open(newline="") as file:
        for i, row in enumerate(csv.DictReader(file)):
            assert parts.classes[parts.labels[i]] == row["label"]
            if i % 100 == 7:
                original = np.array(Image.open(pictures / row["file_name"]))
                assert np.array_equal(parts[i][0].permute(1, 2, 0).numpy(), original)


def test_transform_of_parts():
    assert torch.equal(Parts(transform=torch.flipud)[3][0], Parts()[3][0].flip(0))
    image, label = Parts(transform=lambda image: image.shape)[3]
    assert (tuple(image), label) == ((3, 64, 64), Parts().labels[3])


def test_photo():
    photo = load_photo()
    assert (tuple(photo.shape), photo.dtype) == ((3, 214, 320), torch.uint8)
    assert photo.is_contiguous()
    assert (photo.min().item(), photo.max().item()) == (0, 255)
    assert (datasets.DATA / "photo.jpg").stat().st_size <= 40_000
    sky, trees = photo[:, 5:25, 120:200].float(), photo[:, -25:, :60].float()
    assert sky.mean() > 180 > 100 > trees.mean()  # the right way up
    assert sky[2].mean() > sky[0].mean()  # blue comes last
    assert (load_photo().zero_() == 0).all()
    assert load_photo().max() == 255


@pytest.mark.parametrize("dataset", [Digits, Iris, Parts])
def test_data_sets_can_be_pickled(dataset):
    again = pickle.loads(pickle.dumps(dataset()))
    assert torch.equal(again[3][0], dataset()[3][0])


@pytest.mark.parametrize("name", LOADERS)
def test_a_missing_file(folder, name):
    path = folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing\. `git checkout -- data/{name}` in"):
        LOADERS[name]()


def test_a_missing_folder(folder):
    shutil.rmtree(folder)
    for load in LOADERS.values():
        with pytest.raises(FileNotFoundError, match=r"clone it and run `pip install -e \.` there"):
            load()


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_the_folder(folder):
    (folder / "digits.npz").unlink()
    (folder / "digits.npz").mkdir()
    shutil.rmtree(folder / "parts")
    (folder / "parts").write_text("link")
    for load in (load_digits, Parts):
        with pytest.raises(RuntimeError, match="has changed"):
            load()


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
@pytest.mark.parametrize("name", ["digits.npz", "iris.csv", "photo.jpg"])
def test_a_changed_file(folder, name, spoil):
    path = folder / name
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))
    with pytest.raises(
        RuntimeError, match=rf"{name} has changed: sha256 \w+…, expected \w+…\. `git checkout"
    ) as error:
        LOADERS[name]()
    assert f"git checkout -- data/{name}" in str(error.value)
    path.write_bytes(whole)
    LOADERS[name]()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pictures: (pictures / "part_0007.jpg").unlink(),
        lambda pictures: (pictures / "part_0007.jpg").rename(pictures / "part_0601.jpg"),
        lambda pictures: (pictures / "part_0007.jpg").write_bytes(b""),
        lambda pictures: shutil.copy(pictures / "part_0007.jpg", pictures / "part_0008.jpg"),
        lambda pictures: shutil.copy(pictures / "part_0007.jpg", pictures / "part_0007 (copy).jpg"),
        lambda pictures: [path.unlink() for path in pictures.iterdir()],
    ],
    ids=["one missing", "one renamed", "one empty", "one twice", "one more", "none"],
)
def test_changed_parts(folder, spoil):
    spoil(folder / "parts")
    with pytest.raises(RuntimeError, match="has changed") as error:
        parts_files()
    assert "git checkout -- data/parts` in" in str(error.value)
    assert "git clean -f data/parts" in str(error.value)


def test_what_a_file_browser_leaves_among_the_parts_does_no_harm(folder):
    (folder / "parts" / ".DS_Store").write_bytes(b"x")
    (folder / "parts" / ".ipynb_checkpoints").mkdir()
    assert len(Parts()) == 600


@pytest.fixture
def no_network(monkeypatch):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", fail)


@pytest.mark.parametrize(
    ("name", "default"), [("MNIST", "Digits"), ("FashionMNIST", "Digits"), ("CIFAR10", "Parts")]
)
def test_a_public_data_set_without_a_network(no_network, tmp_path, name, default):
    message = rf"{name} could not be downloaded\. .* the course ships: {default}\(\)\. Cause: .*no network"
    with pytest.raises(ConnectionError, match=message) as error:
        public_dataset(name, tmp_path / "new" / "folder")
    assert "\n" not in str(error.value)
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("error", [PermissionError(13, "no right to write"), OSError(28, "the disk is full")])
def test_a_fault_of_the_disk_is_not_blamed_on_the_network(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(type(error), match=error.strerror) as raised:
        public_dataset("MNIST", tmp_path)
    assert not isinstance(raised.value, ConnectionError)


def test_a_broken_answer_is_blamed_on_the_network(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise http.client.IncompleteRead(b"half")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        public_dataset("MNIST", tmp_path)


def test_a_network_that_never_answers(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.getsockname()[1]}/"])
        monkeypatch.setattr(datasets, "NETWORK_SECONDS", 0.1)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        socket.setdefaulttimeout(7)
        try:
            with pytest.raises(ConnectionError, match=r"Cause: .*timed out"):
                public_dataset("MNIST", tmp_path)
            assert socket.getdefaulttimeout() == 7, "the caller's own limit is put back"
        finally:
            socket.setdefaulttimeout(None)


@pytest.mark.parametrize("name", ["mnist", "KMNIST", "", "download"])
def test_an_unknown_public_data_set(tmp_path, name):
    with pytest.raises(ValueError, match=f"'{name}' here. Choose one of: MNIST, FashionMNIST, CIFAR10"):
        public_dataset(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def downloaded(tmp_path, no_network):
    """A folder with a small MNIST: three pictures to train, two to test."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        images = np.arange(count * 28 * 28).reshape(count, 28, 28) % 256
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count) + 7)
    return tmp_path


def write_idx(path, values):
    """Write numbers from 0 to 255 as MNIST's files hold them: magic, sizes, bytes."""
    head = np.array([8 * 256 + values.ndim, *values.shape], ">u4")
    path.write_bytes(head.tobytes() + values.astype(np.uint8).tobytes())


def test_a_public_data_set_that_is_already_there(downloaded):
    mnist = public_dataset("MNIST", downloaded)
    assert len(mnist) == 3
    image, label = mnist[1]
    assert (tuple(image.shape), image.dtype, label) == ((1, 28, 28), torch.float32, 8)
    assert (image.min().item(), image.max().item()) == (0.0, 1.0)
    assert (image[0, 0] * 255).round().tolist() == [784 % 256 + column for column in range(28)]


def test_transform_of_a_public_data_set(downloaded):
    assert public_dataset("MNIST", str(downloaded), transform=lambda image: image.size)[0] == ((28, 28), 7)
