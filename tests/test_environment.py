"""The installation: what each file of it asks for, what importing loads, and the repository's address.

That conda can solve environment.yml is not tested: that takes a conda channel.
"""

import re
import subprocess
import tomllib
from importlib.metadata import version

import pytest
from notebook_tools import ROOT, notebooks, repository
from packaging.requirements import Requirement

REQUIREMENTS = [
    line
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("line", REQUIREMENTS[:-1])
def test_installed_version_is_in_the_range_that_requirements_ask_for(line):
    requirement = Requirement(line)
    assert {bound.operator for bound in requirement.specifier} == {">="}, "a tested lower bound, no pin"
    assert version(requirement.name) in requirement.specifier


def test_requirements_end_with_the_course_itself():
    assert REQUIREMENTS[-1] == "-e ."


def test_course_utils_asks_for_nothing_so_that_colab_keeps_its_torch():
    assert PROJECT["dependencies"] == []


@pytest.mark.slow
def test_conda_environment_is_python_and_then_requirements():
    yaml, rattler = pytest.importorskip("yaml"), pytest.importorskip("rattler")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *specs, pip = environment["dependencies"]
    parsed = {spec.name.normalized: spec for spec in (rattler.MatchSpec(s, strict=True) for s in specs)}

    assert set(environment) == {"name", "channels", "dependencies"}
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert pip == {"pip": ["-r requirements.txt"]}
    assert set(parsed) == {"python", "pip"}
    python = re.fullmatch(r"3\.(\d+)\.\*", str(parsed["python"].version))
    assert python, "one tested version of Python"
    assert f"3.{python[1]}.0" in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_address_is_set_in_pyproject_and_nowhere_else():
    address, placeholder = repository(), "address_not_set"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"git clone (\S+)", readme)) == {address}
    assert (placeholder in readme) == (placeholder in address), "README.md: has the course an address now?"
    free = {"README.md", "pyproject.toml", *(path.name for path in notebooks())}
    for path in tracked():
        if path.name not in free and path.suffix not in {".npz", ".png", ".jpg", ".safetensors"}:
            assert address not in path.read_text(encoding="utf-8"), path


def tracked():
    """Return the files that git tracks, and the new ones that it does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]
