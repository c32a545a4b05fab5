"""Exists to turn audio into short-time spectra as a stream: frames that look back, and a memory."""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from physics import audio as ears
from physics.base import Params, Physics
from physics.spectra import short_time


@dataclasses.dataclass(frozen=True)
class Spectral(Physics):
    """Base of front ends that see windowed spectra; subclasses give `features`.

    Frame i sees the `window_samples` that end with sample (i + 1) * hop_samples: nothing is
    centred, so nothing is heard before it has sounded. Its state is the past of the audio.

    Attributes:
      sample_rate_hz: samples of audio per second.
      n_ears: signals of the audio, each with spectra of its own.
      hop_s: seconds per frame, rounded to samples.
      window_s: seconds that a frame looks back, rounded to samples.
      n_fft: size of the transform; None takes the next power of two from the window on.
      window: a name that `scipy.signal.get_window` knows; periodic, peak 1.
    """

    n_ears: int = 1
    hop_s: float | int = 0.01
    window_s: float | int = 0.025
    n_fft: int | None = None
    window: str = "hann"

    def __post_init__(self):
        ears.check_positive(self, "sample_rate_hz", "n_ears", "hop_s", "window_s", "n_fft")
        short_time.window_taps(self.window, self.window_samples)
        if self.transform_samples < self.window_samples:
            raise ValueError(
                "The transform must be as long as the window; got "
                f"n_fft={self.n_fft} and a window of {self.window_samples} samples. "
                "Take a larger n_fft, or None."
            )

    @abc.abstractmethod
    def features(
        self, physical: Params, spectrum: Complex[Array, "batch ears frames bins"]
    ) -> Float[Array, "batch ears frames channels"]:
        """What the front end makes of spectra, with its parameters in physical units."""

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame."""
        return ears.samples(self.hop_s, self.sample_rate_hz)

    @property
    def window_samples(self) -> int:
        """Samples of audio that a frame looks at."""
        return ears.samples(self.window_s, self.sample_rate_hz)

    @property
    def transform_samples(self) -> int:
        """Size of the Fourier transform."""
        least = 1 << (self.window_samples - 1).bit_length()
        return least if self.n_fft is None else self.n_fft

    def bins_hz(self) -> Float[np.ndarray, " bins"]:
        """Frequencies of the bins of spectra."""
        return np.fft.rfftfreq(self.transform_samples, 1 / self.sample_rate_hz)

    def init_state(self, batch_shape: Any) -> Array:
        """Silence before the clip, `[batch, ears, past]`."""
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        past = max(0, self.window_samples - self.hop_samples)
        return jnp.zeros((batch, self.n_ears, past))

    def apply(self, params: Params, inputs: Any, state: Any = None, lengths: Any = None) -> Any:
        """Features of audio.

        Args:
          params: as from `init`.
          inputs: audio `[batch, time]` or `[batch, time, ears]`.
          state: from an earlier piece; pieces are multiples of `hop_samples`, and what is left over
            at the end of the last one makes no frame.
          lengths: `[batch]` valid samples; frames that end beyond are 0.

        Returns:
          Features `[batch, frames, channels]` (`[batch, frames, ears, channels]` for several ears),
          and the state.

        Raises:
          ValueError: audio of another shape or for other ears, or a piece that ends within a frame.
        """
        audio = ears.heard(inputs, self.n_ears, params, lengths)
        ears.check_piece(audio.shape[-1], self.hop_samples, state)
        past = self.init_state(audio.shape[0]) if state is None else state
        return _run(self, params, audio, past, lengths)


@functools.partial(jax.jit, static_argnums=0)
def _run(module: Spectral, params: Params, audio: Any, past: Any, lengths: Any) -> Any:
    window, hop = module.window_samples, module.hop_samples
    whole = jnp.concatenate([past.astype(audio.dtype), audio], axis=-1)
    end = past.shape[-1] + module.num_frames(audio.shape[-1]) * hop
    pieces = short_time.frames(whole[..., max(0, hop - window) : end], window, hop)
    taps = short_time.window_taps(module.window, window)
    spectrum = jnp.fft.rfft(short_time.weigh(pieces, taps), module.transform_samples)
    features = module.features(module.physical(params), spectrum)
    return ears.told(features, hop, lengths), whole[..., end - past.shape[-1] : end]
