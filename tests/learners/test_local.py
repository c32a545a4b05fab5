"""One rule for all frequencies: what is near counts, where it lies, and nothing else."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learners.decoder import Decoder
from learners.local import Local, at_frequencies, normalised_as_one

CHANNELS_HZ = jnp.linspace(0.0, 4000.0, 41)
NET = Local(width=4)
SIZES = {"amplitude": 1, "harmonics": 3, "noise": 2}


@pytest.fixture(scope="module")
def made():
    keys = jax.random.split(jax.random.key(0), 3)
    features = jax.random.normal(keys[0], (2, 5, 41))
    context = jax.random.normal(keys[1], (2, 5, 6))
    places_hz = jnp.array([[200.0], [300.0]])[:, None] * jnp.arange(1.0, 7.0)[None, None]
    places_hz = jnp.broadcast_to(places_hz, (2, 5, 6))
    variables = jax.jit(NET.init)(keys[2], features, CHANNELS_HZ, places_hz, context)
    # The last layer begins at 0.
    variables["params"]["rest"]["kernel"] += 1.0
    return variables, features, places_hz, context


@partial(jax.jit, static_argnames="net")
def decode(variables, *heard, net, **others):
    return net.apply(variables, *heard, SIZES, train=False, **others)


@jax.jit
def look(variables, features, places_hz, context, channels_hz=CHANNELS_HZ):
    return NET.apply(variables, features, channels_hz, places_hz, context)


def test_features_at_frequencies():
    features = jnp.asarray(np.arange(12.0).reshape(1, 2, 6) ** 2, jnp.float32)
    hertz = jnp.array([100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0])
    places = jnp.array([[[400.0, 1200.0, 10.0, 9000.0], [100.0, 150.0, 3200.0, 600.0]]])
    found = at_frequencies(features, hertz, places)
    np.testing.assert_allclose(found, [[[4, 12.5, 0, 25], [36, 42.5, 121, 72.5]]], rtol=1e-6)
    backwards = at_frequencies(features[..., ::-1], hertz[::-1], places)
    np.testing.assert_array_equal(found, backwards)


def test_what_is_near_counts_and_nothing_else(made):
    variables, features, places_hz, context = made
    before = look(variables, features, places_hz, context)
    # 2500 Hz: more than a step above the last place of the first row, 1200 Hz.
    far = look(variables, features.at[0, :, 25:].add(3.0), places_hz, context)
    np.testing.assert_array_equal(before, far)
    near = look(variables, features.at[0, 2, 6].add(3.0), places_hz, context)
    changed = np.abs(np.asarray(near - before)) > 1e-6
    # 600 Hz is the third place, half a step from none, a step from two; now and a frame later.
    assert changed[0, 2].tolist() == [False, True, True, True, False, False]
    assert changed[0, 3].tolist() == [False, False, True, False, False, False]
    assert not changed[1].any()
    assert not changed[0, [0, 1, 4]].any()


def test_the_same_rule_everywhere(made):
    variables, features, places_hz, context = made
    # A flat spectrum, and a place that both rows have: 600 Hz, the third and the second.
    flat = jnp.ones_like(features)
    alike = jnp.ones_like(context)
    found = look(variables, flat, places_hz, alike)
    np.testing.assert_allclose(found[0, :, 2], found[1, :, 1], rtol=1e-5)


def test_the_first_frame_is_before_itself_and_height_counts(made):
    variables, features, places_hz, context = made
    still = jnp.broadcast_to(features[:, :1], features.shape)
    alike = jnp.broadcast_to(context[:, :1], context.shape)
    found = look(variables, still, places_hz, alike)
    np.testing.assert_allclose(found, np.broadcast_to(found[:, :1], found.shape), rtol=1e-5)
    # Of the weights of one input after the other, those of the height and of its square too.
    flat = jnp.ones_like(features)
    for row in range(8):
        params = {**variables["params"], "linear": dict(variables["params"]["linear"])}
        kernel = jnp.zeros_like(params["linear"]["kernel"]).at[row].set(1.0)
        params["linear"]["kernel"] = kernel
        heights = look({"params": params}, flat, places_hz, jnp.zeros_like(context))
        rest = look(
            {"params": params | {"linear": {"kernel": 0 * kernel, "bias": jnp.zeros(1)}}},
            flat,
            places_hz,
            jnp.zeros_like(context),
        )
        octave = np.log2(np.asarray(places_hz) / 1000) / 4
        expected = {6: octave, 7: octave**2}.get(row, np.ones_like(octave))
        np.testing.assert_allclose(heights - rest, expected, rtol=1e-4, atol=1e-5)


def test_places_have_no_gradient():
    features = jnp.arange(6.0).reshape(1, 1, 6) ** 2
    hertz = 100 * jnp.arange(1.0, 7.0)
    places = jnp.array([[[250.0, 610.0]]])
    got = jax.grad(lambda p, f: jnp.sum(at_frequencies(f, hertz, p)), (0, 1))(places, features)
    np.testing.assert_array_equal(got[0], 0)
    np.testing.assert_allclose(got[1][0, 0], [0, 0.5, 0.5, 0, 0, 1])


def test_one_place_is_as_far_from_the_next_as_from_0(made):
    _, features, places_hz, context = made
    one = places_hz[..., :1]
    variables = jax.jit(NET.init)(jax.random.key(0), features, CHANNELS_HZ, one, context)
    before = look(variables, features, one, context)
    # 200 Hz; the step is 200 Hz, so that 0 and 400 Hz are looked at, and 600 Hz is not.
    for channel, seen in ((0, True), (4, True), (6, False)):
        after = look(variables, features.at[0, 2, channel].add(5.0), one, context)
        assert np.any(before != after) == seen


def test_ratios_of_channels_stay():
    features = jax.random.normal(jax.random.key(1), (2, 6, 3)) * jnp.array([[[1.0, 2.0, 3.0]]]) + 5
    mask = jnp.arange(6)[None] < jnp.array([[6], [4]])
    norm = WithNorm()
    dirty = jnp.where(mask[..., None], features, jnp.nan)
    found, stats = norm.init_with_output(jax.random.key(0), dirty, mask)
    assert np.isfinite(found).all()
    assert not np.any(np.asarray(found)[~np.asarray(mask)])
    assert {leaf.shape for leaf in jax.tree.leaves(stats)} == {(1,)}
    valid = np.asarray(found)[np.asarray(mask)]
    assert valid.mean() == pytest.approx(0, abs=1e-5)
    assert valid.std() == pytest.approx(1, abs=1e-4)
    apart = np.asarray(features)[np.asarray(mask)]
    np.testing.assert_allclose(np.diff(valid), np.diff(apart) / apart.std(), rtol=1e-4, atol=1e-5)


class WithNorm(nn.Module):
    """A module around `normalised_as_one`."""

    @nn.compact
    def __call__(self, features, mask):
        return normalised_as_one(features, mask, train=True)


@pytest.fixture(scope="module")
def decoder():
    keys = jax.random.split(jax.random.key(0), 3)
    net = Decoder(width=4, depth=1, latent_size=2, timbre_width=3, local_width=4)
    f0_hz = jnp.full((2, 5), 500.0)
    heard = (f0_hz, jnp.full((2, 5), -30.0), jax.random.normal(keys[0], (2, 5, 41)))
    places = {
        "harmonics": f0_hz[..., None] * jnp.arange(1.0, 4.0)[None, None],
        "noise": jnp.broadcast_to(jnp.array([0.0, 4000.0]), (2, 5, 2)),
    }
    where = {"channels_hz": CHANNELS_HZ, "places_hz": places}
    variables = jax.jit(partial(net.init, sizes=SIZES, train=False))(keys[1], *heard, **where)
    return net, variables, heard, where


def test_a_decoder_adds_it_to_controls_along_frequency(decoder):
    net, variables, heard, where = decoder
    controls = decode(variables, *heard, net=net, **where)
    without = decode(variables, *heard, net=net.clone(local_width=0))
    assert np.any(controls["harmonics"] != without["harmonics"])
    assert np.any(controls["noise"] != without["noise"])
    np.testing.assert_array_equal(controls["amplitude"], without["amplitude"])


def test_nothing_of_the_padding_is_seen(decoder):
    net, variables, (f0_hz, loudness_db, timbre), where = decoder
    mask = jnp.arange(5)[None] < jnp.array([[5], [3]])
    run = partial(decode, variables, net=net, mask=mask, **where)
    clean = run(f0_hz, loudness_db, timbre)
    dirty = run(f0_hz, loudness_db, jnp.where(mask[..., None], timbre, jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)


def test_what_is_missing_is_said(decoder):
    net, variables, heard, where = decoder
    with pytest.raises(ValueError, match="41 features, and has none"):
        net.apply(variables, *heard, SIZES, train=False, places_hz=where["places_hz"])
    fewer = where | {"channels_hz": CHANNELS_HZ[:3]}
    with pytest.raises(ValueError, match=r"41 features, and has \(3,\) of them"):
        net.apply(variables, *heard, SIZES, train=False, **fewer)
    with pytest.raises(ValueError, match="places_hz"):
        net.apply(variables, *heard, SIZES, train=False, channels_hz=CHANNELS_HZ)
    with pytest.raises(ValueError, match="whole number"):
        net.clone(local_width=-1).apply(variables, *heard, SIZES, train=False, **where)
    mask = jnp.ones((2, 5), bool)
    with pytest.raises(ValueError, match="local_width=0"):
        net.apply(variables, *heard, SIZES, train=False, timbre_mask=mask, **where)
