"""Holds the design to its map, to float64, and to being valid anywhere within the bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.bounds import is_parameter, map_specs
from physics.carfac import Carfac, places, reference

RATES = (8000, 22050, 96000)


@pytest.mark.parametrize(("rate", "erb_per_step"), [(8000, 0.25), (22050, 0.5), (96000, 2.0)])
def test_float32_design_is_as_good_as_float64(quick_jit, rate, erb_per_step):
    """Within 1e-5 of each coefficient's largest value; what makes the poles, of each value."""
    model = Carfac(
        sample_rate_hz=rate,
        ihc="two_cap_with_syn",
        n_ears=2,
        initial={"car.erb_per_step": erb_per_step},
    )
    coarse = quick_jit(model.design)(model.init())
    with jax.enable_x64(True):
        fine = quick_jit(model.design)(model.init())
    for (path, value), exact in zip(
        jax.tree.leaves_with_path(coarse), jax.tree.leaves(fine), strict=True
    ):
        assert value.dtype == jnp.float32
        error = np.abs(np.asarray(value, np.float64) - np.asarray(exact))
        assert error.max() <= 1e-5 * np.abs(exact).max(), path
    for name in ("one_minus_cos", "sin", "damping", "undamping_range", "zero"):
        value = np.asarray(getattr(coarse.car, name), np.float64)
        np.testing.assert_allclose(value, getattr(fine.car, name), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("rate", RATES)
def test_map_and_poles_are_those_of_the_yardstick(quick_jit, rate, x64):
    model = Carfac(sample_rate_hz=rate)
    params = model.init()
    expected = reference.design(sample_rate_hz=float(rate))
    poles = quick_jit(model.channel_frequencies_hz)(params)
    np.testing.assert_allclose(poles, expected.pole_frequencies_hz[0], rtol=1e-10)
    car = quick_jit(model.design)(params).car
    np.testing.assert_allclose(1 - car.damping, expected.car.r1, rtol=1e-12)
    np.testing.assert_allclose(1 - car.one_minus_cos, expected.car.a0, atol=1e-14)
    np.testing.assert_allclose(car.undamping_range, expected.car.zr, atol=1e-14)
    for name, theirs in (("quadratic", "ga"), ("linear", "gb"), ("constant", "gc")):
        value = getattr(expected.car, theirs)
        np.testing.assert_allclose(getattr(car, f"gain_{name}"), value, atol=1e-12)


@pytest.mark.parametrize("erb_per_step", [0.25, 0.5])
def test_a_map_that_has_learned_is_placed_to_1e6_in_float32(quick_jit, erb_per_step):
    """At 96 kHz, each parameter having moved by some percent; expected in float64, step by step."""
    model = Carfac(sample_rate_hz=96000, n_ears=2, initial={"car.erb_per_step": erb_per_step})
    rng = np.random.default_rng(0)
    place = quick_jit(model.channel_frequencies_hz)
    for _ in range(5):
        params = jax.tree.map(
            lambda a: a + jnp.asarray(rng.uniform(-0.05, 0.05, a.shape), a.dtype), model.init()
        )
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
            car = jax.tree.map(np.asarray, model.physical(wide)["car"])
        poles, pole_hz = np.asarray(place(params)), car["first_pole_theta"] * 96000 / (2 * np.pi)
        for found in poles[0]:
            if pole_hz < 30:
                break
            np.testing.assert_allclose(found, pole_hz, rtol=1e-6)
            pole_hz -= car["erb_per_step"] * (car["erb_break_hz"] + pole_hz) / car["erb_q"]


def test_the_map_has_the_derivatives_of_its_closed_form(quick_jit, x64):
    """In float64 to 1e-9, at the initial values and elsewhere."""
    model = Carfac(n_ears=2, initial={"car.erb_q": [[9.0], [9.5]]})
    step = np.arange(float(model.structure.n_channels))[None]

    def series(params):
        car = model.physical(params)["car"]
        first_hz = car["first_pole_theta"] * (model.sample_rate_hz / (2 * np.pi))
        ratio = 1 - car["erb_per_step"] / car["erb_q"]
        return (first_hz + car["erb_break_hz"]) * ratio**step - car["erb_break_hz"]

    slopes = [quick_jit(jax.jacfwd(place)) for place in (model.channel_frequencies_hz, series)]
    initial = model.init()
    for params in (initial, jax.tree.map(lambda a: a - 0.01, initial)):
        found, expected = (slope(params)["car"] for slope in slopes)
        for name in places.NAMES:
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(found[name], expected[name], atol=1e-9 * scale, rtol=0)


def test_channels_of_google_carfac():
    assert [Carfac(sample_rate_hz=r).structure.n_channels for r in (22050, 44100)] == [71, 83]


@pytest.mark.parametrize(("ihc", "rate"), [("one_cap", 96000), ("two_cap_with_syn", 8000)])
def test_every_design_within_bounds_is_valid(quick_jit, ihc, rate):
    model = Carfac(sample_rate_hz=rate, ihc=ihc, n_ears=2)
    params, specs = model.init(), model.specs()
    design = quick_jit(jax.vmap(lambda p: (model.design(p), model.channel_frequencies_hz(p))))
    rng = np.random.default_rng(0)

    def draw(p, leaf):
        # Half of the draws are corners of the box: each parameter at either end.
        shape = (200, *(1,) * leaf.ndim)
        low, high = (0.0, 1.0) if p.transform == "project" else (-12.0, 12.0)
        ends = rng.choice([low, high], shape)
        inside = rng.uniform(low, high, shape)
        mixed = np.where(np.arange(200).reshape(200, *(1,) * leaf.ndim) < 100, ends, inside)
        return jnp.asarray(np.broadcast_to(mixed, (200, *leaf.shape)), jnp.float32)

    c, poles = design(map_specs(draw, specs, params))
    for path, leaf in jax.tree.leaves_with_path(c):
        assert np.isfinite(leaf).all(), path
    assert (poles > 0).all()
    assert (poles < rate / 2).all()
    for undamping in (0.0, 0.5, 1.0):
        r = 1 - (c.car.damping - undamping * c.car.undamping_range)
        assert (np.abs(r) < 1).all()
    assert (c.car.gain_constant > 0).all()
    assert (c.car.gain_healthy > 0).all()
    assert (c.car.ac_rate < 1).all()
    assert (c.ihc.in1_rate + 0.92 * c.ihc.out1_rate < 1).all()
    assert (c.ihc.output_gain > 0).all()
    for rate_name in ("lpf_rate", "in1_rate", "out1_rate"):
        assert ((getattr(c.ihc, rate_name) > 0) & (getattr(c.ihc, rate_name) < 1)).all()
    for weight in (c.agc.fir_low, c.agc.fir_middle, c.agc.fir_high, c.agc.mix):
        assert (weight >= 0).all()
    assert ((c.agc.epsilon > 0) & (c.agc.epsilon <= 1)).all()
    if c.synapse is not None:
        assert ((c.synapse.rest_reservoir > 0) & (c.synapse.rest_reservoir < 1)).all()


def test_gradients_of_the_design_are_finite_at_the_ends_of_the_bounds(quick_jit):
    model = Carfac(ihc="two_cap_with_syn", n_ears=2)

    def total(params):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(model.design(params)))

    gradient = quick_jit(jax.grad(total))
    for end in (-12.0, 12.0):
        params = map_specs(
            lambda p, a, end=end: jnp.full_like(a, end if p.transform != "project" else end > 0),
            model.specs(),
            model.init(),
        )
        for path, leaf in jax.tree.leaves_with_path(gradient(params)):
            assert np.isfinite(leaf).all(), path


def test_specs_match_the_parameters():
    model = Carfac(ihc="two_cap_with_syn", n_ears=2)
    specs, params = model.specs(), model.init()
    assert jax.tree.structure(specs, is_leaf=is_parameter) == jax.tree.structure(params)
