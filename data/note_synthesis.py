"""Makes musical notes of known pitch out of nothing, where no recordings are at hand.

Partials over breath or bow noise, with attack, decay and vibrato, as in any textbook of additive
synthesis (Moore, *Elements of Computer Music*, 1990, chapter 3). Each note is a function of its
instrument, pitch and take alone.
"""

import dataclasses
import zlib

import numpy as np
from jaxtyping import Float32

_RELEASE_S = 0.15
_VIBRATO_STARTS_S = 0.25


@dataclasses.dataclass(frozen=True)
class Instrument:
    """What tells the notes of one generated instrument from those of another.

    Attributes:
        formants_hz: centres of the resonances of its body.
        formant_db: how far they rise above the rest.
        slope_db_per_octave: fall of the partials from the fundamental on, played loud.
        even_db: level of the even partials beside the odd ones.
        attack_s: time constant of the onset.
        decay_s: time constant with which the fundamental dies away; 0: it is sustained.
        vibrato_hz: rate of the vibrato.
        vibrato_cents: its depth.
        noise_db: level of the noise beside the partials.
        noise_hz: centre of the noise, which is two octaves wide.
    """

    formants_hz: tuple[float | int, ...]
    formant_db: float | int
    slope_db_per_octave: float | int
    even_db: float | int = 0.0
    attack_s: float | int = 0.02
    decay_s: float | int = 0.0
    vibrato_hz: float | int = 5.5
    vibrato_cents: float | int = 0.0
    noise_db: float | int = -40.0
    noise_hz: float | int = 3000.0


INSTRUMENTS = {
    "bowed": Instrument((480, 1100, 2700), 14, -7, 0, 0.06, 0, 5.8, 18, -32, 4000),
    "reed": Instrument((1400, 3200), 10, -6, -22, 0.03, 0, 4.5, 4, -42, 2500),
    "flute": Instrument((900,), 6, -13, -3, 0.05, 0, 5.0, 12, -26, 2000),
    "brass": Instrument((1200, 2100), 12, -4, 0, 0.04, 0, 5.2, 5, -45, 3500),
    "plucked": Instrument((220, 700, 3000), 8, -9, -2, 0.002, 0.9, 5.0, 0, -48, 5000),
}


def note_hz(midi: float | int) -> float:
    """Fundamental frequency of a MIDI note number in equal temperament; A4 is 440 Hz."""
    return 440.0 * 2.0 ** ((midi - 69) / 12)


def make_note(
    name: str, midi: int, take: int, sample_rate_hz: int, num_samples: int
) -> Float32[np.ndarray, " time"]:
    """Returns one note; the same one always.

    Args:
        name: one of `INSTRUMENTS`.
        midi: its pitch, a MIDI note number.
        take: another number is another note: louder or softer, and with other noise.
        sample_rate_hz: samples per second.
        num_samples: length.
    """
    instrument = INSTRUMENTS[name]
    rng = np.random.default_rng((zlib.crc32(name.encode()), midi, take))
    level_db = rng.uniform(-14, 0)
    time_s = np.arange(num_samples) / sample_rate_hz
    hz = _pitch_course(instrument, midi, time_s, rng)
    # A phase of its own for each note, else all would start alike.
    turns = np.cumsum(hz) / sample_rate_hz + rng.uniform()
    partials = _partials(instrument, note_hz(midi), turns, time_s, level_db, sample_rate_hz)
    noise = _noise(instrument, num_samples, sample_rate_hz, rng)
    envelope = 1 - np.exp(-time_s / instrument.attack_s)
    if instrument.decay_s:
        # What excites a string sounds at the attack only.
        noise = noise * np.exp(-time_s / 0.03)
    left_s = time_s[-1] - time_s
    envelope *= np.sin(np.pi / 2 * np.minimum(left_s / _RELEASE_S, 1)) ** 2
    loudness = np.sqrt(np.mean(partials[: sample_rate_hz // 2] ** 2))
    audio = envelope * (partials / loudness + 10 ** (instrument.noise_db / 20) * noise)
    return (0.1 * 10 ** (level_db / 20) * audio).astype(np.float32)


def _pitch_course(
    instrument: Instrument, midi: int, time_s: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Frequency at every sample: steady, then a vibrato that is as much above as below."""
    grown = np.clip((time_s - _VIBRATO_STARTS_S) / 0.5, 0, 1)
    rate_hz = instrument.vibrato_hz * rng.uniform(0.9, 1.1)
    swing = np.sin(2 * np.pi * (rate_hz * time_s + rng.uniform()))
    return note_hz(midi) * 2 ** (instrument.vibrato_cents * grown * swing / 1200)


def _partials(
    instrument: Instrument,
    f0_hz: float,
    turns: np.ndarray,
    time_s: np.ndarray,
    level_db: float,
    sample_rate_hz: int,
) -> np.ndarray:
    """Sum of the partials below 45 % of the sample rate; softer notes are duller."""
    slope_db = instrument.slope_db_per_octave + 0.25 * level_db
    rotation = np.exp(2j * np.pi * turns)
    partial, total = np.ones_like(rotation), np.zeros_like(time_s)
    for number in range(1, int(0.45 * sample_rate_hz / f0_hz) + 1):
        partial = partial * rotation
        hz = number * f0_hz
        gain_db = slope_db * np.log2(number) + _formants_db(instrument, hz)
        gain_db += instrument.even_db if number % 2 == 0 else 0.0
        course = 10 ** (gain_db / 20)
        if instrument.decay_s:
            course = course * np.exp(-time_s / instrument.decay_s * np.sqrt(number))
        total += course * np.imag(partial)
    return total


def _formants_db(instrument: Instrument, hz: float) -> float:
    """Response of the body at a frequency: bells of half an octave."""
    octaves = np.log2(hz / np.asarray(instrument.formants_hz))
    return float(instrument.formant_db * np.exp(-0.5 * (octaves / 0.5) ** 2).sum())


def _noise(
    instrument: Instrument, num_samples: int, sample_rate_hz: int, rng: np.random.Generator
) -> np.ndarray:
    """Gaussian noise of unit power, a bell two octaves wide along the logarithm of frequency."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    hz = np.fft.rfftfreq(num_samples, 1 / sample_rate_hz)
    octaves = np.log2(np.maximum(hz, 1.0) / instrument.noise_hz)
    noise = np.fft.irfft(spectrum * np.exp(-0.5 * octaves**2), num_samples)
    return noise / np.sqrt(np.mean(noise**2))
