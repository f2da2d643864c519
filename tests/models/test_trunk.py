"""Trunk and head apart give what the whole model gives."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from hpo_ray.models import heads, names, trunk, vision


def check_parts(model: nn.Module, images: torch.Tensor) -> None:
    model.eval()
    with torch.no_grad():
        features = trunk.trunk_features(model, images)
        assert torch.equal(trunk.head_part(model)(features), model(images))
        assert torch.equal(trunk.head_part(model)(features), model(images))
    model.zero_grad()
    trunk.head_part(model)(features).sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    name = heads.head_name(model)
    assert with_gradient == {f"{name}.weight", f"{name}.bias"}
    model.zero_grad()


def test_the_parts_give_what_the_whole_gives_in_every_family(family):
    check_parts(family.model, family.images)


def test_features_are_vectors_but_for_squeezenet(family):
    with torch.no_grad():
        features = trunk.trunk_features(family.model.eval(), family.images)
    assert features.shape[0] == 2
    assert features.dim() == (4 if family.arch == "squeezenet1_1" else 2)
    assert features.shape[1] == family.model.get_submodule(family.head).weight.shape[1]


@pytest.mark.parametrize("arch", names.OWN)
@pytest.mark.parametrize("layers", [0, 2])
def test_our_own(arch, layers):
    model = vision.build(arch, classes=5, channels=1, image_size=8, layers=layers, dropout=0.5)
    check_parts(model, torch.rand(3, 1, 8, 8))


def test_features_are_taken_before_the_heads_dropout_and_nothing_is_left_behind():
    model = vision.build("mlp", classes=5, channels=1, image_size=8, dropout=0.9).train()
    images = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(trunk.trunk_features(model, images), trunk.trunk_features(model, images))
        assert not torch.equal(*(trunk.head_part(model)(trunk.trunk_features(model, images)) for _ in range(2)))
    assert not heads.head_of(model)._forward_pre_hooks


def test_the_hook_goes_when_the_model_fails():
    model = vision.build("mlp", classes=5, channels=1, image_size=8)
    with pytest.raises(RuntimeError):
        trunk.trunk_features(model, torch.rand(3, 1, 9, 9))
    assert not heads.head_of(model)._forward_pre_hooks


def test_training_the_head_part_trains_the_model():
    model = vision.build("squeezenet1_1", classes=5, channels=3, image_size=32)
    before = copy.deepcopy(model.state_dict())
    part = trunk.head_part(model)
    optimizer = torch.optim.SGD(part.parameters(), lr=0.1)
    part(torch.rand(2, 512, 1, 1)).sum().backward()
    optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved <= {"classifier.1.weight", "classifier.1.bias"}
    assert moved
    part.eval()
    assert not heads.head_of(model).training


def test_features_of_real_pretrained_weights():
    folder = os.environ.get("HPO_RAY_TEST_DATA")
    if not folder:
        pytest.skip("HPO_RAY_TEST_DATA names no folder of test data")
    weights = Path(folder) / "pretrained/mobilenet_v2_imagenet_from_tflite.pt"
    stock = torchvision.models.mobilenet_v2()
    stock.load_state_dict(torch.load(weights, weights_only=True))
    model = vision.build("mobilenet_v2", classes=2, channels=3, image_size=96, weights=str(weights))
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        found = trunk.trunk_features(model.eval(), images)
        expected = stock.eval().features(images).mean((2, 3))
    assert found.shape == (2, 1280)
    assert torch.allclose(found, expected, atol=1e-5)
