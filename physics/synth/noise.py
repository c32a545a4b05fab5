"""Exists to make noise of a spectrum that moves, the same for the same key however it is cut."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from physics.synth.fir import time_varying_fir

# Taps of a response at the most: DDSP's window.
WINDOW_TAPS = 257


def noise_frames(
    key: Key[Array, "*batch"],
    first_frame: Int[Array, " batch"],
    n_frames: int,
    hop_samples: int,
    dtype: Any = jnp.float32,
) -> Float[Array, "batch frames hop"]:
    """White noise, uniform between -1 and 1, that depends on the key and the number of a frame.

    Args:
      key: one for each clip; or one for all, from which each takes its own by its place.
      first_frame: number of the first frame: 0, and in later pieces of a stream more.
      n_frames: frames.
      hop_samples: samples of each.
      dtype: of the noise.

    Raises:
      ValueError: keys of another number than clips.
    """
    batch = first_frame.shape[0]
    if key.ndim == 0:
        key = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))
    if key.shape != (batch,):
        raise ValueError(
            f"Noise needs one key, or one for each clip; got {key.shape} for {batch} clips. Take "
            "jax.random.split(key, clips)."
        )

    def frame(key, number):
        own = jax.random.fold_in(key, number)
        return jax.random.uniform(own, (hop_samples,), dtype, -1, 1)

    numbers = first_frame[:, None] + jnp.arange(n_frames, dtype=first_frame.dtype)[None]
    return jax.vmap(jax.vmap(frame, (None, 0)))(key, numbers)


def zero_phase_response(
    magnitudes: Float[Array, "*axes bands"], window_taps: int = WINDOW_TAPS
) -> Float[Array, "*axes taps"]:
    """Filters that have these magnitudes at equal steps from 0 to half the sample rate.

    DDSP's `frequency_impulse_response` (Engel et al., 2020, section 3.4): the inverse transform,
    weighed by a Hann window and shifted by half of it, so that it is causal and delays all alike.

    Args:
      magnitudes: at least two, linear.
      window_taps: of the window; at most as many as the response, `2 * bands - 2`, has.
    """
    n_fft = 2 * (magnitudes.shape[-1] - 1)
    taps = min(window_taps, n_fft)
    response = jnp.fft.fftshift(jnp.fft.irfft(magnitudes, n_fft), axes=-1)
    begin = n_fft // 2 - taps // 2
    # Symmetric about the middle tap, whether their number is odd or even.
    window = np.hanning(taps + 1 - taps % 2)[:taps]
    window = jnp.asarray(window, response.dtype).reshape((1,) * (response.ndim - 1) + (-1,))
    return response[..., begin : begin + taps] * window


@functools.partial(jax.jit, static_argnames=("hop_samples", "window_taps"))
def filtered_noise(
    magnitudes: Float[Array, "batch frames bands"],
    key: Key[Array, "*batch"],
    hop_samples: int,
    first_frame: Int[Array, " batch"] | None = None,
    tail: Float[Array, "batch tail"] | None = None,
    window_taps: int = WINDOW_TAPS,
) -> tuple[Float[Array, "batch time"], Float[Array, "batch tail"]]:
    """Noise with these magnitudes in each hop (Engel et al., 2020, DDSP, section 3.4), a stream.

    The response's delay, half of its length, is not taken back.

    Args:
      magnitudes: see `zero_phase_response`; 1 leaves uniform noise between -1 and 1 as it is.
      key: see `noise_frames`.
      hop_samples: samples for each frame.
      first_frame: see `noise_frames`; None is 0.
      tail: as returned for the piece before; None is silence.
      window_taps: see `zero_phase_response`.

    Returns:
      Audio of `frames * hop_samples` samples, and what is still to come of it.
    """
    batch, n_frames, _ = magnitudes.shape
    if first_frame is None:
        first_frame = jnp.zeros(batch, jnp.int32)
    noise = noise_frames(key, first_frame, n_frames, hop_samples, magnitudes.dtype)
    response = zero_phase_response(magnitudes, window_taps)
    return time_varying_fir(noise.reshape(batch, -1), response, tail)
