"""Networks that come with weights, and the preprocessing that belongs to the weights."""

import contextlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from course_utils.datasets import downloading, verified
from course_utils.models import ResNet18

Preprocess = Callable[[torch.Tensor], torch.Tensor]


def load_pretrained(weights: str = "surfaces") -> tuple[nn.Module, Preprocess]:
    """Return a ResNet-18 in evaluation mode with its weights, and what prepares pictures for it.

    Args:
        weights: "surfaces": the course's own, shipped with it: `ResNet18(24, width=16)`, trained on drawn
            surfaces. "imagenet": torchvision's `resnet18`, trained on ImageNet's photographs; 45 MB are
            downloaded at the first use.

    Returns:
        the network, and a function from pictures (N, 3, H, W) uint8 to its input, float32.

    Raises:
        ValueError: no such weights.
        ConnectionError: ImageNet's weights are not on the disk, and could not be downloaded.
        FileNotFoundError: the file of the course's weights is not in `data/`.
        RuntimeError: the file is not the one that the course ships, or a downloaded one cannot be read.
    """
    if weights not in ("surfaces", "imagenet"):
        raise ValueError(f"there are no weights {weights!r} here: choose 'surfaces' or 'imagenet'.")
    from torchvision.models import ResNet18_Weights, resnet18  # slow to import, and needed here only
    from torchvision.transforms import v2

    if weights == "imagenet":
        chosen = ResNet18_Weights.IMAGENET1K_V1
        file = Path(torch.hub.get_dir(), "checkpoints", chosen.url.rpartition("/")[2])
        if not file.is_file():
            with (
                downloading("ImageNet's weights", instead='load_pretrained("surfaces")'),
                contextlib.redirect_stdout(io.StringIO()),  # the address and where the file goes
            ):
                chosen.get_state_dict(check_hash=True, progress=False)
        model = resnet18()
        try:
            model.load_state_dict(chosen.get_state_dict(progress=False))
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise RuntimeError(f"{file} cannot be read: delete it, and it is downloaded again.") from error
        return model.eval(), chosen.transforms()

    with safe_open(verified("surfaces.safetensors"), framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    model = ResNet18(sum(map(len, about["classes"].values())), width=len(state["conv1.weight"]))
    model.load_state_dict(state)  # copies the float16 of the file into the float32 of the model
    scale = v2.ToDtype(torch.float32, scale=True)
    return model.eval(), v2.Compose([scale, v2.Normalize(about["mean"], about["std"])])
