"""Each learner takes the place of a config's own by one flag, and a step with it."""

import json
import pathlib

import jax
import pytest
from ml_collections import ConfigDict

from data import Prefetch
from experiments.configs import tones
from hybrid.build import build
from hybrid.config import apply_kwargs
from hybrid.parts import start, training_loader
from hybrid.step import make_step

TOYS = pathlib.Path(__file__).parents[1] / "hybrid"
LEARNERS = {
    "MLP": {"widths": [8], "context_frames": 1},
    "GRU": {"width": 4},
    "Transformer": {"width": 8, "depth": 1, "heads": 2, "positions": "none"},
}


@pytest.mark.parametrize("name", LEARNERS)
def test_one_step(name, monkeypatch):
    monkeypatch.syspath_prepend(str(TOYS))
    config = tones.get_config()
    config.num_steps = 1
    config.batch_size = 4
    config.data.num_workers = 0
    config.physics_optimizer.start_step = 0
    # A cochlea would take most of the time, and is the same for all.
    given = {"physics": '{"bands": 4}', "learner": json.dumps(LEARNERS[name])}
    original = {part: config[part].target for part in ("physics", "learner", "task", "data")}
    config.physics.target = "toy_parts:ToyEar"
    config.learner.target = f"learners:{name}"
    config = ConfigDict(apply_kwargs(config, given, original).to_dict())
    experiment = build(config)
    assert type(experiment.learner).__name__ == name
    assert experiment.learner.num_classes == 4
    state, optimizers = start(experiment)
    before = jax.device_get((state.physics.params, state.learner.params))
    with Prefetch(training_loader(experiment)) as batches:
        batch, _ = next(batches)
    step = make_step(experiment.task, *optimizers)
    state, report = step(state, batch, update_physics=True, update_learner=True)
    after = jax.device_get((state.physics.params, state.learner.params))
    assert report["finite"]
    moved = jax.tree.map(lambda one, two: (one != two).any(), before, after)
    assert all(any(jax.tree.leaves(branch)) for branch in moved)
