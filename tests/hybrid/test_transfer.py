"""A run starts with leaves of another one: those that are asked for, all of them, or none."""

import importlib

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import hybrid
from hybrid.build import build
from hybrid.checkpoints import CheckpointError, CheckpointMismatch, Checkpoints
from hybrid.inspection import initial_state
from hybrid.parts import start
from hybrid.paths import named_leaves
from hybrid.state import Branch
from hybrid.transfer import transfer
from hybrid.workdir import WorkdirConflict

TOYS = ("toy_parts",)


def test_a_run_that_took_leaves_never_goes_back_to_its_own(trained, monkeypatch):
    _, config, folder = trained
    config = child(config, folder, num_steps=6)
    config.data.kwargs, config.nonfinite.policy = {"poisoned": 5}, "roll_back"
    config.checkpoint_every_steps = 12
    loop = importlib.import_module("hybrid.fit")
    # As if that of step 0 were damaged.
    monkeypatch.setattr(loop, "last_due", lambda *_: None)
    with pytest.raises(CheckpointError, match="would not be what it began with"):
        hybrid.fit(config, folder / "child")


@pytest.fixture
def trained(toy_config, tmp_path):
    """The checkpoint of a run of 12 steps as it might be, its state, and a config."""
    toy_config.num_steps, toy_config.physics_optimizer.start_step = 4, 0
    toy_config.eval_every_steps = toy_config.checkpoint_every_steps = 0
    state, _ = start(build(toy_config))

    def moved(tree):
        return jax.tree.map(lambda x: x + np.float32(0.125), tree)

    state = state.replace(
        step=state.step + 12,
        physics=Branch(moved(state.physics.params), state.physics.opt_state),
        learner=Branch(moved(state.learner.params), state.learner.opt_state),
        collections=moved(state.collections),
    )
    store = Checkpoints(tmp_path / "trained" / "checkpoints")
    store.save(12, state, {})
    store.close()
    return state, toy_config, tmp_path


def child(config, folder, pattern=".*", **changes):
    new = ConfigDict(config.to_dict())
    new.init_from, new.init_leaves, new.seed = str(folder / "trained"), pattern, 1
    new.update(changes)
    return new


def taken(config):
    experiment = build(config)
    state, optimizers = start(experiment)
    return transfer(experiment, state, optimizers)


def same(one, two):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return [bool(np.array_equal(a, b)) for a, b in pairs]


def test_a_network_starts_on_a_trained_ear(trained):
    state, config, folder = trained
    # Physics that is pulled to where it starts, with a network of another kind.
    new = child(config, folder, r"physics\.params\..*")
    new.learner.target, new.learner.kwargs = "learners:MLP", ConfigDict({"widths": (3,)})
    new.physics_optimizer.weight_decay = 0.1
    started, origin = taken(new)
    assert all(same(started.physics.params, state.physics.params))
    leaves = named_leaves(started.physics.opt_state)
    anchors = [leaf for name, leaf in leaves.items() if ".anchor." in name]
    assert all(same(anchors, jax.tree.leaves(state.physics.params)))
    assert origin["step"] == 12
    assert origin["leaves"] == ["physics.params.gain", "physics.params.health"]


def test_an_ear_starts_under_a_trained_network(trained):
    state, config, folder = trained
    started, _ = taken(child(config, folder, r"(learner\.params|collections)\..*"))
    assert all(same(started.learner.params, state.learner.params))
    assert all(same(started.collections, state.collections))
    assert not any(same(started.physics.params, state.physics.params))
    # Optimizers and the count of steps start anew.
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(started.learner.opt_state))
    assert int(started.step) == 0


def test_the_run_goes_on_without_the_other_and_only_with_the_same_request(trained):
    state, config, folder = trained
    new = child(config, folder)
    hybrid.fit(child(config, folder, num_steps=1), folder / "new")
    (folder / "trained").rename(folder / "gone")
    assert int(hybrid.fit(new, folder / "new").step) == 4
    with pytest.raises(WorkdirConflict, match=r"init_leaves: '\.\*' -> 'learner"):
        hybrid.fit(child(config, folder, "learner.*"), folder / "new")
    # Where it began is kept for ever, and is what its learning is told from.
    run = hybrid.load(folder / "new", trusted=TOYS)
    assert Checkpoints(folder / "new" / "checkpoints").steps() == [0, 1, 4]
    assert all(same(initial_state(run).physics.params, state.physics.params))


def test_what_does_not_fit_is_named_and_nothing_is_taken(trained):
    _, config, folder = trained
    wider = child(config, folder)
    wider.physics.kwargs = {"bands": 4}
    with pytest.raises(CheckpointMismatch) as caught:
        hybrid.fit(wider, folder / "new")
    text = str(caught.value)
    assert "physics.params.gain: there float32[2], here float32[4]" in text
    assert "learner.params.Dense_0.kernel: there float32[2,2], here float32[4,2]" in text
    assert "Dense_0.bias" not in text
    assert not (folder / "new" / "config.json").exists()
    assert not (folder / "new" / "checkpoints").exists()
    other = child(config, folder)
    other.learner.target = "learners:MLP"
    with pytest.raises(CheckpointMismatch, match=r"BatchNorm_0.*: there float32\[2\], here absent"):
        taken(other)
    with pytest.raises(ValueError, match=r"'fysics.*' matches none(.|\n)*physics\.params\.gain"):
        taken(child(config, folder, "fysics.*"))
