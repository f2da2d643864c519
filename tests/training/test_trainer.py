"""A training in progress: resumed exactly, stopped early, averaged, in a notebook without Ray."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hpo_ray import training
from hpo_ray.errors import InvalidInput
from hpo_ray.training import checkpoint, lr_schedules, modes, optimizers
from hpo_ray.training.trainer import Fit, Options, fit


def batches(n: int = 3, seed: int = 0, size: int = 8):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 6, generator=generator), torch.randint(3, (size,), generator=generator)) for _ in range(n)
    ]


def new_model() -> nn.Module:
    with checkpoint.own_rng(3):
        return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def new_fit(optimizer: str = "adamw", **options) -> Fit:
    model = new_model()
    return Fit(model, optimizers.build(optimizer, model.parameters(), lr=0.03), "cpu", Options(**options))


def go_on(state: Fit, until: int, schedule=None) -> list[dict]:
    rows = []
    while state.done < until and not state.out_of_patience:
        rows.append(state.epoch(batches(seed=state.done), batches(2, seed=99), steps=3, schedule=schedule))
    return [{key: value for key, value in row.items() if key != "epoch_s"} for row in rows]


def everything(state: Fit) -> dict:
    return {"model": state.model.state_dict(), "used": state.evaluated.state_dict(), "rng": torch.get_rng_state()}


def same(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other)


@pytest.mark.parametrize(
    "options",
    [{}, {"ema_decay": 0.7}, {"precision": "fp16", "clip_norm": 0.5}, {"patience": 9, "label_smoothing": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_going_on_from_a_checkpoint_gives_what_an_unbroken_training_gives(tmp_path, options, optimizer):
    schedule = lr_schedules.build("one_cycle", epochs=5, cycle_momentum=True)
    with checkpoint.own_rng(0):
        unbroken = new_fit(optimizer, **options)
        expected = go_on(unbroken, 5, schedule)
        at_end = everything(unbroken)
    with checkpoint.own_rng(0):
        first = new_fit(optimizer, **options)
        rows = go_on(first, 2, schedule)
        first.save(tmp_path)
    with checkpoint.own_rng(17):  # another process: its generators stand elsewhere
        second = new_fit(optimizer, **options)
        second.load(tmp_path)
        rows += go_on(second, 5, schedule)
        assert rows == expected
        assert same(everything(second), at_end)


def test_the_rate_follows_the_schedule_from_where_its_stage_began():
    state = new_fit("sgd")
    schedule = lr_schedules.build("cosine", epochs=4)
    seen = []
    state.optimizer.register_step_post_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
    go_on(state, 2)
    while state.done < 6:
        state.epoch(batches(), batches(2), steps=3, schedule=schedule, since=2)
    assert seen[:6] == [0.03] * 6
    assert seen[6:] == pytest.approx([0.03 * (1 + math.cos(math.pi * i / 12)) / 2 for i in range(12)])


def test_patience_ends_training_with_the_best_epochs_weights():
    state = new_fit("sgd", patience=3)
    for group in state.optimizer.param_groups:
        group["lr"] = 3.0  # far too large: it soon gets worse
    weights, rows = [], []
    while not state.out_of_patience:
        before = state.done
        rows += go_on(state, before + 1)
        weights.append(copy.deepcopy(state.model.state_dict()))
        assert len(rows) < 50
    best = min(rows, key=lambda row: row["val_loss"])["epoch"]
    assert state.best_epoch == best == len(rows) - 3
    assert same(state.model.state_dict(), weights[-1])  # a checkpoint of the last epoch is of the last epoch
    state.restore_best()
    assert same(state.model.state_dict(), weights[best - 1])


def test_at_the_end_a_patient_fit_has_the_best_epochs_weights():
    model = new_model()
    rows = list(
        fit(model, batches(), batches(2, seed=99), epochs=9, lr=1.0, optimizer="sgd", options=Options(patience=9))
    )
    model.eval()
    losses = [nn.functional.cross_entropy(model(images), labels).item() for images, labels in batches(2, seed=99)]
    assert sum(losses) / 2 == pytest.approx(min(row["val_loss"] for row in rows), rel=1e-5)
    assert min(row["val_loss"] for row in rows) < rows[-1]["val_loss"]


def test_losses_that_are_never_numbers_exhaust_patience():
    state = new_fit(patience=2)
    nothing = [(images * math.nan, labels) for images, labels in batches(1)]
    while not state.out_of_patience:
        state.epoch(batches(), nothing, steps=3)
    assert state.done == 3


def test_frozen_batch_norm_stays_as_it_is():
    model = new_model()
    for parameter in model[:2].parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(model[:2].state_dict())
    list(fit(model, batches(), batches(), epochs=2))
    assert same(model[:2].state_dict(), before)


def test_dropout_before_the_first_layer_is_on_where_nothing_is_frozen():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3))
    modes.train_mode(model)
    assert model[0].training


@pytest.mark.parametrize(
    "options",
    [{"precision": "fp8"}, {"clip_norm": -1.0}, {"patience": 0}, {"micro_batches": 0}, {"ema_decay": 1.0}],
    ids=str,
)
def test_options_that_make_no_sense_are_told(options):
    with pytest.raises(InvalidInput, match=f"training.{next(iter(options))}"):
        Options(**options)


def test_an_option_that_no_schedule_has_is_told():
    with pytest.raises(InvalidInput, match="did you mean 'gamma'"):
        next(fit(new_model(), batches(), batches(), epochs=1, schedule_options={"gama": 1}))


def test_a_loss_that_is_no_number_is_no_improvement_and_the_first_number_after_it_is():
    state = new_fit(patience=2)
    nothing = [(images * math.nan, labels) for images, labels in batches(1)]
    state.epoch(batches(), nothing, steps=3)
    state.epoch(batches(), batches(2), steps=3)
    assert state.best_epoch == 2
    state.epoch(batches(), nothing, steps=3)
    assert state.best_epoch == 2


def test_the_average_is_what_is_validated_and_saved(tmp_path):
    state = new_fit(ema_decay=0.9)
    rows = go_on(state, 3)
    assert not same(state.model.state_dict(), state.evaluated.state_dict())
    state.save(tmp_path)
    loaded = new_model()
    checkpoint.load_weights(tmp_path, model=loaded)
    assert same(loaded.state_dict(), state.evaluated.state_dict())
    loaded.eval()
    losses = [nn.functional.cross_entropy(loaded(images), labels).item() for images, labels in batches(2, seed=99)]
    assert rows[-1]["val_loss"] == pytest.approx(sum(losses) / 2, rel=1e-6)


def test_a_head_can_be_trained_on_what_the_trunk_gives():
    state = new_fit("sgd")
    for parameter in state.model[:-1].parameters():
        parameter.requires_grad_(False)
    before = copy.deepcopy(state.model.state_dict())
    features = [(torch.rand(8, 16), labels) for _, labels in batches()]
    row = state.epoch(features, features, steps=3, part=lambda model: model[-1], train_mode=nn.Module.eval)
    changed = {key for key, value in state.model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"4.weight", "4.bias"}
    assert math.isfinite(row["val_loss"])


def test_a_notebook_needs_no_ray():
    code = """
import sys, torch
from torch.utils.data import DataLoader, TensorDataset
from hpo_ray.training import fit
torch.manual_seed(0)
x = torch.randn(256, 4); y = (x.sum(1) > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
rows = list(fit(torch.nn.Linear(4, 2), loader, loader, epochs=6, lr=0.1))
assert rows[-1]["val_accuracy"] > 0.95 and [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_data_without_a_length_is_told():
    with pytest.raises(InvalidInput, match="generator has no length"):
        next(fit(new_model(), (batch for batch in batches()), batches(), epochs=1))


def test_a_loader_and_frozen_parameters_are_taken():
    images, labels = (torch.cat(tensors) for tensors in zip(*batches(8), strict=True))
    loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True)
    model = new_model()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    rows = list(training.fit(model, loader, loader, epochs=2, optimizer="momentum", weight_decay=0.1))
    assert len(rows) == 2
    assert torch.equal(model[0].weight, before)


@pytest.mark.slow
def test_a_compiled_model_saves_plain_keys(tmp_path):
    state = new_fit(compile=True)
    go_on(state, 1)
    state.save(tmp_path)
    checkpoint.load_weights(tmp_path, model=new_model())
