"""What every loss keeps: padding and empty rows change nothing, and gradients are always finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid import losses
from hybrid.losses.base import as_rows

RATE_HZ = 8000.0
TIME = 600


class Summed(losses.Loss):
    """A weighted sum, which has no loss of each clip of its own."""

    def value(self, estimate, target, lengths):
        both = losses.WeightedSum((("l1", 2.0, losses.L1()), ("esr", 0.5, losses.Esr())))
        return both(estimate, target, lengths)


class Separated(losses.Loss):
    """Two sources, given in the other order."""

    def value(self, estimate, target, lengths):
        pair = jnp.stack([estimate, -estimate], 1), jnp.stack([-target, target], 1)
        return losses.PermutationInvariant(losses.L2())(*pair, lengths)


@dataclasses.dataclass(frozen=True)
class Careless(losses.Loss):
    """Nobody has thought of clips without a sample."""

    def value(self, estimate, target, lengths):
        del lengths
        return jnp.sum((estimate - target) ** 2) / jnp.sum(target**2)


LOSSES = {
    "sum": Summed(),
    "separated": Separated(),
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
    silence, loud = np.zeros((1, TIME), np.float32), noise(1, 1)[0]
    loud *= np.float32(32768) / np.abs(loud).max()  # 16-bit samples that nobody has divided
    constant, faint = np.ones((1, TIME), np.float32), loud * np.float32(1e-17)
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
    with pytest.raises(ValueError, match=r"more sources than samples.*swapaxes\(1, 2\)"):
        loss(x.T[None], x.T[None])
    for empty in (jnp.zeros((0, 100)), jnp.zeros((2, 0))):
        with pytest.raises(ValueError, match="must be a clip and a sample at least; got shape"):
            loss(empty, empty)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (jnp.int16, r"floating point.*got int16\. Divide 16-bit integers by 32768"),
        (jnp.float16, r"32 bits or more.*got float16\..*astype\('float32'\)"),
        (jnp.bfloat16, r"32 bits or more.*got bfloat16\..*astype\('float32'\)"),
    ],
)
def test_audio_of_other_types_is_refused(dtype, message):
    x = np.ones((1, 100), np.float32)
    for pair in ((x.astype(dtype), x), (x, x.astype(dtype))):
        with pytest.raises(ValueError, match=message):
            as_rows(*pair, None)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int32"])
def test_lengths_of_any_integers_mean_the_same(dtype):
    """Arithmetic on lengths must neither wrap around below 0 nor overflow."""
    time = 40_000
    audio = jnp.asarray(noise(rows=3, time=time)[0])
    given = np.array([0, 1, 100], dtype)
    rows = as_rows(audio, audio, given)
    assert rows[2].dtype == jnp.int32
    np.testing.assert_array_equal(rows[2], [0, 1, 100])
    np.testing.assert_array_equal(np.count_nonzero(rows[0], axis=1), [0, 1, 100])
    beyond = np.full(3, np.iinfo(dtype).max, dtype)
    most = min(time, int(np.iinfo(dtype).max))
    np.testing.assert_array_equal(as_rows(audio, audio, beyond)[2], np.full(3, most))
    pair = audio.reshape(1, 3, time), audio.reshape(1, 3, time)
    for loss in (losses.L1(), losses.PermutationInvariant(losses.L1())):
        assert float(loss(*pair, jnp.asarray(given[:1]))) == 0


def test_lengths_that_are_no_integers_are_refused():
    x = jnp.ones((2, 10))
    for lengths in (np.ones(2, np.float32), np.ones(2, bool)):
        with pytest.raises(ValueError, match=r"Lengths must be integers.*astype\('int32'\)"):
            as_rows(x, x, lengths)


def test_a_clip_without_a_sample_counts_nothing_in_a_careless_loss():
    estimate, target = map(jnp.asarray, noise(rows=2, time=20))
    each, gradient = jax.value_and_grad(
        lambda e: jnp.sum(Careless().per_clip(e, target, jnp.asarray([20, 0], jnp.int32)))
    )(estimate)
    assert float(each) == pytest.approx(float(Careless()(estimate[:1], target[:1])), rel=1e-6)
    assert np.isfinite(gradient).all()
