"""Stages of a fine-tuning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo_ray.errors import InvalidInput
from hpo_ray.training.stages import Stage, plan, problems, stage_at


def test_without_stages_everything_is_trained_all_the_time():
    assert plan(None, 7) == plan((), 7) == (Stage("all", 0, 7),)


def test_the_stage_without_a_length_takes_the_rest():
    stages = [
        {"train": "head", "cached": True, "epochs": 3},
        {"name": "two", "train": 2},
        {"epochs": 1, "lr_factor": 0.1},
    ]
    first, second, third = plan(stages, 10)
    assert (first.name, first.since, first.until, first.cached) == ("stage 1", 0, 3, True)
    assert (second.name, second.since, second.until, second.train) == ("two", 3, 9, 2)
    assert (third.since, third.until, third.lr_factor, third.train) == (9, 10, 0.1, "all")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_each_epoch_belongs_to_one_stage_and_they_come_in_order(lengths):
    found = plan([{"name": str(index), "epochs": length} for index, length in enumerate(lengths)], sum(lengths))
    expected = [str(index) for index, length in enumerate(lengths) for _ in range(length)]
    assert [stage_at(found, done).name for done in range(sum(lengths))] == expected


@pytest.mark.parametrize(
    ("stages", "epochs", "key", "words"),
    [
        ([{"epochs": 2}, {"epochs": 3}], 6, "training.epochs", "6 is not what its stages add up to: 5"),
        ([{}, {}], 6, "training.stages", "2 stages have no epochs; at most one takes the rest"),
        ([{"epochs": 6}, {}], 6, "training.epochs", "6 leaves nothing to the stage without epochs: the others take 6"),
        ([{"cached": True}], 6, "training.stages[0].train", "'all' with cached=true"),
        ([{"epochs": 1}, {"train": "head", "cached": True}], 6, "training.stages[1].cached", "has trained the trunk"),
    ],
)
def test_stages_that_do_not_fit_are_told(stages, epochs, key, words):
    [problem] = problems(stages, epochs)
    assert problem.key == key
    assert words in problem.message
    with pytest.raises(InvalidInput):
        plan(stages, epochs)
