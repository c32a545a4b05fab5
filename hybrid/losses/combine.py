"""Losses made of losses: weighted sums, from a config too, and the best order of sources."""

import dataclasses
import inspect
import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer
from ml_collections import ConfigDict

from hybrid.config import unknown_name_message
from hybrid.losses.base import (
    Lengths,
    Loss,
    Rows,
    Signals,
    as_lengths,
    as_rows,
    mean_of_rows,
    zero_without_samples,
)
from hybrid.targets import BuildError, check_callable, resolve

_FIELDS = ("target", "weight", "kwargs")
# 6! = 720 orders are still a small table.
_MOST_SOURCES = 6


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """A sum of losses, each with a name and a weight.

    Attributes:
        losses: of `(name, weight, loss)`; a loss is called as `loss(estimate, target, lengths)`.
    """

    losses: Sequence[Sequence[Any]]

    def __post_init__(self) -> None:
        """Checks names and weights."""
        losses = tuple((str(n), float(weight), loss) for n, weight, loss in self.losses)
        object.__setattr__(self, "losses", losses)
        names = [name for name, _, _ in losses]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"A sum has one loss or more, of different names; got {names}. Name each once."
            )
        for name, weight, _ in losses:
            if not math.isfinite(weight):
                raise ValueError(f"Weights must be finite; {name!r} has {weight}. Give a number.")

    def __call__(
        self, estimate: Signals, target: Signals, lengths: Integer[Array, " batch"] | None = None
    ) -> Float[Array, ""]:
        """The weighted sum; see `Loss.__call__`."""
        return self.total(self.parts(estimate, target, lengths))

    def parts(
        self, estimate: Signals, target: Signals, lengths: Integer[Array, " batch"] | None = None
    ) -> dict[str, Float[Array, ""]]:
        """Each loss by its name, not weighted."""
        return {name: loss(estimate, target, lengths) for name, _, loss in self.losses}

    def total(self, parts: Mapping[str, Float[Array, ""]]) -> Float[Array, ""]:
        """The weighted sum of what `parts` gave."""
        return jnp.sum(jnp.stack([weight * parts[name] for name, weight, _ in self.losses]))


@dataclasses.dataclass(frozen=True)
class PermutationInvariant(Loss):
    """A loss of separated sources, in the order that makes it least, clip by clip.

    Kolbæk et al., "Multitalker speech separation with utterance-level permutation invariant
    training" (IEEE/ACM TASLP 2017), section III.C. The inner loss is taken of every estimate with
    every target of a clip as if the pair were alone, and averaged over the sources. Where orders
    are equally good, the first is taken.

    Attributes:
        loss: of one source: one of this package's, or any `loss(estimate, target, lengths)`.
    """

    loss: Any

    def __call__(
        self, estimate: Signals, target: Signals, lengths: Integer[Array, " batch"] | None = None
    ) -> Float[Array, ""]:
        """The mean over clips that count, `[batch, sources, time]`.

        Raises:
            ValueError: as `Loss.__call__` does, and for more than six sources.
        """
        values = self.per_clip(estimate, target, lengths)
        if lengths is not None:
            lengths = as_lengths(lengths, estimate.shape[0], estimate.shape[2])
        return mean_of_rows(values, lengths)

    def per_clip(
        self, estimate: Signals, target: Signals, lengths: Integer[Array, " batch"] | None = None
    ) -> Float[Array, " batch"]:
        """The least mean over the sources of each clip; 0 for clips of length 0."""
        return self.aligned(estimate, target, lengths)[0]

    def aligned(
        self, estimate: Signals, target: Signals, lengths: Integer[Array, " batch"] | None = None
    ) -> tuple[Float[Array, " batch"], Int[Array, "batch sources"]]:
        """The loss of each clip, and for each estimate which target it is taken for."""
        if estimate.ndim != 3 or estimate.shape != target.shape:
            raise ValueError(
                "Estimate and target must be [batch, sources, time]; got "
                f"{tuple(estimate.shape)} and {tuple(target.shape)}. Stack the sources on axis 1."
            )
        batch, sources, time = estimate.shape
        if sources > _MOST_SOURCES:
            raise ValueError(
                f"All orders of sources are tried, of {_MOST_SOURCES} at most; got {sources}. "
                "Take a loss without orders, or fewer sources."
            )
        # What lies beyond the end of a clip is nobody's business, and somebody else's loss might
        # look at it.
        estimate, target, of_rows = as_rows(estimate, target, lengths)
        estimate, target = (x.reshape(batch, sources, time) for x in (estimate, target))
        pairs, rows = (batch, sources, sources, time), (-1, time)
        table = _of_rows(
            self.loss,
            jnp.broadcast_to(estimate[:, :, None], pairs).reshape(rows),
            jnp.broadcast_to(target[:, None], pairs).reshape(rows),
            None if of_rows is None else jnp.repeat(of_rows, sources),
        ).reshape(batch, sources, sources)
        orders = np.array(list(itertools.permutations(range(sources))), np.int32)
        each = np.broadcast_to(np.arange(sources, dtype=np.int32), orders.shape)
        means = jnp.mean(table[:, each, orders], axis=-1)
        best = jnp.argmin(jax.lax.stop_gradient(means), axis=-1)
        values = jnp.take_along_axis(means, best[:, None], axis=-1)[:, 0]
        return values, jnp.asarray(orders)[best]

    def value(self, estimate: Any, target: Any, lengths: Any) -> Float[Array, ""]:
        """Rows know nothing of each other: there is no such thing.

        Raises:
            TypeError: always.
        """
        del estimate, target, lengths
        raise TypeError("PermutationInvariant works on [batch, sources, time]; call it with that.")


def build_losses(
    spec: Mapping[str, Any] | ConfigDict, sample_rate_hz: float | int, field: str = "losses"
) -> WeightedSum:
    """A weighted sum from a config.

    Args:
        spec: `{name: {"target": "hybrid.losses:SiSdr", "weight": 1.0, "kwargs": {...}}}`; weight
            and kwargs may be left out. A mapping with a `target` among the kwargs, the inner loss
            of a `PermutationInvariant`, say, is built likewise. A ConfigDict will do.
        sample_rate_hz: given to every loss that has a field of that name, unless its kwargs do.
        field: what `spec` is called in errors.

    Raises:
        BuildError: naming the field, what it got and what would fit.
    """
    spec = spec.to_dict() if isinstance(spec, ConfigDict) else spec
    if not isinstance(spec, Mapping) or not spec:
        raise BuildError(
            f"{field} must name one loss or more, {{'si_sdr': {{'target': "
            f"'hybrid.losses:SiSdr'}}}} for example; got {spec!r}"
        )
    losses = []
    for name, entry in spec.items():
        loss = _built(entry, sample_rate_hz, f"{field}.{name}")
        weight = entry.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
            raise BuildError(f"{field}.{name}.weight must be a number, got {weight!r}")
        losses.append((name, weight, loss))
    try:
        return WeightedSum(tuple(losses))
    except ValueError as error:
        raise BuildError(f"{field}: {error}") from error


def _built(entry: Any, sample_rate_hz: float | int, field: str) -> Any:
    entry = entry.to_dict() if isinstance(entry, ConfigDict) else entry
    if not isinstance(entry, Mapping) or "target" not in entry:
        raise BuildError(
            f"{field} must have a target, {{'target': 'hybrid.losses:SiSdr'}} for example; got "
            f"{entry!r}"
        )
    for name in entry:
        if name not in _FIELDS:
            raise BuildError(unknown_name_message(f"{field}.{name}", name, list(_FIELDS)))
    target = resolve(entry["target"], f"{field}.target")
    check_callable(target, ("__call__",), "loss", f"{field}.target", entry["target"])
    known = list(inspect.signature(target).parameters)
    kwargs = {}
    for name, value in dict(entry.get("kwargs") or {}).items():
        where = f"{field}.kwargs.{name}"
        if name not in known:
            raise BuildError(unknown_name_message(f"{where} (of {entry['target']})", name, known))
        inner = isinstance(value, Mapping) and "target" in value
        kwargs[name] = _built(value, sample_rate_hz, where) if inner else value
    if "sample_rate_hz" in known:
        kwargs = {"sample_rate_hz": float(sample_rate_hz)} | kwargs
    try:
        loss = target(**kwargs)
        hash(loss)
    except (TypeError, ValueError) as error:
        raise BuildError(f"{field} ({entry['target']}) could not be built: {error}") from error
    return loss


def _of_rows(
    loss: Any, estimate: Rows, target: Rows, lengths: Lengths | None
) -> Float[Array, " rows"]:
    """The loss of each row; of somebody else's loss, one row at a time."""
    if hasattr(loss, "per_clip"):
        return loss.per_clip(estimate, target, lengths)
    if lengths is None:
        lengths = jnp.full(estimate.shape[:1], estimate.shape[-1], jnp.int32)
    alone = jax.vmap(lambda e, t, n: loss(e[None], t[None], n[None]))
    return zero_without_samples(alone(estimate, target, lengths), lengths)
