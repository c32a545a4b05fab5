"""Exists so that every physics module, yours too, is held to one contract.

Each check takes a module and raises AssertionError, saying which rule it breaks::

    import pytest
    from physics.testing import CHECKS
    from my_ears import GaussianBands

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_ear(check):
        check(GaussianBands(sample_rate_hz=8000))
"""

from physics.testing.contract import (
    check_config,
    check_frames,
    check_padding,
    check_protocol,
    check_specs,
    check_streaming,
)
from physics.testing.numerics import (
    check_batch,
    check_bounds,
    check_gradients,
    check_hostile_sounds,
    check_purity,
)

CHECKS = (
    check_protocol,
    check_config,
    check_specs,
    check_frames,
    check_padding,
    check_streaming,
    check_batch,
    check_purity,
    check_gradients,
    check_hostile_sounds,
    check_bounds,
)

__all__ = [
    "CHECKS",
    "check_batch",
    "check_bounds",
    "check_config",
    "check_frames",
    "check_gradients",
    "check_hostile_sounds",
    "check_padding",
    "check_protocol",
    "check_purity",
    "check_specs",
    "check_streaming",
]
