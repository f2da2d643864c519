"""HTML as text that is escaped unless it was made here: what comes from a run can never become markup."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Any value as HTML that shows it; what no page can hold (control characters, half surrogates) as �."""
    if isinstance(text, Markup):
        return text
    plain = str(text)
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() or c in "\n\t" or c.isspace() else "\ufffd" for c in plain)
    return Markup(html.escape(plain))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element. Attributes: ``class_`` is ``class``, other underscores are dashes; None and False are left out.

    >>> tag("p", "a < b", class_="note", hidden=True)
    '<p class="note" hidden>a &lt; b</p>'
    """
    said = ""
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            said += f" {key}"
        elif value is not None and value is not False:
            said += f' {key}="{escaped(value)}"'
    inside = "".join(escaped(child) for child in children if child is not None)
    return Markup(f"<{name}{said}>{inside}" + ("" if name in ("meta", "input", "br", "hr") else f"</{name}>"))


def joined(*parts: object) -> Markup:
    """Parts after each other, a line each."""
    return Markup("\n".join(escaped(part) for part in parts))
