"""Augments waveforms reproducibly: a transform is a function of an item and a random generator.

The loader makes the generator from (seed, epoch, index), so what happens to a clip depends neither
on the number of workers nor on where a run was resumed. A transform returns a new item of the same
shapes and leaves its argument alone. Audio stays zero behind `lengths`; it may exceed full scale.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data.audio_files import WAY_OUT, AudioFileError, read_clip, resampled_length

Item = dict[str, Any]  # NumPy arrays by name; see data.source.ItemDataset
_LONGEST_NOISE_S = 600.0


@runtime_checkable
class Transform(Protocol):
    """What the loader calls on each item; it must be picklable."""

    def __call__(self, item: Item, rng: np.random.Generator) -> Item:
        """Returns a changed copy of `item`, which holds `audio` [time] and `lengths` []."""
        ...


@dataclasses.dataclass(frozen=True)
class RandomShift:
    """Moves the clip in time by up to `max_samples` either way; zeros fill what becomes free.

    What is moved out of the padded length, at either end, is lost.
    """

    max_samples: int

    def __call__(self, item: Item, rng: np.random.Generator) -> Item:
        """Returns the item, augmented."""
        audio, length = item["audio"], int(item["lengths"])
        # A clip shorter than the shift would be lost altogether: half of it always stays.
        limit = min(self.max_samples, length // 2)
        shift = int(rng.integers(-limit, limit + 1))
        start, stop = max(0, -shift), min(length, audio.shape[-1] - shift)
        shifted = np.zeros_like(audio)
        shifted[start + shift : stop + shift] = audio[start:stop]
        return item | {"audio": shifted, "lengths": np.asarray(stop + shift, np.int32)}


@dataclasses.dataclass(frozen=True)
class RandomGain:
    """Changes the level by a gain drawn evenly from [low_db, high_db]."""

    low_db: int | float
    high_db: int | float

    def __call__(self, item: Item, rng: np.random.Generator) -> Item:
        """Returns the item, augmented."""
        gain = np.float32(10 ** (rng.uniform(self.low_db, self.high_db) / 20))
        return item | {"audio": item["audio"] * gain}


@dataclasses.dataclass(frozen=True)
class WhiteNoise:
    """Adds white noise, with the given probability, at a ratio drawn evenly from [low, high] dB."""

    low_snr_db: int | float
    high_snr_db: int | float
    probability: int | float = 1.0

    def __call__(self, item: Item, rng: np.random.Generator) -> Item:
        """Returns the item, augmented."""
        snr_db = rng.uniform(self.low_snr_db, self.high_snr_db)
        if rng.uniform() >= self.probability:
            return item
        noise = rng.standard_normal(int(item["lengths"]), np.float32)
        return _mix(item, noise, snr_db)


@dataclasses.dataclass(frozen=True)
class BackgroundNoise:
    """Adds a random stretch of a random recording, at a ratio drawn evenly from [low, high] dB.

    Attributes:
        files: mono recordings at `file_rate_hz`; one shorter than the clip is repeated.
        file_rate_hz: the rate that the recordings must have.
        sample_rate_hz: the rate of the items.
    """

    files: tuple[str, ...]
    file_rate_hz: int
    sample_rate_hz: int
    low_snr_db: int | float
    high_snr_db: int | float
    probability: int | float = 1.0

    def __post_init__(self):
        if not self.files:
            raise ValueError("background noise needs at least one recording; got none")

    def __call__(self, item: Item, rng: np.random.Generator) -> Item:
        """Returns the item, augmented."""
        length = int(item["lengths"])
        snr_db = rng.uniform(self.low_snr_db, self.high_snr_db)
        file = self.files[int(rng.integers(len(self.files)))]
        place = rng.uniform()
        if length == 0 or rng.uniform() >= self.probability:
            return item
        recording = read_noise(file, self.file_rate_hz, self.sample_rate_hz)
        spare = len(recording) - length
        if spare < 0:
            recording = np.resize(recording, 2 * length)  # repeated as often as needed
            spare = length
        start = int(place * (spare + 1))
        return _mix(item, recording[start : start + length], snr_db)


def build(
    augment: Mapping[str, Mapping[str, Any]],
    sample_rate_hz: int,
    noise_files: Sequence[str] = (),
    noise_rate_hz: int = 0,
) -> tuple[Transform, ...]:
    """Returns the transforms that a source's `augment` field asks for, in the order listed here.

    Args:
        augment: any of `shift: {seconds}`, `gain: {low_db, high_db}`,
            `background: {low_snr_db, high_snr_db, probability=1}` and
            `white: {low_snr_db, high_snr_db, probability=1}`.
        sample_rate_hz: of the items.
        noise_files: recordings for `background`.
        noise_rate_hz: their sample rate.

    Raises:
        ValueError: a name or field that does not exist, or one that is missing.
    """

    def shift(seconds: int | float) -> Transform:
        return RandomShift(round(seconds * sample_rate_hz))

    background = functools.partial(
        BackgroundNoise, tuple(noise_files), noise_rate_hz, sample_rate_hz
    )
    makers = {"shift": shift, "gain": RandomGain, "background": background, "white": WhiteNoise}
    if unknown := sorted(set(augment) - set(makers)):
        raise ValueError(f"augment has the entries {', '.join(makers)}; got {', '.join(unknown)}")
    transforms = []
    for name, make in makers.items():
        if name in augment:
            try:
                transforms.append(make(**augment[name]))
            except (TypeError, ValueError) as error:
                fields = dict(augment[name])
                raise ValueError(f"augment entry {name!r} cannot be {fields}: {error}") from error
    return tuple(transforms)


def _mix(item: Item, noise: np.ndarray, snr_db: int | float) -> Item:
    """Adds `noise` [length] to the valid samples at a ratio of root mean squares; silence stays."""
    length = len(noise)
    clip = item["audio"][:length]
    noise_rms = np.sqrt(np.mean(np.square(noise), dtype=np.float64)) if length else 0.0
    if noise_rms == 0:
        return item
    clip_rms = np.sqrt(np.mean(np.square(clip), dtype=np.float64))
    mixed = item["audio"].copy()
    mixed[:length] += noise * np.float32(clip_rms / noise_rms * 10 ** (-snr_db / 20))
    return item | {"audio": mixed}


@functools.lru_cache(maxsize=64)
def read_noise(file: str, file_rate_hz: int, sample_rate_hz: int) -> np.ndarray:
    """Returns a recording of noise; each process keeps the 64 that it used last."""
    longest = resampled_length(round(_LONGEST_NOISE_S * file_rate_hz), file_rate_hz, sample_rate_hz)
    try:
        return read_clip(
            pathlib.Path(file),
            file_rate_hz=file_rate_hz,
            sample_rate_hz=sample_rate_hz,
            max_samples=longest,
        )
    except AudioFileError as error:
        # Skipping would change which noise other clips get: noise files have to be good.
        found = str(error).removesuffix(WAY_OUT)
        raise ValueError(
            f"a recording of background noise cannot be used: {found}replace or remove the file"
        ) from error
