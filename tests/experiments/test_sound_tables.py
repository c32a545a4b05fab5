"""The yardsticks of the tables: components, pitch errors, and tables that say what was found."""

import dataclasses
import types

import jax
import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hybrid
from experiments import ddsp_table, listening, timbre_transfer, vae_table
from experiments.configs import ddsp, vae
from hybrid.writers import Writer, event_files


def heard_in_tensorboard(workdir, folder):
    """Steps of each sound, by tag."""
    read = EventAccumulator(str(workdir / "tensorboard" / folder)).Reload()
    return {tag: [event.step for event in read.Audio(tag)] for tag in read.Tags()["audio"]}


def test_components_are_the_best_plane():
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((2, 12))
    clips = (3 + rng.standard_normal((40, 2)) @ plane).reshape(40, 4, 3)
    found = vae_table.principal_components(clips[:30], 2)
    exact = vae_table.project(found, clips[30:])
    assert vae_table.squared_error(clips[30:], exact) < 1e-20
    fewer = vae_table.principal_components(clips[:30], 1)
    errors = [
        vae_table.squared_error(clips[:30], guess)
        for guess in (vae_table.project(fewer, clips[:30]), found["mean"][None])
    ]
    # What one component leaves is the smaller of the two variances, spread over all values.
    flat = clips[:30].reshape(30, -1)
    variances = np.linalg.svd(flat - flat.mean(0), compute_uv=False)[:2] ** 2 / flat.size
    np.testing.assert_allclose(errors, [variances[1], variances.sum()], rtol=1e-9)


def test_the_table_of_codes():
    errors = {"the mean of the training clips": 0.04, "8 principal components": 0.01}
    text = vae_table.render(errors, 7, {"samples": 0.012})
    assert "7 clips" in text
    assert "| 8 principal components | 1.000e-02 | 25.0 % |" in text
    assert "| samples | 1.20 % |" in text


def test_pictures_have_a_cell_for_each_clip():
    clips = {f"clip {i}": np.full((5, 3), float(i)) for i in range(8)}
    figure = vae_table.picture_grid(clips, 0.01)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:8] == list(clips)
    assert len(figure.axes) == 12


def test_pitch_errors_are_of_periodic_frames():
    f0_hz = np.array([[0.0, 440.0, 442.0, 441.0, 900.0], [100.0] * 5])
    confidence = np.array([[1, 0.9, 0.9, 0.9, 0.2], [0.1] * 5])
    errors = ddsp_table.pitch_errors(f0_hz, confidence, np.array([440.0, 100.0]))
    assert errors == pytest.approx([1200 * np.log2(441 / 440), np.nan], nan_ok=True)


def test_notes_that_are_nowhere_periodic_count_as_wrong():
    cents = ddsp_table.summarise([3.0, np.nan, 5.0, np.nan])
    assert (cents["median"], cents["largest"], cents["within"]) == (4.0, 5.0, 0.5)
    losses = {"vocoder": {"loss": 1.0, "auraloss": 1.0}}
    text = ddsp_table.render({"losses": losses, "cents": cents, "clips": 4}, "")
    assert "2 of 4 notes had periodic frames; 4.0 cents off" in text
    assert "50 % of all within 20" in text
    assert ddsp_table.summarise([np.nan])["within"] == 0


def test_the_table_of_losses_compares_with_the_better_vocoder():
    losses = {
        "network": {"loss": 0.6, "auraloss": 1.0},
        "vocoder as it is": {"loss": 2.0, "auraloss": 2.0},
        "vocoder, tuned": {"loss": 1.0, "auraloss": 1.5},
        "floor": {"loss": 0.5, "auraloss": 0.9},
    }
    cents = ddsp_table.summarise([3.21, 1.0, 97.0, 9.0])
    text = ddsp_table.render({"losses": losses, "cents": cents, "clips": 5}, "40 bands")
    assert "| autoencoder | 0.6000 | -40 % | 1.0000 |" in text
    assert "| two draws of the same noise | 0.5000 | -50 % | 0.9000 |" in text
    assert "4 of 4 notes had periodic frames" in text
    assert "6.1 cents off in the median, 97.0 at most; 75 % of all within 20" in text
    text = ddsp_table.render({"losses": losses, "cents": None, "clips": 5}, "")
    assert "cents" not in text
    assert "fitted" not in text


def test_what_is_fitted_to_a_note_is_beside_its_like_too():
    losses = {
        "network": {"loss": 0.6, "auraloss": 1.0},
        "vocoder, tuned": {"loss": 1.0, "auraloss": 1.5},
        "vocoder, tuned, fitted to each note": {"loss": 0.8, "auraloss": 1.4},
        "network, fitted to each note": {"loss": 0.5, "auraloss": 0.9},
    }
    text = ddsp_table.render({"losses": losses, "cents": None, "clips": 5}, "40 bands")
    assert "| autoencoder | 0.6000 | -40 % | 1.0000 |" in text
    assert "| autoencoder, fitted to each note | 0.5000 | -50 % | 0.9000 |" in text
    assert "| vocoder, tuned, fitted to each note | 0.8000 | -20 % | 1.4000 |" in text
    assert "Both fitted to each note: the autoencoder -38 % beside the vocoder." in text


def test_sounds_are_written_at_one_gain(tmp_path):
    sounds = {"original": [np.array([0.5, -2.0])], "vocoder, tuned": [np.array([1.0, 0.0])]}
    for _ in range(2):  # the second time in the place of the first
        files = listening.write_sounds(
            ddsp_table.some_sounds(sounds), 8000, tmp_path, "sounds", step=7
        )
    names = ["000_original", "000_vocoder_tuned"]
    assert files == [tmp_path / "sounds" / f"{name}.wav" for name in names]
    original, tuned = (soundfile.read(file)[0] for file in files)
    np.testing.assert_allclose(original, [0.25, -1], atol=1e-4)
    np.testing.assert_allclose(tuned, [0.5, 0], atol=1e-4)
    assert heard_in_tensorboard(tmp_path, "sounds") == {f"sounds/{name}": [7] for name in names}


def test_sounds_leave_the_logs_of_training_alone(tmp_path):
    clip = np.zeros(8, np.float32)
    with Writer(tmp_path) as writer:
        writer.audio(2, "audio/original", clip, 8000)
        writer.audio(4, "audio/original", clip, 8000)
    before = {file: file.read_bytes() for file in event_files(tmp_path / "tensorboard")}
    listening.write_sounds({"one": clip}, 8000, tmp_path, "sounds", step=4)
    assert {f: f.read_bytes() for f in event_files(tmp_path / "tensorboard")} == before
    # A run that goes back to a checkpoint cuts its own, and leaves these.
    Writer(tmp_path, 2).close()
    assert heard_in_tensorboard(tmp_path, ".") == {"audio/original": [2]}
    assert heard_in_tensorboard(tmp_path, "sounds") == {"sounds/one": [4]}


def test_the_three_of_a_transfer_have_one_gain(tmp_path):
    physics = types.SimpleNamespace(sample_rate_hz=8000)
    state = types.SimpleNamespace(step=np.int32(5))
    loaded = types.SimpleNamespace(physics=physics, state=state, workdir=tmp_path)
    kinds = {"source": 0.25, "timbre": 0.5, "result": 4.0}
    sounds = {kind: np.array([[level, 0.0], [0.1, level / 8]]) for kind, level in kinds.items()}
    files = timbre_transfer.write_transfer(loaded, sounds, "transfer/a_to_b")
    heard = [soundfile.read(file)[0] for file in files]
    wanted = [[0.0625, 0], [0.125, 0], [1, 0], [0.1, 0.03125], [0.1, 0.0625], [0.1, 0.5]]
    np.testing.assert_allclose(heard, wanted, atol=1e-4)
    assert len(heard_in_tensorboard(tmp_path, "transfer/a_to_b")) == 6


def test_another_task_transfers_no_timbre():
    config = types.SimpleNamespace(task=types.SimpleNamespace(target="a:B"))
    other = types.SimpleNamespace(task=object(), config=config)
    with pytest.raises(ValueError, match="a:B"):
        timbre_transfer.transfer(other, "flute", "brass", 1)


@pytest.mark.slow  # compiles an autoencoder and a vocoder, with and without gradients
def test_notes_from_start_to_end(tmp_path):
    config = ddsp.get_config()
    config.num_steps, config.batch_size = 2, 4
    config.learner_optimizer.warmup_steps = 0
    config.data.kwargs = {"seconds": 0.25, "takes": 1, "instruments": ("flute", "brass")}
    results = ddsp_table.make_table(config, tmp_path, tuning_steps=3, fitting_steps=3)
    losses = {name: values["loss"] for name, values in results["losses"].items()}
    models = ("network", "vocoder, tuned")
    fitted = [f"{model}, fitted to each note" for model in models]
    assert set(losses) == {*models, *fitted, "vocoder as it is", "floor"}
    assert losses["floor"] < losses["network"]
    assert all(losses[more] < losses[less] for more, less in zip(fitted, models, strict=True))
    assert results["cents"]["largest"] < 20
    assert (tmp_path / "ddsp_table.md").exists()
    assert (tmp_path / "sounds" / "000_vocoder_tuned.wav").exists()
    kinds = ("original", "network", "other_noise", "vocoder_as_it_is", "vocoder_tuned")
    heard = heard_in_tensorboard(tmp_path, "sounds")
    assert [heard.get(f"sounds/000_{kind}") for kind in kinds] == [[2]] * len(kinds)
    # Known pitches are not held against themselves.
    loaded = hybrid.load(tmp_path)
    known = dataclasses.replace(loaded, task=dataclasses.replace(loaded.task, pitch="known"))
    cents = ddsp_table.judge(known, ddsp_table.make_vocoder(known), {})["cents"]
    assert cents == pytest.approx(results["cents"], abs=0.01)
    assert cents["median"] > 0


@pytest.mark.slow  # trains an autoencoder until it follows loudness
def test_pitch_and_loudness_of_one_and_timbre_of_another(tmp_path):
    config = ddsp.get_config()
    config.num_steps, config.batch_size = 60, 8
    config.data.kwargs = {
        "seconds": 0.5,
        "takes": 1,
        "instruments": ("flute", "brass", "plucked"),
    }
    config.physics.kwargs.synth = {"n_harmonics": 8, "n_noise_bands": 5}
    config.learner.kwargs = {"width": 32, "timbre_width": 16, "latent_size": 4, "whole_clip": True}
    config.task.kwargs = {"losses": {"spectra": {"target": "hybrid.losses:Stft"}}}
    hybrid.fit(config, tmp_path)
    loaded = hybrid.load(tmp_path)
    brass, plucked = (
        timbre_transfer.transfer(loaded, "flute", name, 3) for name in ("brass", "plucked")
    )
    assert all(clips.shape == (3, 8000) for clips in brass.values())
    np.testing.assert_array_equal(brass["source"], plucked["source"])
    heard = {
        name: jax.device_get(loaded.task.pitch_loudness.run({}, clips)[0])
        for name, clips in plucked.items()
    }
    sure = heard["source"]["confidence"] > 0.9
    cents = 1200 * np.log2(heard["result"]["f0_hz"][sure] / heard["source"]["f0_hz"][sure])
    assert np.median(np.abs(cents)) < 3

    def alike(name):
        pairs = zip(heard["result"]["loudness_db"], heard[name]["loudness_db"], strict=True)
        return min(np.corrcoef(result, other)[0, 1] for result, other in pairs)

    assert alike("source") > max(0.85, alike("timbre"))
    # Another lender makes more of a difference than a twentieth of the sound.
    change = np.square(brass["result"] - plucked["result"]).mean()
    assert change > 0.05 * np.square(brass["result"]).mean()


@pytest.mark.slow  # compiles an autoencoder of shorter frames and larger batches
def test_syllables_are_made_anew_too(tmp_path):
    config = ddsp.get_config()
    config.data.target = "data.tones:SpokenTones"
    config.data.kwargs = {"sample_rate_hz": 16000, "seconds": 0.432}
    config.num_steps, config.batch_size = 1, 4
    config.learner_optimizer.warmup_steps = 0
    assert int(hybrid.fit(config, tmp_path).step) == 1
    assert np.isfinite(hybrid.load(tmp_path).metrics[-1]["loss"])


@pytest.mark.slow  # compiles an autoencoder, and searches for sounds
def test_cochleagrams_from_start_to_end(tmp_path):
    config = vae.get_config()
    config.num_steps, config.batch_size = 2, 32
    config.learner.kwargs = {"latent_size": 2, "features": (4,), "hidden": 8}
    config.learner_optimizer.warmup_steps = 0
    results = vae_table.make_table(config, tmp_path, inversion_steps=5)
    assert results["latents"] == 2
    assert len(results["errors"]) == 3
    heard = heard_in_tensorboard(tmp_path, "sounds")
    assert all(steps == [2] for steps in heard.values())
    for name in ("reconstructions", "samples", "interpolations"):
        assert len([tag for tag in heard if tag.startswith(f"sounds/{name}_")]) >= 6
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert len(list((tmp_path / "sounds").glob(f"{name}_*.wav"))) >= 6
