"""Words in noise: ratios, noise held out whole, and evaluation that is the same every time."""

import dataclasses
import pathlib

import numpy as np
import pytest
import torch

from data import Loader, to_jax
from data.batches import BatchBuilder
from data.noisy_speech import NoiseMix, NoisySpeech, shared_out
from data.source import DataRootError

SPLITS = ("train", "validation", "test")


@pytest.fixture
def source(noisy_root):
    return NoisySpeech(root=str(noisy_root), augment={"shift": {"seconds": 0.05}})


def ratio_db(item):
    noise = item["audio"].astype(np.float64) - item["clean"]
    return 10 * np.log10(np.sum(item["clean"].astype(np.float64) ** 2) / np.sum(noise**2))


def loader(source, split="train", **options):
    defaults = {"batch_size": 4, "seed": 7, "transforms": source.transforms}
    if split != "train":
        defaults = {"batch_size": 2, "repeat": False, "shuffle": False}
    return Loader(source.dataset(split), **(defaults | options))


def test_items_are_pairs_at_ratios_of_the_whole_range(source):
    mix = source.transforms[-1]
    word = source.dataset("train")[3]
    np.testing.assert_array_equal(word["audio"], word["clean"])
    length = int(word["lengths"])
    ratios = []
    for seed in range(60):
        item = mix(word, np.random.default_rng(seed))
        assert item["audio"].dtype == item["clean"].dtype == np.float32
        assert not item["audio"][length:].any()
        np.testing.assert_array_equal(item["clean"], word["audio"])
        ratios.append(ratio_db(item))
    assert -5.01 < min(ratios) < -3
    assert 8 < max(ratios) < 10.01


@pytest.mark.parametrize("snr_db", [-5.0, 10.0])
def test_the_ratio_is_the_asked_one(source, snr_db):
    mix = dataclasses.replace(source.transforms[-1], low_snr_db=snr_db, high_snr_db=snr_db)
    for index in range(5):
        item = mix(source.dataset("train")[index], np.random.default_rng(index))
        assert ratio_db(item) == pytest.approx(snr_db, abs=0.01)


def test_noise_is_held_out_whole(source, noisy_root):
    folder = noisy_root / "SpeechCommands" / "speech_commands_v0.02" / "_background_noise_"
    shares = [set(source.noise_files(split)) for split in SPLITS]
    assert [len(share) for share in shares] == [3, 1, 1]
    assert set.union(*shares) == {str(file) for file in folder.glob("*.wav")}
    assert set(source.transforms[-1].files) == shares[0]
    for split, share in zip(SPLITS, shares, strict=True):
        assert set(source.dataset(split).mix.files) == share


def test_what_is_heard_is_noise_of_the_split(source):
    """Each split's noise is a stretch of its own recordings, and of none of the others."""
    noise = {
        split: [read(file) for file in source.noise_files(split)]
        for split in ("validation", "test")
    }
    for split, other in (("validation", "test"), ("test", "validation")):
        for index in range(3):
            item = source.dataset(split)[index]
            heard = (item["audio"] - item["clean"])[: int(item["lengths"])]
            assert max(likeness(heard, own) for own in noise[split]) > 0.99
            assert max(likeness(heard, foreign) for foreign in noise[other]) < 0.2


def read(file):
    import soundfile

    return soundfile.read(file, dtype="float32")[0]


def likeness(heard, recording):
    """Largest normalised correlation of `heard` with any stretch of a looped recording."""
    loop = np.resize(recording, len(recording) + len(heard))
    size = 1 << (len(loop) + len(heard)).bit_length()
    products = np.fft.irfft(np.fft.rfft(loop, size) * np.conj(np.fft.rfft(heard, size)))
    energy = np.cumsum(np.concatenate([[0.0], loop.astype(np.float64) ** 2]))
    norms = np.sqrt((energy[len(heard) :] - energy[: -len(heard)]) * np.sum(heard**2))
    return np.max(np.abs(products[: len(norms)]) / norms)


def test_a_share_depends_on_names_alone():
    names = [f"/here/{number}.wav" for number in range(60)]
    shares = shared_out(names, {})
    assert [len(shares[split]) for split in SPLITS] == [36, 12, 12]
    assert sorted(file for share in shares.values() for file in share) == sorted(names)
    moved = shared_out([name.replace("here", "there") for name in reversed(names)], {})
    assert moved["test"] == tuple(name.replace("here", "there") for name in shares["test"])


def test_recordings_are_held_out_by_name(noisy_root):
    held_out = {"validation": ("hum", "absent"), "test": ("rain", "saw"), "unused": ("tick",)}
    source = NoisySpeech(root=str(noisy_root), held_out=held_out)
    heard = {split: [pathlib.Path(f).stem for f in source.noise_files(split)] for split in SPLITS}
    assert heard == {"train": ["wind"], "validation": ["hum"], "test": ["rain", "saw"]}
    # Lists for another corpus: as if there were none.
    other = NoisySpeech(root=str(noisy_root), held_out={"test": ("1024",)})
    by_hash = NoisySpeech(root=str(noisy_root))
    assert all(other.noise_files(split) == by_hash.noise_files(split) for split in SPLITS)
    with pytest.raises(DataRootError, match="none is for validation; add recordings"):
        NoisySpeech(root=str(noisy_root), held_out={"test": ("rain",)})
    for wrong in ({"train": ("rain",)}, {"validation": ("rain",), "test": ("rain",)}):
        with pytest.raises(ValueError, match=r"each once; got .*; name each"):
            NoisySpeech(root=str(noisy_root), held_out=wrong)


def test_names_with_dots_stay_apart():
    names = ["wind.2.wav", "wind.wav", "rain.wav"]
    shares = shared_out(names, {"test": ("wind.2",), "validation": ("rain",)})
    assert shares["train"] == ("wind.wav",)
    assert shares["test"] == ("wind.2.wav",)
    by_hash = shared_out(["a.1.wav", "a.2.wav", "a.3.wav"], {})
    assert [len(by_hash[split]) for split in SPLITS] == [1, 1, 1]


def test_names_that_are_not_there_are_logged(noisy_root, caplog):
    held_out = {"validation": ("hum", "hun"), "test": ("rain",)}
    NoisySpeech(root=str(noisy_root), held_out=held_out)
    assert "of 3 names 1 are of no recording in _background_noise_: hun" in caplog.text
    caplog.clear()
    NoisySpeech(root=str(noisy_root), held_out={"validation": ("hum",), "test": ("rain",)})
    assert not caplog.text


def test_speakers_are_unseen(source):
    speakers = {
        split: {pathlib.Path(name).name[:8] for name in source.dataset(split).clips.names}
        for split in SPLITS
    }
    assert not speakers["train"] & (speakers["validation"] | speakers["test"])
    assert not speakers["validation"] & speakers["test"]


def test_evaluation_is_the_same_every_time(source, noisy_root):
    again = NoisySpeech(root=str(noisy_root), augment={"shift": {"seconds": 0.05}})
    other = NoisySpeech(root=str(noisy_root), noise_seed=1)
    for split in ("validation", "test"):
        for index in range(3):
            one, two = source.dataset(split)[index], again.dataset(split)[index]
            assert one["audio"].tobytes() == two["audio"].tobytes()
            assert one["audio"].tobytes() != other.dataset(split)[index]["audio"].tobytes()
    first, second = (list(loader(source, "test")) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_words_are_judged_in_noise_of_their_own(source):
    """What training hears them in is drawn anew, and `dataset` gives them without."""
    judged = source.evaluation_dataset("train")
    assert set(judged.mix.files) == set(source.noise_files("train"))
    for index in range(3):
        item, again = judged[index], source.evaluation_dataset("train")[index]
        assert -5.01 < ratio_db(item) < 10.01
        assert item["audio"].tobytes() == again["audio"].tobytes()
        assert item["clean"].tobytes() == source.dataset("train")[index]["audio"].tobytes()


def test_training_depends_on_seed_epoch_and_index_alone(source):
    whole = [next(stream) for stream in [loader(source)] for _ in range(8)]
    with loader(source, num_workers=2) as stream:
        by_workers = [next(stream) for _ in range(5)]
        position = stream.position()
    with loader(source, position=position) as stream:
        by_workers += [next(stream) for _ in range(3)]
    for one, two in zip(whole, by_workers, strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)
    # A second epoch has the same words in other noise.
    builder = BatchBuilder(source.dataset("train"), 1, 7, source.transforms, torch.zeros(1))
    one, two = (builder._item(epoch, 0)["audio"] for epoch in (0, 1))
    assert one.tobytes() != two.tobytes()


def test_a_position_belongs_to_its_noise(source, noisy_root):
    stream = loader(source)
    next(stream)
    louder = NoisySpeech(root=str(noisy_root), low_snr_db=0.0, augment=source.augment)
    with pytest.raises(ValueError, match="a position continues only the order"):
        loader(louder, position=stream.position())


def test_pairs_cross_the_bridge_without_a_copy(source):
    batch, report = to_jax(next(loader(source)))
    assert set(batch) == {"audio", "clean", "lengths", "labels", "ids", "weights"}
    assert report.copied_bytes == 0, report.reasons
    assert batch["clean"].shape == batch["audio"].shape == (4, 16_000)


def test_silent_words_and_silent_noise_are_left_out(tmp_path, write_clip):
    import soundfile

    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(100), 16_000)
    item = {
        "audio": np.zeros(50, np.float32),
        "lengths": np.int32(40),
        "weights": np.float32(1),
    }
    loud = NoiseMix((str(write_clip(tmp_path / "a.wav", 100)),), 16_000, 16_000, 0.0, 0.0)
    assert loud(item, np.random.default_rng(0))["weights"] == 0
    item["audio"][:40] = 0.1
    assert loud(item, np.random.default_rng(0))["weights"] == 1
    quiet = NoiseMix((str(silent),), 16_000, 16_000, 0.0, 0.0)
    pair = quiet(item, np.random.default_rng(0))
    np.testing.assert_array_equal(pair["audio"], item["audio"])
    assert pair["weights"] == 0
    # So soft that its energy is none in float32: no gain brings it to a ratio.
    soundfile.write(tmp_path / "soft.wav", np.full(100, 1e-30), 16_000, subtype="FLOAT")
    soft = dataclasses.replace(quiet, files=(str(tmp_path / "soft.wav"),))
    pair = soft(item, np.random.default_rng(0))
    np.testing.assert_array_equal(pair["audio"], item["audio"])
    assert pair["weights"] == 0


def test_colour_bends_the_noise_of_training_alone(noisy_root):
    source = NoisySpeech(root=str(noisy_root), colour=0.95)
    assert source.transforms[-1].colour == 0.95
    assert source.dataset("test").mix.colour == 0.0
    plain = dataclasses.replace(source.transforms[-1], colour=0.0)
    word, slopes = source.dataset("train")[0], []
    for seed in range(30):
        item, white = (
            mix(word, np.random.default_rng(seed)) for mix in (source.transforms[-1], plain)
        )
        assert ratio_db(item) == pytest.approx(ratio_db(white), abs=0.01)
        power = np.abs(np.fft.rfft(item["audio"] - item["clean"])) ** 2
        slopes.append(10 * np.log10(power[:2000].mean() / power[-2000:].mean()))
    assert min(slopes) < -20
    assert max(slopes) > 20
    with pytest.raises(ValueError, match="or filters are not stable"):
        NoisySpeech(root=str(noisy_root), colour=1.0)


def test_bad_settings(noisy_root, commands_root):
    root = str(noisy_root)
    with pytest.raises(ValueError, match=r"low_snr_db must not exceed .* got 10 and -5; swap"):
        NoisySpeech(root=root, low_snr_db=10, high_snr_db=-5)
    with pytest.raises(ValueError, match="got background, which would be taken for speech"):
        NoisySpeech(root=root, augment={"background": {"low_snr_db": 0.0, "high_snr_db": 0.0}})
    folder = commands_root / "SpeechCommands" / "speech_commands_v0.02" / "_background_noise_"
    for file in sorted(folder.glob("*.wav"))[2:]:
        file.unlink()
    with pytest.raises(DataRootError, match=r"none is for validation, test; add recordings"):
        NoisySpeech(root=root)
