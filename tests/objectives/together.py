"""A small GroupNorm net on digits in double precision, trained by one worker or by several together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hpo_ray.data import images, parts
from hpo_ray.training import parallel
from hpo_ray.training.evaluate import evaluate
from hpo_ray.training.loop import train_epoch


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)
    ).double()


def train(config: dict[str, Any], trial: Any) -> None:
    torch.set_num_threads(1)
    with parallel.group(trial.device):
        data = images.load("digits")
        torch.manual_seed(trial.seed)
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), config["lr"], momentum=0.9)
        share = (trial.rank, trial.workers)

        def batches(part: parts.Part, epoch: int = 0) -> Any:
            order = parts.epoch_generator(trial.seed, epoch) if epoch else None
            drawn = parts.batches(part, config["batch_size"] * trial.workers, order=order, share=share)
            return ((some.double(), labels) for some, labels in drawn)

        for epoch in range(1, 5):
            loss = train_epoch(model, batches(data.train, epoch), optimizer, "cpu")
            found = evaluate(model, batches(data.valid), "cpu")
            trial.report(epoch=epoch, train_loss=loss, val_loss=found.loss, val_error=found.error)
