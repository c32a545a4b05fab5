"""A recording is read exactly, or the error names the file, the rule and the way out."""

import contextlib
import struct

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.audio_files import AudioFileError, read_clip, resample, resampled_length

RATES = {"file_rate_hz": 16_000, "sample_rate_hz": 16_000}


def read(path, **changes):
    return read_clip(path, **{**RATES, "max_samples": 16_000, **changes})


def test_pcm_is_read_exactly(tmp_path):
    path = tmp_path / "a.wav"
    values = np.array([0, 1, -1, 32767, -32768], np.int16)
    soundfile.write(path, values, 16_000, subtype="PCM_16")
    samples = read(path)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, values.astype(np.float32) / 32768)


def test_tone_is_resampled(tmp_path):
    time_s = np.arange(16_000) / 16_000
    samples = np.sin(2 * np.pi * 440 * time_s).astype(np.float32)
    resampled = resample(samples, 16_000, 22_050)
    assert len(resampled) == resampled_length(16_000, 16_000, 22_050) == 22_050
    expected = np.sin(2 * np.pi * 440 * np.arange(22_050) / 22_050)
    np.testing.assert_allclose(resampled[200:-200], expected[200:-200], atol=2e-3)


def test_resampling_does_not_depend_on_threads():
    samples = np.random.default_rng(0).standard_normal(16_000 * 20).astype(np.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            results.append(resample(samples, 16_000, 22_050))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*results)


def test_wrong_rate(tmp_path, write_clip):
    path = write_clip(tmp_path / "a.wav", rate_hz=8000)
    with pytest.raises(AudioFileError, match=r"a\.wav: .*must have 16000 Hz.*has 8000 Hz.*skip"):
        read(path)


def test_several_channels_are_not_mixed(tmp_path, write_clip):
    path = write_clip(tmp_path / "a.wav", channels=2)
    with pytest.raises(AudioFileError, match=r"a\.wav: .*one channel.*has 2 channels"):
        read(path)


def test_missing(tmp_path):
    with pytest.raises(AudioFileError, match=r"a\.wav: .*no file"):
        read(tmp_path / "a.wav")


def test_empty(tmp_path, write_clip):
    (tmp_path / "a.wav").touch()
    with pytest.raises(AudioFileError, match=r"a\.wav: .*0 bytes"):
        read(tmp_path / "a.wav")
    with pytest.raises(AudioFileError, match=r"b\.wav: .*0 of 0 samples"):
        read(write_clip(tmp_path / "b.wav", samples=0))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_truncated(tmp_path, write_clip, suffix):
    samples, _ = soundfile.read(write_clip(tmp_path / "whole.wav"))
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, samples, 16_000)
    assert len(read(path)) == 16_000
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(AudioFileError, match=rf"a\.{suffix}: "):
        read(path)


def test_too_long_is_told_from_the_header(tmp_path, write_clip):
    with pytest.raises(AudioFileError, match=r"may last 1 s here; this one lasts 1\.25 s"):
        read(write_clip(tmp_path / "a.wav", samples=20_000))
    # The header of a format without a size check may promise anything; nothing is allocated.
    header = struct.pack(">4s5i", b".snd", 24, 2**31 - 1, 3, 16_000, 1)
    (tmp_path / "a.au").write_bytes(header + bytes(100))
    with pytest.raises(AudioFileError, match=r"a\.au: "):
        read(tmp_path / "a.au")


def test_not_finite(tmp_path):
    samples = np.zeros(100, np.float32)
    samples[17] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"finite; sample 17 is nan"):
        read(tmp_path / "a.wav")


def test_other_number_of_samples_than_the_index_says(tmp_path, write_clip):
    with pytest.raises(AudioFileError, match="must hold 123 samples; the header says 100"):
        read(write_clip(tmp_path / "a.wav", samples=100), frames=123)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    suffix=st.sampled_from(["wav", "flac", "ogg"]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=8))),
    cut=st.integers(0, 4000),
)
def test_damage_is_an_audio_file_error_or_harmless(tmp_path, suffix, changes, cut):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 800)
    soundfile.write(path, noise, 16_000)
    content = bytearray(path.read_bytes())
    for anywhere, new in changes:
        place = anywhere % len(content)
        content[place : place + len(new)] = new
    path.write_bytes(content[: cut or None])
    samples = np.ones(1)
    with contextlib.suppress(AudioFileError):
        samples = read(path)
    assert 0 < len(samples) <= 16_000
    assert np.isfinite(samples).all()
