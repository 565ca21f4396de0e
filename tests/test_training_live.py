"""The progress bar and the stop, as a learner meets them: in a terminal, in a kernel, in JupyterLab."""

import os
import queue
import re
import select
import struct
import subprocess
import sys
import time

import pytest
from jupyter_client.manager import start_new_kernel
from notebook_tools import ROOT
from test_browser import ERRORS, address, open_cells, page, shoot  # noqa: F401 - two of them are fixtures

fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")  # not on Windows
pytestmark = pytest.mark.slow

FIT = """
import sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader
from course_utils.datasets import Digits
from course_utils.training import History, evaluate, fit

class Slow(Digits):
    def __getitem__(self, index):
        time.sleep(0.001)
        return super().__getitem__(index)

def loaders(workers=0, context=None):
    options = dict(num_workers=workers, multiprocessing_context=context)
    return DataLoader(Slow(), 32, **options), DataLoader(Digits(), 256)

model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
history = History()
"""
GO = """
fit(model, *loaders(*arguments), optimizer, epochs=500, history=history,
    after_epoch=lambda history: print("finished", len(history), flush=True))
"""
AFTER = """
assert history.interrupted and len(history) >= 1
assert all(p.isfinite().all() for p in model.parameters())
epochs = len(history)
fit(model, DataLoader(Digits(), 32), DataLoader(Digits(), 256), optimizer, epochs=epochs + 1, history=history)
assert len(history) == epochs + 1 and not history.interrupted
print("usable: accuracy above one half:", history["valid_accuracy"][-1] > 0.5)
"""
USABLE = "usable: accuracy above one half: True"


def environment() -> dict[str, str]:
    """The variables of a learner: bars are not switched off."""
    variables = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
    return variables | {"PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("arguments", ["()", "(2, 'fork')", "(2, 'forkserver')"])
def test_ctrl_c_in_a_terminal(tmp_path, arguments):
    script = tmp_path / "train.py"
    body = f"{FIT}\narguments = {arguments}\nif __name__ == '__main__':\n"
    script.write_text(body + re.sub("^", "    ", GO + AFTER, flags=re.M))
    ours, theirs = os.openpty()
    fcntl.ioctl(
        theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0)
    )  # in no width tqdm draws nothing
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    said, pressed, deadline = "", 0.0, time.monotonic() + 60
    try:
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            assert time.monotonic() < deadline, said
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    said += os.read(ours, 1 << 16).decode(errors="replace")
                except OSError:  # the terminal is closed
                    break
            if not pressed and "finished 1" in said and "epoch 2/500: " in said.partition("finished 1")[2]:
                os.write(ours, b"\x03")  # Ctrl-C, which the terminal sends to all processes in it
                pressed = time.monotonic()
        assert process.wait(20) == 0, said
    finally:
        process.kill()
        os.close(ours)
    assert "Traceback" not in said
    assert re.search(r"epoch 1/500: +\d+%\|.*loss=\d\.\d{4}", said)
    assert re.search(r"Interrupted in epoch \d+: \d+ finished epochs are in the history\.", said)
    assert USABLE in said


STAYING = """
import os, sys
import torch
from torch import nn
from torch.utils.data import DataLoader
from course_utils.datasets import Digits
from course_utils.training import History, fit
import torch.nn.functional as F

def press(logits, targets):
    global calls
    calls += 1
    if calls in (30, 70):
        os.killpg(0, 2)  # as a terminal does: to the workers, too
    return F.cross_entropy(logits, targets)

if __name__ == "__main__":
    calls, history = 0, History()
    options = {"num_workers": 2, "persistent_workers": True, "multiprocessing_context": sys.argv[1]}
    loaders = DataLoader(Digits(), 64, **options), DataLoader(Digits(), 256, **options)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    stops = []
    while not stops or stops[-1]:
        fit(model, *loaders, optimizer, epochs=3, loss_fn=press, history=history)
        stops.append(history.interrupted)
    print(stops, len(history))
"""


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_workers_that_stay_start_anew_after_each_stop(tmp_path, start):
    script = tmp_path / "train.py"
    script.write_text(STAYING)
    run = subprocess.run(
        [sys.executable, str(script), start],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=90,
        start_new_session=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("[True, True, False] 3\n"), run.stdout + run.stderr


def run_cell(client, code: str, until: str | None = None, seconds: float = 90) -> tuple[str, list, str]:
    """Run code in a kernel; return its text, the kinds of its displays, and how it ended.

    With `until`, return as soon as the text holds that.
    """
    request = client.execute(code)
    text, kinds = "", []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            message = client.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if message["parent_header"].get("msg_id") != request and until is not None:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            text += content["text"]
        elif message["msg_type"] == "display_data":
            kinds += content["data"]
        elif message["msg_type"] == "error":
            text += f"{content['ename']}: {content['evalue']}"
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            return text, kinds, "idle"
        if until is not None and until in text:
            return text, kinds, "running"
    raise AssertionError(f"the cell does not end: {text}")


@pytest.mark.parametrize("arguments", ["()", "(2, 'fork')"])
def test_stop_button_of_a_kernel(arguments):
    manager, client = start_new_kernel(kernel_name="python3", env=environment())
    try:
        assert run_cell(client, f"{FIT}\narguments = {arguments}")[0] == ""
        text, kinds, _ = run_cell(client, GO, until="finished 2")
        assert "application/vnd.jupyter.widget-view+json" in kinds  # a bar made of widgets
        manager.interrupt_kernel()
        message = client.get_shell_msg(timeout=60)
        while message["parent_header"].get("msg_type") != "execute_request" or (
            message["content"].get("execution_count") == 1
        ):
            message = client.get_shell_msg(timeout=60)
        assert message["content"]["status"] == "ok", message["content"]
        text, _, _ = run_cell(client, AFTER, until="usable")
        assert USABLE in text
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_bar_and_stop_in_jupyterlab(page, address, tmp_path):  # noqa: F811
    from playwright.sync_api import expect

    first = f"import os\nos.environ.pop('TQDM_DISABLE', None)\n{FIT}\narguments = ()"
    panel = open_cells(page, address, tmp_path, [first, GO, AFTER])
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")
    output = panel.locator(".jp-CodeCell").nth(1).locator(".jp-OutputArea").first
    expect(output).to_contain_text("finished 2", timeout=90_000)
    bar = output.locator(".jupyter-widgets [role=progressbar], .jupyter-widgets .progress-bar").first
    expect(bar).to_be_visible(timeout=10_000)
    expect(output.locator(".jupyter-widgets").first).to_contain_text(re.compile(r"epoch\s\d+/500.*loss="))
    shoot(page, "bar")
    page.evaluate("void jupyterapp.commands.execute('notebook:interrupt-kernel')")
    expect(output).to_contain_text("Interrupted in epoch", timeout=30_000)
    last = panel.locator(".jp-CodeCell").nth(2).locator(".jp-OutputArea").first
    expect(last).to_contain_text(USABLE, timeout=60_000)  # the run went on to the next cell
    assert panel.locator(ERRORS).all_inner_texts() == []
    shoot(page, "stopped")
