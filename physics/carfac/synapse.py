"""Exists to fire: the synapse of each fibre class between hair cell and auditory nerve."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physics.carfac.linear import recurrence
from physics.carfac.structures import SynapseCoefficients

Block = Float[Array, "time batch ears channels"]


class SynapseMemory(NamedTuple):
    """What one block leaves to the next, `[batch, ears, channels, classes]`."""

    reservoir: Array
    fibre_lpf: Array


def block(
    synapse: SynapseCoefficients, memory: SynapseMemory, potential: Block, keep: Array
) -> tuple[SynapseMemory, Block, Float[Array, "time batch ears channels classes"]]:
    """A few samples.

    Args:
      synapse: coefficients, each with leading axes of 1 for time and batch.
      memory: from the block before.
      potential: receptor potential, 0 at rest.
      keep: 1 for samples of the piece, 0 for those that must leave no trace; `[time, 1, 1, 1]`.

    Returns:
      Memory, neural activity (relative to the spontaneous activity of a healthy ear), and firings:
      action potentials of all fibres of a class in each sample.
    """
    opening = jax.nn.sigmoid((potential[..., None] - synapse.v_half) / synapse.v_width[..., None])
    rate = (keep * synapse.reservoir_rate)[..., None]
    fed_back = synapse.feedback_gain[..., None] * opening
    empty, refilled = recurrence(rate * (1 + fed_back), rate * fed_back, memory.reservoir)
    release = (1 - empty) * opening
    lpf_rate = (keep * synapse.lpf_rate)[..., None]
    drive = lpf_rate * (synapse.output_gain[..., None] * release)
    _, probability = recurrence(lpf_rate, drive, memory.fibre_lpf)
    firings = synapse.n_fibers * probability
    nap = jnp.sum(firings * synapse.agc_weights, axis=-1) - synapse.rest_output
    return SynapseMemory(refilled[-1], probability[-1]), nap, firings
