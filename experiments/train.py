"""Trains a physical model and a network together, or resumes: one command for both.

    python -m experiments.train --config=experiments/configs/tones.py --workdir=runs/tones

Any field of the config can be given as `--config.FIELD=VALUE`; another physics, learner, task or
data set by `--config.physics.target=my_pkg.ears:MyEar --physics_kwargs='{"bands": 8}'`.

SIGTERM and Ctrl-C end it with a checkpoint and exit code 75, a second one at once. A new run takes
leaves of another one by `--init_from=DIR --init_leaves='physics.*'`. `--keep_memory` trades memory
for speed on CPUs, see `experiments.memory`.
"""

import logging as python_logging
from collections.abc import Sequence

from absl import flags, logging
from ml_collections import config_flags

from experiments.launch import define_kwargs_flags, launch_config, run
from experiments.memory import keep_freed_memory
from experiments.stopping import GRACE_S


def define_flags() -> None:
    """Defines the flags; not on import, so that other commands may use this module."""
    config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
    flags.DEFINE_string("workdir", None, "Where checkpoints and logs go.")
    flags.DEFINE_bool(
        "allow_config_change", False, "Continue a run although its config is another than it was."
    )
    flags.DEFINE_string("init_from", None, "Work directory of a run to take leaves from.")
    flags.DEFINE_string("init_leaves", None, "Regular expression: which of its leaves.")
    flags.DEFINE_float(
        "grace_s",
        GRACE_S,
        "After a signal, seconds until the process ends even without a new checkpoint.",
        lower_bound=0.0,
    )
    flags.DEFINE_bool(
        "keep_memory",
        False,
        "Keep memory that is freed, on Linux's C library: large models train faster on CPUs.",
    )
    define_kwargs_flags()
    flags.mark_flags_as_required(["config", "workdir"])


def main(argv: Sequence[str]) -> None:
    """Trains; JAX is imported here, so that data workers, which re-import this file, stay light."""
    if len(argv) > 1:
        raise ValueError(f"train takes flags only, got {' '.join(argv[1:])}: see --help")
    import hybrid

    logging.set_verbosity(logging.INFO)
    # It reports at every start which accelerators this machine does not have.
    python_logging.getLogger("jax._src.xla_bridge").setLevel(python_logging.WARNING)
    values = flags.FLAGS
    if values.keep_memory and not keep_freed_memory():
        logging.warning(
            "--keep_memory changes nothing: it needs glibc, and no MALLOC_... in the environment"
        )
    config = launch_config()
    for field in ("init_from", "init_leaves"):
        if values[field].value is not None:
            config[field] = values[field].value
    hybrid.fit(config, values.workdir, allow_config_change=values.allow_config_change)


def app() -> None:
    """Console script `hybrid-train`."""
    define_flags()
    run(main)


if __name__ == "__main__":
    app()
