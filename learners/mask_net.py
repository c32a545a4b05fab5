"""A network that says, for every frame and bin of a spectrum, how much of it to keep.

Dilated convolutions over time in residual blocks: Luo and Mesgarani, "Conv-TasNet", IEEE/ACM
Transactions on Audio, Speech, and Language Processing 27(8), 2019, with whole convolutions in place
of depthwise ones, which are slow on CPUs.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.masking import zero_padding
from learners.normalise import normalised
from learners.pooling import frames_and_mask


class MaskNet(nn.Module):
    """Features in, a bounded mask out, frame by frame.

    Features are normalised per channel. Padding frames change neither the outputs, nor the batch
    statistics, nor any gradient, and a clip gives the same outputs in a longer padding. A mask
    depends on `past_frames` frames before its own and `future_frames` after it, so a long sound may
    be masked in pieces. Keeps the collection `batch_stats`; needs the random stream `dropout` while
    it trains, if it drops.

    Attributes:
        num_bins: bins of the spectrum that is masked.
        width: channels of each block.
        dilations: one block each: frames between the taps of its convolution.
        kernel: taps of the convolutions; odd, unless `causal`.
        causal: whether a frame's mask depends on no later frame.
        complex_mask: whether the mask has a real and an imaginary part, each in (-1, 1); else it is
            a gain in (0, 1).
        dropout: share of the features inside a block dropped while training.
        momentum: of the running statistics.
    """

    num_bins: int = 241
    width: int = 160
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    kernel: int = 3
    causal: bool = True
    complex_mask: bool = False
    dropout: float = 0.0
    momentum: float = 0.99

    @property
    def past_frames(self) -> int:
        """How many frames before its own a mask depends on."""
        return sum(self.dilations) * (self.kernel - 1) - self.future_frames

    @property
    def future_frames(self) -> int:
        """How many frames after its own a mask depends on."""
        return 0 if self.causal else sum(self.dilations) * (self.kernel // 2)

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frames *channels"],
        *,
        train: bool,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames outputs"]:
        """Returns masks `[batch, frames, num_bins]`; real, then imaginary parts if complex.

        Args:
            features: `[batch, frames, channels]` or `[batch, frames, ears, channels]`.
            train: whether to drop, and to use the statistics of the batch.
            mask: which frames are valid, the first ones of each clip; all of them if not given.

        Raises:
            ValueError: an even kernel that is not causal.
        """
        if not self.causal and self.kernel % 2 == 0:
            raise ValueError(
                f"`kernel` must be odd unless `causal`, got {self.kernel}: try {self.kernel + 1}."
            )
        x, mask = frames_and_mask(features, mask)
        x = normalised(x, mask, train=train, momentum=self.momentum)
        x = zero_padding(nn.Dense(self.width, param_dtype=x.dtype)(x), mask)
        for dilation in self.dilations:
            x = x + zero_padding(self._block(x, mask, dilation, train), mask)
        x = nn.gelu(self._norm(x))
        if self.complex_mask:
            outputs = jnp.tanh(nn.Dense(2 * self.num_bins, param_dtype=x.dtype)(x))
        else:
            outputs = nn.sigmoid(nn.Dense(self.num_bins, param_dtype=x.dtype)(x))
        return zero_padding(outputs, mask)

    def _block(self, x: Array, mask: Array, dilation: int, train: bool) -> Array:
        """Normalisation of each frame, convolution, GELU, and back to the width."""
        # A norm has an offset: padding must be as silent as what lies beyond it.
        y = zero_padding(self._norm(x), mask)
        y = nn.gelu(nn.Dense(self.width, param_dtype=x.dtype)(self._taps(y, dilation)))
        return nn.Dropout(self.dropout, deterministic=not train)(y)

    def _norm(self, x: Array) -> Array:
        norm = nn.LayerNorm(
            param_dtype=x.dtype,
            use_fast_variance=False,
            force_float32_reductions=x.dtype == jnp.float32,
        )
        return norm(x)

    def _taps(self, x: Array, dilation: int) -> Array:
        """The frames that a convolution sees, side by side: as a product it is quick on a CPU."""
        reach = (self.kernel - 1) * dilation
        after = 0 if self.causal else reach // 2
        padded = jnp.pad(x, ((0, 0), (reach - after, after), (0, 0)))
        frames = x.shape[1]
        starts = range(0, reach + 1, dilation)
        return jnp.concatenate([padded[:, s : s + frames] for s in starts], axis=-1)
