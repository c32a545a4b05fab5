"""Starts a run with leaves of another one: a network on a trained ear, or the reverse."""

import re
from pathlib import Path
from typing import Any

import jax
from absl import logging

from hybrid.build import Experiment
from hybrid.checkpoints import Checkpoints
from hybrid.leaves import decode, describe, show, unique_leaves
from hybrid.manifest import CheckpointMismatch
from hybrid.optimizers import BranchOptimizer
from hybrid.state import Branch, HybridState
from hybrid.workdir import WorkdirError, differences, read_config

# Counts and moments belong to the steps of the run that made them; optimizers start anew.
_CANDIDATES = ("physics.params.", "learner.params.", "collections.")


def transfer(
    experiment: Experiment,
    state: HybridState,
    optimizers: tuple[BranchOptimizer, BranchOptimizer],
) -> tuple[HybridState, dict[str, Any]]:
    """Puts leaves of the run `config.init_from`, as `config.init_leaves` matches, into a state.

    The newest intact checkpoint of that run is read; none of its code is. Both optimizers start
    from the new parameters, which are also what weight decay of the physics pulls to.

    Args:
        experiment: whose config names the other run and the pattern; it must match the whole name
            of a leaf: `physics.params.*`, `learner.params.*` or `collections.*`.
        state: of the experiment, at step 0.
        optimizers: of its branches, physics first.

    Returns:
        The state, and what was taken: `from`, `step`, `pattern` and `leaves`.

    Raises:
        ValueError: the pattern matches no leaf.
        CheckpointMismatch: a leaf that it matches is in one of the two runs only, or has another
            shape or dtype; all are named, and nothing is taken.
        CheckpointError: there is no intact checkpoint.
    """
    config = experiment.config
    source, pattern = Path(config.init_from), config.init_leaves
    checkpoints = Checkpoints(source / "checkpoints")
    try:
        step, stored = checkpoints.read_leaves()
    finally:
        checkpoints.close()
    ours = unique_leaves(state)
    saved = {name: description for name, (_, description) in stored.items()}
    wanted = {name: describe(leaf) for name, leaf in ours.items()}
    names = _matching(pattern, sorted(saved | wanted))
    _require_equal(source, pattern, names, saved, wanted)
    taken = {name: decode(name, *stored[name], ours[name]) for name in names}
    leaves = [taken.get(name, leaf) for name, leaf in ours.items()]
    state = jax.tree.unflatten(jax.tree.structure(state), leaves)
    physics, learner = (
        Branch(branch.params, jax.jit(optimizer.transform.init)(branch.params))
        for branch, optimizer in zip((state.physics, state.learner), optimizers, strict=True)
    )
    state = HybridState(state.step, state.key, physics, learner, state.collections)
    state = jax.device_put(state, jax.devices()[0])
    logging.info("took %d leaves from step %d of %s", len(names), step, source)
    _warn_of_other_physics(source, config, names)
    origin = {"from": str(source), "step": step, "pattern": pattern, "leaves": names}
    return state, origin


def _matching(pattern: str, names: list[str]) -> list[str]:
    candidates = [name for name in names if name.startswith(_CANDIDATES)]
    matched = [name for name in candidates if re.fullmatch(pattern, name)]
    if not matched:
        raise ValueError(
            f"config.init_leaves must match the whole name of a leaf, and {pattern!r} matches "
            "none. The leaves of both runs are:\n" + "\n".join(f"  {name}" for name in candidates)
        )
    return matched


def _require_equal(
    source: Path, pattern: str, names: list[str], saved: dict[str, Any], wanted: dict[str, Any]
) -> None:
    lines = []
    for name in names:
        there, here = (show(of[name]) if name in of else "absent" for of in (saved, wanted))
        if there != here:
            lines.append(f"  {name}: there {there}, here {here}")
    if lines:
        raise CheckpointMismatch(
            f"the leaves that config.init_leaves ({pattern!r}) matches must be the same in "
            f"{source} and in this run; different: {len(lines)} of {len(names)}\n"
            + "\n".join(lines)
            + "\nNothing was taken. Give a pattern that leaves these out, or the config that they "
            "were trained with."
        )


def _warn_of_other_physics(source: Path, config: Any, names: list[str]) -> None:
    """Says how the physical models differ, whose raw parameters then mean other physical values."""
    if not any(name.startswith("physics.") for name in names):
        return
    try:
        there = read_config(source)["physics"]
    except (WorkdirError, KeyError):
        return
    for line in differences(there, config.physics.to_dict()).values():
        logging.warning(
            "config.physics differs from that of %s, and leaves may mean other values: %s",
            source,
            line,
        )
