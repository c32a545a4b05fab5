"""Exists so that every physics module, yours too, is held to one contract.

Each check takes a module and raises AssertionError, saying which rule it breaks::

    import pytest
    from physics.testing import CHECKS
    from my_ears import GaussianBands

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_my_ear(check):
        check(GaussianBands(sample_rate_hz=8000))

A synthesiser, whose inputs are controls, is held to `SYNTHESISER_CHECKS` instead.
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
from physics.testing.synthesisers import (
    check_controls_gradients,
    check_controls_padding,
    check_controls_streaming,
    check_hostile_controls,
    check_sound,
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

SYNTHESISER_CHECKS = (
    check_protocol,
    check_config,
    check_specs,
    check_sound,
    check_controls_padding,
    check_controls_streaming,
    check_batch,
    check_purity,
    check_controls_gradients,
    check_hostile_controls,
    check_bounds,
)

__all__ = [
    "CHECKS",
    "SYNTHESISER_CHECKS",
    "check_batch",
    "check_bounds",
    "check_config",
    "check_controls_gradients",
    "check_controls_padding",
    "check_controls_streaming",
    "check_frames",
    "check_gradients",
    "check_hostile_controls",
    "check_hostile_sounds",
    "check_padding",
    "check_protocol",
    "check_purity",
    "check_sound",
    "check_specs",
    "check_streaming",
]
