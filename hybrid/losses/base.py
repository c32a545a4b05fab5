"""What all losses agree on: rows of a batch, and padding and empty rows that change nothing."""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from physics.audio import check_floating
from physics.base import sample_mask

Signals = Float[Array, "..."]  # [batch, time] or [batch, sources, time]
Rows = Float[Array, "rows time"]
Lengths = Int[Array, " rows"]


@dataclasses.dataclass(frozen=True)
class Loss(abc.ABC):
    """Base of losses: subclass as a frozen dataclass and give `value`.

    A loss is hashable and holds no arrays. It is called with an estimate and a target, `[batch,
    time]` or `[batch, sources, time]`, and with `lengths [batch]`, the valid samples of padded
    clips: what lies beyond never changes a value or a gradient, and a clip of length 0 counts
    nothing. Gradients are finite for every finite input, silence among them.
    """

    def __call__(
        self, estimate: Signals, target: Signals, lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, ""]:
        """Returns the scalar to minimise.

        Raises:
            ValueError: arrays of other shapes, or that are not in floating point.
        """
        return self.value(*as_rows(estimate, target, lengths))

    @abc.abstractmethod
    def value(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, ""]:
        """The loss of rows that are 0 beyond their lengths.

        Args:
            estimate: `[rows, time]`; each source of a clip is a row.
            target: likewise.
            lengths: from 0 to time; None where every row is as long as the array.
        """

    def per_clip(
        self, estimate: Signals, target: Signals, lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "..."]:
        """The loss of each clip (and source) as if it were alone; 0 for those of length 0."""
        rows = as_rows(estimate, target, lengths)
        return self.rows(*rows).reshape(estimate.shape[:-1])

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """The loss of each row as if it were alone."""
        if lengths is None:
            return jax.vmap(lambda e, t: self.value(e[None], t[None], None))(estimate, target)
        return jax.vmap(lambda e, t, n: self.value(e[None], t[None], n[None]))(
            estimate, target, lengths
        )


@dataclasses.dataclass(frozen=True)
class RowLoss(Loss):
    """Base of losses that are means over rows: give `rows`, finite for a row of zeros too."""

    @abc.abstractmethod
    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """The loss of each row; what it is for a row of length 0 does not matter."""

    def value(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, ""]:
        """The mean over the rows that count."""
        return mean_of_rows(self.rows(estimate, target, lengths), lengths)

    def per_clip(
        self, estimate: Signals, target: Signals, lengths: Int[Array, " batch"] | None = None
    ) -> Float[Array, "..."]:
        """The loss of each clip (and source); 0 for those of length 0."""
        rows = as_rows(estimate, target, lengths)
        values = self.rows(*rows)
        if rows[2] is not None:
            values = jnp.where(rows[2] > 0, values, jnp.zeros_like(values))
        return values.reshape(estimate.shape[:-1])


def as_rows(estimate: Any, target: Any, lengths: Any) -> tuple[Rows, Rows, Lengths | None]:
    """Estimate and target as `[rows, time]`, 0 beyond lengths, and the length of each row.

    Raises:
        ValueError: arrays of other shapes, or that are not in floating point.
    """
    if estimate.shape != target.shape or estimate.ndim not in (2, 3):
        raise ValueError(
            "Estimate and target must have one shape, [batch, time] or [batch, sources, time]; got "
            f"{tuple(estimate.shape)} and {tuple(target.shape)}. A single clip is audio[None]."
        )
    check_floating(estimate)
    check_floating(target)
    *axes, time = estimate.shape
    if lengths is None:
        return estimate.reshape(-1, time), target.reshape(-1, time), None
    if lengths.shape != (axes[0],):
        raise ValueError(
            f"There must be one length for each clip, [{axes[0]}]; got {tuple(lengths.shape)}. "
            "Sources of a clip share its length."
        )
    lengths = jnp.clip(lengths, 0, time)
    lengths = jnp.repeat(lengths, axes[1]) if len(axes) == 2 else lengths
    mask = sample_mask(time, lengths)
    estimate, target = (
        jnp.where(mask, x.reshape(-1, time), jnp.zeros((), x.dtype)) for x in (estimate, target)
    )
    return estimate, target, lengths


def mean_of_rows(values: Float[Array, " rows"], lengths: Lengths | None) -> Float[Array, ""]:
    """The mean over rows that have a sample; 0 if none has."""
    if lengths is None:
        return jnp.mean(values)
    counting = lengths > 0
    total = jnp.sum(jnp.where(counting, values, jnp.zeros_like(values)))
    return total / jnp.maximum(jnp.sum(counting), 1).astype(values.dtype)


def mean_of_samples(x: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
    """The mean over the valid samples of each row, of what is 0 beyond them; 0 if there is none."""
    if lengths is None:
        return jnp.mean(x, axis=-1)
    return jnp.sum(x, axis=-1) / jnp.maximum(lengths, 1).astype(x.dtype)


def absolute(x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """|x| with the gradient 0 at 0, as torch has it; of jnp.abs it is 1 there."""
    return x * jnp.sign(x)
