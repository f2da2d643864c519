"""Saving and going on exactly."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from hpo_ray.errors import RunFailed
from hpo_ray.training import checkpoint, loop, optimizers


def new_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
    )


def optimizer_of(model, name="adam"):
    return optimizers.build(name, model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.01)


def step(model, optimizer) -> float:
    """An epoch whose batches, like its dropout, come from the global generator."""
    batches = [(torch.rand(8, 1, 8, 8), torch.randint(3, (8,))) for _ in range(3)]
    return loop.train_epoch(model, batches, optimizer, "cpu")


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.fixture(autouse=True)
def _own_rng():
    with checkpoint.own_rng(0):
        yield


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_training_goes_on_exactly(tmp_path, name):
    model = new_model()
    optimizer = optimizer_of(model, name)
    step(model, optimizer)
    checkpoint.save(tmp_path, model=model, optimizer=optimizer, epoch=1)
    unbroken = [step(model, optimizer) for _ in range(2)]

    torch.manual_seed(99)
    resumed = new_model()
    its_optimizer = optimizer_of(resumed, name)
    assert checkpoint.load(tmp_path, model=resumed, optimizer=its_optimizer) == (1, {})
    assert [step(resumed, its_optimizer) for _ in range(2)] == unbroken
    assert same(resumed, model)


def test_every_global_generator_goes_on(tmp_path):
    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(2).tolist()

    model = new_model()
    optimizer = optimizer_of(model)
    random.gauss(0, 1)
    np.random.randn()  # both keep the second of a pair
    checkpoint.save(tmp_path, model=model, optimizer=optimizer, epoch=1)
    expected = draw()
    checkpoint.load(tmp_path, model=model, optimizer=optimizer)
    assert draw() == expected


def test_the_file_holds_tensors_and_plain_values_only(tmp_path):
    model = new_model()
    optimizer = optimizer_of(model)
    step(model, optimizer)
    checkpoint.save(tmp_path, model=model, optimizer=optimizer, epoch=7)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["epoch"] == 7
    assert set(state) == {"epoch", "model", "optimizer", "rng", "extra"}


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(torch.compile, id="compile"),
        pytest.param(nn.DataParallel, id="DataParallel"),
        pytest.param(torch.optim.swa_utils.AveragedModel, id="AveragedModel"),
        pytest.param(lambda model: nn.DataParallel(torch.compile(model)), id="both"),
    ],
)
def test_wrappers_leave_no_trace(tmp_path, wrap):
    wrapped = wrap(new_model())
    checkpoint.save(tmp_path, model=wrapped, optimizer=optimizer_of(wrapped), epoch=1)
    bare = new_model()
    checkpoint.load(tmp_path, model=bare, optimizer=optimizer_of(bare))
    again = wrap(new_model())
    checkpoint.load(tmp_path, model=again, optimizer=optimizer_of(again))
    assert same(checkpoint.unwrap(again), bare)
    assert same(checkpoint.unwrap(wrapped), bare)


def test_a_layer_that_is_called_module_keeps_its_name(tmp_path):
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    checkpoint.save(tmp_path, model=model, optimizer=optimizer_of(model), epoch=1)
    other = nn.ModuleDict({"module": nn.Linear(2, 2)})
    checkpoint.load_weights(tmp_path, model=other)
    assert same(model, other)


def test_weights_alone_leave_the_generators_alone(tmp_path):
    model = new_model()
    checkpoint.save(tmp_path, model=model, optimizer=optimizer_of(model), epoch=1)
    other = new_model()
    before = torch.get_rng_state()
    checkpoint.load_weights(tmp_path, model=other)
    assert same(model, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_damaged_or_foreign_checkpoint_is_told(tmp_path):
    model = new_model()
    optimizer = optimizer_of(model)
    with pytest.raises(RunFailed, match="cannot be read"):
        checkpoint.load(tmp_path, model=model, optimizer=optimizer)
    checkpoint.save(tmp_path, model=model, optimizer=optimizer, epoch=1)
    other = nn.Linear(2, 2)
    with pytest.raises(RunFailed, match="does not fit"):
        checkpoint.load(tmp_path, model=other, optimizer=optimizer_of(other))
    with pytest.raises(RunFailed, match="does not fit"):
        checkpoint.load_weights(tmp_path, model=other)
    file = tmp_path / "state.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(RunFailed, match="cannot be read"):
        checkpoint.load(tmp_path, model=model, optimizer=optimizer)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    model = new_model()
    optimizer = optimizer_of(model)
    checkpoint.save(tmp_path, model=model, optimizer=optimizer, epoch=1)
    optimizer.param_groups[0]["unpicklable"] = lambda: None
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save(tmp_path, model=model, optimizer=optimizer, epoch=2)
    del optimizer.param_groups[0]["unpicklable"]
    assert checkpoint.load(tmp_path, model=model, optimizer=optimizer)[0] == 1


def test_own_rng_starts_from_its_seed_and_leaves_no_trace():
    def draw():
        return random.random(), float(np.random.rand()), torch.rand(1).item()

    with checkpoint.own_rng(2**40):
        first = draw()
    draw()
    before = checkpoint.rng_state()
    with checkpoint.own_rng(2**40):
        assert draw() == first
    with pytest.raises(ZeroDivisionError), checkpoint.own_rng(3):
        _ = 1 / len([])
    with checkpoint.own_rng(1):
        assert not set(draw()) & set(first)
    expected = draw()
    checkpoint.set_rng_state(before)
    assert draw() == expected
