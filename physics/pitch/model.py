"""Exists to offer pitch and loudness as a front end: what a synthesiser is driven by."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics import audio as ears
from physics.base import Params, Physics, State, frame_mask
from physics.pitch import period
from physics.pitch.loudness import WINDOW_S, a_weighted_loudness_db
from physics.pitch.scale import hz_to_midi


@dataclasses.dataclass(frozen=True)
class PitchLoudness(Physics):
    """f0, its confidence and A-weighted loudness, all three about 0 to 1.

    The features, scaled as DDSP has them (Engel et al., 2020, ICLR): f0 in semitones (MIDI) over
    127, 0 in silence; confidence; loudness in dB over `range_db`, plus 1. `run` gives Hz and dB.
    There is nothing to learn here; gradients reach the audio.

    Attributes:
      sample_rate_hz: samples of audio per second.
      hop_s: seconds per frame, rounded to samples.
      min_hz: lowest f0; the pitch window is twice its period.
      max_hz: highest f0; None is 2 kHz, or an eighth of the sample rate if that is less.
      threshold: see `yin`.
      window_s: of the loudness.
      range_db: loudness goes from minus this to 0 dB, a full-scale sine at 1 kHz.
      centred: frames look ahead by half of a window, so that a frame tells of the instant at which
        its hop ends; else they come that much later, and can be streamed.
    """

    hop_s: float | int = 0.01
    min_hz: float | int = 35.0
    max_hz: float | int | None = None
    threshold: float | int = 0.1
    window_s: float | int = WINDOW_S
    range_db: float | int = 80.0
    centred: bool = False

    def __post_init__(self):
        names = ("sample_rate_hz", "hop_s", "min_hz", "max_hz", "window_s", "range_db")
        ears.check_positive(self, *names)
        # What does not fit together is told of where it is used, before anything is heard.
        jax.eval_shape(lambda: self._heard(jnp.zeros((1, self.hop_samples)), None))

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return ears.samples(self.hop_s, self.sample_rate_hz)

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Whether it may be streamed: if frames see nothing beyond their ends."""
        return not self.centred

    @property
    def not_causal_because(self) -> str:  # type: ignore[override]
        """Why not, if not."""
        if self.causal:
            return ""
        return "Centred frames look half of a window ahead; with centred=False they do not."

    @property
    def _top_hz(self) -> float:
        return min(2000.0, self.sample_rate_hz / 8) if self.max_hz is None else float(self.max_hz)

    @property
    def _past_samples(self) -> int:
        seen = period.window_samples(self.sample_rate_hz, self.min_hz)
        return max(seen, ears.samples(self.window_s, self.sample_rate_hz)) - self.hop_samples

    def specs(self) -> Params:
        """Nothing is learned."""
        return {}

    def init(self, key: Any = None) -> Params:
        """No params; `key` is not used."""
        del key
        return {}

    def init_state(self, batch_shape: Any) -> State:
        """Silence before the clip, `[batch, past]`; None if frames are centred."""
        if self.centred:
            return None
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        return jnp.zeros((batch, self._past_samples))

    def run(
        self, params: Params, inputs: Any, state: State = None, lengths: Any = None
    ) -> tuple[dict[str, Float[Array, "batch frames"]], State]:
        """`f0_hz`, `confidence` and `loudness_db`; for the arguments see `apply`.

        In frames that end beyond `lengths`, f0 and confidence are 0 and the loudness `-range_db`.
        """
        audio = ears.heard(inputs, 1, params, lengths)[:, 0]
        ears.check_piece(audio.shape[1], self.hop_samples, state)
        if self.centred and state is not None:
            raise ValueError(
                "Centred frames cannot be streamed, for they look ahead; got a state. Set "
                "centred=False, or pass whole clips without a state."
            )
        past = self.init_state(audio.shape[0]) if state is None else state
        return _run(self, audio, past, lengths)

    def apply(self, params: Params, inputs: Any, state: State = None, lengths: Any = None) -> Any:
        """Features of audio.

        Args:
          params: as from `init`.
          inputs: audio `[batch, time]`.
          state: from an earlier piece; pieces are multiples of `hop_samples`, and what is left over
            at the end of the last one makes no frame.
          lengths: `[batch]` valid samples; frames that end beyond are 0.

        Returns:
          Features `[batch, frames, 3]`, and the state, None if frames are centred.

        Raises:
          ValueError: audio of another shape; a piece that ends within a frame; a state for centred
            frames.
        """
        told, state = self.run(params, inputs, state, lengths)
        return self.scaled(told), state

    def scaled(self, told: dict[str, Array]) -> Float[Array, "batch frames three"]:
        """Features of what `run` gives, or of f0 and loudness that were changed in between."""
        loudness = told["loudness_db"] / self.range_db + 1
        return jnp.stack([hz_to_midi(told["f0_hz"]) / 127, told["confidence"], loudness], axis=-1)

    def _heard(self, audio: Array, past: Array | None) -> dict[str, Array]:
        rate, hop = self.sample_rate_hz, self.hop_samples
        longest = period.lags(rate, self.min_hz, self._top_hz)[1]
        f0_hz, confidence = period.yin(
            audio,
            rate,
            hop,
            self.min_hz,
            self._top_hz,
            self.threshold,
            longest // 2 if self.centred else 0,
            past,
        )
        ahead = ears.samples(self.window_s, rate) // 2 if self.centred else 0
        loudness_db = a_weighted_loudness_db(
            audio, rate, hop, self.window_s, self.range_db, ahead, past
        )
        return {"f0_hz": f0_hz, "confidence": confidence, "loudness_db": loudness_db}


@functools.partial(jax.jit, static_argnums=0)
def _run(module: PitchLoudness, audio: Array, past: Any, lengths: Any) -> Any:
    told = module._heard(audio, past)
    if lengths is not None:
        n_frames = audio.shape[1] // module.hop_samples
        mask = frame_mask(n_frames, module.hop_samples, lengths)
        told = {
            name: jnp.where(mask, value, -module.range_db if name == "loudness_db" else 0)
            for name, value in told.items()
        }
    if past is None:
        return told, None
    whole = jnp.concatenate([past.astype(audio.dtype), audio], axis=1)
    end = past.shape[1] + module.num_frames(audio.shape[1]) * module.hop_samples
    return told, whole[:, end - past.shape[1] : end]
