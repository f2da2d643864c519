"""One epoch of training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hpo_ray.errors import InvalidInput
from hpo_ray.training import loop


def batches(*sizes: int, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(size, 1, 4, 4, generator=generator), torch.randint(3, (size,), generator=generator))
        for size in sizes
    ]


def linear(*extra: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Flatten(), *extra, nn.Linear(16, 3))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr)


def test_it_takes_one_step_per_batch_and_returns_the_mean_loss_per_image():
    data, model, by_hand = batches(4, 4, 2), linear(), linear()
    losses = []
    for images, labels in data:
        loss = nn.functional.cross_entropy(by_hand(images), labels, reduction="none")
        losses += loss.tolist()
        gradients = torch.autograd.grad(loss.mean(), list(by_hand.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    result = loop.train_epoch(model, iter(data), sgd(model), "cpu")
    assert type(result) is float
    assert result == pytest.approx(sum(losses) / 10, rel=1e-6)
    for mine, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, expected)


def test_the_model_is_in_training_mode():
    model = linear(nn.Dropout(0.5)).eval()
    loop.train_epoch(model, batches(4), sgd(model), "cpu")
    assert model.training
    assert model[1].training


@pytest.mark.parametrize("sizes", [(4, 1), (1, 4)])
def test_a_batch_of_one_is_left_out_before_batch_norm(sizes):
    model = linear(nn.BatchNorm1d(16))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(batches(1)[0][0])
    model = linear(nn.BatchNorm1d(16))
    loop.train_epoch(model, batches(*sizes), sgd(model), "cpu")
    assert int(model[1].num_batches_tracked) == 1


def test_a_batch_of_one_is_used_otherwise():
    data, model = batches(1), linear()
    before = nn.functional.cross_entropy(model(data[0][0]), data[0][1]).item()
    assert loop.train_epoch(model, data, sgd(model), "cpu") == pytest.approx(before)


def test_training_that_takes_no_step_at_all_is_an_error():
    model = linear(nn.BatchNorm1d(16))
    with pytest.raises(InvalidInput, match="no batch has two images"):
        loop.train_epoch(model, batches(1, 1, 1), sgd(model), "cpu")


def test_a_diverged_loss_is_returned_as_it_is():
    model = linear()
    assert not math.isfinite(loop.train_epoch(model, batches(*[4] * 20), sgd(model, lr=1e38), "cpu"))


def conv():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.0), nn.Linear(16, 3))


@pytest.mark.parametrize("pieces", [2, 3, 7, 100])
@pytest.mark.parametrize("make", [linear, conv])
def test_batches_in_pieces_give_the_same_weights(make, pieces):
    data, whole, split = batches(32, 32, 5, 1), make(), make()
    expected = loop.train_epoch(whole, data, sgd(whole), "cpu")
    assert loop.train_epoch(split, data, sgd(split), "cpu", pieces) == pytest.approx(expected, abs=1e-6)
    for mine, other in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_one_piece_is_the_whole_batch_to_the_last_bit():
    data, one, other = batches(7, 3), conv(), conv()
    assert loop.train_epoch(one, data, sgd(one), "cpu") == loop.train_epoch(other, data, sgd(other), "cpu", 1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("pieces", "extra", "sizes"),
    [
        (3, [], [3, 2, 2, 1, 1, 1, 1]),
        (3, [nn.BatchNorm1d(16)], [3, 2, 2, 3]),  # and none for the batch of one
        (100, [], [1] * 11),
        (100, [nn.BatchNorm1d(16)], [3, 2, 2, 3]),
    ],
)
def test_pieces_are_of_one_image_or_more_and_of_two_before_batch_norm(pieces, extra, sizes):
    model, seen = linear(*extra), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    loop.train_epoch(model, batches(7, 3, 1), sgd(model), "cpu", pieces)
    assert seen == sizes
