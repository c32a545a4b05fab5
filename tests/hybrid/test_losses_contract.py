"""What every loss keeps: padding and empty rows change nothing, and gradients are always finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid import losses

RATE_HZ = 8000.0
TIME = 600

LOSSES = {
    "l1": losses.L1(),
    "l2": losses.L2(),
    "log_cosh": losses.LogCosh(sharpness=10),
    "snr": losses.Snr(),
    "si_sdr": losses.SiSdr(),
    "esr": losses.Esr(),
    "stft": losses.Stft(n_fft=128, hop_samples=30, window_samples=100, linear_weight=0.5),
    "mel": losses.MultiResolutionStft(
        n_fft=(256, 64),
        hop_samples=(64, 16),
        window_samples=(256, 40),
        n_mels=(20, 40),  # 40 bands of 33 bins: some have none
        sample_rate_hz=RATE_HZ,
    ),
    "strf": losses.StrfLoss(RATE_HZ, pairs=((10.0, 0.1), (5.0, -0.2)), n_mels=20),
    "cochlear": losses.CochlearLoss(RATE_HZ, initial={"car.ohc_health": 0.5}, hop_s=0.01),
    "cortical": losses.CorticalLoss(
        RATE_HZ,
        ear={"channels_per_octave": 4, "n_channels": 10, "memory_s": 0.02},
        cortex={"rates_hz": (10.0,), "scales_cyc_per_oct": (0.5, 1.0), "memory_s": 0.1},
    ),
}
# Long enough for a few frames of each, and one of them odd.
LENGTHS = np.array([TIME, 401, 0], np.int32)

every_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture(scope="module")
def compiled(quickly):
    """By name: value, gradient for estimate and target, value of each clip; compiled once."""
    made = {}

    def get(name):
        if name not in made:
            loss = LOSSES[name]
            both = jax.value_and_grad(loss, argnums=(0, 1))
            made[name] = quickly(lambda e, t, n: (*both(e, t, n), loss.per_clip(e, t, n)))
        return made[name]

    return get


def noise(seed=0, rows=3, time=TIME):
    rng = np.random.default_rng(seed)
    target = (0.1 * rng.standard_normal((rows, time))).astype(np.float32)
    estimate = (target + 0.03 * rng.standard_normal((rows, time))).astype(np.float32)
    return estimate, target


@every_loss
def test_padding_changes_nothing(compiled, name):
    estimate, target = noise()
    beyond = np.arange(TIME)[None] >= LENGTHS[:, None]
    value, gradients, each = compiled(name)(
        np.where(beyond, np.float32(0), estimate), np.where(beyond, np.float32(0), target), LENGTHS
    )
    dirty = compiled(name)(
        np.where(beyond, np.float32("nan"), estimate),
        np.where(beyond, np.float32(1e9), target),
        LENGTHS,
    )
    assert jnp.isfinite(value)
    assert float(value) == float(dirty[0])
    for gradient, other in zip(gradients, dirty[1], strict=True):
        np.testing.assert_array_equal(gradient, other)
        np.testing.assert_array_equal(np.asarray(gradient)[beyond], 0)
        assert np.abs(np.asarray(gradient)[:2]).max(axis=1).min() > 0
    assert float(each[2]) == 0


@every_loss
def test_a_padded_clip_is_worth_what_it_is_alone(compiled, name, quickly):
    estimate, target = noise()
    alone = quickly(LOSSES[name])(estimate[1:2, : LENGTHS[1]], target[1:2, : LENGTHS[1]])
    _, _, each = compiled(name)(estimate, target, LENGTHS)
    assert float(each[1]) == pytest.approx(float(alone), rel=2e-4)


@every_loss
def test_no_sound_breaks_value_or_gradient(compiled, name):
    full = np.full(3, TIME, np.int32)
    click = np.zeros((1, TIME), np.float32)
    click[0, 50] = 1
    silence, loud = np.zeros((1, TIME), np.float32), noise(1, 1)[0] * 10
    constant, faint = np.ones((1, TIME), np.float32), loud * np.float32(1e-12)
    sounds = [silence, click, loud, constant, faint]
    for shift in range(len(sounds)):
        estimate = np.concatenate(np.roll(sounds, shift, axis=0)[:3])
        for target in (np.concatenate(sounds[:3]), np.concatenate(sounds[2:])):
            value, gradients, each = compiled(name)(estimate, target, full)
            finite = [value, each, *gradients]
            assert all(np.isfinite(x).all() for x in finite), (shift, finite)


@every_loss
def test_equal_sounds_are_a_minimum(compiled, name):
    _, target = noise()
    value, gradients, _ = compiled(name)(target, target, LENGTHS)
    near, slopes, _ = compiled(name)(noise()[0], target, LENGTHS)
    assert float(value) < float(near)
    if name != "si_sdr":  # divides rounding by next to nothing
        assert np.abs(gradients[0]).max() < 1e-3 * np.abs(slopes[0]).max()


@every_loss
def test_a_batch_without_a_sample_costs_nothing(compiled, name):
    estimate, target = noise()
    value, gradients, each = compiled(name)(estimate, target, np.zeros(3, np.int32))
    assert float(value) == 0
    np.testing.assert_array_equal(each, 0)
    np.testing.assert_array_equal(gradients, 0)


@every_loss
def test_float32_gradients_have_their_digits(compiled, name, quickly):
    estimate, target = noise()
    _, gradients, _ = compiled(name)(estimate, target, LENGTHS)
    with jax.enable_x64(True):
        exact = quickly(jax.grad(LOSSES[name]))(
            jnp.asarray(estimate, jnp.float64), jnp.asarray(target, jnp.float64), LENGTHS
        )
        assert exact.dtype == jnp.float64
        exact = np.asarray(exact)
    error = np.linalg.norm(gradients[0] - exact) / np.linalg.norm(exact)
    assert error < 1e-3


def test_sources_are_rows(quickly):
    """[batch, sources, time] is as many rows, and sources share the length of their clip."""
    estimate, target = noise(rows=4)
    lengths = np.array([TIME, 401], np.int32)
    stacked = estimate.reshape(2, 2, TIME), target.reshape(2, 2, TIME)
    for loss in (losses.L1(), losses.SiSdr()):
        got = quickly(loss)(*stacked, lengths)
        expected = quickly(loss)(estimate, target, np.repeat(lengths, 2))
        assert float(got) == float(expected)
        assert quickly(loss.per_clip)(*stacked, lengths).shape == (2, 2)


def test_losses_are_hashable_recipes():
    assert len(set(LOSSES.values())) == len(LOSSES)


def test_other_shapes_are_refused():
    x = jnp.zeros((2, 100))
    loss = losses.L1()
    with pytest.raises(ValueError, match=r"one shape.*\(2, 100\) and \(2, 99\).*audio\[None\]"):
        loss(x, x[:, 1:])
    with pytest.raises(ValueError, match="one shape"):
        loss(x[0], x[0])
    with pytest.raises(ValueError, match=r"one length for each clip, \[2\]; got \(3,\)"):
        loss(x, x, jnp.zeros(3, jnp.int32))
