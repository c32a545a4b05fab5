"""Exists to join what listens to the membrane: high-pass, inner hair cells and synapse."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from physics.carfac import ihc, synapse
from physics.carfac.linear import recurrence, spread
from physics.carfac.structures import (
    Coefficients,
    IhcCoefficients,
    State,
    Structure,
    SynapseCoefficients,
)

Block = Float[Array, "time batch ears channels"]


class Cells(NamedTuple):
    """The coefficients that matter here, with axes of 1 for time and batch."""

    ac_rate: Array
    ihc: IhcCoefficients
    synapse: SynapseCoefficients | None

    @classmethod
    def of(cls, coefficients: Coefficients) -> Cells:
        """Those of all of a model's coefficients."""
        cells = cls(coefficients.car.ac_rate, coefficients.ihc, coefficients.synapse)
        return jax.tree.map(lambda a: a[None, None], cells)


class Memory(NamedTuple):
    """What a block leaves to the next; `fibres` is None without a synapse."""

    ac: Array
    cells: ihc.IhcMemory
    fibres: synapse.SynapseMemory | None

    @classmethod
    def of(cls, state: State) -> Memory:
        """The part of a state that belongs here."""
        cells = ihc.IhcMemory(state.cap1, state.cap2, state.lpf1, state.lpf2)
        if state.reservoir is None or state.fibre_lpf is None:
            return cls(state.ac, cells, None)
        return cls(state.ac, cells, synapse.SynapseMemory(state.reservoir, state.fibre_lpf))

    def put_into(self, state: State) -> State:
        """The state with this memory."""
        fibres = {} if self.fibres is None else self.fibres._asdict()
        return dataclasses.replace(state, ac=self.ac, **self.cells._asdict(), **fibres)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def block(
    structure: Structure, cells: Cells, memory: Memory, y: Block, keep: Array
) -> tuple[Memory, dict[str, Any]]:
    """A few samples: outputs of the cascade to neural activity.

    Forward, one loop over samples does all; its derivative is that of `_stages`, where each memory
    is a linear recurrence over the whole block and everything between is worked out at once.

    Args:
      structure: of the model.
      cells: coefficients.
      memory: from the block before.
      y: outputs of the cascade's stages.
      keep: 1 for samples of the piece, 0 for those that must leave no trace; `[time, 1, 1, 1]`.

    Returns:
      The memory after the block; `nap`, `bm`, `receptor_potential` and `firings` of each sample.
    """

    def step(memory, now):
        y, keep = now
        memory, out = _stages(structure, cells, memory, y[None], keep[None])
        return memory, {name: value[0] for name, value in out.items()}

    return lax.scan(step, memory, (y, keep))


@block.defjvp
def _block_jvp(structure, primals, tangents):
    cells, memory, y, keep = primals
    cells_dot, memory_dot, y_dot, keep_dot = tangents
    cells, cells_dot = spread(cells, cells_dot, y.shape[:2])
    return jax.jvp(
        functools.partial(_stages, structure),
        (cells, memory, y, keep),
        (cells_dot, memory_dot, y_dot, keep_dot),
    )


def _stages(structure: Structure, cells: Cells, memory: Memory, y: Block, keep: Array):
    rate = keep * cells.ac_rate
    held, after = recurrence(rate, rate * y, memory.ac)
    bm = y - held
    inner, nap, potential = ihc.block(cells.ihc, structure.ihc, memory.cells, bm, keep)
    out = {"bm": bm, "receptor_potential": potential}
    fibres = memory.fibres
    if cells.synapse is not None and fibres is not None:
        fibres, nap, out["firings"] = synapse.block(cells.synapse, fibres, potential, keep)
    return Memory(after[-1], inner, fibres), {"nap": nap, **out}
