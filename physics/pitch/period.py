"""Exists to find the pitch of one voice or instrument: YIN, for whole batches, with gradients.

de Cheveigné & Kawahara (2002), "YIN, a fundamental frequency estimator for speech and music",
J. Acoust. Soc. Am. 111, 1917. Two samples a period apart are alike: the lag is sought at which the
squared difference, divided by its mean over all shorter lags, first dips as low as anywhere.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from scipy import fft

from physics import audio as ears
from physics.pitch import framing

# Mean squares that count as silence: -100 dB, and -50 dB of the sound itself.
_SILENCE = 1e-10
_ROUNDING = 1e-5
# The smoothing window: its first zero is at 4 kHz. Dips are then as wide as parabolas need, and
# short periods are found though they lie between samples.
_SMOOTH_S = 0.0005


def lags(sample_rate_hz: float | int, min_hz: float | int, max_hz: float | int) -> tuple[int, int]:
    """Shortest and longest period in samples."""
    return max(2, int(sample_rate_hz / max_hz)), int(np.ceil(sample_rate_hz / min_hz))


def smoothing_taps(sample_rate_hz: float | int) -> Float[np.ndarray, " taps"]:
    """A short Hann window, of sum 1."""
    taps = np.hanning(ears.samples(_SMOOTH_S, sample_rate_hz) + 2)[1:-1]
    return taps / taps.sum()


def window_samples(sample_rate_hz: float | int, min_hz: float | int) -> int:
    """Samples that a frame sees: two of the longest periods, and what the smoothing needs."""
    longest = lags(sample_rate_hz, min_hz, sample_rate_hz / 4)[1]
    return 2 * longest + 1 + smoothing_taps(sample_rate_hz).size - 1


@functools.partial(
    jax.jit,
    static_argnames=(
        "sample_rate_hz",
        "hop_samples",
        "min_hz",
        "max_hz",
        "threshold",
        "lookahead_samples",
    ),
)
def yin(
    audio: Float[Array, "batch time"],
    sample_rate_hz: float | int,
    hop_samples: int,
    min_hz: float | int = 35.0,
    max_hz: float | int = 2000.0,
    threshold: float | int = 0.1,
    lookahead_samples: int = 0,
    past: Float[Array, "batch past"] | None = None,
) -> tuple[Float[Array, "batch frames"], Float[Array, "batch frames"]]:
    """f0, and how periodic the sound is.

    As published, with the threshold taken above the lowest dip, as in the authors' program, and the
    sound smoothed (first zero at 4 kHz). A frame compares the last period of `min_hz` before its
    end with what was a lag before it, so that it tells of high notes after a short time.

    Args:
      audio: full scale 1.0; what is left over at the end makes no frame.
      sample_rate_hz: of the audio.
      hop_samples: samples from frame to frame; frame i ends with its hop.
      min_hz: lowest f0; twice its period is the window.
      max_hz: highest f0, at most an eighth of the sample rate.
      threshold: how much deeper the lowest dip may be than the first that is taken.
      lookahead_samples: a frame ends so many samples after its hop.
      past: samples before the audio; None is silence.

    Returns:
      f0 in Hz, 0 in silence; and the confidence, 1 minus the depth of the dip: 1 for what repeats
      itself exactly, near 0 for noise. Where it is low, f0 means little.

    Raises:
      ValueError: frequencies out of order or too high; a window shorter than the hop.
    """
    if not 0 < min_hz < max_hz <= sample_rate_hz / 8:
        raise ValueError(
            "f0 needs 0 < min_hz < max_hz <= an eighth of the sample rate; got "
            f"{min_hz:g} and {max_hz:g} at {sample_rate_hz:g} Hz. Lower max_hz."
        )
    shortest, longest = lags(sample_rate_hz, min_hz, max_hz)
    taps = smoothing_taps(sample_rate_hz)
    pieces = framing.windows(audio, 2 * longest + 1, hop_samples, lookahead_samples, past, taps)
    return _estimate(pieces[..., ::-1], longest, shortest, float(sample_rate_hz), float(threshold))


def _estimate(
    x: Array, longest: int, shortest: int, sample_rate_hz: float, threshold: float
) -> tuple[Array, Array]:
    """Of windows of `2 * longest + 1` samples, the last sample first."""
    difference, energy = differences(x, longest)
    floor = (_ROUNDING * energy + _SILENCE * longest)[..., None]
    # Means over shorter lags as a product, which on CPUs is far quicker than a cumulative sum.
    count = np.arange(1, longest + 2)
    means = np.triu(np.ones((longest + 1, longest + 1))) / count[None]
    mean = jnp.matmul(
        difference[..., 1:], jnp.asarray(means, x.dtype), precision=lax.Precision.HIGHEST
    )
    normal = (difference[..., 1:] + floor) / (mean + floor)  # of lags 1, 2, ...
    dips = normal[..., shortest - 2 :]  # of lags shortest - 1, ..., longest + 1
    depth, there = _vertices(dips)
    lowest = jnp.min(jnp.where(there, depth, jnp.inf), axis=-1, keepdims=True)
    deep = there & (depth <= lowest + threshold)
    first = jnp.argmax(deep, axis=-1)
    first = jnp.where(jnp.any(there, axis=-1), first, jnp.argmin(dips[..., 1:-1], axis=-1))
    index = first[..., None]
    depth = jnp.take_along_axis(depth, index, axis=-1)[..., 0]
    # The parabola through the differences themselves: the division would tilt it.
    around = jnp.concatenate(
        [jnp.take_along_axis(difference, index + (shortest + n), axis=-1) for n in (-1, 0, 1)], -1
    )
    slope = 0.5 * (around[..., 2] - around[..., 0])
    bend = around[..., 2] - 2 * around[..., 1] + around[..., 0]
    curved = bend > jnp.abs(slope)
    offset = jnp.where(curved, -slope / jnp.where(curved, bend, 1), 0)
    period = first.astype(x.dtype) + shortest + offset
    heard = energy > _SILENCE * longest
    f0_hz = jnp.where(heard, sample_rate_hz / period, 0)
    confidence = jnp.where(heard, jnp.clip(1 - depth, 0, 1), 0)
    return f0_hz, confidence


def differences(
    x: Float[Array, "*axes window"], longest: int
) -> tuple[Float[Array, "*axes lags"], Float[Array, "*axes"]]:
    """Sums of (x[j] - x[j + lag])^2 over j < `longest`, for lags 0 to `longest + 1`; and of x[j]^2.

    By correlation: equation 7 of the paper.
    """
    size = int(fft.next_fast_len(x.shape[-1], real=True) or x.shape[-1])
    head = x[..., :longest]
    square = x * x
    energy = jnp.sum(square[..., :longest], axis=-1)
    ones = np.zeros(size)
    ones[:longest] = 1
    box = jnp.conj(jnp.fft.rfft(jnp.asarray(ones, x.dtype)))
    box = box.reshape((1,) * (x.ndim - 1) + (-1,))
    cross = jnp.conj(jnp.fft.rfft(head, size)) * jnp.fft.rfft(x, size)
    later = jnp.fft.irfft(box * jnp.fft.rfft(square, size) - 2 * cross, size)
    difference = energy[..., None] + later[..., : longest + 2]
    return jnp.maximum(difference, 0), energy


def _vertices(x: Any) -> tuple[Array, Array]:
    """Least values of parabolas through three neighbours, and which neighbours enclose a dip."""
    below, middle, above = x[..., :-2], x[..., 1:-1], x[..., 2:]
    there = (middle < below) & (middle <= above)
    bend = below - 2 * middle + above
    slope = 0.5 * (above - below)
    depth = middle - 0.5 * slope**2 / jnp.where(there, bend, 1)
    return jnp.where(there, depth, middle), there
