"""Loss and errors on data that is not learnt from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpo_ray.errors import RunFailed
from hpo_ray.training.evaluate import Evaluation, evaluate


def data(*sizes: int):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)) for n in sizes]


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))


def test_it_is_the_mean_over_images_not_over_batches(model):
    batches = data(8, 8, 1)
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    model.eval()
    with torch.no_grad():
        logits = model(images)
    expected = nn.functional.cross_entropy(logits, labels).item()
    wrong = int((logits.argmax(1) != labels).sum())
    model.train()
    found = evaluate(model, batches, "cpu")
    assert found.loss == pytest.approx(expected, rel=1e-6)
    assert (found.errors, found.n) == (wrong, 17)
    assert (found.error, found.accuracy) == (wrong / 17, 1 - wrong / 17)


def test_nothing_in_the_model_changes(model):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    evaluate(model, data(8), "cpu")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_every_module_gets_its_own_mode_back(model):
    model.train()
    model[0].eval()  # frozen on purpose
    evaluate(model, data(8), "cpu")
    assert [module.training for module in (model, *model)] == [True, False, True, True]
    model.eval()
    evaluate(model, data(8), "cpu")
    assert not model.training


def test_modes_come_back_after_an_error_too(model):
    model.train()
    with pytest.raises(RuntimeError):
        evaluate(model, [(torch.zeros(2, 99), torch.zeros(2, dtype=torch.int64))], "cpu")
    assert model.training


def test_gradients_are_off_inside(model):
    seen = []
    model.register_forward_hook(lambda *arguments: seen.append((torch.is_grad_enabled(), model.training)))
    evaluate(model, data(2), "cpu")
    assert seen == [(False, False)]


def test_a_diverged_model_has_every_image_wrong_and_no_loss(model):
    nn.init.constant_(model[2].weight, math.nan)
    found = evaluate(model, [(torch.randn(5, 4), torch.zeros(5, dtype=torch.int64))], "cpu")
    assert math.isnan(found.loss)
    assert found == Evaluation(found.loss, 5, 5)


def test_no_image_is_an_error(model):
    with pytest.raises(RunFailed, match="no image"):
        evaluate(model, [], "cpu")
