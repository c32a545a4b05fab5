"""The order is a function of the seed, a position continues it exactly, and shapes never change."""

import gc
import hashlib
import itertools
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.audio_files import AudioFileError
from data.loader import Loader
from data.order import Order
from data.speech_commands import SpeechCommands

PINNED = ([3, 1, 7, 6, 0, 4, 5, 2], [6, 5, 2, 7, 0, 3, 1, 4])


class Numbers:
    """Clips that are their own index; plain Python types, without ids and weights."""

    def __init__(self, size: int = 10):
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int):
        return {"audio": np.full(4, index, np.float64), "lengths": 4, "labels": np.int64(index % 3)}


def digest(batch) -> str:
    content = hashlib.sha256()
    for name in sorted(batch):
        content.update(f"{name} {batch[name].dtype} {tuple(batch[name].shape)}".encode())
        content.update(batch[name].numpy().tobytes())
    return content.hexdigest()


def take(loader, count: int) -> list[str]:
    return [digest(next(loader)) for _ in range(count)]


def jitter(item, rng):
    """A transform that shows which generator it got."""
    return item | {"audio": item["audio"] + rng.standard_normal(4).astype(np.float32)}


@settings(max_examples=60, deadline=None)
@given(
    num_items=st.integers(1, 40),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    epoch=st.integers(0, 5),
)
def test_an_epoch_holds_every_item_once(num_items, batch_size, seed, shuffle, drop_last, epoch):
    batch_size = min(batch_size, num_items)
    order = Order(num_items, batch_size, seed, shuffle, drop_last, repeat=True, epoch=epoch)
    batches = list(itertools.islice(order, order.batches_per_epoch))
    assert {of for keys in batches for of, _ in keys} == {epoch}
    indices = [index for keys in batches for _, index in keys]
    assert len(set(indices)) == len(indices)
    assert len(indices) == (num_items // batch_size * batch_size if drop_last else num_items)
    assert shuffle or indices == sorted(indices)
    follows = list(itertools.islice(order, order.batches_per_epoch, order.batches_per_epoch + 1))
    assert follows[0][0][0] == epoch + 1


def test_order_is_pinned():
    # A change of these numbers would change every run that is resumed across versions.
    order = Order(8, 4, 7, True, True, True)
    assert order.indices(0) == PINNED[0]
    assert order.indices(1) == PINNED[1]
    assert Order(8, 4, 8, True, True, True).indices(0) != PINNED[0]


def test_batches_have_the_types_of_jax():
    with Loader(Numbers(), batch_size=4, shuffle=False) as loader:
        batch = next(loader)
    types = {name: (values.dtype, tuple(values.shape)) for name, values in batch.items()}
    assert types == {
        "audio": (torch.float32, (4, 4)),
        "lengths": (torch.int32, (4,)),
        "labels": (torch.int32, (4,)),
        "ids": (torch.int32, (4,)),
        "weights": (torch.float32, (4,)),
    }
    assert batch["ids"].tolist() == [0, 1, 2, 3]
    assert batch["weights"].tolist() == [1, 1, 1, 1]


def test_epochs_follow_each_other_in_new_orders():
    loader = Loader(Numbers(), batch_size=5, seed=1)
    epochs = [[int(i) for _ in range(2) for i in next(loader)["ids"]] for _ in range(3)]
    assert loader.batches_per_epoch == 2
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_single_pass_is_filled_up_and_can_be_repeated():
    loader = Loader(Numbers(), batch_size=4, shuffle=False, repeat=False)
    for _ in range(2):
        batches = list(loader)
        assert [batch["ids"].tolist() for batch in batches][1:] == [[4, 5, 6, 7], [8, 9, -1, -1]]
        assert batches[-1]["weights"].tolist() == [1, 1, 0, 0]
        assert batches[-1]["lengths"].tolist() == [4, 4, 0, 0]
        assert not batches[-1]["audio"][2:].any()
    next(iter(loader))
    assert next(iter(loader))["ids"].tolist() == [0, 1, 2, 3]
    # A set smaller than one batch is one padded batch.
    assert len(list(Loader(Numbers(3), batch_size=4, repeat=False))) == 1


def test_position_continues_exactly():
    options = {"batch_size": 3, "seed": 5, "transforms": (jitter,)}
    whole = take(Loader(Numbers(), **options), 20)
    assert len(set(whole)) == 20
    for cut in (0, 1, 3, 4, 11):
        first = Loader(Numbers(), **options)
        assert take(first, cut) == whole[:cut]
        position = json.loads(json.dumps(first.position()))
        second = Loader(Numbers(), **options, position=position)
        assert second.position() == first.position()
        assert take(second, 20 - cut) == whole[cut:]


def test_iterating_again_goes_on_and_closing_loses_nothing():
    whole = take(Loader(Numbers(), batch_size=3), 8)
    loader = Loader(Numbers(), batch_size=3)
    seen = []
    for batch in loader:
        seen.append(digest(batch))
        if len(seen) == 2:
            break
    seen += [digest(batch) for batch in itertools.islice(loader, 3)]
    loader.close()
    loader.close()
    seen += take(loader, 3)
    assert seen == whole


def test_workers_change_no_byte(commands_root):
    augment = {
        "shift": {"seconds": 0.1},
        "background": {"low_snr_db": 0.0, "high_snr_db": 10.0},
        "white": {"low_snr_db": 0.0, "high_snr_db": 10.0, "probability": 0.5},
    }
    source = SpeechCommands(root=str(commands_root), sample_rate_hz=22_050, augment=augment)
    clips = source.dataset("train")
    options = {"batch_size": 4, "seed": 9, "transforms": source.transforms}
    whole = take(Loader(clips, **options), 12)
    assert len(set(whole)) == 12
    with Loader(clips, **options, num_workers=2) as loader:
        assert take(loader, 7) == whole[:7]
        position = loader.position()
    assert (position["epoch"], position["batch"]) == (1, 3)  # those fetched ahead do not count
    with Loader(clips, **options, num_workers=1, position=position) as loader:
        assert take(loader, 5) == whole[7:]
    state = torch.get_rng_state()
    evaluation = Loader(source.dataset("test"), batch_size=2, num_workers=2, repeat=False)
    with evaluation:
        passes = [[digest(batch) for batch in evaluation] for _ in range(3)]
    assert len(passes[0]) == 2
    assert passes[0] == passes[1] == passes[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_signal_while_workers_are_made_leaves_nothing_to_say(monkeypatch):
    def interrupted(self, loader):
        raise KeyboardInterrupt

    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    monkeypatch.setattr(torch.utils.data.dataloader._BaseDataLoaderIter, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt), Loader(Numbers(), batch_size=2, num_workers=1) as loader:
        next(loader)
    gc.collect()
    assert told == []


def test_a_bad_file_stops_at_its_batch_or_is_skipped_in_place(commands_root):
    def load(num_workers=0, **options):
        source = SpeechCommands(root=str(commands_root), **options)
        return Loader(source.dataset("train"), batch_size=6, shuffle=False, num_workers=num_workers)

    good = digest(next(load()))
    bad = commands_root / "SpeechCommands/speech_commands_v0.02/no/00000003_nohash_0.wav"
    bad.write_bytes(bad.read_bytes()[:1000])
    for num_workers in (0, 2):
        with load(num_workers) as loader:
            assert digest(next(loader)) == good
            position = loader.position()
            for _ in range(2):  # it comes again; nothing was consumed
                with pytest.raises(AudioFileError, match=r"no/00000003_nohash_0\.wav: .*complete"):
                    next(loader)
                assert loader.position() == position

        with load(num_workers, on_bad_file="skip") as loader:
            assert digest(next(loader)) == good
            batch = next(loader)
            assert batch["ids"].tolist() == list(range(6, 12))
            assert batch["weights"].tolist() == [1, 1, 1, 0, 1, 1]
            assert loader.skipped_rows == loader.position()["skipped_rows"] == 1
            assert [name.endswith("no/00000003_nohash_0.wav") for name in loader.faults] == [True]
            for _ in range(3):
                next(loader)
            assert loader.skipped_rows == 2
            position = loader.position()
            resumed = Loader(loader._dataset, batch_size=6, shuffle=False, position=position)
            assert resumed.skipped_rows == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 11}, "cannot be larger than the set; got batch_size=11 for 10 items"),
        ({"batch_size": 0}, "at least one row"),
        ({"dataset": Numbers(0)}, "must hold items"),
        ({"seed": -1}, "a seed lies in"),
        ({"num_workers": -1}, "num_workers"),
        ({"seed": 1, "position": {}}, "seed: saved 0, now 1; give the saved values"),
        ({"dataset": Numbers(12), "position": {}}, "num_items: saved 10, now 12"),
        ({"position": {"batch": 5}}, "batch 0 to 4 of an epoch; got batch 5"),
        ({"position": {}, "repeat": False, "drop_last": True}, "only an endless loader"),
    ],
)
def test_bad_arguments(change, message):
    options = {"dataset": Numbers(), "batch_size": 2, **change}
    if "position" in change:
        options["position"] = Loader(Numbers(), batch_size=2).position() | change["position"]
    with pytest.raises(ValueError, match=message):
        Loader(options.pop("dataset"), **options)


class Odd(Numbers):
    """Clips of which one has something else."""

    def __init__(self, **odd):
        super().__init__()
        self.odd = odd

    def __getitem__(self, index: int):
        return super().__getitem__(index) | (self.odd if index == 3 or "name" in self.odd else {})


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"audio": np.zeros(5)}, r"equal shapes; 'audio' of item 3 has \(5,\), of item 0 \(4,\)"),
        ({"labels": 2**40}, "int32; 'labels' of item 3 is out of its range"),
        ({"name": "a.wav"}, "hold numbers; 'name' holds"),
    ],
)
def test_items_that_fit_no_batch(odd, message):
    loader = Loader(Odd(**odd), batch_size=5, shuffle=False)
    with pytest.raises((ValueError, TypeError), match=message):
        next(loader)
