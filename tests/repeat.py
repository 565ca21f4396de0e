"""The notebooks where they are not at home: `python tests/repeat.py [--only NAME] [notebook ...]`.

Clones the committed course once for each of some surroundings and runs the notebooks there by strict
nbval: with one thread and with two, from another folder, in a path with spaces and Hangul in it, on a
read-only file system, without a network, without HOME. Prints a table; the status is 1 if anything in it
failed. Two of the surroundings need Linux, and are reported as failed where they cannot be made.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# In a namespace of its own, which ends with the command: $1 is the clone, the rest is the command.
READ_ONLY = """
set -e
mount --bind -o ro "$1" "$1"
cd "$1" && shift
if touch probe 2>/dev/null; then echo "can be written to" >&2 && exit 1; fi
exec "$@"
"""
# Jupyter and its kernel, and TensorBoard and the notebook, talk through `lo`, which leads nowhere else.
NO_NETWORK = """
set -e
ip link set lo up
[ "$(grep -c : /proc/net/dev)" = 1 ] || { cat /proc/net/dev >&2 && exit 1; }
shift && exec "$@"
"""
NEEDED = (
    "needs Linux with unshare, mount and ip, and the right to make user namespaces, which Ubuntu gives by "
    "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
)


@dataclass(frozen=True)
class Surroundings:
    """Where and how the notebooks run.

    Attributes:
        folder: the clone, within a temporary folder.
        start: where pytest starts, within the same temporary folder; default: in the clone.
        variables: of the environment; None unsets one.
        unshare: the options of `unshare` and the shell's commands that make the surroundings.
    """

    folder: str = "course"
    start: str | None = None
    variables: dict[str, str | None] = field(default_factory=dict)
    unshare: tuple[str, str] | None = None


SURROUNDINGS = {
    "one-thread": Surroundings(variables={"OMP_NUM_THREADS": "1"}),
    "two-threads-elsewhere": Surroundings(start=".", variables={"OMP_NUM_THREADS": "2"}),
    "spaces-and-hangul": Surroundings(folder="강의 with spaces/텐서 course"),
    "read-only": Surroundings(unshare=("-rm", READ_ONLY)),
    "no-network": Surroundings(unshare=("-rn", NO_NETWORK)),
    "no-home": Surroundings(variables={"HOME": None}),
}


def run(surroundings: Surroundings, names: list[str]) -> str:
    """Run notebooks, named from the root of the course; return pytest's closing line, or what failed."""
    with tempfile.TemporaryDirectory(prefix="repeat-") as name:
        work = Path(name)
        clone = work / surroundings.folder
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        command = [sys.executable, "-m", "pytest", "--nbval", "-q", "--color=no", *(clone / n for n in names)]
        if surroundings.unshare:
            options, script = surroundings.unshare
            within = ["unshare", options, "sh", "-c", script, "sh", clone]
            if shutil.which("unshare") is None:
                return f"FAILED: it {NEEDED}"
            trial = subprocess.run([*within, "true"], capture_output=True, encoding="utf-8")
            if trial.returncode:
                return f"FAILED: {trial.stderr.strip()}; it {NEEDED}"
            command = [*within, *command]
        variables = {**os.environ, "PYTHONPATH": str(clone), **surroundings.variables}
        done = subprocess.run(
            command,
            cwd=clone if surroundings.start is None else work / surroundings.start,
            env={name: value for name, value in variables.items() if value is not None},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
    said = (done.stdout.splitlines() or ["nothing was said"])[-1]
    if done.returncode == 0:
        return said
    print(done.stdout)
    return f"FAILED: {said}"


def main() -> int:
    """Run what the command line asks for, and print the table; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Run the notebooks in other surroundings.")
    parser.add_argument("notebook", nargs="*", default=["notebooks"], help="default: all of the course")
    parser.add_argument("--only", choices=SURROUNDINGS, action="append", help="may be given again")
    arguments = parser.parse_args()
    for name in arguments.notebook:
        if subprocess.run(
            ["git", "cat-file", "-e", f"HEAD:{name}"], cwd=ROOT, capture_output=True
        ).returncode:
            parser.error(
                f"{name}: name a notebook from the root of the course, such as notebooks/01_tensors.ipynb, "
                "and commit it first."
            )
    said = {}
    for name in arguments.only or SURROUNDINGS:
        said[name] = run(SURROUNDINGS[name], arguments.notebook)
        print(f"{name:<24}{said[name]}", flush=True)
    return int(any(text.startswith("FAILED") for text in said.values()))


if __name__ == "__main__":
    sys.exit(main())
