"""Enhancement: padding, masks and losses, frame rates, what it shows, and what it refuses."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.noisy_speech import NoisySpeech
from hybrid.build import Experiment
from hybrid.config import default_config
from hybrid.parts import evaluation_loader
from hybrid.tasks_enhance import Enhancement
from learners import MaskNet
from physics.carfac import Carfac
from physics.spectra import LogMel, Stft

RATE_HZ = 8000
TIME = 1600


class Everything(nn.Module):
    """A mask that keeps all, or turns all round, whatever the features."""

    num_bins: int = 121
    part: str = "real"

    @nn.compact
    def __call__(self, features, train):
        ones = jnp.ones((*features.shape[:2], self.num_bins), features.dtype)
        if self.part == "real":
            return ones
        return jnp.concatenate([0.0 * ones, ones], axis=-1)


def make(learner=None, physics=None, **fields):
    physics = physics or LogMel(sample_rate_hz=RATE_HZ, n_mels=6)
    learner = learner or MaskNet(121, width=6, dilations=(1, 2))
    return Enhancement(physics, learner, **fields)


@pytest.fixture(scope="module")
def batch():
    """Three clips, of which the first is short and the last is to be ignored."""
    rng = np.random.default_rng(0)
    lengths = np.array([700, TIME, 0], np.int32)
    valid = np.arange(TIME) < lengths[:, None]
    clean = np.sin(0.3 * np.arange(TIME)) * np.array([[0.1], [0.3], [0.0]])
    noisy = clean + 0.1 * rng.normal(size=clean.shape)
    return {
        "audio": jnp.asarray(np.where(valid, noisy, 0), jnp.float32),
        "clean": jnp.asarray(np.where(valid, clean, 0), jnp.float32),
        "lengths": jnp.asarray(lengths),
        "labels": jnp.zeros(3, jnp.int32),
        "ids": jnp.arange(3, dtype=jnp.int32),
        "weights": jnp.array([1.0, 1.0, 0.0], jnp.float32),
    }


@functools.partial(jax.jit, static_argnums=0)
def gradients(task, params, batch):
    physics, learner, collections = params

    def loss(physics, learner):
        return task.loss(physics, learner, collections, batch, jax.random.key(0), train=True)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(physics, learner)


@functools.partial(jax.jit, static_argnums=0)
def init(task, batch):
    return task.init(jax.random.key(0), batch)


@functools.partial(jax.jit, static_argnums=0)
def enhanced(task, params, batch):
    return task.enhance(*params, batch)[0]


@functools.partial(jax.jit, static_argnums=0)
def heard(task, params, audio, lengths):
    return task.heard(params, audio, lengths)


def test_a_mask_of_ones_gives_the_sound_back(batch):
    for fields in ({}, {"window_s": 0.04}):
        bins = round(fields.get("window_s", 0.03) * RATE_HZ) // 2 + 1
        task = make(Everything(bins), **fields)
        assert task.num_bins == bins
        estimate = enhanced(task, init(task, batch), batch)
        np.testing.assert_allclose(estimate, batch["audio"], atol=1e-6)


def test_a_complex_mask_turns_phases(batch):
    """Times i is the Hilbert transform: of a sine, its negative cosine."""
    task = make(Everything(part="imaginary"))
    sine = np.sin(0.3 * np.arange(TIME), dtype=np.float32)
    pure = batch | {"audio": jnp.asarray(np.tile(sine, (3, 1))), "lengths": jnp.full(3, TIME)}
    pure["lengths"] = pure["lengths"].astype(jnp.int32)
    estimate = enhanced(task, init(task, pure), pure)
    inner = slice(300, -300)
    np.testing.assert_allclose(estimate[0, inner], np.cos(0.3 * np.arange(TIME))[inner], atol=0.02)


def test_padding_and_rows_of_no_weight_change_nothing(batch):
    task = make(
        losses={"a": {"target": "hybrid.losses:SiSdr"}, "b": {"target": "hybrid.losses:L1"}}
    )
    params = init(task, batch)
    (loss, aux), grads = gradients(task, params, batch)
    assert set(aux["metrics"]) == {"si_sdr_db", "si_sdr_improvement_db", "a", "b"}
    np.testing.assert_allclose(loss, aux["metrics"]["a"] + aux["metrics"]["b"], rtol=1e-5)
    np.testing.assert_allclose(aux["metrics"]["si_sdr_db"], -aux["metrics"]["a"], rtol=1e-5)
    assert not aux["outputs"]["estimate"][0, 700:].any()
    beyond = jnp.arange(TIME)[None] >= batch["lengths"][:, None]
    for junk in (5.0, jnp.nan):
        spoiled = {
            name: jnp.where(beyond, jnp.full_like(batch[name], junk), batch[name])
            for name in ("audio", "clean")
        }
        again = gradients(task, params, batch | spoiled)
        jax.tree.map(np.testing.assert_array_equal, again, ((loss, aux), grads))
    # A row that counts nothing may hold anything, with a length even.
    ignored = batch | {"lengths": batch["lengths"].at[2].set(TIME)}
    (other, other_aux), other_grads = gradients(task, params, ignored)
    np.testing.assert_allclose(other, loss, rtol=1e-6)
    assert other_aux["weight"] == 2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * (1 + np.abs(b).max())),
        other_grads,
        grads,
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_a_longer_padding_changes_nothing(batch):
    task = make()
    params = init(task, batch)
    longer = batch | {name: jnp.pad(batch[name], ((0, 0), (0, 333))) for name in ("audio", "clean")}
    short, long = (enhanced(task, params, b) for b in (batch, longer))
    np.testing.assert_allclose(long[:, :TIME], short, atol=1e-6)
    assert not long[:, TIME:].any()


def test_the_estimate_hears_nothing_before_it_sounds(batch):
    """Causal but for the window: a change at a sample moves none that is a window earlier."""
    task = make()
    params = init(task, batch)
    other = batch | {"audio": batch["audio"].at[:, 1000:].multiply(-2.0)}
    one, two = (enhanced(task, params, b) for b in (batch, other))
    changed = np.flatnonzero(np.abs(one - two)[1] > 1e-6)
    assert 1000 - task.window_samples < changed.min() < 1000


@pytest.mark.parametrize("physics_hop_s", [0.0025, 0.01, 0.03])
def test_front_ends_of_other_rates_are_brought_to_the_spectra(batch, physics_hop_s):
    """A click is heard in the first frame that ends behind it, never before."""
    physics = Stft(sample_rate_hz=RATE_HZ, hop_s=physics_hop_s, window_s=0.03, size="power")
    task = make(physics=physics)
    audio = jnp.zeros((1, TIME)).at[0, 799].set(1.0)
    features, mask = heard(task, physics.init(None), audio, jnp.array([TIME], jnp.int32))
    assert features.shape[:2] == mask.shape == (1, task.num_frames(TIME)) == (1, 22)
    assert mask.all()
    slow, _ = task.frames_per_feature()
    # The first to end behind sample 799 (of hops of 80) is frame 9, or the slow one after it.
    first = int(np.flatnonzero(np.asarray(features).sum(axis=(0, 2)) > 0)[0])
    assert first == -(-10 // slow) * slow - 1


@pytest.mark.parametrize(
    "physics",
    [
        Stft(sample_rate_hz=RATE_HZ),
        Carfac(sample_rate_hz=RATE_HZ, hop_s=0.01),
        Carfac(sample_rate_hz=RATE_HZ),
    ],
    ids=["stft", "carfac", "carfac at full rate"],
)
def test_front_ends_fit(physics, batch):
    task = make(physics=physics)
    shapes = jax.eval_shape(
        lambda b: task.loss(*task.init(jax.random.key(0), b), b, None, train=False), batch
    )
    assert shapes[0].shape == ()
    assert shapes[1]["outputs"]["estimate"].shape == (3, TIME)


def test_float64_stays(x64, batch):
    task = make()
    shapes = jax.eval_shape(
        lambda b: task.loss(*task.init(jax.random.key(0), b), b, None, train=False), batch
    )
    assert {shapes[0].dtype, shapes[1]["outputs"]["estimate"].dtype} == {jnp.dtype("float64")}


def test_examples_are_sounds_and_pictures(batch):
    task = make()
    examples, params = jax.jit(task.examples), init(task, batch)
    sounds, pictures = examples(*params, batch)
    assert {name: sound.shape for name, sound in sounds.items()} == dict.fromkeys(
        ("noisy", "estimate", "clean"), (3, TIME)
    )
    assert set(pictures) == {
        "spectrogram/noisy",
        "spectrogram/estimate",
        "spectrogram/clean",
        "features",
    }
    noisy = pictures["spectrogram/noisy"][1]
    # Levels of all three are relative to the loudest of the noisy one.
    assert noisy.max() == pytest.approx(0, abs=1e-3)
    assert min(picture[:2].min() for name, picture in pictures.items() if "/" in name) > -80.01
    halved = batch | {"clean": batch["audio"] / 2}
    again = examples(*params, halved)[1]["spectrogram/clean"][1]
    loud = noisy > -60
    np.testing.assert_allclose((noisy - again)[loud], 20 * np.log10(2), atol=1e-3)
    # The tone of 0.3 radians a sample, counted from the highest bin down.
    assert abs(int(noisy.mean(axis=0).argmax()) - (120 - round(0.3 / np.pi * 120))) <= 1


def test_training_words_are_judged_in_noise(noisy_root):
    """Noise is the loader's in training; without it, nothing would be left to be enhanced."""
    source, task = NoisySpeech(root=str(noisy_root)), make()
    experiment = Experiment(default_config(), task.physics, task.learner, task, source)
    judged = next(iter(evaluation_loader(experiment, "train")))
    there = judged["weights"] > 0
    assert there.any()
    assert (judged["audio"] != judged["clean"])[there].any(dim=1).all()


def test_settings_that_do_not_fit(batch):
    with pytest.raises(ValueError, match=r"two hops or more.*window_s=0.01 and hop_s=0.01"):
        make(window_s=0.01)
    with pytest.raises(ValueError, match=r"multiples of one another, got 56 and 80 samples"):
        make(physics=LogMel(sample_rate_hz=RATE_HZ, n_mels=6, hop_s=0.007))
    with pytest.raises(ValueError, match=r"losses.si_sdr.target.*near names: SiSdr"):
        make(losses={"si_sdr": {"target": "hybrid.losses:SiSdrr"}})
    task = make(MaskNet(100, width=4, dilations=(1,)))
    params = jax.eval_shape(task.init, jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"\[batch, frames, 121\].*with num_bins=121"):
        jax.eval_shape(task.enhance, *params, batch)
    unpaired = {name: value for name, value in batch.items() if name != "clean"}
    with pytest.raises(ValueError, match=r"needs `clean` .*data.noisy_speech:NoisySpeech"):
        make().init(jax.random.key(0), unpaired)


def test_a_task_is_hashable_and_equal_to_its_like():
    assert make() == make()
    assert hash(make()) == hash(make())
    assert dataclasses.replace(make(), hop_s=0.02, window_s=0.04) != make()
