"""Losses of audio, `loss(estimate, target, lengths)`, and weighted sums of them."""

from hybrid.losses.base import Loss
from hybrid.losses.combine import PermutationInvariant, WeightedSum, build_losses
from hybrid.losses.time_domain import L1, L2, Esr, LogCosh, SiSdr, Snr, si_sdr_db

__all__ = [
    "L1",
    "L2",
    "Esr",
    "LogCosh",
    "Loss",
    "PermutationInvariant",
    "SiSdr",
    "Snr",
    "WeightedSum",
    "build_losses",
    "si_sdr_db",
]
