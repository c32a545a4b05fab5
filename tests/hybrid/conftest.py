"""A config over toy parts, importable by path from tests and from data workers."""

import pathlib

import jax
import pytest

from hybrid.config import default_config

HERE = pathlib.Path(__file__).parent


@pytest.fixture
def toy_config(monkeypatch):
    """A run of 40 small steps."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=":")
    config = default_config()
    config.num_steps = 40
    config.batch_size = 8
    config.log_every_steps = 5
    config.eval_every_steps = 20
    config.checkpoint_every_steps = 10
    config.data.num_workers = 0
    config.physics.target = "toy_parts:ToyEar"
    config.learner.target = "toy_parts:ToyNet"
    config.data.target = "toy_parts:ToySource"
    config.learner_optimizer.learning_rate = 0.05
    config.physics_optimizer.learning_rate = 0.05
    config.physics_optimizer.start_step = 10
    config.physics_optimizer.every = 2
    return config


@pytest.fixture
def foreign_config(toy_config):
    """The toy run, on a list of batches."""
    toy_config.num_steps = 12
    toy_config.eval_every_steps = 6
    toy_config.checkpoint_every_steps = 2
    toy_config.physics_optimizer.start_step = 0
    toy_config.data.target = "data:Iterables"
    toy_config.data.kwargs = {
        "target": "foreign_parts:listed",
        "rename": {"waveform": "audio", "label": "labels"},
        "class_names": ("soft", "loud"),
        "sample_rate_hz": 1000.0,
        "num_samples": 160,
    }
    return toy_config


@pytest.fixture(scope="session")
def quickly():
    """`jax.jit` that compiles faster code less: most of a short test is compilation."""

    def compile_quickly(function):
        return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})

    return compile_quickly
