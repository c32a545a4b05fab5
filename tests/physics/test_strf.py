"""Holds the receptive fields to the contract, and to moving ripples, which define them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from physics import testing
from physics.compose import Compose
from physics.cortex import AuditorySpectrogram, Strf
from physics.cortex.strf import toeplitz
from physics.stages import FeatureLayout

LAYOUT = FeatureLayout(frame_rate_hz=200.0, channels=(120,))


def composed(**ear):
    front = AuditorySpectrogram(
        sample_rate_hz=2000, channels_per_octave=4, memory_s=0.02, n_channels=6, **ear
    )
    cortex = Strf((10, 30), (1.0,), channels_per_octave=4, memory_s=0.11)
    return Compose(front=front, stages=(cortex,))


@pytest.mark.parametrize(
    "check",
    [c for c in testing.CHECKS if c is not testing.check_config],
    ids=lambda check: check.__name__,
)
def test_contract(check):
    check(composed())


def physical(strf, layout=LAYOUT):
    raw = strf.raw(layout, strf.initial(layout))
    return jax.tree.map(
        lambda value, wanted: jnp.asarray(wanted, value.dtype), raw, strf.initial(layout)
    )


def ripple(rate_hz, scale, frames=400, channels=120):
    """A moving ripple; down for rates and scales of the same sign."""
    seconds, octaves = np.arange(frames)[:, None] / 200.0, np.arange(channels)[None] / 24.0
    return 1 + np.cos(2 * np.pi * (rate_hz * seconds + scale * octaves))


def answers(strf, features):
    """RMS of each receptive field, away from the edges of the clip and of the cochlea."""
    run = jax.jit(lambda x: strf.apply(physical(strf), x, LAYOUT)[0])
    out = run(jnp.asarray(features, jnp.float32)[None])
    return np.sqrt(np.mean(np.square(np.asarray(out)[0, 200:, :, 30:90]), axis=(0, 2)))


def test_forty_receptive_fields_from_a_published_grid():
    strf = Strf()
    initial = strf.initial(LAYOUT)
    assert strf.n_strfs == 40
    np.testing.assert_allclose(sorted(set(initial["rate_hz"])), 2 ** np.linspace(1, 5, 4))
    scales = sorted(set(initial["scale_cyc_per_oct"]))
    np.testing.assert_allclose(scales, 2 ** np.linspace(-2, 3, 5))
    assert len(set(zip(*initial.values(), strict=True))) == 20
    out = jax.eval_shape(
        lambda x: strf.apply(physical(strf), x, LAYOUT)[0], jnp.zeros((3, 50, 120), jnp.float32)
    )
    assert out.shape == (3, 50, 40, 120)


def test_a_ripple_drives_most_the_field_that_is_tuned_to_it():
    strf = Strf((2.0, 4.0, 8.0, 16.0, 32.0), (0.5, 1.0, 2.0, 4.0))
    initial = strf.initial(LAYOUT)
    for rate_hz, scale in ((4.0, 1.0), (8.0, 0.5), (16.0, 2.0)):
        for upward in (0, 1):
            seen = answers(strf, ripple(rate_hz, -scale if upward else scale))
            best = int(np.argmax(seen))
            assert best // 20 == upward
            assert initial["rate_hz"][best] == rate_hz
            assert initial["scale_cyc_per_oct"][best] == scale
            # Half the amplitude of the ripple's cosine, whose RMS is 1 / sqrt(2).
            assert seen[best] == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
            assert seen[(best + 20) % 40] < 0.04 * seen[best]  # its mirror image


def test_what_does_not_change_is_not_heard():
    strf = Strf()
    steady_in_time = np.broadcast_to(ripple(0.0, 1.0)[:1], (400, 120))
    assert answers(strf, steady_in_time).max() < 1e-5
    one = jnp.ones((1, 400, 120), jnp.float32)
    parts = strf._scale_filters(physical(strf)["scale_cyc_per_oct"], 120)
    # No answer to a flat spectrum, but for the one tap of the transform, 120 channels away, that no
    # two of 120 channels need; it counts where the gain at the edge of the band is not small.
    scales = np.asarray(physical(strf)["scale_cyc_per_oct"], np.float64)
    ripples = np.arange(120)
    squared = (ripples / 120 * 12.0 / scales[:, None]) ** 2
    unused = (squared * np.exp(1 - squared) * (-1.0) ** ripples).sum(axis=1) / 240
    np.testing.assert_allclose(parts.sum(axis=-1) + np.stack([unused, 0 * unused]), 0, atol=1e-5)
    assert np.isfinite(strf.apply(physical(strf), one, LAYOUT)[0]).all()


def test_published_filters():
    strf = Strf((4.0,), (2.0,))
    values = physical(strf)
    seconds = np.arange(200) / 200.0
    cycles = 4.0 * seconds
    shape = np.sin(2 * np.pi * cycles) * cycles**2 * np.exp(-3.5 * cycles)
    shape -= shape.mean()
    rate = np.asarray(strf._rate_filters(values["rate_hz"], LAYOUT))
    correlation = np.corrcoef(rate[0, 0], shape)[0, 1]
    assert correlation == pytest.approx(1.0, abs=1e-6)
    spectral = np.asarray(strf._scale_filters(values["scale_cyc_per_oct"], 120))[:, 0]
    # The gain at each ripple density, from the response to one channel.
    ripples = np.arange(1, 120) / 120 * 12.0
    distance = np.arange(-119, 120)
    wave = np.exp(-2j * np.pi * ripples[:, None] * distance[None] / 24.0)
    both = wave @ (spectral[0] + 1j * spectral[1])
    wanted = (ripples / 2) ** 2 * np.exp(1 - (ripples / 2) ** 2)
    np.testing.assert_allclose(both, wanted, atol=2e-3)
    against = np.conj(wave) @ (spectral[0] + 1j * spectral[1])
    np.testing.assert_allclose(against, 0, atol=2e-3)  # one-sided


def test_direct_sums(x64):
    """The same by four loops."""
    layout = FeatureLayout(50.0, (6,))
    strf = Strf((5.0, 9.0), (1.5,), channels_per_octave=6, memory_s=0.2)
    values = jax.tree.map(jnp.asarray, strf.initial(layout))
    features = np.random.default_rng(0).standard_normal((1, 9, 6))
    out, _ = strf.apply(values, jnp.asarray(features), layout)
    rate = np.asarray(strf._rate_filters(values["rate_hz"], layout))
    spectral = np.asarray(strf._scale_filters(values["scale_cyc_per_oct"], 6))
    wanted = np.zeros((9, 4, 6))
    for t, k, place in np.ndindex(wanted.shape):
        for s in range(max(0, t - 9), t + 1):
            along = spectral[:, k, np.arange(place, place - 6, -1) + 5] @ features[0, s]
            wanted[t, k, place] += rate[0, k, t - s] * along[0] - rate[1, k, t - s] * along[1]
    np.testing.assert_allclose(out[0], wanted, atol=1e-12)


def test_learning_moves_a_field_towards_its_ripple():
    """The gradient of the answer points to the ripple's rate and scale, from both sides."""
    for rate_hz, scale in ((5.0, 1.4), (11.0, 1.4), (8.0, 0.7), (8.0, 2.6)):
        strf = Strf((rate_hz,), (scale,))
        features = jnp.asarray(ripple(8.0, 1.4)[None], jnp.float32)

        def loudness(values, strf=strf, features=features):
            out, _ = strf.apply(values, features, LAYOUT)
            return jnp.mean(out[:, 200:, 0, 30:90] ** 2)

        gradient = jax.jit(jax.grad(loudness))(physical(strf))
        if rate_hz != 8.0:
            assert np.sign(gradient["rate_hz"][0]) == np.sign(8.0 - rate_hz)
        if scale != 1.4:
            assert np.sign(gradient["scale_cyc_per_oct"][0]) == np.sign(1.4 - scale)


def test_a_long_clip_in_pieces_gives_the_same(key):
    layout = FeatureLayout(50.0, (6,))
    long, short = (Strf((5.0,), (1.5,), channels_per_octave=6, memory_s=s) for s in (2.0, 0.4))
    features = jax.random.normal(key, (2, 117, 6))
    values = physical(short, layout)
    whole, end = short.apply(values, features, layout)
    parts, state = [], None
    for piece in (features[:, :30], features[:, 30:]):
        out, state = short.apply(values, piece, layout, state)
        parts.append(out)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-5)
    np.testing.assert_array_equal(state, end)
    assert long._memory(layout) == 100  # and the other, of 20 frames, went through several pieces


def test_ears_are_heard_one_by_one(key):
    layout = FeatureLayout(50.0, (2, 6))
    strf = Strf((5.0, 8.0), (1.5,), channels_per_octave=6, memory_s=0.4)
    features = jax.random.normal(key, (3, 12, 2, 6))
    values = physical(strf, layout)
    both, _ = strf.apply(values, features, layout)
    assert both.shape == (3, 12, 2 * 4, 6)
    one = FeatureLayout(50.0, (6,))
    for ear in (0, 1):
        alone, _ = strf.apply(values, features[:, :, ear], one)
        np.testing.assert_allclose(both[:, :, 4 * ear : 4 * ear + 4], alone, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (5, 3), (1, 4), (4, 1), (4, 4)])
def test_toeplitz(rows, columns):
    diagonals = np.arange(rows + columns - 1.0)
    wanted = scipy.linalg.toeplitz(diagonals[columns - 1 :], diagonals[:columns][::-1])
    got = toeplitz(jnp.asarray(diagonals, jnp.float32)[None], rows, columns)
    np.testing.assert_array_equal(got[0], wanted)


@pytest.mark.parametrize(
    ("strf", "rule"),
    [
        (Strf(rates_hz=(0.5,)), "rate_hz must lie in"),
        (Strf(scales_cyc_per_oct=(12.0,)), "scale_cyc_per_oct must lie in"),
        (Strf(rates_hz=()), "a rate and a scale"),
    ],
)
def test_what_cannot_be_is_refused(strf, rule):
    with pytest.raises(ValueError, match=rule):
        strf.raw(LAYOUT, strf.initial(LAYOUT))
