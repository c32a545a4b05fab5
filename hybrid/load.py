"""Opens a finished or running experiment: its config, its parts and its newest state."""

import dataclasses
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from hybrid.build import Experiment, build
from hybrid.checkpoints import Checkpoints
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


def load(workdir: str | pathlib.Path, step: int | None = None, data_root: str | None = None) -> Run:
    """Loads the experiment in `workdir`.

    Args:
        workdir: a directory that `fit` wrote.
        step: which checkpoint; the newest intact one if None.
        data_root: where the data lie now, if not where they lay when the run was trained.

    Raises:
        WorkdirError: no experiment there.
        FileNotFoundError: no checkpoint yet.
    """
    workdir = pathlib.Path(workdir)
    config = ConfigDict(read_config(workdir))
    if data_root is not None:
        config.data.root = data_root
    with jax.enable_x64(config.precision == "float64"):
        experiment = build(config)
        state, _ = start(experiment)
        checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
        try:
            if checkpoints.latest_step() is None:
                raise FileNotFoundError(
                    f"{workdir} must hold a checkpoint to be loaded, and has none yet: train "
                    "further, or set config.checkpoint_every_steps lower"
                )
            state, _ = checkpoints.restore(state, step)
        finally:
            checkpoints.close()
    parts = {
        field.name: getattr(experiment, field.name) for field in dataclasses.fields(Experiment)
    }
    return Run(**parts, workdir=workdir, state=state, metrics=read_rows(workdir))
