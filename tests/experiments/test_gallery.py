"""The gallery draws every picture, quickly if asked to, and says what it cannot do."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import image

from experiments import gallery, gallery_levels, gallery_sounds, gallery_style, gallery_tuning

ROOT = pathlib.Path(__file__).parents[2]
QUICK = gallery_style.Setting(sample_rate_hz=16000, settle_s=0.08, level_step_db=20, dpi=50)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery") / "new" / "pictures"
    return folder, list(gallery.draw(folder, setting=QUICK))


def test_every_picture_is_written_and_shows_something(written):
    folder, pictures = written
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(f"{name}.png" for name in gallery.PICTURES)
    for path, about in pictures:
        assert about.endswith(".")
        pixels = image.imread(path)
        # At least one column of a page wide, and neither blank nor nearly so.
        assert pixels.shape[1] >= 3.4 * QUICK.dpi
        assert (pixels[..., :3].std(axis=-1) > 0.05).mean() > 0.005
        assert len(np.unique((255 * pixels[..., 0]).astype(int))) > 50


def test_a_picture_is_the_same_each_time(written, tmp_path):
    ((again, _),) = gallery.draw(tmp_path, ["cochleagram"], QUICK)
    assert again.read_bytes() == (written[0] / "cochleagram.png").read_bytes()


def test_axes_say_what_they_show():
    with gallery_style.style():
        figure = gallery_tuning.audiogram(QUICK)
    (axes,) = figure.axes
    assert axes.get_xlabel() == "frequency (Hz)"
    assert axes.get_ylabel() == "threshold (dB HL)"
    assert axes.yaxis_inverted()
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert (lines["healthy"] < lines["OHC health 0.5"]).all()
    assert (lines["OHC health 0.5"] < lines["no OHC"]).all()
    assert lines["healthy"][list(axes.lines[0].get_xdata()).index(1000)] == pytest.approx(
        0, abs=0.1
    )


def test_compression_is_that_of_the_model():
    with gallery_style.style():
        figure = gallery_levels.compression(dataclasses.replace(QUICK, settle_s=0.4))
    for axes in figure.axes:
        lines = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert np.allclose(np.diff(lines["no OHC"]), 20, atol=0.3)
        slope = (lines["healthy"][4] - lines["healthy"][2]) / 40
        assert 0.25 < slope < 0.55
        assert axes.texts[0].get_text().startswith(f"{slope:.2f} dB/dB")


def test_speech_has_the_level_that_it_says():
    audio, middles = gallery_sounds.speech(16000)
    level = 100 + 20 * np.log10(np.sqrt(2 * np.mean(audio.astype(float) ** 2)))
    assert level == pytest.approx(65, abs=0.01)
    assert len(middles) == len(gallery_sounds.SYLLABLES) == 4
    assert np.all(np.diff([0, *middles, audio.size / 16000]) > 0.05)


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "experiments.gallery", *args],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.slow  # a process of its own compiles anew what the tests above have compiled
def test_command_says_what_it_wrote(tmp_path):
    result = command(f"--out={tmp_path}", "--only=audiogram", "--dpi=50")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"{tmp_path}/audiogram.png  ")
    assert [path.name for path in tmp_path.iterdir()] == ["audiogram.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--out"),
        (("--out={file}",), "--out must be a directory that can be written to, got {file}"),
        (("--out={file}/below",), "--out must be a directory"),
        (("--out={folder}", "--only=tunning"), "the pictures cochleagram, tuning"),
    ],
)
def test_command_refuses(arguments, message, tmp_path):
    file = tmp_path / "file"
    file.touch()
    names = {"file": file, "folder": tmp_path / "folder"}
    result = command(*(argument.format(**names) for argument in arguments))
    assert result.returncode != 0
    assert message.format(**names) in result.stderr
    assert "Traceback" not in result.stderr
    assert not names["folder"].exists()
