"""What makes `pytest --nbval` strict and repeatable, whatever path it is given and wherever it starts.

Outputs are compared by the kernel of this environment, each cell has a time limit, and every kernel
starts in the same surroundings, in which a deprecated call is an error.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "tests"))
os.environ["TQDM_DISABLE"] = "1"  # tqdm looks once, when it is imported
os.environ["COURSE_PROGRESS"] = "off"  # tests neither read nor write what a learner has solved
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so for what a script starts with `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl-C

KERNEL_ENVIRONMENT = pytest.StashKey[dict[str, str]]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin("nbval"):  # known here only to say below what is missing
        parser.addoption("--nbval", action="store_true", help="run notebooks (needs the plugin nbval)")


def pytest_configure(config: pytest.Config) -> None:
    """Set nbval's options.

    Raises:
        pytest.UsageError: `--nbval` is given, but pytest has not loaded nbval.
    """
    if not (config.getoption("nbval") or config.getoption("nbval_lax", False)):
        return
    if not config.pluginmanager.hasplugin("nbval"):
        raise pytest.UsageError("--nbval needs the plugin nbval: pip install -r requirements.txt")
    from notebook_tools import CELL_SECONDS, SANITIZE, kernel_environment  # needs what nbval brings

    option = config.option
    option.nbval_current_env = True
    option.nbval_cell_timeout = min(option.nbval_cell_timeout, CELL_SECONDS)
    option.nbval_sanitize_with = option.nbval_sanitize_with or str(SANITIZE)
    profile = tempfile.TemporaryDirectory(prefix="ipython-", ignore_cleanup_errors=True)
    config.add_cleanup(profile.cleanup)
    config.stash[KERNEL_ENVIRONMENT] = kernel_environment(profile.name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Start kernels, which nbval does in the setup of a notebook's first cell, in their own environment."""
    with pytest.MonkeyPatch.context() as patch:
        if item.path.suffix == ".ipynb":
            for name, value in item.config.stash[KERNEL_ENVIRONMENT].items():
                patch.setenv(name, value)
        return (yield)
