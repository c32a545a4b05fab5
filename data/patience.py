"""Exists so that a read in this process, from a disk that hangs, is not waited for without end."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

_POLL_S = 1.0


class TooLateError(Exception):
    """Something did not come to an end in time."""


def within(work: Callable[[], Any], limit_s: float | int, progress: Callable[[], Any]) -> Any:
    """Returns `work()`, done in a thread of its own, for no read of a disk can be broken off.

    Args:
        work: what is to be done.
        limit_s: for how long nothing may happen.
        progress: whatever it returns, if it is something new, then something has happened.

    Raises:
        TooLateError: nothing happened for `limit_s`. The thread is left behind; it does not keep
            the process alive.
        Exception: what `work` raises.
    """
    told: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def tell() -> None:
        try:
            told.put((work(), None))
        except BaseException as error:  # noqa: BLE001  # raised below, in the caller's thread
            told.put((None, error))

    threading.Thread(target=tell, daemon=True, name="reader").start()
    seen, since = progress(), time.monotonic()
    while True:
        try:
            value, error = told.get(timeout=min(_POLL_S, limit_s))
        except queue.Empty:
            if (now := progress()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since >= limit_s:
                raise TooLateError from None
            continue
        if error is not None:
            raise error
        return value
