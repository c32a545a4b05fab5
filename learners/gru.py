"""A gated recurrent network over frames, which has heard all that came before.

The unit: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014. In
both directions: Schuster and Paliwal, IEEE Transactions on Signal Processing 45(11), 1997.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.masking import zero_padding
from learners.normalise import normalised
from learners.pooling import clip_logits, frames_and_mask


class GRU(nn.Module):
    """Layers of gated recurrent units, pooled over time, for one label a clip.

    Features are normalised per channel. Padding frames change neither the outputs, nor the batch
    statistics, nor any gradient; the backward direction starts at a clip's last valid frame. Needs
    the random stream `dropout` while it trains, and keeps the collection `batch_stats`.

    Attributes:
        num_classes: number of outputs.
        width: units of each layer and direction.
        depth: number of layers.
        bidirectional: whether each layer also runs backwards in time.
        dropout: share of units dropped while training, between layers and after pooling.
        momentum: of the running statistics.
    """

    num_classes: int
    width: int = 64
    depth: int = 1
    bidirectional: bool = True
    dropout: float = 0.2
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
            mask: which frames are valid, the first ones of each clip; all of them if not given.
        """
        x, mask = frames_and_mask(features, mask)
        x = normalised(x, mask, train=train, momentum=self.momentum)
        for layer in range(self.depth):
            if layer:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = self._layer(x, mask)
        return clip_logits(x, mask, self.num_classes, dropout=self.dropout, train=train)

    def _layer(self, x: Array, mask: Array) -> Array:
        """Runs each direction; what the units do in the padding is dropped."""
        lengths = mask.sum(axis=1)

        def run(reverse: bool) -> Array:
            cell = nn.GRUCell(self.width, param_dtype=x.dtype)
            rnn = nn.RNN(cell, reverse=reverse, keep_order=reverse)
            outputs: Any = rnn(x, seq_lengths=lengths)
            return outputs

        outputs = [run(False), run(True)] if self.bidirectional else [run(False)]
        return zero_padding(jnp.concatenate(outputs, axis=-1), mask)
