"""Speech Commands is read through torchaudio's lists, in any choice of words."""

import hashlib
import io
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import soundfile

from data import speech_commands
from data.audio_files import AudioFileError
from data.source import DataRootError
from data.speech_commands import SpeechCommands, unpack
from data.torchaudio_compat import load_torchaudio


def test_splits_are_those_of_the_lists(commands_root):
    source = SpeechCommands(root=str(commands_root))
    assert source.class_names == ("go", "no", "yes")
    assert source.num_samples == 16_000
    sizes = {split: len(source.dataset(split)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 18, "validation": 3, "test": 3}
    speakers = {
        split: {name.split("/")[-1] for name in source.dataset(split).names} for split in sizes
    }
    assert not speakers["train"] & speakers["test"]
    assert not speakers["validation"] & speakers["test"]


def test_items_are_the_files(commands_root):
    clips = SpeechCommands(root=str(commands_root)).dataset("test")
    for index in range(len(clips)):
        item = clips[index]
        samples, _ = soundfile.read(clips.name(index), dtype="float32")
        np.testing.assert_array_equal(item["audio"][: len(samples)], samples)
        assert item["lengths"] == len(samples) == 9000
        assert ("go", "no", "yes")[item["labels"]] in clips.name(index)


def test_words_choose_and_order_the_classes(commands_root):
    source = SpeechCommands(root=str(commands_root), words=["yes", "go"], sample_rate_hz=22_050)
    clips = source.dataset("train")
    assert source.class_names == ("yes", "go")
    assert len(clips) == 12
    assert clips[0]["audio"].shape == (22_050,)
    for index, name in enumerate(clips.names):
        assert name.split("/")[-2] == source.class_names[clips.labels[index]]


def test_bad_words(commands_root):
    root = str(commands_root)
    with pytest.raises(ValueError, match=r"nope has none; choose from go, no, yes"):
        SpeechCommands(root=root, words=("go", "nope"))
    with pytest.raises(ValueError, match="without repetition"):
        SpeechCommands(root=root, words=("go", "go"))


def test_bad_root(tmp_path, commands_root):
    with pytest.raises(DataRootError, match=r"no root was given; set --config\.data\.root=DIR"):
        SpeechCommands()
    with pytest.raises(DataRootError, match=r"absent' does not exist; set --config"):
        SpeechCommands(root=str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataRootError, match=r"empty' exists but lacks that folder"):
        SpeechCommands(root=str(tmp_path / "empty"))
    (tmp_path / "empty" / "SpeechCommands" / "speech_commands_v0.02").mkdir(parents=True)
    with pytest.raises(DataRootError, match=r"speech_commands_v0\.02 holds no clip"):
        SpeechCommands(root=str(tmp_path / "empty"))
    folder = commands_root / "SpeechCommands" / "speech_commands_v0.02"
    source = SpeechCommands(root=str(commands_root), words=("go",))
    (folder / "testing_list.txt").write_text("no/00000007_nohash_0.wav\n")
    with pytest.raises(DataRootError, match="none of go in 'test'"):
        source.dataset("test")
    (folder / "testing_list.txt").unlink()
    with pytest.raises(DataRootError, match=r"testing_list\.txt"):
        source.dataset("test")


def test_listed_file_that_is_missing(commands_root):
    folder = commands_root / "SpeechCommands" / "speech_commands_v0.02"
    (folder / "go" / "00000007_nohash_0.wav").unlink()
    with pytest.raises(AudioFileError, match=r"go/00000007_nohash_0\.wav: .*no file"):
        SpeechCommands(root=str(commands_root), words=("go",)).dataset("test")[0]


def test_augmentation_takes_noise_from_the_corpus(commands_root):
    augment = {
        "background": {"low_snr_db": 0.0, "high_snr_db": 0.0},
        "shift": {"seconds": 0.1},
    }
    source = SpeechCommands(root=str(commands_root), augment=augment)
    shift, background = source.transforms
    assert shift.max_samples == 1600
    assert [file.split("/")[-1] for file in background.files] == ["hum.wav", "tick.wav"]
    with pytest.raises(ValueError, match=r"shift, gain, background, white; got pitch"):
        SpeechCommands(root=str(commands_root), augment={"pitch": {}})
    with pytest.raises(ValueError, match=r"'gain' cannot be .*high_db"):
        SpeechCommands(root=str(commands_root), augment={"gain": {"low_db": 0.0}})


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_download_appears_only_when_complete(tmp_path, commands_root, monkeypatch):
    original = commands_root / "SpeechCommands" / "speech_commands_v0.02"
    archive = pathlib.Path(shutil.make_archive(str(tmp_path / "archive"), "gztar", original))
    target = tmp_path / "target"
    calls = []

    def fetch(url, path, hash_prefix):
        calls.append((url, hash_prefix))
        assert not (target / "SpeechCommands").exists()
        if len(calls) == 1:
            raise ConnectionError("cut off")
        shutil.copy(archive, path)

    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    monkeypatch.setattr("data.speech_commands.ARCHIVE_SHA256", digest(archive))
    with pytest.raises(DataRootError, match="download"):
        SpeechCommands(root=str(target))
    with pytest.raises(ConnectionError):
        SpeechCommands(root=str(target), download=True)
    assert not (target / "SpeechCommands").exists()
    # What somebody else has put in its place is not unpacked.
    (target / ".download" / "speech_commands_v0.02.tar.gz").write_bytes(b"another archive")
    assert len(SpeechCommands(root=str(target), download=True).dataset("train")) == 18
    assert len(SpeechCommands(root=str(target), download=True).dataset("train")) == 18
    assert len(calls) == 2
    assert calls[0] == (speech_commands.ARCHIVE_URL, digest(archive))
    assert [path.name for path in target.iterdir()] == ["SpeechCommands"]


def test_the_archive_is_the_one_that_torchaudio_knows():
    load_torchaudio()
    from torchaudio.datasets.speechcommands import _CHECKSUMS

    assert _CHECKSUMS[speech_commands.ARCHIVE_URL] == speech_commands.ARCHIVE_SHA256


def member(name, content=b"text", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content) if fields.get("type", tarfile.REGTYPE) == tarfile.REGTYPE else 0
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


LINK, HARD, FIFO, DEVICE = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("../outside.txt")],
        [member("go/../../outside.txt")],
        [member("/tmp/outside_of_its_folder.txt")],
        [member("link", type=LINK, linkname=".."), member("link/outside.txt")],
        [member("link", type=LINK, linkname="/etc/passwd")],
        [member("hard", type=HARD, linkname="../victim.txt"), member("hard", b"changed")],
        [member("fifo", type=FIFO)],
        [member("device", type=DEVICE, devmajor=1, devminor=3)],
    ],
)
def test_an_archive_stays_in_its_folder(tmp_path, members):
    (tmp_path / "victim.txt").write_text("kept")
    with tarfile.open(tmp_path / "evil.tar.gz", "w:gz") as tar:
        for info, content in [member("go/good.wav"), *members]:
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(DataRootError, match="archive"):
        unpack(tmp_path / "evil.tar.gz", tmp_path / "inside")
    outside = {path.name for path in tmp_path.iterdir()}
    assert outside == {"victim.txt", "evil.tar.gz", "inside"}
    assert (tmp_path / "victim.txt").read_text() == "kept"
    assert not pathlib.Path("/tmp/outside_of_its_folder.txt").exists()


def test_an_archive_that_is_cut_short(tmp_path):
    with tarfile.open(tmp_path / "whole.tar.gz", "w:gz") as tar:
        info, content = member("go/good.wav", b"x" * 4000)
        tar.addfile(info, io.BytesIO(content))
    content = (tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[:-30])
    with pytest.raises(DataRootError, match="must be whole"):
        unpack(tmp_path / "cut.tar.gz", tmp_path / "inside")
