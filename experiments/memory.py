"""Keeps memory that is freed for the next step, where the C library would give it back."""

import ctypes
import os

# mallopt(3), of glibc.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed, until the process ends.

    A step frees arrays of many megabytes that the next one needs again. Left alone, glibc returns
    them to the system, and the system clears every page before it lends it anew: that takes longer
    than a fast model's forward pass. The price is that what was needed once, for compiling say, is
    held until the end, and that arrays of zeros are written where fresh pages were zero already.
    Other threads than the main one have heaps of 64 MB: what does not fit is returned as before.
    `experiments.train --keep_memory` calls this; a program of your own may, before its first array.

    Someone who set `MALLOC_...`, or `glibc.malloc` in `GLIBC_TUNABLES`, has chosen: nothing is
    changed.

    Returns:
        Whether glibc was told. False on systems without it; an allocator that was loaded in its
        place does not listen.
    """
    chosen = any(name.startswith("MALLOC_") for name in os.environ)
    if chosen or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "gnu_get_libc_version"):  # others have a mallopt of other meaning
            return False
        # Without mappings of their own large blocks come from the heap too, which is not trimmed.
        kept = libc.mallopt(_TRIM_THRESHOLD, -1), libc.mallopt(_MMAP_MAX, 0)
    except (OSError, AttributeError, TypeError):
        return False
    return all(kept)
