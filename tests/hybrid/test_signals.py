"""A signal waits for a checkpoint, whatever the run is doing, and then goes where it was meant."""

import contextlib
import importlib
import signal
import threading

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import hybrid
from hybrid.checkpoints import Checkpoints
from hybrid.signals import HeldSignals, RunStopped, StopRequested
from hybrid.writers import read_rows, without_clock

# The package has the function of this name.
LOOP = importlib.import_module("hybrid.fit")


@pytest.fixture
def told():
    """Handlers of a program around the run, which note what they get."""
    got = []
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, _: got.append(signal.Signals(number)))
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_first_signal_waits_and_the_second_does_not(told):
    with HeldSignals() as held:
        signal.raise_signal(signal.SIGTERM)
        assert held.pending is signal.SIGTERM
        assert told == []
        signal.raise_signal(signal.SIGINT)
        assert told == [signal.SIGINT]
    assert told == [signal.SIGINT, signal.SIGTERM]


def test_a_failure_is_not_hidden_by_a_signal(told):
    def failed():
        with HeldSignals():
            signal.raise_signal(signal.SIGTERM)
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        failed()
    assert told == []


def test_handlers_come_back_where_a_signal_comes_between_them(told, monkeypatch):
    before, install = signal.getsignal(signal.SIGTERM), signal.signal

    def interrupted(number, handler):
        if number is signal.SIGINT and handler == held._hold:
            raise KeyboardInterrupt
        install(number, handler)

    held = HeldSignals()
    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt):
        held.__enter__()
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) is before


def test_two_times_ctrl_c_is_one_interrupt():
    def stopped():
        with HeldSignals():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            stopped()
        assert caught.value.__context__ is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_wait_ends_at_once(told):
    def wait(held):
        with held.interruptible():
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the wait goes on")

    with HeldSignals() as held:
        with pytest.raises(StopRequested):
            wait(held)
        with pytest.raises(StopRequested), held.interruptible():
            pytest.fail("a wait begins although a signal waits")
    assert told == [signal.SIGINT]


def test_handlers_come_back_and_what_was_ignored_stays_ignored(told):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGTERM)
    with HeldSignals() as held:
        signal.raise_signal(signal.SIGINT)
        assert held.pending is None
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_python_s_own_ctrl_c_is_the_error_that_says_more():
    def stopped():
        with HeldSignals():
            signal.raise_signal(signal.SIGINT)
            raise RunStopped("where")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(RunStopped, match="where"):
            stopped()
        with pytest.raises(KeyboardInterrupt), HeldSignals():
            signal.raise_signal(signal.SIGINT)  # and the block comes to its end
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_is_left_alone(toy_config, tmp_path):
    toy_config.num_steps = 2
    before, states = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=lambda: states.append(hybrid.fit(toy_config, tmp_path)))
    thread.start()
    thread.join()
    assert int(states[0].step) == 2
    assert signal.getsignal(signal.SIGTERM) is before


def rows(workdir):
    return [without_clock(row) for row in read_rows(workdir)]


def assert_same_runs(one, two, like):
    states = []
    for workdir in (one, two):
        store = Checkpoints(workdir / "checkpoints")
        state, extras = store.restore(like)
        store.close()
        branches = (state.physics, state.learner, state.collections)
        states.append(
            (jax.device_get(branches), int(state.step), extras["book"], extras["position"])
        )
    jax.tree.map(np.testing.assert_array_equal, states[0][0], states[1][0])
    assert states[0][1:] == states[1][1:]
    assert rows(one) == rows(two)


def signalled(name, monkeypatch, owner, calls):
    """Lets a signal come when `owner.name` is called, at the calls of these numbers."""
    original, count = getattr(owner, name), 0

    def wrapper(*args, **kwargs):
        nonlocal count
        count += 1
        if count in calls:
            signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapper)


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same_bits(
    toy_config, tmp_path, told, monkeypatch
):
    # Steps 6 and 12 are evaluated, 8 saved; each start is stopped at another moment.
    toy_config.num_steps, toy_config.eval_every_steps = 14, 6
    toy_config.checkpoint_every_steps, toy_config.log_every_steps = 8, 3
    toy_config.checkpoint_best_metric, toy_config.early_stop_evals = "loss", 5
    toy_config.physics_optimizer.start_step = 0
    whole = hybrid.fit(toy_config, tmp_path / "whole")
    moments = (
        ("while it waits for data", LOOP.Prefetch, "__next__", (3,), 2),
        ("while it is in a step", LOOP.StepWatch, "push", (3,), 5),
        ("while it evaluates", LOOP, "evaluate", (1,), 6),
        ("while it evaluates again", LOOP, "evaluate", (1,), 6),
        ("while it saves", LOOP.Checkpoints, "save", (2,), 8),
        ("while it compiles", LOOP, "make_step", (1,), 8),
    )
    for what, owner, name, calls, stops_at in moments:
        with monkeypatch.context() as patch:
            signalled(name, patch, owner, calls)
            with pytest.raises(RunStopped) as stopped:
                hybrid.fit(toy_config, tmp_path / "stopped")
        assert told == [signal.SIGTERM], what
        told.clear()
        saved = Checkpoints(tmp_path / "stopped" / "checkpoints").latest_step()
        assert saved == stops_at, what
        assert f"from the checkpoint of step {saved}" in str(stopped.value), what
    # Within the library's own `with`, before its block begins.
    with monkeypatch.context() as patch:
        original, calls = LOOP._Fit.losing_nothing, iter(range(3))

        @contextlib.contextmanager
        def at_the_door(run):
            manager = original(run)
            manager.__enter__()
            if next(calls) == 2:
                signal.raise_signal(signal.SIGTERM)
            yield
            manager.__exit__(None, None, None)

        patch.setattr(LOOP._Fit, "losing_nothing", at_the_door)
        with pytest.raises(RunStopped, match="from the checkpoint of step 10"):
            hybrid.fit(toy_config, tmp_path / "stopped")
    assert told == [signal.SIGTERM]
    hybrid.fit(toy_config, tmp_path / "stopped")
    assert_same_runs(tmp_path / "whole", tmp_path / "stopped", whole)
    assert {row["step"] for row in rows(tmp_path / "whole") if row["split"] == "validation"} == {
        6,
        12,
        14,
    }


def test_a_stop_before_the_first_step_leaves_nothing_to_save(
    toy_config, tmp_path, told, monkeypatch
):
    with monkeypatch.context() as patch:
        signalled("make_step", patch, LOOP, (1,))
        with pytest.raises(RunStopped, match="from the start"):
            hybrid.fit(toy_config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() is None
    toy_config.num_steps = 2
    hybrid.fit(ConfigDict(toy_config.to_dict()), tmp_path)
