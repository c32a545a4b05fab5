"""Exists because recurrences are what costs: linear ones over time and channels, cheap to derive.

A recurrence is a chain of small operations, and its derivative by the chain rule a longer chain.
But the derivative of a linear recurrence is the same recurrence driven by something else, and all
that drives it can be worked out for every sample at once. The rules below say so to JAX.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Channels = Float[Array, "*axes channels"]


def recurrence(leak: Array, drive: Array, start: Float[Array, "*axes"]) -> tuple[Array, Array]:
    """s[t] = s[t-1] - leak[t] s[t-1] + drive[t] over the first axis.

    The leak, and not the factor 1 - leak, is given: in float32 slow decays keep their precision.

    Args:
      leak: what is lost in a sample, `[time, ...]`; axes of 1 broadcast against `start`.
      drive: what is added, likewise.
      start: s[-1].

    Returns:
      s before each sample, and after it, `[time, *axes]`.
    """
    one = drive.shape[0] == 1
    before = start[None] if one else _before(leak, drive, start)
    return before, before - leak * before + drive


@jax.custom_jvp
def _before(leak, drive, start):
    return _run(leak, drive, start)


def _run(leak, drive, start):
    def step(s, leak_and_drive):
        leak, drive = leak_and_drive
        return s - leak * s + drive, s

    return lax.scan(step, start, (leak, drive))[1]


@_before.defjvp
def _before_jvp(primals, tangents):
    leak, drive, start = primals
    leak_dot, drive_dot, start_dot = tangents
    before = _before(leak, drive, start)
    return before, _run(leak, drive_dot - leak_dot * before, start_dot)


def spread(coefficients: Any, coefficients_dot: Any, over: tuple[int, int]) -> tuple[Any, Any]:
    """Gives coefficients, and how they move, axes of time and batch, before rules work them out.

    In reverse the movement of a coefficient is summed over time and batch. XLA's reductions over
    leading axes are slow on CPUs, its products of matrices are not, hence the product with ones.

    Args:
      coefficients: tree of `[1, 1, ...]`.
      coefficients_dot: their tangents.
      over: sizes of the two axes.
    """

    def wide(a):
        return jnp.broadcast_to(a, (*over, *a.shape[2:]))

    leaves, structure = jax.tree.flatten(coefficients_dot)
    row = jnp.concatenate([leaf.reshape(1, -1) for leaf in leaves], axis=1)
    ones = jnp.ones((over[0] * over[1], 1), row.dtype)
    rows = jnp.dot(ones, row, precision=lax.Precision.HIGHEST)
    columns = lax.split(rows, [leaf.size for leaf in leaves], axis=1)
    leaves = [c.reshape(*over, *leaf.shape[2:]) for c, leaf in zip(columns, leaves, strict=True)]
    return jax.tree.map(wide, coefficients), structure.unflatten(leaves)


def ripple(gain: Channels, drive: Channels) -> Channels:
    """y[c] = gain[c] y[c-1] + drive[c] over the last axis: the path through all channels at once.

    A loop over channels: XLA makes one small kernel of it, which on a CPU beats the logarithmic
    number of wide operations of a parallel scan. Linear in `drive`, and derived for it only.
    """

    def step(y, gain_and_drive):
        gain, drive = gain_and_drive
        y = gain * y + drive
        return y, y

    first = jnp.moveaxis(gain, -1, 0), jnp.moveaxis(drive, -1, 0)
    return jnp.moveaxis(lax.scan(step, jnp.zeros_like(first[1][0]), first)[1], 0, -1)


def shift(y: Channels, by: int) -> Channels:
    """Moves toward the apex; zeros come in at the base."""
    zero = jnp.zeros((), y.dtype)
    return lax.pad(y, zero, [(0, 0, 0)] * (y.ndim - 1) + [(by, -by, 0)])
