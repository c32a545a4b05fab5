"""A run starts with leaves of another one: those that are asked for, all of them, or none."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import hybrid
from hybrid.checkpoints import CheckpointMismatch, Checkpoints
from hybrid.paths import named_leaves
from hybrid.workdir import WorkdirConflict

TOYS = ("toy_parts",)


@pytest.fixture
def trained(toy_config, tmp_path):
    """A run of 12 steps, and its config."""
    toy_config.num_steps, toy_config.physics_optimizer.start_step = 12, 0
    return hybrid.fit(toy_config, tmp_path / "trained"), toy_config, tmp_path


def child(config, source, pattern=".*", **changes):
    new = ConfigDict(config.to_dict())
    new.init_from, new.init_leaves, new.seed = str(source), pattern, 1
    new.num_steps = 4
    new.update(changes)
    return new


def initial(workdir):
    return hybrid.inspection.initial_state(hybrid.load(workdir, trusted=TOYS))


def same(one, two):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return [bool(np.array_equal(a, b)) for a, b in pairs]


def test_a_network_is_trained_on_a_trained_ear(trained):
    state, config, folder = trained
    # Physics that is pulled to where it starts, with a network of another size.
    new = child(config, folder / "trained", r"physics\.params\..*")
    new.learner.target, new.learner.kwargs = "learners:MLP", ConfigDict({"widths": (3,)})
    new.physics_optimizer.weight_decay = 0.1
    hybrid.fit(new, folder / "new")
    start = initial(folder / "new")
    assert all(same(start.physics.params, state.physics.params))
    anchors = {n: v for n, v in named_leaves(start.physics.opt_state).items() if ".anchor." in n}
    assert len(anchors) == 2
    assert all(
        same(list(anchors.values()), [state.physics.params["gain"], state.physics.params["health"]])
    )
    # What it learned is told from where it started, not from where a new ear would.
    moved = {
        row["name"]: row
        for row in hybrid.moved_parameters(hybrid.load(folder / "new", trusted=TOYS))
    }
    gain = np.mean(
        hybrid.load(folder / "trained", trusted=TOYS).physics.physical(state.physics.params)["gain"]
    )
    assert moved["gain"]["initial"] == pytest.approx(float(gain), rel=1e-6)


def test_an_ear_is_trained_under_a_trained_network(trained):
    state, config, folder = trained
    new = child(config, folder / "trained", r"(learner\.params|collections)\..*")
    hybrid.fit(new, folder / "new")
    start = initial(folder / "new")
    assert all(same(start.learner.params, state.learner.params))
    assert all(same(start.collections, state.collections))
    assert not any(same(start.physics.params["gain"], state.physics.params["gain"]))
    # Optimizers start anew.
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(start.learner.opt_state))


def test_the_run_goes_on_without_the_other_and_only_with_the_same_request(trained):
    _, config, folder = trained
    new = child(config, folder / "trained")
    hybrid.fit(new, folder / "whole")
    part = ConfigDict(new.to_dict())
    for branch in ("physics_optimizer", "learner_optimizer"):
        part[branch].schedule = new[branch].schedule = "constant"
    whole = hybrid.fit(new, folder / "constant")
    part.num_steps = 2
    hybrid.fit(part, folder / "parts")
    (folder / "trained").rename(folder / "gone")
    state = hybrid.fit(new, folder / "parts")
    assert all(same((state.physics, state.learner), (whole.physics, whole.learner)))
    with pytest.raises(WorkdirConflict, match=r"init_leaves: '\.\*' -> 'learner"):
        hybrid.fit(child(config, folder / "trained", "learner.*"), folder / "whole")
    store = Checkpoints(folder / "parts" / "checkpoints")
    assert 0 in store.steps()
    origin = store.restore(whole)[1]["book"]["origin"]
    assert (origin["step"], origin["pattern"]) == (12, ".*")
    assert "physics.params.gain" in origin["leaves"]


def test_what_does_not_fit_is_named_and_nothing_is_taken(trained):
    _, config, folder = trained
    wider = child(config, folder / "trained")
    wider.physics.kwargs = {"bands": 4}
    with pytest.raises(CheckpointMismatch) as caught:
        hybrid.fit(wider, folder / "new")
    text = str(caught.value)
    assert "physics.params.gain: there float32[2], here float32[4]" in text
    assert "learner.params.Dense_0.kernel: there float32[2,2], here float32[4,2]" in text
    assert "Dense_0.bias" not in text
    other = child(config, folder / "trained")
    other.learner.target = "learners:MLP"
    with pytest.raises(CheckpointMismatch, match=r"BatchNorm_0.*: there float32\[2\], here absent"):
        hybrid.fit(other, folder / "new")
    double = child(config, folder / "trained", precision="float64")
    with pytest.raises(CheckpointMismatch, match=r"gain: there float32\[2\], here float64\[2\]"):
        hybrid.fit(double, folder / "new")
    with pytest.raises(ValueError, match=r"'fysics.*' matches none(.|\n)*physics\.params\.gain"):
        hybrid.fit(child(config, folder / "trained", "fysics.*"), folder / "new")
    assert not (folder / "new" / "config.json").exists()
    assert not (folder / "new" / "checkpoints").exists()
