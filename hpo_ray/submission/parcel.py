"""The user's folder as one archive: code and configuration, no secrets, no results, nothing from outside it.

Knows files and git's idea of what is ignored; nothing of experiments, Ray or the cluster.
"""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from hpo_ray.errors import InvalidInput, Problem
from hpo_ray.submission.confidential import LOOKED_INTO, holds_secret, is_secret

# Ray's own limit is 512 MiB for a message; what is larger is data, and belongs on the cluster's storage.
LIMIT = 100 * 2**20
SECRET, HIDDEN, OUTSIDE = "as secrets", "as hidden folders", "as links that lead outside"
ODD, MISNAMED, UNREADABLE = "as no files", "as names that are not UTF-8", "as unreadable"
ABSENT = "as submodules that are not checked out (git submodule update --init)"
_NEVER = {".git", ".hg", ".svn", "__pycache__", ".venv", "venv", "node_modules", ".mypy_cache", ".ruff_cache"}
_NEVER |= {".pytest_cache", ".ipynb_checkpoints", ".tox"}
_JOURNAL = "events.jsonl"
_GIT_S = 60.0


@dataclass(frozen=True)
class Parcel:
    """What was packed.

    Attributes:
        files: How many.
        size: Their bytes.
        left_out: Why -> relative paths, of what the user may miss.
    """

    files: int
    size: int
    left_out: Mapping[str, tuple[str, ...]]


def pack(folder: Path, archive: Path, token: str | None = None) -> Parcel:
    """Put a folder's files into a zip archive.

    Left out are what git ignores (in a repository), run directories, environments, caches, hidden folders, links that
    lead outside, and what looks like a secret by its name or its content or holds the cluster's token.

    Args:
        folder: The user's.
        archive: Written.
        token: The cluster's; None: there is none to look for.

    Raises:
        InvalidInput: The folder is none, is ignored by git or more than a project (the home directory), git refuses to
            say what is ignored, or it holds more than `LIMIT` bytes.
    """
    if not folder.is_dir():
        raise InvalidInput(Problem("--working-dir", f"'{folder}' is no folder"))
    root, taken = folder.resolve(), []
    if _home().is_relative_to(root):
        message = f"'{folder}' is more than a project: go into your project's folder, or name it"
        raise InvalidInput(Problem("--working-dir", message))
    left: dict[str, list[str]] = {}
    for file, why in sorted(_listed(folder, left)):
        name = file.relative_to(folder).as_posix()
        why = why or _unfit(file, name, root)
        if why:
            left.setdefault(why, []).append(_readable(name))
        else:
            taken.append((file, name, file.stat().st_size))
    size = sum(bytes_ for _, _, bytes_ in taken)
    if size > LIMIT:
        most = ", ".join(f"{name} ({b / 2**20:.0f} MiB)" for _, name, b in sorted(taken, key=lambda t: -t[2])[:3])
        message = (
            f"'{folder}' holds {size / 2**20:.0f} MiB, at most {LIMIT / 2**20:.0f} are sent; the largest: {most}. Put "
            "data on the cluster's storage, list what isn't needed in .gitignore, or name a smaller folder"
        )
        raise InvalidInput(Problem("--working-dir", message))
    sent = 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as out:
        for file, name, bytes_ in taken:
            try:
                if bytes_ < LOOKED_INTO and holds_secret(file.read_bytes(), token):
                    left.setdefault(SECRET, []).append(name)
                    continue
                out.write(file, name)
                sent += 1
            except (PermissionError, FileNotFoundError):
                left.setdefault(UNREADABLE, []).append(name)
        if not sent:
            out.writestr(".empty", "")
        size = sum(entry.file_size for entry in out.infolist())
    return Parcel(sent, size, {why: tuple(sorted(names)) for why, names in left.items()})


def _unfit(file: Path, name: str, root: Path) -> str:
    """Why a file is left out whatever it holds; empty: it isn't. Opens nothing: a pipe would wait for ever."""
    if _readable(name) != name:
        return MISNAMED
    if not file.resolve().is_relative_to(root):
        return OUTSIDE
    if is_secret(name):
        return SECRET
    try:
        return "" if S_ISREG(file.stat().st_mode) else ODD
    except OSError:  # a link to nothing
        return ODD


def _readable(name: str) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def _home() -> Path:
    try:
        return Path.home().resolve()
    except RuntimeError:  # an account without one
        return Path("/")


def _listed(folder: Path, left: dict[str, list[str]]) -> Iterator[tuple[Path, str]]:
    """The files of a folder that may matter: those that git knows or would, or all but what never does.

    Yields:
        A file, or a hidden folder, with why it is left out; an empty string: it isn't.
    """
    wanted = _known(folder, left)
    if wanted == set() and _git(folder, "check-ignore", "--quiet", ".").returncode == 0:
        message = f"git ignores '{folder}', so nothing of it would be sent: take it out of .gitignore, or name another"
        raise InvalidInput(Problem("--working-dir", message))
    above = {parent for file in wanted or () for parent in file.parents}
    for place, folders, files in os.walk(folder):
        if _JOURNAL in files:  # a run directory
            folders.clear()
            continue
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = [name for name in folders if name not in _NEVER and name not in links]
        for name in [name for name in folders if name.startswith(".")]:
            folders.remove(name)
            if wanted is None or here / name in above:
                yield here / name, HIDDEN
        for file in (here / name for name in [*files, *links]):
            if wanted is None or file in wanted:
                yield file, ""


def _known(folder: Path, left: dict[str, list[str]]) -> set[Path] | None:
    """The files that git knows or would, its submodules' too; None: the folder is in no repository.

    Raises:
        InvalidInput: It is in one, and git does not say.
    """
    try:
        done = _git(folder, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", ".")
        said, failed = os.fsdecode(done.stderr).strip(), done.returncode != 0
    except (OSError, subprocess.SubprocessError) as error:
        if not any((place / ".git").exists() for place in (folder, *folder.resolve().parents)):
            return None
        said, failed = f"{error}", True
    if failed and "not a git repository" in said:
        return None
    if failed:
        hint = f"'{folder}' is in a git repository, but git does not say what it ignores: {said.splitlines()[0][:200]}"
        if "safe.directory" in said:
            place = said.rpartition("safe.directory")[2].strip()
            hint = (
                f"'{folder}' belongs to someone else, so git does not say what it ignores; if you trust it: "
                f"git config --global --add safe.directory {place}"
            )
        raise InvalidInput(Problem("--working-dir", hint))
    files = set()
    for name in filter(None, done.stdout.split(b"\0")):
        path = folder / os.fsdecode(name)
        if path.is_symlink() or not path.is_dir():
            files.add(path)
        elif (path / ".git").exists():  # a repository in it: a submodule
            files |= _known(path, left) or set()
        else:
            left.setdefault(ABSENT, []).append(_readable(os.fsdecode(name)))
    return files


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Git's answer, in English; no program of the repository's own is run for it."""
    return subprocess.run(
        ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *words],
        capture_output=True,
        timeout=_GIT_S,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
