"""What a machine has, as its own processes find it: versions, GPUs, /dev/shm, disks, folders, open ports.

Travels to nodes as its own text, so that it works where hpo_ray is missing or old: standard library only, but for
what travels with it (`gather.TRAVEL`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from hpo_ray.storage.address import is_uri, opened

PACKAGES = ("ray", "torch", "torchvision", "hpo-ray")
_SEEN_WITHIN_S = 5.0  # what another node wrote, on a file server that remembers folders for a while
_SERVERS = {"dashboard": "/dashboard/dashboard.py", "client": "ray.util.client.server"}


class Probe:
    """One machine asked; Ray makes an actor of it on each node."""

    def facts(self, paths: Mapping[str, str], folder: str, address: str | None) -> dict[str, Any]:
        """Everything but what needs another machine to answer.

        Args:
            paths: Key -> a file or folder that trials read.
            folder: Where results are to lie, or the nearest folder above it that there is.
            address: The cluster's, to know its servers among others'; None: there is no cluster.
        """
        return {
            "host": socket.gethostname(),
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
            "code": _digest("hpo_ray"),
            "torch_cuda": _torch_cuda(),
            "gpus": _gpus(),
            "shm": _space("/dev/shm"),
            "disks": {"temporary files": _space("/tmp"), **({} if is_uri(folder) else {"results": _space(folder)})},
            "paths": {key: _what(path) for key, path in paths.items()},
            "token": _token(),
            "tls": os.environ.get("RAY_USE_TLS", "0") not in ("", "0"),
            "servers": list(_servers(address)) if address else [],
        }

    def now(self) -> float:
        """The clock, in Unix seconds."""
        return time.time()

    def write(self, folder: str, name: str) -> str:
        """Leave a file in a folder (or a URI that pyarrow opens); what went wrong, or empty."""
        try:
            if is_uri(folder):
                filesystem, place = _opened(folder)
                with filesystem.open_output_stream(f"{place}/{name}") as out:
                    out.write(name.encode())
                return ""
            with (Path(folder) / name).open("x") as file:
                file.write(name)
                file.flush()
                os.fsync(file.fileno())
        except Exception as error:  # pyarrow has exceptions of its own
            return getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        return ""

    def seen(self, folder: str, names: list[str]) -> list[str]:
        """Which of these files can be read there."""
        until = time.monotonic() + _SEEN_WITHIN_S
        while True:
            found = [name for name in names if _holds(folder, name)]
            if len(found) == len(names) or time.monotonic() > until:
                return found
            time.sleep(0.2)

    def remove(self, folder: str, name: str) -> None:
        """Take the file away again."""
        with contextlib.suppress(Exception):
            if is_uri(folder):
                filesystem, place = _opened(folder)
                filesystem.delete_file(f"{place}/{name}")
            else:
                (Path(folder) / name).unlink()


def standing(path: str) -> str:
    """The nearest folder at or above a path that there is; a URI as it is."""
    if is_uri(path):
        return path
    here = Path(path).expanduser().absolute()
    while not here.is_dir():
        here = here.parent
    return str(here)


def _opened(uri: str) -> tuple[Any, str]:
    filesystem, place = opened(uri)
    return filesystem, place.rstrip("/")


def _holds(folder: str, name: str) -> bool:
    try:
        if is_uri(folder):
            filesystem, place = _opened(folder)
            with filesystem.open_input_stream(f"{place}/{name}") as file:
                return bool(file.read() == name.encode())
        next(Path(folder).iterdir(), None)  # has NFS look anew
        return (Path(folder) / name).read_text() == name
    except Exception:
        return False


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _folder_of(package: str) -> Path | None:
    """Where a package is, without importing it."""
    with contextlib.suppress(ImportError, ValueError):
        found = importlib.util.find_spec(package)
        if found is not None and found.origin:
            return Path(found.origin).parent
    return None


def _digest(package: str) -> str | None:
    """Of a package's source files: an old wheel can have the new one's version."""
    folder = _folder_of(package)
    if folder is None:
        return None
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        whole.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return whole.hexdigest()[:12]


def _torch_cuda() -> str | None:
    """The CUDA that torch was built for; None where it was built without."""
    folder = _folder_of("torch")
    with contextlib.suppress(OSError):
        found = re.search(r"^cuda\b[^=]*= *'([^']+)'", (folder or Path()).joinpath("version.py").read_text(), re.M)
        return found.group(1) if found else None
    return None


def _gpus() -> list[dict[str, Any]]:
    """The machine's GPUs, with the memory in use (MiB; None where only their number can be had)."""
    ask = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError):
        said = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [line.rsplit(",", 2) for line in said.splitlines() if line.strip()]
        return [{"name": name.strip(), "total_mb": float(total), "used_mb": float(used)} for name, total, used in rows]
    with contextlib.suppress(OSError):
        return [{"name": "", "total_mb": None, "used_mb": None} for _ in Path("/proc/driver/nvidia/gpus").iterdir()]
    return []


def _space(path: str) -> dict[str, Any] | None:
    """Bytes in all and free, where a path lies; None if it isn't there."""
    with contextlib.suppress(OSError):
        usage = shutil.disk_usage(path)
        return {"path": path, "total": usage.total, "free": usage.free}
    return None


def _what(path: str) -> dict[str, Any]:
    """Whether a path can be read, and how much there is: entries of a folder, bytes of a file."""
    here = Path(path)
    try:
        if here.is_dir():
            return {"path": path, "entries": sum(1 for _ in here.iterdir())}
        with here.open("rb") as file:
            file.read(1)
            return {"path": path, "bytes": os.fstat(file.fileno()).st_size}
    except OSError as error:
        return {"path": path, "error": error.strerror}


def _token() -> dict[str, Any]:
    """Where Ray's token comes from, in Ray's order, and who may read that file; never the token."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return {"from": "RAY_AUTH_TOKEN"}
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return {"from": str(path), "mode": stat.S_IMODE(path.stat().st_mode)}
    except OSError as error:
        return {"from": str(path), "error": error.strerror}


def _servers(address: str) -> Iterator[dict[str, Any]]:
    """The cluster's dashboard and Ray Client server on this machine, with the addresses that they listen on."""
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else ():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            kind = next((kind for kind, mark in _SERVERS.items() if any(word.endswith(mark) for word in words)), None)
            if kind and any(word in (f"--gcs-address={address}", f"--address={address}") for word in words):
                listens = _listens(entry, words)
                if listens:
                    yield {"kind": kind, "listens": listens}


def _listens(process: Path, words: list[str]) -> list[list[Any]]:
    """The (host, port) pairs that a server listens on for what it is there for, beside ports for its own metrics.

    Those of its command line where the process cannot be looked into.
    """
    given = dict(word.split("=", 1) for word in words if word.startswith("--") and "=" in word)
    first = int(given.get("--port", "0"))
    wanted = range(first, first + int(given.get("--port-retries", "0")) + 1)
    try:
        links = [str(link.readlink()) for link in (process / "fd").iterdir()]
    except OSError:
        return [[given.get("--host", "0.0.0.0"), first]]
    own = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (process / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                host, _, port = fields[1].partition(":")
                if fields[3] == "0A" and fields[9] in own and int(port, 16) in wanted:
                    found.add((_readable(host), int(port, 16)))
    return [list(pair) for pair in sorted(found)]


def _readable(host: str) -> str:
    """The kernel's hexadecimal words, each in the machine's own (little-endian) order, as an address."""
    data = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
    text = socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)
    return text.removeprefix("::ffff:")
