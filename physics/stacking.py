"""Exists to put one physics module on top of another: the params stay those of the lower one."""

from __future__ import annotations

import abc
import dataclasses
import inspect
import pkgutil
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Array, Float

from physics.base import Params, Physics, PhysicsModule

# What `pkgutil.resolve_name` imports besides these, nobody who checks a config takes for a path.
IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Stacked(Physics):
    """Base of modules that work on what another module, their `inner`, gives."""

    @property
    @abc.abstractmethod
    def inner(self) -> Any:
        """The module whose params these are."""

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Whether `inner` may be streamed."""
        return self.inner.causal

    @property
    def not_causal_because(self) -> str:  # type: ignore[override]
        """Why `inner` may not."""
        return getattr(self.inner, "not_causal_because", "")

    def specs(self) -> Any:
        """Those of `inner`."""
        return self.inner.specs()

    def init(self, key: Any = None) -> Params:
        """Initial params of `inner`."""
        return self.inner.init(key)

    def physical(self, params: Params) -> Params:
        """Params of `inner` in physical units."""
        return self.inner.physical(params)

    def project(self, params: Params) -> Params:
        """Params of `inner` back in bounds."""
        own = getattr(self.inner, "project", super().project)
        return own(params)

    def channel_frequencies_hz(self, params: Params) -> Float[Array, "*axes"] | None:
        """Centre frequencies of the channels of `inner`, to which the params belong."""
        own = getattr(self.inner, "channel_frequencies_hz", super().channel_frequencies_hz)
        return own(params)


def built(
    settings: Any, target: str, sample_rate_hz: Any, offered: Mapping[str, Any] | None = None
) -> Any:
    """A physics module from its settings, or as given.

    Args:
      settings: a `PhysicsModule`, or a mapping of what it is constructed with, of which "target"
        is its import path.
      target: the import path if the mapping has none.
      sample_rate_hz: of the audio; None leaves it to the module.
      offered: see `made`.

    Raises:
      ValueError: something else, or a module of another sample rate.
    """
    module = settings
    if isinstance(settings, Mapping):
        known = {} if sample_rate_hz is None else {"sample_rate_hz": sample_rate_hz}
        module = made(settings, target, known, ("num_frames", "init", "specs", "apply"), offered)
    if not isinstance(module, PhysicsModule):
        raise ValueError(
            "A module inside another must be a PhysicsModule, or the settings of one "
            f"({{'target': {target!r}, ...}}); got {module!r}."
        )
    if sample_rate_hz is not None and float(module.sample_rate_hz) != float(sample_rate_hz):
        raise ValueError(
            "Modules that hear the same audio share its sample rate; got sample_rate_hz="
            f"{float(sample_rate_hz):g} and {float(module.sample_rate_hz):g} inside. Leave one out."
        )
    return module


def made(
    settings: Mapping[str, Any],
    target: str | None,
    known: Mapping[str, Any],
    members: Sequence[str],
    offered: Mapping[str, Any] | None = None,
) -> Any:
    """What settings name, built; no class is called that lacks the members it should have.

    Args:
      settings: see `built`.
      target: the import path if there is none among them.
      known: further arguments, which the settings may override.
      members: names that the class must have.
      offered: arguments for those classes that have such ones, which the settings may override.

    Raises:
      ValueError: there is no such thing, it is something else, or it refuses its settings.
    """
    path = settings.get("target", target)
    kwargs = dict(known) | {name: value for name, value in settings.items() if name != "target"}
    try:
        # Looked at before it is called: a class of something else must not do its work here.
        if not isinstance(path, str) or not IMPORT_PATH.fullmatch(path):
            raise TypeError("it is no such path")
        thing = pkgutil.resolve_name(path)
        if not isinstance(thing, type):
            raise TypeError(f"it is a {type(thing).__name__}, no class")
        if missing := [name for name in members if not hasattr(thing, name)]:
            raise TypeError(f"it lacks {', '.join(missing)}")
        takes = inspect.signature(thing).parameters if offered else {}
        return thing(**{n: v for n, v in (offered or {}).items() if n in takes} | kwargs)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(
            "A module inside another is built from 'target', an import path "
            f"'package.module:Name', and its settings; {path!r} with {kwargs} failed: {error}"
        ) from error
