"""The table of losses by metrics: what it trains, what it writes, what it leaves out."""

import json

import numpy as np
import pytest
import soundfile

from experiments import enhance_table
from experiments.configs import enhance, tones
from hybrid.losses import build_losses


def small(noisy_root):
    config = enhance.get_config()
    config.num_steps, config.batch_size, config.data.num_workers = 2, 2, 0
    config.log_every_steps = 1
    config.physics_optimizer.start_step = config.learner_optimizer.warmup_steps = 0
    config.data.root = str(noisy_root)
    config.data.kwargs = {"words": ("go", "no", "yes")}
    config.learner.kwargs = {"num_bins": 241, "width": 4, "dilations": (1,)}
    return config


def test_variants_differ_in_their_loss_alone(noisy_root):
    config = small(noisy_root)
    for name, target in enhance_table.LOSSES.items():
        changed = enhance_table.variant(config, name)
        spec = changed.task.kwargs.losses.to_dict()
        ((_, weight, loss),) = build_losses(spec, 16_000).losses
        assert (weight, type(loss).__name__) == (1.0, target.split(":")[1])
        changed.task.kwargs.losses = config.task.kwargs.losses
        assert changed.to_dict() == config.to_dict()


def test_a_table_has_the_columns_that_could_be_computed():
    rows = [
        {"name": "noisy input", "si_sdr_db": 2.5, "si_sdr_improvement_db": 0.0, "STRF": 0.4},
        {"name": "SI-SDR", "si_sdr_db": 9.25, "si_sdr_improvement_db": 6.75, "STRF": 0.2},
    ]
    assert enhance_table.table(rows) == (
        "| | SI-SDR | improvement | STRF loss |\n"
        "|---|---|---|---|\n"
        "| noisy input | 2.50 dB | 0.00 dB | 0.4000 |\n"
        "| SI-SDR | 9.25 dB | 6.75 dB | 0.2000 |\n"
    )


def test_figures_that_are_not_finite_are_null():
    rows = [{"name": "noisy input", "pesq": float("nan"), "stoi": 0.5, "pesq_clips": 0}]
    assert json.loads(enhance_table.as_json(rows), parse_constant=pytest.fail) == [
        {"name": "noisy input", "pesq": None, "stoi": 0.5, "pesq_clips": 0}
    ]


def test_a_clip_has_one_gain_at_which_no_estimate_is_cut(tmp_path):
    tone = np.sin(0.3 * np.arange(200, dtype=np.float32))[None]
    lengths = np.array([150], np.int32)
    clips = enhance_table.SplitClips(0.5 * tone, 0.25 * tone, lengths, ["go_1"], 16_000)
    enhance_table.write_sounds(tmp_path, {"clean": clips.clean, "STRF": 4 * tone}, clips)
    made = {path.name: soundfile.read(path)[0] for path in tmp_path.iterdir()}
    assert {name: len(sound) for name, sound in made.items()} == {
        "go_1_clean.wav": 150,
        "go_1_strf.wav": 150,
    }
    peak = 4 * np.abs(tone[0, :150]).max()
    np.testing.assert_allclose(made["go_1_strf.wav"], 4 * tone[0, :150] / peak, atol=1e-4)
    np.testing.assert_allclose(made["go_1_clean.wav"], 0.25 * tone[0, :150] / peak, atol=1e-4)


def test_what_cannot_be_computed_at_the_rate_is_said_first(tmp_path, noisy_root, capsys):
    config = small(noisy_root)
    config.data.kwargs.sample_rate_hz = 11_025
    with pytest.raises(ValueError, match="--only must name one loss or more"):
        enhance_table.compare(config, tmp_path, [])
    assert "left out of the table: PESQ is defined at 8000 and 16000 Hz" in capsys.readouterr().out


def test_what_does_not_fit(tmp_path, noisy_root):
    with pytest.raises(ValueError, match="--only takes names of SI-SDR, multi-resolution STFT"):
        enhance_table.compare(small(noisy_root), tmp_path, ["L1"])
    with pytest.raises(ValueError, match=r"task is hybrid\.tasks:Classification; take"):
        enhance_table.compare(tones.get_config(), tmp_path, ["STRF"])


@pytest.mark.slow  # four compilations of a training step, one through the cochlea
@pytest.mark.timeout(1800)
def test_a_small_table(tmp_path, noisy_root):
    rows = enhance_table.compare(small(noisy_root), tmp_path, list(enhance_table.LOSSES), 1)
    assert [row["name"] for row in rows] == [
        "noisy input",
        "spectral subtraction",
        *enhance_table.LOSSES,
    ]
    for row in rows:
        wanted = {"si_sdr_db", "si_sdr_improvement_db", *enhance_table.LOSSES}
        assert wanted <= set(row)
        assert all(np.isfinite(row[name]) for name in wanted)
        assert row["SI-SDR"] == pytest.approx(-row["si_sdr_db"], abs=1e-3)
    assert rows[0]["si_sdr_improvement_db"] == pytest.approx(0, abs=1e-5)
    assert -5.5 < rows[0]["si_sdr_db"] < 10.5
    assert (tmp_path / "enhance_table.json").read_text() == enhance_table.as_json(rows)
    assert (tmp_path / "enhance_table.md").read_text().count("\n") == 8
    sounds = sorted((tmp_path / "audio").iterdir())
    assert len(sounds) == 7
    assert {soundfile.info(sound).frames for sound in sounds} == {9000}
