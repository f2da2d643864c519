"""Learning rate schedules against closed forms written out again, and against torch's own."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from hpo_ray.errors import InvalidInput
from hpo_ray.training import lr_schedules, optimizers
from hpo_ray.training.lr_schedules import build, problems, rungs_at_cycle_ends

STEPS = 8  # per epoch; a power of two, so that k / STEPS is exact


def times(epochs: int) -> list[float]:
    return [step / STEPS for step in range(epochs * STEPS)]


def tri(e: float, half: float) -> float:
    """Smith's own wording: cycle counts from 1, x is the distance from the peak."""
    cycle = math.floor(1 + e / (2 * half))
    x = abs(e / half - 2 * cycle + 1)
    return max(0.0, 1 - x)


def restarted(e: float, length: float, mult: float) -> float:
    while e >= length:
        e, length = e - length, length * mult
    return 0.5 + 0.5 * math.cos(math.pi * e / length)


# Name, options, and the factor at `e` of 12 epochs.
CLOSED_FORMS = {
    "constant": ("constant", {}, lambda e: 1.0),
    "step": ("step", {"step_epochs": 5, "gamma": 0.3}, lambda e: 1.0 if e < 5 else 0.3 if e < 10 else 0.09),
    "step by default": ("step", {}, lambda e: 10.0 ** -(e // 4)),
    "step with floor": ("step", {"floor": 0.05}, lambda e: max(0.05, 10.0 ** -(e // 4))),
    "exponential": ("exponential", {"gamma": 0.8}, lambda e: math.exp(e * math.log(0.8))),
    "exponential by default": ("exponential", {}, lambda e: 100 ** (-e / 12)),
    "staircase": ("exponential", {"gamma": 0.8, "staircase": True}, lambda e: 0.8 ** int(e)),
    "cosine": ("cosine", {"floor": 0.1}, lambda e: 0.1 + 0.9 * math.cos(math.pi * e / 24) ** 2),
    "triangular": ("triangular", {"floor": 0.25, "half_cycle_epochs": 2}, lambda e: 0.25 + 0.75 * tri(e, 2)),
    "triangular by default": ("triangular", {}, lambda e: tri(e, 1.5)),
    "triangular cut short": ("triangular", {"half_cycle_epochs": 5}, lambda e: tri(e, 5)),
    "triangular2": (
        "triangular2",
        {"floor": 0.2, "half_cycle_epochs": 2},
        lambda e: 0.2 + 0.8 * tri(e, 2) / 2 ** math.floor(e / 4),
    ),
    "exp_range": (
        "exp_range",
        {"floor": 0.2, "half_cycle_epochs": 2, "gamma": 0.9},
        lambda e: 0.2 + 0.8 * tri(e, 2) * 0.9**e,
    ),
    "exp_range by default": ("exp_range", {}, lambda e: tri(e, 1.5) * 10 ** (-e / 12)),
    "sgdr": ("sgdr", {"cycle_len": 2, "cycle_mult": 1.5, "floor": 0.1}, lambda e: 0.1 + 0.9 * restarted(e, 2, 1.5)),
    "sgdr equal": ("sgdr", {"cycle_len": 3, "cycle_mult": 1}, lambda e: restarted(e, 3, 1)),
    "sgdr by default": ("sgdr", {}, lambda e: restarted(e, 12 / 7, 2)),
    "one_cycle": (
        "one_cycle",
        {},
        lambda e: (
            0.52 - 0.48 * math.cos(math.pi * e / 3)
            if e < 3
            else (1 + 1e-5) / 2 + (1 - 1e-5) / 2 * math.cos(math.pi * (e - 3) / 9)
        ),
    ),
    "one_cycle otherwise": (
        "one_cycle",
        {"peak_at": 0.5, "div": 4, "final_div": 10, "floor": 0.2},
        lambda e: 0.625 - 0.375 * math.cos(math.pi * e / 6) if e < 6 else 0.6 + 0.4 * math.cos(math.pi * (e - 6) / 6),
    ),
    "warm-up": (
        "cosine",
        {"warmup_epochs": 2},
        lambda e: 0.01 + 0.99 * e / 2 if e < 2 else math.cos(math.pi * (e - 2) / 20) ** 2,
    ),
    "warm-up from the floor": (
        "exponential",
        {"warmup_epochs": 4, "floor": 0.5, "gamma": 0.9},
        lambda e: 0.5 + e / 8 if e < 4 else max(0.5, 0.9 ** (e - 4)),
    ),
    "composed": (
        "composed",
        {
            "parts": [
                {"name": "constant", "epochs": 2},
                {"name": "sgdr", "epochs": 6, "cycle_len": 3, "cycle_mult": 1},
                {"name": "step", "step_epochs": 2, "scale": 0.5},
            ]
        },
        lambda e: 1.0 if e < 2 else restarted(e - 2, 3, 1) if e < 8 else 0.5 if e < 10 else 0.05,
    ),
}


@pytest.mark.parametrize("case", CLOSED_FORMS)
def test_each_is_its_closed_form_at_every_step(case):
    name, options, expected = CLOSED_FORMS[case]
    schedule = build(name, epochs=12, **options)
    assert [schedule.lr(e) for e in times(12)] == pytest.approx([expected(e) for e in times(12)], abs=1e-12)
    assert schedule.momentum is None


def test_every_schedule_has_a_closed_form_here():
    assert {name for name, _, _ in CLOSED_FORMS.values()} == set(lr_schedules.NAMES)


@pytest.mark.parametrize("case", CLOSED_FORMS)
def test_it_stays_where_it_ends(case):
    name, options, _ = CLOSED_FORMS[case]
    schedule = build(name, epochs=12, **options)
    before = schedule.lr(12 - 1e-7)
    assert schedule.lr(12.0) == pytest.approx(before, abs=1e-6)
    assert {schedule.lr(e) for e in (12.0, 12.0 + 1e-12, 12.5, 13.0, 1e6)} == {schedule.lr(12.0)}
    assert schedule.lr(-1.0) == schedule.lr(0.0)


def of_torch(make, epochs: int, momentum: float = 0.9) -> tuple[list[float], list[float]]:
    """Rates, as shares of a peak of 1, and momenta that a torch scheduler sets at each step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=momentum)
    scheduler = make(optimizer)
    rates, momenta = [], []
    for _ in times(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    return rates, momenta


N = 12 * STEPS
CYCLE = {"base_lr": 0.2, "max_lr": 1.0, "step_size_up": 2 * STEPS, "base_momentum": 0.8, "max_momentum": 0.95}
OURS = {"floor": 0.2, "half_cycle_epochs": 2, "cycle_momentum": True, "momentum_range": (0.8, 0.95)}


@pytest.mark.parametrize(
    ("name", "options", "make"),
    [
        (
            "step",
            {"step_epochs": 5, "gamma": 0.3},
            lambda o: lr_scheduler.StepLR(o, 5 * STEPS, 0.3),
        ),
        ("exponential", {"gamma": 0.8}, lambda o: lr_scheduler.ExponentialLR(o, 0.8 ** (1 / STEPS))),
        ("cosine", {"floor": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, N, eta_min=0.1)),
        (
            "sgdr",
            {"cycle_len": 2, "cycle_mult": 2, "floor": 0.1},
            lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2 * STEPS, 2, eta_min=0.1),
        ),
        ("triangular", OURS, lambda o: lr_scheduler.CyclicLR(o, **CYCLE)),
        ("triangular2", OURS, lambda o: lr_scheduler.CyclicLR(o, mode="triangular2", **CYCLE)),
        (
            "exp_range",
            {**OURS, "gamma": 0.9},
            lambda o: lr_scheduler.CyclicLR(o, mode="exp_range", gamma=0.9 ** (1 / STEPS), **CYCLE),
        ),
    ],
)
def test_torch_agrees(name, options, make):
    schedule = build(name, epochs=12, **options)
    rates, momenta = of_torch(make, 12)
    assert [schedule.lr(e) for e in times(12)] == pytest.approx(rates, abs=1e-9)
    if options.get("cycle_momentum"):
        assert [schedule.momentum(e) for e in times(12)] == pytest.approx(momenta, abs=1e-9)


def test_torchs_one_cycle_agrees():
    # Its last step, its peak one step early and its last rate are torch's own; 96 steps here end at step 95.
    options = {"peak_at": (0.25 * N - 1) / (N - 1), "final_div": 25 * 1e3, "cycle_momentum": True}
    schedule = build("one_cycle", epochs=(N - 1) / STEPS, **options)
    rates, momenta = of_torch(lambda o: lr_scheduler.OneCycleLR(o, 1.0, N, pct_start=0.25, final_div_factor=1e3), 12)
    assert [schedule.lr(e) for e in times(12)] == pytest.approx(rates, abs=1e-9)
    assert [schedule.momentum(e) for e in times(12)] == pytest.approx(momenta, abs=1e-9)


def test_torchs_linear_warm_up_agrees():
    schedule = build("constant", epochs=12, warmup_epochs=3, floor=0.2)
    rates, _ = of_torch(lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=3 * STEPS), 12)
    assert [schedule.lr(e) for e in times(12)] == pytest.approx(rates, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "ends"),
    [
        ("constant", {}, (12,)),
        ("cosine", {"warmup_epochs": 2}, (12,)),
        ("one_cycle", {}, (12,)),
        ("sgdr", {"cycle_len": 2, "cycle_mult": 2}, (2, 6)),  # the next would end at 14
        ("sgdr", {"cycle_len": 1.5, "cycle_mult": 1}, tuple(1.5 * k for k in range(1, 9))),
        ("sgdr", {"cycle_len": 20}, ()),
        ("sgdr", {"cycle_len": 2, "cycle_mult": 1, "warmup_epochs": 1}, (3, 5, 7, 9, 11)),
        ("sgdr", {}, (12 / 7, 36 / 7, 12)),
        ("triangular", {}, (3, 6, 9, 12)),
        ("triangular2", {"half_cycle_epochs": 2.5}, (5, 10)),
        ("exp_range", {"half_cycle_epochs": 7}, ()),
        ("composed", {"parts": [{"name": "constant", "epochs": 3}, {"name": "triangular", "half_cycle_epochs": 2}]},
         (3, 7, 11)),
    ],
)  # fmt: skip
def test_cycle_ends(name, options, ends):
    found = build(name, epochs=12, **options).cycle_ends
    assert found == pytest.approx(ends)
    assert all(end <= 12 for end in found)


NUMBERS = {"allow_nan": False, "allow_infinity": False}


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([name for name in lr_schedules.NAMES if name != "composed"]),
    epochs=st.one_of(st.integers(1, 200), st.floats(0.1, 300, **NUMBERS)),
    warmup=st.floats(0, 0.9, **NUMBERS),
    floor=st.floats(0.001, 1, **NUMBERS),
    at=st.lists(st.floats(0, 1.5, **NUMBERS), min_size=1, max_size=20),
)
def test_defaults_make_sense_at_any_length(name, epochs, warmup, floor, at):
    schedule = build(name, epochs=epochs, warmup_epochs=warmup * epochs, floor=floor)
    assert all(floor - 1e-12 <= schedule.lr(share * epochs) <= 1 + 1e-12 for share in at)
    peak = 10 ** (-1 / 8) if name == "exp_range" else 1.0  # of the first cycle, above the floor
    found = max(schedule.lr(step / 400 * epochs) for step in range(401))
    assert found == pytest.approx(floor + (1 - floor) * peak, abs=0.05)
    assert schedule.cycle_ends[-1] == pytest.approx(epochs)
    assert schedule.cycle_ends[-1] <= epochs
    assert list(schedule.cycle_ends) == sorted(set(schedule.cycle_ends))


@settings(max_examples=300, deadline=None)
@given(
    cycle_len=st.floats(0.05, 30, **NUMBERS),
    mult=st.floats(1, 4, **NUMBERS),
    epochs=st.floats(0.5, 100, **NUMBERS),
)
def test_sgdr_is_annealed_at_each_end_and_at_its_peak_right_after(cycle_len, mult, epochs):
    schedule = build("sgdr", epochs=epochs, cycle_len=cycle_len, cycle_mult=mult)
    assert [b - a for a, b in pairwise((0, *schedule.cycle_ends))] == pytest.approx(
        [cycle_len * mult**k for k in range(len(schedule.cycle_ends))], rel=1e-6
    )
    for end in schedule.cycle_ends:
        assert schedule.lr(end - 1e-6) < 1e-6
        assert schedule.lr(end) == pytest.approx(1.0 if end < epochs - 1e-6 else 0.0, abs=1e-6)


@pytest.mark.parametrize("n", [3, 7, 10, 93])
@pytest.mark.parametrize("name", ["step", "sgdr", "triangular2"])
def test_a_boundary_is_met_at_its_batch_however_the_epoch_is_summed(name, n):
    options = {
        "step": {"step_epochs": 1 / n * 3},
        "sgdr": {"cycle_len": 1 / n * 3, "cycle_mult": 1},
        "triangular2": {"half_cycle_epochs": 1.5 / n},
    }[name]
    schedule = build(name, epochs=20 * 3 / n, **options)
    summed = 0.0
    for batch in range(20 * 3):
        exact = schedule.lr(batch / n)
        assert schedule.lr(summed) == pytest.approx(exact, abs=1e-6)
        if batch % 3 == 0:
            expected = {"step": 0.1 ** (batch // 3), "sgdr": 1.0, "triangular2": 0.0}[name]
            assert exact == pytest.approx(expected, abs=1e-6)
        summed += 1 / n


@pytest.mark.parametrize("name", ["triangular", "triangular2", "exp_range", "one_cycle"])
def test_momentum_is_high_where_the_rate_is_low(name):
    schedule = build(name, epochs=12, warmup_epochs=2, floor=0.1, cycle_momentum=True)
    pairs = sorted((schedule.lr(e), schedule.momentum(e)) for e in times(12) if e < 12 and 2 <= e <= 4.5)
    assert [momentum for _, momentum in pairs] == sorted((momentum for _, momentum in pairs), reverse=True)
    assert schedule.momentum(0.0) == schedule.momentum(1.0) == schedule.momentum(2.0) == pytest.approx(0.95)
    assert schedule.momentum(12.0) == schedule.momentum(99.0) == pytest.approx(0.95)
    lowest = 0.95 - 0.1 * 10 ** (-1 / 8) if name == "exp_range" else 0.85
    assert min(schedule.momentum(e / 100) for e in range(1200)) == pytest.approx(lowest, abs=1e-4)


def test_parts_without_momentum_keep_the_neighbours():
    parts = [
        {"name": "constant", "epochs": 2},
        {"name": "one_cycle", "epochs": 4, "cycle_momentum": True, "momentum_range": [0.5, 0.8]},
        {"name": "cosine"},
    ]
    schedule = build("composed", epochs=10, parts=parts)
    assert [schedule.momentum(e) for e in (0, 1, 2, 3, 6, 9, 10)] == pytest.approx([0.8, 0.8, 0.8, 0.5, 0.8, 0.8, 0.8])


def test_composed_nests_and_warms_up():
    inner = {"name": "composed", "epochs": 4, "parts": [{"name": "constant", "epochs": 1}, {"name": "cosine"}]}
    last = {"name": "cosine", "warmup_epochs": 2}
    schedule = build("composed", epochs=11, warmup_epochs=1, floor=0.001, parts=[inner, last])
    assert schedule.lr(0.5) == pytest.approx((0.01 + 1) / 2)
    assert schedule.lr(1 + 1 + 1.5) == pytest.approx(0.5)
    assert schedule.lr(1 + 4 + 1) == pytest.approx(0.505)
    assert schedule.lr(1 + 4 + 2 + 2) == pytest.approx(0.5)
    assert schedule.lr(11) == 0.001
    assert schedule.cycle_ends == (2, 5, 11)


@pytest.mark.parametrize(
    ("name", "options", "keys", "text"),
    [
        ("cosin", {}, ["schedule"], "did you mean 'cosine'"),
        ("cosine", {"gamma": 0.5}, ["gamma"], "0.5 is given, but 'cosine' does not read it; 'step', 'exponential'"),
        ("sgdr", {"cycle_lenn": 1}, ["cycle_lenn"], "did you mean 'cycle_len'"),
        ("step", {"gamma": 1.5}, ["gamma"], "it is 1.5, but must be a number above 0, at most 1"),
        ("step", {"gamma": "0.1"}, ["gamma"], "it is '0.1'"),
        ("step", {"gamma": True}, ["gamma"], "it is True"),
        ("sgdr", {"cycle_mult": 0.5, "cycle_len": math.nan}, ["cycle_len", "cycle_mult"], "1 or more"),
        ("sgdr", {"cycle_len": 1e-4}, ["cycle_len"], "at least"),
        ("triangular", {"half_cycle_epochs": 0}, ["half_cycle_epochs"], "above 0"),
        ("triangular", {"warmup_epochs": 1}, ["warmup_epochs"], "rises from 0 by itself"),
        ("one_cycle", {"peak_at": 1, "div": 0.5, "floor": -1}, ["div", "floor", "peak_at"], "it is 0.5"),
        ("one_cycle", {"momentum_range": (0.95, 0.85)}, ["momentum_range"], "the lower first"),
        ("one_cycle", {"momentum_range": 0.9, "cycle_momentum": "yes"}, ["cycle_momentum", "momentum_range"], "true"),
        ("cosine", {"cycle_momentum": True}, ["cycle_momentum"], "does not read it"),
        ("cosine", {"warmup_epochs": 10}, ["warmup_epochs"], "less than the 10 epochs"),
        ("cosine", {"epochs": 0}, ["epochs"], "above 0"),
        ("cosine", {"epochs": None}, ["epochs"], "missing"),
        ("composed", {}, ["parts"], "needs them"),
        ("composed", {"parts": []}, ["parts"], "a list of mappings"),
        ("composed", {"parts": ["cosine"]}, ["parts"], "a list of mappings"),
        (
            "composed",
            {"parts": [{"name": "cosin", "epochs": 1}, {"name": "step", "gama": 1}, {"epochs": 2, "scale": 0}]},
            ["parts[0].name", "parts[1].epochs", "parts[1].gama", "parts[2].name", "parts[2].scale"],
            "did you mean 'gamma'",
        ),
        ("composed", {"parts": [{"name": "cosine", "epochs": 4}] * 2}, ["parts"], "4 + 4 epochs, but must fill the 10"),
        ("composed", {"parts": [{"name": "cosine", "epochs": 10}, {"name": "step"}]}, ["parts"], "leave some"),
        (
            "composed",
            {"parts": [{"name": "cosine", "epochs": 8}, {"name": "cosine", "warmup_epochs": 3}]},
            ["parts[1].warmup_epochs"],
            "less than the 2",
        ),
    ],
)
def test_mistakes_are_told_all_at_once(name, options, keys, text):
    found = problems(name, **{"epochs": 10, **options})
    assert sorted(problem.key for problem in found) == [f"training.{key}" for key in keys]
    assert text in str(InvalidInput(*found))


def test_nothing_is_built_of_mistakes():
    with pytest.raises(InvalidInput) as caught:
        build("sgdr", epochs=10, cycle_len=0, gamma=0.5, floor=2)
    assert set(caught.value.problems) == set(problems("sgdr", epochs=10, cycle_len=0, gamma=0.5, floor=2))
    assert len(caught.value.problems) == 3


def test_what_is_none_or_false_is_not_given():
    unset = dict.fromkeys(("gamma", "parts", "cycle_len", "momentum_range"))
    assert problems("cosine", epochs=3, cycle_momentum=False, staircase=False, **unset) == []
    build("cosine", epochs=3, cycle_momentum=False, staircase=False, **unset)


def test_checking_imports_no_torch():
    code = (
        "import sys; from hpo_ray.training import lr_schedules\n"
        "assert lr_schedules.problems('sgdr', epochs=3) == []\n"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def two_groups() -> list[dict]:
    return [
        {"params": [nn.Parameter(torch.zeros(2, 2))], "lr_factor": 0.25},
        {"params": [nn.Parameter(torch.zeros(2, 2))]},
    ]


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_apply_sets_every_group_and_the_momentum_it_has(name):
    optimizer = optimizers.build(name, two_groups(), lr=0.8)
    cycling = build("one_cycle", epochs=4, cycle_momentum=True)
    for epoch in (0.0, 1.0, 2.5, 1.0):
        lr_schedules.apply(cycling, optimizer, epoch)
        for group, peak in zip(optimizer.param_groups, (0.2, 0.8), strict=True):
            assert group["lr"] == pytest.approx(peak * cycling.lr(epoch))
            found = group.get("momentum", group.get("betas", (None,))[0])
            assert found == (None if name in ("adagrad", "adadelta") else cycling.momentum(epoch))
            if "betas" in group:
                assert group["betas"][1] == 0.999


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_apply_leaves_momentum_alone_unless_asked(name):
    optimizer = optimizers.build(name, two_groups(), lr=0.8)
    before = [{k: v for k, v in group.items() if k != "lr"} for group in optimizer.param_groups]
    for epoch in times(2):
        lr_schedules.apply(build("one_cycle", epochs=2), optimizer, epoch)
    after = [{k: v for k, v in group.items() if k != "lr"} for group in optimizer.param_groups]
    assert str(after) == str(before)


def test_an_optimizer_from_elsewhere_keeps_its_rate_as_the_peak():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    for epoch in (1.0, 1.5, 1.0):
        lr_schedules.apply(build("cosine", epochs=2), optimizer, epoch)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.15)


RESUMED = {
    "constant": {},
    "step": {},
    "exponential": {"staircase": True},
    "cosine": {"warmup_epochs": 1},
    "triangular": {"cycle_momentum": True},
    "triangular2": {"half_cycle_epochs": 0.7},
    "exp_range": {"cycle_momentum": True},
    "sgdr": {"cycle_len": 1, "cycle_mult": 1.3},
    "one_cycle": {"cycle_momentum": True},
    "composed": {"parts": [{"name": "one_cycle", "epochs": 1, "cycle_momentum": True}, {"name": "cosine"}]},
}


@pytest.mark.parametrize("schedule", lr_schedules.NAMES)
@pytest.mark.parametrize("optimizer", optimizers.NAMES)
def test_resuming_is_exact(optimizer, schedule):
    def fresh(seed):
        generator = torch.Generator().manual_seed(seed)
        layers = [nn.Linear(3, 4), nn.Linear(4, 2)]
        for parameter in (p for layer in layers for p in layer.parameters()):
            nn.init.normal_(parameter, generator=generator)
        model = nn.Sequential(layers[0], nn.Tanh(), layers[1])
        groups = [
            {"params": list(layers[0].named_parameters()), "lr_factor": 1 / 3, "name": "trunk"},
            {"params": list(layers[1].named_parameters()), "name": "head"},
        ]
        built = optimizers.build(optimizer, groups, lr=0.05, weight_decay=1e-3, decay_norms=False)
        return model, built, build(schedule, epochs=3, **RESUMED[schedule])

    def train(state, first, last):
        model, its_optimizer, its_schedule = state
        for step in range(first, last):
            lr_schedules.apply(its_schedule, its_optimizer, step / 5)
            its_optimizer.zero_grad()
            (model(torch.linspace(-1, step + 1, 6).reshape(2, 3)) ** 2).mean().backward()
            its_optimizer.step()

    unbroken = fresh(0)
    train(unbroken, 0, 7)
    file = io.BytesIO()
    torch.save({"model": unbroken[0].state_dict(), "optimizer": unbroken[1].state_dict()}, file)
    train(unbroken, 7, 15)

    resumed = fresh(1)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed[0].load_state_dict(state["model"])
    resumed[1].load_state_dict(state["optimizer"])
    train(resumed, 7, 15)
    for one, other in zip(unbroken[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(one, other)
    assert str(unbroken[1].state_dict()) == str(resumed[1].state_dict())


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ((27.0,), [1, 3, 9]),  # no cycles: as they are
        ((), [1, 3, 9]),
        ((2, 6, 14, 27), [2, 6]),  # 9 is nearer to 6 than to 14
        ((2, 4, 8, 10), [2, 4, 10]),  # of two as near, the later one
        ((3.9, 11.7, 27.3), [3, 11]),
        ((0.4, 0.9), [1, 3, 9]),
        ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), [1, 3, 9]),
        ((5.0 - 1e-12, 30.0), [5]),
    ],
)
def test_rungs_move_to_cycle_ends(ends, expected):
    assert rungs_at_cycle_ends(ends, grace_period=1, max_t=27, reduction_factor=3) == expected


@given(
    ends=st.lists(st.floats(0.1, 200, **NUMBERS)),
    grace=st.integers(1, 20),
    max_t=st.integers(1, 150),
    factor=st.integers(2, 5),
)
def test_rungs_rise_between_grace_period_and_max_t(ends, grace, max_t, factor):
    rungs = rungs_at_cycle_ends(ends, grace_period=grace, max_t=max_t, reduction_factor=factor)
    plain = rungs_at_cycle_ends((), grace_period=grace, max_t=max_t, reduction_factor=factor)
    assert rungs == sorted(set(rungs))
    assert all(isinstance(rung, int) and grace <= rung < max_t for rung in rungs)
    assert len(rungs) <= len(plain)
    assert bool(rungs) == bool(plain)
