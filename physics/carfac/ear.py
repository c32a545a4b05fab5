"""Exists to put an outer and a middle ear before the cochlea, so that dB SPL means something.

The transfer is that of ANSI S3.4-2007 (the loudness model of Moore, Glasberg & Baer, 1997, J. Audio
Eng. Soc. 45, with the middle ear of Glasberg & Moore, 2006, JASA 120): from a sound field to the
eardrum (after Shaw, 1974, JASA 56), and from the eardrum to the cochlea. It is used as it stands
there: a frontal tone of 1 kHz in a free field passes at 0 dB, so the cochlea's own scale of levels
is that of such a tone. 0 dB SPL is 20 micropascals

- in "free" and "diffuse" fields at the place of the listener's head, the listener being absent;
- at the "eardrum" where sound comes from an earphone of which that pressure is known.

The values were checked against four independent copies of the standard's tables: the Auditory
Modeling Toolbox 1.4 (`data_glasberg2002.m`), D. Ward's `loudness` (`OME.cpp`), `pyclarity`
(`clarity.evaluator.msbg`) and T. Irino's `TransFuncMiddleEar_Moore16`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import fft, signal
from scipy.interpolate import PchipInterpolator

from physics.audio import one_of

SOUND_FIELDS = ("free", "diffuse", "eardrum")
PHASES = ("linear", "minimum")

TABLE = np.array(
    [  # Hz; dB: field to eardrum, frontal sound in a free field; diffuse field; eardrum to cochlea
        [20, 0, 0, -39.6], [25, 0, 0, -32],
        [31.5, 0, 0, -25.85], [40, 0, 0, -21.4],
        [50, 0, 0, -18.5], [63, 0, 0, -15.9],
        [80, 0, 0, -14.1], [100, 0, 0, -12.4],
        [125, 0.1, 0.1, -11], [160, 0.3, 0.3, -9.6],
        [200, 0.5, 0.4, -8.3], [250, 0.9, 0.5, -7.4],
        [315, 1.4, 1, -6.2], [400, 1.6, 1.6, -4.8],
        [500, 1.7, 1.7, -3.8], [630, 2.5, 2.2, -3.3],
        [750, 2.7, 2.7, -2.9], [800, 2.6, 2.9, -2.6],
        [1000, 2.6, 3.8, -2.6], [1250, 3.2, 5.3, -4.5],
        [1500, 5.2, 6.8, -5.4], [1600, 6.6, 7.2, -6.1],
        [2000, 12, 10.2, -8.5], [2500, 16.8, 14.9, -10.4],
        [3000, 15.3, 14.5, -7.3], [3150, 15.2, 14.4, -7],
        [4000, 14.2, 12.7, -6.6], [5000, 10.7, 10.8, -7],
        [6000, 7.1, 8.9, -9.2], [6300, 6.4, 8.7, -10.2],
        [8000, 1.8, 8.5, -12.2], [9000, -0.9, 6.2, -10.8],
        [10000, -1.6, 5, -10.1], [11200, 1.9, 4.5, -12.7],
        [12500, 4.9, 4, -15], [14000, 2, 3.3, -18.2],
        [15000, -2, 2.6, -23.8], [16000, 2.5, 2, -32.3],
        [18000, 2.5, 2, -45.5], [20000, 2.5, 2, -50],
    ]
)  # fmt: skip
"""As published; the outer ear at 18 kHz, which the standard skips, is between equal values."""
TABLE_HZ = TABLE[:, 0]

# The filters reach so far on each side of their centre (linear phase) or after their onset
# (minimum). The steep end at 20 Hz needs it: half as much errs there by 3 dB.
_REACH_S = 0.05


def transfer_db(
    frequencies_hz: Float[np.ndarray, "*shape"] | float | int, sound_field: str
) -> Float[np.ndarray, "*shape"]:
    """Gain from the sound field to the cochlea, in dB.

    Args:
      frequencies_hz: at least 0. Between the frequencies of the table gains follow a monotone cubic
        (PCHIP) in the logarithm of frequency; below 20 Hz and above 20 kHz the last one is held.
      sound_field: "free", "diffuse", or "eardrum" (the middle ear alone).

    Raises:
      ValueError: no such sound field.
    """
    one_of("sound_field", sound_field, SOUND_FIELDS)
    _, free, diffuse, middle_ear = TABLE.T
    outer_ear = {"free": free, "diffuse": diffuse, "eardrum": np.zeros_like(free)}[sound_field]
    return _interpolate_db(frequencies_hz, outer_ear + middle_ear)


def fir_taps(
    sample_rate_hz: float | int, sound_field: str, phase: str
) -> Float[np.ndarray, " taps"]:
    """An FIR filter with the gains of `transfer_db`, float64, read-only.

    At the frequencies of the table below 0.45 of the rate it errs by less than 0.3 dB, anywhere
    between them by less than 0.5 dB.

    Args:
      sample_rate_hz: 8 kHz to 96 kHz.
      sound_field: see `transfer_db`.
      phase: "linear": symmetric, `2 n + 1` taps, which delay by n samples (50 ms). "minimum":
        `n + 1` taps with the same gains and the least delay that these gains allow.

    Raises:
      ValueError: no such phase or sound field, or the rate is out of range.
    """
    one_of("phase", phase, PHASES)
    if not 8000 <= sample_rate_hz <= 96000:
        raise ValueError(
            "The ear's filters are designed for sample rates between 8000 and 96000 Hz; got "
            f"{sample_rate_hz:g}. Resample the audio."
        )
    return _design(float(sample_rate_hz), sound_field, phase)


def latency_samples(sample_rate_hz: float | int, phase: str) -> int:
    """Samples by which a filter of `fir_taps` delays every frequency; 0 unless phase is linear."""
    return round(_REACH_S * sample_rate_hz) if phase == "linear" else 0


def hear(
    audio: Float[Array, "batch time ears"],
    past_audio: Float[Array, "batch past ears"] | None,
    taps: Float[np.ndarray, " taps"],
) -> tuple[Float[Array, "batch time ears"], Float[Array, "batch past ears"]]:
    """Filters a piece of a stream; differentiable in the audio.

    Convolves by one FFT over the piece, hence rounds to an epsilon of the loudest sound in it.

    Args:
      audio: the piece, at least one sample.
      past_audio: what the piece before returned, `past` being one less than there are taps; None
        is silence.
      taps: from `fir_taps`.

    Returns:
      The filtered piece, and the `past_audio` of the next one.
    """
    batch, n_samples, ears = audio.shape
    n_past = taps.size - 1
    if past_audio is None:
        past_audio = jnp.zeros((batch, n_past, ears), audio.dtype)
    whole = jnp.concatenate([past_audio, audio], axis=1)
    size = fft.next_fast_len(n_past + n_samples, real=True)
    response = jnp.fft.rfft(jnp.asarray(taps, audio.dtype), size)
    spectrum = jnp.fft.rfft(whole, size, axis=1) * response[None, :, None]
    # What the circle wraps around falls into the first `n_past` samples.
    heard = jnp.fft.irfft(spectrum, size, axis=1)[:, n_past : n_past + n_samples]
    return heard, whole[:, n_samples:]


@functools.lru_cache(maxsize=32)
def _design(sample_rate_hz: float, sound_field: str, phase: str) -> np.ndarray:
    """Frequency sampling; what its window blurs is then put right where the table says how much."""
    reach = round(_REACH_S * sample_rate_hz)
    n_taps = 2 * reach + 1
    n_grid = 8 * 2 ** int(np.ceil(np.log2(n_taps)))
    grid_hz = np.linspace(0, sample_rate_hz / 2, n_grid + 1)
    wanted_db = transfer_db(grid_hz, sound_field)
    used = TABLE_HZ / sample_rate_hz < 0.45
    delays = np.exp(-2j * np.pi * np.outer(TABLE_HZ[used] / sample_rate_hz, np.arange(n_taps)))
    window: Any = ("tukey", 0.5)
    correction_db, taps = np.zeros(TABLE_HZ.size), np.empty(0)
    for _ in range(8):
        gain = 10 ** ((wanted_db + _interpolate_db(grid_hz, correction_db)) / 20)
        taps = signal.firwin2(
            n_taps, grid_hz, gain, nfreqs=n_grid + 1, window=window, fs=sample_rate_hz
        )
        got_db = 20 * np.log10(np.abs(delays @ taps))
        correction_db[used] += transfer_db(TABLE_HZ[used], sound_field) - got_db
    if phase == "minimum":
        # `half=False`: the whole magnitude, not its square root.
        taps = signal.minimum_phase(taps, method="homomorphic", n_fft=2 * n_grid, half=False)
        taps = taps[: reach + 1]
    taps = np.asarray(taps, np.float64)
    taps.setflags(write=False)
    return taps


def _interpolate_db(frequencies_hz: Any, at_table_db: np.ndarray) -> np.ndarray:
    within_hz = np.clip(frequencies_hz, TABLE_HZ[0], TABLE_HZ[-1])
    return PchipInterpolator(np.log(TABLE_HZ), at_table_db)(np.log(within_hz))
