"""How much the proof costs: `python -m course_utils.benchmark [folder]`.

One run measures a folder of notebooks under `pytest --nbval` against the same code cells as plain
Python scripts, a process each, and the imports of the course against that of torch. What is
compared takes turns, so that a machine that is busy for a while slows down both. Medians are printed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
MODULES = ("torch", "course_utils", "course_utils.plotting", "torchvision")

PLAIN = """
import json, linecache, re, sys

def run(notebook):
    failed = 0
    with open(notebook, encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    for number, cell in enumerate(cells):
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] != "code" or "nbval-skip" in tags:
            continue
        source = re.sub(r"^(\\s*)[%!].*$", r"\\1pass", "".join(cell["source"]), flags=re.M)
        name = f"<cell {number}>"
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        try:
            exec(compile(source, name, "exec"), vars(sys.modules["__main__"]))
        except Exception:
            failed += "raises-exception" not in tags
    return failed

sys.exit(run(sys.argv[1]) > 0)
"""
IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def run_nbval(notebooks: list[Path]) -> str:
    """Run the notebooks in one session of `pytest --nbval`; return pytest's closing line."""
    options = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=120", "-q", "--color=no"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, notebooks)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    said = (done.stdout.strip() or done.stderr.strip() or "pytest said nothing").splitlines()[-1]
    return said if done.returncode == 0 else f"FAILED: {said}"


def run_plain(notebooks: list[Path]) -> str:
    """Run the code cells of each notebook, where it stands, as a script; tell how many ran to the end.

    Magics and shell commands are left out. A cell that raises does not end its script.
    """
    failed = 0
    for path in notebooks:
        done = subprocess.run(
            [sys.executable, "-c", PLAIN, str(path)],
            cwd=path.parent,
            env={**os.environ, "MPLBACKEND": "agg", "TQDM_DISABLE": "1"},  # no windows, no bars
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        failed += done.returncode != 0
    return f"FAILED: {failed} of {len(notebooks)} scripts" if failed else f"{len(notebooks)} scripts ran"


def import_seconds(module: str) -> float:
    """Return how long a new process takes to import a module; NaN if it cannot."""
    done = subprocess.run([sys.executable, "-c", IMPORT.format(module)], capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else float("nan")


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def take_turns(measures: Mapping[str, Callable[[], float]], repeats: int, base: str) -> dict[str, tuple]:
    """Measure A, B, A, B, ...; return for each the median, and the median of its ratios to `base`."""
    rounds = [{name: measure() for name, measure in measures.items()} for _ in range(repeats)]
    return {
        name: (median(r[name] for r in rounds), median(r[name] / r[base] for r in rounds))
        for name in measures
    }


def code_cells(path: Path) -> int:
    """Count the code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return sum(cell["cell_type"] == "code" for cell in cells)


def main() -> int:
    """Measure what the command line asks for, and print the table; return 1 if a notebook failed."""
    parser = argparse.ArgumentParser(description="Time notebooks under nbval and as plain scripts.")
    parser.add_argument("folder", nargs="?", type=Path, default=NOTEBOOKS, help="default: the course's")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; three times as many for imports")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1.")
    notebooks = sorted(arguments.folder.resolve().glob("*.ipynb"))
    if not notebooks:
        parser.error(f"there are no notebooks in {arguments.folder}.")

    said: dict[str, str] = {}
    runners = {"pytest --nbval": run_nbval, "plain scripts": run_plain}
    turns = {
        name: lambda name=name, run=run: seconds(lambda: said.update({name: run(notebooks)}))
        for name, run in runners.items()
    }
    whole = take_turns(turns, arguments.repeats, "plain scripts")
    imports = take_turns({m: lambda m=m: import_seconds(m) for m in MODULES}, 3 * arguments.repeats, "torch")

    cells = sum(map(code_cells, notebooks))
    print(f"notebooks: {len(notebooks)}, code cells: {cells}, rounds: {arguments.repeats}\n")
    print(f"{'':<24}{'seconds':>8}{'per cell':>10}{'ratio':>7}")
    for name, (time_taken, ratio) in whole.items():
        print(f"{name:<24}{time_taken:>8.2f}{time_taken / cells:>10.3f}{ratio:>7.2f}  {said[name]}")
    print(f"\n{'import':<24}{'seconds':>8}{'':>10}{'ratio':>7}")
    for name, (time_taken, ratio) in imports.items():
        print(f"{name:<24}{time_taken:>8.2f}{'':>10}{ratio:>7.2f}")
    return int(any(text.startswith("FAILED") for text in said.values()))


if __name__ == "__main__":
    sys.exit(main())
