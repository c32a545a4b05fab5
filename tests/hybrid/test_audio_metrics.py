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
    assert list(found) == ["si_sdr_db", "si_sdr_clips"]


def test_rates_that_pesq_is_not_defined_for_are_named(monkeypatch):
    monkeypatch.setattr(audio_metrics.importlib.util, "find_spec", lambda name: True)
    assert audio_metrics.missing() == audio_metrics.missing(8000) == {}
    (reason,) = audio_metrics.missing(22050.0).items()
    assert reason == (
        "pesq",
        "PESQ is defined at 8000 and 16000 Hz; got 22050 Hz. Resample both signals.",
    )


def test_stoi_of_joined_words_is_that_of_the_whole():
    from pystoi import stoi

    clean = speechlike(4, RATE_HZ)
    heard = clean + 0.05 * np.random.default_rng(1).standard_normal(clean.shape)
    lengths = np.array([RATE_HZ, 12000, 0, RATE_HZ])
    (got,) = audio_metrics.stoi(heard, clean, RATE_HZ, lengths)
    # Soft words, whose estimates are as soft: the level is not what is asked for.
    scale = np.array([[1.0], [0.001], [1.0], [10.0]])
    (again,) = audio_metrics.stoi(scale * heard, scale * clean, RATE_HZ, lengths)
    assert again == pytest.approx(got, rel=1e-9)
    pairs = [(clean[i, :n], heard[i, :n]) for i, n in enumerate(lengths) if n]
    gains = [1 / np.sqrt(np.mean(pair[0].astype(np.float64) ** 2)) for pair in pairs]
    whole = [
        np.concatenate([gain * pair[i] for gain, pair in zip(gains, pairs, strict=True)])
        for i in range(2)
    ]
    assert got == pytest.approx(stoi(*whole, RATE_HZ))
    assert 0.3 < got < 0.99
    assert audio_metrics.stoi(clean, clean, RATE_HZ)[0] == pytest.approx(1, abs=1e-6)


def test_stoi_of_too_little_speech_is_not_a_number():
    clean = speechlike(1, 2000)
    assert np.isnan(audio_metrics.stoi(clean, clean, RATE_HZ)).all()
    assert np.isnan(audio_metrics.stoi(0 * clean, 0 * clean, RATE_HZ)).all()
    # Less than one of the frames that the package takes energies of.
    least = clean[:, 500:600]
    assert np.isnan(audio_metrics.stoi(least, least, RATE_HZ)).all()
    found = audio_metrics.scores(least, least, RATE_HZ)
    assert np.isnan(found["stoi"])
    assert (found["si_sdr_clips"], found["stoi_pieces"]) == (1, 0)
    click = np.zeros((1, RATE_HZ), np.float32)
    click[0, 8000] = 1
    assert np.isnan(audio_metrics.stoi(click, click, RATE_HZ)).all()


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
    unheard = audio_metrics.pesq(np.stack([0 * clean[0], np.nan * clean[0]]), clean[:2], RATE_HZ)
    np.testing.assert_array_equal(unheard, [1, np.nan])
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
    counts = {"si_sdr_db": "si_sdr_clips", "pesq": "pesq_clips", "stoi": "stoi_pieces"}
    for metric in audio_metrics.missing():
        del counts[metric]
    assert set(found) == {*counts, *counts.values()}
    assert [found[count] for count in counts.values()] == [3, 3, 1][-len(counts) :]
    nothing = audio_metrics.scores(heard, clean, RATE_HZ, np.zeros(4, np.int32))
    assert all(np.isnan(nothing[metric]) for metric in counts)
    assert all(nothing[count] == 0 for count in counts.values())
    # The reference decides: nothing can be said of what was to be silent.
    clean[2] = 0.5
    silent = audio_metrics.scores(heard, clean, RATE_HZ)
    assert silent == found
    np.testing.assert_array_equal(audio_metrics.audible(clean), [True, True, False, True])


@pytest.mark.parametrize("failure", ["one sample", "all samples", "silence"])
def test_an_estimate_that_failed_is_never_rewarded(failure):
    clean = speechlike(4, RATE_HZ)
    noise = np.random.default_rng(1).standard_normal(clean.shape).astype(np.float32)
    heard = clean + np.array([[0.5], [0.05], [0.05], [0.05]], np.float32) * noise
    base = audio_metrics.scores(heard, clean, RATE_HZ)
    if failure == "silence":
        heard[0] = 0
    else:
        heard[0, 3000 : 3001 if failure == "one sample" else None] = np.nan
    failed = audio_metrics.scores(heard, clean, RATE_HZ)
    for metric in {"si_sdr_db", "pesq", "stoi"} & set(base):
        if failure == "silence":
            assert failed[metric] < base[metric]
        else:
            assert np.isnan(failed[metric])
    assert {n: v for n, v in failed.items() if "_clips" in n or "_pieces" in n} == {
        n: v for n, v in base.items() if "_clips" in n or "_pieces" in n
    }


def test_other_shapes_and_lengths_are_refused():
    x = np.ones((2, 10), np.float32)
    for call in (audio_metrics.stoi, audio_metrics.scores):
        with pytest.raises(ValueError, match=r"\[batch, time\].*got \(2, 10\) and \(2, 9\)"):
            call(x, x[:, 1:], RATE_HZ)
        with pytest.raises(ValueError, match=r"hold a sample; got \(0, 10\)"):
            call(x[:0], x[:0], RATE_HZ)
        with pytest.raises(ValueError, match=r"audio\[None\]"):
            call(x[0], x[0], RATE_HZ)
        for lengths in ([10], [10.0, 5.0]):
            with pytest.raises(ValueError, match="one length for each clip, 2 integers; got"):
                call(x, x, RATE_HZ, lengths)
        clean = np.where(np.arange(2)[:, None] == 1, np.float32("inf"), x)
        with pytest.raises(ValueError, match=r"must be finite; clips \[1\] are not"):
            call(x, clean, RATE_HZ)
