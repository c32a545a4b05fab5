"""Exists to make the stabilized auditory image a physics module on top of any cochlea."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics.audio import check_piece
from physics.base import Params, frame_mask
from physics.sai.stabilize import Layout, SaiMemory, initial_memory, sai_frames
from physics.stacking import Stacked, built

_COCHLEA = "physics.carfac:Carfac"


@flax.struct.dataclass
class SaiState:
    """State of an image: the cochlea's, and the memory of the image itself."""

    cochlea: Any
    memory: SaiMemory


@dataclasses.dataclass(frozen=True)
class Sai(Stacked):
    """The stabilized auditory image of what a cochlea says.

    Its params are those of the cochlea: gradients reach physical parameters through the image's
    values, not through the choice of triggers (see `sai_frames`).

    From a config: `physics.target="physics.sai:Sai"`, `physics.kwargs={"cochlea": {"ihc":
    "one_cap"}}`.

    Attributes:
      sample_rate_hz: samples of audio per second; None takes the cochlea's.
      cochlea: a physics module at full rate; or its settings, of which "target" says what is built,
        an import path (by default "physics.carfac:Carfac").
      hop_s: seconds per frame, rounded to a whole number of samples, as all times are.
      past_lag_s: the longest lag before the trigger.
      future_lag_s: the longest lag after it.
      trigger_window_s: seconds of activity in which one trigger is sought; a window longer than the
        longest period keeps the image still.
      triggers_per_frame: trigger windows per frame, overlapping by half.
      channels_per_cell, lags_per_cell: `apply` gives means over cells of so many channels and lags.
    """

    sample_rate_hz: Any = None
    cochlea: Any = None
    hop_s: float | int = 0.02
    past_lag_s: float | int = 0.0125
    future_lag_s: float | int = 0.0125
    trigger_window_s: float | int = 0.04
    triggers_per_frame: int = 2
    channels_per_cell: int = 1
    lags_per_cell: int = 1

    def __post_init__(self):
        cochlea = built(self.cochlea or {}, _COCHLEA, self.sample_rate_hz)
        if cochlea.hop_samples != 1:
            raise ValueError(
                "The image needs a cochlea at full rate; got one with hop_samples="
                f"{cochlea.hop_samples}. Leave out its hop_s: the image has a hop_s of its own."
            )
        object.__setattr__(self, "cochlea", cochlea)
        object.__setattr__(self, "sample_rate_hz", float(cochlea.sample_rate_hz))
        for name in ("hop_s", "past_lag_s", "future_lag_s", "trigger_window_s"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("channels_per_cell", "lags_per_cell"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, which keeps the image as it is; got "
                    f"{getattr(self, name)}."
                )
        _ = self.layout  # raises what is wrong with the times now, not at the first use

    @property
    def inner(self) -> Any:
        """The cochlea."""
        return self.cochlea

    @property
    def layout(self) -> Layout:
        """The times in samples."""
        samples = {
            name: round(seconds * self.sample_rate_hz)
            for name, seconds in (
                ("hop_samples", self.hop_s),
                ("past_lags", self.past_lag_s),
                ("future_lags", self.future_lag_s),
                ("window_samples", self.trigger_window_s),
            )
        }
        return Layout(triggers_per_frame=self.triggers_per_frame, **samples)

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return self.layout.hop_samples

    @property
    def n_ears(self) -> int:
        """Ears of the cochlea."""
        return getattr(self.cochlea, "n_ears", 1)

    def lags_s(self) -> np.ndarray:
        """Lag of each column of the image in seconds, negative before the trigger."""
        lags = np.arange(self.layout.n_lags) - self.layout.past_lags
        return lags / self.sample_rate_hz

    def init_state(self, batch_shape: Any) -> SaiState:
        """A cochlea at rest and a blank image, for an int or a tuple of one."""
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        ears = () if self.n_ears == 1 else (self.n_ears,)
        nap, _ = jax.eval_shape(
            lambda: self.cochlea.apply(self.init(jax.random.key(0)), jnp.zeros((batch, 1, *ears)))
        )
        memory = initial_memory(self.layout, batch, self.n_ears, nap.shape[-1], nap.dtype)
        return SaiState(self.cochlea.init_state(batch), memory)

    def run(
        self,
        params: Params,
        audio: Float[Array, "*batch_time_ears"],
        state: SaiState | None = None,
        lengths: Any = None,
        reduce: Callable[[Any], Any] | None = None,
    ) -> tuple[Any, SaiState]:
        """The images themselves.

        Args:
          params: as from `init`.
          audio: `[batch, time]`, or `[batch, time, ears]` for several ears; full scale 1.0.
          state: from an earlier piece, whose length was a multiple of `hop_samples`; None starts
            afresh. What is left over at the end of the last piece makes no frame.
          lengths: `[batch]` valid samples; frames that end beyond are 0.
          reduce: of each image `[batch, ears, channels, lags]`, all that is kept of it: an array
            whose first axis is the batch.

        Returns:
          Images `[batch, frames, ears, channels, lags]`, oldest lag first (`lags_s`), or `reduce`
          of each; and the state.

        Raises:
          ValueError: a piece that is no multiple of `hop_samples`, or audio that the cochlea
            refuses.
        """
        before, memory = None, None
        if state is not None:
            check_piece(audio.shape[1], self.hop_samples, state)
            before, memory = state.cochlea, state.memory
        nap, cochlea = self.cochlea.apply(params, audio, before, lengths)
        nap = nap[:, :, None] if nap.ndim == 3 else nap
        frames, memory = sai_frames(nap, self.layout, memory, reduce)
        if lengths is not None:
            mask = frame_mask(frames.shape[1], self.hop_samples, lengths)
            frames = jnp.where(mask.reshape(mask.shape + (1,) * (frames.ndim - 2)), frames, 0)
        return frames, SaiState(cochlea, memory)

    def apply(self, params: Params, inputs: Any, state: Any = None, lengths: Any = None) -> Any:
        """The images as a learner takes them: cells side by side on one axis of features.

        Args:
          params: as from `init`.
          inputs: audio `[batch, time]` or `[batch, time, ears]`.
          state: see `run`.
          lengths: see `run`.

        Returns:
          Features `[batch, frames, cells]` (`[batch, frames, ears, cells]` for several ears), the
          lags of the first row of cells first, and the state. Cells are means over
          `channels_per_cell` by `lags_per_cell`; those at the end may be smaller.
        """

        def cells(image: Array) -> Array:
            image = _means(_means(image, self.lags_per_cell, -1), self.channels_per_cell, -2)
            return image.reshape(*image.shape[:2], -1)

        features, state = self.run(params, inputs, state, lengths, cells)
        return (features[:, :, 0] if self.n_ears == 1 else features), state


def _means(x: Array, size: int, axis: int) -> Array:
    """Means over runs of `size` along an axis; the last run may be shorter."""
    if size == 1:
        return x
    n = x.shape[axis]
    starts = np.arange(0, n, size)
    inside = (np.arange(n) // size)[:, None] == np.arange(starts.size)
    weights = jnp.asarray(inside / inside.sum(axis=0), x.dtype)
    return jnp.moveaxis(jnp.tensordot(x, weights, (axis, 0)), -1, axis)
