"""A step that is not finite: found, saved, replayed; the run stops, skips or goes back exactly."""

import importlib
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import hybrid
from hybrid.build import build
from hybrid.checkpoints import Checkpoints
from hybrid.diagnosis import Place
from hybrid.nonfinite import Finding, replay, save
from hybrid.parts import start
from hybrid.targets import BuildError
from hybrid.watch import Faults, NonFiniteError
from hybrid.workdir import WorkdirError
from hybrid.writers import read_rows, without_clock

ROOT = pathlib.Path(__file__).parents[2]
TOYS = ("toy_parts", "fault_parts")
# The package has the function of this name.
LOOP = importlib.import_module("hybrid.fit")
POISONED = 5


@pytest.fixture
def config(toy_config):
    """The toy run, on clips with names of which one holds a NaN: a bad step in every epoch of 6."""
    toy_config.data.target = "fault_parts:NamedSource"
    toy_config.data.kwargs = {"poisoned": POISONED}
    toy_config.num_steps = 24
    toy_config.checkpoint_every_steps = 3
    toy_config.physics_optimizer.start_step = 0
    toy_config.physics_optimizer.every = 1
    return toy_config


def same(one, two):
    def plain(state):
        return jax.device_get((state.step, state.physics, state.learner, state.collections))

    jax.tree.map(np.testing.assert_array_equal, plain(one), plain(two))


def extras(workdir, state):
    checkpoints = Checkpoints(workdir / "checkpoints")
    found = checkpoints.restore(state)[1]
    checkpoints.close()
    return found


def newest(workdir):
    return Checkpoints(workdir / "checkpoints").latest_step() or 0


def failing(push, at):
    """`StepWatch.push` that fails at its call of this number, where nothing is saved on the way."""
    calls = itertools.count(1)

    def wrapper(*arguments):
        if next(calls) == at:
            raise RuntimeError("the power is gone")
        return push(*arguments)

    return wrapper


def test_it_stops_and_is_found_again_without_the_data(config, tmp_path):
    with pytest.raises(NonFiniteError) as caught:
        hybrid.fit(config, tmp_path / "run")
    message = str(caught.value)
    for part in (
        "physics branch, gradient of: gain, health",
        "first: batch, audio: row ",
        "sample 0 (0 s): nan",
        f"id {POISONED} (clips/005.wav)",
        "python -m experiments.replay ",
        "step 3 is the last good one",
    ):
        assert part in message
    (folder,) = (tmp_path / "run" / "nonfinite").iterdir()
    batch = np.load(folder / "batch.npz", allow_pickle=False)
    report = json.loads((folder / "report.json").read_text())
    (clip,) = report["clips"]
    assert (clip["id"], clip["name"]) == (POISONED, "clips/005.wav")
    assert batch["ids"][clip["row"]] == POISONED
    assert np.isnan(batch["audio"][clip["row"], 0])

    # Elsewhere, in another process, where the data cannot be had.
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    text = (moved / "config.json").read_text().replace("NamedSource", "NoLongerThere")
    (moved / "config.json").write_text(text)
    shutil.rmtree(tmp_path / "run")
    command = [sys.executable, "-m", "experiments.replay", str(moved), "--trust=toy_parts"]
    paths = os.pathsep.join([str(ROOT), str(pathlib.Path(__file__).parent)])
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "This is what the run met." in done.stdout
    assert f"id {POISONED} (clips/005.wav)" in done.stdout


def test_what_is_replayed_is_checked(config, tmp_path):
    config.physics.target = "fault_parts:RootEar"
    config.data.kwargs = {"silent": POISONED}
    with pytest.raises(NonFiniteError, match=r"gradient of: gain.*\n.*the forward pass is finite"):
        hybrid.fit(config, tmp_path)
    (folder,) = (tmp_path / "nonfinite").iterdir()
    saved, found = replay(folder, TOYS)
    assert saved == found
    assert [clip["id"] for clip in saved.clips] == [POISONED]
    with pytest.raises(BuildError, match=r"config\.physics\.target is 'fault_parts:RootEar'"):
        replay(folder)
    # Another batch does something else, and says so.
    with np.load(folder / "batch.npz", allow_pickle=False) as arrays:
        batch = dict(arrays)
    batch["audio"] = batch["audio"] + 1
    np.savez(folder / "batch.npz", **batch)
    saved, found = replay(folder, TOYS)
    assert saved != found
    assert found.place.part == "nowhere"
    np.savez(folder / "batch.npz", audio=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle"):
        replay(folder, TOYS)
    (folder / "report.json").write_text("{}")
    with pytest.raises(WorkdirError, match="damaged"):
        replay(folder, TOYS)
    with pytest.raises(WorkdirError, match=r"has no report\.json"):
        replay(tmp_path, TOYS)


@pytest.mark.parametrize("policy", ["skip", "roll_back"])
def test_a_run_that_goes_on_is_the_same_however_often_it_ends(
    config, tmp_path, monkeypatch, policy
):
    config.nonfinite.policy = policy
    config.nonfinite.keep = 1
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    state = hybrid.fit(config, whole)
    book = extras(whole, state)["book"]
    assert int(state.step) == 24
    assert book["nonfinite_steps"] >= 3
    assert book["roll_backs"] == (book["nonfinite_steps"] if policy == "roll_back" else 0)
    rows = [without_clock(row) for row in read_rows(whole)]
    train = [row for row in rows if row["split"] == "train"]
    assert train[-1]["nonfinite_steps"] == book["nonfinite_steps"]
    assert all(np.isfinite(row["loss"]) for row in train)
    assert [row["step"] for row in train] == [5, 10, 15, 20, 24]
    assert len(list((whole / "nonfinite").iterdir())) == 1

    # Ended at a clip, on its way into some batch, with a checkpoint.
    once = {"deed": "stop", "at": 17, "once": str(tmp_path / "once")}
    config.data.kwargs = config.data.kwargs.to_dict() | once
    with pytest.raises(RuntimeError, match="as good as killed"):
        hybrid.fit(config, ended, allow_config_change=True)
    # Ended without one, as by a kill.
    steps = newest(ended)
    for calls in (5, 8):
        with monkeypatch.context() as patch:
            patch.setattr(LOOP.StepWatch, "push", failing(LOOP.StepWatch.push, calls))
            with pytest.raises(RuntimeError, match="the power is gone"):
                hybrid.fit(config, ended, allow_config_change=True)
        assert newest(ended) == 0 or newest(ended) % 3 == 0 or newest(ended) == steps
    same(hybrid.fit(config, ended, allow_config_change=True), state)
    assert [without_clock(row) for row in read_rows(ended)] == rows
    assert extras(ended, state)["position"] == extras(whole, state)["position"]
    assert extras(ended, state)["book"] == book


def test_a_skipped_step_moves_nothing_and_the_data_go_on(config, tmp_path):
    config.num_steps = 6
    config.nonfinite.policy = "skip"
    hybrid.fit(config, tmp_path)
    run = hybrid.load(tmp_path, trusted=TOYS)
    assert extras(tmp_path, run.state)["position"]["epoch"] == 1
    # Adam counts its updates: one of the six steps made none.
    counts = [leaf for leaf in jax.tree.leaves(run.state.learner.opt_state) if leaf.shape == ()]
    assert {int(count) for count in counts} == {5}


def test_another_batch_of_the_same_step_is_kept_beside_the_first(config, tmp_path):
    experiment = build(config)
    state, _ = start(experiment)
    batch = {"ids": np.arange(8, dtype=np.int32), "audio": np.full((8, 160), np.nan, np.float32)}
    faults = Faults(float("nan"), False, {}, {}, [])
    place = Place("batch", "forward", "audio", {}, "nan", [0])
    found = Finding(4, True, True, faults, place, [], "")
    others = [batch, batch, batch | {"ids": batch["ids"] + 8}, batch]
    folders = [save(tmp_path, experiment, state, other, found).name for other in others]
    first, second = "step_000000004", "step_000000004-2"
    assert folders == [first, first, second, first]
    assert sorted(path.name for path in (tmp_path / "nonfinite").iterdir()) == [first, second]


def test_too_many_are_an_error(config, tmp_path):
    config.nonfinite.policy = "skip"
    config.nonfinite.limit = 2
    with pytest.raises(NonFiniteError, match=r"nonfinite\.limit=2 such steps"):
        hybrid.fit(config, tmp_path)


@pytest.mark.parametrize("others", ["better evaluations", "ends"])
def test_no_other_checkpoint_pushes_out_the_one_to_go_back_to(
    config, tmp_path, monkeypatch, caplog, others
):
    config.nonfinite.policy, config.nonfinite.limit, config.nonfinite.keep = "roll_back", 1, 0
    config.checkpoint_every_steps, config.keep_checkpoints = 12, 1
    config.data.kwargs = {}
    if others == "better evaluations":
        config.eval_every_steps, config.checkpoint_best_metric = 1, "loss"
        falling = iter(np.linspace(1.0, 0.0, 40).tolist())
        monkeypatch.setattr(LOOP, "evaluate", lambda *_: {"loss": next(falling)})
    for config.num_steps in (13, 15):
        hybrid.fit(config, tmp_path)
    config.num_steps, config.data.kwargs = 24, {"poisoned": POISONED}
    with (
        caplog.at_level("WARNING", logger="absl"),
        pytest.raises(NonFiniteError, match=r"nonfinite\.limit=1"),
    ):
        hybrid.fit(config, tmp_path, allow_config_change=True)
    assert re.search(r"back from step \d+ to step 12", caplog.text)
