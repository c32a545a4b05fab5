"""The network that labels frames: what it takes, padding that never matters, what it can learn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from learners import StrfCnn, call_learner, init_learner

SMALL = StrfCnn(num_classes=3, n_strfs=4, features=(5, 6))
init = jax.jit(init_learner, static_argnums=0)
call = jax.jit(call_learner, static_argnums=0, static_argnames=("train", "mutable"))


@pytest.fixture(scope="module")
def clips():
    """Features `[3, 11, 4, 10]`, a mask of 11, 6 and 0 frames, variables after one batch."""
    features = 3 * jax.random.normal(jax.random.key(1), (3, 11, 4, 10))
    mask = jnp.arange(11)[None] < jnp.array([11, 6, 0])[:, None]
    variables = init(SMALL, jax.random.key(2), features, mask)
    _, changed = call(SMALL, variables, features, train=True, mask=mask, mutable=("batch_stats",))
    return features, mask, {**variables, **changed}


def test_a_label_for_each_frame_of_images_and_of_flat_features(clips):
    features, mask, variables = clips
    logits = call(SMALL, variables, features, train=False, mask=mask)
    assert logits.shape == (3, 11, 3)
    flat = call(SMALL, variables, features.reshape(3, 11, 40), train=False, mask=mask)
    np.testing.assert_array_equal(flat, logits)
    widths = [variables["params"][f"Conv_{i}"]["kernel"].shape for i in (0, 1)]
    assert widths == [(3, 3, 4, 5), (3, 3, 5, 6)]
    assert variables["params"]["Dense_0"]["kernel"].shape == (6, 3)  # 10 places, then 3, then 1


def test_the_published_sizes():
    net = StrfCnn(num_classes=42)
    features = jnp.zeros((1, 2, 40 * 128))
    shapes = jax.eval_shape(partial(init_learner, net), jax.random.key(0), features)["params"]
    kernels = [shapes[f"Conv_{i}"]["kernel"].shape for i in range(3)]
    assert kernels == [(3, 3, 40, 10), (3, 3, 10, 20), (3, 3, 20, 40)]
    assert shapes["Dense_0"]["kernel"].shape == (4 * 40, 42)


@partial(jax.jit, static_argnames="train")
def outputs(variables, features, mask, *, train):
    """Valid logits, changed statistics, and gradients of a loss over the valid frames."""

    def loss(params, features):
        logits, changed = call(
            SMALL,
            {**variables, "params": params},
            features,
            train=train,
            mask=mask,
            mutable=("batch_stats",),
        )
        logits = jnp.where(mask[..., None], logits, 0)
        return (logits**2).sum(), (logits, changed)

    gradient, aux = jax.grad(loss, (0, 1), has_aux=True)(variables["params"], features)
    return aux, gradient


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("junk", [7e3, np.nan])
def test_padding_frames_change_nothing(clips, train, junk):
    features, mask, variables = clips
    dirty = jnp.where(mask[:, :, None, None], features, junk)
    clean = outputs(variables, features, mask, train=train)
    jax.tree.map(np.testing.assert_array_equal, outputs(variables, dirty, mask, train=train), clean)
    assert not np.any(np.asarray(clean[1][1])[~np.asarray(mask)])


def test_a_longer_padding_changes_nothing(clips):
    features, mask, variables = clips
    longer = jnp.pad(features, ((0, 0), (0, 5), (0, 0), (0, 0)))
    (logits, _), _ = outputs(variables, features, mask, train=False)
    (after, _), _ = outputs(variables, longer, jnp.pad(mask, ((0, 0), (0, 5))), train=False)
    np.testing.assert_allclose(after[:, :11], logits, rtol=1e-5, atol=1e-6)


def test_fields_come_to_unit_size_whatever_the_level(clips):
    features, mask, variables = clips
    mean_square = variables["batch_stats"]["mean_square"]
    heard = np.asarray(features)[np.asarray(mask)]
    wanted = 0.9 + 0.1 * np.mean(heard**2, axis=(0, 2))
    np.testing.assert_allclose(mean_square, wanted, rtol=1e-5)
    (logits, _), _ = outputs(variables, features, mask, train=True)
    (louder, _), _ = outputs(variables, 100 * features, mask, train=True)
    np.testing.assert_allclose(louder, logits, rtol=1e-4, atol=1e-5)


def test_it_learns_to_label_frames(key):
    """Which of two fields is louder, frame by frame."""
    net = StrfCnn(num_classes=2, n_strfs=2, features=(6,))
    choice, noise = jax.random.split(key)
    first = jax.random.bernoulli(choice, 0.5, (8, 12))
    loudness = jnp.stack([jnp.where(first, 3.0, 1.0), jnp.where(first, 1.0, 3.0)], -1)
    features = jax.random.normal(noise, (8, 12, 2, 6)) * loudness[..., None]
    labels = first.astype(jnp.int32)
    variables = init(net, key, features)
    params, optimizer = variables["params"], optax.adam(1e-2)

    def accuracy(params):
        logits = call(net, {**variables, "params": params}, features, train=False)
        return float(jnp.mean(jnp.argmax(logits, -1) == labels))

    @jax.jit
    def train(params):
        def step(carry, _):
            def loss(params):
                logits, _ = call_learner(
                    net,
                    {**variables, "params": params},
                    features,
                    train=True,
                    mutable=("batch_stats",),
                )
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            params, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(loss)(params), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=150)[0][0]

    # Optax raises floats to integer counts.
    with jax.numpy_dtype_promotion("standard"):
        trained = train(params)
    assert accuracy(params) < 0.75
    assert accuracy(trained) > 0.9


@pytest.mark.parametrize("shape", [(2, 5, 41), (2, 5, 5, 8)])
def test_features_of_other_fields_are_refused(key, shape):
    with pytest.raises(ValueError, match="n_strfs=4"):
        init_learner(SMALL, key, jnp.zeros(shape))


def test_an_even_kernel_is_refused(key):
    net = StrfCnn(num_classes=2, n_strfs=4, kernel=4)
    with pytest.raises(ValueError, match="try 5"):
        init_learner(net, key, jnp.zeros((1, 2, 4, 9)))
