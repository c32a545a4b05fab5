"""Images of sound under a network: built from a config, and a step that reaches the cochlea."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data import Loader
from hybrid.build import BuildError, build

COCHLEA = {"agc_decimations": [8, 3], "initial": {"car": {"ohc_health": 0.5}}}


def test_a_step_through_the_network_moves_the_cochlea(toy_config):
    """Of a pitchogram, which is made of images: the whole stack."""
    toy_config.physics.target = "physics.pitchogram:Pitchogram"
    toy_config.physics.kwargs = {"sai": {"hop_s": 0.02, "cochlea": COCHLEA}}
    toy_config.data.kwargs = {"sample_rate_hz": 8000.0, "num_samples": 640, "num_clips": 4}
    toy_config.learner.target = "learners:ConvNet"
    toy_config.learner.kwargs = {"features": [4], "strides": [2]}
    toy_config.batch_size = 2
    experiment = build(toy_config)
    task, source = experiment.task, experiment.source
    batch = next(iter(Loader(source.dataset("train"), batch_size=2)))
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    physics, learner, collections = task.init(jax.random.key(0), batch)

    def loss(physics, learner, key):
        return task.loss(physics, learner, collections, batch, key, train=True)[0]

    gradients = jax.jit(
        jax.grad(loss, (0, 1)), compiler_options={"xla_backend_optimization_level": 0}
    )(physics, learner, jax.random.key(1))
    for path, leaf in jax.tree.leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
    update = jax.tree.map(lambda g: -0.1 * g, gradients[0])
    moved = task.project_physics(optax.apply_updates(physics, update))
    before, after = experiment.physics.physical(physics), experiment.physics.physical(moved)
    for group, name in (("car", "min_zeta"), ("ihc", "tau1_out_s"), ("agc", "stage_gain")):
        assert np.any(before[group][name] != after[group][name]), name


def test_images_fit_a_network(toy_config):
    toy_config.physics.target = "physics.sai:Sai"
    toy_config.physics.kwargs = {"cochlea": COCHLEA, "channels_per_cell": 4, "lags_per_cell": 16}
    toy_config.data.kwargs = {"sample_rate_hz": 8000.0, "num_samples": 640, "num_clips": 4}
    toy_config.learner.target = "learners:ConvNet"
    physics = build(toy_config).physics
    assert physics.cochlea.sample_rate_hz == 8000
    assert physics.num_frames(640) == 4


def test_wrong_settings_inside_are_named(toy_config):
    toy_config.physics.target = "physics.sai:Sai"
    toy_config.physics.kwargs = {"cochlea": {"hop_s": 0.01}}
    toy_config.data.kwargs = {"sample_rate_hz": 8000.0}
    with pytest.raises(BuildError, match=r"config.physics .* full rate.*Leave out its hop_s"):
        build(toy_config)
