"""A file in, a file out: any rate, channels and length; errors that name the file; nothing lost."""

import dataclasses
import io
import os
import pathlib
import subprocess
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from rich.console import Console
from scipy.signal import resample_poly
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hybrid
from data.audio_files import AudioFileError
from experiments import predict, sound_files
from experiments.configs import enhance
from hybrid.state import Branch, HybridState
from hybrid.tasks_enhance import Enhancement
from learners import MaskNet
from physics.spectra import LogMel

ROOT = pathlib.Path(__file__).parents[2]
RATE_HZ = 16_000


class Keeps(nn.Module):
    """A mask of one number everywhere."""

    gain: float = 1.0

    past_frames = future_frames = 0

    @nn.compact
    def __call__(self, features, train):
        gain = self.param("gain", nn.initializers.constant(self.gain), (), features.dtype)
        return jnp.broadcast_to(gain, (*features.shape[:2], 241))


@pytest.fixture(scope="module")
def loaded():
    """What `hybrid.load` gives of a run, as far as enhancing needs it."""
    return run_of(MaskNet(241, width=6, dilations=(1, 2)))


@pytest.fixture(scope="module")
def keeping():
    """A run whose mask keeps everything."""
    return run_of(Keeps())


def by_gain(keeping, gain):
    """The same run with another mask."""
    params = {"gain": jnp.float32(gain)}
    learner = dataclasses.replace(keeping.state.learner, params=params)
    state = dataclasses.replace(keeping.state, learner=learner)
    return types.SimpleNamespace(**vars(keeping) | {"state": state})


def run_of(net):
    task = Enhancement(LogMel(sample_rate_hz=RATE_HZ, n_mels=8), net)
    batch = {
        "audio": jnp.zeros((1, 1600)),
        "clean": jnp.zeros((1, 1600)),
        "lengths": jnp.full(1, 1600, jnp.int32),
    }
    physics, learner, collections = jax.jit(task.init)(jax.random.key(0), batch)
    branches = Branch(physics, ()), Branch(learner, ())
    return types.SimpleNamespace(
        task=task,
        state=HybridState(jnp.int32(0), jax.random.key(0), *branches, collections),
        source=types.SimpleNamespace(sample_rate_hz=RATE_HZ, num_samples=1600),
        config=types.SimpleNamespace(precision="float32"),
    )


def write(path, samples, rate_hz=RATE_HZ, channels=1, **options):
    rng = np.random.default_rng(samples)
    sound = rng.uniform(-0.5, 0.5, (samples, channels))
    soundfile.write(path, sound, rate_hz, **options)
    return path


@pytest.mark.parametrize(
    ("samples", "rate_hz", "channels", "name"),
    [
        (1, 16_000, 1, "a.wav"),
        (30_001, 44_100, 2, "a.flac"),
        (9_001, 7_919, 3, "a.wav"),
        (2_000, 8_000, 1, "a.ogg"),
    ],
)
def test_rate_channels_and_length_stay(loaded, tmp_path, samples, rate_hz, channels, name):
    source = write(tmp_path / f"in{name}", samples, rate_hz, channels)
    before = source.read_bytes()
    predict.enhance_file(loaded, source, tmp_path / name)
    given, made = soundfile.info(source), soundfile.info(tmp_path / name)
    assert (made.samplerate, made.channels, made.frames) == (rate_hz, channels, samples)
    assert made.subtype == given.subtype
    assert source.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {name, f"in{name}"}


def test_what_a_mask_keeps_comes_back_at_other_rates(keeping, tmp_path):
    """Each channel its own tone, there and back; at the ends as one resampling of the whole."""
    time = np.arange(30_001) / 44_100
    tones = 0.5 * np.sin(2 * np.pi * np.array([[440.0], [1000.0], [3000.0]]) * time)
    source = tmp_path / "in.wav"
    soundfile.write(source, tones.T, 44_100, subtype="FLOAT")
    predict.enhance_file(keeping, source, tmp_path / "out.wav")
    made = soundfile.read(tmp_path / "out.wav")[0].T
    np.testing.assert_allclose(made[:, 500:-500], tones[:, 500:-500], atol=5e-3)
    there = resample_poly(tones, 160, 441, axis=1)
    back = resample_poly(there, 441, 160, axis=1)[:, :30_001]
    np.testing.assert_allclose(made, back, atol=2e-5)


def test_what_is_cut_off_at_full_scale_is_said(keeping, tmp_path):
    tone = np.sin(0.3 * np.arange(4_000))
    console = Console(file=io.StringIO(), width=60)
    louder = by_gain(keeping, 2.0)
    for subtype in ("PCM_16", "FLOAT"):
        source = tmp_path / f"{subtype}.wav"
        soundfile.write(source, 0.9 * tone, RATE_HZ, subtype=subtype)
        predict.enhance_file(louder, source, tmp_path / "out.wav", console)
    made = soundfile.read(tmp_path / "out.wav")[0]
    np.testing.assert_allclose(made, 1.8 * tone, atol=1e-5)
    text = console.file.getvalue()
    count = np.count_nonzero(np.abs(1.8 * tone) > 1)
    assert f"out.wav: {count} of 4000 samples lay beyond full scale" in text
    assert text.count("beyond full scale") == 1


def test_an_estimate_that_is_not_finite_is_not_written(keeping, tmp_path):
    source = write(tmp_path / "in.wav", 100_000)
    with pytest.raises(ValueError, match=r"in.wav is not from sample 0 \(0.000 s\) on"):
        predict.enhance_file(by_gain(keeping, np.nan), source, tmp_path / "out.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]


def test_a_file_in_pieces_equals_the_sound_as_a_whole(loaded, tmp_path, monkeypatch):
    source = write(tmp_path / "in.wav", 90_000, channels=2, subtype="FLOAT")
    monkeypatch.setattr(sound_files, "BLOCK_SAMPLES", 10_000)
    predict.enhance_file(loaded, source, tmp_path / "out.wav")
    audio = soundfile.read(source, dtype="float32")[0].T
    batch = {
        "audio": jnp.asarray(audio),
        "lengths": jnp.full(2, 90_000, jnp.int32),
        "weights": jnp.ones(2),
    }
    state = loaded.state
    params = state.physics.params, state.learner.params, state.collections
    whole, _ = jax.jit(loaded.task.enhance)(*params, batch)
    made = soundfile.read(tmp_path / "out.wav", dtype="float32")[0].T
    np.testing.assert_allclose(made, whole, atol=1e-4)
    assert np.abs(made - audio).max() > 0.01


def test_progress_is_shown(loaded, tmp_path):
    source = write(tmp_path / "in.wav", 2 * RATE_HZ)
    console = Console(file=io.StringIO(), force_terminal=True, width=90)
    predict.enhance_file(loaded, source, tmp_path / "out.wav", console)
    assert "in.wav" in console.file.getvalue()
    assert "2/2 s" in console.file.getvalue()


def test_bad_files_are_named_and_leave_nothing(loaded, tmp_path):
    whole = write(tmp_path / "whole.wav", 40_000, subtype="FLOAT").read_bytes()
    poisoned = np.zeros(70_000, np.float32)
    poisoned[69_999] = np.nan
    soundfile.write(tmp_path / "nan.wav", poisoned, RATE_HZ, subtype="FLOAT")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "cut.wav").write_bytes(whole[:50_000])
    write(tmp_path / "none.wav", 0)
    given = set(tmp_path.iterdir())
    for name, message in {
        "absent.wav": "there is no such file",
        "": "this is a folder",
        "empty.wav": r"empty.wav: .* it is empty \(0 bytes\)",
        "text.wav": r"text.wav: a sound file must decode",
        "cut.wav": r"cut.wav: a sound file must be complete; the header promises",
        "none.wav": r"must hold samples; its header says 0",
        "nan.wav": r"nan.wav: every sample must be finite; sample 69999",
    }.items():
        with pytest.raises(AudioFileError, match=message):
            predict.enhance_file(loaded, tmp_path / name, tmp_path / "out.wav")
        assert set(tmp_path.iterdir()) == given


def test_outputs_that_cannot_be(loaded, tmp_path):
    source = write(tmp_path / "in.wav", 100)
    (tmp_path / "link.wav").symlink_to(source)
    (tmp_path / "hard.wav").hardlink_to(source)
    before = source.read_bytes()
    for name, message in {
        "in.wav": "--out must not be the input",
        "link.wav": "--out must not be the input",
        "hard.wav": "--out must not be the input",
        "no/out.wav": "lies in a folder that does not exist",
        "out.xyz": "must end in a format .* such as out.wav",
        "out": "must end in a format",
        # libsndfile writes these with another rate than it was asked for.
        **dict.fromkeys(("out.xi", "out.wve", "out.svx", "out.htk"), "must end in a format"),
    }.items():
        with pytest.raises(ValueError, match=message):
            predict.enhance_file(loaded, source, tmp_path / name)
    odd = write(tmp_path / "odd.wav", 100, 7_919)
    with pytest.raises(ValueError, match=r"hold 1 channels of 7919 Hz.*out.mp3 cannot be written"):
        predict.enhance_file(loaded, odd, tmp_path / "out.mp3")
    fast = write(tmp_path / "fast.wav", 100, 384_000)
    with pytest.raises(ValueError, match=r"of 384000 Hz; .*out.ogg cannot: Vorbis ends at 200000"):
        predict.enhance_file(loaded, fast, tmp_path / "out.ogg")
    assert source.read_bytes() == before
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in.wav", "link.wav", "hard.wav", "odd.wav", "fast.wav"}


def test_an_older_result_stays_until_the_new_one_is_complete(loaded, tmp_path):
    out = tmp_path / "out.wav"
    out.write_bytes(b"older")
    poisoned = np.full(10, np.inf, np.float32)
    soundfile.write(tmp_path / "inf.wav", poisoned, RATE_HZ, subtype="FLOAT")
    with pytest.raises(AudioFileError):
        predict.enhance_file(loaded, tmp_path / "inf.wav", out)
    assert out.read_bytes() == b"older"
    predict.enhance_file(loaded, write(tmp_path / "in.wav", 100), out)
    assert soundfile.info(out).frames == 100


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "experiments.predict", *map(str, args)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/hybrid")])},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_by_command(tmp_path, noisy_root):
    """A run of the config, smaller, from training to a file; and what the command refuses."""
    config = enhance.get_config()
    config.num_steps, config.batch_size, config.data.num_workers = 1, 2, 0
    config.physics_optimizer.start_step = config.learner_optimizer.warmup_steps = 0
    config.data.root = str(noisy_root)
    config.data.kwargs = {"words": ("go", "no"), "seconds": 1.0}
    config.learner.kwargs = {"num_bins": 241, "width": 4, "dilations": (1,)}
    config.physics.kwargs = {"n_mels": 8}
    hybrid.fit(config, tmp_path / "run")
    source = write(tmp_path / "in.wav", 10_000, 22_050, 2)
    result = command(f"--workdir={tmp_path / 'run'}", source, f"--out={tmp_path / 'out.wav'}")
    assert result.returncode == 0, result.stderr
    assert soundfile.info(tmp_path / "out.wav").frames == 10_000
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"audio": 0, "images": 0})
    tags = events.Reload().Tags()
    names = ("noisy", "estimate", "clean")
    assert sorted(tags["audio"]) == sorted(f"audio/{name}" for name in names)
    assert set(tags["images"]) == {"features", *(f"spectrogram/{name}" for name in names)}


def test_what_a_run_gives_decides_whether_a_file_is_written(loaded, toy_run, tmp_path):
    with pytest.raises(ValueError, match="predict takes one sound file, got none"):
        predict.main(["predict"])
    predict.check_use(loaded, tmp_path / "out.wav")
    predict.check_use(toy_run, None)
    with pytest.raises(ValueError, match="a run of enhancement writes a file: give --out=FILE"):
        predict.check_use(loaded, None)
    with pytest.raises(ValueError, match="a run of classification prints: leave --out out"):
        predict.check_use(toy_run, tmp_path / "out.wav")


class Gives:
    """A task that gives outputs of these shapes, or wants what no sound file has."""

    def __init__(self, **shapes):
        self.shapes = shapes

    def loss(self, physics, learner, collections, batch, key, train):
        outputs = {name: jnp.zeros(shape) for name, shape in self.shapes.items()}
        return batch["f0_hz"] if not outputs else jnp.zeros(()), {"metrics": {}, "outputs": outputs}


def test_a_run_that_gives_neither_sounds_nor_labels_of_clips(toy_run):
    rule = "predict needs a run of enhancement, or one that gives a label to each clip"
    for task, reason in (
        (Gives(logits=(1, 3)), r"for the 2 class_names .*; Gives gives logits \[1, 3\]: take"),
        (Gives(logits=(1, 20, 2)), r"gives logits \[1, 20, 2\]: take another run"),
        (Gives(latents=(1, 4)), r"gives latents \[1, 4\]: take another run"),
        (Gives(), r"Gives cannot be given sound alone \(KeyError: 'f0_hz'\): take another run"),
    ):
        other = types.SimpleNamespace(**vars(toy_run) | {"task": task})
        with pytest.raises(ValueError, match=f"{rule}.*{reason}"):
            predict.check_use(other, None)


def test_labels_of_a_classification(toy_run, tmp_path):
    """Stretches as long as the run's clips, the last one shorter, at the run's rate."""
    source = write(tmp_path / "in.wav", 2 * 800 + 300, 5000, 2)
    rows = predict.label_file(toy_run, source)
    assert [begin_s for begin_s, _ in rows] == [0.0, 0.16, 0.32]
    for _, probabilities in rows:
        assert probabilities.shape == (2,)
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.fixture
def toy_run(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "hybrid"))
    from hybrid.parts import start

    config = hybrid.default_config()
    config.physics.target, config.learner.target = "toy_parts:ToyEar", "toy_parts:ToyNet"
    config.data.target = "toy_parts:ToySource"
    config.batch_size = 2
    experiment = hybrid.build(config)
    state, _ = start(experiment)
    parts = {name: getattr(experiment, name) for name in ("task", "source", "config")}
    return types.SimpleNamespace(state=state, **parts)
