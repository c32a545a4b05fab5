"""Notes of known pitch within 20 cents, silence and noise told apart, levels as ears have them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import pitch, testing

RATE_HZ = 16_000
NOTES_HZ = np.geomspace(35.3, 1999.0, 25)


pytestmark = pytest.mark.usefixtures("compiled_quickly")


def cents(f0_hz, wanted_hz):
    return 1200 * np.abs(np.log2(np.asarray(f0_hz) / wanted_hz))


def note(f0_hz, spectrum, seconds=0.25):
    """A sum of partials below 7.5 kHz with random phases, peak about 0.3."""
    rng = np.random.default_rng(0)
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    k = np.arange(1, int(7500 / f0_hz) + 1)
    levels = spectrum(k)
    angle = 2 * np.pi * f0_hz * k[:, None] * time + rng.uniform(0, 6, (k.size, 1))
    audio = np.sum(levels[:, None] * np.sin(angle), axis=0)
    return 0.3 * audio / np.abs(audio).max()


SPECTRA = {
    "sawtooth": lambda k: 1 / k,
    "pure": lambda k: (k == 1).astype(float),
    "loud octave": lambda k: np.where(k == 2, 1.0, 0.4 / k),
    "clarinet": lambda k: np.where(k % 2, 1 / k, 0.05 / k),
    "weak fundamental": lambda k: np.where(k == 1, 0.1, 1 / k),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_notes_are_found_within_20_cents(spectrum):
    audio = np.stack([note(hz, SPECTRA[spectrum]) for hz in NOTES_HZ])
    f0_hz, confidence = pitch.yin(jnp.asarray(audio, jnp.float32), RATE_HZ, 160)
    steady = slice(7, None)  # the window is full
    assert cents(f0_hz[:, steady], NOTES_HZ[:, None]).max() < 20
    assert confidence[:, steady].min() > 0.9


def test_notes_in_noise_keep_their_octave():
    rng = np.random.default_rng(1)
    audio = np.stack([note(hz, SPECTRA["sawtooth"]) for hz in NOTES_HZ])
    level = np.sqrt(np.mean(audio**2, axis=1, keepdims=True))
    audio = audio + 0.1 * level * rng.standard_normal(audio.shape)  # 20 dB
    f0_hz, confidence = pitch.yin(jnp.asarray(audio, jnp.float32), RATE_HZ, 160)
    away = cents(f0_hz[:, 7:], NOTES_HZ[:, None])
    assert np.mean(away < 50) > 0.97
    assert np.median(away) < 10
    assert np.mean(confidence[:, 7:]) > 0.8


def test_what_has_no_pitch_has_no_confidence():
    rng = np.random.default_rng(2)
    noise = 0.1 * rng.standard_normal(4000)
    audio = np.stack([np.zeros(4000), np.full(4000, 0.5), noise, np.full(4000, 1e-30)])
    f0_hz, confidence = pitch.yin(jnp.asarray(audio, jnp.float32), RATE_HZ, 160)
    assert not np.any(f0_hz[0])
    assert not np.any(confidence[::3])
    assert confidence[1, 8:].max() < 0.05, "DC has no pitch"
    assert confidence[2, 8:].max() < 0.7
    slope = jax.grad(lambda x: jnp.sum(pitch.yin(x, RATE_HZ, 160)[0]))(jnp.asarray(audio))
    assert np.all(np.isfinite(slope))


def test_f0_does_not_look_at_the_level():
    audio = jnp.asarray(note(220.0, SPECTRA["sawtooth"]), jnp.float32)[None]
    loud = pitch.yin(audio, RATE_HZ, 160)[0][:, 7:]
    soft = pitch.yin(1e-3 * audio, RATE_HZ, 160)[0][:, 7:]
    np.testing.assert_allclose(soft, loud, rtol=1e-4)


def test_differences_are_those_of_the_definition(x64):
    from physics.pitch import period

    x = np.random.default_rng(0).standard_normal((2, 41))
    got, energy = period.differences(jnp.asarray(x), 20)
    wanted = [[np.sum((row[:20] - row[t : t + 20]) ** 2) for t in range(22)] for row in x]
    np.testing.assert_allclose(got, wanted, atol=1e-10)
    np.testing.assert_allclose(energy, np.sum(x[:, :20] ** 2, axis=1))


@pytest.mark.parametrize(
    ("fields", "rule"),
    [({"max_hz": 3000.0}, "an eighth"), ({"min_hz": 900.0, "max_hz": 100.0}, "min_hz < max_hz")],
)
def test_ranges_that_cannot_be_are_refused(fields, rule):
    with pytest.raises(ValueError, match=rule):
        pitch.yin(jnp.zeros((1, 4000)), RATE_HZ, 160, **fields)
    with pytest.raises(ValueError, match=rule):
        pitch.PitchLoudness(**fields)


def test_the_curve_a_is_that_of_the_standard():
    """IEC 61672-1:2013, table 3, at exact frequencies of thirds of octaves."""
    bands = np.array([-15, -12, -9, -6, -3, 0, 1, 3, 6, 9, 12])
    table = [-39.4, -26.2, -16.1, -8.6, -3.2, 0.0, 0.6, 1.2, 1.0, -1.1, -6.6]
    got = pitch.a_weighting_db(1000 * 10 ** (bands / 10))
    np.testing.assert_allclose(got, table, atol=0.06)


def test_loudness_is_in_decibels_of_full_scale():
    time = np.arange(8000) / RATE_HZ
    audio = np.stack(
        [a * np.sin(2 * np.pi * hz * time) for a, hz in [(1, 1e3), (0.1, 1e3), (1, 250)]]
    )
    got = pitch.a_weighted_loudness_db(jnp.asarray(audio, jnp.float32), RATE_HZ, 160)
    assert got.shape == (3, 50)
    # A Hann window smears 250 Hz over bins of other weights.
    np.testing.assert_allclose(got[:, 5:], np.repeat([[0.0], [-20], [-8.6]], 45, 1), atol=0.3)
    silent = pitch.a_weighted_loudness_db(jnp.zeros((1, 800)), RATE_HZ, 160)
    np.testing.assert_allclose(silent, -80, atol=1e-4)


def test_loudness_is_a_sum_in_full_precision_on_any_device():
    """Where the default is shorter, -80 dB beside 0 dB would be off by rounding."""
    jaxpr = jax.make_jaxpr(lambda x: pitch.a_weighted_loudness_db(x, RATE_HZ, 160))(
        jnp.zeros((1, 800))
    )
    text = str(jaxpr)
    assert text.count("dot_general") == text.count("(Precision.HIGHEST, Precision.HIGHEST)") == 1


def test_loudness_is_ddsps_but_for_its_zero():
    """Mean over bins of A-weighted power of frames of 512 samples, in dB."""
    audio = 0.1 * np.random.default_rng(0).standard_normal((1, 4096))
    got = pitch.a_weighted_loudness_db(jnp.asarray(audio, jnp.float32), RATE_HZ, 512)
    frames = audio.reshape(8, 512) * 0.5 * (1 - np.cos(2 * np.pi * np.arange(512) / 512))
    hz = np.fft.rfftfreq(512, 1 / RATE_HZ)
    power = np.abs(np.fft.rfft(frames)) ** 2 * 10 ** (pitch.a_weighting_db(hz) / 10)
    theirs = 10 * np.log10(power.mean(axis=1))
    np.testing.assert_allclose(theirs - got[0], 19.8, atol=0.05)


def test_semitones_go_both_ways():
    hz = jnp.array([8.2, 27.5, 440.0, 880.0, 1975.5])
    np.testing.assert_allclose(pitch.hz_to_midi(hz)[1:4], [21, 69, 81], atol=1e-4)
    np.testing.assert_allclose(pitch.midi_to_hz(pitch.hz_to_midi(hz)), hz, rtol=1e-5)
    assert pitch.hz_to_midi(jnp.zeros(1))[0] == 0
    assert jax.grad(pitch.hz_to_midi)(0.0) == 0


CAUSAL = pitch.PitchLoudness(sample_rate_hz=8000, hop_s=0.005, min_hz=200, window_s=0.016)
CENTRED = dataclasses.replace(CAUSAL, hop_s=0.002, centred=True)


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_front_end(check):
    check(CAUSAL)


@pytest.mark.parametrize(
    "check",
    [testing.check_frames, testing.check_padding, testing.check_streaming, testing.check_config],
    ids=lambda check: check.__name__,
)
def test_centred_front_end(check):
    check(CENTRED)


def test_centred_frames_tell_of_the_instant_at_which_they_end():
    """f0 and loudness of a glide that grows louder, against what they are where hops end."""
    time = np.arange(2 * RATE_HZ) / RATE_HZ
    hz = 150 * 2**time
    audio = 0.3 * np.exp(time - 2) * np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ)
    front = pitch.PitchLoudness(hop_s=0.01, centred=True)
    told, state = front.run({}, jnp.asarray(audio, jnp.float32)[None])
    assert state is None
    inner = slice(10, 190)
    away = cents(told["f0_hz"][0, inner], 150 * 2 ** (0.01 * (np.arange(200)[inner] + 1)))
    assert away.max() < 10
    late = pitch.PitchLoudness(hop_s=0.01).run({}, jnp.asarray(audio, jnp.float32)[None])[0]
    behind = cents(late["f0_hz"][0, inner], 150 * 2 ** (0.01 * (np.arange(200)[inner] + 1)))
    assert 10 < np.median(behind) < 40
    features = front.scaled(told)
    assert features.shape == (1, 200, 3)
    np.testing.assert_allclose(127 * features[0, 99, 0], 69 + 12 * np.log2(300 / 440), atol=0.1)
    assert 0 < features[..., 2].min() < features[..., 2].max() < 1
    with pytest.raises(ValueError, match="cannot be streamed"):
        front.run({}, jnp.zeros((1, 320)), jnp.zeros((1, 9)))
