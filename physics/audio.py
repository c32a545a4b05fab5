"""Exists so that front ends take audio of any number of ears alike, and refuse what they cannot.

Inside, signals run along the last axis, `[batch, ears, time]`: transforms and filters want them so.
"""

from __future__ import annotations

import difflib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from physics.base import frame_mask, sample_mask


def heard(
    audio: Any, n_ears: int, params: Any = (), lengths: Any = None
) -> Float[Array, "batch ears time"]:
    """Audio of each ear along the last axis, 0 beyond `lengths`.

    Args:
      audio: `[batch, time]`, or `[batch, time, ears]`.
      n_ears: ears that the front end has.
      params: of the front end; audio is taken in their dtype, or in its own if there are none.
      lengths: `[batch]` valid samples.

    Raises:
      ValueError: audio of another shape, for other ears, or without a sample.
    """
    check_audio(audio, n_ears)
    leaves = jax.tree.leaves(params)
    audio = jnp.asarray(audio, leaves[0].dtype if leaves else None)
    if lengths is not None:
        mask = sample_mask(audio.shape[1], lengths)
        audio = jnp.where(mask.reshape(mask.shape + (1,) * (audio.ndim - 2)), audio, 0)
    return audio[:, None] if audio.ndim == 2 else jnp.swapaxes(audio, 1, 2)


def told(
    features: Float[Array, "batch ears frames channels"], hop_samples: int, lengths: Any = None
) -> Float[Array, "batch frames *ears channels"]:
    """Features in the order of the contract, 0 in frames that end beyond `lengths`."""
    features = jnp.swapaxes(features, 1, 2)
    if lengths is not None:
        mask = frame_mask(features.shape[1], hop_samples, lengths)
        features = jnp.where(mask[:, :, None, None], features, 0)
    return features[:, :, 0] if features.shape[2] == 1 else features


def check_floating(audio: Any) -> None:
    """Raises ValueError for audio that is not in floating point, whose full scale is not 1.0."""
    if not jnp.issubdtype(audio.dtype, jnp.floating):
        raise ValueError(
            f"Audio must be floating point, full scale 1.0; got {audio.dtype}. Divide 16-bit "
            "integers by 32768."
        )


def check_audio(audio: Any, n_ears: int) -> None:
    """Raises ValueError for audio that a module with so many ears cannot hear."""
    check_floating(audio)
    shape = tuple(audio.shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"Audio must be [batch, time] or [batch, time, ears]; got shape {shape}. "
            "A single clip is audio[None]."
        )
    given = shape[2] if len(shape) == 3 else 1
    if given != n_ears:
        raise ValueError(
            f"Audio must have one signal for each ear; the module has n_ears={n_ears}, the audio "
            f"of shape {shape} has {given}. Set n_ears={given}, or stack the ears on a third axis."
        )
    if shape[1] == 0:
        raise ValueError(
            f"Audio must hold at least one sample; got shape {shape}. Skip empty clips."
        )


def check_piece(n_samples: int, hop_samples: int, state: Any) -> None:
    """Raises ValueError for a later piece of a stream that does not end with a frame."""
    if state is not None and n_samples % hop_samples:
        raise ValueError(
            "Pieces of a framed stream must be multiples of hop_samples; got "
            f"{n_samples} samples with hop_samples={hop_samples}. Cut the stream there."
        )


def samples(seconds: float | int | None, sample_rate_hz: float | int) -> int:
    """The nearest number of samples, at least one; None is one sample."""
    return 1 if seconds is None else max(1, round(seconds * sample_rate_hz))


def check_positive(module: Any, *names: str) -> None:
    """Raises ValueError for the first field that is neither None nor positive."""
    for name in names:
        value = getattr(module, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive; got {value:g}. Give a larger number.")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises ValueError for a name that is not among those allowed."""
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, 1)
        way_out = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}. {way_out}")
