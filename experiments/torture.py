"""Proves that a run loses nothing: kills, signals, damage, a full disk; then the bits are compared.

    python -m experiments.torture --out=runs/torture

Trains once without interruption, and once with one fault after the other, each time started again
with the same command. Parameters, optimizers, keys, data positions, rows of `metrics.jsonl` and of
TensorBoard must be the same bits in both (but for what reads a clock), or the exit code is 1.
Prints a table of faults and what became of them, and writes it to `torture.md`.
"""

import collections
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags, logging

from experiments.launch import run
from experiments.torture_compare import differences
from experiments.torture_faults import Outcome, Victim
from experiments.torture_process import RunEndedError

PHYSICS = {
    "front": {"target": "physics.spectra:Mel", "n_mels": 16},
    "stages": [{"target": "physics.compressors:PowerLaw"}],
}
# Cheap to compile, yet with all that can go wrong: workers, augmentation, dropout, batch
# statistics, two optimizers with moments, a branch that starts late and rests every other step.
COMMAND = (
    "--config=tones",
    "--config.batch_size=8",
    "--config.log_every_steps=10",
    "--config.eval_every_steps=100",
    "--config.checkpoint_every_steps=50",
    "--config.checkpoint_best_metric=loss",
    "--config.physics.target=physics.compose:Compose",
    "--physics_kwargs=" + json.dumps(PHYSICS),
    "--config.learner.target=learners:MLP",
    '--learner_kwargs={"widths": [32]}',
    "--config.physics_optimizer.start_step=30",
    "--config.physics_optimizer.every=2",
)
OTHERS = (
    "kill_while_saving",
    "kill_while_evaluating",
    "terminate",
    "terminate_group",
    "interrupt",
    "terminate_twice",
    "truncate",
    "flip",
    "remove",
    "fill_disk",
    "start_second",
    "kill_worker",
)
"""Faults beside the kills at random moments; methods of `Victim`."""


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("out", "runs/torture", "Directory for both runs and the table.")
    flags.DEFINE_integer("kills", 30, "SIGKILLs at random moments.", lower_bound=0)
    flags.DEFINE_integer("each", 1, "How often each of the other faults comes.", lower_bound=0)
    flags.DEFINE_integer("steps", 2500, "Length of the run.", lower_bound=100)
    flags.DEFINE_integer("seed", 0, "Decides the moments and the order of the faults.")


def main(argv: Sequence[str]) -> None:
    """Runs both, compares, and prints the table."""
    if len(argv) > 1:
        raise ValueError(f"torture takes flags only, got {' '.join(argv[1:])}: see --help")
    for number in (signal.SIGINT, signal.SIGTERM):
        # What was started must not be left behind.
        signal.signal(number, signal.default_int_handler)
    logging.set_verbosity(logging.WARNING)  # TensorBoard tells of every file that it reads
    values, begin = flags.FLAGS, time.monotonic()
    out, rng = Path(values.out), random.Random(values.seed)
    for name in ("whole", "tortured"):
        shutil.rmtree(out / name, ignore_errors=True)
    command = [sys.executable, "-m", "experiments.train", *COMMAND]
    command.append(f"--config.num_steps={values.steps}")
    whole, victim = (
        Victim([*command, f"--workdir={out / name}"], out / name, rng)
        for name in ("whole", "tortured")
    )
    faults = schedule(values.kills, values.each, rng)
    try:
        whole.finish()
        # So that the last fault still finds a run that is under way.
        victim.startup_s, victim.window_s = whole.startup_s, whole.training_s / (len(faults) + 1)
        outcomes = torture(victim, faults)
    finally:
        whole.end()
        victim.end()
    found = differences(out / "whole", out / "tortured")
    minutes = (time.monotonic() - begin) / 60
    text = report(outcomes, len(faults), found, values.steps, minutes)
    print(text)
    (out / "torture.md").write_text(text, encoding="utf-8")
    complete = len(outcomes) == len(faults)
    if found or not complete or not all(outcome.expected for outcome in outcomes):
        sys.exit(1)


def torture(victim: Victim, faults: Sequence[str]) -> list[Outcome]:
    """Lets one fault come after the other, and the run then come to its end.

    Args:
        victim: the run.
        faults: names of its methods.

    Returns:
        What became of each; fewer if the run ended before all of them had come.
    """
    outcomes = []
    try:
        for name in faults:
            outcomes += [outcome := getattr(victim, name)()]
            print(f"{outcome.fault}: {outcome.result}", file=sys.stderr, flush=True)
    except RunEndedError:
        print("the run came to its end before all faults: give it more --steps", file=sys.stderr)
    else:
        victim.finish()
    return outcomes


def schedule(kills: int, each: int, rng: random.Random) -> list[str]:
    """Returns the faults in a random order."""
    faults = ["kill"] * kills + [name for name in OTHERS for _ in range(each)]
    rng.shuffle(faults)
    return faults


def report(
    outcomes: Sequence[Outcome],
    planned: int,
    found: Sequence[str],
    steps: int,
    minutes: float | int,
) -> str:
    """Returns the table in Markdown, and whether the runs ended with the same bits."""
    groups: Mapping[tuple[str, str], list[str]] = collections.defaultdict(list)
    for outcome in outcomes:
        groups[outcome.fault, outcome.how].append(outcome.result)
    lines = ["| fault | how it is injected | times | what happened |", "|---|---|---|---|"]
    for (fault, how), results in groups.items():
        counts = collections.Counter(results)
        told = "; ".join(f"{result} ({count})" for result, count in counts.items())
        lines.append(f"| {fault} | {how} | {len(results)} | {told} |")
    unexpected = sum(not outcome.expected for outcome in outcomes)
    count = f"{len(outcomes)} of {planned} faults in a run of {steps} steps, {unexpected} of them"
    lines += ["", f"{count} with another outcome than promised; {minutes:.1f} minutes in all."]
    if found:
        lines += ["The interrupted run differs from the one that was not:", ""]
        lines += [f"- {line}" for line in found]
    else:
        lines.append("Both runs ended with the same bits, and the same rows, each once.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    define_flags()
    run(main)
