"""Run notebooks afresh and store their outputs: `python tests/refresh.py [--check] [notebook ...]`.

Each runs in a new kernel, in its own folder, under the variables of the tests. An output that says
what the stored one says, in the sense of sanitize.cfg, stays as it is stored: with no change in
behaviour, no byte of the file changes. A notebook that fails is left as it was.
"""

import argparse
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from nbval.plugin import get_sanitize_patterns
from notebook_tools import (
    CELL_SECONDS,
    METADATA,
    SANITIZE,
    code_cells,
    kernel_environment,
    notebooks,
    read_notebook,
    setup_source,
    tags,
)

RULES = get_sanitize_patterns(SANITIZE.read_text(encoding="utf-8"))


class RefreshError(Exception):
    """A notebook cannot be refreshed; the message says which cell is the reason."""


def refreshed(path: Path) -> str:
    """Return the text of a notebook after running it; the file is not changed.

    Raises:
        RefreshError: a cell fails, warns, takes too long or ends the kernel, or the result is no
            valid notebook.
    """
    try:
        stored = read_notebook(path)
    except (AttributeError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise RefreshError(f"this is no notebook: {error}") from error
    if (stored.nbformat, stored.nbformat_minor) != (4, 5):
        raise RefreshError(f"format {stored.nbformat}.{stored.nbformat_minor}: save it as 4.5.")
    nb = copy.deepcopy(stored)
    nb.metadata = nbformat.from_dict(METADATA)
    write_setup_cell(nb)
    run(nb, path.parent)
    before = {cell.get("id"): cell for _, cell in code_cells(stored)}
    for cell in nb.cells:
        cell.metadata = nbformat.from_dict({"tags": tags(cell)} if tags(cell) else {})
    for count, (_, cell) in enumerate(code_cells(nb), start=1):
        old = before.get(cell.get("id"))
        if old is not None and ("nbval-skip" in tags(cell) or same(old.outputs, cell.outputs)):
            cell.outputs = old.outputs
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        raise RefreshError(f"no valid notebook: {error.message}") from error
    return nbformat.writes(nb) + "\n"


def write_setup_cell(nb: NotebookNode) -> None:
    """Bring the first code cell, tagged `setup`, up to date; insert it where it is missing."""
    index, first = next(code_cells(nb), (len(nb.cells), None))
    if first is None or "setup" not in tags(first):
        first = nbformat.v4.new_code_cell(id="setup", metadata={"tags": ["setup"]})
        nb.cells.insert(index, first)
    first.source = setup_source()


def run(nb: NotebookNode, folder: Path) -> None:
    """Replace the outputs of all code cells by those of a new kernel of this environment.

    Cells tagged `nbval-skip` do not run, here as in the tests.

    Raises:
        RefreshError: a cell fails, warns, takes too long or ends the kernel.
    """
    kernel = AsyncKernelManager(
        kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
    )
    client = NotebookClient(
        nb,
        km=kernel,
        timeout=CELL_SECONDS,
        record_timing=False,
        skip_cells_with_tag="nbval-skip",
        resources={"metadata": {"path": str(folder)}},
    )
    with tempfile.TemporaryDirectory(prefix="ipython-", ignore_cleanup_errors=True) as profile:
        environment = {**os.environ, **kernel_environment(profile)}
        with client.setup_kernel(env=environment, stderr=subprocess.DEVNULL, cleanup_kc=True):
            for index, cell in code_cells(nb):
                cell.outputs = []
                try:
                    client.execute_cell(cell, index)
                except CellExecutionError as error:
                    lines = [line for o in cell.outputs for line in o.get("traceback", [])]
                    raise _failure(index, cell, f"raises {error.ename}", "\n".join(lines)) from None
                except CellTimeoutError:
                    raise _failure(index, cell, f"runs for more than {CELL_SECONDS} s") from None
                except DeadKernelError:
                    raise _failure(index, cell, "ends the kernel: out of memory, or a crash?") from None
                cell.outputs = joined(cell.outputs)
                complaints = [o.text for o in cell.outputs if o.get("name") == "stderr"]
                if complaints:
                    raise _failure(index, cell, "writes to stderr", "".join(complaints))


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: where a stream is cut depends on timing."""
    whole: list[NotebookNode] = []
    for output in outputs:
        last = whole[-1] if whole else {}
        if output.output_type == "stream" and output.name == last.get("name"):
            last.text += output.text
        else:
            whole.append(output)
    return whole


def same(old: list[NotebookNode], new: list[NotebookNode]) -> bool:
    """Tell whether outputs agree: texts up to what sanitize.cfg overlooks, all else to the byte."""
    return _comparable(old) == _comparable(new)


def _comparable(outputs: list[NotebookNode]) -> str:
    outputs = copy.deepcopy(outputs)
    for output in outputs:
        output.pop("execution_count", None)
        for part in (output, output.get("data", {})):
            for key, text in part.items():
                if isinstance(text, str) and not key.startswith("image/"):
                    for pattern, replacement in RULES:
                        text = re.sub(pattern, replacement, text)
                    part[key] = text
    return json.dumps(outputs, sort_keys=True)


def _failure(index: int, cell: NotebookNode, what: str, details: str = "") -> RefreshError:
    source = textwrap.indent(cell.source, "    ")
    details = textwrap.indent(re.sub(r"\x1b\[[0-9;]*m", "", details).strip(), "  | ")
    return RefreshError(f"cell {index} {what}\n{source}\n{details}".rstrip())


def main() -> int:
    """Refresh the notebooks that the command line names; return 1 if one fails or, to check, is stale."""
    parser = argparse.ArgumentParser(description="Run notebooks afresh and store their outputs.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    parser.add_argument("notebook", nargs="*", type=Path, help="default: all notebooks of the course")
    arguments = parser.parse_args()
    bad = False
    for path in arguments.notebook or notebooks():
        try:
            text = refreshed(path)
        except (RefreshError, OSError) as error:
            print(f"failed     {path}: {error}", flush=True)
            bad = True
            continue
        stale = text.encode() != path.read_bytes()
        if stale and not arguments.check:
            path.write_text(text, encoding="utf-8", newline="\n")
        bad |= stale and arguments.check
        verdict = "unchanged" if not stale else "stale" if arguments.check else "updated"
        print(f"{verdict:<10} {path}", flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
