"""Reads damaged recordings in a process of its own, for a decoder may crash and not only refuse.

usage: python run_audio_fuzz.py FOLDER SEED COUNT     (prints JSON: how each kind of input ended)

Before an input is read it lies in FOLDER as `input`, so that one that ends the process stays.
"""

import collections
import io
import json
import pathlib
import sys

import numpy as np
import soundfile

from data.audio_files import AudioFileError, read_clip

RATE_HZ = 16_000
FORMATS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "wav_float": {"format": "WAV", "subtype": "FLOAT"},
    "wav_ulaw": {"format": "WAV", "subtype": "ULAW"},
    "wav_adpcm": {"format": "WAV", "subtype": "MS_ADPCM"},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "au": {"format": "AU", "subtype": "PCM_16"},
    "caf": {"format": "CAF", "subtype": "PCM_16"},
    "w64": {"format": "W64", "subtype": "PCM_16"},
}


def valid() -> dict[str, bytes]:
    """A short recording in each format that this libsndfile writes."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 800).astype(np.float32)
    made = {}
    for name, options in FORMATS.items():
        stream = io.BytesIO()
        try:
            soundfile.write(stream, noise, RATE_HZ, **options)
        except soundfile.SoundFileError:
            continue
        made[name] = stream.getvalue()
    return made


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """A recording of which something is not what it was, or only the beginning is."""
    data = bytearray(content)
    kind = rng.integers(6)
    if kind == 0:  # random bytes behind the header
        head = int(rng.integers(4, 64))
        return bytes(data[:head]) + rng.bytes(int(rng.integers(0, 2000)))
    if kind == 1:  # bits
        for _ in range(int(rng.integers(1, 20))):
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind == 2:  # numbers in the header, at their worst
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(min(len(data) - 4, 80)))
            worst = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF)
            order = ("little", "big")[int(rng.integers(2))]
            data[place : place + 4] = int(rng.choice(worst)).to_bytes(4, order)
    elif kind == 3:  # cut
        return bytes(data[: int(rng.integers(len(data)))])
    elif kind == 4:  # a stretch taken out, or doubled
        start, size = int(rng.integers(len(data))), int(rng.integers(1, 200))
        piece = data[start : start + size]
        data[start : start + size] = piece * int(rng.integers(3))
    else:
        return rng.bytes(int(rng.integers(0, 500)))
    return bytes(data)


def main(folder: pathlib.Path, seed: int, count: int) -> None:
    """Tries `count` inputs."""
    rng, made = np.random.default_rng(seed), valid()
    names, ends = list(made), collections.Counter()
    path = folder / "input"
    for _ in range(count):
        path.write_bytes(damaged(made[names[int(rng.integers(len(names)))]], rng))
        rate_hz = int(rng.choice([RATE_HZ, 8000]))
        try:
            samples = read_clip(
                path, file_rate_hz=RATE_HZ, sample_rate_hz=rate_hz, max_samples=rate_hz
            )
        except AudioFileError:
            ends["refused"] += 1
            continue
        assert samples.dtype == np.float32
        assert 0 < len(samples) <= rate_hz
        assert np.isfinite(samples).all()
        ends["read"] += 1
    path.unlink()
    print(json.dumps({"formats": names, **ends}))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
