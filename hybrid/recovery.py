"""What becomes of a run whose step was not finite: it stops, leaves the step out, or goes back."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from data.source import holds_items
from hybrid import nonfinite
from hybrid.bookkeeping import Bookkeeping
from hybrid.build import Experiment
from hybrid.checkpoints import CheckpointDamaged, Checkpoints
from hybrid.state import HybridState
from hybrid.watch import NonFiniteError

_WAY_OUT = (
    "The parameters are those from before this step. Look at the clips named above, lower the "
    "learning rate or clip_norm, or go on without the step: config.nonfinite.policy='skip' or "
    "'roll_back'."
)


def examine(
    error: NonFiniteError,
    experiment: Experiment,
    state: HybridState,
    updates: tuple[bool, bool],
    book: Bookkeeping,
    workdir: Path,
) -> None:
    """Counts a step that was not finite, says where that began, and saves its batch.

    Args:
        error: what `StepWatch` raised.
        experiment: the run's.
        state: from after the step, which has changed nothing but the count of steps.
        updates: whether physics and learner were to be updated in it.
        book: where it is counted.
        workdir: of the run.

    Raises:
        NonFiniteError: the run is to stop, by its policy or because there were too many.
    """
    settings = experiment.config.nonfinite
    book.nonfinite_steps += 1
    count, stops = book.nonfinite_steps, settings.policy == "stop"
    text, faults = str(error), error.faults
    if (stops or count <= settings.keep) and faults is not None:
        step = jax.device_put(jnp.asarray(error.step, state.step.dtype), state.step.sharding)
        before = dataclasses.replace(state, step=step)
        names = clip_names(experiment, error.batch)
        found = nonfinite.find(experiment, before, error.batch, updates, faults, names)
        folder = nonfinite.save(workdir, experiment, before, error.batch, found)
        text = (
            f"{found.text}\n  to see it again: python -m experiments.replay "
            f"{shlex.quote(str(folder))}"
        )
    if stops:
        raise NonFiniteError(f"{text}\n{_WAY_OUT}")
    if count > settings.limit:
        raise NonFiniteError(
            f"{text}\nconfig.nonfinite.limit={settings.limit} such steps may be left out of a run; "
            f"this is one more. {_WAY_OUT}"
        )
    logging.warning("%s\nconfig.nonfinite.policy: %s (%d so far)", text, settings.policy, count)


def last_due(
    checkpoints: Checkpoints, like: HybridState, every: int, step: int
) -> tuple[HybridState, dict[str, Any]] | None:
    """Returns the newest checkpoint up to `step` that was due; None if there is none.

    Those that a signal or a bad file brought about do not count, so that a run that was ended and
    resumed goes back as far as one that was not.

    Args:
        checkpoints: of the run.
        like: a state of the same leaves.
        every: steps between those that are due.
        step: where the run is.
    """
    for found in sorted(due_steps(checkpoints.steps(), every, step), reverse=True):
        try:
            return checkpoints.restore(like, found)
        except CheckpointDamaged as error:
            logging.warning("%s", error)
    return None


def kept_to_go_back(checkpoints: Checkpoints, every: int, step: int) -> list[int]:
    """Returns what a run may go back to from `step`: the newest due, and the best that it knew."""
    found = due_steps([*checkpoints.steps(), step], every, step)[-1:]
    best = None
    if found and found != [step]:
        # A damaged one protects nothing; `last_due` will find that out.
        with contextlib.suppress(OSError, ValueError, KeyError):
            best = checkpoints.extras(found[0])["book"]["best"]
    return found + ([best["step"]] if best else [])


def due_steps(steps: Iterable[int], every: int, step: int) -> list[int]:
    """Returns those of `steps` up to `step` whose checkpoint was due: every so many, and 0."""
    return [n for n in steps if n <= step and (n == 0 or (every and n % every == 0))]


def clip_names(experiment: Experiment, batch: dict[str, Any]) -> list[str | None] | None:
    """Returns what the rows of a training batch are called, where the data set knows."""
    dataset = experiment.source.dataset("train")
    if not (holds_items(dataset) and hasattr(dataset, "name")):
        return None
    ids = np.asarray(batch["ids"]).tolist()
    return [dataset.name(index) if 0 <= index < len(dataset) else None for index in ids]
