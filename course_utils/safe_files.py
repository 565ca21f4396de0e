"""Files that are there as a whole or not at all, and that tell when a byte of them has changed."""

import contextlib
import os
import re
import secrets
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

SEAL = b"course_utils crc32 %08x\n"  # the last line of a checkpoint
SEAL_SIZE = len(SEAL % 0)
AT_ONCE = 8 << 20  # bytes that are handed to the disk together
LARGE = 64 << 10  # bytes whose checksum is worth the way to another thread


class CheckpointError(RuntimeError):
    """A checkpoint cannot be saved, read or used; the message says which, why, and what to do."""


@contextlib.contextmanager
def explaining(what: str) -> Iterator[None]:
    """Turn an error of the system into a CheckpointError that begins with `what`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{what}: {error.strerror or error}. Free some space, or save to a folder that is there and that "
            "you may write to. What was saved before is as it was."
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new name in the folder of `path`; what is written there is moved to `path`, or removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with explaining(f"{path} was not saved"):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # the bytes are on the disk before the name points to them
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class Crc32Writer:
    """Writes to a file and computes the CRC-32 of what goes through, without a copy.

    Args:
        pool: a thread that computes the checksum of a large piece while the piece is written.
    """

    def __init__(self, file: BinaryIO, pool: ThreadPoolExecutor) -> None:
        self.file, self.pool, self.crc, self.error = file, pool, 0, None
        self.waiting = 0  # bytes that the disk has not been asked to write

    def write(self, data: Any) -> int:
        large = memoryview(data).nbytes >= LARGE
        crc = self.pool.submit(zlib.crc32, data, self.crc) if large else None
        try:
            written = self.file.write(data)
            self.waiting += written
            if self.waiting >= AT_ONCE:
                self._begin()
        except OSError as error:  # torch hides it
            self.error = error
            raise
        finally:  # torch may use the memory again as soon as this returns
            self.crc = crc.result() if crc else zlib.crc32(data, self.crc)
        return written

    def _begin(self) -> None:
        """Let the disk begin now, while the rest is computed: fsync waits less. Only Linux can do so.

        The advice also lets the system forget the bytes, so that the next read may come from the disk.
        """
        self.waiting = 0
        self.file.flush()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def flush(self) -> None:
        self.file.flush()


def check_bytes(path: Path, file: BinaryIO) -> None:
    """See that the file ends with the right checksum, and that its contents are stored as torch does.

    Leaves the file at its beginning.
    """
    size = file.seek(0, os.SEEK_END) - SEAL_SIZE
    file.seek(max(size, 0))
    seal = file.read()
    if size < 0 or not seal.startswith(SEAL.partition(b"%")[0]):
        whole = zipfile.is_zipfile(file)  # has its end
        raise CheckpointError(
            f"{path} has no checksum at its end: save_checkpoint did not write it. If you know who did, read "
            "it by torch.load(path, weights_only=True)."
            if whole
            else f"{path} has no checksum at its end: it is cut short, or no checkpoint. Use another."
        )
    file.seek(0)
    crc, left = 0, size
    while left and (block := file.read(min(left, 1 << 20))):
        crc, left = zlib.crc32(block, crc), left - len(block)
    if seal != SEAL % crc:
        raise CheckpointError(f"{path} has changed since it was saved: its checksum is wrong. Use another.")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if sum(member.file_size for member in members) > size:  # compressed, or parts that overlap
        raise CheckpointError(f"{path} was refused: it would unpack to more than its size. Do not use it.")
    file.seek(0)


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk, too, where a folder can be opened (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cause(error: BaseException) -> str:
    """The line of an error's message that tells the cause, without torch's advice around it."""
    text = re.sub(r"\x1b\[\d+m", "", str(error)).strip() or type(error).__name__
    if not text.startswith("Weights only load failed"):
        return text.splitlines()[0]
    last = text.partition("Check the documentation")[0].strip().splitlines()[-1]
    return last.rpartition("WeightsUnpickler error: ")[2].partition(" Please use ")[0]
