"""The mask network: bounds, padding, how far it sees, and that it learns to mask."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learners import MaskNet, call_learner, init_learner

NETS = {
    "causal": MaskNet(5, width=6, dilations=(2,), kernel=2),
    "both ways": MaskNet(5, width=6, dilations=(1, 2), causal=False, complex_mask=True),
}

init = jax.jit(init_learner, static_argnums=0)
call = jax.jit(call_learner, static_argnums=0, static_argnames=("train", "mutable"))


@pytest.fixture(scope="module", params=NETS)
def learner(request):
    """A net, features of which the first clip has no frame, mask and variables."""
    net = NETS[request.param]
    features = 3 * jax.random.normal(jax.random.key(1), (3, 12, 4)) - 20
    mask = jnp.arange(12)[None] < jnp.array([0, 6, 12])[:, None]
    return net, features, mask, init(net, jax.random.key(2), features, mask)


@partial(jax.jit, static_argnums=0)
def outputs(net, variables, features, mask):
    """Masks, changed statistics, and the gradient for parameters and features of a loss."""

    def loss(params, features):
        given, changed = call_learner(
            net,
            {**variables, "params": params},
            features,
            train=True,
            mask=mask,
            mutable=("batch_stats",),
        )
        return (given**2).sum(), (given, changed)

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, (given, changed)), grads = gradient(variables["params"], features)
    return given, changed, grads


def test_masks_are_bounded(learner):
    net, features, mask, variables = learner
    given = call(net, variables, 100 * features, train=False, mask=mask)
    assert given.shape == (3, 12, 10 if net.complex_mask else 5)
    assert (jnp.abs(given) <= 1).all()
    assert net.complex_mask or (given >= 0).all()
    assert not given[0].any()


def test_padding_frames_change_nothing(learner):
    net, features, mask, variables = learner
    clean = outputs(net, variables, features, mask)
    for junk in (1e4, jnp.nan):
        spoiled = jnp.where(mask[..., None], features, jnp.full_like(features, junk))
        for one, two in zip(
            jax.tree.leaves(clean),
            jax.tree.leaves(outputs(net, variables, spoiled, mask)),
            strict=True,
        ):
            np.testing.assert_array_equal(one, two)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    features_gradient = clean[2][1]
    assert not jnp.where(mask[..., None], jnp.zeros_like(features), features_gradient).any()


def test_a_clip_without_padding_gives_the_same(learner):
    net, features, mask, variables = learner
    padded = call(net, variables, features, train=False, mask=mask)
    alone = call(net, variables, features[1:2, :6], train=False)
    np.testing.assert_allclose(padded[1:2, :6], alone, atol=1e-6)


def test_it_sees_as_far_as_it_says(learner):
    """A change of frame 12 moves masks from `future_frames` before to `past_frames` after it."""
    net, _, _, variables = learner
    features = jax.random.normal(jax.random.key(3), (1, 25, 4))
    other = features.at[:, 12].add(3.0)
    one, two = (call(net, variables, x, train=False) for x in (features, other))
    moved = np.flatnonzero(jnp.abs(one - two).max(axis=(0, 2)) > 1e-7) - 12
    assert moved.min() == -net.future_frames
    assert moved.max() == net.past_frames
    assert (net.future_frames == 0) == net.causal


def test_the_dtype_follows_the_features(x64, key):
    def run(key):
        features = jnp.ones((2, 7, 2, 3))
        variables = init_learner(NETS["causal"], key, features)
        return variables, outputs(NETS["causal"], variables, features, jnp.ones((2, 7), bool))

    leaves = jax.tree.leaves(jax.eval_shape(run, key))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float64")}


def test_it_learns_a_mask_that_depends_on_the_frame_before(key):
    net = MaskNet(1, width=8, dilations=(1,))
    features = jax.random.normal(key, (8, 10, 2))
    target = jnp.pad(features[:, :-1, 0] > 0, ((0, 0), (1, 0))).astype(jnp.float32)
    variables = init(net, key, features)
    optimizer = optax.adam(0.03)

    @jax.jit
    def step(variables, state):
        def loss(params):
            given, changed = call_learner(
                net, {**variables, "params": params}, features, train=True, mutable=["batch_stats"]
            )
            return jnp.mean((given[..., 0] - target) ** 2), changed

        (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(grads, state)
        return (
            {"params": optax.apply_updates(variables["params"], updates), **changed},
            state,
            value,
        )

    state, value = optimizer.init(variables["params"]), jnp.inf
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(60):
            variables, state, value = step(variables, state)
    assert value < 0.05


def test_an_even_kernel_has_no_middle(key):
    with pytest.raises(ValueError, match="`kernel` must be odd unless `causal`, got 2: try 3"):
        init_learner(MaskNet(3, kernel=2, causal=False), key, jnp.ones((1, 4, 4)))
