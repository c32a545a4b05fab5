"""Notices a loss or gradient that is not finite, one step late so that the device never waits."""

from typing import Any

import jax
import numpy as np

from hybrid.paths import named_leaves


class NonFiniteError(FloatingPointError):
    """A loss or gradient was NaN or infinite; says where, and where the last good state is."""


class StepWatch:
    """Holds the report of the newest step until the next one is under way, then reads it.

    Reading a report waits for its step. Reading it one step late keeps the device busy, and loses
    nothing: a step that is not finite leaves the state as it was.
    """

    def __init__(self) -> None:
        """Starts with nothing to read."""
        self._pending: tuple[int, Any, dict[str, Any]] | None = None

    def push(self, step: int, ids: Any, report: dict[str, Any]) -> dict[str, float] | None:
        """Takes the report of a step just started; returns the scalars of the one before it.

        Args:
            step: the step that was started.
            ids: dataset ids of its batch [batch].
            report: as `hybrid.step` returns it.

        Raises:
            NonFiniteError: the step before this one was not finite.
        """
        before, self._pending = self._pending, (step, ids, report)
        return _read(*before) if before else None

    def drain(self) -> dict[str, float] | None:
        """Reads what is still held; call it before the state is saved or evaluated.

        Raises:
            NonFiniteError: that step was not finite.
        """
        before, self._pending = self._pending, None
        return _read(*before) if before else None


def _read(step: int, ids: Any, report: dict[str, Any]) -> dict[str, float]:
    report = jax.device_get(report)
    if not report["finite"]:
        raise NonFiniteError(_explain(step, ids, report))
    scalars = {"loss": float(report["loss"])}
    scalars |= {name: float(value) for name, value in report["metrics"].items()}
    for branch in ("physics", "learner"):
        for name, value in report[branch]["norms"].items():
            scalars[f"{branch}_{name}"] = float(value)
    return scalars


def _explain(step: int, ids: Any, report: dict[str, Any]) -> str:
    lines = [f"a training step must be finite; step {step} was not:"]
    if not report["loss_finite"]:
        lines.append(f"  loss = {report['loss']}")
    for branch in ("physics", "learner"):
        for kind, what in (("leaves_finite", "gradient of"), ("updated_finite", "update of")):
            if bad := _names(report[branch][kind]):
                lines.append(f"  {branch} branch, {what}: {bad}")
                break
    if bad := _names(report["collections_finite"]):
        lines.append(f"  learner collections: {bad}")
    lines.append(f"  batch ids: {np.asarray(ids).tolist()}")
    lines.append(
        "The parameters are those from before this step. Lower the learning rate or clip_norm, "
        "look at the clips named above, or find the operation with JAX_DEBUG_NANS=1."
    )
    return "\n".join(lines)


def _names(flags: Any) -> str:
    bad = [name for name, ok in named_leaves(flags).items() if not ok]
    return ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
