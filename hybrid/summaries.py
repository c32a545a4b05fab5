"""What a run shows of itself: parameters in physical units, pictures of features, sounds."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from data.bridge import to_jax
from hybrid.paths import named_leaves

Tree = Any


def parameter_scalars(physics: Any, params: Tree) -> dict[str, float]:
    """Physical values by dotted name; of a leaf with many values, its mean, least and largest."""
    scalars = {}
    for name, leaf in named_leaves(jax.device_get(physics.physical(params))).items():
        if leaf.size == 1:
            scalars[name] = float(leaf.reshape(()))
        elif leaf.size:
            for kind in ("mean", "min", "max"):
                scalars[f"{name}/{kind}"] = float(getattr(np, kind)(leaf))
    return scalars


def write_parameters(writer: Any, step: int, physics: Any, params: Tree) -> None:
    """Writes the physics parameters in physical units, as a row of their own."""
    writer.scalars(step, parameter_scalars(physics, params), split="physics")


def has_examples(task: Any) -> bool:
    """Whether `write_examples` looks at a batch for this task."""
    return hasattr(task, "examples") or hasattr(task, "features")


def write_examples(writer: Any, step: int, task: Any, state: Any, batches: Any) -> None:
    """Writes what the first clip that counts, of the first batch, looks and sounds like.

    A task with `examples(physics_params, learner_params, learner_collections, batch)` offers
    sounds `{name: [batch, time]}` and pictures `{name: [batch, frames, channels]}`, of which those
    called GROUP/NAME share the scale of their group; of one with `features(physics_params, batch)`
    the features are drawn; of another nothing. A sound that is not finite is left out, and logged.
    """
    if not has_examples(task):
        return
    batch, _ = to_jax(next(iter(batches)))
    if hasattr(task, "examples"):
        _write_examples(writer, step, task, state, batch)
        return
    features, mask = jax.device_get(task_features(task, state.physics.params, batch))
    clips = [clip[valid] for clip, valid in zip(features, mask, strict=True) if valid.any()]
    if clips:
        writer.image(step, "cochleagram", features_image(clips[0]))


def at_one_gain(clips: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Clips to be compared, all softer alike if one of them exceeds full scale, 1.0.

    What is not finite in them has no say in the gain.
    """
    finite = (np.abs(clip[np.isfinite(clip)]) for clip in clips.values())
    peak = max([1.0, *(float(sizes.max(initial=0)) for sizes in finite)])
    return {name: clip / peak for name, clip in clips.items()}


def _write_examples(writer: Any, step: int, task: Any, state: Any, batch: Any) -> None:
    lengths = np.asarray(batch["lengths"])
    rows = np.flatnonzero((np.asarray(batch["weights"]) > 0) & (lengths > 0))
    if not rows.size:
        return
    # The whole batch, whose shape evaluation has; only one row of it is kept.
    sounds, pictures = jax.device_get(
        task_examples(
            task, state.physics.params, state.learner.params, state.collections, batch, rows[0]
        )
    )
    sounds = {name: sound[: lengths[rows[0]]] for name, sound in sounds.items()}
    bad = [name for name, sound in sounds.items() if not np.isfinite(sound).all()]
    if bad:
        logging.warning("step %d: not finite, so not to be heard: %s", step, ", ".join(bad))
    sounds = {name: sound for name, sound in sounds.items() if name not in bad}
    for name, sound in at_one_gain(sounds).items():
        writer.audio(step, f"audio/{name}", sound, task.physics.sample_rate_hz)
    groups = {name: name.rpartition("/")[0] or name for name in pictures}
    for name, picture in pictures.items():
        alike = [pictures[other] for other in pictures if groups[other] == groups[name]]
        writer.image(step, name, features_image(picture, _limits(alike)))


def features_image(features: np.ndarray, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Turns features [frames, channels] into an image [height, width, 3], first channel on top.

    That is the highest of a cochlea, and the lowest of a mel spectrogram.

    Args:
        features: what is not finite is drawn in black.
        limits: values of the darkest and the brightest colour; None: the least and the largest.
    """
    from matplotlib import colormaps

    low, high = limits or _limits([features])
    scaled = (features - low) / max(high - low, 1e-12)
    pixels = np.kron(scaled.T, np.ones((2, 2), scaled.dtype))
    return (colormaps["magma"](pixels)[..., :3] * 255).astype(np.uint8)


def _limits(pictures: Iterable[np.ndarray]) -> tuple[float, float]:
    """The least and the largest finite value of all."""
    values = np.concatenate([picture[np.isfinite(picture)] for picture in pictures])
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


@functools.partial(jax.jit, static_argnames="task")
def task_features(task: Any, params: Tree, batch: Any) -> Any:
    """Features and mask of a batch; compiled once a task and batch shape."""
    return task.features(params, batch)


@functools.partial(jax.jit, static_argnames="task")
def task_examples(
    task: Any, physics_params: Tree, learner_params: Tree, collections: Tree, batch: Any, row: Any
) -> Any:
    """What a task offers to see and hear of one row of a batch."""
    given = task.examples(physics_params, learner_params, collections, batch)
    return jax.tree.map(lambda rows: rows[row], given)
