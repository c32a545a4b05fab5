"""Keeps what a step that was not finite was given, so that it can be looked at again anywhere.

On disk, in WORKDIR/nonfinite/step_000000017/ (format 1; with -2 behind it for a second such batch):

    report.json     the step, what of it was not finite, where it began, in which clips
    batch.npz       the batch
    config.json     the run's
    state/          a checkpoint of the state before the step

`python -m experiments.replay` on that folder takes the step again; the data set is not needed.
"""

import dataclasses
import itertools
import json
import math
import shutil
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from data.foreign import Batches
from hybrid.build import Experiment, build_parts
from hybrid.checkpoints import Checkpoints
from hybrid.config import PARTS, check_config, complete_config
from hybrid.diagnosis import Place, locate
from hybrid.parts import start
from hybrid.state import HybridState
from hybrid.step import make_step
from hybrid.targets import check_targets
from hybrid.watch import Faults, faults_of
from hybrid.workdir import WorkdirError, plain, read_config, write_atomic

FOLDER = "nonfinite"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found about one step.

    Attributes:
        step: which one.
        update_physics: whether the physics was to be updated in it.
        update_learner: whether the learner was.
        faults: what of it was not finite.
        place: where that began.
        clips: the bad rows of the batch: `row`, `id`, and `name` where the data set has names.
        text: all of that, for a person.
    """

    step: int
    update_physics: bool
    update_learner: bool
    faults: Faults
    place: Place
    clips: list[dict[str, Any]]
    text: str


@dataclasses.dataclass(frozen=True)
class SavedBatch:
    """A source of data that has one batch, for a step that is taken again.

    Attributes:
        sample_rate_hz: of the audio.
        num_samples: length of the clips.
        class_names: the name of each label.
        batch: the arrays.
    """

    sample_rate_hz: float
    num_samples: int
    class_names: tuple[str, ...]
    batch: dict[str, np.ndarray] = dataclasses.field(hash=False)

    def dataset(self, split: str) -> Batches:
        """Returns the batch, whatever the split."""
        del split
        return Batches([self.batch])


def find(
    experiment: Experiment,
    state: HybridState,
    batch: dict[str, Any],
    updates: tuple[bool, bool],
    faults: Faults,
    names: list[str | None] | None = None,
) -> Finding:
    """Looks for the origin of a step that was not finite.

    Args:
        experiment: the run's.
        state: from before the step.
        batch: of the step.
        updates: whether physics and learner were to be updated.
        faults: what of the step was not finite.
        names: files of the rows of the batch.
    """
    step = int(state.step)
    try:
        place = locate(experiment.task, state, batch, faults)
    except Exception as error:  # noqa: BLE001  # the search must not hide what it searches for
        logging.warning("the search for the origin failed: %r", error)
        place = Place("nowhere", "forward", f"the search failed ({error!r})", {}, "unknown", [])
    ids = np.asarray(batch["ids"]).tolist()
    clips = [
        {"row": row, "id": ids[row], "name": names[row] if names else None} for row in place.rows
    ]
    lines = [f"a training step must be finite; step {step} was not:", *faults.lines()]
    lines.append(
        f"  first: {place.line(experiment.physics.sample_rate_hz, _hz(experiment, state))}"
    )
    told = [f"row {c['row']}, id {c['id']}" + (f" ({c['name']})" * bool(c["name"])) for c in clips]
    lines.append(f"  clips: {'; '.join(told[:8]) or 'none alone'}" + " ..." * (len(told) > 8))
    lines.append(f"  batch ids: {ids}")
    return Finding(step, *updates, faults, place, clips, "\n".join(lines))


def save(
    workdir: Path, experiment: Experiment, state: HybridState, batch: dict[str, Any], found: Finding
) -> Path:
    """Writes a finding with all that is needed to take its step again; returns its folder.

    Args:
        workdir: of the run.
        experiment: the run's.
        state: from before the step.
        batch: of the step.
        found: about it.
    """
    arrays = {name: np.asarray(value) for name, value in jax.device_get(batch).items()}
    folder = _place(workdir / FOLDER / f"step_{found.step:09d}", arrays)
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    np.savez(partial / "batch.npz", allow_pickle=False, **arrays)
    write_atomic(partial / "config.json", json.dumps(plain(experiment.config), indent=2) + "\n")
    checkpoints = Checkpoints(partial / "state", keep=1)
    try:
        checkpoints.save(found.step, state, {})
    finally:
        checkpoints.close()
    source = experiment.source
    report = {
        "format": FORMAT,
        **dataclasses.asdict(found),
        "sample_rate_hz": float(source.sample_rate_hz),
        "num_samples": int(source.num_samples),
        "class_names": list(source.class_names),
    }
    loss = report["faults"]["loss"]
    report["faults"]["loss"] = loss if math.isfinite(loss) else str(loss)
    write_atomic(partial / "report.json", json.dumps(report, indent=1) + "\n")
    replaced = folder.with_name(f".replaced-{folder.name}")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    return folder


def _place(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Where a batch goes: a run that went back may meet another one at the same step."""
    for count in itertools.count(2):
        if not folder.exists() or _holds(folder, arrays):
            return folder
        folder = folder.with_name(f"{folder.name.partition('-')[0]}-{count}")
    raise AssertionError


def _holds(folder: Path, arrays: dict[str, np.ndarray]) -> bool:
    try:
        with np.load(folder / "batch.npz", allow_pickle=False) as saved:
            return set(saved) == set(arrays) and all(
                saved[name].tobytes() == array.tobytes() for name, array in arrays.items()
            )
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def replay(folder: str | Path, trusted: Collection[str] = ()) -> tuple[Finding, Finding]:
    """Takes a saved step again and looks for its origin again.

    Args:
        folder: what `save` wrote; the data set is not needed.
        trusted: see `hybrid.load`.

    Returns:
        What was found then, and what was found now.

    Raises:
        WorkdirError: no finding there.
        BuildError: it names code that is not trusted, or does not fit.
    """
    folder = Path(folder)
    saved, facts = _read(folder)
    config = complete_config(ConfigDict(read_config(folder)))
    check_config(config)
    check_targets(config, trusted, parts=[part for part in PARTS if part != "data"])
    with np.load(folder / "batch.npz", allow_pickle=False) as saved_arrays:
        batch = dict(saved_arrays)
    with jax.enable_x64(config.precision == "float64"):
        source = SavedBatch(
            float(facts["sample_rate_hz"]),
            int(facts["num_samples"]),
            tuple(facts["class_names"]),
            batch,
        )
        experiment = build_parts(config, source)
        state, optimizers = start(experiment)
        checkpoints = Checkpoints(folder / "state", keep=1)
        try:
            state, _ = checkpoints.restore(state, saved.step)
        finally:
            checkpoints.close()
        arrays = {name: jnp.asarray(value) for name, value in batch.items()}
        step = make_step(experiment.task, *optimizers)
        updates = saved.update_physics, saved.update_learner
        # The step takes its state for good; the search needs it afterwards.
        _, report = step(jax.tree.map(jnp.copy, state), arrays, *updates)
        names = {clip["row"]: clip["name"] for clip in saved.clips}
        rows = [names.get(row) for row in range(len(batch["ids"]))]
        return saved, find(experiment, state, arrays, updates, faults_of(report), rows)


def _read(folder: Path) -> tuple[Finding, dict[str, Any]]:
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["format"] != FORMAT:
            raise WorkdirError(
                f"{path} has format {report['format']}, this release reads {FORMAT}: install the "
                "one that wrote it"
            )
        faults = Faults(**(report["faults"] | {"loss": float(report["faults"]["loss"])}))
        place = Place(**report["place"])
        fields = {name: report[name] for name in ("step", "update_physics", "update_learner")}
        return Finding(
            **fields, faults=faults, place=place, clips=report["clips"], text=report["text"]
        ), report
    except FileNotFoundError as error:
        raise WorkdirError(
            f"{folder} must be what a step that was not finite left behind, "
            f"WORKDIR/{FOLDER}/step_N; it has no report.json"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise WorkdirError(f"{path} is damaged ({error!r}): take another finding") from error


def _hz(experiment: Experiment, state: HybridState) -> Any:
    """Frequencies of the channels [channels], where they are known and the same for all ears."""
    ask = getattr(experiment.physics, "channel_frequencies_hz", None)
    try:
        found = None if ask is None else ask(state.physics.params)
    except Exception:  # noqa: BLE001  # of parameters that are not finite, say
        return None
    if found is None:
        return None
    return np.asarray(found).reshape(-1, np.shape(found)[-1])[0]
