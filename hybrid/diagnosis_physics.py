"""Takes a physics module apart for the search for numbers that are not finite."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from hybrid.paths import named_leaves

Tree = Any
# Of one sample: what acts first comes first. Gain control and hair cells act on the sample after.
_CARFAC = ("ohc", "agc", "bm", "receptor_potential", "firings", "nap")


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """An array that came up in a step.

    Attributes:
        part: "batch", "physics", "learner" or "loss".
        stage: what made it.
        value: the array.
        axes: a name for each of its axes; `row` is that of the batch.
        hop: samples of audio per frame; 0 where frames are those of a network.
        call: parameters, inputs and lengths of the call of the physics whose output this is.
        raw: that output, as it came.
        again: the function that was called.
    """

    part: str
    stage: str
    value: np.ndarray
    axes: tuple[str, ...]
    hop: int = 0
    call: tuple[Any, Any, Any] | None = None
    raw: Any = None
    again: Callable[..., Any] = lambda *_: None

    @classmethod
    def of_leaf(cls, part: str, stage: str, leaf: Any) -> Record:
        """A parameter or coefficient: `[ears, channels, ...]`, `[channels]`, or a single number."""
        value = np.asarray(leaf)
        names = ("channel",) if value.ndim == 1 else ("ear", "channel", "class")
        axes = names if len(names) == value.ndim else tuple(f"axis_{i}" for i in range(value.ndim))
        return cls(part, stage, value, axes[: value.ndim])

    @classmethod
    def of_outputs(cls, part: str, stage: str, outputs: Any, hop: int = 0) -> Iterator[Record]:
        """Outputs `[batch, time]`, `[batch, frames, channels]`, `[batch, frames, ears, channels]`.

        Those of a network are `[batch, channels]` and `[batch, frames, channels, features]`.

        What is still being traced (the inside of a scan) and what is not floating is left out.
        """
        network = part == "learner"
        axes = {
            1: ("row",),
            2: ("row", "channel" if network else "sample"),
            3: ("row", "frame", "channel"),
            4: ("row", "frame", *(("channel", "feature") if network else ("ear", "channel"))),
        }
        for name, leaf in named_leaves(outputs).items():
            if isinstance(leaf, Tracer) or not hasattr(leaf, "dtype"):
                continue
            if not jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating):
                continue
            value = np.asarray(leaf)
            spare = tuple(f"axis_{i}" for i in range(4, value.ndim))
            names = axes.get(value.ndim, () if not value.ndim else axes[4] + spare)
            yield cls(part, f"{stage}.{name}" if name else stage, value, names, hop)

    def first(self, heard: np.ndarray | None = None) -> dict[str, int] | None:
        """Index of the first number that is not finite, earliest in time; None if there is none.

        Args:
            heard: rows of the batch that count.
        """
        bad = np.asarray(~np.isfinite(self.value))
        if heard is not None and "row" in self.axes and heard.shape == bad.shape[:1]:
            bad &= heard.reshape((-1,) + (1,) * (bad.ndim - 1))
        places = np.argwhere(bad)
        if not len(places):
            return None
        time = next((i for i, axis in enumerate(self.axes) if axis in ("sample", "frame")), 0)
        first = places[np.argmin(places[:, time])] if places.shape[1] else places[0]
        return dict(zip(self.axes, first.tolist(), strict=True))

    def rows(self, heard: np.ndarray | None = None) -> list[int]:
        """Rows of the batch in which something is not finite; all where it has no rows."""
        if "row" not in self.axes:
            return [] if heard is None else np.flatnonzero(heard).tolist()
        bad = ~np.isfinite(self.value).reshape(self.value.shape[0], -1).all(axis=1)
        if heard is not None and heard.shape == np.shape(bad):
            bad &= heard
        return np.flatnonzero(bad).tolist()


def recorded(physics: Any, calls: list[Record], added: Any = None) -> Any:
    """Returns the same module, whose `apply`, and `synthesize` if it has it, tell what they gave.

    Args:
        physics: a `PhysicsModule`.
        calls: where the outputs go, in order.
        added: what is added to the outputs, for each call of `apply`; gradients for it are
            gradients for them.
    """
    kind, count = type(physics), [0]

    def again(params: Tree, inputs: Any, lengths: Any) -> Any:
        return physics.apply(params, inputs, None, lengths)[0]

    def apply(_: Any, params: Tree, inputs: Any, state: Any = None, lengths: Any = None) -> Any:
        # Compiled: modules that look at the values of their audio would refuse it.
        outputs, after = jax.jit(physics.apply)(params, inputs, state, lengths)
        number, count[0] = count[0], count[0] + 1
        if added is not None:
            outputs = jax.tree.map(jax.numpy.add, outputs, added[number])
        leaves = list(Record.of_outputs("physics", "features", outputs, physics.hop_samples))
        call = (params, inputs, lengths)
        calls.extend(
            dataclasses.replace(leaf, call=call, raw=outputs, again=again) for leaf in leaves[:1]
        )
        calls.extend(leaves[1:])
        return outputs, after

    def synthesize(_: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = jax.jit(physics.synthesize)(*args, **kwargs)
        calls.extend(Record.of_outputs("physics", "synthesis", outputs))
        return outputs

    methods = {"apply": apply}
    if hasattr(kind, "synthesize"):
        methods["synthesize"] = synthesize
    listening = copy.copy(physics)
    object.__setattr__(listening, "__class__", type(kind.__name__, (kind,), methods))
    return listening


def stages(physics: Any, params: Tree, inputs: Any, lengths: Any) -> Iterator[Record]:
    """Everything that can be asked of a module, from its parameters to its features.

    Args:
        physics: a `PhysicsModule`.
        params: its parameters.
        inputs: of `apply`.
        lengths: likewise.
    """
    for name, leaf in named_leaves(physics.physical(params)).items():
        yield Record.of_leaf("physics", f"physical value of {name}", leaf)
    yield from _inner(physics, params, inputs, lengths, "")


def _inner(physics: Any, params: Tree, inputs: Any, lengths: Any, name: str) -> Iterator[Record]:
    from physics.carfac import Carfac
    from physics.compose import Compose
    from physics.stacking import Stacked

    if isinstance(physics, Compose):
        yield from _inner(physics.front, params["front"], inputs, lengths, f"{name}front.")
        for count, stage in enumerate(physics.names, 1):
            part = dataclasses.replace(physics, stages=physics.stages[:count])
            mine = {of: params[of] for of in ("front", *physics.names[:count])}
            yield from _features(part, mine, inputs, lengths, f"{name}{stage}")
        return
    if isinstance(physics, Carfac):
        yield from _cochlea(physics, params, inputs, lengths, name)
    elif isinstance(physics, Stacked):
        yield from _inner(physics.inner, params, inputs, lengths, f"{name}inner.")
    yield from _features(physics, params, inputs, lengths, f"{name}features")


def _cochlea(physics: Any, params: Tree, audio: Any, lengths: Any, name: str) -> Iterator[Record]:
    axes = {2: ("ear", "channel"), 3: ("ear", "channel", "class")}
    coefficients = jax.jit(physics.design)(params)
    for leaf, value in named_leaves(coefficients).items():
        record = Record.of_leaf("physics", f"{name}coefficient {leaf}", value)
        if leaf.startswith("agc."):
            names = ("ear",) if record.value.ndim == 1 else ("stage", "ear")
        else:
            names = axes.get(record.value.ndim, record.axes)
        yield dataclasses.replace(record, axes=names)
    given, _ = jax.jit(lambda p, x, n: physics.run(p, x, lengths=n))(params, audio, lengths)
    for output in _CARFAC:
        value = getattr(given, output)
        if value is not None:
            names = ("row", "sample", "ear", "channel", "class")[: value.ndim]
            yield Record("physics", f"{name}{output}", np.asarray(value), names)


def _features(physics: Any, params: Tree, inputs: Any, lengths: Any, name: str) -> Iterator[Record]:
    outputs, _ = jax.jit(physics.apply)(params, inputs, None, lengths)
    yield from Record.of_outputs("physics", name, outputs, physics.hop_samples)
