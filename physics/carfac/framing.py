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


def hop_sums(
    activity: Float[Array, "batch time ears channels"], segments: Float[Array, "segments hop"]
) -> Float[Array, "batch hops segments ears channels"]:
    """Each hop of activity, weighed once for each segment of the window it will be in."""
    batch, time, ears, channels = activity.shape
    hops = activity.reshape(batch, time // segments.shape[1], segments.shape[1], ears, channels)
    return jnp.einsum("bfhec,sh->bfsec", hops, segments)


def overlap(
    hops: Float[Array, "batch hops segments ears channels"],
    past: Float[Array, "batch past segments ears channels"],
) -> tuple[
    Float[Array, "batch hops ears channels"],
    Float[Array, "batch past segments ears channels"],
]:
    """Weighted means over windows that end at each hop.

    Args:
      hops: from `hop_sums`.
      past: the hops before, one less than there are segments (zeros at the start of a clip).

    Returns:
      Frames, and the `past` of the next piece.
    """
    n_frames, n_segments = hops.shape[1:3]
    whole = jnp.concatenate([past, hops], axis=1)
    framed = (
        sum(whole[:, s : s + n_frames, s] for s in range(1, n_segments)) + whole[:, :n_frames, 0]
    )
    return framed, whole[:, n_frames:]


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
