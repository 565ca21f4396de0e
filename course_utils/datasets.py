"""The data that the course ships in `data/`: read from disk, checked, never downloaded."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

DATA = Path(__file__).resolve().parents[1] / "data"
SHA256 = {"digits.npz": "b2dab7b501728c22e9119ad76740b2e17c77a231e42d1e592380d90886f1a05e"}


def load_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 1,797 handwritten digits: images (1797, 8, 8) uint8 and labels (1797,) int64.

    A pixel counts the ink in a 4 × 4 block of the scan, from 0 (paper) to 16 (full of ink).
    Source: Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*, UCI, 1998.

    Raises:
        FileNotFoundError: the file is not in `data/`.
        RuntimeError: the file is not the one that the course ships.
    """
    with np.load(_verified("digits.npz")) as arrays:
        return torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"]).long()


class Digits(TensorDataset):
    """The digits as a map-style data set of pairs: image (1, 8, 8) float32 from 0 to 1, label () int64."""

    def __init__(self) -> None:
        images, labels = load_digits()
        super().__init__(images.unsqueeze(1) / 16, labels)


def _verified(name: str) -> Path:
    """Return the path of a file of `data/`, after checking that it is there and unchanged."""
    path = DATA / name
    restore = f"Restore it with `git checkout -- data/{name}` in the folder of the course."
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. {restore} If the course was installed without its folder, "
            "clone it and run `pip install -e .` there."
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != SHA256[name]:
        raise RuntimeError(
            f"{path} has changed: sha256 {digest[:12]}…, expected {SHA256[name][:12]}…. {restore}"
        )
    return path
