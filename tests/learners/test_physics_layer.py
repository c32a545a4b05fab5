"""Physics inside a network: where its params are, that they keep their bounds, NNX networks too."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from learners import MLP, PhysicsLayer, keep_bounds
from physics import Parameter, Physics, frame_mask

HOP = 4


@dataclasses.dataclass(frozen=True)
class Ear(Physics):
    """Energy in frames, times a gain and a health; what it starts from is drawn."""

    hop_samples: int = HOP  # type: ignore[misc]

    def specs(self):
        return {
            "gain": Parameter("1", 0.1, 2.0, "Gain.", "None."),
            "hair": {"health": Parameter("1", 0.0, 1.0, "Health.", "None.", "project")},
        }

    def init(self, key):
        health = jax.random.uniform(key, (3,))
        return {"gain": jnp.zeros(3), "hair": {"health": health}}

    def apply(self, params, inputs, state=None, lengths=None):
        values = self.physical(params)
        frames = inputs.reshape(inputs.shape[0], -1, HOP)
        energy = (frames**2).mean(-1)[..., None]
        scale = values["gain"] * values["hair"]["health"]
        features = energy * scale[None, None, :]
        if lengths is not None:
            mask = frame_mask(features.shape[1], HOP, lengths)
            features = jnp.where(mask[..., None], features, jnp.zeros_like(features))
        return features, state


class Network(nn.Module):
    """Physics, then a perceptron."""

    collection: str = "params"

    @nn.compact
    def __call__(self, audio, lengths, *, train=False):
        features = PhysicsLayer(Ear(), self.collection, name="ear")(audio, lengths)
        mask = frame_mask(features.shape[1], HOP, lengths)
        net = MLP(2, widths=(4,), context_frames=0, dropout=0.0, name="net")
        return net(features, train=train, mask=mask)


def sounds(key):
    audio = jax.random.normal(key, (3, 24))
    return audio, jnp.array([24, 10, 20])


@pytest.mark.parametrize("collection", ["params", "physics"])
def test_the_params_are_those_of_the_physics_in_the_collection_asked_for(key, collection):
    audio, lengths = sounds(key)
    variables = Network(collection).init({"params": key}, audio, lengths)
    params = variables[collection]["ear"]
    assert set(params) == {"gain", "hair"}
    assert jax.tree.structure(params) == jax.tree.structure(Ear().init(key))
    assert set(variables["params"]) == ({"net"} if collection == "physics" else {"net", "ear"})
    features = PhysicsLayer(Ear()).apply({"params": params}, audio, lengths)
    np.testing.assert_array_equal(features, Ear().apply(params, audio, lengths=lengths)[0])
    spoiled = audio.at[1, 10:].set(9.0)
    logits = [Network(collection).apply(variables, sound, lengths) for sound in (audio, spoiled)]
    np.testing.assert_array_equal(*logits)


def test_all_params_come_from_one_draw(key):
    """Not one for each leaf: what a module draws for two leaves together stays together."""

    class Twins(Ear):
        def init(self, key):
            params = super().init(key)
            return params | {"gain": params["hair"]["health"]}

    params = PhysicsLayer(Twins()).init(key, *sounds(key))["params"]
    np.testing.assert_array_equal(params["gain"], params["hair"]["health"])


@pytest.mark.parametrize("collection", ["params", "physics"])
@pytest.mark.parametrize("bounded", [True, False])
def test_bounds_hold_under_huge_steps(key, collection, bounded):
    audio, lengths = sounds(key)
    network = Network(collection)
    variables = network.init({"params": key}, audio, lengths)
    trained = {name: variables[name] for name in {"params", collection}}
    at = f"{collection}.ear"
    ear = [optax.adam(5.0)] + ([keep_bounds(Ear(), at)] if bounded else [])
    labels = jax.tree.map(lambda _: "net", trained)
    labels[collection]["ear"] = "ear"
    optimizer = optax.multi_transform({"ear": optax.chain(*ear), "net": optax.adam(1e-3)}, labels)

    @jax.jit
    def step(trained, state):
        def loss(trained):
            logits = network.apply(variables | trained, audio, lengths)
            return jnp.sum(logits[:, 0] - logits[:, 1]) * jnp.cos(state[1])

        updates, inner = optimizer.update(jax.grad(loss)(trained), state[0], trained)
        return optax.apply_updates(trained, updates), (inner, state[1] + 1.0)

    inside, moved = [], []
    state = (optimizer.init(trained), jnp.zeros(()))
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(30):
            before = trained
            trained, state = step(trained, state)
            values = Ear().physical(trained[collection]["ear"])
            gain, health = values["gain"], values["hair"]["health"]
            inside.append(
                bool(((gain > 0.1) & (gain < 2.0)).all() & ((health >= 0) & (health <= 1)).all())
            )
            changed = trained[collection]["ear"]["hair"]["health"]
            moved.append(bool((changed != before[collection]["ear"]["hair"]["health"]).any()))
    assert any(moved)
    assert all(inside) is bounded


def test_what_fits_passes_and_what_does_not_ends_where_the_projection_does(key):
    params = {"gain": jnp.array([0.0, 11.0, -3.0]), "hair": {"health": jnp.array([0.5, 0.9, 0.1])}}
    updates = {"gain": jnp.array([0.5, 3.0, 0.0]), "hair": {"health": jnp.array([0.25, 0.2, -9.0])}}
    kept, _ = keep_bounds(Ear()).update(updates, optax.EmptyState(), params)
    ends = optax.apply_updates(params, kept)
    np.testing.assert_allclose(ends["gain"], [0.5, 12.0, -3.0])
    np.testing.assert_allclose(ends["hair"]["health"], [0.75, 1.0, 0.0])


def test_a_wrong_place_and_missing_params_are_errors(key):
    params = {"ear": Ear().init(key)}
    with pytest.raises(ValueError, match="no 'cochlea' of at='cochlea' among ear: give the name"):
        keep_bounds(Ear(), "cochlea").update(params, optax.EmptyState(), params)
    with pytest.raises(ValueError, match="needs the params"):
        keep_bounds(Ear(), "ear").update(params, optax.EmptyState())


def test_an_nnx_network_holds_physics_too(key):
    class Joined(nnx.Module):
        def __init__(self, audio, *, rngs):
            self.ear = nnx.bridge.ToNNX(PhysicsLayer(Ear()), rngs=rngs).lazy_init(audio)
            self.out = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, audio, lengths=None):
            return self.out(self.ear(audio, lengths).mean(1))

    audio, lengths = sounds(key)
    network = Joined(audio, rngs=nnx.Rngs(0))
    gradient = nnx.grad(lambda network: (network(audio, lengths) ** 2).sum())(network)
    assert jnp.abs(gradient["ear"]["hair"]["health"][...]).max() > 0
    assert jnp.abs(gradient["out"]["kernel"][...]).max() > 0
