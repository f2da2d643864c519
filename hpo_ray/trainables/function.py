"""The user's own objective: found by name, checked, and packed to travel to worker processes. Imports no Ray."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from hpo_ray.errors import InvalidInput, Problem, nearest

KEY = "trainable.target"


def load_target(target: str, folder: Path | None = None) -> Callable[..., Any]:
    """The objective that ``path.py:name`` or ``package.module:name`` names.

    Args:
        target: A file, relative to `folder`, or a module; then a colon and the function's name.
        folder: Where relative paths start; None: the working folder.

    Raises:
        InvalidInput: The form is wrong, there is no such file, module or function, importing it fails, or the
            function doesn't take ``(config, trial)``.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise _mistake(f"'{target}' has no ':': expected path.py:name or package.module:name")
    module = _from_file((folder or Path.cwd()) / place) if place.endswith(".py") else _from_package(place)
    function = getattr(module, name, None)
    if function is None:
        names = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise _mistake(f"'{place}' has no function '{name}'; {nearest(name, names)}")
    check_objective(function, target)
    return function  # type: ignore[no-any-return]


def check_objective(function: object, name: str) -> None:
    """See that an objective can be called as ``train(config, trial)``.

    Raises:
        InvalidInput: It can't.
    """
    if not callable(function):
        raise _mistake(f"'{name}' is a {type(function).__name__}, expected a function train(config, trial)")
    try:
        inspect.signature(function).bind({}, None)
    except TypeError:
        given = inspect.signature(function)
        raise _mistake(f"'{name}' takes {given}, expected train(config, trial)") from None
    except ValueError:  # no signature to look at: a builtin, say
        return


def pack(function: Callable[..., Any]) -> bytes:
    """An objective as bytes: by value where a worker could not import it (a notebook, a file), else by name.

    Raises:
        InvalidInput: It holds something that cannot be pickled.
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    by_value = module is not None and getattr(module, "_hpo_ray_from_file", False)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(function))
    except Exception as error:
        name = getattr(function, "__name__", repr(function))
        raise _mistake(f"'{name}' cannot be sent to a worker process: {error}") from None
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        others = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise _mistake(f"there is no file '{path}'" + (f"; {nearest(path.name, others)}" if others else ""))
    name = f"_hpo_ray_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _mistake(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    module._hpo_ray_from_file = True  # type: ignore[attr-defined]
    sys.modules[name] = module
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # its neighbours import as they do when it is run as a script
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _import_mistake(str(path), error) from None
    return module


def _from_package(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except BaseException as error:
        raise _import_mistake(name, error) from None


def _import_mistake(place: str, error: BaseException) -> InvalidInput:
    """What went wrong while importing the user's module, with the line of theirs that did it."""
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, SyntaxError):
        return _mistake(f"'{place}' cannot be imported: line {error.lineno}: {error.msg}")
    trace = error.__traceback__
    line = ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(Path(place).name):
            line = f"line {trace.tb_lineno}: "
        trace = trace.tb_next
    return _mistake(f"'{place}' cannot be imported: {line}{type(error).__name__}: {error}")


def _mistake(message: str) -> InvalidInput:
    return InvalidInput(Problem(KEY, message))
