"""What data/README.md says of the data files, against the files themselves."""

import hashlib
import shutil
import subprocess
import sys

import pytest

from course_utils.datasets import DATA, SHA256

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
    shipped = {path.name for path in DATA.iterdir() if path.is_file() and path.suffix not in {".md", ".py"}}
    shipped = {name for name in shipped if not name.startswith(".")}  # .DS_Store and its like
    assert set(table()) == shipped == set(SHA256)


@pytest.mark.parametrize("file", SHA256)
def test_row_tells_the_truth(file):
    row, content = table()[file], (DATA / file).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert row["Size"] == f"{len(content):,} bytes"
    assert row["sha256"] == f"`{digest}`"
    assert SHA256[file] == digest
    assert (DATA / name(row["Made by"])).is_file()
    assert all(row.values())


@pytest.mark.slow
@pytest.mark.parametrize("file", SHA256)
def test_script_makes_the_same_file_again(file, tmp_path):
    pytest.importorskip("sklearn")
    script = name(table()[file]["Made by"])
    shutil.copy(DATA / script, tmp_path)
    subprocess.run([sys.executable, tmp_path / script], check=True)
    assert (tmp_path / file).read_bytes() == (DATA / file).read_bytes()
