"""Exists to say no early: the rule, the value met, the way out."""

from __future__ import annotations

import difflib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from physics.carfac import ear, framing
from physics.carfac.structures import IHC_STYLES, OUTPUTS

KERNELS = ("auto", "native", "xla")
EAR_FILTERS = ("none", *ear.PHASES)


def check_fields(model: Any) -> None:
    """Raises ValueError for a `Carfac` field that has no meaning."""
    _one_of("ihc", model.ihc, IHC_STYLES)
    _one_of("kernel", model.kernel, KERNELS)
    _one_of("window", model.window, framing.WINDOWS)
    _one_of("compression", model.compression, framing.COMPRESSIONS)
    _one_of("ear_filter", model.ear_filter, EAR_FILTERS)
    _one_of("sound_field", model.sound_field, ear.SOUND_FIELDS)
    if not 8000 <= model.sample_rate_hz <= 96000:
        raise ValueError(
            "sample_rate_hz must lie between 8000 and 96000, where the design holds; got "
            f"{model.sample_rate_hz:g}. Resample the audio."
        )
    if model.n_ears < 1:
        raise ValueError(f"n_ears must be at least 1; got {model.n_ears}. Count the ears.")
    if any(decimation < 1 for decimation in model.agc_decimations):
        raise ValueError(
            f"agc_decimations must be whole numbers from 1 up; got {model.agc_decimations}. "
            "() is no gain control."
        )
    for name in ("hop_s", "window_s"):
        value = getattr(model, name)
        if value is not None and not value > 0:
            raise ValueError(
                f"{name} must be positive, or None; got {value:g}. Give seconds, such as 0.01."
            )


def check_audio(audio: Any, n_ears: int) -> None:
    """Raises ValueError for audio of a shape the model cannot hear."""
    shape = tuple(audio.shape)
    if len(shape) not in (2, 3):
        raise ValueError(
            f"Audio must be [batch, time] or [batch, time, ears]; got shape {shape}. "
            "A single clip is audio[None]."
        )
    ears = shape[2] if len(shape) == 3 else 1
    if ears != n_ears:
        raise ValueError(
            f"Audio must have one signal for each ear; the model has n_ears={n_ears}, the audio of "
            f"shape {shape} has {ears}. Set n_ears={ears}, or stack the ears on a third axis."
        )
    if shape[1] == 0:
        raise ValueError(
            f"Audio must hold at least one sample; got shape {shape}. Skip empty clips."
        )


def check_piece(n_samples: int, hop_samples: int) -> None:
    """Raises ValueError for a piece of a stream that does not end with a frame."""
    if n_samples % hop_samples:
        raise ValueError(
            "Pieces of a framed stream must be multiples of hop_samples; got "
            f"{n_samples} samples with hop_samples={hop_samples}. Cut the stream there, or take "
            "full rate (hop_s=None)."
        )


def check_outputs(outputs: Any, ihc: str) -> None:
    """Raises ValueError for an output that does not exist, or not in this model."""
    for name in outputs:
        _one_of("outputs", name, OUTPUTS)
        if name == "firings" and ihc != "two_cap_with_syn":
            raise ValueError(
                f"firings are those of the synapse; this model has ihc={ihc!r}. "
                "Set ihc='two_cap_with_syn'."
            )


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, 1)
        way_out = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}. {way_out}")


def check_state(state: Any, framed: bool, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a state of another kind of model, or of other clips, ears or channels.

    Args:
      state: as the caller gave it; None is always right.
      framed: is it for frames (`hop_s`), and not for full rate?
      shape: `[batch, ears, channels]` that it must have.
    """
    if state is None:
        return
    if hasattr(state, "cochlea") != framed:
        wanted = "frames (`apply`, with hop_s)" if framed else "full rate (`run`, or no hop_s)"
        raise ValueError(
            f"state must be one that {wanted} returned; got {type(state).__name__}. Pass on what "
            "the same method of the same model returned, or None to start afresh."
        )
    got = tuple((state.cochlea if framed else state).z1.shape)
    if got != shape:
        raise ValueError(
            f"state must be that of the same clips, ears and channels as the audio, {shape}; got "
            f"{got}. Pass on what the piece before returned, or init_state({shape[0]})."
        )


def check_finite(audio: Any, lengths: Any = None) -> None:
    """Raises ValueError for the first NaN or Inf in audio whose values are known.

    Under `jit`, `grad` by the audio or `vmap` they are not: nothing is checked and nothing costs,
    and what becomes of a NaN is for the caller, such as the training loop, to decide.

    Args:
      audio: `[batch, time]` or `[batch, time, ears]`.
      lengths: `[batch]` valid samples; what lies beyond may be anything.
    """
    if isinstance(audio, Tracer) or isinstance(lengths, Tracer):
        return
    if isinstance(audio, jax.Array):
        # One pass where the audio lies; inside a trace, constants of it are still constants.
        with jax.ensure_compile_time_eval():
            if bool(jax.device_get(jnp.isfinite(audio).all())):
                return
    bad = ~np.isfinite(np.asarray(audio))
    if lengths is not None:
        times = np.arange(bad.shape[1])[None]
        inside = times < np.asarray(lengths)[:, None]
        bad &= inside.reshape(inside.shape + (1,) * (bad.ndim - 2))
    if not bad.any():
        return
    first = tuple(np.argwhere(bad)[0].tolist())
    clip, sample, of_ear = (*first, 0)[:3]
    value, where = np.asarray(audio)[first], f"clip {clip}, sample {sample}, ear {of_ear}"
    raise ValueError(
        f"Audio must be finite; got {value} first at {where}, and {bad.sum()} such samples in all. "
        "Leave the clip out, or mend it: numpy.nan_to_num(audio)."
    )
