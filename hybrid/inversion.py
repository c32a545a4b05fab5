"""From features back to sound: gradient descent on a waveform until a front end hears the same.

Slaney, Naar and Lyon, ICASSP 1994, invert cochleagrams by projections; with gradients through the
cochlea, descent finds such a sound for any front end. Phases that the features do not tell are
those that the search happens to find.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from hybrid.refinement import refine

Tree = Any


@functools.partial(
    jax.jit, static_argnames=("physics", "num_samples", "steps", "learning_rate", "start_std")
)
def invert(
    physics: Any,
    params: Tree,
    features: Float[Array, "batch frames *channels"],
    num_samples: int,
    key: Key[Array, ""],
    lengths: Int[Array, " batch"] | None = None,
    steps: int = 400,
    learning_rate: float = 0.01,
    start_std: float = 0.01,
) -> tuple[Float[Array, "batch time"], Float[Array, "steps batch"]]:
    """Finds audio whose features are near to those given; Adam, with a cosine schedule.

    Args:
        physics: a front end.
        params: its parameters.
        features: what it should give.
        num_samples: length of the audio; `physics.num_frames` of it are the frames given.
        key: of the noise that the search starts from.
        lengths: valid samples of each clip; audio is 0 beyond.
        steps: of the search.
        learning_rate: first step in amplitude.
        start_std: standard deviation of the noise.

    Returns:
        The audio, full scale 1.0, and the error before each step: squared, relative to the squared
        features, for each clip.

    Raises:
        ValueError: `num_samples` gives another number of frames.
    """
    frames = physics.num_frames(num_samples)
    if frames != features.shape[1]:
        raise ValueError(
            f"num_samples={num_samples} must give the {features.shape[1]} frames of the features, "
            f"got {frames}: take {features.shape[1] * physics.hop_samples}"
        )
    axes = tuple(range(1, features.ndim))
    size = jnp.sum(features**2, axis=axes)
    size = jnp.where(size > 0, size, jnp.ones_like(size))
    shape = (features.shape[0], num_samples)
    audio = start_std * jax.random.normal(key, shape, features.dtype)

    def distance(audio: Array, _: Any) -> tuple[Array, Array]:
        heard, _ = physics.apply(params, audio, lengths=lengths)
        error = jnp.sum((heard - features) ** 2, axis=axes) / size
        return jnp.sum(error), error

    audio, errors = refine(distance, audio, key, steps, learning_rate, has_aux=True)
    if lengths is not None:
        valid = jnp.arange(num_samples, dtype=lengths.dtype)[None] < lengths[:, None]
        audio = jnp.where(valid, audio, jnp.zeros_like(audio))
    return audio, errors
