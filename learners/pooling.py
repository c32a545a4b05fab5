"""Exists so that networks over frames end alike: pooled over the clip, then one linear layer."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.masking import masked_max, masked_mean


def clip_logits(
    x: Float[Array, "batch frames width"],
    mask: Bool[Array, "batch frames"],
    num_classes: int,
    *,
    dropout: float,
    train: bool,
) -> Float[Array, "batch classes"]:
    """Mean and maximum over the valid frames, dropout, and a linear layer.

    To be called inside a Linen module's compact method, whose parameters it then makes.

    Args:
        x: what the network gives for each frame.
        mask: which frames are valid.
        num_classes: number of outputs.
        dropout: share of pooled features dropped while training.
        train: whether to drop.
    """
    pooled = jnp.concatenate([masked_mean(x, mask), masked_max(x, mask)], axis=-1)
    pooled = nn.Dropout(dropout, deterministic=not train)(pooled)
    return nn.Dense(num_classes, param_dtype=x.dtype)(pooled)


def frames_and_mask(
    features: Float[Array, "batch frames *channels"], mask: Bool[Array, "batch frames"] | None
) -> tuple[Float[Array, "batch frames width"], Bool[Array, "batch frames"]]:
    """Features with their ears side by side on one axis, and a mask, full if there was none."""
    flat = features.reshape(*features.shape[:2], -1)
    return flat, jnp.ones(features.shape[:2], bool) if mask is None else mask
