"""Exists to say no early: the rule, the value met, the way out."""

from __future__ import annotations

from typing import Any

from physics.carfac import framing
from physics.carfac.structures import IHC_STYLES, OUTPUTS

KERNELS = ("auto", "native", "xla")


def check_fields(model: Any) -> None:
    """Raises ValueError for a `Carfac` field that has no meaning."""
    _one_of("ihc", model.ihc, IHC_STYLES)
    _one_of("kernel", model.kernel, KERNELS)
    _one_of("window", model.window, framing.WINDOWS)
    _one_of("compression", model.compression, framing.COMPRESSIONS)
    if not 8000 <= model.sample_rate_hz <= 96000:
        raise ValueError(
            "sample_rate_hz must lie between 8000 and 96000, where the design holds; got "
            f"{model.sample_rate_hz:g}. Resample the audio."
        )
    if model.n_ears < 1:
        raise ValueError(f"n_ears must be at least 1; got {model.n_ears}.")
    if any(decimation < 1 for decimation in model.agc_decimations):
        raise ValueError(
            f"agc_decimations must be whole numbers from 1 up; got {model.agc_decimations}."
        )
    for name in ("hop_s", "window_s"):
        value = getattr(model, name)
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive, or None; got {value:g}.")


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
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}.")
