"""Stabilized auditory images: what a cochlea says, aligned at its own peaks."""

from physics.sai.model import Sai, SaiState
from physics.sai.stabilize import Layout, SaiMemory, sai_frames

__all__ = ["Layout", "Sai", "SaiMemory", "SaiState", "sai_frames"]
