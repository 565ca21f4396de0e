"""The suite on the oldest and the newest packages: `python tests/versions.py [--only oldest] [-- -m slow]`.

Clones the committed course, installs it from its own files into a fresh environment, and runs its tests
there: once with the lower bounds of requirements.txt and once with the newest versions that pip finds. So
`--only newest` tells whether a new release of PyTorch breaks anything. Prints a table of versions and
results; the status is 1 if anything failed.

Takes the time of a download and of the suite for each, and 12 GB of disk in $TMPDIR, freed after each.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DISK = 12e9
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # its own course


def lower_bounds(requirements: str) -> list[str]:
    """Return constraints that pin each package to its lower bound: `torch>=2.11` → `torch==2.11`."""
    return [line.replace(">=", "==") for line in requirements.splitlines() if re.match(r"[\w-]+>=", line)]


def install(work: Path, which: str) -> Path:
    """Make an environment with the course and all that its tests need in a folder; return its Python.

    Raises:
        subprocess.CalledProcessError: git or pip fails, and has said why.
    """
    subprocess.run(["git", "clone", "--quiet", ROOT, work / "course"], check=True)
    subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True)
    python = work / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    constraints = work / "constraints.txt"
    requirements = (work / "course" / "requirements.txt").read_text(encoding="utf-8")
    constraints.write_text("\n".join(lower_bounds(requirements) if which == "oldest" else []))
    command = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        constraints,
        "-r",
        "requirements.txt",
        "-e",
        ".[dev]",
    ]
    subprocess.run(command, cwd=work / "course", env=ENVIRONMENT, check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    """Return the versions of all packages of an environment by name."""
    command = [python, "-m", "pip", "list", "--format=json"]
    listed = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout
    return {package["name"].lower(): package["version"] for package in json.loads(listed)}


def run_tests(python: Path, course: Path, options: list[str]) -> str:
    """Run `pytest --nbval` in the clone and show what it says; return its closing line."""
    command = [python, "-m", "pytest", "--nbval", "-q", "--color=no", *options]
    line = "nothing was said"
    with subprocess.Popen(
        command, cwd=course, env=ENVIRONMENT, stdout=subprocess.PIPE, encoding="utf-8"
    ) as pytest:
        for line in pytest.stdout:
            print(line, end="", flush=True)
    return line.strip() if pytest.returncode == 0 else f"FAILED: {line.strip()}"


def main() -> int:
    """Test what the command line asks for, and print the table; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Test the course with its oldest and newest packages.")
    parser.add_argument("--only", choices=["oldest", "newest"], help="default: both, one after the other")
    parser.add_argument("options", nargs="*", help="of pytest, after --; default: none")
    arguments = parser.parse_args()
    found, said = {}, {}
    for which in [arguments.only] if arguments.only else ["oldest", "newest"]:
        with tempfile.TemporaryDirectory(prefix=f"{which}-") as name:
            if shutil.disk_usage(name).free < DISK:
                parser.error(
                    f"{name} has less than {DISK / 1e9:.0f} GB free: set TMPDIR to a folder with more."
                )
            print(f"=== {which}", flush=True)
            python = install(Path(name), which)
            found[which] = versions(python)
            said[which] = run_tests(python, Path(name) / "course", arguments.options)
    required = lower_bounds((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    print(f"\n{'':<16}{''.join(f'{which:>12}' for which in found)}")
    for package in ["numpy", *(line.partition("==")[0] for line in required)]:
        print(f"{package:<16}{''.join(f'{found[which][package]:>12}' for which in found)}")
    for which, text in said.items():
        print(f"{which}: {text}")
    return int(any(text.startswith("FAILED") for text in said.values()))


if __name__ == "__main__":
    sys.exit(main())
