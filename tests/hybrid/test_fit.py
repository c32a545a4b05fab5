"""The loop from start to end: kill and resume to the bit, logs, plateau, NaN, precision."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import hybrid
from data import AudioFileError
from hybrid.checkpoints import CheckpointMismatch, Checkpoints
from hybrid.parts import evaluation_loader
from hybrid.watch import NonFiniteError
from hybrid.workdir import WorkdirConflict
from hybrid.writers import read_rows, without_clock

SCRIPT = pathlib.Path(__file__).parent / "run_toy.py"
ROOT = pathlib.Path(__file__).parents[2]
TOYS = ("toy_parts", "foreign_parts")


def rows(workdir):
    return [without_clock(row) for row in read_rows(workdir)]


def assert_same_state(one, two):
    def plain(state):
        branches = (state.physics, state.learner, state.collections)
        return jax.device_get((state.step, jax.random.key_data(state.key), *branches))

    jax.tree.map(np.testing.assert_array_equal, plain(one), plain(two))


def launch(config, workdir, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SCRIPT.parent)])}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(path), str(workdir)], env=env)


def kill_after_checkpoint(process, workdir, step):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        folder = pathlib.Path(workdir) / "checkpoints"
        if folder.exists() and (Checkpoints(folder).latest_step() or 0) >= step:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_run_on_a_list_ends_with_the_same_bits(foreign_config, tmp_path):
    foreign_config.data.kwargs.kwargs = {"slow": True}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = launch(foreign_config, killed, tmp_path)
    kill_after_checkpoint(process, killed, 2)
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    hybrid.fit(foreign_config, killed)
    hybrid.fit(foreign_config, whole)
    one, two = hybrid.load(whole, trusted=TOYS), hybrid.load(killed, trusted=TOYS)
    assert int(one.state.step) == 12
    assert_same_state(one.state, two.state)
    assert rows(whole) == rows(killed)


def test_resuming_in_steps_equals_one_run(toy_config, tmp_path):
    # The schedule's length is part of the run, so it must not follow num_steps here.
    for branch in ("physics_optimizer", "learner_optimizer"):
        toy_config[branch].schedule = "constant"
    whole = hybrid.fit(toy_config, tmp_path / "constant")
    part = ConfigDict(toy_config.to_dict())
    part.num_steps = 17
    hybrid.fit(part, tmp_path / "parts")
    state = hybrid.fit(toy_config, tmp_path / "parts")
    assert_same_state(whole, state)


def test_the_loss_falls_and_everything_is_logged(toy_config, tmp_path):
    hybrid.fit(toy_config, tmp_path)
    run = hybrid.load(tmp_path, trusted=TOYS)
    train = [row for row in run.metrics if row["split"] == "train"]
    assert train[-1]["loss"] < 0.7 * train[0]["loss"]
    assert [row["step"] for row in train] == list(range(5, 45, 5))
    wanted = {"accuracy", "physics_learning_rate", "learner_learning_rate", "audio_s_per_s"}
    wanted |= {"learner_gradient_norm", "learner_update_norm", "aliased_bytes_per_batch"}
    assert wanted <= set(train[0])
    assert "physics_gradient_norm" not in train[0]  # it starts at step 10
    assert "physics_gradient_norm" in train[-1]
    assert train[0]["copied_bytes_per_batch"] == 0
    physics = [row for row in run.metrics if row["split"] == "physics"]
    assert 0.1 < physics[-1]["gain/mean"] < 2.0
    assert {row["split"] for row in run.metrics} == {"train", "validation", "physics"}
    moved = hybrid.moved_parameters(run)
    assert {row["name"] for row in moved} == {"gain", "health"}
    assert moved[0]["change"] > 0


def test_putting_the_initial_physics_back_changes_the_result(toy_config, tmp_path):
    hybrid.fit(toy_config, tmp_path)
    run = hybrid.load(tmp_path, trusted=TOYS)
    trained = hybrid.evaluate(run.task, run.state, evaluation_loader(run, "test"), 2)
    back = hybrid.evaluate(
        run.task, hybrid.with_initial_physics(run), evaluation_loader(run, "test"), 2
    )
    assert trained["loss"] != back["loss"]
    assert trained["num_examples"] == 10
    assert sum(map(sum, trained["confusion"])) == 10


def test_a_plateau_stops_the_run(toy_config, tmp_path):
    toy_config.eval_every_steps = 2
    toy_config.early_stop_evals = 1
    toy_config.learner_optimizer.update({"name": "sgd", "learning_rate": 300.0, "clip_norm": 0.0})
    state = hybrid.fit(toy_config, tmp_path)
    assert int(state.step) < 40
    again = hybrid.fit(toy_config, tmp_path)
    assert int(again.step) == int(state.step)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(toy_config, tmp_path):
    toy_config.data.kwargs = {"poisoned": 5}
    toy_config.checkpoint_every_steps = 1
    with pytest.raises(NonFiniteError) as caught:
        hybrid.fit(toy_config, tmp_path)
    message = str(caught.value)
    assert "loss = nan" in message
    assert "5" in message.split("batch ids")[1]
    saved = Checkpoints(tmp_path / "checkpoints").latest_step()
    assert f"step {saved} is the last good one" in message


def test_another_config_is_refused_and_listed(toy_config, tmp_path):
    toy_config.num_steps = 4
    hybrid.fit(toy_config, tmp_path)
    toy_config.learner_optimizer.learning_rate = 0.01
    with pytest.raises(WorkdirConflict, match=r"learner_optimizer\.learning_rate: 0\.05 -> 0\.01"):
        hybrid.fit(toy_config, tmp_path)
    toy_config.num_steps = 6
    hybrid.fit(toy_config, tmp_path, allow_config_change=True)


def test_float64_all_the_way(toy_config, tmp_path):
    toy_config.precision = "float64"
    toy_config.num_steps = 12
    hybrid.fit(toy_config, tmp_path)
    run = hybrid.load(tmp_path, trusted=TOYS)
    for leaf in jax.tree.leaves((run.state.physics.params, run.state.learner.params)):
        assert leaf.dtype == np.float64
    assert jax.numpy.zeros(()).dtype == np.float32


def test_each_form_of_the_step_is_compiled_once(toy_config, tmp_path, caplog):
    toy_config.num_steps = 12
    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        hybrid.fit(toy_config, tmp_path)
        part = ConfigDict(toy_config.to_dict())
        part.num_steps = 13
        hybrid.fit(part, tmp_path)
    compiled = [r for r in caplog.records if "Compiling jit(_step)" in r.getMessage()]
    # Network alone, then both; after the resume both are off turn or on it once more.
    assert 2 <= len(compiled) <= 3, [r.getMessage()[:200] for r in compiled]


def test_a_config_that_cannot_start_leaves_no_trace(toy_config, tmp_path):
    toy_config.num_steps = 2
    for field, value in (("batch_size", 500), ("physics_optimizer.overrides", (("nothing", 1.0),))):
        config = ConfigDict(toy_config.to_dict())
        config.update_from_flattened_dict({field: value})
        with pytest.raises(ValueError, match=r"500|nothing"):
            hybrid.fit(config, tmp_path)
    hybrid.fit(toy_config, tmp_path)
    # Nor does one that is allowed, but does not fit the checkpoint.
    other = ConfigDict(toy_config.to_dict())
    other.physics.kwargs = {"bands": 4}
    with pytest.raises(CheckpointMismatch, match=r"physics\.params\.gain"):
        hybrid.fit(other, tmp_path, allow_config_change=True)
    assert int(hybrid.load(tmp_path, trusted=TOYS).state.step) == 2


def test_an_update_that_overflows_is_not_saved(toy_config, tmp_path):
    toy_config.checkpoint_every_steps = 1
    toy_config.learner_optimizer.update({"name": "sgd", "learning_rate": 1e38, "clip_norm": 0.0})
    toy_config.learner_optimizer.schedule = "constant"
    with pytest.raises(NonFiniteError, match=r"learner branch|loss"):
        hybrid.fit(toy_config, tmp_path)
    latest = Checkpoints(tmp_path / "checkpoints").latest_step()
    if latest is not None:
        state = hybrid.load(tmp_path, trusted=TOYS).state
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.learner.params))


def test_a_stopped_run_goes_on_when_its_patience_is_raised(toy_config, tmp_path):
    toy_config.eval_every_steps = 2
    toy_config.early_stop_evals = 1
    toy_config.learner_optimizer.learning_rate = 5.0
    assert int(hybrid.fit(toy_config, tmp_path).step) < 40
    toy_config.early_stop_evals = 0
    assert int(hybrid.fit(toy_config, tmp_path).step) == 40


def test_frozen_parameters_stay_through_a_resume(toy_config, tmp_path):
    toy_config.physics_optimizer.overrides = (("health", None), ("gain", 2.0))
    toy_config.physics_optimizer.weight_decay = 0.1
    for branch in ("physics_optimizer", "learner_optimizer"):
        toy_config[branch].schedule = "constant"
    whole = hybrid.fit(toy_config, tmp_path / "whole")
    part = ConfigDict(toy_config.to_dict())
    part.num_steps = 25
    hybrid.fit(part, tmp_path / "parts")
    assert_same_state(hybrid.fit(toy_config, tmp_path / "parts"), whole)
    moved = {
        row["name"]: row["change"]
        for row in hybrid.moved_parameters(hybrid.load(tmp_path / "parts", trusted=TOYS))
    }
    assert moved["health"] == 0
    assert moved["gain"] > 0


def test_a_bad_file_in_the_middle_costs_no_step(toy_config, tmp_path):
    toy_config.data.kwargs = {"broken": 5}
    toy_config.checkpoint_every_steps = 0
    with pytest.raises(AudioFileError):
        hybrid.fit(toy_config, tmp_path)
    run = hybrid.load(tmp_path, trusted=TOYS)
    assert int(run.state.step) > 0


def test_an_nnx_network_trains_through_the_loop(toy_config, tmp_path):
    toy_config.num_steps = 2
    toy_config.learner.target = "learners:NnxLearner"
    toy_config.learner.kwargs = {"target": "toy_parts:ToyNnx", "kwargs": {"width": 4}}
    hybrid.fit(toy_config, tmp_path)
    assert int(hybrid.load(tmp_path, trusted=TOYS).state.step) == 2
