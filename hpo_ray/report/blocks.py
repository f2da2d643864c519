"""What a story is made of: sections of paragraphs, facts, tables, pictures, code. Plain data, without markup."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell: TypeAlias = str | float | int | None

_STATES = {
    "running": "The run still goes on: this is how it stood when this was written.",
    "broken off": "The run has not ended: its driver is gone. hpo-ray resume goes on with it.",
}


@dataclass(frozen=True)
class Paragraph:
    """A sentence or a few; a `warning` is set apart."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    rows: list[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows under named columns; the first column names the row."""

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Code:
    """Text as it is, to be copied; long ones may be folded away under their `title`."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure whose title says the finding, and its numbers as a table."""

    key: str
    figure: Figure
    table: Table

    @property
    def finding(self) -> str:
        return str(self.figure.axes[0].get_title(loc="left"))


@dataclass(frozen=True)
class Choice:
    """Pictures of one kind, of which a page shows one: option -> picture; `buttons` for few, else a list."""

    key: str
    title: str
    options: dict[str, Picture]
    buttons: bool = False


@dataclass(frozen=True)
class TrialTable:
    """Every trial: `statuses` in the order of the rows, whose first cell is the trial's id."""

    table: Table
    statuses: list[str]


Block: TypeAlias = Paragraph | Facts | Table | Code | Picture | Choice | TrialTable


@dataclass(frozen=True)
class Section:
    """A chapter; `key` is its anchor."""

    key: str
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Story:
    """The whole: title, what it is about in a line, and the chapters in order.

    Attributes:
        state: How the run stands, where that is not its end.
        statuses: Trial -> status, for what is drawn of it.
    """

    title: str
    about: str
    sections: list[Section]
    state: Literal["ended", "running", "broken off"] = "ended"
    statuses: dict[str, str] = field(default_factory=dict)

    @property
    def unended(self) -> str | None:
        """A warning that this is not the end; None where it is."""
        return _STATES.get(self.state)
