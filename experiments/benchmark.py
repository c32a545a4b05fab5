"""Times CAR-FAC, ours and google's, forward and gradient, in one run: tables and a plot.

    python -m experiments.benchmark --out=runs/benchmark [--carfac_path=CHECKOUT] [--quick]

Contestants take turns: in each round everyone runs once (those that take long, in every third
round), so that what else the machine does hits all alike. The fast run just before without being
timed: fetching the memory that another contestant gave back is not their work. Medians are over the
rounds, ratios are medians over the rounds that both ran. Writes `benchmark.md`, `benchmark.json`,
`benchmark.png`.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import benchmark_google as google
from experiments import benchmark_models as models
from experiments import benchmark_report as report
from experiments.benchmark_train import measure_training
from experiments.launch import run as launch

CLIPS = (1, 16, 64)
SLOW_S = 0.5
SHORT_S = 0.1


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("out", "runs/benchmark", "Directory for the results.")
    flags.DEFINE_string("carfac_path", None, "A checkout of google/carfac to compare with.")
    flags.DEFINE_string("eigen_path", "/usr/include/eigen3", "Eigen, for google's C++ model.")
    flags.DEFINE_integer("rounds", 9, "Timed runs of each contestant.", lower_bound=1)
    flags.DEFINE_float("seconds", 1.0, "Length of the clips.", lower_bound=0.02)
    flags.DEFINE_bool("quick", False, "Only both kernels, 1 and 16 clips; no sweeps, no plot.")
    flags.DEFINE_bool("train", True, "Time the training step of the config `keywords` too.")
    flags.DEFINE_string("train_root", None, "Folder of Speech Commands; default: noise is written.")
    flags.DEFINE_integer("train_steps", 20, "Timed training steps.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    if len(argv) > 1:
        raise ValueError(f"benchmark takes flags only, got {' '.join(argv[1:])}: see --help")
    values = flags.FLAGS
    if values.carfac_path is not None:
        google.check_checkout(Path(values.carfac_path))
    out = Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    begin, load_before = time.perf_counter(), os.getloadavg()[0]
    contestants, memory = [], []
    for contestant, megabytes in field(values):
        contestants.append(contestant)
        memory.append(megabytes)
    results = report.summarise(contestants, race(contestants, values.rounds), memory)
    scaling = {} if values.quick else measure_scaling(values.rounds, min(0.5, values.seconds))
    training = measure_training(values.train_root, values.train_steps) if values.train else None
    everything = {
        "results": results,
        "largest_difference_from_numpy_reference": compare(contestants),
        "scaling": scaling,
        "training": training,
        "machine": report.describe_machine(load_before),
        "took_s": time.perf_counter() - begin,
    }
    (out / "benchmark.json").write_text(json.dumps(everything, indent=1))
    text = report.document(everything)
    (out / "benchmark.md").write_text(text)
    if scaling:
        report.plot(scaling, out / "benchmark.png")
    print(text)
    print(f"written to {out}")


def field(values: Any) -> Iterable[tuple[models.Contestant, float | None]]:
    """All contestants, warm, with MB of memory; those that cannot take part say why."""
    seconds = values.seconds
    for mode in report.MODES:
        for clips in CLIPS[:2] if values.quick else CLIPS:
            yield from attempt(models.ours, "native", mode, clips, seconds)
            # A second takes the scan as long as the next: of many clips a part is enough.
            yield from attempt(models.ours, "xla", mode, clips, seconds / (4 if clips > 16 else 1))
    if values.quick:
        return
    yield from attempt(models.yardstick, min(seconds, SHORT_S))
    yield from attempt(models.uncompiled, min(seconds, SHORT_S / 50))
    if values.carfac_path is None:
        return
    checkout = Path(values.carfac_path)
    yield from attempt(google.google_numpy, checkout, min(seconds, SHORT_S))
    for clips in CLIPS:
        yield from attempt(google.google_cpp, checkout, Path(values.eigen_path), clips, seconds)
    for mode in ("forward", "gradient"):
        for clips in CLIPS:
            length = seconds / (10 if clips > 16 else 1)
            yield from attempt(google.google_jax, checkout, mode, clips, length)


def attempt(
    make: Callable[..., models.Contestant], *arguments: Any
) -> Iterable[tuple[models.Contestant, float | None]]:
    """A contestant after a run that does not count; or a line that says why there is none."""
    try:
        contestant = make(*arguments)
        if contestant.compile_s is None:
            contestant.call()  # what it keeps for all later runs is not counted
        megabytes = memory_growth_mb(contestant.call)
    except subprocess.CalledProcessError as error:
        print(f"left out: {make.__name__}: {error.stderr}", file=sys.stderr)
    except (RuntimeError, OSError, ImportError) as error:
        print(f"left out: {make.__name__}: {error}", file=sys.stderr)
    else:
        print(f"ready: {contestant.name}, {contestant.mode}, {contestant.clips}", file=sys.stderr)
        yield contestant, megabytes


def memory_growth_mb(call: Callable[[], Any]) -> float | None:
    """How far a call raises the peak of this process above what it held before, in MB.

    What the process had kept of memory that it freed is given back first. None where the system
    does not tell, or the work is done by another process, which says what time it took.
    """

    def status(key: str) -> float:
        found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return float(found.group(1)) * 1024e-6 if found else float("nan")

    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
    except (OSError, AttributeError):
        call()
        return None
    before = status("VmRSS")
    elsewhere = call() is not None
    return None if elsewhere else max(0.0, status("VmHWM") - before)


def race(contestants: list[models.Contestant], rounds: int) -> list[dict[int, float]]:
    """Seconds of each contestant by round."""
    times: list[dict[int, float]] = [{} for _ in contestants]
    for number in range(rounds):
        for contestant, mine in zip(contestants, times, strict=True):
            if number % 3 and mine[0] > SLOW_S:
                continue
            # What another contestant gave back to the system has to be fetched anew, page by page.
            if number and mine[0] <= SLOW_S:
                contestant.call()
            start = time.perf_counter()
            took = contestant.call()
            mine[number] = time.perf_counter() - start if took is None else took
    return times


def compare(contestants: list[models.Contestant]) -> dict[str, float]:
    """Largest difference of each activity from that of the NumPy reference, of its largest."""
    given = {c.name: c.nap() for c in contestants if c.nap and c.mode == "forward" and c.clips == 1}
    expected = given.pop(models.YARDSTICK, None)
    if expected is None:
        return {}
    differences = {}
    for name, nap in given.items():
        size = min(len(nap), len(expected))
        error = np.max(np.abs(nap[:size] - expected[:size]))
        differences[name] = float(error / np.max(np.abs(expected[:size])))
    return differences


def measure_scaling(rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Seconds of the native kernel against clips, channels and seconds of audio.

    Args:
        rounds: timed runs of each point.
        seconds: of audio, where that is not what varies.
    """
    steps: list[Mapping[str, float]] = [{"car.erb_per_step": s} for s in (2.0, 1.0, 0.5, 0.25)]
    sweeps: dict[str, list[tuple[float, tuple[Any, ...]]]] = {
        "clips": [(n, (n, seconds)) for n in (1, 2, 4, 8, 16, 32, 64)],
        "channels": [(models.channels(step), (16, seconds, step)) for step in steps],
        "seconds": [(s * seconds, (16, s * seconds)) for s in (0.5, 1, 2, 4, 8)],
    }
    scaling: dict[str, dict[str, list[float]]] = {}
    for axis, points in sweeps.items():
        scaling[axis] = {"at": [x for x, _ in points]}
        for mode in ("forward", "frames"):
            runs = [
                contestant
                for _, (clips, length, *initial) in points
                for contestant, _ in attempt(models.ours, "native", mode, clips, length, *initial)
            ]
            if len(runs) < len(points):
                return {}
            times = race(runs, rounds)
            scaling[axis][mode] = [float(np.median(list(t.values()))) for t in times]
    return scaling


def app() -> None:
    """Runs from the command line."""
    define_flags()
    launch(main)


if __name__ == "__main__":
    app()
