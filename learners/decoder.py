"""The network of an autoencoder that ends in a synthesiser: from what is heard to its controls.

Engel, Hantrakul, Gu and Roberts, "DDSP: Differentiable Digital Signal Processing", ICLR 2020,
section 4 and appendix B.1: perceptrons for pitch, loudness and timbre, a recurrent layer over them,
and a perceptron that still sees pitch and loudness.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from learners.local import Local, normalised_as_one
from learners.masking import held, masked_mean
from learners.normalise import normalised

# Quieter than anything that is heard; loudness is measured from here, in units of this range.
_LOUDNESS_RANGE_DB = 80.0


class Decoder(nn.Module):
    """Raw controls of a synthesiser, frame by frame, from pitch, loudness and timbre.

    The timbre encoder normalises the features of a front end per channel, runs a recurrent layer
    over them and keeps a few numbers z for each frame. Nothing looks ahead of the features, so that
    what follows a clip changes nothing in it. Keeps the collection `batch_stats`.

    With `local_width`, controls that lie along frequency also get what `learners.local.Local` makes
    of the features where they lie. The sound then follows the features closely; a timbre that is
    lent by another sound, of another pitch, is what z alone can tell.

    Attributes:
        width: units of each layer.
        depth: layers of each perceptron.
        latent_size: numbers z of the timbre encoder; 0 leaves it out.
        timbre_width: units of its recurrent layer.
        whole_clip: whether z is one for the whole clip, its mean over the frames: what makes an
            instrument, as against what a note does.
        local_width: units of the networks that look at the features where controls lie; 0 leaves
            them out.
        momentum: of the running statistics.
    """

    width: int = 128
    depth: int = 2
    latent_size: int = 16
    timbre_width: int = 64
    whole_clip: bool = False
    local_width: int = 0
    momentum: float = 0.9

    @nn.compact
    def __call__(
        self,
        f0_hz: Float[Array, "batch frames"],
        loudness_db: Float[Array, "batch frames"],
        timbre: Float[Array, "batch frames channels"],
        sizes: Mapping[str, int],
        *,
        train: bool,
        mask: Bool[Array, "batch frames"] | None = None,
        timbre_mask: Bool[Array, "batch frames"] | None = None,
        channels_hz: Float[Array, "..."] | None = None,
        places_hz: Mapping[str, Float[Array, "batch frames places"]] | None = None,
    ) -> dict[str, Float[Array, "batch frames size"]]:
        """Returns `[batch, frames, size]` for each control.

        Args:
            f0_hz: pitch.
            loudness_db: loudness.
            timbre: features of a front end.
            sizes: numbers a frame of each control, by name.
            train: whether to normalise features by the statistics of the batch.
            mask: which frames are valid; all of them if not given.
            timbre_mask: which frames of the timbre are, where it is of another sound: beyond its
                end its last z is held. As `mask` if not given.
            channels_hz: [channels], frequencies of the features' channels; for `local_width`, as
                is the next.
            places_hz: of each control that lies along frequency, where; see
                `physics.synth.synthesiser.Synthesiser.places_hz`.

        Raises:
            ValueError: `local_width` without frequencies, or with the timbre of another sound.
        """
        if self.local_width:
            self._check_local(timbre, channels_hz, places_hz, timbre_mask is not None)
        mask = jnp.ones(f0_hz.shape, bool) if mask is None else mask
        hertz = jnp.maximum(f0_hz, jnp.full_like(f0_hz, 8))
        # MIDI numbers 0 to 127, and loudness, both to about 0 to 1.
        pitch = (69 + 12 / math.log(2) * jnp.log(hertz / 440)) / 127
        loudness = loudness_db / _LOUDNESS_RANGE_DB + 1
        parts = [self._perceptron(x[..., None]) for x in (pitch, loudness)]
        if self.latent_size:
            z = self._timbre(timbre, mask if timbre_mask is None else timbre_mask, train)
            if timbre_mask is not None:
                z = held(z, timbre_mask)
            parts.append(self._perceptron(z))
        recurrent = nn.RNN(nn.GRUCell(self.width, param_dtype=f0_hz.dtype))
        hidden: Array = recurrent(jnp.concatenate(parts, axis=-1))  # pyright: ignore[reportAssignmentType]
        hidden = self._perceptron(jnp.concatenate([hidden, *parts[:2]], axis=-1))
        total = sum(sizes.values())
        out = nn.Dense(total, param_dtype=f0_hz.dtype, name="controls")(hidden)
        controls, place = {}, 0
        for name, size in sizes.items():
            controls[name] = out[..., place : place + size]
            place += size
        if self.local_width and channels_hz is not None and places_hz is not None:
            features = normalised_as_one(timbre, mask, train=train, momentum=self.momentum)
            for name, places in places_hz.items():
                local = Local(self.local_width, name=f"local_{name}")
                controls[name] += local(features, channels_hz, places, hidden)
        return controls

    def _check_local(self, timbre: Array, channels_hz: Any, places_hz: Any, lent: bool) -> None:
        if self.local_width < 0:
            raise ValueError(
                f"local_width must be a whole number, 0 or more, got {self.local_width}: take 32"
            )
        rule = f"local_width={self.local_width} looks at features by frequency"
        if places_hz is None:
            raise ValueError(
                f"{rule}: the synthesiser must say by places_hz where its controls lie, and says "
                "nothing; take physics.synth:HarmonicNoise, or local_width=0"
            )
        if channels_hz is None or channels_hz.shape != timbre.shape[-1:]:
            found = "none" if channels_hz is None else f"{channels_hz.shape} of them"
            raise ValueError(
                f"{rule}: the front end must have one of channel_frequencies_hz for each of its "
                f"{timbre.shape[-1]} features, and has {found}; take a spectrum, a filterbank or "
                "one ear of CAR-FAC, or local_width=0"
            )
        if lent:
            raise ValueError(
                f"a timbre is lent as z, and {rule.replace('looks', 'would look')}, where the "
                "other sound has no partials; train a decoder with local_width=0"
            )

    def _timbre(self, features: Array, mask: Array, train: bool) -> Array:
        x = normalised(features, mask, train=train, momentum=self.momentum)
        recurrent = nn.RNN(nn.GRUCell(self.timbre_width, param_dtype=x.dtype))
        hidden: Array = recurrent(x)  # pyright: ignore[reportAssignmentType]
        z = nn.Dense(self.latent_size, param_dtype=x.dtype, name="z")(hidden)
        if self.whole_clip:
            z = jnp.broadcast_to(masked_mean(z, mask)[:, None], z.shape)
        return z

    def _perceptron(self, x: Array) -> Array:
        for _ in range(self.depth):
            # Layer normalisation would take all there is out of one number times a vector.
            offsets = nn.initializers.normal(0.5)
            x = nn.Dense(self.width, bias_init=offsets, param_dtype=x.dtype)(x)
            x = nn.leaky_relu(nn.LayerNorm(param_dtype=x.dtype)(x))
        return x
