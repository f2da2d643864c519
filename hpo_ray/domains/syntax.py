"""From text to Python's syntax tree, and from its nodes to plain values; nothing is ever evaluated.

Must not know: domains. Python's own keywords are words like any other here, True, False and None excepted.
"""

from __future__ import annotations

import ast
import itertools
import keyword
import re
import warnings

from hpo_ray.domains.base import MAX_TEXT
from hpo_ray.domains.levels import WORDS
from hpo_ray.domains.messages import show, wrong

_MAX_DEPTH = 8  # brackets inside brackets; Python's own parser may take exponential time beyond
# A string with its prefix (up to the end of the text where it is not closed), a comment, a word, a bracket.
_TOKEN = re.compile(
    r"""(?P<prefix>\w*)(?P<quote>'''|\"{3}|'|")(?:\\.|(?!(?P=quote))[^\\])*(?:(?P=quote)|\\?\Z)"""
    r"""|\#[^\r\n]*|\w+|[()\[\]{}]""",
    re.DOTALL,
)
_KEYWORDS = frozenset(keyword.kwlist) - {"True", "False", "None"}
_WITH_CODE = {"f", "fr", "rf", "t", "tr", "rt"}  # prefixes of strings inside which Python would parse expressions
_NODES = {"BinOp": "arithmetic", "Attribute": "a dotted name", "Dict": "a mapping"}


def expression(text: str) -> ast.expr:
    """The syntax tree of one expression; InvalidInput for whatever Python's parser makes of hostile text."""
    if len(text) > MAX_TEXT:
        raise wrong(f"{len(text)} characters are too many: at most {MAX_TEXT}")
    depth = deepest = 0
    for token in _TOKEN.finditer(text):
        if (token["prefix"] or "").lower() in _WITH_CODE:
            raise wrong(f"{show(text)} has an f-string: leave out the {token['prefix']} before the quotes")
        depth += (token[0] in "([{") - (token[0] in ")]}")
        deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH:
        raise wrong(f"{show(text)} has {deepest} brackets inside each other: at most {_MAX_DEPTH}")
    try:
        with warnings.catch_warnings():  # of doubtful escapes and the like: the text is data, not code
            warnings.simplefilter("ignore")
            return _parsed(text.strip())
    except SyntaxError as error:
        reason = error.msg
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        reason = str(error) or "it is nested too deeply"
    raise wrong(
        f"{show(text)} cannot be read ({reason}): write e.g. uniform(0, 1), choice(a, b) or a number, "
        "and put quotes around text that is not one word"
    )


def _parsed(text: str) -> ast.expr:
    """Python's tree of ``text``. A keyword is given an ending that stands nowhere in the text while Python reads it."""
    ending = next(ending for ending in map("_{}".format, itertools.count()) if ending not in text)
    words = _TOKEN.sub(lambda token: token[0] + ending if token[0] in _KEYWORDS else token[0], text)
    tree = ast.parse(words, mode="eval").body
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = node.id.replace(ending, "")
        elif isinstance(node, ast.Attribute):
            node.attr = node.attr.replace(ending, "")
        elif isinstance(node, ast.keyword) and node.arg:
            node.arg = node.arg.replace(ending, "")
    return tree


def plain_value(node: ast.expr) -> object:
    """The plain value a node stands for: scalars, bare words, lists."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None):
        return node.value
    if isinstance(node, ast.Name):
        return WORDS.get(node.id.lower(), node.id)
    if isinstance(node, ast.List | ast.Tuple):
        return [plain_value(item) for item in node.elts]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        number = plain_value(node.operand) if isinstance(node.operand, ast.Constant | ast.Name) else None
        if isinstance(number, int | float) and not isinstance(number, bool):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, ast.Call):
        raise wrong(f"{dotted(node.func) or 'a call'}(…) cannot stand inside another domain: give it a key of its own")
    what = _NODES.get(type(node).__name__, "this expression")
    raise wrong(f"{what} is not a value: write a number or a word, and quotes around other text, 'like-this'")


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of nested attribute nodes; empty if it is anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def plain_mapping(node: ast.expr) -> object:
    """The value of ``when=``: ``{parent: value}``, whose key may be dotted."""
    if not isinstance(node, ast.Dict):
        return plain_value(node)
    found: dict[object, object] = {}
    for key_node, value_node in zip(node.keys, node.values, strict=True):
        if key_node is None:
            raise wrong("** is not allowed here: write when={parent: value}")
        key = dotted(key_node) or plain_value(key_node)
        if not isinstance(key, str) or key in found:
            raise wrong(f"when names the parameter {show(key)}: it must be text, once")
        found[key] = plain_value(value_node)
    return found
