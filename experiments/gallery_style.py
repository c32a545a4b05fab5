"""Exists so that the pictures of the gallery look alike: widths of a journal, one font."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE, NARROW = 7.0, 3.4  # inches: two columns of a page, and one
SEQUENTIAL = "magma"
GREY = "#6b6b6b"
# Healthy to deaf, told apart by readers of any colour vision and in grey.
HEALTH_COLOURS = {1.0: COLOURS[0], 0.5: COLOURS[4], 0.0: COLOURS[1]}
HEALTH_STYLES = {1.0: "-", 0.5: "--", 0.0: "-."}
HEALTH_NAMES = {1.0: "healthy", 0.5: "OHC health 0.5", 0.0: "no OHC"}

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so that pictures are the same anywhere
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e2e2e2",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """How much a picture may cost.

    Attributes:
        sample_rate_hz: of the cochlea; at least 16 kHz, so that its channels reach 4 kHz.
        settle_s: how long a tone lasts until its response counts as steady.
        level_step_db: between the levels of a curve.
        dpi: dots per inch of the PNG.
    """

    sample_rate_hz: int = 22050
    settle_s: float = 0.6
    level_step_db: float = 5.0
    dpi: int = 200


def style() -> Any:
    """A context in which figures have the gallery's fonts and lines; drawing and saving need it."""
    import matplotlib as mpl

    return mpl.rc_context(_RC)


def figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def log_hertz(axes: Axes, ticks_hz: Sequence[float]) -> None:
    """Makes the horizontal axis logarithmic, with ticks in Hz or kHz."""
    axes.set_xscale("log")
    axes.set_xticks(list(ticks_hz), [hertz(tick) for tick in ticks_hz])
    axes.set_xticks([], minor=True)


def hertz(value: float) -> str:
    """500 as 500, 2000 as 2k."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def channel_ticks(axes: Axes, frequencies_hz: np.ndarray, ticks_hz: Sequence[float]) -> None:
    """Labels an axis of channels, low frequencies first, by the frequencies of their poles.

    Channels are equally far apart, as they are on the basilar membrane.
    """
    inside = [f for f in ticks_hz if frequencies_hz[0] <= f <= frequencies_hz[-1]]
    places = np.interp(np.log(inside), np.log(frequencies_hz), np.arange(len(frequencies_hz)))
    axes.set_yticks(places, [hertz(f) for f in inside])
    axes.set_ylabel("pole frequency (Hz)")


def picture(axes: Axes, image: np.ndarray, extent: tuple[float, float, float, float], **kw) -> Any:
    """Draws an image `[rows, columns]`, first row at the bottom, with a colour bar of its own."""
    drawn = axes.imshow(
        image,
        origin="lower",
        aspect="auto",
        cmap=SEQUENTIAL,
        interpolation="nearest",
        extent=extent,
        **kw,
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(True)
    return drawn


def colour_bar(axes: Axes, image: Any, label: str) -> None:
    """A thin bar beside the axes."""
    bar = axes.figure.colorbar(image, ax=axes, pad=0.015, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label(label)
    bar.ax.tick_params(length=2)
