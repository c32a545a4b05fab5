"""Exists to move the basilar membrane: the cascade of resonators and its outer hair cells.

Resonators, seen sample by sample, are a recurrence whose derivative is linear and whose
coefficients along a known path can be worked out for all samples at once; `_block_jvp` does so,
which makes gradients several times faster than those of the scan itself.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from physics.carfac import linear
from physics.carfac.structures import CarCoefficients, Structure

Field = Float[Array, "batch ears channels"]
Block = Float[Array, "time batch ears channels"]


class Resonators(NamedTuple):
    """The coefficients that matter from sample to sample; see `structures.CarCoefficients`."""

    one_minus_cos: Array
    sin: Array
    damping: Array
    zero: Array
    velocity_scale: Array
    velocity_offset: Array

    @classmethod
    def of(cls, car: CarCoefficients) -> Resonators:
        """Those of all of a cascade's coefficients, with axes of 1 for time and batch."""
        return cls(*(getattr(car, name)[None, None] for name in cls._fields))


class CarMemory(NamedTuple):
    """What one sample of the cascade leaves to the next; see `structures.State`.

    `[batch, ears, channels]` each; `stage_out` is None without a delay buffer.
    """

    z1: Array
    z2: Array
    z2_before: Array
    stage_out: Array | None


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def block(
    structure: Structure,
    car: Resonators,
    memory: CarMemory,
    x: Block,
    undamping: Block,
    gain: Block,
    valid: Bool[Array, " time"] | None,
) -> tuple[Block, CarMemory, CarMemory]:
    """The cascade over a few samples.

    Args:
      structure: of the model.
      car: coefficients, each with leading axes of 1 for time and batch.
      memory: from the sample before.
      x: audio for the first channel, zeros for the others.
      undamping: what the AGC allows the outer hair cells, for each sample.
      gain: of each stage, for each sample.
      valid: samples that are part of the piece (the others leave the memory as it is), or None
        if all are.

    Returns:
      The output of each stage, the memory before each sample (a leading axis of time), and the
      memory after the last.
    """
    flat = jax.tree.map(lambda a: a[0], car)

    def step(memory, now):
        x, undamping, gain, keep = now
        z1, z2 = _turn(flat, structure, undamping, memory)
        y = _route(memory.stage_out, gain * (flat.zero * z2 + x), gain)
        new = _pass_on(memory, z1 + x, z2, y)
        return _hold(keep, new, memory), (y, memory)

    xs = (x, undamping, gain, valid)
    after, (y, before) = lax.scan(step, memory, xs)
    return y, before, after


@block.defjvp
def _block_jvp(structure, primals, tangents):
    car, memory, x, undamping, gain, valid = primals
    car_dot, memory_dot, x_dot, undamping_dot, gain_dot, _ = tangents
    y, before, after = block(structure, car, memory, x, undamping, gain, valid)
    car, car_dot = linear.spread(car, car_dot, x.shape[:2])

    def turn(car, undamping, before):
        return _turn(car, structure, undamping, before)

    # How the next (z1, z2) answers to each memory on its own, and to all that is not memory.
    ones, zeros = jnp.ones_like(before.z1), jnp.zeros_like(before.z1)
    rest = None if before.stage_out is None else zeros
    moves = [(ones, zeros, zeros), (zeros, ones, zeros), (zeros, zeros, ones)]
    answers = [
        jax.jvp(functools.partial(turn, car, undamping), (before,), (CarMemory(*move, rest),))[1]
        for move in moves
    ]
    (_, z2), (z1_push, z2_push) = jax.jvp(
        lambda car, undamping: turn(car, undamping, before),
        (car, undamping),
        (car_dot, undamping_dot),
    )
    heard = x + linear.shift(y if before.stage_out is None else before.stage_out, 1)
    y_push = gain_dot * (car.zero * z2 + heard) + gain * (car_dot.zero * z2 + x_dot)

    def step(dot, now):
        answers, z1_push, z2_push, y_push, gain, climb, keep = now
        z1, z2 = z1_push, z2_push
        for (a1, a2), memory in zip(answers, (dot.z1, dot.z2, dot.z2_before), strict=True):
            z1, z2 = z1 + a1 * memory, z2 + a2 * memory
        y = _route(dot.stage_out, climb * z2 + y_push, gain)
        return _hold(keep, _pass_on(dot, z1, z2, y), dot), (y, dot)

    xs = (answers, z1_push + x_dot, z2_push, y_push, gain, gain * car.zero, valid)
    after_dot, (y_dot, before_dot) = lax.scan(step, memory_dot, xs)
    return (y, before, after), (y_dot, before_dot, after_dot)


def _turn(car: Resonators, structure: Structure, undamping: Array, memory: CarMemory):
    """Rotates and damps each resonator: z1 and z2 before anything comes in."""
    damping = car.damping - undamping
    if not structure.linear_car:
        v = (memory.z2 - memory.z2_before) * car.velocity_scale + car.velocity_offset
        damping = car.damping - undamping / (1 + v * v)
    turned1 = memory.z1 - (car.one_minus_cos * memory.z1 + car.sin * memory.z2)
    turned2 = memory.z2 - (car.one_minus_cos * memory.z2 - car.sin * memory.z1)
    return turned1 - damping * turned1, turned2 - damping * turned2


def _route(stage_out, drive, gain):
    """Outputs of all stages, `drive` being what each would give if the one before were silent."""
    if stage_out is None:
        return linear.ripple(gain, drive)
    return drive + gain * linear.shift(stage_out, 1)


def _pass_on(memory: CarMemory, z1, z2, y) -> CarMemory:
    """Gives each stage the output of the one before it."""
    if memory.stage_out is None:
        return CarMemory(z1 + linear.shift(y, 1), z2, memory.z2, None)
    return CarMemory(z1 + linear.shift(memory.stage_out, 1), z2, memory.z2, y)


def _hold(keep, new, old):
    if keep is None:
        return new
    return jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, old)
