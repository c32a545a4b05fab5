"""From configuration to one Optax chain a branch: schedule, clip, decay, multipliers, freezing."""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from hybrid.paths import leaf_names, map_named

Tree = Any
Overrides = Sequence[Sequence[Any]]  # pairs of a pattern and a multiplier or None
SCHEDULES = ("constant", "cosine", "linear", "exponential")


@dataclasses.dataclass(frozen=True)
class BranchOptimizer:
    """How one branch is updated, and when.

    Attributes:
        transform: the Optax chain; frozen leaves are outside it, clipping included.
        schedule: learning rate as a function of the number of updates this branch has made.
        start_step: first step of the run at which the branch is updated.
        every: the branch takes a gradient and an update at every so many steps.
    """

    transform: optax.GradientTransformation
    schedule: optax.Schedule
    start_step: int
    every: int

    def active(self, step: int) -> bool:
        """Whether the branch is updated at this step of the run (a host integer)."""
        return step >= self.start_step and (step - self.start_step) % self.every == 0

    def num_updates(self, step: int) -> int:
        """How many updates the branch has made before this step."""
        return max(0, -(-(step - self.start_step) // self.every))

    def learning_rate(self, step: int) -> float:
        """The learning rate of the branch's newest update, or of this one; 0 before the first."""
        if step < self.start_step:
            return 0.0
        rate = self.schedule(self.num_updates(step + 1) - 1)
        return float(jnp.asarray(rate))


def make_schedule(
    name: str, learning_rate: float, num_updates: int, warmup_steps: int = 0
) -> optax.Schedule:
    """Builds a learning-rate schedule over the updates of a branch.

    Args:
        name: one of `SCHEDULES`; all but "constant" end at (nearly) nothing after `num_updates`.
        learning_rate: the peak.
        num_updates: updates until the end of the decay.
        warmup_steps: updates of linear warm-up from 0 before it, taken out of `num_updates`.

    Raises:
        ValueError: unknown name, or a warm-up longer than the run.
    """
    if name not in SCHEDULES:
        raise ValueError(
            f"schedule must be one of {SCHEDULES}, got {name!r}{_nearest(name, SCHEDULES)}"
        )
    if not 0 <= warmup_steps < max(num_updates, 1):
        raise ValueError(
            f"warmup_steps must lie in [0, {num_updates}), the updates of this branch, got "
            f"{warmup_steps}: shorten the warm-up or lengthen num_steps"
        )
    length = max(num_updates - warmup_steps, 1)
    main = {
        "constant": lambda: optax.constant_schedule(learning_rate),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, length),
        "linear": lambda: optax.linear_schedule(learning_rate, 0.0, length),
        "exponential": lambda: optax.exponential_decay(learning_rate, length, 0.01),
    }[name]()
    schedule = main
    if warmup_steps:
        # Starts at 1/n of the peak, not at 0: an update of nothing would be a wasted step.
        ramp = optax.linear_schedule(learning_rate / warmup_steps, learning_rate, warmup_steps)
        schedule = optax.join_schedules([ramp, main], [warmup_steps])
    # Optax multiplies the count by floats, which strict dtype promotion refuses for an integer.
    return lambda count: schedule(jnp.asarray(count, jnp.result_type(float)))


def parse_overrides(params: Tree, overrides: Overrides | Mapping[str, Any]) -> Tree:
    """Gives every parameter its multiplier of the learning rate, or None where it is frozen.

    Args:
        params: the branch's parameters.
        overrides: pairs of a regular expression, matched against the whole dotted name of a
            parameter, and a multiplier or None. The first match wins. Empty: 1.0 everywhere.

    Returns:
        A dict from dotted name to multiplier or None.

    Raises:
        ValueError: a pattern that is no regular expression or matches nothing, a parameter that no
            pattern covers, or a multiplier that is not a finite number >= 0; names are listed.
    """
    if isinstance(overrides, str) or not isinstance(overrides, Sequence | Mapping):
        raise ValueError(
            f"overrides: must be pairs of a pattern and a multiplier, got {overrides!r}"
        )
    pairs = list(overrides if isinstance(overrides, Sequence) else overrides.items())
    names = leaf_names(params)
    if not pairs:
        return dict.fromkeys(names, 1.0)
    result: dict[str, float | None] = {}
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ValueError(
                f"overrides: each entry must be a pair of a pattern and a multiplier or None, got "
                f"{pair!r}: write for example (('car.*', 0.1), ('.*', None))"
            )
        pattern, multiplier = pair
        _check_multiplier(pattern, multiplier)
        try:
            matched = [name for name in names if re.fullmatch(pattern, name)]
        except re.error as error:
            raise ValueError(
                f"overrides: {pattern!r} is not a regular expression: {error}"
            ) from error
        if not matched:
            raise ValueError(
                f"overrides: the pattern {pattern!r} matches no parameter"
                f"{_nearest(pattern, names)}. A pattern must match a whole name; the names are:\n"
                + _lines(names)
            )
        for name in matched:
            result.setdefault(name, multiplier)
    uncovered = [name for name in names if name not in result]
    if uncovered:
        raise ValueError(
            "overrides: when any pattern is given, every parameter must be covered by one. "
            "Add ('.*', 1.0) last to let the rest train, or name them. Not covered:\n"
            + _lines(uncovered)
            + "\nAll names:\n"
            + _lines(names)
        )
    return result


def build_optimizer(config: Any, params: Tree, num_steps: int, *, anchor: bool) -> BranchOptimizer:
    """Builds the optimizer of one branch.

    Args:
        config: fields `name` (of an Optax optimizer), `learning_rate`, `schedule`, `warmup_steps`,
            `clip_norm` (0: none), `weight_decay`, `start_step`, `every`, `overrides`.
        params: the branch's parameters or their shapes.
        num_steps: length of the run, for the schedule.
        anchor: what weight decay pulls to. A physical branch (True) is pulled to the values that
            it starts from, all leaves alike; a network (False) to zero, matrices and kernels only.

    Raises:
        ValueError: naming the field, what it got and what would fit.
    """
    for field, low in (("learning_rate", 0.0), ("clip_norm", 0.0), ("weight_decay", 0.0)):
        value = getattr(config, field)
        if not isinstance(value, (int, float)) or not low <= value < float("inf"):
            raise ValueError(f"{field} must be a finite number >= {low:g}, got {value!r}")
    if config.every < 1 or config.start_step < 0:
        raise ValueError(
            f"every must be >= 1 and start_step >= 0, got every={config.every}, "
            f"start_step={config.start_step}"
        )
    multipliers = parse_overrides(params, config.overrides)
    num_updates = -(-max(num_steps - config.start_step, 0) // config.every)
    schedule = make_schedule(
        config.schedule,
        config.learning_rate,
        num_updates,
        config.warmup_steps if num_updates else 0,
    )
    parts = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts.append(_named_optimizer(config.name, schedule))
    if config.weight_decay:
        parts.append(_decay(config.weight_decay, schedule, anchor))
    parts.append(
        optax.stateless(
            lambda updates, _: map_named(
                lambda name, u: u * jnp.asarray(multipliers[name], u.dtype), updates
            )
        )
    )
    chain = optax.chain(*parts)
    if all(multiplier is not None for multiplier in multipliers.values()):
        transform = chain
    else:
        labels = map_named(
            lambda name, _: "frozen" if multipliers[name] is None else "trained", params
        )
        transform = optax.partition({"trained": chain, "frozen": optax.set_to_zero()}, labels)
    return BranchOptimizer(transform, schedule, config.start_step, config.every)


class _AnchorState(NamedTuple):
    """State of the decoupled decay: updates made, and (for physics) where it pulls to."""

    num_updates: jax.Array
    anchor: Tree


def _decay(rate: float, schedule: optax.Schedule, anchor: bool) -> optax.GradientTransformation:
    """Decoupled weight decay (Loshchilov and Hutter, ICLR 2019), to zero or to the first values."""

    def init(params: Tree) -> _AnchorState:
        return _AnchorState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.array, params) if anchor else ()
        )

    def update(updates: Tree, state: Any, params: Tree | None = None) -> Any:
        if params is None:
            raise ValueError("weight decay needs the parameters: call update(grads, state, params)")
        scale = rate * schedule(state.num_updates)

        def pull(u: Any, p: Any, origin: Any = None) -> Any:
            if origin is None:
                return u - jnp.asarray(scale, p.dtype) * p if p.ndim >= 2 else u
            return u - jnp.asarray(scale, p.dtype) * (p - origin)

        trees = (updates, params, state.anchor) if anchor else (updates, params)
        return jax.tree.map(pull, *trees), state._replace(num_updates=state.num_updates + 1)

    return optax.GradientTransformation(init, update)


def _named_optimizer(name: str, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Looks an optimizer up in Optax; decay is added outside it, so its own is switched off."""
    factory: Any = getattr(optax, name, None)
    accepts = inspect.signature(factory).parameters if inspect.isfunction(factory) else {}
    if "learning_rate" not in accepts or name.startswith("_"):
        known = [
            n
            for n in dir(optax)
            if inspect.isfunction(getattr(optax, n))
            and "learning_rate" in inspect.signature(getattr(optax, n)).parameters
        ]
        raise ValueError(
            f"name must be an Optax optimizer with a learning rate, got {name!r}"
            f"{_nearest(name, known)}. Known: {', '.join(known)}"
        )
    options = {"weight_decay": 0.0} if "weight_decay" in accepts else {}
    return factory(learning_rate=schedule, **options)


def _check_multiplier(pattern: str, multiplier: Any) -> None:
    number = isinstance(multiplier, (int, float)) and not isinstance(multiplier, bool)
    if multiplier is not None and not (number and 0 <= multiplier < float("inf")):
        raise ValueError(
            f"overrides: the multiplier of {pattern!r} must be a number >= 0 or None (frozen), "
            f"got {multiplier!r}"
        )


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _lines(names: Sequence[str]) -> str:
    return "\n".join(f"  {name}" for name in names)
