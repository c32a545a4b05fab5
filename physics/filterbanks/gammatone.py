"""Exists to hear as the auditory nerve's filters do: gammatones, equally spaced in ERB."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from physics.base import Params
from physics.bounds import Parameter
from physics.filterbanks import bank

_SPACING = "Glasberg & Moore (1990), Hear. Res. 47"
_SHAPE = "Patterson et al. (1987), APU report 2341; Slaney (1993), Apple TR 35"

_ORDER = 4
# ERB of a gammatone of order n over its b: pi (2n - 2)! 2^-(2n - 2) / (n - 1)!^2, Slaney (1993).
_ERB_OVER_B = (
    math.pi * math.factorial(2 * _ORDER - 2) / (4 ** (_ORDER - 1) * math.factorial(_ORDER - 1) ** 2)
)
_DECAYED = 15.0  # of 2 pi b t: the envelope is then a thousandth of its peak


@dataclasses.dataclass(frozen=True)
class Gammatone(bank.Filterbank):
    """Gammatone filters of order 4, their envelopes, means over a window.

    Every centre frequency and bandwidth is learned. Gain at the centre is 1: a tone of amplitude
    a there gives a ("modulus"), a^2 ("square") or a / pi ("halfwave").

    Attributes:
      n_channels: filters, from low to high.
      min_hz: initial centre frequency of the first one.
      max_hz: that of the last one; None is 0.9 of half the sample rate.
      detector: "modulus", the envelope; "square", its square; or "halfwave", the output where it is
        positive, as hair cells have it.
    """

    min_hz: float | int = 50.0
    max_hz: float | int | None = None

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.min_hz < self._max_hz < self.sample_rate_hz / 2:
            raise ValueError(
                "Centre frequencies need 0 < min_hz < max_hz < half the sample rate; got "
                f"min_hz={self.min_hz:g} and max_hz={self._max_hz:g} at {self.sample_rate_hz:g} Hz."
                " Leave max_hz out, or lower it."
            )

    @property
    def _max_hz(self) -> float:
        return 0.9 * self.sample_rate_hz / 2 if self.max_hz is None else float(self.max_hz)

    @property
    def _min_erb_hz(self) -> float:
        return 0.5 * float(erb_hz(self.min_hz))

    @property
    def taps(self) -> int:
        """Samples until the narrowest filter within the bounds has decayed to a thousandth."""
        slowest = 2 * math.pi * self._min_erb_hz / _ERB_OVER_B
        return math.ceil(_DECAYED / slowest * self.sample_rate_hz)

    def specs(self) -> Params:
        """Of every filter its centre frequency and its bandwidth."""
        rate = self.sample_rate_hz
        return {
            "center_frequency_hz": Parameter(
                "Hz",
                0.5 * self.min_hz,
                0.5 * rate,
                "Centre frequency of a filter.",
                _SPACING,
                "log_logit",
            ),
            "erb_hz": Parameter(
                "Hz",
                self._min_erb_hz,
                max(0.25 * rate, 2 * float(erb_hz(self._max_hz))),
                "Its equivalent rectangular bandwidth; b is 1.019 times that.",
                f"{_SPACING}; {_SHAPE}",
                "log_logit",
            ),
        }

    def init(self, key: Any = None) -> Params:
        """Centres equally spaced in ERB, of normal bandwidths; `key` is not used."""
        del key
        ends = hz_to_erb_rate([self.min_hz, self._max_hz])
        center_hz = erb_rate_to_hz(np.linspace(ends[0], ends[1], self.n_channels))
        return self.raw({"center_frequency_hz": center_hz, "erb_hz": erb_hz(center_hz)})

    def channel_frequencies_hz(self, params: Params) -> Float[Array, " channels"]:
        """Centre frequencies; learned ones need not be in order."""
        return self.physical(params)["center_frequency_hz"]

    def filters(self, physical: Params) -> Complex[Array, "channels taps"]:
        """t^3 exp(-2 pi b t) exp(2 pi i f t), twice as large as gives gain 1: analytic."""
        rate = self.sample_rate_hz
        center, erb = physical["center_frequency_hz"] / rate, physical["erb_hz"] / rate
        return gammatones(center, erb, self.taps)


@functools.partial(jax.jit, static_argnames="taps")
def gammatones(
    center: Float[Array, " channels"], erb: Float[Array, " channels"], taps: int
) -> Complex[Array, "channels taps"]:
    """Analytic gammatones, of centre frequency and bandwidth in cycles per sample."""
    time = jnp.asarray(np.arange(taps), center.dtype)[None]
    decay = (2 * math.pi / _ERB_OVER_B) * erb[:, None] * time
    envelope = decay ** (_ORDER - 1) * jnp.exp(-decay)
    envelope = 2 * envelope / jnp.sum(envelope, axis=1, keepdims=True)
    phase = 2 * math.pi * center[:, None] * time
    return jax.lax.complex(envelope * jnp.cos(phase), envelope * jnp.sin(phase))


def erb_hz(frequency_hz: Any) -> Float[np.ndarray, "*shape"]:
    """Equivalent rectangular bandwidth of normal hearing: Glasberg & Moore (1990), equation 3."""
    return np.asarray(24.7 * (4.37e-3 * np.asarray(frequency_hz, np.float64) + 1))


def hz_to_erb_rate(frequency_hz: Any) -> Float[np.ndarray, "*shape"]:
    """Number of bandwidths below a frequency: Glasberg & Moore (1990), equation 4."""
    return np.asarray(21.4 * np.log10(4.37e-3 * np.asarray(frequency_hz, np.float64) + 1))


def erb_rate_to_hz(erb_rate: Any) -> Float[np.ndarray, "*shape"]:
    """Inverse of `hz_to_erb_rate`."""
    return np.asarray((10 ** (np.asarray(erb_rate, np.float64) / 21.4) - 1) / 4.37e-3)
