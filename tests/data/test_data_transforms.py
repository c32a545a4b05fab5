"""Augmentation is a function of item and generator, and keeps to the valid samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.transforms import BackgroundNoise, RandomGain, RandomShift, WhiteNoise

TIME = 400


def make_item(length: int = 300, silent: bool = False):
    audio = np.zeros(TIME, np.float32)
    if not silent:
        audio[:length] = np.random.default_rng(5).uniform(-0.5, 0.5, length)
    return {"audio": audio, "lengths": np.asarray(length, np.int32), "labels": np.int32(2)}


@pytest.fixture
def background(tmp_path, write_clip):
    files = [write_clip(tmp_path / f"{n}.wav", samples=n) for n in (1000, 50)]
    return BackgroundNoise(tuple(map(str, files)), 16_000, 16_000, -5.0, 20.0)


@pytest.fixture(params=["shift", "gain", "white", "background"])
def transform(request, background):
    return {
        "shift": RandomShift(50),
        "gain": RandomGain(-6.0, 6.0),
        "white": WhiteNoise(0.0, 20.0),
        "background": background,
    }[request.param]


def test_same_generator_gives_the_same_bytes(transform):
    one, same, other = (transform(make_item(), np.random.default_rng((1, 2, s))) for s in (3, 3, 4))
    assert one["audio"].tobytes() == same["audio"].tobytes()
    assert one["audio"].tobytes() != other["audio"].tobytes()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(0, TIME))
def test_padding_stays_silent_and_the_argument_unchanged(seed, length):
    for change in (RandomShift(50), RandomGain(-6.0, 6.0), WhiteNoise(0.0, 20.0)):
        item = make_item(length)
        before = item["audio"].copy()
        result = change(item, np.random.default_rng(seed))
        np.testing.assert_array_equal(item["audio"], before)
        assert result["audio"].shape == (TIME,)
        assert result["audio"].dtype == np.float32
        assert result["lengths"].dtype == np.int32
        assert 0 <= result["lengths"] <= TIME
        assert not result["audio"][result["lengths"] :].any()
        assert result["labels"] == 2


def test_shift_moves_the_samples():
    item = make_item()
    seen = set()
    for seed in range(300):
        result = RandomShift(120)(item, np.random.default_rng(seed))
        shift = int(np.flatnonzero(result["audio"])[0])
        if shift == 0:  # moved to the left, or not at all
            start = 300 - int(result["lengths"])
            np.testing.assert_array_equal(result["audio"][: 300 - start], item["audio"][start:300])
            seen.add(-start)
        else:
            kept = min(300, TIME - shift)
            assert result["lengths"] == shift + kept
            np.testing.assert_array_equal(result["audio"][shift:][:kept], item["audio"][:kept])
            seen.add(shift)
    assert -120 <= min(seen) < -100
    assert 100 < max(seen) <= 120


def test_gain_changes_the_level_alone():
    item = make_item()
    result = RandomGain(6.0, 6.0)(item, np.random.default_rng(0))
    np.testing.assert_allclose(result["audio"], item["audio"] * 10 ** (6 / 20), rtol=1e-6)


@pytest.mark.parametrize("snr_db", [-5.0, 20.0])
def test_noise_has_the_asked_ratio(snr_db, background):
    item = make_item()
    recorded = BackgroundNoise(background.files, 16_000, 16_000, snr_db, snr_db)
    for change in (WhiteNoise(snr_db, snr_db), recorded):
        for seed in range(5):
            noise = change(item, np.random.default_rng(seed))["audio"] - item["audio"]
            ratio = np.square(item["audio"][:300]).sum() / np.square(noise[:300]).sum()
            assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.05)


def test_noise_is_left_out_as_often_as_asked():
    item = make_item()
    change = WhiteNoise(0.0, 0.0, probability=0.25)
    noisy = [change(item, np.random.default_rng(seed)) is not item for seed in range(1000)]
    assert 0.2 < np.mean(noisy) < 0.3


def test_silence_gets_no_noise(background):
    item = make_item(silent=True)
    for change in (WhiteNoise(0.0, 0.0), background):
        assert not change(item, np.random.default_rng(0))["audio"].any()


def test_bad_noise_recording(tmp_path, write_clip):
    with pytest.raises(ValueError, match="at least one recording"):
        BackgroundNoise((), 16_000, 16_000, 0.0, 0.0)
    stereo = write_clip(tmp_path / "a.wav", channels=2)
    change = BackgroundNoise((str(stereo),), 16_000, 16_000, 0.0, 0.0)
    says = r"noise cannot be used: .*a\.wav.*; replace or remove the file$"
    with pytest.raises(ValueError, match=says):
        change(make_item(), np.random.default_rng(0))
