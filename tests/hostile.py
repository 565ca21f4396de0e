"""Files that a stranger could send: pickles that would run code, odd containers, greedy allocations."""

import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

from course_utils.checkpoints import SEAL

TORCH = {"byteorder": b"little", "data/0": bytes(4), "version": b"3\n"}  # what else is in its archives


def sealed(raw: bytes) -> bytes:
    """The bytes with the right checksum behind them: anyone can compute it."""
    return raw + SEAL % zlib.crc32(raw)


def archive(pickled: bytes, name: str = "data.pkl", compression: int = 0, **more: bytes) -> bytes:
    """An archive like torch's, with these bytes in place of its pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as whole:
        for member, content in ({name: pickled, **TORCH, **more}).items():
            whole.writestr(f"archive/{member}", content)
    return buffer.getvalue()


def text(value: str) -> bytes:
    """A text in the opcodes of protocol 2."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return b"c%s\n%s\n" % (module.encode(), attribute.encode())


def call(module: str, attribute: str, *arguments: object) -> bytes:
    """The opcodes that call a function with plain arguments."""
    pickled = pickle.dumps(arguments, 2)[2:-1]
    return name(module, attribute) + pickled + b"R"


def calls(canary: Path) -> dict[str, bytes]:
    """Calls that make the file `canary` when a pickle is loaded carelessly: their opcodes."""
    path = str(canary)
    touch = f"import pathlib; pathlib.Path({path!r}).touch()"
    inner = b"\x80\x02" + call("__builtin__", "open", path, "w") + b"."
    module = canary.parent / "hostile_module.py"
    module.write_text(touch)
    return {
        "os.system": call("os", "system", f"touch {path}"),
        "posix.system": call("posix", "system", f"touch {path}"),
        "os.popen": call("os", "popen", f"touch {path}"),
        "os.open": call("os", "open", path, 0o101),
        "os.mkdir": call("os", "mkdir", path),
        "os.symlink": call("os", "symlink", "/dev/null", path),
        "subprocess.call": call("subprocess", "call", ["touch", path]),
        "subprocess.check_output": call("subprocess", "check_output", ["touch", path]),
        "eval": call("__builtin__", "eval", f"open({path!r}, 'w')"),
        "exec": call("__builtin__", "exec", touch),
        "open": call("__builtin__", "open", path, "w"),
        "io.open": call("io", "open", path, "w"),
        "io.FileIO": call("io", "FileIO", path, "w"),
        "codecs.open": call("codecs", "open", path, "w"),
        "shutil.copyfile": call("shutil", "copyfile", str(module), path),
        "runpy.run_path": call("runpy", "run_path", str(module)),
        "timeit.timeit": call("timeit", "timeit", "pass", touch),
        "pickle.loads": call("pickle", "loads", inner),
        "sqlite3.connect": call("sqlite3", "connect", path),
        "zipfile.ZipFile": call("zipfile", "ZipFile", path, "w"),
        "tarfile.open": call("tarfile", "open", path, "w"),
        "logging.FileHandler": call("logging", "FileHandler", path),
        "numpy.savetxt": call("numpy", "savetxt", path, [1.0]),
        "numpy.memmap": call("numpy", "memmap", path, "uint8", "w+", 0, 1),
        "torch.save": call("torch", "save", 1, path),
        "torch.from_file": call("torch", "from_file", path, True, 4),
        "torch.storage._load_from_bytes": call("torch.storage", "_load_from_bytes", inner),
    }


def forms(canary: Path) -> dict[str, bytes]:
    """One such call in other clothes: protocols, opcodes, places. Whole pickles."""
    path = str(canary)
    system = call("os", "system", f"touch {path}")
    command = f"touch {path}"
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x01tQ"
    short = b"\x8c" + bytes([len(command)]) + command.encode()
    return {
        "protocol 0": f"cos\nsystem\n(V{command}\ntR.".encode(),
        "protocol 1": b"cos\nsystem\n(" + text(command) + b"tR.",
        "protocol 3": b"\x80\x03" + system + b".",
        "protocol 4": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + short + b"\x85R.",
        "protocol 5": b"\x80\x05\x8c\x05posix\x8c\x06system\x93" + short + b"\x85R.",
        "INST": f"(V{command}\nios\nsystem\n.".encode(),
        "OBJ": b"\x80\x02(" + name("os", "system") + text(command) + b"o.",
        "NEWOBJ": b"\x80\x02"
        + name("numpy", "memmap")  # makes the file in its __new__
        + pickle.dumps((path, "uint8", "w+", 0, 1), 2)[2:-1]
        + b"\x81.",
        "from the memo": b"\x80\x02" + name("os", "system") + b"q\x010h\x01" + text(command) + b"\x85R.",
        "in a dict": b"\x80\x02}" + text("model") + system + b"s.",
        "as a key": b"\x80\x02}" + system + b"K\x01s.",
        "in a list in a tuple": b"\x80\x02}" + text("a") + b"](" + system + b"tas" + b".",
        "in a Counter": b"\x80\x02" + name("collections", "Counter") + b"}" + system + b"K\x01s\x85R.",
        "in a set": b"\x80\x02" + name("__builtin__", "set") + b"]" + system + b"a\x85R.",
        "in the state of an OrderedDict": b"\x80\x02"
        + call("collections", "OrderedDict")
        + b"}"
        + text("x")
        + system
        + b"sb.",
        "__setstate__ of a tensor": b"\x80\x02" + name("torch", "Tensor") + b")R(" + system + b"tb.",
        "in the hooks of a tensor": b"\x80\x02" + rebuild + b"(" + storage + b"K\x00))\x89" + system + b"tR.",
        "as the size of a tensor": b"\x80\x02" + rebuild + b"(" + storage + b"K\x00" + system + b")\x89)tR.",
        "as the type of a storage": b"\x80\x02("
        + text("storage")
        + system
        + text("0")
        + text("cpu")
        + b"K\x01tQ.",
        "as a storage's key": b"\x80\x02("
        + text("storage")
        + name("torch", "FloatStorage")
        + system
        + text("cpu")
        + b"K\x01tQ.",
        "as the class of a tensor": b"\x80\x02"
        + name("torch._tensor", "_rebuild_from_type_v2")
        + b"("
        + name("os", "system")
        + name("os", "system")
        + b"("
        + text(command)
        + b"t}tR.",
        "as the type of a rebuilt tensor": b"\x80\x02"
        + name("torch._tensor", "_rebuild_from_type_v2")
        + b"("
        + rebuild
        + call("subprocess", "Popen", ["touch", path])
        + b"("
        + storage
        + b"K\x00))\x89}t}tR.",
        "a hostile class with a state": b"\x80\x02"
        + name("logging", "Handler")
        + b")\x81}"
        + text("x")
        + system
        + b"sb.",
        "dotted": b"\x80\x04\x8c\x07pathlib\x8c\x0aPath.touch\x93"
        + call("pathlib", "PosixPath", path)
        + b"\x85R.",
        "allow-listing itself": b"\x80\x02"
        + name("torch.serialization", "add_safe_globals")
        + b"]"
        + name("os", "system")
        + b"a\x85R0"
        + system
        + b".",
    }


def greedy() -> dict[str, bytes]:
    """Whole pickles that ask for more than there is, or for no end."""
    much = b"\x8a\x08" + struct.pack("<q", 10**15)
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + much + b"tQ"
    return {
        "a tensor of 4 PB": b"\x80\x02" + name("torch", "Tensor") + much + b"\x85R.",
        "bytes of 1 PB": b"\x80\x02" + name("__builtin__", "bytearray") + much + b"\x85R.",
        "a storage of 4 PB": b"\x80\x02}" + text("a") + storage + b"s.",
        "a text of 1 PB": b"\x80\x02X\xff\xff\xff\xff" + b"a" * 100,
        "a tensor beyond its storage": b"\x80\x02}"
        + text("a")
        + name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + storage.replace(much, b"K\x01")
        + b"K\x00\x8a\x08"
        + struct.pack("<q", 10**12)
        + b"\x85K\x01\x85\x89)tRs.",
        "lists in lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "no end": b"\x80\x02}",
        "nothing": b"",
        "an empty stack": b"\x80\x02.",
        "no such opcode": b"\x80\x02\xfe\xfd.",
    }


def containers(canary: Path) -> dict[str, bytes]:
    """The call in other formats that `torch.load` knows, without a checksum of ours."""
    pickled = b"\x80\x02" + call("os", "system", f"touch {canary}") + b"."
    size = b"J" + struct.pack("<i", 12_500_000)
    legacy = b"".join(
        pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as whole:
        for member in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(member)
            entry.size = len(pickled)
            whole.addfile(entry, io.BytesIO(pickled))
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + size + b"tQ"
    bomb = b"\x80\x02}" + text("a") + name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage
    bomb += b"K\x00" + size + b"\x85K\x01\x85\x89" + call("collections", "OrderedDict") + b"tRs."
    code = f"import os\nos.system('touch {canary}')\n".encode()
    script = {"constants.pkl": pickled, "code/__torch__.py": code}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as whole:
        whole.writestr("archive/data.pkl", b"\x80\x02}.")
        whole.writestr("archive/version", "3\n")
        whole.writestr("other/data.pkl", pickled)
    return {
        "a bare pickle": pickled,
        "the format before 1.6": legacy + pickled,
        "the format before 0.1.10": tar.getvalue(),
        "TorchScript": archive(pickled, **script),
        "a bomb": archive(bomb, compression=zipfile.ZIP_DEFLATED, **{"data/0": bytes(50_000_000)}),
        "two archives in one": buffer.getvalue(),
        "no archive": b"PK\x03\x04" + bytes(500),
        "a shell script": f"#!/bin/sh\ntouch {canary}\n".encode(),
    }
