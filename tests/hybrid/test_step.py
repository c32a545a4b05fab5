"""The two-tree step: what it updates, what it leaves, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid.build import build
from hybrid.parts import start
from hybrid.step import make_step
from hybrid.watch import NonFiniteError, StepWatch


@pytest.fixture
def parts(toy_config):
    experiment = build(toy_config)
    state, optimizers = start(experiment)
    items = [experiment.source.dataset("train")[i] for i in range(toy_config.batch_size)]
    batch = {name: jnp.stack([jnp.asarray(item[name]) for item in items]) for name in items[0]}
    return experiment, state, optimizers, batch, make_step(experiment.task, *optimizers)


def copy(tree):
    return jax.tree.map(lambda leaf: np.array(jax.device_get(leaf)), tree)


def test_each_branch_moves_only_when_it_is_its_turn(parts):
    _, state, _, batch, step = parts
    before = copy((state.physics, state.learner))
    state, report = step(state, batch, update_physics=False, update_learner=True)
    jax.tree.map(np.testing.assert_array_equal, copy(state.physics), before[0])
    assert not np.array_equal(
        state.learner.params["Dense_0"]["kernel"], before[1].params["Dense_0"]["kernel"]
    )
    assert set(report["learner"]["norms"]) == {"gradient_norm", "update_norm"}
    assert report["physics"]["norms"] == {}
    middle = copy((state.physics, state.learner))
    state, _ = step(state, batch, update_physics=True, update_learner=False)
    jax.tree.map(np.testing.assert_array_equal, copy(state.learner), middle[1])
    assert not np.array_equal(state.physics.params["gain"], middle[0].params["gain"])
    assert int(state.step) == 2


def test_the_gradients_are_those_of_the_joint_loss(parts):
    experiment, state, _, batch, step = parts
    key = jax.random.fold_in(state.key, state.step)
    grads = jax.jit(
        jax.grad(
            lambda p, q: experiment.task.loss(p, q, state.collections, batch, key, train=True)[0],
            argnums=(0, 1),
        )
    )(state.physics.params, state.learner.params)
    norms = [float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(tree)))) for tree in grads]
    _, report = step(state, batch, update_physics=True, update_learner=True)
    assert float(report["physics"]["norms"]["gradient_norm"]) == pytest.approx(norms[0], rel=1e-4)
    assert float(report["learner"]["norms"]["gradient_norm"]) == pytest.approx(norms[1], rel=1e-4)


def test_bounds_hold_at_every_step(parts):
    experiment, state, _, batch, step = parts
    for _ in range(60):
        state, _ = step(state, batch, update_physics=True, update_learner=True)
        values = jax.device_get(experiment.physics.physical(state.physics.params))
        assert np.all((values["gain"] > 0.1) & (values["gain"] < 2.0))
        assert np.all((values["health"] >= 0.0) & (values["health"] <= 1.0))


def test_statistics_are_carried(parts):
    _, state, _, batch, step = parts
    before = copy(state.collections)
    state, _ = step(state, batch, update_physics=True, update_learner=True)
    mean = ("batch_stats", "BatchNorm_0", "mean")
    after = copy(state.collections)
    for name in mean:
        before, after = before[name], after[name]
    assert not np.array_equal(before, after)


def test_a_step_that_is_not_finite_changes_nothing_and_is_named(parts):
    _, state, _, batch, step = parts
    before = copy((state.physics, state.learner, state.collections))
    bad = batch | {"audio": batch["audio"].at[3, 5].set(jnp.nan)}
    state, report = step(state, bad, update_physics=True, update_learner=True)
    after = copy((state.physics, state.learner, state.collections))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    watch = StepWatch()
    watch.push(17, bad, report)
    with pytest.raises(NonFiniteError) as caught:
        watch.drain()
    message = str(caught.value)
    for part in (
        "step 17",
        "physics branch",
        "gain",
        "learner branch",
        "Dense_0.kernel",
        "0, 1, 2",
    ):
        assert part in message


def test_the_batch_is_not_donated(parts):
    _, state, _, batch, step = parts
    step(state, batch, update_physics=True, update_learner=True)
    assert not any(leaf.is_deleted() for leaf in batch.values())
