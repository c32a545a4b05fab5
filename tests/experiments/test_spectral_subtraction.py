"""Spectral subtraction takes steady noise away, and leaves what it should."""

import numpy as np
import pytest

from experiments.spectral_subtraction import noise_power, spectral_subtraction

RATE_HZ = 16_000


def speech(seconds=1.0):
    """A harmonic sound that comes and goes."""
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    tones = sum(np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 20))
    return (0.1 * tones * (np.sin(2 * np.pi * 2 * time) > 0)).astype(np.float32)


def sdr_db(estimate, clean):
    scaled = clean * np.dot(estimate, clean) / np.dot(clean, clean)
    return 10 * np.log10(np.sum(scaled**2) / np.sum((estimate - scaled) ** 2))


@pytest.mark.parametrize("snr_db", [-5, 0, 5])
def test_steady_noise_is_taken_away(snr_db):
    clean, rng = speech(), np.random.default_rng(0)
    noise = rng.normal(size=clean.size).astype(np.float32)
    noise *= np.linalg.norm(clean) / np.linalg.norm(noise) * 10 ** (-snr_db / 20)
    estimate = spectral_subtraction(clean + noise, RATE_HZ)
    assert estimate.dtype == np.float32
    assert sdr_db(estimate, clean) > sdr_db(clean + noise, clean) + 4


def test_what_is_clean_stays():
    assert sdr_db(spectral_subtraction(speech(), RATE_HZ), speech()) > 20


@pytest.mark.parametrize("samples", [1, 100, 511, 513, 5001])
def test_any_length(samples):
    rng = np.random.default_rng(samples)
    for rate_hz in (8000, 22_050):
        estimate = spectral_subtraction(rng.normal(size=samples).astype(np.float32), rate_hz)
        assert estimate.shape == (samples,)
        assert np.isfinite(estimate).all()
    assert not spectral_subtraction(np.zeros(samples, np.float32), RATE_HZ).any()


def test_noise_is_that_of_the_quietest_frames():
    power = np.array([[9.0, 1.0, 3.0, 8.0], [9.0, 2.0, 2.0, 8.0]])
    np.testing.assert_array_equal(noise_power(power, 0.5), [2.0, 2.0])
    np.testing.assert_array_equal(noise_power(power, 0.01), [1.0, 2.0])


def test_bad_settings():
    with pytest.raises(ValueError, match=r"quiet_share lies in \(0, 1\].*got 0 and 0.02"):
        spectral_subtraction(speech(), RATE_HZ, quiet_share=0)
