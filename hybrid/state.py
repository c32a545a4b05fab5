"""What a run is at one step: two branches of parameters, each with its optimizer, and a key."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Int, Key

Tree = Any


@struct.dataclass
class Branch:
    """One parameter tree and the state of the optimizer that owns it.

    Attributes:
        params: parameters as the optimizer sees them (for physics: before `physical`).
        opt_state: the Optax state of this branch's chain.
    """

    params: Tree
    opt_state: Tree


@struct.dataclass
class HybridState:
    """Everything the next step depends on, apart from the batch.

    Attributes:
        step: number of steps taken, int32 [].
        key: the run's PRNG key; step `n` uses `fold_in(key, n)`, so the key itself never changes.
        physics: branch of the physical model.
        learner: branch of the network.
        collections: the learner's other Flax collections (batch statistics, ...), carried along.
    """

    step: Int[Array, ""]
    key: Key[Array, ""]
    physics: Branch
    learner: Branch
    collections: Tree


def init_state(
    task: Any,
    batch: dict[str, Any],
    key: Key[Array, ""],
    physics_optimizer: optax.GradientTransformation,
    learner_optimizer: optax.GradientTransformation,
) -> HybridState:
    """Draws both parameter trees and starts both optimizers.

    Args:
        task: a `hybrid.tasks.Task`.
        batch: one batch, or its shapes.
        key: the run's PRNG key.
        physics_optimizer: chain for the physics branch.
        learner_optimizer: chain for the learner branch.

    Returns:
        The state at step 0, in JAX's default float (float64 under 64-bit mode).
    """
    init_key, run_key = jax.random.split(key)
    physics_params, learner_params, collections = task.init(init_key, batch)
    return HybridState(
        step=jnp.zeros((), jnp.int32),
        key=run_key,
        physics=Branch(physics_params, physics_optimizer.init(physics_params)),
        learner=Branch(learner_params, learner_optimizer.init(learner_params)),
        collections=collections,
    )
