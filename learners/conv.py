"""A small convolutional network over frames and channels, quick on a CPU, blind to padding."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.masking import masked_max, masked_mean, random_stripes, zero_padding
from learners.normalise import batch_norm, normalised


class ConvNet(nn.Module):
    """Convolutions over frames and channels, pooled over time, for one label a clip.

    Features are normalised per channel, cut by random stripes while training (SpecAugment, Park et
    al. 2019), and go through convolutions with batch normalisation, each with its own stride. Mean
    and maximum over the valid frames, at every remaining channel, feed a linear layer. Sizes follow
    from the features; the dtype is theirs too. Padding frames change neither the outputs, nor the
    batch statistics, nor any gradient, and a clip gives the same outputs in a longer padding.

    Needs the random stream `dropout` while it trains, and keeps the collection `batch_stats`.

    Attributes:
        num_classes: number of outputs.
        features: width of each convolution.
        strides: stride of each convolution along frames and channels; missing ones are 1.
        kernel: size of the kernels along frames and channels, odd.
        dropout: share of pooled features dropped while training.
        frame_masks: number of stripes of frames hidden while training.
        frame_mask_fraction: their largest width, relative to the clip.
        channel_masks: number of stripes of channels hidden while training.
        channel_mask_fraction: their largest width, relative to all channels.
        momentum: of the running statistics.
    """

    num_classes: int
    features: tuple[int, ...] = (16, 32, 64, 64)
    strides: tuple[int, ...] = (2, 2, 2)
    kernel: int = 3
    dropout: float = 0.2
    frame_masks: int = 2
    frame_mask_fraction: float = 0.1
    channel_masks: int = 2
    channel_mask_fraction: float = 0.1
    momentum: float = 0.9

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frames *channels"],
        *,
        train: bool,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch classes"]:
        """Returns logits `[batch, num_classes]`.

        Args:
            features: `[batch, frames, channels]` or `[batch, frames, ears, channels]`.
            train: whether to mask, to drop, and to use the statistics of the batch.
            mask: which frames are valid; all of them if not given.
        """
        if self.kernel % 2 == 0:
            raise ValueError(f"`kernel` must be odd, got {self.kernel}: try {self.kernel + 1}.")
        if mask is None:
            mask = jnp.ones(features.shape[:2], bool)
        x = normalised(features, mask, train=train, momentum=self.momentum)
        if train:
            x = jnp.where(self._hidden(x, mask), jnp.zeros_like(x), x)
        x = x[..., None] if x.ndim == 3 else jnp.moveaxis(x, 2, -1)
        for width, stride in zip(self.features, self._strides(), strict=True):
            x, mask = self._block(x, mask, width, stride, train)
        pooled = jnp.concatenate([masked_mean(x, mask), masked_max(x, mask)], axis=-1)
        pooled = pooled.reshape(pooled.shape[0], -1)
        pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
        return nn.Dense(self.num_classes, param_dtype=x.dtype)(pooled)

    def _strides(self) -> tuple[int, ...]:
        if len(self.strides) > len(self.features):
            raise ValueError(
                f"There is at most one of `strides` for each of `features`, got {self.strides} for "
                f"{self.features}: leave some out."
            )
        return self.strides + (1,) * (len(self.features) - len(self.strides))

    def _hidden(self, x: Array, mask: Array) -> Array:
        """Stripes of frames and of channels, shaped to be broadcast to `x`."""
        batch, frames, channels = x.shape[0], x.shape[1], x.shape[-1]
        lengths = mask.sum(axis=1).astype(x.dtype)
        in_time = random_stripes(
            self.make_rng("dropout"),
            lengths,
            frames,
            count=self.frame_masks,
            fraction=self.frame_mask_fraction,
        )
        in_channels = random_stripes(
            self.make_rng("dropout"),
            jnp.full((batch,), channels, x.dtype),
            channels,
            count=self.channel_masks,
            fraction=self.channel_mask_fraction,
        )
        between = (1,) * (x.ndim - 2)
        in_time = in_time.reshape(batch, frames, *between)
        in_channels = in_channels.reshape(batch, *between, channels)
        return jnp.broadcast_to(in_time, x.shape) | jnp.broadcast_to(in_channels, x.shape)

    def _block(
        self, x: Array, mask: Array, width: int, stride: int, train: bool
    ) -> tuple[Array, Array]:
        """Convolution, batch norm, ReLU; padding frames are zero again afterwards."""
        side = self.kernel // 2
        x = nn.Conv(
            width,
            (self.kernel, self.kernel),
            strides=stride,
            # Not "SAME", whose alignment changes with the parity of the padded length.
            padding=((side, side), (side, side)),
            use_bias=False,
            kernel_init=_he_normal,
            param_dtype=x.dtype,
        )(x)
        mask = mask[:, ::stride]
        x = nn.relu(batch_norm(x, mask, train=train, momentum=self.momentum))
        return zero_padding(x, mask), mask


def _he_normal(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    # Drawn as a matrix of the same fan-in: XLA compiles random numbers of four dimensions up to ten
    # times slower.
    matrix = (math.prod(shape[:-1]), shape[-1])
    return nn.initializers.he_normal()(key, matrix, dtype).reshape(shape)
