"""Answers "which loss?": the same enhancement run with each loss, judged by every metric.

    python -m experiments.enhance_table --config=enhance --workdir=runs/enhance

Trains the config with each of `LOSSES` (resumes it, or finds it finished) and judges the estimates
of the test split beside the noisy input and spectral subtraction. Writes `enhance_table.md`,
`enhance_table.json`, and some of the clips as WAV files in `audio/`.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float, Int
from ml_collections import ConfigDict, config_flags

from experiments.launch import define_kwargs_flags, launch_config, run

LOSSES: Mapping[str, str] = {
    "SI-SDR": "hybrid.losses:SiSdr",
    "multi-resolution STFT": "hybrid.losses:MultiResolutionStft",
    "STRF": "hybrid.losses:StrfLoss",
    "cochlear": "hybrid.losses:CochlearLoss",
}
"""Name and import path of each; all train with the config's own optimizer."""

NOISY, SUBTRACTION = "noisy input", "spectral subtraction"
_COLUMNS = {
    "si_sdr_db": ("SI-SDR", "{:.2f} dB"),
    "si_sdr_improvement_db": ("improvement", "{:.2f} dB"),
    "pesq": ("PESQ", "{:.3f}"),
    "stoi": ("STOI", "{:.4f}"),
    **{name: (f"{name} loss", "{:.4f}") for name in LOSSES if name != "SI-SDR"},
}

Clips = Float[np.ndarray, "clips time"]
Enhancer = Callable[[Clips, Int[np.ndarray, " clips"]], Clips]


@dataclasses.dataclass(frozen=True)
class SplitClips:
    """A split in memory.

    Attributes:
        noisy: what is heard.
        clean: what was said.
        lengths: valid samples.
        names: what the clips are called.
        sample_rate_hz: of all.
    """

    noisy: Clips
    clean: Clips
    lengths: Int[np.ndarray, " clips"]
    names: Sequence[str]
    sample_rate_hz: float | int


def define_flags() -> None:
    """Defines the flags."""
    config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
    flags.DEFINE_string("workdir", None, "Where the runs, the table and the sounds go.")
    flags.DEFINE_list("only", None, "Names of losses; default: all.")
    flags.DEFINE_integer("clips", 6, "How many clips are written as WAV files.", lower_bound=0)
    flags.mark_flags_as_required(["config", "workdir"])
    define_kwargs_flags()


def variant(config: ConfigDict, name: str) -> ConfigDict:
    """The config with another loss."""
    changed = ConfigDict(config.to_dict())
    losses = {_folder(name): {"target": LOSSES[name]}}
    changed.task.kwargs = ConfigDict(config.task.kwargs.to_dict() | {"losses": losses})
    return changed


def compare(
    config: ConfigDict, workdir: pathlib.Path, names: Sequence[str], num_sounds: int = 6
) -> list[dict[str, Any]]:
    """Trains the config with each loss, and judges all on the test split.

    Args:
        config: of an enhancement.
        workdir: each run has a folder in there.
        names: some of `LOSSES`.
        num_sounds: clips that are written as WAV files.

    Returns:
        Rows, those of the noisy input and of spectral subtraction first: `name`, and the columns of
        the table by their names in `_COLUMNS`, as far as they can be computed here.

    Raises:
        ValueError: a name that is none of `LOSSES`, or a config of another task.
    """
    import hybrid
    from experiments.spectral_subtraction import spectral_subtraction
    from hybrid import audio_metrics
    from hybrid.targets import packages
    from hybrid.workdir import write_atomic

    if unknown := [name for name in names if name not in LOSSES]:
        raise ValueError(f"--only takes names of {', '.join(LOSSES)}; got {', '.join(unknown)}")
    if config.task.target != "hybrid.tasks_enhance:Enhancement":
        raise ValueError(
            "the table compares losses of hybrid.tasks_enhance:Enhancement; the config's task is "
            f"{config.task.target}; take --config=enhance"
        )
    # Where data have a rate of their own it is known only later: then of packages alone.
    for reason in audio_metrics.missing(config.data.kwargs.get("sample_rate_hz")).values():
        print(f"left out of the table: {reason}")
    enhancers: dict[str, Enhancer] = {}
    clips = None
    for name in names:
        folder = workdir / _folder(name)
        hybrid.fit(variant(config, name), folder)
        loaded = hybrid.load(folder, trusted=packages(config))
        enhancers[name] = _network(loaded)
        clips = clips or split_clips(loaded)
    if clips is None:
        raise ValueError(f"--only must name one loss or more of {', '.join(LOSSES)}")
    rate_hz = clips.sample_rate_hz

    def subtract(noisy: Clips, lengths: Int[np.ndarray, " clips"]) -> Clips:
        estimate = np.zeros_like(noisy)
        for row, (sound, length) in enumerate(zip(noisy, lengths, strict=True)):
            estimate[row, :length] = spectral_subtraction(sound[:length], rate_hz)
        return estimate

    rows, sounds = [], {"clean": clips.clean[:num_sounds]}
    for name, enhance in {NOISY: lambda n, _: n, SUBTRACTION: subtract, **enhancers}.items():
        estimates = enhance(clips.noisy, clips.lengths)
        rows.append({"name": name} | judge(estimates, clips, config.batch_size))
        sounds[name] = estimates[:num_sounds]
    write_sounds(workdir / "audio", sounds, clips)
    write_atomic(workdir / "enhance_table.json", as_json(rows))
    write_atomic(workdir / "enhance_table.md", table(rows))
    return rows


def split_clips(loaded: Any) -> SplitClips:
    """The clips of the test split that count, in memory."""
    from hybrid.parts import evaluation_loader

    batches = list(evaluation_loader(loaded, "test"))
    stacked = {
        name: np.concatenate([batch[name].numpy() for batch in batches])
        for name in ("audio", "clean", "lengths", "weights", "ids")
    }
    counts = (stacked["weights"] > 0) & (stacked["lengths"] > 0)
    dataset = loaded.source.dataset("test")
    names = [f"clip {index}" for index in stacked["ids"][counts].tolist()]
    if hasattr(dataset, "name"):
        paths = [pathlib.Path(dataset.name(int(index))) for index in stacked["ids"][counts]]
        names = [f"{path.parent.name}_{path.stem}" for path in paths]
    noisy, clean, lengths = (stacked[name][counts] for name in ("audio", "clean", "lengths"))
    return SplitClips(noisy, clean, lengths, names, loaded.source.sample_rate_hz)


def judge(estimates: Clips, clips: SplitClips, batch_size: int) -> dict[str, float]:
    """Means over the clips of every metric that can be computed, and of every loss.

    Args:
        estimates: `[clips, time]`.
        clips: what they are estimates of.
        batch_size: clips that a loss sees at a time.
    """
    import jax
    import jax.numpy as jnp

    from hybrid import audio_metrics
    from hybrid.losses import build_losses, si_sdr_db

    found = audio_metrics.scores(estimates, clips.clean, clips.sample_rate_hz, clips.lengths)
    lengths = jnp.asarray(clips.lengths)
    before = si_sdr_db(jnp.asarray(clips.noisy), jnp.asarray(clips.clean), lengths)
    # Of the clips that the scores are of.
    counted = np.asarray(before)[audio_metrics.audible(clips.clean, clips.lengths)]
    found["si_sdr_improvement_db"] = found["si_sdr_db"] - float(np.mean(counted))
    spec = {name: {"target": target} for name, target in LOSSES.items()}
    parts = jax.jit(build_losses(spec, clips.sample_rate_hz).parts)
    totals = dict.fromkeys(LOSSES, 0.0)
    for start in range(0, len(estimates), batch_size):
        chosen = slice(start, start + batch_size)
        batch = (_rows(x[chosen], batch_size) for x in (estimates, clips.clean, clips.lengths))
        count = len(estimates[chosen])
        for name, value in parts(*batch).items():
            totals[name] += count * float(value)
    return found | {name: total / len(estimates) for name, total in totals.items()}


def write_sounds(folder: pathlib.Path, sounds: Mapping[str, Clips], clips: SplitClips) -> None:
    """Writes clips as WAV files, those of one name at one gain, at which none exceeds full scale.

    Args:
        folder: where to; it is made.
        sounds: the first clips as each method gives them, as many of all.
        clips: whose lengths, names and rate they have.
    """
    import soundfile

    from hybrid.summaries import at_one_gain

    folder.mkdir(parents=True, exist_ok=True)
    for index, given in enumerate(zip(*sounds.values(), strict=True)):
        length = int(clips.lengths[index])
        heard = {name: clip[:length] for name, clip in zip(sounds, given, strict=True)}
        for name, clip in at_one_gain(heard).items():
            path = folder / f"{clips.names[index]}_{_folder(name)}.wav"
            soundfile.write(path, clip, int(clips.sample_rate_hz))


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """The results in JSON, where a figure that is not finite is null."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    kept = [{key: plain(value) for key, value in row.items()} for row in rows]
    return json.dumps(kept, indent=2, allow_nan=False) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The results in Markdown; columns that no row has are left out."""
    columns = {key: column for key, column in _COLUMNS.items() if any(key in row for row in rows)}
    lines = ["| | " + " | ".join(title for title, _ in columns.values()) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for row in rows:
        cells = [text.format(row[key]) if key in row else "" for key, (_, text) in columns.items()]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _network(loaded: Any) -> Enhancer:
    """A trained network, in batches of the run's own size."""
    import jax

    state, task, size = loaded.state, loaded.task, loaded.config.batch_size

    @jax.jit
    def enhanced(batch: Any) -> Any:
        params = state.physics.params, state.learner.params, state.collections
        return task.enhance(*params, batch)[0]

    def enhance(noisy: Clips, lengths: Int[np.ndarray, " clips"]) -> Clips:
        estimates = []
        with jax.enable_x64(loaded.config.precision == "float64"):
            for start in range(0, len(noisy), size):
                chosen = slice(start, start + size)
                batch = {"audio": noisy[chosen], "lengths": lengths[chosen]}
                batch = {name: _rows(array, size) for name, array in batch.items()}
                batch["weights"] = (batch["lengths"] > 0).astype(np.float32)
                estimates.append(np.asarray(enhanced(batch))[: len(noisy[chosen])])
        return np.concatenate(estimates).astype(np.float32)

    return enhance


def _rows(array: np.ndarray, size: int) -> np.ndarray:
    """The array with as many rows, zeros at its end."""
    missing = [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)]
    return np.pad(array, missing)


def _folder(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name).lower()


def main(argv: Sequence[str]) -> None:
    """Compares and prints."""
    if len(argv) > 1:
        raise ValueError(f"enhance_table takes flags only, got {' '.join(argv[1:])}: see --help")
    workdir = pathlib.Path(flags.FLAGS.workdir)
    names = flags.FLAGS.only or list(LOSSES)
    print(table(compare(launch_config(), workdir, names, flags.FLAGS.clips)))
    print(f"written to {workdir / 'enhance_table.md'}")


if __name__ == "__main__":
    define_flags()
    run(main)
