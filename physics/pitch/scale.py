"""Exists to count pitch as music does: in semitones, in which a network sees octaves alike."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float


def hz_to_midi(f0_hz: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """MIDI's numbers of semitones, 69 for 440 Hz; 0 for frequencies below that of 0, 8.18 Hz."""
    heard = f0_hz > 440 * 2 ** (-69 / 12)
    octaves = jnp.log2(jnp.where(heard, f0_hz, 440) / 440)
    return jnp.where(heard, 12 * octaves + 69, 0)


def midi_to_hz(midi: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Inverse of `hz_to_midi`."""
    return 440 * jnp.exp((midi - 69) * (math.log(2) / 12))
