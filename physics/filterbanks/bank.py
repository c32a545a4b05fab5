"""Exists to give filter banks their frames: causal by delay, or centred as papers have them."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from physics import audio as ears
from physics.base import Params, Physics, State
from physics.filterbanks import pooling


@dataclasses.dataclass(frozen=True)
class Filterbank(Physics):
    """Base of banks of finite impulse responses whose outputs are detected and pooled to frames.

    Subclass as a frozen dataclass; give `specs`, `init`, `taps`, `filters`, and `windows` if the
    window is no Hann window. All ears share the filters. The state is the past of the audio.

    Attributes:
      sample_rate_hz: samples of audio per second.
      n_channels: filters.
      n_ears: signals that go through them.
      hop_s: seconds per frame, rounded to samples.
      window_s: seconds over which a frame pools, at least a hop.
      detector: what of a filter's output is pooled: "modulus", "square", or "halfwave", the real
        part where it is positive.
    """

    n_channels: int = 40
    n_ears: int = 1
    hop_s: float | int = 0.01
    window_s: float | int = 0.025
    detector: str = "modulus"

    def __post_init__(self):
        ears.check_positive(self, "sample_rate_hz", "n_channels", "n_ears", "hop_s", "window_s")
        ears.one_of("detector", self.detector, pooling.DETECTORS)
        if self.window_s < self.hop_s:
            raise ValueError(
                "A frame's window must be at least its hop, lest sound between frames be missed; "
                f"got hop_s={self.hop_s:g} and window_s={self.window_s:g}. Raise window_s."
            )

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return ears.samples(self.hop_s, self.sample_rate_hz)

    @property
    def window_samples(self) -> int:
        """Samples of a channel's output over which a frame pools."""
        return ears.samples(self.window_s, self.sample_rate_hz)

    @property
    @abc.abstractmethod
    def taps(self) -> int:
        """Samples of an impulse response."""

    @abc.abstractmethod
    def filters(self, physical: Params) -> Inexact[Array, "channels taps"]:
        """Impulse responses, real or complex, of parameters in physical units."""

    def windows(self, physical: Params) -> Float[Array, "channels window"]:
        """What weighs a channel's output in the frames: the mean under a Hann window."""
        weights = pooling.hann_mean(self.window_samples)
        weights = jnp.asarray(weights, jax.tree.leaves(physical)[0].dtype)
        return jnp.broadcast_to(weights[None], (self.n_channels, self.window_samples))

    def finish(
        self, features: Float[Array, "clips frames channels"]
    ) -> Float[Array, "clips frames channels"]:
        """Last step, before frames beyond a clip's length become 0."""
        return features

    @property
    def lookahead_samples(self) -> int:
        """Samples beyond its end that a frame sees; 0 for causal frames."""
        return 0

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Whether it may be streamed: if frames see nothing beyond their ends."""
        return self.lookahead_samples == 0

    @property
    def not_causal_because(self) -> str:  # type: ignore[override]
        """Why not, if not."""
        if self.causal:
            return ""
        return (
            f"Centred frames look {self.lookahead_samples} samples ahead, as published; with "
            "centred=False they come that much later and can be streamed."
        )

    def init_state(self, batch_shape: Any) -> State:
        """Silence before the clip, `[batch, ears, past]`; None if frames are centred."""
        if not self.causal:
            return None
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        return jnp.zeros((batch, self.n_ears, self._past_samples))

    @property
    def _segments(self) -> int:
        return -(-self.window_samples // self.hop_samples)

    @property
    def _past_samples(self) -> int:
        """Samples before a frame's first that it sees: later ones are its own hop."""
        return (self._segments - 1) * self.hop_samples + self.taps - 1

    def apply(self, params: Params, inputs: Any, state: State = None, lengths: Any = None) -> Any:
        """Features of audio.

        Args:
          params: as from `init`.
          inputs: audio `[batch, time]` or `[batch, time, ears]`.
          state: from an earlier piece; pieces are multiples of `hop_samples`, and what is left over
            at the end of the last one makes no frame. None starts afresh.
          lengths: `[batch]` valid samples; frames that end beyond are 0.

        Returns:
          Features `[batch, frames, channels]` (`[batch, frames, ears, channels]` for several ears),
          and the state, None if frames are centred.

        Raises:
          ValueError: audio of another shape or for other ears; a piece that ends within a frame; a
            state for centred frames.
        """
        audio = ears.heard(inputs, self.n_ears, params, lengths)
        ears.check_piece(audio.shape[-1], self.hop_samples, state)
        inside = None
        if self.causal:
            audio, state = self._after(audio, state)
        else:
            if state is not None:
                raise ValueError(
                    "Centred frames cannot be streamed, for they look ahead; got a state. Set "
                    "centred=False, or pass whole clips without a state."
                )
            audio, inside = self._around(audio, lengths)
        physical = self.physical(params)
        surplus = self._segments * self.hop_samples - self.window_samples
        features = pooling.pooled(
            audio.reshape(-1, audio.shape[-1]),
            self.filters(physical),
            jnp.pad(self.windows(physical), ((0, 0), (surplus, 0))),
            self.hop_samples,
            self.detector,
            inside,
        )
        features = self.finish(features)
        features = features.reshape(*audio.shape[:2], *features.shape[1:])
        return ears.told(features, self.hop_samples, lengths), state

    def _after(self, audio: Float[Array, "batch ears time"], state: State):
        """Audio with what was before it, and what the next piece needs of it."""
        past = self.init_state(audio.shape[0]) if state is None else state
        whole = self.num_frames(audio.shape[-1]) * self.hop_samples
        audio = jnp.concatenate([past.astype(audio.dtype), audio[..., :whole]], axis=-1)
        return audio, audio[..., whole:]

    def _around(self, audio: Float[Array, "batch ears time"], lengths: Any):
        """Audio padded on both sides, and where the middle of a filter lies in the clip.

        What filters give beyond the ends of a clip is left out, as by a "same" convolution.
        """
        n_samples = audio.shape[-1]
        end = self.num_frames(n_samples) * self.hop_samples
        before = self._past_samples - self.lookahead_samples
        after = max(0, end + self.lookahead_samples - n_samples)
        audio = jnp.pad(audio, ((0, 0), (0, 0), (before, after)))
        ends = jnp.full(audio.shape[0], n_samples) if lengths is None else jnp.asarray(lengths)
        ends = jnp.repeat(ends, self.n_ears)
        place = jnp.arange(end + self._past_samples - self.taps + 1, dtype=ends.dtype)
        middle = (place + (self.taps // 2 - before))[None]
        inside = (middle >= 0) & (middle < ends[:, None])
        return audio[..., : end + self._past_samples], inside.astype(audio.dtype)


def same_lookahead(taps: int, window_samples: int, hop_samples: int) -> int:
    """Lookahead of "same" padding, of filters and windows, in clips of a multiple of the hop.

    Frame i pools from (window - hop) // 2 before its first sample on, and filters, of odd length,
    reach half of it beyond.
    """
    return window_samples - hop_samples - (window_samples - hop_samples) // 2 + taps // 2


def odd_samples(seconds: float | int, sample_rate_hz: float | int) -> int:
    """Samples of a filter or window about a middle one: twice half of it, and one."""
    return 2 * round(0.5 * seconds * sample_rate_hz) + 1
