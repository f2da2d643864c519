"""GroupNorm in place of BatchNorm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.models import freezing, norms, vision
from hpo_ray.training import modes


def kinds(model: nn.Module, kind: type[nn.Module]) -> list:
    return [module for module in model.modules() if isinstance(module, kind)]


def test_every_family_trains_with_batches_of_one_after_the_swap(family):
    model = copy.deepcopy(family.model)
    before = kinds(model, nn.BatchNorm2d)
    weights = [norm.weight for norm in before]
    had = kinds(model, nn.GroupNorm)
    names = {name for name, _ in model.named_parameters()}
    assert norms.swap_batch_norm(model) == len(before)
    assert not kinds(model, nn.BatchNorm2d)
    after = [norm for norm in kinds(model, nn.GroupNorm) if norm not in had]
    assert all(new.weight is old for new, old in zip(after, weights, strict=True))
    assert {name for name, _ in model.named_parameters()} == names
    logits = model.train()(family.images[:1])
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    with torch.no_grad():
        together, apart = model.eval()(family.images), [model(image[None]) for image in family.images]
    assert torch.allclose(together, torch.cat(apart), atol=1e-4), "no image depends on its batch"


def test_batch_norm_cannot_train_with_a_batch_of_one():
    image = torch.rand(1, 3, 32, 32)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        vision.build("resnet18", classes=5, channels=3, image_size=32).train()(image)
    model = vision.build("resnet18", classes=5, channels=3, image_size=32, norm="group")
    assert model.train()(image).shape == (1, 5)


@pytest.mark.parametrize(
    ("channels", "most", "groups"),
    [
        *((64, 32, 32), (32, 32, 16), (24, 32, 12), (48, 32, 24), (58, 32, 29), (7, 32, 1), (2, 32, 1), (1, 32, 1)),
        *((64, 8, 8), (30, 8, 6), (64, 1, 1)),
    ],
)
def test_groups_divide_the_channels_and_no_channel_is_alone(channels, most, groups):
    model = nn.Sequential(nn.BatchNorm2d(channels))
    norms.swap_batch_norm(model, most)
    assert (model[0].num_groups, model[0].num_channels) == (groups, channels)


def test_type_epsilon_mode_and_frozenness_are_kept():
    model = nn.Sequential(nn.BatchNorm2d(8, eps=0.01).double(), nn.BatchNorm1d(8, affine=False)).eval()
    model[0].requires_grad_(False)
    nn.init.normal_(model[0].weight)
    scale = model[0].weight.clone()
    assert norms.swap_batch_norm(model) == 2
    assert torch.equal(model[0].weight, scale)
    assert model[0].weight.dtype == torch.float64
    assert model[0].eps == 0.01
    assert not model[0].weight.requires_grad
    assert not model[0].training
    assert model[1].weight is None
    assert model[1](torch.rand(3, 8)).shape == (3, 8)
    with torch.device("meta"):
        on_meta = nn.Sequential(nn.BatchNorm2d(8))
    norms.swap_batch_norm(on_meta)
    assert on_meta[0].weight.is_meta


def test_our_own_and_the_rest_of_the_room_take_it():
    model = vision.build("cnn", classes=5, channels=1, image_size=8, norm="group")
    assert not kinds(model, nn.BatchNorm2d)
    assert len(kinds(model, nn.GroupNorm)) == 2
    freezing.freeze(model, "head")
    modes.train_mode(model, freeze_norms=True)
    assert norms.swap_batch_norm(vision.build("mlp", classes=5, channels=1, image_size=8)) == 0


def test_an_unknown_normalisation():
    with pytest.raises(InvalidInput, match="did you mean 'group'") as caught:
        vision.build("cnn", classes=5, channels=1, image_size=8, norm="groups")
    assert caught.value.problems[0].key == "model.norm"
