"""Exists so that a parameter never leaves its interval: bijectors, projection, and their inverses.

The number the optimizer sees ("raw") is unitless:

- `logit`: physical = low + (high - low) * sigmoid(raw), strictly inside the interval;
- `log_logit`: the same for the logarithm of the parameter (low > 0), so that a step of the raw
  number is a step by a ratio: for frequencies and time constants that span decades;
- `project`: physical = low + (high - low) * raw with raw clipped to [0, 1] after each update: for
  parameters whose natural value is a bound, such as the health of hair cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

TRANSFORMS = ("logit", "log_logit", "project")

# sigmoid(12) = 1 - 6e-6: its distance from 1 survives float32; further out it rounds to the bound.
_RAW_LIMIT = 12.0


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What a trainable number means.

    Attributes:
      unit: "Hz", "s", "rad", ..., or "1" for a ratio.
      low: lower end of its interval, in that unit.
      high: upper end.
      doc: one sentence for a reader who knows hearing but not this code.
      source: where the interval and the initial value come from.
      transform: "logit", "log_logit" or "project", see the module's docstring.
    """

    unit: str
    low: float
    high: float
    doc: str
    source: str = ""
    transform: str = "logit"

    def __post_init__(self):
        if self.transform not in TRANSFORMS:
            raise ValueError(
                f"A parameter's transform is one of {TRANSFORMS}; got {self.transform!r}."
            )
        if not self.low < self.high:
            raise ValueError(
                f"A parameter's interval needs low < high; got low={self.low}, high={self.high}."
            )
        if self.transform == "log_logit" and self.low <= 0.0:
            raise ValueError(
                f"log_logit needs low > 0, for it works on logarithms; got low={self.low}. "
                "Use transform='logit'."
            )


def to_physical(specs: Any, params: Any) -> Any:
    """Values in physical units; differentiable.

    Leaves of one kind go through their bijector together: a dozen scalars, each with kernels of
    its own, would take longer to compile than the rest of a small model.

    Args:
      specs: tree of `Parameter`.
      params: tree like it, of raw arrays of any shape.

    Returns:
      A tree like `params`.
    """
    return _together(specs, params, lambda transform, raw, ends, _: _bijector(transform, raw, ends))


def moved(specs: Any, params: Any, initial: Any) -> Any:
    """How far physical values lie from initial ones; differentiable.

    Worked out from the distance of the raw numbers, so that rounding is relative to the move and
    not to the value: where nothing has moved it is 0, in float32 too.

    Args:
      specs: tree of `Parameter`, none of them `project`.
      params: tree like it, of raw arrays of any shape.
      initial: tree like it, of float64 physical values within the intervals.

    Returns:
      A tree like `params`: the logarithm of the ratio to the initial value for `log_logit`, in the
      parameter's unit the difference from it for `logit`.
    """
    parameters, structure = jax.tree.flatten(specs, is_leaf=is_parameter)
    starts = [
        np.broadcast_to(_raw(parameter, value), leaf.shape).ravel()
        for parameter, value, leaf in zip(
            parameters,
            structure.flatten_up_to(initial),
            structure.flatten_up_to(params),
            strict=True,
        )
    ]

    def distance(transform, raw, ends, members):
        low, high = (np.log(ends) if transform == "log_logit" else ends).T
        start = np.concatenate([starts[i] for i in members])
        above, below = ((high - low) / (1 + np.exp(sign * start)) for sign in (1, -1))
        # sigmoid(a) - sigmoid(b), of which only a - b can cancel.
        sides = jax.nn.sigmoid(raw) * jnp.asarray(above, raw.dtype)
        sides += jax.nn.sigmoid(-raw) * jnp.asarray(below, raw.dtype)
        return sides * jnp.tanh(0.5 * (raw - jnp.asarray(start, raw.dtype)))

    return _together(specs, params, distance)


def _together(specs: Any, params: Any, function: Callable[..., jax.Array]) -> Any:
    """Maps all raw leaves of a transform at once: the transform, their numbers, ends, indices."""
    parameters, structure = jax.tree.flatten(specs, is_leaf=is_parameter)
    leaves = structure.flatten_up_to(params)
    values = list(leaves)
    for transform in TRANSFORMS:
        members = [i for i, p in enumerate(parameters) if p.transform == transform]
        if not members:
            continue
        sizes = [leaves[i].size for i in members]
        together = jnp.concatenate([jnp.ravel(leaves[i]) for i in members])
        ends = np.array([(parameters[i].low, parameters[i].high) for i in members])
        together = function(transform, together, np.repeat(ends, sizes, axis=0), members)
        for i, value in zip(members, jax.lax.split(together, sizes), strict=True):
            values[i] = value.reshape(leaves[i].shape)
    return structure.unflatten(values)


def _bijector(transform: str, raw: jax.Array, ends: np.ndarray) -> jax.Array:
    logarithmic = transform == "log_logit"
    low, high = (np.log(ends) if logarithmic else ends).T
    if transform == "project":  # weighed so that 0 and 1 give the very bounds, unrounded
        return jnp.asarray(low, raw.dtype) * (1 - raw) + jnp.asarray(high, raw.dtype) * raw
    fraction = jax.nn.sigmoid(raw)
    value = jnp.asarray(low, raw.dtype) + jnp.asarray(high - low, raw.dtype) * fraction
    return jnp.exp(value) if logarithmic else value


def to_raw(parameter: Parameter, physical: Any, name: str = "the parameter") -> jax.Array:
    """Inverse of `to_physical`, worked out in float64; dtype is JAX's default float.

    Raises:
      ValueError: the value is outside the interval (at a bound, for the open transforms), or NaN.
    """
    value = np.asarray(physical, np.float64)
    low, high = parameter.low, parameter.high
    closed = parameter.transform == "project"
    inside = (value >= low) & (value <= high) if closed else (value > low) & (value < high)
    if not inside.all():
        interval = f"[{low:g}, {high:g}]" if closed else f"({low:g}, {high:g})"
        wrong = value[~inside].ravel()[0]
        raise ValueError(
            f"{name} must lie in {interval} {parameter.unit}; got {wrong:g}. "
            "Give a value inside the interval."
        )
    return jnp.asarray(_raw(parameter, value), jax.dtypes.canonicalize_dtype(float))


def _raw(parameter: Parameter, value: Any) -> Any:
    low, high = parameter.low, parameter.high
    if parameter.transform == "project":
        return (value - low) / (high - low)
    if parameter.transform == "logit":
        below, above = value - low, high - value
    else:
        below, above = np.log(value / low), np.log(high / value)
    return np.clip(np.log(below) - np.log(above), -_RAW_LIMIT, _RAW_LIMIT)


def project(parameter: Parameter, raw: jax.Array) -> jax.Array:
    """The nearest raw leaf from which the physical value is inside the interval, in float32 too."""
    if parameter.transform == "project":
        return optax.projections.projection_box(raw, 0.0, 1.0)
    return optax.projections.projection_box(raw, -_RAW_LIMIT, _RAW_LIMIT)


def is_parameter(leaf: Any) -> bool:
    """True for a `Parameter`; the `is_leaf` of trees of specs."""
    return isinstance(leaf, Parameter)


def map_specs(function: Callable[..., Any], specs: Any, *trees: Any) -> Any:
    """`jax.tree.map` over a tree of `Parameter` and trees of arrays that match it."""
    return jax.tree.map(function, specs, *trees, is_leaf=is_parameter)
