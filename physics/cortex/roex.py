"""Exists to design cochlear filters of the rounded-exponential shape that can run in real time.

The roex(p) filter (Patterson, Nimmo-Smith, Weber and Milroy, J. Acoust. Soc. Am. 72, 1982, eq. 2)
says how much power a filter passes: W(g) = (1 + p g) exp(-p g), with g = |f - fc| / fc. Its
equivalent rectangular bandwidth is 4 fc / p. It has no phase; here it is given the least delay that
such a magnitude allows, so that the filters are causal.
"""

from __future__ import annotations

import functools

import numpy as np

# The shape falls to nothing away from its centre; below this the delay would grow for no gain.
_FLOOR = 1e-5
# Points of the spectrum for each tap: the cepstrum of a steep filter is long.
_OVERSAMPLING = 16


def log_spaced_hz(lowest_hz: float | int, per_octave: float | int, count: int) -> np.ndarray:
    """Centre frequencies `[count]` in Hz, rising by equal ratios."""
    return lowest_hz * 2.0 ** (np.arange(count) / per_octave)


def magnitude(frequencies_hz: np.ndarray, centre_hz: np.ndarray, q: float | int) -> np.ndarray:
    """Amplitude gain of roex filters, the square root of W; 1 at the centre.

    Args:
      frequencies_hz: `[frequencies]`.
      centre_hz: `[channels]`.
      q: centre frequency over equivalent rectangular bandwidth; p = 4 q.

    Returns:
      Gains `[channels, frequencies]`.
    """
    distance = np.abs(frequencies_hz[None] - centre_hz[:, None]) / centre_hz[:, None]
    steep = 4.0 * q * distance
    return np.sqrt((1.0 + steep) * np.exp(-steep))


@functools.lru_cache(maxsize=16)
def impulse_responses(
    sample_rate_hz: float | int,
    num_taps: int,
    lowest_hz: float | int,
    per_octave: float | int,
    count: int,
    q: float | int,
) -> np.ndarray:
    """Minimum-phase impulse responses, by the folded cepstrum.

    Oppenheim and Schafer, *Discrete-Time Signal Processing* (3rd edition), section 13.5.

    Args:
      sample_rate_hz: samples per second.
      num_taps: length; what comes later is cut off.
      lowest_hz: centre frequency of the first channel.
      per_octave: channels per octave.
      count: number of channels.
      q: centre frequency over equivalent rectangular bandwidth.

    Returns:
      Taps `[count, num_taps]`, float64; not to be written to.
    """
    size = _OVERSAMPLING * 2 ** int(np.ceil(np.log2(num_taps)))
    frequencies_hz = np.fft.rfftfreq(size, 1.0 / sample_rate_hz)
    fold = np.zeros(size)
    fold[[0, size // 2]] = 1.0
    fold[1 : size // 2] = 2.0
    taps = np.empty((count, num_taps))
    # One channel at a time: all of them would take a hundred times the memory of the result.
    for i, centre_hz in enumerate(log_spaced_hz(lowest_hz, per_octave, count)):
        gain = np.maximum(magnitude(frequencies_hz, np.array([centre_hz]), q)[0], _FLOOR)
        cepstrum = np.fft.irfft(np.log(gain), size)
        spectrum = np.exp(np.fft.rfft(cepstrum * fold))
        taps[i] = np.fft.irfft(spectrum, size)[:num_taps]
    taps.flags.writeable = False
    return taps
