"""Exists to turn spectra into bands along the mel scale, as the field's two conventions have it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import fft

Bands = Float[Array | np.ndarray, " bands"]

MEL_SCALES = ("htk", "slaney")
NORMS = ("none", "slaney")

# Slaney (1998), Auditory Toolbox, Interval Technical Report 1998-010: linear below 1 kHz, 27 steps
# of a logarithmic scale from there to 6.4 kHz.
_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27


def hz_to_mel(frequencies_hz: Any, mel_scale: str = "htk") -> Float[np.ndarray, "*shape"]:
    """Mels of frequencies.

    "htk": 2595 log10(1 + f / 700), O'Shaughnessy (1987), Speech Communication, p. 150, and the HTK
    Book (2006), equation 5.13. "slaney": linear below 1 kHz and logarithmic above, Slaney (1998).
    """
    hz = np.asarray(frequencies_hz, np.float64)
    _known(mel_scale)
    if mel_scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    above = _BREAK_HZ / _HZ_PER_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _HZ_PER_MEL, above)


def mel_to_hz(mels: Any, mel_scale: str = "htk") -> Float[np.ndarray, "*shape"]:
    """Inverse of `hz_to_mel`."""
    mels = np.asarray(mels, np.float64)
    _known(mel_scale)
    if mel_scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    above = np.maximum(mels - _BREAK_HZ / _HZ_PER_MEL, 0.0)
    return np.where(above > 0, _BREAK_HZ * np.exp(above * _LOG_STEP), mels * _HZ_PER_MEL)


def mel_edges_hz(
    n_mels: int, min_hz: float | int, max_hz: float | int, mel_scale: str = "htk"
) -> Float[np.ndarray, " edges"]:
    """Where bands begin, peak and end: band i at edges i, i + 1 and i + 2, equally spaced in mel.

    Raises:
      ValueError: no band, or frequencies that are not 0 <= min_hz < max_hz.
    """
    if n_mels < 1:
        raise ValueError(f"n_mels must be at least 1; got {n_mels}. Count the bands.")
    if not 0 <= min_hz < max_hz:
        raise ValueError(
            f"Bands need 0 <= min_hz < max_hz; got {min_hz:g} and {max_hz:g}. Widen the range."
        )
    ends = hz_to_mel([min_hz, max_hz], mel_scale)
    return mel_to_hz(np.linspace(ends[0], ends[1], n_mels + 2), mel_scale)


def triangles(
    bins_hz: Float[np.ndarray, " bins"],
    center_hz: Bands,
    below_hz: Bands,
    above_hz: Bands,
    norm: str = "none",
) -> Float[Array | np.ndarray, "bins bands"]:
    """Weights of triangular bands at the frequencies of bins; differentiable for JAX's arrays.

    Args:
      bins_hz: frequencies of the bins of a spectrum.
      center_hz: where each band weighs 1.
      below_hz: how far below that it begins.
      above_hz: how far above that it ends.
      norm: "none", or "slaney": divided by half of the band's width in Hz.

    Raises:
      ValueError: no such norm.
    """
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {NORMS}; got {norm!r}. Choose one of them.")
    xp: Any = jnp if isinstance(center_hz, jax.Array) else np
    away = xp.asarray(bins_hz, dtype=center_hz.dtype)[:, None] - center_hz[None]
    rise, fall = 1 + away / below_hz[None], 1 - away / above_hz[None]
    weights = xp.maximum(xp.minimum(rise, fall), 0)
    return weights if norm == "none" else weights * (2 / (below_hz + above_hz))[None]


def filterbank(
    n_bins: int,
    n_mels: int,
    sample_rate_hz: float | int,
    min_hz: float | int = 0.0,
    max_hz: float | int | None = None,
    mel_scale: str = "htk",
    norm: str = "none",
) -> Float[np.ndarray, "bins mels"]:
    """Matrix from power or magnitude spectra to mel bands, float64.

    As torchaudio.functional.melscale_fbanks and librosa.filters.mel (transposed) have it.

    Args:
      n_bins: of a one-sided spectrum, from 0 Hz to half the sample rate.
      n_mels: bands.
      sample_rate_hz: of the audio.
      min_hz: where the first band begins.
      max_hz: where the last one ends; None is half the sample rate.
      mel_scale: "htk" or "slaney".
      norm: "none" (peaks of 1) or "slaney" (areas of 1, in Hz).

    Raises:
      ValueError: what has no meaning.
    """
    top_hz = sample_rate_hz / 2 if max_hz is None else max_hz
    edges = mel_edges_hz(n_mels, min_hz, top_hz, mel_scale)
    steps = np.diff(edges)
    bins_hz = np.linspace(0, sample_rate_hz / 2, n_bins)
    return np.asarray(triangles(bins_hz, edges[1:-1], steps[:-1], steps[1:], norm))


def dct_matrix(n_mels: int, n_mfcc: int) -> Float[np.ndarray, "mels coefficients"]:
    """The orthonormal DCT-II, as a matrix: Davis & Mermelstein (1980), IEEE Trans. ASSP 28.

    Raises:
      ValueError: more coefficients than bands.
    """
    if not 1 <= n_mfcc <= n_mels:
        raise ValueError(
            f"n_mfcc must lie between 1 and n_mels; got {n_mfcc} of {n_mels}. Take more bands."
        )
    return np.asarray(fft.dct(np.eye(n_mels), norm="ortho", axis=1))[:, :n_mfcc]


def to_db(
    x: Float[Array, "*axes"], floor: float | int = 1e-10, top_db: float | int | None = None
) -> Float[Array, "*axes"]:
    """10 log10 of a power, not below that of `floor`; torchaudio's AmplitudeToDB("power", top_db).

    Args:
      x: power, `[batch, ...]`.
      floor: least power; below it the gradient is 0.
      top_db: raise what lies further below the largest value of each clip; None does not.
    """
    db = 10 / np.log(10) * jnp.log(jnp.maximum(x, floor))
    if top_db is None:
        return db
    loudest = jnp.max(db, axis=tuple(range(1, db.ndim)), keepdims=True)
    return jnp.maximum(db, loudest - top_db)


def _known(mel_scale: str) -> None:
    if mel_scale not in MEL_SCALES:
        raise ValueError(
            f"mel_scale must be one of {MEL_SCALES}; got {mel_scale!r}. Choose one of them."
        )
