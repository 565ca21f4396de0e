"""What the notebooks cost: `python tests/benchmark_notebooks.py [--rounds N] [folder]`.

Runs a folder of notebooks, by default the course's, under `pytest --nbval`, and their code cells as
plain Python scripts, a process each; prints what each script took beside what its notebook states. Then
times the imports of the course against that of torch. What is compared takes turns, so that a machine
that is busy for a while slows down both, and medians are printed. CPU seconds are those of all processes
and threads: where other work shares the machine, compare these.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil
from notebook_tools import NOTEBOOKS, ROOT, code_cells, needs, notebooks, read_notebook

MODULES = ("torch", "course_utils", "course_utils.plotting", "torchvision")
NBVAL = ("-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=120", "-q", "--color=no")

PLAIN = """
import json, linecache, re, sys

def run(notebook):
    failures = []
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
        except Exception as error:
            if "raises-exception" not in tags:
                failures.append(f"{name} {error!r}")
    return failures

sys.exit("; ".join(run(sys.argv[1])) or 0)
"""
IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


class Cost(NamedTuple):
    """What a run took: seconds of time and of CPU, and the most bytes of memory at any moment."""

    seconds: float
    cpu: float
    memory: float


def run(arguments: list[str], folder: Path, **variables: str) -> tuple[Cost, str]:
    """Run Python in a folder, with more variables; return what that took, and the last line that it printed.

    Memory is the sum over the process and its descendants, looked at ten times a second; a page that
    several of them share counts for each. The line begins with FAILED if the status is not 0.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "COURSE_PROGRESS": "off"}
    environment |= variables
    before, memory = os.times(), 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = psutil.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=output, stderr=output
        )
        while process.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):  # one ended meanwhile: look again
                family = [process, *process.children(recursive=True)]
                memory = max(memory, sum(member.memory_info().rss for member in family))
            time.sleep(0.1)
        after = os.times()
        output.seek(0)
        said = (output.read().splitlines() or [""])[-1]
    cpu = sum(after[2:4]) - sum(before[2:4])  # of children that have ended, and of theirs
    failed = "FAILED: " if process.returncode else ""
    return Cost(after.elapsed - before.elapsed, cpu, memory), failed + said


def run_plain(path: Path) -> tuple[Cost, str]:
    """Run the code cells of a notebook, where it stands, as a script.

    Magics, shell commands and cells tagged `nbval-skip` are left out. A cell that raises does not end
    the script, but fails it unless the cell is tagged `raises-exception`.
    """
    return run(["-c", PLAIN, str(path)], path.parent, MPLBACKEND="agg")  # opens no windows


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


def main() -> int:
    """Measure what the command line asks for, and print the tables; return 1 if a notebook failed."""
    parser = argparse.ArgumentParser(description="Time notebooks under nbval and as plain scripts.")
    parser.add_argument("folder", nargs="?", type=Path, default=NOTEBOOKS, help="default: the course's")
    parser.add_argument("--rounds", type=int, default=3, help="three times as many for imports")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1.")
    paths = notebooks(arguments.folder.resolve())
    if not paths:
        parser.error(f"there are no notebooks in {arguments.folder}.")

    rounds: list[dict[str, Cost]] = []
    failures: list[str] = []
    for _ in range(arguments.rounds):
        took = {}
        for path in paths:
            took[path.stem], said = run_plain(path)
            failures += [f"{path.name}: {said}"] if said.startswith("FAILED") else []
        scripts = list(zip(*took.values(), strict=True))
        took["all as plain scripts"] = Cost(sum(scripts[0]), sum(scripts[1]), max(scripts[2]))
        took["pytest --nbval"], summary = run([*NBVAL, *map(str, paths)], ROOT)
        failures += [f"pytest --nbval: {summary}"] if summary.startswith("FAILED") else []
        rounds.append(took)

    cells = sum(len(list(code_cells(read_notebook(path)))) for path in paths)
    print(f"{len(paths)} notebooks with {cells} code cells, {arguments.rounds} rounds; nbval: {summary}\n")
    print(f"{'':<36}{'seconds':>9}{'of CPU':>9}{'GB':>7}   stated")
    stated = {path.stem: needs(read_notebook(path)) for path in paths}
    for name in rounds[0]:
        middle = Cost(*map(median, zip(*(took[name] for took in rounds), strict=True)))
        said = "{} s, {} GB".format(*stated[name]) if stated.get(name) else ""
        print(f"{name:<36}{middle.seconds:>9.1f}{middle.cpu:>9.1f}{middle.memory / 1e9:>7.2f}   {said}")
    ratios = [
        [a / b for a, b in zip(took["pytest --nbval"][:2], took["all as plain scripts"][:2], strict=True)]
        for took in rounds
    ]
    print(f"{'nbval / plain':<36}{''.join(f'{median(r):>9.2f}' for r in zip(*ratios, strict=True))}")

    imports = take_turns({m: lambda m=m: import_seconds(m) for m in MODULES}, 3 * arguments.rounds, "torch")
    print(f"\n{'import':<36}{'seconds':>9}{'ratio':>9}")
    for name, (time_taken, ratio) in imports.items():
        print(f"{name:<36}{time_taken:>9.2f}{ratio:>9.2f}")
    print(*failures, sep="\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
