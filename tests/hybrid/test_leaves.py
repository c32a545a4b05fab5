"""Leaves on their way into a checkpoint: packed by dtype, apart in order, nothing left over."""

import hashlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid.checkpoints import CheckpointDamaged, CheckpointError, Checkpoints
from hybrid.leaves import decode, describe, encode, pack, unpack

STATE = {"a": np.arange(4, dtype=np.float32), "b": np.full(4, 9, np.float32)}


@pytest.fixture
def two_saved(tmp_path):
    """Two checkpoints, and a way to edit the newer one's manifest, with a checksum that fits."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        checkpoints.save(step, {k: v + step for k, v in STATE.items()}, {})
    path = tmp_path / "checkpoints" / "step_000000002" / "manifest.json"

    def edit(change, *, signed):
        manifest = json.loads(path.read_text())
        checksum = manifest.pop("sha256")
        manifest = change(manifest) or manifest
        if signed:
            text = json.dumps(manifest, sort_keys=manifest["format"] in (1, 2))
            checksum = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(manifest | {"sha256": checksum}, indent=1) + "\n")

    yield checkpoints, edit
    checkpoints.close()


def backwards(manifest):
    return manifest | {"leaves": dict(reversed(manifest["leaves"].items()))}


def test_leaves_in_another_order_are_damage(two_saved):
    checkpoints, edit = two_saved
    edit(backwards, signed=False)
    with pytest.raises(CheckpointDamaged, match="its checksum is wrong"):
        checkpoints.restore(STATE, 2)
    restored, _ = checkpoints.restore(STATE)
    np.testing.assert_array_equal(restored["b"], STATE["b"] + 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m | {"format": 1}, "nothing is stored of a, b"),
        (lambda m: m | {"format": 0}, "its format must be 1 or more, got 0"),
        (lambda m: m | {"format": "3"}, "its format must be 1 or more, got '3'"),
        (lambda m: m | {"step": 1}, "it was written at step 1"),
        (lambda m: {k: v for k, v in m.items() if k != "leaves"}, "it must have 'leaves'"),
        (lambda m: m | {"files": []}, "it must have 'files'"),
    ],
)
def test_a_manifest_that_fits_nothing_is_passed_over(two_saved, change, said):
    checkpoints, edit = two_saved
    edit(change, signed=True)
    with pytest.raises(CheckpointDamaged, match=said):
        checkpoints.restore(STATE, 2)
    restored, _ = checkpoints.restore(STATE)
    np.testing.assert_array_equal(restored["a"], STATE["a"] + 1)


@pytest.mark.parametrize(
    "leaf",
    [
        jnp.zeros(3, "uint4"),
        np.array(["a"]),
        np.array([b"a"]),
        np.zeros(2, "datetime64[s]"),
        np.zeros(2, [("x", np.float32)]),
        np.zeros(2, jax.dtypes.float0),
        np.ma.masked_array([1.0, 2.0], [True, False]),
        np.zeros(2, object),
    ],
    ids=lambda leaf: f"{type(leaf).__name__}-{leaf.dtype}",
)
def test_what_cannot_be_stored_is_named(leaf):
    with pytest.raises(CheckpointError, match=r"numbers, but state\.x is a .* of "):
        encode("state.x", leaf)


def test_donated_leaves_are_named():
    leaf = jnp.zeros(3)
    leaf.delete()
    with pytest.raises(CheckpointError, match=r"state\.x has been deleted"):
        encode("state.x", leaf)


def test_any_order_of_bytes_is_stored_in_this_machines(tmp_path):
    state = {"a": np.arange(3, dtype=np.dtype(np.float32).newbyteorder("S"))}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, state, {})
    restored, _ = checkpoints.restore({"a": np.zeros(3, np.float32)})
    np.testing.assert_array_equal(restored["a"], [0, 1, 2])
    assert restored["a"].dtype == np.float32
    checkpoints.close()


def test_a_leaf_is_no_view_of_all_that_was_packed(two_saved):
    restored, _ = two_saved[0].restore(STATE)
    assert all(leaf.base is None for leaf in restored.values())


def test_nothing_is_made_up():
    like = np.zeros(3, np.float32)
    with pytest.raises(CheckpointDamaged, match=r"x, float32\[3\], is not among"):
        decode("x", None, describe(like), like)


def test_empty_keys_go_where_the_others_go():
    device = jax.devices()[0]
    keys = jax.device_put(jax.random.split(jax.random.key(0), 0), device)
    back = decode("x", None, encode("x", keys)[1], keys)
    assert back.dtype == keys.dtype
    assert back.committed


def test_what_is_packed_comes_apart_again():
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "none": np.zeros((0, 3), np.float32),
        "count": np.asarray(7, np.int32),
        "b": np.asarray(2.5, np.float32),
    }
    descriptions = {name: describe(array) for name, array in arrays.items()}
    packed = pack(arrays)
    assert {dtype: array.shape for dtype, array in packed.items()} == {
        "float32": (7,),
        "int32": (1,),
    }
    back = unpack(packed, descriptions)
    assert back.keys() == {"a", "count", "b"}
    for name, array in back.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)
    for wrong in ({**descriptions, "c": describe(arrays["b"])}, {"a": descriptions["a"]}):
        with pytest.raises(CheckpointDamaged, match=r"its leaves need .* elements, and it has"):
            unpack(packed, wrong)


def test_a_save_keeps_no_memory_for_each_leaf(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    state = {f"leaf_{index}": np.full(3, index, np.float32) for index in range(100)}
    for step in range(10):
        checkpoints.save(step, state, {})
    before = sys.getallocatedblocks()
    for step in range(10, 30):
        checkpoints.save(step, state, {})
    assert (sys.getallocatedblocks() - before) / 20 < len(state)
    checkpoints.close()
