"""The report of a race and of a refit tells their own story; that of the sweep before them mentions it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpo_ray import history
from hpo_ray.journal import Journal
from hpo_ray.report.markdown import markdown
from hpo_ray.report.page import page
from hpo_ray.report.story import story_of
from tests.report.test_report import Page, check, run

SPACE = {"x": "uniform(0, 1)", "units": "choice(32, 64)", "depth": "choice(3)"}
CONTENDERS = {f"{4 + place:04}": {"x": 0.1 + 0.1 * place, "units": 32, "depth": 3} for place in range(3)}
HEAD: dict[str, Any] = {"name": "digits", "seed": 0, "metric": "val_error", "mode": "min", "fidelity": "epoch"}


def trial(log: Journal, number: int, config: Any, reports: Any, status: str = "completed", state: Any = None) -> None:
    name = f"{number:04}"
    log.append("trial_suggested", trial_id=name, config_id=f"c{number}", config=config, state=state or {})
    log.append("trial_started", trial_id=name, attempt=0)
    for epoch, metrics in enumerate(reports, 1):
        log.append("trial_reported", trial_id=name, attempt=0, fidelity=float(epoch), elapsed_s=1.0, metrics=metrics)
    log.append("trial_ended", trial_id=name, attempt=0, status=status, reason="")


def race(folder: Path, values: dict[str, list[float | None]], *, repeats: int, ended: bool = True, **head: Any) -> Path:
    """A race with these values, repeat by repeat; None: that one failed."""
    settings = {"contenders": {name: CONTENDERS[name] for name in values}, "repeats": repeats, "confidence": 0.95}
    with Journal(folder) as log:
        experiment = {**HEAD, "name": "digits-confirm", "trials": 9, "space": SPACE, "race": settings, **head}
        log.append("run_started", experiment=experiment, environment={})
        tried = [(name, each) for each in range(repeats) for name in values if each < len(values[name])]
        for number, (name, repeat) in enumerate(tried):
            value = values[name][repeat]
            reports = [] if value is None else [{"val_error": value + 0.1}, {"val_error": value}]
            status = "failed" if value is None else "completed"
            trial(log, number, CONTENDERS[name], reports, status, {"contender": name, "repeat": repeat})
        if ended:
            log.append("run_ended", status="completed", reason="")
    return folder


def refit(folder: Path, test: dict[str, Any] | None, **head: Any) -> Path:
    data = {"name": "digits", "train_on_valid": True}
    with Journal(folder) as log:
        experiment = {
            **HEAD,
            "name": "digits-refit",
            "metric": "epoch",
            "mode": "max",
            "data": data,
            "space": {},
            **head,
        }
        log.append("run_started", experiment=experiment, environment={})
        trial(log, 0, CONTENDERS["0004"], [{"epoch": float(n), "train_loss": 1 / n} for n in (1, 2, 3)])
        log.append("run_ended", status="completed", reason="", **({"test": test} if test else {}))
    return folder


def told(run_dir: Path) -> tuple[Page, str]:
    story = story_of(history.load(run_dir))
    return check(page(story)), markdown(story)


def titles(read: Page) -> list[str]:
    return [data for name, data in read.texts if name == "h2"]


def near(middle: float, seed: int, n: int = 5) -> list[float | None]:
    return list(middle + np.random.default_rng(seed).normal(0, 0.002, n))


def test_a_race_that_is_decided(tmp_path: Path) -> None:
    values = {"0004": near(0.02, 1), "0005": near(0.05, 2), "0006": near(0.3, 3, 2)}
    run_dir = race(tmp_path / "race", values, repeats=5, folds=5)
    read, text = told(run_dir)
    assert titles(read) == [
        "The answer", "How sure it is", "How they differ", "How the race went", "Every trial", "What failed, and why",
        "What it cost", "How to do it again",
    ]  # fmt: skip
    assert "Contender 0004 is better than every other of 3: its mean val_error 0.02" in read.text("p")
    assert "lower than that of 0005 (95 % interval: 0.0" in read.text("p")
    assert "the same seed and the same fold for every contender" in read.text("p")
    assert "12 of 15 planned repeats were run: a contender that is clearly beaten" in read.text("p")
    assert "Contender 0004 is told apart from every other" in read.text("h3")
    assert "| 0006 | beaten by 0004 after 2 repeats |" in text
    assert "| 0004 | 0.1 |" in text  # what differs; units and depth do not
    assert "All contenders share:" in text
    assert {each["data-picture"] for each in read.all("figure")} == {"race", "curves"}
    drawn = [each["data-trial"] for each in read.all("g") if "data-trial" in each]
    assert drawn.count("0000") == 2  # in both
    assert "contender" in read.text("button")
    assert "matters" not in text


def test_a_race_that_is_not_and_one_that_is_maximised(tmp_path: Path) -> None:
    values = {"0004": near(0.02, 1), "0005": near(0.02, 2), "0006": [0.02, None]}
    read, text = told(race(tmp_path / "a", values, repeats=5))
    best = "0004" if np.mean(values["0004"]) < np.mean(values["0005"]) else "0005"  # type: ignore[arg-type]
    assert f"Undecided after 5 repeats: contender {best} has the best mean" in read.text("p")
    assert "More repeats than 5 may tell them apart" in read.text("p")
    assert "| 0006 | failed in repeat 1 |" in text
    read, _ = told(race(tmp_path / "b", {name: values[name] for name in ("0004", "0005")}, repeats=5, mode="max"))
    worse = {"0004": "0005", "0005": "0004"}[best]
    assert f"Undecided after 5 repeats: contender {worse} has the best mean" in read.text("p")


@pytest.mark.parametrize(
    "values", [{"0004": [], "0005": []}, {"0004": [0.1], "0005": [0.2]}, {"0004": [0.1], "0005": []}]
)
def test_a_race_that_has_hardly_begun(tmp_path: Path, values: dict[str, list[float | None]]) -> None:
    read, _ = told(race(tmp_path / "r", values, repeats=5, ended=False))
    assert "has not ended" in read.text("p")
    assert "nan" not in read.text("p", "td")
    assert "inf" not in read.text("td")


def test_a_race_that_all_have_lost(tmp_path: Path) -> None:
    read, _ = told(race(tmp_path / "r", {"0004": [None], "0005": [None]}, repeats=2))
    assert "Every contender failed in a repeat, so there is no winner" in read.text("p")


def test_a_refit_tells_its_models_alone_and_together(tmp_path: Path) -> None:
    read, text = told(refit(tmp_path / "r", {"errors": 1, "n": 360, "each": [4, 2, 6]}, repeats=3))
    assert titles(read) == [
        "The answer", "How sure it is", "How it was trained", "What failed, and why", "What it cost",
        "How to do it again",
    ]  # fmt: skip
    assert "3 models of one configuration, trained 3 epochs on all images but the test images, get 1 of 360" in text
    assert "One model alone errs on 1.11% of the test images on average, from 0.56% to 1.67%" in text
    assert "| model 2 alone | 6 | 1.667 |" in text
    assert "train_loss went from 1 to 0.3333" in read.text("h3")
    assert "flattering" not in text
    read, _ = told(refit(tmp_path / "one", {"errors": 1, "n": 360}))
    assert "It is one model" in read.text("p")
    read, _ = told(refit(tmp_path / "none", None))
    assert "how good that is on test images is not known" in read.text("p")


def test_a_sweep_mentions_the_race_and_the_refit_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(tmp_path / "sweep") as log:
        log.append("run_started", experiment={**HEAD, "trials": 3, "space": SPACE}, environment={})
        for number in (4, 5, 6):
            trial(log, number, CONTENDERS[f"{number:04}"], [{"val_error": 0.1 * number}])
        log.append("run_ended", status="completed", reason="", test={"errors": 1, "n": 360, "each": [4, 2]})
    values = {"0004": near(0.02, 1), "0005": near(0.3, 2)}
    race(tmp_path / "race", values, repeats=5)
    race(tmp_path / "begun", {"0004": [], "0005": []}, repeats=5)
    race(tmp_path / "other", values, repeats=5, name="cats-confirm")
    refit(tmp_path / "refitted", {"errors": 1, "n": 360})
    (tmp_path / "hostile").mkdir()
    (tmp_path / "hostile" / "events.jsonl").symlink_to("/dev/zero")
    said = told(tmp_path / "sweep")[0].text("p")
    assert "The best were raced on new seeds in race: 0004 is better than every other" in said
    assert "The configuration of trial 0004 was refitted in refitted: on test data an error of 0.28%" in said
    assert said.count("See its own report") == 2
    assert "1 of 360 are wrong when its models answer together" in said
    assert "One model alone errs on 0.83%" in said
    for name in ("race", "refitted"):
        for words in (("show", name), ("report", name), ("report", name, "--markdown")):
            assert run(capsys, words[0], str(tmp_path / words[1]), *words[2:])[0] == 0


def test_the_answer_of_a_sweep_says_that_a_race_found_better(tmp_path: Path) -> None:
    with Journal(tmp_path / "sweep") as log:
        log.append("run_started", experiment={**HEAD, "trials": 3, "space": SPACE}, environment={})
        for number in (4, 5, 6):
            reports = [{"val_error": 0.01 * number, "val_error_se": 0.01}]
            trial(log, number, CONTENDERS[f"{number:04}"], reports)
        log.append("run_ended", status="completed", reason="")
    alone = told(tmp_path / "sweep")[0].text("p")
    assert "1 other configuration lies within the best value's 95 % interval" in alone
    assert "hpo-ray confirm" in alone
    race(tmp_path / "race", {"0004": near(0.3, 2), "0005": near(0.02, 1)}, repeats=5)
    [section] = [part for part in story_of(history.load(tmp_path / "sweep")).sections if part.key == "answer"]
    assert "race, dropped trial 0004 and found trial 0005 better." in str(section.blocks[1])
    assert "hpo-ray confirm" not in told(tmp_path / "sweep")[0].text("p")


DAMAGE = [
    ("race", '"repeats":2', '"repeats":{}'),
    ("race", '"confidence":0.95', '"confidence":9'),
    ("race", '"folds":5', '"folds":"x"'),
    ("race", '"repeat":0', '"repeat":[]'),
    ("refit", '"each":[1,2]', '"each":["a"]'),
    ("refit", '"each":[1,2]', '"each":[1]'),
    ("refit", '"train_on_valid":true}', '"train_on_valid":true},"resources":[1]'),
    ("refit", '"train_on_valid":true}', '"train_on_valid":true},"resources":{"gpus_per_trial":"all"}'),
]


@pytest.mark.parametrize(("kind", "old", "new"), DAMAGE)
def test_what_no_race_or_refit_has_written_is_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, old: str, new: str
) -> None:
    if kind == "race":
        run_dir = race(tmp_path / "r", {"0004": [0.1], "0005": [0.2]}, repeats=2, folds=5)
    else:
        run_dir = refit(tmp_path / "r", {"errors": 1, "n": 9, "each": [1, 2]})
    path = run_dir / "events.jsonl"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert history.load(run_dir).damaged > 0
    assert run(capsys, "report", str(run_dir))[0] == 0
    assert run(capsys, "show", str(run_dir))[0] in (0, 1, 2)  # a message, no traceback
