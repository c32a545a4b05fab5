"""Tells a full disk from other failures, and says what is safe and what to do."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

# EFBIG is the limit on the size of a file (`ulimit -f`).
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(OSError):
    """The disk has no more room, or this user may have no more of it."""


@contextlib.contextmanager
def full_disk_explained(workdir: str | Path) -> Iterator[None]:
    """Turns any error that a full disk has caused into `DiskFullError`.

    Args:
        workdir: of the run that goes on in the block.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise DiskFullError(
            f"a run must be able to write to {workdir}, and the disk is full ({error}). The "
            "checkpoints there are whole: free some space and run the same command again"
        ) from error


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, comes from a full disk."""
    while error is not None:
        # Libraries written in C++ hand the system's words on, not its number.
        told = any(os.strerror(number) in str(error) for number in _FULL)
        if (isinstance(error, OSError) and error.errno in _FULL) or told:
            return True
        error = error.__cause__ or error.__context__
    return False
