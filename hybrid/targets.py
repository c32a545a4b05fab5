"""The one rule for import paths in a config: what may be imported, and what may then be called.

A config names code, and a work directory that somebody sent holds a config. So a path is looked at
before anything is imported, and what it names is looked at before it is called.
"""

import difflib
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from hybrid.config import PARTS
from physics.stacking import IMPORT_PATH

# What comes along with this library.
OWN_PACKAGES = ("hybrid", "physics", "learners", "data", "experiments")


class BuildError(ValueError):
    """A config whose parts cannot be built or do not fit; says which field, what and why."""


def import_paths(config: ConfigDict, parts: Collection[str] = PARTS) -> dict[str, str]:
    """Returns every text of the parts that has the form of an import path, by its field."""
    return {
        field: text
        for part in parts
        for field, text in _texts(config[part].to_dict(), f"config.{part}")
        if IMPORT_PATH.fullmatch(text) and field != "config.data.root"
    }


def packages(config: ConfigDict) -> tuple[str, ...]:
    """Returns the top-level packages that a config names, for a caller who trusts them all."""
    return tuple(sorted({_top(path) for path in import_paths(config).values()}))


def check_targets(
    config: ConfigDict,
    trusted: Collection[str] | None = None,
    parts: Collection[str] = PARTS,
) -> None:
    """Refuses paths that a config may not name, before anything of it is built.

    Args:
        config: with the four parts of a run.
        trusted: packages whose code may run beside this library's own; None trusts all that the
            config names, for whoever wrote it.
        parts: which of the parts are built.

    Raises:
        BuildError: a target in Python's standard library; with `trusted`, any path to code that is
            not of this library or of a trusted package, and a target that is nearly a path.
    """
    if trusted is not None:
        _refuse_malformed(config, parts)
    allowed = {*OWN_PACKAGES, *(trusted or ())}
    for field, path in import_paths(config, parts).items():
        is_target = field.rpartition(".")[2] == "target"
        if is_target:
            _refuse_standard_library(path, field)
        if trusted is None:
            continue
        if _top(path) not in allowed:
            raise BuildError(
                f"{field} is {path!r}: opening a run runs only code of this library "
                f"({', '.join(OWN_PACKAGES)}) and of packages that you trust. If you trust "
                f"{_top(path)!r}, say so: trusted=({_top(path)!r},), or --trust={_top(path)}"
            )
        if is_target:
            thing = resolve(path, field)
            home = getattr(thing, "__module__", None) or path
            if _top(home) not in allowed:
                raise BuildError(
                    f"{field} is {path!r}, which is code of {home!r}: a path must lead to what its "
                    "own package defines, not to what that has imported"
                )


def resolve(path: Any, field: str) -> Any:
    """Returns the object at an import path `package.module:Name`.

    Raises:
        BuildError: a malformed path, one into Python's standard library, a module that cannot be
            imported, a name that it does not have or has only imported as a module.
    """
    if not isinstance(path, str) or not IMPORT_PATH.fullmatch(path):
        raise BuildError(
            f"{field} must be an import path 'package.module:Name', got {path!r}: write for "
            "example 'physics.carfac:Carfac'"
        )
    _refuse_standard_library(path, field)
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise BuildError(
            f"{field} names the module {module_name!r}, which cannot be imported ({error}): is its "
            "folder on PYTHONPATH or its package installed?"
        ) from error
    target = module
    for part in name.split("."):
        if not hasattr(target, part):
            close = difflib.get_close_matches(part, dir(target), n=3)
            hint = f"; near names: {', '.join(close)}" if close else ""
            raise BuildError(f"{field}: {module_name!r} has no {part!r}{hint}")
        target = getattr(target, part)
        if isinstance(target, types.ModuleType):
            raise BuildError(
                f"{field}: {part!r} of {path!r} is a module: write 'package.module:Name' with the "
                "whole name of the module before the colon"
            )
    return target


def check_callable(target: Any, methods: Collection[str], what: str, field: str, path: str) -> None:
    """Refuses what cannot make the part that is wanted, before it is called.

    Args:
        target: what the path named.
        methods: that the class of the part must have.
        what: the part, for the message.
        field: of the config, for the message.
        path: of the target, for the message.

    Raises:
        BuildError: it is neither a class with these methods nor a function whose return annotation
            is one.
    """
    rule = f"{field} must satisfy the {what} protocol"
    made = target
    if inspect.isroutine(target):
        made = _returned(target)
        if made is None:
            raise BuildError(
                f"{rule}; {path!r} is a function that does not say what it returns: annotate it "
                "(-> TheClass), or give the class"
            )
    if not inspect.isclass(made):
        raise BuildError(f"{field} must be a class or function, got {target!r}")
    missing = [name for name in methods if not _has(made, name)]
    if missing:
        raise BuildError(
            f"{rule}; {path!r} lacks {', '.join(missing)} (a {what} has {', '.join(methods)})"
        )


def _has(kind: type, name: str) -> bool:
    # Every class can be called, which says nothing of its instances.
    return any(name in vars(base) for base in kind.__mro__[:-1])


def _returned(function: Any) -> Any:
    """Returns the class that a function says it returns, or None."""
    try:
        found = typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):
        return None
    return found if inspect.isclass(found) and found is not type(None) else None


def _refuse_standard_library(path: str, field: str) -> None:
    if _top(path) in sys.stdlib_module_names:
        raise BuildError(
            f"{field} is {path!r}, of Python's standard library, which holds no part of a run: it "
            "is neither imported nor called. Give a class that satisfies the protocol"
        )


def _refuse_malformed(config: ConfigDict, parts: Collection[str]) -> None:
    """Refuses what stands where a path is expected and is none: it might be imported unseen."""
    for part in parts:
        for field, text in _texts(config[part].to_dict(), f"config.{part}"):
            expected = re.search(r"\.target(\W|$)", field)
            if expected and ":" in text and not IMPORT_PATH.fullmatch(text):
                raise BuildError(
                    f"{field} must be an import path 'package.module:Name', got {text!r}: opening "
                    "a run imports nothing that is written in another way"
                )


def _top(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]


def _texts(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, f"{field}.{name}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, f"{field}[{index}]")
