"""Losses of audio, `loss(estimate, target, lengths)`, and weighted sums of them."""

from hybrid.losses.base import Loss, RowLoss
from hybrid.losses.combine import PermutationInvariant, WeightedSum, build_losses
from hybrid.losses.hearing import CochlearLoss, CorticalLoss
from hybrid.losses.modulation import StrfLoss
from hybrid.losses.spectral import MultiResolutionStft, Stft
from hybrid.losses.time_domain import L1, L2, Esr, LogCosh, SiSdr, Snr, si_sdr_db

__all__ = [
    "L1",
    "L2",
    "CochlearLoss",
    "CorticalLoss",
    "Esr",
    "LogCosh",
    "Loss",
    "MultiResolutionStft",
    "PermutationInvariant",
    "RowLoss",
    "SiSdr",
    "Snr",
    "Stft",
    "StrfLoss",
    "WeightedSum",
    "build_losses",
    "si_sdr_db",
]
