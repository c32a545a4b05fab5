"""Two trees, or physics inside a network: the same data, seed and optimizers give the same losses.

In float64, for Adam turns the rounding of gradients near zero into steps of the learning rate.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data import Prefetch
from hybrid.build import build
from hybrid.parts import start, training_loader
from hybrid.step import make_step
from hybrid.tasks import cross_entropy
from learners import PhysicsLayer, keep_bounds
from physics import frame_mask

STEPS = 50
RATES = {"ear": 0.05, "net": 0.01}


class Joined(nn.Module):
    """A cochlea as the first layer of a network."""

    physics: object
    learner: nn.Module
    collection: str

    @nn.compact
    def __call__(self, audio, lengths, weights, *, train):
        features = PhysicsLayer(self.physics, self.collection, name="ear")(audio, lengths)
        mask = frame_mask(features.shape[1], self.physics.hop_samples, lengths)
        net = self.learner.clone(name="net", parent=self)
        return net(features, train=train, mask=mask & (weights > 0)[:, None])


@pytest.fixture
def config(toy_config):
    """A cochlea of a few channels and a small network, each with an Adam of its own."""
    toy_config.precision = "float64"
    toy_config.num_steps = STEPS
    toy_config.batch_size = 4
    toy_config.data.kwargs = {"sample_rate_hz": 8000.0, "num_samples": 240}
    toy_config.physics.target = "physics.carfac:Carfac"
    toy_config.physics.kwargs = {
        "min_pole_hz": 800,
        "ihc": "one_cap",
        "hop_s": 0.005,
        "compression": "root",
        "initial": {"car": {"erb_per_step": 2.0}},
    }
    toy_config.learner.target = "learners:MLP"
    toy_config.learner.kwargs = {"widths": (8,), "dropout": 0.0}
    for branch, rate in (("physics", RATES["ear"]), ("learner", RATES["net"])):
        settings = {"learning_rate": rate, "schedule": "constant", "clip_norm": 0.0}
        settings |= {"start_step": 0, "every": 1}
        toy_config[f"{branch}_optimizer"].update(settings)
    return toy_config


def two_trees(experiment, state, optimizers):
    """Trains the two branches of the loop; returns the losses and the ear's params."""
    state = jax.tree.map(jnp.copy, state)  # a step takes its state away
    step, losses = make_step(experiment.task, *optimizers), []
    with Prefetch(training_loader(experiment)) as batches:
        for _ in range(STEPS):
            batch, _ = next(batches)
            state, report = step(state, batch, update_physics=True, update_learner=True)
            losses.append(float(report["loss"]))
    return losses, state.physics.params


def one_tree(experiment, state, collection):
    """Trains physics and network as one module, by `optax.multi_transform`; returns the same."""
    ear, net = experiment.physics, experiment.learner
    joined = Joined(ear, net, collection)
    own = {"params": {"net": state.learner.params}, collection: {"ear": state.physics.params}}
    trained = {"params": {"net": state.learner.params}}
    trained[collection] = trained.get(collection, {}) | own[collection]
    labels = {name: {part: part for part in tree} for name, tree in trained.items()}
    bounded = optax.chain(optax.adam(RATES["ear"]), keep_bounds(ear, f"{collection}.ear"))
    optimizer = optax.multi_transform({"ear": bounded, "net": optax.adam(RATES["net"])}, labels)
    statistics = {"batch_stats": {"net": state.collections["batch_stats"]}}

    @jax.jit
    def step(trained, statistics, opt_state, batch):
        def loss(trained):
            logits, changed = joined.apply(
                trained | statistics,
                batch["audio"],
                batch["lengths"],
                batch["weights"],
                train=True,
                mutable=("batch_stats",),
            )
            return jnp.mean(cross_entropy(logits, batch["labels"])), changed

        (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state, trained)
        return optax.apply_updates(trained, updates), changed, opt_state, value

    opt_state, losses = optimizer.init(trained), []
    with Prefetch(training_loader(experiment)) as batches:
        for _ in range(STEPS):
            batch, _ = next(batches)
            trained, statistics, opt_state, value = step(trained, statistics, opt_state, batch)
            losses.append(float(value))
    return losses, trained[collection]["ear"]


def test_both_ways_to_join_give_the_same_losses(config, x64):
    experiment = build(config)
    state, optimizers = start(experiment)
    losses, params = two_trees(experiment, state, optimizers)
    assert len(losses) == STEPS
    assert max(losses) - min(losses) > 0.1
    moved = jax.tree.map(lambda a, b: (a != b).any(), state.physics.params, params)
    assert all(jax.tree.leaves(moved))
    for collection in ("params", "physics"):
        other_losses, other_params = one_tree(experiment, state, collection)
        np.testing.assert_allclose(other_losses, losses, atol=1e-5, rtol=0)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), other_params, params)
