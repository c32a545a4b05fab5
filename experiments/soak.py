"""Shows that hours of training cost no more memory, file handles and threads than minutes do.

    python -m experiments.soak --config=tones --workdir=runs/soak --hours=2

Trains in a process of its own, looks at it and at its workers every few seconds, and writes
`soak.csv` and `soak.md` beside the run. Ends with an error if memory moves by more than `--limit`
after the first `--settle_minutes`, or if there are never as few handles or threads in the second
half of what follows as there were in the first. Needs Linux's /proc.
"""

import csv
import dataclasses
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence

from absl import flags

from experiments.launch import run

PROC = pathlib.Path("/proc")
_GRACE_S = 120.0
_WINDOW_S = 120.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a process and its children hold at one moment.

    Attributes:
        seconds: since the start.
        memory_mb: proportional set size, shared pages counted once, 1e6 bytes. Without the pages
            of files: how many of these stay in memory is the system's choice.
        handles: open files, sockets and pipes.
        threads: of all of them.
        processes: how many they are.
    """

    seconds: float
    memory_mb: float
    handles: int
    threads: int
    processes: int


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("config", "tones", "Name or file of a config, for experiments.train.")
    flags.DEFINE_string("workdir", None, "Where the run and the report go; must be new.")
    flags.DEFINE_float("hours", 2.0, "How long to train.", lower_bound=0.0)
    flags.DEFINE_float("settle_minutes", 10.0, "What comes before is not judged.", lower_bound=0.0)
    flags.DEFINE_float("every_s", 10.0, "Seconds between two looks.", lower_bound=0.1)
    flags.DEFINE_float("limit", 0.02, "Share by which memory may move.", lower_bound=0.0)
    flags.mark_flags_as_required(["workdir"])


def tree(pid: int) -> list[int]:
    """A process and all its descendants that are alive."""
    found = [pid]
    for parent in found:
        try:
            for task in (PROC / str(parent) / "task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it ended meanwhile
            continue
    return found


def look(pid: int, seconds: float) -> Sample:
    """Measures a process and its descendants."""
    memory_kb = handles = threads = processes = 0
    for each in tree(pid):
        folder = PROC / str(each)
        try:
            rollup = (folder / "smaps_rollup").read_text()
            status = (folder / "status").read_text()
            opened = len(list((folder / "fd").iterdir()))
        except OSError:
            continue
        memory_kb += _field(rollup, "Pss_Anon:") + _field(rollup, "Pss_Shmem:")
        threads += _field(status, "Threads:")
        handles += opened
        processes += 1
    return Sample(seconds, memory_kb * 1024e-6, handles, threads, processes)


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    return 0


def windows(samples: Iterable[Sample], width_s: float) -> list[Sample]:
    """Medians over stretches of `width_s`: saving and evaluating cost memory for a moment."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(int(sample.seconds // width_s), []).append(sample)
    names = [field.name for field in dataclasses.fields(Sample)]
    return [
        Sample(*(statistics.median(getattr(s, name) for s in group) for name in names))
        for _, group in sorted(groups.items())
    ]


def judge(samples: Sequence[Sample], settle_s: float, limit: float) -> tuple[str, list[str]]:
    """A table in Markdown, and what is wrong.

    Args:
        samples: in order.
        settle_s: what comes before is shown but not judged.
        limit: share of the first judged window by which memory of a later one may differ.

    Raises:
        ValueError: no sample after `settle_s`.
    """
    settled = windows([s for s in samples if s.seconds >= settle_s], _WINDOW_S)
    if not settled:
        raise ValueError(
            f"a soak is judged after its first {settle_s:g} s; it lasted "
            f"{samples[-1].seconds if samples else 0:g} s; give more --hours"
        )
    first, everything = settled[0], windows(samples, _WINDOW_S)
    shown = everything[:: max(1, len(everything) // 8)]
    lines = [
        "| minutes | memory, MB | handles | threads | processes |",
        "|---|---|---|---|---|",
        *(
            f"| {s.seconds / 60:.0f} | {s.memory_mb:.0f} | {s.handles:.0f} | {s.threads:.0f} "
            f"| {s.processes:.0f} |"
            for s in [*shown, everything[-1]]
        ),
    ]
    moved = max((s.memory_mb / first.memory_mb - 1 for s in settled), key=abs)
    lines.append(f"\nAfter {settle_s / 60:g} minutes memory moved by at most {100 * moved:+.2f} %.")
    wrong = []
    if abs(moved) > limit:
        wrong.append(f"memory moved by {100 * moved:+.2f} %, more than {100 * limit:g} %")
    # Files, and the workers of an evaluation, come and go: what leaks is there when they are not.
    judged = [s for s in samples if s.seconds >= settle_s]
    half = (len(judged) + 1) // 2
    for name in ("handles", "threads", "processes"):
        begin, end = (
            min((getattr(s, name) for s in part), default=0)
            for part in (judged[:half], judged[half:])
        )
        if end > begin:
            wrong.append(f"the fewest {name} grew from {begin:.0f} to {end:.0f}")
    return "\n".join(lines) + "\n", wrong


def soak(workdir: pathlib.Path, config: str, duration_s: float, every_s: float) -> list[Sample]:
    """Trains for a while and returns what was seen; also written to `soak.csv` as it is seen.

    Raises:
        RuntimeError: the run ended by itself.
    """
    workdir.mkdir(parents=True)
    command = [sys.executable, "-m", "experiments.train", f"--config={config}"]
    command += [f"--workdir={workdir / 'run'}", "--config.num_steps=1000000000"]
    samples: list[Sample] = []
    with (
        (workdir / "soak.csv").open("w", newline="") as table,
        (workdir / "train.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        rows = csv.writer(table)
        rows.writerow(field.name for field in dataclasses.fields(Sample))
        begin = time.monotonic()
        try:
            while (seconds := time.monotonic() - begin) < duration_s:
                if process.poll() is not None:
                    raise RuntimeError(
                        f"the run must outlast the soak; it ended after {seconds:.0f} s with code "
                        f"{process.returncode}: see {workdir / 'train.log'}"
                    )
                samples.append(look(process.pid, seconds))
                rows.writerow(dataclasses.astuple(samples[-1]))
                table.flush()
                time.sleep(every_s)
        finally:
            _end(process)
    return samples


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()


def main(argv: Sequence[str]) -> None:
    """Trains, watches, reports."""
    if len(argv) > 1:
        raise ValueError(f"soak takes flags only, got {' '.join(argv[1:])}: see --help")
    from hybrid.workdir import write_atomic
    from hybrid.writers import read_rows

    values = flags.FLAGS
    workdir = pathlib.Path(values.workdir)
    if workdir.exists():
        raise ValueError(f"--workdir must be new, {workdir} exists: give another")
    load_before = os.getloadavg()[0]
    samples = soak(workdir, values.config, 3600 * values.hours, values.every_s)
    text, wrong = judge(samples, 60 * values.settle_minutes, values.limit)
    trained = [row for row in read_rows(workdir / "run") if row["split"] == "train"]
    text = (
        f"{values.config}, {samples[-1].seconds / 3600:.2f} hours, "
        f"{trained[-1]['step'] if trained else 0} steps, load before {load_before:.1f}\n\n{text}"
    )
    write_atomic(workdir / "soak.md", text)
    print(text)
    if wrong:
        sys.exit("error: " + "; ".join(wrong))


if __name__ == "__main__":
    define_flags()
    run(main)
