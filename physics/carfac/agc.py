"""Exists to adapt: the gain control that smooths activity over time, channels and ears."""

from __future__ import annotations

import jax.numpy as jnp
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
    complete: Bool[Array, ""] | bool,
) -> tuple[Stages, Stages]:
    """After a block: sums up its activity, and lets the stages whose turn it is take it in.

    Every stage is worked out and those that wait are thrown away: at one update in
    `decimations[0]` samples that is cheaper than to branch.

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
    totals, inputs, due = [], [], []
    incoming, turn, period = agc.detect_scale[None, :, None] * heard, jnp.asarray(True), 1
    for stage, decimation in enumerate(structure.decimations):
        # A stage hears the next faster one only at that one's updates.
        total = jnp.where(turn, sums[:, stage] + incoming, sums[:, stage])
        period *= decimation
        turn = jnp.logical_and(complete, phase % period == 0)
        incoming = total / decimation
        totals.append(total)
        inputs.append(incoming)
        due.append(turn)
    stages: list[Field] = []
    slower = None
    for stage in reversed(range(structure.n_stages)):
        target = inputs[stage]
        if slower is not None:
            target = target + agc.stage_gain[None, :, None] * slower
        old = memory[:, stage]
        new = old + agc.epsilon[stage][None, :, None] * (target - old)
        weights = tuple(
            w[stage][None, :, None] for w in (agc.fir_low, agc.fir_middle, agc.fir_high)
        )
        new = smooth(new, weights, structure.fir_taps[stage], structure.fir_iterations[stage])
        slower = jnp.where(due[stage], new, old)
        stages.insert(0, slower)
    if structure.n_ears > 1:
        for stage in range(1, structure.n_stages):
            toward = jnp.mean(stages[stage], axis=1, keepdims=True) - stages[stage]
            mixed = stages[stage] + agc.mix[stage][None, :, None] * toward
            stages[stage] = jnp.where(due[stage], mixed, stages[stage])
    totals = [
        jnp.where(turn, jnp.zeros_like(total), total)
        for turn, total in zip(due, totals, strict=True)
    ]
    return jnp.stack(stages, axis=1), jnp.stack(totals, axis=1)


def targets(car: CarCoefficients, level: Field) -> tuple[Field, Field]:
    """Undamping and stage gain that the fastest stage's memory `level` asks for."""
    relative = (1 - level) * car.ohc_health
    gain = (car.gain_quadratic * relative + car.gain_linear) * relative + car.gain_constant
    return car.undamping_range * relative, gain
