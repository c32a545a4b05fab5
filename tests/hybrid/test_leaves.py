"""Leaves on their way into a checkpoint: packed by dtype, apart in order, nothing left over."""

import sys

import numpy as np
import pytest

from hybrid.checkpoints import CheckpointDamaged, Checkpoints
from hybrid.leaves import describe, pack, unpack


def test_what_is_packed_comes_apart_again_and_never_in_another_order():
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
