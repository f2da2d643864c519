"""The user's folder as one archive: code and configuration, no secrets, no results, nothing from outside it.

Knows files and git's idea of what is ignored; nothing of experiments, Ray or the cluster.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpo_ray.errors import InvalidInput, Problem

# Ray's own limit is 512 MiB for a message; what is larger is data, and belongs on the cluster's storage.
LIMIT = 100 * 2**20
SECRETS = (
    *(".env", ".env.*", ".netrc", ".pgpass", ".pypirc", ".npmrc", ".git-credentials", "kubeconfig", "auth_token*"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "*.secret", "id_rsa*", "id_ecdsa*", "id_ed25519*"),
    *("credentials", "credentials.json", "*service-account*.json", "secrets.yaml", "secrets.yml", "secrets.json"),
)
_SECRET_FOLDERS = {".ssh", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".ray", ".gnupg"}
_NEVER = {".git", ".hg", ".svn", "__pycache__", ".venv", "venv", "node_modules", ".mypy_cache", ".ruff_cache"}
_NEVER |= {".pytest_cache", ".ipynb_checkpoints", ".tox"}
_JOURNAL = "events.jsonl"


@dataclass(frozen=True)
class Parcel:
    """What was packed.

    Attributes:
        files: How many.
        size: Their bytes.
        secret: Left out because they look like secrets, or hold the token; relative paths.
        outside: Links left out because they lead out of the folder.
    """

    files: int
    size: int
    secret: tuple[str, ...]
    outside: tuple[str, ...]


def pack(folder: Path, archive: Path, token: str | None = None) -> Parcel:
    """Put a folder's files into a zip archive.

    Left out are what git ignores (in a repository), run directories, environments, caches, links that lead outside, and
    what looks like a secret by its name or holds the cluster's token.

    Args:
        folder: The user's.
        archive: Written.
        token: The cluster's; None: there is none to look for.

    Raises:
        InvalidInput: The folder is none, or holds more than `LIMIT` bytes.
    """
    if not folder.is_dir():
        raise InvalidInput(Problem("--working-dir", f"'{folder}' is no folder"))
    root, taken, secret, outside = folder.resolve(), [], [], []
    for file in sorted(_listed(folder)):
        name = file.relative_to(folder).as_posix()
        if not file.resolve().is_relative_to(root):
            outside.append(name)
        elif is_secret(name) or (token and _holds(file, token)):
            secret.append(name)
        elif file.is_file():
            taken.append((file, name, file.stat().st_size))
    size = sum(bytes_ for _, _, bytes_ in taken)
    if size > LIMIT:
        most = ", ".join(f"{name} ({b / 2**20:.0f} MiB)" for _, name, b in sorted(taken, key=lambda t: -t[2])[:3])
        message = (
            f"'{folder}' holds {size / 2**20:.0f} MiB, at most {LIMIT / 2**20:.0f} are sent; the largest: {most}. Put "
            "data on the cluster's storage, list what isn't needed in .gitignore, or name a smaller folder"
        )
        raise InvalidInput(Problem("--working-dir", message))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as out:
        for file, name, _ in taken:
            out.write(file, name)
        if not taken:
            out.writestr(".empty", "")
    return Parcel(len(taken), size, tuple(secret), tuple(outside))


def is_secret(name: str) -> bool:
    """Whether a relative path looks like a secret."""
    *above, last = name.split("/")
    by_name = any(fnmatch.fnmatch(last.lower(), pattern) for pattern in SECRETS)
    return by_name or not _SECRET_FOLDERS.isdisjoint(above)


def _listed(folder: Path) -> Iterator[Path]:
    """The files of a folder that may matter: those that git knows or would, or all but what never does."""
    words = ["git", "-C", str(folder), "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "."]
    try:
        known = subprocess.run(words, capture_output=True, timeout=60, check=True).stdout.split(b"\0")
        wanted: set[Path] | None = {folder / os.fsdecode(name) for name in known if name}
    except (OSError, subprocess.SubprocessError):
        wanted = None
    for place, folders, files in os.walk(folder):
        if _JOURNAL in files:  # a run directory
            folders.clear()
            continue
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if name not in _NEVER and name not in links]
        for file in (here / name for name in [*files, *links]):
            if wanted is None or file in wanted:
                yield file


def _holds(file: Path, token: str) -> bool:
    try:
        return file.stat().st_size < 2**20 and token.encode() in file.read_bytes()
    except OSError:
        return False
