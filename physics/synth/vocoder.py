"""Exists to be the classical answer that networks are held against: a channel vocoder.

Dudley (1939), "Remaking speech", J. Acoust. Soc. Am. 11: the levels of a sound in bands colour a
buzz of the right pitch, or a hiss. Here all that is tuned by ear elsewhere has a gradient.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from physics import audio as ears
from physics import bounds
from physics.base import Parameter, Params, State
from physics.filterbanks import Gammatone
from physics.synth import phase
from physics.synth.fir import time_varying_fir
from physics.synth.noise import noise_frames
from physics.synth.oscillators import ends_of_hops
from physics.synth.source_filter import minimum_phase, pulse_train
from physics.synth.synthesiser import Synthesiser

_SOURCE = "Chosen here: nothing is changed to begin with."
_FLOOR = 1e-10  # power of a band that counts as silence
_TO_DB = 10 / math.log(10)


@dataclasses.dataclass(frozen=True)
class ChannelVocoder(Synthesiser):
    """A bank of gammatones hears how loud each band is, and a bank like it makes it so again.

    `analyse` gives the levels of a sound, `apply` a sound of such levels. Between the bands, levels
    are interpolated by the squared responses of the filters, and each frame's spectrum becomes a
    filter of minimum phase, through which go pulses at f0 and noise. Controls:

    - `f0_hz` `[batch, frames]`, at the ends of hops; 0 is unvoiced;
    - `bands_db` `[batch, frames, n_bands]`, from `analyse`;
    - `voicing` `[batch, frames]`, from 0 (noise) to 1 (pulses), the confidence of a pitch say; left
      out, it is 1 where there is an f0;
    - `key`, see `HarmonicNoise`.

    Parameters, to be tuned on the loss that a network is trained on: centres and bandwidths of the
    bank, a gain for each band, and how much of it is noise where the sound is voiced.

    Attributes:
      n_bands: bands.
      min_hz: centre of the lowest one to begin with.
      max_hz: that of the highest one; None is 0.9 of half the sample rate.
      window_s: seconds over which `analyse` takes a level.
      n_fft: size of the transform in which filters are made; they have half as many taps.
    """

    n_bands: int = 32
    min_hz: float | int = 50.0
    max_hz: float | int | None = None
    window_s: float | int = 0.02
    n_fft: int = 1024

    def __post_init__(self):
        super().__post_init__()
        ears.check_positive(self, "n_bands", "n_fft")
        hash(self.bank)  # which checks the other fields

    @property
    def bank(self) -> Gammatone:
        """The filters of `analyse`, and a model for those of `apply`."""
        hop_s = self.hop_samples / self.sample_rate_hz
        return Gammatone(
            sample_rate_hz=self.sample_rate_hz,
            n_channels=self.n_bands,
            min_hz=self.min_hz,
            max_hz=self.max_hz,
            hop_s=hop_s,
            window_s=max(self.window_s, hop_s),
            detector="square",
        )

    @property
    def control_sizes(self) -> dict[str, int]:
        """Sizes of the controls."""
        return {"f0_hz": 1, "bands_db": self.n_bands, "voicing": 1}

    @property
    def taps(self) -> int:
        """Samples of the filters."""
        return self.n_fft // 2

    def specs(self) -> Params:
        """Of every band its filter, its gain, and its share of noise."""
        return {
            "bank": self.bank.specs(),
            "gain_db": Parameter("dB", -30.0, 30.0, "Gain of a band.", _SOURCE),
            "noise_share": Parameter(
                "1",
                0.0,
                1.0,
                "How much of a band's power is noise where the sound is voiced.",
                "Chosen here, as is the value to begin with: a little.",
            ),
        }

    def init(self, key: Any = None) -> Params:
        """Bands equally spaced in ERB; `key` is not used."""
        del key
        own = {"gain_db": np.zeros(self.n_bands), "noise_share": np.full(self.n_bands, 0.005)}
        specs = self.specs()
        raw = {name: bounds.to_raw(specs[name], value, name) for name, value in own.items()}
        return {"bank": self.bank.init()} | raw

    def channel_frequencies_hz(self, params: Params) -> Float[Array, " bands"]:
        """Centre frequencies of the bands."""
        return self.bank.channel_frequencies_hz(params["bank"])

    def analyse(
        self, params: Params, audio: Float[Array, "batch time"], lengths: Any = None
    ) -> Float[Array, "batch frames bands"]:
        """Levels of a sound in the bands, in dB: the control `bands_db`.

        The middle of a frame's window is where its hop ends, so that it looks ahead by half of it,
        and a band is told of by its envelope's peak and not by its beginning.

        Args:
          params: as from `init`.
          audio: full scale 1.0.
          lengths: `[batch]` valid samples; what lies beyond counts as silence.
        """
        audio = ears.heard(audio, 1, params, lengths)[:, 0]
        ahead = self.bank.window_samples // 2 + self.hop_samples // 2
        moved = jnp.pad(audio, ((0, 0), (0, ahead)))[:, ahead:]
        power, _ = self.bank.apply(params["bank"], moved)
        return _TO_DB * jnp.log(power + _FLOOR)

    def init_state(self, batch_shape: Any) -> State:
        """Silence."""
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        return self._rest(batch, jnp.result_type(float))

    def _rest(self, batch: int, dtype: Any) -> State:
        return {
            "f0_hz": jnp.zeros(batch, dtype),
            "turns": phase.still((batch,), dtype),
            "frame": jnp.zeros(batch, jnp.int32),
            "tail": jnp.zeros((batch, self.taps - 1), dtype),
        }

    def apply(self, params: Params, inputs: Any, state: State = None, lengths: Any = None) -> Any:
        """Makes sound of bands and a pitch.

        Args:
          params: as from `init`.
          inputs: controls, see the class.
          state: from an earlier piece, of any number of frames; None starts from silence.
          lengths: `[batch]` valid samples; hops that end beyond are silent.

        Returns:
          Audio `[batch, frames * hop_samples]`, and the state.

        Raises:
          ValueError: a control is missing, or of another shape.
        """
        controls = self.checked(inputs, optional=("voicing",))
        f0_hz = controls["f0_hz"]
        if "voicing" not in controls:
            controls["voicing"] = jnp.where(f0_hz > 0, jnp.ones_like(f0_hz), 0)
        state = self._rest(f0_hz.shape[0], f0_hz.dtype) if state is None else state
        return _run(self, params, controls, state, lengths)

    def spectra(
        self, physical: Params, bands_db: Float[Array, "batch frames bands"]
    ) -> tuple[Float[Array, "batch frames bins"], Float[Array, "batch frames bins"]]:
        """Power spectra of the filters for white noise of power 1, and the shares of noise."""
        dtype = bands_db.dtype
        center, erb = (
            physical["bank"][name].astype(dtype) for name in ("center_frequency_hz", "erb_hz")
        )
        bins_hz = jnp.asarray(np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate_hz), dtype)
        # |H|^2 of a gammatone of order 4; the constant is b over ERB.
        away = (bins_hz[None] - center[:, None]) / (1.019 * erb[:, None])
        share = (1 + away**2) ** -4
        share = share / jnp.sum(share, axis=0, keepdims=True)
        # White noise of power 1 has the power 4 ERB / sample rate in a band whose gain is 1 for
        # tones: its filter is analytic, of gain 2.
        level = (bands_db + physical["gain_db"].astype(dtype)[None, None]) / _TO_DB
        density = jnp.exp(level) * (self.sample_rate_hz / 4 / erb)[None, None]
        highest = lax.Precision.HIGHEST
        power = jnp.matmul(density, share, precision=highest)
        noisy = density * physical["noise_share"].astype(dtype)[None, None]
        return power, jnp.matmul(noisy, share, precision=highest) / (power + _FLOOR)

    def excitation(
        self, controls: dict[str, Array], state: Any
    ) -> tuple[Float[Array, "batch time"], Float[Array, "batch time"], Any]:
        """Pulses and noise, each of power 1 per sample, and the state without its tail."""
        f0_hz, hop, rate = controls["f0_hz"], self.hop_samples, self.sample_rate_hz
        batch, n_frames = f0_hz.shape
        from_hz, to_hz = ends_of_hops(f0_hz, state["f0_hz"], rate)
        angle, plain, turns = phase.gliding(from_hz, to_hz, state["turns"], rate, hop)
        glide = jnp.asarray(np.arange(hop) / hop, f0_hz.dtype)[None, None]
        now_hz = from_hz[..., None] + (to_hz - from_hz)[..., None] * glide
        angle = phase.radians(angle, jnp.ones((), f0_hz.dtype))
        # Exact phases have no gradient: this adds 0, and that of the plain ones.
        angle = angle + 2 * math.pi * (plain - lax.stop_gradient(plain))
        pulses = pulse_train(angle, now_hz, rate)
        noise = noise_frames(controls["key"], state["frame"], n_frames, hop, f0_hz.dtype)
        noise = noise * 3**0.5
        after = {"f0_hz": f0_hz[:, -1], "turns": turns, "frame": state["frame"] + n_frames}
        return pulses.reshape(batch, -1), noise.reshape(batch, -1), after


@functools.partial(jax.jit, static_argnums=0)
def _run(module: ChannelVocoder, params: Params, controls: Any, state: Any, lengths: Any) -> Any:
    controls, mask = module.heard(controls, lengths)
    dtype = controls["f0_hz"].dtype
    power, noisy = module.spectra(module.physical(params), controls["bands_db"])
    if mask is not None:
        power = jnp.where(mask[..., None], power, _FLOOR)
    voiced = jnp.clip(controls["voicing"], 0, 1)[..., None] * (1 - noisy)
    pulses, noise, after = module.excitation(controls, state)
    voice = minimum_phase(power * voiced + _FLOOR, module.n_fft, module.taps)
    breath = minimum_phase(power * (1 - voiced) + _FLOOR, module.n_fft, module.taps)
    clear, clear_tail = time_varying_fir(pulses, voice, state["tail"].astype(dtype))
    rough, rough_tail = time_varying_fir(noise, breath)
    after["tail"] = clear_tail + rough_tail
    return module.told(clear + rough, mask), after
