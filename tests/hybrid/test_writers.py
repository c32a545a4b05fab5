"""Logs have every row once, whatever was written before a run was killed and taken up again."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hybrid import writers
from hybrid.writers import Writer, read_rows

ROOT = Path(__file__).resolve().parents[2]
PICTURE = np.zeros((4, 6, 3), np.uint8)
SOUND = np.sin(np.arange(40), dtype=np.float32)


def accumulated(workdir):
    accumulator = EventAccumulator(
        str(workdir / "tensorboard"), {"scalars": 0, "images": 0, "audio": 0, "tensors": 0}
    )
    accumulator.Reload()
    return accumulator


def scalar_steps(workdir, tag="train/loss"):
    return [event.step for event in accumulated(workdir).Scalars(tag)]


def write_steps(writer, first, last, every=5):
    for step in range(first, last + 1):
        if step % every == 0:
            writer.scalars(step, {"loss": 1 / (step + 1), "clips_per_s": 3.0})
            writer.image(step, "cochleagram", PICTURE)
            writer.audio(step, "audio/clean", SOUND, 8000)


def test_a_row_holds_python_numbers(tmp_path):
    with Writer(tmp_path) as writer:
        values = {
            "loss": jnp.asarray(0.1),
            "numpy": np.float64(1 / 3),
            "half": jnp.asarray(1.5, jnp.bfloat16),
            "count": np.int32(7),
            "one": np.ones((1, 1)),
            "flag": True,
            "confusion": [[1, 2], [3, 4]],
            "wall_s": 3.5,
            "clock/mine": 1.0,
        }
        writer.scalars(5, values, split="validation")
    (row,) = read_rows(tmp_path)
    assert list(row)[:2] == ["step", "split"]
    assert row == {
        "step": 5,
        "split": "validation",
        "loss": float(np.float32(0.1)),
        "numpy": 1 / 3,
        "half": 1.5,
        "count": 7,
        "one": 1.0,
        "flag": 1,
        "confusion": [[1, 2], [3, 4]],
        "wall_s": 3.5,
        "clock/mine": 1.0,
    }
    assert set(row) - set(writers.without_clock(row)) == {"wall_s", "clock/mine"}
    tags = accumulated(tmp_path).Tags()["scalars"]
    assert "validation/loss" in tags
    assert "validation/wall_s" in tags
    assert not any("confusion" in tag for tag in tags)


def test_what_is_no_scalar_is_refused(tmp_path):
    with Writer(tmp_path) as writer:
        with pytest.raises(ValueError, match=r"'loss' has shape \[3\]"):
            writer.scalars(1, {"loss": np.ones(3)})
        with pytest.raises(ValueError, match=r"'x' is float32 \[4, 6\]"):
            writer.image(1, "x", np.zeros((4, 6), np.float32))
    assert read_rows(tmp_path) == []


def test_not_a_number_survives(tmp_path):
    with Writer(tmp_path) as writer:
        writer.scalars(1, {"nan": jnp.asarray(jnp.nan), "inf": float("-inf")})
    (row,) = read_rows(tmp_path)
    assert np.isnan(row["nan"])
    assert row["inf"] == -np.inf


def test_images_and_texts_reach_tensorboard(tmp_path):
    with Writer(tmp_path) as writer:
        writer.image(3, "cochleagram", PICTURE)
        writer.text(0, "config", "```json\n{}\n```")
    accumulator = accumulated(tmp_path)
    (image,) = accumulator.Images("cochleagram")
    assert (image.step, image.width, image.height) == (3, 6, 4)
    (text,) = accumulator.Tensors("config/text_summary")
    assert text.tensor_proto.string_val[0].startswith(b"```json")


def test_sounds_reach_tensorboard(tmp_path):
    with Writer(tmp_path) as writer:
        writer.audio(3, "audio/noisy", 2 * SOUND, 8000)
        writer.audio(3, "audio/both", np.stack([SOUND, -SOUND], axis=1), 16_000.0)
    accumulator = accumulated(tmp_path)
    (sound,) = accumulator.Audio("audio/noisy")
    assert (sound.step, sound.sample_rate, sound.length_frames) == (3, 8000, 40)
    samples, rate_hz = soundfile.read(io.BytesIO(sound.encoded_audio_string))
    assert rate_hz == 8000
    np.testing.assert_allclose(samples, np.clip(2 * SOUND, -1, 1), atol=1e-4)
    (sound,) = accumulator.Audio("audio/both")
    assert soundfile.read(io.BytesIO(sound.encoded_audio_string))[0].shape == (40, 2)


def test_what_is_no_sound_is_refused(tmp_path):
    with Writer(tmp_path) as writer:
        for samples, rate_hz, message in (
            (np.zeros(4, np.int16), 8000, r"'x' is int16 \[4\]"),
            (np.zeros((4, 3), np.float32), 8000, r"'x' is float32 \[4, 3\]"),
            (np.array([np.nan]), 8000, "all of them finite; 'x' does not"),
            (np.zeros(0), 8000, "must hold samples"),
            (np.zeros(4), 8000.5, "'x' has 8000.5"),
        ):
            with pytest.raises(ValueError, match=message):
                writer.audio(1, "x", samples, rate_hz)


def test_resume_has_every_row_once(tmp_path):
    # Killed twice, the second time before the first checkpoint of its own.
    for start, last in ((0, 23), (20, 34), (20, 40)):
        writer = Writer(tmp_path, start)
        if start == 0:
            writer.text(0, "config", "text")
        write_steps(writer, start + 1, last)
        writer.flush()
    expected = list(range(5, 41, 5))
    assert [row["step"] for row in read_rows(tmp_path)] == expected
    assert scalar_steps(tmp_path) == expected
    accumulator = accumulated(tmp_path)
    assert [image.step for image in accumulator.Images("cochleagram")] == expected
    assert [sound.step for sound in accumulator.Audio("audio/clean")] == expected
    assert len(accumulator.Tensors("config/text_summary")) == 1


def test_start_at_zero_starts_anew(tmp_path):
    for _ in range(2):
        writer = Writer(tmp_path, 0)
        writer.text(0, "config", "text")
        write_steps(writer, 0, 7)
        writer.flush()
    assert [row["step"] for row in read_rows(tmp_path)] == [0, 5]
    assert scalar_steps(tmp_path) == [0, 5]
    assert len(accumulated(tmp_path).Tensors("config/text_summary")) == 1


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_torn_ends_are_dropped(tmp_path, cut):
    writer = Writer(tmp_path)
    write_steps(writer, 1, 20)
    writer.close()
    (events,) = writers.event_files(tmp_path / "tensorboard")
    for path in (events, tmp_path / "metrics.jsonl"):
        path.write_bytes(path.read_bytes()[:-cut])
    assert [row["step"] for row in read_rows(tmp_path)] == [5, 10, 15]
    with Writer(tmp_path, 15) as writer:
        write_steps(writer, 16, 25)
    assert [row["step"] for row in read_rows(tmp_path)] == [5, 10, 15, 20, 25]
    assert scalar_steps(tmp_path) == [5, 10, 15, 20, 25]


def test_garbage_in_the_middle_does_not_stop_a_run(tmp_path):
    with Writer(tmp_path) as writer:
        write_steps(writer, 1, 10)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0\0{]\n" + b'{"no": 1}\n' + b"[3]\n" + lines[1])
    assert [row["step"] for row in read_rows(tmp_path)] == [5, 10]
    Writer(tmp_path, 10).close()
    assert path.read_bytes() == b"".join(lines)


def test_a_clock_set_back_changes_nothing(tmp_path, monkeypatch):
    for start, now in ((0, 2_000_000_000.0), (10, 1_000_000_000.0), (20, 1_000_000_000.0)):
        monkeypatch.setattr(writers.time, "time", lambda now=now: now)
        with Writer(tmp_path, start) as writer:
            write_steps(writer, start + 1, start + 12)
    assert scalar_steps(tmp_path) == [5, 10, 15, 20, 25, 30]


def test_what_was_flushed_before_a_kill_is_there(tmp_path):
    script = textwrap.dedent(f"""
        import os, signal, sys, types
        # The module alone, without all that the package's __init__ imports.
        sys.modules["hybrid"] = types.ModuleType("hybrid")
        sys.modules["hybrid"].__path__ = ["hybrid"]
        from hybrid.writers import Writer
        writer = Writer({str(tmp_path)!r})
        for step in range(1, 31):
            writer.scalars(step, {{"loss": step / 7}})
            if step == 20:
                writer.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    child = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    with Writer(tmp_path, 20) as writer:
        for step in range(21, 41):
            writer.scalars(step, {"loss": step / 7})
    assert [row["step"] for row in read_rows(tmp_path)] == list(range(1, 41))
    assert [row["loss"] for row in read_rows(tmp_path)] == [step / 7 for step in range(1, 41)]
    assert scalar_steps(tmp_path) == list(range(1, 41))


def test_rows_compare_equal_without_their_clocks(tmp_path):
    rows = []
    for rate in (100.0, 200.0):
        with Writer(tmp_path / str(rate)) as writer:
            writer.scalars(1, {"loss": 0.1, "clips_per_s": rate})
        rows.append(read_rows(tmp_path / str(rate)))
    assert rows[0] != rows[1]
    assert [writers.without_clock(row) for row in rows[0]] == [
        writers.without_clock(row) for row in rows[1]
    ]


def test_no_file_no_rows(tmp_path):
    assert read_rows(tmp_path) == []


def test_lines_are_json_objects(tmp_path):
    with Writer(tmp_path) as writer:
        write_steps(writer, 1, 10)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert isinstance(json.loads(line), dict)
