"""Optimizers by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.training import optimizers


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_each_goes_downhill(name):
    x = nn.Parameter(torch.tensor([3.0, -2.0]))
    optimizer = optimizers.build(name, [x], lr=0.05, momentum=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
    assert (x**2).sum() < 0.1


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_momentum_reaches_those_that_have_it(name):
    x = nn.Parameter(torch.zeros(2))
    assert optimizers.build(name, [x], lr=0.1, momentum=0.7).param_groups[0]["momentum"] == 0.7


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_momentum_does_not_reach_the_adam_family(name):
    group = optimizers.build(name, [nn.Parameter(torch.zeros(2))], lr=0.1, momentum=0.5).param_groups[0]
    assert group["betas"] == (0.9, 0.999)
    assert "momentum" not in group


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_lr_and_weight_decay_are_set_as_plain_floats(name):
    x = nn.Parameter(torch.zeros(2))
    group = optimizers.build(name, [x], lr=np.float32(0.25), weight_decay=np.float64(0.5)).param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.5)
    assert type(group["lr"]) is type(group["weight_decay"]) is float


def test_adamw_decays_the_weights_and_adam_the_gradient():
    def after_a_step(name):
        x = nn.Parameter(torch.tensor([1.0]))
        optimizer = optimizers.build(name, [x], lr=0.1, weight_decay=0.5)
        x.grad = torch.zeros(1)
        optimizer.step()
        return x.item()

    assert after_a_step("adamw") == pytest.approx(1 - 0.1 * 0.5)
    assert after_a_step("adam") == pytest.approx(1 - 0.1)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InvalidInput, match="did you mean 'adam'") as caught:
        optimizers.build("adm", [nn.Parameter(torch.zeros(2))], lr=0.1)
    assert caught.value.problems[0].key == "training.optimizer"
