"""Holds imported settings to google/carfac: names, values, and what its models gave for them.

The golden cases `google_*` hold settings that differ from the defaults, by google/carfac's names,
and outputs of its NumPy model at commit 3a69467; `google_ears_differ_22k` those of its JAX model
there, for the NumPy one gives all ears the same coefficients. Outputs are every `stride`-th sample.
"""

import dataclasses
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.carfac import Carfac

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = [
    "google_ears_differ_22k",
    "google_one_cap_48k",
    "google_synapse_16k",
    "google_two_stages_8k",
    "google_zetas_24k",
]

SYN = "two_cap_with_syn"
STAGES = [0.003, 0.01, 0.04, 0.2]
NAMES = [  # group, name in google/carfac, value, path here, style
    ("car", "velocity_scale", 0.2, "car.velocity_scale", "two_cap"),
    ("car", "v_offset", 0.1, "car.velocity_offset", "two_cap"),
    ("car", "min_zeta", 0.12, "car.min_zeta", "two_cap"),
    ("car", "max_zeta", 0.3, "car.max_zeta", "two_cap"),
    ("car", "first_pole_theta", 2.5, "car.first_pole_theta", "two_cap"),
    ("car", "zero_ratio", 1.3, "car.zero_ratio", "two_cap"),
    ("car", "high_f_damping_compression", 0.2, "car.high_f_damping_compression", "two_cap"),
    ("car", "erb_per_step", 0.8, "car.erb_per_step", "two_cap"),
    ("car", "ERB_break_freq", 228.8, "car.erb_break_hz", "two_cap"),
    ("car", "ERB_Q", 8.0, "car.erb_q", "two_cap"),
    ("car", "ac_corner_Hz", 35.0, "car.ac_corner_hz", "two_cap"),
    ("car", "OHC_health", 0.7, "car.ohc_health", "two_cap"),
    ("ihc", "tau_lpf", 1e-4, "ihc.tau_lpf_s", "two_cap"),
    ("ihc", "tau_lpf", 1e-4, "ihc.tau_lpf_s", "one_cap"),
    ("ihc", "tau_out", 8e-4, "ihc.tau_out_s", "one_cap"),
    ("ihc", "tau_in", 0.02, "ihc.tau_in_s", "one_cap"),
    ("ihc", "tau1_out", 6e-4, "ihc.tau1_out_s", "two_cap"),
    ("ihc", "tau1_in", 3e-4, "ihc.tau1_in_s", "two_cap"),
    ("ihc", "tau2_out", 2e-3, "ihc.tau2_out_s", SYN),
    ("ihc", "tau2_in", 0.02, "ihc.tau2_in_s", SYN),
    ("agc", "time_constants", STAGES, "agc.time_constants_s", "two_cap"),
    ("agc", "AGC_stage_gain", 1.5, "agc.stage_gain", "two_cap"),
    ("agc", "agc1_scales", [1.0, 1.5, 2.0, 3.0], "agc.agc1_scales", "two_cap"),
    ("agc", "agc2_scales", [1.5, 2.0, 3.0, 4.0], "agc.agc2_scales", "two_cap"),
    ("agc", "agc_mix_coeff", 0.25, "agc.mix_coeff", "two_cap"),
    ("agc", "agc_mix_coeffs", 0.25, "agc.mix_coeff", "two_cap"),
    ("syn", "spont_rates", [40.0, 5.0, 0.5], "synapse.spont_rates_hz", SYN),
    ("syn", "sat_rates", 300.0, "synapse.sat_rate_hz", SYN),
    ("syn", "sat_reservoir", 0.3, "synapse.sat_reservoir", SYN),
    ("syn", "v_width", 0.03, "synapse.v_width", SYN),
    ("syn", "tau_lpf", 1e-4, "synapse.tau_lpf_s", SYN),
    ("syn", "reservoir_tau", 0.05, "synapse.reservoir_tau_s", SYN),
    ("syn", "agc_weights", [4e-6, 5e-6, 6e-6], "synapse.agc_weights", SYN),
    ("syn", "n_fibers", [400.0, 100.0, 20.0], "synapse.n_fibers", SYN),
]


@dataclasses.dataclass
class CarParams:
    """As google/carfac's NumPy model has it, in part."""

    min_zeta: float = 0.10
    v_offset: float = 0.04
    min_pole_hz: float = 30


def leaves(model):
    """Physical values of a model by path."""
    tree = model.physical(model.init())
    return {f"{g}.{n}": np.asarray(v) for g, values in tree.items() for n, v in values.items()}


@pytest.mark.parametrize("name", CASES)
def test_computes_what_google_carfac_does(quick_jit, name):
    case = np.load(GOLDEN / f"{name}.npz")
    model = Carfac.from_google(json.loads(str(case["settings"])))
    params, audio = model.init(), jnp.asarray(case["audio"])[None]
    run = quick_jit(lambda params, audio: model.run(params, audio, outputs=("nap", "bm"))[0])
    given, stride = run(params, audio), int(case["stride"])
    for output in ("nap", "bm"):
        expected = case[output]
        error = np.asarray(getattr(given, output))[0, stride - 1 :: stride] - expected
        assert np.abs(error).max() < 1e-3 * np.abs(expected).max(), output


@pytest.mark.parametrize("name", CASES)
def test_has_its_channels(x64, name):
    case = np.load(GOLDEN / f"{name}.npz")
    model = Carfac.from_google(json.loads(str(case["settings"])))
    poles = np.atleast_2d(model.channel_frequencies_hz(model.init()))[0]
    np.testing.assert_allclose(poles, case["pole_freqs"], rtol=2e-7)  # they are float32


def test_defaults_are_ours():
    assert Carfac.from_google({}) == Carfac()
    nested = {"car_params": {}, "agc_params": None, "ihc_params": {"ihc_style": "two_cap"}}
    assert Carfac.from_google(nested) == Carfac()
    explicit = {
        "time_constants": 0.002 * 4.0 ** np.arange(4),
        "agc1_scales": 2 ** (0.5 * np.arange(4)),
        "agc2_scales": 1.65 * 2 ** (0.5 * np.arange(4)),
        "decimation": (8, 2, 2, 2),
        "n_stages": 4,
        "erb_q": 1000 / (24.7 * 4.37),
        "ihc_style": SYN,
        "healthy_n_fibers": np.array([500, 350, 250]),
        "agc_weights": np.full(3, 1.2) / 22050 / 10,
    }
    given, expected = leaves(Carfac.from_google(explicit)), leaves(Carfac(ihc=SYN))
    assert given.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(given[path], value, err_msg=path)


@pytest.mark.parametrize(("group", "name", "value", "path", "style"), NAMES)
def test_a_name_changes_its_leaf_alone(group, name, value, path, style):
    ears = 2 if "mix" in name else 1
    model = Carfac.from_google(
        {"n_ears": ears, "ihc_style": style, f"{group.upper()}_params": {name: value}}
    )
    changed, default = leaves(model), leaves(Carfac(n_ears=ears, ihc=style))
    assert changed.keys() == default.keys()
    np.testing.assert_allclose(
        changed[path], np.broadcast_to(value, changed[path].shape), rtol=2e-5
    )
    assert not np.array_equal(np.unique(changed[path]), np.unique(default[path]))
    for other in default.keys() - {path}:
        assert np.array_equal(np.unique(changed[other]), np.unique(default[other])), other
    if not (name == "tau_lpf" and style == SYN):
        assert model == Carfac.from_google({"n_ears": ears, "ihc_style": style, name: value})


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"fs": 16000}, {"sample_rate_hz": 16000.0}),
        ({"n_ears": 3}, {"n_ears": 3}),
        ({"min_pole_hz": 60}, {"min_pole_hz": 60.0}),
        ({"use_delay_buffer": 1}, {"use_delay_buffer": True}),
        ({"car": {"linear_car": True}}, {"linear_car": True}),
        ({"open_loop": True, "linear_car": False}, {"open_loop": True}),
        ({"ihc_style": "just_hwr"}, {"ihc": "just_hwr"}),
        ({"ihc_params": {"one_cap": 1, "just_hwr": 0}}, {"ihc": "one_cap"}),
        ({"IHC_params": {"do_syn": 1}, "SYN_params": {"do_syn": 1}}, {"ihc": SYN}),
        ({"ihc_style": SYN, "ihc_params": {"ihc_style": "two_cap"}}, {"ihc": SYN}),
        ({"decimation": [16, 2, 2, 1]}, {"agc_decimations": (16, 2, 2, 1)}),
        ({"n_stages": 2}, {"agc_decimations": (8, 2)}),
        ({"decimation": [8, 1, 1, 1], "simpler_decimating": 1}, {"agc_decimations": (8, 1, 1, 1)}),
        (
            {"ihc_style": SYN, "healthy_n_fibers": [600, 80], "n_classes": 2},
            {"ihc": SYN, "healthy_fibres": (600.0, 80.0)},
        ),
    ],
)
def test_what_is_discrete(settings, fields):
    assert Carfac.from_google(settings) == Carfac(**fields)


def test_as_many_hair_cells_as_a_channel_has():
    model = Carfac.from_google({"ihc_style": SYN, "ihcs_per_channel": 20})
    assert model.healthy_fibres == (1000.0, 700.0, 500.0)
    values = leaves(model)
    np.testing.assert_allclose(values["synapse.n_fibers"][0, 0], [1000, 700, 500])
    np.testing.assert_allclose(values["synapse.agc_weights"], 1.2 / 22050 / 20, rtol=1e-4)


def test_lists_are_cut_to_the_stages():
    model = Carfac.from_google({"n_stages": 2, "time_constants": STAGES, "decimation": [4, 2, 9]})
    assert model == Carfac(agc_decimations=(4, 2), initial={"agc.time_constants_s": [0.003, 0.01]})


def test_what_a_style_does_not_use_is_left_out():
    assert Carfac.from_google({"tau_out": 3e-3, "sat_rates": 100.0}) == Carfac()
    assert Carfac.from_google({"agc_mix_coeff": 0.1}) == Carfac()


def test_objects_stand_for_mappings():
    expected = Carfac.from_google({"fs": 16000, "min_zeta": 0.12})
    assert expected.sample_rate_hz == 16000
    car = CarParams(min_zeta=0.12)
    explicit = {"min_zeta": 0.12, "v_offset": 0.04, "min_pole_hz": 30}
    same = Carfac.from_google({"fs": 16000, "car_params": explicit})
    assert Carfac.from_google({"fs": 16000, "car_params": car}) == same
    design = types.SimpleNamespace(fs=16000, ears=[types.SimpleNamespace(car=car)])
    assert Carfac.from_google(design) == same
    assert Carfac.from_google(car) == dataclasses.replace(same, sample_rate_hz=22050)
    assert leaves(same).keys() == leaves(expected).keys()


def test_ears_of_a_jax_design():
    health = np.linspace(0.2, 1.0, Carfac().structure.n_channels)
    ears = [
        {"car": {"min_zeta": 0.12, "max_zeta": 0.3}, "ihc": {"ihc_style": SYN}},
        {
            "car": {"max_zeta": 0.3, "ohc_health": health},
            "agc": {"agc_stage_gain": 1.5, "agc1_scales": [1.0, 1.5, 2.0, 3.0]},
            "ihc": {"ihc_style": SYN},
            "syn": {"n_fibers": [400, 100, 20], "sat_rates": 250, "spont_rates": [40, 5, 0.5]},
        },
    ]
    model = Carfac.from_google({"ears": ears}, kernel="xla")
    assert (model.n_ears, model.ihc, model.kernel) == (2, SYN, "xla")
    values = leaves(model)
    np.testing.assert_allclose(values["car.min_zeta"], [[0.12], [0.1]], rtol=1e-5)
    np.testing.assert_allclose(values["car.max_zeta"], 0.3, rtol=1e-5)
    assert values["car.max_zeta"].shape == ()
    np.testing.assert_allclose(values["car.ohc_health"], [np.ones_like(health), health], rtol=1e-6)
    np.testing.assert_allclose(values["agc.stage_gain"], [[2.0], [1.5]], rtol=1e-5)
    np.testing.assert_allclose(values["agc.agc1_scales"][:, 1], [2**0.5, 1.5], rtol=1e-5)
    np.testing.assert_allclose(values["agc.mix_coeff"], 0.5)
    np.testing.assert_allclose(values["synapse.n_fibers"][:, 9, 1], [350, 100], rtol=1e-5)
    np.testing.assert_allclose(values["synapse.sat_rate_hz"], [[200], [250]], rtol=1e-5)
    np.testing.assert_allclose(values["synapse.spont_rates_hz"][:, 0, 1], [6, 5], rtol=1e-5)
    shapes = jax.eval_shape(model.apply, model.init(), jnp.zeros((1, 9, 2)))
    assert shapes[0].shape == (1, 9, 2, health.size)


def test_channels_that_follow_from_the_map():
    poles = Carfac().channel_frequencies_hz(Carfac().init())
    assert Carfac.from_google({"n_ch": 71, "pole_freqs": poles}) == Carfac()
    with pytest.raises(ValueError, match=r"n_ch must follow from fs and the frequency map: 71"):
        Carfac.from_google({"n_ch": 70})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_zetta": 0.1}, r"no design parameter 'min_zetta'. Nearest: \['min_zeta'"),
        ({"agc_params": {"min_zeta": 0.1}}, r"no design parameter 'min_zeta' in 'agc_params'"),
        ({"ears": [{"car_coeffs": {}}]}, r"no design parameter 'car_coeffs'.*only follows"),
        ({"min_zeta": -1.0}, r"no equal here. car.min_zeta must lie in \(0.01, 0.3\) 1; got -1"),
        ({"erb_break_freq": 5.0}, r"car.erb_break_hz must lie .*In google/carfac: erb_break_freq"),
        ({"fs": 4000}, r"no equal here. sample_rate_hz must lie between 8000 and 96000"),
        ({"min_zeta": 0.1, "car": {"min_zeta": 0.1}}, r"'min_zeta' is given twice"),
        ({"n_ears": 2, "agc_mix_coeff": 0.1, "agc_mix_coeffs": 0.1}, r"in two spellings"),
        ({"use_delay_buffer": True, "car": {"use_delay_buffer": False}}, r"both True and False"),
        ({"ihc_style": "one_cap", "ihc_params": {"ihc_style": "two_cap"}}, r"name one style"),
        ({"ihc_style": SYN, "syn_params": {"do_syn": False}}, r"name one style.*do_syn=\[False\]"),
        ({"ihc_style": "three_cap"}, r"no equal here. ihc must be one of .*got 'three_cap'"),
        ({"ihc_style": SYN, "tau_lpf": 1e-4}, r"tau_lpf names two things with a synapse"),
        ({"decimation": [8, 2]}, r"decimation must have a value for each of n_stages=4.*got 2"),
        ({"n_stages": 5}, r"decimation must have a value for each of n_stages=5"),
        ({"simpler_decimating": True}, r"simpler_decimating follows from the decimations"),
        ({"ihc_style": SYN, "n_classes": 2}, r"n_classes must be the length .*, 3; got 2"),
        (
            {"ihc_style": SYN, "ihcs_per_channel": 20, "agc_weights": [1e-6] * 3},
            r"ihcs_per_channel stands for healthy_n_fibers and agc_weights",
        ),
        ({"n_ears": 2, "ears": [{}]}, r"ears must list n_ears=2 of them; got 1"),
        ({"ears": [{}, {"agc": {"n_stages": 2}}]}, r"Ears must agree in what is discrete"),
        ({"ears": [{}, {"car": {"erb_per_step": 1.0}}]}, r"Ears must agree in what is discrete"),
        ({"ears": [{}, {"agc": {"time_constants": STAGES}}]}, r"Ears that are coupled must agree"),
        ("two_cap", r"are a mapping of names to values.*got 'two_cap'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Carfac.from_google(settings)


def test_fields_that_the_settings_decide():
    with pytest.raises(ValueError, match="got initial, n_ears, which the settings decide"):
        Carfac.from_google({"fs": 16000}, initial={"car.ohc_health": 0.5}, n_ears=2)
