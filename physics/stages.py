"""Exists to say what a stage is: features in, features out, with parameters and a memory.

Compressors, lateral inhibition and cortical filters are stages; `physics.compose.Compose` puts them
after any front end and makes one physics module of all.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import jax
from jaxtyping import Array, Bool, Float

from physics import bounds
from physics.base import Params, State, dotted


@dataclasses.dataclass(frozen=True)
class FeatureLayout:
    """What a stage may know of the features before it sees them.

    Attributes:
      frame_rate_hz: frames per second.
      channels: shape of a frame, `(channels,)` or `(ears, channels)`; the last axis is place along
        the cochlea, or frequency, in the order of the front end.
    """

    frame_rate_hz: float
    channels: tuple[int, ...]

    @property
    def n_channels(self) -> int:
        """Size of the last axis."""
        return self.channels[-1]


@dataclasses.dataclass(frozen=True)
class Stage(abc.ABC):
    """Base of stages: subclass as a frozen dataclass; give `specs`, `initial` and `apply`.

    Like a physics module a stage is hashable and holds no arrays.

    Attributes:
      causal: may it be streamed, passing `state` on from piece to piece?
      not_causal_because: why not, if not; a sentence for users.
    """

    causal: ClassVar[bool] = True
    not_causal_because: ClassVar[str] = ""

    @abc.abstractmethod
    def specs(self, layout: FeatureLayout) -> Params:
        """A tree of `Parameter`, one for each leaf; {} for a stage without parameters."""

    @abc.abstractmethod
    def initial(self, layout: FeatureLayout) -> Params:
        """Initial values in physical units, a tree like `specs`."""

    @abc.abstractmethod
    def apply(
        self,
        physical: Params,
        features: Float[Array, "batch frames *channels"],
        layout: FeatureLayout,
        state: State = None,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> tuple[Float[Array, "batch frames *channels_out"], State]:
        """Runs the stage.

        Args:
          physical: parameters in physical units, inside their bounds.
          features: of the front end or of the stage before; 0 where `mask` is False.
          layout: of `features`.
          state: what an earlier piece returned; None starts afresh.
          mask: frames that are heard. Those that are not must not change those that are; what the
            stage gives for them is set to 0 by the caller.

        Returns:
          As many frames, of any shape, and the state after the piece.
        """

    def init_state(self, layout: FeatureLayout, batch: int) -> State:
        """Memories at rest; None for a stage without memory."""
        del layout, batch
        return None

    def raw(self, layout: FeatureLayout, physical: Params) -> Params:
        """The optimizer's coordinates of physical values.

        Raises:
          ValueError: a value is outside its interval.
        """
        specs = self.specs(layout)
        paths = jax.tree_util.tree_map_with_path(
            lambda path, _: dotted(path), specs, is_leaf=bounds.is_parameter
        )
        return bounds.map_specs(bounds.to_raw, specs, physical, paths)


__all__ = ["FeatureLayout", "Stage"]
