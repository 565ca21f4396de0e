"""The chapters in JupyterLab as a learner meets them: opened by the README's command, in a real browser.

With COURSE_SCREENSHOTS=folder the pictures of the visits are kept there.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from notebook_tools import METADATA, ROOT, Exercise, exercises, notebooks, read_notebook, with_solutions

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="starts a shell script")]

ERRORS = ".jp-OutputArea-output:is([data-mime-type$='jupyter.stderr'], [data-mime-type$='jupyter.error'])"
BROKEN = "images => images.filter(i => !i.complete || i.naturalWidth === 0).map(i => i.src.slice(0, 80))"
WIDGETS = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.widget-view+json']"
UNRENDERED = "all => all.filter(w => !w.querySelector('.jupyter-widgets')).map(w => w.innerText)"
HOME = re.compile(r"(http|ws)://(localhost|127\.0\.0\.1):|file:|data:|blob:")
SETTINGS = {
    "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    "notebook-extension/tracker": '{"windowingMode": "none"}',  # keep every cell in the page
}


def skip(reason: str) -> None:
    """Skip the visit; on CI, where it must happen, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture
def page(tmp_path) -> Iterator:
    """A page of Chromium: the system's own, Google's Chrome, or the one that Playwright installs."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        skip("Playwright is not installed: pip install -e '.[dev]'")
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        browsers = (
            shutil.which("chromium"),
            shutil.which("google-chrome"),
            own if Path(own).is_file() else None,
        )
        program = next(filter(None, browsers), None)
        if program is None:
            skip("no Chromium: apt install chromium, or playwright install chromium")
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "chromium",
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
            viewport={"width": 1280, "height": 2000},
        )
        yield context.pages[0]
        context.close()


@pytest.fixture
def address(tmp_path) -> Iterator[str]:
    """Start JupyterLab by the README's command in a copy of the course; return what it opens."""
    for part in ("course_utils", "data", "notebooks"):
        shutil.copytree(ROOT / part, tmp_path / "course" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, setting in SETTINGS.items():
        file = tmp_path / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(setting)
    browser, opened = tmp_path / "browser", tmp_path / "opened"  # in place of the learner's browser
    browser.write_text('#!/bin/sh\ncd "$(dirname "$0")" && printf %s "$1" > new && mv new opened\n')
    browser.chmod(0o755)

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^<!-- command: open -->\n```bash\n(.*?)^```$", readme, re.S | re.M)[1]
    command = shlex.split(block.strip().splitlines()[-1])
    assert command[:2] == ["jupyter", "lab"]
    command += ["--allow-root", "--ServerApp.port=0", "--LabApp.expose_app_in_browser=True"]
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JUPYTER", "PYTEST_", "TQDM_"))  # a learner sees the bars
    }
    variables |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BROWSER": f"{browser} %s",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    log = tmp_path / "jupyterlab.log"
    with log.open("w") as stream:
        server = psutil.Popen(
            command,
            cwd=tmp_path / "course",
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        deadline = time.monotonic() + 90
        while not opened.is_file():
            assert server.poll() is None, f"JupyterLab has ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"JupyterLab has opened no browser:\n{log.read_text()}"
            time.sleep(0.2)
        yield opened.read_text()
    finally:
        end(server)


def end(server: psutil.Popen) -> None:
    """End a server and its kernels: kindly, then by force."""
    family = [server]
    if server.poll() is None:
        family += server.children(recursive=True)
        server.terminate()
    for process in psutil.wait_procs(family, timeout=15)[1]:
        process.kill()


def open_notebook(page, address: str, name: str):
    """Open a notebook of the folder in a test's JupyterLab; return its panel once its kernel is idle."""
    from playwright.sync_api import expect

    page.goto(address)  # which opens chapter 01
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook")
    panel.wait_for(timeout=60_000)
    page.evaluate("jupyterapp.restored.then(() => null)")
    page.evaluate("path => void jupyterapp.commands.execute('docmanager:open', {path})", name)
    expect(page.locator("#jp-main-dock-panel .lm-TabBar-tab.lm-mod-current")).to_contain_text(
        name, timeout=60_000
    )
    page.evaluate("jupyterapp.shell.currentWidget.sessionContext.ready.then(() => null)")
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
    return panel


def open_cells(page, address: str, folder: Path, sources: list[str]):
    """Open a notebook of these cells in a test's JupyterLab; return its panel once its kernel is idle."""
    from playwright.sync_api import expect

    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=METADATA)
    nbformat.write(notebook, folder / "course" / "notebooks" / "live.ipynb")
    panel = open_notebook(page, address, "live.ipynb")
    expect(panel.locator(".jp-CodeCell")).to_have_count(len(cells), timeout=60_000)
    return panel


def shoot(page, name: str) -> None:
    """Keep a picture of the page, if COURSE_SCREENSHOTS names a folder."""
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


def shoot_all(page, panel, name: str) -> None:
    """Scroll through a notebook, and keep pictures of all of it if COURSE_SCREENSHOTS names a folder."""
    scroller = panel.locator(".jp-WindowedPanel-outer")
    step, height = scroller.evaluate("s => [s.clientHeight, s.scrollHeight]")
    for number, top in enumerate(range(0, height, step)):
        scroller.evaluate("(s, top) => { s.scrollTop = top }", top)
        shoot(page, f"{name}-{number:02}")


def wrong_answer(exercise: Exercise) -> str:
    """Return the exercise's cell with functions that return a text, which no exercise asks for."""
    module = ast.parse(exercise.cell.source)
    for node in module.body:
        if isinstance(node, ast.FunctionDef):
            node.body = ast.parse('return "wrong"').body
    return ast.unparse(module)


def headings(markdown: str) -> list[int]:
    """Return the levels of the headings, from 1 to 6, in their order."""
    prose = re.sub(r"^```.*?^```", "", markdown, flags=re.S | re.M)
    return [len(marks) for marks in re.findall(r"^(#{1,6}) ", prose, re.M)]


def run_all(page, address: str, path: Path):
    """Open a chapter in a test's JupyterLab and run all of its cells; return its panel, once all is well."""
    from playwright.sync_api import expect

    panel = open_notebook(page, address, path.name)
    page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
    page.evaluate("jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")  # void: do not wait for it

    prompts = panel.locator(".jp-CodeCell .jp-InputPrompt")
    expect(prompts.first).to_have_text("[1]:", timeout=60_000)
    expect(prompts.filter(has_text="[*]:")).to_have_count(0, timeout=600_000)  # after an error, none waits
    assert panel.locator(ERRORS).all_inner_texts() == []
    assert prompts.all_inner_texts() == [f"[{n}]:" for n in range(1, prompts.count() + 1)]
    assert page.locator(".jp-Dialog").all_inner_texts() == []
    return panel


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_chapter_runs(page, address, path):
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    panel = run_all(page, address, path)
    shoot_all(page, panel, path.stem)  # and so scrolls over all of it
    assert panel.locator(".jp-TrimmedOutputs").count() == 0  # "Show more outputs" hides what comes last
    pictures = panel.locator("img")
    assert pictures.count() > 0
    assert pictures.evaluate_all(BROKEN) == []
    assert panel.locator(WIDGETS).evaluate_all(UNRENDERED) == []
    cells = read_notebook(path).cells
    levels = [n for cell in cells if cell.cell_type == "markdown" for n in headings(cell.source)]
    shown = panel.locator(":is(h1, h2, h3, h4, h5, h6)").evaluate_all(
        "all => all.map(h => Number(h.tagName[1]))"
    )
    assert shown == levels
    assert [url for url in requests if not HOME.match(url)] == [], "the page asks the network for something"


def test_exercise_is_graded(page, address):
    from playwright.sync_api import expect

    notebook = read_notebook(notebooks()[0])
    exercise = exercises(notebook)[0]
    panel = run_all(page, address, notebooks()[0])
    cell = panel.locator(".jp-Cell").nth(exercise.index)
    output = cell.locator(".jp-OutputArea")
    expect(output).to_contain_text(f"○ {exercise.names[0]}: not started")
    for name, mark, source in (
        ("wrong", "✘", wrong_answer(exercise)),
        ("right", "✔", with_solutions(notebook).cells[exercise.index].source),
    ):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+A")
        page.keyboard.insert_text(source)
        page.keyboard.press("Control+Enter")
        expect(output).to_contain_text(f"{mark} {exercise.names[0]}:", timeout=30_000)
        output.evaluate("output => output.scrollIntoView({block: 'end'})")
        shoot(page, name)

    hint = panel.locator("details", has_text="Hint").first
    text = hint.locator(":scope > :not(summary)").first
    expect(text).not_to_be_visible()
    hint.locator("summary").click()
    expect(text).to_be_visible()
    shoot(page, "hint")
