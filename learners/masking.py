"""Operations on padded sequences in which the padding never matters."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key


def masked_mean(
    x: Float[Array, "batch frames *rest"], mask: Bool[Array, "batch frames"]
) -> Float[Array, "batch *rest"]:
    """Returns the mean over the valid frames; zero for a clip that has none."""
    valid = _expand(mask, x)
    count = jnp.maximum(mask.sum(axis=1), 1).astype(x.dtype)
    total = jnp.where(valid, x, jnp.zeros_like(x)).sum(axis=1)
    return total / count.reshape((-1,) + (1,) * (x.ndim - 2))


def masked_max(
    x: Float[Array, "batch frames *rest"], mask: Bool[Array, "batch frames"]
) -> Float[Array, "batch *rest"]:
    """Returns the largest value over the valid frames; zero for a clip that has none."""
    valid = _expand(mask, x)
    largest = jnp.where(valid, x, jnp.full_like(x, -jnp.inf)).max(axis=1)
    heard = mask.any(axis=1).reshape((-1,) + (1,) * (x.ndim - 2))
    return jnp.where(heard, largest, jnp.zeros_like(largest))


def zero_padding(
    x: Float[Array, "batch frames *rest"], mask: Bool[Array, "batch frames"]
) -> Float[Array, "batch frames *rest"]:
    """Returns `x` with zeros in place of the frames that are not valid, NaN among them."""
    return jnp.where(_expand(mask, x), x, jnp.zeros_like(x))


def held(
    x: Float[Array, "batch frames *rest"], mask: Bool[Array, "batch frames"]
) -> Float[Array, "batch frames *rest"]:
    """Returns `x` with the last valid frame before in place of each that is not valid.

    Frames before the first valid one are the first frame, whatever that is.
    """
    numbers = jnp.arange(mask.shape[1], dtype=jnp.int32)[None]
    latest = lax.cummax(jnp.where(mask, numbers, 0), axis=1)
    return jnp.take_along_axis(x, latest.reshape(latest.shape + (1,) * (x.ndim - 2)), axis=1)


def random_stripes(
    key: Key[Array, ""],
    lengths: Float[Array, " batch"],
    size: int,
    *,
    count: int,
    fraction: float,
) -> Bool[Array, "batch size"]:
    """Chooses random stripes to hide, for time or channel masking (SpecAugment, Park et al. 2019).

    Each stripe's width is uniform between zero and `fraction` of the length, and its place uniform
    over the length.

    Args:
        key: random key.
        lengths: the extent in which the stripes fall, for each clip; at most `size`.
        size: size of the masked axis.
        count: number of stripes for each clip.
        fraction: largest width, relative to the length.

    Returns:
        `True` where something is hidden.
    """
    width_key, place_key = jax.random.split(key)
    shape, dtype = (lengths.shape[0], count), lengths.dtype
    extent = lengths[:, None]
    width = jax.random.uniform(width_key, shape, dtype) * extent * fraction
    start = jax.random.uniform(place_key, shape, dtype) * (extent - width)
    # The middle of each step decides, so that the first and the last are hidden as often as others.
    position = jnp.arange(size, dtype=dtype)[None, None, :] + 0.5
    inside = (position >= start[..., None]) & (position < (start + width)[..., None])
    return inside.any(axis=1)


def _expand(mask: Array, x: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (x.ndim - 2))
