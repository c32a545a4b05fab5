"""Answers "against what?": the same run with every front end that the field compares.

    python -m experiments.front_ends --config=experiments/configs/tones.py --workdir=runs/front_ends

Trains each (resumes it, or finds it finished) and writes `front_ends.md`: test accuracy and the
time of a training step. `experiments.train` takes any of them by `--config.physics.target` and
`--physics_kwargs`, with the values in `FRONT_ENDS`.
"""

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.launch import define_kwargs_flags, launch_config, run

_COMPOSE = "physics.compose:Compose"
FRONT_ENDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "CAR-FAC": (
        "physics.carfac:Carfac",
        {"hop_s": 0.01, "window_s": 0.02, "compression": "root"},
    ),
    "STFT": ("physics.spectra:Stft", {}),
    "log-mel": ("physics.spectra:LogMel", {"n_mels": 40}),
    "MFCC": ("physics.spectra:Mfcc", {"n_mels": 40, "n_mfcc": 20}),
    "gammatone, power law": (
        _COMPOSE,
        {
            "front": {"target": "physics.filterbanks:Gammatone"},
            "stages": [{"target": "physics.compressors:PowerLaw"}],
        },
    ),
    "SincNet, log": (
        _COMPOSE,
        {
            "front": {"target": "physics.filterbanks:SincNet"},
            "stages": [{"target": "physics.compressors:Log"}],
        },
    ),
    "LEAF (Gabor, PCEN)": (
        _COMPOSE,
        {
            "front": {"target": "physics.filterbanks:Leaf"},
            "stages": [{"target": "physics.compressors:Pcen"}],
        },
    ),
    "biquads, log": (
        _COMPOSE,
        {
            "front": {
                "target": "physics.filters:Biquads",
                "hop_s": 0.01,
                "initial_center_hz": [125, 250, 500, 1000, 2000, 3000],
            },
            "stages": [{"target": "physics.compressors:Log"}],
        },
    ),
    "auditory spectrogram": ("physics.cortex:AuditorySpectrogram", {"hop_s": 0.01}),
    "auditory spectrogram, STRFs": (
        _COMPOSE,
        {
            "front": {"target": "physics.cortex:AuditorySpectrogram", "hop_s": 0.01},
            "stages": [
                {
                    "target": "physics.cortex:Strf",
                    "rates_hz": [4, 8, 16],
                    "scales_cyc_per_oct": [0.5, 2],
                }
            ],
        },
    ),
    "pitchogram": ("physics.pitchogram:Pitchogram", {"sai": {"hop_s": 0.02}}),
}
"""Name, import path and arguments of each; frames every 10 ms (the pitchogram's every 20)."""


def define_flags() -> None:
    """Defines the flags."""
    config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
    flags.DEFINE_string("workdir", None, "Where the runs and the table go.")
    flags.DEFINE_list("only", None, "Names of front ends; default: all.")
    flags.mark_flags_as_required(["config", "workdir"])
    define_kwargs_flags()


def variant(config: ConfigDict, name: str) -> ConfigDict:
    """The config with another front end."""
    changed = ConfigDict(config.to_dict())
    target, kwargs = FRONT_ENDS[name]
    changed.physics.target = target
    changed.physics.kwargs = ConfigDict(kwargs)
    return changed


def compare(
    config: ConfigDict, workdir: pathlib.Path, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Trains and evaluates the config with each front end.

    Returns:
        For each its `name`, test `accuracy`, `step_ms` (median over the logged training rows after
        the first, once the ear learns), `channels` of a frame and how many numbers it `learns`.

    Raises:
        ValueError: a name that is none of `FRONT_ENDS`.
    """
    import jax
    import jax.numpy as jnp

    import hybrid
    from experiments.evaluate import evaluate_split
    from hybrid.targets import packages
    from hybrid.workdir import write_atomic

    if unknown := [name for name in names if name not in FRONT_ENDS]:
        raise ValueError(f"--only takes names of {', '.join(FRONT_ENDS)}; got {', '.join(unknown)}")
    results = []
    for name in names:
        folder = workdir / "".join(c if c.isalnum() else "_" for c in name)
        hybrid.fit(variant(config, name), folder)
        loaded = hybrid.load(folder, trusted=packages(config))
        physics, params = loaded.physics, loaded.state.physics.params
        audio = jnp.zeros((1, 2 * physics.hop_samples))
        frames = jax.eval_shape(lambda a, m=physics, p=params: m.apply(p, a)[0], audio)
        results.append(
            {
                "name": name,
                "accuracy": evaluate_split(loaded, "test")["accuracy"],
                "step_ms": step_ms(loaded.metrics, config),
                "channels": frames.size // frames.shape[1],
                "learns": sum(leaf.size for leaf in jax.tree.leaves(params)),
            }
        )
    workdir.mkdir(parents=True, exist_ok=True)
    write_atomic(workdir / "front_ends.json", json.dumps(results, indent=2) + "\n")
    write_atomic(workdir / "front_ends.md", table(results))
    return results


def step_ms(metrics: Sequence[Mapping[str, Any]], config: ConfigDict) -> float:
    """Median milliseconds of a training step, of the rows in which both branches train."""
    begun = config.physics_optimizer.start_step + config.log_every_steps
    rows = [row for row in metrics if row["split"] == "train" and "clips_per_s" in row]
    late = [row for row in rows if row["step"] > begun] or rows[-1:]
    return statistics.median(1e3 * config.batch_size / row["clips_per_s"] for row in late)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """The results in Markdown."""
    lines = [
        "| front end | test accuracy | step | channels | learned numbers |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {100 * row['accuracy']:.1f} % | {row['step_ms']:.0f} ms "
        f"| {row['channels']} | {row['learns']} |"
        for row in results
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> None:
    """Compares and prints."""
    if len(argv) > 1:
        raise ValueError(f"front_ends takes flags only, got {' '.join(argv[1:])}: see --help")
    workdir = pathlib.Path(flags.FLAGS.workdir)
    names = flags.FLAGS.only or list(FRONT_ENDS)
    print(table(compare(launch_config(), workdir, names)))
    print(f"written to {workdir / 'front_ends.md'}")


if __name__ == "__main__":
    define_flags()
    run(main)
