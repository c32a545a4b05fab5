"""Exists to adapt: the gain control that smooths activity over time, channels and ears."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from physics.carfac.structures import AgcCoefficients, CarCoefficients, Structure

Field = Float[Array, "batch ears channels"]
Stages = Float[Array, "batch stages ears channels"]


def smooth(
    memory: Field,
    weights: tuple[Float[Array, "1 ears 1"], Float[Array, "1 ears 1"], Float[Array, "1 ears 1"]],
    taps: int,
    iterations: int,
) -> Field:
    """Spreads a stage over channels, 3 or 5 taps, so many times; ends as in google/carfac."""
    low, middle, high = weights
    for _ in range(iterations):
        below = jnp.concatenate([memory[..., :1], memory[..., :-1]], axis=-1)
        above = jnp.concatenate([memory[..., 1:], memory[..., -1:]], axis=-1)
        if taps == 5:
            below = below + jnp.concatenate([memory[..., :2], memory[..., :-2]], axis=-1)
            above = above + jnp.concatenate(
                [memory[..., 2:], memory[..., -1:], memory[..., -2:-1]], axis=-1
            )
        memory = low * below + middle * memory + high * above
    return memory


def update(
    agc: AgcCoefficients,
    structure: Structure,
    memory: Stages,
    sums: Stages,
    heard: Field,
    phase: Int[Array, ""],
    complete: Bool[Array, ""],
) -> tuple[Stages, Stages]:
    """After a block: sums up its activity, and lets the stages whose turn it is take it in.

    Args:
      agc: coefficients.
      structure: of the model.
      memory: of each stage.
      sums: a stage's input since its last update.
      heard: neural activity summed over the samples of this block.
      phase: samples so far, this block included.
      complete: has the fastest stage heard all of its samples?

    Returns:
      The new memory and sums.
    """
    sums = sums.at[:, 0].add(agc.detect_scale[None, :, None] * heard)
    memory, sums = lax.cond(
        complete,
        lambda memory, sums: _take_in(agc, structure, memory, sums, phase, 0),
        lambda memory, sums: (memory, sums),
        memory,
        sums,
    )
    return (
        _couple(agc, structure, memory, phase, complete) if structure.n_ears > 1 else memory
    ), sums


def _couple(agc, structure, memory, phase, complete):
    """Draws the ears together in the stages that have updated; the fastest is never coupled."""
    periods = np.cumprod(structure.decimations)
    due = complete & (phase % jnp.asarray(periods, jnp.int32) == 0)[None, :, None, None]
    toward = jnp.mean(memory, axis=2, keepdims=True) - memory
    return jnp.where(due, memory + agc.mix[None, :, :, None] * toward, memory)


def _take_in(agc, structure, memory, sums, phase, stage):
    """Updates a stage whose turn it is, after the next slower one if that one's turn it is, too."""
    decimation = structure.decimations[stage]
    target = sums[:, stage] / decimation
    sums = sums.at[:, stage].set(0)
    if stage + 1 < structure.n_stages:
        sums = sums.at[:, stage + 1].add(target)
        memory, sums = lax.cond(
            phase % math.prod(structure.decimations[: stage + 2]) == 0,
            lambda memory, sums: _take_in(agc, structure, memory, sums, phase, stage + 1),
            lambda memory, sums: (memory, sums),
            memory,
            sums,
        )
        target = target + agc.stage_gain[None, :, None] * memory[:, stage + 1]
    new = memory[:, stage]
    new = new + agc.epsilon[stage][None, :, None] * (target - new)
    weights = tuple(w[stage][None, :, None] for w in (agc.fir_low, agc.fir_middle, agc.fir_high))
    new = smooth(new, weights, structure.fir_taps[stage], structure.fir_iterations[stage])
    return memory.at[:, stage].set(new), sums


def targets(car: CarCoefficients, level: Field) -> tuple[Field, Field]:
    """Undamping and stage gain that the fastest stage's memory `level` asks for."""
    relative = (1 - level) * car.ohc_health[None]
    slope = car.gain_quadratic[None] * relative + car.gain_linear[None]
    return car.undamping_range[None] * relative, slope * relative + car.gain_constant[None]
