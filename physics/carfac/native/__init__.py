"""The compiled CPU kernel of CAR-FAC: forward, and its vector-Jacobian product."""

from physics.carfac.native.kernel import Tuning, run
from physics.carfac.native.loader import reason_unavailable, warn_once

__all__ = ["Tuning", "reason_unavailable", "run", "warn_once"]
