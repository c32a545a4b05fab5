"""Banks of filters whose shapes are learned from audio: gammatone, SincNet, LEAF."""

from physics.filterbanks.bank import Filterbank
from physics.filterbanks.gabor import Leaf
from physics.filterbanks.gammatone import Gammatone
from physics.filterbanks.sinc import SincNet

__all__ = ["Filterbank", "Gammatone", "Leaf", "SincNet"]
