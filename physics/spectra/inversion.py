"""Exists to hear what spectra kept of a sound: signals from magnitudes, these from mel bands."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float

from physics.spectra import short_time


def griffin_lim(
    size: Float[Array, "*axes frames bins"],
    window: Float[np.ndarray, " samples"],
    hop: int,
    n_fft: int | None = None,
    length: int | None = None,
    iterations: int = 32,
    momentum: float | int = 0.99,
    key: Any = None,
) -> Float[Array, "*axes time"]:
    """A signal whose spectra have these magnitudes.

    Griffin & Lim (1984), IEEE Trans. ASSP 32, with the acceleration of Perraudin, Balazs &
    Soendergaard (2013), WASPAA, in the form that librosa and torchaudio gave it. Differentiable,
    though gradients through many iterations mean little.

    Args:
      size: magnitudes of `stft(..., center=True)`.
      window: as for `stft`.
      hop: as for `stft`.
      n_fft: as for `stft`.
      length: samples wanted; by default as many as the frames determine.
      iterations: more come closer.
      momentum: 0 is the original; at least 0 and below 1.
      key: random phases to begin with; None begins with phases of 0.

    Raises:
      ValueError: momentum out of range, or as `istft`.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1; got {momentum:g}. Take 0.99.")
    n_fft = window.size if n_fft is None else n_fft
    pull = momentum / (1 + momentum)
    angle = jnp.zeros_like(size)
    if key is not None:
        angle = jax.random.uniform(key, size.shape, size.dtype, -np.pi, np.pi)
    direction = lax.complex(jnp.cos(angle), jnp.sin(angle))

    def heard(direction):
        return short_time.istft(_scaled(direction, size), window, hop, n_fft, length)

    def step(directions, _):
        direction, before = directions
        rebuilt = short_time.stft(heard(direction), window, hop, n_fft)
        ahead = rebuilt - pull * before
        return (_scaled(ahead, 1 / (short_time.magnitude(ahead) + 1e-16)), rebuilt), None

    start = (direction, jnp.zeros_like(direction))
    (direction, _), _ = lax.scan(step, start, length=iterations)
    return heard(direction)


def unmel(
    mels: Float[Array, "*axes mels"],
    weights: Float[np.ndarray, "bins mels"],
    iterations: int = 200,
) -> Float[Array, "*axes bins"]:
    """Spectra, nowhere negative, whose mel bands come nearest to `mels` (`optax.nnls`).

    Args:
      mels: bands of power, or of magnitude.
      weights: as from `scales.filterbank`.
      iterations: of projected gradients.
    """
    rows = jnp.asarray(weights, mels.dtype)
    flat = mels.reshape(-1, mels.shape[-1])
    found = optax.nnls(rows.T, flat.T, iterations)
    return found.T.reshape(*mels.shape[:-1], rows.shape[0])


def mel_to_audio(
    mels: Float[Array, "*axes frames mels"],
    weights: Float[np.ndarray, "bins mels"],
    window: Float[np.ndarray, " samples"],
    hop: int,
    exponent: int = 2,
    length: int | None = None,
    iterations: int = 32,
) -> Float[Array, "*axes time"]:
    """A signal whose mel bands are near to `mels`: `unmel`, then `griffin_lim`.

    Args:
      mels: bands of `stft(..., center=True)`.
      weights: from `scales.filterbank`; its bins tell the size of the transform, an even one.
      window: as for `stft`.
      hop: as for `stft`.
      exponent: 2 if bands are sums of power, 1 of magnitude.
      length: samples wanted.
      iterations: of `griffin_lim`.
    """
    size = unmel(mels, weights)
    size = short_time.root(size) if exponent == 2 else size
    n_fft = 2 * (weights.shape[0] - 1)
    return griffin_lim(size, window, hop, n_fft, length, iterations)


def _scaled(z: Array, by: Array) -> Array:
    return lax.complex(z.real * by, z.imag * by)
