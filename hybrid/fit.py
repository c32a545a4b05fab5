"""The training loop: data in, two branches updated, everything logged, nothing lost."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from data.prefetch import Prefetch
from hybrid.bookkeeping import Bookkeeping
from hybrid.build import Experiment, build
from hybrid.checkpoints import CheckpointError, Checkpoints
from hybrid.clock import Clock
from hybrid.disk import full_disk_explained
from hybrid.evaluation import evaluate
from hybrid.parts import evaluation_loader, evaluation_metrics, start, training_loader
from hybrid.progress import Progress
from hybrid.recovery import examine, kept_to_go_back, last_due
from hybrid.signals import HeldSignals, RunStopped, StopRequested
from hybrid.state import HybridState
from hybrid.step import make_step
from hybrid.summaries import has_examples, write_examples, write_parameters
from hybrid.transfer import transfer
from hybrid.watch import NonFiniteError, StepWatch
from hybrid.workdir import claim, plain
from hybrid.writers import Writer


def fit(
    config: ConfigDict, workdir: str | pathlib.Path, *, allow_config_change: bool = False
) -> HybridState:
    """Trains until `config.num_steps`, from the newest checkpoint in `workdir` if there is one.

    In the main thread SIGTERM and SIGINT wait until the step under way has ended and a checkpoint
    is written; then they go to whoever handled them before. A second one does so at once.

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
        DiskFullError: there is no room for a row or a checkpoint; the last checkpoint is kept.
        RunStopped: by a signal; also a KeyboardInterrupt.
    """
    with jax.enable_x64(config.precision == "float64"):
        experiment = build(config)
        with (
            full_disk_explained(workdir),
            HeldSignals() as signals,
            claim(workdir, config, allow_change=allow_config_change, commit=False) as claimed,
            contextlib.ExitStack() as stack,
        ):
            run = _Fit(experiment, pathlib.Path(workdir), stack, signals)
            # Only now is it known that a run can start, or go on, with this config.
            claimed.commit()
            return run.run()


class _Fit:
    """One process's share of a run: from a checkpoint, or the start, to the end."""

    def __init__(
        self,
        experiment: Experiment,
        workdir: pathlib.Path,
        stack: contextlib.ExitStack,
        signals: HeldSignals,
    ) -> None:
        self.experiment, self.config, self.workdir = experiment, experiment.config, workdir
        self.signals = signals
        self.state, self.optimizers = start(experiment)
        checkpoints = _checkpoints(experiment, workdir)
        self.checkpoints = stack.enter_context(contextlib.closing(checkpoints))
        self.checkpoints.recover()
        self.book, position = Bookkeeping(), None
        resumed = self.checkpoints.latest_step() is not None
        if resumed:
            self.state, extras = self.checkpoints.restore(self.state)
            self.book, position = Bookkeeping.saved(extras["book"]), extras["position"]
            self.book.settle(self.config.early_stop_evals)
            logging.info("resumed %s from step %d", workdir, int(self.state.step))
        elif self.config.init_from:
            self.state, self.book.origin = transfer(experiment, self.state, self.optimizers)
        self.first_step = int(self.state.step)
        # A checkpoint that could not be read must not come back once its rows are gone.
        self.checkpoints.discard_after(self.first_step)
        self.stream = stack.enter_context(Prefetch(training_loader(experiment, position)))
        # Where the batch of the next step lies, whatever has been fetched from the stream.
        self.position = self.stream.position()
        self.valid_loader = evaluation_loader(experiment, "validation")
        self.writer = Writer(workdir, self.first_step)
        stack.callback(self.close_writer)
        self.progress = stack.enter_context(Progress(self.config.num_steps, self.first_step))
        self.step_fn = make_step(experiment.task, *self.optimizers)
        self.watch = StepWatch()
        # A batch that was fetched for a step that is to be taken again, and what lies behind it.
        self.held: tuple[Any, Any, dict[str, Any]] | None = None
        self.copied: set[str] = set()
        # Whether the newest checkpoint lacks something. What was taken from another run is saved
        # before the first step: that run may go on, or be gone when this one is resumed.
        self.unsaved = self.book.origin is not None and not resumed
        source = experiment.source
        self.clock = Clock(source.num_samples / source.sample_rate_hz, self.config.batch_size)

    def run(self) -> HybridState:
        try:
            return self.advance()
        except StopRequested:
            self.finish_step()
            if self.unsaved:
                self.save()
        assert self.signals.pending is not None
        step = self.checkpoints.latest_step()
        where = "the start" if step is None else f"the checkpoint of step {step}"
        message = (
            f"{self.signals.pending.name} stopped {self.workdir}; the same command goes on from "
            f"{where}"
        )
        logging.warning("%s", message)
        raise RunStopped(message)

    def advance(self) -> HybridState:
        config = self.config
        self.write_config(self.first_step)
        if self.unsaved:
            self.save()
        if self.book.evaluation_due:
            self.conclude(self.first_step)
        step = self.first_step
        while step < config.num_steps:
            if self.book.stopped:
                logging.info(
                    "stopped at step %d: no better validation loss in %d evaluations",
                    step,
                    self.book.evals_since_best,
                )
                break
            done = step + 1
            log_due = self.due(done, config.log_every_steps)
            eval_due = self.due(done, config.eval_every_steps)
            save_due = self.due(done, config.checkpoint_every_steps)
            if not self.step(step, drain=log_due or eval_due or save_due):
                step = int(self.state.step)
                continue
            if log_due:
                self.log(step)
            self.book.evaluation_due = eval_due
            self.conclude(done)
            step = done
        return self.state

    def close_writer(self) -> None:
        self.writer.close()

    def write_config(self, step: int) -> None:
        if step == 0:
            text = self.config.to_json(indent=2)
            self.writer.text(0, "config", f"```json\n{text}\n```")

    def due(self, done: int, every: int) -> bool:
        """Whether something that happens every so many steps (0: only at the last) is due."""
        return done == self.config.num_steps or bool(every and done % every == 0)

    def step(self, step: int, *, drain: bool) -> bool:
        """Takes one step; with `drain` also waits for it and checks it.

        Returns:
            Whether it was taken. If not, the run is where its state says, and goes on from there.
        """
        if self.held is None:
            with self.losing_nothing():
                batch, bridge = next(self.stream)
                position = self.stream.position()
        else:
            (batch, bridge, position), self.held = self.held, None
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
                go=self.watch.go,
            )
            self.remember(self.watch.push(step, batch, report))
        except NonFiniteError as error:
            # It was the step before, and this one has changed nothing.
            self.held = batch, bridge, position
            self.recover(error)
            return False
        self.position, self.unsaved = position, True
        if drain:
            self.finish_step()
            if int(self.state.step) != step + 1:
                return False
        self.clock.tick(bridge)
        self.progress.update(step + 1)
        return True

    @contextlib.contextmanager
    def losing_nothing(self) -> Iterator[None]:
        """Saves the run where it stands if what is in the block fails; a signal may end it.

        The block reads data and evaluates: it changes neither the state nor the logs.
        """
        try:
            with self.signals.interruptible():
                yield
        except Exception:  # whatever failed is raised again, once nothing can be lost by it
            self.finish_step()
            if self.unsaved:
                self.save()
            raise

    def finish_step(self) -> None:
        """Waits for the newest step and checks it."""
        try:
            self.remember(self.watch.drain())
        except NonFiniteError as error:
            self.recover(error)

    def recover(self, error: NonFiniteError) -> None:
        """Does what the config wants done about a step that was not finite."""
        physics, learner = self.optimizers
        updates = physics.active(error.step), learner.active(error.step)
        try:
            examine(error, self.experiment, self.state, updates, self.book, self.workdir)
        except NonFiniteError as stop:
            raise self.located(stop) from None
        if self.config.nonfinite.policy == "roll_back":
            self.roll_back()

    def roll_back(self) -> None:
        """Returns to the last checkpoint that was due; the data go on from where they are."""
        now, every = int(self.state.step), self.config.checkpoint_every_steps
        found = last_due(self.checkpoints, self.state, every, now)
        if found is None and self.book.origin:
            raise CheckpointError(
                "a run with config.init_from goes back to a checkpoint, and none in "
                f"{self.workdir} that was due is intact: its own initial values would not be what "
                "it began with"
            )
        if found is None:
            self.state, book = start(self.experiment)[0], Bookkeeping()
        else:
            self.state, book = found[0], Bookkeeping.saved(found[1]["book"])
        book.nonfinite_steps, book.roll_backs = self.book.nonfinite_steps, self.book.roll_backs + 1
        self.book, step = book, int(self.state.step)
        self.checkpoints.discard_after(step)
        self.writer.close()
        self.writer = Writer(self.workdir, step)
        self.write_config(step)
        self.clock.reset()
        logging.warning("%s: back from step %d to step %d", self.workdir, now, step)

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
        row["skipped_rows"] = self.position["skipped_rows"]
        row["nonfinite_steps"] = self.book.nonfinite_steps
        row["roll_backs"] = self.book.roll_backs
        row |= self.clock.lap()
        self.writer.scalars(step + 1, row)
        write_parameters(self.writer, step + 1, self.experiment.physics, self.state.physics.params)
        self.progress.update(step + 1, row)

    def conclude(self, done: int) -> None:
        """Evaluates and saves, as far as this is due after a step."""
        better = self.book.evaluation_due and self.evaluate(done)
        if better or self.book.stopped or self.due(done, self.config.checkpoint_every_steps):
            self.save()

    def evaluate(self, done: int) -> bool:
        """Evaluates and writes the results; returns whether they are the best so far."""
        task, config = self.experiment.task, self.config
        with self.losing_nothing():
            result = evaluate(task, self.state, self.valid_loader)
            shown = [next(iter(self.valid_loader))] if has_examples(task) else []
        self.writer.scalars(done, result, split="validation")
        write_examples(self.writer, done, task, self.state, shown)
        self.progress.evaluated(done, result)
        self.book.plateau(result["loss"], config.early_stop_evals)
        self.book.evaluation_due, self.unsaved = False, True
        self.clock.reset()
        metric = config.checkpoint_best_metric
        if not metric:
            return False
        return self.book.rank(done, result[metric], metric, config.checkpoint_best_mode)

    def save(self) -> None:
        # The logs first: a checkpoint must not know of rows that a power cut could still take.
        self.writer.flush()
        extras = {
            "book": dataclasses.asdict(self.book),
            "position": self.position,
            "config": plain(self.config),
        }
        # Where a run that took over another one's leaves began is needed to say what it learned.
        protected = [0] if self.book.origin else []
        protected += [self.book.best["step"]] if self.book.best else []
        # The one to go back to: others, of a better evaluation or a signal, must not push it out.
        step, every = int(self.state.step), self.config.checkpoint_every_steps
        protected += kept_to_go_back(self.checkpoints, every, step)
        self.checkpoints.save(step, self.state, extras, protected)
        self.unsaved = False


def _checkpoints(experiment: Experiment, workdir: pathlib.Path) -> Checkpoints:
    """The checkpoints of a run, once it is sure that the metric of the best one exists."""
    config = experiment.config
    metric = config.checkpoint_best_metric
    if metric and metric not in (names := evaluation_metrics(experiment)):
        raise ValueError(
            f"config.checkpoint_best_metric must be what an evaluation gives, got {metric!r}; "
            f"there are {', '.join(names)}"
        )
    return Checkpoints(
        workdir / "checkpoints",
        keep=config.keep_checkpoints,
        keep_every=config.checkpoint_keep_every_steps,
    )
