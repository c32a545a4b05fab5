"""Exists to detect motion: inner hair cells from BM displacement to neural activity."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from physics.carfac.design import conductance
from physics.carfac.linear import recurrence

Block = Float[Array, "time batch ears channels"]


class IhcMemory(NamedTuple):
    """What one block leaves to the next, `[batch, ears, channels]`; None where there is no such."""

    cap1: Any
    cap2: Any
    lpf1: Any
    lpf2: Any


def block(
    ihc: Any, style: str, memory: IhcMemory, bm: Block, keep: Array
) -> tuple[IhcMemory, Block, Block]:
    """A few samples. The motion being known, every capacitor is a linear recurrence.

    Args:
      ihc: `IhcCoefficients`, each with leading axes of 1 for time and batch; which of them are
        there, and not None, depends on the style.
      style: one of `structures.IHC_STYLES`.
      memory: from the block before.
      bm: displacement, high-passed.
      keep: 1 for samples of the piece, 0 for those that must leave no trace; `[time, 1, 1, 1]`.

    Returns:
      Memory, neural activity, and receptor potential (0 at rest; 0 for the styles without one).
    """
    if style == "just_hwr":
        return memory, jnp.clip(bm, 0, 2), jnp.zeros_like(bm)
    open_channels = conductance(bm)
    cap1_before, cap1 = recurrence(
        keep * (ihc.in1_rate + ihc.out1_rate * open_channels), keep * ihc.in1_rate, memory.cap1
    )
    if style == "one_cap":
        release = open_channels * cap1_before
        _, lpf1 = _smooth(ihc, release * ihc.output_gain, memory.lpf1, keep)
        _, lpf2 = _smooth(ihc, lpf1, memory.lpf2, keep)
        memory = IhcMemory(cap1[-1], None, lpf1[-1], lpf2[-1])
        return memory, lpf2 - ihc.rest_output, jnp.zeros_like(bm)
    potential = 1 - cap1
    cap2_before, cap2 = recurrence(
        keep * (ihc.in2_rate + ihc.out2_rate * potential), keep * ihc.in2_rate, memory.cap2
    )
    _, lpf1 = _smooth(ihc, potential * cap2_before * ihc.output_gain, memory.lpf1, keep)
    memory = IhcMemory(cap1[-1], cap2[-1], lpf1[-1], None)
    return memory, lpf1 - ihc.rest_output, ihc.rest_cap1 - cap1


def _smooth(ihc: Any, signal: Block, start: Array, keep: Array) -> tuple[Block, Block]:
    rate = keep * ihc.lpf_rate
    return recurrence(rate, rate * signal, start)
