"""Metrics of enhanced speech: clips are joined, padding is cut off, absence is said."""

import numpy as np
import pytest

from hybrid import audio_metrics

RATE_HZ = 16000


def speechlike(rows, time, seed=0):
    """Noise in syllables: modulated at 4 Hz, as STOI wants it."""
    rng = np.random.default_rng(seed)
    syllables = np.abs(np.sin(2 * np.pi * 2 * np.arange(time) / RATE_HZ))
    return (0.1 * syllables * rng.standard_normal((rows, time))).astype(np.float32)


def test_clips_are_joined_to_three_seconds():
    clips = [(np.full(n, i), np.full(n, -i)) for i, n in enumerate([1000, 1500, 900, 3500, 100])]
    pieces = audio_metrics.joined(clips, sample_rate_hz=1000)
    assert [len(heard) for heard, _ in pieces] == [3400, 3600]
    assert [sorted(set(heard)) for heard, _ in pieces] == [[0, 1, 2], [3, 4]]
    assert all((heard == -clean).all() for heard, clean in pieces)
    (only,) = audio_metrics.joined(clips[:2], sample_rate_hz=1000)
    assert len(only[0]) == 2500
    assert audio_metrics.joined([], sample_rate_hz=1000) == []


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(audio_metrics.importlib.util, "find_spec", lambda name: None)
    assert list(audio_metrics.missing()) == ["pesq", "stoi"]
    with pytest.raises(ImportError, match=r"PESQ needs the package pesq.*hybrid-audio\[metrics\]"):
        audio_metrics.pesq(np.ones((1, 10)), np.ones((1, 10)), RATE_HZ)
    with pytest.raises(ImportError, match="STOI needs the package pystoi"):
        audio_metrics.stoi(np.ones((1, 10)), np.ones((1, 10)), RATE_HZ)
    clean = speechlike(4, RATE_HZ)
    found = audio_metrics.scores(clean + 0.01, clean, RATE_HZ)
    assert list(found) == ["si_sdr_db"]


def test_stoi_of_joined_words_is_that_of_the_whole():
    from pystoi import stoi

    clean = speechlike(4, RATE_HZ)
    heard = clean + 0.05 * np.random.default_rng(1).standard_normal(clean.shape)
    lengths = np.array([RATE_HZ, 12000, 0, RATE_HZ])
    (got,) = audio_metrics.stoi(heard, clean, RATE_HZ, lengths)
    whole = [np.concatenate([x[i, :n] for i, n in enumerate(lengths)]) for x in (clean, heard)]
    assert got == pytest.approx(stoi(*whole, RATE_HZ))
    assert 0.3 < got < 0.99
    assert audio_metrics.stoi(clean, clean, RATE_HZ)[0] == pytest.approx(1, abs=1e-6)


def test_stoi_of_too_little_speech_is_not_a_number():
    clean = speechlike(1, 2000)
    assert np.isnan(audio_metrics.stoi(clean, clean, RATE_HZ)).all()
    assert np.isnan(audio_metrics.stoi(0 * clean, 0 * clean, RATE_HZ)).all()


def test_pesq_of_each_clip():
    pytest.importorskip("pesq", reason="it needs a C compiler to be built")
    clean = speechlike(4, RATE_HZ)
    noise = np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    heard = clean + np.array([[0.0], [0.02], [0.2], [0.1]], np.float32) * noise
    lengths = np.array([RATE_HZ, RATE_HZ, RATE_HZ, 0])
    values = audio_metrics.pesq(heard, clean, RATE_HZ, lengths)
    assert values[0] == pytest.approx(4.64, abs=0.01)
    assert values[0] > values[1] > values[2] > 1
    assert np.isnan(values[3])
    silent = audio_metrics.pesq(heard[:1], 0 * clean[:1], RATE_HZ)
    assert np.isnan(silent).all()
    with pytest.raises(ValueError, match="at 8000 and 16000 Hz; got 22050 Hz"):
        audio_metrics.pesq(heard, clean, 22050)


def test_scores_are_means_over_the_clips_that_count():
    clean = speechlike(4, RATE_HZ)
    heard = clean + 0.05 * np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    lengths = np.array([RATE_HZ, RATE_HZ, 0, RATE_HZ], np.int32)
    found = audio_metrics.scores(heard, clean, RATE_HZ, lengths)
    noise_db = 10 * np.log10(np.sum(clean**2, 1) / np.sum((heard - clean) ** 2, 1))
    assert found["si_sdr_db"] == pytest.approx(noise_db[[0, 1, 3]].mean(), abs=0.1)
    assert 0.3 < found["stoi"] < 1
    assert set(found) == {"si_sdr_db", "pesq", "stoi"} - set(audio_metrics.missing())
    nothing = audio_metrics.scores(heard, clean, RATE_HZ, np.zeros(4, np.int32))
    assert all(np.isnan(value) for value in nothing.values())


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one shape, \[batch, time\]; got \(2, 10\) and \(2, 9\)"):
        audio_metrics.stoi(np.ones((2, 10)), np.ones((2, 9)), RATE_HZ)
