"""What a run shows of its physics: parameters in physical units, and a picture of the features."""

import functools
from typing import Any

import jax
import numpy as np

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


def write_pictures(writer: Any, step: int, task: Any, params: Tree, batches: Any) -> None:
    """Writes the features of the first clip that has any, of the first batch, as an image."""
    if not hasattr(task, "features"):
        return
    batch, _ = to_jax(next(iter(batches)))
    features, mask = jax.device_get(task_features(task, params, batch))
    clips = [clip[valid] for clip, valid in zip(features, mask, strict=True) if valid.any()]
    if clips:
        writer.image(step, "cochleagram", features_image(clips[0]))


def features_image(features: np.ndarray) -> np.ndarray:
    """Turns features [frames, channels] into an image [height, width, 3], high channels on top."""
    from matplotlib import colormaps

    low, high = np.min(features, initial=np.inf), np.max(features, initial=-np.inf)
    scaled = (features - low) / max(high - low, 1e-12) if features.size else features
    pixels = np.kron(scaled.T, np.ones((2, 2), scaled.dtype))
    return (colormaps["magma"](pixels)[..., :3] * 255).astype(np.uint8)


@functools.partial(jax.jit, static_argnames="task")
def task_features(task: Any, params: Tree, batch: Any) -> Any:
    """Features and mask of a batch; compiled once a task and batch shape."""
    return task.features(params, batch)
