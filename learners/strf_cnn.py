"""A convolutional network over receptive fields of auditory cortex, which labels every frame."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class StrfCnn(nn.Module):
    """Convolutions over frames and places along the cochlea, one image a receptive field.

    The network of Famularo et al., arXiv 2409.08997: kernels of 3 x 3, GELU, means over 3
    neighbours along the cochlea, and a linear layer that gives every frame its logits. For
    `hybrid.tasks_frames:FrameClassification`. Before it, features are brought to unit size by one
    number a receptive field, the root mean square over the frames heard so far in training: the
    paper scales its clips instead. Padding frames change neither the outputs, nor the statistics,
    nor any gradient, and a clip gives the same outputs in a longer padding.

    Keeps the collection `batch_stats`.

    Attributes:
        num_classes: number of outputs a frame.
        n_strfs: receptive fields, by which a flat feature axis is taken apart; of several ears,
            those of all.
        features: width of each convolution.
        kernel: size of the kernels along frames and places, odd.
        pool: neighbours along the cochlea that are averaged after each convolution.
        momentum: of the running mean square.
    """

    num_classes: int
    n_strfs: int = 40
    features: tuple[int, ...] = (10, 20, 40)
    kernel: int = 3
    pool: int = 3
    momentum: float = 0.9

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frames *channels"],
        *,
        train: bool,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames classes"]:
        """Returns logits `[batch, frames, num_classes]`.

        Args:
            features: `[batch, frames, n_strfs, places]`, as from `physics.cortex.Strf`, or the last
                two axes as one.
            train: whether to use the statistics of the batch.
            mask: which frames are valid; all of them if not given.
        """
        if self.kernel % 2 == 0:
            raise ValueError(f"`kernel` must be odd, got {self.kernel}: try {self.kernel + 1}.")
        if mask is None:
            mask = jnp.ones(features.shape[:2], bool)
        x = self._normalised(self._images(features), mask, train)
        side = self.kernel // 2
        for width in self.features:
            x = nn.Conv(
                width,
                (self.kernel, self.kernel),
                padding=((side, side), (side, side)),
                param_dtype=x.dtype,
            )(x)
            # Padding frames are zero before each convolution, which reaches over the clip's end.
            x = _zero_padding(nn.gelu(x), mask)
            x = self._pooled(x)
        return nn.Dense(self.num_classes, param_dtype=x.dtype)(x.reshape(*x.shape[:2], -1))

    def _images(self, features: Array) -> Array:
        """`[batch, frames, places, strfs]`."""
        places, remainder = divmod(math.prod(features.shape[2:]), self.n_strfs)
        if remainder or (features.ndim == 4 and features.shape[2] != self.n_strfs):
            raise ValueError(
                f"Features must be those of n_strfs={self.n_strfs} receptive fields, [batch, "
                f"frames, n_strfs, places] or flat; got {features.shape}. Set n_strfs to the "
                "physics' `n_strfs` (times its ears), or put a Strf after the front end."
            )
        return jnp.moveaxis(features.reshape(*features.shape[:2], self.n_strfs, places), 2, -1)

    def _pooled(self, x: Array) -> Array:
        """Means over neighbouring places; those left over at the top are left out, as published."""
        pool = min(self.pool, x.shape[2])
        groups = x.shape[2] // pool
        x = x[:, :, : groups * pool]
        return x.reshape(*x.shape[:2], groups, pool, x.shape[3]).mean(axis=3)

    def _normalised(self, x: Array, mask: Array, train: bool) -> Array:
        """Over the root mean square of each receptive field; no mean, which the STRFs have not."""
        # Zeroed before, so that no value in the padding, NaN included, reaches a gradient.
        x = _zero_padding(x, mask)
        running = self.variable("batch_stats", "mean_square", jnp.ones, (x.shape[-1],), x.dtype)
        mean_square = running.value
        if train:
            count = jnp.maximum(mask.sum(), 1).astype(x.dtype) * x.shape[2]
            mean_square = (x * x).sum(axis=(0, 1, 2)) / count
            if not self.is_initializing():
                old = running.value
                running.value = old + (1.0 - self.momentum) * (mean_square - old)
        return x / jnp.sqrt(mean_square + 1e-12)[None, None, None]


def _zero_padding(x: Array, mask: Array) -> Array:
    return jnp.where(mask[:, :, None, None], x, jnp.zeros_like(x))
