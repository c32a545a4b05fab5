"""Exists to offer DDSP's synthesiser as a physics module: harmonics, noise, a room."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics import audio as ears
from physics.base import Parameter, Params, State
from physics.synth.fir import fir_reverb
from physics.synth.noise import WINDOW_TAPS, filtered_noise
from physics.synth.oscillators import (
    harmonic,
    harmonic_amplitudes,
    own_amplitudes,
    partials_hz,
    silence,
)
from physics.synth.scale import scale_function
from physics.synth.synthesiser import Synthesiser

_SOURCE = "Engel et al. (2020), DDSP, ICLR; google-research's initial values. Bounds are ours."


@dataclasses.dataclass(frozen=True)
class HarmonicNoise(Synthesiser):
    """Partials of one fundamental, filtered noise, and a room that is learned.

    Engel et al. (2020), DDSP: Differentiable Digital Signal Processing, ICLR. Controls, all but the
    first before the scale function:

    - `f0_hz` `[batch, frames]`, at the ends of hops; 0 is unvoiced and silences the partials;
    - `amplitude` `[batch, frames]`, of all partials together;
    - `harmonics` `[batch, frames, n_harmonics]`, their shares;
    - `noise` `[batch, frames, n_noise_bands]`, magnitudes at equal steps of frequency;
    - `key`, a random key for each clip (or one): the same key gives the same noise, in pieces too.

    As a stream it runs in pieces of any number of frames.

    Attributes:
      n_harmonics: partials.
      n_noise_bands: magnitudes of the noise; 0 makes none.
      noise_bias: added to `noise` before the scale function, so that 0 is a soft noise.
      reverb_s: length of the room's response; 0 is no room.
      own_amplitudes: whether each partial has an amplitude of its own in place of a share of all:
        `amplitude` is then added to every entry of `harmonics`; see `oscillators.own_amplitudes`.
    """

    n_harmonics: int = 100
    n_noise_bands: int = 65
    noise_bias: float | int = -5.0
    reverb_s: float | int = 0.0
    own_amplitudes: bool = False

    def __post_init__(self):
        super().__post_init__()
        ears.check_positive(self, "n_harmonics")
        if self.n_noise_bands != 0 and self.n_noise_bands < 2:
            raise ValueError(
                f"n_noise_bands must be 0, or 2 and more; got {self.n_noise_bands}. Take 65."
            )
        if self.reverb_s < 0:
            raise ValueError(f"reverb_s must be at least 0; got {self.reverb_s:g}. Take 1 s.")

    @property
    def control_sizes(self) -> dict[str, int]:
        """Sizes of the controls."""
        sizes = {"f0_hz": 1, "amplitude": 1, "harmonics": self.n_harmonics}
        return sizes | ({"noise": self.n_noise_bands} if self.n_noise_bands else {})

    def places_hz(
        self, f0_hz: Float[Array, "batch frames"]
    ) -> dict[str, Float[Array, "batch frames size"]]:
        """Frequencies of the partials, and of the magnitudes of the noise."""
        places = {"harmonics": partials_hz(f0_hz, self.n_harmonics)}
        if self.n_noise_bands:
            bands_hz = np.linspace(0, self.sample_rate_hz / 2, self.n_noise_bands)
            shape = (*f0_hz.shape, self.n_noise_bands)
            places["noise"] = jnp.broadcast_to(jnp.asarray(bands_hz, f0_hz.dtype), shape)
        return places

    @property
    def needs_key(self) -> bool:
        """Whether it makes noise."""
        return self.n_noise_bands > 0

    @property
    def reverb_taps(self) -> int:
        """Samples of the room's response."""
        return ears.samples(self.reverb_s, self.sample_rate_hz) if self.reverb_s else 0

    def specs(self) -> Params:
        """The room's response, if there is a room."""
        if not self.reverb_taps:
            return {}
        doc = "What the room answers to a click, so many samples later; the first tap counts as 0."
        return {"reverb": Parameter("1", -1.0, 1.0, doc, _SOURCE)}

    def init(self, key: Any = None) -> Params:
        """Initial params: a response of about 1e-6, random; 0 if `key` is None."""
        if not self.reverb_taps:
            return {}
        shape, dtype = (self.reverb_taps,), jnp.result_type(float)
        if key is None:
            return {"reverb": jnp.zeros(shape, dtype)}
        # Near 0 the logit of an interval from -1 to 1 is twice the value.
        return {"reverb": 2e-6 * jax.random.normal(key, shape, dtype)}

    def init_state(self, batch_shape: Any) -> State:
        """Silence."""
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        return self._rest(batch, jnp.result_type(float))

    def _rest(self, batch: int, dtype: Any) -> State:
        state: dict[str, Any] = {"tones": silence(batch, self.n_harmonics, dtype)}
        if self.n_noise_bands:
            taps = min(WINDOW_TAPS, 2 * (self.n_noise_bands - 1))
            tail = jnp.zeros((batch, taps - 1), dtype)
            state["noise"] = {"frame": jnp.zeros(batch, jnp.int32), "tail": tail}
        if self.reverb_taps:
            state["reverb"] = jnp.zeros((batch, self.reverb_taps - 1), dtype)
        return state

    def apply(self, params: Params, inputs: Any, state: State = None, lengths: Any = None) -> Any:
        """Makes sound.

        Args:
          params: as from `init`.
          inputs: controls, see the class.
          state: from an earlier piece; None starts from silence.
          lengths: `[batch]` valid samples; hops that end beyond are silent.

        Returns:
          Audio `[batch, frames * hop_samples]`, and the state.

        Raises:
          ValueError: a control is missing, or of another shape.
        """
        controls = self.checked(inputs)
        if state is None:
            state = self._rest(controls["f0_hz"].shape[0], controls["f0_hz"].dtype)
        return _run(self, params, controls, state, lengths)

    def harmonic_part(
        self, controls: dict[str, Array], state: Any = None
    ) -> tuple[Float[Array, "batch time"], Any]:
        """The partials alone, and their part of the state."""
        f0_hz = controls["f0_hz"]
        harmonics = controls["harmonics"].reshape(*f0_hz.shape, self.n_harmonics)
        amplitudes_of = own_amplitudes if self.own_amplitudes else harmonic_amplitudes
        amplitudes = amplitudes_of(f0_hz, controls["amplitude"], harmonics, self.sample_rate_hz)
        return harmonic(f0_hz, amplitudes, self.sample_rate_hz, self.hop_samples, state)

    def noise_part(
        self, controls: dict[str, Array], state: Any = None
    ) -> tuple[Float[Array, "batch time"], Any]:
        """The noise alone, and its part of the state."""
        magnitudes = scale_function(controls["noise"] + self.noise_bias)
        frame, tail = (None, None) if state is None else (state["frame"], state["tail"])
        noise, tail = filtered_noise(magnitudes, controls["key"], self.hop_samples, frame, tail)
        frame = jnp.zeros(noise.shape[0], jnp.int32) if frame is None else frame
        return noise, {"frame": frame + magnitudes.shape[1], "tail": tail}


@functools.partial(jax.jit, static_argnums=0)
def _run(module: HarmonicNoise, params: Params, controls: Any, state: Any, lengths: Any) -> Any:
    controls, mask = module.heard(controls, lengths)
    after = {}
    audio, after["tones"] = module.harmonic_part(controls, state["tones"])
    if module.n_noise_bands:
        noise, after["noise"] = module.noise_part(controls, state["noise"])
        audio = audio + noise
    audio = module.told(audio, mask)
    if module.reverb_taps:
        response = module.physical(params)["reverb"].astype(audio.dtype)
        audio, after["reverb"] = fir_reverb(audio, response, state["reverb"].astype(audio.dtype))
        audio = module.told(audio, mask)
    return audio, after
