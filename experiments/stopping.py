"""Ends a command when SIGTERM or SIGINT asks for it, with a code that means "run it again".

Holds no jax: data workers import it with the command.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

EXIT_STOPPED = 75
"""EX_TEMPFAIL of sysexits.h: stopped by a signal; the same command goes on."""
GRACE_S = 25.0
"""Most batch systems kill 30 s after they have asked."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stoppable(grace_s: Callable[[], float]) -> Iterator[None]:
    """Within it SIGTERM and SIGINT end the process with `EXIT_STOPPED`.

    `hybrid.fit` holds the first one back until a checkpoint is written. A second one, or the end of
    the time of grace, ends the process whatever it does, compiling included: a thread watches, for
    Python runs no handler while the main thread is inside of a library.

    Args:
        grace_s: seconds from the first signal to the end at the latest; asked when one comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in _SIGNALS}
    # A job in the background is to ignore Ctrl-C. None is a handler that is not Python's, and could
    # not be put back.
    before = {n: handler for n, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, _end)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    earlier = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(read_end, grace_s), daemon=True, name="signals")
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write_end)
        watch.join()


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Within it, inside `stoppable`, a first signal raises SystemExit in place of ending at once.

    For work that leaves something behind to be cleared away, and holds signals not otherwise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in _SIGNALS if signal.getsignal(number) is _end]
    for number in numbers:
        signal.signal(number, _unwind)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, _end)


def _unwind(*_: object) -> None:
    sys.exit(EXIT_STOPPED)


def _watch(read_end: int, grace_s: Callable[[], float]) -> None:
    """Counts signals as they arrive; ends with the pipe, or the process at the second one."""
    deadline = None
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([pipe], [], [], left_s)[0]:
                os.write(2, b"no checkpoint in time: ending without\n")
                _end()
            if not (numbers := pipe.read(64)):
                return
            for _ in filter(_SIGNALS.__contains__, numbers):
                if deadline is not None:
                    _end()
                deadline = time.monotonic() + grace_s()


def _end(*_: object) -> None:
    """Ends the process at once; what it had written so far is good to go on from."""
    for stream in (sys.stdout, sys.stderr):
        # Whoever was writing to it may have been interrupted in the middle.
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(EXIT_STOPPED)
