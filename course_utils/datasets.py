"""The data that the course ships in `data/`: read from disk, checked, never downloaded.

What reads it raises FileNotFoundError where it is missing, and RuntimeError where it is not what the
course ships. `public_dataset` is the exception: it fetches a public data set where there is a network.
"""

import hashlib
import http.client
import socket
import urllib.error
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, TensorDataset

DATA = Path(__file__).resolve().parents[1] / "data"
SHA256 = {
    "digits.npz": "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e",
    "iris.csv": "9cc1c345c71bcc9b486b74cbf6063fa66f4bb5e0f603a4b3c3471ec2e5e8e355",
    "parts": "1a618c9be6a9f27c68c0a4b09499550b4be8f97c5df59e2a7fb5f034441b42f3",
    "parts.csv": "bcb57a391c9a6186b53dcc55cba66d50dc525b6bfba72b3d242036548113b3d1",
    "photo.jpg": "c810bae118d56fa5cad5f60a5610246b57bf67639ca15ac2e39f2851a97e436c",
    "surfaces.safetensors": "a7fbc492fa57e4a040b55c7f7e1ea142fe14fdc42e301d66496e91d64e2e8af7",
}

IRIS_FEATURES = ("sepal length", "sepal width", "petal length", "petal width")
IRIS_CLASSES = ("setosa", "versicolor", "virginica")

OFFLINE = {"MNIST": "Digits", "FashionMNIST": "Digits", "CIFAR10": "Parts"}
NETWORK_SECONDS = 15  # the longest wait for an answer
NETWORK_ERRORS = (  # torchvision raises RuntimeError where no mirror gives the file
    urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, RuntimeError
)  # fmt: skip


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 1,797 handwritten digits: images (1797, 8, 8) uint8 and labels (1797,) int64.

    A pixel counts the ink in a 4 × 4 block of the scan, from 0 (paper) to 16 (full of ink).
    Source: Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*, UCI, 1998.
    """
    with np.load(verified("digits.npz")) as arrays:
        return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()


class Digits(TensorDataset):
    """The digits as a map-style data set of pairs: image (1, 8, 8) float32 from 0 to 1, label () int64."""

    def __init__(self) -> None:
        images, labels = load_digits()
        super().__init__(images.unsqueeze(1) / 16, labels)


def load_iris() -> tuple[torch.Tensor, torch.Tensor]:
    """Return Fisher's 150 irises: features (150, 4) float32 in centimetres and labels (150,) int64.

    The columns are `IRIS_FEATURES`; label i means the species `IRIS_CLASSES[i]`, 50 flowers each.
    Source: Fisher, *The use of multiple measurements in taxonomic problems*, 1936.
    """
    *lengths, species = _read_columns(verified("iris.csv"))
    features = torch.tensor([list(map(float, column)) for column in lengths]).T.contiguous()
    return features, torch.tensor([IRIS_CLASSES.index(name) for name in species])


class Iris(TensorDataset):
    """The irises as a map-style data set of pairs: features (4,) float32 in centimetres, label () int64."""

    def __init__(self) -> None:
        super().__init__(*load_iris())


def parts_files() -> tuple[Path, Path]:
    """Return where the drawn parts lie: the folder of the pictures, and the CSV `file_name,label`.

    Read them, copy them, but leave the originals alone.
    """
    return verified("parts"), verified("parts.csv")


class Parts(Dataset[tuple[Any, int]]):
    """600 drawn inspection parts as a map-style data set of pairs: image (3, 64, 64) uint8, label int.

    Five objects, each good or with one of two defects: 15 classes of 40. A picture is read from its
    file when it is asked for.

    Args:
        transform: applied to the image.

    Attributes:
        classes: the names of the classes, sorted, such as `cable-missing_wire`; label i means `classes[i]`.
        labels: the labels of all items, for those who need no pictures (samplers, splits).
    """

    def __init__(self, transform: Callable[[torch.Tensor], Any] | None = None) -> None:
        self.folder, table = parts_files()
        self.files, names = _read_columns(table)
        self.classes = sorted(set(names))
        self.labels = [self.classes.index(name) for name in names]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = _read_image(self.folder / self.files[index])
        if self.transform is not None:
            image = self.transform(image)
        return image, self.labels[index]


def load_photo() -> torch.Tensor:
    """Return a photograph of the Summer Palace in Beijing: (3, 214, 320) uint8.

    Source: *china.jpg* of scikit-learn, by danielbuechele, CC BY 2.0; here half as wide and high.
    """
    return _read_image(verified("photo.jpg"))


def public_dataset(
    name: str, root: str | Path, transform: Callable[[Any], Any] | None = None
) -> Dataset[tuple[Any, int]]:
    """Return the training part of torchvision's MNIST, FashionMNIST or CIFAR10; download what `root` lacks.

    Args:
        name: "MNIST", "FashionMNIST" or "CIFAR10".
        root: the folder that holds it or is to hold it; it is made if it is not there.
        transform: applied to the PIL image. By default the image becomes float32 (C, H, W) from 0 to 1.

    Raises:
        ValueError: no such name.
        ConnectionError: the data could not be downloaded.
        OSError: `root` cannot be made or written.
    """
    if name not in OFFLINE:
        raise ValueError(f"There is no public data set {name!r} here. Choose one of: {', '.join(OFFLINE)}.")
    from torchvision import datasets  # slow to import, and needed here only
    from torchvision.transforms import v2

    Path(root).mkdir(parents=True, exist_ok=True)
    if transform is None:
        transform = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    with downloading(name, instead=f"{OFFLINE[name]}()"):
        return getattr(datasets, name)(root, transform=transform, download=True)


@contextmanager
def downloading(what: str, instead: str) -> Iterator[None]:
    """Fetch something in this block; where that fails, say what to use instead.

    Raises:
        ConnectionError: the network did not give it, or gave no answer for NETWORK_SECONDS.
    """
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)  # else a network that swallows packets hangs for minutes
    try:
        yield
    except NETWORK_ERRORS as error:
        raise ConnectionError(
            f"{what} could not be downloaded. Without a network, use what the course ships: "
            f"{instead}. Cause: {' '.join(str(error).split())}"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _read_columns(path: Path) -> list[list[str]]:
    """Return the columns of a CSV file without its header."""
    return np.loadtxt(path, str, delimiter=",", skiprows=1).T.tolist()


def _read_image(path: Path) -> torch.Tensor:
    """Return a colour picture as (3, H, W) uint8."""
    from PIL import Image  # here, since most data sets are no pictures

    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def verified(name: str) -> Path:
    """Return the path of a file or folder of `data/`, after checking that it is there and unchanged."""
    path = DATA / name
    restore = (
        f"`git checkout -- data/{name}` in the folder of the course restores it, and "
        f"`git clean -f data/{name}` removes what does not belong there."
    )
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing. {restore} If the course was installed without its folder, "
            "clone it and run `pip install -e .` there."
        )
    if (digest := _digest(path)) != SHA256[name]:
        raise RuntimeError(
            f"{path} has changed: sha256 {digest[:12]}…, expected {SHA256[name][:12]}…. {restore}"
        )
    return path


def _digest(path: Path) -> str:
    """Return the sha256 of a file; of a folder, that of its pictures' names and contents in sorted order."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = [file.name.encode() + b"\n" + bytes.fromhex(_digest(file)) for file in sorted(path.glob("*.jpg"))]
    return hashlib.sha256(b"".join(files)).hexdigest()
