"""Damage to the newest checkpoint costs some steps and no bit; a full disk costs none."""

import contextlib
import logging as python_logging
import pathlib
import resource
import shutil

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hybrid
from hybrid.checkpoints import CheckpointError, Checkpoints
from hybrid.disk import DiskFullError, full_disk_explained, is_full
from hybrid.writers import read_rows, without_clock

TOYS = ("toy_parts",)


def rows(workdir):
    return [without_clock(row) for row in read_rows(workdir)]


def bits(state):
    leaves = jax.tree.leaves((state.physics, state.learner, state.collections))
    return [np.asarray(leaf).tobytes() for leaf in leaves]


def files_of(path):
    return sorted(f for f in pathlib.Path(path).rglob("*") if f.is_file() and f.stat().st_size)


def harm(kind, file):
    data = bytearray(file.read_bytes())
    if kind == "missing":
        file.unlink()
    elif kind == "truncated":
        file.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 0x10
        file.write_bytes(data)


@pytest.fixture
def short_config(toy_config):
    toy_config.num_steps, toy_config.checkpoint_every_steps = 9, 3
    toy_config.log_every_steps, toy_config.eval_every_steps = 2, 4
    toy_config.physics_optimizer.start_step = 0
    return toy_config


def test_fit_and_load_use_the_one_before_a_damaged_checkpoint(short_config, tmp_path, caplog):
    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    expected = hybrid.fit(short_config, whole)
    shutil.copytree(whole, hurt)
    last = hurt / "checkpoints" / "step_000000009"
    for kind in ("missing", "truncated", "flipped"):
        harm(kind, max(files_of(last / "state"), key=lambda file: file.stat().st_size))
        caplog.clear()
        with caplog.at_level(python_logging.WARNING, logger="absl"):
            assert int(hybrid.load(hurt, trusted=TOYS).state.step) == 6, kind
        assert "step_000000009 is damaged" in caplog.text, kind
        if kind != "flipped":
            shutil.rmtree(last)
            shutil.copytree(whole / "checkpoints" / last.name, last)
    caplog.clear()
    with caplog.at_level(python_logging.WARNING, logger="absl"):
        assert bits(hybrid.fit(short_config, hurt)) == bits(expected)
    assert "step_000000009 is damaged" in caplog.text
    assert "using step 6 instead" in caplog.text
    assert rows(hurt) == rows(whole)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of every kind of leaf, and what it holds."""
    store = Checkpoints(tmp_path_factory.mktemp("saved"))
    state = {
        "x": np.arange(40, dtype=np.float32),
        "key": jax.random.key(3),
        "half": jnp.arange(5, dtype=jnp.bfloat16),
        "none": jnp.zeros((0, 2)),
    }
    store.save(1, state, {"book": {"window": [0.1, float("nan")]}})
    yield store, state
    store.close()


def test_a_manifest_of_the_same_meaning_is_damaged_too(saved):
    store, state = saved
    file = store.directory / "step_000000001" / "manifest.json"
    good = file.read_bytes()
    try:
        for bad in (good + b"\t", good.replace(b"\n", b"\r\n"), good.replace(b'"', b' "', 1)):
            file.write_bytes(bad)
            with pytest.raises(CheckpointError, match="it is not as it was written"):
                store.restore(state, step=1)
    finally:
        file.write_bytes(good)
    store.verify(1)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(data=st.data())
def test_no_harm_to_any_byte_is_taken_for_good(saved, data):
    store, state = saved
    files = files_of(store.directory / "step_000000001")
    file = data.draw(st.sampled_from(files))
    good = file.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(
        st.one_of(
            st.integers(1, 255).map(
                lambda mask: good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :]
            ),
            st.just(good[:place]),
            st.binary(min_size=1, max_size=30).map(lambda extra: good + extra),
            st.binary(max_size=200),
            st.sampled_from(
                [b"[1]", b"3", b"null", b"{}", b'{"sha256": 1}', b"\xff\xfe", b"[" * 9999]
            ),
        ).filter(lambda changed: changed != good)
    )
    file.write_bytes(bad)
    try:
        with pytest.raises(CheckpointError):
            store.restore(state, step=1)
    finally:
        file.write_bytes(good)
    store.verify(1)


@contextlib.contextmanager
def limited(num_bytes):
    """Lets no file of this process grow beyond so many bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_is_an_error_and_the_run_goes_on_later(short_config, tmp_path):
    whole, full = tmp_path / "whole", tmp_path / "full"
    short_config.log_every_steps = 1
    expected = hybrid.fit(short_config, whole)
    say = pytest.raises(DiskFullError, match="free some space and run the same command")
    # Not one checkpoint can be written.
    with say, limited(4000):
        hybrid.fit(short_config, full)
    # They can, but the rows of the last steps cannot.
    largest, grown = (
        max(file.stat().st_size for folder in folders for file in files_of(whole / folder))
        for folders in (["checkpoints"], ["tensorboard"])
    )
    assert grown > largest + 500
    with say, limited(grown - 400):
        hybrid.fit(short_config, full)
    store = Checkpoints(full / "checkpoints")
    assert store.steps()
    assert [path.name for path in store.directory.glob(".*")] == []
    assert bits(hybrid.fit(short_config, full)) == bits(expected)
    assert rows(full) == rows(whole)


def test_a_disk_without_room_for_a_checkpoint_is_a_full_one(short_config, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DiskFullError, match="of step 3 needs 4 MB"):
        hybrid.fit(short_config, tmp_path)


def test_the_memory_of_workers_is_no_disk(tmp_path):
    for error in (
        RuntimeError("unable to write to file </torch_7_1>: No space left on device (28)"),
        OSError(28, "No space left on device", "/dev/shm/x"),
    ):
        assert not is_full(error)
        with pytest.raises(type(error), match="No space") as caught, full_disk_explained(tmp_path):
            raise error
        assert "lower config.data.num_workers" in caught.value.__notes__[0]


def test_only_a_full_disk_is_taken_for_one():
    assert is_full(OSError(28, "No space left on device"))
    assert is_full(ValueError("RESOURCE_EXHAUSTED: Error writing x: No space left on device"))
    assert not is_full(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes"))
    assert not is_full(FileNotFoundError(2, "No such file or directory"))


def test_a_replacement_that_was_killed_is_put_back(tmp_path):
    state = {"x": np.arange(3)}
    store = Checkpoints(tmp_path)
    store.save(5, state, {"n": 1})
    (tmp_path / "step_000000005").rename(tmp_path / ".replaced-step_000000005-77")
    (tmp_path / ".partial-5-77").mkdir()
    assert store.steps() == []
    store.recover()
    assert store.restore(state)[1] == {"n": 1}
    # What was replaced after all is not wanted any more.
    shutil.copytree(tmp_path / "step_000000005", tmp_path / ".replaced-step_000000005-77")
    store.save(5, state, {"n": 2})
    assert store.restore(state)[1] == {"n": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["step_000000005"]
