"""The autoencoder gives pictures of the size that it was made for, and is two halves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learners import init_learner
from learners.vae import ConvVae

NET = ConvVae(latent_size=3, features=(2,), hidden=5, dropout=0.5)


@pytest.fixture(scope="module")
def made():
    features = jax.random.normal(jax.random.key(0), (4, 11, 9))
    return features, jax.jit(partial(init_learner, NET))(jax.random.key(1), features)


def test_halves_make_the_whole(made):
    features, variables = made
    whole = NET.apply(variables, features, train=False)
    mean, log_variance = NET.apply(variables, features, train=False, method="encode")
    assert mean.shape == log_variance.shape == (4, 3)
    again = NET.apply(variables, mean, 11, 9, train=False, method="decode")
    assert again.shape == features.shape
    np.testing.assert_allclose(whole, again, atol=1e-6)


def test_what_the_mask_hides_is_silence(made):
    features, variables = made
    mask = jnp.arange(11)[None] < jnp.array([11, 6, 11, 0])[:, None]
    hidden = jnp.where(mask[..., None], features, jnp.nan)
    outputs = [
        NET.apply(
            variables,
            x,
            train=True,
            mask=mask,
            method="encode",
            rngs={"dropout": jax.random.key(2)},
            mutable=["batch_stats"],
        )
        for x in (features, hidden)
    ]
    jax.tree.map(np.testing.assert_array_equal, *outputs)


def test_dropout_only_while_training(made):
    _, variables = made
    latents = jnp.ones((2, 3))

    def decode(train, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return NET.apply(variables, latents, 11, 9, train=train, method="decode", rngs=rngs)

    np.testing.assert_array_equal(decode(False, 0), decode(False, 1))
    assert np.any(decode(True, 0) != decode(True, 1))


def test_extreme_inputs_keep_the_variance_finite(made):
    features, variables = made
    _, log_variance = NET.apply(variables, 1e8 * features, train=False, method="encode")
    assert np.abs(log_variance).max() <= 10
