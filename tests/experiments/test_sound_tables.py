"""The yardsticks of the tables: components, pitch errors, and tables that say what was found."""

import types

import numpy as np
import pytest
import soundfile

import hybrid
from experiments import ddsp_table, timbre_transfer, vae_table
from experiments.configs import ddsp, vae


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
    assert errors == [pytest.approx(1200 * np.log2(441 / 440))]


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
    assert "6.1 cents off in the median, 97.0 at most, 75 % within 20" in text
    assert "cents" not in ddsp_table.render({"losses": losses, "cents": None, "clips": 5}, "")


def test_sounds_are_written_at_one_gain(tmp_path):
    sounds = {"original": [np.array([0.5, -2.0])], "network": [np.array([1.0, 0.0])]}
    ddsp_table.write_sounds(sounds, 8000, tmp_path)
    original, _ = soundfile.read(tmp_path / "000_original.wav")
    network, _ = soundfile.read(tmp_path / "000_network.wav")
    np.testing.assert_allclose(original, [0.25, -1], atol=1e-4)
    np.testing.assert_allclose(network, [0.5, 0], atol=1e-4)


def test_another_task_transfers_no_timbre():
    config = types.SimpleNamespace(task=types.SimpleNamespace(target="a:B"))
    other = types.SimpleNamespace(task=object(), config=config)
    with pytest.raises(ValueError, match="a:B"):
        timbre_transfer.transfer(other, "flute", "brass", 1)


@pytest.mark.slow  # compiles an autoencoder and a vocoder, with and without gradients
def test_notes_from_start_to_end(tmp_path):
    config = ddsp.get_config()
    config.num_steps, config.batch_size = 2, 4
    config.data.kwargs = {"seconds": 0.25, "takes": 1, "instruments": ("flute", "brass")}
    results = ddsp_table.make_table(config, tmp_path, tuning_steps=3)
    assert set(results["losses"]) == {"network", "vocoder as it is", "vocoder, tuned", "floor"}
    assert results["losses"]["floor"]["loss"] < results["losses"]["network"]["loss"]
    assert results["cents"]["largest"] < 20
    assert (tmp_path / "ddsp_table.md").exists()
    assert (tmp_path / "sounds" / "000_vocoder_tuned.wav").exists()
    sounds = timbre_transfer.transfer(hybrid.load(tmp_path), "flute", "brass", 3)
    assert {name: clips.shape for name, clips in sounds.items()} == dict.fromkeys(
        ("source", "timbre", "result"), (3, 4000)
    )
    assert np.abs(sounds["result"]).max() > 0


@pytest.mark.slow  # compiles an autoencoder, and searches for sounds
def test_cochleagrams_from_start_to_end(tmp_path):
    config = vae.get_config()
    config.num_steps, config.batch_size = 2, 32
    config.learner.kwargs = {"latent_size": 2, "features": (4,), "hidden": 8}
    config.learner_optimizer.warmup_steps = 0
    results = vae_table.make_table(config, tmp_path, inversion_steps=5)
    assert results["latents"] == 2
    assert len(results["errors"]) == 3
    for name in ("reconstructions", "samples", "interpolations"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        assert len(list((tmp_path / "sounds").glob(f"{name}_*.wav"))) >= 6
