"""What the data do to a run costs no step: it ends with the bits of one that nothing befell."""

import importlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import hybrid
from data import AudioFileError, LoaderError
from hybrid.build import BuildError
from hybrid.checkpoints import Checkpoints
from hybrid.writers import read_rows

TOYS = ("toy_parts", "fault_parts")


@pytest.mark.parametrize(
    ("deed", "num_workers", "message"),
    [
        ("hang", 0, r"timeout_s=0\.5 s; this one was not: clips/031\.wav"),
        pytest.param(
            "kill",
            2,
            "a worker died",
            marks=pytest.mark.slow,  # two pools of workers start
        ),
    ],
)
def test_a_reader_that_fails_once(toy_config, tmp_path, deed, num_workers, message):
    toy_config.data.target = "fault_parts:NamedSource"
    toy_config.num_steps = 12
    toy_config.eval_every_steps = toy_config.checkpoint_every_steps = 0
    whole = hybrid.fit(toy_config, tmp_path / "whole")
    toy_config.data.num_workers = num_workers
    toy_config.data.timeout_s = 0.5 if deed == "hang" else 60.0
    toy_config.data.kwargs = {"deed": deed, "at": 31, "once": str(tmp_path / "once")}
    with pytest.raises(LoaderError, match=message):
        hybrid.fit(toy_config, tmp_path / "run")
    stopped = hybrid.load(tmp_path / "run", trusted=TOYS)
    assert int(stopped.state.step) > 0
    assert sum(row["split"] == "train" for row in stopped.metrics) == int(stopped.state.step) // 5
    state = hybrid.fit(toy_config, tmp_path / "run")
    for one, two in zip(
        jax.tree.leaves(whole.learner), jax.tree.leaves(state.learner), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_a_first_clip_that_never_comes_is_named(toy_config, tmp_path):
    toy_config.data.target = "fault_parts:NamedSource"
    toy_config.data.kwargs = {"deed": "hang", "at": 0}
    toy_config.data.timeout_s = 0.3
    with pytest.raises(BuildError, match=r"within data\.timeout_s=0\.3 s, and clips/000\.wav"):
        hybrid.fit(toy_config, tmp_path)


def test_a_clip_that_cannot_be_shown_costs_no_step(toy_config, tmp_path, monkeypatch):
    toy_config.num_steps, toy_config.eval_every_steps = 6, 3
    toy_config.checkpoint_every_steps = 0
    loop = importlib.import_module("hybrid.fit")
    make, calls = loop.evaluation_loader, []

    def vanishing(*arguments):
        loader = make(*arguments)
        begin = type(loader).__iter__

        class Vanishing(type(loader)):
            def __iter__(self):
                calls.append(True)
                if len(calls) == 2:
                    raise AudioFileError("gone.wav is no longer there")
                return begin(self)

        loader.__class__ = Vanishing
        return loader

    monkeypatch.setattr(loop, "evaluation_loader", vanishing)
    with pytest.raises(AudioFileError, match="no longer there"):
        hybrid.fit(toy_config, tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").steps() == [3]
    hybrid.fit(toy_config, tmp_path)
    rows = [row["step"] for row in read_rows(tmp_path) if row["split"] == "validation"]
    assert rows == [3, 6]


@pytest.mark.parametrize("value", [0, -1.0, "soon", True])
def test_the_time_to_wait_is_a_time(toy_config, tmp_path, value):
    config = toy_config.to_dict()
    config["data"]["timeout_s"] = value
    with pytest.raises(ValueError, match=r"config\.data\.timeout_s must be a number of seconds"):
        hybrid.fit(ConfigDict(config), tmp_path)
