"""Exists to give the conformance checks what they need: short sounds, names, comparisons."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from physics.base import dotted

_SHORTEST = 96  # samples, of modules whose frames are shorter than that


def piece_samples(module: Any) -> int:
    """A whole number of frames, and a few of them."""
    hop = module.hop_samples
    return hop * max(4, -(-_SHORTEST // hop))


def noise(module: Any, num_samples: int, batch: int = 2, dtype: Any = np.float32) -> jax.Array:
    """Audio `[batch, time]`, `[batch, time, ears]` for several ears; the same every time."""
    rng = np.random.default_rng(0)
    shape = (batch, num_samples, *ears(module))
    return jnp.asarray(0.1 * rng.standard_normal(shape), dtype)


def controls(module: Any, n_frames: int, batch: int = 2, dtype: Any = np.float32) -> dict[str, Any]:
    """Controls of a synthesiser, a key for each clip among them; the same every time."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, size in module.control_sizes.items():
        shape = (batch, n_frames) if size == 1 else (batch, n_frames, size)
        value = rng.standard_normal(shape)
        if name.endswith("_hz"):
            value = module.sample_rate_hz / 50 * 1.3**value
        found[name] = jnp.asarray(value, dtype)
    return found | {"key": jax.random.split(jax.random.key(0), batch)}


def split_key(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Controls that have gradients, and the key."""
    return {n: x for n, x in given.items() if n != "key"}, {"key": given["key"]}


def of_clips(inputs: Any, clips: slice, frames: slice = slice(None)) -> Any:
    """Some clips of audio, or some clips and frames of controls."""
    if not isinstance(inputs, dict):
        return inputs[clips]
    return {n: x[clips] if n == "key" else x[clips, frames] for n, x in inputs.items()}


def example(module: Any, batch: int = 2) -> Any:
    """What the module takes: a few frames of audio, or of controls."""
    if hasattr(module, "control_sizes"):
        return controls(module, 4, batch)
    return noise(module, piece_samples(module), batch)


def hostile(module: Any) -> dict[str, jax.Array]:
    """Sounds at which gradients break: silence, a click, full scale, DC, subnormal numbers."""
    num_samples = piece_samples(module)
    time = np.arange(num_samples)
    shapes = {
        "silence": np.zeros(num_samples),
        "a click": (time == num_samples // 3).astype(float),
        "a full-scale square wave": np.sign(np.sin(0.3 * time)),
        "DC": np.full(num_samples, 0.5),
        "subnormal numbers": np.full(num_samples, 1e-40),
    }
    width = (1,) * len(ears(module))
    return {
        name: jnp.asarray(
            np.broadcast_to(x.reshape(1, -1, *width), (1, num_samples, *ears(module))), np.float32
        )
        for name, x in shapes.items()
    }


def weights(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Numbers of both signs, so that no sum of features vanishes by symmetry."""
    return np.random.default_rng(2).standard_normal(shape).astype(dtype)


def ears(module: Any) -> tuple[int, ...]:
    """The last axis of audio: none for one ear."""
    count = getattr(module, "n_ears", 1)
    return (count,) if count > 1 else ()


def leaves(tree: Any) -> list[tuple[str, Any]]:
    """Leaves with the names that users give them."""
    return [(dotted(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def closeness(dtype: Any) -> float:
    """How far two results may differ, relative to the largest, that should be the same."""
    return 2e-4 if dtype == np.float32 else 1e-9


def require_close(got: Any, wanted: Any, rule: str, tolerance: float | int | None = None) -> None:
    """Raises AssertionError if arrays differ by more than `tolerance` of the largest value."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        raise AssertionError(f"{rule}: got shapes {got.shape} and {wanted.shape}.")
    if not got.size:
        return
    limit = closeness(got.dtype) if tolerance is None else tolerance
    scale = max(float(np.abs(wanted).max()), float(np.finfo(np.float32).tiny))
    error = float(np.abs(got - wanted).max()) / scale
    if not error <= limit:
        raise AssertionError(f"{rule}: they differ by {error:.2g} of the largest, limit {limit:g}.")


def require(holds: Any, rule: str) -> None:
    """Raises AssertionError with the rule if it does not hold."""
    if not holds:
        raise AssertionError(rule)
