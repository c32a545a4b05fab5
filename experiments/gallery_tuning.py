"""Exists to draw what a cochlea does to sounds too small to change it: tuning, and thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import gallery_style as look
from experiments.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CENTRES_HZ = (500.0, 1000.0, 2000.0, 4000.0)
_TICKS_HZ = (100, 200, 500, 1000, 2000, 5000, 10000)
_AUDIOMETRIC_HZ = (125.0, 250.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0)
_AUDIOMETRIC_HZ += (6000.0, 8000.0)


def tuning(setting: look.Setting) -> Figure:
    """Threshold tuning curves and sharpness, healthy and impaired."""
    import jax

    from physics.carfac import analysis, thresholds

    figure = look.figure(look.WIDE, 2.7)
    curves, sharpness = figure.subplots(1, 2, width_ratios=(1.75, 1))
    model = _ear(setting, 1.0)
    frequencies = np.geomspace(100, 10_000, 400)

    @jax.jit
    def measure(params: Any) -> Any:
        gains = analysis.gain_db(model, params, frequencies)
        return gains, analysis.best_frequencies_hz(model, params), analysis.q10(model, params)

    criterion = jax.jit(lambda params: thresholds.calibrated_criterion(model, params))(model.init())
    # A place is where healthy hair cells respond best to a frequency, whatever becomes of them.
    best = np.asarray(measure(model.init())[1])
    places = [int(np.argmin(np.abs(np.log(best / centre)))) for centre in _CENTRES_HZ]
    for health, name in look.HEALTH_NAMES.items():
        line = {"color": look.HEALTH_COLOURS[health], "ls": look.HEALTH_STYLES[health]}
        gains, _, q = measure(_ear(setting, health).init())
        chosen = gains[np.array(places)]
        levels = np.asarray(analysis.level_db_spl(model, frequencies, chosen, criterion))
        curves.plot(frequencies, levels.T, label=[name, *[None] * (len(places) - 1)], **line)
        sharpness.plot(best, np.asarray(q), label=name, **line)
    curves.set(ylim=(-12, 100), xlabel="frequency of the tone (Hz)")
    curves.set_ylabel("level at threshold (dB SPL)")
    curves.legend(loc="lower left", handlelength=2.6)
    curves.set_title("Tuning at four places, healthy and impaired")
    sharpness.set(ylim=(0, None), xlabel="best frequency if healthy (Hz)", ylabel="$Q_{10}$")
    sharpness.set_title("Sharpness of tuning")
    for axes in (curves, sharpness):
        look.log_hertz(axes, _TICKS_HZ)
        axes.set_xlim(frequencies[0], frequencies[-1])
        axes.grid()
    return figure


def audiogram(setting: look.Setting) -> Figure:
    """Thresholds in dB HL: healthy ears, flat losses, and one that grows towards the base."""
    import jax

    from physics.carfac import thresholds

    figure = look.figure(look.NARROW, 2.9)
    axes = figure.subplots()
    frequencies = np.array(_AUDIOMETRIC_HZ)
    model = _ear(setting, 1.0, ear_filter="minimum")
    criterion = thresholds.calibrated_criterion(model, model.init())
    levels = jax.jit(
        lambda params: thresholds.thresholds_db_hl(model, params, frequencies, criterion)
    )
    # Outer hair cells are lost from 1 kHz on, all of them at 8 kHz.
    poles = np.asarray(model.channel_frequencies_hz(model.init()))
    sloping = np.clip(1 - np.log2(poles / 1000) / 3, 0, 1)
    rows: list[tuple[str, Any, str, str]] = [
        (name, health, look.HEALTH_COLOURS[health], look.HEALTH_STYLES[health])
        for health, name in look.HEALTH_NAMES.items()
    ]
    rows.append(("lost from 1 to 8 kHz", sloping, COLOURS[2], ":"))
    for name, health, colour, dashes in rows:
        params = _ear(setting, health).init()
        axes.plot(
            frequencies, levels(params), color=colour, ls=dashes, marker="o", ms=3, label=name
        )
    look.log_hertz(axes, [125 * 2**octave for octave in range(7)])
    axes.set(ylim=(90, -15), xlabel="frequency (Hz)", ylabel="threshold (dB HL)")
    axes.grid()
    axes.legend(loc="lower left", handlelength=2.6)
    axes.set_title("Audiograms of outer hair cell loss")
    return figure


def _ear(setting: look.Setting, health: Any, ear_filter: str = "none") -> Any:
    """A cochlea with these outer hair cells, at twice the rate: its channels reach 16 kHz."""
    from physics.carfac import Carfac

    return Carfac(
        sample_rate_hz=2 * setting.sample_rate_hz,
        initial={"car.ohc_health": np.asarray(health).tolist()},
        ear_filter=ear_filter,
    )
