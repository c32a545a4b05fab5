"""Opens a finished or running experiment: its config, its parts and its newest state."""

import dataclasses
import pathlib
from collections.abc import Collection
from typing import Any

import jax
from ml_collections import ConfigDict

from hybrid.build import Experiment, build
from hybrid.checkpoints import Checkpoints
from hybrid.config import check_config, complete_config
from hybrid.parts import start
from hybrid.state import HybridState
from hybrid.workdir import read_config
from hybrid.writers import read_rows


@dataclasses.dataclass(frozen=True)
class Run(Experiment):
    """An experiment and how far it came.

    Attributes:
        workdir: where it lives.
        state: parameters, optimizers and step of the newest checkpoint.
        metrics: rows of `metrics.jsonl`, oldest first.
    """

    workdir: pathlib.Path
    state: HybridState
    metrics: list[dict[str, Any]]


def load(
    workdir: str | pathlib.Path,
    step: int | str | None = None,
    data_root: str | None = None,
    trusted: Collection[str] = (),
) -> Run:
    """Loads the experiment in `workdir`, which may be somebody else's.

    Nothing is unpickled, and no code runs but that of this library and of the packages that are
    named as trusted.

    Args:
        workdir: a directory that `fit` wrote.
        step: which checkpoint: of that many steps, "best" by `config.checkpoint_best_metric`, or
            None or "latest", the newest intact one.
        data_root: where the data lie now, if not where they lay when the run was trained.
        trusted: top-level packages, besides those of this library, whose code the config may name:
            ("my_ears", "my_nets").

    Raises:
        WorkdirError: no experiment there.
        FileNotFoundError: no checkpoint yet.
        BuildError: its config names code that is not trusted, or does not fit.
    """
    workdir = pathlib.Path(workdir)
    config = complete_config(ConfigDict(read_config(workdir)))
    check_config(config)
    if data_root is not None:
        config.data.root = data_root
    if "download" in config.data.kwargs:
        # Whoever opens a run did not ask for gigabytes; evaluation says where data are missing.
        config.data.kwargs.download = False
    with jax.enable_x64(config.precision == "float64"):
        experiment = build(config, trusted)
        state, _ = start(experiment)
        checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
        try:
            if checkpoints.latest_step() is None:
                raise FileNotFoundError(
                    f"{workdir} must hold a checkpoint to be loaded, and has none yet: train "
                    "further, or set config.checkpoint_every_steps lower"
                )
            state = _restored(checkpoints, state, step)
        finally:
            checkpoints.close()
    parts = {
        field.name: getattr(experiment, field.name) for field in dataclasses.fields(Experiment)
    }
    return Run(**parts, workdir=workdir, state=state, metrics=read_rows(workdir))


def _restored(checkpoints: Checkpoints, like: HybridState, step: int | str | None) -> HybridState:
    if isinstance(step, int):
        return checkpoints.restore(like, step)[0]
    if step not in (None, "latest", "best"):
        raise ValueError(f"step must be a number, 'best' or 'latest', got {step!r}")
    state, extras = checkpoints.restore(like)
    if step != "best":
        return state
    if not (best := extras["book"].get("best")):
        raise ValueError(
            f"the best checkpoint in {checkpoints.directory} is not known: train with "
            "config.checkpoint_best_metric, the name of a metric, or ask for 'latest'"
        )
    if best["step"] not in checkpoints.steps():
        raise ValueError(
            f"the best checkpoint in {checkpoints.directory}, of step {best['step']}, is gone, for "
            "the run has fallen back to an older one since: ask for 'latest', or train further"
        )
    return checkpoints.restore(like, best["step"])[0]
