"""What our training loop costs over a minimal hand-written one: same model, data, batches, optimizer and threads.

    python benchmarks/training_loop.py [--pairs 10] [--out …/training_loop.csv]

Each pair trains one epoch with each loop in turn, in changing order; CPU time of the process. `ratio` is hand-written
over ours: 1 is no cost, 0.97 is 3 % more. The interval is Student's on the logarithms.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import nn

from hpo_ray.data import parts
from hpo_ray.models import vision
from hpo_ray.training import loop, lr_schedules, optimizers

SIZES = {"cnn 28 px": ("cnn", 1, 28, 6_400), "resnet18 32 px": ("resnet18", 3, 32, 512)}
BATCH = 64


def by_hand(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """What a tutorial writes."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    model.train()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    total = 0.0
    for chosen in order.split(BATCH):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(chosen)


def ours(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """One epoch as a trial has it, with a schedule."""
    optimizer = optimizers.build("adamw", model.parameters(), lr=1e-3)
    schedule = lr_schedules.build("one_cycle", epochs=1)
    part = parts.TensorImages(images, labels)
    steps = -(-len(labels) // BATCH)
    step = loop.Step(before=lambda taken: lr_schedules.apply(schedule, optimizer, taken / steps))
    batches = parts.batches(part, BATCH, order=torch.Generator().manual_seed(0))
    loop.train_epoch(model, batches, optimizer, "cpu", step)


def cpu_s(train: Callable[..., None], arch: str, channels: int, size: int, n: int) -> float:
    """Processor seconds of one epoch on a fresh model."""
    torch.manual_seed(0)
    model = vision.build(arch, classes=10, channels=channels, image_size=size)
    images, labels = torch.rand(n, channels, size, size), torch.randint(10, (n,))
    start = time.process_time()
    train(model, images, labels)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training_loop.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name, setting in SIZES.items():
        for train in (by_hand, ours):
            cpu_s(train, *setting)  # warm up
        pairs = []
        for pair in range(arguments.pairs):
            first, second = (by_hand, ours) if pair % 2 == 0 else (ours, by_hand)
            took = {train: cpu_s(train, *setting) for train in (first, second)}
            pairs.append((took[by_hand], took[ours]))
        logs = np.log([hand / own for hand, own in pairs])
        half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
        ratio, low, high = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
        hand, own = np.mean(pairs, axis=0)
        rows.append({"work": name, "by_hand_s": hand, "ours_s": own, "ratio": ratio, "low": low, "high": high})
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out, index=False)


if __name__ == "__main__":
    main()
