"""Exists to find, check and register the compiled kernels, once, when they are first asked for."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import logging
import sys
from pathlib import Path

import jax

FORWARD = "hybrid_carfac_forward"
BACKWARD = "hybrid_carfac_backward"
# Of ffi.cc: a library that was compiled from other sources than these must not be called.
_INTERFACE = 1
_HOW_TO_COMPILE = (
    "To compile it, install a C++17 compiler (g++ or clang++) and install the package again, or "
    "run `python setup.py build_ext --inplace` in a checkout. Until then kernel='xla' does the "
    "same, more slowly."
)

_logger = logging.getLogger(__name__)


@functools.lru_cache(maxsize=1)
def reason_unavailable() -> str | None:
    """Why the native kernel cannot be used here, or None if it can; registers it then."""
    path = _find()
    if path is None:
        return f"The native CAR-FAC kernel was not compiled. {_HOW_TO_COMPILE}"
    try:
        library = ctypes.CDLL(str(path))
        library.hybrid_carfac_interface.restype = ctypes.c_int64
        interface = library.hybrid_carfac_interface()
        if interface != _INTERFACE:
            return (
                f"The native CAR-FAC kernel in {path} was compiled from other sources (interface "
                f"{interface}, this code has {_INTERFACE}). {_HOW_TO_COMPILE}"
            )
        for name in (FORWARD, BACKWARD):
            jax.ffi.register_ffi_target(
                name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu"
            )
    except Exception as error:  # noqa: BLE001 - whatever it is, there is another way to compute
        return (
            f"The native CAR-FAC kernel in {path} does not fit this jaxlib ({jax.__version__}): "
            f"{error}. {_HOW_TO_COMPILE}"
        )
    return None


@functools.lru_cache(maxsize=1)
def warn_once() -> None:
    """Says, the first time, that there is no native kernel and why."""
    reason = reason_unavailable()
    if reason is not None:
        _logger.warning("%s", reason)


def _find() -> Path | None:
    if sys.platform not in ("linux", "darwin"):
        return None
    folder = Path(__file__).parent
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_kernels{suffix}"
        if path.exists():
            return path
    return None
