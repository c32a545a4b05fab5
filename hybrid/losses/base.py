"""What all losses agree on: rows of a batch, and padding and empty rows that change nothing."""

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from physics.audio import check_floating
from physics.base import sample_mask

Signals = Float[Array, "..."]  # [batch, time] or [batch, sources, time]
Rows = Float[Array, "rows time"]
Lengths = Int[Array, " rows"]


@dataclasses.dataclass(frozen=True)
class Loss(abc.ABC):
    """Base of losses: subclass as a frozen dataclass and give `value`.

    A loss is hashable and holds no arrays. It is called with an estimate and a target, `[batch,
    time]` or `[batch, sources, time]` (ears come before time too, unlike those of front ends), and
    with `lengths [batch]`, the valid samples of padded clips: what lies beyond never changes a
    value or a gradient, and a clip of length 0 counts nothing. Lengths beyond the end of the array
    are taken for its end. Gradients are finite for silence, and for samples as large as 32768.
    """

    def __call__(
        self, estimate: Signals, target: Signals, lengths: Integer[Array, " batch"] | None = None
    ) -> Float[Array, ""]:
        """Returns the scalar to minimise.

        Raises:
            ValueError: arrays of other shapes or without a sample, audio that is not in float32 or
                float64, or lengths that are not integers.
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
        self, estimate: Signals, target: Signals, lengths: Integer[Array, " batch"] | None = None
    ) -> Float[Array, "..."]:
        """The loss of each clip (and source) as if it were alone; 0 for those of length 0."""
        rows = as_rows(estimate, target, lengths)
        return zero_without_samples(self.rows(*rows), rows[2]).reshape(estimate.shape[:-1])

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


def as_rows(estimate: Any, target: Any, lengths: Any) -> tuple[Rows, Rows, Lengths | None]:
    """Estimate and target as `[rows, time]`, 0 beyond lengths, and the length of each row.

    Raises:
        ValueError: as `Loss.__call__` does.
    """
    if estimate.shape != target.shape or estimate.ndim not in (2, 3):
        raise ValueError(
            "Estimate and target must have one shape, [batch, time] or [batch, sources, time]; got "
            f"{tuple(estimate.shape)} and {tuple(target.shape)}. A single clip is audio[None]."
        )
    for audio in (estimate, target):
        check_floating(audio)
        if jnp.finfo(audio.dtype).bits < 32:
            raise ValueError(
                f"Losses need audio of 32 bits or more, for they sum over it; got {audio.dtype}. "
                "Call them with audio.astype('float32')."
            )
    *axes, time = estimate.shape
    if not estimate.size:
        raise ValueError(
            f"There must be a clip and a sample at least; got shape {tuple(estimate.shape)}. Skip "
            "empty batches, and give a clip without a sample the length 0."
        )
    if len(axes) == 2 and axes[1] > time:
        raise ValueError(
            f"Audio must be [batch, sources, time]; got {tuple(estimate.shape)}, which has more "
            "sources than samples. Audio [batch, time, ears] is audio.swapaxes(1, 2)."
        )
    if lengths is None:
        return estimate.reshape(-1, time), target.reshape(-1, time), None
    lengths = as_lengths(lengths, axes[0], time)
    lengths = jnp.repeat(lengths, axes[1]) if len(axes) == 2 else lengths
    mask = sample_mask(time, lengths)
    estimate, target = (
        jnp.where(mask, x.reshape(-1, time), jnp.zeros((), x.dtype)) for x in (estimate, target)
    )
    return estimate, target, lengths


def as_lengths(lengths: Any, num_clips: int, time: int) -> Int[Array, " num_clips"]:
    """Lengths in int32, from 0 to `time`.

    Raises:
        ValueError: not one for each clip, or not integers.
    """
    lengths = jnp.asarray(lengths)
    if lengths.shape != (num_clips,):
        raise ValueError(
            f"There must be one length for each clip, [{num_clips}]; got {tuple(lengths.shape)}. "
            "Sources of a clip share its length."
        )
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"Lengths must be integers, for they count samples; got {lengths.dtype}. Give "
            "lengths.astype('int32')."
        )
    # Before the cast: what unsigned types hold may be too large for int32.
    most = min(time, int(jnp.iinfo(lengths.dtype).max))
    return jnp.clip(lengths, 0, most).astype(jnp.int32)


def zero_without_samples(
    values: Float[Array, " rows"], lengths: Lengths | None
) -> Float[Array, " rows"]:
    """The values, but 0 for rows of length 0."""
    if lengths is None:
        return values
    return jnp.where(lengths > 0, values, jnp.zeros_like(values))


def mean_of_rows(values: Float[Array, " rows"], lengths: Lengths | None) -> Float[Array, ""]:
    """The mean over rows that have a sample; 0 if none has."""
    if lengths is None:
        return jnp.mean(values)
    total = jnp.sum(zero_without_samples(values, lengths))
    return total / jnp.maximum(jnp.sum(lengths > 0), 1).astype(values.dtype)


def mean_of_samples(x: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
    """The mean over the valid samples of each row, of what is 0 beyond them; 0 if there is none."""
    if lengths is None:
        return jnp.mean(x, axis=-1)
    return jnp.sum(x, axis=-1) / jnp.maximum(lengths, 1).astype(x.dtype)


def absolute(x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """|x| with the gradient 0 at 0, as torch has it; of jnp.abs it is 1 there."""
    return x * jnp.sign(x)
