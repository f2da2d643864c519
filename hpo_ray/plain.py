"""Reads files of a folder that a stranger may have made: plain files inside it, lines and documents of bounded size.

Knows files and JSON; nothing of what is in them.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

# A longer line is skipped without being held in memory. The longest that is ever written, a run's first, has kilobytes.
LINE_LIMIT = 64 << 20
# A document that is read whole: totals, a lock, a trial's configuration.
DOCUMENT_LIMIT = 16 << 20
# Containers in containers: what shows or writes them recurses, and Python allows about a thousand calls.
DEPTH_LIMIT = 64
_BLOCK = 8 << 20


def open_inside(folder: str | os.PathLike[str], *names: str) -> BinaryIO:
    """Open a file of a folder for reading, unless it is a link, reached through one, or no plain file (a pipe waits).

    Args:
        folder: The folder; may itself be reached through links.
        *names: The way from there, one component each.

    Raises:
        OSError: It is not there, not a plain file, or may not be read.
    """
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = inner
        found = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(0, "it is not a plain file")
    return os.fdopen(found, "rb", buffering=0)


def document(folder: Path, *names: str) -> Any:
    """A small JSON file of a folder.

    Raises:
        OSError: As for `open_inside`.
        ValueError: It is too long, or not JSON as `loads` takes it.
    """
    with open_inside(folder, *names) as file:
        return loads(whole(file))


def whole(file: BinaryIO, limit: int = DOCUMENT_LIMIT) -> bytes:
    """All that a file holds.

    Raises:
        ValueError: It is longer than `limit` bytes.
    """
    parts, size = [], 0
    while block := file.read(min(_BLOCK, limit + 1 - size)):
        parts.append(block)
        size += len(block)
        if size > limit:
            raise ValueError(f"it is longer than {limit >> 20} MiB")
    return b"".join(parts)


def text_blocks(file: BinaryIO, limit: int = LINE_LIMIT, size: int = _BLOCK) -> Iterator[tuple[bytes, int]]:
    """A file's whole lines, many at a time.

    Args:
        file: Read from where it stands.
        limit: A line of more bytes is left out, and never held as a whole.
        size: About how many bytes are read at once.

    Yields:
        Lines with newlines between them, none at the end; and how many were left out before or among them.
    """
    rest: list[bytes] = []  # the pieces of a line that has not ended
    held = 0
    skipping = False
    while block := file.read(size):
        head, newline, tail = block.rpartition(b"\n")
        if not newline:
            rest, held = ([], 0) if skipping else ([*rest, block], held + len(block))
            if held > limit:
                rest, held, skipping = [], 0, True
            continue
        end = head.find(b"\n")
        first = end if end >= 0 else len(head)
        long = int(skipping or held + first > limit)
        text = head[first + 1 :] if long else b"".join([*rest, head]) if rest else head
        if size > limit:
            lines = text.split(b"\n")
            kept = [line for line in lines if len(line) <= limit]
            text, long = b"\n".join(kept), long + len(lines) - len(kept)
        yield text, long
        rest, held, skipping = [tail] if tail else [], len(tail), False
    if skipping:
        yield b"", 1
    elif rest:
        yield (b"", 1) if held > limit else (b"".join(rest), 0)


def line_blocks(file: BinaryIO, limit: int = LINE_LIMIT, size: int = _BLOCK) -> Iterator[tuple[list[bytes], int]]:
    """As `text_blocks`, its lines apart."""
    for text, long in text_blocks(file, limit, size):
        yield text.split(b"\n"), long


def loads(text: bytes) -> Any:
    """A JSON document from a stranger: UTF-8, containers no deeper than `DEPTH_LIMIT`.

    Halves of surrogate pairs, which no output takes, become question marks. Of a key that is there twice the last
    counts.

    Raises:
        ValueError: It is anything else.
    """
    try:
        value = json.loads(text.decode())
        if b"\\ud" in text or b"\\uD" in text:
            value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count(b"{") + text.count(b"[") > DEPTH_LIMIT and _depth(value) > DEPTH_LIMIT:
        raise ValueError("it is nested too deeply")
    return value


def _depth(value: Any) -> int:
    """How deep containers are nested; counted without recursion."""
    depth, level = 0, [value]
    while level and depth <= DEPTH_LIMIT:
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, dict | list)]
        level = [item for items in inner for item in items]
        depth += bool(inner)
        if not inner:
            break
    return depth
