"""Exists to learn where bands begin and how wide they are: windowed sinc filters, from audio."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics.base import Params
from physics.bounds import Parameter
from physics.filterbanks import bank
from physics.spectra.scales import hz_to_mel, mel_to_hz

_SOURCE = "Ravanelli & Bengio (2018), SincNet, SLT; mravanelli/SincNet"
_FIRST_HZ = 30.0  # published, where the least frequency is then added


@dataclasses.dataclass(frozen=True)
class SincNet(bank.Filterbank):
    """Rectangular bands of learned lower edge and width, absolute value, mean over a window.

    Filters and initial values are those published, their gain, sample_rate / (2 width), included.
    There the absolute value goes on at full rate, by maxima of three samples, to further
    convolutions; here, to be compared with other front ends, its mean under a Hann window makes
    frames.

    Attributes:
      n_channels: filters, by mel from low to high.
      filter_s: seconds of a filter; an odd number of samples, 251 at 16 kHz.
      min_low_hz: least lower edge.
      min_band_hz: least width.
      max_hz: where the last band would end but for what is added; None is half the sample rate less
        `min_low_hz` and `min_band_hz`, so that it ends at half the sample rate.
      detector: "modulus", "square" or "halfwave" (the positive part).
      centred: frame i is about the middle of its hop, which looks ahead; else frame i is over when
        its hop is, and tells of `latency_samples` before.
    """

    n_channels: int = 80
    filter_s: float | int = 1 / 64
    min_low_hz: float | int = 50.0
    min_band_hz: float | int = 50.0
    max_hz: float | int | None = None
    centred: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not self.min_low_hz > 0 < self.min_band_hz or not self._max_hz > _FIRST_HZ:
            raise ValueError(
                "Bands need min_low_hz > 0, min_band_hz > 0 and, both left out of half the sample "
                f"rate, at least {_FIRST_HZ:g} Hz; got {self.min_low_hz:g}, {self.min_band_hz:g} "
                f"and max_hz={self._max_hz:g}. Raise the sample rate, or lower the least values."
            )

    @property
    def _max_hz(self) -> float:
        top = self.sample_rate_hz / 2 - self.min_low_hz - self.min_band_hz
        return top if self.max_hz is None else min(top, float(self.max_hz))

    @property
    def taps(self) -> int:
        """Samples of a filter."""
        return bank.odd_samples(self.filter_s, self.sample_rate_hz)

    @property
    def latency_samples(self) -> int:
        """How much later a causal frame comes than a centred one."""
        return bank.same_lookahead(self.taps, self.window_samples, self.hop_samples)

    @property
    def lookahead_samples(self) -> int:
        """Samples beyond its end that a frame sees; 0 for causal frames."""
        return self.latency_samples if self.centred else 0

    def specs(self) -> Params:
        """Of every filter its lower edge and its width."""
        nyquist = self.sample_rate_hz / 2
        return {
            "low_hz": Parameter(
                "Hz", self.min_low_hz, nyquist, "Lower edge of a band.", _SOURCE, "log_logit"
            ),
            "band_hz": Parameter(
                "Hz",
                self.min_band_hz,
                nyquist,
                "Its width; a band ends at half the sample rate at the latest.",
                _SOURCE,
                "log_logit",
            ),
        }

    def init(self, key: Any = None) -> Params:
        """Bands side by side, equally spaced in mel; `key` is not used."""
        del key
        ends = hz_to_mel([_FIRST_HZ, self._max_hz])
        edges = mel_to_hz(np.linspace(ends[0], ends[1], self.n_channels + 1))
        return self.raw(
            {"low_hz": self.min_low_hz + edges[:-1], "band_hz": self.min_band_hz + np.diff(edges)}
        )

    def edges_hz(self, physical: Params) -> tuple[Float[Array, " channels"], ...]:
        """Lower and upper edges."""
        low = physical["low_hz"]
        return low, jnp.minimum(low + physical["band_hz"], self.sample_rate_hz / 2)

    def channel_frequencies_hz(self, params: Params) -> Float[Array, " channels"]:
        """Middles of the bands; learned ones need not be in order."""
        low, high = self.edges_hz(self.physical(params))
        return 0.5 * (low + high)

    def filters(self, physical: Params) -> Float[Array, "channels taps"]:
        """Differences of sinc functions under a Hamming window, 1 in the middle."""
        low, high = (edge / self.sample_rate_hz for edge in self.edges_hz(physical))
        return sincs(low, high, self.taps)


@functools.partial(jax.jit, static_argnames="taps")
def sincs(
    low: Float[Array, " channels"], high: Float[Array, " channels"], taps: int
) -> Float[Array, "channels taps"]:
    """Band-passes of edges in cycles per sample: equation 4 of the paper, over 2 (high - low).

    (sin 2 pi high t - sin 2 pi low t) / (pi t) as a product, which is exact for narrow bands.
    """
    half = taps // 2
    # As published: a Hamming window whose steps are a little longer than one sample.
    phase = np.linspace(0, taps / 2 - 1, half) * (2 * math.pi / taps)
    side = 0.54 - 0.46 * np.cos(phase)
    window = jnp.asarray(np.concatenate([side, [1.0], side[::-1]]), low.dtype)
    time = jnp.asarray(np.arange(taps) - half, low.dtype)[None]
    band, middle = (high - low)[:, None], (0.5 * (high + low))[:, None]
    return window[None] * jnp.cos(2 * math.pi * middle * time) * jnp.sinc(band * time)
