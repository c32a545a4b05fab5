"""Holds the NumPy yardstick of CAR-FAC to google/carfac's outputs and to what its parts must be."""

import ast
import pathlib

import numpy as np
import pytest

from physics.carfac import reference

# Other tests' cases lie in the same folder.
GOLDEN = [
    path
    for path in sorted((pathlib.Path(__file__).parents[1] / "golden").glob("*.npz"))
    if not path.stem.startswith(("google_", "sai_"))
]
STYLES = reference.IHC_STYLES


def noise(time=300, ears=1, rms=0.05, seed=0):
    return rms * np.random.default_rng(seed).standard_normal((time, ears))


def difference(got, expected):
    """Largest difference relative to the largest expected value."""
    return np.abs(got - expected).max() / np.abs(expected).max()


def assert_same(outputs, expected):
    for name, got, value in zip(outputs._fields, outputs, expected, strict=True):
        np.testing.assert_array_equal(got, value, err_msg=name)


def test_stands_alone_and_is_short():
    source = pathlib.Path(reference.__file__).read_text()
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    assert modules == {"copy", "collections.abc", "types", "typing", "numpy"}
    assert len(source.splitlines()) <= 400


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_matches_google_carfac(path):
    case = np.load(path)
    coefficients = reference.design(
        {"car": {"ohc_health": float(case["ohc_health"])}},
        float(case["sample_rate_hz"]),
        num_ears=int(case["n_ears"]),
        ihc_style=str(case["ihc"]),
        use_delay_buffer=bool(case["use_delay_buffer"]),
    )
    outputs, _ = reference.run(
        coefficients,
        case["audio"],
        open_loop=bool(case["open_loop"]),
        linear_car=bool(case["linear_car"]),
    )
    np.testing.assert_allclose(
        coefficients.pole_frequencies_hz, np.tile(case["pole_freqs"], (len(case["audio"][0]), 1)),
        rtol=1e-6,
    )  # fmt: skip
    for name, tolerance in (("nap", 1e-3), ("bm", 2e-4), ("agc", 1e-5)):
        expected = case[name].transpose(0, 2, 1)
        assert difference(getattr(outputs, name), expected) < tolerance, name


def test_all_ten_golden_cases_are_here():
    assert len(GOLDEN) == 10


@pytest.mark.parametrize("use_delay_buffer", [False, True])
@pytest.mark.parametrize("style", STYLES)
def test_streaming_equals_the_whole_bit_for_bit(style, use_delay_buffer):
    audio = noise(ears=2)
    coefficients = reference.design(
        {"car": {"erb_per_step": 1.0}},
        num_ears=2,
        ihc_style=style,
        use_delay_buffer=use_delay_buffer,
        decimation=(3, 2, 1),
    )
    whole, last = reference.run(coefficients, audio)
    cuts = np.random.default_rng(1).choice(np.arange(3, len(audio)), 12, replace=False)
    pieces, state = [], None
    for piece in np.split(audio, np.sort([1, 2, *cuts])):
        before = str(state)
        outputs, after = reference.run(coefficients, piece, state)
        assert str(state) == before, "the caller's state was altered"
        pieces.append(outputs)
        state = after
    joined = reference.Outputs(
        *(None if values[0] is None else np.concatenate(values) for values in zip(*pieces))  # noqa: B905
    )
    assert_same(joined, whole)
    np.testing.assert_array_equal(state["car"]["z1"], last["car"]["z1"])
    assert [stage["phase"] for stage in state["agc"]] == [stage["phase"] for stage in last["agc"]]


@pytest.mark.parametrize("sample_rate_hz", [8000.0, 11025.0, 22050.0, 44100.0, 96000.0])
@pytest.mark.parametrize("erb_per_step", [0.25, 0.5, 1.0, 2.0])
def test_every_rate_and_density_designs_a_stable_cascade(sample_rate_hz, erb_per_step):
    coefficients = reference.design({"car": {"erb_per_step": erb_per_step}}, sample_rate_hz)
    poles, car = coefficients.pole_frequencies_hz[0], coefficients.car
    assert poles[0] == pytest.approx(0.425 * sample_rate_hz)
    assert np.all(np.diff(poles) < 0.0)
    assert poles[-1] > 30.0
    # The map is geometric about the break frequency.
    ratio = (165.3 + poles[1:]) / (165.3 + poles[:-1])
    np.testing.assert_allclose(ratio, 1.0 - erb_per_step * 24.7 * 4.37 / 1000.0, rtol=1e-12)
    for undamping in (0.0, 0.3, 1.0):
        radius = car.r1 + undamping * car.zr
        assert np.all((radius > 0.0) & (radius < 1.0))
    outputs, _ = reference.run(coefficients, noise(40))
    assert all(np.all(np.isfinite(values)) for values in outputs[:5])


def test_default_channel_counts_are_those_of_google_carfac():
    for rate, count in ((16000.0, 65), (22050.0, 71), (44100.0, 83)):
        assert reference.design({}, rate).pole_frequencies_hz.shape == (1, count)


def test_each_resonator_has_a_gain_of_one_at_dc():
    car = reference.design().car
    for undamping, tolerance in ((0.0, 1e-12), (0.5, 1e-12), (1.0, 1e-12), (0.25, 2e-3)):
        r, g = car.r1 + car.zr * undamping, reference.stage_gain(car, undamping)
        for a0, c0, h, radius, gain in np.nditer([car.a0, car.c0, car.h, r, g]):
            rotation = radius * np.array([[a0, -c0], [c0, a0]])
            z2_before = np.linalg.solve(np.eye(2) - rotation, [1.0, 0.0])
            z2 = (rotation @ z2_before)[1]
            assert gain * (1.0 + h * z2) == pytest.approx(1.0, abs=tolerance)


def test_dc_passes_the_cascade_and_is_then_removed():
    coefficients = reference.design({}, 16000.0)
    outputs, state = reference.run(
        coefficients, np.full((3000, 1), 0.01), open_loop=True, linear_car=True
    )
    np.testing.assert_allclose(state["car"]["zy"], 0.01, rtol=0.01)
    assert np.abs(outputs.bm[-1]).max() < 1e-3


def test_linear_car_in_open_loop_is_linear():
    coefficients = reference.design()
    x, y = noise(seed=1), noise(seed=2)

    def bm(audio, **options):
        return reference.run(coefficients, audio, linear_car=True, **options)[0].bm

    combined = bm(2.0 * x - 3.0 * y, open_loop=True)
    expected = 2.0 * bm(x, open_loop=True) - 3.0 * bm(y, open_loop=True)
    assert difference(combined, expected) < 1e-12
    assert difference(bm(2.0 * x), 2.0 * bm(x)) > 1e-4  # the closed loop still compresses


def test_open_loop_keeps_damping_where_it_is():
    coefficients = reference.design()
    outputs, _ = reference.run(coefficients, noise(), open_loop=True)
    np.testing.assert_array_equal(outputs.agc, np.broadcast_to(coefficients.car.zr, (300, 1, 71)))
    closed, state = reference.run(coefficients, noise(rms=0.3))
    after, _ = reference.run(coefficients, noise(), state, open_loop=True)
    np.testing.assert_array_equal(after.agc, np.broadcast_to(closed.agc[-1], (300, 1, 71)))


def test_without_agc_the_undamping_is_the_ohc_health():
    health = np.linspace(0.2, 1.0, 71)
    coefficients = reference.design({"car": {"ohc_health": health}}, decimation=())
    outputs, state = reference.run(coefficients, noise())
    np.testing.assert_array_equal(outputs.agc[0, 0], health * coefficients.car.zr[0])
    assert_same(reference.run(coefficients, noise(), open_loop=True)[0], outputs)
    assert state["agc"] == []


def test_a_deaf_agc_ends_where_no_agc_starts():
    health = {"car": {"ohc_health": 0.4}}
    silence, click = np.zeros((40, 1)), np.eye(200)[:, :1] * 1e-3
    deaf = reference.design(health)
    _, state = reference.run(deaf, silence)
    np.testing.assert_allclose(state["car"]["zb"], 0.4 * deaf.car.zr, rtol=1e-9)
    settled = reference.init_state(deaf, settled=True)
    np.testing.assert_allclose(state["car"]["g"], settled["car"]["g"], rtol=1e-9)
    without = reference.design(health, decimation=())
    assert_same(
        reference.run(without, click)[0],
        reference.run(deaf, click, reference.init_state(deaf, settled=True), open_loop=True)[0],
    )


def test_damping_starts_healthy_and_moves_to_the_ohc_health_in_one_update():
    coefficients = reference.design({"car": {"ohc_health": 0.5}})
    outputs, _ = reference.run(coefficients, np.zeros((20, 1)))
    relative = outputs.agc[:, 0] / coefficients.car.zr[0]
    np.testing.assert_array_equal(relative[:8], 1.0)
    np.testing.assert_allclose(relative[8:16, 0], 1.0 - 0.5 * np.arange(1, 9) / 8, rtol=1e-12)
    np.testing.assert_allclose(relative[16:], 0.5, rtol=1e-9)


@pytest.mark.parametrize("style", STYLES)
def test_silence_stays_silent(style):
    coefficients = reference.design(ihc_style=style)
    outputs, _ = reference.run(coefficients, np.zeros((100, 1)))
    for name in ("nap", "bm", "ohc", "receptor_potential"):
        assert np.abs(getattr(outputs, name)).max() < 1e-12, name
    if style == "two_cap_with_syn":
        rates = outputs.firings[-1, 0, 0] * coefficients.sample_rate_hz
        np.testing.assert_allclose(rates, [500 * 50, 350 * 6, 250 * 1], rtol=1e-9)


def test_losing_fibres_lowers_the_nap_and_the_agc_below_healthy_rest():
    fibres = np.array([250.0, 350.0, 250.0])
    impaired = reference.design({"synapse": {"n_fibers": fibres}}, ihc_style="two_cap_with_syn")
    outputs, _ = reference.run(impaired, np.zeros((100, 1)))
    weight = 22050.0 * 1.2 / 22050.0 / 10.0
    np.testing.assert_allclose(outputs.nap, -250.0 * 50.0 / 22050.0 * weight, rtol=1e-9)
    assert outputs.agc[-1].min() > impaired.car.zr.min()
    assert np.all(outputs.agc[-1] > impaired.car.zr)


def test_half_wave_rectifier_clips():
    outputs, _ = reference.run(reference.design(ihc_style="just_hwr"), noise(rms=5.0))
    np.testing.assert_array_equal(outputs.nap, np.clip(outputs.bm, 0.0, 2.0))
    assert outputs.nap.max() == 2.0


@pytest.mark.parametrize(("taps", "iterations"), [(3, 1), (3, 4), (5, 1), (5, 3)])
def test_spatial_smoothing_has_the_moments_it_was_designed_for(taps, iterations):
    variance, delay = 0.5 * iterations, 0.2
    fir = reference.smoothing_fir(taps, iterations, np.array([[variance]]), np.array([[delay]]))
    stage = reference.SimpleNamespace(taps=taps, iterations=iterations, fir=fir)
    level = reference.smooth_channels(stage, np.full((2, 40), 3.0))
    np.testing.assert_allclose(level, 3.0, rtol=1e-12)
    x = np.random.default_rng(0).random((1, 60)) * (np.abs(np.arange(60) - 30) < 8)
    assert reference.smooth_channels(stage, x).sum() == pytest.approx(x.sum(), rel=1e-12)
    response = reference.smooth_channels(stage, np.eye(60)[30:31])[0]
    offset = np.arange(60) - 30
    mean = (response * offset).sum()
    assert mean == pytest.approx(-delay, rel=1e-9)  # toward the base
    assert (response * (offset - mean) ** 2).sum() == pytest.approx(variance, rel=1e-9)


def test_five_taps_at_the_ends_are_as_in_google_carfac():
    fir = (np.array([[1.0]]), np.array([[0.0]]), np.array([[100.0]]))
    stage = reference.SimpleNamespace(taps=5, iterations=1, fir=fir)
    got = reference.smooth_channels(stage, np.arange(1.0, 6.0)[None])
    left = np.array([1, 2, 1, 2, 3]) + np.array([1, 1, 2, 3, 4])
    right = np.array([3, 4, 5, 5, 4]) + np.array([2, 3, 4, 5, 5])
    np.testing.assert_array_equal(got[0], left + 100.0 * right)


def test_smoother_grows_only_when_it_must():
    for rate, taps in ((22050.0, 3), (16000.0, 5)):
        stages = reference.design({}, rate).agc
        assert [(stage.taps, stage.iterations) for stage in stages] == [(taps, 1)] * 4
    wide = reference.design({"agc": {"agc1_scales": np.full(4, 6.0)}}, 8000.0).agc
    assert max(stage.iterations for stage in wide) > 1
    fixed = reference.design(smoothing=((3, 2), (5, 1), (3, 1), (5, 4))).agc
    assert [(stage.taps, stage.iterations) for stage in fixed] == [(3, 2), (5, 1), (3, 1), (5, 4)]
    with pytest.raises(ValueError, match="spreads too far"):
        reference.design({"agc": {"agc1_scales": np.full(4, 60.0)}})


@pytest.mark.parametrize("decimation", [(1,), (1, 1), (4,), (5, 3, 1), (8, 2, 2, 2, 2)])
def test_agc_has_unit_gain_for_a_steady_input(decimation):
    # Short time constants, so that a steady input settles soon.
    agc = {"time_constants_s": np.full(len(decimation), 0.003)}
    scales = {name: np.full(len(decimation), 0.5) for name in ("agc1_scales", "agc2_scales")}
    coefficients = reference.design({"agc": agc | scales}, 22050.0, decimation=decimation)
    states = reference.init_state(coefficients)["agc"]
    inflow = np.full((1, 71), 0.3) * coefficients.agc[0].detect_scale
    due = 0
    for _ in range(8000):
        due += reference._agc_step(coefficients.agc, states, 0, inflow)
    assert due == 8000 // decimation[0]
    np.testing.assert_allclose(states[0]["memory"], 0.3, rtol=1e-3)


def test_ears_couple_only_through_the_agc():
    audio = noise(400, 2) * [1.0, 0.1]
    alone = reference.design()
    for mix, coupled in ((0.0, False), (0.5, True)):
        both = reference.design({"agc": {"mix_coeff": mix}}, num_ears=2)
        together, _ = reference.run(both, audio)
        for ear in range(2):
            expected, _ = reference.run(alone, audio[:, ear : ear + 1])
            same = np.array_equal(together.nap[:, ear], expected.nap[:, 0])
            assert same is not coupled
    # In open loop nothing can couple.
    both, _ = reference.run(reference.design(num_ears=2), audio, open_loop=True)
    right, _ = reference.run(alone, audio[:, 1:], open_loop=True)
    np.testing.assert_array_equal(both.nap[:, 1], right.nap[:, 0])


def test_every_parameter_may_differ_between_ears():
    """Two ears that do not couple, each with its own parameters, are two models of one ear."""
    rng = np.random.default_rng(3)
    defaults = reference.default_parameters()
    defaults["agc"]["mix_coeff"] = 0.0
    ears: list[dict] = [{}, {}]
    stacked: dict = {}
    for group, values in defaults.items():
        for ear in ears:
            ear[group] = {
                name: np.asarray(value) * rng.uniform(0.95, 1.0) for name, value in values.items()
            }
        stacked[group] = {}
        for name in values:
            pair = np.stack([ears[0][group][name], ears[1][group][name]])
            if group == "synapse":
                pair = pair.reshape(2, 1, -1)
            elif group in ("car", "ihc") or pair.ndim == 1:
                pair = pair.reshape(2, 1)
            stacked[group][name] = pair
    audio = noise(ears=2, time=150)
    options = {"ihc_style": "two_cap_with_syn", "num_channels": 40, "smoothing": ((5, 2),) * 4}
    together, _ = reference.run(reference.design(stacked, num_ears=2, **options), audio)
    for i, ear in enumerate(ears):
        alone, _ = reference.run(reference.design(ear, **options), audio[:, i : i + 1])
        for name, got, expected in zip(together._fields, together, alone, strict=True):
            np.testing.assert_allclose(
                got[:, i], expected[:, 0], rtol=1e-10, atol=1e-13, err_msg=name
            )


def test_health_per_channel_and_per_ear():
    health = np.linspace(1.0, 0.0, 71)
    both = np.stack([health, np.ones(71)])
    coefficients = reference.design({"car": {"ohc_health": both}}, num_ears=2)
    outputs, _ = reference.run(coefficients, np.zeros((20, 2)))
    np.testing.assert_allclose(outputs.agc[-1], both * coefficients.car.zr, atol=1e-15)
    impaired = reference.run(reference.design({"car": {"ohc_health": 0.0}}), noise())[0]
    healthy = reference.run(reference.design(), noise())[0]
    assert impaired.bm.std() < healthy.bm.std()


def test_explicit_poles_replace_the_map():
    poles = reference.design().pole_frequencies_hz[0]
    audio = noise()
    expected, _ = reference.run(reference.design(), audio)
    assert_same(reference.run(reference.design(pole_frequencies_hz=poles), audio)[0], expected)
    moved = reference.design(pole_frequencies_hz=0.9 * poles)
    np.testing.assert_array_equal(moved.pole_frequencies_hz[0], 0.9 * poles)
    assert reference.design(num_channels=50).pole_frequencies_hz.shape == (1, 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ihc_style": "three_cap"}, "ihc_style"),
        ({"sample_rate_hz": 4000.0}, "sample_rate_hz"),
        ({"parameters": {"car": {"min_zetta": 0.1}}}, "min_zetta"),
        ({"parameters": {"cochlea": {"min_zeta": 0.1}}}, "cochlea"),
        ({"parameters": {"car": {"min_pole_hz": 1e5}}}, "2 or more poles"),
        ({"pole_frequencies_hz": np.array([9000.0, 12000.0])}, "poles from 0 to 11025"),
        ({"parameters": {"car": {"max_zeta": 2.0}}}, "pole radii"),
        ({"smoothing": ((4, 1),) * 4}, "3 or 5 taps"),
    ],
)
def test_bad_designs_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        reference.design(**arguments)


@pytest.mark.parametrize(
    "audio", [np.zeros((0, 1)), np.zeros((10, 2)), np.zeros(10), np.full((10, 1), np.nan)]
)
def test_bad_audio_is_explained(audio):
    with pytest.raises(ValueError, match="audio is"):
        reference.run(reference.design(), audio)
