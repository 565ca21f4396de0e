"""The networks that come with weights: what is loaded, from where, and what is said where it fails."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
import torch
from notebook_tools import NOTEBOOKS, code_cells, read_notebook
from safetensors import safe_open
from torch import nn

from course_utils import datasets
from course_utils.datasets import DATA
from course_utils.pretrained import load_pretrained


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network is off")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture
def hub(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """An empty folder for torch.hub's downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_the_shipped_weights_are_those_of_the_file(offline):
    model, _ = load_pretrained()
    assert not model.training
    state = model.state_dict()
    with safe_open(DATA / "surfaces.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(state)
        for name, tensor in state.items():
            stored = file.get_tensor(name)
            assert torch.equal(tensor, stored.to(tensor.dtype))
            assert tensor.dtype == (torch.float32 if stored.is_floating_point() else torch.int64)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 24)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_preprocessing_is_that_of_the_file():
    with safe_open(DATA / "surfaces.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    _, preprocess = load_pretrained()
    pictures = torch.randint(256, (5, 3, 7, 9), dtype=torch.uint8)
    mean, std = (torch.tensor(about[name]).view(3, 1, 1) for name in ("mean", "std"))
    expected = (pictures / 255 - mean) / std
    assert preprocess(pictures).dtype == torch.float32
    torch.testing.assert_close(preprocess(pictures), expected)
    torch.testing.assert_close(preprocess(pictures[0]), expected[0])


def test_two_calls_share_nothing():
    one, other = load_pretrained()[0], load_pretrained()[0]
    with torch.no_grad():
        one.conv1.weight.zero_()
    assert other.conv1.weight.abs().sum() > 0


@pytest.mark.parametrize("name", ["imagenet1k", "", "IMAGENET", None])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="choose 'surfaces' or 'imagenet'"):
        load_pretrained(name)


def test_without_a_network_imagenet_says_so(offline, hub, capsys):
    start, patience = time.perf_counter(), socket.getdefaulttimeout()
    with pytest.raises(ConnectionError, match=r"ImageNet's weights .* load_pretrained\(\"surfaces\"\)"):
        load_pretrained("imagenet")
    assert time.perf_counter() - start < 5
    assert socket.getdefaulttimeout() == patience
    assert capsys.readouterr() == ("", "")


def test_a_network_that_does_not_answer_is_given_up(hub, monkeypatch):
    from torchvision.models import ResNet18_Weights

    monkeypatch.setattr(datasets, "NETWORK_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/resnet18-00000000.pth"
        monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, "url", address)
        with pytest.raises(ConnectionError, match="timed out"):
            load_pretrained("imagenet")


def test_imagenets_weights_load_from_an_address(hub, tmp_path, monkeypatch, capsys):
    from torchvision.models import ResNet18_Weights, resnet18

    torch.manual_seed(0)
    stored = resnet18()
    torch.save(stored.state_dict(), tmp_path / "made.pth")
    digest = datasets._digest(tmp_path / "made.pth")[:8]
    (tmp_path / "made.pth").rename(tmp_path / f"resnet18-{digest}.pth")
    address = (tmp_path / f"resnet18-{digest}.pth").as_uri()
    monkeypatch.setattr(ResNet18_Weights.IMAGENET1K_V1.value, "url", address)
    model, preprocess = load_pretrained("imagenet")
    assert capsys.readouterr() == ("", "")
    assert not model.training
    assert torch.equal(model.fc.weight, stored.fc.weight)
    assert isinstance(model.fc, nn.Linear)
    assert preprocess(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape == (2, 3, 224, 224)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("a second download"))
    (tmp_path / f"resnet18-{digest}.pth").unlink()
    load_pretrained("imagenet")


@pytest.mark.parametrize("keep", [0, 10, 20_000_000])
def test_a_truncated_download_is_named(offline, hub, tmp_path, keep):
    from torchvision.models import ResNet18_Weights, resnet18

    torch.save(resnet18().state_dict(), tmp_path / "made.pth")
    file = hub / ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    file.write_bytes((tmp_path / "made.pth").read_bytes()[:keep])
    with pytest.raises(RuntimeError, match=f"{file.name} cannot be read: delete it"):
        load_pretrained("imagenet")


def test_a_missing_and_a_changed_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match="git checkout"):
        load_pretrained()
    whole = (DATA / "surfaces.safetensors").read_bytes()
    (tmp_path / "surfaces.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(RuntimeError, match="has changed"):
        load_pretrained()


OTHER_WEIGHTS = """
from functools import partial
from torchvision.models import ResNet18_Weights
from torchvision.transforms._presets import ImageClassification

small = partial(ImageClassification, crop_size=32, resize_size=32)
object.__setattr__(ResNet18_Weights.IMAGENET1K_V1.value, "transforms", small)
"""


@pytest.mark.slow
def test_chapter_07_runs_with_other_weights(hub, tmp_path):
    """The switch works: a random network in place of ImageNet's, on small pictures, for an epoch or two."""
    from torchvision.models import ResNet18_Weights, resnet18

    name = ResNet18_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.save(resnet18().state_dict(), hub / name)
    cells = code_cells(read_notebook(NOTEBOOKS / "07_transfer_learning.ipynb"))
    script = "\n\n".join(cell.source for _, cell in cells)
    changes = {
        'SOURCE = "surfaces"': 'SOURCE = "imagenet"',
        "EPOCHS = {3: 20, 16: 7}": "EPOCHS = {3: 4, 16: 1}",
        "for seed in range(5)]": "for seed in range(2)]",
        "epochs=8": "epochs=2",
        "epochs=10": "epochs=1",
    }
    for old, new in changes.items():
        assert old in script
        script = script.replace(old, new)
    (tmp_path / "chapter.py").write_text(OTHER_WEIGHTS + script, encoding="utf-8")
    environment = os.environ | {"MPLBACKEND": "Agg", "TORCH_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "chapter.py"], cwd=tmp_path, env=environment, check=True, timeout=600)
