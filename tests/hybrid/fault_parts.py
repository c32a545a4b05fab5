"""Parts of a run that go wrong in known places, importable by path."""

import dataclasses
import os
import pathlib
import signal
import time

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from torch.utils.data import get_worker_info
from toy_parts import HOP, ToyEar, ToySet, ToySource

from physics.base import Parameter, frame_mask
from physics.stages import Stage

LOUD = 100.0


@dataclasses.dataclass(frozen=True)
class LogStage(Stage):
    """The logarithm of what is left below a limit: NaN where the features are above it."""

    limit: float = 50.0

    def specs(self, layout):
        return {"gain": Parameter("1", 0.1, 2.0, "gain", "test")}

    def initial(self, layout):
        return {"gain": 1.0}

    def apply(self, physical, features, layout, state=None, mask=None):
        return jnp.log(self.limit - physical["gain"] * features), state


@dataclasses.dataclass(frozen=True)
class LinearEar(ToyEar):
    """Mean amplitude of each frame, times a gain, in two bands; without a logarithm."""

    def apply(self, params, inputs, state=None, lengths=None):
        values, num_frames = self.physical(params), self.num_frames(inputs.shape[1])
        frames = inputs[:, : num_frames * HOP].reshape(inputs.shape[0], num_frames, HOP)
        level = jnp.mean(jnp.abs(frames), axis=-1)[..., None]
        level = level * (values["gain"] * values["health"])[None, None]
        heard = jnp.ones(level.shape[:2], bool)
        if lengths is not None:
            heard = frame_mask(num_frames, HOP, lengths)
        # What is not heard has no slope either, not even an infinite one.
        features = self.curve(jnp.where(heard[..., None], level, 1.0))
        return jnp.where(heard[..., None], features, 0.0), state

    def curve(self, level):
        return level


class RootEar(LinearEar):
    """Its gradient is infinite in silence, where its features are 0."""

    def curve(self, level):
        return jnp.sqrt(level)


class RootNet(nn.Module):
    """The root of a mean, whose gradient is infinite where that is 0."""

    num_classes: int = 2

    @nn.compact
    def __call__(self, features, train):
        x = jnp.sqrt(jnp.mean(features, axis=1))
        return nn.Dense(self.num_classes, param_dtype=features.dtype, name="last")(x)


class NamedSet(ToySet):
    """Clips with names, of which some harm their reader, once or always.

    `deed` is "stop" (an error nobody expects, which ends a run as a kill does), "kill" (the worker
    that reads is killed), "hang", or "". It is done at item `at` from the `reads`-th reading on,
    and once only if there is a file `once` to note it in.
    """

    def __init__(self, *args, deed="", at=0, once="", silent=-1, **kwargs):
        super().__init__(*args, **kwargs)
        self.deed, self.at, self.once, self.silent = deed, at, once, silent

    def name(self, index):
        return f"clips/{index:03d}.wav"

    def __getitem__(self, index):
        if self.deed and index == self.at and not (self.once and pathlib.Path(self.once).exists()):
            if self.once:
                pathlib.Path(self.once).touch()
            self._do()
        item = super().__getitem__(index)
        if index == self.silent:
            item["audio"] = np.zeros_like(item["audio"])
        return item

    def _do(self):
        if self.deed == "hang":
            time.sleep(600)
        if self.deed == "kill" and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.deed == "stop":
            raise RuntimeError("as good as killed")


class NamedSource(ToySource):
    """A source of `NamedSet`s."""

    def __init__(self, num_clips=48, poisoned=-1, deed="", at=0, once="", silent=-1):
        super().__init__(num_clips=num_clips, poisoned=poisoned)
        self._deeds = {"deed": deed, "at": at, "once": once, "silent": silent}

    def dataset(self, split):
        plain = super().dataset(split)
        deeds = self._deeds if split == "train" else {}
        poisoned = plain.poisoned
        return NamedSet(plain.num_clips, plain.num_samples, plain.seed, poisoned, **deeds)
