"""Gradients are finite whatever is heard, for every kind of inner hair cell, with both kernels.

All runs are under `jax_debug_nans`; the last test looks inside compiled programs as well.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data import SpokenTones
from physics.base import dotted
from physics.carfac import Carfac, native

SOUNDS = ("silence", "dc", "click", "square", "denormal", "speech", "noise")
MODELS = {
    "just_hwr": Carfac(16000, ihc="just_hwr", agc_decimations=(8, 2)),
    "one_cap": Carfac(
        16000, ihc="one_cap", use_delay_buffer=True, linear_car=True, agc_decimations=(8,)
    ),
    "two_cap": Carfac(
        16000,
        agc_decimations=(8, 2),
        initial={"car.ohc_health": 0.0},
        hop_s=0.01,
        compression="root",
    ),
    "two_cap_with_syn": Carfac(
        16000,
        n_ears=2,
        ihc="two_cap_with_syn",
        agc_decimations=(8, 2),
        hop_s=0.01,
        compression="log",
    ),
}
# Leaves that may be without: with a synapse, those of the hair cell's own transmitter; of linear
# cells, how they feel velocity; of dead ones, that too, how little they damp, and gain control.
WITHOUT_EFFECT = {
    "just_hwr": set(),
    "one_cap": {"car.velocity_scale", "car.velocity_offset", "agc.stage_gain"},
    "two_cap": {
        "car.min_zeta",
        "car.velocity_scale",
        "car.velocity_offset",
        "agc.agc1_scales",
        "agc.agc2_scales",
        "agc.stage_gain",
        "agc.time_constants_s",
    },
    "two_cap_with_syn": {"ihc.tau_lpf_s", "ihc.tau2_in_s", "ihc.tau2_out_s"},
}
KERNELS = [
    "xla",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(
            native.reason_unavailable() is not None, reason=str(native.reason_unavailable())
        ),
    ),
]


@pytest.fixture
def watched():
    """Makes the first NaN an error."""
    with jax.debug_nans(True):
        yield


def objective(model):
    """A scalar of the features in which every sample and channel counts differently."""

    def of(params, audio):
        features, _ = model.apply(params, audio)
        weights = np.random.default_rng(5).standard_normal(features.shape)
        return jnp.mean(features * features) + jnp.mean(
            jnp.asarray(weights, jnp.float32) * features
        )

    return of


def assert_finite(value, gradient):
    assert np.isfinite(value).all()
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all(), path


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MODELS)
def test_finite(sounds, quick_jit, watched, name, kernel):
    """And where there is sound, no leaf is without a gradient but those that have no effect."""
    model = dataclasses.replace(MODELS[name], kernel=kernel)
    found = sounds(480)
    audio = np.stack([found[sound] for sound in SOUNDS])[:, None, :, None]
    audio = jnp.asarray(audio * np.linspace(1.0, 0.5, model.n_ears), jnp.float32)
    by_sound = jax.vmap(jax.value_and_grad(objective(model), (0, 1)), in_axes=(None, 0))
    value, (by_params, by_audio) = quick_jit(by_sound)(model.init(), audio)
    assert_finite(value, (by_params, by_audio))
    assert jax.tree.structure(by_params) == jax.tree.structure(model.init())
    for path, leaf in jax.tree.leaves_with_path(by_params):
        for i, sound in enumerate(SOUNDS):
            if sound not in ("silence", "denormal") and dotted(path) not in WITHOUT_EFFECT[name]:
                assert np.any(leaf[i] != 0), (sound, path)


# XLA takes longer than the speech does.
@pytest.mark.parametrize("kernel", [pytest.param("xla", marks=pytest.mark.slow), "auto"])
@pytest.mark.parametrize("name", MODELS)
def test_finite_over_ten_seconds_of_speech(ten_seconds, quick_jit, watched, name, kernel):
    model = dataclasses.replace(MODELS[name], kernel=kernel)
    audio = jnp.stack([ten_seconds, 0.5 * ten_seconds], axis=-1)[None, :, : model.n_ears]
    value, gradient = quick_jit(jax.value_and_grad(objective(model), (0, 1)))(model.init(), audio)
    assert_finite(value, gradient)
    assert np.any(gradient[1] != 0)


@pytest.fixture(scope="module")
def ten_seconds():
    """Syllables one after the other, without the silence behind each, at full scale."""
    clips = SpokenTones(sample_rate_hz=16000).dataset("train")
    spoken = [clips[i] for i in range(40)]
    speech = np.concatenate([item["audio"][: item["lengths"]] for item in spoken])
    assert speech.size >= 160_000
    return jnp.asarray(speech[:160_000] / np.abs(speech).max())


@pytest.mark.slow  # thousands of operations, each compiled on its own
def test_no_operation_gives_nan(sounds, watched):
    """Not even where the result is masked out: without `jit`, each operation is looked at."""
    model = Carfac(
        8000,
        n_ears=2,
        ihc="two_cap_with_syn",
        agc_decimations=(2, 1),
        min_pole_hz=2000,
        hop_s=0.0005,
        compression="log",
        kernel="xla",
    )
    with jax.disable_jit():
        for sound in ("silence", "click"):
            audio = jnp.asarray(sounds(10)[sound], jnp.float32)[None, :, None] * jnp.ones((1, 1, 2))
            lengths = jnp.array([8], jnp.int32)

            def of(params, audio, lengths=lengths):
                return jnp.sum(model.apply(params, audio, lengths=lengths)[0] ** 2)

            assert_finite(*jax.value_and_grad(of, (0, 1))(model.init(), audio))
