"""Exists to run CAR-FAC on any XLA device, and with any of JAX's transformations.

A scan over blocks, the time between two updates of the gain control; within it loops over samples.
Blocks are checkpointed: a gradient keeps the state once per block and recomputes the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from physics.carfac import agc, car, detect
from physics.carfac.structures import Coefficients, State, Structure

# States that a gradient may keep before it trades a sixth more time for much less memory.
_KEPT_BYTES = 2**28
# Blocks over which a gradient may be summed one after the other: in float32 the sum of a hundred
# seconds loses the third digit. Groups are summed first, then their sums.
_SUMMED_BLOCKS = 2**13


def run(
    coefficients: Coefficients,
    structure: Structure,
    state: State,
    audio: Float[Array, "batch time ears"],
    outputs: tuple[str, ...],
    aligned: bool = False,
) -> tuple[dict[str, Array], State]:
    """Runs the model over a piece of audio.

    Args:
      coefficients: from `design`.
      structure: what is discrete.
      state: before the piece.
      audio: in the dtype of the coefficients, at least one sample.
      outputs: which of `structures.OUTPUTS` to give; what is not asked for is not stored.
      aligned: the caller knows that `state.phase` is a multiple of `structure.block_samples`
        (a fresh state, say); saves some masking.

    Returns:
      `[batch, time, ears, channels]` for each output (firings `[..., classes]`), and the state
      after the piece.
    """
    batch, n_samples, n_ears = audio.shape
    size = structure.block_samples
    wide = _Wide(coefficients, structure, outputs)
    if structure.open_loop or not structure.n_stages:
        zero = jnp.zeros_like(state.gain_step)
        state = dataclasses.replace(state, undamping_step=zero, gain_step=zero)
    # A piece may begin and end within a block: shift it to where its blocks begin, and let
    # samples that are not its own leave no trace.
    n_blocks = -(-(n_samples + (0 if aligned else size - 1)) // size)
    groups = _groups(n_blocks, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
    shape = (*groups, size)
    total = math.prod(shape)
    offset = jnp.zeros((), jnp.int32) if aligned else state.phase % size
    by_time = jnp.moveaxis(audio, 1, 0)
    if total > n_samples:
        padded = jnp.zeros((total, batch, n_ears), audio.dtype)
        by_time = lax.dynamic_update_slice_in_dim(padded, by_time, offset, axis=0)
    valid = None
    if total > n_samples or not aligned:
        index = jnp.arange(total, dtype=jnp.int32)
        valid = ((index >= offset) & (index < offset + n_samples)).reshape(shape)
    state, pieces = _nested_scan(
        wide.block, len(groups), state, (by_time.reshape(*shape, batch, n_ears), valid)
    )
    given = {}
    for name, piece in pieces.items():
        joined = piece.reshape(total, *piece.shape[len(shape) :])
        joined = lax.dynamic_slice_in_dim(joined, offset, n_samples, axis=0)
        given[name] = jnp.moveaxis(joined, 0, 1)
    return given, state


def _groups(n_blocks: int, state_bytes: int) -> tuple[int, ...]:
    """How to nest the scan over blocks: the product is at least `n_blocks`.

    A gradient keeps one state for each step of each level, and runs the model once more for each
    level: many blocks are grouped by the square root of their number.
    """
    if n_blocks * state_bytes <= _KEPT_BYTES and n_blocks <= _SUMMED_BLOCKS:
        return (n_blocks,)
    inner = math.isqrt(n_blocks - 1) + 1
    outer = -(-n_blocks // inner)
    return (outer, -(-n_blocks // outer))


def _nested_scan(step: Any, levels: int, state: State, xs: Any) -> tuple[State, Any]:
    if levels > 1:
        step = functools.partial(_nested_scan, step, levels - 1)
    return lax.scan(jax.checkpoint(step), state, xs)


class _Wide:
    """A model bound to its coefficients, these given axes for time and batch."""

    def __init__(self, coefficients: Coefficients, structure: Structure, outputs: tuple[str, ...]):
        self.resonators = car.Resonators.of(coefficients.car)
        self.cells = detect.Cells.of(coefficients)
        self.car = coefficients.car
        self.agc = coefficients.agc
        self.structure = structure
        self.outputs = outputs

    def block(self, state: State, xs: Any) -> tuple[State, dict[str, Array]]:
        """A block of audio `[size, batch, ears]`, with `valid` `[size]` or None for all of it."""
        audio, valid = xs
        structure, dtype = self.structure, audio.dtype
        if valid is None:
            keep = jnp.ones((audio.shape[0], 1, 1, 1), dtype)
        else:
            keep = valid.astype(dtype)[:, None, None, None]
        elapsed = jnp.cumsum(keep, axis=0)
        undamping = state.undamping[None] + elapsed * state.undamping_step[None]
        gain = state.gain[None] + elapsed * state.gain_step[None]
        memory = car.CarMemory(state.z1, state.z2, state.z2_before, state.stage_out)
        channels = structure.n_channels
        first_channel = jax.lax.pad(
            audio[..., None],
            jnp.zeros((), dtype),
            [(0, 0, 0), (0, 0, 0), (0, 0, 0), (0, channels - 1, 0)],
        )
        y, before, memory = car.block(
            structure, self.resonators, memory, first_channel, undamping, gain, valid
        )
        heard, out = detect.block(structure, self.cells, detect.Memory.of(state), y, keep)
        out |= {"ohc": before.z2, "agc": undamping}
        state = heard.put_into(state).replace(
            undamping=undamping[-1], gain=gain[-1], **memory._asdict()
        )
        if structure.n_stages:
            state = self.adapt(state, jnp.sum(keep * out["nap"], axis=0), valid, audio.shape[0])
        return state, {name: out[name] for name in self.outputs}

    def adapt(self, state: State, heard: Array, valid: Array | None, size: int) -> State:
        """Lets the gain control hear a block, and act where the block is complete."""
        structure = self.structure
        count = size if valid is None else jnp.sum(valid, dtype=jnp.int32)
        phase = state.phase + count
        complete = (phase % structure.block_samples == 0) & (count > 0)
        memory, sums = agc.update(
            self.agc, structure, state.agc_memory, state.agc_sum, heard, phase, complete
        )
        state = dataclasses.replace(
            state, agc_memory=memory, agc_sum=sums, phase=phase % structure.period_samples
        )
        return state if structure.open_loop else self.close_loop(state, complete)

    def close_loop(self, state: State, complete) -> State:
        """Aims undamping and gain at what the gain control asks for, one block from now."""
        undamping, gain = agc.targets(self.car, state.agc_memory[:, 0])
        size = self.structure.block_samples
        new = (undamping - state.undamping) / size, (gain - state.gain) / size
        return dataclasses.replace(
            state,
            undamping_step=jnp.where(complete, new[0], state.undamping_step),
            gain_step=jnp.where(complete, new[1], state.gain_step),
        )
