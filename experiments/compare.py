"""Answers "does learning the ear help?": the same run with the physics frozen and learned.

    python -m experiments.compare --config=experiments/configs/tones.py --workdir=runs/demo

Trains both (or resumes, or finds them finished), evaluates them on the test split, puts the initial
physics back into the trained model, and writes `results.json` and pictures beside the two runs.
"""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from experiments.launch import define_kwargs_flags, launch_config

_CONFIG = config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where both runs and the results go.")
_KWARGS = define_kwargs_flags()
flags.mark_flags_as_required(["config", "workdir"])


def variants(config: ConfigDict) -> dict[str, ConfigDict]:
    """Returns the config as it is ("learned") and with every physical parameter frozen."""
    frozen = ConfigDict(config.to_dict())
    frozen.physics_optimizer.overrides = ((".*", None),)
    # A branch that never starts costs no gradient.
    frozen.physics_optimizer.start_step = config.num_steps
    return {"frozen": frozen, "learned": ConfigDict(config.to_dict())}


def main(argv: Sequence[str]) -> None:
    """Trains, evaluates and reports."""
    del argv
    import hybrid

    logging.set_verbosity(logging.INFO)
    config = launch_config(_KWARGS)
    workdir = pathlib.Path(_WORKDIR.value)
    results: dict[str, Any] = {"config": config.to_dict(), "runs": {}}
    runs = {}
    for name, variant in variants(config).items():
        started = time.perf_counter()
        hybrid.fit(variant, workdir / name)
        seconds = time.perf_counter() - started
        runs[name] = hybrid.load(workdir / name)
        test = _test(runs[name])
        results["runs"][name] = test | {"train_s": seconds}
    learned = runs["learned"]
    back = _test(learned, state=hybrid.with_initial_physics(learned))
    results["runs"]["learned, initial physics put back"] = back
    results["moved"] = hybrid.moved_parameters(learned)
    _write(workdir, results, runs)
    _print(workdir, results)


def _test(run_: Any, state: Any = None) -> dict[str, Any]:
    import hybrid
    from hybrid.fit import evaluation_loader

    num_classes = len(run_.source.class_names)
    return hybrid.evaluate(
        run_.task, state or run_.state, evaluation_loader(run_, "test"), num_classes
    )
