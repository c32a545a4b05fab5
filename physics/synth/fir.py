"""Exists to filter a sound by responses that change from frame to frame, and by that of a room."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physics.filters.fir import convolve
from physics.spectra import short_time


@jax.jit
def time_varying_fir(
    audio: Float[Array, "batch time"],
    responses: Float[Array, "batch frames taps"],
    tail: Float[Array, "batch tail"] | None = None,
) -> tuple[Float[Array, "batch time"], Float[Array, "batch tail"]]:
    """Each frame of the audio goes through a filter of its own; the answers overlap and add up.

    DDSP's `fft_convolve` (Engel et al., 2020): rectangular frames, transforms of the next power of
    two. There the delay of the responses is taken back unless told otherwise; here it is not, so
    that it runs as a stream.

    Args:
      audio: as many samples for each frame.
      responses: causal impulse responses.
      tail: as returned for the piece before, `taps - 1` samples; None is silence.

    Returns:
      The filtered audio, and what is still to come of it.

    Raises:
      ValueError: the frames do not divide the audio.
    """
    batch, time = audio.shape
    n_frames, taps = responses.shape[1:]
    if n_frames == 0 or time % n_frames:
        raise ValueError(
            "Audio must have as many samples for each frame of responses; got "
            f"{time} samples and {n_frames} frames. Cut the audio to frames * hop_samples."
        )
    hop = time // n_frames
    length = hop + taps - 1
    size = 1 << (length - 1).bit_length()
    pieces = audio.reshape(batch, n_frames, hop)
    spectrum = jnp.fft.rfft(pieces, size) * jnp.fft.rfft(responses, size)
    whole = short_time.overlap_add(jnp.fft.irfft(spectrum, size)[..., :length], hop)
    if tail is not None:
        whole = whole + jnp.pad(tail.astype(whole.dtype), ((0, 0), (0, time)))
    return whole[:, :time], whole[:, time:]


@jax.jit
def fir_reverb(
    audio: Float[Array, "batch time"],
    response: Float[Array, " taps"],
    past: Float[Array, "batch past"] | None = None,
) -> tuple[Float[Array, "batch time"], Float[Array, "batch past"]]:
    """The sound, and what a room adds to it: DDSP's reverb (Engel et al., 2020, section 3.5).

    Args:
      audio: the dry sound.
      response: of the room; its first tap counts as 0, for that is the sound itself.
      past: as returned for the piece before, `taps - 1` samples; None is silence.

    Returns:
      Dry and wet sound together, and the `past` of the next piece.
    """
    response = jnp.concatenate([jnp.zeros_like(response[:1]), response[1:]])
    wet, past = convolve(audio, response, past)
    return audio + wet, past
