"""The training loop: data in, two branches updated, everything logged, nothing lost."""

import contextlib
import dataclasses
import pathlib
import time
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from data.loader import Loader
from data.prefetch import Prefetch
from hybrid.build import Experiment, batch_shapes, build
from hybrid.checkpoints import Checkpoints
from hybrid.evaluation import evaluate
from hybrid.optimizers import BranchOptimizer, build_optimizer
from hybrid.progress import Progress
from hybrid.state import HybridState, init_state
from hybrid.step import make_step
from hybrid.summaries import write_parameters, write_pictures
from hybrid.watch import NonFiniteError, StepWatch
from hybrid.workdir import claim
from hybrid.writers import Writer


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

    def plateau(self, loss: float, patience: int) -> bool:
        """Takes a validation loss; True once `patience` evaluations (0: never) brought nothing."""
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.evals_since_best = loss, 0
        else:
            self.evals_since_best += 1
        self.stopped = bool(patience) and self.evals_since_best >= patience
        return self.stopped


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
        with claim(workdir, config, allow_change=allow_config_change):
            return _fit(experiment, pathlib.Path(workdir))


def _fit(experiment: Experiment, workdir: pathlib.Path) -> HybridState:
    config, task, source = experiment.config, experiment.task, experiment.source
    state, optimizers = start(experiment)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=config.keep_checkpoints)
    book, position = Bookkeeping(), None
    if checkpoints.latest_step() is not None:
        state, extras = checkpoints.restore(state)
        book, position = Bookkeeping(**extras["book"]), extras["position"]
        logging.info("resumed %s from step %d", workdir, int(state.step))
    first_step = int(state.step)

    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        writer = stack.enter_context(contextlib.closing(Writer(workdir, first_step)))
        progress = stack.enter_context(Progress(config.num_steps, first_step))
        stream = stack.enter_context(Prefetch(training_loader(experiment, position)))
        valid_loader = evaluation_loader(experiment, "validation")
        if first_step == 0:
            writer.text(0, "config", f"```json\n{config.to_json(indent=2)}\n```")
        step_fn = make_step(task, *optimizers)
        watch = StepWatch()
        clock = _Clock(source, config.batch_size)

        def save() -> None:
            extras = {"book": dataclasses.asdict(book), "position": stream.position()}
            checkpoints.save(int(state.step), state, extras)

        for step in range(first_step, config.num_steps):
            if book.stopped:
                break
            batch, bridge = next(stream)
            try:
                state, report = step_fn(
                    state,
                    batch,
                    update_physics=optimizers[0].active(step),
                    update_learner=optimizers[1].active(step),
                )
                _remember(book, watch.push(step, batch["ids"], report))
                done = step + 1
                last = done == config.num_steps
                log_due = done % config.log_every_steps == 0 or last
                eval_due = _due(done, config.eval_every_steps) or last
                save_due = _due(done, config.checkpoint_every_steps) or last
                if log_due or eval_due or save_due:
                    _remember(book, watch.drain())
            except NonFiniteError as error:
                kept = checkpoints.latest_step()
                where = "no checkpoint was due yet" if kept is None else f"step {kept} is kept"
                raise NonFiniteError(f"{error}\nCheckpoints in {workdir}: {where}.") from None
            clock.tick(bridge)
            if log_due:
                row = _mean(book.window)
                book.window = []
                row |= {
                    "physics_learning_rate": optimizers[0].learning_rate(step),
                    "learner_learning_rate": optimizers[1].learning_rate(step),
                }
                row |= clock.lap()
                writer.scalars(done, row)
                write_parameters(writer, done, experiment.physics, state.physics.params)
                progress.update(done, row)
            if eval_due:
                result = evaluate(task, state, valid_loader)
                writer.scalars(done, result, split="validation")
                write_pictures(writer, done, task, state.physics.params, valid_loader)
                progress.evaluated(done, result)
                book.plateau(result["loss"], config.early_stop_evals)
                clock.reset()
            if save_due or book.stopped:
                writer.flush()
                save()
    return state


def start(experiment: Experiment) -> tuple[HybridState, tuple[BranchOptimizer, BranchOptimizer]]:
    """Returns the state at step 0 and the optimizers of the (physics, learner) branches."""
    config = experiment.config
    shapes = batch_shapes(experiment.source, config.batch_size)
    key = jax.random.key(config.seed)
    physics_shapes, learner_shapes, _ = jax.eval_shape(experiment.task.init, key, shapes)
    optimizers = []
    for branch, params, anchor in (
        ("physics", physics_shapes, True),
        ("learner", learner_shapes, False),
    ):
        try:
            settings = config[f"{branch}_optimizer"]
            optimizers.append(build_optimizer(settings, params, config.num_steps, anchor=anchor))
        except ValueError as error:
            raise ValueError(f"config.{branch}_optimizer.{error}") from error
    physics_optimizer, learner_optimizer = optimizers
    state = jax.jit(
        lambda key: init_state(
            experiment.task,
            shapes,
            key,
            physics_optimizer.transform,
            learner_optimizer.transform,
        )
    )(key)
    return state, (physics_optimizer, learner_optimizer)


def training_loader(experiment: Experiment, position: dict[str, Any] | None = None) -> Loader:
    """The endless loader of the training split, from `position` on."""
    config = experiment.config
    return Loader(
        experiment.source.dataset("train"),
        batch_size=config.batch_size,
        seed=config.seed,
        num_workers=config.data.num_workers,
        transforms=getattr(experiment.source, "transforms", ()),
        shuffle=True,
        repeat=True,
        position=position,
    )


def evaluation_loader(experiment: Experiment, split: str) -> Loader:
    """A loader that passes once, in order, over a split each time it is iterated."""
    return Loader(
        experiment.source.dataset(split),
        batch_size=experiment.config.batch_size,
        seed=experiment.config.seed,
        num_workers=0,
        shuffle=False,
        repeat=False,
    )


class _Clock:
    """Counts clips, bytes and seconds between two log rows."""

    def __init__(self, source: Any, batch_size: int) -> None:
        self._clip_s = source.num_samples / source.sample_rate_hz
        self._batch_size = batch_size
        self.reset()

    def reset(self) -> None:
        self._start, self._steps, self._aliased, self._copied = time.perf_counter(), 0, 0, 0

    def tick(self, bridge: Any) -> None:
        self._steps += 1
        self._aliased += bridge.aliased_bytes
        self._copied += bridge.copied_bytes

    def lap(self) -> dict[str, float]:
        clips_per_s = self._steps * self._batch_size / (time.perf_counter() - self._start)
        result = {
            "aliased_bytes_per_batch": self._aliased / self._steps,
            "copied_bytes_per_batch": self._copied / self._steps,
            "clips_per_s": clips_per_s,
            "audio_s_per_s": clips_per_s * self._clip_s,
        }
        self.reset()
        return result


def _due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0


def _remember(book: Bookkeeping, scalars: dict[str, float] | None) -> None:
    if scalars is not None:
        book.window.append(scalars)


def _mean(window: list[dict[str, float]]) -> dict[str, float]:
    """Means over the steps that have a value: a branch has norms only where it was updated."""
    names = dict.fromkeys(name for row in window for name in row)
    columns = {name: [row[name] for row in window if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items()}
