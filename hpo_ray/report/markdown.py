"""A story as Markdown: what a page says in pictures is said by their findings and numbers."""

from __future__ import annotations

import re

from hpo_ray.report.blocks import Block, Cell, Choice, Code, Facts, Paragraph, Picture, Story, Table, TrialTable
from hpo_ray.screen import number

# Rows of a table; the page has all.
MOST_ROWS = 20
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def markdown(story: Story) -> str:
    """The text, in GitHub's dialect."""
    parts = [f"# {plain(story.title)}", plain(story.about)]
    parts += [_block(Paragraph(story.unended, warning=True))] if story.unended else []
    for section in story.sections:
        parts.append(f"## {section.title}")
        parts += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def plain(value: object) -> str:
    """Any text as one line that Markdown shows as it is."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    escaped = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    # What begins a list or names an address is taken for one.
    escaped = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", escaped)
    return re.sub(r"^([-+=])(?=[-+=]*(?:\s|$))", r"\\\1", escaped).replace("://", ":\u200b//")


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f"> **Note:** {plain(block.text)}" if block.warning else plain(block.text)
        case Facts():
            return "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in block.rows)
        case Table():
            return _table(block)
        case Code():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.text)), default=0))
            return f"{plain(block.title)}:\n\n{fence}\n{_code(block.text)}\n{fence}"
        case Picture():
            return f"**{plain(block.finding)}.**" + ("" if not block.table.rows else f"\n\n{_table(block.table)}")
        case Choice():
            return "\n".join(f"- {plain(option)}: {plain(each.finding)}" for option, each in block.options.items())
        case TrialTable():
            return _table(block.table)


def _code(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text.replace("\r\n", "\n"))


def _table(table: Table) -> str:
    rows = [table.columns, *([_cell(value) for value in row] for row in table.rows[:MOST_ROWS])]
    lines = ["| " + " | ".join(plain(text) for text in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(table.columns))
    left = len(table.rows) - MOST_ROWS
    caption = plain(table.caption) + (f" (and {left} more)" if left > 0 else "")
    return f"{caption}:\n\n" + "\n".join(lines)


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    return number(value) if isinstance(value, float) else str(value)
