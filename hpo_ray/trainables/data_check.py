"""A data set looked at before training: its faults, and which of four fine-tuning regimes it calls for.

Joins data and models for `hpo-ray data check`; knows no trial and no Ray. Imports torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from hpo_ray.data import duplicates, findings, inspection
from hpo_ray.data.findings import Finding
from hpo_ray.data.listing import list_images
from hpo_ray.trainables import regimes
from hpo_ray.trainables.regimes import Advice

_LOADING = (*regimes.DIVISION, "download")


@dataclass(frozen=True)
class DataReport:
    """What was found in a data set.

    Attributes:
        name: The data set's.
        root: Where it is; empty for a bundled one.
        frame: One row per image, see `inspection.Inspection`.
        counts: Images per class (rows) and part (columns).
        duplicates: One row per image that has a copy, see `duplicates.groups`.
        compared: How many images were looked at for near copies; small and blank ones count as copies only if they are
            the same byte for byte.
        hash_limit: In how many bits of 128 the hashes of a pair could differ to be compared; lowered from
            `duplicates.FARTHEST` where too many images are alike.
        findings: Errors first.
        advice: Which regime to fine-tune in.
        seconds: What the check took.
    """

    name: str
    root: str
    frame: pd.DataFrame
    counts: pd.DataFrame
    duplicates: pd.DataFrame
    compared: int
    hash_limit: int
    findings: tuple[Finding, ...]
    advice: Advice
    seconds: float

    @property
    def sizes(self) -> dict[str, list[int]]:
        """Least, median and greatest ``width`` and ``height`` of the readable images, in pixels."""
        readable = self.frame[self.frame["error"] == ""]
        return {
            side: [int(getattr(readable[side], of)()) for of in ("min", "median", "max")] if len(readable) else []
            for side in ("width", "height")
        }

    def lines(self, shown: int = 5) -> list[tuple[str, str, str]]:
        """For a terminal: (name, text, style) a row, as `hpo_ray.screen.answer` has them; style is Rich's.

        Args:
            shown: Files of each finding that are named.
        """
        images = partial(findings.count, one="image")
        where = f"  {self.root}" if self.root else ""
        rows = [("data", f"{self.name}{where}: {images(len(self.frame))}, {len(self.counts)} classes", "bold")]
        for part in self.counts.columns:
            of = self.counts[part]
            ratio = f", {of.max() / of.min():.1f} to 1" if len(of) and of.min() > 0 else ""
            each = f"{of.min()} ({of.idxmin()}) to {of.max()} ({of.idxmax()}) a class{ratio}"
            text = f"{images(int(of.sum()))}, {f'{of.min()} a class' if of.min() == of.max() else each}"
            rows.append((str(part), text, ""))
        sizes = self.sizes
        if sizes["width"]:
            text = ", ".join(f"{side} {low} to {high}, median {mid}" for side, (low, mid, high) in sizes.items())
            rows.append(("pixels", text, ""))
            modes = self.frame[self.frame["error"] == ""]["mode"].value_counts()
            rows.append(("colours", ", ".join(f"{count} {mode}" for mode, count in modes.items()), ""))
        if self.compared < len(self.frame):
            text = f"{images(self.compared)} compared by looks, the others (small, blank, unreadable) byte for byte"
            rows.append(("copies", text, ""))
        if self.hash_limit < duplicates.FARTHEST:
            rows.append(("copies", "many images look alike: copies that were cut may be missed", "yellow"))
        for finding in self.findings:
            style = {"error": "red", "warning": "yellow", "note": ""}[finding.severity]
            rows.append((finding.severity, f"{finding.kind}: {finding.text}", style))
            rows += [("", "  " + " = ".join(group), "dim") for group in finding.groups[:shown]]
            if len(finding.groups) > shown:
                rows.append(("", f"  … {len(finding.groups) - shown} more", "dim"))
        if not self.findings:
            rows.append(("findings", "none", "green"))
        return [*rows, *regimes.lines(self.advice), ("time", f"{self.seconds:.1f} s", "")]

    def state(self) -> dict[str, Any]:
        """The same for JSON, with every file of every finding."""
        found = self.advice.similarity
        return {
            "name": self.name,
            "root": self.root,
            "images": len(self.frame),
            "counts": {str(part): {str(k): int(v) for k, v in of.items()} for part, of in self.counts.items()},
            "sizes": self.sizes,
            "modes": {str(mode): int(n) for mode, n in self.frame["mode"].value_counts().items() if mode},
            "orientations": {str(turn): int(n) for turn, n in self.frame["orientation"].value_counts().items()},
            "findings": [vars(finding) | {"groups": list(map(list, finding.groups))} for finding in self.findings],
            "compared": self.compared,
            "hash_limit": self.hash_limit,
            "advice": {
                "regime": self.advice.regime,
                "images_per_class": round(self.advice.images_per_class, 1),
                "similarity": None
                if found is None
                else vars(found) | {"gain": found.gain, "similar": found.similar, "verdict": found.verdict},
                "reason": self.advice.reason,
                "text": self.advice.text,
                "command": self.advice.command,
            },
            "seconds": round(self.seconds, 2),
        }


def check_data(config: Mapping[str, Mapping[str, Any]], *, workers: int = 2, sample: int = 500) -> DataReport:
    """Opens every image once, compares them all, and measures how much the model's weights know of them.

    Args:
        config: The sections `data`, `model` and `training` of an experiment, as `hpo_ray.sections` has them.
        workers: Threads that decode.
        sample: Images that the similarity is measured on, at most; four times as many where that leaves it unclear.

    Raises:
        InvalidInput: There is nothing to look at (see `listing.list_images`), or the weights cannot be had.
    """
    since = time.perf_counter()
    section = dict(config["data"])
    options = {key: section[key] for key in _LOADING if key in section}
    listing = list_images(section["name"], section.get("root"), **options)
    found = inspection.inspect(listing, workers=workers)
    groups, limit = duplicates.groups(found.frame, found.thumbnails, found.comparable)
    told = findings.all_findings(listing, found.frame, found.other, groups)
    counts = findings.class_counts(listing, found.frame)
    broken = set(found.frame["path"][found.frame["error"] != ""])
    files = {part: tuple(of for of in listing.files[part] if str(of[0]) not in broken) for part in listing.files}
    advice = regimes.advise(replace(listing, files=files), counts, section, dict(config["model"]), sample)
    return DataReport(
        name=section["name"],
        root="" if listing.root is None else str(listing.root),
        frame=found.frame,
        counts=counts,
        duplicates=groups,
        compared=int(found.comparable.sum()),
        hash_limit=limit,
        findings=told,
        advice=advice,
        seconds=time.perf_counter() - since,
    )
