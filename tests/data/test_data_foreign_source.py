"""A source of batches made elsewhere, named by its import path."""

import numpy as np
import pytest

from data import IterableLoader, Iterables


@pytest.fixture
def my_data(tmp_path, monkeypatch):
    """A module with batches in it."""
    (tmp_path / "my_data.py").write_text(
        "import numpy as np\n"
        "def batches(split, root, loud=False):\n"
        "    for index in range(2):\n"
        "        audio = np.full((2, 8), index, np.float32)\n"
        "        sizes = {'split': len(split), 'root': len(root or '')}\n"
        "        yield {'audio': audio} | {k: np.full(2, n) for k, n in sizes.items()}\n"
        "splits = {'train': list(batches('train', '')), 'test': []}\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def source(target, **more):
    facts = {"class_names": ("no", "yes"), "sample_rate_hz": 8000, "num_samples": 8}
    return Iterables(target=target, **(facts | more))


def test_a_generator_that_has_raised_is_not_at_its_end():
    raised = []

    def batches():
        for index in range(3):
            if index == 1 and not raised:
                raised.append(True)
                raise KeyError("once")
            yield {"audio": np.full((2, 8), index, np.float32)}

    for repeat in (True, False):
        raised.clear()
        loader = IterableLoader(batches, batch_size=2, repeat=repeat)
        assert next(loader)["audio"][0, 0] == 0
        with pytest.raises(KeyError):
            next(loader)
        assert [int(next(loader)["audio"][0, 0]) for _ in range(2)] == [1, 2]


def test_a_source_of_them_by_import_path(my_data):
    function = source("my_data:batches", root="abc", rename={"split": "labels"})
    batch = next(IterableLoader(function.dataset("validation"), batch_size=2))
    assert batch["labels"].tolist() == [len("validation")] * 2
    assert batch["root"].tolist() == [3, 3]
    assert function.dataset("train") is function.dataset("train")
    mapping = source("my_data:splits")
    assert len(list(IterableLoader(mapping.dataset("train"), batch_size=2, repeat=False))) == 2


@pytest.mark.parametrize(
    ("target", "more", "split", "message"),
    [
        ("my_data:splits", {}, "validation", "lacks 'validation' and has train, test; add"),
        ("my_data:splits", {}, "dev", "a split is one of"),
        ("my_data:splits", {"kwargs": {"a": 1}}, "train", "which is a mapping; leave them out"),
        ("my_data:batches", {"kwargs": {"lod": 1}}, "train", "'lod' is none of split, root, loud"),
        ("my_data:number", {}, "train", "is a int; put it into a dict"),
        (
            "my_data:nothing",
            {},
            "train",
            "import path 'package.module:name', got 'my_data:nothing'",
        ),
        ("no_such_data:batches", {}, "train", "No module named.*PYTHONPATH"),
    ],
)
def test_a_source_that_cannot_be(my_data, target, more, split, message):
    with pytest.raises(ValueError, match=message):
        source(target, **more).dataset(split)
