"""Masked pooling and random stripes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learners import masked_max, masked_mean, random_stripes


def test_pooling_equals_pooling_of_the_cut_clip(key):
    x = jax.random.normal(key, (3, 10, 4))
    lengths = [1, 6, 10]
    mask = jnp.arange(10)[None, :] < jnp.array(lengths)[:, None]
    for i, length in enumerate(lengths):
        np.testing.assert_allclose(masked_mean(x, mask)[i], x[i, :length].mean(0), rtol=1e-5)
        np.testing.assert_allclose(masked_max(x, mask)[i], x[i, :length].max(0))


@pytest.mark.parametrize("pool", [masked_mean, masked_max])
def test_a_clip_without_frames_pools_to_zero_with_a_finite_gradient(pool):
    x, mask = jnp.full((2, 3, 4), jnp.nan), jnp.zeros((2, 3), bool)
    value, gradient = jax.value_and_grad(lambda x: pool(x, mask).sum())(x)
    assert value == 0
    assert not gradient.any()


def test_stripes_have_the_stated_share_and_stay_in_the_clip(key):
    lengths = jnp.array([50.0, 100.0] * 500)
    hidden = random_stripes(key, lengths, 100, count=2, fraction=0.4)
    assert hidden.shape == (1000, 100)
    assert not hidden[::2, 50:].any()
    assert hidden[:, :50].any(axis=0).all()
    one = random_stripes(key, lengths, 100, count=1, fraction=0.4)
    assert one.sum(axis=1).max() <= 41
    assert abs(one[1::2].mean() - 0.2) < 0.02


def test_no_stripes_hide_nothing(key):
    assert not random_stripes(key, jnp.full(4, 9.0), 9, count=0, fraction=0.5).any()
    assert not random_stripes(key, jnp.full(4, 9.0), 9, count=3, fraction=0.0).any()
