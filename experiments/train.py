"""Trains a physical model and a network together, or resumes: one command for both.

    python -m experiments.train --config=experiments/configs/tones.py --workdir=runs/tones

Any field of the config can be given as `--config.FIELD=VALUE`; another physics, learner, task or
data set by `--config.physics.target=my_pkg.ears:MyEar --physics_kwargs='{"bands": 8}'`.
"""

from collections.abc import Sequence

from absl import flags, logging
from ml_collections import config_flags

from experiments.launch import define_kwargs_flags, launch_config, run

_CONFIG = config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints and logs go.", required=True)
_ALLOW = flags.DEFINE_bool(
    "allow_config_change", False, "Continue a run although its config differs from the saved one."
)
_KWARGS = define_kwargs_flags()
flags.mark_flag_as_required("config")


def main(argv: Sequence[str]) -> None:
    """Trains; JAX is imported here, so that data workers, which re-import this file, stay light."""
    del argv
    import hybrid

    logging.set_verbosity(logging.INFO)
    config = launch_config(_KWARGS)
    hybrid.fit(config, _WORKDIR.value, allow_config_change=_ALLOW.value)


def app() -> None:
    """Console script `hybrid-train`."""
    run(main)


if __name__ == "__main__":
    app()
