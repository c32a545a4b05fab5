"""Controls of a synthesiser, frame by frame, that know nothing of the future or of level units."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learners.decoder import Decoder

SIZES = {"amplitude": 1, "harmonics": 3, "noise": 2}
NET = Decoder(width=4, depth=1, latent_size=2, timbre_width=3)


@pytest.fixture(scope="module")
def made():
    keys = jax.random.split(jax.random.key(0), 4)
    f0_hz = 200 + 100 * jax.random.uniform(keys[0], (2, 7))
    loudness_db = -60 + 40 * jax.random.uniform(keys[1], (2, 7))
    timbre = jax.random.normal(keys[2], (2, 7, 5))
    variables = jax.jit(partial(NET.init, sizes=SIZES, train=False))(
        keys[3], f0_hz, loudness_db, timbre
    )
    return variables, f0_hz, loudness_db, timbre


@partial(jax.jit, static_argnames="net")
def decode(variables, *heard, net=NET, **masks):
    return net.apply(variables, *heard, SIZES, train=False, **masks)


def test_sizes_by_name(made):
    variables, *heard = made
    controls = decode(variables, *heard)
    assert {name: value.shape for name, value in controls.items()} == {
        name: (2, 7, size) for name, size in SIZES.items()
    }


def test_each_input_matters_and_none_before_its_time(made):
    variables, *heard = made
    before = decode(variables, *heard)["harmonics"]
    for place, change in enumerate((1.3, 0.5, 2.0)):
        changed = list(heard)
        changed[place] = changed[place].at[:, 4:].multiply(change)
        after = decode(variables, *changed)["harmonics"]
        np.testing.assert_allclose(after[:, :4], before[:, :4], atol=1e-6)
        assert np.abs(after[:, 4:] - before[:, 4:]).max() > 1e-4


def test_silence_and_no_pitch_are_finite(made):
    variables, f0_hz, loudness_db, timbre = made

    def total(f0_hz, loudness_db):
        controls = decode(variables, f0_hz, loudness_db, timbre)
        return sum(jnp.sum(value) for value in controls.values())

    grads = jax.grad(total, (0, 1))(jnp.zeros_like(f0_hz), -200 + jnp.zeros_like(loudness_db))
    assert all(np.isfinite(g).all() for g in grads)


def test_one_timbre_for_a_clip(made):
    variables, f0_hz, loudness_db, timbre = made
    net = NET.clone(whole_clip=True)
    mask = jnp.arange(7)[None] < jnp.array([[7], [4]])
    outputs = [
        decode(variables, f0_hz, loudness_db, t, net=net, mask=mask)["noise"]
        for t in (timbre, jnp.where(mask[..., None], timbre, 9.0), timbre.at[:, 3].add(1.0))
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert np.all(np.any(outputs[0] != outputs[2], axis=(1, 2)))
    # The first frame hears of the fourth.
    assert np.any(outputs[0][:, 0] != outputs[2][:, 0])


@pytest.mark.parametrize("whole_clip", [False, True])
def test_the_timbre_of_a_shorter_sound_is_held(made, whole_clip):
    variables, *heard, timbre = made
    net = NET.clone(whole_clip=whole_clip)
    lent = jnp.arange(7)[None] < jnp.array([[4], [2]])

    def harmonics(timbre):
        given = {"mask": jnp.ones((2, 7), bool), "timbre_mask": lent}
        return decode(variables, *heard, timbre, net=net, **given)["harmonics"]

    before = harmonics(timbre)
    np.testing.assert_array_equal(harmonics(jnp.where(lent[..., None], timbre, jnp.nan)), before)
    # What its last frame says goes on to be heard.
    last = jnp.zeros(timbre.shape).at[0, 3].set(1.0)
    after = harmonics(timbre + last)
    assert np.all(np.any(after[0, 3:] != before[0, 3:], axis=-1))
