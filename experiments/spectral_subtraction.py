"""The classical yardstick of noise reduction: spectral subtraction.

S. F. Boll, "Suppression of acoustic noise in speech using spectral subtraction", IEEE Trans. ASSP
27(2), 1979, in the form of M. Berouti, R. Schwartz and J. Makhoul, "Enhancement of speech corrupted
by acoustic noise", ICASSP 1979: power is subtracted, more of it where the ratio is low, down to a
floor that hides musical noise.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from scipy import signal

_WINDOW_S, _OVERLAP = 0.032, 4
# Berouti et al., figure 3: the factor falls from 4 at 0 dB by 3/20 a decibel, from -5 dB to 20 dB.
_FACTOR_AT_0_DB, _SLOPE, _LEAST_DB, _MOST_DB = 4.0, 3 / 20, -5.0, 20.0


def spectral_subtraction(
    noisy: Float[np.ndarray, " time"],
    sample_rate_hz: float | int,
    quiet_share: float | int = 0.2,
    floor: float | int = 0.02,
) -> Float[np.ndarray, " time"]:
    """Speech without the noise that its quiet frames tell of.

    Args:
        noisy: the sound.
        sample_rate_hz: its sample rate.
        quiet_share: share of the frames, those of least energy, that are taken for noise.
        floor: beta of Berouti et al.: power that is left, in parts of the noise's.

    Returns:
        The estimate, as long as `noisy`, in its dtype.

    Raises:
        ValueError: a share outside of (0, 1], or a floor outside of [0, 1].
    """
    if not 0 < quiet_share <= 1 or not 0 <= floor <= 1:
        raise ValueError(
            "quiet_share lies in (0, 1] and floor in [0, 1]; got "
            f"{quiet_share:g} and {floor:g}; give 0.2 and 0.02"
        )
    if not noisy.any():
        return noisy.copy()
    window = max(_OVERLAP, round(_WINDOW_S * sample_rate_hz / _OVERLAP) * _OVERLAP)
    taps: Any = signal.get_window("hann", window)
    transform = signal.ShortTimeFFT(taps, window // _OVERLAP, fs=sample_rate_hz)
    padded = np.pad(noisy.astype(np.float64), (0, max(0, window - len(noisy))))
    spectra = transform.stft(padded)
    power = np.abs(spectra) ** 2
    # Windows that reach over the ends hear silence, which must not be taken for the noise.
    first = transform.lower_border_end[1] - transform.p_min
    last = transform.upper_border_begin(len(padded))[1] - transform.p_min
    noise = noise_power(power[:, first : max(last, first + 1)], quiet_share)[:, None]
    snr_db = 10 * np.log10(np.maximum(power.sum(0) / np.maximum(noise.sum(), 1e-30), 1e-30))
    factor = _FACTOR_AT_0_DB - _SLOPE * np.clip(snr_db, _LEAST_DB, _MOST_DB)
    left = np.maximum(power - factor * noise, np.minimum(floor * noise, power))
    gain = np.sqrt(left / np.maximum(power, 1e-30))
    return transform.istft(gain * spectra, k1=len(padded))[: len(noisy)].astype(noisy.dtype)


def noise_power(
    power: Float64[np.ndarray, "bins frames"], quiet_share: float | int
) -> Float64[np.ndarray, " bins"]:
    """Mean power of each bin over the frames of least energy."""
    count = max(1, round(quiet_share * power.shape[1]))
    quietest = np.argsort(power.sum(axis=0), kind="stable")[:count]
    return power[:, quietest].mean(axis=1)
