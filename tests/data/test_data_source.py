"""Clips are padded, kept in memory, and skipped in place where the config allows it."""

import pathlib
import pickle

import numpy as np
import pytest

from data.audio_files import AudioFileError
from data.source import ClipDataset


@pytest.fixture
def make(tmp_path, write_clip):
    for index in range(4):
        write_clip(tmp_path / f"{index}.wav", samples=1000 + 100 * index)

    def dataset(**changes) -> ClipDataset:
        options = {"file_rate_hz": 16_000, "sample_rate_hz": 8000, "num_samples": 700} | changes
        return ClipDataset(tmp_path, [f"{i}.wav" for i in range(4)], [0, 1, 0, 1], **options)

    return dataset


def test_items_are_padded_and_independent(make):
    dataset = make()
    first = dataset[2]
    assert first["lengths"] == 600
    assert first["audio"].shape == (700,)
    assert first["audio"][:600].any()
    assert not first["audio"][600:].any()
    first["audio"][:] = 7  # a caller may write into its item
    assert np.abs(dataset[2]["audio"]).max() < 1


def test_files_are_read_once(make, tmp_path):
    dataset = make()
    first = [dataset[index]["audio"] for index in range(4)]
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    np.testing.assert_array_equal([dataset[index]["audio"] for index in range(4)], first)


def test_memory_is_bounded(make, tmp_path):
    dataset = make(cache_bytes=4 * 1100)  # the first two clips: 500 and 550 samples
    for index in range(4):
        dataset[index]
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    dataset[0], dataset[1]
    with pytest.raises(AudioFileError):
        dataset[2]


def test_pickle_leaves_the_clips_behind(make):
    dataset = make()
    before = len(pickle.dumps(dataset))
    item = dataset[0]
    assert len(pickle.dumps(dataset)) == before
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[0]["audio"], item["audio"])


def test_skip_keeps_the_place(make, tmp_path):
    (tmp_path / "1.wav").write_bytes(b"not audio")
    with pytest.raises(AudioFileError, match=r"1\.wav"):
        make()[1]
    dataset = make(on_bad_file="skip")
    item = dataset[1]
    assert len(dataset) == 4
    assert item["weights"] == 0
    assert item["lengths"] == 0
    assert item["labels"] == 1
    assert item["ids"] == 1
    assert not item["audio"].any()
    assert "1.wav" in dataset.faults[1]
    assert dataset[2]["weights"] == 1


def test_fingerprint_is_that_of_names_and_labels(make):
    dataset = make()
    moved = ClipDataset(
        pathlib.Path("elsewhere"),
        dataset.names,
        dataset.labels.tolist(),
        file_rate_hz=1,
        sample_rate_hz=1,
        num_samples=1,
    )
    assert moved.fingerprint() == dataset.fingerprint()
    moved.labels[0] = 1
    assert moved.fingerprint() != dataset.fingerprint()
