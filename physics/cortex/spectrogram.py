"""Exists to give learners the auditory spectrogram, the ear of the cortical models of Shamma's lab.

Chi, Ru and Shamma, "Multiresolution spectrotemporal analysis of complex sounds", J. Acoust. Soc.
Am. 118 (2005), section II.A, in the differentiable form of Famularo et al., arXiv 2409.08997:
cochlear filters, compression, lateral inhibition, leaky integration, one frame in 5 ms.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from jaxtyping import Array, Float

from physics import audio as ears
from physics.base import Parameter, Params, Physics, State
from physics.cortex import roex

_SOURCE = "Initial value: Famularo et al., arXiv 2409.08997, section 2.1. Bounds are ours."
_MOST_CHANNELS = 128
# The highest filter of the published bank is at 7246 Hz for 16 kHz.
_HIGHEST = 0.455
# Clips longer than this are worked on piece by piece, which bounds the memory they need.
_PIECE_S = 1.0


@dataclasses.dataclass(frozen=True)
class AuditorySpectrogram(Physics):
    """Constant-Q filters, compression, difference of neighbours, rectifier, leaky integration.

    Each frame looks back only, so that it may be streamed: the filters have the magnitude of the
    published roex shape, and the phase of least delay (`physics.cortex.roex`). They are fixed, as
    in the paper; learned are an exponent per filter and the time constant.

    One filter more than there are channels: a channel is a filter minus its upper neighbour.

    Attributes:
      sample_rate_hz: samples per second.
      n_channels: of the features; None takes 128, or as many as the sample rate has room for.
      n_ears: ears, which share the parameters.
      hop_s: time from frame to frame.
      lowest_hz: centre frequency of the lowest filter.
      channels_per_octave: filters per octave.
      q_erb: centre frequency over equivalent rectangular bandwidth of all filters.
      memory_s: length of the filters' impulse responses.
      full_scale_db_spl: level of a sample of 1.0 in dB SPL. Below 0 dB SPL the power law goes over
        into a straight line, so that its slope stays finite.
      exponent: initial exponent of the power law, of all channels or one for each filter.
      time_constant_s: initial time constant of the integration.
    """

    n_channels: int | None = None
    n_ears: int = 1
    hop_s: float | int = 0.005
    lowest_hz: float | int = 440.0 * 2.0 ** (-31 / 24)
    channels_per_octave: float | int = 24.0
    q_erb: float | int = 7.54
    memory_s: float | int = 0.128
    full_scale_db_spl: float | int = 100.0
    exponent: float | int | Sequence[float] = 1.0
    time_constant_s: float = 0.008

    def __post_init__(self):
        if isinstance(self.exponent, Sequence):
            object.__setattr__(self, "exponent", tuple(self.exponent))
        ears.check_positive(self, "sample_rate_hz", "n_channels", "n_ears", "hop_s", "memory_s")
        ears.check_positive(self, "lowest_hz", "channels_per_octave", "q_erb")
        room = self._room()
        if self.n_channels is None:
            object.__setattr__(self, "n_channels", max(1, min(_MOST_CHANNELS, room)))
        if self.n_filters > room + 1:
            raise ValueError(
                f"The highest filter lies below {_HIGHEST:g} of the sample rate; {self.n_filters} "
                f"filters from {self.lowest_hz:g} Hz, {self.channels_per_octave:g} per octave, do "
                f"not fit {float(self.sample_rate_hz):g} Hz. Have n_channels <= {room}, or more "
                "samples per second."
            )
        self.init(None)  # says now what is wrong with the initial values

    def _room(self) -> int:
        """Channels, one less than filters, below the highest frequency."""
        octaves = np.log2(_HIGHEST * self.sample_rate_hz / self.lowest_hz)
        return int(np.floor(octaves * self.channels_per_octave + 1e-9))

    @property
    def n_filters(self) -> int:
        """Cochlear filters."""
        assert self.n_channels is not None
        return self.n_channels + 1

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return ears.samples(self.hop_s, self.sample_rate_hz)

    @property
    def num_taps(self) -> int:
        """Samples of a filter's impulse response."""
        return ears.samples(self.memory_s, self.sample_rate_hz)

    @property
    def filter_frequencies_hz(self) -> np.ndarray:
        """Centre frequencies of the filters, one more than channels."""
        return roex.log_spaced_hz(self.lowest_hz, self.channels_per_octave, self.n_filters)

    def specs(self) -> Params:
        """The exponents `[filters]` and the time constant."""
        return {
            "exponent": Parameter(
                "1", 0.1, 2.0, "Exponent of the power law after each filter.", _SOURCE
            ),
            "time_constant_s": Parameter(
                "s",
                0.001,
                0.1,
                "Time constant of the leaky integration.",
                "A pole of 0.992 at 16 kHz. " + _SOURCE,
                "log_logit",
            ),
        }

    def init(self, key: Any) -> Params:
        """Initial params; nothing about them is random."""
        del key
        if np.size(self.exponent) not in (1, self.n_filters):
            raise ValueError(
                f"exponent is one number, or one for each of {self.n_filters} filters (one more "
                f"than channels); got {np.size(self.exponent)}."
            )
        exponent = np.broadcast_to(self.exponent, self.n_filters)
        return self.raw({"exponent": exponent, "time_constant_s": self.time_constant_s})

    def channel_frequencies_hz(self, params: Params) -> Float[Array, " channels"]:
        """Midway, on the logarithmic axis, between the two filters of a channel."""
        del params
        centres = np.sqrt(self.filter_frequencies_hz[1:] * self.filter_frequencies_hz[:-1])
        return jnp.asarray(centres, jnp.result_type(float))

    def init_state(self, batch_shape: Any) -> State:
        """Past samples `[batch * ears, taps - 1]` and integrators `[batch * ears, channels]`."""
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        return self._rest(batch * self.n_ears, jnp.result_type(float))

    def _rest(self, rows: int, dtype: Any) -> dict[str, Array]:
        return {
            "samples": jnp.zeros((rows, self.num_taps - 1), dtype),
            "level": jnp.zeros((rows, self.n_channels or 0), dtype),
        }

    def apply(
        self,
        params: Params,
        inputs: Float[Array, "batch time *ears"],
        state: State = None,
        lengths: Any = None,
    ) -> tuple[Float[Array, "batch frames *channels"], State]:
        """Audio to frames; see `Physics.apply`.

        Samples after the last whole frame are left out.

        Raises:
          ValueError: audio of another shape or number of ears; a later piece of a stream that is
            not a multiple of `hop_samples`.
        """
        audio = ears.heard(inputs, self.n_ears, params, lengths)
        ears.check_piece(audio.shape[-1], self.hop_samples, state)
        frames = self.num_frames(audio.shape[-1])
        rows = audio.reshape(-1, audio.shape[-1])[:, : frames * self.hop_samples]
        if state is None:
            state = self._rest(rows.shape[0], rows.dtype)
        state = jax.tree.map(lambda x: x.astype(rows.dtype), state)
        state, features = self._in_pieces(self.physical(params), state, rows)
        features = features.reshape(*audio.shape[:2], frames, self.n_channels)
        return ears.told(features, self.hop_samples, lengths), state

    @functools.partial(jax.jit, static_argnums=0)
    def _in_pieces(self, physical: Params, state: State, rows: Array) -> tuple[State, Array]:
        """A short clip at once; of a long one, piece by piece, whose insides are not kept."""
        piece = self.hop_samples * max(1, round(_PIECE_S / self.hop_s))
        whole = rows.shape[1] // piece
        if whole < 3:
            return self._piece(physical, state, rows)
        pieces = rows[:, : whole * piece].reshape(-1, whole, piece).swapaxes(0, 1)
        body = jax.checkpoint(lambda carry, x: self._piece(physical, carry, x))
        state, features = jax.lax.scan(body, state, pieces)
        features = features.swapaxes(0, 1).reshape(rows.shape[0], -1, features.shape[-1])
        if rest := rows.shape[1] - whole * piece:
            state, last = self._piece(physical, state, rows[:, -rest:])
            features = jnp.concatenate([features, last], axis=1)
        return state, features

    def _piece(self, physical: Params, state: State, rows: Array) -> tuple[State, Array]:
        """The chain: filters, power law, difference of neighbours, rectifier, leaky integration."""
        heard = jnp.concatenate([state["samples"], rows], axis=1)
        filtered = self._filtered(heard, rows.shape[1])
        compressed = self._compressed(filtered, physical["exponent"])
        # Along the cochlea the steep side of a filter decides: a filter minus its upper neighbour.
        sharpened = jax.nn.relu(compressed[:, :-1] - compressed[:, 1:])
        features, level = self._integrated(sharpened, physical["time_constant_s"], state["level"])
        return {"samples": heard[:, rows.shape[1] :], "level": level}, features

    def _filtered(self, heard: Array, num_samples: int) -> Array:
        """`[rows, filters, samples]`: convolution by one transform of the whole piece."""
        size = scipy.fft.next_fast_len(max(1, heard.shape[1]), real=True)
        taps = roex.impulse_responses(
            self.sample_rate_hz,
            self.num_taps,
            self.lowest_hz,
            self.channels_per_octave,
            self.n_filters,
            self.q_erb,
        )
        gains = np.fft.rfft(taps, size)
        spectrum = jnp.fft.rfft(heard, size)
        product = spectrum[:, None] * jnp.asarray(gains, spectrum.dtype)[None]
        # Circular: the end folds back onto the first samples only, which are those of the past.
        past = self.num_taps - 1
        return jnp.fft.irfft(product, size)[:, :, past : past + num_samples]

    def _compressed(self, x: Array, exponent: Array) -> Array:
        """sign(x) |x| ** exponent, but for what lies below 0 dB SPL."""
        threshold = 10.0 ** (-self.full_scale_db_spl / 20)
        power = x * x + threshold**2
        return x * jnp.exp((0.5 * (exponent - 1.0))[None, :, None] * jnp.log(power))

    def _integrated(self, x: Array, time_constant_s: Array, level: Array) -> tuple[Array, Array]:
        """y[n] = x[n] + pole y[n - 1], at the last sample of each frame."""
        hop = self.hop_samples
        rows, channels, num_samples = x.shape
        frames = num_samples // hop
        decay = -1.0 / (self.sample_rate_hz * time_constant_s)
        age = jnp.asarray(np.arange(hop)[::-1].copy(), x.dtype)
        # Two columns, of which one is wanted: a product with a single one XLA makes into a sum,
        # into which it pulls the power law, logarithm by logarithm; six times as slow.
        columns = jnp.exp(age * decay)[:, None] * jnp.ones((1, 2), x.dtype)
        within = (x.reshape(rows, channels, frames, hop) @ columns)[..., 0]
        # From frame to frame the same recursion, with the pole of a whole frame, as one product.
        later = np.arange(frames)[:, None] - np.arange(frames)[None]
        passed = jnp.asarray(hop * np.maximum(later, 0), x.dtype)
        weights = jnp.where(later >= 0, jnp.exp(passed * decay), 0.0)
        since = jnp.asarray(hop * np.arange(1, frames + 1), x.dtype)
        start = jnp.exp(since * decay)[None, :, None] * level[:, None, :]
        features = jnp.einsum("rcs,ts->rtc", within, weights) + start
        return features, features[:, -1] if frames else level
