"""Checkpoints: bit-exact, complete or invisible, never partly restored, never silently damaged."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from hybrid.checkpoints import (
    CheckpointDamaged,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    Checkpoints,
)
from hybrid.state import Branch, HybridState

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = {"position": {"epoch": 3, "index": 17}, "best": 0.1 + 0.2, "none": None, "inf": np.inf}


def optimizer():
    masked = optax.masked(optax.adamw(1e-2), lambda tree: {name: name != "b" for name in tree})
    return optax.MultiSteps(optax.chain(optax.clip_by_global_norm(1.0), masked), every_k_schedule=2)


def make_state(seed=0, channels=5):
    key = jax.random.key(seed)
    physics = {"a": jax.random.normal(key, (channels,)), "b": jnp.asarray(1e-3)}
    learner = {
        "Dense_0": {"kernel": jax.random.normal(key, (3, 2)), "bias": jnp.zeros(2)},
        "half": jnp.arange(4, dtype=jnp.bfloat16) / 3,
        "flags": jnp.asarray([True, False]),
        "bytes": jnp.arange(7, dtype=jnp.uint8),
        "with/slash and space": jnp.ones((2, 1)),
        "nothing": jnp.zeros((0, 4), jnp.float16),
        "numpy": np.arange(3, dtype=np.float64) / 7,
    }
    physics_tx, learner_tx = optimizer(), optax.sgd(0.1, momentum=0.9)
    floats = {"Dense_0": learner["Dense_0"]}
    return HybridState(
        step=jnp.asarray(40, jnp.int32),
        key=key,
        physics=Branch(physics, physics_tx.init(physics)),
        learner=Branch(learner, learner_tx.init(floats)),
        collections={"keys": jax.random.split(jax.random.key(1, impl="rbg"), 3)},
    )


def bits(tree):
    def leaf_bits(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf).tobytes(), leaf.shape, str(leaf.dtype), isinstance(leaf, jax.Array)

    return [leaf_bits(leaf) for leaf in jax.tree.leaves(tree)], jax.tree.structure(tree)


@pytest.fixture
def checkpoints(tmp_path):
    store = Checkpoints(tmp_path / "checkpoints")
    yield store
    store.close()


def small(value):
    return {"x": jnp.full(3, value, jnp.float32)}


def test_round_trip_is_bit_exact(checkpoints):
    state = make_state()
    # Optax relies on type promotion in places.
    update = jax.numpy_dtype_promotion("standard")(optimizer().update)
    gradient = jax.tree.map(jnp.ones_like, state.physics.params)
    _, opt_state = update(gradient, state.physics.opt_state, state.physics.params)
    state = state.replace(physics=Branch(state.physics.params, opt_state))
    checkpoints.save(40, state, EXTRAS)
    restored, extras = checkpoints.restore(make_state(seed=1))
    assert bits(restored) == bits(state)
    assert extras == EXTRAS
    assert type(restored.physics.opt_state) is type(state.physics.opt_state)
    # What comes back works: the optimizer takes its next step, the key draws, buffers are donated.
    update(gradient, restored.physics.opt_state, restored.physics.params)
    assert jax.random.bits(restored.key) == jax.random.bits(state.key)
    jax.jit(lambda tree: jax.tree.map(jnp.negative, tree), donate_argnums=0)(
        restored.learner.params["Dense_0"]
    )


def test_special_values_keep_their_bits(checkpoints):
    pattern = np.array([0x7FC00001, 0x7F800000, 0x80000000, 0x00000001, 0xFFC12345], np.uint32)
    state = {"x": jax.lax.bitcast_convert_type(jnp.asarray(pattern), jnp.float32)}
    checkpoints.save(1, state, {})
    restored, _ = checkpoints.restore(state)
    np.testing.assert_array_equal(np.asarray(restored["x"]).view(np.uint32), pattern)


def test_abstract_state_will_do(checkpoints):
    state = {"key": jax.random.key(3), "x": jnp.ones(3)}
    checkpoints.save(1, state, {})
    restored, _ = checkpoints.restore(jax.eval_shape(lambda: state))
    assert bits(restored) == bits(state)


def test_float64_round_trip_and_its_absence(checkpoints):
    with jax.enable_x64(True):
        state = {"x": jnp.asarray([1 / 3]), "n": jnp.asarray(2**60)}
        checkpoints.save(1, state, {})
        assert bits(checkpoints.restore(state)[0]) == bits(state)
    with pytest.raises(CheckpointMismatch, match=r"x: saved float64\[1\], asked for float32\[1\]"):
        checkpoints.restore({"x": jnp.ones(1), "n": jnp.asarray(1)})


def test_every_leaf_that_differs_is_named(checkpoints):
    state = make_state()
    checkpoints.save(40, state, {})
    other = make_state(channels=6)
    del other.learner.params["Dense_0"]["bias"]
    other.learner.params["Dense_1"] = {"kernel": jnp.ones(2, jnp.int32)}
    other = other.replace(key=jax.random.key(0, impl="rbg"))
    with pytest.raises(CheckpointMismatch) as caught:
        checkpoints.restore(other)
    lines = str(caught.value).splitlines()
    for expected in (
        "  key: saved key<fry>[], asked for key<rbg>[]",
        "  physics.params.a: saved float32[5], asked for float32[6]",
        "  learner.params.Dense_0.bias: saved float32[2], not asked for",
        "  learner.params.Dense_1.kernel: not in the checkpoint, asked for int32[2]",
    ):
        assert expected in lines
    assert any("opt_state" in line and "mu.a" in line for line in lines)


def test_what_is_no_array_is_refused_before_anything_is_written(checkpoints):
    with pytest.raises(CheckpointError, match=r"a\.b is 3, a int"):
        checkpoints.save(1, {"a": {"b": 3}}, {})
    with pytest.raises(CheckpointError, match="extras hold what JSON can hold"):
        checkpoints.save(1, small(0), {"array": jnp.ones(2)})
    with pytest.raises(CheckpointError, match="2 leaves have 1 names"):
        checkpoints.save(1, {"a.b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, {})
    assert checkpoints.latest_step() is None
    assert not checkpoints.directory.exists()


def test_newest_are_kept_and_one_can_be_asked_for(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30):
        store.save(step, small(step), {"step": step})
    assert store.steps() == [20, 30]
    assert store.restore(small(0), step=20)[1] == {"step": 20}
    with pytest.raises(CheckpointNotFound, match=r"no checkpoint of step 10.*\[20, 30\]"):
        store.restore(small(0), step=10)
    with pytest.raises(CheckpointNotFound, match="no checkpoint in"):
        Checkpoints(tmp_path / "empty").restore(small(0))
    with pytest.raises(ValueError, match="at least 1"):
        Checkpoints(tmp_path, keep=0)


def test_same_step_is_replaced_and_later_ones_go(checkpoints):
    for step in (10, 20, 30):
        checkpoints.save(step, small(step), {})
    checkpoints.save(20, small(-20), {})
    assert checkpoints.steps() == [10, 20]
    assert checkpoints.restore(small(0))[0]["x"][0] == -20
    checkpoints.discard_after(10)
    assert checkpoints.steps() == [10]
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["step_000000010"]


def files_of(path):
    return sorted(item for item in path.rglob("*") if item.is_file())


def damage(kind, file):
    data = file.read_bytes()
    if kind == "missing":
        file.unlink()
    elif kind == "truncated":
        file.write_bytes(data[: len(data) // 2])
    else:
        flipped = bytearray(data)
        flipped[len(data) // 3] ^= 1
        file.write_bytes(flipped)


@pytest.mark.parametrize("kind", ["missing", "truncated", "flipped"])
def test_damage_to_any_file_is_found_and_the_one_before_is_used(checkpoints, kind, caplog):
    for step in (10, 20):
        checkpoints.save(step, small(step), {})
    path = checkpoints.directory / "step_000000020"
    whole = checkpoints.directory / "copy"
    shutil.copytree(path, whole)
    names = [file.relative_to(path) for file in files_of(path) if file.stat().st_size]
    assert len(names) > 5
    for name in names:
        damage(kind, path / name)
        with pytest.raises(CheckpointDamaged, match=f"(?s)is damaged.*{name}"):
            checkpoints.restore(small(0), step=20)
        shutil.rmtree(path)
        shutil.copytree(whole, path)
    checkpoints.verify(20)
    damage(kind, path / "extras.json")
    logging.set_verbosity(logging.WARNING)
    with caplog.at_level("WARNING", logger="absl"):
        restored, _ = checkpoints.restore(small(0))
    assert restored["x"][0] == 10
    assert "extras.json" in caplog.text
    assert "using step 10 instead" in caplog.text
    damage(kind, checkpoints.directory / "step_000000010" / "manifest.json")
    with pytest.raises(CheckpointDamaged, match=r"(?s)no intact checkpoint.*20.*10"):
        checkpoints.restore(small(0))


def test_a_later_format_is_not_taken_for_damage(checkpoints):
    from hybrid import manifest as manifests

    checkpoints.save(1, small(1), {})
    file = checkpoints.directory / "step_000000001" / "manifest.json"
    content = json.loads(file.read_text())
    del content["sha256"]
    content["format"] = manifests.FORMAT_VERSION + 1
    content["sha256"] = manifests._own_checksum(content)
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="has format 4, and this release reads up to 3"):
        checkpoints.restore(small(0))


def test_a_full_disk_leaves_the_last_checkpoint(checkpoints, monkeypatch):
    checkpoints.save(10, small(10), {})
    usage = shutil.disk_usage(checkpoints.directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"0 MB free; the last complete one is of step 10"):
        checkpoints.save(20, small(20), {})
    monkeypatch.undo()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hybrid.checkpoints.write_manifest", fail)
    with pytest.raises(OSError, match="No space") as caught:
        checkpoints.save(20, small(20), {})
    assert "the last complete one is of step 10" in caught.value.__notes__[0]
    assert [path.name for path in checkpoints.directory.iterdir()] == ["step_000000010"]


def test_a_failed_replacement_leaves_the_old_one(checkpoints, monkeypatch):
    checkpoints.save(10, small(10), {})
    rename = Path.rename

    def fail(self, target):
        if self.name.startswith(".partial"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        checkpoints.save(10, small(-10), {})
    assert checkpoints.restore(small(0))[0]["x"][0] == 10


KILLED = """
    import os, shutil, signal, sys, types
    from pathlib import Path
    import numpy as np
    # The module alone, without all that the package's __init__ imports.
    sys.modules["hybrid"] = types.ModuleType("hybrid")
    sys.modules["hybrid"].__path__ = ["hybrid"]
    from hybrid import checkpoints

    directory, moment = sys.argv[1:]

    def dying(function, when):
        def wrapper(*arguments, **keywords):
            if when == "after":
                function(*arguments, **keywords)
            os.kill(os.getpid(), signal.SIGKILL)
        return wrapper

    store = checkpoints.Checkpoints(directory, keep=2)
    for step in (10, 20):
        store.save(step, {"x": np.full(3, step, np.float32)}, {"step": step})
    if moment == "before the manifest":
        checkpoints.write_manifest = dying(checkpoints.write_manifest, "before")
    elif moment == "before the rename":
        checkpoints.write_manifest = dying(checkpoints.write_manifest, "after")
    elif moment == "while the oldest goes":
        # The first file of the one that retention removes is gone, the others are still there.
        def rmtree(path, **_):
            if path.exists():
                dying(Path.unlink, "after")(path / "extras.json")
        shutil.rmtree = rmtree
    store.save(30, {"x": np.full(3, 30, np.float32)}, {"step": 30})
"""


@pytest.mark.parametrize(
    ("moment", "left", "debris"),
    [
        ("before the manifest", [10, 20], ".partial-"),
        ("before the rename", [10, 20], ".partial-"),
        ("while the oldest goes", [20, 30], ".discarded-"),
    ],
)
def test_killed_while_saving(tmp_path, moment, left, debris):
    script = textwrap.dedent(KILLED)
    # From the repository, as a run is started.
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), moment],
        cwd=ROOT,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert any(path.name.startswith(debris) for path in tmp_path.iterdir())
    store = Checkpoints(tmp_path, keep=2)
    like = {"x": np.zeros(3, np.float32)}
    assert store.steps() == left
    for step in left:
        restored, extras = store.restore(like, step=step)
        assert (restored["x"] == step).all()
        assert extras == {"step": step}
    store.save(40, like, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"step_{left[-1]:09d}", "step_000000040"]


def test_readers_leave_a_running_save_alone(checkpoints):
    checkpoints.save(10, small(10), {})
    partial = checkpoints.directory / ".partial-20-1"
    partial.mkdir()
    Checkpoints(checkpoints.directory).restore(small(0))
    assert partial.is_dir()


def test_a_reader_takes_the_next_when_one_is_removed_under_it(checkpoints, monkeypatch):
    for step in (10, 20):
        checkpoints.save(step, small(step), {})
    read, calls = Checkpoints.verify, []

    def verify(self, step):
        calls.append(step)
        if len(calls) == 1:
            self._discard(step)
            checkpoints.save(30, small(30), {})
        return read(self, step)

    monkeypatch.setattr(Checkpoints, "verify", verify)
    assert checkpoints.restore(small(0))[0]["x"][0] == 30
    assert calls == [20, 30]


def test_the_log_is_not_flooded(checkpoints, caplog):
    logging.set_verbosity(logging.INFO)
    try:
        with caplog.at_level("INFO", logger="absl"):
            checkpoints.save(1, small(1), {})
            checkpoints.restore(small(1))
    finally:
        logging.set_verbosity(logging.WARNING)
    assert caplog.records == []
