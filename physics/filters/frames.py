"""Exists to offer filters as front ends: what they let through, or how strong it is in frames."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics import audio as ears
from physics.base import Params, Physics
from physics.spectra import short_time


@dataclasses.dataclass(frozen=True)
class Filters(Physics):
    """Base of causal filters; subclasses give `init_filters` and `filtered`.

    Attributes:
      sample_rate_hz: samples of audio per second.
      n_ears: signals of the audio, each filtered in the same way.
      hop_s: seconds per frame, rounded to samples: features are root mean squares of frames. None
        gives the outputs themselves, at full rate.
    """

    n_ears: int = 1
    hop_s: float | int | None = None

    def __post_init__(self):
        ears.check_positive(self, "sample_rate_hz", "n_ears", "hop_s")

    @abc.abstractmethod
    def init_filters(self, batch: int) -> Any:
        """Memories of the filters at rest."""

    @abc.abstractmethod
    def filtered(
        self, physical: Params, audio: Float[Array, "batch ears time"], state: Any
    ) -> tuple[Float[Array, "batch ears channels time"], Any]:
        """Outputs, and the memories after them."""

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return ears.samples(self.hop_s, self.sample_rate_hz)

    def init_state(self, batch_shape: Any) -> Any:
        """Memories of the filters at rest."""
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        return self.init_filters(batch)

    def apply(self, params: Params, inputs: Any, state: Any = None, lengths: Any = None) -> Any:
        """Features of audio.

        Args:
          params: as from `init`.
          inputs: audio `[batch, time]` or `[batch, time, ears]`.
          state: from an earlier piece; pieces are multiples of `hop_samples`, and what is left over
            at the end of the last one makes no frame.
          lengths: `[batch]` valid samples; frames that end beyond are 0.

        Returns:
          Features `[batch, frames, channels]` (`[batch, frames, ears, channels]` for several ears),
          and the state.

        Raises:
          ValueError: audio of another shape or for other ears, or a piece that ends within a frame.
        """
        audio = ears.heard(inputs, self.n_ears, params, lengths)
        ears.check_piece(audio.shape[-1], self.hop_samples, state)
        before = self.init_state(audio.shape[0]) if state is None else state
        return _run(self, params, audio, before, lengths)

    def features(
        self, y: Float[Array, "batch ears channels time"]
    ) -> Float[Array, "batch ears features frames"]:
        """What is told of the outputs: their root mean square in frames, or they themselves."""
        return y if self.hop_s is None else short_time.root(jnp.mean(self.hops(y) ** 2, axis=-1))

    def hops(self, y: Array) -> Array:
        """Outputs cut into frames, `[batch, ears, channels, frames, hop]`."""
        hop, n_frames = self.hop_samples, self.num_frames(y.shape[-1])
        return y[..., : n_frames * hop].reshape(*y.shape[:-1], n_frames, hop)


@functools.partial(jax.jit, static_argnums=0)
def _run(module: Filters, params: Params, audio: Any, before: Any, lengths: Any) -> Any:
    before = jax.tree.map(lambda memory: memory.astype(audio.dtype), before)
    y, after = module.filtered(module.physical(params), audio, before)
    features = jnp.swapaxes(module.features(y), 2, 3)
    return ears.told(features, module.hop_samples, lengths), after
