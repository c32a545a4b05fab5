"""Notes have the pitch they claim, each pitch is in one split, packages are taken safely."""

import io
import pathlib
import stat
import tarfile

import numpy as np
import pytest
import soundfile

from data import Loader
from data.audio_files import AudioFileError
from data.note_synthesis import INSTRUMENTS, make_note, note_hz
from data.notes import Notes, fetch, midi_of, package, split_of
from data.source import SPLITS, DataRootError

RATE_HZ = 8000


def heard_hz(audio, near_hz, rate_hz=RATE_HZ):
    """Frequency of the fundamental, by a parabola through the peak of the spectrum near it."""
    window = np.hanning(audio.size)
    size = 4 * audio.size
    spectrum = np.log(np.abs(np.fft.rfft(audio * window, size)) + 1e-12)
    low, high = (int(near_hz * ratio * size / rate_hz) for ratio in (0.94, 1.06))
    peak = low + int(np.argmax(spectrum[low:high]))
    left, middle, right = spectrum[peak - 1 : peak + 2]
    return (peak + 0.5 * (left - right) / (left - 2 * middle + right)) * rate_hz / size


@pytest.mark.parametrize("name", INSTRUMENTS)
@pytest.mark.parametrize("midi", [48, 61, 84])
def test_generated_notes_have_their_pitch(name, midi):
    audio = make_note(name, midi, 0, RATE_HZ, 2 * RATE_HZ)
    assert audio.dtype == np.float32
    assert 0.01 < np.abs(audio).max() < 1
    # Vibrato comes later, and its mean is the pitch.
    cents = 1200 * np.log2(heard_hz(audio[:RATE_HZ], note_hz(midi)) / note_hz(midi))
    assert abs(cents) < 8


def test_notes_are_the_same_always_and_takes_differ():
    first, again = (make_note("bowed", 60, 0, RATE_HZ, 4000) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - make_note("bowed", 60, 1, RATE_HZ, 4000)).max() > 1e-3


def test_a_pitch_is_in_one_split():
    source = Notes(sample_rate_hz=RATE_HZ, seconds=0.25, takes=1)
    pitches = {split: {note.midi for note in source.notes(split)} for split in SPLITS}
    assert set.union(*pitches.values()) == set(range(48, 85))
    assert sum(map(len, pitches.values())) == 37
    assert len(pitches["test"]) >= 7
    assert {split_of(m) for m in pitches["test"]} == {"test"}
    assert [n.midi for n in source.notes("train")] == sorted(pitches["train"]) * len(INSTRUMENTS)


def test_batches_hold_the_pitch_beside_the_label():
    source = Notes(sample_rate_hz=RATE_HZ, seconds=0.25, instruments=("flute", "reed"), takes=1)
    dataset = source.dataset("validation")
    assert source.class_names == ("flute", "reed")
    batch = next(iter(Loader(dataset, batch_size=4, shuffle=False, repeat=False)))
    assert batch["audio"].shape == (4, 2000)
    expected = [note_hz(note.midi) for note in source.notes("validation")[:4]]
    np.testing.assert_allclose(batch["f0_hz"].numpy(), expected, rtol=1e-6)
    assert batch["labels"].tolist() == [0] * 4
    assert dataset.fingerprint() != source.dataset("test").fingerprint()


@pytest.fixture
def recorded(tmp_path):
    """A package of a clarinet that plays every semitone from C4 to C5, in stereo, and is long."""
    folder = tmp_path / package("clarinet")
    folder.mkdir()
    names = ["C", "Cs", "D", "Ds", "E", "F", "Fs", "G", "Gs", "A", "As", "B"]
    for midi in range(60, 73):
        time_s = np.arange(16_000) / 16_000
        tone = 0.5 * np.sin(2 * np.pi * note_hz(midi) * time_s)
        channels = np.stack([tone, 0.5 * tone], axis=1)
        path = folder / f"{names[midi % 12]}{midi // 12 - 1}.ogg"
        soundfile.write(path, channels, 16_000)
    (folder / "README.md").write_text("CC-by 3.0")
    return tmp_path


def test_recordings(recorded):
    source = Notes(
        root=str(recorded), sample_rate_hz=RATE_HZ, seconds=0.5, instruments=("clarinet",)
    )
    assert {s: [n.midi for n in source.notes(s)] for s in SPLITS} == {
        "train": [60, 61, 63, 65, 66, 68, 70, 71],
        "validation": [64, 69],
        "test": [62, 67, 72],
    }
    item = source.dataset("test")[2]
    assert float(item["f0_hz"]) == pytest.approx(note_hz(72), rel=1e-6)
    assert item["lengths"] == 4000
    assert abs(1200 * np.log2(heard_hz(item["audio"], note_hz(72)) / note_hz(72))) < 2
    # Channels are mixed, and what is cut off fades out.
    assert np.abs(item["audio"][:3000]).max() == pytest.approx(0.375, abs=0.02)
    assert np.abs(item["audio"][-8:]).max() < 0.03


def test_recordings_for_training_are_played_faster_and_slower(recorded):
    given = {"root": str(recorded), "sample_rate_hz": RATE_HZ, "seconds": 0.5}
    given |= {"instruments": ("clarinet",), "takes": 3}
    plain, source = Notes(**given), Notes(**given, detune_semitones=1.5)
    for split in ("validation", "test"):
        assert source.notes(split) == plain.notes(split)
        assert source.dataset(split).fingerprint() == plain.dataset(split).fingerprint()
    notes, dataset = source.notes("train"), source.dataset("train")
    assert [n.semitones for n in notes[:3]] == [-1.5, 0, 1.5]
    assert {n.name for n in notes} == {n.name for n in plain.notes("train")}
    assert len(notes) == 3 * len(plain.notes("train"))
    assert dataset.fingerprint() != plain.dataset("train").fingerprint()
    for index, note in enumerate(notes[:3]):
        item = dataset[index]
        nominal_hz = note_hz(note.midi + note.semitones)
        assert float(item["f0_hz"]) == pytest.approx(nominal_hz, rel=1e-6)
        # Files of 16 kHz are played at steps of 50 Hz, 5 cents.
        assert abs(1200 * np.log2(heard_hz(item["audio"], nominal_hz) / nominal_hz)) < 4
    with pytest.raises(ValueError, match="detune_semitones"):
        Notes(**given, detune_semitones=12)
    with pytest.raises(ValueError, match=r"takes must be .*2 or more"):
        Notes(**given | {"takes": 1}, detune_semitones=1.5)
    with pytest.raises(ValueError, match="takes must be"):
        Notes(takes=0)


def test_file_names():
    assert midi_of("A4.mp3") == 69
    assert midi_of("As3.ogg") == midi_of("A#3.wav") == 58
    assert midi_of("C0.mp3") == 12
    assert midi_of("README.md") is None


def test_what_is_wrong_is_said(recorded, tmp_path):
    with pytest.raises(DataRootError, match="download"):
        Notes(root=str(tmp_path), instruments=("violin",))
    with pytest.raises(ValueError, match="without a data root"):
        Notes(instruments=("violin",))
    with pytest.raises(ValueError, match="small letters"):
        Notes(root=str(tmp_path), instruments=("--registry=x",), download=True)
    with pytest.raises(ValueError, match="folder"):
        Notes(download=True)
    with pytest.raises(DataRootError, match="has none"):
        Notes(root=str(recorded), instruments=("clarinet",), low_midi=80)
    (recorded / package("clarinet") / "C4.ogg").write_bytes(b"no audio")
    source = Notes(root=str(recorded), instruments=("clarinet",), sample_rate_hz=RATE_HZ)
    with pytest.raises(AudioFileError, match="decode"):
        source.dataset("train")[0]


def fake_npm(
    folder: pathlib.Path,
    members: dict[str, bytes],
    links: dict[str, str] | None = None,
    also: str = "",
) -> None:
    """An npm that answers `pack` with an archive of these members, and keeps what it was asked."""
    with tarfile.open(folder / "made.tgz", "w:gz") as tar:
        for name, target in (links or {}).items():
            for kind, suffix in ((tarfile.SYMTYPE, ".mp3"), (tarfile.LNKTYPE, ".ogg")):
                info = tarfile.TarInfo(name + suffix)
                info.type, info.linkname = kind, target
                tar.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    npm = folder / "npm"
    asked = f'echo "$@" > "{folder}/asked"'
    npm.write_text(f'#!/bin/sh\n{asked}\ncp "{folder}/made.tgz" ./package-1.0.0.tgz\n{also}\n')
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bin_folder(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def test_packages_are_fetched_whole(tmp_path, bin_folder):
    fake_npm(bin_folder, {"package/A4.mp3": b"x", "package/README.md": b"CC-by 3.0"})
    fetch("violin", tmp_path / "root")
    assert {p.name for p in (tmp_path / "root").iterdir()} == {package("violin")}
    assert (tmp_path / "root" / package("violin") / "A4.mp3").read_bytes() == b"x"


def test_packages_are_of_one_version(tmp_path, bin_folder):
    fake_npm(bin_folder, {"package/A4.mp3": b"x"})
    for name, asked in (("flute", "-flute-mp3@1.1.2"), ("cello", "-cello-mp3@1.1.1")):
        fetch(name, tmp_path / "root")
        assert (bin_folder / "asked").read_text().rstrip().endswith(asked)
    fetch("harp", tmp_path / "root")
    assert (bin_folder / "asked").read_text().rstrip().endswith("-harp-mp3")


def test_only_notes_and_their_papers_are_unpacked(tmp_path, bin_folder):
    names = ("A4.mp3", "README.md", "LICENSE", "index.js", "deep/B4.mp3", "package.json")
    members = {f"package/{name}": b"x" for name in names}
    fake_npm(bin_folder, members, links={"package/C4": "A4.mp3", "package/D4": "/etc/passwd"})
    fetch("violin", tmp_path / "root")
    folder = tmp_path / "root" / package("violin")
    assert {p.name for p in folder.rglob("*")} == {"A4.mp3", "README.md", "LICENSE"}
    assert all(p.is_file() and not p.is_symlink() for p in folder.iterdir())


def test_packages_that_are_far_too_large(tmp_path, bin_folder):
    fake_npm(bin_folder, {"package/A4.mp3": bytes(65 * 1024**2)})
    with pytest.raises(DataRootError, match="bytes at most"):
        fetch("violin", tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_another_process_may_be_faster(tmp_path, bin_folder):
    there = tmp_path / "root" / package("violin")
    also = f'mkdir -p "{there}"; echo theirs > "{there}/A4.mp3"'
    fake_npm(bin_folder, {"package/A4.mp3": b"x"}, also=also)
    fetch("violin", tmp_path / "root")
    assert (there / "A4.mp3").read_text() == "theirs\n"
    assert [p.name for p in (tmp_path / "root").iterdir()] == [there.name]


@pytest.mark.parametrize(
    "members",
    [{"../outside.mp3": b"x"}, {"package/index.js": b"x"}, {"other/A4.mp3": b"x"}],
    ids=["escapes", "no notes", "elsewhere"],
)
def test_archives_that_are_not_what_they_should_be(tmp_path, bin_folder, members):
    fake_npm(bin_folder, members)
    with pytest.raises(DataRootError, match="violin"):
        fetch("violin", tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
    assert not list(tmp_path.rglob("outside*"))


def test_without_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataRootError, match="no npm here"):
        fetch("violin", tmp_path / "root")
