"""Fine-tuning against a linear probe and fastai's `fine_tune` on two small sets of photographs, with what is luck.

    python benchmarks/photographs.py [--sets hymenoptera clothing-small] [--fastai PYTHON] [--runs FOLDER]

The README's commands do the work: a sweep that chooses on a part of `train`, then `refit --repeats 5`; the validation
images are tried once. The probe is scikit-learn's logistic regression, defaults but for `max_iter`, on the same
weights' activations of all of `train`. fastai runs in an environment of its own (`--fastai`: its python, with
photographs_fastai.py). Intervals are 95 % bootstraps over images and over seeds, the same images on both sides. The
sets and weights are those in the folder HPO_RAY_TEST_DATA; without them there is nothing to measure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

SIZE = 160
REPEATS = 5
VIEWS = 4


def ours(root: Path, weights: Path, folder: Path, trials: int) -> tuple[Path, float]:
    """The run directory of the refitted winner, and the seconds that both commands took; kept if it is there."""
    chosen, refitted, began = folder / root.name, folder / f"{root.name}-refit", time.perf_counter()
    overrides = [
        "experiment=finetune_mobilenet",
        f"data.root={root}",
        "data.valid_is_test=true",
        f"model.weights={weights}",
        f"data.image_size={SIZE}",
        f"trials={trials}",
    ]
    for command, out in (
        (["run", *overrides], chosen),
        (["refit", str(chosen), "--repeats", str(REPEATS), "resources.cpus_per_trial=2"], refitted),
    ):
        if not out.exists():
            subprocess.run([sys.executable, "-m", "hpo_ray.cli", *command, "--out", str(out)], check=True)
    return refitted, time.perf_counter() - began


def opinions(run_dir: Path) -> dict[str, np.ndarray]:
    """Which test images each model got right: as they are, and with augmented views merged; `models x images`."""
    from hpo_ray import best_model
    from hpo_ray.trainables.image_prediction import on_part

    model = best_model.load(run_dir)
    found: dict[str, list[np.ndarray]] = {"plain": [], "tta mean": [], "tta max": []}
    for views, how in ((0, "plain"), (VIEWS, "tta mean"), (VIEWS, "tta max")):
        asked = on_part(model.config, model.checkpoint, "test", views=views, how=how.removeprefix("tta "))
        for one in asked.merged:
            found[how].append((one.probabilities.argmax(1) == one.labels).numpy())
    return {name: np.stack(rows) for name, rows in found.items()}


def probe(run_dir: Path) -> np.ndarray:
    """A linear probe's: `1 x images`."""
    import torch

    from hpo_ray import best_model
    from hpo_ray.data import parts
    from hpo_ray.models import trunk
    from hpo_ray.trainables.image_source import ImageSource

    source = ImageSource(best_model.load(run_dir).config, seed=0, device="cpu")
    model = source.model().eval()
    read: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for part in ("train", "test"):
        features, labels = [], []
        for images, of in parts.batches(getattr(source.data, part), 64):
            with torch.no_grad():
                features.append(trunk.trunk_features(model, images).flatten(1))
            labels.append(of)
        read[part] = torch.cat(features).numpy(), torch.cat(labels).numpy()
    regression = LogisticRegression(max_iter=1000).fit(*read["train"])
    return (regression.predict(read["test"][0]) == read["test"][1])[None]


def fastai(python: Path, root: Path, weights: Path, folder: Path) -> np.ndarray:
    """fastai's: `seeds x images`, in the order of the images' paths."""
    out = folder / f"{root.name}-fastai.npz"
    if not out.exists():
        script = Path(__file__).with_name("photographs_fastai.py")
        arguments = [root, weights, out, SIZE, REPEATS]
        subprocess.run([str(python), str(script), *map(str, arguments)], check=True)
    saved = np.load(out)
    return saved["right"][:, np.argsort(saved["files"])]


def difference(one: np.ndarray, other: np.ndarray, *, paired: bool, draws: int = 10_000) -> tuple[float, float, float]:
    """How much more `one` gets right than `other`, in points, and its 95 % interval; each `seeds x images`.

    `paired`: row by row they are of the same models.
    """
    rng = np.random.default_rng(0)
    found = np.empty(draws)
    for draw in range(draws):
        images = rng.integers(one.shape[1], size=one.shape[1])
        seeds = [rng.integers(len(rows), size=len(rows)) for rows in (one, other)]
        if paired:
            seeds[1] = seeds[0]
        share = [rows[drawn][:, images].mean() for rows, drawn in zip((one, other), seeds, strict=True)]
        found[draw] = share[0] - share[1]
    low, high = np.quantile(found, [0.025, 0.975])
    return 100 * (one.mean() - other.mean()), 100 * low, 100 * high


def table(right: dict[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    """One row per set, and one of all images together."""
    names = [name for name in next(iter(right.values())) if all(name in found for found in right.values())]
    pooled = {name: np.concatenate([_seeds(found[name]) for found in right.values()], axis=1) for name in names}
    rows: list[dict[str, Any]] = []
    for name, found in [*right.items(), ("together", pooled)]:
        row: dict[str, Any] = {"set": name, "images": found["plain"].shape[1]}
        row |= {who: f"{100 * rows_of.mean():.2f}" for who, rows_of in found.items()}
        for who, base in (("plain", "probe"), ("plain", "fastai"), ("tta mean", "plain"), ("tta max", "plain")):
            if base in found:
                gain, low, high = difference(found[who], found[base], paired=base == "plain")
                row[f"{who} - {base}"] = f"{gain:+.2f} ({low:+.2f} to {high:+.2f})"
        rows.append(row)
    return pd.DataFrame(rows)


def _seeds(rows: np.ndarray) -> np.ndarray:
    """As many rows as the others have; what has no seeds is the same in each."""
    return rows if len(rows) > 1 else np.repeat(rows, REPEATS, axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["hymenoptera", "clothing-small"])
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--fastai", type=Path, help="python of an environment with fastai")
    parser.add_argument("--runs", type=Path, default=Path("runs/photographs"), help="where runs go, or lie already")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "photographs.csv")
    given = parser.parse_args()
    shared = Path(os.environ.get("HPO_RAY_TEST_DATA", "/nowhere"))
    weights = shared / "pretrained" / "mobilenet_v2_imagenet_from_tflite.pt"
    if not weights.is_file():
        print(f"skipped: no weights at '{weights}'")
        return
    given.runs.mkdir(parents=True, exist_ok=True)
    right: dict[str, dict[str, np.ndarray]] = {}
    for name in given.sets:
        refitted, seconds = ours(shared / name, weights, given.runs, given.trials)
        print(f"{name}: {seconds / 60:.1f} min for the sweep and {REPEATS} models", flush=True)
        right[name] = opinions(refitted) | {"probe": probe(refitted)}
        if given.fastai is not None:
            right[name]["fastai"] = fastai(given.fastai, shared / name, weights, given.runs)
    found = table(right)
    given.out.parent.mkdir(exist_ok=True)
    found.to_csv(given.out, index=False)
    print(found.T.to_string(header=False))


if __name__ == "__main__":
    main()
