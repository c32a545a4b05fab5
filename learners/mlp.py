"""A multilayer perceptron over frames and their neighbours: the least that can be asked to learn.

Layers: Rumelhart, Hinton and Williams, Nature 323, 1986; rectified, with dropout: Dahl, Sainath and
Hinton, ICASSP 2013. A window of neighbouring frames as input: Hinton et al., IEEE Signal Processing
Magazine 29(6), 2012, section "Using DNNs".
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.masking import zero_padding
from learners.normalise import normalised
from learners.pooling import clip_logits, frames_and_mask


class MLP(nn.Module):
    """Dense layers over each frame and its neighbours, pooled over time, for one label a clip.

    Features are normalised per channel. Padding frames change neither the outputs, nor the batch
    statistics, nor any gradient. Needs the random stream `dropout` while it trains, and keeps the
    collection `batch_stats`.

    Attributes:
        num_classes: number of outputs.
        widths: units of each hidden layer.
        context_frames: neighbours to each side that a frame is seen with; those outside are 0.
        dropout: share of units dropped while training, after each hidden layer.
        momentum: of the running statistics.
    """

    num_classes: int
    widths: tuple[int, ...] = (128, 128)
    context_frames: int = 2
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
            mask: which frames are valid; all of them if not given.
        """
        if self.context_frames < 0:
            raise ValueError(
                f"`context_frames` must be 0 or more, got {self.context_frames}: 0 shows one frame "
                "at a time."
            )
        x, mask = frames_and_mask(features, mask)
        x = normalised(x, mask, train=train, momentum=self.momentum)
        x = _with_neighbours(x, self.context_frames)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, param_dtype=x.dtype)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = zero_padding(x, mask)
        return clip_logits(x, mask, self.num_classes, dropout=0.0, train=train)


def _with_neighbours(x: Array, reach: int) -> Array:
    """Each frame beside the `reach` frames before it and after it."""
    frames = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return jnp.concatenate([padded[:, i : i + frames] for i in range(2 * reach + 1)], axis=-1)
