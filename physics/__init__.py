"""Differentiable models of hearing and sound: parameters with units and bounds, design, run."""

from physics.base import Parameter, Physics, PhysicsModule, frame_mask, sample_mask

__all__ = ["Parameter", "Physics", "PhysicsModule", "frame_mask", "sample_mask"]
