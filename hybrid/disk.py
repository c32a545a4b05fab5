"""Tells a full disk from other failures, and says what is safe and what to do."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

# EFBIG is the limit on the size of a file (`ulimit -f`).
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Where data workers hand over their batches, and what torch says when it has no room there.
_SHARED = ("/dev/shm", "shared memory", "</torch_", "DataLoader worker")


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
    except Exception as error:  # libraries in C++ raise types of their own for a full disk
        if not is_full(error):
            if _told(error) and _is_shared(error):
                error.add_note(
                    "This is not the disk of the work directory but the shared memory of the "
                    "data workers: enlarge /dev/shm, or lower config.data.num_workers"
                )
            raise
        raise DiskFullError(
            f"a run must be able to write to {workdir}, and the disk is full ({error}). The "
            "checkpoints there are whole: free some space and run the same command again"
        ) from error


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, comes from a full disk.

    The memory that data workers share is no disk, though the system calls it one.
    """
    while error is not None:
        if _told(error):
            return not _is_shared(error)
        error = error.__cause__ or error.__context__
    return False


def _told(error: BaseException) -> bool:
    # Libraries written in C++ hand the system's words on, not its number.
    told = any(os.strerror(number) in str(error) for number in _FULL)
    numbered = isinstance(error, OSError) and error.errno in _FULL
    return isinstance(error, DiskFullError) or numbered or told


def _is_shared(error: BaseException) -> bool:
    return any(words in str(error) for words in _SHARED)
