"""A work directory keeps one config and serves one process."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import ml_collections
import pytest

from hybrid import workdir as workdirs

ROOT = Path(__file__).resolve().parents[2]


def config(**changes):
    tree = ml_collections.ConfigDict(
        {
            "num_steps": 40,
            "batch_size": 8,
            "log_every_steps": 5,
            "physics": {"target": "physics.carfac:Carfac", "kwargs": {"ihc": "two_cap"}},
            "physics_optimizer": {"overrides": (("car\\..*", 0.1), (".*", None))},
            "data": {"root": "", "num_workers": 2, "kwargs": {}},
        }
    )
    with tree.unlocked():
        tree.update_from_flattened_dict(changes)
    return tree


def test_first_claim_writes_the_config(tmp_path):
    with workdirs.claim(tmp_path / "deep" / "run", config()) as held:
        assert held.fresh
        assert held.changes == ()
        saved = json.loads((held.workdir / "config.json").read_text())
    assert saved == workdirs.read_config(tmp_path / "deep" / "run")
    assert saved["physics_optimizer"]["overrides"] == [["car\\..*", 0.1], [".*", None]]


def test_same_config_is_accepted_again(tmp_path):
    workdirs.claim(tmp_path, config()).release()
    before = (tmp_path / "config.json").stat().st_mtime_ns
    with workdirs.claim(tmp_path, config()) as held:
        assert not held.fresh
        assert held.changes == ()
    assert (tmp_path / "config.json").stat().st_mtime_ns == before


def test_runtime_fields_change_freely(tmp_path):
    workdirs.claim(tmp_path, config()).release()
    changes = {"num_steps": 80, "log_every_steps": 1, "data.root": "/x", "data.num_workers": 0}
    with workdirs.claim(tmp_path, config(**changes)) as held:
        assert len(held.changes) == 4
        assert "num_steps: 40 -> 80" in held.changes
    assert workdirs.read_config(tmp_path)["num_steps"] == 80


def test_every_difference_is_listed_on_its_line(tmp_path):
    workdirs.claim(tmp_path, config()).release()
    other = config(**{"physics.kwargs.ihc": "one_cap", "batch_size": 16, "num_steps": 41})
    with other.unlocked():
        other.data.kwargs.words = ("yes", "no")
    with pytest.raises(workdirs.WorkdirConflict) as caught:
        workdirs.claim(tmp_path, other)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert "physics.kwargs.ihc: 'two_cap' -> 'one_cap'" in lines
    assert "batch_size: 8 -> 16" in lines
    assert "data.kwargs.words: (absent) -> ['yes', 'no']" in lines
    assert not any(line.startswith("num_steps") for line in lines)
    # Refusing changes nothing, and lets go of the lock.
    assert workdirs.read_config(tmp_path)["batch_size"] == 8
    workdirs.claim(tmp_path, config()).release()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_another_length_moves_learning_rates_and_says_so(tmp_path, caplog, schedule):
    given = {name: {"schedule": "constant"} for name in ("learner_optimizer", "physics_optimizer")}
    given["learner_optimizer"]["schedule"] = schedule
    workdirs.claim(tmp_path, config().to_dict() | given).release()
    with caplog.at_level("WARNING", logger="absl"):
        workdirs.claim(tmp_path, config(num_steps=80).to_dict() | given).release()
    said = "num_steps: 40 -> 80; the learning rates of learner_optimizer follow" in caplog.text
    assert said == (schedule != "constant")


def test_change_is_made_when_allowed(tmp_path):
    workdirs.claim(tmp_path, config()).release()
    with workdirs.claim(tmp_path, config(batch_size=16), allow_change=True) as held:
        assert held.changes == ("batch_size: 8 -> 16",)
    assert workdirs.read_config(tmp_path)["batch_size"] == 16


def test_types_differ_even_where_python_says_equal():
    assert workdirs.differences({"a": 1, "b": True}, {"a": 1.0, "b": 1}) == {
        "a": "a: 1 -> 1.0",
        "b": "b: True -> 1",
    }


def test_damaged_or_missing_config_says_what_to_do(tmp_path):
    with pytest.raises(workdirs.WorkdirError, match="not a work directory"):
        workdirs.read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"num_steps": 4')
    with pytest.raises(workdirs.WorkdirError, match=r"not valid JSON.*extras\.json"):
        workdirs.claim(tmp_path, config())


def test_what_json_cannot_hold_is_named(tmp_path):
    with pytest.raises(workdirs.WorkdirError, match=r"config\.data\.kwargs\.f is .*function"):
        workdirs.claim(tmp_path, {"data": {"kwargs": {"f": lambda: 0}}})


def test_second_claim_in_this_process_is_refused(tmp_path):
    busy = pytest.raises(workdirs.WorkdirBusy, match=f"process {os.getpid()} on")
    with workdirs.claim(tmp_path, config()), busy:
        workdirs.claim(tmp_path, config())
    workdirs.claim(tmp_path, config()).release()


def test_other_process_is_refused_until_the_first_is_killed(tmp_path):
    script = (
        # The module alone, without all that the package's __init__ imports.
        "import sys, time, types; sys.modules['hybrid'] = types.ModuleType('hybrid')\n"
        "sys.modules['hybrid'].__path__ = ['hybrid']; from hybrid import workdir\n"
        f"workdir.claim({str(tmp_path)!r}, {{'seed': 0}}); print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    # The claim is not even kept in a variable: it must hold until the process dies.
    child = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(workdirs.WorkdirBusy, match=f"process {child.pid} on"):
            workdirs.claim(tmp_path, {"seed": 0})
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    workdirs.claim(tmp_path, {"seed": 0}).release()


def test_failed_atomic_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    workdirs.write_atomic(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        workdirs.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]
