"""What the loop remembers beside the state: sums, the best so far, and what is still to be done."""

import dataclasses
import math
from typing import Any

from hybrid.manifest import CheckpointError


@dataclasses.dataclass
class Bookkeeping:
    """Goes into a checkpoint as JSON, which gives every float back to the bit.

    Attributes:
        window: scalars of the steps since the last log row.
        best_loss: lowest validation loss so far, if any.
        evals_since_best: evaluations since then.
        stopped: whether the run ended early on a plateau.
        evaluation_due: whether the evaluation of this step is still to be done.
        best: the best checkpoint: `step`, `value`, and the `metric` and `mode` that chose it.
        origin: what `init_from` took, and from where.
        nonfinite_steps: steps that were not finite, those that were rolled back over included.
        roll_backs: how often the run went back to a checkpoint.
    """

    window: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_loss: float | None = None
    evals_since_best: int = 0
    stopped: bool = False
    evaluation_due: bool = False
    best: dict[str, Any] | None = None
    origin: dict[str, Any] | None = None
    nonfinite_steps: int = 0
    roll_backs: int = 0

    @classmethod
    def saved(cls, fields: dict[str, Any]) -> "Bookkeeping":
        """Returns what a checkpoint holds; what an earlier release did not save has its default.

        Raises:
            CheckpointError: it was written by a later release.
        """
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise CheckpointError(
                "a checkpoint's book holds what this release knows, and one holds "
                f"{', '.join(unknown)} too: go on with the later release that wrote it"
            )
        return cls(**fields)

    def plateau(self, loss: float, patience: int) -> None:
        """Takes a validation loss; stops once `patience` evaluations (0: never) brought nothing."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_loss, self.evals_since_best = loss, 0
        else:
            self.evals_since_best += 1
        self.settle(patience)

    def settle(self, patience: int) -> None:
        """Works out `stopped` for the patience of today, which may differ from yesterday's."""
        self.stopped = bool(patience) and self.evals_since_best >= patience

    def rank(self, step: int, value: float, metric: str, mode: str) -> bool:
        """Takes the value of the metric that chooses the best checkpoint.

        Args:
            step: steps done.
            value: of the metric; one that is not finite is never the best.
            metric: its name.
            mode: "min" or "max". After a change of either the search starts anew.

        Returns:
            Whether this is the best so far. Equal values leave the earlier one in place.
        """
        known = self.best
        if known is not None and (known["metric"], known["mode"]) != (metric, mode):
            known = None
        sign = 1.0 if mode == "max" else -1.0
        better = math.isfinite(value) and (known is None or sign * value > sign * known["value"])
        if better:
            self.best = {"step": step, "value": value, "metric": metric, "mode": mode}
        return better

    def take_window(self) -> dict[str, float]:
        """Empties the window; returns means over the steps that have a value.

        A branch has norms only at the steps that updated it.
        """
        names = dict.fromkeys(name for row in self.window for name in row)
        columns = {name: [row[name] for row in self.window if name in row] for name in names}
        self.window = []
        return {name: sum(values) / len(values) for name, values in columns.items()}
