"""The page in a real browser: silent, offline, and its controls do what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo_ray import history
from hpo_ray.report.page import page
from hpo_ray.report.story import story_of
from tests.browser import Browser, chromium
from tests.report.journals import HOSTILE, sweep
from tests.report.test_race_and_refit import near, race, refit

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium() is None, reason="no Chromium on PATH: install Debian's package, or name one in HPO_RAY_CHROMIUM"
    ),
]


def written(folder: Path, trials: int, **options: object) -> Path:
    path = folder / "report.html"
    path.write_text(page(story_of(history.load(sweep(folder / "r", trials, **options)))))  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report"), 60, fails=0.2)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    path = chromium()
    assert path is not None
    with Browser(path, tmp_path / "profile") as opened:
        opened.window(1100, 900, motion=False)
        yield opened
        assert [address for address in opened.requests if not address.startswith("file:")] == []
        assert opened.complaints == []


def test_choosing_a_trial_marks_it_everywhere(browser: Browser, report: Path) -> None:
    browser.open(report)
    assert browser.js("document.getElementById('panel').hidden")
    first = "#every-trial tbody tr:nth-child(2)"
    trial = browser.js(f"document.querySelector('{first}').dataset.trial")
    browser.click(f"{first} button")
    assert browser.js(f"document.querySelector('{first} button').getAttribute('aria-pressed')") == "true"
    assert browser.js("document.querySelectorAll('svg .on').length") >= 3
    assert browser.js(f"[...document.querySelectorAll('.on')].every(e => e.dataset.trial === '{trial}')")
    said = browser.js("document.getElementById('panel').innerText")
    assert f"Trial {trial}, chosen" in said
    assert "lr" in said
    browser.click("#panel-next")
    following = browser.js("document.querySelector('#every-trial tbody tr:nth-child(3)').dataset.trial")
    assert f"Trial {following}, chosen" in browser.js("document.getElementById('panel').innerText")
    browser.key("Escape", 27)
    assert browser.js("document.getElementById('panel').hidden && !document.querySelector('.on')")


def test_pointing_at_a_curve_shows_its_trial_and_a_click_keeps_it(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.point("#f-curves svg")
    found = browser.js(
        "(() => { for (const line of document.querySelectorAll('#f-curves [data-status=completed] path')) {"
        "const at = line.getPointAtLength(line.getTotalLength() * 0.6).matrixTransform(line.getScreenCTM());"
        "const hit = document.elementFromPoint(at.x, at.y)?.closest('[data-trial]');"
        "if (hit) return [at.x, at.y, hit.dataset.trial]; } })()"
    )
    x, y, trial = found
    browser.hover(x, y)
    assert f"Trial {trial}" in browser.js("document.getElementById('panel').innerText")
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    browser.hover(5, 5)
    assert f"Trial {trial}, chosen" in browser.js("document.getElementById('panel').innerText")


def test_the_table_sorts_and_filters(browser: Browser, report: Path) -> None:
    browser.open(report)
    column = "document.querySelectorAll('#every-trial thead th')"
    place = browser.js(f"[...{column}].findIndex(e => e.textContent === 'lr')")
    head = f"#every-trial thead th:nth-child({place + 1})"
    values = f"[...document.querySelectorAll('#every-trial tbody tr')].map(r => +r.cells[{place}].dataset.value)"
    for order, turned in (("ascending", False), ("descending", True)):
        browser.click(f"{head} button")
        assert browser.js(f"document.querySelector('{head}').ariaSort") == order
        assert browser.js(values) == sorted(browser.js(values), reverse=turned)
    browser.js("document.querySelector('#every-trial thead th:last-child button').focus()")
    browser.key("Enter", 13)
    assert browser.js(f"[...{column}].filter(e => e.ariaSort !== 'none').length") == 1
    browser.click("#filter-text")
    browser.call("Input.insertText", text="adam")
    shown = "[...document.querySelectorAll('#every-trial tbody tr')].filter(r => r.offsetParent)"
    rows = browser.js(f"{shown}.map(r => r.textContent)")
    assert 0 < len(rows) < 60
    assert all("adam" in row for row in rows)
    assert browser.js("document.getElementById('filter-count').textContent") == f"{len(rows)} of 60 trials shown"
    browser.click("#hide-stopped")
    assert all("stopped" not in row for row in browser.js(f"{shown}.map(r => r.textContent)"))
    hidden = "[...document.querySelectorAll('svg [data-status=stopped]')].every(e => !e.getClientRects().length)"
    assert browser.js(hidden)


def test_switches_choose_pictures_and_the_theme(browser: Browser, report: Path) -> None:
    browser.open(report)
    shown = (
        "[...document.querySelectorAll('[data-choice=%s] figure')].filter(f => !f.hidden).map(f => f.dataset.picture)"
    )
    assert browser.js(shown % "incumbent") == ["incumbent-trials"]
    browser.click("input[value=incumbent-seconds]")
    assert browser.js(shown % "incumbent") == ["incumbent-seconds"]
    browser.js(
        "(() => { const s = document.getElementById('choose-slice'); s.selectedIndex = 1;"
        "s.dispatchEvent(new Event('change')); })()"
    )
    assert browser.js(shown % "slice") == [browser.js("document.getElementById('choose-slice').value")]
    colours = "(() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; })()"
    light = browser.js(colours)
    browser.js(
        "(() => { const s = document.getElementById('theme'); s.value = 'dark';"
        "s.dispatchEvent(new Event('change')); })()"
    )
    dark = browser.js(colours)
    assert light != dark
    ink = "getComputedStyle(document.querySelector('#f-curves svg text')).fill"
    assert browser.js(ink) == dark[1]


@pytest.mark.parametrize("dark", [False, True])
def test_letters_have_contrast_and_nothing_is_wider_than_a_telephone(
    browser: Browser, report: Path, dark: bool
) -> None:
    browser.window(360, 740, dark=dark)
    browser.open(report)
    assert browser.js("document.documentElement.scrollWidth") <= 360
    browser.window(1100, 900, dark=dark)
    worst = browser.js(
        """(() => {
          const parse = (c) => c.match(/[\\d.]+/g).map(Number);
          const lum = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 :
            ((v + 0.055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = (e) => { for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] === 1) return c; }
            return [255, 255, 255]; };
          let worst = [99, ''];
          for (const e of document.querySelectorAll('p, a, td, th, dt, dd, caption, summary, button, code, label')) {
            if (!e.getClientRects().length) continue;
            const [a, b] = [lum(parse(getComputedStyle(e).color)), lum(behind(e))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 80)];
          }
          return worst;
        })()"""
    )
    assert worst[0] >= 4.5, worst


def test_a_hostile_run_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    space = {HOSTILE: f"choice({HOSTILE!r}, safe)", "lr": "loguniform(1e-4, 0.3)"}
    path = written(tmp_path, 12, space=space, metric=HOSTILE, reason=HOSTILE, fails=0.3)
    browser.open(path)
    browser.click("#every-trial tbody tr:nth-child(1) button")
    assert browser.js("window.hacked") is None
    assert browser.js("document.querySelectorAll('img').length") == 0
    assert "<img src=x" in browser.js("document.getElementById('panel').innerText")


def test_a_report_on_200_trials_is_small_and_silent(browser: Browser, tmp_path: Path) -> None:
    path = written(tmp_path, 200)
    assert path.stat().st_size < 1_500_000
    browser.open(path)
    assert browser.js("document.querySelectorAll('#every-trial tbody tr').length") == 200


def test_a_race_and_a_refit_are_silent_and_linked(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "race.html"
    run_dir = race(tmp_path / "r", {"0004": near(0.02, 1), "0005": near(0.05, 2)}, repeats=5)
    path.write_text(page(story_of(history.load(run_dir))))
    browser.open(path)
    browser.click("#every-trial tbody tr:nth-child(1) button")
    assert browser.js("document.querySelectorAll('#f-race .on').length") == 1
    assert "contender" in browser.js("document.getElementById('panel').innerText")
    path = tmp_path / "refit.html"
    path.write_text(page(story_of(history.load(refit(tmp_path / "again", {"errors": 1, "n": 360, "each": [4, 2]})))))
    browser.window(360, 740, dark=True)
    browser.open(path)
    assert browser.js("document.documentElement.scrollWidth") <= 360
