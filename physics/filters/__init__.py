"""Filters with gradients: convolution, recursion, analytic signals; functions and front ends."""

from physics.filters.biquads import Biquads, resonate
from physics.filters.fir import Fir, convolve
from physics.filters.hilbert import (
    HilbertEnvelope,
    analytic_signal,
    envelope,
    instantaneous_frequency_hz,
)
from physics.filters.iir import all_pole, lfilter, sosfilt

__all__ = [
    "Biquads",
    "Fir",
    "HilbertEnvelope",
    "all_pole",
    "analytic_signal",
    "convolve",
    "envelope",
    "instantaneous_frequency_hz",
    "lfilter",
    "resonate",
    "sosfilt",
]
