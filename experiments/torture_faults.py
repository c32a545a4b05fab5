"""The faults of `experiments.torture`: each starts the command, does harm, and tells the result."""

import dataclasses
import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from experiments.stopping import EXIT_STOPPED
from experiments.torture_process import PATIENCE_S, POLL_S, Command, RunEndedError


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


class Victim(Command):
    """What is tortured; each method is a fault."""

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

    def terminate_group(self) -> Outcome:
        """SIGTERM to all processes of the group, workers among them."""
        return self._stopped(
            "SIGTERM to the process group", lambda process: os.killpg(process.pid, signal.SIGTERM)
        )

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
        second = self.start_beside(other)
        deadline = time.monotonic() + PATIENCE_S
        while first.poll() is None and second.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
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
        code = process.wait(PATIENCE_S)
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
        code = process.wait(PATIENCE_S)
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
