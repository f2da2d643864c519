"""A matplotlib figure as SVG inside a page: its colours follow the theme, what is drawn of a trial can be found.

Styles become classes, since the page's security policy allows no `style` attribute; ids are made unique by the
picture's key; numbers are rounded to what is seen. Knows matplotlib and its SVG, nothing of runs.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

from hpo_ray.results.style import BLUE, GREEN, GREY, GRID, INK, ORANGE, PURPLE, VERMILION

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
# Colours that follow the theme; any other stays.
_THEMED = {
    BLUE: "blue", VERMILION: "vermilion", GREEN: "green", ORANGE: "orange", PURPLE: "purple", GREY: "muted",
    INK: "ink", "#000000": "ink", GRID: "grid", "#ffffff": "page",
}  # fmt: skip
_COLOURS = {colour.lower(): f"var(--{name})" for colour, name in _THEMED.items()}
_DROPPED = ("font-family", "font-stretch", "font-style", "font-variant", "stroke-linejoin", "stroke-linecap")
_NUMBER = re.compile(r"-?\d+\.\d+")
# Axes that go on beyond are not drawn.
FARTHEST = 1e100
_SAFE = re.compile(r"^[\w#%(),.\s+-]*$")


class Styles:
    """Styles met so far, each with a class; shared by all pictures of a page."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def name(self, style: str) -> str:
        """The class that stands for a style attribute; empty if nothing is left of it."""
        rules = []
        for part in style.split(";"):
            key, _, value = (text.strip() for text in part.partition(":"))
            if key == "font" and (size := re.search(r"([\d.]+)px", value)):
                key, value = "font-size", f"{size[1]}px"
            if key and key not in _DROPPED and _SAFE.match(value):
                rules.append(f"{key}:{_COLOURS.get(value.lower(), value)}")
        text = ";".join(sorted(rules))
        return self._names.setdefault(text, f"s{len(self._names)}") if text else ""

    def css(self) -> str:
        """All rules."""
        return "\n".join(f".{name}{{{rules}}}" for rules, name in self._names.items())


def drawable(figure: Figure) -> bool:
    """Whether its axes can have ticks: matplotlib counts them in floats, which run out near 1e308."""
    ends = [end for axes in figure.axes for end in (*axes.get_xlim(), *axes.get_ylim())]
    return all(abs(end) < FARTHEST for end in ends)


def inline(figure: Figure, key: str, styles: Styles, statuses: Mapping[str, str]) -> str:
    """The figure as an `svg` element without a title or role: whoever places it says what it shows.

    Args:
        figure: Its title is left out, since the page says it in its own letters.
        key: Unique in the page; of letters, digits and dashes.
        styles: The page's.
        statuses: Trial -> status, for the group ids of `hpo_ray.results.style.trial_gid`.
    """
    root = ElementTree.fromstring(_drawn(figure))
    _, _, width, height = (float(number) for number in root.attrib["viewBox"].split())
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        if element.tag == f"{_SVG}defs":
            for marker in element.findall(f"{_SVG}path"):
                marker.attrib.pop("style", None)  # each use says it too, and a page may then change it there
        _clean(element, key, styles, statuses)
    _flatten(root)
    root.attrib.clear()
    root.attrib.update({"viewBox": f"0 0 {width:g} {height:g}", "width": f"{width:g}", "height": f"{height:g}"})
    root.attrib["aria-hidden"], root.attrib["focusable"] = "true", "false"
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.text = (element.text or "").strip() or None
        element.tail = None
    return ElementTree.tostring(root, encoding="unicode")


def _drawn(figure: Figure) -> str:
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    for axes in figure.axes:
        axes.set_title("", loc="left")
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    target = io.StringIO()
    plain = mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "report", "text.parse_math": False})
    with plain, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser draws the letters
        figure.savefig(target, format="svg", metadata={"Date": None})
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set_title(title, loc="left")
    return target.getvalue()


def _clean(element: ElementTree.Element, key: str, styles: Styles, statuses: Mapping[str, str]) -> None:
    attributes = element.attrib
    own = attributes.pop("id", "")
    if own.startswith("trial-"):
        attributes["data-trial"] = own.removeprefix("trial-")
        attributes["data-status"] = statuses.get(attributes["data-trial"], "")
    elif own and element.tag in (f"{_SVG}clipPath", f"{_SVG}path", f"{_SVG}pattern", f"{_SVG}linearGradient"):
        attributes["id"] = f"{key}-{own}"  # these are referred to
    style = attributes.pop("style", "")
    # What a shape leaves unsaid is black.
    if element.tag == f"{_SVG}text" and "fill:" not in style:
        style += f";fill:{INK}"
    if style:
        fill = re.search(r"fill: ?url\(#([\w-]+)\)", style)
        if fill:
            attributes["fill"] = f"url(#{key}-{fill[1]})"
            style = style.replace(fill[0], "")
        if name := styles.name(style):
            attributes["class"] = name
    if _LINK in attributes:
        attributes["href"] = attributes.pop(_LINK)
    if attributes.get("href", "").startswith("#"):
        attributes["href"] = f"#{key}-{attributes['href'][1:]}"
    if attributes.get("clip-path", "").startswith("url(#"):
        attributes["clip-path"] = attributes["clip-path"].replace("url(#", f"url(#{key}-")
    for name in ("d", "x", "y", "transform", "width", "height"):
        if name in attributes:
            attributes[name] = _rounded(attributes[name], 1 if name == "d" and len(attributes[name]) > 120 else 2)


def _rounded(text: str, places: int) -> str:
    """Numbers in a text with fewer digits."""
    short = _NUMBER.sub(lambda found: f"{float(found[0]):.{places}f}".rstrip("0").rstrip("."), text)
    return " ".join(short.split())


def _flatten(root: ElementTree.Element) -> None:
    """Leave out groups that say nothing, and what a group of one element says of it twice."""
    for parent in root.iter():
        for child in list(parent):
            while child.tag == f"{_SVG}g" and not child.attrib and len(child) == 1:
                at = list(parent).index(child)
                parent.remove(child)
                child = child[0]
                parent.insert(at, child)
            if child.tag in (f"{_SVG}g", f"{_SVG}defs") and not len(child) and not (child.text or "").strip():
                parent.remove(child)
