"""Holds the default model to what is known of ears: tuning, compression, suppression, distortion.

Levels are in dB SPL at `full_scale_db_spl=100`; the basilar membrane is looked at once the gain
control has come to rest.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.carfac import Carfac, analysis, thresholds

MODEL = Carfac(full_scale_db_spl=100)
RATE_HZ = 22050
QUICK = {"xla_backend_optimization_level": 0}
TONES_HZ = (1000.0, 2000.0, 4000.0)
LEVELS = (-10.0, 0.0, 10.0, 40.0, 50.0, 60.0, 70.0, 80.0)


def tone(frequency_hz, level_db_spl, seconds):
    """A tone of that peak level, switched on over 20 ms."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    onset = np.sin(0.5 * np.pi * np.minimum(1, time_s / 0.02)) ** 2
    return 10 ** ((level_db_spl - 100) / 20) * onset * np.sin(2 * np.pi * frequency_hz * time_s)


@functools.cache
def running(model):
    """A compiled run of it that gives BM motion."""
    return jax.jit(
        lambda params, audio: model.run(params, audio, outputs=("bm",))[0].bm,
        compiler_options=QUICK,
    )


def steady_bm(model, clips, last_s=0.1):
    """BM motion at the end of clips, `[clips, time, channels]`, float64."""
    bm = running(model)(model.init(), jnp.asarray(np.stack(clips), jnp.float32))
    return np.asarray(bm[:, -round(last_s * RATE_HZ) :, 0], np.float64)


def component_db(bm, frequency_hz):
    """Level (of bm = 1) of one frequency in each clip and channel, through a Hann window."""
    turn = np.exp(-2j * np.pi * frequency_hz * np.arange(bm.shape[1]) / RATE_HZ)
    window = np.hanning(bm.shape[1])
    return 20 * np.log10(2 * np.abs(np.einsum("btc,t->bc", bm, window / window.sum() * turn)))


@pytest.fixture(scope="module")
def best_hz():
    """Best frequency of each channel."""
    return np.asarray(
        jax.jit(lambda p: analysis.best_frequencies_hz(MODEL, p), compiler_options=QUICK)(
            MODEL.init()
        )
    )


@pytest.fixture(scope="module")
def growth():
    """BM level in dB against sound level, by tone, at the channel that answers it most softly."""
    clips = [tone(f, level, 0.6) for f in TONES_HZ for level in LEVELS]
    at_end = steady_bm(MODEL, clips).std(axis=1).reshape(len(TONES_HZ), len(LEVELS), -1)
    channels = at_end[:, 0].argmax(axis=-1)
    return {
        f: dict(zip(LEVELS, 20 * np.log10(rms[:, channel]), strict=True))
        for f, rms, channel in zip(TONES_HZ, at_end, channels, strict=True)
    }


@pytest.mark.parametrize(
    ("rate_hz", "x64"),
    [(8000, False), (22050, False), (44100, False), (48000, False), (96000, False), (96000, True)],
)
def test_poles_lie_where_the_map_says(quick_jit, rate_hz, x64):
    """To 1e-6, in float32 too: the map's own recurrence, and the angles of the resonators."""
    pole_hz, expected = 0.85 * np.pi * rate_hz / (2 * np.pi), []
    while pole_hz > 30:
        expected.append(pole_hz)
        pole_hz -= 0.5 * (165.3 + pole_hz) / (1000 / (24.7 * 4.37))
    with jax.enable_x64(x64):
        model = Carfac(sample_rate_hz=rate_hz)
        params = model.init()
        poles = np.asarray(model.channel_frequencies_hz(params))
        car = jax.tree.map(np.float64, quick_jit(lambda params: model.design(params).car)(params))
    angle = np.arctan2(car.sin, 1 - car.one_minus_cos)[0]
    np.testing.assert_allclose(poles, expected, rtol=1e-6)
    np.testing.assert_allclose(angle * rate_hz / (2 * np.pi), expected, rtol=1e-6)


def test_best_frequencies_are_the_peaks_of_the_transfer_functions(best_hz):
    """To 1 %: the spectrum of what the running model, loop closed, answers to a faint click."""
    click = np.zeros(RATE_HZ)
    click[0] = 1e-6
    bm = steady_bm(MODEL, [click], last_s=1.0)[0]
    size = 2**16
    for channel, expected in enumerate(best_hz):
        spectrum = np.log(np.abs(np.fft.rfft(bm[:, channel], size)))
        peak = np.clip(spectrum.argmax(), 1, size // 2 - 1)
        below, top, above = spectrum[peak - 1 : peak + 2]
        bins = peak + 0.5 * (above - below) / (2 * top - above - below)
        assert bins * RATE_HZ / size == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("frequency_hz", TONES_HZ)
def test_compression(growth, frequency_hz):
    """0.25 to 0.55 dB/dB between 40 and 80 dB SPL, from each 10 dB to the next."""
    levels = [growth[frequency_hz][level] for level in (40.0, 50.0, 60.0, 70.0, 80.0)]
    slopes = np.diff(levels) / 10
    assert (slopes >= 0.25).all(), slopes
    assert (slopes <= 0.55).all(), slopes


def test_faint_sounds_are_not_compressed(growth):
    """0.95 to 1.0 dB/dB below 10 dB SPL at 1 kHz."""
    levels = [growth[1000.0][level] for level in (-10.0, 0.0, 10.0)]
    slopes = np.diff(levels) / 10
    assert (slopes >= 0.95).all(), slopes
    assert (slopes <= 1.0).all(), slopes


def test_without_outer_hair_cells_nothing_is_compressed():
    """1.00 +- 0.01 dB/dB, from 0 to 90 dB SPL."""
    deaf = Carfac(initial={"car.ohc_health": 0.0})
    clips = [tone(f, level, 0.6) for f in TONES_HZ for level in (0.0, 30.0, 60.0, 90.0)]
    rms = steady_bm(deaf, clips).std(axis=1).reshape(len(TONES_HZ), 4, -1)
    for of_tone in rms:
        slopes = np.diff(20 * np.log10(of_tone[:, of_tone[0].argmax()])) / 30
        np.testing.assert_allclose(slopes, 1.0, atol=0.01)


def test_two_tone_suppression(best_hz):
    """A tone of 1 kHz at -70 dBFS loses at least 5 dB to one of 1.5 kHz at -40 dBFS."""
    probe = tone(1000.0, 30.0, 0.6)
    bm = steady_bm(MODEL, [probe, probe + tone(1500.0, 60.0, 0.6)])
    alone, suppressed = component_db(bm, 1000.0)[:, np.abs(best_hz - 1000).argmin()]
    assert alone - suppressed >= 5


@pytest.mark.parametrize("level_db_spl", [40.0, 60.0])
def test_distortion_products(best_hz, level_db_spl):
    """2 f1 - f2 and f2 - f1 appear at their own places, 30 dB above what a linear cochlea has."""
    f1, f2 = 1000.0, 1200.0
    tones = [tone(f, level_db_spl, 0.6) for f in (f1, f2)]
    bm = steady_bm(MODEL, [sum(tones), *tones])
    passive = steady_bm(Carfac(linear_car=True, open_loop=True), [sum(tones)])
    for product_hz in (2 * f1 - f2, f2 - f1):
        place = np.abs(best_hz - product_hz).argmin()
        together, *alone = component_db(bm, product_hz)[:, place]
        assert together > max(*alone, component_db(passive, product_hz)[0, place]) + 30
        # Heard, too: the place moves as in a tone of its own well above threshold.
        assert together > 20 * np.log10(thresholds.CRITERION_BM)


def offsets(model, frequency_hz):
    """|mean| over rms of each channel that moves within 60 dB of the most, at 30, 60 and 90 dB."""
    bm = steady_bm(model, [tone(frequency_hz, level, 1.5) for level in (30, 60, 90)], last_s=0.5)
    # The window keeps out what is no offset: low distortion that has not ended a whole period.
    window = np.hanning(bm.shape[1])
    mean, rms = np.einsum("btc,t->bc", bm, window / window.sum()), bm.std(axis=1)
    return np.abs(mean / rms)[rms > 1e-3 * rms.max(axis=1, keepdims=True)]


@pytest.mark.parametrize("frequency_hz", TONES_HZ)
def test_bm_has_no_offset(frequency_hz):
    """Its mean is below 1e-3 of its rms, though distortion has even orders."""
    assert offsets(MODEL, frequency_hz).max() < 1e-3


def test_bm_would_have_an_offset_without_its_high_pass():
    almost_none = Carfac(initial={"car.ac_corner_hz": 1.0 + 1e-4})
    assert offsets(almost_none, 1000.0).max() > 1e-2


def test_each_stage_of_gain_control_recovers_with_its_own_time_constant(quick_jit):
    """To 2 %: one stage is set, the others at rest, and silence follows.

    What a stage gives reaches the cochlea through the faster ones, which is over once several of
    their time constants have passed.
    """
    params, stages = MODEL.init(), np.arange(4)
    memory = jnp.zeros((4, 4, 1, MODEL.structure.n_channels)).at[stages, stages].set(0.05)
    state = dataclasses.replace(MODEL.init_state(4), agc_memory=memory)
    silence = jnp.zeros((4, round(0.55 * RATE_HZ)))
    outputs, _ = quick_jit(lambda state: MODEL.run(params, silence, state, ("agc",)))(state)
    at_rest = np.asarray(MODEL.design(params).car.undamping_range, np.float64)
    lost = 1 - np.asarray(outputs.agc)[:, :, 0] / at_rest
    for stage, tau_s in enumerate((0.002, 0.008, 0.032, 0.128)):
        # Just before the stage updates: its memory moves in steps, which the undamping follows.
        period = 8 * 2**stage
        early, late = (period * round(k * tau_s * RATE_HZ / period) - 1 for k in (2.5, 4))
        measured_s = (late - early) / RATE_HZ / np.log(lost[stage, early] / lost[stage, late])
        np.testing.assert_allclose(measured_s, tau_s, rtol=0.02)


def test_loss_of_outer_hair_cells_raises_thresholds_and_broadens_tuning(quick_jit):
    """With every quarter of them, at every frequency and in every channel."""
    healths = jnp.array([1.0, 0.75, 0.5, 0.25, 0.0])
    frequencies_hz = np.geomspace(125, 8000, 13)

    @quick_jit
    @jax.vmap
    def ear(health):
        params = MODEL.init()
        healthy = params["car"]["ohc_health"]
        params = {**params, "car": {**params["car"], "ohc_health": health * healthy}}
        return (
            thresholds.absolute_thresholds_db_spl(MODEL, params, frequencies_hz),
            analysis.erb_hz(MODEL, params),
            analysis.q10(MODEL, params),
        )

    threshold, erb, q10 = map(np.asarray, ear(healths))
    assert (np.diff(threshold, axis=0) > 0).all()
    assert (np.diff(erb, axis=0) > 0).all()
    sharpness = np.where(np.isnan(q10), 0, q10)  # never 10 dB down on one side: not tuned at all
    assert (np.diff(sharpness[:, 1:], axis=0)[sharpness[:-1, 1:] > 0] < 0).all()


def test_ears_couple_only_through_the_gain_control():
    """What the left ear hears changes nothing in the right one, bit for bit, unless that mixes."""
    right = tone(1000.0, 40.0, 0.2)
    clips = jnp.asarray(
        [np.stack([left, right], axis=-1) for left in (0 * right, tone(1000.0, 90.0, 0.2))],
        jnp.float32,
    )

    def right_ear(**fields):
        model = Carfac(n_ears=2, **fields)
        return np.asarray(running(model)(model.init(), clips))[:, :, 1]

    for fields in (
        {"open_loop": True},
        {"agc_decimations": ()},
        {"initial": {"agc.mix_coeff": 0.0}},
    ):
        quiet, loud = right_ear(**fields)
        np.testing.assert_array_equal(quiet, loud, err_msg=str(fields))
    quiet, loud = right_ear()
    assert loud[-2000:].std(axis=0).max() < 0.7 * quiet[-2000:].std(axis=0).max()
