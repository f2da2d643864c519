"""A story as one HTML page that needs nothing else: pictures, style and script inside, no network."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Mapping
from importlib import resources

from hpo_ray.report import svg
from hpo_ray.report.blocks import (
    Block,
    Cell,
    Choice,
    Code,
    Facts,
    Paragraph,
    Picture,
    Section,
    Story,
    Table,
    TrialTable,
)  # fmt: skip
from hpo_ray.report.markup import Markup, joined, tag
from hpo_ray.screen import number


def page(story: Story) -> str:
    """The page's text."""
    styles = svg.Styles()
    body = joined(*(_section(section, styles, story.statuses) for section in story.sections))
    style = _file("report.css") + styles.css()
    script = _file("report.js")
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    head = joined(
        tag("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{story.title}: report"),
        Markup(f"<style>{style}</style>"),
    )
    links = [tag("li", tag("a", section.title, href=f"#{section.key}")) for section in story.sections]
    state = story.unended
    themes = [tag("option", name, value=name.lower()) for name in ("System", "Light", "Dark")]
    header = tag(
        "header",
        tag("h1", story.title),
        tag("p", story.about, class_="about"),
        tag("p", state, class_="warning", role="note") if state else None,
        tag("p", tag("label", "Theme ", tag("select", *themes, id="theme")), class_="script-only", hidden=True),
    )
    contents = tag("nav", tag("ol", *links), aria_label="Contents")
    made = f"Made by hpo-ray report on {time.strftime('%Y-%m-%d %H:%M')}. Nothing here is loaded from elsewhere."
    everything = joined(
        tag("a", "Skip to the answer", href="#main", class_="skip"),
        header,
        contents,
        tag("main", body, id="main", tabindex="-1"),
        _panel(),
        tag("footer", tag("p", made)),
        Markup(f"<script>{script}</script>"),
    )
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{everything}\n</body>\n</html>\n'


def _section(section: Section, styles: svg.Styles, statuses: Mapping[str, str]) -> Markup:
    title = f"{section.key}-title"
    parts = [_block(block, section, place, styles, statuses) for place, block in enumerate(section.blocks)]
    heading = tag("h2", section.title, id=title)
    return tag("section", heading, *parts, id=section.key, aria_labelledby=title)


def _block(block: Block, section: Section, place: int, styles: svg.Styles, statuses: Mapping[str, str]) -> Markup:
    match block:
        case Paragraph():
            lead = section.key == "answer" and place == 0
            kind = "warning" if block.warning else "lead" if lead else None
            return tag("p", block.text, class_=kind, role="note" if block.warning else None)
        case Facts():
            rows = [tag("div", tag("dt", name), tag("dd", value)) for name, value in block.rows]
            return tag("dl", *rows)
        case Table():
            return _scrolled(_table(block), block.caption)
        case Code():
            code = tag("pre", tag("code", block.text), tabindex="0", role="region", aria_label=block.title)
            if block.folded:
                return tag("details", tag("summary", block.title), code)
            return joined(tag("p", block.title, class_="label"), code)
        case Picture():
            return _picture(block, styles, statuses)
        case Choice():
            return _choice(block, styles, statuses)
        case TrialTable():
            return _trials(block)


def _picture(picture: Picture, styles: svg.Styles, statuses: Mapping[str, str], hidden: bool = False) -> Markup:
    finding, key = picture.finding, f"figure-{picture.key}"
    numbers = tag("details", tag("summary", "The numbers"), _scrolled(_table(picture.table), picture.table.caption))
    if svg.drawable(picture.figure):
        drawn = Markup(svg.inline(picture.figure, picture.key, styles, statuses))
        image = tag("div", drawn, role="img", aria_labelledby=key)
        seen = tag("div", image, class_="picture", tabindex="0", role="group", aria_labelledby=key)
    else:
        seen = tag("p", f"Not drawn: its values are beyond ±{svg.FARTHEST:g}.")
    caption = tag("figcaption", tag("h3", finding, id=key))
    return tag("figure", caption, seen, numbers, id=f"f-{picture.key}", data_picture=picture.key)


def _choice(choice: Choice, styles: svg.Styles, statuses: Mapping[str, str]) -> Markup:
    names = list(choice.options.items())
    pictures = [_picture(picture, styles, statuses) for _, picture in names]
    if choice.buttons:
        buttons = [
            tag(
                "label",
                tag("input", type="radio", name=choice.key, value=picture.key, checked=not place),
                f" {option}",
            )
            for place, (option, picture) in enumerate(names)
        ]
        control = tag("fieldset", tag("legend", choice.title), *buttons)
    else:
        options = [tag("option", option, value=picture.key) for option, picture in names]
        control = tag("p", tag("label", f"{choice.title} ", tag("select", *options, id=f"choose-{choice.key}")))
    shown = tag("div", control, class_="script-only", hidden=True)
    return tag("div", shown, *pictures, class_="choice", data_choice=choice.key)


def _table(table: Table, **attributes: object) -> Markup:
    head = tag("tr", *(tag("th", name, scope="col") for name in table.columns))
    rows = [tag("tr", tag("th", _shown(row[0]), scope="row"), *map(_cell, row[1:])) for row in table.rows]
    caption = tag("caption", table.caption)
    return tag("table", caption, tag("thead", head), tag("tbody", *rows), **attributes)


def _trials(block: TrialTable) -> Markup:
    table = block.table
    head = [tag("th", tag("button", name, type="button"), scope="col", aria_sort="none") for name in table.columns]
    rows = []
    for row, status in zip(table.rows, block.statuses, strict=True):
        first = tag("button", row[0], type="button", aria_pressed="false", aria_label=f"Show trial {row[0]}")
        cells = [tag("th", first, scope="row"), *map(_cell, row[1:])]
        rows.append(tag("tr", *cells, data_trial=row[0], data_status=status))
    caption = tag("caption", table.caption)
    body = tag("table", caption, tag("thead", tag("tr", *head)), tag("tbody", *rows), id="every-trial")
    kinds = dict.fromkeys(block.statuses)
    options = [tag("option", "all", value=""), *(tag("option", kind.replace("_", " "), value=kind) for kind in kinds)]
    controls = tag(
        "div",
        tag("label", "Holding ", tag("input", type="search", id="filter-text", autocomplete="off")),
        tag("label", "Status ", tag("select", *options, id="filter-status")),
        tag("label", tag("input", type="checkbox", id="hide-stopped"), " Hide stopped trials, in pictures too"),
        tag("p", f"{len(rows)} trials shown", id="filter-count", role="status"),
        class_="script-only controls",
        hidden=True,
    )
    said = "Choose a trial to see it in every picture."
    return joined(tag("p", said, class_="script-only", hidden=True), controls, _scrolled(body, table.caption))


def _panel() -> Markup:
    buttons = [
        tag("button", name, type="button", id=f"panel-{key}")
        for key, name in (("previous", "Previous"), ("next", "Next"), ("close", "Close"))
    ]
    title = tag("p", "", id="panel-title", class_="label")
    said = tag("div", title, tag("dl", id="panel-facts"), id="panel-said", aria_live="polite")
    return tag("aside", said, tag("div", *buttons), id="panel", aria_label="Chosen trial", hidden=True)


def _scrolled(content: Markup, name: str) -> Markup:
    return tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=name)


def _cell(value: Cell) -> Markup:
    if isinstance(value, int | float):
        return tag("td", _shown(value), class_="number", data_value=repr(value))
    return tag("td", _shown(value))


def _shown(value: Cell) -> str:
    if value is None:
        return "–"
    return number(value) if isinstance(value, float) else str(value)


def _file(name: str) -> str:
    return resources.files("hpo_ray.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
