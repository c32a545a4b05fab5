"""Exists to turn full-rate activity into frames: causal windows, compression, streaming."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

WINDOWS = ("hann", "boxcar")
COMPRESSIONS = ("none", "root", "log")

# Activity of one: a steady loud sound. Below a thousandth of it compression becomes linear.
_KNEE = 1e-3


def window_segments(window: str, window_samples: int, hop_samples: int) -> np.ndarray:
    """Weights of a window that sum to one, `[segments, hop_samples]`, oldest segment first."""
    if window == "hann":
        # Sampled between its zeros, so that every sample of the window counts.
        phase = (np.arange(window_samples) + 0.5) / window_samples
        weights = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    else:
        weights = np.ones(window_samples)
    return (weights / weights.sum()).reshape(-1, hop_samples)


def frames(
    activity: Float[Array, "batch time ears channels"],
    segments: np.ndarray,
    past: Float[Array, "batch past ears channels"],
) -> tuple[Float[Array, "batch frames ears channels"], Float[Array, "batch past ears channels"]]:
    """Weighted means over windows that end at each hop.

    Args:
      activity: `time` a multiple of the hop.
      segments: from `window_segments`.
      past: the samples before, one window less one hop of them (zeros at the start of a clip).

    Returns:
      Frames, and the `past` of the next piece.
    """
    n_segments, hop = segments.shape
    whole = jnp.concatenate([past, activity], axis=1)
    n_frames = activity.shape[1] // hop
    hops = whole.reshape(whole.shape[0], n_frames + n_segments - 1, hop, *whole.shape[2:])
    weights = jnp.asarray(segments, activity.dtype)
    # Each hop of audio is weighed once for each segment of the window it will be in.
    parts = jnp.einsum("bfhec,sh->sbfec", hops, weights)
    framed = (
        sum(parts[s, :, s : s + n_frames] for s in range(1, n_segments)) + parts[0, :, :n_frames]
    )
    return framed, whole[:, n_frames * hop :]


def compress(x: Float[Array, "*axes"], compression: str) -> Float[Array, "*axes"]:
    """Compresses frames; odd in `x`, 0 at 0, with a finite slope there.

    "root" is sign(x) (sqrt(|x| + k) - sqrt(k)), "log" is sign(x) log(1 + |x| / k), k = 1e-3.
    """
    if compression == "none":
        return x
    size = jnp.abs(x)
    if compression == "root":
        squashed = size / (jnp.sqrt(size + _KNEE) + _KNEE**0.5)
    else:
        squashed = jnp.log1p(size / _KNEE)
    # sign(x) has no gradient and |x| the gradient sign(x), so their product is right but at 0,
    # where it would be 0: there the curve is taken as the straight line that it nearly is.
    slope = 0.5 / _KNEE**0.5 if compression == "root" else 1 / _KNEE
    tiny = size < 1e-9
    return jnp.where(tiny, slope * x, jnp.sign(x) * squashed)
