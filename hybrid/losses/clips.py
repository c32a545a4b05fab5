"""Short-time spectra of clips of different lengths in one batch, each mirrored at its own ends."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from hybrid.losses.base import Lengths, Rows
from physics.spectra import frames, window_taps
from physics.spectra.short_time import weigh


def mirrored(audio: Rows, lengths: Lengths | None, reach: int) -> Float[Array, "rows longer"]:
    """Rows with `reach` more samples on both sides, mirrored at the ends of each clip.

    As numpy.pad(mode="reflect") of each clip alone; what lies further beyond its end is finite and
    means nothing.
    """
    if lengths is None:
        return jnp.pad(audio, ((0, 0), (reach, reach)), mode="reflect")
    position = jnp.arange(-reach, audio.shape[1] + reach, dtype=lengths.dtype)[None]
    period = jnp.maximum(2 * (lengths - 1), 1)[:, None]
    folded = jnp.mod(position, period)
    index = jnp.minimum(folded, period - folded)
    return jnp.take_along_axis(audio, index, axis=1, mode="promise_in_bounds")


def reach_samples(window_samples: int) -> int:
    """How far beyond its ends the centred frames of a clip look."""
    return (window_samples + 1) // 2


def num_frames(num_samples: int, hop_samples: int) -> int:
    """Centred frames of a clip: one at its first sample, then one every hop."""
    return 1 + num_samples // hop_samples


def frame_mask(count: int, hop_samples: int, lengths: Lengths) -> Bool[Array, "rows frames"]:
    """True for the frames that a clip has by itself; none for one without a sample."""
    own = jnp.where(lengths > 0, 1 + lengths // hop_samples, 0)
    return jnp.arange(count, dtype=lengths.dtype)[None] < own[:, None]


def spectra(
    longer: Float[Array, "rows longer"],
    reach: int,
    window: str,
    window_samples: int,
    hop_samples: int,
    n_fft: int,
) -> Complex[Array, "rows frames bins"]:
    """Short-time spectra, equal in magnitude to those of torch.stft (centred, reflected).

    Args:
        longer: from `mirrored`.
        reach: what it was given, at least `reach_samples(window_samples)`.
        window: a name that scipy.signal.get_window knows; periodic.
        window_samples: at most `n_fft`.
        hop_samples: samples from frame to frame.
        n_fft: size of the transform, even.
    """
    count = num_frames(longer.shape[1] - 2 * reach, hop_samples)
    # A window that is padded to the size of the transform is as good as a short frame that is, but
    # for the phase: frames hold nothing that the window makes 0.
    begin = reach - n_fft // 2 + (n_fft - window_samples) // 2
    end = begin + (count - 1) * hop_samples + window_samples
    pieces = frames(longer[:, begin:end], window_samples, hop_samples)
    return jnp.fft.rfft(weigh(pieces, window_taps(window, window_samples)), n_fft)


def check_transform(n_fft: int, window_samples: int, hop_samples: int, window: str) -> None:
    """Raises ValueError for settings that make no short-time spectrum."""
    given = {"n_fft": n_fft, "hop_samples": hop_samples, "window_samples": window_samples}
    for name, value in given.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(
                f"{name} must be an integer of at least 1; got {value!r}. It counts samples: "
                "multiply seconds by the sample rate, and round."
            )
    if n_fft % 2:
        raise ValueError(f"n_fft must be even; got {n_fft}. Take a power of two.")
    if window_samples > n_fft:
        raise ValueError(
            f"A window holds 1 to n_fft={n_fft} samples; got window_samples={window_samples}. Take "
            "a larger n_fft, or a shorter window."
        )
    window_taps(window, window_samples)
