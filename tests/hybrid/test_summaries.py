"""What a run shows at evaluation: the sounds and pictures that its task offers."""

import types

import jax.numpy as jnp
import numpy as np
import torch

from hybrid.summaries import features_image, write_examples


class Recorder:
    """A writer that remembers."""

    def __init__(self):
        self.sounds, self.pictures = {}, {}

    def audio(self, step, name, samples, sample_rate_hz):
        self.sounds[name] = (step, samples, sample_rate_hz)

    def image(self, step, name, pixels):
        self.pictures[name] = (step, pixels)


class Doubling:
    """A task that offers its audio, and twice that, to be heard and seen."""

    physics = types.SimpleNamespace(sample_rate_hz=1000)

    def examples(self, physics_params, learner_params, learner_collections, batch):
        audio = batch["audio"]
        pictures = {"steps": audio.reshape(*audio.shape[:1], -1, 2)}
        return {"one": audio, "two": physics_params * audio}, pictures


def batch(weights=(0.0, 1.0), lengths=(8, 6)):
    return {
        "audio": torch.arange(16, dtype=torch.float32).reshape(2, 8) / 10,
        "lengths": torch.tensor(lengths, dtype=torch.int32),
        "weights": torch.tensor(weights),
    }


STATE = types.SimpleNamespace(
    physics=types.SimpleNamespace(params=jnp.float32(2)),
    learner=types.SimpleNamespace(params=()),
    collections=(),
)


def test_the_first_clip_that_counts_is_shown_at_one_gain():
    recorder = Recorder()
    write_examples(recorder, 5, Doubling(), STATE, [batch()])
    assert set(recorder.sounds) == {"audio/one", "audio/two"}
    step, one, rate_hz = recorder.sounds["audio/one"]
    assert (step, rate_hz) == (5, 1000)
    two = recorder.sounds["audio/two"][1]
    # The second row up to its length; its double, 2.6 at most, just fits.
    np.testing.assert_allclose(one, np.arange(8, 14) / 26, rtol=1e-6)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)
    step, pixels = recorder.pictures["steps"]
    expected = features_image(np.arange(8, 16, dtype=np.float32).reshape(4, 2) / 10)
    np.testing.assert_array_equal(pixels, expected)


def test_nothing_is_shown_of_a_batch_without_a_clip():
    for empty in (batch(weights=(0.0, 0.0)), batch(lengths=(8, 0))):
        recorder = Recorder()
        write_examples(recorder, 5, Doubling(), STATE, [empty])
        assert not recorder.sounds
        assert not recorder.pictures
    write_examples(Recorder(), 5, object(), STATE, [batch()])


class Silent(Doubling):
    """A task that has something to show, and nothing to be heard."""

    def examples(self, physics_params, learner_params, learner_collections, batch):
        return {}, super().examples(physics_params, (), (), batch)[1]


def test_a_task_without_sounds_shows_its_pictures():
    recorder = Recorder()
    write_examples(recorder, 5, Silent(), STATE, [batch()])
    assert not recorder.sounds
    assert set(recorder.pictures) == {"steps"}


class Grouped(Doubling):
    """A task with pictures to be compared, and one on a scale of its own; some of it not finite."""

    def examples(self, physics_params, learner_params, learner_collections, batch):
        audio = batch["audio"].reshape(*batch["audio"].shape[:1], -1, 2)
        bad = audio.at[..., 0].set(jnp.nan)
        pictures = {"levels/one": audio, "levels/two": audio - 1, "levels/bad": bad, "own": audio}
        sounds = {"good": batch["audio"], "bad": batch["audio"].at[:, 3].set(jnp.inf)}
        return sounds, pictures


def test_equal_values_of_a_group_have_equal_colours():
    recorder = Recorder()
    write_examples(recorder, 5, Grouped(), STATE, [batch()])
    drawn = {name: pixels for name, (_, pixels) in recorder.pictures.items()}
    values = np.arange(8, 16, dtype=np.float32).reshape(4, 2) / 10
    limits = float(values.min()) - 1, float(values.max())
    for name, shown in (("levels/one", values), ("levels/two", values - 1)):
        np.testing.assert_array_equal(drawn[name], features_image(shown, limits))
    assert (drawn["levels/one"] != drawn["levels/two"]).any()
    np.testing.assert_array_equal(drawn["own"], features_image(values))
    # What is no number is black, and changes the colours of nothing else.
    assert not drawn["levels/bad"][:2].any()
    np.testing.assert_array_equal(drawn["levels/bad"][2:], drawn["levels/one"][2:])


def test_a_sound_that_is_not_finite_stops_nothing(caplog):
    recorder = Recorder()
    write_examples(recorder, 5, Grouped(), STATE, [batch()])
    assert set(recorder.sounds) == {"audio/good"}
    assert "step 5: not finite, so not to be heard: bad" in caplog.text
    np.testing.assert_allclose(recorder.sounds["audio/good"][1], np.arange(8, 14) / 13, rtol=1e-6)
