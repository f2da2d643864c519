"""LARS against the paper's algorithm in numpy."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hpo_ray.training.lars import LARS


def reference(w, gradients, rates, *, momentum, decay, trust, adapted=True):
    """Algorithm 1 of arXiv 1708.03888, line by line, for one layer."""
    v = np.zeros_like(w)
    for g, rate in zip(gradients, rates, strict=True):
        local = trust * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w)) if adapted else 1.0
        v = momentum * v + rate * local * (g + decay * w)
        w = w - v
    return w


def trained(w, gradients, rates, **options):
    parameter = nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = LARS([parameter], lr=1.0, **options)
    for g, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.from_numpy(g.copy())
        optimizer.step()
    return parameter.detach().numpy()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(3, 4), (2, 3, 3, 3), (1, 1), (5,), (1,), ()]),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    decay=st.sampled_from([0.0, 1e-4, 0.1]),
    trust=st.sampled_from([0.001, 0.02, 1.0]),
)
def test_it_is_the_papers_algorithm(seed, shape, momentum, decay, trust):
    rng = np.random.default_rng(seed)
    w, gradients, rates = rng.normal(size=shape), rng.normal(size=(6, *shape)), rng.uniform(0.01, 2, 6)
    gradients = [np.asarray(g) for g in gradients]
    w = np.asarray(w)
    expected = reference(w, gradients, rates, momentum=momentum, decay=decay, trust=trust, adapted=w.ndim > 1)
    found = trained(w, gradients, rates, momentum=momentum, weight_decay=decay, trust=trust)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_the_size_of_the_gradient_does_not_matter_to_a_layer():
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=(3, 4)), list(rng.normal(size=(3, 3, 4)))
    small = trained(w, gradients, [0.5] * 3)
    large = trained(w, [1000 * g for g in gradients], [0.5] * 3)
    np.testing.assert_allclose(small, large, rtol=1e-6)


def test_the_first_step_is_a_thousandth_of_the_layer():
    w = np.random.default_rng(0).normal(size=(3, 4))
    moved = trained(w, [np.random.default_rng(1).normal(size=(3, 4))], [1.0]) - w
    assert np.linalg.norm(moved) == pytest.approx(0.001 * np.linalg.norm(w), rel=1e-6)


@pytest.mark.parametrize(("w", "g"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_a_layer_of_zeros_can_leave_and_nothing_becomes_nan(w, g):
    found = trained(np.full((2, 2), w), [np.full((2, 2), g)], [0.1], weight_decay=0.0)
    np.testing.assert_allclose(found, np.full((2, 2), w - 0.1 * g))


def test_a_parameter_without_gradient_stays():
    still, moving = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([still, moving], lr=1.0, weight_decay=0.1)
    moving.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(still, torch.ones(2, 2))
    assert still not in optimizer.state
    assert not torch.equal(moving, torch.ones(2, 2))


def test_its_state_goes_through_a_file():
    def run(optimizer, parameter, first, last):
        for step in range(first, last):
            parameter.grad = torch.full((2, 2), float(step + 1))
            optimizer.step()

    parameter = nn.Parameter(torch.arange(4.0).reshape(2, 2))
    optimizer = LARS([parameter], lr=0.5, weight_decay=0.01)
    run(optimizer, parameter, 0, 3)
    file = io.BytesIO()
    torch.save((parameter.data, optimizer.state_dict()), file)
    run(optimizer, parameter, 3, 6)

    file.seek(0)
    data, state = torch.load(file, weights_only=True)
    resumed = nn.Parameter(data)
    other = LARS([resumed], lr=9.0)
    other.load_state_dict(state)
    run(other, resumed, 3, 6)
    assert torch.equal(resumed, parameter)


def test_a_closure_is_called_with_gradients():
    parameter = nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([parameter], lr=1.0)

    def closure():
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert (parameter < 1).all()


@pytest.mark.parametrize("wrong", [{"lr": -1}, {"momentum": -0.1}, {"weight_decay": float("nan")}, {"trust": -1}])
def test_negative_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .* but must be 0 or more"):
        LARS([nn.Parameter(torch.ones(1))], **{"lr": 1.0, **wrong})
