"""The bound, its warm-up and what does not change it; by hand where that can be done."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hybrid
from hybrid.tasks_vae import Vae
from learners.vae import ConvVae
from physics.spectra import LogMel

NET = ConvVae(latent_size=2, features=(2,), hidden=4, dropout=0.0)
EAR = LogMel(sample_rate_hz=1000.0, hop_s=0.016, window_s=0.064, n_mels=3)
TASK = Vae(EAR, NET, noise_std=0.1, kl_weight=0.5, kl_warmup_steps=4)


@pytest.fixture(scope="module")
def started():
    audio = 0.3 * jax.random.normal(jax.random.key(0), (3, 160))
    batch = {
        "audio": audio,
        "lengths": jnp.array([160, 100, 160], jnp.int32),
        "weights": jnp.array([1.0, 1.0, 0.0]),
    }
    return batch, quickly(TASK.init)(jax.random.key(1), batch)


# These programs run a few times: what counts is how long they take to compile.
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@partial(quickly, static_argnames="train")
def loss(batch, trees, train=False, key=None):
    return TASK.loss(*trees, batch, key, train)


def test_the_bound_by_hand(started):
    batch, trees = started
    value, aux = loss(batch, trees)
    target = np.asarray(aux["outputs"]["cochleagrams"])[:2]
    guess = np.asarray(aux["outputs"]["reconstructions"])[:2]
    error = ((target - guess) ** 2).mean()
    assert float(aux["metrics"]["squared_error"]) == pytest.approx(error, rel=1e-5)
    variables = {"params": trees[1], "batch_stats": trees[2]["batch_stats"]}
    mean, log_variance = map(
        np.asarray,
        quickly(partial(NET.apply, train=False, method="encode"))(variables, target),
    )
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1).mean()
    assert float(aux["metrics"]["kl"]) == pytest.approx(kl, rel=1e-4)
    assert float(value) == pytest.approx(error / 0.02 + 0.5 * kl / target[0].size, rel=1e-5)
    assert float(aux["weight"]) == 2


def test_the_weight_of_the_divergence_grows_with_steps_that_are_counted(started):
    batch, (physics, learner, collections) = started
    weights = []
    for step in range(6):
        _, aux = loss(batch, (physics, learner, collections), True, jax.random.key(step))
        collections = aux["collections"]
        weights.append(float(aux["metrics"]["kl_weight"]))
    np.testing.assert_allclose(weights, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])
    assert int(collections["schedule"]["steps"]) == 6
    _, aux = loss(batch, (physics, learner, collections))
    assert int(aux["collections"]["schedule"]["steps"]) == 6


def test_padding_and_rows_without_weight_change_nothing(started):
    batch, trees = started
    valid = np.arange(160)[None] < np.array([160, 100, 0])[:, None]
    dirty = batch | {"audio": jnp.where(valid, batch["audio"], 7.0)}
    key = jax.random.key(2)
    for given in (batch, dirty):
        value, aux = loss(given, trees, True, key)
        if given is batch:
            first = value, aux["collections"]
    assert float(value) == float(first[0])
    jax.tree.map(np.testing.assert_array_equal, aux["collections"], first[1])


def test_the_target_pulls_no_front_end_towards_silence(started):
    """With a network that ignores its input, nothing is left for the front end to follow."""
    batch, (physics, learner, collections) = started
    deaf = {"encoder": jax.tree.map(jnp.zeros_like, learner["encoder"])} | {
        "decoder": learner["decoder"]
    }
    gradient = quickly(jax.grad(lambda p: TASK.loss(p, deaf, collections, batch, None, False)[0]))(
        physics
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="noise_std"):
        dataclasses.replace(TASK, noise_std=0.0)
    with pytest.raises(ValueError, match="0 or more"):
        dataclasses.replace(TASK, kl_weight=-1.0)


@pytest.mark.slow  # trains two runs, for a thing that tests of checkpoints hold for all collections
def test_a_run_goes_on_where_it_was_cut(toy_config, tmp_path):
    toy_config.num_steps, toy_config.checkpoint_every_steps = 6, 3
    toy_config.task.target = "hybrid.tasks_vae:Vae"
    toy_config.task.kwargs = {"kl_warmup_steps": 5}
    toy_config.learner.target = "learners.vae:ConvVae"
    toy_config.learner.kwargs = {"latent_size": 2, "features": (2,), "hidden": 4}
    whole = hybrid.fit(toy_config, tmp_path / "whole")
    toy_config.num_steps = 3
    # The schedule of the learning rate follows num_steps, so it must not decay here.
    for branch in (toy_config.physics_optimizer, toy_config.learner_optimizer):
        branch.schedule = "constant"
    hybrid.fit(toy_config, tmp_path / "cut")
    toy_config.num_steps = 6
    cut = hybrid.fit(toy_config, tmp_path / "cut")
    assert int(cut.collections["schedule"]["steps"]) == 6
    assert int(whole.collections["schedule"]["steps"]) == 6
    task = dataclasses.replace(TASK, learner=ConvVae(latent_size=2, features=(2,), hidden=4))
    clips = task.decode(whole.learner.params, whole.collections, jnp.zeros((1, 2)), 10, 2)
    assert clips.shape == (1, 10, 2)
