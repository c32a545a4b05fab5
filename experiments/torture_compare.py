"""Compares two work directories bit for bit: arrays, positions, rows, TensorBoard."""

import collections
import json
from pathlib import Path
from typing import Any


def differences(one: str | Path, two: str | Path) -> list[str]:
    """Returns a line for each thing in which two runs differ, but for what reads a clock.

    Compared are the newest checkpoints (every leaf, the data position, what the loop remembers),
    the rows of `metrics.jsonl`, and all that TensorBoard's EventAccumulator finds. A row that comes
    twice, or is in one of the two logs only, is a difference too.

    Args:
        one: a work directory.
        two: the other one.
    """
    found = _different_checkpoints(Path(one), Path(two))
    rows, logged = zip(*map(_logs, (Path(one), Path(two))), strict=True)
    found += [f"metrics.jsonl: {line}" for line in _unequal(*map(collections.Counter, rows))]
    found += [f"TensorBoard: {line}" for line in _unequal(*logged)]
    if not found and rows[0] != rows[1]:
        found.append("metrics.jsonl: the rows come in another order")
    for workdir in map(Path, (one, two)):
        found += [f"{workdir}: {line}" for line in _inconsistent(workdir)]
    return found


def _different_checkpoints(one: Path, two: Path) -> list[str]:
    from hybrid.checkpoints import Checkpoints

    runs = []
    for workdir in (one, two):
        checkpoints = Checkpoints(workdir / "checkpoints")
        step, leaves = checkpoints.read_leaves()
        path = checkpoints.directory / f"step_{step:09d}" / "extras.json"
        extras = json.loads(path.read_text(encoding="utf-8"))
        checkpoints.close()
        run = {"step": step, **{f"extras {name}": extras[name] for name in ("position", "book")}}
        for name, (array, description) in leaves.items():
            run[name] = (description, None if array is None else array.tobytes())
        runs.append(run)
    return [f"checkpoint: {name}" for name in runs[0] | runs[1] if not _same(name, *runs)]


def _same(name: str, one: dict[str, Any], two: dict[str, Any]) -> bool:
    # As text, for a NaN does not equal itself.
    return name in one and name in two and repr(one[name]) == repr(two[name])


def _logs(workdir: Path) -> tuple[list[str], dict[str, str]]:
    """Returns rows and tags, each as text."""
    from hybrid.writers import read_rows, without_clock

    rows = [json.dumps(without_clock(row), sort_keys=True) for row in read_rows(workdir)]
    return rows, {tag: repr(events) for tag, events in tensorboard_events(workdir).items()}


def _unequal(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    return [
        f"{name[:200]} ({str(one.get(name))[:100]} | {str(two.get(name))[:100]})"
        for name in {**one, **two}
        if one.get(name) != two.get(name)
    ]


def tensorboard_events(workdir: str | Path) -> dict[str, list[tuple[int, Any]]]:
    """Returns `{tag: [(step, value), ...]}` as TensorBoard reads them, but for clocks.

    Args:
        workdir: of a run.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from hybrid.writers import without_clock

    everything = {"scalars": 0, "images": 0, "audio": 0, "tensors": 0}
    accumulator = EventAccumulator(str(Path(workdir) / "tensorboard"), everything)
    accumulator.Reload()
    tags = accumulator.Tags()
    events: dict[str, list[tuple[int, Any]]] = {}
    for tag in tags["scalars"]:
        if without_clock({tag.partition("/")[2]: None}):
            events[tag] = [(event.step, event.value) for event in accumulator.Scalars(tag)]
    for tag in tags["images"]:
        events[tag] = [(e.step, e.encoded_image_string) for e in accumulator.Images(tag)]
    for tag in tags["audio"]:
        events[tag] = [(e.step, e.encoded_audio_string) for e in accumulator.Audio(tag)]
    for tag in tags["tensors"]:
        events[tag] = [(e.step, list(e.tensor_proto.string_val)) for e in accumulator.Tensors(tag)]
    return events


def _inconsistent(workdir: Path) -> list[str]:
    """Says which rows come twice, and where the two logs do not hold the same rows."""
    from hybrid.writers import read_rows

    rows, events = read_rows(workdir), tensorboard_events(workdir)
    counts = collections.Counter((row["step"], row["split"]) for row in rows)
    found = [f"{n} rows of step {step}, {name}" for (step, name), n in counts.items() if n > 1]
    for tag in events:
        steps = [step for step, _ in events[tag]]
        if len(set(steps)) != len(steps):
            found.append(f"TensorBoard has {tag} twice at a step")
        split, _, name = tag.partition("/")
        rows_of_tag = [row["step"] for row in rows if row["split"] == split and name in row]
        if rows_of_tag and rows_of_tag != steps:
            found.append(f"TensorBoard has {tag} at other steps than metrics.jsonl")
    return found
