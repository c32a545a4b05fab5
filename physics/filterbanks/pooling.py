"""Exists to filter audio by many long filters, detect and pool to frames, all in one pass.

Full-rate outputs of all channels are never stored: one channel at a time is filtered by FFT in
blocks that fit the cache, detected and summed into hops, and in reverse recomputed.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

DETECTORS = ("square", "modulus", "halfwave")


def detect(y: Inexact[Array, "*axes"], detector: str) -> Float[Array, "*axes"]:
    """What a channel's output amounts to at each instant; its gradient is finite at 0.

    Args:
      y: output of a filter; complex for one whose response is analytic.
      detector: "square" is the squared modulus, "modulus" its root, "halfwave" the real part where
        it is positive.
    """
    if detector == "halfwave":
        return jax.nn.relu(jnp.real(y))
    if detector == "modulus" and not jnp.iscomplexobj(y):
        return jnp.abs(y)
    square = jnp.real(y) * jnp.real(y)
    if jnp.iscomplexobj(y):
        square = square + jnp.imag(y) * jnp.imag(y)
    if detector == "square":
        return square
    silent = square == 0  # where the root has no slope, and its gradient would be 0 / 0
    return jnp.where(silent, 0, jnp.sqrt(jnp.where(silent, 1, square)))


@functools.partial(jax.jit, static_argnames=("hop_samples", "detector"))
def pooled(
    audio: Float[Array, "clips time"],
    filters: Inexact[Array, "channels taps"],
    windows: Float[Array, "channels window"],
    hop_samples: int,
    detector: str,
    heard: Float[Array, "clips positions"] | None = None,
) -> Float[Array, "clips frames channels"]:
    """Audio through each filter, detected, and summed under a window that moves by hops.

    Filters act causally. Frame i is the sum over window w of
    w[j] detect(sum over k of filter[k] audio[i hop + j + taps - 1 - k]), so that it ends with
    sample i hop + window + taps - 1.

    Args:
      audio: as many frames as fit are made.
      filters: impulse responses, real or complex.
      windows: of a multiple of `hop_samples`.
      hop_samples: samples from frame to frame.
      detector: see `detect`.
      heard: factor of what is detected at each position i hop + j; None is 1.

    Returns:
      Frames; none if the audio is too short for one.
    """
    n_channels, taps = filters.shape
    segments = windows.shape[1] // hop_samples
    n_hops = (audio.shape[1] - taps + 1) // hop_samples
    n_frames = max(0, n_hops - segments + 1)
    if n_frames == 0:
        return jnp.zeros((audio.shape[0], 0, n_channels), audio.dtype)
    fft_size, block_hops = block_size(n_hops, hop_samples, taps)
    size = block_hops * hop_samples
    n_blocks = -(-n_hops // block_hops)
    blocks = overlapping_blocks(audio[:, : n_hops * hop_samples + taps - 1], size, taps, n_blocks)
    weights = windows.reshape(n_channels, segments, hop_samples)
    if heard is not None:
        heard = heard[:, : n_hops * hop_samples]
        heard = jnp.pad(heard, ((0, 0), (0, n_blocks * size - heard.shape[1])))
        heard = heard.reshape(-1, size)
    forward, inverse = jnp.fft.rfft, jnp.fft.irfft
    if jnp.iscomplexobj(filters):
        forward, inverse = jnp.fft.fft, jnp.fft.ifft
    spectra, responses = forward(blocks, fft_size), forward(filters, fft_size)

    # Recomputing is faster here than storing, for the outputs of one channel stay in the cache.
    @jax.checkpoint
    def hop_sums(channel):
        response, weight = channel
        y = inverse(spectra * response[None], fft_size)[:, taps - 1 : taps - 1 + size]
        level = detect(y, detector)
        if heard is not None:
            level = level * heard
        return level.reshape(-1, hop_samples) @ weight.T

    sums = jax.lax.map(hop_sums, (responses, weights))
    sums = sums.reshape(n_channels, audio.shape[0], n_blocks * block_hops, segments)
    frames = sums[:, :, :n_frames, 0]
    for s in range(1, segments):
        frames = frames + sums[:, :, s : s + n_frames, s]
    return jnp.moveaxis(frames, 0, 2)


def block_size(n_hops: int, hop_samples: int, taps: int) -> tuple[int, int]:
    """Size of the FFT, and hops that each block of audio gives, for the least work."""

    def work(fft_size: int) -> float:
        blocks = -(-n_hops // ((fft_size - taps + 1) // hop_samples))
        # Beside N log N, what grows with N is the time for blocks that leave the cache.
        return blocks * fft_size * (math.log2(fft_size) + fft_size / 2048)

    least = math.ceil(math.log2(hop_samples + taps - 1))
    fft_size = min((2**p for p in range(least, least + 8)), key=work)
    return fft_size, min(n_hops, (fft_size - taps + 1) // hop_samples)


def overlapping_blocks(
    audio: Float[Array, "clips time"], size: int, taps: int, n_blocks: int
) -> Float[Array, "rows block"]:
    """Blocks that start every `size` samples and last for `size + taps - 1`.

    Joined from slices and not gathered by index, whose gradient is slow.
    """
    extra = -(-(taps - 1) // size)
    padding = (n_blocks + extra) * size - audio.shape[1]
    parts = jnp.pad(audio, ((0, 0), (0, padding))).reshape(audio.shape[0], n_blocks + extra, size)
    shifted = [parts[:, k : k + n_blocks] for k in range(extra + 1)]
    joined = jnp.concatenate(shifted, axis=2)[:, :, : size + taps - 1]
    return joined.reshape(-1, size + taps - 1)


def hann_mean(window_samples: int) -> Float[np.ndarray, " window"]:
    """A Hann window that gives means, sampled between its zeros so that every sample counts."""
    phase = (np.arange(window_samples) + 0.5) / window_samples
    weights = 0.5 - 0.5 * np.cos(2 * np.pi * phase)
    return weights / weights.sum()


def gaussian(
    width: Float[Array, " channels"], window_samples: int
) -> Float[Array, "channels window"]:
    """Gaussian windows of peak 1; `width` is the standard deviation in halves of the window.

    Source: Zeghidour et al. (2021), section 3.2; google-research/leaf-audio.
    """
    half = 0.5 * (window_samples - 1)
    place = jnp.asarray((np.arange(window_samples) - half) / half, width.dtype)
    return jnp.exp(-0.5 * (place[None] / width[:, None]) ** 2)
