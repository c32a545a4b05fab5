"""Holds pitchograms to google/carfac's and to the pitch of periodic sounds."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import PhysicsModule
from physics.carfac import Carfac
from physics.pitchogram import (
    Pitchogram,
    away_from_trigger,
    cell_edges,
    cell_weights,
    summarise,
)
from physics.sai import Sai

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RATE_HZ = 8000
PITCHOGRAM = Pitchogram(sample_rate_hz=RATE_HZ, sai={"cochlea": {"agc_decimations": (8, 3)}})


@pytest.mark.parametrize("case", range(4))
def test_equals_google(x64, case):
    """Outputs of google/carfac's C++ `Pitchogram`, float as double, at commit 3a69467.

    Random images; logarithmic lags as by default, from less than a sample on, and without offset;
    linear lags with some before the trigger.
    """
    arrays = np.load(GOLDEN / "sai_pitchogram.npz")
    future_lags, log_lags, lags_per_octave, min_lag_s, log_offset_s = arrays[f"settings_{case}"]
    rate_hz, n_lags = float(arrays["sample_rate_hz"]), arrays["frames"].shape[-1]
    keep = away_from_trigger(
        jnp.asarray(arrays["pole_freqs"])[None], rate_hz, n_lags - 1 - int(future_lags), n_lags
    )
    cells = None
    if log_lags:
        edges = cell_edges(
            n_lags,
            lags_per_octave=lags_per_octave,
            min_lag=min_lag_s * rate_hz,
            log_offset=log_offset_s * rate_hz,
        )
        cells = cell_weights(edges, n_lags)
    images = jnp.asarray(arrays["frames"], jnp.float64)[:, None]
    np.testing.assert_allclose(
        summarise(images, keep, cells)[:, 0], arrays[f"pitchogram_{case}"], atol=1e-9
    )


def test_cells_are_means():
    """A flat image gives a flat pitchogram, whatever the cells."""
    edges = cell_edges(400, lags_per_octave=36.0, min_lag=4.0, log_offset=20.0)
    weights = cell_weights(edges, 400)
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    np.testing.assert_allclose(weights.T @ np.arange(400.0), edges.mean(axis=1), atol=0.26)
    np.testing.assert_allclose(np.diff(np.log2(edges + 20)), 1 / 36)


@pytest.fixture(scope="module")
def apply():
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(PITCHOGRAM.apply, compiler_options=options)


def periodic(f0_hz, seconds=0.4):
    """Equal harmonics up to 3.5 kHz, in cosine phase as of a train of pulses."""
    times_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    orders = np.arange(1, int(3500 / f0_hz) + 1)
    sound = np.cos(2 * np.pi * f0_hz * orders * times_s[:, None]).sum(axis=1)
    return 0.05 * sound / np.sqrt(np.mean(sound**2))


def test_the_strongest_lag_is_the_period(apply):
    """Within one cell, for lags below 1.5 periods: every multiple of a period is one as well."""
    pitches_hz = np.array([80.0, 100.0, 123.0, 150.0, 200.0, 261.6, 333.0, 400.0])
    clips = jnp.asarray(np.stack([periodic(f0) for f0 in pitches_hz]), jnp.float32)
    features, _ = apply(PITCHOGRAM.init(), clips)
    lags_s = PITCHOGRAM.lags_s()
    assert features.shape == (8, PITCHOGRAM.num_frames(clips.shape[1]), lags_s.size)
    for f0_hz, frames in zip(pitches_hz, features, strict=True):
        steady = np.where(lags_s < 1.5 / f0_hz, np.mean(frames[8:], axis=0), 0)
        expected = np.argmin(np.abs(lags_s - 1 / f0_hz))
        assert abs(np.argmax(steady) - expected) <= 1, f0_hz


def test_streams_and_masks(apply):
    params = PITCHOGRAM.init()
    audio = jnp.asarray(np.stack([periodic(123.0, 0.16)] * 2), jnp.float32)
    whole, end = apply(params, audio, lengths=jnp.array([1280, 700], jnp.int32))
    first, state = apply(params, audio[:, :640], PITCHOGRAM.init_state(2))
    second, state = apply(params, audio[:, 640:], state)
    np.testing.assert_allclose(np.concatenate([first, second], 1)[0], whole[0], atol=1e-4)
    np.testing.assert_allclose(whole[1, :4], whole[0, :4], atol=1e-4)
    assert (whole[1, 4:] == 0).all()
    assert jax.tree.structure(state) == jax.tree.structure(end)


def test_gradients_equal_central_differences(sounds, quick_jit, x64):
    audio = jnp.asarray(sounds(640)["speech"])[None]
    params = PITCHOGRAM.init()
    value_and_grad = quick_jit(
        jax.value_and_grad(lambda p: jnp.sum(jnp.square(PITCHOGRAM.apply(p, audio)[0])))
    )
    _, gradient = value_and_grad(params)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.any(leaf != 0), path
    for group, name in (("car", "min_zeta"), ("ihc", "tau_lpf_s")):
        ends = []
        for step in (1e-6, -1e-6):
            moved = {**params, group: {**params[group], name: params[group][name] + step}}
            ends.append(value_and_grad(moved)[0])
        expected = jnp.sum(gradient[group][name])
        assert abs((ends[0] - ends[1]) / 2e-6 - expected) < 1e-5 * abs(expected), name


def test_shapes_and_recipes():
    assert isinstance(PITCHOGRAM, PhysicsModule)
    assert hash(PITCHOGRAM) == hash(dataclasses.replace(PITCHOGRAM))
    two = Pitchogram(
        log_lags=False,
        sai=Sai(cochlea=Carfac(sample_rate_hz=8000, n_ears=2), past_lag_s=0.01),
    )
    shape = jax.eval_shape(two.apply, two.init(), jnp.zeros((3, 400, 2)))[0].shape
    assert shape == (3, 2, 2, two.sai.layout.n_lags)
    np.testing.assert_array_equal(two.lags_s(), two.sai.lags_s())
    assert two.specs() == two.sai.cochlea.specs()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sai": {"past_lag_s": 0.01}}, r"none before it; got past_lag_s=0.01. Set it to 0"),
        ({"sai": Carfac()}, r"made of a Sai; got Carfac"),
        ({"lags_per_octave": 0}, r"must be positive.*got 0, 0.0005"),
        ({"min_lag_s": 0.06}, r"got min_lag_s=0.06 and future_lag_s=0.05. Give the image longer"),
        ({"sai": {"hop_s": -0.01}}, r"hop_samples of an image must be at least 1; got -220"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Pitchogram(**fields)
