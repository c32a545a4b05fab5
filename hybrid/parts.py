"""What a built experiment is run with: its first state, its optimizers and its loaders."""

from typing import Any

import jax

from data.iterable_loader import IterableLoader
from data.loader import Loader
from data.source import holds_items
from hybrid.build import Experiment, batch_shapes
from hybrid.optimizers import BranchOptimizer, build_optimizer
from hybrid.state import HybridState, init_state


def start(experiment: Experiment) -> tuple[HybridState, tuple[BranchOptimizer, BranchOptimizer]]:
    """Returns the state at step 0 and the optimizers of the (physics, learner) branches."""
    config = experiment.config
    shapes = batch_shapes(experiment.source, config.batch_size, config.seed, config.data.timeout_s)
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
    # Batches from torch are committed to their device. A state that is not would become so in the
    # first step, and the second step would be compiled anew for it.
    state = jax.device_put(state, jax.devices()[0])
    return state, (physics_optimizer, learner_optimizer)


def evaluation_metrics(experiment: Experiment) -> list[str]:
    """Names of the scalars that an evaluation of the experiment gives."""
    task, config = experiment.task, experiment.config
    shapes = batch_shapes(experiment.source, config.batch_size, config.seed, config.data.timeout_s)
    parts = jax.eval_shape(task.init, jax.eval_shape(lambda: jax.random.key(0)), shapes)
    _, aux = jax.eval_shape(
        lambda p, q, c, batch: task.loss(p, q, c, batch, None, train=False), *parts, shapes
    )
    return ["loss", *aux["metrics"]]


def training_loader(
    experiment: Experiment, position: dict[str, Any] | None = None
) -> Loader | IterableLoader:
    """The endless loader of the training split, from `position` on."""
    config = experiment.config
    dataset = experiment.source.dataset("train")
    if not holds_items(dataset):
        return IterableLoader(
            dataset, batch_size=config.batch_size, seed=config.seed, position=position
        )
    return Loader(
        dataset,
        batch_size=config.batch_size,
        seed=config.seed,
        num_workers=config.data.num_workers,
        timeout_s=config.data.timeout_s,
        transforms=getattr(experiment.source, "transforms", ()),
        shuffle=True,
        repeat=True,
        position=position,
    )


def evaluation_loader(experiment: Experiment, split: str) -> Loader | IterableLoader:
    """A loader that passes once, in order, over a split each time it is iterated."""
    source = experiment.source
    dataset = getattr(source, "evaluation_dataset", source.dataset)(split)
    options = {"batch_size": experiment.config.batch_size, "seed": experiment.config.seed}
    if not holds_items(dataset):
        return IterableLoader(dataset, repeat=False, **options)
    return Loader(
        dataset,
        num_workers=0,
        shuffle=False,
        repeat=False,
        timeout_s=experiment.config.data.timeout_s,
        **options,
    )
