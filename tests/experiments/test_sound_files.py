"""Files that are written hold what they were to hold, or do not appear."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile

from experiments import sound_files

ROOT = pathlib.Path(__file__).parents[2]
RATE_HZ = 16_000


def write(path, samples, channels=1, **options):
    sound = np.random.default_rng(samples).uniform(-0.5, 0.5, (samples, channels))
    soundfile.write(path, sound, RATE_HZ, **options)
    return path


def test_blocks_are_of_the_size_asked_for(tmp_path, monkeypatch):
    source = write(tmp_path / "in.wav", 70_000)
    for size, default, sizes in (
        (None, 30_000, [30_000, 30_000, 10_000]),
        (50_000, 30_000, [50_000, 20_000]),
    ):
        monkeypatch.setattr(sound_files, "BLOCK_SAMPLES", default)
        with sound_files.reading(source) as heard:
            assert [block.shape[1] for block in sound_files.blocks(heard, size)] == sizes


@pytest.mark.parametrize(
    ("given", "subtype", "out", "made"),
    [
        ("in.wav", "PCM_24", "out.flac", "PCM_24"),
        ("in.wav", "FLOAT", "out.flac", "PCM_24"),
        ("in.wav", "DOUBLE", "out.w64", "DOUBLE"),
        ("in.wav", "ULAW", "out.wav", "ULAW"),
        ("in.wav", "ULAW", "out.flac", "PCM_16"),
        ("in.wav", "IMA_ADPCM", "out.wav", "PCM_16"),
        ("in.mp3", "MPEG_LAYER_III", "out.wav", "PCM_16"),
        ("in.mp3", "MPEG_LAYER_III", "out.mp3", "MPEG_LAYER_III"),
        ("in.ogg", "VORBIS", "out.mp3", "MPEG_LAYER_III"),
    ],
)
def test_samples_are_coded_alike_where_a_format_can(tmp_path, given, subtype, out, made):
    source = write(tmp_path / given, 5_000, subtype=subtype)
    with (
        sound_files.reading(source) as heard,
        sound_files.writing(tmp_path / out, heard) as written,
    ):
        for block in sound_files.blocks(heard):
            written.write(block.T)
    info = soundfile.info(tmp_path / out)
    assert (info.subtype, info.frames) == (made, soundfile.info(source).frames)


def test_a_file_that_reads_back_otherwise_does_not_appear(tmp_path):
    source = write(tmp_path / "in.wav", 100)
    with (
        pytest.raises(ValueError, match=r"\(16000, 1, 100\); .*would have \(16000, 1, 60\)"),
        sound_files.reading(source) as heard,
        sound_files.writing(tmp_path / "out.wav", heard) as written,
    ):
        written.write(np.zeros(60))
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_what_is_too_large_for_a_format_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setitem(sound_files.LARGEST_BYTES, "wav", 399)
    source = write(tmp_path / "in.wav", 100, channels=2)
    with sound_files.reading(source) as heard:
        message = r"would have 400 bytes .* room for 399; give one of .w64, .rf64 and .flac"
        with (
            pytest.raises(ValueError, match=message),
            sound_files.writing(tmp_path / "out.wav", heard),
        ):
            pass
        with sound_files.writing(tmp_path / "out.w64", heard) as written:
            written.write(np.zeros((100, 2)))
    assert {path.name for path in tmp_path.iterdir()} == {"in.wav", "out.w64"}


STOPPED = """
    import pathlib, sys, time
    from experiments import sound_files
    from experiments.stopping import stoppable
    source, out = map(pathlib.Path, sys.argv[1:])
    with stoppable(lambda: 60.0), sound_files.reading(source) as heard:
        with sound_files.writing(out, heard) as written:
            print("ready", flush=True)
            time.sleep(60)
"""


def test_a_signal_leaves_nothing_behind(tmp_path):
    source, out = write(tmp_path / "in.wav", 100), tmp_path / "out.wav"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STOPPED), source, out],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=30)
    assert (process.returncode, text) == (75, "")
    assert list(tmp_path.iterdir()) == [source]
