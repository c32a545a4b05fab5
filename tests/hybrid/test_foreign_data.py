"""The loop trains from batches made elsewhere as from its own; what does not fit is refused."""

import jax
import numpy as np
import pytest

import hybrid
from data import IterableError
from hybrid.build import BuildError, build
from hybrid.parts import evaluation_loader

TOYS = ("toy_parts", "foreign_parts")


def test_copies_are_reported_and_all_else_works(foreign_config, tmp_path, caplog):
    with caplog.at_level("WARNING"):
        hybrid.fit(foreign_config, tmp_path)
    run = hybrid.load(tmp_path, trusted=TOYS)
    train = [row for row in run.metrics if row["split"] == "train"]
    copied = 8 * (160 + 1 + 1) * 4
    assert train[0]["copied_bytes_per_batch"] == copied
    assert train[0]["aliased_bytes_per_batch"] == 8 * 2 * 4  # ids and weights, which are ours
    assert "float64 became float32; give float32" in caplog.text
    assert train[-1]["loss"] < train[0]["loss"]
    result = hybrid.evaluate(run.task, run.state, evaluation_loader(run, "test"), 2)
    assert result["num_examples"] == 48


def test_a_generator_function_and_a_mapping_train_the_same(foreign_config, tmp_path):
    foreign_config.num_steps = 7
    states = []
    for name in ("listed", "toy_batches", "SPLITS"):
        foreign_config.data.kwargs.target = f"foreign_parts:{name}"
        states.append(hybrid.fit(foreign_config, tmp_path / name).learner.params)
    jax.tree.map(np.testing.assert_array_equal, *states[:2])
    jax.tree.map(np.testing.assert_array_equal, *states[1:])


def test_a_source_of_ones_own_may_give_batches(foreign_config, tmp_path):
    foreign_config.num_steps = 4
    foreign_config.data.target = "foreign_parts:OwnSource"
    foreign_config.data.kwargs = {}
    state = hybrid.fit(foreign_config, tmp_path)
    assert int(state.step) == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.learner.params))


def test_a_bad_batch_or_the_end_of_a_generator_costs_no_step(foreign_config, tmp_path):
    foreign_config.checkpoint_every_steps = 0
    foreign_config.data.kwargs.target = "foreign_parts:short"
    with pytest.raises(IterableError, match=r"'audio' of batch 3 of pass 0 is float32 \(8, 144\)"):
        hybrid.fit(foreign_config, tmp_path / "short")
    assert int(hybrid.load(tmp_path / "short", trusted=TOYS).state.step) == 3
    foreign_config.data.kwargs.target = "foreign_parts:ONCE"
    with pytest.raises(IterableError, match="used up after one pass, as a generator is"):
        hybrid.fit(foreign_config, tmp_path / "once")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rename": {"label": "labels"}}, r"must give `audio` .* got waveform, .*rename"),
        ({"rename": {"waveform": "audio"}}, r"config.task .* KeyError: 'labels'"),
        ({"num_samples": 99}, r"num_samples=99, ...\], got \(8, 160\): set num_samples"),
        ({"target": "foreign_parts:nothing"}, "could not be built: target must be an import path"),
        ({"kwargs": {"count": 0}, "target": "foreign_parts:toy_batches"}, "must give at least one"),
    ],
)
def test_batches_that_do_not_fit_are_named(foreign_config, kwargs, message):
    foreign_config.data.kwargs = foreign_config.data.kwargs.to_dict() | kwargs
    with pytest.raises(BuildError, match=message):
        build(foreign_config)


def test_a_source_must_not_give_one_generator_twice(foreign_config):
    foreign_config.data.target = "foreign_parts:Careless"
    foreign_config.data.kwargs = {}
    with pytest.raises(BuildError, match="the same generator twice"):
        build(foreign_config)
