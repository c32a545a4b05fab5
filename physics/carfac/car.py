"""Exists to move the basilar membrane: the cascade of resonators and its outer hair cells."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physics.carfac.structures import CarCoefficients, Structure

Field = Float[Array, "batch ears channels"]


class CarMemory(NamedTuple):
    """What one sample of the cascade leaves to the next; see `structures.State`."""

    z1: Field
    z2: Field
    z2_before: Field
    stage_out: Field | None


def ripple(gain: Field, push: Field, x: Float[Array, "batch ears"]) -> Field:
    """The one path that runs through all channels in one sample: y[c] = gain[c] (y[c-1] + push[c]).

    Kogge-Stone doubling: a wide operation for each power of two below the number of channels,
    instead of a narrow one for each channel.

    Args:
      gain: of each stage.
      push: what each stage adds to its input.
      x: y[-1], the input of the first stage.

    Returns:
      y.
    """
    y = gain * jnp.concatenate([push[..., :1] + x[..., None], push[..., 1:]], axis=-1)
    product, reach, n_channels = gain, 1, gain.shape[-1]
    while reach < n_channels:
        y = y + product * _shift(y, reach)
        if 2 * reach < n_channels:
            product = product * _shift(product, reach)
        reach *= 2
    return y


def _shift(value: Field, by: int) -> Field:
    """Moves toward the apex, zeros coming in at the base."""
    zero = jnp.zeros((), value.dtype)
    return jax.lax.pad(value, zero, [(0, 0, 0), (0, 0, 0), (by, -by, 0)])


def step(
    car: CarCoefficients,
    structure: Structure,
    memory: CarMemory,
    x: Float[Array, "batch ears"],
    undamping: Field,
    gain: Field,
) -> tuple[CarMemory, Field]:
    """One sample of the cascade.

    Args:
      car: coefficients, each with a leading axis of 1 for the batch.
      structure: of the model.
      memory: from the sample before.
      x: audio.
      undamping: what the AGC allows the outer hair cells at this sample.
      gain: of each stage at this sample.

    Returns:
      The memory, and the output of each stage.
    """
    if structure.linear_car:
        damping = car.damping - undamping
    else:
        v = (memory.z2 - memory.z2_before) * car.velocity_scale + car.velocity_offset
        damping = car.damping - undamping / (1 + v * v)
    turned1 = memory.z1 - (car.one_minus_cos * memory.z1 + car.sin * memory.z2)
    turned2 = memory.z2 - (car.one_minus_cos * memory.z2 - car.sin * memory.z1)
    z1, z2 = turned1 - damping * turned1, turned2 - damping * turned2
    if structure.use_delay_buffer:
        assert memory.stage_out is not None
        inputs = jnp.concatenate([x[..., None], memory.stage_out[..., :-1]], axis=-1)
        y = gain * (inputs + car.zero * z2)
        stage_out = y
    else:
        y = ripple(gain, car.zero * z2, x)
        inputs = jnp.concatenate([x[..., None], y[..., :-1]], axis=-1)
        stage_out = None
    return CarMemory(z1 + inputs, z2, memory.z2, stage_out), y
