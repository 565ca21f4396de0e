"""The notebooks where the course is not installed, as on Colab: their first cell fetches it.

Colab is imitated by an interpreter with everything but the course, a `google.colab` to import, and an
empty folder that holds the one notebook. The very address of the setup cell is cloned: git is told to
take it from a folder of this machine. Nothing reaches the network.
"""

import json
import os
import shutil
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from notebook_tools import (
    CELL_SECONDS,
    ROOT,
    SANITIZE,
    code_cells,
    kernel_environment,
    notebooks,
    read_notebook,
    repository,
    setup_folder,
    setup_source,
    tags,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Colab is Linux")]

OFFLINE = """\
import socket
import google.colab  # is loaded before the first cell, as on Colab

connect = socket.socket.connect
def connect_at_home(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"no network: {address}")
    return connect(self, address)
socket.socket.connect = connect_at_home
"""

PROBE = """\
import importlib, importlib.metadata, json
modules = [importlib.import_module(name) for name in ("torch", "torchvision", "numpy")]
state = {module.__name__: [str(module.__version__), module.__file__] for module in modules}
state["installed"] = sorted(f"{d.name} {d.version}" for d in importlib.metadata.distributions())
assert any(package.startswith("torch ") for package in state["installed"])
"""

EXECUTE = """\
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], 4)
nbclient.NotebookClient(notebook, timeout=120, allow_errors=True).execute()
nbformat.write(notebook, sys.argv[1])
"""


@dataclass
class Colab:
    """The imitation: its interpreter, its variables, and where git finds the course."""

    python: Path
    variables: dict[str, str]
    source: Path

    def run(self, *arguments: str | Path, cwd: Path, source: Path | None = None):
        """Run the interpreter; where the setup cell asks for its address, git clones `source`."""
        git = {
            "GIT_ALLOW_PROTOCOL": "file",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{(source or self.source).as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": repository(),
        }
        command = [self.python, *arguments]
        return subprocess.run(command, cwd=cwd, env=self.variables | git, capture_output=True, text=True)


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Colab:
    folder = tmp_path_factory.mktemp("colab")
    source = folder / "source"
    for part in ("course_utils", "data", "notebooks"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    author = ["-c", "user.name=course", "-c", "user.email=course@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "-m", "course"]):
        subprocess.run(["git", *command], cwd=source, check=True)

    # A folder named in a .pth file is searched, but the .pth files in it are not read: so the
    # packages of this environment are there, all but the course, which is installed by such a file.
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(packages, "shared.pth").write_text("\n".join(shared))

    extra = folder / "extra"
    (extra / "google" / "colab").mkdir(parents=True)
    (extra / "google" / "colab" / "__init__.py").touch()
    (extra / "sitecustomize.py").write_text(OFFLINE)
    unwanted = ("GIT_", "JUPYTER", "PYTEST_", "PYTHONPATH", "VIRTUAL_ENV")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    variables |= kernel_environment(str(folder / "ipython"))
    variables |= {"PYTHONPATH": str(extra), "JUPYTER_DATA_DIR": str(folder / "jupyter")}
    colab = Colab(python, variables, source)
    found = colab.run("-c", "import torch, google.colab, course_utils", cwd=folder)
    assert "No module named 'course_utils'" in found.stderr
    return colab


@pytest.fixture(scope="module")
def before(colab) -> dict:
    """Return what is installed before the course is fetched: versions, files, all packages."""
    probe = colab.run("-c", f"{PROBE}\nprint(json.dumps(state))", cwd=colab.source.parent)
    assert probe.returncode == 0, probe.stderr
    return json.loads(probe.stdout)


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_lone_notebook_gives_the_stored_outputs_and_changes_no_package(path, colab, before, tmp_path):
    notebook = read_notebook(path)
    compared = [cell for _, cell in code_cells(notebook) if "nbval-skip" not in tags(cell)]
    course = tmp_path / setup_folder()
    for check in (
        f"{PROBE}\nassert state == json.loads({json.dumps(before)!r})",
        f"import course_utils\nassert course_utils.__file__.startswith({str(course)!r})",
    ):
        notebook.cells.append(nbformat.v4.new_code_cell(check))
    nbformat.write(notebook, tmp_path / path.name)

    options = ["--nbval", "--nbval-current-env", f"--nbval-sanitize-with={SANITIZE}"]
    options += [f"--nbval-cell-timeout={CELL_SECONDS}", "-p", "no:cacheprovider", "-q"]
    run = colab.run("-m", "pytest", *options, path.name, cwd=tmp_path)

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(compared) + 2} passed" in run.stdout
    assert {file.name for file in tmp_path.iterdir()} == {path.name, course.name}


def test_setup_cell_in_a_clone_uses_the_clone_and_fetches_nothing(colab, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(colab.source, clone)
    code = f"{setup_source()}\nimport course_utils\nprint(course_utils.__file__)"
    run = colab.run("-B", "-c", code, cwd=clone / "notebooks", source=tmp_path / "nowhere")
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(clone / "course_utils" / "__init__.py")
    changes = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True)
    assert changes.stdout == ""


def test_setup_cell_run_again_does_not_clone_again(colab, tmp_path):
    code = f"{setup_source()}\nimport course_utils"
    assert colab.run("-c", code, cwd=tmp_path).returncode == 0
    again = colab.run("-c", code, cwd=tmp_path, source=tmp_path / "nowhere")
    assert again.returncode == 0, again.stderr


def test_clone_that_fails_shows_the_message_of_git_in_the_notebook(colab, tmp_path):
    path = tmp_path / "lone.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(setup_source())]), path)
    run = colab.run("-c", EXECUTE, path, cwd=tmp_path, source=tmp_path / "nowhere")
    assert run.returncode == 0, run.stderr

    outputs = nbformat.read(path, as_version=4).cells[0].outputs
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "fatal:" in said
    assert "nowhere" in said
    assert [output.ename for output in outputs if output.output_type == "error"] == ["CalledProcessError"]
