"""Pictures of results: confusion matrix, cochleagram, training curves, how the ear has moved.

Every function returns a Matplotlib `Figure` of its own, drawn by Agg: no window, no global state.
`save` writes it as PNG, `pixels` turns it into an array for TensorBoard.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by readers of any colour vision (Okabe & Ito, 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_GREY, _FAINT = "#5a5a5a", "#d9d9d9"
_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)

Tree = Any


def confusion_matrix(
    confusion: Sequence[Sequence[float]], class_names: Sequence[str], title: str | None = None
) -> Figure:
    """Draws how often each class was taken for each; colour is the share of the true class.

    Args:
        confusion: counts, `[label][prediction]`.
        class_names: names in the order of both axes.
        title: above the matrix; by default the accuracy.

    Raises:
        ValueError: the counts are not square, or do not fit the names.
    """
    counts = np.asarray(confusion, np.float64)
    n = len(class_names)
    if counts.shape != (n, n):
        raise ValueError(
            f"confusion must be [{n}, {n}] for {n} class names, got {list(counts.shape)}"
        )
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    inches = max(3.4, 1.2 + min(0.72, 9 / n) * n)
    figure = _figure(inches + 0.5 + 0.07 * n, inches)
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    size = 9 if n <= 12 else 6.5
    if n <= 20:
        for (row, column), count in np.ndenumerate(counts):
            text = f"{count:g}"
            if n <= 12 and count:
                percent = 100 * share[row, column]
                text += f"\n{percent:.0f} %" if percent >= 1 else "\n< 1 %"
            colour = "white" if share[row, column] > 0.55 else "black" if count else "#b0b0b0"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    wide = n > 6 or max(map(len, class_names)) > 6
    axes.set_xticks(
        range(n), class_names, rotation=45 if wide else 0, ha="right" if wide else "center"
    )
    axes.set_yticks(range(n), class_names)
    axes.tick_params(length=0)
    # Cells are parted by white lines, not framed.
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if title is None and counts.sum():
        right, total = np.trace(counts), counts.sum()
        title = f"{100 * right / total:.1f} % right ({right:.0f} of {total:.0f} clips)"
    axes.set_title(title or "", fontsize=10)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, format=lambda x, _: f"{100 * x:.0f} %")
    bar.outline.set_visible(False)
    bar.set_label("share of the true class")
    return figure


def cochleagram(
    features: np.ndarray,
    hop_s: float,
    frequencies_hz: np.ndarray | None = None,
    title: str = "",
    label: str = "neural activity",
) -> Figure:
    """Draws the output of an ear over time, low frequencies at the bottom.

    Args:
        features: [frames, channels].
        hop_s: seconds from frame to frame.
        frequencies_hz: centre frequency of each channel, rising or falling. Channels keep equal
            heights, which on an ear's ERB-spaced channels is the basilar membrane's own scale.
        title: above the picture.
        label: what the colours are.

    Raises:
        ValueError: the frequencies do not fit the channels.
    """
    features = np.asarray(features, np.float64)
    frames, channels = features.shape
    if frequencies_hz is not None:
        frequencies_hz = np.asarray(frequencies_hz, np.float64)
        if frequencies_hz.shape != (channels,):
            raise ValueError(
                f"there must be a frequency for each of {channels} channels, got "
                f"{list(frequencies_hz.shape)}"
            )
        if frequencies_hz[0] > frequencies_hz[-1]:
            features, frequencies_hz = features[:, ::-1], frequencies_hz[::-1]
    figure = _figure(6.4, 3.0)
    axes = figure.add_subplot()
    image = axes.imshow(
        features.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        interpolation="nearest",
        extent=(0, frames * hop_s, -0.5, channels - 0.5),
    )
    axes.set_xlabel("time (s)")
    if frequencies_hz is None:
        axes.set_ylabel("channel")
    else:
        inside = [f for f in _TICKS_HZ if frequencies_hz[0] <= f <= frequencies_hz[-1]]
        places = np.interp(np.log(inside), np.log(frequencies_hz), np.arange(channels))
        axes.set_yticks(places, [_hertz(f) for f in inside])
        axes.set_ylabel("centre frequency (Hz)")
    axes.set_title(title, fontsize=10)
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(label)
    return figure


def training_curves(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Sequence[str] = ("loss", "accuracy")
) -> Figure:
    """Draws metrics of several runs over their steps: training faint, validation strong.

    Args:
        runs: rows as `metrics.jsonl` holds them (`step`, `split`, metrics), by name of the run.
        metrics: which to draw, one panel each.
    """
    figure = _figure(3.6 * len(metrics), 2.9)
    for place, metric in enumerate(metrics):
        axes = figure.add_subplot(1, len(metrics), place + 1)
        scale = 100 if metric == "accuracy" else 1
        lows, highs = [], []
        for colour, (name, rows) in zip(_cycle(runs), runs.items(), strict=True):
            for split in ("train", "validation"):
                steps, values = _series(rows, split, metric)
                if not len(steps):
                    continue
                values = values * scale
                finite = values[np.isfinite(values)]
                lows.append(np.min(finite, initial=np.inf))
                highs.append(np.max(finite, initial=-np.inf))
                strong = split == "validation"
                axes.plot(
                    steps,
                    values,
                    color=colour,
                    linewidth=1.6 if strong else 0.9,
                    alpha=1 if strong else 0.4,
                    marker="o" if strong and len(steps) <= 30 else None,
                    markersize=3,
                    label=f"{name}, {split}",
                )
        if lows and min(lows) > 0 and max(highs) > 30 * min(lows):
            axes.set_yscale("log")
        _tidy(axes)
        axes.set_xlabel("step")
        axes.set_ylabel("accuracy (%)" if metric == "accuracy" else metric)
        if place == 0 and lows:
            axes.legend(frameon=False, fontsize=8)
    return figure


def parameter_movement(
    initial: Tree,
    learned: Tree,
    specs: Tree,
    frequencies_hz: np.ndarray | None = None,
    most: int = 14,
) -> Figure:
    """Draws where training has taken the physical parameters.

    Single values are drawn as their change from the start, the largest first; leaves with a value
    per channel as curves, before and after.

    Args:
        initial: nested dict of physical values at the start.
        learned: the same after training.
        specs: the same tree of `physics.base.Parameter`.
        frequencies_hz: centre frequency of each channel, if known.
        most: how many single values to show.
    """
    before, after, about = _flat(initial), _flat(learned), _flat(specs)
    rows, curves = [], []
    for name, value in after.items():
        if value.size > 8:
            curves.append(name)
            continue
        for index in np.ndindex(value.shape):
            place = "" if value.size == 1 else str(list(index))
            old, new = before[name][index], value[index]
            base = abs(old) or about[name].high - about[name].low
            rows.append((100 * (new - old) / base, f"{name}{place}", old, new, about[name].unit))
    rows.sort(key=lambda row: abs(row[0]))
    hidden, rows = rows[:-most], rows[-most:]
    heights = [0.27 * len(rows) + 0.9] * bool(rows) + [2.0] * len(curves)
    figure = _figure(6.4, max(1.5, sum(heights)))
    grid = figure.add_gridspec(max(1, len(heights)), 1, height_ratios=heights or [1])
    if rows:
        _draw_changes(figure.add_subplot(grid[0]), rows, hidden)
    for place, name in enumerate(curves, start=bool(rows)):
        axes = figure.add_subplot(grid[place])
        _draw_curves(axes, name, before[name], after[name], about[name], frequencies_hz)
    return figure


def save(figure: Figure, path: str | Path, dpi: int = 200) -> Path:
    """Writes a figure as PNG, all of it or nothing; returns the path."""
    from hybrid.workdir import write_atomic

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    write_atomic(path, buffer.getvalue())
    return Path(path)


def pixels(figure: Figure, dpi: int = 100) -> np.ndarray:
    """Returns a figure as uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_changes(axes: Axes, rows: list[tuple], hidden: list[tuple]) -> None:
    changes = np.array([row[0] for row in rows])
    places = np.arange(len(rows))
    colours = [COLOURS[0] if change >= 0 else COLOURS[1] for change in changes]
    axes.axvline(0, color=_GREY, linewidth=0.8)
    axes.hlines(places, 0, changes, colors=colours, linewidth=2.2)
    axes.scatter(changes, places, c=colours, s=26, zorder=3)
    axes.set_yticks(places, [row[1] for row in rows], fontsize=8)
    reach = max(1e-9, np.abs(changes).max())
    axes.set_xlim(-1.15 * reach, 1.15 * reach)
    for place, (_, _, old, new, unit) in zip(places, rows, strict=True):
        text, beside = _quantities(old, new, unit), axes.get_yaxis_transform()
        axes.annotate(text, (1.01, place), xycoords=beside, va="center", fontsize=8)
    _tidy(axes)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    rest = f"; {len(hidden)} more moved less" if hidden else ""
    axes.set_xlabel(f"change from the start (%){rest}")


def _draw_curves(
    axes: Axes, name: str, old: np.ndarray, new: np.ndarray, about: Any, hertz: np.ndarray | None
) -> None:
    # A curve over the longest axis (channels) for each ear and fibre class.
    channel_axis = int(np.argmax(old.shape))
    length = old.shape[channel_axis]
    lines = [np.moveaxis(x, channel_axis, -1).reshape(-1, length) for x in (old, new)]
    places = np.arange(length, dtype=np.float64)
    if hertz is not None and np.shape(hertz)[-1] == length:
        places = np.asarray(hertz, np.float64).reshape(-1, length)[0]
        axes.set_xscale("log")
        inside = [f for f in _TICKS_HZ if places.min() <= f <= places.max()]
        axes.set_xticks(inside, [_hertz(f) for f in inside])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("centre frequency (Hz)")
    else:
        axes.set_xlabel("channel")
    for number, (start, end) in enumerate(zip(*lines, strict=True)):
        first = number == 0
        axes.plot(places, start, color=_GREY, ls="--", lw=1, label="start" if first else None)
        colour = COLOURS[number % len(COLOURS)]
        which = "" if len(lines[0]) == 1 else f" {number}"
        axes.plot(places, end, color=colour, lw=1.6, label=f"learned{which}")
    axes.set_ylabel(name if about.unit == "1" else f"{name} ({about.unit})", fontsize=8)
    _tidy(axes)
    above = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.1}
    axes.legend(frameon=False, fontsize=8, ncols=4, **above)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _cycle(names: Mapping[str, Any]) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(names))]


def _series(rows: Sequence[Mapping[str, Any]], split: str, metric: str) -> tuple[Any, Any]:
    chosen = [row for row in rows if row["split"] == split and metric in row]
    return (
        np.array([row["step"] for row in chosen]),
        np.array([row[metric] for row in chosen], np.float64),
    )


def _flat(tree: Tree, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        leaf = tree if hasattr(tree, "unit") else np.asarray(tree, np.float64)
        return {prefix.removesuffix("."): leaf}
    return {k: v for name, item in tree.items() for k, v in _flat(item, f"{prefix}{name}.").items()}


def _quantities(old: float, new: float, unit: str) -> str:
    if unit == "s" and max(abs(old), abs(new)) < 1:
        old, new, unit = 1000 * old, 1000 * new, "ms"
    return f"{old:.4g} → {new:.4g}" + ("" if unit == "1" else f" {unit}")


def _hertz(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
