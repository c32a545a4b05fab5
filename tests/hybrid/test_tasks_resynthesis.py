"""Sound in, controls, sound out: gradients reach both trees, and only what is heard counts."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid.tasks_resynthesis import Resynthesis
from learners.decoder import Decoder
from physics.analysis_synthesis import AnalysisSynthesis
from physics.synth import HarmonicNoise

RATE_HZ = 8000
PHYSICS = AnalysisSynthesis(
    sample_rate_hz=RATE_HZ,
    hop_s=0.01,
    front={"target": "physics.spectra:LogMel", "n_mels": 6, "window_s": 0.02},
    synth={"n_harmonics": 4, "n_noise_bands": 3, "reverb_s": 0.002},
)
NET = Decoder(width=8, depth=1, latent_size=2, timbre_width=3)
LOSS = {"spectra": {"target": "hybrid.losses:Stft", "kwargs": {"n_fft": 128, "hop_samples": 64}}}
LOSS["spectra"]["kwargs"]["window_samples"] = 128
TASK = Resynthesis(PHYSICS, NET, LOSS, min_hz=100, max_hz=900)


# These programs run once or twice: what counts is how long they take to compile.
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="module")
def started():
    time_s = np.arange(1230) / RATE_HZ
    audio = np.stack([0.3 * np.sin(2 * np.pi * hz * time_s) for hz in (200, 400, 800)])
    batch = {
        "audio": jnp.asarray(audio, jnp.float32),
        "lengths": jnp.array([1230, 800, 1230], jnp.int32),
        "weights": jnp.array([1.0, 1.0, 0.0]),
        "f0_hz": jnp.array([200.0, 400.0, 800.0]),
    }
    trees = quickly(TASK.init)(jax.random.key(1), batch)
    return batch, trees


@pytest.fixture(scope="module")
def trained_loss():
    def loss(physics, learner, collections, batch, key):
        return TASK.loss(physics, learner, collections, batch, key, True)

    return quickly(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def test_gradients_reach_front_end_network_and_synthesiser(started, trained_loss):
    batch, (physics, learner, collections) = started
    (value, aux), (ours, theirs) = trained_loss(
        physics, learner, collections, batch, jax.random.key(2)
    )
    assert np.isfinite(value)
    assert set(physics) == {"front", "synth"}
    for leaf in (ours["front"]["floor"], ours["synth"]["reverb"], *jax.tree.leaves(theirs)):
        assert np.isfinite(leaf).all()
    assert np.any(ours["front"]["floor"])
    assert np.any(ours["synth"]["reverb"])
    assert all(np.any(leaf) for leaf in jax.tree.leaves(theirs["controls"]))
    assert float(aux["weight"]) == 2
    assert aux["outputs"]["estimate"].shape == batch["audio"].shape


def test_padding_and_rows_without_weight_change_nothing(started, trained_loss):
    batch, trees = started
    valid = np.arange(1230)[None] < np.array([1230, 800, 0])[:, None]
    dirty = batch | {"audio": jnp.where(valid, batch["audio"], 0.9)}
    key = jax.random.key(2)
    (value, aux), grads = trained_loss(*trees, batch, key)
    (again, other), other_grads = trained_loss(*trees, dirty, key)
    assert float(value) == float(again)
    jax.tree.map(np.testing.assert_array_equal, grads, other_grads)
    jax.tree.map(np.testing.assert_array_equal, aux["collections"], other["collections"])


def test_pitch_is_measured_or_known(started):
    batch, trees = started
    measured = quickly(TASK.hear)(trees[0], batch)
    middle = np.asarray(measured["f0_hz"])[:, 4:8]
    np.testing.assert_allclose(middle, np.broadcast_to([[200], [400], [800]], (3, 4)), rtol=2e-3)
    known = dataclasses.replace(TASK, pitch="known").hear(trees[0], batch)["f0_hz"]
    np.testing.assert_array_equal(known[0], np.full(15, 200))
    np.testing.assert_array_equal(known[1], [400] * 10 + [0] * 5)


def test_nothing_behind_the_end_of_a_lender_is_heard(started):
    batch, trees = started
    physics, learner, collections = trees

    @quickly
    def controls(lending):
        lent, heard = TASK.hear(physics, lending), TASK.hear(physics, batch)
        heard |= {"timbre": lent["timbre"], "timbre_mask": lent["mask"]}
        return TASK.decode(learner, collections, heard)[0]["noise"]

    halves = batch | {"lengths": jnp.full(3, 600, jnp.int32), "audio": batch["audio"][::-1]}
    before = controls(halves)
    after = controls(halves | {"audio": halves["audio"].at[:, 600:].set(0.7)})
    np.testing.assert_array_equal(after, before)
    # Half of it is heard to the end of what is played.
    other = controls(halves | {"audio": halves["audio"].at[:, 500:600].set(0.7)})
    assert np.all(np.any(other[0, 7:] != before[0, 7:], axis=-1))


def test_evaluation_is_the_same_always(started):
    batch, trees = started
    evaluate = quickly(lambda *trees: TASK.loss(*trees, batch, None, False)[0])
    assert float(evaluate(*trees)) == float(evaluate(*trees))


def test_examples_have_a_row_for_each_clip(started):
    batch, trees = started
    sounds, pictures = jax.eval_shape(TASK.examples, *trees, batch)
    assert {name: x.shape for name, x in sounds.items()} == {
        "original": (3, 1230),
        "resynthesis": (3, 1230),
    }
    assert all(x.shape == (3, 15, 6) for x in pictures.values())


def test_wrong_settings_are_named(started):
    batch, (physics, *_) = started
    with pytest.raises(ValueError, match="known"):
        dataclasses.replace(TASK, pitch="crepe")
    for wrong in (-1, 1.5):
        with pytest.raises(ValueError, match="look_ahead_frames"):
            dataclasses.replace(TASK, look_ahead_frames=wrong)
    with pytest.raises(ValueError, match="Set n_ears=2"):
        TASK.hear(physics, batch | {"audio": jnp.stack([batch["audio"]] * 2, axis=-1)})
    with pytest.raises(ValueError, match="AnalysisSynthesis"):
        Resynthesis(HarmonicNoise(), NET)
    del batch["f0_hz"]
    with pytest.raises(ValueError, match="f0_hz"):
        dataclasses.replace(TASK, pitch="known").init(jax.random.key(0), batch)


def test_a_hop_that_differs_is_named():
    with pytest.raises(ValueError, match=r"hop_s=0.01"):
        AnalysisSynthesis(
            sample_rate_hz=RATE_HZ, hop_s=0.01, front={"hop_s": 0.02}, synth=PHYSICS.synth
        )
    with pytest.raises(ValueError, match="control_sizes"):
        AnalysisSynthesis(sample_rate_hz=RATE_HZ, synth=PHYSICS.front)


def test_a_front_end_may_be_given_what_comes(started):
    batch, (physics, *_) = started
    task = dataclasses.replace(TASK, look_ahead_frames=1)
    now, later = (quickly(t.hear)(physics, batch) for t in (TASK, task))
    # One hop later, to the clip's end, behind which is silence.
    heard = jnp.pad(TASK.audio(batch), ((0, 0), (0, 80)))
    silence = {"audio": heard, "lengths": batch["lengths"] + 80}
    longer = quickly(TASK.features)(physics, batch | silence)[0]
    np.testing.assert_allclose(later["timbre"], longer[:, 1:], atol=1e-5)
    np.testing.assert_allclose(later["timbre"][0, :14], now["timbre"][0, 1:15], atol=1e-5)
    assert np.all(later["timbre"][1, 9] != 0)
    for name in ("mask", "f0_hz", "loudness_db"):
        np.testing.assert_array_equal(later[name], now[name])
    valid = np.arange(1230)[None] < np.array([1230, 800, 1230])[:, None]
    dirty = batch | {"audio": jnp.where(valid, batch["audio"], 0.9)}
    np.testing.assert_array_equal(quickly(task.hear)(physics, dirty)["timbre"], later["timbre"])


def test_a_network_may_look_where_controls_lie(started):
    batch, _ = started
    task = dataclasses.replace(TASK, learner=NET.clone(local_width=4))
    trees = quickly(task.init)(jax.random.key(1), batch)

    def loss(learner):
        return task.loss(trees[0], learner, trees[2], batch, jax.random.key(2), True)[0]

    grads = quickly(jax.grad(loss))(trees[1])
    for name in ("local_harmonics", "local_noise"):
        assert np.any(grads[name]["linear"]["kernel"])
    vocoder = {"target": "physics.synth:ChannelVocoder", "n_bands": 4, "min_hz": 200, "n_fft": 64}
    blind = dataclasses.replace(
        task,
        physics=AnalysisSynthesis(RATE_HZ, 0.01, front={"n_mels": 6}, synth=vocoder),
    )
    with pytest.raises(ValueError, match="places_hz"):
        jax.eval_shape(blind.init, jax.random.key(1), batch)
    mfcc = {"target": "physics.spectra:Mfcc", "n_mels": 6, "n_mfcc": 4}
    deaf = dataclasses.replace(
        task, physics=AnalysisSynthesis(RATE_HZ, 0.01, front=mfcc, synth=PHYSICS.synth)
    )
    with pytest.raises(ValueError, match=r"each of its 4 features, and has none"):
        jax.eval_shape(deaf.init, jax.random.key(1), batch)


def test_any_front_end_will_do():
    other = AnalysisSynthesis(
        sample_rate_hz=RATE_HZ,
        hop_s=0.01,
        front={"target": "physics.carfac:Carfac", "hop_s": 0.01},
        synth=PHYSICS.synth,
    )
    assert set(other.specs()["front"]) >= {"car", "ihc", "agc"}
    assert other.num_frames(1230) == 15
    task = dataclasses.replace(TASK, physics=other)
    hash(task)
    batch = {"audio": jnp.zeros((2, 1230)), "lengths": jnp.array([1230, 800], jnp.int32)}
    batch["weights"] = jnp.ones(2)
    trees = jax.eval_shape(task.init, jax.random.key(0), batch)
    loss, aux = jax.eval_shape(
        lambda *trees: task.loss(*trees, batch, jax.random.key(0), True), *trees
    )
    assert loss.shape == ()
    assert aux["outputs"]["estimate"].shape == (2, 1230)


def test_a_front_end_is_given_the_hop_where_it_takes_one():
    given = {"sample_rate_hz": RATE_HZ, "hop_s": 0.012}
    assert AnalysisSynthesis(**given, front={"n_mels": 6}).hop_samples == 96
    carfac = {"target": "physics.carfac:Carfac"}
    assert AnalysisSynthesis(**given, front=carfac).front.hop_s == 0.012
    # This one has no such field, and is made of one that hops otherwise.
    stack = {"target": "physics.compose:Compose", "front": {"hop_s": 0.01}, "stages": ()}
    with pytest.raises(ValueError, match="96"):
        AnalysisSynthesis(**given, front=stack)


def test_hops_of_any_length_have_a_loudness():
    def task(hop_s):
        return dataclasses.replace(TASK, physics=AnalysisSynthesis(RATE_HZ, hop_s), min_hz=60)

    assert task(0.008).pitch_loudness.window_s == 0.032
    assert task(0.02).pitch_loudness.window_s == 0.04
    with pytest.raises(ValueError, match=r"min_hz=60.*smaller hop_s"):
        task(0.05)


def test_controls_are_fitted_to_clips_that_count(started):
    batch, (physics, learner, collections) = started
    heard = TASK.hear(physics, batch)
    controls, _ = TASK.decode(learner, collections, heard)

    @quickly
    def fit(controls):
        fitted = TASK.fit_controls(physics, controls, batch, jax.random.key(3), 8)
        pair = (
            TASK.sound(physics, c, jax.random.key(4), 1230, batch["lengths"])
            for c in (controls, fitted)
        )
        counted = jnp.where(batch["weights"] > 0, batch["lengths"], 0)
        return fitted, [TASK.losses(audio, batch["audio"], counted) for audio in pair]

    fitted, (before, after) = fit(controls)
    assert after < 0.9 * before
    np.testing.assert_array_equal(fitted["f0_hz"], controls["f0_hz"])
    for name in ("amplitude", "harmonics", "noise"):
        assert np.any(fitted[name][:2] != controls[name][:2])
        np.testing.assert_array_equal(fitted[name][2], controls[name][2])
