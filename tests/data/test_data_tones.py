"""The embedded corpus is complete, and its split keeps every syllable on one side."""

import collections
import csv
import hashlib
import pathlib
import shutil

import numpy as np
import pytest

import data
from data import build_tones
from data.source import SPLITS, DataRootError
from data.tones import SpokenTones

FOLDER = pathlib.Path(data.__file__).parent / "corpora" / "spoken_tones"


@pytest.fixture(scope="module")
def rows():
    with (FOLDER / "index.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_files_are_those_of_the_index(rows):
    assert len(rows) == 1158
    assert {row["file"] for row in rows} == {
        f"clips/{p.name}" for p in (FOLDER / "clips").iterdir()
    }
    for row in rows:
        assert row["file"].isascii()
        assert build_tones.parse_folder(row["folder"]) == (row["syllable"], int(row["tone"]))
        assert row["file"] == f"clips/{row['syllable']}{row['tone']}.ogg"


def test_licence_and_credit_lie_beside_the_clips():
    licence = (FOLDER / "LICENSE").read_text(encoding="utf-8")
    assert "Chu Lo" in licence
    assert "CREATIVE COMMONS" in licence
    assert "CC BY 3.0" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_split_is_the_stated_function_of_the_syllables(rows):
    tones = collections.defaultdict(set)
    for row in rows:
        if row["tone"] != "0":
            tones[row["syllable"]].add(int(row["tone"]))
    splits = build_tones.split_syllables({name: frozenset(seen) for name, seen in tones.items()})
    for row in rows:
        assert row["split"] == ("none" if row["tone"] == "0" else splits[row["syllable"]])


def test_no_syllable_is_in_two_splits(rows):
    splits = collections.defaultdict(set)
    for row in rows:
        if row["split"] != "none":
            splits[row["syllable"]].add(row["split"])
    assert all(len(of_syllable) == 1 for of_syllable in splits.values())


def test_splits_hold_the_tones_in_equal_shares(rows):
    clips = collections.Counter((row["split"], row["tone"]) for row in rows)
    assert clips == {
        ("none", "0"): 11,
        **{("train", tone): n for tone, n in zip("1234", (243, 189, 228, 258), strict=True)},
        **{("validation", tone): n for tone, n in zip("1234", (30, 23, 31, 31), strict=True)},
        **{("test", tone): n for tone, n in zip("1234", (30, 24, 29, 31), strict=True)},
    }


def test_every_clip_decodes():
    source = SpokenTones(sample_rate_hz=44_100)
    total = 0
    for split in SPLITS:
        clips = source.dataset(split)
        for index in range(len(clips)):
            item = clips[index]
            assert 9000 < item["lengths"] <= source.num_samples == item["audio"].shape[0]
            assert 0.005 < np.abs(item["audio"]).max() < 1.0
            assert not item["audio"][item["lengths"] :].any()
            assert clips.name(index).endswith(f"{item['labels'] + 1}.ogg")
        total += len(clips)
    assert total == 1147


def test_items_at_another_rate():
    source = SpokenTones(sample_rate_hz=22_050.0, seconds=0.43)
    assert source.class_names == ("tone 1", "tone 2", "tone 3", "tone 4")
    item = source.dataset("test")[3]
    assert item["audio"].shape == (source.num_samples,) == (9482,)
    assert {name: value.dtype.name for name, value in item.items()} == {
        "audio": "float32",
        "lengths": "int32",
        "labels": "int32",
        "ids": "int32",
        "weights": "float32",
    }
    assert item["ids"] == 3
    assert item["weights"] == 1


def test_bad_arguments(tmp_path):
    with pytest.raises(DataRootError, match=r"index\.csv; .* has none; leave the data root empty"):
        SpokenTones(root=str(tmp_path))
    with pytest.raises(ValueError, match=r"whole number of hertz above 0; got 22050\.5"):
        SpokenTones(sample_rate_hz=22_050.5)
    with pytest.raises(ValueError, match=r"a split is one of train, validation, test; got 'dev'"):
        SpokenTones().dataset("dev")
    with pytest.raises(ValueError, match="on_bad_file is 'error' or 'skip'"):
        _unchecked(SpokenTones(), on_bad_file="ignore").__post_init__()
    with pytest.raises(ValueError, match="above 0 s"):
        SpokenTones(seconds=0.0)


def test_short_padding_names_the_clip_and_the_way_out():
    clips = SpokenTones(seconds=0.25).dataset("train")
    with pytest.raises(data.AudioFileError, match=r"clips/\w+\.ogg: .*raise `seconds`"):
        sum(clips[index]["lengths"] for index in range(len(clips)))


def test_index_is_rebuilt_from_the_package(tmp_path, rows):
    source = tmp_path / "ogg"
    chosen = [row for row in rows if row["syllable"] in ("a", "ba", "ei", "zhuang")]
    assert len(chosen) > 8
    for row in chosen:
        (source / row["folder"]).mkdir(parents=True)
        shutil.copy(FOLDER / row["file"], source / row["folder"] / "5.ogg")
        (source / row["folder"] / "3.ogg").write_bytes(b"under another licence")
    build_tones.build(source, tmp_path / "corpus")
    with (tmp_path / "corpus" / "index.csv").open(newline="", encoding="utf-8") as stream:
        rebuilt = list(csv.DictReader(stream))
    assert [{**row, "split": ""} for row in rebuilt] == [{**row, "split": ""} for row in chosen]
    for row in rebuilt:
        copies = [folder / row["file"] for folder in (FOLDER, tmp_path / "corpus")]
        first, second = (hashlib.sha256(copy.read_bytes()).digest() for copy in copies)
        assert first == second
    with pytest.raises(ValueError, match="bopomofo"):
        build_tones.parse_folder("ma3")


def _unchecked(source, **changes):
    """Returns a source whose fields were changed behind its back."""
    for name, value in changes.items():
        object.__setattr__(source, name, value)
    return source
