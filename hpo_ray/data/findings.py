"""What is wrong with a set of images, or worth knowing before training on it, each with the files it concerns.

Takes the tables of `inspection` and `duplicates`; opens nothing, knows nothing of models, training or Ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from hpo_ray.data.folders import PARTS
from hpo_ray.data.listing import Listing

IMBALANCE = 3.0  # images of the largest class over those of the smallest
OUTLIER = 4.0  # times the median long side, or a part of the median short side
_SIDEWAYS = "turned upright while they are read"

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One kind of fault.

    Attributes:
        kind: What it is called, such as ``leakage``.
        severity: ``error``: results would be wrong or training not start; ``warning``: they may suffer; ``note``.
        text: What was found, in one line.
        groups: The files concerned, relative to the set's root; those that belong together stand together.
    """

    kind: str
    severity: Severity
    text: str
    groups: tuple[tuple[str, ...], ...] = ()


def all_findings(
    listing: Listing, frame: pd.DataFrame, other: pd.DataFrame, duplicates: pd.DataFrame
) -> tuple[Finding, ...]:
    """Every finding, the errors first.

    Args:
        listing: Where the images are.
        frame: Of `inspection.Inspection`.
        other: Likewise.
        duplicates: Of `duplicates.groups`.
    """
    readable = frame[frame["error"] == ""]
    found = [
        *_layout(listing),
        *_unreadable(frame, listing.root),
        *_repeated(duplicates, listing.root),
        *_junk(other, listing),
        *_balance(frame, listing),
        *_sizes(readable, listing.root),
        *_colours(readable, listing.root),
        *_orientations(readable, listing.root),
    ]
    return tuple(sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.severity)))


def class_counts(listing: Listing, frame: pd.DataFrame) -> pd.DataFrame:
    """Images per class (rows, all of them) and part (columns ``train``, ``valid``, ``test`` as far as there are)."""
    parts = [part for part in ("train", "valid", "test") if part in (listing.files or listing.memory)]
    table = pd.crosstab(frame["label"], frame["part"])
    return table.reindex(index=list(listing.classes), columns=parts, fill_value=0)


def _names(frame: pd.DataFrame, root: Path | None) -> list[str]:
    return [_shown(path, root) for path in frame["path"].tolist()]


def _shown(path: str, root: Path | None) -> str:
    """A path as people are told it: relative to the set's root if it is below."""
    if root is not None:
        folder = root if root.is_dir() else root.parent
        if Path(path).is_relative_to(folder):
            return str(Path(path).relative_to(folder))
    return path


def _layout(listing: Listing) -> Iterator[Finding]:
    if listing.empty:
        text = f"{count(len(listing.empty), 'class folder')} without an image: fill or remove them"
        yield Finding("empty class", "error", text, _single(listing.empty))
    if listing.unknown:
        text = f"{count(len(listing.unknown), 'class', 'classes')} in valid or test that train lacks"
        yield Finding("unknown class", "error", text, _single(listing.unknown))
    for message in listing.refused:
        yield Finding("layout", "error", message)


def _unreadable(frame: pd.DataFrame, root: Path | None) -> Iterator[Finding]:
    broken = frame[frame["error"] != ""]
    if len(broken):
        text = f"{len(broken)} of {len(frame)} images cannot be read: training leaves them out"
        lines = [f"{path}: {error}" for path, error in zip(_names(broken, root), broken["error"], strict=True)]
        yield Finding("corrupt", "error", text, _single(lines))


def _repeated(duplicates: pd.DataFrame, root: Path | None) -> Iterator[Finding]:
    """Each group is told once: contradicting labels, else parts, else mere repetition."""
    by_kind: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for _, group in duplicates.groupby("group", sort=True):
        if group["label"].nunique() > 1:
            what = "contradiction"
        else:
            what = "leakage" if group["part"].nunique() > 1 else "duplicates"
        several = group["part"].nunique() > 1
        names = _names(group, root)
        if several:
            names = [f"{name} ({part})" for name, part in zip(names, group["part"], strict=True)]
        by_kind.setdefault((what, group["kind"].iloc[0]), []).append(tuple(names))
    told: tuple[tuple[str, Severity, str], ...] = (
        ("contradiction", "error", "in different classes (their parts are named where they differ)"),
        ("leakage", "error", "in more than one part: what is measured there is too good"),
        ("duplicates", "warning", "in the same part and class"),
    )
    for what, severity, text in told:
        for kind, noun, how in (("exact", "file", ""), ("near", "picture", ", encoded, sized, cut or lit differently")):
            groups = by_kind.get((what, kind), [])
            if groups:
                line = f"{count(len(groups), noun)} more than once{how}, {text}"
                yield Finding(f"{kind} {what}", severity, line, tuple(groups))


def _junk(other: pd.DataFrame, listing: Listing) -> Iterator[Finding]:
    """A licence or a table beside the class folders is no junk; a picture that training passes over is, wherever."""
    lines = []
    for name, kind in zip(_names(other, listing.root), other["kind"], strict=True):
        folders = Path(name).parts[:-1]
        if kind or len(folders) > (folders[:1] != () and folders[0].lower() in PARTS):
            what = f"a picture ({kind}) that training does not take" if kind else "no picture"
            lines.append(f"{name}: {what}")
    if lines:
        text = f"{count(len(lines), 'file')} among the images that training passes over"
        yield Finding("junk", "warning", text, _single(lines))


def _balance(frame: pd.DataFrame, listing: Listing) -> Iterator[Finding]:
    counts = frame[frame["part"] == "train"]["label"].value_counts().reindex(list(listing.classes), fill_value=0)
    counts = counts[counts > 0]
    if len(counts) > 1 and counts.max() > IMBALANCE * counts.min():
        most, least = counts.idxmax(), counts.idxmin()
        text = f"'{most}' has {counts.max()} images to train on, '{least}' {counts.min()}: "
        yield Finding("imbalance", "warning", f"{text}{counts.max() / counts.min():.1f} to 1; try data.balance=weights")


def _sizes(readable: pd.DataFrame, root: Path | None) -> Iterator[Finding]:
    long, short = readable[["width", "height"]].max(axis=1), readable[["width", "height"]].min(axis=1)
    large, tiny = long > OUTLIER * long.median(), short < short.median() / OUTLIER
    for kind, chosen, beside in (
        ("huge", large, f"more than {OUTLIER:g} times the median long side, {long.median():.0f}"),
        ("tiny", tiny, f"less than a {OUTLIER:g}th of the median short side, {short.median():.0f}"),
    ):
        if chosen.any():
            of = readable[chosen]
            extents = zip(_names(of, root), of["width"], of["height"], strict=True)
            lines = [f"{name}: {width} x {height}" for name, width, height in extents]
            text = f"{count(len(lines), 'image')} of {beside} pixels"
            yield Finding(f"{kind} images", "warning", text, _single(lines))


def _colours(readable: pd.DataFrame, root: Path | None) -> Iterator[Finding]:
    usual = readable["colour"].mode()
    for colour, others in readable.groupby("colour"):
        if colour != usual.iloc[0]:
            names = {"grey": "grey", "transparent": "partly transparent", "colour": "coloured"}
            text = f"{count(len(others), 'image')} {names[str(colour)]} among {names[usual.iloc[0]]} ones"
            lines = [f"{name}: {mode}" for name, mode in zip(_names(others, root), others["mode"], strict=True)]
            yield Finding("colours", "warning", text, _single(lines))
    inks = readable[readable["mode"] == "CMYK"]
    if len(inks):
        text = f"{count(len(inks), 'image')} in printing colours (CMYK)"
        yield Finding("colours", "note", text, _single(_names(inks, root)))


def _orientations(readable: pd.DataFrame, root: Path | None) -> Iterator[Finding]:
    turned = readable[readable["orientation"] != 1]
    if len(turned):
        turns = zip(_names(turned, root), turned["orientation"], strict=True)
        lines = [f"{name}: EXIF orientation {turn}" for name, turn in turns]
        yield Finding("orientation", "note", f"{count(len(turned), 'image')} {_SIDEWAYS}", _single(lines))


def _single(lines: list[str] | tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple((line,) for line in lines)


def count(n: int, one: str, many: str | None = None) -> str:
    """A number with its noun, such as ``1 image`` or ``2 images``."""
    return f"{n} {one if n == 1 else many or one + 's'}"
