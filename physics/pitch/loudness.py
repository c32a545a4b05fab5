"""Exists to say how loud a sound is to an ear, roughly: its level under the curve A."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from physics import audio as ears
from physics.pitch import framing
from physics.spectra import short_time

WINDOW_S = 0.032

# IEC 61672-1:2013, annex E: poles of the curve, and what makes it 0 dB at 1 kHz.
_POLES_HZ = (20.598997, 107.65265, 737.86223, 12194.217)


def a_weighting_db(frequency_hz: Any) -> Float[np.ndarray, "*shape"]:
    """Frequency weighting A: IEC 61672-1:2013, equation E.6; minus infinity at 0 Hz."""
    square = np.asarray(frequency_hz, np.float64) ** 2
    first, second, third, fourth = (f**2 for f in _POLES_HZ)

    def response(square):
        middle = np.sqrt((square + second) * (square + third))
        return fourth * square**2 / ((square + first) * middle * (square + fourth))

    with np.errstate(divide="ignore"):
        return np.asarray(20 * np.log10(response(square) / response(1e6)))


@functools.partial(
    jax.jit,
    static_argnames=("sample_rate_hz", "hop_samples", "window_s", "range_db", "lookahead_samples"),
)
def a_weighted_loudness_db(
    audio: Float[Array, "batch time"],
    sample_rate_hz: float | int,
    hop_samples: int,
    window_s: float | int = WINDOW_S,
    range_db: float | int = 80.0,
    lookahead_samples: int = 0,
    past: Float[Array, "batch past"] | None = None,
) -> Float[Array, "batch frames"]:
    """Level of the A-weighted sound under a Hann window; a full-scale sine at 1 kHz has 0 dB.

    DDSP's loudness (Engel et al., 2020, ICLR; google/ddsp, `compute_loudness`), but for its zero,
    which there depends on the window: that of 512 samples gives 19.8 dB more. The zero here is that
    of AES17.

    Args:
      audio: full scale 1.0.
      sample_rate_hz: of the audio.
      hop_samples: samples from frame to frame.
      window_s: seconds that a frame looks at, rounded to samples.
      range_db: levels below minus this are raised to it, with no gradient.
      lookahead_samples: a frame ends so many samples after its hop.
      past: samples before the audio; None is silence.

    Raises:
      ValueError: a window shorter than the hop.
    """
    window_samples = ears.samples(window_s, sample_rate_hz)
    pieces = framing.windows(audio, window_samples, hop_samples, lookahead_samples, past)
    n_fft = 1 << (window_samples - 1).bit_length()
    taps = short_time.window_taps("hann", window_samples)
    power = short_time.power(jnp.fft.rfft(short_time.weigh(pieces, taps), n_fft))
    weights = 10 ** (a_weighting_db(np.fft.rfftfreq(n_fft, 1 / sample_rate_hz)) / 10)
    # Both halves of the spectrum, and twice: a sine's mean square is half of its peak's.
    weights[1 : (n_fft + 1) // 2] *= 2
    weights *= 2 / (n_fft * np.sum(taps**2))
    weights = jnp.asarray(weights, power.dtype)
    level = jnp.matmul(power, weights, precision=lax.Precision.HIGHEST)
    return 10 / np.log(10) * jnp.log(jnp.maximum(level, 10 ** (-range_db / 10)))
