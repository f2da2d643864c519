"""Heads: found in every family, dropout with them, names of weights as they were."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torchvision
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.models import heads, vision
from tests.models.families import on_meta


def test_every_family_gets_a_new_head_with_its_own_dropout(family):
    assert heads.head_name(family.model) == family.head
    head = heads.head_of(family.model)
    assert head is family.model.get_submodule(family.head)
    assert head.dropout == family.own_dropout


def test_a_number_replaces_the_dropout_of_the_architecture(family):
    assert heads.head_of(on_meta(family.arch, image_size=family.size, dropout=0.0)).dropout == 0
    model = on_meta(family.arch, image_size=family.size, dropout=0.3)
    assert heads.head_of(model).dropout == 0.3
    before = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    own = [module for module in on_meta(family.arch, stock=True).modules() if isinstance(module, nn.Dropout)]
    moved = family.own_dropout > 0
    assert len(before) == len(own) - moved, "the one before the head is the head's, those deeper stay"


def test_the_state_dict_keeps_torchvisions_names(family):
    stock = on_meta(family.arch, stock=True).state_dict()
    # maxvit's own head has no bias.
    assert family.model.state_dict().keys() == stock.keys() | {f"{family.head}.bias"}


@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2", "squeezenet1_1", "mlp", "cnn"])
def test_dropout_before_the_head_follows_the_heads_mode(arch):
    model = vision.build(arch, classes=5, channels=3, image_size=32, dropout=0.9).eval()
    image = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(image), model(image))
        heads.head_of(model).train()
        assert not torch.equal(model(image), model(image))


def test_a_head_drops_as_dropout_does_and_draws_nothing_where_it_has_none():
    features = torch.rand(8, 6)
    head = heads.LinearHead(6, 5, dropout=0.5)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        dropped = head(features)
        torch.manual_seed(1)
        assert torch.equal(dropped, nn.functional.linear(nn.Dropout(0.5)(features), head.weight, head.bias))
        state = torch.get_rng_state()
        head.eval()(features)
        heads.LinearHead.forward(heads.LinearHead(6, 5), features)
    assert not torch.equal(dropped, head(features))
    assert "dropout=0.5" in repr(head)
    with torch.random.fork_rng():
        torch.set_rng_state(state)
        plain = heads.ConvHead(6, 5)
        before = torch.get_rng_state()
        plain.train()(torch.rand(1, 6, 1, 1, generator=torch.Generator().manual_seed(0)))
        assert torch.equal(torch.get_rng_state(), before)


def test_models_can_be_copied_and_pickled():
    model = vision.build("squeezenet1_1", classes=5, channels=1, image_size=32, dropout=0.1).eval()
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = model(image)
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(image), expected)
            assert heads.head_of(twin).dropout == 0.1


def test_heads_of_models_from_elsewhere():
    assert heads.head_name(torchvision.models.resnet18()) == "fc"
    assert heads.head_name(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))) == "2"
    with pytest.raises(TypeError, match="no linear layer or convolution"):
        heads.head_name(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_a_dropout_that_is_no_probability(dropout):
    with pytest.raises(InvalidInput, match="expected a probability") as caught:
        vision.build("mlp", classes=5, channels=1, image_size=8, dropout=dropout)
    assert caught.value.problems[0].key == "model.dropout"
