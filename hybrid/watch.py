"""Notices a loss or gradient that is not finite, one step late so that the device never waits."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hybrid.paths import named_leaves


class NonFiniteError(FloatingPointError):
    """A loss or gradient was NaN or infinite; says where, and where the last good state is.

    Attributes:
        step: the step that was not finite.
        batch: what it was given, if the process still holds it.
        faults: what of it was not finite.
    """

    step: int = -1
    batch: Any = None
    faults: "Faults | None" = None


@dataclasses.dataclass(frozen=True)
class Faults:
    """What of a step was not finite.

    Attributes:
        loss: the loss.
        loss_finite: whether that was.
        gradients: dotted names of leaves whose gradient was not, by branch.
        updates: leaves that their update would have spoilt, by branch, where the gradient was good.
        collections: leaves of the learner's other collections.
    """

    loss: float
    loss_finite: bool
    gradients: dict[str, list[str]]
    updates: dict[str, list[str]]
    collections: list[str]

    def lines(self) -> list[str]:
        """Returns what a person is told, a line for each thing."""
        lines = [] if self.loss_finite else [f"  loss = {self.loss}"]
        for kind, leaves in (("gradient", self.gradients), ("update", self.updates)):
            lines += [f"  {branch} branch, {kind} of: {_few(n)}" for branch, n in leaves.items()]
        if self.collections:
            lines.append(f"  learner collections: {_few(self.collections)}")
        return lines


class StepWatch:
    """Holds the report of the newest step until the next one is under way, then reads it.

    Reading a report waits for its step. Reading it one step late keeps the device busy, and loses
    nothing: a step that is not finite leaves the state as it was, and so does the step after it,
    which is given `go`.
    """

    def __init__(self, device: Any = None) -> None:
        """Starts with nothing to read.

        Args:
            device: where the steps run; by default JAX's first.
        """
        self._clear = jax.device_put(jnp.array(True), device or jax.devices()[0])
        self._pending: tuple[int, Any, dict[str, Any]] | None = None

    @property
    def go(self) -> Any:
        """Whether the newest step was finite, bool [] on the device, for the step after it."""
        return self._clear if self._pending is None else self._pending[2]["finite"]

    def push(self, step: int, batch: Any, report: dict[str, Any]) -> dict[str, float] | None:
        """Takes the report of a step just started; returns the scalars of the one before it.

        Args:
            step: the step that was started.
            batch: what it was given.
            report: as `hybrid.step` returns it.

        Raises:
            NonFiniteError: the step before this one was not finite. This one is forgotten: if it
                was given `go`, it has changed nothing and is to be taken again.
        """
        before, self._pending = self._pending, (step, batch, report)
        if before is None:
            return None
        try:
            return _read(*before)
        except NonFiniteError:
            self._pending = None
            raise

    def drain(self) -> dict[str, float] | None:
        """Reads what is still held; call it before the state is saved or evaluated.

        Raises:
            NonFiniteError: that step was not finite.
        """
        before, self._pending = self._pending, None
        return _read(*before) if before else None


def faults_of(report: dict[str, Any]) -> Faults:
    """Returns what of a step's report was not finite."""
    report = jax.device_get(report)
    gradients, updates = {}, {}
    for branch in ("physics", "learner"):
        if bad := _names(report[branch]["leaves_finite"]):
            gradients[branch] = bad
        elif bad := _names(report[branch]["updated_finite"]):
            updates[branch] = bad
    return Faults(
        float(report["loss"]),
        bool(report["loss_finite"]),
        gradients,
        updates,
        _names(report["collections_finite"]),
    )


def _read(step: int, batch: Any, report: dict[str, Any]) -> dict[str, float]:
    report = jax.device_get(report)
    if not report["finite"]:
        faults = faults_of(report)
        lines = [f"a training step must be finite; step {step} was not:", *faults.lines()]
        lines.append(f"  batch ids: {np.asarray(batch['ids']).tolist()}")
        error = NonFiniteError("\n".join(lines))
        error.step, error.batch, error.faults = step, batch, faults
        raise error
    scalars = {"loss": float(report["loss"])}
    scalars |= {name: float(value) for name, value in report["metrics"].items()}
    for branch in ("physics", "learner"):
        for name, value in report[branch]["norms"].items():
            scalars[f"{branch}_{name}"] = float(value)
    return scalars


def _names(flags: Any) -> list[str]:
    return [name for name, ok in named_leaves(flags).items() if not ok]


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
