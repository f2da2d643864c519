"""What is frozen does not move, in no way; and a frozen trunk gives the features that are kept of it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.models import freezing, groups, heads, trunk, vision
from hpo_ray.training import modes
from tests.models.families import on_meta

LABELS = torch.tensor([1, 3])


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def moved(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), LABELS).backward()
    optimizer.step()


def test_under_a_head_that_trains_nothing_moves(family):
    """Traps 6 and 9: statistics, and parameters that momentum and weight decay still push."""
    model = copy.deepcopy(family.model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    freezing.freeze(model, "all")
    modes.train_mode(model)
    assert all(module.training for module in model.modules() if list(module.parameters()))
    train_step(model, optimizer, family.images)  # now every parameter has a gradient and momentum

    freezing.freeze(model, "head")
    modes.train_mode(model)
    trunk_only = {name: p for name, p in model.named_parameters() if not name.startswith(f"{family.head}.")}
    assert all(parameter.grad is None for parameter in trunk_only.values())
    before = snapshot(model)
    train_step(model, optimizer, family.images)
    assert moved(model, before) == {f"{family.head}.weight", f"{family.head}.bias"}


def test_training_the_head_on_kept_features_is_training_it_on_images(family):
    model = copy.deepcopy(family.model)
    head = heads.head_of(model)
    head.dropout = 0.5
    with torch.no_grad():
        kept = trunk.trunk_features(model.eval(), family.images)
    freezing.freeze(model, "head")
    start = snapshot(model)
    results = []
    for part, inputs in ((model, family.images), (trunk.head_part(model), kept)):
        model.load_state_dict(start)
        modes.train_mode(model)
        assert head.training
        optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
        with torch.random.fork_rng():
            torch.manual_seed(7)
            for _ in range(2):
                train_step(part, optimizer, inputs)
        results.append([parameter.detach().clone() for parameter in head.parameters()])
    assert all(map(torch.equal, *results))


def test_what_is_below_the_last_groups_stays_and_they_move(family):
    model = copy.deepcopy(family.model)
    parted = groups.layer_groups(model, 4)
    freezing.freeze(model, 2, parted)
    modes.train_mode(model)
    frozen = [key for group in parted[:-2] for key, _ in group.parameters]
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == frozen
    before = snapshot(model)
    # Adagrad moves every weight with a gradient by about its rate, however small the gradient.
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.01)
    train_step(model, optimizer, family.images)
    training = {key for group in parted[-2:] for key, _ in group.parameters}
    changed = moved(model, before)
    layers = {key.rpartition(".")[0] for key in training}
    assert {key.rpartition(".")[0] for key in changed} <= layers
    # Stochastic depth may pass over a block in a batch of two.
    assert len(changed & training) > len(training) / 2


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "swin_v2_t", "vit_b_32", "cnn"])
def test_only_what_trains_and_what_follows_it_is_in_training_mode(arch):
    model = on_meta(arch)
    freezing.freeze(model, "head")
    modes.train_mode(model)
    head = heads.head_name(model)
    for name, module in model.named_modules():
        holds_head = not name or head == name or head.startswith(f"{name}.")
        assert module.training == holds_head, name


class Tail(nn.Module):
    """Dropout behind what trains, by position and not by parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False), nn.Dropout(0.5))
        self.odd = nn.BatchNorm1d(4, affine=False)
        self.top = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)
        self.fc = heads.LinearHead(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.dropout(self.top(self.odd(self.bottom(x)))))


def test_modules_without_parameters_go_by_their_place():
    model = Tail()
    freezing.freeze(model, 2, groups.layer_groups(model, None))
    modes.train_mode(model)
    mode = {name: module.training for name, module in model.named_modules() if name}
    assert not any(mode[name] for name in ("bottom", "bottom.0", "bottom.1", "bottom.2", "odd"))
    assert all(mode[name] for name in ("top", "dropout", "fc"))
    before = snapshot(model)
    model(torch.rand(8, 4))
    assert moved(model, before) == set(), "statistics of a norm that is not affine stay as well"


def test_a_norm_that_keeps_no_statistics_gives_the_same_in_both_modes():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    model.append(nn.Linear(16, 2))
    images = torch.rand(2, 3, 2, 2)
    freezing.freeze(model, "head")
    modes.train_mode(model)
    training = model(images)
    assert torch.equal(training, model.eval()(images))


def test_norms_can_be_frozen_in_layers_that_train(family):
    model = copy.deepcopy(family.model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    freezing.freeze(model, "all")
    modes.train_mode(model, freeze_norms=True)
    before = snapshot(model)
    model(family.images)
    assert moved(model, before) == set()
    assert all(not norm.training and norm.weight.requires_grad for norm in norms)
    assert heads.head_of(model).training
    if norms:
        modes.train_mode(model)
        model(family.images)
        assert any("running_mean" in key for key in moved(model, before))


def test_gradual_unfreezing_in_steps():
    model = vision.build("mlp", classes=5, channels=1, image_size=8, layers=3)
    counts = []
    for trainable in ("head", 1, 2, 3, 99, "all", 1):
        freezing.freeze(model, trainable, groups.layer_groups(model, None))
        counts.append(sum(parameter.requires_grad for parameter in model.parameters()))
    assert counts == [2, 2, 4, 6, 8, 8, 2]
    freezing.freeze(model, 2)
    assert sum(parameter.requires_grad for parameter in model.parameters()) == 4, "three groups, if none are given"


@pytest.mark.parametrize("trainable", ["trunk", 0, -1, True, 1.5])
def test_what_can_be_trained(trainable):
    with pytest.raises(InvalidInput, match="expected 'all', 'head' or a number of groups") as caught:
        freezing.freeze(on_meta("mlp"), trainable)
    assert caught.value.problems[0].key == "model.trainable"
