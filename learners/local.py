"""Looks at a spectrum where something is to sound, with the same few weights at every frequency.

What is learned of one partial is known of all of them, at every pitch: notes that were never heard
are made as well as those that were.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from learners.normalise import normalised

# Where it is looked, in steps between neighbours: there, half way to the next ones, and at these.
_OFFSETS = (0.0, -0.5, 0.5, -1.0, 1.0)
_LOWEST_HZ = 20.0


class Local(nn.Module):
    """A control for each of a row of frequencies, from the features around it and a context.

    It is looked where the control lies, half way to its neighbours, where these lie, and at the
    frame before where the control lay then. A linear layer and a perceptron of two layers follow,
    the same for all places.

    Attributes:
        width: units of each layer of the perceptron.
    """

    width: int = 32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frames channels"],
        channels_hz: Float[Array, " channels"],
        places_hz: Float[Array, "batch frames places"],
        context: Float[Array, "batch frames units"],
    ) -> Float[Array, "batch frames places"]:
        """Returns the controls.

        Args:
            features: of a front end, as from `normalised_as_one`.
            channels_hz: frequencies of its channels, in any order.
            places_hz: the row of frequencies, equally far apart; of one alone, as far as it is from
                0.
            context: what else there is to know of a frame.
        """
        dtype = features.dtype
        alone = places_hz.shape[-1] == 1
        step_hz = places_hz if alone else places_hz[..., 1:2] - places_hz[..., :1]
        seen = [at_frequencies(features, channels_hz, places_hz + o * step_hz) for o in _OFFSETS]
        before = jnp.pad(seen[0], ((0, 0), (1, 0), (0, 0)), mode="edge")[:, :-1]
        octave = jnp.log2(jnp.maximum(places_hz, jnp.full_like(places_hz, _LOWEST_HZ)) / 1000)
        x = jnp.stack([*seen, before, octave / 4, octave**2 / 16], axis=-1)
        linear = nn.Dense(1, param_dtype=dtype, name="linear")(x)
        told = nn.Dense(self.width, param_dtype=dtype, name="context")(context)
        x = nn.leaky_relu(nn.Dense(self.width, param_dtype=dtype)(x) + told[:, :, None])
        x = nn.leaky_relu(nn.Dense(self.width, param_dtype=dtype)(x))
        rest = nn.Dense(1, kernel_init=nn.initializers.zeros, param_dtype=dtype, name="rest")(x)
        return (linear + rest)[..., 0]


def normalised_as_one(
    features: Float[Array, "batch frames channels"],
    mask: Bool[Array, "batch frames"],
    *,
    train: bool,
    momentum: float = 0.9,
) -> Float[Array, "batch frames channels"]:
    """Features of zero mean and unit variance over all channels, whose ratios stay.

    Arguments are those of `learners.normalise.normalised`, which does so for each channel.
    """
    batch, frames, channels = features.shape
    flat = features.reshape(batch, frames * channels, 1)
    valid = jnp.repeat(mask, channels, axis=1)
    flat = normalised(flat, valid, train=train, momentum=momentum)
    return flat.reshape(features.shape)


def at_frequencies(
    features: Float[Array, "batch frames channels"],
    channels_hz: Float[Array, " channels"],
    places_hz: Float[Array, "batch frames places"],
) -> Float[Array, "batch frames places"]:
    """Features at some frequencies, linearly between channels; beyond them, the outermost one's.

    Places have no gradient.
    """
    order = jnp.argsort(channels_hz)
    channels_hz, features = channels_hz[order], features[..., order]
    numbers = jnp.arange(channels_hz.shape[0], dtype=features.dtype)
    place = jnp.interp(places_hz, channels_hz.astype(features.dtype), numbers)
    place = lax.stop_gradient(place)
    low = jnp.clip(place.astype(jnp.int32), 0, channels_hz.shape[0] - 2)
    below, above = (jnp.take_along_axis(features, low + i, axis=-1) for i in (0, 1))
    return below + (place - low.astype(place.dtype)) * (above - below)
