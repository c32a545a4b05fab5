"""Exists to time the whole training step of the `keywords` config, ear, network and data.

Without a copy of Speech Commands the clips are noise, in files as long and as many to a batch:
what is computed does not depend on what is said.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def measure_training(
    root: str | None, steps: int, batch_size: int | None = None
) -> dict[str, float]:
    """Trains for some steps, with the ear taking part, as `hybrid.fit` does.

    Args:
        root: folder of Speech Commands as of `config.data.root`; None: noise is written instead.
        steps: that are timed, after two that do not count.
        batch_size: instead of the config's.

    Returns:
        `clips_per_s`, data and bridge included; `step_clips_per_s`, of the median step alone;
        `compile_s`, what the first step took longer; `batch_size`, `sample_rate_hz`.
    """
    from experiments.configs import keywords
    from hybrid.build import build

    config = keywords.get_config()
    config.batch_size = batch_size or config.batch_size
    config.physics_optimizer.start_step = 0
    with tempfile.TemporaryDirectory() as noise_root:
        if root is None:
            write_noise(Path(noise_root), keywords.WORDS, int(config.data.kwargs.sample_rate_hz))
        config.data.root = root or noise_root
        return _time_steps(build(config), steps)


def _time_steps(experiment: Any, steps: int) -> dict[str, float]:
    import jax

    from data.prefetch import Prefetch
    from hybrid.parts import start, training_loader
    from hybrid.step import make_step

    state, optimizers = start(experiment)
    step = make_step(experiment.task, *optimizers)
    both = {"update_physics": True, "update_learner": True}

    def timed_step(state, batch):
        begin = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch, **both))
        return state, time.perf_counter() - begin

    with Prefetch(training_loader(experiment)) as batches:
        batch, _ = next(batches)
        state, first = timed_step(state, batch)
        state, second = timed_step(state, batch)
        begin, before = time.perf_counter(), None
        for batch, _ in itertools.islice(batches, steps):
            # One step is under way while the next batch is fetched, as in `fit`.
            state, report = step(state, batch, **both)
            jax.block_until_ready(before)
            before = report
        jax.block_until_ready(state)
        whole = time.perf_counter() - begin
        alone = []
        for _ in range(min(5, steps)):
            state, took = timed_step(state, batch)
            alone.append(took)
    batch_size = experiment.config.batch_size
    return {
        "clips_per_s": steps * batch_size / whole,
        "step_clips_per_s": batch_size / statistics.median(alone),
        "compile_s": first - second,
        "batch_size": batch_size,
        "sample_rate_hz": experiment.source.sample_rate_hz,
    }


def write_noise(root: Path, words: tuple[str, ...], rate_hz: int, speakers: int = 10) -> None:
    """Writes one second of noise a word and speaker where torchaudio looks for Speech Commands."""
    import soundfile

    folder = root / "SpeechCommands" / "speech_commands_v0.02"
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    names = ["_background_noise_/noise.wav"]
    for word in words:
        spoken = [f"{word}/{speaker:08x}_nohash_0.wav" for speaker in range(speakers)]
        names += spoken
        lists["validation"].append(spoken[0])
        lists["testing"].append(spoken[1])
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, 0.05 * rng.standard_normal(rate_hz), rate_hz)
    for split, listed in lists.items():
        (folder / f"{split}_list.txt").write_text("".join(f"{name}\n" for name in listed))
