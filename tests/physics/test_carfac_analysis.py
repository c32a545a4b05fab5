"""Holds the frequency analysis to the running model, to itself by other means, and to standards."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.carfac import Carfac, analysis, ear, thresholds

SMALL = Carfac(sample_rate_hz=8000, min_pole_hz=100, agc_decimations=(8, 3))
FREQUENCIES_HZ = np.array([50.0, 200.0, 700.0, 1100.0, 2500.0, 4000.0])


def spectrum_of_a_faint_click(run, model, state):
    """What an FFT of BM motion gives at FREQUENCIES_HZ, `[ears, channels, frequencies]`."""
    samples = 4000
    clicks = np.zeros((1, samples, model.n_ears))
    clicks[:, 0] = 1e-9
    bm = np.asarray(run(clicks, state))[0] / 1e-9
    spectrum = np.fft.rfft(bm, axis=0)[np.rint(FREQUENCIES_HZ / 8000 * samples).astype(int)]
    return spectrum.transpose(1, 2, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"initial": {"car.ohc_health": 0.4}},
        {"use_delay_buffer": True, "linear_car": True},
        {"n_ears": 2, "initial": {"car.ohc_health": [[1.0], [0.2]], "car.velocity_offset": 0.3}},
    ],
)
def test_transfer_functions_are_spectra_of_the_running_model(quick_jit, x64, fields):
    """To 1e-5 of each channel's largest response, phases included; the law asks for 1e-3."""
    model = dataclasses.replace(SMALL, open_loop=True, settled=True, **fields)
    params = model.init()
    run = quick_jit(lambda audio, state: model.run(params, audio, state, ("bm",))[0].bm)
    expected = spectrum_of_a_faint_click(run, model, model.init_state(1))
    response = quick_jit(lambda: analysis.transfer_functions(model, params, FREQUENCIES_HZ))()
    expected = expected[0] if model.n_ears == 1 else expected
    assert response.shape == expected.shape
    error = np.abs(response - expected).max(axis=-1)
    assert (error <= 1e-5 * np.abs(expected).max(axis=-1)).all()
    gains = quick_jit(lambda: analysis.gain_db(model, params, FREQUENCIES_HZ))()
    np.testing.assert_allclose(gains, 20 * np.log10(np.abs(response)), atol=1e-9)


def test_transfer_functions_at_a_state_of_the_gain_control(quick_jit, x64):
    """A loud sound's, of two clips: as its state says, and as relative undamping says."""
    rng = np.random.default_rng(0)
    model, noise = SMALL, 0.3 * rng.standard_normal((2, 24 * 60))
    noise[1] *= 0.01
    params = model.init()
    _, state = quick_jit(model.run)(params, noise)
    held = np.asarray(state.undamping)
    zero = jnp.zeros((1, *held.shape[1:]))
    frozen = dataclasses.replace(model, open_loop=True)
    run = quick_jit(lambda audio, state: frozen.run(params, audio, state, ("bm",))[0].bm)
    response = quick_jit(
        lambda state: analysis.transfer_functions(model, params, FREQUENCIES_HZ, state=state)
    )(state)
    assert response.shape == (2, model.structure.n_channels, FREQUENCIES_HZ.size)
    for clip in (0, 1):
        one = dataclasses.replace(
            model.init_state(1),
            undamping=state.undamping[clip][None] + zero,
            gain=state.gain[clip][None] + zero,
        )
        expected = spectrum_of_a_faint_click(run, model, one)[0]
        error = np.abs(response[clip] - expected).max(axis=-1)
        assert (error <= 1e-5 * np.abs(expected).max(axis=-1)).all()

    relative = held[1, 0] / np.asarray(model.design(params).car.undamping_range)[0]
    by_undamping = analysis.transfer_functions(model, params, FREQUENCIES_HZ, undamping=relative)
    # The gain still glides to where this undamping will have it.
    np.testing.assert_allclose(np.abs(by_undamping), np.abs(response[1]), rtol=0.02)
    assert np.abs(response[0]).max() < 0.5 * np.abs(response[1]).max()


def test_peaks_and_bandwidths_are_those_of_the_curves(quick_jit, x64):
    """Against what is read off a dense curve, as anyone would who has only that."""
    params = SMALL.init()
    frequencies_hz = np.geomspace(2, 4000, 20001)
    curves = np.abs(analysis.transfer_functions(SMALL, params, frequencies_hz))
    best, q10, erb = quick_jit(
        lambda p: (
            analysis.best_frequencies_hz(SMALL, p),
            analysis.q10(SMALL, p),
            analysis.erb_hz(SMALL, p),
        )
    )(params)
    np.testing.assert_allclose(best, frequencies_hz[curves.argmax(axis=-1)], rtol=5e-4)
    for channel, curve in enumerate(curves):
        power = curve**2 / curve.max() ** 2
        area = np.sum(0.5 * (power[1:] + power[:-1]) * np.diff(frequencies_hz))
        assert erb[channel] == pytest.approx(area, rel=1e-3)
        within = frequencies_hz[power >= 0.1]
        if within[-1] == 4000:
            assert np.isnan(q10[channel])
        else:
            width = within[-1] - within[0]
            assert q10[channel] == pytest.approx(frequencies_hz[power.argmax()] / width, rel=5e-3)
    assert np.isfinite(q10).sum() > 0.8 * q10.size


def test_best_frequencies_are_differentiable(quick_jit, x64):
    """Central differences, to 1e-5, of the derivative by the map and by the least damping."""
    params = SMALL.init()
    best = quick_jit(jax.value_and_grad(lambda p: analysis.best_frequencies_hz(SMALL, p)[10]))
    _, gradient = best(params)
    for name in ("erb_per_step", "min_zeta"):

        def moved(step, name=name):
            return {**params, "car": {**params["car"], name: params["car"][name] + step}}

        difference = (best(moved(1e-5))[0] - best(moved(-1e-5))[0]) / 2e-5
        assert abs(difference) > 0.1
        assert gradient["car"][name] == pytest.approx(float(difference), rel=1e-5)


def test_shapes_for_ears_and_clips():
    model = dataclasses.replace(SMALL, n_ears=2)
    params, channels = model.init(), model.structure.n_channels

    everything = (analysis.best_frequencies_hz, analysis.q10, analysis.erb_hz)
    shapes = jax.eval_shape(lambda p: [f(model, p) for f in everything], params)
    assert [a.shape for a in shapes] == 3 * [(2, channels)]
    best = analysis.best_frequencies_hz
    halved = jax.eval_shape(lambda p: best(model, p, undamping=np.full((2, 1), 0.5)), params)
    assert halved.shape == (2, channels)
    of_clips = jax.eval_shape(lambda p: best(model, p, state=model.init_state(3)), params)
    assert of_clips.shape == (3, 2, channels)
    framed = dataclasses.replace(model, hop_s=0.01)
    state = jax.eval_shape(lambda: framed.init_state(3))
    given = jax.eval_shape(
        lambda p, s: analysis.gain_db(framed, p, [100.0], state=s), params, state
    )
    assert given.shape == (3, 2, channels, 1)


def test_tuning_curves_of_the_running_model_follow_the_small_signal_ones_until_it_compresses():
    """To 0.2 dB where the criterion is faint; then the tip rises by more than the tail."""
    model = Carfac(n_ears=2, settled=True, initial={"car.ohc_health": [[1.0], [0.5]]})
    params, channel = model.init(), 38
    frequencies_hz = np.array([400.0, 700.0, 1000.0, 1200.0])
    faint, strong = (
        np.asarray(
            thresholds.measured_levels_db_spl(
                model, params, frequencies_hz, criterion, channel=channel, duration_s=0.3
            )
        )
        for criterion in (1e-3, 1.0)
    )
    small = analysis.tuning_curve(model, params, frequencies_hz, channel, 1e-3)
    np.testing.assert_allclose(faint, small, atol=0.2)
    assert (faint[1, 2:] > faint[0, 2:] + 10).all()  # half of the hair cells: a blunter tip
    rise = strong - faint
    assert rise[0, 2] > rise[0, 0] + 10
    assert rise[0, 0] == pytest.approx(60, abs=3)


def test_measured_levels_out_of_reach_are_nan_and_nap_has_its_own_criterion():
    model = SMALL
    by_nap, never = (
        thresholds.measured_levels_db_spl(
            model, model.init(), [1000.0], criterion, output="nap", duration_s=0.1
        )
        for criterion in (1e-2, 1e6)
    )
    assert 0 < by_nap[0] < 60
    assert np.isnan(never[0])


def test_criterion_is_the_reference_threshold_at_1_khz(quick_jit):
    model = Carfac()
    params = model.init()
    criterion, level, hl = quick_jit(
        lambda p: (
            thresholds.calibrated_criterion(model, p),
            thresholds.absolute_thresholds_db_spl(model, p, np.array([1000.0])),
            thresholds.thresholds_db_hl(model, p, np.array([1000.0])),
        )
    )(params)
    assert criterion == pytest.approx(thresholds.CRITERION_BM, rel=1e-4)
    assert level == pytest.approx([2.4], abs=1e-2)
    assert hl == pytest.approx([0], abs=1e-2)
    dense = dataclasses.replace(SMALL, initial={"car.erb_per_step": 0.25})

    @quick_jit
    def calibrated(params):
        criterion = thresholds.calibrated_criterion(dense, params)
        return thresholds.thresholds_db_hl(dense, params, np.array([1000.0]), criterion)

    assert calibrated(dense.init()) == pytest.approx([0], abs=1e-2)


def test_levels_are_of_sound_whatever_full_scale_is():
    """Another meaning of 1.0 changes no threshold, of the analysis or of the running model."""
    f = np.array([1000.0])
    quiet, loud = (dataclasses.replace(SMALL, full_scale_db_spl=level) for level in (90, 120))
    params = quiet.init()
    for levels in (thresholds.absolute_thresholds_db_spl, thresholds.measured_levels_db_spl):
        np.testing.assert_allclose(levels(quiet, params, f), levels(loud, params, f), atol=0.02)


@pytest.mark.parametrize("sound_field", ["free", "diffuse", "eardrum"])
def test_outer_and_middle_ear_count(sound_field):
    """In the analysis exactly; in the running model as its filter is exact, to 0.5 dB."""
    f = np.array([500.0, 1000.0, 3000.0])
    bare = SMALL
    model = dataclasses.replace(bare, ear_filter="minimum", sound_field=sound_field)
    params, gain = model.init(), ear.transfer_db(f, sound_field)
    with_ear = np.asarray(thresholds.absolute_thresholds_db_spl(model, params, f))
    without = np.asarray(thresholds.absolute_thresholds_db_spl(bare, params, f))
    np.testing.assert_allclose(with_ear, without - gain, atol=1e-4)
    measured = thresholds.measured_levels_db_spl(model, params, f, duration_s=0.3)
    np.testing.assert_allclose(measured, with_ear, atol=0.5)
    hl = thresholds.thresholds_db_hl(model, params, f)
    np.testing.assert_allclose(
        hl, with_ear - thresholds.reference_db_spl(f, sound_field), atol=1e-4
    )


def test_reference_thresholds():
    """ISO 389-7 at audiometric frequencies, and between the values of its table."""
    f = np.array([125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0])
    free = [22.1, 11.4, 4.4, 2.4, -1.3, -5.4, 12.6]
    diffuse = [22.1, 11.4, 3.8, 0.8, -1.5, -3.8, 6.8]
    np.testing.assert_allclose(thresholds.reference_db_spl(f), free, atol=1e-9)
    np.testing.assert_allclose(thresholds.reference_db_spl(f, "diffuse"), diffuse, atol=1e-9)
    assert -6.0 < thresholds.reference_db_spl(3000.0) < -4.2
    pressure = thresholds.reference_db_spl(f, "eardrum") - thresholds.reference_db_spl(f)
    assert pressure[3] == pytest.approx(2.6)  # what a head and an ear canal add at 1 kHz


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: analysis.gain_db(m, p, []), r"at least one; got shape \(0,\)"),
        (lambda m, p: analysis.gain_db(m, p, 1000.0), r"\[frequencies\].*got shape \(\)"),
        (lambda m, p: analysis.gain_db(m, p, [[1.0]]), r"got shape \(1, 1\)"),
        (
            lambda m, p: analysis.transfer_functions(m, p, [100.0, 4001.0]),
            r"between 0 and 4000, half of the sample rate; got 100 to 4001",
        ),
        (lambda m, p: analysis.gain_db(m, p, [-1.0]), r"got -1 to -1"),
        (lambda m, p: analysis.gain_db(m, p, [np.nan]), r"got nan"),
        (
            lambda m, p: analysis.erb_hz(m, p, undamping=np.ones(3)),
            r"undamping must have one of the shapes .*got \(3,\)",
        ),
        (
            lambda m, p: analysis.erb_hz(
                m, p, undamping=1, state=jax.eval_shape(lambda: m.init_state(1))
            ),
            "by undamping or by state; got both",
        ),
        (lambda m, p: analysis.tuning_curve(m, p, [100.0], 99, 1.0), "got 99"),
        (
            lambda m, p: thresholds.measured_levels_db_spl(m, p, [100.0], output="ohc"),
            r"output must be one of .*got 'ohc'",
        ),
        (lambda m, p: thresholds.thresholds_db_hl(m, p, [10.0]), r"from 20 to 16000 Hz; got 10"),
        (
            lambda m, p: thresholds.reference_db_spl(1000.0, "room"),
            r"sound_field must be one of .*got 'room'",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(SMALL, SMALL.init())
