"""The learning rate range test: it disturbs nothing, and reads known answers off curves that are noisy."""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hpo_ray.errors import InvalidInput
from hpo_ray.training import checkpoint, optimizers
from hpo_ray.training.lr_finder import RangeTest, range_test

NAMES = {"steepest", "valley", "minimum", "slide"}


def curve(n=100, noise=0.0, seed=0, low=-7.0, high=1.0, scale=1.0, bend=lambda x: x) -> RangeTest:
    """Flat at 2.3, a logistic fall to 0.3 that is steepest at 10^-2.5 and 0.99 done at 10^-1.35, diverged from -0.5."""
    x = np.linspace(low, high, n)
    loss = 0.3 + 2 / (1 + np.exp(4 * (x + 2.5))) + np.where(x > -0.5, 15 * (x + 0.5) ** 2, 0)
    return RangeTest(10 ** bend(x), scale * (loss + noise * np.random.default_rng(seed).normal(size=n)))


def log(rate: float | None) -> float:
    assert rate is not None
    return math.log10(rate)


# Where each rate is known to be, in powers of ten: the fall's middle; 2/3 from a tenth of the fall (-3.05) to the
# lowest loss; the lowest loss, between -1.35 and -0.5, less one; half of the slide's interval before the middle.
KNOWN = {"steepest": (-2.5, -2.5), "valley": (-1.92, -1.35), "minimum": (-2.35, -1.5), "slide": (-3.1, -3.1)}


@pytest.mark.parametrize(("noise", "give"), [(0.0, 0.1), (0.03, 0.15), (0.1, 0.3), (0.3, 0.6)])
def test_a_known_curve_gives_its_known_rates_through_noise(noise, give):
    found = [curve(noise=noise, seed=seed).suggestions for seed in range(50 if noise else 1)]
    for name, (low, high) in KNOWN.items():
        rates = [log(one[name]) for one in found]
        assert low - give < np.median(rates) < high + give, name
        near = [low - 2 * give <= rate <= high + 2 * give for rate in rates]
        assert np.mean(near) >= 0.9, name


@pytest.mark.parametrize("n", [20, 50, 200, 1000])
def test_the_number_of_steps_hardly_matters(n):
    for name, (low, high) in KNOWN.items():
        assert low - 0.3 < log(curve(n).suggestions[name]) < high + 0.3, name


@pytest.mark.parametrize(("shift", "scale"), [(3.0, 1.0), (-2.0, 1.0), (0.0, 100.0), (0.0, 1e-3)])
def test_slopes_are_taken_by_the_rates_logarithm(shift, scale):
    # By the rate itself, the same curve further left would have another steepest place. The loss's unit is free too.
    plain = curve(noise=0.05).suggestions
    moved = curve(noise=0.05, scale=scale, bend=lambda x: x + shift).suggestions
    assert {name: log(moved[name]) - shift for name in NAMES} == pytest.approx({n: log(plain[n]) for n in NAMES})


def test_steepest_is_not_the_steepest_by_the_rate():
    # Two falls of 1 each, over one decade at 10^-5 and over half a decade at 10^-2.
    x = np.linspace(-7, 0, 200)
    losses = 3 - np.clip(x + 5.5, 0, 1) - np.clip((x + 2.25) * 2, 0, 1)
    assert log(RangeTest(10**x, losses).suggestions["steepest"]) == pytest.approx(-2.0, abs=0.1)
    assert 10 ** x[np.gradient(losses, 10**x).argmin()] < 1e-4


def test_the_valley_is_two_thirds_into_a_straight_fall():
    x = np.linspace(-7, 0, 701)
    losses = 2.3 - 2 * np.clip((x + 4) / 3, 0, 1)
    losses[x > -1] += 5 * (x[x > -1] + 1)
    begin, low = -4 + 0.1 * 3, -1
    assert log(RangeTest(10**x, losses).suggestion) == pytest.approx(begin + 2 / 3 * (low - begin), abs=0.2)


@pytest.mark.parametrize("rises", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("n", [20, 100, 400])
def test_a_curve_that_does_not_fall_suggests_nothing(n, noise, rises):
    x = np.linspace(-7, 1, n)
    alarms = 0
    for seed in range(100):
        losses = 2.3 + noise * np.random.default_rng(seed).normal(size=n)
        found = RangeTest(10**x, losses + np.where(x > -1, 5 * (x + 1), 0) * rises)
        alarms += found.suggestion is not None
    assert alarms <= (6 if noise else 0)
    if found.suggestion is None:
        assert found.suggestions == dict.fromkeys(NAMES)
        assert found.bounds() is None
        assert f"does not fall by more than its noise in a range test of {n} steps" in found.reason


@pytest.mark.parametrize("end", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_kept_and_not_looked_at(end):
    whole = curve(noise=0.05)
    losses = np.append(whole.losses[:90], end)
    broken = RangeTest(whole.lrs[:91], losses)
    assert broken.suggestions == RangeTest(whole.lrs[:90], losses[:90]).suggestions
    assert math.isnan(broken.smoothed[-1])
    assert not np.isnan(broken.smoothed[:-1]).any()
    assert list(broken.frame().columns) == ["lr", "loss", "smoothed"]
    assert len(broken.frame()) == 91


def test_one_huge_loss_at_the_end_does_not_blur_the_rest():
    whole = curve()
    spiked = RangeTest(whole.lrs, np.append(whole.losses[:-1], 1e30))
    assert spiked.suggestions == whole.suggestions


@pytest.mark.parametrize("losses", [[], [1.0], [math.nan], [3.0, 2.0, math.nan], [math.nan] * 9])
def test_too_few_losses_suggest_nothing(losses):
    found = RangeTest(10.0 ** np.arange(len(losses)), np.array(losses))
    assert found.suggestions == dict.fromkeys(NAMES)
    assert found.smoothed.shape == (len(losses),)
    assert found.bounds() is None


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_bounds_are_where_the_loss_falls(noise):
    for seed in range(20):
        found = curve(noise=noise, seed=seed)
        low, high = found.bounds()
        assert high / low >= 10 * (1 - 1e-9)
        assert -4.2 < log(low) < -2.2
        assert -2.1 < log(high) < -0.4
        assert high <= found.lrs[np.nanargmin(found.smoothed)]
        assert low <= found.suggestion <= high
        assert f"{low:.1e} to {high:.1e}: the loss falls from" in found.reason
        assert f"valley {found.suggestion:.1e}" in found.reason
        assert "\n" not in found.reason


@settings(max_examples=200, deadline=None)
@given(
    losses=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf)), max_size=60),
    decades=st.floats(0.5, 12),
)
def test_any_curve_has_rates_of_its_range_or_none(losses, decades):
    lrs = np.logspace(-7, -7 + decades, len(losses))
    found = RangeTest(lrs, np.array(losses))
    assert set(found.suggestions) == NAMES
    assert found.smoothed.shape == lrs.shape
    assert np.array_equal(np.isnan(found.smoothed), ~np.isfinite(found.losses))
    if found.suggestion is None:
        assert not any(found.suggestions.values())
        return
    for name, rate in found.suggestions.items():
        assert rate is None or lrs[0] <= rate * (10.0001 if name == "minimum" else 1) <= lrs[-1] * 10.001
    low, high = found.bounds()
    assert 0 < low < high <= lrs[-1]


def network(*extra: nn.Module) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), *extra, nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return model


def data(n=96) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, generator=generator)
    return TensorDataset(x, (x @ torch.randn(6, 3, generator=generator)).argmax(1))


def batches(size=16):
    x, y = data().tensors
    return lambda: zip(x.split(size), y.split(size), strict=True)


def sgd(model):
    return optimizers.build("momentum", model.parameters(), lr=0.5)


def test_a_real_model_is_learnt_best_where_it_says():
    model = network()
    found = range_test(model, batches(), sgd, lowest=1e-5, highest=100, steps=120)
    assert found.ended.startswith("the loss")
    assert 20 < len(found.lrs) == len(found.losses) == len(found.smoothed) < 120
    assert found.lrs[0] == 1e-5
    np.testing.assert_allclose(found.lrs[1:] / found.lrs[:-1], 1e7 ** (1 / 119))

    def after_training(lr):
        trained = copy.deepcopy(model).eval()
        optimizer = optimizers.build("momentum", trained.parameters(), lr=lr)
        for _ in range(5):
            for x, y in batches()():
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(trained(x), y)
                loss.backward()
                optimizer.step()
        return nn.functional.cross_entropy(trained(data().tensors[0]), data().tensors[1]).item()

    low, high = found.bounds()
    best = after_training(found.suggestion)
    assert best < after_training(low / 30)
    assert not after_training(high * 100) < best


def everything(*loaders) -> list:
    states = [part.get_state().tolist() for part in loaders]
    return [torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate(), *states]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_the_callers_changes(fails):
    model = network(nn.BatchNorm1d(16)).train()
    model[1].eval()
    optimizer = optimizers.build("adam", model.parameters(), lr=0.01)
    model(data().tensors[0]).sum().backward()
    optimizer.step()
    own, sampling = torch.Generator().manual_seed(5), torch.Generator().manual_seed(6)
    shuffled = DataLoader(data(), 16, shuffle=True, generator=own)
    sampler = torch.utils.data.RandomSampler(data(), generator=sampling)
    sampled = DataLoader(data(), 16, sampler=sampler)
    next(iter(shuffled))

    def snapshot():
        parts = [model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]]
        modes = [module.training for module in model.modules()]
        return copy.deepcopy(parts), modes, [p.requires_grad for p in model.parameters()], everything(own, sampling)

    class Broken(Exception):
        pass

    def loss(output, labels):
        random.random(), np.random.rand()
        if fails and len(seen) == 7:
            raise Broken
        seen.append(0)
        return nn.functional.cross_entropy(output, labels)

    for loader in (shuffled, sampled):
        seen: list[int] = []
        before = snapshot()
        if fails:
            with pytest.raises(Broken):
                range_test(model, lambda loader=loader: loader, sgd, steps=30, loss=loss)
        else:
            range_test(model, lambda loader=loader: loader, sgd, steps=30, loss=loss)
            assert len(seen) > 6  # more than one pass over the data
        after = snapshot()
        torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)
        assert after[1:] == before[1:]
    # What is drawn next is what would have been.
    expected = [y.tolist() for _, y in DataLoader(data(), 16, shuffle=True, generator=own.clone_state())]
    assert [y.tolist() for _, y in shuffled] == expected


def test_it_is_the_same_twice_whatever_came_before():
    first = range_test(network(), batches(), sgd, steps=40)
    torch.rand(3)
    second = range_test(network(), batches(), sgd, steps=40)
    assert first.losses.tolist() == second.losses.tolist()
    assert first.losses.tolist() != range_test(network(), batches(), sgd, steps=40, seed=1).losses.tolist()


def test_it_works_without_gradients_around_it():
    with torch.no_grad():
        found = range_test(network(), batches(), sgd, steps=20)
    assert len(set(found.losses)) > 10


def test_groups_keep_the_ratio_of_their_rates():
    def watched(make):
        seen = []

        class Watching(torch.optim.SGD):
            def step(self, closure=None):
                seen.append([group["lr"] for group in self.param_groups])
                return super().step(closure)

        return seen, lambda model: Watching(make(model))

    for make in (
        lambda model: [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[-1].parameters(), "lr": 0.4}],
        lambda model: [
            {"params": model[0].parameters(), "lr": 7.0, "lr_factor": 0.25},
            {"params": model[-1].parameters(), "lr": 7.0, "lr_factor": 1.0},
        ],
    ):
        seen, made = watched(make)
        found = range_test(network(), batches(), made, steps=20, highest=0.1)
        assert [high for _, high in seen] == pytest.approx(found.lrs)
        assert [low for low, _ in seen] == pytest.approx(found.lrs / 4)
        assert found.ended == "every rate was tried"


def test_the_callers_training_mode_is_used():
    frozen = network(nn.BatchNorm1d(16))
    modes = []
    frozen[1].register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    range_test(frozen, batches(), sgd, steps=10)
    range_test(frozen, batches(), sgd, steps=10, train_mode=lambda model: model.train()[1].eval())
    assert modes == [True] * 10 + [False] * 10


def test_a_loss_that_becomes_no_number_ends_it():
    def loss(output, labels):
        calls.append(0)
        return nn.functional.cross_entropy(output, labels) * (math.nan if len(calls) == 13 else 1)

    calls: list[int] = []
    found = range_test(network(), batches(), sgd, loss=loss)
    assert len(found.losses) == 13
    assert math.isnan(found.losses[-1])
    assert "became nan" in found.ended


def test_batches_that_come_only_once_end_it_in_words():
    once = iter(list(batches()()))
    found = range_test(network(), lambda: once, sgd)
    assert len(found.losses) == 6
    assert found.ended == "the batches came to an end"


def test_batches_of_one_are_left_out_before_batch_norm():
    x, y = data(33).tensors
    sizes = []
    model = network(nn.BatchNorm1d(16))
    model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    range_test(model, lambda: zip(x.split(16), y.split(16), strict=True), sgd, steps=10)
    assert set(sizes) == {16}
    with pytest.raises(InvalidInput, match="no batch that it could train on"):
        range_test(model, lambda: zip(x.split(1), y.split(1), strict=True), sgd)


def test_no_batch_at_all_and_nothing_to_train_are_mistakes():
    with pytest.raises(InvalidInput, match="no batch"):
        range_test(network(), lambda: [], sgd)
    with pytest.raises(InvalidInput, match="no parameter that wants a gradient"):
        range_test(network().requires_grad_(False), batches(), sgd)


def test_numbers_that_make_no_sense_are_told_all_at_once():
    with pytest.raises(InvalidInput) as caught:
        range_test(network(), batches(), sgd, lowest=0, highest=-1, steps=3, stop_at=1)
    keys = [problem.key.removeprefix("training.lr_finder.") for problem in caught.value.problems]
    assert keys == ["lowest", "highest", "steps", "stop_at"]


def test_an_optimizer_over_the_callers_own_weights_is_refused():
    model = network()
    with pytest.raises(ValueError, match="which is a copy"):
        range_test(model, batches(), lambda copied: sgd(model))


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_every_optimizer_can_be_tested(name):
    found = range_test(
        network(), batches(), lambda model: optimizers.build(name, model.parameters(), lr=1.0), steps=60, highest=100
    )
    assert found.suggestion is None or 1e-7 < found.suggestion < 100
    assert len(found.losses) > 20


def test_a_wrapped_model_is_tested_bare():
    wrapped = nn.DataParallel(network())
    plain = range_test(network(), batches(), sgd, steps=20)
    assert range_test(wrapped, batches(), sgd, steps=20).losses.tolist() == plain.losses.tolist()
    assert checkpoint.unwrap(wrapped) is wrapped.module


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpus_generator_is_put_back():
    torch.manual_seed(3)
    before = torch.cuda.get_rng_state()
    range_test(network(), batches(), sgd, device="cuda", steps=20)
    assert torch.equal(torch.cuda.get_rng_state(), before)
