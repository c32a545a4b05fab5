"""Exists to make CAR-FAC a physics module: parameters in, cochleagrams out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics import bounds
from physics.audio import check_audio, check_piece
from physics.base import Physics, frame_mask, sample_mask
from physics.carfac import checks, design, ear, framing, google, kernels, places, rest, setup
from physics.carfac import parameters as tables
from physics.carfac.structures import OUTPUTS, Coefficients, State, Structure

if TYPE_CHECKING:
    FullRate = Float[Array, "batch time ears channels"]
    FullRateByClass = Float[Array, "batch time ears channels classes"]
    Hops = Float[Array, "batch past segments ears channels"]
else:
    FullRate = FullRateByClass = Hops = Any  # pytree fields hold anything under `jax.tree.map`


@flax.struct.dataclass
class CarfacOutputs:
    """What `Carfac.run` gives; a field that was not asked for is None.

    Attributes:
      nap: neural activity pattern, 0 at rest.
      bm: basilar membrane displacement.
      ohc: what the outer hair cells feel the velocity of (z2, one sample ago).
      agc: undamping that the gain control leaves to them.
      receptor_potential: of the inner hair cells, 0 at rest (two-cap styles).
      firings: action potentials of all fibres of a class, per sample (two_cap_with_syn).
    """

    nap: FullRate | None = None
    bm: FullRate | None = None
    ohc: FullRate | None = None
    agc: FullRate | None = None
    receptor_potential: FullRate | None = None
    firings: FullRateByClass | None = None


@flax.struct.dataclass
class FramedState:
    """State of a framed model: the cochlea's, and the hops that later windows still see."""

    cochlea: State
    past: Hops


@dataclasses.dataclass(frozen=True)
class Carfac(Physics):
    """A differentiable cochlea: cascade of asymmetric resonators with fast-acting compression.

    Attributes:
      sample_rate_hz: 8 kHz to 96 kHz.
      n_ears: ears that share one gain control.
      ihc: "just_hwr", "one_cap", "two_cap" or "two_cap_with_syn".
      use_delay_buffer: a sample of delay between stages, so that none waits for another.
      open_loop: gain control does not act on the cochlea.
      linear_car: outer hair cells do not saturate.
      initial: initial physical values by path, {"car.ohc_health": 0.5}; per ear and channel
        where the parameter has them: a scalar, `[ears, 1]`, `[channels]` or `[ears, channels]`.
      settled: start from the equilibrium of silence; else from google/carfac's initial state,
        whose gains are those of healthy hair cells.
      kernel: "auto", "native" or "xla".
      full_scale_db_spl: level in dB SPL of a peak of 1.0 in the audio. The model itself takes 1.0
        as 100 dB SPL, so audio is multiplied by 10 ** ((full_scale_db_spl - 100) / 20).
      hop_s: seconds per frame; None gives full rate. Rounded to a whole number of samples.
      window_s: seconds a frame looks back, a multiple of the hop (rounded); None is two hops.
      window: "hann" or "boxcar", normalised to give means.
      compression: of frames: "none", "root" or "log".
      min_pole_hz: channels of the initial map end above this frequency.
      agc_decimations: per stage of gain control, fast to slow, updates of the stage before (the
        first: samples) per update; its length is the number of stages, () for no gain control.
      healthy_fibres: fibres per class and channel of an ear without synaptopathy.
      ear_filter: "none", or the outer and middle ear before the cochlea, as a filter of "linear"
        phase, which delays by `latency_samples`, or of "minimum" phase; see `physics.carfac.ear`.
      sound_field: where, with an ear filter, audio has its level: in a "free" field in front of the
        listener, in a "diffuse" field, or at the "eardrum".
    """

    sample_rate_hz: float | int = 22050.0
    n_ears: int = 1
    ihc: str = "two_cap"
    use_delay_buffer: bool = False
    open_loop: bool = False
    linear_car: bool = False
    initial: Any = ()
    settled: bool = False
    kernel: str = "auto"
    full_scale_db_spl: float | int = 100.0
    hop_s: float | int | None = None
    window_s: float | int | None = None
    window: str = "hann"
    compression: str = "none"
    min_pole_hz: float | int = 30.0
    agc_decimations: Sequence[int] = (8, 2, 2, 2)
    healthy_fibres: Sequence[float] = tables.HEALTHY_FIBRES
    ear_filter: str = "none"
    sound_field: str = "free"

    def __post_init__(self):
        object.__setattr__(self, "initial", setup.hashable(self.initial))
        object.__setattr__(self, "agc_decimations", tuple(self.agc_decimations))
        object.__setattr__(self, "healthy_fibres", tuple(map(float, self.healthy_fibres)))
        for name in ("sample_rate_hz", "full_scale_db_spl", "min_pole_hz", "hop_s", "window_s"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))
        checks.check_fields(self)
        setup.prepare(self)  # raises what is wrong with `initial` now, not at the first use

    @classmethod
    def from_google(cls, settings: Any, **fields: Any) -> Carfac:
        """The model of google/carfac's design parameters; arguments as of `google.build`."""
        return google.build(cls, settings, fields)

    @property
    def structure(self) -> Structure:
        """What is discrete: channels, stages, taps."""
        return setup.prepare(self).structure

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return 1 if self.hop_s is None else max(1, round(self.hop_s * self.sample_rate_hz))

    @property
    def window_samples(self) -> int:
        """Samples of audio that a frame looks at."""
        if self.window_s is None:
            return 2 * self.hop_samples
        return self.hop_samples * max(
            1, round(self.window_s * self.sample_rate_hz / self.hop_samples)
        )

    @property
    def latency_samples(self) -> int:
        """Samples by which the ear filter delays sound: none unless its phase is linear."""
        return ear.latency_samples(self.sample_rate_hz, self.ear_filter)

    def specs(self) -> Mapping[str, Any]:
        """`Parameter` of every trainable physical value."""
        return setup.prepare(self).specs()

    def init(self, key: Any = None) -> Mapping[str, Any]:
        """The initial params: google/carfac's defaults, or as `initial` says. `key` is not used."""
        del key
        return self.raw(setup.prepare(self).initial())

    def design(self, params: Any) -> Coefficients:
        """Coefficients of the filters; differentiable."""
        physical, poles = self.physical(params), self._poles_hz(params)
        return design.design(physical, poles, self.structure, tuple(self.healthy_fibres))

    def channel_frequencies_hz(self, params: Any) -> Float[Array, "*ears channels"]:
        """Pole frequencies, base to apex: `[channels]`, or `[ears, channels]` for several ears."""
        poles = self._poles_hz(params)
        return poles[0] if self.n_ears == 1 else poles

    def _poles_hz(self, params: Any) -> Float[Array, "ears channels"]:
        prepared = setup.prepare(self)
        specs, now, initial = (
            {name: tree["car"][name] for name in places.NAMES}
            for tree in (prepared.specs(), params, prepared.initial())
        )
        moved = bounds.moved(specs, now, initial)
        return places.pole_frequencies_hz(moved, initial, self.structure, self.min_pole_hz)

    def init_state(self, batch_shape: Any, params: Any = None) -> State | FramedState:
        """The state at the beginning of clips.

        Args:
          batch_shape: number of clips, an int or a tuple of one.
          params: whose gains and equilibria to start from; None means the initial ones.
        """
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        coefficients = self.design(self.init() if params is None else params)
        cochlea = rest.initial_state(coefficients, self.structure, batch, self.settled)
        if self.ear_filter != "none":
            past = jnp.zeros((batch, self._ear_taps().size - 1, self.n_ears), cochlea.z1.dtype)
            cochlea = dataclasses.replace(cochlea, past_audio=past)
        return cochlea if self.hop_s is None else FramedState(cochlea, self._no_past(cochlea))

    def _no_past(self, cochlea: State) -> Array:
        batch, ears, channels = cochlea.z1.shape
        segments = self.window_samples // self.hop_samples
        return jnp.zeros((batch, segments - 1, segments, ears, channels), cochlea.z1.dtype)

    def run(
        self,
        params: Any,
        audio: Float[Array, "*batch_time_ears"],
        state: State | None = None,
        outputs: tuple[str, ...] | None = None,
        lengths: Any = None,
    ) -> tuple[CarfacOutputs, State]:
        """Everything a hearing scientist asks for, at full rate.

        Args:
          params: as from `init`.
          audio: `[batch, time]`, or `[batch, time, ears]` for several ears; full scale 1.0.
          state: from an earlier piece, of any length; None starts afresh.
          outputs: names of the fields wanted, the others are None and cost nothing; by default all
            that this style of inner hair cell has.
          lengths: `[batch]` valid samples; outputs are 0 beyond.

        Returns:
          The outputs and the state after the piece.

        Raises:
          ValueError: audio of another shape or for other ears, without a sample, or with NaN or Inf
            (within `lengths`); a state of another model. Under `jit` the values of audio cannot be
            seen: NaN then runs through to the outputs, where the training loop looks for it.
        """
        if outputs is None:
            outputs = OUTPUTS if self.ihc == "two_cap_with_syn" else OUTPUTS[:-1]
        checks.check_outputs(outputs, self.ihc)
        check_audio(audio, self.n_ears)
        if state is not None:
            checks.check_state(
                state, _state_shapes(dataclasses.replace(self, hop_s=None), len(audio))
            )
        coefficients, audio, before, past_audio = self._begin(params, audio, state, lengths)
        structure, names, fresh = self.structure, tuple(outputs), state is None
        given, after = kernels.run(
            self.kernel, coefficients, structure, before, audio, names, aligned=fresh
        )
        if lengths is not None:
            mask = sample_mask(audio.shape[1], lengths)
            given = {
                name: jnp.where(mask.reshape(mask.shape + (1,) * (value.ndim - 2)), value, 0)
                for name, value in given.items()
            }
        return CarfacOutputs(**given), dataclasses.replace(after, past_audio=past_audio)

    def _begin(self, params: Any, audio: Any, state: State | None, lengths: Any):
        """Coefficients, audio `[batch, time, ears]` as the cochlea hears it, state before.

        And what the ear filter has to remember, apart: kernels carry states from block to block.
        """
        checks.check_finite(audio, lengths)
        coefficients = self.design(params)
        audio = jnp.asarray(audio, coefficients.car.sin.dtype)
        audio = audio[..., None] if audio.ndim == 2 else audio
        if lengths is not None:
            audio = jnp.where(sample_mask(audio.shape[1], lengths)[:, :, None], audio, 0)
        audio = audio * 10 ** ((self.full_scale_db_spl - 100) / 20)
        if state is None:
            state = rest.initial_state(coefficients, self.structure, audio.shape[0], self.settled)
        past_audio = state.past_audio
        if self.ear_filter != "none":
            audio, past_audio = ear.hear(audio, past_audio, self._ear_taps())
        return coefficients, audio, dataclasses.replace(state, past_audio=None), past_audio

    def _ear_taps(self) -> np.ndarray:
        return ear.fir_taps(self.sample_rate_hz, self.sound_field, self.ear_filter)

    def apply(self, params: Any, inputs: Any, state: Any = None, lengths: Any = None) -> Any:
        """Neural activity: full rate, or in frames if `hop_s` is given.

        Args:
          params: as from `init`.
          inputs: audio `[batch, time]` or `[batch, time, ears]`.
          state: from an earlier piece. Framed pieces are multiples of `hop_samples`; what is left
            over at the end of the last one makes no frame.
          lengths: `[batch]` valid samples; frames that end beyond are 0.

        Returns:
          Features `[batch, frames, channels]` (`[batch, frames, ears, channels]` for several ears),
          and the state.

        Raises:
          ValueError: as `run`; and a framed piece that is no multiple of `hop_samples`.
        """
        if self.hop_s is None:
            out, state = self.run(params, inputs, state, ("nap",), lengths)
            features: Any = out.nap
        else:
            check_audio(inputs, self.n_ears)
            if state is not None:
                checks.check_state(state, _state_shapes(self, len(inputs)))
            check_piece(inputs.shape[1], self.hop_samples, state)
            features, state = self._frames(params, inputs, state, lengths)
        return (features[:, :, 0] if self.n_ears == 1 else features), state

    def _frames(self, params: Any, audio: Any, state: FramedState | None, lengths: Any):
        cochlea = None if state is None else state.cochlea
        coefficients, audio, before, past_audio = self._begin(params, audio, cochlea, lengths)
        structure, hop, fresh = self.structure, self.hop_samples, state is None
        segments = framing.window_segments(self.window, self.window_samples, hop)
        hops, after = kernels.run_hops(
            self.kernel, coefficients, structure, before, audio, segments, aligned=fresh
        )
        past = self._no_past(after) if state is None else state.past
        framed, past = framing.overlap(hops, past)
        framed = framing.compress(framed, self.compression)
        if lengths is not None:
            mask = frame_mask(framed.shape[1], hop, lengths)
            framed = jnp.where(mask[:, :, None, None], framed, 0)
        return framed, FramedState(dataclasses.replace(after, past_audio=past_audio), past)


@functools.lru_cache(maxsize=64)
def _state_shapes(model: Carfac, batch: int) -> Any:
    """The state of so many clips, as shapes; computes nothing."""
    return jax.eval_shape(lambda: model.init_state(batch))
