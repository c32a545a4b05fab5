"""Exists so that every network normalises its features in one way, blind to padding."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.masking import zero_padding


def batch_norm(
    x: Float[Array, "batch frames *rest"],
    mask: Bool[Array, "batch frames"],
    *,
    train: bool,
    momentum: float = 0.9,
    affine: bool = True,
) -> Float[Array, "batch frames *rest"]:
    """Batch normalisation over the valid frames (Ioffe and Szegedy, ICML 2015).

    To be called inside a Linen module's compact method, whose `batch_stats` it then keeps.

    Args:
        x: frames; those of the padding must be finite.
        mask: which frames are valid.
        train: whether to take the statistics of the batch, or the running ones.
        momentum: of the running statistics.
        affine: whether a learned scale and offset follow.
    """
    norm = nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        use_fast_variance=False,
        force_float32_reductions=x.dtype == jnp.float32,
        param_dtype=x.dtype,
        use_scale=affine,
        use_bias=affine,
    )
    return norm(x, mask=mask.reshape(mask.shape + (1,) * (x.ndim - 2)))


def normalised(
    features: Float[Array, "batch frames *channels"],
    mask: Bool[Array, "batch frames"],
    *,
    train: bool,
    momentum: float = 0.9,
) -> Float[Array, "batch frames *channels"]:
    """Features of zero mean and unit variance per channel (and ear), zero in the padding.

    Args:
        features: `[batch, frames, channels]`, or with an axis of ears; anything in the padding.
        mask: which frames are valid.
        train: whether to take the statistics of the batch, or the running ones.
        momentum: of the running statistics.
    """
    flat = features.reshape(*features.shape[:2], -1)
    # Zeroed before, so that no value in the padding, NaN included, reaches a gradient.
    flat = zero_padding(flat, mask)
    flat = batch_norm(flat, mask, train=train, momentum=momentum, affine=False)
    return zero_padding(flat, mask).reshape(features.shape)
