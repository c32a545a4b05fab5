"""Holds the outer and middle ear to its published transfer, its phase, and the cochlea's rules."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from physics.carfac import Carfac, ear
from physics.carfac.kernels import choose

RATES_HZ = [8000, 16000, 22050, 48000, 96000]
MODEL = Carfac(
    sample_rate_hz=8000, agc_decimations=(8,), ihc="one_cap", ear_filter="minimum"
)  # 401 taps
FRAMED = dataclasses.replace(MODEL, hop_s=0.0125)


def noise(*shape, seed=0):
    return jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def gain_db(taps, frequencies_hz, rate_hz):
    """Gain of an FIR filter, straight from the definition."""
    delays = np.outer(np.asarray(frequencies_hz) / rate_hz, np.arange(taps.size))
    return 20 * np.log10(np.abs(np.exp(-2j * np.pi * delays) @ taps))


def test_the_table_as_published():
    """Values of ANSI S3.4-2007 at some frequencies, and how they go together."""
    hz = np.array([20.0, 100.0, 1000.0, 2500.0, 3000.0, 8000.0, 16000.0, 20000.0])
    middle = np.array([-39.6, -12.4, -2.6, -10.4, -7.3, -12.2, -32.3, -50.0])
    np.testing.assert_allclose(ear.transfer_db(hz, "eardrum"), middle)
    free = np.array([0.0, 0.0, 2.6, 16.8, 15.3, 1.8, 2.5, 2.5])
    np.testing.assert_allclose(ear.transfer_db(hz, "free"), middle + free)
    diffuse = np.array([0.0, 0.0, 3.8, 14.9, 14.5, 8.5, 2.0, 2.0])
    np.testing.assert_allclose(ear.transfer_db(hz, "diffuse"), middle + diffuse)
    assert ear.transfer_db(1000.0, "free") == 0


def test_between_and_beyond_the_table():
    held = ear.transfer_db(np.array([0.0, 5.0, 20.0, 20000.0, 48000.0]), "diffuse")
    np.testing.assert_allclose(held, [-39.6, -39.6, -39.6, -48.0, -48.0])
    dense = np.geomspace(20, 20000, 5000)
    between = ear.transfer_db(dense, "free")
    ends = ear.transfer_db(ear.TABLE_HZ, "free")
    at = np.clip(np.searchsorted(ear.TABLE_HZ, dense), 1, ear.TABLE_HZ.size - 1)
    low, high = np.sort([ends[at - 1], ends[at]], axis=0)
    assert (between >= low - 1e-9).all()  # a monotone curve does not overshoot
    assert (between <= high + 1e-9).all()
    assert np.abs(np.diff(between)).max() < 0.3  # nor jump: 78 dB an octave at 17 kHz


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("sound_field", ear.SOUND_FIELDS)
def test_gains_are_those_of_the_table(rate_hz, sound_field):
    table_hz = ear.TABLE_HZ[ear.TABLE_HZ / rate_hz < 0.45]
    between_hz = np.geomspace(20, table_hz[-1], 300)
    for phase in ear.PHASES:
        taps = ear.fir_taps(rate_hz, sound_field, phase)
        error = gain_db(taps, table_hz, rate_hz) - ear.transfer_db(table_hz, sound_field)
        assert np.abs(error).max() < 0.3, phase
        error = gain_db(taps, between_hz, rate_hz) - ear.transfer_db(between_hz, sound_field)
        assert np.abs(error).max() < 0.5, phase


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_linear_phase_is_symmetric_and_delays(rate_hz):
    taps = ear.fir_taps(rate_hz, "free", "linear")
    model = Carfac(sample_rate_hz=rate_hz, ear_filter="linear")
    assert taps.size == 2 * model.latency_samples + 1
    assert model.latency_samples == round(0.05 * rate_hz)
    np.testing.assert_allclose(taps, taps[::-1], atol=1e-15)
    assert np.argmax(np.abs(taps)) == model.latency_samples


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_minimum_phase_has_its_zeros_inside_the_unit_circle(rate_hz):
    """By the argument principle: no zero outside, and the phase comes back at half the rate."""
    taps = ear.fir_taps(rate_hz, "free", "minimum")
    phase = np.unwrap(np.angle(np.fft.rfft(taps, 2**18)))
    assert abs(phase[-1] - phase[0]) < 0.1
    linear = ear.fir_taps(rate_hz, "free", "linear")
    flipped = np.unwrap(np.angle(np.fft.rfft(linear, 2**18)))
    assert abs(flipped[-1] - flipped[0]) > 100  # what this test sees if half the zeros are outside
    energy = np.cumsum(taps**2) / np.sum(taps**2)
    assert energy[round(1e-3 * rate_hz)] > 0.9
    assert Carfac(sample_rate_hz=rate_hz, ear_filter="minimum").latency_samples == 0


@pytest.mark.parametrize(("phase", "sound_field"), [("linear", "free"), ("minimum", "eardrum")])
def test_is_a_filter_before_the_cochlea(quick_jit, x64, phase, sound_field):
    """The same as hearing audio that another library has filtered; two ears, another level."""
    with_ear = dataclasses.replace(
        MODEL, n_ears=2, ear_filter=phase, sound_field=sound_field, full_scale_db_spl=110
    )
    without = dataclasses.replace(with_ear, ear_filter="none")
    assert without.latency_samples == 0
    audio = np.asarray(noise(1, 700, 2), np.float64)
    taps = ear.fir_taps(8000, sound_field, phase)
    filtered = signal.lfilter(taps, 1, audio, axis=1)
    given, _ = quick_jit(with_ear.run)(with_ear.init(), audio)
    expected, _ = quick_jit(without.run)(without.init(), filtered)
    np.testing.assert_allclose(given.bm, expected.bm, atol=1e-12 * np.abs(expected.bm).max())
    np.testing.assert_allclose(given.nap, expected.nap, atol=1e-11 * np.abs(expected.nap).max())


def test_off_is_as_if_it_were_not_there():
    plain = dataclasses.replace(MODEL, ear_filter="none")
    assert Carfac() == Carfac(ear_filter="none", sound_field="free")
    assert plain.init_state(2).past_audio is None
    assert jax.tree.all(jax.tree.map(np.array_equal, MODEL.init(), plain.init()))
    programs = [
        jax.jit(model.run).lower(model.init(), noise(1, 40)).as_text()
        for model in (plain, dataclasses.replace(plain, sound_field="diffuse"), MODEL)
    ]
    assert "fft" in programs[2]
    assert "fft" not in programs[0]
    assert programs[0] == programs[1]


@pytest.fixture(scope="module")
def run():
    """`run` of MODEL, compiled once for each shape and kind of state."""
    options = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(
        lambda audio, state: MODEL.run(MODEL.init(), audio, state, ("nap", "bm")),
        compiler_options=options,
    )
    return lambda audio, state=None: compiled(audio, state)


@pytest.mark.parametrize("order", [(1, 40, 1, 453), (453, 1, 1, 40)])
def test_any_cut_gives_the_same(run, x64, order):
    audio = jnp.asarray(noise(2, 495), jnp.float64)
    whole, end = run(audio)
    state = MODEL.init_state(2)
    assert jax.tree.structure(state) == jax.tree.structure(end)
    pieces = []
    for start, stop in itertools.pairwise(np.cumsum((0, *order))):
        piece, state = run(audio[:, start:stop], state)
        pieces.append(piece)
    for name in ("nap", "bm"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces], axis=1)
        expected = np.asarray(getattr(whole, name))
        assert expected.dtype == np.float64
        assert np.abs(joined - expected).max() < 1e-12 * np.abs(expected).max()
    np.testing.assert_array_equal(state.past_audio, end.past_audio)
    np.testing.assert_array_equal(state.past_audio, audio[:, 95:, None])


def test_the_filter_sample_by_sample(x64):
    taps, audio = ear.fir_taps(8000, "free", "minimum"), noise(1, 30, 2).astype(jnp.float64)
    whole, past = ear.hear(audio, None, taps)
    hear = jax.jit(lambda piece, past: ear.hear(piece, past, taps))
    pieces, state = [], jnp.zeros((1, taps.size - 1, 2))
    for i in range(30):
        piece, state = hear(audio[:, i : i + 1], state)
        pieces.append(piece)
    joined = np.concatenate(pieces, axis=1)
    assert np.abs(joined - whole).max() < 1e-12 * np.abs(whole).max()
    np.testing.assert_array_equal(state, past)
    assert whole.dtype == jnp.float64


def test_frames_padding_and_streams(quick_jit):
    apply, params = quick_jit(FRAMED.apply), FRAMED.init()
    audio, lengths = noise(2, 600), jnp.array([600, 370], jnp.int32)
    whole, _ = apply(params, audio, None, lengths)
    spoiled, _ = apply(params, audio.at[1, 370:].set(jnp.nan), None, lengths)
    np.testing.assert_array_equal(whole, spoiled)
    assert (whole[1, 3:] == 0).all()
    alone, end = apply(params, audio[:1])
    np.testing.assert_allclose(whole[:1], alone, atol=1e-6)
    first, state = apply(params, audio[:1, :300])
    second, state = apply(params, audio[:1, 300:], state)
    np.testing.assert_allclose(
        np.concatenate([first, second], 1), alone, rtol=0, atol=2e-4 * np.abs(alone).max()
    )
    assert jax.tree.structure(state) == jax.tree.structure(FRAMED.init_state(1))
    np.testing.assert_array_equal(state.cochlea.past_audio, end.cochlea.past_audio)


def test_both_kernels_hear_the_same(quick_jit):
    if choose("auto") != "native":
        pytest.skip("the native kernel was not compiled")
    audio, params = noise(2, 300), MODEL.init()
    outcomes = []
    for kernel in ("native", "xla"):
        model = dataclasses.replace(MODEL, kernel=kernel)

        def loss(audio, model=model):
            nap, state = model.apply(params, audio)
            return jnp.sum(nap * nap), (nap, state)

        outcomes.append(quick_jit(jax.value_and_grad(loss, has_aux=True))(audio))
    ((_, (nap, state)), gradient), ((_, (nap2, state2)), gradient2) = outcomes
    assert np.abs(nap - nap2).max() < 2e-4 * np.abs(nap2).max()
    assert np.linalg.norm(gradient - gradient2) < 1e-3 * np.linalg.norm(gradient2)
    np.testing.assert_array_equal(state.past_audio, state2.past_audio)


def test_gradients_equal_central_differences(quick_jit, x64):
    """By audio and by the past that a piece hears, in random directions."""
    params, audio = MODEL.init(), jnp.asarray(noise(1, 300), jnp.float64)
    past = jnp.asarray(noise(1, 400, 1, seed=1), jnp.float64)
    state = dataclasses.replace(MODEL.init_state(1), past_audio=past)
    rng = np.random.default_rng(2)
    weights = jnp.asarray(rng.standard_normal(MODEL.structure.n_channels))

    def of(audio, past):
        nap, _ = MODEL.apply(params, audio, dataclasses.replace(state, past_audio=past))
        return jnp.mean(nap * nap + weights[None, None] * nap)

    value, place = quick_jit(of), (audio, past)
    gradients = quick_jit(jax.grad(of, (0, 1)))(*place)
    for i, gradient in enumerate(gradients):
        direction = jnp.asarray(rng.standard_normal(gradient.shape)) / gradient.size**0.5
        ends = [
            float(value(*(x + step * direction if j == i else x for j, x in enumerate(place))))
            for step in (1e-5, -1e-5)
        ]
        slope, exact = (ends[0] - ends[1]) / 2e-5, float(jnp.sum(gradient * direction))
        norm = float(jnp.linalg.norm(gradient))
        assert norm > 0
        assert abs(slope - exact) < 1e-5 * norm


def test_under_vmap(run):
    params, audio = MODEL.init(), noise(2, 495)
    mapped = jax.jit(
        jax.vmap(lambda clip: MODEL.run(params, clip[None], outputs=("bm",))[0].bm[0]),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    np.testing.assert_allclose(mapped(audio), run(audio)[0].bm, atol=1e-5)


def test_a_soft_tone_moves_the_membrane_by_the_gain_more(quick_jit):
    """At 0 dB SPL the cochlea is linear, so that its channel at 3 kHz rises as the table says."""
    rate_hz, n = 16000, 2400
    time = np.arange(n) / rate_hz
    tone = 1e-5 * np.sin(2 * np.pi * 3000 * time) * np.minimum(1, time / 0.02)
    plain, rises = Carfac(sample_rate_hz=rate_hz, ihc="one_cap"), {}
    for ear_filter in ("minimum", "none"):
        model = dataclasses.replace(plain, ear_filter=ear_filter)
        audio = jnp.asarray(tone, jnp.float32)[None]
        out, _ = quick_jit(lambda p, a, model=model: model.run(p, a, outputs=("bm",)))(
            model.init(), audio
        )
        tail = np.asarray(out.bm)[0, n // 2 :, 0]
        rises[ear_filter] = 10 * np.log10(np.mean(tail**2, axis=0).max())
    rise = float(rises["minimum"] - rises["none"])
    assert rise == pytest.approx(15.3 - 7.3, abs=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Carfac(ear_filter="maximum"), r"ear_filter must be one of .*'none'.*'maximum'"),
        (lambda: Carfac(sound_field="fre"), r"sound_field must be one of .*got 'fre'"),
        (lambda: ear.transfer_db(1e3, "ear"), r"sound_field must be one of .*got 'ear'"),
        (lambda: ear.fir_taps(16000, "free", "zero"), r"phase must be one of .*got 'zero'"),
        (lambda: ear.fir_taps(4000, "free", "linear"), r"between 8000 and 96000 Hz; got 4000"),
    ],
)
def test_bad_values(call, message):
    with pytest.raises(ValueError, match=message):
        call()
