"""From group choices and overrides to one checked `Experiment`; every mistake is collected and told at once.

Hydra's compose API chooses the groups; values are parsed here, one at a time. Knows no Ray and starts nothing.
"""

from __future__ import annotations

import contextlib
import copy
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hpo_ray.errors import InvalidInput, Problem, nearest

GROUPS = ("experiment", "space", "searcher", "scheduler", "trainable", "data", "model", "training", "resources", "ray")
COMMAND_LINE = "command line"


class _Loader(yaml.SafeLoader):
    """YAML with 1e-4 as a number and only true/false as booleans, as YAML 1.2 and every user mean them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":float", ":bool", ":timestamp", ":int"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)$"),
    list("-+0123456789."),
)


@dataclass
class _Request:
    """What the user asked for, taken apart: group choices for Hydra, values for us, space keys to drop."""

    groups: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def packaged_conf() -> Path:
    """The `conf/` that came with this package: inside it once installed, beside it in a clone."""
    here = Path(__file__).parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


@dataclass
class Document:
    """A composed experiment as plain data, not yet checked.

    Attributes:
        data: The top-level keys.
        problems: Mistakes found while composing: override texts, choices, YAML.
        choices: Which file each group was chosen from.
        given: The keys that overrides named.
        folders: Where choices were looked for, the user's first.
    """

    data: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    choices: dict[str, str | None] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    folders: Sequence[Path] = ()

    def source(self, key: str) -> str:
        """Where the value of a dotted key was said: the command line, or a file; empty where nothing said it."""
        if any(key == name or key.startswith(f"{name}.") for name in self.given):
            return COMMAND_LINE
        group, _, rest = key.partition(".")
        for name, path in (("experiment", key), (group, rest)):
            file = _find(self.folders, f"{name}/{self.choices.get(name)}.yaml")
            if file is not None and path and _says(file, path):
                return str(file)
        root = _find(self.folders, "config.yaml")
        return str(root) if root is not None and _says(root, key) else ""


def load(overrides: Sequence[str] = (), config_dir: Path | None = None) -> Document:
    """Compose an experiment: groups chosen, values set.

    Args:
        overrides: ``group=choice`` or ``dotted.key=value``; ``~space.key`` drops a parameter.
        config_dir: The user's own folder of choices, laid over the packaged one.

    Raises:
        InvalidInput: The folder is missing, or a file in it is not YAML: nothing more can be checked then.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise InvalidInput(Problem("--config-dir", f"'{config_dir}' is not a folder"))
    folders = [folder for folder in (config_dir, packaged_conf()) if folder is not None]
    request = _take_apart(overrides, folders)
    data, choices = _compose(request, folders)
    if choices.get("experiment"):
        _prefer_chosen(data, request.groups, folders)
    space = data.get("space") or {}
    for key in request.removed:
        if key not in space:
            request.problems.append(Problem(f"~space.{key}", f"nothing to drop; {nearest(key, space)}", COMMAND_LINE))
        space.pop(key, None)
    for key, value in request.values.items():
        _set(data, key, value, request.problems)
    return Document(data, request.problems, choices, (*request.groups, *request.values), folders)


RESUMED = (
    "it stays as it is when a run is resumed, because the results so far depend on it; only {may} may change "
    "(a new run can have another, and learn from this one with prior.runs=…)"
)


def amend(data: dict[str, Any], overrides: Sequence[str], allowed: Sequence[str], *, why: str = RESUMED) -> Document:
    """A resolved experiment with some of its values changed.

    Args:
        data: The experiment as plain data; left as it is.
        overrides: ``dotted.key=value``.
        allowed: The keys that may change, top-level ones with all that is below them.
        why: What to say of another; ``{may}`` stands for those that may.
    """
    document, usable = Document(copy.deepcopy(data)), []
    for text in overrides:
        key, equals, _ = text.partition("=")
        key = key.strip().lstrip("+")
        top = key.removeprefix("~").partition(".")[0]
        if not {top, key.removeprefix("~")} & set(allowed) and (equals or key.startswith("~")):
            message = f"unknown key; {nearest(top, allowed)}"
            if top in data:
                may = ", ".join(f"'{name}'" for name in allowed)
                message = why.format(may=may)
            document.problems.append(Problem(key, message, COMMAND_LINE))
        elif equals and key in GROUPS:
            message = f"here it takes no choice from conf/: set its values, e.g. {key}.{next(iter(data[key]))}=…"
            document.problems.append(Problem(key, message, COMMAND_LINE))
        else:
            usable.append(text)
    request = _take_apart(usable, [])
    document.problems.extend(request.problems)
    document.given = tuple(request.values)
    for key, value in request.values.items():
        _set(document.data, key, value, document.problems)
    return document


def parse_value(text: str) -> Any:
    """One value as YAML means it; ``1e-4`` is a number.

    Raises:
        ValueError: It is not YAML, or uses anchors.
    """
    try:
        if any(isinstance(token, yaml.AliasToken | yaml.AnchorToken) for token in yaml.scan(text)):
            raise ValueError("YAML anchors and aliases are not taken here")
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "nested too deeply"
        raise ValueError(f"not a YAML value ({problem}): quote it") from None


def choices_of(group: str, folders: Sequence[Path]) -> list[str]:
    """The names of a group's choices."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})


def _take_apart(overrides: Sequence[str], folders: Sequence[Path]) -> _Request:
    request = _Request()
    for text in overrides:
        if text.startswith("~space."):
            request.removed.append(text.removeprefix("~space."))
            continue
        key, equals, value = text.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            request.problems.append(Problem(text or "''", "expected key=value", COMMAND_LINE))
        elif key in GROUPS:
            _choose(request, key, value.strip(), folders)
        elif key.startswith("space."):
            request.values[key] = value.strip()
        else:
            try:
                request.values[key] = parse_value(value)
            except ValueError as error:
                request.problems.append(Problem(key, f"{value!r} is {error}", COMMAND_LINE))
    return request


def _choose(request: _Request, group: str, choice: str, folders: Sequence[Path]) -> None:
    valid = choices_of(group, folders)
    if choice in valid:
        request.groups[group] = choice
    else:
        message = f"there is no '{choice}'; {nearest(choice, valid)}"
        request.problems.append(Problem(group, message, COMMAND_LINE))


def _compose(request: _Request, folders: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Let Hydra choose the groups; nothing of its logging or working folder is taken."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    overrides = [f"{group}={choice}" for group, choice in request.groups.items()]
    GlobalHydra.instance().clear()
    try:
        with _overlaid(folders) as folder, initialize_config_dir(str(folder), version_base="1.3"):
            composed = compose("config", overrides, return_hydra_config=True)
        choices = dict(composed.hydra.runtime.choices)
        OmegaConf.set_struct(composed, False)
        del composed["hydra"]
        document = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise InvalidInput(*request.problems, _composition_problem(error, folders)) from None
    assert isinstance(document, dict)  # `config.yaml` is a mapping
    return {str(key): value for key, value in document.items()}, choices


def _prefer_chosen(data: dict[str, Any], groups: Mapping[str, str], folders: Sequence[Path]) -> None:
    """Let a group that the user names win over what the experiment says beside its own choice of that group.

    Of searcher, scheduler and space nothing of the experiment's stays: ``scheduler=none`` has no use for another
    scheduler's options, and a space is a whole. Of other groups what the chosen file doesn't say stays.
    """
    for group, choice in groups.items():
        file = _find(folders, f"{group}/{choice}.yaml")
        if group == "experiment" or file is None:
            continue
        chosen = yaml.load(file.read_text(), _Loader) or {}
        if "defaults" in chosen:
            continue  # made of other files: Hydra has put it together
        whole = group in ("searcher", "scheduler", "space")
        data[group] = chosen if whole else {**(data.get(group) or {}), **chosen}


@contextlib.contextmanager
def _overlaid(folders: Sequence[Path]) -> Iterator[Path]:
    """One folder that holds them all, the first over the others: Hydra's own search path puts additions last."""
    if len(folders) == 1:
        yield folders[0].resolve()
        return
    with tempfile.TemporaryDirectory() as merged:
        for folder in reversed(folders):
            # Only what Hydra would read: a user's folder may hold anything else.
            for file in (folder / "config.yaml", *(f for group in GROUPS for f in (folder / group).glob("*.yaml"))):
                if file.is_file():
                    copy = Path(merged) / file.relative_to(folder)
                    copy.parent.mkdir(exist_ok=True)
                    shutil.copyfile(file, copy)
        yield Path(merged)


def _composition_problem(error: Exception, folders: Sequence[Path]) -> Problem:
    """What stopped Hydra: mostly a file that is not YAML, which its own message doesn't name."""
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            try:
                yaml.load(file.read_text(), _Loader)
            except (yaml.YAMLError, UnicodeDecodeError, OSError) as bad:
                mark = getattr(bad, "problem_mark", None)
                line = f" at line {mark.line + 1}" if mark else ""
                message = f"not YAML{line}: {getattr(bad, 'problem', bad)}; quote a value that holds ': ' or '{{'"
                return Problem(file.stem, message, str(file))
    return Problem("config", " ".join(str(error).split())[:400])


def _set(document: dict[str, Any], key: str, value: Any, problems: list[Problem]) -> None:
    """Put a value at its dotted key. A key of the space may itself hold dots (``space.training.lr``)."""
    first, dot, rest = key.partition(".")
    parts = [first, rest] if first == "space" and dot else key.split(".")
    node = document
    for part in parts[:-1]:
        if node.get(part) is None:
            node[part] = {}
        if not isinstance(node[part], dict):
            problems.append(Problem(key, f"'{part}' is a value, it has no keys", COMMAND_LINE))
            return
        node = node[part]
    if isinstance(node.get(parts[-1]), dict) and not isinstance(value, dict) and parts[-1] in document:
        message = f"it has keys of its own: set one of them, e.g. {key}.{next(iter(node[parts[-1]]))}=…"
        problems.append(Problem(key, message, COMMAND_LINE))
        return
    node[parts[-1]] = value


def _find(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _says(file: Path, key: str) -> bool:
    """Whether a YAML file gives this dotted key a value."""
    node = yaml.load(file.read_text(), _Loader)
    parts = key.split(".")
    while parts and isinstance(node, dict):
        for length in range(len(parts), 0, -1):  # the space's own keys may hold dots
            if ".".join(parts[:length]) in node:
                node, parts = node[".".join(parts[:length])], parts[length:]
                break
        else:
            return False
    return not parts
