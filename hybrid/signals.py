"""Holds back the signals that ask a run to end, until nothing would be lost by ending it."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(KeyboardInterrupt):
    """Ends a wait because a signal has come."""


class RunStopped(KeyboardInterrupt):
    """A signal ended `hybrid.fit` before its last step; the message says where the run goes on."""


class HeldSignals:
    """Keeps the first SIGTERM or SIGINT waiting while the `with` block lasts.

    What it was meant for gets it afterwards: whoever handled the signal before (Python's own
    KeyboardInterrupt among them, and the end of the process where nobody did). A second signal is
    passed on at once. If the block ends with an error, that is what is told, and the signal is
    dropped: whoever sent it must not take a failure for an end in good order. Signals that were
    ignored stay so; in a thread that is not the main one, where Python allows no handlers, nothing
    is held.

    Attributes:
        pending: the signal that waits, if one does.
    """

    def __init__(self) -> None:
        """Changes nothing yet."""
        self.pending: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._raises = False

    def __enter__(self) -> "HeldSignals":
        if threading.current_thread() is threading.main_thread():
            try:
                for number in _SIGNALS:
                    before = signal.getsignal(number)
                    # None is a handler that is not Python's, and could not be put back.
                    if before not in (signal.SIG_IGN, None):
                        self._before[number] = before
                        signal.signal(number, self._hold)
            except BaseException:
                # Ctrl-C between two of them: `__exit__` will not be called.
                self._give_back()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()
        if self.pending is None or isinstance(error, Exception):
            return
        told = isinstance(error, KeyboardInterrupt)
        if not (told and signal.getsignal(self.pending) is signal.default_int_handler):
            signal.raise_signal(self.pending)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within it a signal, also one that waits already, raises `StopRequested`.

        For code that only waits or computes: it may be left at any of its instructions.
        """
        try:
            self._raises = True
            if self.pending is not None:
                raise StopRequested
            yield
        finally:
            self._raises = False

    def _hold(self, number: int, _: FrameType | None) -> None:
        if self.pending is not None:
            self._give_back()
            signal.raise_signal(number)
            return
        self.pending = signal.Signals(number)
        with contextlib.suppress(OSError):
            # Not through `sys.stderr`, which may be in the middle of a line.
            text = f"{self.pending.name}: ending with a checkpoint; once more ends at once\n"
            os.write(2, text.encode())
        if self._raises:
            raise StopRequested

    def _give_back(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}
