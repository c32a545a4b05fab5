"""From import paths to objects that fit together, checked before anything is compiled."""

import contextlib
import dataclasses
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax.core import FrozenDict
from ml_collections import ConfigDict

from data.audio_files import AudioFileError
from data.iterable_loader import IterableLoader
from data.patience import TooLateError, within
from data.source import holds_items
from hybrid.config import check_config, unknown_name_message
from hybrid.targets import BuildError, check_callable, check_targets, resolve

__all__ = [
    "BuildError",
    "Experiment",
    "batch_shapes",
    "build",
    "build_parts",
    "build_physics",
    "resolve",
]

PHYSICS_PROTOCOL = (
    "sample_rate_hz",
    "hop_samples",
    "causal",
    "num_frames",
    "init",
    "physical",
    "specs",
    "init_state",
    "apply",
)
LEARNER_PROTOCOL = ("init", "apply")
TASK_PROTOCOL = ("init", "loss", "project_physics")
DATA_PROTOCOL = ("sample_rate_hz", "num_samples", "class_names", "dataset")
METHODS = {"num_frames", "physical", "specs", "init_state", "dataset", *LEARNER_PROTOCOL}
METHODS |= set(TASK_PROTOCOL)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run, built and checked.

    Attributes:
        config: what they were built from.
        physics: the `PhysicsModule`.
        learner: the Flax module.
        task: the `Task` that joins them.
        source: the data source.
    """

    config: ConfigDict
    physics: Any
    learner: Any
    task: Any
    source: Any


def build(config: ConfigDict, trusted: Collection[str] | None = None) -> Experiment:
    """Builds data, physics, learner and task, and checks that their shapes meet.

    What the parts know of each other is filled in unless `kwargs` say otherwise: the physics is
    given the data's `sample_rate_hz`, the learner the `num_classes` of the data.

    Args:
        config: as `hybrid.config.default_config`, filled in.
        trusted: see `hybrid.targets.check_targets`; None for a config of one's own.

    Raises:
        BuildError: naming the field of the config, what it got and what would fit.
        ValueError: an unknown field or a value out of range.
    """
    check_config(config)
    check_targets(config, trusted)
    data_known = {"root": config.data.root} if config.data.root else {}
    source = _make("data", config, data_known, DATA_PROTOCOL)
    experiment = build_parts(config, source)
    _check_shapes(experiment, len(source.class_names))
    return experiment


def build_parts(config: ConfigDict, source: Any) -> Experiment:
    """Builds physics, learner and task for a source of data, without looking at its clips.

    Args:
        config: one that `check_config` and `check_targets` have passed.
        source: whose `sample_rate_hz` and `class_names` the parts are told.

    Raises:
        BuildError: as `build`.
    """
    _check_rate("data", source.sample_rate_hz)
    physics = _make("physics", config, {"sample_rate_hz": source.sample_rate_hz}, PHYSICS_PROTOCOL)
    _check_rate("physics", physics.sample_rate_hz)
    if float(physics.sample_rate_hz) != float(source.sample_rate_hz):
        raise BuildError(
            f"config.physics and config.data must share a sample rate, got "
            f"{physics.sample_rate_hz:g} Hz and {source.sample_rate_hz:g} Hz: leave out "
            "physics.kwargs.sample_rate_hz, or set both to one value"
        )
    num_classes = len(source.class_names)
    learner = _make("learner", config, {"num_classes": num_classes}, LEARNER_PROTOCOL)
    task = _make("task", config, {"physics": physics, "learner": learner}, TASK_PROTOCOL)
    return Experiment(config, physics, learner, task, source)


def _check_rate(part: str, rate_hz: Any) -> None:
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, int | float) or not rate_hz > 0:
        raise BuildError(
            f"config.{part} must have a sample_rate_hz, a number of hertz above 0, got {rate_hz!r}"
        )


def build_physics(config: ConfigDict) -> Any:
    """Builds the physics alone, without reading the data if their class tells the sample rate.

    Raises:
        BuildError: naming the field of the config, what it got and what would fit.
        ValueError: an unknown field or a value out of range.
    """
    check_config(config)
    check_targets(config)
    rate_hz = config.data.kwargs.get("sample_rate_hz")
    if rate_hz is None:
        source = resolve(config.data.target, "config.data.target")
        parameter = inspect.signature(source).parameters.get("sample_rate_hz")
        rate_hz = parameter.default if parameter is not None else inspect.Parameter.empty
    if rate_hz is inspect.Parameter.empty:
        rate_hz = build(config).source.sample_rate_hz
    return _make("physics", config, {"sample_rate_hz": rate_hz}, PHYSICS_PROTOCOL)


def _make(
    part: str, config: ConfigDict, known: Mapping[str, Any], protocol: tuple[str, ...]
) -> Any:
    field = f"config.{part}"
    target_path = config[part].target
    target = resolve(target_path, f"{field}.target")
    # Before it is called: what is something else must not do its work here. What an instance may
    # set when it is built is looked for afterwards.
    methods = [name for name in protocol if name in METHODS]
    check_callable(target, methods, part, f"{field}.target", target_path)
    kwargs = _frozen(config[part].kwargs.to_dict(), FrozenDict if part == "learner" else dict)
    accepted, takes_any = _parameters(target)
    for name in kwargs:
        if not takes_any and name not in accepted:
            raise BuildError(
                unknown_name_message(f"{field}.kwargs.{name} (of {target_path})", name, accepted)
            )
    filled = {name: value for name, value in known.items() if takes_any or name in accepted}
    try:
        built = target(**(filled | kwargs))
    except Exception as error:  # of whatever code the path leads to
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise BuildError(f"{field} ({target_path}) could not be built: {kind}{error}") from error
    _check_protocol(built, protocol, part, target_path)
    return built


def _frozen(value: Any, make_dict: Any, depth: int = 0) -> Any:
    """Lists, which JSON makes of tuples, as tuples again: modules must be hashable."""
    if isinstance(value, Mapping):
        items = {name: _frozen(item, make_dict, depth + 1) for name, item in value.items()}
        return make_dict(items) if depth else items
    if isinstance(value, list | tuple):
        return tuple(_frozen(item, make_dict, depth + 1) for item in value)
    return value


def _parameters(target: Any) -> tuple[list[str], bool]:
    parameters = inspect.signature(target).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD], takes_any


def _check_protocol(thing: Any, protocol: tuple[str, ...], part: str, path: str) -> None:
    missing = [name for name in protocol if not hasattr(thing, name)]
    if missing:
        raise BuildError(
            f"config.{part}.target must satisfy the {part} protocol; {path!r} lacks "
            f"{', '.join(missing)} (needed: {', '.join(protocol)})"
        )


def batch_shapes(
    source: Any, batch_size: int, seed: int = 0, timeout_s: float | int = 120
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a training batch, read off one item or batch of the data.

    Args:
        source: the data source.
        batch_size: of the run.
        seed: of the run.
        timeout_s: how long the item may take; a batch made elsewhere may take for ever.

    Raises:
        BuildError: there is no item, or it did not come in time.
    """
    dataset = source.dataset("train")
    if not holds_items(dataset):
        return _shapes_of_batches(source, dataset, batch_size, seed)
    if not len(dataset):
        raise BuildError("config.data must have training clips, got none: is the root right?")
    try:
        first = within(lambda: dataset[0], timeout_s, lambda: None)
    except TooLateError:
        name = dataset.name(0) if hasattr(dataset, "name") else "item 0"
        raise BuildError(
            f"config.data must give its first clip within data.timeout_s={timeout_s:g} s, and "
            f"{name} did not come; look at the file and its disk, or raise the time"
        ) from None
    item = {"ids": np.int32(0), "weights": np.float32(1), **first}
    return {
        name: jax.ShapeDtypeStruct((batch_size, *np.shape(value)), value.dtype)
        for name, value in item.items()
    }


def _shapes_of_batches(
    source: Any, dataset: Any, batch_size: int, seed: int
) -> dict[str, jax.ShapeDtypeStruct]:
    if hasattr(dataset, "__next__") and source.dataset("train") is dataset:
        raise BuildError(
            "config.data must give a new iterator each time it is asked for one, or the batch that "
            f"is looked at here is lost; got the same {type(dataset).__name__} twice: return "
            "data.Batches(FUNCTION) or a new one, or make one data.Batches of it and keep that"
        )
    try:
        first = IterableLoader(dataset, batch_size=batch_size, seed=seed).first()
    except ValueError as error:
        raise BuildError(f"config.data: {error}") from error
    shapes = {
        name: jax.ShapeDtypeStruct(tuple(value.shape), value.numpy().dtype)
        for name, value in first.items()
    }
    if "audio" in shapes and shapes["audio"].shape[1:2] != (source.num_samples,):
        raise BuildError(
            f"config.data must give audio [batch, num_samples={source.num_samples}, ...], got "
            f"{shapes['audio'].shape}: set num_samples to the length of the clips"
        )
    return shapes


def _check_shapes(experiment: Experiment, num_classes: int) -> None:
    config, task, physics = experiment.config, experiment.task, experiment.physics
    with _blame("data", config, "gives no first batch"):
        shapes = batch_shapes(
            experiment.source, config.batch_size, config.seed, config.data.timeout_s
        )
    key = jax.eval_shape(lambda: jax.random.key(0))
    with _blame("physics", config, "init(key) failed"):
        params = jax.eval_shape(physics.init, key)
    if hasattr(task, "features"):
        if "audio" not in shapes:
            raise BuildError(
                f"config.data must give `audio` for config.task ({config.task.target}), got "
                f"{', '.join(shapes)}: rename what holds it, as data:Iterables does by `rename`"
            )
        audio = shapes["audio"]
        with _blame("physics", config, f"apply failed on audio {audio.shape} {audio.dtype}"):
            features, _ = jax.eval_shape(task.features, params, shapes)
        frames = physics.num_frames(audio.shape[1])
        if features.ndim != 3 or features.shape[:2] != (config.batch_size, frames):
            raise BuildError(
                f"config.physics ({config.physics.target}) must give features [batch, frames, "
                f"channels] = [{config.batch_size}, {frames}, ...] for audio {audio.shape}, got "
                f"{features.shape}: make apply and num_frames agree"
            )
        where = f"failed on features {features.shape} of config.physics ({config.physics.target})"
    else:
        where = f"and config.physics ({config.physics.target}) do not fit"
    with _blame("learner", config, where):
        params, learner_params, collections = jax.eval_shape(task.init, key, shapes)
    joined = (
        f"on config.physics ({config.physics.target}) and config.learner ({config.learner.target}):"
    )
    with _blame("task", config, f"{joined} loss failed"):
        loss, aux = jax.eval_shape(
            lambda p, q, c, b, k: task.loss(p, q, c, b, k, train=True),
            params,
            learner_params,
            collections,
            shapes,
            key,
        )
    with _blame("task", config, "must give aux with `metrics` and `collections`, but"):
        _ = aux["metrics"], aux["collections"]
    with _blame("task", config, f"{joined} loss failed in evaluation (train=False, key=None)"):
        jax.eval_shape(
            lambda p, q, c, b: task.loss(p, q, c, b, None, train=False),
            params,
            learner_params,
            collections,
            shapes,
        )
    with _blame("task", config, "must be hashable, as its physics and learner must, but"):
        hash(task)
    if loss.shape != ():
        raise BuildError(
            f"config.task ({config.task.target}) must return a scalar loss, got {loss.shape}"
        )
    logits = aux.get("outputs", {}).get("logits")
    if logits is not None and logits.shape[-1] != num_classes:
        raise BuildError(
            f"config.learner ({config.learner.target}) must give one logit a class, "
            f"[{config.batch_size}, {num_classes}], got {logits.shape}: leave out "
            "learner.kwargs.num_classes, or set it to the data's classes"
        )


@contextlib.contextmanager
def _blame(part: str, config: ConfigDict, what: str) -> Iterator[None]:
    """Turns any failure inside a part into an error that names its field."""
    try:
        yield
    except (BuildError, AudioFileError):
        raise
    except Exception as error:  # of whatever code the part is
        raise BuildError(
            f"config.{part} ({config[part].target}) {what}: {type(error).__name__}: {error}"
        ) from error
