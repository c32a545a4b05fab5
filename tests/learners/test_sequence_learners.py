"""MLP, GRU and Transformer: sizes follow the features, padding never matters, all of them learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learners import GRU, MLP, Transformer, call_learner, init_learner
from learners.transformer import sinusoidal_positions

NETS = {
    "mlp": MLP(3, widths=(8,), context_frames=1),
    "gru": GRU(3, width=4),
    "transformer": Transformer(3, width=8, depth=1, heads=2),
}


def repr_of(value):
    """The first line of a network's repr, to name a test."""
    return repr(value).splitlines()[0]


init = jax.jit(init_learner, static_argnums=0)
call = jax.jit(call_learner, static_argnums=0, static_argnames=("train", "mutable"))


def clips(key, batch=3, frames=12, channels=5, dtype=jnp.float32):
    """Features far from zero mean, with lengths from nothing to everything."""
    features = 3 * jax.random.normal(key, (batch, frames, channels), dtype) - 20
    lengths = jnp.linspace(0, frames, batch)
    return features, jnp.arange(frames, dtype=lengths.dtype)[None, :] < lengths[:, None]


@pytest.fixture(scope="module", params=NETS)
def learner(request):
    """A net, features, mask and variables."""
    net = NETS[request.param]
    features, mask = clips(jax.random.key(1))
    return net, features, mask, init(net, jax.random.key(2), features, mask)


@partial(jax.jit, static_argnums=0, static_argnames="train")
def outputs(net, variables, features, mask, *, train):
    """Logits, changed statistics, and the gradient for parameters and features of a loss."""

    def loss(params, features):
        logits, changed = call_learner(
            net,
            {**variables, "params": params},
            features,
            train=train,
            mask=mask,
            rngs={"dropout": jax.random.key(7)},
            mutable=("batch_stats",),
        )
        return (logits**2).sum(), (logits, changed)

    gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (_, (logits, changed)), grads = gradient(variables["params"], features)
    return logits, changed, grads


def assert_same(one, two, tolerance=1e-5):
    """Compares two trees, relative to the largest value of each leaf."""

    def check(a, b):
        scale = jnp.maximum(jnp.abs(a).max(), 1e-3)
        assert jnp.abs(a - b).max() <= tolerance * scale

    jax.tree.map(check, one, two)


def test_padding_frames_change_nothing(learner):
    net, features, mask, variables = learner
    clean = outputs(net, variables, features, mask, train=True)
    calm = call(net, variables, features, train=False, mask=mask)
    for junk in (1e4, jnp.nan):
        spoiled = jnp.where(mask[..., None], features, jnp.full_like(features, junk))
        assert_same(clean, outputs(net, variables, spoiled, mask, train=True), 0.0)
        assert_same(calm, call(net, variables, spoiled, train=False, mask=mask), 0.0)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(clean))
    features_gradient = clean[2][1]
    assert not jnp.where(mask[..., None], jnp.zeros_like(features), features_gradient).any()
    assert jnp.where(mask[..., None], features_gradient, jnp.ones_like(features)).any()


def test_a_longer_padding_changes_nothing(learner):
    net, features, mask, variables = learner
    longer = jnp.pad(features, ((0, 0), (0, 3), (0, 0)), constant_values=5.0)
    longer_mask = jnp.pad(mask, ((0, 0), (0, 3)))
    short = call(net, variables, features, train=False, mask=mask)
    assert_same(short, call(net, variables, longer, train=False, mask=longer_mask))
    # Nor does none at all: a clip is what is left of it without its padding and without a mask.
    assert mask[1].sum() == 6
    assert_same(short[1:2], call(net, variables, features[1:2, :6], train=False))


def test_rows_without_a_valid_frame_change_nothing(learner):
    net, features, mask, variables = learner
    net = net.clone(dropout=0.0)
    options = {"train": True, "mutable": ("batch_stats",), "rngs": {"dropout": jax.random.key(0)}}
    logits, stats = call(net, variables, features, mask=mask, **options)
    assert not mask[0].any()
    heard, stats_of_heard = call(net, variables, features[1:], mask=mask[1:], **options)
    assert_same((logits[1:], stats), (heard, stats_of_heard))


@pytest.mark.parametrize("net", [*NETS.values(), GRU(3, width=4, depth=2)], ids=repr_of)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 2, 6)])
def test_sizes_follow_the_features(key, shape, net):
    def run(key):
        features = jnp.ones(shape)
        return call_learner(net, init_learner(net, key, features), features, train=False)

    assert jax.eval_shape(run, key).shape == (shape[0], 3)


@pytest.mark.parametrize("name", NETS)
def test_the_dtype_follows_the_features(x64, key, name):
    def run(key):
        features, mask = clips(key, dtype=jnp.float64)
        variables = init_learner(NETS[name], key, features, mask)
        return variables, outputs(NETS[name], variables, features, mask, train=True)

    leaves = jax.tree.leaves(jax.eval_shape(run, key))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float64")}


def test_dropout_is_for_training_only(learner):
    net, features, mask, variables = learner

    def logits(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        mutable = ("batch_stats",) if train else ()
        return call(net, variables, features, train=train, mask=mask, rngs=rngs, mutable=mutable)[0]

    assert (logits(0, False) == logits(1, False)).all()
    assert (logits(0, True) == logits(0, True)).all()
    assert (logits(0, True) != logits(1, True)).any()


@pytest.mark.parametrize("name", NETS)
def test_it_learns_when_a_tone_comes(key, name):
    """A tone in a channel, alone or followed by one in another: time and frequency both matter."""
    labels = jnp.arange(24) % 3
    features = jax.random.normal(key, (24, 8, 4))
    features = features.at[:, 2, 1].add(jnp.where(labels == 1, 0.0, 5.0))
    features = features.at[:, 3, 2].add(jnp.where(labels == 2, 0.0, 5.0))
    net = NETS[name].clone(dropout=0.0)
    variables = init(net, key, features)
    optimizer = optax.adam(0.03)

    @jax.jit
    def step(variables, state):
        def loss(params):
            logits, changed = call_learner(
                net, {**variables, "params": params}, features, train=True, mutable=["batch_stats"]
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), changed

        grads, changed = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(grads, state)
        return {"params": optax.apply_updates(variables["params"], updates), **changed}, state

    state = optimizer.init(variables["params"])
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(40):
            variables, state = step(variables, state)
    logits = call(net, variables, features, train=False)
    assert (logits.argmax(-1) == labels).mean() > 0.9


def order_matters(net, key):
    features = jax.random.normal(key, (2, 6, 5))
    variables = init(net, key, features)
    one = call(net, variables, features, train=False)
    other = call(net, variables, features[:, ::-1], train=False)
    return bool(jnp.abs(one - other).max() > 1e-4)


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (MLP(3, widths=(8,), context_frames=0), False),
        (MLP(3, widths=(8,), context_frames=1), True),
        (Transformer(3, width=8, depth=1, heads=2), True),
        (Transformer(3, width=8, depth=1, heads=2, positions="none"), False),
    ],
    ids=repr_of,
)
def test_the_options_decide_whether_the_order_of_the_frames_matters(key, net, expected):
    assert order_matters(net, key) is expected


def test_positions_are_those_of_the_paper():
    table = sinusoidal_positions(50, 8)
    assert table.shape == (50, 8)
    np.testing.assert_allclose(table[7, 2], np.sin(7 / 10_000 ** (2 / 4)), rtol=1e-5)
    np.testing.assert_allclose(table[7, 4 + 2], np.cos(7 / 10_000 ** (2 / 4)), rtol=1e-5)
    np.testing.assert_array_equal(sinusoidal_positions(60, 8)[:50], table)
    assert sinusoidal_positions(3, 5).shape == (3, 5)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (MLP(3, context_frames=-1), "0 or more, got -1"),
        (Transformer(3, width=10, heads=4), "multiple of `heads`, got 10 and 4: try width=12"),
        (Transformer(3, positions="learned"), "'sinusoidal', 'none'.*got 'learned'"),
    ],
    ids=["mlp", "heads", "positions"],
)
def test_options_that_do_not_fit_are_named(key, net, message):
    with pytest.raises(ValueError, match=message):
        init_learner(net, key, jnp.ones((1, 4, 4)))
