"""Exists to have the two halves of old speech synthesis: a buzz, and filters that are quick."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def pulse_train(
    angle: Float[Array, "*axes"], f0_hz: Float[Array, "*axes"], sample_rate_hz: float | int
) -> Float[Array, "*axes"]:
    """All partials below half the sample rate, in cosine phase; power 1 per sample.

    Their sum in closed form: Winham & Steiglitz (1970), J. Acoust. Soc. Am. 47, 1489.

    Args:
      angle: phase of the fundamental in radians, between -pi and pi.
      f0_hz: its frequency; nothing sounds where it is 0.
      sample_rate_hz: of the audio.
    """
    voiced = f0_hz > 0
    f0_hz = jnp.where(voiced, f0_hz, 1)
    count = jnp.ceil(sample_rate_hz / 2 / f0_hz) - 1
    half = jnp.sin(angle / 2)
    apart = jnp.abs(half) > 1e-4
    ratio = jnp.sin((count + 0.5) * angle) / jnp.where(apart, 2 * half, 1)
    total = jnp.where(apart, ratio - 0.5, count)
    return jnp.where(voiced, 2 * jnp.sqrt(f0_hz / sample_rate_hz) * total, 0)


def minimum_phase(
    power: Float[Array, "*axes bins"], n_fft: int, taps: int
) -> Float[Array, "*axes taps"]:
    """Causal filters with these power spectra that answer as early as any can.

    By the cepstrum: Oppenheim & Schafer, Discrete-Time Signal Processing, third edition, section
    13.5.

    Args:
      power: one-sided, positive.
      n_fft: size of the transform, even.
      taps: that are kept.
    """
    fold = np.zeros(n_fft)
    fold[0] = fold[n_fft // 2] = 1
    fold[1 : n_fft // 2] = 2
    cepstrum = jnp.fft.irfft(0.5 * jnp.log(power), n_fft)
    cepstrum = cepstrum * jnp.asarray(fold, power.dtype).reshape((1,) * (power.ndim - 1) + (-1,))
    return jnp.fft.irfft(jnp.exp(jnp.fft.rfft(cepstrum)), n_fft)[..., :taps]
