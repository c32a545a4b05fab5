"""Free memory goes back to the system, in training too."""

import ctypes
import pathlib
import sys

import pytest

import hybrid
from hybrid.memory import give_back_free_memory

BLOCK, COUNT = 64 << 10, 3000


def anonymous_bytes():
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at its memory through /proc")
def test_holes_in_the_heap_are_given_back():
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("another C library than glibc")
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
    blocks = [libc.malloc(BLOCK) for _ in range(COUNT)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    # Every other run of 32 stays, so that no hole is at the end of the heap.
    for i, block in enumerate(blocks):
        if i // 32 % 2:
            libc.free(block)
    before = anonymous_bytes()
    give_back_free_memory()
    given_back = before - anonymous_bytes()
    for i, block in enumerate(blocks):
        if not i // 32 % 2:
            libc.free(block)
    assert given_back > 0.4 * BLOCK * COUNT


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr("hybrid.memory._trim", lambda: None)
    give_back_free_memory()


def test_a_run_does_so_after_evaluations_and_checkpoints(toy_config, tmp_path, monkeypatch):
    calls = []
    # `hybrid.fit` itself is the function.
    module = sys.modules["hybrid.fit"]
    monkeypatch.setattr(module, "give_back_free_memory", lambda: calls.append(1))
    toy_config.num_steps, toy_config.eval_every_steps = 8, 3
    toy_config.checkpoint_every_steps = 4
    hybrid.fit(toy_config, tmp_path)
    assert len(calls) == 4  # after steps 3, 4, 6 and 8
