"""One epoch of training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hpo_ray.errors import InvalidInput
from hpo_ray.training import loop
from hpo_ray.training.precision import Precision


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
    assert loop.train_epoch(split, data, sgd(split), "cpu", loop.Step(micro_batches=pieces)) == pytest.approx(
        expected, abs=1e-6
    )
    for mine, other in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


def test_one_piece_is_the_whole_batch_to_the_last_bit():
    data, one, other = batches(7, 3), conv(), conv()
    assert loop.train_epoch(one, data, sgd(one), "cpu") == loop.train_epoch(
        other, data, sgd(other), "cpu", loop.Step(micro_batches=1)
    )
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
    loop.train_epoch(model, batches(7, 3, 1), sgd(model), "cpu", loop.Step(micro_batches=pieces))
    assert seen == sizes


def test_before_each_batch_it_is_told_how_many_were_taken():
    taken: list[int] = []
    model = linear(nn.BatchNorm1d(16))
    loop.train_epoch(model, batches(4, 1, 4, 4), sgd(model), "cpu", loop.Step(before=taken.append))
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("pieces", [1, 3])
def test_weights_of_classes_and_smoothing_are_torchs(pieces):
    data, model, by_hand = batches(7, 5), linear(), linear()
    weights = torch.tensor([0.2, 1.0, 3.0])
    criterion, optimizer = nn.CrossEntropyLoss(weights, label_smoothing=0.1), sgd(by_hand)
    losses = []
    for images, labels in data:
        optimizer.zero_grad()
        loss = criterion(by_hand(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item() * len(labels))
    step = loop.Step(loss_weights=weights, label_smoothing=0.1, micro_batches=pieces)
    assert loop.train_epoch(model, data, sgd(model), "cpu", step) == pytest.approx(sum(losses) / 12, rel=1e-5)
    for mine, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_soft_labels_from_mixing_are_learnt():
    def mix(images, labels):
        soft = nn.functional.one_hot(labels, 3).float()
        return images.lerp(images.flip(0), 0.3), soft.lerp(soft.flip(0), 0.3)

    data, model, by_hand = batches(6), linear(), linear()
    images, soft = mix(*data[0])
    expected = nn.functional.cross_entropy(by_hand(images), soft).item()
    assert loop.train_epoch(model, data, sgd(model), "cpu", loop.Step(mix=mix)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_gradients_are_clipped_to_the_norm_whatever_the_precision(name):
    """The order that matters under fp16: unscale, clip, one step. A step of rate 1 moves by the gradient itself."""
    data, model = batches(8), linear()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step = loop.Step(clip_norm=0.01, precision=Precision(name, "cpu"))
    loop.train_epoch(model, data, sgd(model, lr=1.0), "cpu", step)
    moved = [now - then for now, then in zip(model.parameters(), before, strict=True)]
    assert torch.cat([part.flatten() for part in moved]).norm().item() == pytest.approx(0.01, rel=2e-2)


def test_fp16_leaves_out_a_step_whose_gradients_overflow_and_scales_down():
    model, precision = linear(), Precision("fp16", "cpu")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    scale = precision.state_dict()["scale"]
    huge = [(1e30 * images, labels) for images, labels in batches(8)]
    loop.train_epoch(model, huge, sgd(model), "cpu", loop.Step(precision=precision))
    assert all(torch.equal(now, then) for now, then in zip(model.parameters(), before, strict=True))
    assert precision.state_dict()["scale"] == scale / 2
    other = Precision("fp16", "cpu")
    other.load_state_dict(precision.state_dict())
    assert other.state_dict() == precision.state_dict()


def test_the_average_follows_every_step():
    data, model = batches(4, 4, 4), linear()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    seen: list[torch.Tensor] = []

    def before(taken):
        if taken:
            seen.append(model[-1].weight.detach().clone())

    loop.train_epoch(model, data, sgd(model), "cpu", loop.Step(average=average, before=before))
    seen.append(model[-1].weight.detach().clone())
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(average.module[-1].weight, expected)


def test_a_part_of_the_model_and_a_mode_of_its_own_can_be_trained():
    model = linear(nn.Dropout(0.5))

    def train_mode(model):
        model.train()
        model[1].eval()

    features = [(images.flatten(1), labels) for images, labels in batches(4, 4)]
    loop.train_epoch(model, features, sgd(model), "cpu", loop.Step(forward=model[-1], train_mode=train_mode))
    assert model[-1].training
    assert not model[1].training
