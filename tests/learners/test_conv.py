"""The convolutional learner: sizes that follow the features, and padding that never matters."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest

from learners import ConvNet, call_learner, init_learner

SMALL = {"num_classes": 3, "features": (4, 8), "strides": (2,)}

# Compiled whole: one call compiles faster than its hundred operations one by one.
init = jax.jit(init_learner, static_argnums=0)
call = jax.jit(call_learner, static_argnums=0, static_argnames=("train", "mutable"))


def clips(key, batch=4, frames=20, channels=13, dtype=jnp.float32):
    """Features that are far from zero mean, with lengths from nearly nothing to everything."""
    features = 3 * jax.random.normal(key, (batch, frames, channels), dtype) - 20
    lengths = jnp.linspace(3, frames, batch)
    return features, jnp.arange(frames, dtype=lengths.dtype)[None, :] < lengths[:, None]


@pytest.fixture(scope="module")
def learner():
    """A small net, features, mask and variables that have seen one batch."""
    net = ConvNet(**SMALL)
    features, mask = clips(jax.random.key(1))
    variables = init(net, jax.random.key(2), features, mask)
    _, changed = call(
        net,
        variables,
        features,
        train=True,
        mask=mask,
        rngs={"dropout": jax.random.key(3)},
        mutable=("batch_stats",),
    )
    return net, features, mask, {**variables, **changed}


@partial(jax.jit, static_argnums=0, static_argnames="train")
def outputs(net, variables, features, mask, *, train):
    """Logits, changed statistics, and the gradient for parameters and features of a loss."""

    def loss(params, features):
        logits, changed = call(
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


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("junk", [1e4, jnp.nan])
def test_padding_frames_change_nothing(learner, train, junk):
    net, features, mask, variables = learner
    spoiled = jnp.where(mask[..., None], features, jnp.full_like(features, junk))
    clean = outputs(net, variables, features, mask, train=train)
    other = outputs(net, variables, spoiled, mask, train=train)
    assert_same(clean, other, 0.0)
    features_gradient = clean[2][1]
    assert not jnp.where(mask[..., None], jnp.zeros_like(features), features_gradient).any()


@pytest.mark.parametrize("extra", [1, 2])
def test_a_longer_padding_changes_nothing(learner, extra):
    net, features, mask, variables = learner
    longer = jnp.pad(features, ((0, 0), (0, extra), (0, 0)), constant_values=5.0)
    longer_mask = jnp.pad(mask, ((0, 0), (0, extra)))
    short = call(net, variables, features, train=False, mask=mask)
    long = call(net, variables, longer, train=False, mask=longer_mask)
    assert_same(short, long)


def test_rows_without_a_valid_frame_change_nothing(learner):
    net, features, mask, variables = learner
    net = net.clone(frame_masks=0, channel_masks=0, dropout=0.0)
    more = jnp.concatenate([features, jnp.full_like(features[:2], 9.0)])
    more_mask = jnp.concatenate([mask, jnp.zeros_like(mask[:2])])
    logits, stats, (gradient, _) = outputs(net, variables, features, mask, train=True)
    more_logits, more_stats, _ = outputs(net, variables, more, more_mask, train=True)
    assert_same((logits, stats), (more_logits[: len(logits)], more_stats))
    assert jnp.isfinite(more_logits).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_each_clip_is_judged_alone_in_evaluation(learner):
    net, features, mask, variables = learner
    together = call(net, variables, features, train=False, mask=mask)
    alone = [
        call(net, variables, features[i : i + 1], train=False, mask=mask[i : i + 1])
        for i in range(len(features))
    ]
    assert_same(together, jnp.concatenate(alone))


def test_no_mask_means_that_every_frame_is_valid(learner):
    net, features, mask, variables = learner
    without = call(net, variables, features, train=False)
    full = call(net, variables, features, train=False, mask=jnp.ones_like(mask))
    assert (without == full).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 2, 6), (3, 16, 71)])
def test_sizes_follow_the_features(key, shape):
    net = ConvNet(**SMALL)
    features = jax.random.normal(key, shape)
    variables = init(net, key, features)
    assert call(net, variables, features, train=False).shape == (shape[0], 3)


def test_the_dtype_follows_the_features(x64, key):
    net = ConvNet(**SMALL)
    features, mask = clips(key, dtype=jnp.float64)
    variables = init(net, key, features, mask)
    logits, changed, grads = outputs(net, variables, features, mask, train=True)
    leaves = jax.tree.leaves((variables, logits, changed, grads))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float64")}


def test_the_first_layer_takes_out_level_and_scale_of_each_channel(learner):
    net, features, mask, variables = learner
    gain = jnp.linspace(0.5, 4.0, features.shape[-1])[None, None]
    one = outputs(net, variables, features, mask, train=True)[0]
    two = outputs(net, variables, features * gain + 10.0, mask, train=True)[0]
    assert_same(one, two, 1e-3)


def test_stripes_and_dropout_are_for_training_only(learner):
    net, features, mask, variables = learner

    def logits(seed, train):
        return call(
            net,
            variables,
            features,
            train=train,
            mask=mask,
            rngs={"dropout": jax.random.key(seed)},
            mutable=("batch_stats",) if train else False,
        )

    assert (logits(0, False) == logits(1, False)).all()
    assert (logits(0, True)[0] == logits(0, True)[0]).all()
    assert (logits(0, True)[0] != logits(1, True)[0]).any()


def test_it_learns_where_in_frequency_the_energy_is(key):
    labels = jnp.arange(32) % 3
    noise = jax.random.normal(key, (32, 12, 9))
    features = noise.at[jnp.arange(32), :, 3 * labels + 1].add(3.0)
    net = ConvNet(**SMALL)
    variables = init(net, key, features)
    optimizer = optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def step(variables, state, key):
        def loss(params):
            logits, changed = call(
                net,
                {**variables, "params": params},
                features,
                train=True,
                rngs={"dropout": key},
                mutable=("batch_stats",),
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), changed

        grads, changed = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(grads, state)
        params = optax.apply_updates(variables["params"], updates)
        return {"params": params, **changed}, state

    state = optimizer.init(variables["params"])
    for i in range(40):
        variables, state = step(variables, state, jax.random.fold_in(key, i))
    logits = call(net, variables, features, train=False)
    assert (logits.argmax(-1) == labels).mean() > 0.95


def test_more_strides_than_convolutions_is_an_error(key):
    net = ConvNet(num_classes=3, features=(4,), strides=(2, 2))
    with pytest.raises(ValueError, match="strides"):
        init(net, key, jnp.ones((1, 8, 8)))


def test_an_even_kernel_is_an_error(key):
    net = ConvNet(num_classes=3, kernel=4)
    with pytest.raises(ValueError, match="odd"):
        init(net, key, jnp.ones((1, 8, 8)))
