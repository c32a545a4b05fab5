"""How a learner is called, so that any Flax module fits, whether or not it knows about padding."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

Variables = Mapping[str, PyTree]


@runtime_checkable
class Learner(Protocol):
    """What the loop needs of a network: the two methods that every Flax Linen module has.

    The module's own signature is `__call__(self, features, *, train, mask)`:

    * `features`: `[batch, frames, channels]`, for several ears `[batch, frames, ears, channels]`;
    * `train`: `True` while training (dropout, statistics of the batch), `False` otherwise;
    * `mask`: bool `[batch, frames]`, `True` where a frame is heard; always given to a module that
      has this argument. Padding frames must not change the result.

    It may keep collections beside `params`, such as `batch_stats`, and may draw from the random
    stream `dropout` while it trains.
    """

    def init(self, rngs: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Returns the variables: `params` and any further collections."""
        ...

    def apply(self, variables: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs, with the changed collections if `mutable` names any."""
        ...


def accepts_mask(call: object) -> bool:
    """Tells whether a network takes the `mask` of valid frames.

    Args:
        call: a module, or any other callable.
    """
    method = call if inspect.isroutine(call) else type(call).__call__
    parameters = inspect.signature(method).parameters.values()
    return any(p.name == "mask" or p.kind is p.VAR_KEYWORD for p in parameters)


def init_learner(
    module: Learner,
    key: Key[Array, ""],
    features: Float[Array, "batch frames *channels"],
    mask: Bool[Array, "batch frames"] | None = None,
) -> dict[str, PyTree]:
    """Makes the variables of a learner; their shapes follow from the features.

    Args:
        module: the network.
        key: random key.
        features: an example of what it will be given; only shape and dtype matter.
        mask: which frames are valid; all of them if not given.

    Returns:
        The collections by name; `params` is among them, even if it is empty.
    """
    keywords = _keywords(module, features, train=False, mask=mask)
    variables = dict(module.init({"params": key, "dropout": key}, features, **keywords))
    variables.setdefault("params", {})
    return variables


def call_learner(
    module: Learner,
    variables: Variables,
    features: Float[Array, "batch frames *channels"],
    *,
    train: bool,
    mask: Bool[Array, "batch frames"] | None = None,
    rngs: Mapping[Any, Key[Array, ""]] | None = None,
    mutable: Collection[str] | bool = False,
) -> Any:
    """Calls a learner, with the mask if it takes one.

    Args:
        module: the network.
        variables: `params` and the other collections.
        features: what the physics gave.
        train: whether this is a training step.
        mask: which frames are valid; all of them if not given.
        rngs: random streams; `dropout` is needed while training by networks that drop.
        mutable: the collections that may change, or `True` for all.

    Returns:
        The outputs; if `mutable` is not `False`, a pair of them and the changed collections.
    """
    keywords = _keywords(module, features, train=train, mask=mask)
    names = mutable if isinstance(mutable, bool) else list(mutable)
    return module.apply(variables, features, rngs=rngs, mutable=names, **keywords)


def _keywords(
    module: Learner, features: Array, *, train: bool, mask: Array | None
) -> dict[str, Any]:
    if not accepts_mask(module):
        return {"train": train}
    return {"train": train, "mask": jnp.ones(features.shape[:2], bool) if mask is None else mask}
