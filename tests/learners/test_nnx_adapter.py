"""A Flax NNX module trains and evaluates through the calls that Linen learners get."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from learners import NnxLearner, call_learner, init_learner


class Network(nnx.Module):
    """Dense, batch norm, dropout, mean over the valid frames."""

    def __init__(self, channels, num_classes, *, rngs, rate=0.5):
        self.first = nnx.Linear(channels, 16, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.last = nnx.Linear(16, num_classes, rngs=rngs)

    def __call__(self, x, mask):
        x = nnx.relu(self.norm(self.first(x), mask=mask[..., None]))
        x = self.dropout(x) * mask[..., None].astype(x.dtype)
        return self.last(x.sum(1) / mask.sum(1)[:, None].astype(x.dtype))


class Maskless(nnx.Module):
    """One layer that takes nothing but features."""

    def __init__(self, channels, *, rngs):
        self.layer = nnx.Linear(channels, 2, rngs=rngs)

    def __call__(self, x):
        return self.layer(x.mean(1))


@pytest.fixture
def problem(key):
    """Features whose third channel tells the class, with a mask."""
    labels = jnp.arange(24) % 2
    features = jax.random.normal(key, (24, 6, 4))
    features = features.at[:, :, 2].add(3.0 * labels[:, None].astype(jnp.float32))
    return features, jnp.arange(6)[None, :] < 2 + jnp.arange(24)[:, None] % 5, labels


def test_variables_are_plain_arrays_in_linen_collections(problem, key):
    features, mask, _ = problem
    net = NnxLearner(Network, {"num_classes": 2})
    variables = init_learner(net, key, features, mask)
    assert set(variables) == {"params", "batch_stats"}
    assert variables["params"]["network"]["first"]["kernel"].shape == (4, 16)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(variables))
    again = init_learner(net, key, features, mask)
    jax.tree.map(lambda a, b: (a == b).all() or pytest.fail("not the same"), variables, again)


def test_train_switches_dropout_and_batch_statistics(problem, key):
    features, mask, _ = problem
    net = NnxLearner(Network, {"num_classes": 2})
    variables = init_learner(net, key, features, mask)

    def train(seed):
        return call_learner(
            net,
            variables,
            features,
            train=True,
            mask=mask,
            rngs={"dropout": jax.random.key(seed)},
            mutable=["batch_stats"],
        )

    (one, changed), (two, _), (again, _) = train(0), train(1), train(0)
    assert (one == again).all()
    assert (one != two).any()
    before = variables["batch_stats"]["network"]["norm"]["mean"]
    assert (changed["batch_stats"]["network"]["norm"]["mean"] != before).any()

    calm = call_learner(net, variables, features, train=False, mask=mask)
    assert (calm == call_learner(net, variables, features, train=False, mask=mask)).all()


def test_it_trains_under_jit(problem, key):
    features, mask, labels = problem
    net = NnxLearner(Network, {"num_classes": 2, "rate": 0.1})
    variables = init_learner(net, key, features, mask)
    optimizer = optax.sgd(0.1, momentum=0.9)

    @jax.jit
    def step(variables, state, key):
        def loss(params):
            logits, changed = call_learner(
                net,
                {**variables, "params": params},
                features,
                train=True,
                mask=mask,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), changed

        grads, changed = jax.grad(loss, has_aux=True)(variables["params"])
        updates, state = optimizer.update(grads, state)
        return {"params": optax.apply_updates(variables["params"], updates), **changed}, state

    state = optimizer.init(variables["params"])
    for i in range(60):
        variables, state = step(variables, state, jax.random.fold_in(key, i))
    logits = call_learner(net, variables, features, train=False, mask=mask)
    assert (logits.argmax(-1) == labels).mean() > 0.9


def test_a_module_without_mask_and_an_import_path(key, tmp_path, monkeypatch):
    (tmp_path / "outside_network.py").write_text(
        "from flax import nnx\n\n\n"
        "class Net(nnx.Module):\n"
        "    def __init__(self, channels, width, *, rngs):\n"
        "        self.layer = nnx.Linear(channels, width, rngs=rngs)\n\n"
        "    def __call__(self, x):\n"
        "        return self.layer(x.mean(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    features, mask = jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool)
    for net in (NnxLearner(Maskless), NnxLearner("outside_network:Net", {"width": 2})):
        variables = init_learner(net, key, features, mask)
        outputs = call_learner(net, variables, features, train=False, mask=mask)
        assert outputs.shape == (2, 2)
