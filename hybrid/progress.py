"""One line that says how a run is doing: live on a terminal, a line now and then elsewhere."""

import contextlib
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

# What the line shows, where a row has it; a row may hold a hundred other scalars.
SHOWN = ("loss", "accuracy", "clips_per_s")

_REFRESH_S = 0.25
# The second is what rich makes of a pipe that nobody reads any more.
_CANNOT_SHOW = (OSError, SystemExit)


class Progress:
    """The progress line of a run; use it in a `with` block.

    On a terminal a bar moves with every `update`; elsewhere (a file, CI) each `update` that brings
    values prints one line, and so does each `evaluated`.
    """

    def __init__(
        self, total_steps: int, start_step: int = 0, console: Console | None = None
    ) -> None:
        """Starts the line.

        Args:
            total_steps: where the run ends.
            start_step: where it begins, greater than 0 after a resume.
            console: where to write; standard error by default.
        """
        self._total, self._start = total_steps, start_step
        self._console = console or Console(stderr=True)
        self._values: dict[str, float] = {}
        self._validation: dict[str, float] = {}
        self._first: tuple[float, int] | None = None
        self._refreshed = 0.0
        self._bar: Bar | None = None
        if self._console.is_terminal:
            # No refresh thread: it would take time from the step on a small machine.
            self._bar = Bar(
                TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=None),
                TextColumn("{task.description}"),
                console=self._console,
                auto_refresh=False,
            )
            self._task = self._bar.add_task("", total=total_steps, completed=start_step)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            with contextlib.suppress(*_CANNOT_SHOW):
                self._bar.refresh()
                self._bar.stop()

    def update(self, step: int, values: Mapping[str, Any] | None = None) -> None:
        """Moves the line on.

        Args:
            step: steps done.
            values: scalars of the newest log row; those in `SHOWN` are displayed.
        """
        now = time.monotonic()
        if self._first is None:
            # The first update comes after compilation, which must not count in the time left.
            self._first = (now, step)
        if values:
            self._values = _shown(values)
        if self._bar is None:
            if values:
                self._print(f"step {step}/{self._total}  {self._text(step, now)}")
            return
        self._bar.update(self._task, completed=step, description=self._text(step, now))
        if values or now - self._refreshed > _REFRESH_S:
            with contextlib.suppress(*_CANNOT_SHOW):
                self._bar.refresh()
            self._refreshed = now

    def evaluated(self, step: int, values: Mapping[str, Any], split: str = "validation") -> None:
        """Shows the result of an evaluation, above the line on a terminal."""
        self._print(f"step {step}/{self._total}  {split} {_join(_shown(values))}")

    def time_left_s(self, step: int, now: float | int) -> float | None:
        """Returns the seconds that the remaining steps will take at this run's pace, if known."""
        if self._first is None or step <= self._first[1]:
            return None
        return (self._total - step) * (now - self._first[0]) / (step - self._first[1])

    def _text(self, step: int, now: float) -> str:
        left = self.time_left_s(step, now)
        text = _join(self._values)
        return text if left is None else f"{text}  {clock(left)} left".strip()

    def _print(self, text: str) -> None:
        # Through the console, which puts it above a live bar; never wrapped, coloured or parsed. A
        # terminal that has hung up, or a log on a full disk, must not end the run.
        with contextlib.suppress(*_CANNOT_SHOW):
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def clock(seconds: float | int) -> str:
    """Writes a duration as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _shown(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(values[name]) for name in SHOWN if name in values}


def _join(values: Mapping[str, float]) -> str:
    return "  ".join(_value(name, value) for name, value in values.items())


def _value(name: str, value: float) -> str:
    if name == "accuracy":
        return f"accuracy {100 * value:.1f} %"
    if name == "clips_per_s":
        return f"{value:.0f} clips/s" if value >= 10 else f"{value:.2g} clips/s"
    return f"{name} {value:.4g}"
