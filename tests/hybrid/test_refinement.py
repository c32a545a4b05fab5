"""Controls that descend: to the best there is, with noise of their own at every step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid.refinement import refine

KEY = jax.random.key(0)
START = {"level": jnp.array([0.0, 3.0]), "shape": jnp.ones((2, 4))}


def test_it_finds_the_least_loss():
    def loss(controls, key):
        return jnp.sum((controls["level"] - 1) ** 2) + jnp.sum(controls["shape"] ** 2)

    found, losses = refine(loss, START, KEY, steps=200, learning_rate=0.1)
    np.testing.assert_allclose(found["level"], 1, atol=1e-3)
    np.testing.assert_allclose(found["shape"], 0, atol=1e-3)
    assert losses.shape == (200,)
    assert losses[0] == 5 + 8
    assert losses[-1] < 1e-5


def test_each_step_has_noise_of_its_own():
    def loss(controls, key):
        return jax.random.normal(key) + 0 * jnp.sum(controls["level"])

    _, losses = refine(loss, START, KEY, steps=20)
    assert len(set(np.asarray(losses).tolist())) == 20
    _, again = refine(loss, START, KEY, steps=20)
    np.testing.assert_array_equal(losses, again)


def test_no_step_changes_nothing():
    found, losses = refine(lambda c, key: jnp.sum(c["level"]), START, KEY, steps=0)
    jax.tree.map(np.testing.assert_array_equal, found, START)
    assert losses.size == 0


@pytest.mark.parametrize(
    ("steps", "learning_rate"), [(-1, 0.1), (2.5, 0.1), (5, 0), (5, float("nan"))]
)
def test_no_such_descent(steps, learning_rate):
    with pytest.raises(ValueError, match=f"got {steps:g} and {learning_rate:g}: take 50 and 0.1"):
        refine(lambda c, key: jnp.sum(c["level"]), START, KEY, steps, learning_rate)
