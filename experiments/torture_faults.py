"""The faults of `experiments.torture`: each starts the command, does harm, and tells the result.

Looks at processes through /proc, so it needs Linux.
"""

import dataclasses
import errno
import json
import os
import random
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.stopping import EXIT_STOPPED

_MARK = "TORTURE_MARK"
_PATIENCE_S = 300.0
_POLL_S = 0.002


class TortureError(RuntimeError):
    """A run did not do what it must do to be tortured further."""


class RunEndedError(TortureError):
    """The run has come to its end, so that it cannot be tortured any more."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one fault.

    Attributes:
        fault: what was done.
        how: by which means.
        result: what happened.
        expected: whether that is what is promised.
    """

    fault: str
    how: str
    result: str
    expected: bool


class Victim:
    """A training command that is started again and again, and its work directory."""

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

    def start(self, *arguments: str, **options: object) -> subprocess.Popen:
        """Starts the command in a process group of its own, as a shell does."""
        self._files_before, self._rows_before = self._event_files(), set(self._rows())
        self._mark = uuid.uuid4().hex
        self.told.parent.mkdir(parents=True, exist_ok=True)
        given = {"env": os.environ | {_MARK: self._mark}, "start_new_session": True, **options}
        with self.told.open("wb") as file:
            return subprocess.Popen([*self.command, *arguments], stderr=file, **given)

    def finish(self) -> None:
        """Lets the command come to its end.

        Raises:
            TortureError: it ended with an error.
        """
        begin = time.monotonic()
        process = self.start()
        self._wait(process, self._runs)
        self.startup_s = time.monotonic() - begin
        if process.wait() != 0:
            raise TortureError(f"the command failed:\n{self._text()}")
        self.training_s = time.monotonic() - begin - self.startup_s

    def kill(self) -> Outcome:
        """SIGKILL at a random moment, of the start as of the training."""
        start_s = self.rng.uniform(0, self.startup_s)
        if self.rng.random() < 0.6:
            start_s = self.startup_s + self.rng.uniform(0, self.window_s)
        process = self.start()
        self._sleep(process, start_s)
        return self._killed(process, "SIGKILL", "at a random moment")

    def kill_while_saving(self) -> Outcome:
        """SIGKILL once a checkpoint is being written."""
        process = self.start()
        self._wait(process, self._saves)
        time.sleep(self.rng.uniform(0, 0.05))
        fault = "SIGKILL while a checkpoint is written"
        return self._killed(process, fault, "as soon as one is seen")

    def kill_while_evaluating(self) -> Outcome:
        """SIGKILL between the training row of a step and its validation row."""
        process = self.start()
        self._wait(process, self._evaluates)
        time.sleep(self.rng.uniform(0, 0.1))
        return self._killed(process, "SIGKILL during an evaluation", "as soon as one is seen")

    def terminate(self) -> Outcome:
        """SIGTERM to the command alone, as batch systems send it."""
        return self._stopped("SIGTERM", lambda process: process.terminate())

    def interrupt(self) -> Outcome:
        """SIGINT to all processes of the group, as Ctrl-C in a terminal sends it."""
        return self._stopped(
            "SIGINT to the process group", lambda process: os.killpg(process.pid, signal.SIGINT)
        )

    def terminate_twice(self) -> Outcome:
        """Two SIGTERMs in a row."""

        def send(process: subprocess.Popen) -> None:
            process.terminate()
            time.sleep(0.05)
            process.terminate()

        return self._stopped("two SIGTERMs", send)

    def truncate(self) -> Outcome:
        """Cuts off half of a file of the newest checkpoint."""
        return self._damaged("truncated", lambda file: os.truncate(file, file.stat().st_size // 2))

    def flip(self) -> Outcome:
        """Flips one bit in a file of the newest checkpoint."""

        def flip(file: Path) -> None:
            data = bytearray(file.read_bytes())
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            file.write_bytes(data)

        return self._damaged("with a flipped bit", flip)

    def remove(self) -> Outcome:
        """Removes a file of the newest checkpoint."""
        return self._damaged("with a missing file", Path.unlink)

    def fill_disk(self) -> Outcome:
        """Lets no file grow beyond a few kilobytes, the kernel's answer being an error."""
        self._two_checkpoints()
        limit = (self.workdir / "metrics.jsonl").stat().st_size + self.rng.randrange(500, 5000)
        # Without workers, whose tensors lie in files too, of shared memory.
        command = [*self.command, "--config.data.num_workers=0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
            text = self._told(process)
        failed = process.returncode == 1 and os.strerror(errno.EFBIG) in text
        told = "the disk is full" in text and "Traceback" not in text
        result = "an error that says what to do" if failed and told else text[-500:]
        how = "`RLIMIT_FSIZE`: a file of log or checkpoint cannot grow"
        return Outcome("full disk", how, result, failed and told)

    def start_second(self) -> Outcome:
        """Starts the command twice; which of both comes first is left to chance."""
        first, other = self.start(), self.told.with_suffix(".second")
        with other.open("wb") as file:
            second = subprocess.Popen(
                self.command,
                stderr=file,
                env=os.environ | {_MARK: self._mark},
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE_S
        while first.poll() is None and second.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        winner, loser, told = first, second, other
        if first.poll() is not None:
            winner, loser, told = second, first, self.told
        text = told.read_text(encoding="utf-8", errors="replace")
        refused = loser.poll() == 1 and f"in use by process {winner.pid}" in text
        unharmed = winner.poll() is None
        for process in (first, second):
            process.kill()
            process.wait()
        result = "one is refused, the other goes on" if refused and unharmed else text[-500:]
        good = refused and unharmed and self._nothing_left()
        return Outcome("two processes on one directory", "the command started twice", result, good)

    def kill_worker(self) -> Outcome:
        """SIGKILL to a process that loads data, as a kernel short of memory sends it."""
        process = self.start()
        self._wait(process, lambda: self._runs() and self._workers())
        os.kill(self.rng.choice(self._workers()), signal.SIGKILL)
        code = process.wait(_PATIENCE_S)
        told = code == 1 and "a worker died" in self._text() and "Traceback" not in self._text()
        result = "a checkpoint, and an error that names the worker" if told else self._text()[-500:]
        alone = self._nothing_left()
        return Outcome("a loader worker dies", "SIGKILL to one of them", result, told and alone)

    def _killed(self, process: subprocess.Popen, fault: str, how: str) -> Outcome:
        phase = self._phase()
        process.kill()
        code = process.wait()
        if code == 0:
            raise RunEndedError("ended before it could be killed")
        alone = self._nothing_left()
        result = f"killed {phase}" if code == -signal.SIGKILL else f"had ended with code {code}"
        if not alone:
            result += ", PROCESSES LEFT"
        return Outcome(fault, how, result, code == -signal.SIGKILL and alone)

    def _stopped(self, fault: str, send: Callable[[subprocess.Popen], None]) -> Outcome:
        process = self.start()
        self._wait(process, self._opened)
        self._sleep(process, self.rng.uniform(0, 2 + self.window_s))
        phase, begin = self._phase(), time.monotonic()
        send(process)
        code = process.wait(_PATIENCE_S)
        if code == 0:
            raise RunEndedError("ended before it could be stopped")
        took_s, text = time.monotonic() - begin, self._text()
        noise = [word for word in ("Traceback", "KeyboardInterrupt", "Error") if word in text]
        alone = self._nothing_left()
        good = code == EXIT_STOPPED and took_s < 25 and alone and not noise
        result = f"code {code} within {max(1, round(took_s))} s"
        if not good:
            result = f"unexpected {phase}: {result}, {noise}, nothing left: {alone}"
        return Outcome(fault, "at a random moment of the training", result, good)

    def _damaged(self, kind: str, harm: Callable[[Path], None]) -> Outcome:
        fault, how = f"newest checkpoint {kind}", "between two starts, a file at random"
        found = self._two_checkpoints()
        files = [item for item in found[-1].rglob("*") if item.is_file() and item.stat().st_size]
        harm(self.rng.choice(sorted(files)))
        process = self.start()
        self._wait(process, self._opened)
        text = self._text()
        good = f"{found[-1].name} is damaged" in text and "instead" in text
        process.kill()
        process.wait()
        result = "reported; the one before it is used" if good else text[-500:]
        return Outcome(fault, how, result, good and self._nothing_left())

    def _told(self, process: subprocess.Popen) -> str:
        """Returns what a process wrote until its end, which is forced if it does not come."""
        try:
            return process.communicate(timeout=_PATIENCE_S)[1].decode()
        except subprocess.TimeoutExpired:
            process.kill()
            return f"no end within {_PATIENCE_S:g} s: {process.communicate()[1].decode()}"

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
        while left := _marked(self._mark):
            if time.monotonic() > deadline:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
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
        deadline = time.monotonic() + _PATIENCE_S
        while not met():
            if process.poll() is not None:
                kind = TortureError if process.returncode else RunEndedError
                raise kind(f"ended with code {process.returncode}:\n{self._text()[-2000:]}")
            if time.monotonic() > deadline:
                process.kill()
                raise TortureError(f"nothing came in {_PATIENCE_S:g} s:\n{self._text()[-2000:]}")
            time.sleep(_POLL_S)


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
