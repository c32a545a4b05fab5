"""Exists to show which pitches are heard: the stabilized image, averaged over channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from physics.base import Params
from physics.sai import Sai, SaiState
from physics.stacking import Stacked, built

_SAI = {"target": "physics.sai:Sai", "past_lag_s": 0.0, "future_lag_s": 0.05}


@dataclasses.dataclass(frozen=True)
class Pitchogram(Stacked):
    """How much of the activity repeats after each lag, on a logarithmic axis of lags.

    Each stabilized image loses, in every channel, the lags within half a cycle of the channel's
    pole around the trigger, which would drown the rest; what remains is averaged over channels, and
    over cells of lags. As in google/carfac's C++ `Pitchogram`, without its colours for vowels.

    Its params are those of the cochlea. Which lags are left out follows the poles in steps, so no
    gradient flows through it.

    From a config: `physics.target="physics.pitchogram:Pitchogram"`, `physics.kwargs={"sai":
    {"hop_s": 0.01, "cochlea": {"ihc": "one_cap"}}}`.

    Attributes:
      sample_rate_hz: samples of audio per second; None takes the image's.
      sai: a `physics.sai.Sai`, or its settings; by default its lags are 0 to 0.05 s.
      log_lags: average over cells that grow with the lag; else every lag of the image is given.
      lags_per_octave: cells per octave of lag + log_offset_s.
      min_lag_s: where the first cell begins.
      log_offset_s: keeps the short lags from being drawn out; 0 gives equal steps of pitch.
    """

    sample_rate_hz: Any = None
    sai: Any = None
    log_lags: bool = True
    lags_per_octave: float | int = 36.0
    min_lag_s: float | int = 0.0005
    log_offset_s: float | int = 0.0025

    def __post_init__(self):
        sai = {} if self.sai is None else self.sai
        sai = _SAI | dict(sai) if isinstance(sai, Mapping) else sai
        sai = built(sai, _SAI["target"], self.sample_rate_hz)
        if not isinstance(sai, Sai):
            raise ValueError(f"A pitchogram is made of a Sai; got {sai!r}.")
        object.__setattr__(self, "sai", sai)
        object.__setattr__(self, "sample_rate_hz", sai.sample_rate_hz)
        for name in ("lags_per_octave", "min_lag_s", "log_offset_s"):
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.log_lags and sai.layout.past_lags:
            raise ValueError(
                "Logarithmic lags begin at the trigger, so the image must have none before it; got "
                f"past_lag_s={sai.past_lag_s:g}. Set it to 0, or log_lags=False."
            )
        if self.lags_per_octave <= 0 or self.min_lag_s <= 0 or self.log_offset_s < 0:
            raise ValueError(
                "lags_per_octave and min_lag_s must be positive, log_offset_s at least 0; got "
                f"{self.lags_per_octave:g}, {self.min_lag_s:g} and {self.log_offset_s:g}."
            )
        if not len(self.lags_s()):
            raise ValueError(
                "At least one cell must end before the longest lag of the image; got "
                f"min_lag_s={self.min_lag_s:g} and future_lag_s={sai.future_lag_s:g}. "
                "Give the image longer lags."
            )

    @property
    def inner(self) -> Sai:
        """The image."""
        return self.sai

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return self.sai.hop_samples

    def lags_s(self) -> np.ndarray:
        """Lag of each feature in seconds; of cells the middle."""
        return (
            self._edges().mean(axis=1) / self.sample_rate_hz if self.log_lags else self.sai.lags_s()
        )

    def _edges(self) -> np.ndarray:
        return cell_edges(
            self.sai.layout.n_lags,
            lags_per_octave=self.lags_per_octave,
            min_lag=self.min_lag_s * self.sample_rate_hz,
            log_offset=self.log_offset_s * self.sample_rate_hz,
        )

    def init_state(self, batch_shape: Any) -> SaiState:
        """That of the image."""
        return self.sai.init_state(batch_shape)

    def apply(self, params: Params, inputs: Any, state: Any = None, lengths: Any = None) -> Any:
        """The pitchogram of audio.

        Args:
          params: as from `init`.
          inputs: audio `[batch, time]` or `[batch, time, ears]`.
          state: from an earlier piece, see `Sai.run`.
          lengths: `[batch]` valid samples; frames that end beyond are 0.

        Returns:
          Features `[batch, frames, lags]` (`[batch, frames, ears, lags]` for several ears), short
          lags first (`lags_s`), and the state.

        Raises:
          ValueError: the cochlea does not tell the frequencies of its channels.
        """
        poles_hz = self.channel_frequencies_hz(params)
        if poles_hz is None:
            raise ValueError(
                "A pitchogram needs the frequencies of the cochlea's channels; "
                f"{type(self.sai.cochlea).__name__} gives None. Define its channel_frequencies_hz."
            )
        layout = self.sai.layout
        keep = away_from_trigger(
            jnp.atleast_2d(poles_hz), self.sample_rate_hz, layout.past_lags, layout.n_lags
        )
        cells = cell_weights(self._edges(), layout.n_lags) if self.log_lags else None
        features, state = self.sai.run(
            params, inputs, state, lengths, lambda image: summarise(image, keep, cells)
        )
        return (features[:, :, 0] if self.sai.n_ears == 1 else features), state


def summarise(
    image: Float[Array, "batch ears channels lags"],
    keep: Bool[Array, "#ears channels lags"],
    cells: Float[np.ndarray, "lags cells"] | None = None,
) -> Float[Array, "batch ears cells"]:
    """Mean over channels of what is kept of an image, then over cells of lags if there are any."""
    kept = jnp.mean(jnp.where(keep[None], image, 0), axis=2)
    return kept if cells is None else kept @ jnp.asarray(cells, kept.dtype)


def away_from_trigger(
    poles_hz: Float[Array, "ears channels"],
    sample_rate_hz: float,
    past_lags: int,
    n_lags: int,
) -> Bool[Array, "ears channels lags"]:
    """False within half a cycle of each pole around the trigger.

    The middle is one lag after the trigger and both ends are included, as in google/carfac.
    """
    half_cycle = 0.5 * sample_rate_hz / jax.lax.stop_gradient(poles_hz)[..., None]
    middle = past_lags + 1
    first = jnp.clip(jnp.floor(middle - half_cycle), 0, n_lags - 1)
    last = jnp.clip(jnp.ceil(middle + half_cycle), 0, n_lags - 1)
    lag = jnp.arange(n_lags, dtype=poles_hz.dtype)[None, None]
    return (lag < first) | (lag > last)


def cell_edges(
    n_lags: int, *, lags_per_octave: float, min_lag: float, log_offset: float
) -> np.ndarray:
    """Where cells of lags begin and end, `[cells, 2]`; all in samples.

    Edge i is at (min_lag + log_offset) * 2 ** (i / lags_per_octave) - log_offset. Cells that end
    within the image are kept.
    """
    octaves = np.log2((n_lags + log_offset) / (min_lag + log_offset))
    index = np.arange(max(0, int(np.ceil(octaves * lags_per_octave))) + 2)
    edges = (min_lag + log_offset) * 2.0 ** (index / lags_per_octave) - log_offset
    pairs = np.stack([edges[:-1], edges[1:]], axis=1)
    return pairs[_widened(pairs)[:, 1] < n_lags - 0.5]


def cell_weights(edges: np.ndarray, n_lags: int) -> np.ndarray:
    """Weights `[lags, cells]` of the lags in the mean over each cell.

    Activity between samples is taken as that of the nearest, and cells narrower than a sample are
    widened to one about their middle.
    """
    left, right = _widened(edges).T
    lag = np.arange(n_lags)[:, None]
    inside = np.clip(np.minimum(right, lag + 0.5) - np.maximum(left, lag - 0.5), 0.0, None)
    return inside / (right - left)


def _widened(edges: np.ndarray) -> np.ndarray:
    spare = np.clip(1.0 - (edges[:, 1] - edges[:, 0]), 0.0, None) / 2
    return np.clip(edges + np.stack([-spare, spare], axis=1), 0.0, None)
