"""Exists to say where a run begins: as google/carfac does, or in the equilibrium of silence."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from physics.carfac import agc
from physics.carfac.structures import Coefficients, State, Structure


def initial_state(
    coefficients: Coefficients, structure: Structure, batch: int, settled: bool
) -> State:
    """The state before the first sample; differentiable in the coefficients.

    Args:
      coefficients: of the model.
      structure: of the model.
      batch: number of clips.
      settled: take the gains that the gain control would come to rest at; else those of healthy
        hair cells, whatever `ohc_health` is, as google/carfac does. Without gain control nothing
        would ever correct them, so there it is always settled.
    """
    car, ihc, synapse = coefficients.car, coefficients.ihc, coefficients.synapse
    ears, channels = car.sin.shape
    shape = (batch, ears, channels)
    zero = jnp.zeros(shape, car.sin.dtype)
    stages = jnp.zeros((batch, structure.n_stages, ears, channels), zero.dtype)

    def wide(value: Any) -> Any:
        return None if value is None else jnp.broadcast_to(value[None], (batch, *value.shape))

    undamping, gain = wide(car.undamping_range), wide(car.gain_healthy)
    if settled or not structure.n_stages:
        undamping, gain = agc.targets(car, zero)
    lpf2 = ihc.rest_output if structure.ihc == "one_cap" else None
    return State(
        z1=zero,
        z2=zero,
        z2_before=zero,
        undamping=undamping,
        undamping_step=zero,
        gain=gain,
        gain_step=zero,
        ac=zero,
        agc_memory=stages,
        agc_sum=stages,
        phase=jnp.zeros((), jnp.int32),
        stage_out=zero if structure.use_delay_buffer else None,
        cap1=wide(ihc.rest_cap1),
        cap2=wide(ihc.rest_cap2),
        lpf1=wide(ihc.rest_output),
        lpf2=wide(lpf2),
        reservoir=None if synapse is None else wide(synapse.rest_reservoir),
        fibre_lpf=None if synapse is None else wide(synapse.rest_probability),
    )
