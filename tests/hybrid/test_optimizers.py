"""Branch optimizers: schedules, patterns, freezing, decay, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hybrid.config import default_config
from hybrid.optimizers import build_optimizer, make_schedule, parse_overrides


def params():
    return {
        "car": {"zeta": jnp.ones((2,)), "health": jnp.ones((3,))},
        "agc": {"gain": jnp.ones((), jnp.float32)},
    }


def settings(**kwargs):
    config = default_config().physics_optimizer
    config.schedule = "constant"
    config.update(kwargs)
    return config


def one_update(config, grads=None, anchor=False, tree=None):
    tree = params() if tree is None else tree
    optimizer = build_optimizer(config, tree, 100, anchor=anchor)
    grads = jax.tree.map(jnp.ones_like, tree) if grads is None else grads
    updates, _ = optimizer.transform.update(grads, optimizer.transform.init(tree), tree)
    return optax.apply_updates(tree, updates)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "exponential"])
def test_schedules_warm_up_to_the_peak_and_end_low(name):
    schedule = make_schedule(name, 0.1, 100, warmup_steps=10)
    assert float(schedule(0)) == pytest.approx(0.01)
    assert float(schedule(10)) == pytest.approx(0.1)
    assert float(schedule(100)) == pytest.approx(0.1) if name == "constant" else 0.0011


def test_frozen_leaves_stay_and_do_not_count_in_the_clip():
    config = settings(
        name="sgd",
        learning_rate=1.0,
        clip_norm=1.0,
        overrides=((r"car\.health", None), (".*", 1.0)),
    )
    after = one_update(config)
    np.testing.assert_array_equal(after["car"]["health"], 1.0)
    # Three trained values of gradient 1: each is clipped to 1/sqrt(3).
    np.testing.assert_allclose(after["car"]["zeta"], 1 - 3**-0.5, rtol=1e-6)


def test_multipliers_scale_the_update_and_the_first_match_wins():
    config = settings(
        name="sgd", learning_rate=1.0, clip_norm=0.0, overrides=(("car.*", 0.1), (".*", 0.5))
    )
    after = one_update(config)
    np.testing.assert_allclose(after["car"]["zeta"], 0.9, rtol=1e-6)
    np.testing.assert_allclose(after["agc"]["gain"], 0.5, rtol=1e-6)


def test_a_misspelt_pattern_lists_the_names():
    with pytest.raises(ValueError, match=r"car\.zetta.*matches no parameter(.|\n)*car\.zeta"):
        parse_overrides(params(), ((r"car.zetta", 0.1), (".*", 1.0)))


def test_an_uncovered_parameter_is_an_error_with_the_way_out():
    with pytest.raises(ValueError, match=r"(.|\n)*Not covered:\n  agc\.gain"):
        parse_overrides(params(), (("car.*", 0.1),))


@pytest.mark.parametrize("multiplier", [-1.0, float("nan"), "fast", True])
def test_a_multiplier_must_be_a_number_or_none(multiplier):
    with pytest.raises(ValueError, match="multiplier"):
        parse_overrides(params(), ((".*", multiplier),))


def test_a_pattern_that_is_no_regular_expression_is_named():
    with pytest.raises(ValueError, match="not a regular expression"):
        parse_overrides(params(), (("(", 1.0),))


def test_start_and_every():
    optimizer = build_optimizer(settings(start_step=4, every=3), params(), 20, anchor=False)
    active = [step for step in range(14) if optimizer.active(step)]
    assert active == [4, 7, 10, 13]
    assert [optimizer.num_updates(step) for step in (0, 4, 5, 7, 8)] == [0, 0, 1, 1, 2]
    assert optimizer.learning_rate(3) == 0.0
    # Between its turns: that of its newest update, so that a log row never shows a false zero.
    assert optimizer.learning_rate(5) == pytest.approx(1e-3)
    assert optimizer.learning_rate(4) == pytest.approx(1e-3)


def test_decay_pulls_physics_to_where_it_started_and_kernels_to_zero():
    still = settings(name="sgd", learning_rate=0.1, weight_decay=0.5, clip_norm=0.0)
    tree = {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full((2,), 2.0)}
    zeros = jax.tree.map(jnp.zeros_like, tree)
    learner = one_update(still, zeros, anchor=False, tree=tree)
    np.testing.assert_allclose(learner["kernel"], 2.0 * (1 - 0.05), rtol=1e-6)
    np.testing.assert_allclose(learner["bias"], 2.0)
    optimizer = build_optimizer(still, tree, 100, anchor=True)
    state = optimizer.transform.init(tree)
    moved = jax.tree.map(lambda x: x + 1.0, tree)
    updates, _ = optimizer.transform.update(zeros, state, moved)
    np.testing.assert_allclose(updates["bias"], -0.05, rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "adamm", "did you mean adam"),
        ("schedule", "cosin", "did you mean cosine"),
        ("learning_rate", -1.0, "learning_rate"),
        ("clip_norm", float("inf"), "clip_norm"),
        ("every", 0, "every"),
        ("warmup_steps", 1000, "warmup_steps"),
    ],
)
def test_bad_settings_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        build_optimizer(settings(**{field: value}), params(), 100, anchor=False)
