"""Exists to place the poles along the ERB scale, to 1e-6 in float32 as well.

A pole at 30 Hz moves by 34 times what `erb_q` moves by, so that a map worked out from rounded
physical values is off by parts in a million. The initial map is therefore a constant, of float64,
and what is differentiable and rounded is only how far the parameters have moved it.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics.carfac.structures import Structure

NAMES = ("first_pole_theta", "erb_per_step", "erb_break_hz", "erb_q")
"""The parameters of the map, in the group `car`."""

# A pole never falls below this part of the lowest one of the initial map: the number of channels
# is fixed, so a map that learns to step faster would otherwise run through 0 Hz. It never acts
# initially.
_POLE_FLOOR = 0.5


def pole_frequencies_hz(
    moved: dict[str, Any], initial: dict[str, Any], structure: Structure, min_pole_hz: float
) -> Float[Array, "ears channels"]:
    """Pole frequencies, falling from base to apex; the closed form of stepping along the ERB scale.

    f[k+1] = f[k] - erb_per_step * (erb_break_hz + f[k]) / erb_q, a geometric series in f + break.

    Args:
      moved: of `NAMES`, how far each lies from its initial value, as from `bounds.moved`; scalars
        or `[ears, 1]`.
      initial: of `NAMES`, the initial physical values; float64, likewise.
      structure: of the model.
      min_pole_hz: lowest pole of the initial map.
    """
    dtype = moved["erb_q"].dtype
    hz = structure.sample_rate_hz / (2 * math.pi)
    steps = np.arange(structure.n_channels)[None, :]
    theta, step, break_hz, q = (np.asarray(initial[name], np.float64) for name in NAMES)
    part = step / q
    decay = np.exp(steps * np.log1p(-part))  # of f + break, from the base on
    shifted = (theta * hz + break_hz) * decay

    def constant(value):
        return jnp.asarray(value, dtype)

    # By how much more f + break has grown at each step, in logarithms; then at each channel.
    wider = jnp.expm1(moved["erb_per_step"] - moved["erb_q"])
    growth = jnp.log1p(-constant(part / (1 - part)) * wider)
    grown = jnp.expm1(constant(steps) * growth)
    first_hz = moved["first_pole_theta"] * constant(hz)
    more_break_hz = jnp.expm1(moved["erb_break_hz"]) * constant(break_hz)
    left = constant(decay) * (1 + grown)
    poles = constant(shifted - break_hz) + (
        constant(shifted) * grown + left * first_hz + (left - 1) * more_break_hz
    )
    poles = jnp.maximum(poles, _POLE_FLOOR * min_pole_hz)
    return jnp.broadcast_to(poles, (structure.n_ears, structure.n_channels))
