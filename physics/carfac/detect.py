"""Exists to join what listens to the membrane: high-pass, inner hair cells and synapse."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from physics.carfac import ihc, synapse
from physics.carfac.linear import recurrence
from physics.carfac.structures import Coefficients, State, Structure

Block = Float[Array, "time batch ears channels"]


class Memory(NamedTuple):
    """What a block leaves to the next; `fibres` is None without a synapse."""

    ac: Array
    cells: ihc.IhcMemory
    fibres: synapse.SynapseMemory | None

    @classmethod
    def of(cls, state: State) -> Memory:
        """The part of a state that belongs here."""
        cells = ihc.IhcMemory(state.cap1, state.cap2, state.lpf1, state.lpf2)
        if state.reservoir is None:
            return cls(state.ac, cells, None)
        return cls(state.ac, cells, synapse.SynapseMemory(state.reservoir, state.fibre_lpf))

    def put_into(self, state: State) -> State:
        """The state with this memory."""
        fibres = {} if self.fibres is None else self.fibres._asdict()
        return state.replace(ac=self.ac, **self.cells._asdict(), **fibres)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def block(
    structure: Structure, coefficients: Coefficients, memory: Memory, y: Block, keep: Array
) -> tuple[Memory, dict[str, Any]]:
    """A few samples: outputs of the cascade to neural activity.

    Forward, one loop over samples does all; its derivative is that of `_stages`, where each memory
    is a linear recurrence over the whole block and everything between is worked out at once.

    Args:
      structure: of the model.
      coefficients: each with leading axes of 1 for time and batch.
      memory: from the block before.
      y: outputs of the cascade's stages.
      keep: 1 for samples of the piece, 0 for those that must leave no trace; `[time, 1, 1, 1]`.

    Returns:
      The memory after the block; `nap`, `bm`, `receptor_potential` and `firings` of each sample.
    """

    def step(memory, now):
        y, keep = now
        memory, out = _stages(structure, coefficients, memory, y[None], keep[None])
        return memory, {name: value[0] for name, value in out.items()}

    return lax.scan(step, memory, (y, keep))


@block.defjvp
def _block_jvp(structure, primals, tangents):
    return jax.jvp(functools.partial(_stages, structure), primals, tangents)


def _stages(
    structure: Structure, coefficients: Coefficients, memory: Memory, y: Block, keep: Array
):
    rate = keep * coefficients.car.ac_rate
    held, after = recurrence(rate, rate * y, memory.ac)
    bm = y - held
    cells, nap, potential = ihc.block(coefficients.ihc, structure.ihc, memory.cells, bm, keep)
    out = {"bm": bm, "receptor_potential": potential}
    fibres = memory.fibres
    if coefficients.synapse is not None and fibres is not None:
        fibres, nap, out["firings"] = synapse.block(coefficients.synapse, fibres, potential, keep)
    return Memory(after[-1], cells, fibres), {"nap": nap, **out}
