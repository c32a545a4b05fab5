"""Exists to say no early: the rule, the value met, the way out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from physics.audio import one_of
from physics.base import dotted
from physics.carfac import ear, framing
from physics.carfac.structures import IHC_STYLES, OUTPUTS

KERNELS = ("auto", "native", "xla")
EAR_FILTERS = ("none", *ear.PHASES)


def check_fields(model: Any) -> None:
    """Raises ValueError for a `Carfac` field that has no meaning."""
    one_of("ihc", model.ihc, IHC_STYLES)
    one_of("kernel", model.kernel, KERNELS)
    one_of("window", model.window, framing.WINDOWS)
    one_of("compression", model.compression, framing.COMPRESSIONS)
    one_of("ear_filter", model.ear_filter, EAR_FILTERS)
    one_of("sound_field", model.sound_field, ear.SOUND_FIELDS)
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


def check_outputs(outputs: Any, ihc: str) -> None:
    """Raises ValueError for an output that does not exist, or not in this model."""
    for name in outputs:
        one_of("outputs", name, OUTPUTS)
        if name == "firings" and ihc != "two_cap_with_syn":
            raise ValueError(
                f"firings are those of the synapse; this model has ihc={ihc!r}. "
                "Set ihc='two_cap_with_syn'."
            )


def check_state(state: Any, wanted: Any) -> None:
    """Raises ValueError for a state of another model, or of other clips, ears or channels.

    Args:
      state: as the caller gave it; None is always right.
      wanted: what `init_state` gives for these clips; of its leaves only the shapes count.
    """
    if state is None:
        return
    framed = hasattr(wanted, "cochlea")
    if hasattr(state, "cochlea") != framed:
        kind = "frames (`apply`, with hop_s)" if framed else "full rate (`run`, or no hop_s)"
        raise ValueError(
            f"state must be one that {kind} returned; got {type(state).__name__}. Pass on what "
            "the same method of the same model returned, or None to start afresh."
        )
    got, expected = ({name: leaf.shape for name, leaf in _leaves(s)} for s in (state, wanted))
    for name in sorted({*got, *expected}):
        if got.get(name) != expected.get(name):
            batch = (wanted.cochlea if framed else wanted).z1.shape[0]
            raise ValueError(
                "state must be that of the same model, clips, ears and channels; its "
                f"{name} has the shape {got.get(name)} and not {expected.get(name)}. Pass on what "
                f"the piece before returned, or init_state({batch})."
            )


def _leaves(state: Any) -> list[tuple[str, Any]]:
    return [(dotted(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)]


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
