"""Exists to have short-time spectra, and sizes and phases of them, whose gradients are finite.

Signals run along the last axis, whatever comes before it; spectra are `[..., frames, bins]`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from scipy import signal

Spectrum = Complex[Array, "*axes frames bins"]


@functools.lru_cache(maxsize=64)
def window_taps(name: str, n_samples: int) -> Float[np.ndarray, " samples"]:
    """A periodic window of `scipy.signal.get_window`, float64, read-only.

    Raises:
      ValueError: no such window, or one that needs parameters.
    """
    try:
        taps = np.asarray(signal.get_window(name, n_samples, fftbins=True), np.float64)
    except ValueError as error:
        raise ValueError(
            f"window must be a name that scipy.signal.get_window knows; got {name!r} ({error}). "
            "Take 'hann', 'hamming' or 'boxcar'."
        ) from error
    taps.setflags(write=False)
    return taps


def frames(
    audio: Float[Array, "*axes time"], length: int, hop: int
) -> Float[Array, "*axes frames length"]:
    """Pieces of `length` samples that begin every `hop` samples.

    They are cut out as whole hops that lie side by side, so that neither they nor their gradient
    need a gather or a scatter, which are slow on CPUs.
    """
    lead, time = audio.shape[:-1], audio.shape[-1]
    count = max(0, 1 + (time - length) // hop)
    if count == 0:
        return jnp.zeros((*lead, 0, length), audio.dtype)
    segments = -(-length // hop)
    wanted = (count + segments - 1) * hop
    padding = [(0, 0)] * len(lead) + [(0, max(0, wanted - time))]
    hops = jnp.pad(audio, padding)[..., :wanted].reshape(*lead, -1, hop)
    pieces = [hops[..., s : s + count, :] for s in range(segments)]
    return jnp.concatenate(pieces, axis=-1)[..., :length]


def overlap_add(
    pieces: Float[Array, "*axes frames length"], hop: int
) -> Float[Array, "*axes time"]:
    """Sums pieces where `frames` takes them from: its transpose."""
    count, length = pieces.shape[-2:]
    time = (count - 1) * hop + length
    shape = jax.ShapeDtypeStruct((*pieces.shape[:-2], time), pieces.dtype)
    return jax.linear_transpose(lambda audio: frames(audio, length, hop), shape)(pieces)[0]


def stft(
    audio: Float[Array, "*axes time"],
    window: Float[np.ndarray, " samples"],
    hop: int,
    n_fft: int | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
) -> Spectrum:
    """Short-time Fourier transform, as torch.stft(..., onesided=True) with its last axes swapped.

    Args:
      audio: signals.
      window: of at most `n_fft` samples; a shorter one is padded equally on both sides.
      hop: samples from frame to frame.
      n_fft: size of the transform, by default that of the window.
      center: pad by half of `n_fft` at both ends, so that frame i is centred on sample i * hop.
      pad_mode: of `jnp.pad`.

    Raises:
      ValueError: the window is longer than the transform, or the audio too short for its padding.
    """
    n_fft, window = _sizes(window, n_fft)
    if center:
        reach = n_fft // 2
        if pad_mode == "reflect" and audio.shape[-1] <= reach:
            raise ValueError(
                "Audio must be longer than half a transform to be reflected at its ends; got "
                f"{audio.shape[-1]} samples with n_fft={n_fft}. Take pad_mode='constant'."
            )
        ends: list[Any] = [(0, 0)] * (audio.ndim - 1) + [(reach, reach)]
        audio = jnp.pad(audio, ends, mode=pad_mode)
    return jnp.fft.rfft(weigh(frames(audio, n_fft, hop), window))


def istft(
    spectrum: Spectrum,
    window: Float[np.ndarray, " samples"],
    hop: int,
    n_fft: int | None = None,
    length: int | None = None,
    center: bool = True,
) -> Float[Array, "*axes time"]:
    """The signal whose transform is nearest to `spectrum` in the least-squares sense.

    Griffin & Lim (1984), IEEE Trans. ASSP 32, equation 6; the inverse of `stft`.

    Args:
      spectrum: `[..., frames, bins]`.
      window: as for `stft`.
      hop: as for `stft`.
      n_fft: as for `stft`.
      length: samples wanted; by default as many as the frames determine.
      center: as for `stft`.

    Raises:
      ValueError: as `stft`; or a window and hop that leave samples out.
    """
    n_fft, window = _sizes(window, n_fft)
    pieces = weigh(jnp.fft.irfft(spectrum, n_fft), window)
    count = spectrum.shape[-2]
    energy = np.zeros((count - 1) * hop + n_fft)
    for i in range(count):
        energy[i * hop : i * hop + n_fft] += window**2
    start = n_fft // 2 if center else 0
    stop = energy.size - start if length is None else min(start + length, energy.size)
    if energy[start:stop].min(initial=np.inf) < 1e-11:
        raise ValueError(
            "Every sample must lie in the window of some frame; with a window of "
            f"{np.count_nonzero(window)} samples and hop={hop} some do not. Take a smaller hop, or "
            "center=True for a window that begins with 0."
        )
    signals = overlap_add(pieces, hop)[..., start:stop]
    weights = jnp.asarray(1 / energy[start:stop], signals.dtype)
    signals = signals * weights.reshape((1,) * (signals.ndim - 1) + (-1,))
    missing = 0 if length is None else length - signals.shape[-1]
    return jnp.pad(signals, [(0, 0)] * (signals.ndim - 1) + [(0, missing)])


def power(z: Complex[Array, "*axes"]) -> Float[Array, "*axes"]:
    """|z|^2; its gradient is finite everywhere."""
    return z.real**2 + z.imag**2


def magnitude(z: Complex[Array, "*axes"]) -> Float[Array, "*axes"]:
    """|z|; 0, with the gradient 0, where |z|^2 is too small for the dtype."""
    return root(power(z))


def root(x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Square root of what is not negative; 0, with the gradient 0, below the least normal number.

    The inner `where` keeps what is divided by away from 0: in reverse both branches are worked out,
    and 0 times infinity is NaN.
    """
    there = x > jnp.finfo(x.dtype).tiny
    return jnp.where(there, jnp.sqrt(jnp.where(there, x, 1)), 0)


def phase(z: Complex[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Angle in radians, -pi to pi; 0, with the gradient 0, where |z|^4 is too small for the dtype.

    Derivatives divide by |z|^2, and second ones by |z|^4. jnp.angle gives NaN at 0.
    """
    there = power(z) > jnp.finfo(z.real.dtype).tiny ** 0.5
    return jnp.arctan2(jnp.where(there, z.imag, 0), jnp.where(there, z.real, 1))


def weigh(
    pieces: Float[Array, "*axes samples"], window: Float[np.ndarray, " samples"]
) -> Float[Array, "*axes samples"]:
    """Pieces times a window."""
    return pieces * jnp.asarray(window, pieces.dtype).reshape((1,) * (pieces.ndim - 1) + (-1,))


def _sizes(window: np.ndarray, n_fft: int | None) -> tuple[int, np.ndarray]:
    n_fft = window.size if n_fft is None else n_fft
    if window.size > n_fft:
        raise ValueError(
            f"The transform must be as long as the window; got n_fft={n_fft} and a window of "
            f"{window.size} samples. Take a larger n_fft."
        )
    before = (n_fft - window.size) // 2
    return n_fft, np.pad(window, (before, n_fft - window.size - before))
