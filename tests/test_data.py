"""What data/README.md says of the data files, against the files themselves."""

import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open

from course_utils.datasets import DATA, SHA256
from course_utils.pretrained import load_pretrained

HEAD = ["File", "What", "Origin", "Licence", "Size", "sha256", "Made by"]


def table() -> dict[str, dict[str, str]]:
    """Return the rows of the table in data/README.md, by file name."""
    lines = (DATA / "README.md").read_text(encoding="utf-8").splitlines()
    head, _, *rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")
    ]
    assert head == HEAD
    return {name(row[0]): dict(zip(HEAD, row, strict=True)) for row in rows}


def name(link: str) -> str:
    """Return the file that a link such as [digits.npz](digits.npz) leads to, which it also shows."""
    shown, target = link.removeprefix("[").removesuffix(")").split("](")
    assert shown == target
    return target


def test_every_data_file_has_a_row_and_every_row_a_file():
    around = {".md", ".py", ".pyc"}
    paths = [path for path in DATA.rglob("*.*") if path.suffix not in around and path.name[0] != "."]
    shipped = {path.relative_to(DATA).parts[0] for path in paths}
    assert set(table()) == shipped == set(SHA256)


@pytest.mark.parametrize("file", SHA256)
def test_row_tells_the_truth(file):
    row, contents = table()[file], pictures(DATA / file) or {file: (DATA / file).read_bytes()}
    digest = checksum(contents)
    assert row["Size"] == f"{sum(map(len, contents.values())):,} bytes"
    assert row["sha256"] == f"`{digest}`"
    assert SHA256[file] == digest
    assert (DATA / name(row["Made by"])).is_file()
    assert all(row.values())


@pytest.mark.slow  # scikit-learn, where the originals come from, is there with the tools of the wide checks
@pytest.mark.parametrize("script", sorted(path.name for path in DATA.glob("make_*.py")))
def test_script_makes_the_same_file_again(script, tmp_path):
    made_again(script, tmp_path)


@pytest.mark.slow
def test_parts_are_drawn_the_same_again(tmp_path):
    made_again("draw_parts.py", tmp_path)


@pytest.fixture
def pretrain(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script that made the weights, on one thread, as it runs itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.syspath_prepend(str(DATA))
    yield importlib.import_module("pretrain")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def about() -> dict:
    """What the file of the weights says of itself."""
    with safe_open(DATA / "surfaces.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["about"])


def test_the_source_pictures_are_those_of_the_readme(pretrain):
    batches = [pretrain.draw(pretrain.TRAINING["batch"], seed=step)[0] for step in range(13)]
    digest = hashlib.sha256(torch.cat(batches)[:1000].numpy().tobytes()).hexdigest()
    assert f"`{digest}`" in (DATA / "README.md").read_text(encoding="utf-8")


def test_the_script_is_the_one_that_made_the_weights(pretrain, about):
    """Its first losses; other versions of PyTorch round otherwise, by far less than the losses differ."""
    assert about["training"] == pretrain.TRAINING
    losses = list(pretrain.train(pretrain.network(), steps=len(about["first losses"])))
    assert len(losses) == 10
    assert max(about["first losses"]) - min(about["first losses"]) > 0.1
    assert losses == pytest.approx(about["first losses"], abs=2e-3)


def test_the_weights_reach_their_accuracy(pretrain, about):
    """On 800 fresh pictures, within four standard errors; and the README tells the same shares."""
    model, preprocess = load_pretrained()
    with torch.inference_mode():
        batches = [pretrain.draw(80, seed=30_000_000 + i) for i in range(10)]
        pairs = [(model(preprocess(pictures)).split(pretrain.HEADS, dim=1), y) for pictures, y in batches]
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for i, (question, claimed) in enumerate(about["accuracy"].items()):
        right = torch.cat([logits[i].argmax(1) == y[:, i] for logits, y in pairs]).double().mean().item()
        assert abs(right - claimed) < 4 * (claimed * (1 - claimed) / 800) ** 0.5, question
        told = float(re.search(rf"the {question} right in ([0-9.]+) %|the {question} in ([0-9.]+) %", readme)
                     .expand(r"\1\2"))  # fmt: skip
        assert told == pytest.approx(100 * claimed, abs=0.06)


def made_again(script: str, folder: Path) -> None:
    """Run a script of data/ in a folder of its own, and compare what it makes with what is shipped."""
    for path in DATA.glob("*.py"):  # a script may import another
        shutil.copy(path, folder)
    subprocess.run([sys.executable, folder / script], check=True)
    files = [file for file, row in table().items() if name(row["Made by"]) == script]
    assert files
    for file in files:
        made, shipped = folder / file, DATA / file
        assert pictures(made) == pictures(shipped)
        assert made.is_dir() or made.read_bytes() == shipped.read_bytes()


def pictures(folder: Path) -> dict[str, bytes]:
    """Return the pictures of a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*"))}


def checksum(contents: dict[str, bytes]) -> str:
    """Return the sha256 of a file, or of a folder as data/README.md describes it."""
    if len(contents) == 1:
        return hashlib.sha256(*contents.values()).hexdigest()
    digests = (file.encode() + b"\n" + hashlib.sha256(content).digest() for file, content in contents.items())
    return hashlib.sha256(b"".join(digests)).hexdigest()
