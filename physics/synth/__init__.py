"""Sound makers with gradients: oscillators, filtered noise, rooms, a vocoder."""

from physics.synth.fir import fir_reverb, time_varying_fir
from physics.synth.model import HarmonicNoise
from physics.synth.noise import filtered_noise, noise_frames, zero_phase_response
from physics.synth.oscillators import harmonic, harmonic_amplitudes
from physics.synth.scale import scale_function
from physics.synth.synthesiser import Synthesiser
from physics.synth.vocoder import ChannelVocoder

__all__ = [
    "ChannelVocoder",
    "HarmonicNoise",
    "Synthesiser",
    "filtered_noise",
    "fir_reverb",
    "harmonic",
    "harmonic_amplitudes",
    "noise_frames",
    "scale_function",
    "time_varying_fir",
    "zero_phase_response",
]
