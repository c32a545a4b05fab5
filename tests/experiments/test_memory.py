"""Memory that is freed: kept by the commands, left to those who set their own rules."""

import os
import platform
import subprocess
import sys

import pytest

from experiments.memory import keep_freed_memory

# Blocks above 32 MB: smaller ones glibc keeps by itself, once it has seen one.
REPEAT = """
import ctypes, resource, sys
from experiments.memory import keep_freed_memory
kept = keep_freed_memory()
libc, size = ctypes.CDLL(None), 64 << 20
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def once():
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    once()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")


def faults(**environment: str) -> tuple[bool, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    ran = subprocess.run(
        [sys.executable, "-c", REPEAT],
        env=clean | environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    kept, count = ran.stdout.split()
    return kept == "True", int(count)


@on_glibc
def test_freed_memory_is_not_fetched_again_unless_the_user_has_set_rules():
    kept, few = faults()
    left, many = faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert (kept, left) == (True, False)
    assert few < many / 10


@pytest.mark.parametrize(
    "environment",
    [{"MALLOC_ARENA_MAX": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}],
)
def test_rules_of_the_user_are_left_alone(environment):
    assert not keep_freed_memory(environment)
