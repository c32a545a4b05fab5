"""Exists to hear spectrograms as auditory cortex does: by how fast and how densely they change.

Spectrotemporal receptive fields (STRFs) of Chi, Ru and Shamma, J. Acoust. Soc. Am. 118 (2005),
section II.B, each with a rate (Hz) and a scale (cycles per octave) that are learned, as in Famularo
et al., arXiv 2409.08997, section 2.2.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from physics.base import Parameter, Params, State
from physics.stages import FeatureLayout, Stage

# The paper's grid of 40; it draws them at random, too.
RATES_HZ = tuple(np.geomspace(2.0, 32.0, 4).tolist())
SCALES_CYC_PER_OCT = tuple(np.geomspace(0.25, 8.0, 5).tolist())

_SOURCE = "Initial values: Famularo et al., arXiv 2409.08997, section 2.2. Bounds are ours."
_DECAY = 3.5  # of the rate filter's envelope, per cycle


@dataclasses.dataclass(frozen=True)
class Strf(Stage):
    """A bank of STRFs over spectrograms whose channels are evenly spaced in octaves.

    In time an STRF is sin(2 pi t) t^2 exp(-3.5 t) with t in cycles of its rate and its mean
    removed, along the cochlea a band of ripples of gain R^2 exp(1 - R^2) with R in units of its
    scale. Both are made one-sided in modulation frequency, so that their product answers to ripples
    that move one way: the first half of the bank to those that move down in frequency, the second
    half to those that move up. A ripple of an STRF's own rate and scale comes out with half its
    amplitude (the real part of a one-sided filter of gain 1).

    The published rate filter is made one-sided by zeroing half its spectrum, which makes it look
    ahead. Here its other half is the cosine with the same envelope, which looks back, as the sine
    does, and lets 2 % of the wrong direction's amplitude through; so the stage may be streamed.

    Each rate with each scale, in both directions, makes 2 x 4 x 5 = 40 STRFs, from which learning
    starts. Features `[batch, frames, channels]` become `[batch, frames, strfs, channels]`, several
    ears `[batch, frames, ears * strfs, channels]`: the last axis stays place.

    Attributes:
      rates_hz: initial rates.
      scales_cyc_per_oct: initial scales, cycles per octave.
      channels_per_octave: of the features.
      memory_s: how far an STRF looks back; the slowest rate is one cycle of that.
    """

    rates_hz: Sequence[float | int] = RATES_HZ
    scales_cyc_per_oct: Sequence[float | int] = SCALES_CYC_PER_OCT
    channels_per_octave: float | int = 24.0
    memory_s: float | int = 1.0

    def __post_init__(self):
        for name in ("rates_hz", "scales_cyc_per_oct"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def n_strfs(self) -> int:
        """Receptive fields, of both directions."""
        return 2 * len(self.rates_hz) * len(self.scales_cyc_per_oct)

    def specs(self, layout: FeatureLayout) -> Params:
        """Rate and scale of each STRF, `[strfs]`."""
        slowest, fastest = 1.0 / self.memory_s, 0.4 * layout.frame_rate_hz
        finest = 0.45 * self.channels_per_octave
        return {
            "rate_hz": Parameter(
                "Hz",
                slowest,
                fastest,
                "How often per second the preferred pattern changes.",
                _SOURCE,
                "log_logit",
            ),
            "scale_cyc_per_oct": Parameter(
                "cycles/octave",
                0.1,
                finest,
                "How densely the preferred pattern changes along the cochlea.",
                _SOURCE,
                "log_logit",
            ),
        }

    def initial(self, layout: FeatureLayout) -> Params:
        """The grid of rates and scales, once for each direction."""
        del layout
        if not self.rates_hz or not self.scales_cyc_per_oct:
            raise ValueError(
                f"There is a rate and a scale; got rates_hz={self.rates_hz}, "
                f"scales_cyc_per_oct={self.scales_cyc_per_oct}. Give one of each or more."
            )
        rates, scales = np.meshgrid(self.rates_hz, self.scales_cyc_per_oct, indexing="ij")
        return {
            "rate_hz": np.tile(rates.astype(float).ravel(), 2),
            "scale_cyc_per_oct": np.tile(scales.astype(float).ravel(), 2),
        }

    def init_state(self, layout: FeatureLayout, batch: int) -> State:
        """The last frames, `[batch * ears, memory - 1, channels]`."""
        rows = batch * math.prod(layout.channels[:-1])
        past = self._memory(layout) - 1
        return jnp.zeros((rows, past, layout.n_channels), jnp.result_type(float))

    def _memory(self, layout: FeatureLayout) -> int:
        """Frames of a rate filter."""
        return max(2, round(self.memory_s * layout.frame_rate_hz))

    def apply(
        self,
        physical: Params,
        features: Float[Array, "batch frames *channels"],
        layout: FeatureLayout,
        state: State = None,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> tuple[Float[Array, "batch frames strfs channels"], State]:
        """See `Stage.apply`; frames look back only, so that `mask` need not be asked."""
        del mask
        batch, frames, *ears, channels = features.shape
        # Said in full: -1 would not do for a clip of no frames.
        count = batch * math.prod(ears)
        rows = jnp.moveaxis(features, 1, -2).reshape(count, frames, channels)
        past = rows[:, :0] if state is None else state.astype(rows.dtype)
        out, state = self._run(layout, physical, past, rows)
        out = out.reshape(batch, *ears, frames, self.n_strfs, channels)
        out = jnp.moveaxis(out, 1 + len(ears), 1)
        out = out.reshape(batch, frames, math.prod(ears) * self.n_strfs, channels)
        return out, state

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def _run(
        self, layout: FeatureLayout, physical: Params, past: Array, rows: Array
    ) -> tuple[Array, State]:
        """`[rows, frames, strfs, channels]` and the frames to remember."""
        temporal = self._rate_filters(physical["rate_hz"], layout)
        spectral = self._scale_filters(physical["scale_cyc_per_oct"], rows.shape[2])
        out = _in_pieces(temporal, spectral, past, rows)
        return out, _last(jnp.concatenate([past, rows], axis=1), self._memory(layout) - 1)

    def _rate_filters(self, rate_hz: Array, layout: FeatureLayout) -> Array:
        """Impulse responses `[2, strfs, memory]`: real and imaginary part."""
        seconds = np.arange(self._memory(layout)) / layout.frame_rate_hz
        cycles = rate_hz[:, None] * jnp.asarray(seconds, rate_hz.dtype)[None]
        envelope = cycles**2 * jnp.exp(-_DECAY * cycles)
        envelope = envelope / envelope.sum(axis=1, keepdims=True)
        phase = 2.0 * np.pi * cycles
        upward = jnp.asarray(np.repeat([1.0, -1.0], self.n_strfs // 2), rate_hz.dtype)
        # Time runs on by exp(+i phase), so that ripples of positive rate and scale move down.
        parts = jnp.stack([jnp.sin(phase), -upward[:, None] * jnp.cos(phase)]) * envelope[None]
        return parts - parts.mean(axis=-1, keepdims=True)

    def _scale_filters(self, scale: Array, channels: int) -> Array:
        """Responses `[2, strfs, 2 channels - 1]` by distance in channels, from far below up."""
        ripples = np.arange(channels) / channels * self.channels_per_octave / 2.0
        squared = (jnp.asarray(ripples, scale.dtype)[None] / scale[:, None]) ** 2
        gain = squared * jnp.exp(1.0 - squared)
        # The inverse transform of twice the channels, of which the negative half is zero.
        distance = np.arange(1 - channels, channels)
        angle = np.pi / channels * np.arange(channels)[:, None] * distance[None]
        basis = np.stack([np.cos(angle), np.sin(angle)]) / (2 * channels)
        return jnp.einsum("kq,pqd->pkd", gain, jnp.asarray(basis, scale.dtype))


def _in_pieces(temporal: Array, spectral: Array, past: Array, rows: Array) -> Array:
    """`[rows, frames, strfs, channels]`; of a long clip as many frames at once as `memory_s`."""
    memory, frames = temporal.shape[-1], rows.shape[1]
    whole = frames // memory
    if not frames:
        return jnp.zeros((rows.shape[0], 0, temporal.shape[1], rows.shape[2]), rows.dtype)
    if whole < 2:
        return _filtered(temporal, spectral, past, rows)
    past = jnp.pad(past, ((0, 0), (memory - 1 - past.shape[1], 0), (0, 0)))

    @jax.checkpoint
    def body(past, piece):
        out = _filtered(temporal, spectral, past, piece)
        return _last(jnp.concatenate([past, piece], axis=1), memory - 1), out

    pieces = rows[:, : whole * memory].reshape(rows.shape[0], whole, memory, -1).swapaxes(0, 1)
    past, out = jax.lax.scan(body, past, pieces)
    out = out.swapaxes(0, 1).reshape(rows.shape[0], whole * memory, *out.shape[3:])
    if whole * memory < frames:
        rest = _filtered(temporal, spectral, past, rows[:, whole * memory :])
        out = jnp.concatenate([out, rest], axis=1)
    return out


def _filtered(temporal: Array, spectral: Array, past: Array, rows: Array) -> Array:
    """`[rows, frames, strfs, channels]`: both filters as products with matrices of their delays."""
    frames, channels = rows.shape[1], rows.shape[2]
    heard = jnp.concatenate([past, rows], axis=1)
    total = heard.shape[1]
    temporal = temporal[..., :total]
    pad = (frames - 1, total - temporal.shape[-1])
    delays = toeplitz(jnp.pad(temporal, ((0, 0), (0, 0), pad)), frames, total)
    places = toeplitz(spectral, channels, channels)
    out = 0.0
    for part, sign in ((0, 1.0), (1, -1.0)):
        along = jnp.einsum("rsc,kdc->krsd", heard, sign * places[part])
        out = out + jnp.einsum("kts,krsd->krtd", delays[part], along)
    return jnp.moveaxis(jnp.asarray(out), 0, 2)


def toeplitz(diagonals: Float[Array, "*rest diagonals"], rows: int, columns: int) -> Array:
    """Matrices `[*rest, rows, columns]` whose entry i, j is `diagonals[i - j + columns - 1]`.

    Made by writing one row again and again into lines that are one too short: no gather, whose
    gradient is slow.

    Args:
      diagonals: `[*rest, rows + columns - 1]`, from the upper right corner to the lower left.
      rows: of each matrix.
      columns: of each matrix.
    """
    rest, count = diagonals.shape[:-1], rows + columns - 1
    backwards = diagonals[..., ::-1]
    gap = jnp.zeros((*rest, 1), diagonals.dtype)
    line = jnp.concatenate([backwards[..., rows - 1 :], gap, backwards[..., : rows - 1]], axis=-1)
    again = jnp.broadcast_to(line[..., None, :], (*rest, rows, count + 1))
    again = again.reshape(*rest, rows * (count + 1))[..., : rows * count]
    return again.reshape(*rest, rows, count)[..., :columns]


def _last(frames: Array, count: int) -> Array:
    """The last `count` frames, after frames of zeros if there are fewer."""
    missing = max(0, count - frames.shape[1])
    return jnp.pad(frames, ((0, 0), (missing, 0), (0, 0)))[:, frames.shape[1] + missing - count :]


__all__ = ["Strf", "toeplitz"]
