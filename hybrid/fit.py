"""The training loop: data in, two branches updated, everything logged, nothing lost."""

import contextlib
import dataclasses
import math
import pathlib
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from data.audio_files import AudioFileError
from data.loader import LoaderError
from data.prefetch import Prefetch
from hybrid.build import Experiment, build
from hybrid.checkpoints import Checkpoints
from hybrid.clock import Clock
from hybrid.evaluation import evaluate
from hybrid.parts import evaluation_loader, start, training_loader
from hybrid.progress import Progress
from hybrid.state import HybridState
from hybrid.step import make_step
from hybrid.summaries import write_parameters, write_pictures
from hybrid.watch import NonFiniteError, StepWatch
from hybrid.workdir import claim, plain
from hybrid.writers import Writer


def fit(
    config: ConfigDict, workdir: str | pathlib.Path, *, allow_config_change: bool = False
) -> HybridState:
    """Trains until `config.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Args:
        config: as `hybrid.config.default_config`, filled in.
        workdir: where checkpoints, `metrics.jsonl` and TensorBoard files go.
        allow_config_change: continue a run although its config differs from the one it had.

    Returns:
        The state after the last step.

    Raises:
        BuildError: the parts of the config do not fit.
        WorkdirConflict: the directory holds a run of another config, or another process runs in it.
        NonFiniteError: a loss or gradient was not finite; the last checkpoint is kept.
    """
    with jax.enable_x64(config.precision == "float64"):
        experiment = build(config)
        with (
            claim(workdir, config, allow_change=allow_config_change, commit=False) as claimed,
            contextlib.ExitStack() as stack,
        ):
            run = _Fit(experiment, pathlib.Path(workdir), stack)
            # Only now is it known that a run can start, or go on, with this config.
            claimed.commit()
            return run.run()


@dataclasses.dataclass
class Bookkeeping:
    """What the loop remembers beside the state; saved with it as JSON.

    Attributes:
        window: scalars of the steps since the last log row.
        best_loss: lowest validation loss so far, if any.
        evals_since_best: evaluations since then.
        stopped: whether the run ended early on a plateau.
    """

    window: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best_loss: float | None = None
    evals_since_best: int = 0
    stopped: bool = False

    def plateau(self, loss: float, patience: int) -> None:
        """Takes a validation loss; stops once `patience` evaluations (0: never) brought nothing."""
        if math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss):
            self.best_loss, self.evals_since_best = loss, 0
        else:
            self.evals_since_best += 1
        self.settle(patience)

    def settle(self, patience: int) -> None:
        """Works out `stopped` for the patience of today, which may differ from yesterday's."""
        self.stopped = bool(patience) and self.evals_since_best >= patience

    def take_window(self) -> dict[str, float]:
        """Empties the window; returns means over the steps that have a value.

        A branch has norms only at the steps that updated it.
        """
        names = dict.fromkeys(name for row in self.window for name in row)
        columns = {name: [row[name] for row in self.window if name in row] for name in names}
        self.window = []
        return {name: sum(values) / len(values) for name, values in columns.items()}


class _Fit:
    """One process's share of a run: from a checkpoint, or the start, to the end."""

    def __init__(
        self, experiment: Experiment, workdir: pathlib.Path, stack: contextlib.ExitStack
    ) -> None:
        self.experiment, self.config, self.workdir = experiment, experiment.config, workdir
        self.state, self.optimizers = start(experiment)
        keep = self.config.keep_checkpoints
        self.checkpoints = stack.enter_context(
            contextlib.closing(Checkpoints(workdir / "checkpoints", keep=keep))
        )
        self.book, position = Bookkeeping(), None
        if self.checkpoints.latest_step() is not None:
            self.state, extras = self.checkpoints.restore(self.state)
            self.book, position = Bookkeeping(**extras["book"]), extras["position"]
            self.book.settle(self.config.early_stop_evals)
            logging.info("resumed %s from step %d", workdir, int(self.state.step))
        self.first_step = int(self.state.step)
        # A checkpoint that could not be read must not come back once its rows are gone.
        self.checkpoints.discard_after(self.first_step)
        self.stream = stack.enter_context(Prefetch(training_loader(experiment, position)))
        self.valid_loader = evaluation_loader(experiment, "validation")
        self.writer = stack.enter_context(contextlib.closing(Writer(workdir, self.first_step)))
        self.progress = stack.enter_context(Progress(self.config.num_steps, self.first_step))
        self.step_fn = make_step(experiment.task, *self.optimizers)
        self.watch = StepWatch()
        self.copied: set[str] = set()
        source = experiment.source
        self.clock = Clock(source.num_samples / source.sample_rate_hz, self.config.batch_size)

    def run(self) -> HybridState:
        config = self.config
        if self.first_step == 0:
            text = config.to_json(indent=2)
            self.writer.text(0, "config", f"```json\n{text}\n```")
        for step in range(self.first_step, config.num_steps):
            if self.book.stopped:
                logging.info(
                    "stopped at step %d: no better validation loss in %d evaluations",
                    step,
                    self.book.evals_since_best,
                )
                break
            done = step + 1
            last = done == config.num_steps
            log_due, eval_due, save_due = (
                last or bool(every and done % every == 0)
                for every in (
                    config.log_every_steps,
                    config.eval_every_steps,
                    config.checkpoint_every_steps,
                )
            )
            self.step(step, drain=log_due or eval_due or save_due)
            if log_due:
                self.log(step)
            if eval_due:
                self.evaluate(done)
            if save_due or self.book.stopped:
                self.save()
        return self.state

    def step(self, step: int, *, drain: bool) -> None:
        """Takes one step; with `drain` also waits for it and checks it."""
        try:
            batch, bridge = next(self.stream)
        except (AudioFileError, LoaderError, KeyboardInterrupt):
            # The state is good and the position is that of its last batch: nothing is lost.
            self.finish_step()
            self.save()
            raise
        for name, reason in bridge.reasons.items():
            if name not in self.copied:
                logging.warning("each batch's %r is copied on its way to JAX: %s", name, reason)
        self.copied |= set(bridge.reasons)
        physics, learner = self.optimizers
        try:
            self.state, report = self.step_fn(
                self.state,
                batch,
                update_physics=physics.active(step),
                update_learner=learner.active(step),
            )
            self.remember(self.watch.push(step, batch["ids"], report))
        except NonFiniteError as error:
            raise self.located(error) from None
        if drain:
            self.finish_step()
        self.clock.tick(bridge)
        self.progress.update(step + 1)

    def finish_step(self) -> None:
        """Waits for the newest step and checks it."""
        try:
            self.remember(self.watch.drain())
        except NonFiniteError as error:
            raise self.located(error) from None

    def remember(self, scalars: dict[str, float] | None) -> None:
        if scalars is not None:
            self.book.window.append(scalars)

    def located(self, error: NonFiniteError) -> NonFiniteError:
        kept = self.checkpoints.latest_step()
        where = "none was due yet" if kept is None else f"step {kept} is the last good one"
        return NonFiniteError(f"{error}\nCheckpoints in {self.workdir}: {where}.")

    def log(self, step: int) -> None:
        physics, learner = self.optimizers
        row: dict[str, Any] = self.book.take_window()
        row["physics_learning_rate"] = physics.learning_rate(step)
        row["learner_learning_rate"] = learner.learning_rate(step)
        row["skipped_rows"] = self.stream.position()["skipped_rows"]
        row |= self.clock.lap()
        self.writer.scalars(step + 1, row)
        write_parameters(self.writer, step + 1, self.experiment.physics, self.state.physics.params)
        self.progress.update(step + 1, row)

    def evaluate(self, done: int) -> None:
        task = self.experiment.task
        result = evaluate(task, self.state, self.valid_loader)
        self.writer.scalars(done, result, split="validation")
        write_pictures(self.writer, done, task, self.state.physics.params, self.valid_loader)
        self.progress.evaluated(done, result)
        self.book.plateau(result["loss"], self.config.early_stop_evals)
        self.clock.reset()

    def save(self) -> None:
        # The logs first: a checkpoint must not know of rows that a power cut could still take.
        self.writer.flush()
        extras = {
            "book": dataclasses.asdict(self.book),
            "position": self.stream.position(),
            "config": plain(self.config),
        }
        self.checkpoints.save(int(self.state.step), self.state, extras)
