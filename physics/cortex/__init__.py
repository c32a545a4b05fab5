"""Exists to model what the auditory nerve sends up, and how auditory cortex hears it.

`AuditorySpectrogram` is the front end of Chi, Ru and Shamma (2005), `Strf` the stage of
spectrotemporal receptive fields after it; `physics.compose.Compose` joins them.
"""

from physics.cortex.spectrogram import AuditorySpectrogram
from physics.cortex.strf import Strf

__all__ = ["AuditorySpectrogram", "Strf"]
