"""Every config in the folder takes a step of both branches, on its own data, and is evaluated."""

import importlib.util
import pathlib

import jax
import numpy as np
import pytest

import hybrid
from experiments import launch
from hybrid.parts import evaluation_loader

CONFIGS = sorted(p for p in launch.CONFIG_FOLDER.glob("*.py") if p.stem != "__init__")


# Half a minute of compilation each; their tasks have tests of their own, with smaller parts.
SLOW = {"ddsp", "ddsp_local", "vae"}


def load(path: pathlib.Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow if p.stem in SLOW else ()) for p in CONFIGS],
    ids=lambda path: path.stem,
)
def test_one_step(path, tmp_path, noisy_root):
    config = load(path)
    config.num_steps = 1
    config.batch_size = 2
    config.data.num_workers = 0
    config.physics_optimizer.start_step = 0
    if "speech" in config.data.target:
        config.data.root = str(noisy_root)
        config.data.kwargs.words = ("go", "no", "yes")
    config.physics_optimizer.warmup_steps = 0
    config.learner_optimizer.warmup_steps = 0
    hybrid.fit(config, tmp_path / "run")
    run = hybrid.load(tmp_path / "run")
    assert all(row["change"] >= 0 for row in hybrid.moved_parameters(run))
    assert any(row["change"] > 0 for row in hybrid.moved_parameters(run))
    leaves = jax.tree.leaves((run.state.physics.params, run.state.learner.params))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    result = hybrid.evaluate(run.task, run.state, evaluation_loader(run, "test"))
    assert np.isfinite(result["loss"])


@pytest.mark.parametrize("path", [p for p in CONFIGS if p.stem in SLOW], ids=lambda path: path.stem)
def test_parts_fit(path):
    hybrid.build(load(path))


def test_the_docstring_of_a_config_is_its_launch_command():
    for path in CONFIGS:
        text = path.read_text().split('"""')[1]
        assert "python -m experiments.train" in text
        assert f"--config=experiments/configs/{path.name}" in text
