"""Every fault of a file is an error that names it, or a counted row of weight 0 in its place."""

import os
import shutil
import struct
import threading
import time

import numpy as np
import pytest
import soundfile

from data import AudioFileError, ClipDataset, Loader, LoaderError

RATE_HZ, CLIPS, BATCH = 16_000, 12, 4
BAD = 5


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_flac(path):
    samples, rate_hz = soundfile.read(path)
    soundfile.write(path, samples, rate_hz, format="FLAC")
    cut(path)


def noise_behind_the_header(path):
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    path.write_bytes(content[:20] + rng.bytes(len(content) - 20))


def samples_of(value):
    def spoil(path):
        samples = np.zeros(1000, np.float32)
        samples[700] = value
        soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")

    return spoil


def ten_hours(path):
    # A sparse file: it has the size that its header promises, and nothing may be allocated for it.
    size = 10 * 3600 * RATE_HZ * 2
    head = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + size,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        RATE_HZ,
        2 * RATE_HZ,
        2,
        16,
        b"data",
        size,
    )
    path.write_bytes(head)
    os.truncate(path, len(head) + size)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


def loop(path):
    path.unlink()
    path.symlink_to(path)


def other(rate_hz=RATE_HZ, channels=1):
    return lambda path: soundfile.write(path, np.zeros((500, channels)), rate_hz, format="WAV")


FAULTS = {
    "corrupt": (lambda path: path.write_bytes(b"RIFF" + bytes(400)), "must decode as audio"),
    "noise behind the header": (noise_behind_the_header, r"05\.wav: "),
    "text": (lambda path: path.write_text("no sound" * 50), "must decode as audio"),
    "truncated": (cut, "must be complete"),
    "truncated flac": (cut_flac, r"must be complete|must decode|all that it promises"),
    "empty": (lambda path: path.write_bytes(b""), "0 bytes"),
    "no samples": (lambda path: soundfile.write(path, np.zeros(0), RATE_HZ), "0 of 0 samples"),
    "nan": (samples_of(np.nan), "sample 700 is nan"),
    "inf": (samples_of(-np.inf), "sample 700 is -inf"),
    "absurdly long": (ten_hours, "lasts 36000 s"),
    "another rate": (other(rate_hz=8000), "has 8000 Hz"),
    "two channels": (other(channels=2), "has 2 channels"),
    "vanished": (lambda path: path.unlink(), "there is no file"),
    "vanished with its folder": (lambda path: shutil.rmtree(path.parent), "there is no file"),
    "a pipe": (pipe, "no regular file"),
    "a folder": (folder, "no regular file"),
    "a link to itself": (loop, "there is no file"),
}


@pytest.fixture
def make(tmp_path, write_clip):
    """Twelve clips, of which number 5 lies in a folder of its own; and the loader of them."""
    names = [f"{index:02d}.wav" if index != BAD else "own/05.wav" for index in range(CLIPS)]
    for name in names:
        write_clip(tmp_path / name, samples=1000)

    def load(num_workers=0, on_bad_file="error", **options):
        clips = ClipDataset(
            tmp_path,
            names,
            [0] * CLIPS,
            file_rate_hz=RATE_HZ,
            sample_rate_hz=RATE_HZ,
            num_samples=1200,
            on_bad_file=on_bad_file,
        )
        return Loader(clips, batch_size=BATCH, seed=3, num_workers=num_workers, **options)

    load.root, load.names = tmp_path, names
    return load


def epoch(loader):
    return [next(loader) for _ in range(CLIPS // BATCH)]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file(make, fault):
    spoil, message = FAULTS[fault]
    good = epoch(make())
    spoil(make.root / "own" / "05.wav")
    at = next(i for i, batch in enumerate(good) if BAD in batch["ids"])

    with make() as loader:
        for _ in range(at):
            next(loader)
        position = loader.position()
        with pytest.raises(AudioFileError, match=message) as caught:
            next(loader)
        assert str(make.root / "own" / "05.wav") in str(caught.value)
        assert "on_bad_file='skip'" in str(caught.value)
        assert loader.position() == position

    with make(on_bad_file="skip") as loader:
        for before, now in zip(good, epoch(loader), strict=True):
            # The order is what it was; the bad clip's row counts nothing, and is counted.
            assert now["ids"].tolist() == before["ids"].tolist()
            row = now["ids"] == BAD
            assert now["weights"].tolist() == (~row).float().tolist()
            np.testing.assert_array_equal(now["audio"][~row].numpy(), before["audio"][~row].numpy())
            assert not now["audio"][row].any()
        assert loader.skipped_rows == loader.position()["skipped_rows"] == 1
        assert list(loader.faults) == [str(make.root / "own" / "05.wav")]


def test_many_faults_at_once_change_no_order_in_workers(make):
    good = epoch(make())
    bad = {}
    for index, fault in zip((0, 2, 3, 7, 8, 11), FAULTS, strict=False):
        FAULTS[fault][0](make.root / make.names[index])
        bad[index] = fault
    with make(num_workers=2, on_bad_file="skip") as loader:
        for before, now in zip(good, epoch(loader), strict=True):
            assert now["ids"].tolist() == before["ids"].tolist()
            assert [w == 0 for w in now["weights"]] == [i in bad for i in now["ids"].tolist()]
        assert loader.skipped_rows == len(bad)


def test_a_disk_that_hangs_is_named_and_nothing_is_lost(make, monkeypatch):
    whole = [batch["ids"].tolist() for batch in (*epoch(make()), *epoch(make()))][:3]
    hang, original = threading.Event(), ClipDataset._samples

    def slow(self, index):
        if index == BAD:
            hang.wait(timeout=60)
        return original(self, index)

    monkeypatch.setattr(ClipDataset, "_samples", slow)
    seen, stuck = [], None
    with make(timeout_s=0.3) as loader:
        while len(seen) < 3:
            position, started = loader.position(), time.monotonic()
            try:
                seen.append(next(loader)["ids"].tolist())
            except LoaderError as error:
                assert time.monotonic() - started < 20
                assert loader.position() == position
                stuck = str(error)
                hang.set()
    assert f"within timeout_s=0.3 s; this one was not: {make.root / 'own' / '05.wav'}" in stuck
    assert seen == whole


def test_slow_is_not_too_slow_as_long_as_items_come(make, monkeypatch):
    original = ClipDataset._samples

    def slow(self, index):
        time.sleep(0.2)
        return original(self, index)

    monkeypatch.setattr(ClipDataset, "_samples", slow)
    with make(timeout_s=0.6) as loader:
        assert len(next(loader)["ids"]) == BATCH


def test_what_is_interrupted_comes_again(make, monkeypatch):
    whole = [batch["ids"].tolist() for batch in epoch(make())]
    original, calls = ClipDataset._samples, []

    def interrupted(self, index):
        calls.append(index)
        if len(calls) == BATCH + 2:
            raise KeyboardInterrupt
        return original(self, index)

    monkeypatch.setattr(ClipDataset, "_samples", interrupted)
    with make() as loader:
        seen = [next(loader)["ids"].tolist()]
        with pytest.raises(KeyboardInterrupt):
            next(loader)
        seen += [next(loader)["ids"].tolist() for _ in range(2)]
    assert seen == whole


@pytest.mark.parametrize("repeat", [True, False])
def test_an_item_without_a_next_is_not_the_end_of_a_pass(make, monkeypatch, repeat):
    original = ClipDataset._samples

    def empty(self, index):
        return original(self, index) if index != BAD else next(iter(()))

    monkeypatch.setattr(ClipDataset, "_samples", empty)
    with make(repeat=repeat) as loader, pytest.raises(LoaderError, match="met StopIteration"):
        for _ in loader:
            pass


def test_resampling_that_overflows_is_a_bad_file(tmp_path):
    from data.audio_files import read_clip

    path = tmp_path / "loud.wav"
    soundfile.write(path, np.tile([3.4e38, -3.4e38], 500).astype(np.float32), 16_000, "FLOAT")
    with pytest.raises(AudioFileError, match="every sample must be finite"):
        read_clip(path, file_rate_hz=16_000, sample_rate_hz=22_050, max_samples=3000)
