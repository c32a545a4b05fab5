"""Exists to offer spectra, mel bands and cepstra as front ends, and what can be learned of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics import audio as ears
from physics.base import Parameter, Params
from physics.spectra import scales, short_time
from physics.spectra.framed import Spectral

SIZES = ("magnitude", "power", "log")
FILTERS = ("fixed", "learned")

_FLOOR = Parameter(
    "1",
    1e-12,
    1.0,
    "Power that is added before the logarithm: what lies below it is hardly told from silence.",
    "Initial value as usual for audio of full scale 1 (torchaudio's MFCC: 1e-6); bounds are ours.",
    "log_logit",
)
_MEL_SOURCE = "Initial: the mel scale (O'Shaughnessy, 1987; Slaney, 1998). Bounds are ours."


@dataclasses.dataclass(frozen=True)
class Stft(Spectral):
    """Short-time spectra, a channel for each bin.

    Attributes:
      size: "magnitude", "power", or "log": the natural logarithm of power plus a floor, which is
        its only parameter, `[bins]`.
      initial_floor: starting value of the floor.
    """

    size: str = "log"
    initial_floor: float | int = 1e-6

    def __post_init__(self):
        super().__post_init__()
        ears.one_of("size", self.size, SIZES)

    def specs(self) -> Params:
        """The floor of the logarithm, if there is one."""
        return {"floor": _FLOOR} if self.size == "log" else {}

    def init(self, key: Any = None) -> Params:
        """Initial params; `key` is not used."""
        del key
        floor = np.full(self.bins_hz().size, self.initial_floor)
        return self.raw({"floor": floor} if self.size == "log" else {})

    def features(self, physical: Params, spectrum: Any) -> Any:
        """Sizes of the bins."""
        if self.size == "magnitude":
            return short_time.magnitude(spectrum)
        power = short_time.power(spectrum)
        return power if self.size == "power" else logarithm(power, physical["floor"])

    def channel_frequencies_hz(self, params: Params) -> Float[Array, " bins"]:
        """Frequencies of the bins."""
        del params
        return jnp.asarray(self.bins_hz(), float)


@dataclasses.dataclass(frozen=True)
class Mel(Spectral):
    """Power (or magnitude) in triangular bands along the mel scale.

    Attributes:
      n_mels: bands.
      min_hz: where the first one begins.
      max_hz: where the last one ends; None is half the sample rate.
      mel_scale: "htk" or "slaney", see `scales.hz_to_mel`.
      norm: "none" (peaks of 1) or "slaney" (areas of 1, in Hz).
      exponent: 2 sums power, 1 sums magnitudes.
      filters: "fixed", or "learned": each band has a centre and two widths, `[n_mels]`, which begin
        at those of the mel scale.
    """

    n_mels: int = 40
    min_hz: float | int = 0.0
    max_hz: float | int | None = None
    mel_scale: str = "htk"
    norm: str = "none"
    exponent: int = 2
    filters: str = "fixed"

    def __post_init__(self):
        super().__post_init__()
        ears.one_of("filters", self.filters, FILTERS)
        ears.one_of("norm", self.norm, scales.NORMS)
        if self.exponent not in (1, 2):
            raise ValueError(f"exponent must be 1 or 2; got {self.exponent}. Take 2 for power.")
        if self._top_hz() > self.sample_rate_hz / 2:
            raise ValueError(
                f"max_hz must not exceed half the sample rate; got {self._top_hz():g} of "
                f"{self.sample_rate_hz / 2:g} Hz. Take None."
            )
        empty = np.flatnonzero(self._fixed().max(axis=0) <= 0)
        if empty.size:
            raise ValueError(
                f"Every band must hold a bin of the spectrum; bands {empty.tolist()} of "
                f"n_mels={self.n_mels} hold none of {self.bins_hz().size}. Take fewer bands, or a "
                "larger n_fft."
            )

    def specs(self) -> Params:
        """Centres and widths, if they are learned."""
        if self.filters == "fixed":
            return {}
        top_hz, bin_hz = self.sample_rate_hz / 2, self.sample_rate_hz / self.transform_samples
        width = ("Hz", bin_hz / 4, top_hz)
        below, above = "How far below its centre a band begins.", "How far above it a band ends."
        return {
            "center_hz": Parameter(
                "Hz", 1.0, top_hz, "Where a band weighs most.", _MEL_SOURCE, "log_logit"
            ),
            "below_hz": Parameter(*width, below, _MEL_SOURCE, "log_logit"),
            "above_hz": Parameter(*width, above, _MEL_SOURCE, "log_logit"),
        }

    def init(self, key: Any = None) -> Params:
        """Initial params, the mel scale; `key` is not used."""
        del key
        return self.raw(self._initial())

    def _initial(self) -> dict[str, np.ndarray]:
        if self.filters == "fixed":
            return {}
        edges = self._edges()
        steps = np.diff(edges)
        return {"center_hz": edges[1:-1], "below_hz": steps[:-1], "above_hz": steps[1:]}

    def features(self, physical: Params, spectrum: Any) -> Any:
        """Bands."""
        return self._bands(physical, spectrum)

    def channel_frequencies_hz(self, params: Params) -> Float[Array, " channels"] | None:
        """Centres of the bands."""
        if self.filters == "learned":
            return self.physical(params)["center_hz"]
        return jnp.asarray(self._edges()[1:-1], float)

    def _bands(self, physical: Params, spectrum: Any) -> Any:
        size = short_time.power(spectrum) if self.exponent == 2 else short_time.magnitude(spectrum)
        if self.filters == "fixed":
            weights: Any = self._fixed()
        else:
            lines = (physical[name] for name in ("center_hz", "below_hz", "above_hz"))
            weights = scales.triangles(self.bins_hz(), *lines, norm=self.norm)
        return size @ jnp.asarray(weights, size.dtype)

    def _fixed(self) -> np.ndarray:
        return scales.filterbank(
            self.bins_hz().size,
            self.n_mels,
            self.sample_rate_hz,
            self.min_hz,
            self._top_hz(),
            self.mel_scale,
            self.norm,
        )

    def _edges(self) -> np.ndarray:
        return scales.mel_edges_hz(self.n_mels, self.min_hz, self._top_hz(), self.mel_scale)

    def _top_hz(self) -> float:
        return float(self.sample_rate_hz / 2 if self.max_hz is None else self.max_hz)


@dataclasses.dataclass(frozen=True)
class LogMel(Mel):
    """The natural logarithm of mel bands plus a floor, a parameter of each band, `[n_mels]`.

    Attributes:
      initial_floor: starting value of the floor.
    """

    initial_floor: float | int = 1e-6

    def specs(self) -> Params:
        """The floor of the logarithm, and centres and widths if they are learned."""
        return super().specs() | {"floor": _FLOOR}

    def _initial(self) -> dict[str, np.ndarray]:
        return super()._initial() | {"floor": np.full(self.n_mels, self.initial_floor)}

    def features(self, physical: Params, spectrum: Any) -> Any:
        """Logarithms of bands."""
        return logarithm(self._bands(physical, spectrum), physical["floor"])


@dataclasses.dataclass(frozen=True)
class Mfcc(LogMel):
    """Mel-frequency cepstral coefficients: the cosine transform of log-mel bands.

    Davis & Mermelstein (1980), IEEE Trans. ASSP 28. Logarithms are natural and no coefficient is
    liftered, as in torchaudio.transforms.MFCC(log_mels=True). Channels have no frequency.

    Attributes:
      n_mfcc: coefficients, from the zeroth (the mean) on.
    """

    n_mfcc: int = 20

    def __post_init__(self):
        super().__post_init__()
        scales.dct_matrix(self.n_mels, self.n_mfcc)

    def features(self, physical: Params, spectrum: Any) -> Any:
        """Coefficients."""
        bands = super().features(physical, spectrum)
        return bands @ jnp.asarray(scales.dct_matrix(self.n_mels, self.n_mfcc), bands.dtype)

    def channel_frequencies_hz(self, params: Params) -> None:
        """None: a coefficient is of all frequencies."""
        del params


def logarithm(
    power: Float[Array, "batch ears frames channels"], floor: Float[Array, " channels"]
) -> Float[Array, "batch ears frames channels"]:
    """ln(power + floor) for each channel."""
    return jnp.log(power + floor[None, None, None])
