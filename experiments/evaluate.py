"""Evaluates a run on a split: a table to read, `evaluate_SPLIT.json` and `confusion_SPLIT.png`.

    python -m experiments.evaluate --workdir=runs/tones [--split=test] [--checkpoint=best]

The newest intact checkpoint is used by default; a run that is still training is left undisturbed.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments.launch import define_trust_flag, run

SPLITS = ("train", "validation", "test")


def define_flags() -> None:
    """Defines the flags; not on import, so that other commands may use this module."""
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_enum("split", "test", SPLITS, "What to evaluate on.")
    flags.DEFINE_string("data_root", None, "Where the data lie, if not where the run had them.")
    flags.DEFINE_bool(
        "initial_physics", False, "Put the physics that the run started from back first."
    )
    flags.DEFINE_string(
        "checkpoint",
        "latest",
        "Which: `latest`, `best` by the run's config.checkpoint_best_metric, or a number of steps.",
    )
    define_trust_flag()


def main(argv: Sequence[str]) -> None:
    """Evaluates, prints and saves; JAX is imported here, for data workers re-import this file."""
    import hybrid

    if len(argv) > 1:
        raise ValueError(f"evaluate takes flags only, got {' '.join(argv[1:])}: see --help")
    values = flags.FLAGS
    step = int(values.checkpoint) if values.checkpoint.isdecimal() else values.checkpoint
    loaded = hybrid.load(values.workdir, step, values.data_root, values.trust)
    state = hybrid.with_initial_physics(loaded) if values.initial_physics else None
    result = evaluate_split(loaded, values.split, state)
    print_result(result)
    if state is not None:
        print("These are the results with the initial physics put back; no file was written.")
        return
    for path in write_result(result, values.workdir):
        print(path)


def evaluate_split(loaded: Any, split: str, state: Any = None) -> dict[str, Any]:
    """Evaluates a loaded run on one split.

    Args:
        loaded: a `hybrid.Run`.
        split: "train", "validation" or "test".
        state: another `hybrid.HybridState` than the run's own.

    Returns:
        `split`, `step`, `class_names`, and what `hybrid.evaluate` returns.
    """
    import hybrid
    from hybrid.parts import evaluation_loader

    class_names = list(loaded.source.class_names)
    loader = evaluation_loader(loaded, split)
    state = loaded.state if state is None else state
    result = hybrid.evaluate(loaded.task, state, loader, len(class_names))
    return {"split": split, "step": int(state.step), "class_names": class_names} | result


def write_result(result: dict[str, Any], workdir: str | Path) -> list[Path]:
    """Writes `evaluate_SPLIT.json` and, for a classification, `confusion_SPLIT.png`.

    Args:
        result: as `evaluate_split` returns it.
        workdir: where to.

    Returns:
        The files written.
    """
    from experiments import plots
    from hybrid.workdir import write_atomic

    split = result["split"]
    paths = [Path(workdir) / f"evaluate_{split}.json"]
    write_atomic(paths[0], json.dumps(result, indent=2) + "\n")
    if is_counted(result):
        figure = plots.confusion_matrix(result["confusion"], result["class_names"])
        paths.append(plots.save(figure, Path(workdir) / f"confusion_{split}.png"))
    return paths


def print_result(result: dict[str, Any], console: Any = None) -> None:
    """Prints metrics, and for a classification how each class fared.

    Args:
        result: as `evaluate_split` returns it.
        console: a `rich.console.Console`; standard output by default.
    """
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    title = f"{result['split']} split, {result['num_examples']} clips, step {result['step']}"
    if is_counted(result):
        table = Table("class", title=title)
        for name in ("clips", "right", "precision"):
            table.add_column(name, justify="right")
        table.add_column("most often taken for")
        for row in class_rows(result["confusion"], result["class_names"]):
            table.add_row(*row)
        console.print(table)
    else:
        console.print(title, highlight=False)
    for name, value in result.items():
        if name == "accuracy":
            console.print(f"accuracy {100 * value:.2f} %", highlight=False)
        elif isinstance(value, float):
            console.print(f"{name} {value:.4g}", highlight=False)


def class_rows(confusion: list[list[int]], class_names: list[str]) -> list[tuple[str, ...]]:
    """Returns a row of texts for each class: name, clips, recall, precision, worst confusion."""
    rows = []
    for index, name in enumerate(class_names):
        clips, right = sum(confusion[index]), confusion[index][index]
        taken = sum(row[index] for row in confusion)
        wrong = [(count, k) for k, count in enumerate(confusion[index]) if k != index]
        count, other = max(wrong, key=lambda pair: pair[0], default=(0, 0))
        worst = f"{class_names[other]} ({count})" if count else ""
        rows.append((name, str(clips), _percent(right, clips), _percent(right, taken), worst))
    return rows


def is_counted(result: dict[str, Any]) -> bool:
    """Whether the task predicted classes, so that the confusion matrix counts them."""
    return any(map(any, result.get("confusion", [])))


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def app() -> None:
    """Console script `hybrid-evaluate`."""
    define_flags()
    run(main)


if __name__ == "__main__":
    app()
