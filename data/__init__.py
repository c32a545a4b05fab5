"""Recordings on disk, as batches for JAX: sources, augmentation, loader and bridge.

Importing this package does not import jax, which DataLoader workers must never hold: what needs jax
is loaded when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from data.audio_files import AudioFileError
from data.convert import IterableError
from data.foreign import Batches, Iterables
from data.iterable_loader import IterableLoader
from data.loader import Loader, LoaderError
from data.source import AudioSource, ClipDataset, DataRootError, ItemDataset
from data.speech_commands import SpeechCommands
from data.tones import SpokenTones
from data.transforms import BackgroundNoise, RandomGain, RandomShift, Transform, WhiteNoise

if TYPE_CHECKING:
    from data.bridge import BridgeReport, to_jax
    from data.prefetch import Prefetch

__all__ = [
    "AudioFileError",
    "AudioSource",
    "BackgroundNoise",
    "Batches",
    "BridgeReport",
    "ClipDataset",
    "DataRootError",
    "ItemDataset",
    "IterableError",
    "IterableLoader",
    "Iterables",
    "Loader",
    "LoaderError",
    "Prefetch",
    "RandomGain",
    "RandomShift",
    "SpeechCommands",
    "SpokenTones",
    "Transform",
    "WhiteNoise",
    "to_jax",
]

_NEEDS_JAX = {"BridgeReport": "bridge", "to_jax": "bridge", "Prefetch": "prefetch"}


def __getattr__(name: str) -> Any:
    """Loads what needs jax on demand."""
    if name not in _NEEDS_JAX:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_NEEDS_JAX[name]}"), name)
