"""Finds where a step ceased to be finite: which clip, stage, channel and sample, and which leaf."""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hybrid.diagnosis_physics import Record, recorded, stages
from hybrid.paths import named_leaves
from hybrid.state import HybridState
from hybrid.watch import Faults

Tree = Any


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the first number that is not finite lies.

    Attributes:
        part: "batch", "physics", "learner", "loss", "optimizer", or "nowhere" if it did not happen
            again.
        direction: "forward", or "backward" where only the gradient is bad.
        stage: what computed it: an output of the physics, a stage or a layer by its dotted name.
        index: place inside it by the names of its axes: `row` (of the batch), `sample` or `frame`,
            `ear`, `channel`.
        value: "nan", "inf" or "-inf".
        rows: rows of the batch that are bad there; all, or none, where clips cannot be told apart.
    """

    part: str
    direction: str
    stage: str
    index: dict[str, int]
    value: str
    rows: list[int]

    def line(self, sample_rate_hz: float | int, frequencies_hz: Any = None) -> str:
        """Returns what a person is told.

        Args:
            sample_rate_hz: to say when.
            frequencies_hz: of the channels, where the physics has them, [channels].
        """
        where = []
        for axis, index in self.index.items():
            text = f"{axis} {index}"
            if axis == "sample":
                text += f" ({index / sample_rate_hz:.6g} s)"
            hz = () if frequencies_hz is None or self.part != "physics" else frequencies_hz
            if axis == "channel" and index < len(hz):
                text += f" ({hz[index]:.5g} Hz)"
            where.append(text)
        way = "" if self.direction == "forward" else " (the forward pass is finite)"
        return f"{self.part}, {self.stage}: {', '.join(where) or 'all of it'}: {self.value}{way}"


def locate(task: Any, state: HybridState, batch: dict[str, Any], faults: Faults) -> Place:
    """Runs a step again, piece by piece, and looks at every piece.

    Args:
        task: the run's.
        state: from before the step.
        batch: what the step was given.
        faults: what of it was not finite.

    Returns:
        The first piece that was not.
    """
    heard = np.asarray(batch["weights"]) > 0
    for record in _given(state, batch):
        if (index := record.first(heard)) is not None:
            return _place(record, index, heard)
    records = _forward(task, state, batch)
    for record in records:
        if (index := record.first(heard)) is not None:
            if record.call is not None:
                return _inside(task.physics, record, index, heard)
            return _place(record, index, heard)
    if faults.gradients:
        return _backward(task, state, batch, records, heard)
    if faults.updates:
        branch, leaves = next(iter(faults.updates.items()))
        stage = f"update of {branch} leaf {leaves[0]}"
        return Place("optimizer", "forward", stage, {}, "not finite", [])
    return Place("nowhere", "forward", "it did not happen again", {}, "finite", [])


def _forward(task: Any, state: HybridState, batch: dict[str, Any]) -> list[Record]:
    """Everything that the loss is made of, in the order in which it is computed."""
    calls: list[Record] = []
    try:
        loss = _loss(task, state, batch, calls)(state.physics.params)
        calls.append(Record("loss", "loss", np.asarray(loss), ()))
    except (ValueError, FloatingPointError) as error:
        # Code that looks at its numbers says itself what is wrong, if nothing before it did.
        calls.append(Record("loss", f"refused: {error}", np.asarray(np.nan), ()))
    return calls


def _given(state: HybridState, batch: dict[str, Any]) -> Iterator[Record]:
    """The batch and the parameters, as records."""
    lengths = np.asarray(batch["lengths"]) if "lengths" in batch else None
    for name, leaf in named_leaves(batch).items():
        value = np.asarray(leaf)
        axes: tuple[str, ...] = ("row", "sample", "ear")[: value.ndim]
        if value.dtype.kind == "f" and len(axes) == value.ndim:
            if name == "audio" and lengths is not None:
                inside = np.arange(value.shape[1])[None] < lengths[:, None]
                inside = inside.reshape(inside.shape + (1,) * (value.ndim - 2))
                value = np.where(inside, value, 0)
            yield Record("batch", name, value, axes)
    for part, tree in (("physics", state.physics.params), ("learner", state.learner.params)):
        for name, leaf in named_leaves(tree).items():
            yield Record.of_leaf(part, f"parameter {name}", leaf)
    for name, leaf in named_leaves(state.collections).items():
        yield Record.of_leaf("learner", f"collection {name}", leaf)


def _loss(
    task: Any, state: HybridState, batch: dict[str, Any], calls: list[Record], added: Any = None
) -> Callable[[Tree], Any]:
    """The training loss as a function of the physics parameters, which tells what it does.

    Args:
        task: the run's.
        state: from before the step.
        batch: of the step.
        calls: where the outputs of physics and layers go, in order.
        added: zeros that are added to the outputs of each call of the physics, by its number.
    """
    listening = copy.copy(task)
    object.__setattr__(listening, "physics", recorded(task.physics, calls, added))
    key = jax.random.fold_in(state.key, state.step)

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        outputs = call(*args, **kwargs)
        if context.method_name == "__call__":
            name = ".".join(context.module.path) or type(context.module).__name__
            calls.extend(Record.of_outputs("learner", name, outputs))
        return outputs

    def loss(params: Tree) -> Any:
        with nn.intercept_methods(note):
            value, _ = listening.loss(
                params, state.learner.params, state.collections, batch, key, train=True
            )
        return value

    return loss


def _inside(physics: Any, record: Record, index: dict[str, int], heard: np.ndarray) -> Place:
    """Looks into a call of the physics, for the one row in which something is bad first."""
    row, given = index.get("row"), record.call
    assert given is not None
    for alone in (True, False) if row is not None else (False,):
        params, inputs, lengths = given
        if alone and row is not None:
            one = slice(row, row + 1)
            inputs, lengths = jax.tree.map(lambda x, one=one: x[one], (inputs, lengths))
        found: list[tuple[Record, dict[str, int]]] = []
        for stage in stages(physics, params, inputs, lengths):
            bad = stage.first()
            if bad is not None:
                found.append((stage, bad))
        if found:
            stage, bad = found[0]
            if "sample" in bad:
                # Stages in a loop feed each other: the earliest sample tells which began.
                loop = [item for item in found if "sample" in item[1]]
                stage, bad = min(loop, key=lambda item: item[1]["sample"])
            place = _place(stage, bad, None)
            inner = place.index | ({"row": row} if alone else {})
            return dataclasses.replace(place, index=inner, rows=record.rows(heard))
    return _place(record, index, heard)


def _backward(
    task: Any,
    state: HybridState,
    batch: dict[str, Any],
    records: list[Record],
    heard: np.ndarray,
) -> Place:
    """Follows the gradient back: first to the outputs of the physics, then to its parameters."""
    outputs = [record for record in records if record.call is not None]
    zeros = [jax.tree.map(jnp.zeros_like, record.raw) for record in outputs]
    grads, at_outputs = jax.grad(
        lambda params, added: _loss(task, state, batch, [], added)(params), argnums=(0, 1)
    )(state.physics.params, zeros)
    for record, gradient in zip(reversed(outputs), reversed(at_outputs), strict=True):
        stage = f"gradient of what {record.stage} is told"
        for of in Record.of_outputs("physics", stage, gradient, record.hop):
            index = of.first(heard)
            if index is not None:
                return _place(dataclasses.replace(of, part="learner"), index, heard, "backward")
    for name, leaf in reversed(named_leaves(grads).items()):
        record = Record.of_leaf("physics", f"gradient of {name}", leaf)
        index = record.first()
        if index is not None:
            place = _place(record, index, None, "backward")
            return dataclasses.replace(place, rows=_guilty_rows(outputs, at_outputs))
    return Place("learner", "backward", "gradient of its parameters", {}, "not finite", [])


def _guilty_rows(outputs: list[Record], at_outputs: list[Any]) -> list[int]:
    """Rows of the batch that alone make the gradient of the physics parameters bad."""
    guilty: set[int] = set()
    for record, gradient in zip(outputs, at_outputs, strict=True):
        rows = jax.tree.leaves(gradient)[0].shape[0]

        @jax.jit
        def of_row(row: Any, record: Record = record, gradient: Any = gradient) -> Any:
            # Each clip by itself: a cotangent of 0 times an infinite slope would not be 0.
            params, *given = record.call or (None,) * 3
            inputs, lengths, alone = jax.tree.map(
                lambda x: jax.lax.dynamic_slice_in_dim(x, row, 1), (*given, gradient)
            )
            _, pull = jax.vjp(lambda p: record.again(p, inputs, lengths), params)
            leaves = jax.tree.leaves(pull(alone))
            return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in leaves]))

        guilty |= {row for row in range(rows) if not bool(of_row(jnp.asarray(row)))}
    return sorted(guilty)


def _place(record: Record, index: dict[str, int], heard: Any, direction: str = "forward") -> Place:
    value = str(record.value[tuple(index[axis] for axis in record.axes)])
    told = dict(index)
    if "frame" in told and record.hop:
        told["sample"] = told["frame"] * record.hop
    return Place(record.part, direction, record.stage, told, value, record.rows(heard))
