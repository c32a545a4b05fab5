"""Exists to make one physics module of a front end and the stages after it, with one tree."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics.base import Params, Physics, State, frame_mask
from physics.stacking import built, made
from physics.stages import FeatureLayout, Stage

_FRONT = "physics.carfac:Carfac"


@dataclasses.dataclass(frozen=True)
class Compose(Physics):
    """A front end, then a compressor, say, then a cortical stage.

    The params are {"front": ..., "per_channel_energy": ..., ...}: a name for each stage, which is
    its class's in small letters, with a number from the second of a kind on.

    From a config: `physics.target="physics.compose:Compose"`, `physics.kwargs={"front": {"target":
    "physics.carfac:Carfac", "hop_s": 0.01}, "stages": [{"target": "my_stages:Root"}]}`.

    Attributes:
      sample_rate_hz: samples of audio per second; None takes the front end's.
      front: a physics module, or its settings, of which "target" is its import path.
      stages: each a `Stage`, or the settings of one, likewise; in the order in which they act.
    """

    sample_rate_hz: Any = None
    front: Any = None
    stages: Sequence[Any] = ()

    def __post_init__(self):
        front = built(self.front or {}, _FRONT, self.sample_rate_hz)
        object.__setattr__(self, "front", front)
        object.__setattr__(self, "sample_rate_hz", float(front.sample_rate_hz))
        object.__setattr__(self, "stages", tuple(_stage(stage) for stage in self.stages))

    @property
    def hop_samples(self) -> int:
        """Samples of audio per frame, the front end's."""
        return self.front.hop_samples

    def num_frames(self, num_samples: int) -> int:
        """Frames of the front end."""
        return self.front.num_frames(num_samples)

    @property
    def n_ears(self) -> int:
        """Ears of the front end."""
        return getattr(self.front, "n_ears", 1)

    @property
    def causal(self) -> bool:  # type: ignore[override]
        """Whether all parts may be streamed."""
        return all(part.causal for part in (self.front, *self.stages))

    @property
    def not_causal_because(self) -> str:  # type: ignore[override]
        """Why the first part that cannot be streamed cannot."""
        for part in (self.front, *self.stages):
            if not part.causal:
                reason = getattr(part, "not_causal_because", "")
                return f"{type(part).__name__}: {reason}" if reason else ""
        return ""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the stages, in the tree of params."""
        names: list[str] = []
        for stage in self.stages:
            name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(stage).__name__).lower()
            count = 1 + sum(n == name or n.startswith(f"{name}_") for n in ["front", *names])
            names.append(name if count == 1 else f"{name}_{count}")
        return tuple(names)

    def layouts(self) -> tuple[FeatureLayout, ...]:
        """Of what each stage is given, and of the features."""
        return _layouts(self)

    def specs(self) -> Params:
        """`Parameter` of every leaf of the front end and of each stage."""
        return {"front": self.front.specs()} | {
            name: stage.specs(layout) for name, stage, layout in self._parts()
        }

    def init(self, key: Any) -> Params:
        """Initial params; only the front end may be random."""
        return {"front": self.front.init(key)} | {
            name: stage.raw(layout, stage.initial(layout)) for name, stage, layout in self._parts()
        }

    def project(self, params: Params) -> Params:
        """Brings params back into bounds."""
        project = getattr(self.front, "project", lambda p: p)
        return super().project(params) | {"front": project(params["front"])}

    def channel_frequencies_hz(self, params: Params) -> Float[Array, "*axes"] | None:
        """Of the front end's channels, where it has them."""
        own = getattr(self.front, "channel_frequencies_hz", super().channel_frequencies_hz)
        return own(params["front"])

    def init_state(self, batch_shape: Any) -> State:
        """Memories of all parts at rest."""
        batch = batch_shape if isinstance(batch_shape, int) else int(np.prod(batch_shape))
        return {"front": self.front.init_state(batch)} | {
            name: stage.init_state(layout, batch) for name, stage, layout in self._parts()
        }

    def apply(self, params: Params, inputs: Any, state: State = None, lengths: Any = None) -> Any:
        """Runs the front end and the stages in turn.

        Args:
          params: as from `init`.
          inputs: audio, as the front end takes it.
          state: from an earlier piece; None starts afresh.
          lengths: `[batch]` valid samples; frames that end beyond are 0.

        Returns:
          Features `[batch, frames, *channels]` of the last stage, and the state.
        """
        before = state or {}
        features, after = self.front.apply(params["front"], inputs, before.get("front"), lengths)
        states = {"front": after}
        mask = None
        if lengths is not None:
            mask = frame_mask(features.shape[1], self.hop_samples, lengths)
        physical = self.physical(params)
        for name, stage, layout in self._parts():
            features, states[name] = stage.apply(
                physical[name], features, layout, before.get(name), mask
            )
            if mask is not None:
                heard = mask.reshape(*mask.shape, *(1,) * (features.ndim - 2))
                features = jnp.where(heard, features, jnp.zeros_like(features))
        return features, states

    def _parts(self):
        return zip(self.names, self.stages, self.layouts()[:-1], strict=True)


def _stage(settings: Any) -> Stage:
    stage = settings
    if isinstance(settings, Mapping):
        stage = made(settings, None, {}, ("specs", "initial", "apply"))
    if not isinstance(stage, Stage):
        raise ValueError(
            "stages must be `Stage`s, or the settings of one ({'target': 'package.module:Name', "
            f"...}}); got {stage!r}."
        )
    return stage


@functools.lru_cache(maxsize=64)
def _layouts(module: Compose) -> tuple[FeatureLayout, ...]:
    """Layouts along the chain, found without computing anything."""
    front, hop = module.front, module.front.hop_samples
    ears = () if module.n_ears == 1 else (module.n_ears,)
    rate_hz = module.sample_rate_hz / hop

    def through(key):
        audio = jnp.zeros((1, 2 * hop, *ears), jnp.result_type(float))
        return front.apply(front.init(key), audio)[0]

    features = jax.eval_shape(through, jax.eval_shape(lambda: jax.random.key(0)))
    layouts = [FeatureLayout(rate_hz, tuple(features.shape[2:]))]
    for stage in module.stages:
        layout = layouts[-1]
        features = jax.eval_shape(
            lambda x, stage=stage, layout=layout: stage.apply(
                jax.tree.map(jnp.asarray, stage.initial(layout)), x, layout
            )[0],
            features,
        )
        layouts.append(FeatureLayout(rate_hz, tuple(features.shape[2:])))
    return tuple(layouts)
