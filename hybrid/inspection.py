"""What training did to the physics: which parameters moved, and what the network owes to it."""

from typing import Any

import jax
import numpy as np

from hybrid.checkpoints import Checkpoints
from hybrid.parts import start
from hybrid.paths import named_leaves
from hybrid.state import HybridState


def initial_state(run: Any) -> HybridState:
    """The state that a run started from, leaves that it took over from another run among it.

    Args:
        run: a `hybrid.Run`.
    """
    with jax.enable_x64(run.config.precision == "float64"):
        state = start(run)[0]
        if not run.config.init_from:
            return state
        checkpoints = Checkpoints(run.workdir / "checkpoints")
        try:
            return checkpoints.restore(state, 0)[0]
        finally:
            checkpoints.close()


def with_initial_physics(run: Any) -> HybridState:
    """The trained state with the physics that the run started from.

    A network trained with learned physics must do worse, or at least differently, with these;
    otherwise the physics was not part of what was learned.

    Args:
        run: a `hybrid.Run`.
    """
    return run.state.replace(physics=initial_state(run).physics)


def physical_values(run: Any) -> tuple[Any, Any]:
    """The physics parameters in physical units, at the start and now, as NumPy arrays.

    Args:
        run: a `hybrid.Run`.
    """
    first = initial_state(run).physics.params
    with jax.enable_x64(run.config.precision == "float64"):
        trees = run.physics.physical(first), run.physics.physical(run.state.physics.params)
        return jax.device_get(trees)


def moved_parameters(run: Any) -> list[dict[str, Any]]:
    """How far each physical parameter has moved from where the run started, most first.

    Args:
        run: a `hybrid.Run`.

    Returns:
        A row for each leaf: `name`, `unit`, `count`, `initial` and `learned` (means), `change` (the
        largest absolute change of a value), `relative` (that over the width of its bounds).
    """
    initial, learned = physical_values(run)
    specs, first = named_leaves(run.physics.specs()), named_leaves(initial)
    rows = []
    for name, value in named_leaves(learned).items():
        change = np.abs(np.asarray(value, np.float64) - np.asarray(first[name], np.float64))
        spec = specs[name]
        width = float(np.max(np.asarray(spec.high) - np.asarray(spec.low)))
        rows.append(
            {
                "name": name,
                "unit": spec.unit,
                "count": int(np.size(value)),
                "initial": float(np.mean(first[name])),
                "learned": float(np.mean(value)),
                "change": float(np.max(change)),
                "relative": float(np.max(change)) / width,
            }
        )
    return sorted(rows, key=lambda row: -row["relative"])
