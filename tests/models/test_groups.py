"""Units and layer groups of particular architectures; `test_every_architecture` has what holds for all of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.models import groups
from tests.models.families import on_meta


def unit_names(arch: str) -> list[str]:
    return [name for name, _ in groups.blocks(on_meta(arch))]


def keys(parameters: groups.NamedParameters) -> set[str]:
    return {key for key, _ in parameters}


def group_names(arch: str, n: int | None = 3) -> list[str]:
    return [group.name for group in groups.layer_groups(on_meta(arch), n)]


def test_units_of_a_residual_network_are_its_stem_blocks_and_head():
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    assert unit_names("resnet18") == ["conv1", *blocks, "fc"]


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        ("vgg16_bn", 16),
        ("vit_b_16", 14),
        ("convnext_tiny", 1 + 18 + 3 + 1),
        ("swin_t", 1 + 12 + 3 + 1),
        ("densenet121", 1 + 6 + 12 + 24 + 16 + 3 + 1),
        ("regnet_y_400mf", 1 + 1 + 3 + 6 + 6 + 1),
        ("efficientnet_b0", 1 + 16 + 1 + 1),
        ("mobilenet_v2", 1 + 17 + 1 + 1),
        ("squeezenet1_1", 1 + 8 + 1),
        ("maxvit_t", 2 + 11 + 1 + 1),
        ("shufflenet_v2_x0_5", 1 + 4 + 8 + 4 + 1 + 1),
        ("mnasnet0_5", 3 + 16 + 1 + 1),
        ("googlenet", 3 + 9 + 1),
        ("alexnet", 5 + 2 + 1),
        ("cnn", 4 + 1 + 1),
        ("mlp", 2),
        ("softmax", 1),
    ],
)
def test_units_are_weight_layers_or_blocks(arch, count):
    assert len(unit_names(arch)) == count


def test_norms_and_parameters_held_directly_join_a_neighbour():
    units = dict(groups.blocks(on_meta("vit_b_32")))
    assert {"class_token", "conv_proj.weight", "encoder.pos_embedding"} <= keys(units["conv_proj"])
    assert "encoder.ln.weight" in keys(units["encoder.layers.encoder_layer_11"])
    units = dict(groups.blocks(on_meta("densenet121")))
    assert "features.norm5.weight" in keys(units["features.denseblock4.denselayer16"])
    units = dict(groups.blocks(on_meta("convnext_tiny")))
    assert "classifier.0.weight" in keys(units["features.7.2"]), "the head stays alone"
    assert "features.1.0.layer_scale" in keys(units["features.1.0"])


def test_a_norm_that_comes_first_joins_the_unit_after():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2))
    assert [(name, len(parameters)) for name, parameters in groups.blocks(model)] == [("1", 4), ("3", 2)]


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"])
def test_residual_networks_are_cut_where_fastai_cuts_them(arch):
    assert group_names(arch) == ["conv1", "layer3.0", "fc"]


def test_one_group_each_unit_its_own_and_more_than_there_are():
    assert group_names("resnet18", 1) == ["conv1"]
    [whole] = groups.layer_groups(on_meta("resnet18"), 1)
    assert keys(whole.parameters) == dict(on_meta("resnet18").named_parameters()).keys()
    assert group_names("resnet18", 2) == ["conv1", "fc"]
    assert group_names("resnet18", None) == group_names("resnet18", 99) == unit_names("resnet18")
    assert group_names("softmax", 3) == ["1"]


@pytest.mark.parametrize("arch", ["resnet18", "vit_b_32", "vgg11", "densenet121", "mlp"])
def test_any_number_of_groups_covers_all_units_in_order(arch):
    model = on_meta(arch)
    everything = [key for _, parameters in groups.blocks(model) for key, _ in parameters]
    most = len(groups.blocks(model))
    for n in range(1, most + 2):
        found = groups.layer_groups(model, n)
        assert len(found) == min(n, most)
        assert [group.depth for group in found] == list(range(len(found)))
        assert [key for group in found for key, _ in group.parameters] == everything
        assert all(group.parameters for group in found)


def test_factors_are_those_of_the_courses_and_of_layer_decay():
    three = groups.layer_groups(on_meta("resnet18"), 3)
    assert groups.lr_factors(three, 3) == pytest.approx([1 / 9, 1 / 3, 1])
    assert groups.lr_factors(three, 1) == [1, 1, 1]
    units = groups.layer_groups(on_meta("vit_b_32"), None)
    decay = groups.lr_factors(units, 1 / 0.75)
    assert decay == pytest.approx([0.75 ** (13 - layer) for layer in range(14)])


def test_groups_as_an_optimizer_takes_them():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    made = groups.optimizer_groups(groups.layer_groups(model, 3), 10)
    assert [group["name"] for group in made] == ["0", "2", "4"]
    assert [group["lr_factor"] for group in made] == pytest.approx([0.01, 0.1, 1])
    optimizer = torch.optim.SGD([{"params": group["params"], "lr": group["lr_factor"]} for group in made])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.1, 1])


def test_mistakes_are_named():
    with pytest.raises(InvalidInput, match="expected 1 or more, but got 0") as caught:
        groups.layer_groups(on_meta("mlp"), 0)
    assert caught.value.problems[0].key == "model.layer_groups"
    for ratio in (0, -1, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="expected a positive number") as caught:
            groups.lr_factors(groups.layer_groups(on_meta("mlp"), 2), ratio)
        assert caught.value.problems[0].key == "model.lr_ratio"
