"""How high and how loud: f0 with its confidence, A-weighted loudness; functions and a front end."""

from physics.pitch.loudness import a_weighted_loudness_db, a_weighting_db
from physics.pitch.model import PitchLoudness
from physics.pitch.period import yin
from physics.pitch.scale import hz_to_midi, midi_to_hz

__all__ = [
    "PitchLoudness",
    "a_weighted_loudness_db",
    "a_weighting_db",
    "hz_to_midi",
    "midi_to_hz",
    "yin",
]
