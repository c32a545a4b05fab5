"""Exists to give memory that is free back to the system, which glibc keeps otherwise."""

import ctypes
import functools
from collections.abc import Callable


def give_back_free_memory() -> None:
    """Returns free pages of the C library's heap to the system; does nothing without glibc.

    Compiling leaves hundreds of megabytes of holes, in which evaluations and checkpoints then
    settle, each somewhere else: the process would grow for hours without holding more. It takes
    some milliseconds.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        function = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    function.argtypes, function.restype = [ctypes.c_size_t], ctypes.c_int
    return function
