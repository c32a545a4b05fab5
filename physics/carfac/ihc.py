"""Exists to detect motion: inner hair cells from BM displacement to neural activity."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from physics.carfac.design import conductance
from physics.carfac.structures import IhcCoefficients

Field = Float[Array, "batch ears channels"]


class IhcMemory(NamedTuple):
    """What one sample leaves to the next; None where the style has no such memory."""

    cap1: Field | None
    cap2: Field | None
    lpf1: Field | None
    lpf2: Field | None


def step(
    ihc: IhcCoefficients, style: str, memory: IhcMemory, bm: Field
) -> tuple[IhcMemory, Field, Field]:
    """One sample.

    Args:
      ihc: coefficients, each with a leading axis of 1 for the batch.
      style: one of `structures.IHC_STYLES`.
      memory: from the sample before.
      bm: displacement, high-passed.

    Returns:
      Memory, neural activity, and receptor potential (0 at rest; 0 for the styles without one).
    """
    if style == "just_hwr":
        return memory, jnp.clip(bm, 0, 2), jnp.zeros_like(bm)
    current = conductance(bm) * memory.cap1
    cap1 = memory.cap1 - current * ihc.out1_rate + (1 - memory.cap1) * ihc.in1_rate
    if style == "one_cap":
        lpf1 = memory.lpf1 + ihc.lpf_rate * (current * ihc.output_gain - memory.lpf1)
        lpf2 = memory.lpf2 + ihc.lpf_rate * (lpf1 - memory.lpf2)
        nap = lpf2 - ihc.rest_output
        return IhcMemory(cap1, None, lpf1, lpf2), nap, jnp.zeros_like(bm)
    release = (1 - cap1) * memory.cap2
    cap2 = memory.cap2 - release * ihc.out2_rate + (1 - memory.cap2) * ihc.in2_rate
    lpf1 = memory.lpf1 + ihc.lpf_rate * (release * ihc.output_gain - memory.lpf1)
    nap = lpf1 - ihc.rest_output
    return IhcMemory(cap1, cap2, lpf1, None), nap, ihc.rest_cap1 - cap1
