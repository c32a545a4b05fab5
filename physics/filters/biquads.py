"""Exists to have resonators and equalisers whose frequencies, sharpness and gains are learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from physics import audio as ears
from physics.base import Parameter, Params
from physics.filters.fir import convolve
from physics.filters.frames import Filters
from physics.filters.iir import recursion

ARRANGEMENTS = ("bank", "cascade")

_COOKBOOK = "R. Bristow-Johnson, Cookbook formulae for audio EQ biquad filter coefficients (W3C)."
# Octaves of IEC 61260-1:2014, and the sharpness of octave filters.
_OCTAVES_HZ = (125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0)


def resonate(
    audio: Float[Array, "*channels time"],
    center_hz: Float[Array, "*filters"],
    q: Float[Array, "*filters"],
    sample_rate_hz: float | int,
    past: tuple[Array, Array] | None = None,
) -> tuple[Float[Array, "*filtered time"], tuple[Array, Array]]:
    """A band-pass filter with a peak of 0 dB, second order; stable for any Q above 0.

    Bristow-Johnson's cookbook, "BPF (constant 0 dB peak gain)", in coefficients that are exact at
    both ends of the spectrum, where those of `sosfilt` round in float32; see `iir.recursion`.

    Args:
      audio: its last axes before time are those of the filters, or 1.
      center_hz: below half the sample rate.
      q: centre frequency over bandwidth (-3 dB).
      sample_rate_hz: of the audio.
      past: as returned for the piece before; None is silence.

    Returns:
      The filtered audio, and the `past` of the next piece.
    """
    # From the nearer end of the spectrum: sines of small angles are exact.
    fast = center_hz > sample_rate_hz / 4
    near_hz = jnp.where(fast, sample_rate_hz / 2 - center_hz, center_hz)
    angle = near_hz * (2 * np.pi / sample_rate_hz)
    alpha = jnp.sin(angle) / (2 * q)
    stiffness, damping = 4 * jnp.sin(angle / 2) ** 2 / (1 + alpha), 2 * alpha / (1 + alpha)
    inputs, outputs = (None, None) if past is None else past
    half = damping / 2
    taps = jnp.stack([half, jnp.zeros_like(half), -half], axis=-1)
    driven, inputs = convolve(audio, taps, inputs)
    y, outputs = recursion(driven, jnp.stack([stiffness, damping], axis=-1), fast, outputs)
    return y, (inputs, outputs)


@dataclasses.dataclass(frozen=True)
class Biquads(Filters):
    """Second-order filters with learned frequency, Q and gain; stable wherever they go.

    Attributes:
      arrangement: "bank": band-pass filters side by side, a channel each. "cascade": peaking
        filters in turn, a parametric equaliser with one channel.
      initial_center_hz: centre frequencies to begin with.
      initial_q: centre frequency over bandwidth (-3 dB), for all or for each.
      initial_gain_db: at the centre, likewise.
    """

    arrangement: str = "bank"
    initial_center_hz: Sequence[Any] = _OCTAVES_HZ
    initial_q: Any = 2**0.5
    initial_gain_db: Any = 0.0

    def __post_init__(self):
        super().__post_init__()
        ears.one_of("arrangement", self.arrangement, ARRANGEMENTS)
        object.__setattr__(self, "initial_center_hz", tuple(map(float, self.initial_center_hz)))
        for name in ("initial_q", "initial_gain_db"):
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape not in ((), (self.n_filters,)):
                raise ValueError(
                    f"{name} must be a number, or one for each of the {self.n_filters} filters; "
                    f"got shape {value.shape}."
                )
            object.__setattr__(self, name, tuple(value.tolist()) if value.ndim else float(value))

    @property
    def n_filters(self) -> int:
        """Filters."""
        return len(self.initial_center_hz)

    def specs(self) -> Params:
        """Centre frequency, Q and gain of each filter."""
        source = f"{_COOKBOOK} Initial: octaves of IEC 61260-1:2014. Bounds are ours."
        low_hz, high_hz = self.sample_rate_hz / 800, 0.49 * self.sample_rate_hz
        center, q = "Centre frequency.", "Centre frequency over bandwidth (-3 dB)."
        return {
            "center_hz": Parameter("Hz", low_hz, high_hz, center, source, "log_logit"),
            "q": Parameter("1", 0.1, 50.0, q, source, "log_logit"),
            "gain_db": Parameter("dB", -24.0, 24.0, "Gain at the centre.", source),
        }

    def init(self, key: Any = None) -> Params:
        """Initial params; `key` is not used."""
        del key
        names = {"center_hz": "initial_center_hz", "q": "initial_q", "gain_db": "initial_gain_db"}
        return self.raw(
            {
                name: np.broadcast_to(getattr(self, field), (self.n_filters,))
                for name, field in names.items()
            }
        )

    def init_filters(self, batch: int) -> Any:
        """Inputs and outputs before the clip, all 0; of a cascade for each section."""
        lead = (batch, self.n_ears)
        if self.arrangement == "bank":
            return jnp.zeros((*lead, 1, 2)), jnp.zeros((*lead, self.n_filters, 2))
        rest = jnp.zeros((self.n_filters, *lead, 2))
        return rest, rest

    def filtered(self, physical: Params, audio: Any, state: Any) -> tuple[Any, Any]:
        """Outputs of the bank, or the equalised audio."""
        center_hz, q = physical["center_hz"], physical["q"]
        gain = jnp.exp(physical["gain_db"] * (np.log(10) / 20))
        if self.arrangement == "bank":
            y, after = resonate(audio[:, :, None], center_hz, q, self.sample_rate_hz, state)
            return y * gain[None, None, :, None], after

        def section(audio, settings):
            # The cookbook's "peakingEQ": all of the sound, and more or less of a band of it.
            center_hz, q, gain, before = settings
            band, after = resonate(audio, center_hz, q * gain**0.5, self.sample_rate_hz, before)
            return audio + (gain - 1) * band, after

        audio, after = lax.scan(section, audio, (center_hz, q, gain, state))
        return audio[:, :, None], after

    def channel_frequencies_hz(self, params: Params) -> Float[Array, " filters"] | None:
        """Centre frequencies of a bank; a cascade has one channel of all frequencies."""
        return self.physical(params)["center_hz"] if self.arrangement == "bank" else None
