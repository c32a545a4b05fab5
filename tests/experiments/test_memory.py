"""Memory that is freed: kept where it is asked for, left to those who set their own rules."""

import os
import pathlib
import platform
import subprocess
import sys

import pytest
from absl import flags

import hybrid
from experiments import train

ROOT = pathlib.Path(__file__).parents[2]
MAIN = """
import ctypes, resource
from experiments.memory import keep_freed_memory
kept = keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.sbrk.restype = ctypes.c_void_p
"""
# Blocks above 32 MB: smaller ones glibc keeps by itself, once it has seen one.
REPEATED = """
size = 64 << 20
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
# Untouched, so that it costs no page.
HUGE = """
start = libc.sbrk(0)
libc.free(libc.malloc(3 << 30))
print(kept, libc.sbrk(0) - start)
"""
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")


def told(what: str, **environment: str) -> tuple[bool, int]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    ran = subprocess.run(
        [sys.executable, "-c", MAIN + what],
        env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    kept, count = ran.stdout.split()
    return kept == "True", int(count)


@on_glibc
def test_freed_memory_is_not_fetched_again_unless_the_user_has_set_rules():
    kept, few = told(REPEATED)
    left, many = told(REPEATED, MALLOC_TRIM_THRESHOLD_="131072")
    assert (kept, left) == (True, False)
    assert few < many / 10


@on_glibc
def test_blocks_of_gigabytes_are_kept_too():
    kept, bytes_left = told(HUGE)
    assert kept
    assert bytes_left >= 3 << 30


@on_glibc
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MALLOC_ARENA_MAX": "1"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}, False),
        ({"GLIBC_TUNABLES": "glibc.pthread.rseq=1"}, True),
    ],
)
def test_rules_of_the_user_are_left_alone(environment, expected):
    assert told("print(kept, 0)", **environment) == (expected, 0)


@pytest.mark.parametrize("flag", ["--keep_memory", "--nokeep_memory"])
def test_training_keeps_memory_if_it_is_told_to(monkeypatch, flag):
    kept = []
    monkeypatch.setattr(train, "keep_freed_memory", lambda: kept.append(True) or True)
    monkeypatch.setattr(train, "launch_config", dict)
    monkeypatch.setattr(hybrid, "fit", lambda *_, **__: None)
    values = flags.FlagValues()
    flags.DEFINE_bool("keep_memory", False, "", flag_values=values)
    for name in ("init_from", "init_leaves", "workdir"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_bool("allow_config_change", False, "", flag_values=values)
    values(["train", flag])
    monkeypatch.setattr(train.flags, "FLAGS", values)
    train.main(["train"])
    assert kept == [True] * (flag == "--keep_memory")
