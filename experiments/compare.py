"""Answers "does learning the ear help?": the same run with the physics frozen and learned.

    python -m experiments.compare --config=experiments/configs/tones.py --workdir=runs/demo

Trains both (resumes them, or finds them finished), evaluates them on the test split, puts the
initial physics back into the trained model, and writes `results.json` and pictures.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.launch import define_kwargs_flags, launch_config, run

# Not num_steps: more steps must not make another config of it.
NEVER = 2**31 - 1
PUT_BACK = "learned, initial physics put back"


def define_flags() -> None:
    """Defines the flags."""
    config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
    flags.DEFINE_string("workdir", None, "Where both runs and the results go.")
    flags.mark_flags_as_required(["config", "workdir"])
    define_kwargs_flags()


def variants(config: ConfigDict) -> dict[str, ConfigDict]:
    """Returns the config with every physical parameter frozen ("frozen") and as it is ("learned").

    A branch that never starts costs no gradient.
    """
    frozen = ConfigDict(config.to_dict())
    frozen.physics_optimizer.start_step = NEVER
    return {"frozen": frozen, "learned": ConfigDict(config.to_dict())}


def compare(config: ConfigDict, workdir: pathlib.Path) -> dict[str, Any]:
    """Trains both variants below `workdir`, evaluates and draws them.

    Returns:
        `runs` (test results by name), `moved` (rows of `hybrid.moved_parameters`) and `total_s`.
    """
    import hybrid
    from experiments.evaluate import evaluate_split
    from hybrid.targets import packages

    started = time.perf_counter()
    results: dict[str, Any] = {"runs": {}}
    runs = {}
    for name, variant in variants(config).items():
        hybrid.fit(variant, workdir / name)
        runs[name] = hybrid.load(workdir / name, trusted=packages(config))
        results["runs"][name] = evaluate_split(runs[name], "test")
    learned = runs["learned"]
    results["runs"][PUT_BACK] = evaluate_split(
        learned, "test", state=hybrid.with_initial_physics(learned)
    )
    results["moved"] = hybrid.moved_parameters(learned)
    results["total_s"] = time.perf_counter() - started
    _draw(runs, results, workdir)
    return results


def _draw(runs: dict[str, Any], results: dict[str, Any], workdir: pathlib.Path) -> None:
    import jax
    import numpy as np

    from data.bridge import to_jax
    from experiments import plots
    from hybrid.inspection import physical_values
    from hybrid.parts import evaluation_loader
    from hybrid.summaries import task_features
    from hybrid.workdir import write_atomic

    write_atomic(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    plots.save(
        plots.training_curves({name: run_.metrics for name, run_ in runs.items()}),
        workdir / "training.png",
    )
    learned = runs["learned"]
    test = results["runs"]["learned"]
    if "confusion" in test:
        figure = plots.confusion_matrix(test["confusion"], test["class_names"])
        plots.save(figure, workdir / "confusion.png")
    physics, params = learned.physics, learned.state.physics.params
    frequencies_hz = None
    if hasattr(physics, "channel_frequencies_hz"):
        frequencies_hz = physics.channel_frequencies_hz(params)
    if frequencies_hz is not None:
        frequencies_hz = np.asarray(frequencies_hz).reshape(-1)
    figure = plots.parameter_movement(*physical_values(learned), physics.specs(), frequencies_hz)
    plots.save(figure, workdir / "parameters.png")
    if hasattr(learned.task, "features"):
        batch, _ = to_jax(next(iter(evaluation_loader(learned, "test"))))
        with jax.enable_x64(learned.config.precision == "float64"):
            features, mask = jax.device_get(task_features(learned.task, params, batch))
        clip = features[0][mask[0]]
        hop_s = physics.hop_samples / physics.sample_rate_hz
        fits = frequencies_hz is not None and len(frequencies_hz) == clip.shape[1]
        figure = plots.cochleagram(clip, hop_s, frequencies_hz if fits else None)
        plots.save(figure, workdir / "cochleagram.png")


def print_results(results: dict[str, Any], workdir: pathlib.Path) -> None:
    """Prints the accuracies, and which physical parameters moved and by how much."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("run", title="test split")
    for name in ("accuracy", "loss", "clips"):
        table.add_column(name, justify="right")
    for name, test in results["runs"].items():
        accuracy = f"{100 * test['accuracy']:.2f} %" if "accuracy" in test else ""
        title = f"physics {name}" if name != PUT_BACK else name
        table.add_row(title, accuracy, f"{test['loss']:.4f}", str(test["num_examples"]))
    console.print(table)
    table = Table(title="physical parameters that moved, most first")
    table.add_column("parameter", no_wrap=True)
    table.add_column("unit")
    for name in ("values", "start", "learned", "most"):
        table.add_column(name, justify="right")
    for row in results["moved"]:
        values = (row["count"], row["initial"], row["learned"], row["change"])
        table.add_row(row["name"], row["unit"], *(f"{value:.3g}" for value in values))
    console.print(table)
    console.print(f"{results['total_s']:.0f} s in all. Results and pictures: {workdir}")


def main(argv: Sequence[str]) -> None:
    """Compares and prints."""
    if len(argv) > 1:
        raise ValueError(f"compare takes flags only, got {' '.join(argv[1:])}: see --help")
    workdir = pathlib.Path(flags.FLAGS.workdir)
    print_results(compare(launch_config(), workdir), workdir)


if __name__ == "__main__":
    define_flags()
    run(main)
