"""A soak sees what a process and its children hold, and calls growth by its name."""

import dataclasses
import re
import subprocess
import sys
import time

import pytest

from experiments import soak

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


def samples(memory, handles=20, threads=9):
    return [
        soak.Sample(seconds, memory(seconds), handles, threads, 3) for seconds in range(0, 3600, 10)
    ]


def test_a_flat_run_passes_whatever_its_beginning():
    text, wrong = soak.judge(samples(lambda s: 500.0 if s < 600 else 1000.0), 600, 0.02)
    assert wrong == []
    assert text.splitlines()[2] == "| 1 | 500 | 20 | 9 | 3 |"
    assert "at most +0.00 %" in text


def test_moments_of_more_memory_do_not_count():
    _, wrong = soak.judge(samples(lambda s: 1500.0 if s % 120 < 30 else 1000.0), 600, 0.02)
    assert wrong == []


@pytest.mark.parametrize("rate", [0.01, -0.01])
def test_memory_that_moves_is_an_error(rate):
    _, wrong = soak.judge(samples(lambda s: 1000 + rate * s), 600, 0.02)
    assert wrong
    assert wrong[0].startswith("memory moved by")


def test_handles_and_threads_must_not_grow():
    flat = samples(lambda s: 1000.0)
    grown = [soak.Sample(s.seconds, s.memory_mb, 20 + int(s.seconds // 900), 9, 3) for s in flat]
    (wrong,) = soak.judge(grown, 600, 0.02)[1]
    assert re.fullmatch(r"the fewest handles grew from 20 to 2\d", wrong)


def test_handles_that_come_and_go_are_no_growth():
    flat = samples(lambda s: 1000.0)
    # The later half has more most of the time, and now and then as few as there were.
    swinging = [
        soak.Sample(s.seconds, s.memory_mb, 100 if s.seconds // 120 % 5 else 95, 9, 3) for s in flat
    ]
    middle = flat[-1].seconds / 2
    rising = [
        dataclasses.replace(
            s, handles=s.handles + (3 if s.seconds > middle and s.handles > 95 else 0)
        )
        for s in swinging
    ]
    assert soak.judge(swinging, 600, 0.02)[1] == []
    assert soak.judge(rising, 600, 0.02)[1] == []


def test_a_leak_below_swings_is_growth():
    flat = samples(lambda s: 1000.0)
    leaking = [
        dataclasses.replace(s, threads=(20 if s.seconds // 60 % 3 else 9) + int(s.seconds // 1500))
        for s in flat
    ]
    (wrong,) = soak.judge(leaking, 600, 0.02)[1]
    assert wrong.startswith("the fewest threads grew from 9 to")


def test_too_short_a_soak_is_refused():
    with pytest.raises(ValueError, match=r"after its first 600 s; it lasted 0 s"):
        soak.judge([soak.Sample(0.0, 1.0, 1, 1, 1)], 600, 0.02)


@linux_only
def test_children_are_counted():
    code = (
        "import subprocess, sys; held = bytearray(b'x' * 60_000_000); "
        "child = subprocess.Popen([sys.executable, '-c', "
        '\'held = bytearray(b"x" * 40_000_000); import time; print(1, flush=True); '
        "time.sleep(60)'], stdout=subprocess.PIPE); child.stdout.readline(); "
        "print(1, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = soak.look(process.pid, 1.0)
        pids = soak.tree(process.pid)
        process.kill()
        for pid in pids[1:]:
            subprocess.run(["kill", "-9", str(pid)], check=False)
    assert seen.processes == 2
    assert seen.threads == 2
    assert 100 < seen.memory_mb < 130
    assert seen.handles >= 6


@linux_only
def test_a_run_that_ends_is_an_error(tmp_path):
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=r"must outlast the soak; it ended after .* with code 1"):
        soak.soak(tmp_path / "soak", "no_such_config", 60.0, 0.1)
    assert time.monotonic() - begin < 50
    assert "no_such_config" in (tmp_path / "soak" / "train.log").read_text()
