"""A command that a signal ends says so by its exit code, whatever it is in the middle of."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from experiments.stopping import EXIT_STOPPED, stoppable

ROOT = pathlib.Path(__file__).parents[2]
# The second never runs a handler of Python's: it does not leave the library in time.
WAITS = {
    "python": "time.sleep(60)",
    "library": "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)",
}
HOLDS = """
    class Held:
        def __enter__(self):
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: None)
        def __exit__(self, *_):
            pass
"""
SCRIPT = """
    import contextlib, hashlib, signal, sys, time
    from experiments.stopping import stoppable
    {holds}
    with stoppable(lambda: {grace_s}), {context}:
        print("ready", flush=True)
        {wait}
"""


def start(wait, context="contextlib.nullcontext()", grace_s=60.0):
    text = textwrap.dedent(SCRIPT).format(
        wait=WAITS[wait], context=context, grace_s=grace_s, holds=textwrap.dedent(HOLDS)
    )
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def ended(process):
    _, text = process.communicate(timeout=30)
    assert "Traceback" not in text
    return process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_the_code_that_says_go_on(number):
    process = start("python")
    process.send_signal(number)
    assert ended(process) == EXIT_STOPPED == 75


@pytest.mark.parametrize("wait", WAITS)
def test_a_second_signal_ends_at_once_what_holds_the_first(wait):
    process = start(wait, context="Held()")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ended(process) == EXIT_STOPPED


def test_the_time_of_grace_comes_to_an_end():
    process = start("library", context="Held()", grace_s=0.3)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == EXIT_STOPPED


def test_a_handler_that_is_not_python_s_is_left_alone(monkeypatch):
    found = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda n: None if n == signal.SIGINT else found(n))
    before = found(signal.SIGINT)
    with stoppable(lambda: 1.0):
        assert found(signal.SIGINT) is before
        assert found(signal.SIGTERM) is not before
    assert found(signal.SIGINT) is before


def test_a_job_in_the_background_keeps_ignoring_ctrl_c():
    # Handlers are not touched where they ignore, and come back where they do not.
    script = """
        import signal
        from experiments.stopping import stoppable
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        before = signal.getsignal(signal.SIGTERM)
        with stoppable(lambda: 1.0):
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is before
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        timeout=30,
    )
    assert done.returncode == 0
