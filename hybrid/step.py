"""One optimizer step over two parameter trees: a gradient for each, an update for each."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hybrid.optimizers import BranchOptimizer
from hybrid.state import Branch, HybridState

Tree = Any
Batch = dict[str, jax.Array]
StepFunction = Callable[..., tuple[HybridState, dict[str, Any]]]


def make_step(
    task: Any, physics_optimizer: BranchOptimizer, learner_optimizer: BranchOptimizer
) -> StepFunction:
    """Returns the jitted `step(state, batch, update_physics, update_learner, go=None)`.

    The state is donated, the batch never is: its buffers may belong to torch. The two flags are
    static; a branch that is not updated costs no gradient. With `go`, a bool [] on the device, that
    is False nothing changes at all: given `report["finite"]` of the step before, a step that comes
    after one that was not finite leaves everything to whoever reads that report.

    Args:
        task: a `hybrid.tasks.Task`.
        physics_optimizer: of the physics branch.
        learner_optimizer: of the learner branch.
    """
    step = functools.partial(_step, task, physics_optimizer.transform, learner_optimizer.transform)
    return jax.jit(
        step, static_argnames=("update_physics", "update_learner"), donate_argnames="state"
    )


def _step(
    task: Any,
    physics_transform: optax.GradientTransformation,
    learner_transform: optax.GradientTransformation,
    state: HybridState,
    batch: Batch,
    update_physics: bool,
    update_learner: bool,
    go: jax.Array | None = None,
) -> tuple[HybridState, dict[str, Any]]:
    key = jax.random.fold_in(state.key, state.step)

    def loss_fn(physics_params: Tree, learner_params: Tree) -> tuple[jax.Array, Any]:
        return task.loss(physics_params, learner_params, state.collections, batch, key, train=True)

    branches = tuple(i for i, wanted in enumerate((update_physics, update_learner)) if wanted)
    if branches:
        (loss, aux), grads = jax.value_and_grad(loss_fn, argnums=branches, has_aux=True)(
            state.physics.params, state.learner.params
        )
    else:
        (loss, aux), grads = loss_fn(state.physics.params, state.learner.params), ()
    gradient = dict(zip(branches, grads, strict=True))

    physics, physics_report = _update(
        state.physics, gradient.get(0), physics_transform, task.project_physics
    )
    learner, learner_report = _update(state.learner, gradient.get(1), learner_transform)
    carried = jax.tree.map(_finite, aux["collections"])
    finite = jnp.isfinite(loss) & physics_report["finite"] & learner_report["finite"]
    finite = jax.tree.reduce(jnp.logical_and, carried, finite)
    taken = jnp.ones_like(state.step)
    if go is not None:
        finite, taken = finite & go, go.astype(state.step.dtype)

    # A step that is not finite changes nothing, so the state before it is still there to be saved.
    physics, learner, collections = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (physics, learner, aux["collections"]),
        (state.physics, state.learner, state.collections),
    )
    new_state = HybridState(state.step + taken, state.key, physics, learner, collections)
    report = {
        "loss": loss,
        "finite": finite,
        "loss_finite": jnp.isfinite(loss),
        "collections_finite": carried,
        "metrics": aux["metrics"],
        "physics": physics_report,
        "learner": learner_report,
    }
    return new_state, report


def _update(
    branch: Branch,
    grads: Tree | None,
    transform: optax.GradientTransformation,
    project: Callable[[Tree], Tree] | None = None,
) -> tuple[Branch, dict[str, Any]]:
    """Updates one branch; `grads` None leaves it exactly as it is."""
    if grads is None:
        finite = jnp.array(True)
        return branch, {
            "norms": {},
            "finite": finite,
            "leaves_finite": {},
            "updated_finite": {},
        }
    # Optax raises floats to integer counts, which strict promotion, if it is on, would refuse.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = transform.update(grads, branch.opt_state, branch.params)
        params: Tree = optax.apply_updates(branch.params, updates)
    if project is not None:
        params = project(params)
    # Gradients of integers or of nothing do not occur: both trees are floating point throughout.
    leaves_finite = jax.tree.map(_finite, grads)
    updated_finite = jax.tree.map(_finite, params)
    finite = jax.tree.reduce(jnp.logical_and, (leaves_finite, updated_finite), jnp.array(True))
    report = {
        "norms": {
            "gradient_norm": optax.tree.norm(grads),
            "update_norm": optax.tree.norm(updates),
        },
        "finite": finite,
        "leaves_finite": leaves_finite,
        "updated_finite": updated_finite,
    }
    return Branch(params, opt_state), report


def _finite(leaf: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(leaf))
