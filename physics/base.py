"""Exists to say what a physics module is, and to give one's own front end all but three methods."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from physics import bounds
from physics.bounds import Parameter

Params = Any  # nested dict of float arrays
State = Any  # any pytree of arrays
Outputs = Any  # features, or audio for a synthesiser


@runtime_checkable
class PhysicsModule(Protocol):
    """What the training loop asks of a physics module; `Physics` explains each member."""

    @property
    def sample_rate_hz(self) -> float:
        """Samples of audio per second."""
        ...

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        ...

    @property
    def causal(self) -> bool:
        """May it be streamed?"""
        ...

    def num_frames(self, num_samples: int) -> int:
        """Frames of features from so many samples."""
        ...

    def init(self, key: Any) -> Params:
        """Initial params."""
        ...

    def physical(self, params: Params) -> Params:
        """Params in physical units."""
        ...

    def specs(self) -> Params:
        """A `Parameter` for each leaf."""
        ...

    def init_state(self, batch_shape: Any) -> State:
        """Memories at rest."""
        ...

    def apply(
        self, params: Params, inputs: Any, state: State = None, lengths: Any = None
    ) -> tuple[Outputs, State]:
        """Runs the module."""
        ...


@dataclasses.dataclass(frozen=True)
class Physics(abc.ABC):
    """Base of physics modules: subclass as a frozen dataclass; give `init`, `specs` and `apply`.

    A module is hashable and holds no arrays: it is a recipe. What is learned lives in `params`, a
    nested dict of arrays in the optimizer's coordinates; `physical` turns it into Hz, s and so on.

    Example (a bank of gains in two bands is not shown: see the README for a whole front end)::

        @dataclasses.dataclass(frozen=True)
        class Gain(Physics):
            def specs(self):
                return {"gain": Parameter("1", 0.1, 10.0, "Gain.", transform="log_logit")}

            def init(self, key):
                return self.raw({"gain": 1.0})

            def apply(self, params, inputs, state=None, lengths=None):
                return (self.physical(params)["gain"] * inputs)[:, :, None], state

    Attributes:
      sample_rate_hz: samples of audio per second.
      hop_samples: samples of audio per frame of features; 1 is full rate.
      causal: may it be streamed, passing `state` on from piece to piece?
      not_causal_because: why not, if not; a sentence for users.
    """

    sample_rate_hz: float | int = 16000.0

    causal: ClassVar[bool] = True
    not_causal_because: ClassVar[str] = ""

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame of features."""
        return 1

    @abc.abstractmethod
    def init(self, key: Any) -> Params:
        """Initial params, what the optimizer sees; `self.raw(...)` of physical values."""

    @abc.abstractmethod
    def specs(self) -> Params:
        """A tree like the params' whose leaves are `Parameter`."""

    @abc.abstractmethod
    def apply(
        self, params: Params, inputs: Any, state: State = None, lengths: Any = None
    ) -> tuple[Outputs, State]:
        """Runs the module.

        Args:
          params: as from `init`.
          inputs: audio `[batch, time]` or `[batch, time, ears]`, full scale 1.0 (or, for a
            synthesiser, a dict of controls).
          state: what an earlier piece returned; None starts afresh.
          lengths: `[batch]` int32, valid samples of each clip; what lies beyond changes nothing.

        Returns:
          Features `[batch, frames, channels]` (`[batch, frames, ears, channels]` for several ears),
          and the state after the piece.
        """

    def num_frames(self, num_samples: int) -> int:
        """Frames that `num_samples` samples of audio give."""
        return num_samples // self.hop_samples

    def init_state(self, batch_shape: Any) -> State:
        """Filter memories at rest; None for a module without memory."""
        del batch_shape
        return None

    def physical(self, params: Params) -> Params:
        """The same tree in physical units, inside the bounds."""
        return bounds.to_physical(self.specs(), params)

    def raw(self, physical: Params) -> Params:
        """Inverse of `physical`: the params that have these physical values.

        Raises:
          ValueError: a value is outside its interval.
        """
        specs = self.specs()
        paths = jax.tree_util.tree_map_with_path(
            lambda path, _: dotted(path), specs, is_leaf=bounds.is_parameter
        )
        return bounds.map_specs(bounds.to_raw, specs, physical, paths)

    def project(self, params: Params) -> Params:
        """Brings params back into bounds; the training loop calls it after every update."""
        return bounds.map_specs(bounds.project, self.specs(), params)

    def channel_frequencies_hz(self, params: Params) -> Float[Array, "*axes"] | None:
        """Centre frequencies of the feature channels, where the module has them."""
        del params
        return None


def dotted(path: tuple[Any, ...]) -> str:
    """A tree path as users write it: `car.ohc_health`."""
    return ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)


def sample_mask(num_samples: int, lengths: Int[Array, " batch"]) -> Bool[Array, "batch time"]:
    """True where a sample lies within its clip."""
    return jnp.arange(num_samples, dtype=lengths.dtype)[None, :] < lengths[:, None]


def frame_mask(
    num_frames: int, hop_samples: int, lengths: Int[Array, " batch"]
) -> Bool[Array, "batch frames"]:
    """True where a frame ends within its clip: frame i ends at sample (i + 1) * hop_samples."""
    ends = (jnp.arange(num_frames, dtype=lengths.dtype) + 1) * hop_samples
    return ends[None, :] <= lengths[:, None]


__all__ = [
    "Outputs",
    "Parameter",
    "Params",
    "Physics",
    "PhysicsModule",
    "State",
    "dotted",
    "frame_mask",
    "sample_mask",
]
