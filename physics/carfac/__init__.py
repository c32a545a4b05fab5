"""CAR-FAC: a cascade of asymmetric resonators with fast-acting compression, differentiable."""

from physics.carfac.model import Carfac, CarfacOutputs, FramedState
from physics.carfac.structures import Coefficients, State, Structure

__all__ = ["Carfac", "CarfacOutputs", "Coefficients", "FramedState", "State", "Structure"]
