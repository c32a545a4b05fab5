"""Resampling in pieces gives what resampling of the whole gives, for any rates and any cuts."""

import math

import numpy as np
import pytest
from scipy import signal

from data.stream_resample import StreamResampler


def whole(audio, from_hz, to_hz):
    common = math.gcd(from_hz, to_hz)
    return signal.resample_poly(
        audio.astype(np.float64), to_hz // common, from_hz // common, axis=1
    )


def in_pieces(audio, from_hz, to_hz, sizes):
    stream = StreamResampler(from_hz, to_hz, audio.shape[0])
    given, start = [], 0
    for size in sizes:
        given.append(stream.push(audio[:, start : start + size]))
        start += size
    given += [stream.push(audio[:, start:]), stream.finish()]
    return np.concatenate(given, axis=1)


@pytest.mark.parametrize(
    ("from_hz", "to_hz", "samples", "channels"),
    [
        (44_100, 16_000, 90_001, 2),
        (16_000, 44_100, 40_000, 1),
        (16_000, 16_000, 5_000, 3),
        (8_000, 16_000, 33_333, 1),
        (48_000, 16_000, 7, 1),
        (11_025, 16_000, 1, 1),
        (7_919, 16_000, 30_000, 1),  # without a common divisor
    ],
)
def test_pieces_equal_the_whole(from_hz, to_hz, samples, channels):
    rng = np.random.default_rng(samples)
    audio = rng.uniform(-1, 1, (channels, samples)).astype(np.float32)
    result = in_pieces(audio, from_hz, to_hz, [1, 1_000, 0, 20_000, 333])
    assert result.dtype == np.float32
    assert result.shape == (channels, -(-samples * to_hz // from_hz))
    np.testing.assert_allclose(result, whole(audio, from_hz, to_hz), atol=2e-6)


def test_memory_does_not_grow_with_the_sound():
    stream = StreamResampler(44_100, 16_000)
    block = np.zeros((1, 65_536), np.float32)
    kept = set()
    for _ in range(30):
        stream.push(block)
        kept.add(stream._waiting.shape[1])
    assert max(kept) < 2 * 65_536


def test_there_and_back_keeps_what_both_rates_hold():
    time = np.arange(44_100) / 44_100
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)[None]
    there = in_pieces(tone, 44_100, 16_000, [10_000])
    back = in_pieces(there, 16_000, 44_100, [3_000])[:, : tone.shape[1]]
    np.testing.assert_allclose(back[:, 2_000:-2_000], tone[:, 2_000:-2_000], atol=5e-3)


def test_bad_rates():
    with pytest.raises(ValueError, match="above 0; got 0 and 16000"):
        StreamResampler(0, 16_000)


@pytest.mark.parametrize("to_hz", [8_000, 16_000])
def test_blocks_that_do_not_belong_to_the_sound(to_hz):
    stream = StreamResampler(16_000, to_hz, channels=2)
    with pytest.raises(ValueError, match=r"blocks \[2, time\] until finish\(\); got \[1, 10\]"):
        stream.push(np.zeros((1, 10), np.float32))
    stream.finish()
    with pytest.raises(ValueError, match="it is finished: begin a StreamResampler"):
        stream.push(np.zeros((2, 10), np.float32))
