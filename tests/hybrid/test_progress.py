"""The progress line: plain where nobody watches, live on a terminal, right about time."""

import io
import sys

import pytest
from rich.console import Console

from hybrid import progress

ROW = {"loss": 0.51234, "accuracy": 0.8125, "clips_per_s": 312.4, "physics_norm": 3.0}


def console(terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def test_plain_mode_prints_one_line_per_log_row():
    out = console(terminal=False)
    with progress.Progress(40, console=out) as line:
        for step in range(1, 41):
            line.update(step, ROW if step % 10 == 0 else None)
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("step 10/40  loss 0.5123  accuracy 81.2 %  312 clips/s")
    assert "physics_norm" not in lines[0]
    assert lines[-1].endswith("0:00 left")


def test_evaluation_has_its_own_line():
    out = console(terminal=False)
    with progress.Progress(40, console=out) as line:
        line.evaluated(20, {"loss": 0.25, "accuracy": 0.5, "confusion": [[1]]})
    assert out.file.getvalue() == "step 20/40  validation loss 0.25  accuracy 50.0 %\n"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), BrokenPipeError()])
def test_nobody_who_can_read_it_is_no_reason_to_end(terminal, error, monkeypatch):
    # Rich's own also turns standard output off, which is pytest's.
    monkeypatch.setattr(Console, "on_broken_pipe", lambda self: sys.exit(1))
    out = console(terminal)
    with progress.Progress(40, console=out) as line:

        def write(text):
            raise error

        out.file.write = write
        line.update(10, ROW)
        line.evaluated(10, {"loss": 0.25})
        line.update(20, ROW)


def test_terminal_shows_a_live_line():
    out = console(terminal=True)
    with progress.Progress(40, 20, console=out) as line:
        line.update(30, ROW)
        line.evaluated(30, {"loss": 0.25})
        line.update(40, ROW)
    text = out.file.getvalue()
    assert "step 40/40" in text
    assert "312 clips/s" in text
    assert "validation loss 0.25" in text


def test_markup_in_values_is_not_interpreted_and_lines_never_wrap():
    out = Console(file=io.StringIO(), width=20)
    with progress.Progress(40, console=out) as line:
        line.update(20, ROW)
    assert len(out.file.getvalue().splitlines()) == 1


def test_time_left_starts_after_the_first_update(monkeypatch):
    now = iter([100.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    line = progress.Progress(1000, 200, console=console(terminal=False))
    line.update(210, ROW)
    assert line.time_left_s(210, 100.0) is None
    line.update(220, ROW)
    assert line.time_left_s(220, 110.0) == pytest.approx(780.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3661, "1:01:01")]
)
def test_clock(seconds, text):
    assert progress.clock(seconds) == text


def test_not_a_number_is_shown_as_such():
    out = console(terminal=False)
    with progress.Progress(4, console=out) as line:
        line.update(1, {"loss": float("nan"), "clips_per_s": 0.51})
    assert "loss nan  0.51 clips/s" in out.file.getvalue()
