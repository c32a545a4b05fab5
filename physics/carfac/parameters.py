"""Exists to list CAR-FAC's physical parameters: unit, interval, meaning, source, initial value.

The intervals keep every design inside them valid: poles between 0 Hz and Nyquist, inside the unit
circle, hair-cell capacitors that discharge without overshoot, smoothing weights never negative.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from physics.bounds import Parameter

GOOGLE = "google/carfac v3 defaults; Lyon (2017)"
GLASBERG_MOORE = "Glasberg & Moore (1990), Hear. Res. 47"
GREENWOOD = "Greenwood (1990), JASA 87"

HEALTHY_FIBRES = (500.0, 350.0, 250.0)
"""Fibres of each class per channel (high, medium, low spontaneous rate) without synaptopathy."""

Entry = tuple[Parameter, Any]  # the specification and the initial physical value


def _log(unit: str, low: float, high: float, doc: str, source: str = GOOGLE) -> Parameter:
    return Parameter(unit, low, high, doc, source, "log_logit")


def car_table(n_ears: int, n_channels: int) -> dict[str, Entry]:
    """Cascade of resonators, its frequency map and its outer hair cells."""
    return {
        "velocity_scale": (
            _log("1", 1e-3, 10.0, "How strongly BM velocity saturates the outer hair cells."),
            0.1,
        ),
        "velocity_offset": (
            Parameter(
                "1", -0.5, 0.5, "Working point of that saturation; gives even orders.", GOOGLE
            ),
            0.04,
        ),
        "min_zeta": (_log("1", 0.01, 0.3, "Damping ratio with outer hair cells at work."), 0.10),
        "max_zeta": (_log("1", 0.15, 0.5, "Damping ratio without outer hair cells."), 0.35),
        "first_pole_theta": (
            Parameter(
                "rad", 0.25 * math.pi, 0.95 * math.pi, "Angle of the most basal pole.", GOOGLE
            ),
            0.85 * math.pi,
        ),
        "zero_ratio": (
            _log("1", 1.05, 2.0, "Frequency of a stage's zero over its pole's."),
            2**0.5,
        ),
        "high_f_damping_compression": (
            Parameter("1", 0.0, 1.0, "Less damping toward Nyquist.", GOOGLE, "project"),
            0.5,
        ),
        "erb_per_step": (_log("1", 0.1, 2.5, "Distance of channels in ERB.", GLASBERG_MOORE), 0.5),
        "erb_break_hz": (_log("Hz", 50.0, 600.0, "Where the map turns linear.", GREENWOOD), 165.3),
        "erb_q": (
            _log("1", 3.0, 30.0, "Frequency over ERB at high frequencies.", GLASBERG_MOORE),
            1000 / (24.7 * 4.37),
        ),
        "ac_corner_hz": (_log("Hz", 1.0, 200.0, "High-pass from BM motion to hair cells."), 20.0),
        "ohc_health": (
            Parameter(
                "1", 0.0, 1.0, "Outer hair cells left: 1 healthy, 0 none.", GOOGLE, "project"
            ),
            np.ones((n_ears, n_channels)),
        ),
    }


def ihc_table(style: str, sample_rate_hz: float) -> dict[str, Entry]:
    """Inner hair cells; intervals depend on the rate so that each sample empties no capacitor.

    What flows out in a sample is at most 1.1 / (tau_out * rate) of a capacitor's charge and what
    flows in 1 / (tau_in * rate) of what is missing; the lower ends keep these sums below one.
    """
    fastest_out = max(1.5e-4, 3.14 / sample_rate_hz)
    fastest_in = max(2e-5, 1.55 / sample_rate_hz)
    if style == "just_hwr":
        return {}

    def out(doc: str) -> Parameter:
        return _log("s", fastest_out, 2e-2, doc)

    def slow_in(doc: str) -> Parameter:
        return _log("s", fastest_in, 0.2, doc)

    smoothing = (_log("s", 1e-5, 2e-3, "Smoothing of the output."), 80e-6)
    if style == "one_cap":
        return {
            "tau_lpf_s": smoothing,
            "tau_out_s": (out("Depletion of transmitter."), 0.5e-3),
            "tau_in_s": (slow_in("Recovery of transmitter."), 10e-3),
        }
    # Receptor recovery stays below 20 times its depletion: beyond, loud sound would give less
    # output than silence and the output's scale would pass through infinity.
    return {
        "tau_lpf_s": smoothing,
        "tau1_out_s": (out("Fall of the receptor potential's capacitor."), 0.5e-3),
        "tau1_in_s": (_log("s", fastest_in, 1.5e-3, "Its recovery."), 0.2e-3),
        "tau2_out_s": (out("Depletion of transmitter."), 1e-3),
        "tau2_in_s": (slow_in("Recovery of transmitter."), 10e-3),
    }


def synapse_table(
    n_ears: int, n_channels: int, healthy_fibres: tuple[float, ...]
) -> dict[str, Entry]:
    """Synapse and auditory-nerve fibres by class of spontaneous rate."""
    n_classes = len(healthy_fibres)
    spont = np.array([50.0, 6.0, 1.0])[:n_classes]
    spont = np.concatenate([spont, np.ones(n_classes - spont.size)])
    fibres = np.broadcast_to(np.asarray(healthy_fibres), (n_ears, n_channels, n_classes))
    # 1.2 per 22050 samples a second for ten hair cells a channel, each with a tenth of the fibres.
    weights = np.full(n_classes, 1.2 / 22050 / 10)
    return {
        "n_fibers": (
            Parameter("1", 0.0, 2000.0, "Fibres left, per class.", GOOGLE, "project"),
            fibres,
        ),
        "spont_rates_hz": (_log("Hz", 0.1, 140.0, "Spontaneous rate of a class."), spont),
        "sat_rate_hz": (_log("Hz", 150.0, 600.0, "Rate at saturation."), 200.0),
        "sat_reservoir": (Parameter("1", 0.02, 0.8, "Transmitter left then.", GOOGLE), 0.2),
        "v_width": (_log("1", 2e-3, 0.2, "Width of the release sigmoid in potential."), 0.02),
        "tau_lpf_s": (_log("s", 1e-5, 2e-3, "Smoothing of the firing probability."), 80e-6),
        "reservoir_tau_s": (_log("s", 2e-3, 0.2, "Recovery of the transmitter."), 0.02),
        "agc_weights": (_log("s", 1e-8, 1e-3, "Weight of a class in the output."), weights),
    }


def agc_table(n_stages: int, n_ears: int) -> dict[str, Entry]:
    """Automatic gain control, fast stages first."""
    stages = np.arange(n_stages)
    table = {
        "time_constants_s": (
            _log("s", 5e-4, 20.0, "Time constant of a stage."),
            0.002 * 4.0**stages,
        ),
        "stage_gain": (_log("1", 0.25, 8.0, "Gain from a stage to the next faster one."), 2.0),
        "agc1_scales": (
            _log("1", 0.35, 100.0, "Spread over channels toward the apex."),
            2 ** (0.5 * stages),
        ),
        "agc2_scales": (
            _log("1", 0.35, 100.0, "Spread over channels toward the base."),
            1.65 * 2 ** (0.5 * stages),
        ),
    }
    if n_ears > 1:
        table["mix_coeff"] = (
            Parameter("1", 0.0, 1.0, "Coupling of the ears' gains.", GOOGLE, "project"),
            0.5,
        )
    return table
