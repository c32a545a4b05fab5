"""A sound is found that a front end hears as it was told."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid.inversion import invert
from physics.carfac import Carfac
from physics.spectra import LogMel

RATE_HZ = 8000


def tones(num_samples):
    time_s = jnp.arange(num_samples) / RATE_HZ
    hertz = jnp.array([300.0, 900.0])
    return 0.1 * jnp.sin(2 * jnp.pi * hertz[:, None] * time_s[None])


@pytest.mark.parametrize(
    ("physics", "steps", "limit"),
    [
        (LogMel(sample_rate_hz=RATE_HZ, n_mels=12), 60, 0.05),
        (
            Carfac(
                sample_rate_hz=RATE_HZ,
                hop_s=0.01,
                compression="root",
                min_pole_hz=200,
                initial={"car": {"erb_per_step": 1.0}},
            ),
            120,
            0.05,
        ),
    ],
    ids=["log-mel", "CAR-FAC"],
)
def test_descent_finds_the_features(physics, steps, limit):
    params = physics.init(jax.random.key(0))
    target, _ = physics.apply(params, tones(800))
    audio, errors = invert(physics, params, target, 800, jax.random.key(1), steps=steps)
    assert audio.shape == (2, 800)
    assert errors.shape == (steps, 2)
    heard, _ = physics.apply(params, audio)
    error = np.sum((heard - target) ** 2, (1, 2)) / np.sum(target**2, (1, 2))
    assert np.all(error < limit)
    assert np.all(errors[0] > 5 * errors[-1])


def test_audio_ends_with_the_clip():
    physics = LogMel(sample_rate_hz=RATE_HZ, n_mels=12)
    params = physics.init(jax.random.key(0))
    lengths = jnp.array([400, 800], jnp.int32)
    target, _ = physics.apply(params, tones(800), lengths=lengths)
    audio, _ = invert(physics, params, target, 800, jax.random.key(1), lengths, steps=60)
    assert not np.any(audio[0, 400:])
    assert np.all(np.isfinite(audio))


def test_another_length_is_refused():
    physics = LogMel(sample_rate_hz=RATE_HZ, n_mels=12)
    with pytest.raises(ValueError, match="take 800"):
        invert(physics, {}, jnp.zeros((1, 10, 12)), 700, jax.random.key(0))
