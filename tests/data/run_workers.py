"""A program with workers of its own, to see from outside what happens to them and by them.

usage: python run_workers.py MODE     (prints JSON; the modes are the functions below)

It is a program because workers import the main module again: what they must never hold (jax), and
data sets that hang, cannot be tried from within pytest's process.
"""

import json
import multiprocessing.forkserver
import os
import pathlib
import signal
import sys
import time

import numpy as np

from data import Loader, LoaderError

STUCK, LACKING = 57, 23


class Clips:
    """100 clips whose labels tell whether the process that made them holds jax."""

    def __init__(self, stuck: bool = False, lacking: bool = False):
        self.stuck, self.lacking = stuck, lacking

    def __len__(self) -> int:
        return 100

    def name(self, index: int) -> str:
        return f"clip {index}"

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if self.stuck and index == STUCK:
            time.sleep(600)
        if self.lacking and index == LACKING:
            raise KeyError(index)
        held = any(name.split(".")[0] in ("jax", "jaxlib", "flax") for name in sys.modules)
        return {
            "audio": np.full(50, index, np.float32),
            "lengths": np.int64(50),
            "labels": np.int64(held),
        }


def make(start_method: str, stuck: bool = False) -> Loader:
    workers = 1 if start_method == "spawn" else 2  # it takes seconds to start one
    options = {"num_workers": workers, "start_method": start_method, "timeout_s": 60}
    return Loader(Clips(stuck), batch_size=10, shuffle=False, **options)


def workers(loader: Loader) -> list[int]:
    return [worker.pid for worker in loader._stream._workers]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists()]


def descriptors() -> int:
    return len(list(pathlib.Path("/proc/self/fd").iterdir()))


def threads() -> int:
    return len(list(pathlib.Path("/proc/self/task").iterdir()))


def modules() -> dict:
    """Do workers hold jax, though the program does? Are they gone after `close`?"""
    import jax  # noqa: F401  # as entry points do: in a function, not when the module is loaded

    result = {}
    for start_method in ("forkserver", "spawn"):
        with make(start_method) as loader:
            batches = [next(loader) for _ in range(12)]
            pids = workers(loader)
        result[start_method] = {
            "labels": [int(label) for batch in batches for label in batch["labels"]],
            "audio": [float(value) for batch in batches for value in batch["audio"][:, 0]],
            "alive": alive(pids),
        }
    return result


def faults() -> dict:
    """What is said of a worker that hangs, one that is killed, and Ctrl-C sent to all of them?"""
    result = {}
    with make("forkserver", stuck=True) as loader:
        next(loader)
        loader._timeout_s = 1  # only now: to start may take long on a busy machine
        try:
            for _ in range(10):
                next(loader)
        except LoaderError as error:
            result["stuck"] = {"message": str(error), "batch": loader.position()["batch"]}
    with Loader(Clips(lacking=True), batch_size=10, shuffle=False, num_workers=1) as loader:
        ids, errors = [], []
        for _ in range(4):
            try:
                ids.append(int(next(loader)["ids"][0]))
            except KeyError as error:
                errors.append(str(error))
        result["lacking"] = {"ids": ids, "errors": errors, "batch": loader.position()["batch"]}
    with make("forkserver") as loader:
        for _ in range(10):
            next(loader)
        before = descriptors(), threads()
        for pid in workers(loader):
            os.kill(pid, signal.SIGINT)
        for _ in range(300):
            next(loader)
        result["interrupted"] = loader.position()
        result["descriptors"] = [before[0], descriptors()]
        result["threads"] = [before[1], threads()]
        os.kill(workers(loader)[0], signal.SIGKILL)
        try:
            for _ in range(10):
                next(loader)
        except LoaderError as error:
            result["killed"] = str(error)
        stopped_at = loader.position()["batch"]
        again = next(loader)  # with new workers
        result["again"] = [stopped_at, float(again["audio"][0, 0])]
    return result


def die() -> dict:
    """Kills this program itself, having told who its children are."""
    loader = make("forkserver")
    next(loader)
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    print(json.dumps([*workers(loader), server]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


if __name__ == "__main__":
    mode = {"modules": modules, "faults": faults, "die": die}[sys.argv[1]]
    print(json.dumps(mode()))
