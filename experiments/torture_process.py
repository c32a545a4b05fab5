"""A command that `experiments.torture` starts again and again, and what its files tell of it.

Looks at processes through /proc, so it needs Linux.
"""

import json
import os
import random
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

_MARK = "TORTURE_MARK"
PATIENCE_S = 300.0
POLL_S = 0.002


class TortureError(RuntimeError):
    """A run did not do what it must do to be tortured further."""


class RunEndedError(TortureError):
    """The run has come to its end, so that it cannot be tortured any more."""


class Command:
    """A training command and its work directory.

    Attributes:
        startup_s: how long it takes until the first rows are written.
        training_s: how long the last `finish` took from there.
    """

    def __init__(
        self,
        command: Sequence[str],
        workdir: str | Path,
        rng: random.Random,
        startup_s: float = 10.0,
        window_s: float = 2.0,
    ) -> None:
        """Starts nothing yet.

        Args:
            command: the command with all of its arguments.
            workdir: the one that it is given.
            rng: decides the moments.
            startup_s: about how long it takes until the first rows are written.
            window_s: for how long it may train between two faults.
        """
        self.command, self.workdir, self.rng = list(command), Path(workdir), rng
        self.startup_s, self.window_s = startup_s, window_s
        self.training_s = 0.0
        self._files_before: set[Path] = set()
        self._rows_before: set[bytes] = set()
        self._mark = ""
        self.told = self.workdir.with_name(f"{self.workdir.name}.stderr")

    def start(self) -> subprocess.Popen:
        """Starts the command in a process group of its own, as a shell does."""
        self._files_before, self._rows_before = self._event_files(), set(self._rows())
        self._mark = uuid.uuid4().hex
        return self.start_beside(self.told)

    def start_beside(self, told: Path) -> subprocess.Popen:
        """Starts it beside the one that runs.

        Args:
            told: where its standard error goes.
        """
        told.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {_MARK: self._mark}
        with told.open("wb") as file:
            return subprocess.Popen(
                self.command, stderr=file, env=environment, start_new_session=True
            )

    def finish(self) -> None:
        """Lets the command come to its end.

        Raises:
            TortureError: it ended with an error.
        """
        begin = time.monotonic()
        process = self.start()
        while not self._runs() and process.poll() is None:
            time.sleep(POLL_S)
        self.startup_s = time.monotonic() - begin
        if process.wait() != 0:
            raise TortureError(f"the command failed:\n{self._text()}")
        self.training_s = time.monotonic() - begin - self.startup_s

    def end(self) -> None:
        """Kills whatever the newest start has left."""
        for pid in _marked(self._mark) if self._mark else ():
            os.kill(pid, signal.SIGKILL)

    def _two_checkpoints(self) -> list[Path]:
        """Returns all checkpoints, having trained further until there are two."""

        def found() -> list[Path]:
            return sorted((self.workdir / "checkpoints").glob("step_*"))

        if len(found()) < 2:
            process = self.start()
            self._wait(process, lambda: len(found()) >= 2)
            process.kill()
            process.wait()
        return found()

    def _told(self, process: subprocess.Popen) -> str:
        """Returns what a process wrote until its end, which is forced if it does not come."""
        try:
            return process.communicate(timeout=PATIENCE_S)[1].decode()
        except subprocess.TimeoutExpired:
            process.kill()
            return f"no end within {PATIENCE_S:g} s: {process.communicate()[1].decode()}"

    def _phase(self) -> str:
        """Says what the command is doing, as far as its files tell."""
        if not self._opened():
            return "while it starts"
        if self._saves():
            return "while it saves"
        if not self._runs():
            return "before its first rows"
        return "while it evaluates" if self._evaluates() else "while it trains"

    def _opened(self) -> bool:
        """Whether the loop has been built: the event file of this start is there."""
        return bool(self._event_files() - self._files_before)

    def _runs(self) -> bool:
        """Whether it has written a row; that of an earlier start has read the clock otherwise."""
        return self._opened() and not set(self._rows()) <= self._rows_before

    def _saves(self) -> bool:
        return any((self.workdir / "checkpoints").glob(".partial-*"))

    def _evaluates(self) -> bool:
        """Whether the newest row is the last of those before a validation row."""
        if not self._runs():
            return False
        cadence = json.loads((self.workdir / "config.json").read_text())["eval_every_steps"]
        last = json.loads(self._rows()[-1])
        return last["split"] == "physics" and last["step"] % cadence == 0

    def _rows(self) -> list[bytes]:
        path = self.workdir / "metrics.jsonl"
        if not path.exists():
            return []
        *lines, _ = path.read_bytes().split(b"\n")
        return lines

    def _event_files(self) -> set[Path]:
        return set((self.workdir / "tensorboard").glob("events.*"))

    def _workers(self) -> list[int]:
        """The processes of the newest start whose parent is one of them, and the fork server."""
        alive = _marked(self._mark)
        servers = {pid for pid in alive if "forkserver" in _read(pid, "cmdline")}
        return [pid for pid in servers if _parent(pid) in servers]

    def _nothing_left(self) -> bool:
        """Whether all processes of the newest start end within some seconds."""
        deadline = time.monotonic() + 20
        while _marked(self._mark):
            if time.monotonic() > deadline:
                self.end()
                return False
            time.sleep(0.02)
        return True

    def _text(self) -> str:
        return self.told.read_text(encoding="utf-8", errors="replace")

    def _sleep(self, process: subprocess.Popen, seconds: float) -> None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return

    def _wait(self, process: subprocess.Popen, met: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not met():
            if process.poll() is not None:
                kind = TortureError if process.returncode else RunEndedError
                raise kind(f"ended with code {process.returncode}:\n{self._text()[-2000:]}")
            if time.monotonic() > deadline:
                process.kill()
                raise TortureError(f"nothing came in {PATIENCE_S:g} s:\n{self._text()[-2000:]}")
            time.sleep(POLL_S)


def _marked(mark: str) -> list[int]:
    """Living processes whose environment holds the mark, as children inherit it."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if f"{_MARK}={mark}" in _read(pid, "environ")]


def _read(pid: int, name: str) -> str:
    try:
        return (Path("/proc") / str(pid) / name).read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _parent(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else 0
