"""Lets a Flax NNX module be a learner, with the init and apply that the loop knows from Linen."""

import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
from flax import nnx
from jaxtyping import Array, Bool, Float

from learners.base import accepts_mask
from physics.stacking import IMPORT_PATH


class NnxLearner(nn.Module):
    """Wraps a Flax NNX module as a Linen one.

    NNX does not infer shapes: the class is called as `target(channels, **kwargs, rngs=rngs)`, where
    `channels` is the size of the last axis of the features. Its `__call__` takes the features, and
    the `mask` of valid frames if it has such an argument. Dropout and batch normalisation follow
    `train` as they follow NNX's own `module.train()` and `module.eval()`; their random numbers come
    from the stream `dropout`.

    Attributes:
        target: the class, or its import path, such as `"my_package.networks:Network"`.
        kwargs: further arguments of the class.
    """

    target: str | Callable[..., nnx.Module]
    kwargs: Mapping[str, Any] | None = None

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frames *channels"],
        *,
        train: bool,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> Array:
        """Returns what the module returns.

        Args:
            features: `[batch, frames, channels]` or `[batch, frames, ears, channels]`.
            train: whether dropout is on and batch statistics are taken.
            mask: which frames are valid; given to the module if it takes it.
        """
        target = _resolved(self.target) if isinstance(self.target, str) else self.target
        network = nnx.bridge.ToLinen(
            target,
            args=(features.shape[-1],),
            kwargs=dict(self.kwargs or {}),
            metadata_fn=None,
            name="network",
        )
        return network(features, train=train, mask=mask, nnx_method=_call)


def _resolved(path: str) -> type[nnx.Module]:
    """Returns the class at an import path; nothing else is called in its place."""
    if not IMPORT_PATH.fullmatch(path):
        raise ValueError(f"target must be an import path 'package.module:Name', got {path!r}")
    found = pkgutil.resolve_name(path)
    if not (isinstance(found, type) and issubclass(found, nnx.Module)):
        raise ValueError(f"target must name a class of NNX modules; {path!r} is {found!r}")
    return found


def _call(module: Any, features: Array, *, train: bool, mask: Array | None) -> Array:
    if train:
        module.train()
    else:
        module.eval()
    return module(features, mask=mask) if accepts_mask(module) else module(features)
