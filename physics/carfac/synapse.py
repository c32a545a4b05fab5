"""Exists to fire: the synapse of each fibre class between hair cell and auditory nerve."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physics.carfac.structures import SynapseCoefficients


class SynapseMemory(NamedTuple):
    """What one sample leaves to the next."""

    reservoir: Float[Array, "batch ears channels classes"]
    fibre_lpf: Float[Array, "batch ears channels classes"]


def step(
    synapse: SynapseCoefficients,
    memory: SynapseMemory,
    potential: Float[Array, "batch ears channels"],
) -> tuple[
    SynapseMemory,
    Float[Array, "batch ears channels"],
    Float[Array, "batch ears channels classes"],
]:
    """One sample.

    Args:
      synapse: coefficients, each with a leading axis of 1 for the batch.
      memory: from the sample before.
      potential: receptor potential, 0 at rest.

    Returns:
      Memory, neural activity (relative to the spontaneous activity of a healthy ear), and firings:
      action potentials of all fibres of a class in this sample.
    """
    opening = jax.nn.sigmoid((potential[..., None] - synapse.v_half) / synapse.v_width[..., None])
    release = (1 - memory.reservoir) * opening
    drive = synapse.output_gain[..., None] * release - memory.fibre_lpf
    fibre_lpf = memory.fibre_lpf + synapse.lpf_rate[..., None] * drive
    firings = synapse.n_fibers * fibre_lpf
    refill = synapse.feedback_gain[..., None] * release - memory.reservoir
    reservoir = memory.reservoir + synapse.reservoir_rate[..., None] * refill
    nap = jnp.sum(firings * synapse.agc_weights, axis=-1) - synapse.rest_output
    return SynapseMemory(reservoir, fibre_lpf), nap, firings
