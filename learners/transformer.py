"""A Transformer encoder over frames, in which every frame attends to all others.

Attention, sinusoidal positions and layers: Vaswani et al., "Attention Is All You Need", NeurIPS
2017. Normalisation before each block, which trains without warm-up: Xiong et al., "On Layer
Normalization in the Transformer Architecture", ICML 2020.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.masking import zero_padding
from learners.normalise import normalised
from learners.pooling import clip_logits, frames_and_mask

POSITIONS = ("sinusoidal", "none")
_LONGEST = 10_000.0  # frames, over 2 pi: the slowest sinusoid's period in section 3.5 of the paper


class Transformer(nn.Module):
    """Layers of attention and of dense units, pooled over time, for one label a clip.

    Features are normalised per channel. Padding frames change neither the outputs, nor the batch
    statistics, nor any gradient. Needs the random stream `dropout` while it trains, and keeps the
    collection `batch_stats`.

    Attributes:
        num_classes: number of outputs.
        width: size of a frame between the layers, a multiple of `heads`.
        depth: number of layers.
        heads: of the attention.
        mlp_width: units of the dense block; 0 stands for four times `width`, as in the paper.
        positions: "sinusoidal", or "none" for a network that does not know the frames' order.
        dropout: share of units and of attention dropped while training.
        momentum: of the running statistics.
    """

    num_classes: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    mlp_width: int = 0
    positions: str = "sinusoidal"
    dropout: float = 0.1
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
            train: whether to drop, and to use the statistics of the batch.
            mask: which frames are valid; all of them if not given.
        """
        self._check()
        x, mask = frames_and_mask(features, mask)
        x = normalised(x, mask, train=train, momentum=self.momentum)
        x = nn.Dense(self.width, param_dtype=x.dtype)(x)
        if self.positions == "sinusoidal":
            x = x + sinusoidal_positions(x.shape[1], self.width).astype(x.dtype)[None]
        x = self._drop(x, train)
        for _ in range(self.depth):
            x = x + self._drop(self._attention(self._norm(x), mask, train), train)
            x = x + self._drop(self._dense(self._norm(x)), train)
        x = zero_padding(self._norm(x), mask)
        return clip_logits(x, mask, self.num_classes, dropout=self.dropout, train=train)

    def _check(self) -> None:
        if self.width % self.heads:
            raise ValueError(
                f"`width` must be a multiple of `heads`, got {self.width} and {self.heads}: try "
                f"width={self.heads * -(-self.width // self.heads)}."
            )
        if self.positions not in POSITIONS:
            raise ValueError(f"`positions` must be one of {POSITIONS}, got {self.positions!r}.")

    def _attention(self, x: Array, mask: Array, train: bool) -> Array:
        attend = nn.MultiHeadDotProductAttention(
            num_heads=self.heads,
            dropout_rate=self.dropout,
            deterministic=not train,
            param_dtype=x.dtype,
        )
        return attend(x, mask=mask[:, None, None, :])

    def _dense(self, x: Array) -> Array:
        hidden = nn.Dense(self.mlp_width or 4 * self.width, param_dtype=x.dtype)(x)
        return nn.Dense(self.width, param_dtype=x.dtype)(nn.relu(hidden))

    def _norm(self, x: Array) -> Array:
        norm = nn.LayerNorm(
            param_dtype=x.dtype,
            use_fast_variance=False,
            force_float32_reductions=x.dtype == jnp.float32,
        )
        return norm(x)

    def _drop(self, x: Array, train: bool) -> Array:
        return nn.Dropout(self.dropout, deterministic=not train)(x)


def sinusoidal_positions(num_frames: int, width: int) -> Float[Array, "frames width"]:
    """Returns what tells a frame's place (Vaswani et al. 2017, section 3.5).

    Args:
        num_frames: number of frames; more of them change none of the first.
        width: size of a frame: sines in the first half, cosines in the second.
    """
    dtype = jnp.result_type(float)
    pairs = -(-width // 2)
    rates = _LONGEST ** (-jnp.arange(pairs, dtype=dtype) / pairs)
    angles = jnp.arange(num_frames, dtype=dtype)[:, None] * rates[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)[:, :width]
