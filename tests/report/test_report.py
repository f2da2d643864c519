"""The page and the Markdown of runs of all kinds: whole, in order, escaped, usable without eyes or network."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hpo_ray import cli, console, history
from hpo_ray.report.markdown import markdown, plain
from hpo_ray.report.markup import escaped, tag
from hpo_ray.report.page import page
from hpo_ray.report.story import story_of
from hpo_ray.results import space_of
from hpo_ray.results.frame import load_results
from tests.report.journals import HOSTILE, SPACE, sweep

VOID = {"meta", "input", "br", "hr"}


class Page(HTMLParser):
    """A page's elements, and its text by element; fails where an element is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.inside: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.inside == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, {key: value or "" for key, value in attributes}))
        if name not in VOID:
            self.inside.append(name)

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, {key: value or "" for key, value in attributes}))

    def handle_endtag(self, name: str) -> None:
        assert self.inside.pop() == name

    def handle_data(self, data: str) -> None:
        self.texts.append((self.inside[-1] if self.inside else "", data))

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for element, attributes in self.elements if element == name]

    def text(self, *names: str) -> str:
        return " ".join(data for name, data in self.texts if not names or name in names)


def check(text: str) -> Page:
    """What holds of any page."""
    read = Page(text)
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    levels = [int(name[1]) for name, _ in read.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for name, attributes in read.elements:
        assert not any(key.startswith("on") or key == "style" for key in attributes), (name, attributes)
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith("#"), (name, attributes)
        for key in ("aria-labelledby", "for"):
            assert attributes.get(key, ids[0]) in ids
        if attributes.get("href", "#")[1:]:
            assert attributes["href"][1:] in ids
        if "url(" in attributes.get("fill", "") + attributes.get("clip-path", ""):
            assert re.search(r"#([\w-]+)", attributes.get("clip-path") or attributes["fill"])[1] in ids  # type: ignore[index]
    assert all(each.get("scope") in ("col", "row") for each in read.all("th"))
    assert len(read.all("script")) == len(read.all("style")) == len(read.all("main")) == 1
    assert len(read.all("table")) == len(read.all("caption"))
    assert len([each for each in read.all("div") if each.get("role") == "img"]) == len(read.all("figure"))
    [policy] = [each["content"] for each in read.all("meta") if each.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    for name in ("script", "style"):
        content = "".join(data for element, data in read.texts if element == name)
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|http-equiv', "", text)
    return read


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tmp_path_factory.mktemp("runs") / "r", 40, fails=0.3)


def test_the_story_is_told_in_order_with_pictures_and_numbers(run_dir: Path) -> None:
    story = story_of(history.load(run_dir))
    text = page(story)
    read = check(text)
    titles = [data for name, data in read.texts if name == "h2"]
    assert titles == [
        "The answer", "How sure it is", "What mattered", "How the sweep went", "Every trial", "What failed, and why",
        "What it cost", "How to do it again",
    ]  # fmt: skip
    best = history.load(run_dir).best()
    assert best is not None
    assert f"Trial {best[0].trial_id} is best: val_error {best[1].metrics['val_error']:.4g}" in read.text("p")
    pictures = {each["data-picture"] for each in read.all("figure")}
    assert pictures >= {
        "importance", "slice-0", "slice-4", "contour", "parallel", "incumbent-trials", "incumbent-fidelity",
        "incumbent-seconds", "curves", "rungs", "correlation",
    }  # fmt: skip
    trials = {each["data-trial"] for each in read.all("tr") if "data-trial" in each}
    assert trials == {f"{number:04}" for number in range(40)}
    drawn = [each["data-trial"] for each in read.all("g") if "data-trial" in each]
    assert {name for name in drawn if drawn.count(name) >= 5} == trials & set(drawn)
    assert len(set(drawn)) > 35
    measured = sum(trial.best_report("val_error", "min") is not None for trial in history.load(run_dir).trials.values())
    lacking = f" ({40 - measured} without a value)" if measured < 40 else ""
    assert f"best of 40 trials{lacking}, and so" in read.text("p")
    assert "hpo-ray run experiment=digits 'space.lr=loguniform(1e-4, 0.3)'" in read.text("code")
    assert "abc123, with changes" in read.text("dd")
    assert "trials/" in read.text("td")
    assert "RuntimeError: CUDA error at …: assert" in read.text("th")
    assert len(text.encode()) < 1_000_000
    assert page(story)[:20000] == text[:20000]  # telling changes nothing


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("one trial", {"trials": 1}),
        ("two trials, all failed at once", {"trials": 2, "fails": 1.0, "seed": 3}),
        ("no number", {"trials": 12, "space": {"a": "choice(x, y)", "b": "ordinal(small, large)"}}),
        ("one parameter", {"trials": 8, "space": {"lr": "loguniform(1e-4, 0.3)"}}),
        ("no parameter", {"trials": 3, "space": {}}),
        ("no fidelity", {"trials": 8, "top": 1, "fidelity": None}),
        ("maximised", {"trials": 15, "mode": "max"}),
        ("broken off", {"trials": 6, "ended": False}),
        ("nothing yet", {"trials": 0, "ended": False}),
        ("an experiment of another version", {"trials": 4, "experiment": {"space": {"lr": "unheard_of(1)"}}}),
    ],
)
def test_a_run_of_any_state_has_a_report(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    story = story_of(history.load(sweep(tmp_path / "r", **options)))
    read = check(page(story))
    assert story.state == ("ended" if options.get("ended", True) else "broken off")
    assert len(read.all("section")) == 8
    assert "## What failed, and why" in markdown(story)
    for told in (read.text("p"), markdown(story)):
        assert ("The run has not ended: its driver is gone" in told) == (story.state == "broken off")


def test_what_a_run_holds_is_never_markup(tmp_path: Path) -> None:
    space = {HOSTILE: f"choice({HOSTILE!r}, safe)", "lr": "loguniform(1e-4, 0.3)"}
    run_dir = sweep(tmp_path / "<b>r", 12, space=space, metric=HOSTILE, reason=HOSTILE, fails=0.3, fidelity=HOSTILE)
    story = story_of(history.load(run_dir))
    read = check(page(story))
    assert not read.all("img")
    assert not read.all("b")
    shown = read.text("th", "td", "dt", "dd", "p", "caption", "button", "code")
    assert shown.count("<img src=x onerror") >= 10
    written = markdown(story)
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", written, flags=re.DOTALL | re.MULTILINE)
    assert "<" not in outside.replace("\\<", "")
    for table in re.findall(r"(?:^\|.*\n)+", outside, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


def test_letters_that_no_file_can_hold_are_replaced(tmp_path: Path) -> None:
    run_dir = sweep(tmp_path / "r", 6, reason="a \x00 and \x1b[31m", fails=1.0)
    read = check(page(story_of(history.load(run_dir))))
    assert "a � and �[31m" in read.text("td")


def test_halves_of_characters_and_folders_without_a_name_are_shown_somehow(tmp_path: Path) -> None:
    words = {"reason": "bad HALF", "metric": "mHALF", "fidelity": "epHALF", "fails": 0.5}
    written = sweep(tmp_path / "r", 4, space={"lrHALF": "choice('xHALF', 0.1)"}, **words)
    text = (written / "events.jsonl").read_text().replace("HALF", r"\ud800")
    (written / "events.jsonl").write_text(text)
    run_dir = written.rename(tmp_path / os.fsdecode(b"r\xff"))  # bytes that no terminal has letters for
    assert load_results(run_dir)["run"].tolist() == [r"r\xff"] * 4
    failed = next(name for name, trial in history.load(run_dir).trials.items() if trial.status == "failed")
    for words, shown in (
        (("show",), "lr?="),
        (("show", failed), "bad ?"),
        (("report",), "report.html"),
        (("ls",), "r\ufffd"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "hpo_ray.cli", words[0], str(run_dir), *words[1:]],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert shown in done.stdout.decode()
    assert "bad ?" in check((run_dir / "report.html").read_text()).text("td")


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("huge", ["fidelity", "value"])
def test_numbers_that_no_axis_holds_are_told_and_not_drawn(tmp_path: Path, huge: str) -> None:
    written = sweep(tmp_path / "r", 12, fails=0.3)
    lines = [json.loads(line) for line in (written / "events.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        if line["event"] == "trial_reported":
            if huge == "fidelity":
                line["fidelity"] = 1e308
            else:
                line["metrics"]["val_error"] = (-1) ** number * 1.7e308
    (written / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    story = story_of(history.load(written))
    text = page(story)
    assert "Not drawn: its values are beyond ±1e+100." in Page(text).text("p")
    assert not re.search(r"\b(inf|nan)\b", Page(text).text("p", "h3"))


def test_the_space_of_a_run_is_what_it_searched(run_dir: Path) -> None:
    assert list(space_of(str(run_dir)).names) == list(SPACE)


def test_elements_and_cells_escape_by_themselves() -> None:
    assert (
        tag("p", "<b>", tag("i", "&"), class_='"', hidden=True, lang=None)
        == '<p class="&quot;" hidden>&lt;b&gt;<i>&amp;</i></p>'
    )
    assert escaped("a\x00\nb") == "a\ufffd\nb"
    assert plain("a|b\n<c> *d*") == r"a\|b \<c\> \*d\*"
    assert [plain(text) for text in ("1. x", "- x", "0.25", "-1")] == [r"1\. x", r"\- x", "0.25", "-1"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = console.guarded(lambda: cli.app(list(words), standalone_mode=False))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = sweep(tmp_path / "r", 5, fails=1.0, seed=1)
    code, out, _ = run(capsys, "report", str(run_dir))
    assert code == 0
    assert (run_dir / "report.html").read_text().startswith("<!doctype html>")
    assert "report.html" in out.replace("\n", "")
    assert run(capsys, "report", str(run_dir), "--markdown")[1].startswith("# r\n")
    assert run(capsys, "report", str(run_dir), "--markdown", "--out", str(tmp_path / "a.md"))[0] == 0
    assert (tmp_path / "a.md").read_text().startswith("# r\n")
    code, _, err = run(capsys, "report", str(run_dir), "--out", str(tmp_path / "no" / "a.html"))
    assert (code, "is no folder" in err) == (2, True)
    journal = (run_dir / "events.jsonl").read_bytes()
    for own in ("events.jsonl", "snapshot.json", "a.txt"):
        code, _, err = run(capsys, "report", str(run_dir), "--out", str(run_dir / own))
        assert (code, "does not end in .html" in err) == (2, True)
    assert (run_dir / "events.jsonl").read_bytes() == journal
    failed = next(name for name, trial in history.load(run_dir).trials.items() if trial.status == "failed")
    code, out, _ = run(capsys, "show", str(run_dir), failed.lstrip("0") or "0")
    assert (code, out.startswith(f"trial       {failed}  failed")) == (0, True)
    assert "traceback   Traceback" in out
    code, _, err = run(capsys, "show", str(run_dir), "77")
    assert (code, "no trial '77'" in err) == (2, True)


def test_standard_errors_and_a_living_driver_are_told(tmp_path: Path) -> None:
    from tests.results.test_frame import write_run

    story = story_of(history.load(write_run(tmp_path / "live", live=True, ended=False)))
    assert story.state == "running"
    assert "The run still goes on" in check(page(story)).text("p")
    run_dir = sweep(tmp_path / "folds", 8, experiment={"folds": 5, "repeats": 2})
    events = (run_dir / "events.jsonl").read_text()
    (run_dir / "events.jsonl").write_text(re.sub(r'("val_error": [-\d.]+)\}', r'\1, "val_error_se": 0.01}', events))
    said = check(page(story_of(history.load(run_dir)))).text("p")
    assert "95 % interval of the best value from val_error_se" in said
    assert "trained 5 × 2 times" in said
