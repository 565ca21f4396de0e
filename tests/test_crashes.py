"""Checkpoints where saving goes wrong for real: killed processes, full disks, folders that are read-only."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from notebook_tools import ROOT

from course_utils.checkpoints import CheckpointError, load_checkpoint, save_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="needs POSIX")]

# One process loads torch; each of its children saves in a loop, tells of each save, and is killed.
KILLS = """
import os, random, select, signal, sys, time
import torch
from course_utils.checkpoints import Checkpoints, load_checkpoint, save_checkpoint

torch.set_num_threads(1)  # threads would not survive the fork
folder, rounds, whole_folder = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "folder"
path = folder + "/state.pt"
kept = Checkpoints(folder, keep=2)
done, torn, draw = 0, 0, random.Random(0)

def state(n):
    return {"n": n, "weights": torch.full((20_000,), float(n))}

def check(path, allowed):
    loaded = load_checkpoint(path)
    assert loaded["n"] in allowed, (loaded["n"], allowed)
    assert torch.equal(loaded["weights"], state(loaded["n"])["weights"])
    return loaded["n"]

for _ in range(rounds):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for n in range(done + 1, done + 10_000):
            if whole_folder:
                kept.save(n, state(n), -n)
            else:
                save_checkpoint(path, state(n))
            os.write(writer, n.to_bytes(4, "little"))
        os._exit(0)
    os.close(writer)
    assert select.select([reader], [], [], 30)[0], "the child saves nothing"
    time.sleep(draw.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = b""
    while block := os.read(reader, 1 << 16):
        told += block
    os.close(reader)
    done = int.from_bytes(told[-4:], "little")
    names = os.listdir(folder)
    torn += any(name.endswith(".tmp") for name in names)
    if whole_folder:
        last = check(kept.last(), {done, done + 1})
        assert check(kept.best(), {done, done + 1}) >= last
        assert sum(name.startswith("epoch_") for name in names) <= 3, names
        done = last
    else:
        done = check(path, {done, done + 1})
        for name in names:
            if name.endswith(".tmp"):
                os.remove(folder + "/" + name)
    assert sum(name.endswith(".tmp") for name in names) <= 1, names
print(rounds, torn, done)
"""


@pytest.mark.parametrize(("what", "rounds"), [("file", 200), ("folder", 100)])
def test_kills_while_saving_lose_nothing(tmp_path, what, rounds):
    run = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), str(rounds), what],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    kills, torn, saved = map(int, run.stdout.split())
    assert kills == rounds
    assert torn > rounds // 10  # so many struck in the middle of a file
    assert saved > rounds


def run_code(code: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """Run code in a process of its own, with the course at hand."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, **options)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[bool]:
    """Mount a file system in memory, if that is allowed here."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(folder)], check=True)


SMALL, LARGE = {"weights": torch.zeros(1000)}, {"weights": torch.ones(5_000_000)}


def test_a_full_disk(tmp_path):
    with mounted(tmp_path, "size=4m") as full:
        if not full:
            pytest.skip("no file system can be mounted here: the limit on a file's size is tested alone")
        path = tmp_path / "state.pt"
        save_checkpoint(path, SMALL)
        with pytest.raises(
            CheckpointError, match=r"state\.pt was not saved: No space left on device\. Free some"
        ):
            save_checkpoint(path, LARGE)
        assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
        assert torch.equal(load_checkpoint(path)["weights"], SMALL["weights"])


LIMIT = """
import resource, signal, sys
import torch
from course_utils.checkpoints import CheckpointError, save_checkpoint
save_checkpoint(sys.argv[1], {"weights": torch.zeros(1000)})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    save_checkpoint(sys.argv[1], {"weights": torch.ones(1_000_000)})
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("size", [10, 700, 100_000, 4_000_500])
def test_a_limit_on_the_size_of_files(tmp_path, size):
    path = tmp_path / "state.pt"
    run = run_code(LIMIT, path, size)
    assert "state.pt was not saved: File too large. Free some space" in run.stdout, run.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    assert torch.equal(load_checkpoint(path)["weights"], torch.zeros(1000))


def test_a_read_only_file_system(tmp_path):
    path = tmp_path / "state.pt"
    with mounted(tmp_path, "size=4m") as done:
        if not done:
            pytest.skip("no file system can be mounted here: the folder without permission is tested alone")
        save_checkpoint(path, SMALL)
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(
            CheckpointError, match=r"state\.pt was not saved: Read-only file system\..*may write to"
        ):
            save_checkpoint(path, LARGE)
        assert torch.equal(load_checkpoint(path)["weights"], SMALL["weights"])


def test_a_folder_without_permission():
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        path, secret = folder / "state.pt", folder / "secret.pt"
        save_checkpoint(path, SMALL)
        save_checkpoint(secret, SMALL)
        secret.chmod(0)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            with pytest.raises(
                CheckpointError, match=r"state\.pt was not saved: Permission denied\..*may write"
            ):
                save_checkpoint(path, LARGE)
            with pytest.raises(
                CheckpointError, match=r"secret\.pt cannot be read: Permission denied\. Check"
            ):
                load_checkpoint(secret)
            assert torch.equal(load_checkpoint(path)["weights"], SMALL["weights"])
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
        assert sorted(file.name for file in folder.iterdir()) == ["secret.pt", "state.pt"]
