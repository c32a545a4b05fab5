"""Exists to frame audio alike for pitch and loudness: windows that end with a hop, or after it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics.filters.fir import convolve
from physics.spectra import short_time


def windows(
    audio: Float[Array, "batch time"],
    window_samples: int,
    hop_samples: int,
    lookahead_samples: int = 0,
    past: Float[Array, "batch past"] | None = None,
    taps: Float[np.ndarray, " taps"] | None = None,
) -> Float[Array, "batch frames window"]:
    """Frame i is the window that ends with sample (i + 1) * hop - 1 + lookahead; 0 beyond the ends.

    Args:
      audio: what is left over at its end makes no frame.
      window_samples: at least a hop and what is looked ahead.
      hop_samples: samples from frame to frame.
      lookahead_samples: that frames see beyond their hop.
      past: samples before; zeros if None, or where it is too short.
      taps: of a filter that the audio goes through; `taps - 1` more samples are seen.

    Raises:
      ValueError: windows that leave samples out.
    """
    if window_samples < hop_samples + lookahead_samples:
        raise ValueError(
            "A window must reach over its hop and what it looks ahead; got "
            f"{window_samples} samples, a hop of {hop_samples} and {lookahead_samples} ahead. Take "
            "a smaller hop or a longer window."
        )
    n_frames = audio.shape[1] // hop_samples
    longer = 0 if taps is None else taps.size - 1
    before = window_samples + longer - hop_samples - lookahead_samples
    if past is not None:
        audio = jnp.concatenate([past.astype(audio.dtype), audio], axis=1)
        before = before - past.shape[1]
    audio = jnp.pad(audio, ((0, 0), (max(0, before), lookahead_samples)))[:, max(0, -before) :]
    if taps is not None:
        audio = convolve(audio, jnp.asarray(taps, audio.dtype))[0][:, longer:]
    end = (n_frames - 1) * hop_samples + window_samples if n_frames else 0
    return short_time.frames(audio[:, :end], window_samples, hop_samples)
