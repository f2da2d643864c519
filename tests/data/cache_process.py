"""A process that asks for features, as a trial does: `python -m tests.data.cache_process FOLDER IMAGES OPTIONS`.

OPTIONS is JSON: `rows` (images in memory), `salt` (part of the key), `slow_s` (seconds a batch), `max_bytes`,
`hold_s` (seconds to keep the part), `ready` (a file made before asking), `workers`, `out` (a file for the answer).
Answers with a line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import torch

from hpo_ray.data import features, parts


def memory_part(rows: int) -> parts.TensorImages:
    pixels = torch.arange(rows * 3 * 4 * 4).remainder(251).to(torch.uint8).view(rows, 3, 4, 4)
    return parts.TensorImages(pixels, torch.arange(rows).remainder(7))


def compute(batch: torch.Tensor, slow_s: float = 0.0) -> torch.Tensor:
    """Each image's features depend on itself alone."""
    time.sleep(slow_s)
    return torch.cat([batch.flatten(1)[:, :20] * 2, batch.mean((1, 2, 3), keepdim=True).flatten(1)], 1)


def find(folder: Path, where: str, **options) -> features.FeaturePart:
    if where:
        from hpo_ray.data import images  # scikit-learn, which the others need not wait for

        part: parts.Part = images.load("folder", where, image_size=16).train
    else:
        part = memory_part(options.get("rows", 64))
    return features.cached(
        part,
        key={"salt": options.get("salt", "")},
        compute=lambda batch: compute(batch, options.get("slow_s", 0.0)),
        folder=folder,
        max_bytes=options.get("max_bytes", 10**8),
        batch_size=8,
        workers=options.get("workers", 0),
    )


def main() -> None:
    torch.set_num_threads(1)
    tell(Path(sys.argv[1]), sys.argv[2], **json.loads(sys.argv[3]))


def tell(folder: Path, where: str, **options) -> None:
    if "ready" in options:
        Path(options["ready"]).touch()
    found = find(folder, where, **options)
    values = hashlib.sha256(found.features.contiguous().numpy().tobytes() + found.labels.numpy().tobytes()).hexdigest()
    line = json.dumps({"values": values, "stored": found.stored, "n": len(found)})
    if "out" in options:
        Path(options["out"]).write_text(line)
    else:
        print(line, flush=True)
    time.sleep(options.get("hold_s", 0.0))


if __name__ == "__main__":
    main()
