"""TensorBoard on the logs of chapter 08: in a browser, inside JupyterLab, and gone when it should be.

With COURSE_SCREENSHOTS=folder the pictures of the visit are kept there.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import psutil
import pytest
import torch
from jupyter_client.manager import start_new_kernel
from notebook_tools import NOTEBOOKS, ROOT, code_cells, read_notebook, tags
from tensorboard import program
from test_browser import ERRORS, HOME, address, open_cells, page, shoot  # noqa: F401 - two of them are fixtures
from test_tensorboard_notebook import NB, run_cells
from test_training_live import environment, run_cell

from course_utils.exercises import summaries

pytestmark = pytest.mark.slow

CELLS = [cell.source for _, cell in code_cells(NB)]
(MAGIC,) = (cell.source for _, cell in code_cells(NB) if "nbval-skip" in tags(cell))


def cell_with(text: str) -> str:
    """The source of the chapter's first code cell that holds a text."""
    return next(source for source in CELLS if text in source)


IMPORTS = f"{cell_with('import tempfile')}\n{cell_with('import SummaryWriter')}"
HELLO, LIST = cell_with("workplace ="), cell_with("def on_these_logs")
SERVE = cell_with("def serve(").split("address = serve")[0]  # the functions only


def processes(folder: Path | str) -> list[psutil.Process]:
    """All processes whose command names a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(folder) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid():
            found.append(process)
    return found


def gone(found: Callable[[], object], seconds: float = 20) -> bool:
    """Wait until there is nothing to be found any more."""
    deadline = time.monotonic() + seconds
    while found() and time.monotonic() < deadline:
        time.sleep(0.2)
    return not found()


@pytest.fixture(scope="module")
def chapter() -> Iterator[dict]:
    """The chapter's names after all that it logs for TensorBoard to show."""
    names: dict = {}
    patch = pytest.MonkeyPatch()
    patch.chdir(NOTEBOOKS)
    threads = torch.get_num_threads()
    for module in ("plotting", "diagrams"):
        patch.setattr(f"course_utils.{module}.show", lambda fig, alt: plt.close(fig))
    try:
        run_cells(names, "sealed = {letter", ("SCRIPT", "12_000", "on_these_logs()"))
        yield names
    finally:
        patch.undo()
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)
        names["workplace"].cleanup()


# Each tab: its name in the address, what is to be read on it, and what is to be seen, how often at least
TABS = {
    "timeseries": (["accuracy", "loss", "sealed/A", "rates/lr=0.3"], {"scalar-card svg path": 4}),
    "scalars": (["accuracy/valid", "gradient/norm", "rates/lr=0.1"], {"tf-scalar-card svg path": 4}),
    "images": (["one digit", "digits/grid", "digits/batch", "confusion"], {"tf-image-loader img": 3}),
    "histograms": (["hidden/gradient", "hidden/weight"], {"vz-histogram-timeseries svg path": 12}),
    "distributions": (["hidden/gradient", "hidden/weight"], {"vz-distribution-chart svg path": 4}),
    "graphs": (["Main Graph"], {"svg g.node": 3}),
    "pr_curves": (["digit/0", "digit/1"], {"tf-pr-curve-card svg path": 2}),
    "projector": ([], {}),  # is a page of its own inside the page
    "text": (["about/text_summary", "digits, 1,200"], {"table em": 1}),
    "audio": (["beep"], {"audio": 1}),
    "hparams": (["trials/lr=0.3, sa", "optimizer", "accuracy/final"], {}),
    "custom_scalars": (["both"], {}),
}


@pytest.fixture(scope="module")
def server(chapter: dict) -> str:
    return chapter["serve"](chapter["logs"])  # ends with this process


@pytest.mark.parametrize("tab", TABS)
def test_a_page_of_tensorboard_shows_what_was_logged(page, server: str, chapter: dict, tab: str) -> None:  # noqa: F811
    from playwright.sync_api import expect

    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{server}#{tab}")
    texts, shapes = TABS[tab]
    if tab == "hparams":
        texts = texts + [f"{accuracy:.5g}" for accuracy in chapter["results"].values()]
    for text in texts:
        expect(page.get_by_text(text).first).to_be_visible(timeout=30_000)
    for selector, least in shapes.items():
        expect(page.locator(selector).nth(least - 1)).to_be_attached(timeout=30_000)
    if tab == "images":
        page.get_by_role("button", name="one digit").click()  # is folded at first
        expect(page.locator("tf-image-loader img")).to_have_count(4)
        widths = page.locator("tf-image-loader img").evaluate_all("all => all.map(i => i.naturalWidth)")
        assert {8, 46, 64, 400} <= set(widths)
    if tab == "hparams":
        assert page.get_by_text("SGD", exact=True).count() >= 6
    if tab == "graphs":
        nodes = page.locator("svg g.node text")
        expect(nodes.filter(has_text="Sequential").first).to_be_visible(timeout=30_000)
        nodes.filter(has_text="Sequential").first.dblclick(force=True)
        expect(nodes.filter(has_text="Linear[1]").first).to_be_visible(timeout=15_000)
    if tab == "projector":
        inside = page.frame_locator("iframe").frame_locator("iframe")
        for text in ("Points: 200", "Dimension: 64"):
            expect(inside.get_by_text(text).first).to_be_visible(timeout=60_000)
        expect(inside.locator("canvas").first).to_be_visible()
    page.wait_for_timeout(1500)
    shoot(page, f"tensorboard-{tab}")
    assert complaints == []
    assert [url for url in requests if not HOME.match(url)] == [], "the page asks the network for something"


def test_tensorboard_in_jupyterlab(page, address: str, tmp_path: Path) -> None:  # noqa: F811
    from playwright.sync_api import expect

    stop = cell_with("os.kill(info.pid")
    sources = [IMPORTS, HELLO, SERVE, MAGIC, "print('logs:', logs)", LIST, stop]
    panel = open_cells(page, address, tmp_path, sources)
    run = "async n => { for (let i = 0; i < n; i++)"
    run += " await jupyterapp.commands.execute('notebook:run-cell-and-select-next') }"
    page.evaluate("void jupyterapp.commands.execute('notebook:move-cursor-up')")
    page.evaluate(run, len(sources) - 1)  # all but the last, which stops the server

    said = panel.locator(".jp-CodeCell").nth(4).locator(".jp-OutputArea").first
    expect(said).to_contain_text("logs:", timeout=90_000)
    logs = said.inner_text().split("logs:")[1].strip()
    shown = panel.locator(".jp-CodeCell").nth(3).locator("iframe")
    expect(shown).to_be_visible(timeout=60_000)
    shown.scroll_into_view_if_needed()
    inside = panel.locator(".jp-CodeCell").nth(3).frame_locator("iframe")
    expect(inside.get_by_text("hello").first).to_be_visible(timeout=60_000)
    expect(inside.get_by_text("loss").first).to_be_visible(timeout=60_000)
    smoothed = summaries.smooth.reference([0.5, 0.4, 0.3, 0.2, 0.1], 0.6)[-1]  # as the slider stands at first
    expect(inside.get_by_text(f"{smoothed:.4g}").first).to_be_visible(timeout=30_000)
    page.wait_for_timeout(1500)
    shoot(page, "tensorboard-jupyterlab")
    counted = panel.locator(".jp-CodeCell").nth(5).locator(".jp-OutputArea").first
    expect(counted).to_contain_text("every server on these logs lists 1 runs", timeout=60_000)

    def servers() -> list[psutil.Process]:
        loaders = "--die-after-stdin"
        return [process for process in processes(logs) if loaders not in process.info["cmdline"]]

    assert len(servers()) == 1
    page.evaluate(run, 1)
    stopped = panel.locator(".jp-CodeCell").nth(6).locator(".jp-OutputArea").first
    expect(stopped).to_contain_text("servers of the magic left on these logs: 0", timeout=60_000)
    assert gone(servers), "it outlives the cell that stops it"
    assert gone(lambda: processes(logs)[1:]), "more is left than the loader of the kernel's own server"
    assert panel.locator(ERRORS).all_inner_texts() == []


# No process is left behind


def test_nbval_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    variables = dict(os.environ, TMPDIR=str(tmp_path), PYTHONPATH=str(ROOT))
    before = {path.name for path in NOTEBOOKS.iterdir()}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--nbval", str(NOTEBOOKS / "08_tensorboard.ipynb")],
        cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-3000:]
    assert gone(lambda: processes(tmp_path))
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith("tensorboard")}
    assert left == set(), "temporary folders of the chapter are left"
    notes = tmp_path / ".tensorboard-info"
    assert not notes.exists() or list(notes.iterdir()) == []
    assert {path.name for path in NOTEBOOKS.iterdir()} - before <= {"__pycache__", ".ipynb_checkpoints"}


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[tuple]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an active environment
    variables = environment() | {"TMPDIR": str(tmp_path), "PATH": path}
    manager, client = start_new_kernel(kernel_name="python3", env=variables)
    try:
        assert run_cell(client, f"{IMPORTS}\n{HELLO}\n{SERVE}")[0].startswith("1 file")
        yield manager, client
    finally:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
        for process in processes(tmp_path):
            process.kill()


@pytest.mark.parametrize("end", ["kill", "shutdown", "now"])
def test_the_chapter_s_server_ends_with_the_kernel(kernel: tuple, tmp_path: Path, end: str) -> None:
    manager, client = kernel
    serve = "print(serve(logs), flush=True)\ntime.sleep(600)"
    run_cell(client, serve, until="http://")
    assert processes(tmp_path)
    if end == "kill":
        os.kill(manager.provisioner.pid, signal.SIGKILL)  # only the kernel, as one that runs out of memory
    else:
        manager.shutdown_kernel(now=end == "now")
    assert gone(lambda: processes(tmp_path)), [p.cmdline() for p in processes(tmp_path)]


@pytest.mark.parametrize("end", ["shutdown", "now"])
def test_a_server_of_the_magic_ends_with_the_kernel_in_good_order(
    kernel: tuple, tmp_path: Path, end: str
) -> None:
    manager, client = kernel
    run_cell(client, MAGIC)
    assert processes(tmp_path)
    manager.shutdown_kernel(now=end == "now")
    assert gone(lambda: processes(tmp_path)), [p.cmdline() for p in processes(tmp_path)]


def test_the_slow_loader_keeps_both_runs_of_one_folder(chapter: dict) -> None:
    slow = program.TensorBoard()
    slow.configure(logdir=str(chapter["scratch"]), port=0, load_fast="false")
    url, ask = slow.launch(), chapter["ask"]
    assert gone(lambda: {"twice", "no step"} - set(ask(f"{url}data/runs")))
    for run in ("twice", "no step"):
        query = f"run={run.replace(' ', '%20')}&tag=loss/train"
        told = [(step, round(v, 3)) for _, step, v in ask(f"{url}data/plugin/scalars/scalars?{query}")]
        assert told == chapter["points"](chapter["scratch"] / run)


def test_without_a_port_the_next_free_one_is_taken(tmp_path: Path, chapter: dict) -> None:
    programs, ports = [], []
    try:
        for _ in range(2):
            command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(chapter["logs"])]
            programs.append(psutil.Popen(command, stderr=subprocess.PIPE, text=True))
            for line in programs[-1].stderr:
                if "Press CTRL+C" in line:
                    ports.append(int(line.split("localhost:")[1].split("/")[0]))
                    break
        command += ["--port", str(ports[0])]
        refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert refused.returncode != 0
        assert f"could not bind to port {ports[0]}, it was already in use" in refused.stderr
    finally:
        for program in programs:
            program.terminate()
            program.wait(20)
            program.stderr.close()
    assert len(ports) == 2
    assert ports[0] < ports[1] <= 6015
    assert ports[0] >= 6006


def test_the_notebook_is_the_chapter() -> None:
    assert read_notebook(NOTEBOOKS / "08_tensorboard.ipynb") == NB
    assert MAGIC.splitlines()[0] == "%load_ext tensorboard"
