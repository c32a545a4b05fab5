"""Workers hold no jax, end with the program, and are named when they fail."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

import data

HERE = pathlib.Path(__file__).parent
ROOT = pathlib.Path(data.__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def run(mode: str, returncode: int = 0):
    """Runs the program beside this file; returns what it printed last, as JSON."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(HERE / "run_workers.py"), mode]
    done = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_workers_never_hold_jax_and_end_with_the_loader():
    told = run("modules")
    assert set(told) == {"forkserver", "spawn"}
    for found in told.values():
        assert found["labels"] == [0] * 120
        assert found["audio"] == [*range(100), *range(20)]
        assert found["alive"] == []


def test_failing_workers_are_named_and_nothing_is_lost():
    told = run("faults")
    assert told["stuck"]["batch"] == 5
    assert "batch 5 of epoch 0; none came within 1 s" in told["stuck"]["message"]
    assert "worker 1: clip 57" in told["stuck"]["message"]
    lacking = told["lacking"]
    assert (lacking["ids"], lacking["batch"]) == ([0, 10], 2)
    assert len(lacking["errors"]) == 2
    assert all("KeyError: 23" in text for text in lacking["errors"])
    assert (told["interrupted"]["epoch"], told["interrupted"]["batch"]) == (31, 0)
    assert "a worker died" in told["killed"]
    stopped_at, first_clip = told["again"]
    assert first_clip == 10 * stopped_at
    assert told["descriptors"][1] <= told["descriptors"][0] + 10
    assert told["threads"][1] <= told["threads"][0]


def test_workers_end_when_the_program_is_killed():
    children = run("die", returncode=-9)
    assert len(children) == 3
    deadline = time.monotonic() + 30
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "workers outlive a program that was killed"
        time.sleep(0.1)
