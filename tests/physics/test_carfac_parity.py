"""Holds the JAX model to google/carfac's outputs and to the NumPy yardstick, option by option."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from physics.carfac import Carfac
from physics.carfac.structures import OUTPUTS

CASES = [
    "binaural_speech_44k",
    "delay_buffer_noise_22k",
    "just_hwr_speech_16k",
    "linear_noise_16k",
    "ohc_half_speech_16k",
    "one_cap_tone_22k",
    "open_loop_tone_22k",
    "synapse_noise_22k",
    "two_cap_noise_22k",
    "two_cap_speech_16k",
]

MODELS = {
    "two_cap": Carfac(sample_rate_hz=22050),
    "one_cap_delay": Carfac(
        sample_rate_hz=8000, ihc="one_cap", use_delay_buffer=True, agc_decimations=(5, 3)
    ),
    "just_hwr_linear_open": Carfac(
        sample_rate_hz=16000,
        ihc="just_hwr",
        linear_car=True,
        open_loop=True,
        full_scale_db_spl=120,
        settled=True,
        initial={"car.ohc_health": 0.7},
    ),
    "two_ears_synapse": Carfac(
        sample_rate_hz=48000,
        n_ears=2,
        ihc="two_cap_with_syn",
        initial={
            "car.ohc_health": [[1.0], [0.4]],
            "car.first_pole_theta": [2.6, 2.5],
            "car.erb_q": [9.3, 9.2],
            "car.min_zeta": [0.1, 0.15],
            "ihc.tau2_in_s": [0.01, 0.02],
            "synapse.sat_rate_hz": [200.0, 180.0],
            "agc.time_constants_s": [[0.002, 0.01, 0.03, 0.1], [0.003, 0.01, 0.04, 0.2]],
            "agc.stage_gain": [2.0, 1.5],
            "synapse.n_fibers": [[[500.0, 350.0, 250.0]], [[500.0, 100.0, 20.0]]],
            "agc.mix_coeff": 0.9,
        },
    ),
    "every_sample_dense": Carfac(
        sample_rate_hz=11025, agc_decimations=(1,), initial={"car.erb_per_step": 0.25}
    ),
    "three_ears_five_taps": Carfac(
        sample_rate_hz=22050,
        n_ears=3,
        agc_decimations=(8, 2, 4),
        initial={"agc.agc1_scales": [2.0, 3.0, 8.0], "agc.agc2_scales": [2.5, 4.0, 9.0]},
    ),
    "no_gain_control": Carfac(
        sample_rate_hz=96000,
        agc_decimations=(),
        use_delay_buffer=True,
        initial={"car.ohc_health": 0.5},
    ),
}


def worst(got, expected):
    """Largest error relative to the largest value."""
    return np.abs(np.asarray(got) - expected).max() / max(np.abs(expected).max(), 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_golden_case(golden, quick_jit, name):
    case = golden(name)
    params = case.model.init()
    outputs = ("nap", "bm", "agc")
    run = quick_jit(lambda params, audio: case.model.run(params, audio, outputs=outputs)[0])
    given = run(params, jnp.asarray(case.audio)[None])
    for name in outputs:
        assert worst(getattr(given, name)[0], case.outputs[name]) < 1e-3, name
    poles = np.asarray(case.model.channel_frequencies_hz(params)).reshape(case.model.n_ears, -1)
    np.testing.assert_allclose(poles[0], case.pole_frequencies_hz, rtol=5e-6)


@pytest.mark.parametrize("name", MODELS)
def test_equals_the_yardstick(yardstick, quick_jit, x64, name):
    check(yardstick, quick_jit, xla(MODELS[name]), jnp.float64, 1e-9)


@pytest.mark.parametrize("name", ["two_cap", "two_ears_synapse", "no_gain_control"])
def test_equals_the_yardstick_in_float32(yardstick, quick_jit, name):
    check(yardstick, quick_jit, xla(MODELS[name]), jnp.float32, 2e-4)


def check(yardstick, quick_jit, model, dtype, tolerance):
    audio = 0.1 * np.random.default_rng(3).standard_normal((150, model.n_ears))
    names = tuple(n for n in OUTPUTS if n != "firings" or model.ihc == "two_cap_with_syn")
    params = model.init()
    run = quick_jit(lambda params, audio: model.run(params, audio, outputs=names)[0])
    given = run(params, jnp.asarray(audio, dtype)[None])
    expected = yardstick(model, params, audio)
    for name in names:
        assert getattr(given, name).dtype == dtype
        assert worst(getattr(given, name)[0], getattr(expected, name)) < tolerance, name


def test_equals_the_yardstick_without_jit(yardstick):
    model = xla(Carfac(sample_rate_hz=8000, ihc="just_hwr", agc_decimations=(8,)))
    params, audio = model.init(), 0.1 * np.random.default_rng(0).standard_normal((100, 1))
    given, _ = model.run(params, jnp.asarray(audio, jnp.float32)[None])
    assert worst(given.nap[0], yardstick(model, params, audio).nap) < 2e-4


def xla(model):
    """The same model on the path under test."""
    return dataclasses.replace(model, kernel="xla")
