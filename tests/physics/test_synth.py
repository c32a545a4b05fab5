"""Oscillators, noise and rooms: published sums in float64, exact phases and masks, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from physics import synth
from physics.synth import oscillators, phase
from physics.synth.oscillators import flanks

pytestmark = pytest.mark.usefixtures("compiled_quickly")

RATE_HZ = 16_000


def published(f0_hz, amplitudes, hop, rate_hz=RATE_HZ):
    """DDSP's formulae in float64, for frames before which one is silent: `[batch, time]`."""
    f0_hz, amplitudes = (np.asarray(x, np.float64) for x in (f0_hz, amplitudes))
    f0_hz = np.concatenate([f0_hz[:, :1], f0_hz], axis=1)
    amplitudes = np.concatenate([np.zeros_like(amplitudes[:, :1]), amplitudes], axis=1)
    n_frames = f0_hz.shape[1]
    time = np.arange((n_frames - 1) * hop)
    hz = np.stack([np.interp(time, np.arange(n_frames) * hop, row) for row in f0_hz])
    angle = np.cumsum(2 * np.pi * hz / rate_hz, axis=1)
    window = signal.get_window("hann", 2 * hop)
    whole = np.zeros((len(f0_hz), (n_frames + 1) * hop, amplitudes.shape[2]))
    for i in range(n_frames):
        whole[:, i * hop : (i + 2) * hop] += window[None, :, None] * amplitudes[:, i, None]
    whole = whole[:, hop : hop + time.size]
    k = np.arange(1, amplitudes.shape[2] + 1)
    audible = hz[..., None] * k < rate_hz / 2
    return np.sum(whole * audible * np.sin(angle[..., None] * k), axis=2)


@pytest.fixture(scope="module")
def notes():
    """f0 that wavers, leaps and climbs, and what a network might say of 100 partials."""
    rng = np.random.default_rng(0)
    time = np.arange(120) / 120
    f0_hz = np.stack([110 * (1 + 0.03 * np.sin(40 * time)), np.where(time < 0.5, 61.7, 1975.5)])
    f0_hz = np.concatenate([f0_hz, 40 * 60 ** time[None]])
    amplitude, harmonics = rng.standard_normal((3, 120)), rng.standard_normal((3, 120, 100))
    return [np.asarray(x, np.float32) for x in (f0_hz, amplitude, harmonics)]


@pytest.mark.parametrize("hop", [64, 250])
def test_harmonics_are_the_published_sum(hop, notes):
    f0_hz = notes[0]
    amplitudes = synth.harmonic_amplitudes(*map(jnp.asarray, notes), RATE_HZ)
    audio, _ = synth.harmonic(jnp.asarray(f0_hz), amplitudes, RATE_HZ, hop)
    assert audio.dtype == jnp.float32
    wanted = published(f0_hz, amplitudes, hop)
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(audio, wanted, rtol=0, atol=1e-4)


def test_amplitudes_are_the_published_shares(notes):
    f0_hz, amplitude, harmonics = (x.astype(np.float64) for x in notes)
    got = synth.harmonic_amplitudes(*map(jnp.asarray, notes), RATE_HZ)

    def scaled(x):
        return 2 * (1 / (1 + np.exp(-x))) ** np.log(10) + 1e-7

    audible = f0_hz[..., None] * np.arange(1, 101) < RATE_HZ / 2
    shares = scaled(harmonics) * audible
    wanted = scaled(amplitude)[..., None] * shares / shares.sum(-1, keepdims=True)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-9)
    assert not np.any(np.asarray(got)[~audible])
    np.testing.assert_allclose(got.sum(-1), scaled(amplitude), rtol=1e-5)
    silent, shares = jnp.zeros((1, 1)), jnp.zeros((1, 1, 1))
    unvoiced = synth.harmonic_amplitudes(silent, silent, shares, RATE_HZ)
    assert not np.any(unvoiced)


@pytest.mark.parametrize("x", [-300.0, -90.0, 0.0, 40.0])
def test_the_scale_function_has_a_slope_everywhere(x):
    value, slope = jax.value_and_grad(synth.scale_function)(jnp.float32(x))
    wanted = 2 * np.exp(-np.log(10) * np.log1p(np.exp(-x))) + 1e-7
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert np.isfinite(slope)


def test_the_phase_stays_for_a_minute():
    """Within 1e-3 rad of float64, partials likewise; pieces give what the whole does."""
    hop, n_frames = 64, 60 * RATE_HZ // 64
    rng = np.random.default_rng(1)
    wavering = 79 * np.exp(0.01 * np.cumsum(rng.standard_normal(n_frames) * 0.05))
    f0_hz = np.stack([np.full(n_frames, 79.97), wavering, np.full(n_frames, 1999.99)])
    f0_hz = f0_hz.astype(np.float32)

    @jax.jit
    def run(f0_hz, start):
        """Phases of the partials 1 and 100 at each hop's last sample, and what comes after."""
        begin = jnp.concatenate([f0_hz[:, :1], f0_hz[:, :-1]], axis=1)
        angle, _, end = phase.gliding(begin, f0_hz, start, RATE_HZ, hop)
        last = angle[..., -1]
        return jnp.stack([phase.radians(last, jnp.float32(k)) for k in (1, 100)], -1), end

    got, end = run(jnp.asarray(f0_hz), phase.still((3,), jnp.float32))
    exact = f0_hz.astype(np.float64)
    begin = np.concatenate([exact[:, :1], exact[:, :-1]], axis=1)
    each = begin[..., None] + (exact - begin)[..., None] * np.arange(hop) / hop
    turns = np.cumsum(each.reshape(3, -1), axis=1)[:, hop - 1 :: hop] / RATE_HZ
    for i, k in enumerate((1, 100)):
        away = np.asarray(got[..., i]) / (2 * np.pi) - k * turns
        error = 2 * np.pi * np.abs(away - np.round(away)).max()
        assert error < 1e-3 * k
        assert (
            error < 3e-5 * k
        )  # what it is, at float32: rounding of fractions of 1 Hz, for a minute
    plain = np.cumsum(each[0].astype(np.float32).reshape(-1) / np.float32(RATE_HZ))
    assert np.abs(plain[-1] - turns[0, -1]) * 2 * np.pi > 1e-3, "a plain sum would do"
    half = n_frames // 2
    first = run(jnp.asarray(f0_hz[:1, :half]), phase.still((1,), jnp.float32))[1]
    # A piece begins at the frequency at which the one before ended.
    joined = jnp.concatenate([f0_hz[:1, half - 1 : half], f0_hz[:1, half:]], axis=1)
    moved = phase.gliding(joined[:, :-1], joined[:, 1:], first, RATE_HZ, hop)[2]
    assert moved[0] == end[0]


@pytest.mark.parametrize("f0_hz", [100.0, 2000.0, 7999.9995])
def test_partials_end_below_half_the_sample_rate(f0_hz):
    """The last one that sounds is the last below, however near; one at the limit is silent."""
    last = int(np.ceil(RATE_HZ / 2 / f0_hz)) - 1
    hz = jnp.full((1, 3), f0_hz, jnp.float32)
    for k, sounds in ((last, True), (last + 1, False)):
        amplitudes = jnp.zeros((1, 3, 100)).at[..., k - 1].set(1.0)
        audio, _ = synth.harmonic(hz, amplitudes, RATE_HZ, 40)
        assert np.any(audio) == sounds
        shares = synth.harmonic_amplitudes(hz, jnp.zeros((1, 3)), jnp.log(amplitudes), RATE_HZ)
        assert np.all(shares[..., k - 1] > 0) == sounds


def test_a_partial_that_climbs_ends_at_the_very_sample():
    hop = 100
    f0_hz = jnp.array([[700.0, 900.0]])  # partial 10 passes 8 kHz in the middle of the second hop
    amplitudes = jnp.zeros((1, 2, 10)).at[:, 0, 9].set(1.0)
    audio, _ = synth.harmonic(f0_hz, amplitudes, RATE_HZ, hop)
    assert np.all(audio[0, hop + 1 : hop + 50] != 0)
    assert not np.any(audio[0, hop + 50 :])


def test_unvoiced_frames_hold_the_pitch():
    """f0 does not slide to 0 and back: the note ends, and the next begins, at its own pitch."""
    f0_hz = jnp.array([[400.0, 0.0, 0.0, 500.0, 500.0]])
    amplitudes = jnp.array([[1.0, 0.0, 0.0, 1.0, 1.0]])[..., None]
    audio, _ = synth.harmonic(f0_hz, amplitudes, RATE_HZ, 160)
    held = jnp.array([[400.0, 400.0, 500.0, 500.0, 500.0]])
    first, _ = synth.harmonic(held[:, :2], amplitudes[:, :2], RATE_HZ, 160)
    np.testing.assert_allclose(audio[:, :320], first, atol=1e-6)
    assert not np.any(audio[:, 320:480])
    time = np.arange(160)
    rise = flanks(160)[1]
    angle = np.arcsin(np.clip(audio[0, 480:640] / np.maximum(rise, 1e-9), -1, 1))
    wanted = np.arcsin(np.sin(2 * np.pi * 500 / RATE_HZ * time + _begin(audio, rise)))
    np.testing.assert_allclose(angle[40:], wanted[40:], atol=1e-2)


def _begin(audio, rise):
    """Phase of the 500 Hz tone at sample 480, from two samples late in its rise."""
    y = np.asarray(audio[0, 480 + 150 : 480 + 152]) / rise[150:152]
    step = 2 * np.pi * 500 / RATE_HZ
    late = np.arctan2(y[0] * np.sin(step), y[1] - y[0] * np.cos(step))
    return late - 150 * step


def test_bad_frequencies_are_not_hidden():
    f0_hz = jnp.array([[100.0, jnp.nan, 100.0]])
    audio, _ = synth.harmonic(f0_hz, jnp.ones((1, 3, 4)), RATE_HZ, 20)
    assert np.isnan(audio[0, 21:60]).all()


def test_a_gradient_of_the_gradient_is_refused():
    """It would leave out the phase, and be wrong without a word."""

    def size(f0_hz):
        return jnp.sum(synth.harmonic(f0_hz, jnp.ones((1, 2, 2)), RATE_HZ, 8)[0] ** 2)

    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.make_jaxpr(jax.grad(lambda f0_hz: jnp.sum(jax.grad(size)(f0_hz))))(jnp.ones((1, 2)))


def test_a_gradient_takes_little_memory():
    """Less than one array of all partials at every sample, of which plain code keeps several."""

    def loss(f0_hz, amplitudes):
        return jnp.sum(synth.harmonic(f0_hz, amplitudes, RATE_HZ, 64)[0] ** 2)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((4, 1000), (4, 1000, 100))]
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.25 * (4 * 64_000 * 100 * 4)


def test_responses_of_noise_are_the_published_ones():
    magnitudes = np.random.default_rng(0).uniform(0.1, 1, (2, 65))
    response = np.fft.irfft(magnitudes)  # zero phase
    window = np.fft.fftshift(signal.get_window("hann", 128))
    wanted = np.fft.fftshift(response * window, axes=-1)
    got = synth.zero_phase_response(jnp.asarray(magnitudes, jnp.float32))
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    longer = synth.zero_phase_response(jnp.ones((1, 1025)))
    assert longer.shape == (1, 257)
    np.testing.assert_allclose(longer[0], np.arange(257) == 128, atol=1e-6)
    np.testing.assert_allclose(got[:, 1:], got[:, :0:-1], atol=1e-6)  # delays all alike


@pytest.mark.parametrize(("hop", "taps"), [(16, 5), (8, 21)])
def test_filters_that_change_are_sums_of_convolutions(hop, taps, x64):
    rng = np.random.default_rng(0)
    audio, responses = rng.standard_normal((2, 6 * hop)), rng.standard_normal((2, 6, taps))
    wanted = np.zeros((2, 6 * hop + taps - 1))
    for clip in range(2):
        for i in range(6):
            at = slice(i * hop, (i + 1) * hop + taps - 1)
            wanted[clip, at] += np.convolve(
                audio[clip, i * hop : (i + 1) * hop], responses[clip, i]
            )
    got, tail = synth.time_varying_fir(jnp.asarray(audio), jnp.asarray(responses))
    np.testing.assert_allclose(np.concatenate([got, tail], axis=1), wanted, atol=1e-12)
    first, tail = synth.time_varying_fir(jnp.asarray(audio[:, :hop]), jnp.asarray(responses[:, :1]))
    second, _ = synth.time_varying_fir(
        jnp.asarray(audio[:, hop:]), jnp.asarray(responses[:, 1:]), tail
    )
    np.testing.assert_allclose(np.concatenate([first, second], 1), got, atol=1e-12)
    with pytest.raises(ValueError, match="as many samples for each frame"):
        synth.time_varying_fir(jnp.asarray(audio[:, 1:]), jnp.asarray(responses))


def test_noise_has_the_magnitudes_and_the_key():
    magnitudes = np.ones((2, 500, 65), np.float32)
    magnitudes[:, :, 32:] = 0.01  # above 4 kHz
    key = jax.random.key(3)
    noise, _ = synth.filtered_noise(jnp.asarray(magnitudes), key, 64)
    hz, power = signal.welch(noise[0], RATE_HZ, nperseg=512)
    flat = power[(hz > 200) & (hz < 3500)]
    # Uniform noise between -1 and 1 has the power 1/3, spread over 8 kHz.
    np.testing.assert_allclose(flat.mean() * 8000, 1 / 3, rtol=0.05)
    np.testing.assert_allclose(power[hz > 4500].mean() * 8000, 1e-4 / 3, rtol=0.1)
    assert abs(np.corrcoef(noise)[0, 1]) < 0.05, "clips must have noise of their own"
    again, _ = synth.filtered_noise(jnp.asarray(magnitudes), key, 64)
    other, _ = synth.filtered_noise(jnp.asarray(magnitudes), jax.random.key(4), 64)
    assert np.array_equal(again, noise)
    assert abs(np.corrcoef(noise[0], other[0])[0, 1]) < 0.05
    with pytest.raises(ValueError, match="one key, or one for each clip"):
        synth.filtered_noise(jnp.asarray(magnitudes), jax.random.split(key, 3), 64)


def test_a_room_is_added_to_the_sound():
    rng = np.random.default_rng(0)
    audio, response = rng.standard_normal((2, 300)), rng.standard_normal(40)
    got, past = synth.fir_reverb(
        jnp.asarray(audio, jnp.float32), jnp.asarray(response, jnp.float32)
    )
    response[0] = 1
    wanted = np.stack([np.convolve(x, response)[:300] for x in audio])
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    assert past.shape == (2, 39)


def test_controls_that_do_not_fit_are_refused():
    model = synth.HarmonicNoise(n_harmonics=3, n_noise_bands=3)
    good = {"f0_hz": (2, 4), "amplitude": (2, 4), "harmonics": (2, 4, 3), "noise": (2, 4, 3)}
    good = {name: jnp.ones(shape) for name, shape in good.items()} | {"key": jax.random.key(0)}
    audio, _ = model.apply({}, good)
    same, _ = model.apply({}, good | {"f0_hz": jnp.ones((2, 4, 1))})
    assert np.array_equal(audio, same)
    wrong = [
        ({n: x for n, x in good.items() if n != "noise"}, "noise is missing"),
        ({n: x for n, x in good.items() if n != "key"}, "key is missing"),
        (good | {"harmonics": jnp.ones((2, 4, 5))}, r"harmonics must be \[batch, frames, 3\]"),
        (good | {"amplitude": jnp.ones((2, 5))}, "as many as the others"),
        (good | {"f0_hz": jnp.ones((2, 4), int)}, "floating point"),
        (jnp.ones((2, 99)), "must be a dict"),
    ]
    for controls, rule in wrong:
        with pytest.raises(ValueError, match=rule):
            model.apply({}, controls)
    for fields, rule in [
        ({"hop_samples": 9000}, "at most a quarter"),
        ({"n_noise_bands": 1}, "0, or 2 and more"),
        ({"n_harmonics": 0}, "must be positive"),
        ({"reverb_s": -1.0}, "at least 0"),
    ]:
        with pytest.raises(ValueError, match=rule):
            synth.HarmonicNoise(**fields)


def test_gradients_of_single_precision_over_several_blocks():
    """Against plain code in float64: the sum of all partials at every sample."""
    hop, frames, partials = 64, 150, 5
    rng = np.random.default_rng(3)
    f0_hz = 300 + 40 * np.sin(np.arange(frames) / 9)[None] + np.array([[0.0], [35.0]])
    amplitudes = rng.uniform(0.1, 1, (2, frames, partials))
    weights = rng.standard_normal((2, frames * hop))
    assert 2 * frames * hop > 2 * oscillators._BLOCK_SAMPLES

    def ours(f0_hz, amplitudes):
        audio, _ = synth.harmonic(f0_hz, amplitudes, RATE_HZ, hop)
        return jnp.sum(jnp.asarray(weights, audio.dtype) * audio)

    def plain(f0_hz, amplitudes):
        hz = jnp.concatenate([f0_hz[:, :1], f0_hz], axis=1)
        louder = jnp.concatenate([jnp.zeros_like(amplitudes[:, :1]), amplitudes], axis=1)
        glide = jnp.arange(hop)[None, None] / hop
        hz = (hz[:, :-1, None] * (1 - glide) + hz[:, 1:, None] * glide).reshape(2, -1)
        before, rise = flanks(hop)[:, None, None, :, None]
        now = louder[:, :-1, None] * before + louder[:, 1:, None] * rise
        angle = jnp.cumsum(2 * np.pi * hz / RATE_HZ, axis=1)[..., None]
        sines = jnp.sin(angle * jnp.arange(1, partials + 1)[None, None])
        return jnp.sum(weights * jnp.sum(now.reshape(sines.shape) * sines, axis=2))

    given = [jnp.asarray(x, jnp.float32) for x in (f0_hz, amplitudes)]
    found = jax.jit(jax.grad(ours, (0, 1)))(*given)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        wanted = jax.jit(jax.grad(plain, (0, 1)))(*(jnp.asarray(x, jnp.float64) for x in given))
    for single, double in zip(found, wanted, strict=True):
        assert single.dtype == jnp.float32
        limit = 1e-5 * float(np.abs(double).max())
        np.testing.assert_allclose(single, double, rtol=0, atol=limit)
