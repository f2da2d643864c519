"""The user's own objective: found by name, checked, and packed to travel to worker processes. Imports no Ray."""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
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
    if place.endswith(".py"):
        return _from_file((folder or Path.cwd()) / place, name)
    module = _from_package(place)
    function = getattr(module, name, None)
    if function is None:
        raise _no_function(place, module, name)
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
    """An objective as bytes that a worker process can run.

    One from a file travels as the file's text, so that what runs is what was there when the run started, on other
    machines too; one from a notebook travels by value, one from an installed package by name.

    Raises:
        InvalidInput: It holds something that cannot be pickled.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        if isinstance(function, FromFile):
            return pickle.dumps(function)
        return bytes(cloudpickle.dumps(function))
    except Exception as error:
        raise _mistake(f"'{name}' cannot be sent to a worker process: {error}") from None


@dataclass(frozen=True)
class FromFile:
    """An objective in a file, as the file's text: its module is made where it is first called.

    Attributes:
        path: The file, for tracebacks and ``__file__``.
        text: Its source.
        name: The function in it.
    """

    path: str
    text: str
    name: str

    def __call__(self, config: dict, trial: Any) -> None:
        """Run the objective."""
        self.function(config, trial)

    @property
    def function(self) -> Any:
        """The function itself; its module is made once a process."""
        module = sys.modules.get(self.module_name)
        if getattr(module, "_hpo_ray_text", None) != self.text:
            module = self._execute()
        return getattr(module, self.name, None)

    @property
    def module_name(self) -> str:
        """What the module is called in ``sys.modules``, where pickle looks for its functions and classes."""
        return f"hpo_ray_objective_{Path(self.path).stem}"

    def _execute(self) -> ModuleType:
        module = ModuleType(self.module_name)
        module.__file__ = self.path
        module._hpo_ray_text = self.text  # type: ignore[attr-defined]
        sys.modules[self.module_name] = module
        try:
            exec(compile(self.text, self.path, "exec"), module.__dict__)
        except BaseException:
            del sys.modules[self.module_name]
            raise
        return module


def _from_file(path: Path, name: str) -> FromFile:
    if not path.is_file():
        others = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise _mistake(f"there is no file '{path}'" + (f"; {nearest(path.name, others)}" if others else ""))
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # its neighbours import as they do when it is run as a script
    try:
        found = FromFile(str(path.resolve()), path.read_text(encoding="utf-8"), name)
        function = found.function
    except BaseException as error:
        raise _import_mistake(str(path), error) from None
    if function is None:
        raise _no_function(str(path), sys.modules[found.module_name], name)
    check_objective(function, f"{path}:{name}")
    return found


def _from_package(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except BaseException as error:
        raise _import_mistake(name, error) from None


def _no_function(place: str, module: ModuleType, name: str) -> InvalidInput:
    names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    return _mistake(f"'{place}' has no function '{name}'; {nearest(name, names)}")


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
