"""Where a number ceased to be finite is found: clip, stage, channel, sample, leaf."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hybrid.build import build
from hybrid.diagnosis import locate
from hybrid.parts import start
from hybrid.state import init_state
from hybrid.step import make_step
from hybrid.tasks import Classification
from hybrid.watch import Faults, faults_of
from physics.carfac import Carfac

ROWS = 4


@pytest.fixture
def diagnose(toy_config):
    """Returns a function that spoils a run, takes a step and looks for the place."""

    def run(batch_change=None, state_change=None, take=False, **parts):
        for name, value in parts.items():
            part, _, field = name.partition("__")
            toy_config[part][field or "target"] = value
        toy_config.batch_size = ROWS
        experiment = build(toy_config)
        state, optimizers = start(experiment)
        items = [experiment.source.dataset("train")[i] for i in range(ROWS)]
        batch = {name: jnp.stack([jnp.asarray(item[name]) for item in items]) for name in items[0]}
        # No sample is silent but where a test says so.
        batch |= {"lengths": jnp.full(ROWS, 160, jnp.int32), "audio": batch["audio"] + 0.05}
        batch = batch | (batch_change(batch) if batch_change else {})
        state = state_change(state) if state_change else state
        faults = Faults(np.nan, False, {}, {}, [])
        if take:
            step = make_step(experiment.task, *optimizers)
            taken = jax.tree.map(jnp.copy, state)
            _, report = step(taken, batch, update_physics=True, update_learner=True)
            assert not report["finite"]
            faults = faults_of(report)
        return locate(experiment.task, state, batch, faults), faults

    return run


def with_learner(state, name, value):
    params = dict(state.learner.params)
    params[name] = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), params[name])
    return state.replace(learner=state.learner.replace(params=params))


def test_a_sample_of_the_audio(diagnose):
    place, _ = diagnose(lambda b: {"audio": b["audio"].at[2, 7].set(jnp.inf)})
    assert (place.part, place.stage, place.index) == ("batch", "audio", {"row": 2, "sample": 7})
    assert (place.value, place.rows) == ("inf", [2])


def test_samples_behind_the_end_and_rows_that_do_not_count_are_not_to_blame(diagnose):
    def change(batch):
        audio = batch["audio"].at[0, 120].set(jnp.nan).at[1, 5].set(jnp.nan).at[3, 9].set(jnp.nan)
        lengths = batch["lengths"].at[0].set(96)
        return {"audio": audio, "lengths": lengths, "weights": batch["weights"].at[1].set(0.0)}

    place, _ = diagnose(change)
    assert place.index == {"row": 3, "sample": 9}
    assert place.rows == [3]


def test_a_parameter(diagnose):
    def change(state):
        params = dict(state.physics.params)
        params["health"] = params["health"].at[1].set(jnp.nan)
        return state.replace(physics=state.physics.replace(params=params))

    place, _ = diagnose(state_change=change)
    assert (place.part, place.stage) == ("physics", "parameter health")
    assert place.index == {"channel": 1}


def test_a_stage_of_a_composed_front_end(diagnose):
    def change(batch):
        return {"audio": batch["audio"].at[1, 48:].set(200.0).at[3, 96:].set(200.0)}

    place, _ = diagnose(
        change,
        physics="physics.compose:Compose",
        physics__kwargs={
            "front": {"target": "fault_parts:LinearEar"},
            "stages": [
                {"target": "physics.compressors:PowerLaw"},
                {"target": "fault_parts:LogStage", "limit": 2.0},
            ],
        },
    )
    assert (place.part, place.stage, place.value) == ("physics", "log_stage", "nan")
    # Frame 3 begins at sample 48 of clip 1.
    assert place.index == {"row": 1, "frame": 3, "channel": 0, "sample": 48}
    assert place.rows == [1, 3]


def test_a_layer(diagnose):
    place, _ = diagnose(
        state_change=lambda s: with_learner(s, "last", 3e38),
        learner="fault_parts:RootNet",
    )
    assert (place.part, place.direction, place.stage) == ("learner", "forward", "last")
    assert set(place.index) == {"row", "channel"}


@pytest.mark.slow  # test_nonfinite.py finds the same through a whole run
def test_a_gradient_of_the_physics_in_silence(diagnose):
    place, faults = diagnose(
        lambda b: {"audio": b["audio"].at[2].set(0.0)}, take=True, physics="fault_parts:RootEar"
    )
    assert (place.part, place.direction) == ("physics", "backward")
    assert place.stage == "gradient of health"
    assert place.rows == [2]
    assert faults.loss_finite


@pytest.mark.slow  # it compiles a step of its own
def test_a_gradient_of_the_network(diagnose):
    place, _ = diagnose(
        lambda b: {"audio": b["audio"].at[1].set(0.0)},
        take=True,
        physics="fault_parts:LinearEar",
        learner="fault_parts:RootNet",
    )
    assert (place.part, place.direction) == ("learner", "backward")
    assert place.stage == "gradient of what features is told"
    assert place.index["row"] == 1
    assert place.rows == [1]


@pytest.mark.slow  # likewise
def test_an_update_that_overflows(diagnose, toy_config):
    toy_config.learner_optimizer.update(
        {"name": "sgd", "learning_rate": 3e38, "clip_norm": 0.0, "schedule": "constant"}
    )
    toy_config.learner_optimizer.weight_decay = 1.0
    place, faults = diagnose(state_change=lambda s: with_learner(s, "Dense_0", 100.0), take=True)
    assert place.part == "optimizer"
    assert faults.updates["learner"]


class Sum(nn.Module):
    """Sums of the features over time and channels, as logits; nothing to learn."""

    @nn.compact
    def __call__(self, features, train):
        return jnp.stack([jnp.sum(features, axis=(1, 2))] * 2, axis=1)


def test_a_cochlea_tells_output_channel_and_sample(key):
    ear = Carfac(sample_rate_hz=8000, hop_s=0.01, min_pole_hz=1000.0)
    params = ear.init()
    audio = np.zeros((2, 400), np.float32)
    audio[:, 100:] = 0.01 * np.random.default_rng(0).standard_normal(300)
    audio[1, 250] = 3e38
    names = ("ohc", "agc", "bm", "receptor_potential", "nap")
    given, _ = jax.jit(lambda p, x: ear.run(p, x, outputs=names))(params, audio)
    bad = {n: np.argwhere(~np.isfinite(np.asarray(getattr(given, n))[1])) for n in names}
    first = min(int(places[:, 0].min()) for places in bad.values() if len(places))
    began = [n for n in names if len(bad[n]) and bad[n][:, 0].min() == first]

    task, empty = Classification(ear, Sum()), optax.identity()
    state = init_state(task, {"audio": audio, "lengths": np.full(2, 400)}, key, empty, empty)
    batch = {"audio": jnp.asarray(audio), "lengths": jnp.array([400, 400], jnp.int32)}
    batch |= {"weights": jnp.ones(2), "ids": jnp.arange(2), "labels": jnp.zeros(2, jnp.int32)}
    place = locate(task, state, batch, Faults(np.nan, False, {}, {}, []))
    assert place.part == "physics"
    assert place.stage == began[0]
    assert place.index["row"] == 1
    assert place.index["sample"] == first >= 250
    assert place.index["channel"] == bad[began[0]][bad[began[0]][:, 0] == first][0, 2]
    assert place.rows == [1]
    assert f"({first / 8000:.6g} s)" in place.line(8000)
