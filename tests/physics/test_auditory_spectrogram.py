"""Holds the auditory spectrogram to the contract, its published shapes, and laws of hearing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from physics import testing
from physics.cortex import AuditorySpectrogram, roex

SMALL = {"sample_rate_hz": 4000, "channels_per_octave": 4.0, "memory_s": 0.02, "hop_s": 0.005}


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    check(AuditorySpectrogram(**SMALL, exponent=0.7))


@pytest.mark.parametrize(
    "check", [testing.check_frames, testing.check_padding, testing.check_streaming]
)
def test_contract_for_two_ears(check):
    check(AuditorySpectrogram(**SMALL, n_ears=2, n_channels=5))


def tone(frequency_hz, seconds=0.3, rate_hz=16000, level=0.1):
    return level * np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate_hz)) / rate_hz)


@pytest.fixture(scope="module")
def ear():
    return AuditorySpectrogram()


def test_published_bank(ear):
    assert (ear.n_channels, ear.n_filters, ear.hop_samples) == (128, 129, 80)
    centres = ear.filter_frequencies_hz
    np.testing.assert_allclose(centres[31], 440.0)  # the scale is tied to the concert pitch
    np.testing.assert_allclose(np.diff(np.log2(centres)), 1 / 24)
    assert 7200 < centres[-1] < 7300
    physical = ear.physical(ear.init(None))
    np.testing.assert_allclose(physical["exponent"], np.ones(129), rtol=1e-6)
    pole = np.exp(-1 / (16000 * float(physical["time_constant_s"])))
    assert pole == pytest.approx(0.9922, abs=1e-4)


def test_filters_are_roex_of_constant_q(ear):
    centres = ear.filter_frequencies_hz
    taps = roex.impulse_responses(16000, ear.num_taps, ear.lowest_hz, 24.0, 129, ear.q_erb)
    frequencies_hz = np.fft.rfftfreq(16384, 1 / 16000)
    gains = np.abs(np.fft.rfft(taps, 16384))
    np.testing.assert_allclose(gains, roex.magnitude(frequencies_hz, centres, ear.q_erb), atol=5e-3)
    # Power, as the published formula has it, and the bandwidth of a rectangle as high and as large.
    g = 0.1
    np.testing.assert_allclose(
        roex.magnitude(np.array([1100.0]), np.array([1000.0]), 7.54) ** 2,
        (1 + 30.16 * g) * np.exp(-30.16 * g),
    )
    for i in (20, 60, 100):
        erb_hz = np.sum(gains[i] ** 2) * frequencies_hz[1]
        assert centres[i] / erb_hz == pytest.approx(7.54, rel=0.01)


def test_filters_answer_soon_and_forget(ear):
    taps = roex.impulse_responses(16000, ear.num_taps, ear.lowest_hz, 24.0, 129, ear.q_erb)
    energy = np.cumsum(taps**2, axis=1) / np.sum(taps**2, axis=1, keepdims=True)
    # Half of it comes within four periods, and nothing worth hearing is cut off.
    periods = (4 * 16000 / ear.filter_frequencies_hz).astype(int)
    assert np.all(energy[np.arange(129), periods] > 0.5)
    assert np.all(energy[:, -200] > 1 - 1e-3)


@pytest.mark.parametrize("frequency_hz", [300.0, 1000.0, 3000.0])
def test_a_tone_is_loudest_in_its_own_channel(ear, frequency_hz):
    params = ear.init(None)
    features, _ = ear.apply(params, jnp.asarray(tone(frequency_hz)[None], jnp.float32))
    loudest = int(np.argmax(np.asarray(features[0, -20:]).mean(0)))
    centres = np.asarray(ear.channel_frequencies_hz(params))
    assert centres.shape == (128,)
    assert abs(np.log2(centres[loudest] / frequency_hz)) < 1.5 / 24
    # Sharper than the filters: an octave off there is next to nothing.
    assert features[0, -1, loudest] > 50 * features[0, -1, loudest - 24]


def test_the_chain_by_scipy(x64):
    """The same by convolution and a recursive filter, sample by sample."""
    exponents = tuple(np.linspace(0.5, 1.2, 129))
    # With full scale at 240 dB SPL the threshold, below which the power law ends, is at 1e-12.
    ear = AuditorySpectrogram(exponent=exponents, time_constant_s=0.02, full_scale_db_spl=240)
    audio = tone(700.0, 0.1) + tone(2000.0, 0.1, level=0.03)
    features, _ = ear.apply(ear.init(None), jnp.asarray(audio[None]))
    taps = roex.impulse_responses(16000, ear.num_taps, ear.lowest_hz, 24.0, 129, ear.q_erb)
    filtered = scipy.signal.fftconvolve(audio[None], taps, axes=1)[:, : audio.size]
    power = np.asarray(exponents)[:, None]
    compressed = np.sign(filtered) * np.abs(filtered) ** power
    sharpened = np.maximum(compressed[:-1] - compressed[1:], 0)
    pole = np.exp(-1 / (16000 * 0.02))
    level = scipy.signal.lfilter([1.0], [1.0, -pole], sharpened, axis=1)
    wanted = level[:, 79::80].T
    np.testing.assert_allclose(features[0], wanted, atol=1e-6 * wanted.max())


def test_level_grows_as_the_exponent_says():
    quiet, loud = (jnp.asarray(tone(1000.0, 0.1, level=x)[None], jnp.float32) for x in (0.01, 0.1))
    for exponent in (0.3, 1.0, 1.5):
        ear = AuditorySpectrogram(exponent=exponent)
        params = ear.init(None)
        peaks = [float(ear.apply(params, x)[0][0, -1].max()) for x in (quiet, loud)]
        assert peaks[1] / peaks[0] == pytest.approx(10**exponent, rel=0.02)


def test_one_channels_exponent_changes_its_two_differences_only(ear):
    audio = jnp.asarray(tone(1000.0, 0.1)[None], jnp.float32)
    before, _ = ear.apply(ear.init(None), audio)
    exponents = np.ones(129)
    exponents[59] = 0.6
    changed = AuditorySpectrogram(exponent=tuple(exponents))
    after, _ = changed.apply(changed.init(None), audio)
    moved = np.abs(np.asarray(after - before)).max(axis=(0, 1)) > 1e-4
    np.testing.assert_array_equal(np.flatnonzero(moved), [58, 59])


def test_silence_after_sound_dies_away_with_the_time_constant():
    ear = AuditorySpectrogram(
        sample_rate_hz=8000, n_channels=24, lowest_hz=1000, time_constant_s=0.05
    )
    audio = np.concatenate([tone(1500.0, 0.2, 8000), np.zeros(4000)])
    features, _ = ear.apply(ear.init(None), jnp.asarray(audio[None], jnp.float32))
    # Long after the filters have rung out, each frame is weaker by the same factor.
    late = np.asarray(features[0, 60:90]).max(axis=1)
    np.testing.assert_allclose(late[1:] / late[:-1], np.exp(-0.005 / 0.05), rtol=1e-3)


def test_a_long_clip_in_pieces_gives_the_same(key):
    ear = AuditorySpectrogram(**SMALL)
    audio = 0.1 * jax.random.normal(key, (1, 4 * 4000 + 2013))
    params = ear.init(None)
    features, state = ear.apply(params, audio)
    assert features.shape == (1, ear.num_frames(audio.shape[1]), ear.n_channels)
    physical, rows = ear.physical(params), audio[:, : features.shape[1] * ear.hop_samples]
    after, at_once = ear._piece(physical, ear.init_state(1), rows)
    np.testing.assert_allclose(features, at_once, rtol=2e-4, atol=2e-4 * float(at_once.max()))
    np.testing.assert_allclose(state["level"], after["level"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("rate_hz", "channels"), [(8000, 104), (16000, 128), (44100, 128)])
def test_as_many_channels_as_fit(rate_hz, channels):
    assert AuditorySpectrogram(sample_rate_hz=rate_hz).n_channels == channels


@pytest.mark.parametrize(
    ("kwargs", "rule"),
    [
        ({"sample_rate_hz": 8000, "n_channels": 128}, "n_channels <= 104"),
        ({"hop_s": 0.0}, "hop_s must be positive"),
        ({"exponent": 3.0}, "exponent must lie in"),
        ({"exponent": (1.0, 0.5)}, "129 filters"),
        ({"time_constant_s": 0.5}, "time_constant_s must lie in"),
    ],
)
def test_what_cannot_be_is_refused(kwargs, rule):
    with pytest.raises(ValueError, match=rule):
        AuditorySpectrogram(**kwargs)


def test_audio_of_another_number_of_ears_is_refused(ear):
    with pytest.raises(ValueError, match="n_ears=1"):
        ear.apply(ear.init(None), jnp.zeros((1, 800, 2)))
