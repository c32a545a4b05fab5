"""Spectra, mel bands and cepstra: functions with finite gradients, front ends, and the way back."""

from physics.spectra.inversion import griffin_lim, mel_to_audio, unmel
from physics.spectra.model import LogMel, Mel, Mfcc, Stft
from physics.spectra.scales import dct_matrix, filterbank, hz_to_mel, mel_to_hz, to_db
from physics.spectra.short_time import frames, istft, magnitude, phase, power, stft, window_taps

__all__ = [
    "LogMel",
    "Mel",
    "Mfcc",
    "Stft",
    "dct_matrix",
    "filterbank",
    "frames",
    "griffin_lim",
    "hz_to_mel",
    "istft",
    "magnitude",
    "mel_to_audio",
    "mel_to_hz",
    "phase",
    "power",
    "stft",
    "to_db",
    "unmel",
    "window_taps",
]
