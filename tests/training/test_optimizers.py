"""Optimizers by name, their groups, and the search spaces that go with them."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.space import SearchSpace
from hpo_ray.training import optimizers
from hpo_ray.training.lars import LARS

# Which of torch's each is, written out again, and its options.
EXPECTED = {
    "sgd": (torch.optim.SGD, {"momentum": 0.0}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.0}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "adamax": (torch.optim.Adamax, {}),
    "nadam": (torch.optim.NAdam, {}),
    "lars": (LARS, {"momentum": 0.9}),
}
WITH_MOMENTUM = [name for name, (_, options) in EXPECTED.items() if options]


def descend(optimizer, x, steps=5):
    for _ in range(steps):
        optimizer.zero_grad()
        (x**4).sum().backward()
        optimizer.step()
    return x.detach()


def start() -> nn.Parameter:
    return nn.Parameter(torch.tensor([[3.0, -2.0], [0.5, 1.0]]))


def test_the_names():
    assert optimizers.NAMES == tuple(optimizers.OPTIMIZERS) == tuple(EXPECTED)


def test_the_names_need_no_torch():
    code = "import sys; from hpo_ray.training import optimizers; assert optimizers.NAMES and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_steps_as_torchs_own(name):
    make, options = EXPECTED[name]
    mine, other = start(), start()
    descend(optimizers.build(name, [mine], lr=0.01, weight_decay=0.1), mine)
    descend(make([other], lr=0.01, weight_decay=0.1, **options), other)
    torch.testing.assert_close(mine, other)
    assert not torch.equal(mine, start())


@pytest.mark.parametrize("name", EXPECTED)
def test_each_goes_downhill(name):
    x = start()
    lr = {"adagrad": 0.3, "adadelta": 10.0, "lars": 10.0}.get(name, 0.02)
    optimizer = optimizers.build(name, [x], lr=lr)
    for _ in range(300):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
    assert (x**2).sum() < 0.2


@pytest.mark.parametrize("name", WITH_MOMENTUM)
def test_momentum_reaches_those_that_have_it(name):
    group = optimizers.build(name, [start()], lr=0.1, momentum=np.float64(0.7)).param_groups[0]
    assert group["momentum"] == 0.7
    assert type(group["momentum"]) is float


@pytest.mark.parametrize("name", sorted(EXPECTED.keys() - set(WITH_MOMENTUM)))
def test_momentum_does_not_reach_the_others(name):
    one, other = start(), start()
    group = optimizers.build(name, [one], lr=0.1, momentum=0.5).param_groups[0]
    assert group.get("betas", (0.9, 0.999)) == (0.9, 0.999)
    assert "momentum" not in group
    descend(optimizers.build(name, [one], lr=0.1, momentum=7.0), one)
    assert torch.equal(one, descend(optimizers.build(name, [other], lr=0.1), other))


@pytest.mark.parametrize("name", EXPECTED)
def test_numbers_are_set_as_plain_floats(name):
    groups = [{"params": [start()], "lr_factor": np.float64(0.5)}]
    group = optimizers.build(name, groups, lr=np.float32(0.25), weight_decay=np.float64(0.5)).param_groups[0]
    assert (group["lr"], group["peak_lr"], group["lr_factor"], group["weight_decay"]) == (0.125, 0.125, 0.5, 0.5)
    assert {type(group[key]) for key in ("lr", "peak_lr", "lr_factor", "weight_decay")} == {float}


def test_adamw_decays_the_weights_and_adam_the_gradient():
    def after_a_step(name):
        x = nn.Parameter(torch.tensor([1.0]))
        optimizer = optimizers.build(name, [x], lr=0.1, weight_decay=0.5)
        x.grad = torch.zeros(1)
        optimizer.step()
        return x.item()

    assert after_a_step("adamw") == pytest.approx(1 - 0.1 * 0.5)
    assert after_a_step("adam") == pytest.approx(1 - 0.1)


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def groups_of(model) -> list[dict]:
    return [
        {"params": [*model[0].named_parameters(), *model[1].named_parameters()], "lr_factor": 1 / 9, "name": "trunk"},
        {"params": list(model[2].parameters()), "name": "head"},
    ]


def test_groups_have_their_own_rates_and_keep_their_names():
    model = network()
    trunk, head = optimizers.build("adam", groups_of(model), lr=0.9).param_groups
    assert (trunk["lr"], trunk["peak_lr"]) == pytest.approx((0.1, 0.1))
    assert (head["lr"], head["peak_lr"], head["lr_factor"]) == (0.9, 0.9, 1.0)
    assert (trunk["name"], head["name"]) == ("trunk", "head")
    assert list(map(id, trunk["params"] + head["params"])) == list(map(id, model.parameters()))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_rate_of_a_third_moves_like_a_third_of_the_rate(name):
    one, other = start(), start()
    descend(optimizers.build(name, [{"params": [one], "lr_factor": 1 / 3}], lr=0.3), one)
    assert torch.equal(one, descend(optimizers.build(name, [other], lr=0.3 * (1 / 3)), other))


@pytest.mark.parametrize("name", EXPECTED)
def test_norms_and_biases_need_not_decay(name):
    model = network()
    built = optimizers.build(name, groups_of(model), lr=0.1, weight_decay=0.5, decay_norms=False).param_groups
    assert [group["name"] for group in built] == ["trunk", "trunk (no decay)", "head", "head (no decay)"]
    assert [group["weight_decay"] for group in built] == [0.5, 0.0, 0.5, 0.0]
    assert [[p.ndim for p in group["params"]] for group in built] == [[2], [1, 1, 1], [2], [1]]
    assert [group["peak_lr"] for group in built] == pytest.approx([0.1 / 9, 0.1 / 9, 0.1, 0.1])
    assert {id(p) for group in built for p in group["params"]} == set(map(id, model.parameters()))


def test_a_group_without_norms_stays_one_and_one_without_parameters_is_left_out():
    groups = [{"params": [start()]}, {"params": []}, {"params": [nn.Parameter(torch.zeros(3))]}]
    built = optimizers.build("sgd", groups, lr=0.1, weight_decay=0.5, decay_norms=False).param_groups
    assert [group["weight_decay"] for group in built] == [0.5, 0.0]
    assert [len(group["params"]) for group in built] == [1, 1]


@pytest.mark.parametrize("name", EXPECTED)
def test_frozen_parameters_stay_and_can_be_woken(name):
    model = network()
    model[0].requires_grad_(False)
    optimizer = optimizers.build(name, groups_of(model), lr=0.1, weight_decay=0.1)
    before = [p.clone() for p in model[0].parameters()]

    def step():
        optimizer.zero_grad()
        model(torch.ones(2, 3)).pow(2).sum().backward()
        optimizer.step()

    step()
    step()
    assert all(map(torch.equal, model[0].parameters(), before))
    model[0].requires_grad_(True)
    step()
    assert not any(map(torch.equal, model[0].parameters(), before))
    # Frozen again, momentum does not carry it on, as long as its gradient is None and not zeros.
    frozen = [p.clone() for p in model[0].requires_grad_(False).parameters()]
    step()
    assert all(map(torch.equal, model[0].parameters(), frozen))


@pytest.mark.parametrize("name", EXPECTED)
def test_zeros_for_a_gradient_would_move_a_frozen_parameter(name):
    model = network()
    optimizer = optimizers.build(name, groups_of(model), lr=0.1, weight_decay=0.1)
    model[0].requires_grad_(False)
    before = [p.clone() for p in model[0].parameters()]
    for parameter in model[0].parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert not any(map(torch.equal, model[0].parameters(), before))


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InvalidInput, match="did you mean 'adam'") as caught:
        optimizers.build("adm", [nn.Parameter(torch.zeros(2))], lr=0.1)
    assert caught.value.problems[0].key == "training.optimizer"


def test_mistakes_are_told_all_at_once():
    with pytest.raises(InvalidInput) as caught:
        optimizers.build("sgd", [start()], lr=-1, weight_decay=math.nan, momentum=1.0)
    assert [p.key for p in caught.value.problems] == ["training.lr", "training.weight_decay", "training.momentum"]
    with pytest.raises(InvalidInput, match="'nesterov' needs one above 0"):
        optimizers.build("nesterov", [start()], lr=0.1, momentum=0)


SPACES = Path(__file__).parents[2] / "conf" / "space"
# The recommended ranges when training from scratch; AdamW's and LARS's are ours.
RATES = {
    **dict.fromkeys(("momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamax", "nadam"), (1e-3, 1e-2)),
    **dict.fromkeys(("sgd", "adadelta"), (1e-2, 1e-1)),
    "adamw": (1e-4, 1e-2),
    "lars": (0.3, 30.0),
}


def test_every_optimizer_has_two_spaces():
    expected = {f"{prefix}{name}" for name in optimizers.NAMES for prefix in ("", "finetune_")}
    assert expected <= {path.stem for path in SPACES.glob("*.yaml")}


@pytest.mark.parametrize("finetune", [False, True])
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_a_space_parses_and_stays_in_the_recommended_ranges(name, finetune):
    text = (SPACES / f"{'finetune_' if finetune else ''}{name}.yaml").read_text()
    assert text.startswith("# ")
    space = SearchSpace.parse(yaml.safe_load(text))
    assert space.constants["optimizer"] == name
    low, high = RATES[name]
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(300)]
    rates = sorted(one["lr"] for one in drawn)
    assert rates[0] >= low / (100 if finetune else 1) * (1 - 1e-9)
    assert rates[-1] <= high / (10 if finetune else 1) * (1 + 1e-9)
    assert rates[-1] / rates[0] > 5
    for one in drawn:
        assert 1 <= one["batch_size"] <= 1024
        assert one["batch_size"] & (one["batch_size"] - 1) == 0
        assert 0 <= one["dropout"] <= 0.5
        assert 0 <= one["weight_decay"] <= (0.1 if name == "adamw" else 1e-4)
        assert ("momentum" in one) == (name in WITH_MOMENTUM)
        optimizers.build(name, [start()], lr=one["lr"], momentum=one.get("momentum"), weight_decay=one["weight_decay"])
