"""Exists to follow the envelope and the frequency of a sound: analytic signals, with gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float
from scipy import signal

from physics import audio as ears
from physics.base import Parameter, Params
from physics.filters.fir import convolve
from physics.filters.frames import Filters
from physics.spectra import short_time

# -100 dB re full scale: where envelopes begin to count as silence.
_QUIET = 1e-5


def analytic_signal(audio: Float[Array, "*channels time"]) -> Complex[Array, "*channels time"]:
    """The signal, and as imaginary part its Hilbert transform; as `scipy.signal.hilbert`.

    Marple (1999), IEEE Trans. Signal Processing 47, 2600. The clip is taken as one period.
    """
    time = audio.shape[-1]
    spectrum = 2 * jnp.fft.rfft(audio)
    # Bins that are their own mirror images count once.
    once = np.ones(spectrum.shape[-1])
    once[0] = 0.5
    if time % 2 == 0:
        once[-1] = 0.5
    weights = jnp.asarray(once, audio.dtype).reshape((1,) * (audio.ndim - 1) + (-1,))
    spectrum = lax.complex(spectrum.real * weights, spectrum.imag * weights)
    missing = [(0, 0)] * (audio.ndim - 1) + [(0, time - spectrum.shape[-1])]
    return jnp.fft.ifft(jnp.pad(spectrum, missing))


def envelope(audio: Float[Array, "*channels time"]) -> Float[Array, "*channels time"]:
    """Magnitude of the analytic signal; where it is 0 so is its gradient."""
    return short_time.magnitude(analytic_signal(audio))


def instantaneous_frequency_hz(
    audio: Float[Array, "*channels time"], sample_rate_hz: float | int
) -> Float[Array, "*channels steps"]:
    """How fast the phase of the analytic signal turns from each sample to the next, time - 1 steps.

    From the turn itself, hence without unwrapping: negative where the phase turns back. Where the
    signal vanishes it is 0, with the gradient 0.
    """
    z = analytic_signal(audio)
    turn = short_time.phase(z[..., 1:] * jnp.conj(z[..., :-1]))
    return turn * (sample_rate_hz / (2 * np.pi))


def hilbert_taps(reach: int) -> Float[np.ndarray, " taps"]:
    """A Hilbert transformer of 2 reach + 1 taps, delaying by `reach`, float64.

    The ideal response 2 / (pi n), n odd, under a Hamming window: Oppenheim & Schafer, Discrete-Time
    Signal Processing, section 12.4.2. It is within 1 % between 2 / reach and 1 - 2 / reach of half
    the sample rate.
    """
    n = np.arange(-reach, reach + 1)
    ideal = np.where(n % 2 == 1, 2 / (np.pi * np.where(n == 0, 1, n)), 0.0)
    return ideal * signal.get_window("hamming", n.size, fftbins=False)


@dataclasses.dataclass(frozen=True)
class HilbertEnvelope(Filters):
    """Envelope of each ear's whole band under a power law, and on request its frequency.

    Works as a stream: an FIR filter takes the place of the transform of a whole clip, so features
    come `latency_samples` late. Frequencies below 2 / reach_s are heard too softly.

    Attributes:
      hop_s: seconds per frame; features are means over frames. None is full rate.
      reach_s: half the length of the filter.
      frequency: add a channel, the frequency as a part of half the sample rate: that of the mean
        turn of phase, weighted by power (Kay, 1989, IEEE Trans. ASSP 37, 1987), 0 in silence.
      initial_exponent: starting value of the power law.
    """

    reach_s: float | int = 0.008
    frequency: bool = False
    initial_exponent: float | int = 0.6

    def __post_init__(self):
        super().__post_init__()
        ears.check_positive(self, "reach_s")

    @property
    def latency_samples(self) -> int:
        """Samples by which features are late."""
        return ears.samples(self.reach_s, self.sample_rate_hz)

    def specs(self) -> Params:
        """The exponent."""
        doc = "Exponent of the power law that compresses the envelope; 1 leaves it as it is."
        source = "Initial: Biesmans et al. (2017), IEEE Trans. Neural Syst. Rehab. Eng. 25, 402."
        return {"exponent": Parameter("1", 0.1, 1.0, doc, source, "project")}

    def init(self, key: Any = None) -> Params:
        """Initial params; `key` is not used."""
        del key
        return self.raw({"exponent": self.initial_exponent})

    def init_filters(self, batch: int) -> Array:
        """Silence before the clip: what the filter sees, and a sample more."""
        return jnp.zeros((batch, self.n_ears, 2 * self.latency_samples + 1))

    def filtered(self, physical: Params, audio: Any, state: Any) -> tuple[Any, Any]:
        """Compressed envelope, and real and imaginary part of z[n] conj(z[n - 1])."""
        reach, time = self.latency_samples, audio.shape[-1]
        whole = jnp.concatenate([state, audio], axis=-1)
        taps = jnp.asarray(hilbert_taps(reach), audio.dtype)
        imaginary, _ = convolve(whole[..., 2 * reach :], taps, whole[..., : 2 * reach])
        z = lax.complex(whole[..., reach : reach + time + 1], imaginary)
        size, exponent = short_time.magnitude(z[..., 1:]), physical["exponent"]
        channels = [(size + _QUIET) ** exponent - _QUIET**exponent]
        if self.frequency:
            turn = z[..., 1:] * jnp.conj(z[..., :-1])
            channels += [turn.real, turn.imag]
        return jnp.stack(channels, axis=2), whole[..., time:]

    def features(self, y: Any) -> Any:
        """Means over frames; of turns, the angle."""
        hops = jnp.mean(self.hops(y), axis=-1)
        if not self.frequency:
            return hops
        # A little turn of nothing keeps rounding errors from being heard as frequencies.
        turn = lax.complex(hops[:, :, 1] + _QUIET**2, hops[:, :, 2])
        return jnp.stack([hops[:, :, 0], short_time.phase(turn) / np.pi], axis=2)
