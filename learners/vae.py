"""A variational autoencoder of cochleagrams: convolutions to a few numbers, and back again.

Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014; Rezende, Mohamed and Wierstra,
ICML 2014. In the manner of Flax's example: an encoder that gives mean and log variance, a decoder.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.normalise import normalised

_LOG_VARIANCE_LIMIT = 10.0


class ConvVae(nn.Module):
    """Encoder and decoder of whole pictures `[frames, channels]` of one size.

    Beside the convolutions there is a linear map each way, by which alone the network can become as
    good as principal components; convolutions learn what these cannot say. The size of the
    pictures follows from the first call. Needs the random stream `dropout` while it trains, and
    keeps the collection `batch_stats` (channels are normalised on the way in).

    Attributes:
        latent_size: numbers that stand for a picture.
        features: width of each convolution; each halves frames and channels.
        hidden: units between convolutions and latents.
        dropout: share of these units dropped while training.
        momentum: of the running statistics.
    """

    latent_size: int = 16
    features: tuple[int, ...] = (16, 32, 64)
    hidden: int = 256
    dropout: float = 0.1
    momentum: float = 0.9

    def setup(self) -> None:
        """Names the two halves."""
        self.encoder = _Encoder(
            self.latent_size, self.features, self.hidden, self.dropout, self.momentum
        )
        self.decoder = _Decoder(self.features, self.hidden, self.dropout)

    def __call__(
        self,
        features: Float[Array, "batch frames channels"],
        *,
        train: bool,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> Float[Array, "batch frames channels"]:
        """Returns the reconstruction by the mean of the latents; arguments as of `encode`."""
        mean, _ = self.encode(features, train=train, mask=mask)
        return self.decode(mean, features.shape[1], features.shape[2], train=train)

    def encode(
        self,
        features: Float[Array, "batch frames channels"],
        *,
        train: bool,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> tuple[Float[Array, "batch latents"], Float[Array, "batch latents"]]:
        """Returns mean and log variance of the latents.

        Args:
            features: pictures.
            train: whether to drop, and to use the statistics of the batch.
            mask: which frames are part of a picture; the others are taken as silence.
        """
        mask = jnp.ones(features.shape[:2], bool) if mask is None else mask
        mean, log_variance = self.encoder(features, mask, train=train)
        limit = jnp.asarray(_LOG_VARIANCE_LIMIT, mean.dtype)
        return mean, limit * jnp.tanh(log_variance / limit)

    def decode(
        self, latents: Float[Array, "batch latents"], frames: int, channels: int, *, train: bool
    ) -> Float[Array, "batch frames channels"]:
        """Returns pictures of the size that the network was made for.

        Args:
            latents: as from `encode`.
            frames: of the pictures.
            channels: of the pictures.
            train: whether to drop.
        """
        return self.decoder(latents, frames, channels, train=train)


class _Encoder(nn.Module):
    latent_size: int
    features: tuple[int, ...]
    hidden: int
    dropout: float
    momentum: float

    @nn.compact
    def __call__(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        x = normalised(x, mask, train=train, momentum=self.momentum)
        flat = x.reshape(x.shape[0], -1)
        linear = nn.Dense(self.latent_size, param_dtype=x.dtype, name="linear")(flat)
        x = x[..., None]
        for width in self.features:
            x = nn.gelu(_conv(width, x.dtype, strides=2)(x))
        x = nn.gelu(nn.Dense(self.hidden, param_dtype=x.dtype)(x.reshape(x.shape[0], -1)))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(2 * self.latent_size, param_dtype=x.dtype)(x)
        mean, log_variance = jnp.split(x, 2, axis=-1)
        return linear + mean, log_variance


class _Decoder(nn.Module):
    features: tuple[int, ...]
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, latents: Array, frames: int, channels: int, *, train: bool) -> Array:
        kind = latents.dtype
        small = nn.initializers.normal(0.05)
        outputs = frames * channels
        linear = nn.Dense(outputs, kernel_init=small, param_dtype=kind, name="linear")(latents)
        scale = 2 ** len(self.features)
        low = (-(-frames // scale), -(-channels // scale), self.features[-1])
        x = nn.gelu(nn.Dense(self.hidden, param_dtype=kind)(latents))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.gelu(nn.Dense(math.prod(low), param_dtype=kind)(x)).reshape(-1, *low)
        for width in (*self.features[-2::-1], max(1, self.features[0] // 2)):
            # Repeated, then smoothed: strides of transposed convolutions leave chequerboards.
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = nn.gelu(_conv(width, kind)(x))
        x = _conv(1, kind)(x)[:, :frames, :channels, 0]
        return x + linear.reshape(x.shape)


def _conv(width: int, dtype: Any, strides: int = 1) -> nn.Conv:
    kernel = (3, 3)
    return nn.Conv(width, kernel, strides=strides, kernel_init=_drawn_flat, param_dtype=dtype)


def _drawn_flat(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    # As a matrix of the same fan-in: random numbers of four dimensions take long to compile.
    matrix = (math.prod(shape[:-1]), shape[-1])
    return nn.initializers.lecun_normal()(key, matrix, dtype).reshape(shape)
