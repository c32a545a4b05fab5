"""How learners are called: with a mask only if they take one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from learners import ConvNet, accepts_mask, call_learner, init_learner


class Plain(nn.Module):
    """A network that knows nothing about masks."""

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(2)(x.mean(1))


class Keywords(nn.Module):
    """A network that takes anything."""

    @nn.compact
    def __call__(self, x, **keywords):
        return x.sum() * 0 + len(keywords)


class Parameterless(nn.Module):
    """A network without parameters."""

    def __call__(self, x, train, mask=None):
        return x.mean((1, 2))


@pytest.mark.parametrize(
    ("module", "expected"), [(Plain(), False), (Keywords(), True), (ConvNet(2), True)]
)
def test_the_signature_decides_whether_the_mask_is_given(module, expected):
    assert accepts_mask(module) is expected


def test_a_plain_function_may_be_asked_too():
    assert accepts_mask(lambda x, mask: x)
    assert not accepts_mask(lambda x: x)


def test_a_network_without_mask_is_called_without_it(key):
    features, mask = jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool)
    variables = init_learner(Plain(), key, features, mask)
    outputs = call_learner(Plain(), variables, features, train=False, mask=mask)
    assert outputs.shape == (2, 2)


def test_a_network_with_a_mask_is_given_one_always(key):
    class Needs(nn.Module):
        @nn.compact
        def __call__(self, x, train, mask):
            return mask.sum(axis=1)

    variables = init_learner(Needs(), key, jnp.ones((2, 3, 4)))
    assert call_learner(Needs(), variables, jnp.ones((2, 3, 4)), train=False).tolist() == [3, 3]


def test_a_network_without_parameters_has_an_empty_tree(key):
    variables = init_learner(Parameterless(), key, jnp.ones((2, 3, 4)))
    assert variables == {"params": {}}


def test_mutable_collections_come_back_and_others_do_not(key):
    features = jax.random.normal(key, (2, 8, 8))
    net = ConvNet(2, features=(2,), strides=())
    variables = init_learner(net, key, features)
    rngs = {"dropout": key}
    outputs, changed = call_learner(
        net, variables, features, train=True, rngs=rngs, mutable=("batch_stats",)
    )
    assert outputs.shape == (2, 2)
    assert set(changed) == {"batch_stats"}
    assert call_learner(net, variables, features, train=False).shape == (2, 2)
