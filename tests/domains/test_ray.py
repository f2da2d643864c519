"""To Ray Tune's domains and back."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from hpo_ray.errors import InvalidInput
from hpo_ray.space import SearchSpace, choice


def test_from_ray_reads_every_kind_of_domain() -> None:
    from ray import tune

    space = SearchSpace.from_ray({
        "u": tune.uniform(-1, 2),
        "qu": tune.quniform(0.2, 0.8, 0.2),
        "lu": tune.loguniform(1e-4, 1e-1),
        "qlu": tune.qloguniform(0.1, 1, 0.1),
        "n": tune.randn(1, 2),
        "qn": tune.qrandn(0, 1, 0.5),
        "i": tune.randint(0, 10),
        "q1": tune.qrandint(0, 10, 1),
        "qi": tune.qrandint(3, 11, 4),
        "li": tune.lograndint(1, 100),
        "qli": tune.qlograndint(2, 20, 2),
        "c": tune.choice(["a", 1, None, [1, 2]]),
        "g": tune.grid_search([3, 4]),
        "one": tune.randint(5, 6),
        "k": 3,
        "s": "uniform(0, 1)",
        "l": [64, 64],
    })  # fmt: skip
    assert space.text() == {
        "u": "uniform(-1, 2)",
        "qu": "uniform(0.2, 0.8, q=0.2)",
        "lu": "loguniform(0.0001, 0.1)",
        "qlu": "loguniform(0.1, 1, q=0.1)",
        "n": "normal(1, 2)",
        "qn": "normal(0, 1, q=0.5)",
        "i": "int(0, 9)",
        "q1": "int(0, 9)",
        "qi": "int(4, 8, q=4)",
        "li": "logint(1, 99)",
        "qli": "logint(2, 20, q=2)",
        "c": "choice(a, 1, none, [1, 2])",
        "g": "choice(3, 4)",
        "one": 5,
        "k": 3,
        "s": "'uniform(0, 1)'",
        "l": "choice([[64, 64]])",
    }


def test_from_ray_names_what_has_no_counterpart() -> None:
    from ray import tune

    with pytest.raises(InvalidInput) as caught:
        SearchSpace.from_ray({
            "f": tune.sample_from(lambda: 3),
            "m": {"depth": tune.randint(1, 3)},
            "o": tune.choice([object()]),
            "ok": tune.uniform(0, 1),
        })  # fmt: skip
    assert [problem.key for problem in caught.value.problems] == ["space.f", "space.m", "space.o"]
    assert "sample_from" in str(caught.value)
    assert "when={parent: value}" in str(caught.value)


def test_there_and_back_through_ray() -> None:
    texts = {
        "u": "uniform(-1, 2)", "qu": "uniform(0, 1, q=0.1)", "lu": "loguniform(0.0001, 0.1)", "n": "normal(1, 2)",
        "qlu": "loguniform(0.1, 1, q=0.1)", "qn": "normal(0, 1, q=0.5)", "i": "int(0, 9)", "qi": "int(4, 12, q=4)",
        "li": "logint(1, 99)", "qli": "logint(2, 20, q=2)", "c": "choice(a, 1, none, [1, 2])", "k": 3, "s": "word",
    }  # fmt: skip
    space = SearchSpace.parse(texts)
    converted = space.to_ray()
    assert SearchSpace.from_ray(converted) == space
    for name, domain in space.domains.items():
        if name not in ("u", "lu", "n"):  # Ray draws the same levels, and no others
            drawn = converted[name].sample(size=4000, random_state=np.random.default_rng(0))
            values = {json.dumps(domain.canonical(value)) for value in drawn}
            assert values <= {json.dumps(value) for value in domain.grid_values()}
            assert name == "qn" or len(values) == domain.levels
    assert SearchSpace.from_ray(SearchSpace.parse({"o": "ordinal(1, 2)"}).to_ray()) == SearchSpace({"o": choice(1, 2)})


def test_to_ray_names_what_ray_cannot_say() -> None:
    space = SearchSpace.parse({
        "a": "choice(x, y)",
        "b": "int(1, 2, when={a: x})",
        "c": "lognormal(0, 1)",
        "d": "int(1, 7, q=3)",
        "e": "uniform(0, 1, when={a: y})",
    })  # fmt: skip
    with pytest.raises(InvalidInput) as caught:
        space.to_ray()
    assert [problem.key for problem in caught.value.problems] == ["space.b", "space.c", "space.d", "space.e"]
    assert "only active with a = x" in str(caught.value)


def test_the_space_does_not_import_ray() -> None:
    code = (
        "import sys; from hpo_ray.space import SearchSpace as S; S.from_ray({'a': 1}); assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
