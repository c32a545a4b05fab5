"""The smallest parts that satisfy every contract, for tests of the loop that need no cochlea."""

import dataclasses
import time

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax import nnx

from data.audio_files import AudioFileError
from physics.base import Parameter, Physics, frame_mask

HOP = 16


@dataclasses.dataclass(frozen=True)
class ToyEar(Physics):
    """Log energy of the frames in two bands made by a learnable one-pole filter's gain."""

    sample_rate_hz: float = 1000.0
    hop_samples: int = HOP
    causal: bool = True
    bands: int = 2

    def init(self, key):
        return self.raw({"gain": np.full(self.bands, 0.5), "health": np.ones(self.bands)})

    def specs(self):
        return {
            "gain": Parameter("1", 0.1, 2.0, "gain of a band", "test", "logit"),
            "health": Parameter("1", 0.0, 1.0, "health of a band", "test", "project"),
        }

    def apply(self, params, inputs, state=None, lengths=None):
        values = self.physical(params)
        num_frames = self.num_frames(inputs.shape[1])
        frames = inputs[:, : num_frames * HOP].reshape(inputs.shape[0], num_frames, HOP)
        energy = jnp.mean(frames**2, axis=-1)[..., None]
        zero_crossing = jnp.mean(jnp.abs(jnp.diff(frames, axis=-1)), axis=-1)[..., None]
        both = jnp.concatenate([energy, zero_crossing] * (self.bands // 2), axis=-1)
        scale = (values["gain"] * values["health"])[None, None, :]
        features = jnp.log1p(10.0 * both * scale)
        if lengths is not None:
            mask = frame_mask(num_frames, HOP, lengths)
            features = jnp.where(mask[..., None], features, 0.0)
        return features, state


class ToyNet(nn.Module):
    """Mean over frames, batch norm, dropout, one dense layer."""

    num_classes: int = 2
    dropout: float = 0.1

    @nn.compact
    def __call__(self, features, train, mask=None):
        mask = jnp.ones(features.shape[:2], bool) if mask is None else mask
        weight = mask.astype(features.dtype)[..., None]
        pooled = jnp.sum(features * weight, axis=1) / jnp.maximum(jnp.sum(weight, axis=1), 1.0)
        pooled = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            force_float32_reductions=features.dtype == jnp.float32,
            param_dtype=features.dtype,
        )(pooled)
        pooled = nn.Dropout(self.dropout, deterministic=not train)(pooled)
        return nn.Dense(self.num_classes, param_dtype=features.dtype)(pooled)


class ToyNnx(nnx.Module):
    """A dense layer on the mean over frames, in NNX."""

    def __init__(self, channels, width, num_classes=2, *, rngs):
        self.hidden = nnx.Linear(channels, width, rngs=rngs)
        self.out = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, features):
        return self.out(jnp.tanh(self.hidden(jnp.mean(features, axis=1))))


class ToySet:
    """Clips that are loud or soft, map-style; item `poisoned` holds a NaN."""

    def __init__(self, num_clips, num_samples, seed, poisoned=-1, delay_s=0.0, broken=-1):
        self.broken = broken
        self.num_clips, self.num_samples, self.seed = num_clips, num_samples, seed
        self.poisoned, self.delay_s = poisoned, delay_s

    def __len__(self):
        return self.num_clips

    def __getitem__(self, index):
        time.sleep(self.delay_s)
        if index == self.broken:
            raise AudioFileError(f"{index}.wav is broken")
        rng = np.random.default_rng((self.seed, index))
        label = index % 2
        length = int(rng.integers(self.num_samples // 2, self.num_samples))
        audio = np.zeros(self.num_samples, np.float32)
        audio[:length] = rng.normal(size=length) * (0.05 + 0.1 * label)
        if index == self.poisoned:
            audio[0] = np.nan
        return {
            "audio": audio,
            "lengths": np.int32(length),
            "labels": np.int32(label),
            "ids": np.int32(index),
            "weights": np.float32(1),
        }


class ToySource:
    """A data source of `ToySet`s."""

    def __init__(
        self,
        sample_rate_hz=1000.0,
        num_samples=160,
        num_clips=48,
        poisoned=-1,
        delay_s=0.0,
        broken=-1,
    ):
        self.sample_rate_hz = sample_rate_hz
        self.num_samples = num_samples
        self.class_names = ("soft", "loud")
        self._num_clips = num_clips
        self._poisoned, self._delay_s, self._broken = poisoned, delay_s, broken

    def dataset(self, split):
        seed = {"train": 0, "validation": 1, "test": 2}[split]
        size = self._num_clips if split == "train" else 10
        if split != "train":
            return ToySet(size, self.num_samples, seed)
        faults = (self._poisoned, self._delay_s, self._broken)
        return ToySet(size, self.num_samples, seed, *faults)


def not_a_physics(sample_rate_hz):
    """Returns something that is not a physical model."""
    return object()


class WrongFrames(ToyEar):
    """Gives one frame too few."""

    def apply(self, params, inputs, state=None, lengths=None):
        features, state = super().apply(params, inputs, state, lengths)
        return features[:, :-1], state
