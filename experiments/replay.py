"""Exists to take a step that was not finite once more, on any machine, without the data set.

    python -m experiments.replay runs/words/nonfinite/step_000000017

Prints what was found when the run met it, and what is found now: the branch and leaf, the clips,
and the stage, channel and sample where the first number that is not finite came up. The exit code
is 0 if it is the same, 1 if not.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.launch import define_trust_flag, run


def define_flags() -> None:
    """Defines the flags; not on import, so that other commands may use this module."""
    define_trust_flag()


def main(argv: Sequence[str]) -> None:
    """Replays and prints."""
    if len(argv) != 2:
        raise ValueError(
            f"replay takes one folder, got {' '.join(argv[1:]) or 'none'}: "
            "python -m experiments.replay WORKDIR/nonfinite/step_N"
        )
    # It reports at every start which accelerators this machine does not have.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    from hybrid.nonfinite import replay

    saved, found = replay(argv[1], flags.FLAGS.trust)
    print(found.text)
    if same(saved, found):
        print("This is what the run met.")
        return
    print(f"The run met something else:\n{saved.text}")
    sys.exit(1)


def same(saved: Any, found: Any) -> bool:
    """Whether two `hybrid.nonfinite.Finding`s are of one origin."""
    return (
        saved.place == found.place
        and saved.clips == found.clips
        and _leaves(saved.faults) == _leaves(found.faults)
    )


def _leaves(faults: Any) -> tuple[Any, ...]:
    """What of `Faults` can be compared: NaN, as the loss, equals nothing."""
    return faults.loss_finite, faults.gradients, faults.updates, faults.collections


def app() -> None:
    """Runs the command."""
    define_flags()
    run(main)


if __name__ == "__main__":
    app()
