"""Batches made elsewhere: of any array library and iterable, resumed exactly or refused clearly."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from data import Batches, IterableError, IterableLoader, Loader, Prefetch
from data.states import decoded, encoded

ROWS, SAMPLES = 4, 16


class OnlyDLPack:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class OnlyArray:
    """An array that NumPy can read and nobody else, as those of old TensorFlow."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


class Stateful:
    """A loader that knows its place, like torchdata's: shuffles anew in each pass."""

    def __init__(self, batches, seed=3):
        self.batches, self.rng = batches, np.random.default_rng(seed)
        self.order, self.next = [], 0

    def __iter__(self):
        if not self.order:
            self.order, self.next = self.rng.permutation(len(self.batches)).tolist(), 0
        while self.next < len(self.order):
            self.next += 1
            yield self.batches[self.order[self.next - 1]]
        self.order = []

    def state_dict(self):
        state = self.rng.bit_generator.state
        return {"order": self.order, "next": self.next, "rng": state, "seen": torch.arange(2)}

    def load_state_dict(self, state):
        self.order, self.next = state["order"], state["next"]
        self.rng.bit_generator.state = state["rng"]


class Grain:
    """An iterable whose iterators know their place, like grain's."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return GrainIterator(self.batches)


class GrainIterator:
    def __init__(self, batches):
        self.batches, self.next = batches, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.next == len(self.batches):
            raise StopIteration
        self.next += 1
        return self.batches[self.next - 1]

    def get_state(self):
        return {"next": self.next}

    def set_state(self, state):
        self.next = state["next"]


def made(index, rows=ROWS, samples=SAMPLES):
    """Batch number `index`."""
    rng = np.random.default_rng(index)
    return {
        "audio": rng.normal(size=(rows, samples)).astype(np.float32),
        "lengths": np.full(rows, samples, np.int32),
        "labels": np.arange(rows, dtype=np.int32) % 2,
        "ids": np.arange(rows, dtype=np.int32) + 100 * index,
        "weights": np.ones(rows, np.float32),
    }


def several(count=3):
    return [made(index) for index in range(count)]


def generated(epoch=0, count=3):
    for index in range(count):
        yield made(index + 10 * epoch)


def alike():
    """Gives the same in each pass."""
    yield from several()


def first_ids(loader, count):
    return [int(batch["ids"][0]) for batch in itertools.islice(loader, count)]


KINDS = {
    "numpy": lambda array: array,
    "torch": torch.from_numpy,
    "jax": jnp.asarray,
    "dlpack": OnlyDLPack,
    "dlpack of torch": lambda array: OnlyDLPack(torch.from_numpy(array)),
    "__array__": OnlyArray,
    "lists": lambda array: array.tolist(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_any_library_become_the_same_batch(kind):
    given = {name: KINDS[kind](array) for name, array in made(1).items()}
    loader = IterableLoader([given], batch_size=ROWS)
    batch = next(loader)
    for name, array in made(1).items():
        assert batch[name].dtype == (torch.float32 if array.dtype.kind == "f" else torch.int32)
        np.testing.assert_array_equal(batch[name].numpy(), array)
    if kind == "lists":
        assert "int64 became int32" in loader.copied["labels"]
    else:
        assert loader.copied == {}


def test_memory_is_shared_where_it_can_be():
    tensors = {name: torch.from_numpy(array).clone() for name, array in made(1).items()}
    for given in (tensors, {name: OnlyDLPack(tensor) for name, tensor in tensors.items()}):
        with Prefetch(IterableLoader([given], batch_size=ROWS)) as batches:
            arrays, report = next(batches)
        assert report.copied_bytes == 0
        for name, tensor in tensors.items():
            assert arrays[name].unsafe_buffer_pointer() == tensor.data_ptr()


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("audio", np.ones((ROWS, SAMPLES)), "dtype: float64 became float32; give float32"),
        ("audio", np.ones((ROWS, SAMPLES), np.float16), "float16 became float32"),
        ("audio", jnp.ones((ROWS, SAMPLES), jnp.bfloat16), "bfloat16 became float32"),
        ("labels", np.arange(ROWS), "dtype: int64 became int32; give int32"),
        ("labels", np.arange(ROWS, dtype=np.uint8), "uint8 became int32"),
        ("audio", np.ones((ROWS, SAMPLES), np.float32)[:, ::-1], "run backwards"),
        ("audio", np.broadcast_to(np.float32(1), (ROWS, SAMPLES)), "read-only"),
        ("audio", np.ones((ROWS, SAMPLES), ">f4"), "byte order"),
    ],
)
def test_what_must_be_copied_is_reported(name, array, reason):
    whole = {key: torch.from_numpy(value).clone() for key, value in made(1).items()}
    with Prefetch(IterableLoader([whole | {name: array}], batch_size=ROWS)) as batches:
        arrays, report = next(batches)
    assert list(report.reasons) == [name]
    assert reason in report.reasons[name]
    assert report.copied_bytes == arrays[name].nbytes
    np.testing.assert_array_equal(arrays[name], np.asarray(array).astype(arrays[name].dtype))


def test_what_is_left_out_is_filled_in():
    batches = [{"wave": made(i)["audio"], "labels": made(i)["labels"]} for i in range(2)]
    loader = IterableLoader(Batches(batches, rename={"wave": "audio"}), batch_size=ROWS)
    assert next(loader)["ids"].tolist() == [0, 1, 2, 3]
    batch = next(loader)
    assert batch["ids"].tolist() == [4, 5, 6, 7]
    assert batch["lengths"].tolist() == [SAMPLES] * ROWS
    assert batch["weights"].tolist() == [1] * ROWS
    types = {name: value.dtype for name, value in batch.items()}
    assert types["lengths"] == types["ids"] == torch.int32
    assert types["weights"] == torch.float32


def test_a_small_batch_is_filled_up_with_rows_that_do_not_count():
    loader = IterableLoader([made(0), made(1, rows=3)], batch_size=ROWS, repeat=False)
    for _ in range(2):
        batches = list(loader)
        assert [batch["weights"].tolist() for batch in batches] == [[1] * 4, [1, 1, 1, 0]]
        assert batches[1]["ids"].tolist() == [100, 101, 102, -1]
        assert not batches[1]["audio"][3].any()


SOURCES = {
    "list": several,
    "list without ids": lambda: [{"audio": batch["audio"]} for batch in several()],
    "function of a list": lambda: several,
    "generator function": lambda: alike,
    "generator function of the pass": lambda: generated,
    "with state": lambda: Stateful(several(5)),
    "with state of its iterators": lambda: Grain(several()),
    "our own loader": lambda: Loader(Items(), batch_size=ROWS, seed=2, repeat=False),
    "a generator without end": lambda: (made(index) for index in itertools.count()),
}


class Items:
    """Clips one by one, for a loader of ours."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {name: value[0] for name, value in made(index).items()}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_position_continues_exactly(kind):
    options = {"batch_size": ROWS, "seed": 5}
    whole = first_ids(IterableLoader(SOURCES[kind](), **options), 11)
    for cut in (0, 1, 3, 5, 8):
        first = IterableLoader(SOURCES[kind](), **options)
        assert first_ids(first, cut) == whole[:cut]
        position = json.loads(json.dumps(first.position()))
        second = IterableLoader(SOURCES[kind](), **options, position=position)
        assert second.position() == first.position()
        assert first_ids(second, 11 - cut) == whole[cut:]


@pytest.mark.parametrize("kind", SOURCES)
def test_looking_at_the_first_batch_consumes_nothing(kind):
    expected = first_ids(IterableLoader(SOURCES[kind](), batch_size=ROWS), 7)
    loader = IterableLoader(SOURCES[kind](), batch_size=ROWS)
    assert [int(loader.first()["ids"][0]) for _ in range(2)] == expected[:1] * 2
    assert first_ids(loader, 7) == expected


def test_a_function_is_given_what_it_has_arguments_for():
    calls = []

    def batches(epoch, seed, batch_size, split, extra=0):
        calls.append((epoch, seed, batch_size, split, extra))
        return several(2)

    given = Batches(batches, kwargs={"extra": 7}, split="train", root="unused")
    first_ids(IterableLoader(given, batch_size=ROWS, seed=5), 5)
    assert calls == [(epoch, 5, ROWS, "train", 7) for epoch in range(3)]
    with pytest.raises(
        ValueError, match="'bands' is none of epoch, seed, batch_size, split, extra"
    ):
        Batches(batches, kwargs={"bands": 1})


def test_a_list_that_is_made_is_kept():
    calls = []

    def batches():
        calls.append(1)
        return several()

    first_ids(IterableLoader(batches, batch_size=ROWS), 10)
    assert len(calls) == 1


def test_states_come_back_whatever_they_hold():
    for state in ({"a": [1, 2.5, None]}, {1: (2, 3)}, b"bytes", {"rng": torch.arange(5)}):
        back = decoded(json.loads(json.dumps(encoded(state))))
        assert str(back) == str(state)


def test_what_cannot_be_resumed_by_skipping_is_refused():
    order = [made(index) for index in range(4)]
    loader = IterableLoader(order, batch_size=ROWS)
    first_ids(loader, 3)
    position = loader.position()
    with pytest.raises(
        IterableError, match=r"same batches again; in pass 0 batch 2 is another one"
    ):
        next(IterableLoader(order[::-1], batch_size=ROWS, position=position))
    with pytest.raises(IterableError, match="it ended after 1 batches"):
        next(IterableLoader(order[:1], batch_size=ROWS, position=position))
    known = IterableLoader(Grain(order), batch_size=ROWS)
    first_ids(known, 2)
    with pytest.raises(IterableError, match="got a list, without load_state_dict or set_state"):
        next(IterableLoader(order, batch_size=ROWS, position=known.position()))
    with pytest.raises(ValueError, match="batch_size: saved 4, now 8"):
        IterableLoader(order, batch_size=8, position=position)
    with pytest.raises(ValueError, match="iterable: saved None, now True"):
        IterableLoader(order, batch_size=ROWS, position=Loader(Items(), batch_size=2).position())
    with pytest.raises(ValueError, match="fingerprint: saved None"):
        Loader(Items(), batch_size=ROWS, position=position)
    with pytest.raises(ValueError, match="only an endless loader"):
        IterableLoader(order, batch_size=ROWS, position=position, repeat=False)


@pytest.mark.parametrize("repeat", [True, False])
def test_a_generator_that_ends_is_not_passed_over_twice(repeat):
    loader = IterableLoader(generated(), batch_size=ROWS, repeat=repeat)
    assert first_ids(loader, 3) == [0, 100, 200]
    with pytest.raises(IterableError, match="as a generator is, cannot be passed over again; give"):
        next(iter(loader))


BAD = {
    "another length": (
        [made(0), made(1, samples=9)],
        r"'audio' of batch 1 of pass 0 is .*\(4, 9\)",
    ),
    "an array less": ([made(0), dict(list(made(1).items())[1:])], "'audio' .* is absent"),
    "an array more": ([made(0), made(1) | {"new": np.ones(4)}], "'new' .* before it was absent"),
    "another type": ([made(0), made(1) | {"labels": np.ones(4)}], r"'labels' .*float32 \(4,\)"),
    "too many rows": (
        [made(0, rows=5)],
        r"1 to batch_size=4; batch 0 of pass 0 has audio \(5, 16\)",
    ),
    "rows that differ": ([made(0) | {"labels": np.ones(3)}], r"same number of rows.*labels \(3,\)"),
    "no rows": ([made(0, rows=0)], "same number of rows"),
    "a number": ([made(0) | {"labels": 3}], r"labels \(\)"),
    "nothing": ([{}], "has none"),
    "a pair": ([(1, 2)], "a dict of arrays; batch 0 of pass 0 is a tuple; give {'audio'"),
    "text": ([made(0) | {"name": np.array(["a.wav"] * 4)}], "real numbers; 'name' holds <U5"),
    "complex": ([made(0) | {"audio": np.ones(4, complex)}], "real numbers; 'audio' holds complex"),
    "complex jax": ([made(0) | {"audio": jnp.ones(4, complex)}], "'audio' holds complex64"),
    "large": ([made(0) | {"labels": np.full(4, 2**40)}], "int32; 'labels' holds a number out of"),
    "empty": ([], "some in every pass; there was none in pass 0"),
}


@pytest.mark.parametrize("bad", BAD)
def test_batches_that_fit_no_rule(bad):
    batches, message = BAD[bad]
    loader = IterableLoader(batches, batch_size=ROWS)
    with pytest.raises(IterableError, match=message):
        first_ids(loader, 2)
    position = loader.position()
    assert position["batch"] == max(len(batches) - 1, 0)
    # It comes again; nothing was consumed.
    if batches:
        with pytest.raises(IterableError, match=message):
            next(loader)


def test_an_array_that_is_written_to_afterwards_is_noticed():
    def reused():
        batch = made(0)
        for index in range(3):
            for name, array in made(index).items():
                batch[name][...] = array
            yield batch

    with pytest.raises(IterableError, match=r"written to after it was given.*array\.copy"):
        first_ids(IterableLoader(reused, batch_size=ROWS), 3)
    same = made(0)
    assert first_ids(IterableLoader([same, same], batch_size=ROWS), 3) == [0, 0, 0]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (3, "an iterable, or a function.*got a int"),
        (lambda: 3, "must return an iterable.*got a int"),
    ],
)
def test_what_is_no_iterable(batches, message):
    with pytest.raises(ValueError, match=message):
        IterableLoader(batches, batch_size=ROWS).first()
    with pytest.raises(IterableError, match="at least one"):
        IterableLoader([], batch_size=ROWS).first()


def test_a_list_is_made_anew_for_another_seed():
    made = Batches(lambda seed: [{"audio": np.full((ROWS, SAMPLES), seed, np.float32)}])
    for seed in (0, 7, 0):
        batch = IterableLoader(made, batch_size=ROWS, seed=seed).first()
        assert float(batch["audio"][0, 0]) == seed


def test_an_unsigned_number_beyond_32_bits_is_refused():
    huge = np.full(ROWS, 2**64 - 1, np.uint64)
    with pytest.raises(IterableError, match="out of its range"):
        IterableLoader(
            [{"audio": np.zeros((ROWS, 8), np.float32), "labels": huge}], batch_size=ROWS
        ).first()
