"""Exists to learn a mel-like front end: Gabor filters, their energy, Gaussian pooling."""

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
from physics.filterbanks import bank, pooling
from physics.spectra.scales import hz_to_mel, mel_to_hz

_SOURCE = "Zeghidour et al. (2021), LEAF, ICLR; google-research/leaf-audio"

# A Gaussian of standard deviation s in time has this over s as half width at half maximum in rad/s.
_HALF_WIDTH = math.sqrt(2 * math.log(2))
_BINS_HZ = 16000 / 512  # of the transform whose mel filters are taken as a model


@dataclasses.dataclass(frozen=True)
class Leaf(bank.Filterbank):
    """Complex Gabor filters, squared modulus, Gaussian pooling; everything per channel and learned.

    With the published initial values and intervals, to which parameters are clipped after each
    update. LEAF as published adds per-channel energy normalisation:
    `physics.target="physics.compose:Compose"`, `physics.kwargs={"front": {"target":
    "physics.filterbanks:Leaf"}, "stages": [{"target": "physics.compressors:Pcen"}]}`.

    Attributes:
      n_channels: filters, by mel from low to high.
      window_s: seconds of the filters and of the pooling windows; an odd number of samples.
      min_hz: where the first of the mel filters begins that give the initial values.
      max_hz: where the last one ends; None is 0.975 of half the sample rate, 7800 Hz at 16 kHz.
      detector: of the filters' outputs, "square" as published.
      floor: the least that a feature can be.
      centred: as published, frame i is about the middle of its hop, which looks ahead; else
        frame i is over when its hop is, and tells of `latency_samples` before.
    """

    min_hz: float | int = 60.0
    max_hz: float | int | None = None
    detector: str = "square"
    floor: float | int = 1e-5
    centred: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.min_hz < self._max_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                "Initial filters need 0 <= min_hz < max_hz <= half the sample rate; got "
                f"min_hz={self.min_hz:g} and max_hz={self._max_hz:g} at {self.sample_rate_hz:g} Hz."
                " Leave max_hz out, or lower it."
            )

    @property
    def _max_hz(self) -> float:
        return 0.975 * self.sample_rate_hz / 2 if self.max_hz is None else float(self.max_hz)

    @property
    def taps(self) -> int:
        """Samples of a filter: 401 at 16 kHz."""
        return bank.odd_samples(self.window_s, self.sample_rate_hz)

    @property
    def window_samples(self) -> int:
        """Samples of a pooling window, as many as of a filter."""
        return self.taps

    @property
    def latency_samples(self) -> int:
        """How much later a causal frame comes than a centred one: 321 at 16 kHz."""
        return bank.same_lookahead(self.taps, self.window_samples, self.hop_samples)

    @property
    def lookahead_samples(self) -> int:
        """Samples beyond its end that a frame sees; 0 for causal frames."""
        return self.latency_samples if self.centred else 0

    def specs(self) -> Params:
        """Of every filter its centre frequency and duration, and the width of its window."""
        rate = self.sample_rate_hz
        shortest, longest = (n * _HALF_WIDTH / math.pi / rate for n in (4, self.taps))
        return {
            "center_frequency_hz": Parameter(
                "Hz", 0.0, rate / 2, "Centre frequency of a filter.", _SOURCE, "project"
            ),
            "envelope_std_s": Parameter(
                "s",
                shortest,
                longest,
                "Standard deviation of its envelope: half maximum is 0.375 / that wide in Hz.",
                _SOURCE,
                "project",
            ),
            "pooling_std": Parameter(
                "1",
                2 / self.window_samples,
                0.5,
                "Standard deviation of its pooling window, in halves of the window's length.",
                _SOURCE,
                "project",
            ),
        }

    def init(self, key: Any = None) -> Params:
        """Filters like those of a mel filter bank; `key` is not used."""
        del key
        center_hz, std_s = mel_gabors(
            self.n_channels, self.sample_rate_hz, self.min_hz, self._max_hz
        )
        spec = self.specs()["envelope_std_s"]
        return self.raw(
            {
                "center_frequency_hz": center_hz,
                "envelope_std_s": np.clip(std_s, spec.low, spec.high),
                "pooling_std": np.full(self.n_channels, 0.4),
            }
        )

    def channel_frequencies_hz(self, params: Params) -> Float[Array, " channels"]:
        """Centre frequencies; learned ones need not be in order."""
        return self.physical(params)["center_frequency_hz"]

    def filters(self, physical: Params) -> Complex[Array, "channels taps"]:
        """exp(i eta t) exp(-t^2 / 2 sigma^2) / (sqrt(2 pi) sigma), of t in samples."""
        rate = self.sample_rate_hz
        return gabors(
            physical["center_frequency_hz"] * (2 * math.pi / rate),
            physical["envelope_std_s"] * rate,
            self.taps,
        )

    def windows(self, physical: Params) -> Float[Array, "channels window"]:
        """Gaussians of peak 1."""
        return pooling.gaussian(physical["pooling_std"], self.window_samples)

    def finish(
        self, features: Float[Array, "clips frames channels"]
    ) -> Float[Array, "clips frames channels"]:
        """Not less than the floor."""
        return jnp.maximum(features, self.floor)


@functools.partial(jax.jit, static_argnames="taps")
def gabors(
    eta: Float[Array, " channels"], sigma: Float[Array, " channels"], taps: int
) -> Complex[Array, "channels taps"]:
    """Gabor filters, of `eta` in rad per sample and `sigma` in samples."""
    time = jnp.asarray(np.arange(taps) - taps // 2, eta.dtype)[None]
    envelope = jnp.exp(-0.5 * (time / sigma[:, None]) ** 2)
    envelope = envelope / (math.sqrt(2 * math.pi) * sigma[:, None])
    phase = eta[:, None] * time
    return jax.lax.complex(envelope * jnp.cos(phase), envelope * jnp.sin(phase))


def mel_gabors(
    n_channels: int, sample_rate_hz: float | int, min_hz: float | int, max_hz: float | int
) -> tuple[np.ndarray, np.ndarray]:
    """Centre frequencies in Hz and durations in s of Gabors that resemble mel filters.

    The published recipe: of triangles (in mel) at the bins of a transform of 512 points at 16 kHz,
    the root; from it the bin of its peak, and the count of bins from half of that peak on. At other
    rates the bins are as wide, to 1 %. Where a filter falls between bins its own middle and one bin
    are taken.
    """
    n_fft = 2 * round(sample_rate_hz / _BINS_HZ / 2)
    ends = hz_to_mel([min_hz, max_hz])
    edges = np.linspace(ends[0], ends[1], n_channels + 2)[:, None]
    bins_hz = np.arange(1, n_fft // 2 + 1) * (sample_rate_hz / n_fft)  # without 0 Hz, as published
    mel = hz_to_mel(bins_hz)[None]
    rise = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    roots = np.sqrt(np.maximum(0, np.minimum(rise, fall)))
    peaks = roots.max(axis=1)
    met = peaks > 0
    center_hz = np.where(met, bins_hz[roots.argmax(axis=1)], mel_to_hz(edges[1:-1, 0]))
    count = np.where(met, (roots >= peaks[:, None] / 2).sum(axis=1), 1)
    return center_hz, n_fft * _HALF_WIDTH / (math.pi * count) / sample_rate_hz
