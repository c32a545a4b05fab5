"""Exists to turn the benchmark's times into tables, a plot, and a description of the machine."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import benchmark_google as google
from experiments import markdown
from experiments.benchmark_models import Contestant

MODES = {
    "forward": "Forward, full activity",
    "gradient": "Gradient for audio and all coefficients, loss on full activity",
    "frames": "Gradient for audio and all coefficients, loss on frames of 10 ms",
}
PEERS = {google.JAX: "google JAX", google.CPP: "google C++", google.NUMPY: "google NumPy"}


def summarise(
    contestants: Sequence[Contestant],
    times: Sequence[Mapping[int, float]],
    memory: Sequence[float | None],
) -> list[dict[str, Any]]:
    """One entry of figures for each contestant; see `document` for what they mean."""
    per_second = [
        {number: 1e3 * took / (c.clips * c.seconds) for number, took in mine.items()}
        for c, mine in zip(contestants, times, strict=True)
    ]
    entries = []
    for c, mine, megabytes in zip(contestants, per_second, memory, strict=True):
        # google's has no frames: their gradient is compared with its gradient of everything.
        task = ("gradient" if c.mode == "frames" else c.mode, c.clips)
        ratios = {
            peer.name: statistics.median(theirs[r] / mine[r] for r in mine.keys() & theirs.keys())
            for peer, theirs in zip(contestants, per_second, strict=True)
            if peer.name in PEERS and (peer.mode, peer.clips) == task
        }
        entries.append(
            {
                "name": c.name,
                "mode": c.mode,
                "clips": c.clips,
                "seconds": c.seconds,
                "rounds": len(mine),
                "ms_per_second": statistics.median(mine.values()),
                "fastest_ms_per_second": min(mine.values()),
                "ratio": ratios,
                "compile_s": c.compile_s,
                "memory_mb": megabytes,
            }
        )
    return entries


def document(everything: Mapping[str, Any]) -> str:
    """Everything as Markdown."""
    results = everything["results"]
    parts = ["# CAR-FAC: time and memory", everything["machine"]]
    parts.append(
        "22.05 kHz, 71 channels, two-cap hair cells, float32, the same noise for all. ms: machine "
        "time per second of audio of one clip, median (fastest) of the runs. Ratios: how many "
        "times as long google/carfac takes for as many clips, median over the rounds that both "
        "ran. Compile: tracing and compiling. Memory: how far the first run raises the peak of "
        "the process."
    )
    for mode, title in MODES.items():
        rows = [entry for entry in results if entry["mode"] == mode]
        parts += [f"## {title}", table(sorted(rows, key=lambda entry: entry["clips"]))]
    if any(entry["name"] in PEERS for entry in results):
        parts.append("Gradients of a loss on frames are compared with google's on full activity.")
    differences = everything["largest_difference_from_numpy_reference"]
    if differences:
        listed = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        parts.append(
            "Largest difference of the activity from that of the NumPy reference, of its maximum: "
            f"{listed}."
        )
    if everything["scaling"]:
        parts += ["## Growth", growth(everything["scaling"])]
    if everything["training"]:
        parts += ["## Training", training_line(everything["training"])]
    return "\n\n".join(parts) + f"\n\nThe benchmark took {everything['took_s']:.0f} s.\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Entries of one mode as a Markdown table; columns that nobody fills are left out."""
    peers = [name for name in PEERS if any(name in row["ratio"] for row in rows)]
    head = ["clips", "", "clip, runs", "ms", *(f"{PEERS[name]} / this" for name in peers)]
    head += ["compile, s", "memory, MB"]
    lines = []
    for row in rows:
        ratios = [row["ratio"].get(name) for name in peers]
        cells = [
            str(row["clips"]),
            row["name"],
            f"{row['seconds']:g} s, {row['rounds']}",
            f"{row['ms_per_second']:.3g} ({row['fastest_ms_per_second']:.3g})",
            *("" if ratio is None else f"{ratio:.3g}" for ratio in ratios),
            "" if row["compile_s"] is None else f"{row['compile_s']:.1f}",
            "" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}",
        ]
        lines.append(cells)
    return markdown.table(head, lines)


def exponents(scaling: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[str, float]]:
    """By axis and mode, the p of time ~ x ** p, fitted to the upper half of a sweep."""
    import numpy as np

    fitted = {}
    for axis, sweep in scaling.items():
        half = len(sweep["at"]) // 2
        fitted[axis] = {
            mode: float(np.polyfit(np.log(sweep["at"][half:]), np.log(times[half:]), 1)[0])
            for mode, times in sweep.items()
            if mode != "at"
        }
    return fitted


def growth(scaling: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """How time grows along each sweep, in words."""
    lines = ["| time of the native kernel ~ x ** p | forward | gradient, frames |", "|---|---|---|"]
    for axis, fitted in exponents(scaling).items():
        at = scaling[axis]["at"]
        lines.append(
            f"| {axis}, {at[len(at) // 2]:g} to {at[-1]:g} "
            f"| p = {fitted['forward']:.2f} | p = {fitted['frames']:.2f} |"
        )
    return "\n".join(lines) + "\n\n![Time against clips, channels and seconds](benchmark.png)"


def training_line(training: Mapping[str, Any]) -> str:
    """The training step in words."""
    return (
        f"Config `keywords`, {training['sample_rate_hz']:g} Hz, batches of "
        f"{training['batch_size']:g}, ear and network updated: {training['clips_per_s']:.0f} "
        f"clips/s, data included ({training['step_clips_per_s']:.0f} clips/s the step alone); "
        f"compiled in {training['compile_s']:.1f} s."
    )


def plot(scaling: Mapping[str, Mapping[str, Sequence[float]]], path: Path) -> None:
    """Draws the sweeps, with a line of proportional growth through the largest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subplots(1, len(scaling))
    fitted = exponents(scaling)
    for axes, (name, sweep) in zip(panels, scaling.items(), strict=True):
        x = sweep["at"]
        for mode, word in (("forward", "forward"), ("frames", "gradient")):
            label = f"{word}, ~ x^{fitted[name][mode]:.2f}"
            (line,) = axes.loglog(x, sweep[mode], "o-", label=label)
            proportional = [sweep[mode][-1] * v / x[-1] for v in x]
            axes.loglog(x, proportional, ":", color=line.get_color())
        axes.set_xlabel({"seconds": "seconds of audio, 16 clips"}.get(name, name))
        axes.set_xticks(x, [f"{v:.3g}" for v in x])
        axes.minorticks_off()
        axes.legend(title="dotted: proportional")
    panels[0].set_ylabel("seconds of machine time")
    figure.savefig(path, dpi=120)


def describe_machine(load_before: float) -> str:
    """What the numbers were measured on."""
    import jax

    from physics.carfac import native

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text())
        model = found.group(1) if found else model
    reason = native.reason_unavailable()
    # They decide whether memory that is freed comes back from the system page by page.
    allocator = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")]
    return (
        f"{model}, {os.cpu_count()} processors, load {load_before:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after; Python {platform.python_version()}, JAX "
        f"{jax.__version__}; native kernel: {reason or 'yes'}"
        f"{'; ' if allocator else ''}{' '.join(allocator)}."
    )
