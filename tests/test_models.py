"""The course's networks: equal to what they are made after, and to what the chapter builds."""

import ast
import contextlib
import gc
import io
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torchvision
from notebook_tools import NOTEBOOKS, code_cells, parsed, read_notebook
from torch import nn

from course_utils.exercises.modules import _hooks
from course_utils.models import BasicBlock, ResNet18

CHAPTER = NOTEBOOKS / "04_modules.ipynb"


def shapes(model: nn.Module) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()]


@contextlib.contextmanager
def seeded(seed: int = 0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def assert_same_output(ours: nn.Module, theirs: nn.Module, images: torch.Tensor) -> None:
    """Compare two models with the same weights, in training mode first, which moves their statistics."""
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for training in (True, False):
        results = [model.train(training)(images) for model in (ours, theirs)]
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-5)
        gradients = []
        for model, result in zip((ours, theirs), results, strict=True):
            model.zero_grad()
            result.square().sum().backward()
            gradients.append([parameter.grad for parameter in model.parameters()])
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def built() -> dict:
    """The classes that the chapter builds in the open, from its cells alone."""
    names = {"BasicBlock", "ResNet18", "init_convolution"}
    namespace = {"torch": torch, "nn": nn}
    for _, cell in code_cells(read_notebook(CHAPTER)):
        body = [node for node in parsed(cell.source).body if getattr(node, "name", "") in names]
        exec(compile(ast.Module(body, []), CHAPTER.name, "exec"), namespace)
    assert names <= namespace.keys()
    return namespace


def test_the_full_width_is_torchvisions_resnet18() -> None:
    with seeded():
        ours, theirs = ResNet18(), torchvision.models.resnet18(weights=None)
        images = torch.randn(2, 3, 64, 48)
    assert shapes(ours) == shapes(theirs)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert [n for n, _ in ours.named_children()] == [n for n, _ in theirs.named_children()]
    assert sum(p.numel() for p in ours.parameters()) == 11_689_512
    assert_same_output(ours, theirs, images)


def test_it_begins_with_weights_of_the_same_size_as_torchvisions() -> None:
    with seeded():
        ours, theirs = ResNet18(), torchvision.models.resnet18(weights=None)
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if a.dim() > 1:
            assert (a.std() / b.std()).item() == pytest.approx(1, rel=0.05), name
            assert abs((a.mean() / a.std()).item()) < 0.05, name
        elif name != "fc.bias":
            assert torch.equal(a, b), name


@pytest.mark.parametrize(("num_classes", "width", "in_channels"), [(10, 16, 1), (15, 16, 3), (2, 4, 5)])
def test_a_width_of_choice(num_classes: int, width: int, in_channels: int) -> None:
    model = ResNet18(num_classes, width, in_channels)
    assert model(torch.randn(2, in_channels, 33, 40)).shape == (2, num_classes)
    assert model.layer4[1].conv2.weight.shape == (8 * width, 8 * width, 3, 3)
    full = [name for name, *_ in shapes(torchvision.models.resnet18(weights=None))]
    assert [name for name, *_ in shapes(model)] == full


def test_the_quarter_width_has_0_7_million_parameters() -> None:
    assert sum(p.numel() for p in ResNet18(num_classes=10, width=16).parameters()) == 703_386


@pytest.mark.parametrize(("channels", "stride"), [((8, 8), 1), ((8, 6), 1), ((8, 8), 2), ((4, 8), 2)])
def test_a_block_adds_its_shortcut(channels: tuple[int, int], stride: int) -> None:
    block = BasicBlock(*channels, stride).eval()
    assert (block.downsample is None) == (channels[0] == channels[1] and stride == 1)
    nn.init.zeros_(block.bn2.weight)  # silences all but the shortcut
    x = torch.randn(2, channels[0], 6, 6)
    shortcut = block.downsample(x) if block.downsample else x
    torch.testing.assert_close(block(x), shortcut.relu())


@pytest.mark.parametrize(("num_classes", "width", "in_channels"), [(1000, 64, 3), (10, 16, 1), (3, 4, 2)])
def test_the_chapter_builds_the_same_network(
    built: dict, num_classes: int, width: int, in_channels: int
) -> None:
    with seeded():
        packaged = ResNet18(num_classes, width, in_channels)
    with seeded():
        chapters = built["ResNet18"](num_classes, width, in_channels)
    assert shapes(packaged) == shapes(chapters)
    for a, b in zip(packaged.state_dict().values(), chapters.state_dict().values(), strict=True):
        assert torch.equal(a, b)  # the same first weights for the same seed
    with seeded():
        assert_same_output(chapters, packaged, torch.randn(2, in_channels, 32, 32))


@pytest.mark.slow  # the notebook's own last cell asserts the same of what it has named
def test_the_chapter_leaves_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the chapter in this process, then looks at every module that is alive, named or not."""
    gc.collect()
    monkeypatch.chdir(Path(NOTEBOOKS))
    monkeypatch.setattr("course_utils.plotting.show", lambda fig, alt: plt.close(fig))
    namespace: dict = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        for index, cell in code_cells(read_notebook(CHAPTER)):
            exec(compile(cell.source, f"{CHAPTER.name}, cell {index}", "exec"), namespace)
    alive = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]
    assert any(module is namespace["net"] for module in alive)
    assert [type(module).__name__ for module in alive if _hooks(module)] == []


def test_hooks_are_seen() -> None:
    layer = nn.Linear(2, 2)
    assert _hooks(layer) == 0
    handles = [
        layer.register_forward_hook(lambda *_: None),
        layer.register_forward_pre_hook(lambda *_: None),
        layer.register_full_backward_hook(lambda *_: None),
    ]
    assert _hooks(layer) == 3
    for handle in handles:
        handle.remove()
    assert _hooks(layer) == 0
