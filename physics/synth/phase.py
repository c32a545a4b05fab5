"""Exists so that phase never drifts: turns are counted in integers, which wrap as turns do.

A float32 sum of frequencies is off by 3e-3 rad after a minute, and a hundred times that for the
hundredth partial. Here a turn has 2^32 parts. The parts of a hop are worked out from the frequency
in two pieces (whole Hz by an integer product, the rest in float32), the parts of hops are added as
integers, and the phase of partial k is k times that of the first: all modulo a turn, for nothing.
In float64 a plain sum is exact enough.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt32

Turns = Any  # uint32, in parts of 2^-32; or float64, in turns

_PARTS = 2**32
_LOW_BITS = 15  # of what is left of a part per Hz


def still(shape: tuple[int, ...], dtype: Any) -> Array:
    """Phase 0, of signals of this dtype."""
    return jnp.zeros(shape, jnp.float64 if dtype == jnp.float64 else jnp.uint32)


def gliding(
    from_hz: Float[Array, "batch frames"],
    to_hz: Float[Array, "batch frames"],
    start: Array,
    sample_rate_hz: float | int,
    hop_samples: int,
) -> tuple[Array, Float[Array, "batch frames hop"], Array]:
    """Phase of an oscillator that moves linearly from one frequency to another in each hop.

    The phase at a sample is the sum of the frequencies up to it, itself included.

    Args:
      from_hz: frequency at the first sample of each hop, at least 0.
      to_hz: frequency at the first sample after it.
      start: `[batch]`, phase before the first sample, as returned for the piece before.
      sample_rate_hz: of the audio, at most 262 kHz.
      hop_samples: samples in a hop.

    Returns:
      The phase `[batch, frames, hop]`, to be read by `radians`; the same in turns, as a plain sum
      that is there for its gradient; and the phase after the last sample.
    """
    step = np.arange(hop_samples)
    linear, curve = step + 1, step * (step + 1) / (2 * hop_samples)
    first, second = ((hop_samples + n) / (2 * sample_rate_hz) for n in (1, -1))
    glide = (to_hz - from_hz)[..., None] * _row(curve / sample_rate_hz, from_hz.dtype)
    hops = from_hz * first + to_hz * second
    turns = (jnp.cumsum(hops, axis=1) - hops)[..., None] + glide
    turns = turns + from_hz[..., None] * _row(linear / sample_rate_hz, from_hz.dtype)
    fixed = lax.stop_gradient((from_hz, to_hz, glide, hops))
    start = _as(start, from_hz.dtype)
    if from_hz.dtype == jnp.float64:
        phase = lax.stop_gradient(turns) + start[:, None, None]
        end = start + jnp.sum(fixed[3], axis=1)
        return phase, turns, end - jnp.floor(end)
    from_hz, to_hz, glide, _ = fixed
    hop_parts = parts(from_hz, first) + parts(to_hz, second)
    sums = lax.cumsum(hop_parts, axis=1)
    begun = start[:, None] + sums - hop_parts
    within = parts(from_hz, 1 / sample_rate_hz)[..., None] * _row(linear, jnp.uint32)
    bend = (glide - jnp.round(glide)) * (_PARTS / 2)
    bend = lax.bitcast_convert_type(bend.astype(jnp.int32) * 2, jnp.uint32)
    end = begun[:, -1] + hop_parts[:, -1] if hop_parts.shape[1] else start
    return begun[..., None] + within + bend, turns, end


def parts(hz: Float[Array, "*axes"], per_hz: float) -> UInt32[Array, "*axes"]:
    """Hz * per_hz turns in parts of 2^-32, modulo a turn, exact to about a part.

    Args:
      hz: float32, at least 0 and below 2^17.
      per_hz: turns for each Hz, at least 0 and below 1.
    """
    scaled = per_hz * _PARTS
    high = math.floor(scaled)
    low = round((scaled - high) * 2**_LOW_BITS)
    whole = jnp.floor(hz)
    n = whole.astype(jnp.uint32)
    rest = jnp.round((hz - whole) * scaled).astype(jnp.uint32)
    carried = (n * jnp.uint32(low) + jnp.uint32(2 ** (_LOW_BITS - 1))) >> _LOW_BITS
    return n * jnp.uint32(high) + carried + rest


def radians(angle: Array, k: Float[Array, "*broadcast"]) -> Float[Array, "*axes"]:
    """A phase times k in radians, from -pi to pi, exactly; k is a whole number, at least 0."""
    if angle.dtype == jnp.uint32:
        signed = lax.bitcast_convert_type(angle * k.astype(jnp.uint32), jnp.int32)
        return signed.astype(k.dtype) * (2 * math.pi / _PARTS)
    turns = angle * k.astype(angle.dtype)
    return (turns - jnp.round(turns)).astype(k.dtype) * (2 * math.pi)


def near_half_turns(angle: Array) -> tuple[Array, Float[Array, "*axes"]]:
    """A phase less 0 or half a turn, within a quarter of 0, and the sign of its cosine."""
    if angle.dtype == jnp.uint32:
        far = (angle + jnp.uint32(_PARTS // 4)) >> 31
        return angle - (far << 31), 1 - 2 * far.astype(jnp.float32)
    turns = angle - jnp.round(angle)
    far = jnp.abs(turns) > 0.25
    return jnp.where(far, turns - 0.5 * jnp.sign(turns), turns), jnp.where(far, -1.0, 1.0)


def _as(phase: Array, dtype: Any) -> Array:
    """A phase in the form that signals of this dtype need."""
    if dtype == jnp.float64:
        return phase if phase.dtype == jnp.float64 else phase.astype(jnp.float64) / _PARTS
    if phase.dtype == jnp.uint32:
        return phase
    return ((phase - jnp.floor(phase)) * (_PARTS - 1)).astype(jnp.uint32)


def _row(values: np.ndarray, dtype: Any, axes: int = 2) -> jax.Array:
    return jnp.asarray(values, dtype).reshape((1,) * axes + (-1,))
