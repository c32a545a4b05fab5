"""Evaluation: a task over one pass of a split, averaged by the weights of its rows."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from data.bridge import to_jax
from hybrid import metrics
from hybrid.state import HybridState

Tree = Any


@functools.partial(jax.jit, static_argnames="task")
def eval_step(
    task: Any, physics_params: Tree, learner_params: Tree, collections: Tree, batch: Any
) -> tuple[jax.Array, dict[str, Any]]:
    """Loss and `aux` of one batch without training; compiled once a task and batch shape."""
    loss, aux = task.loss(physics_params, learner_params, collections, batch, None, train=False)
    weight = aux.get("weight", jnp.sum(batch["weights"]))
    return loss, {
        "metrics": aux["metrics"],
        "weight": weight,
        "outputs": aux.get("outputs", {}),
    }


def evaluate(
    task: Any, state: HybridState, batches: Iterable[Any], num_classes: int | None = None
) -> dict[str, Any]:
    """Runs a task over all batches.

    Args:
        task: a `hybrid.tasks.Task`.
        state: whose parameters to use.
        batches: dicts of torch tensors, the last padded by rows of weight 0.
        num_classes: if given and the task outputs `predictions`, a confusion matrix is counted;
            of `logits` for whole clips, how far confidence can be trusted, and of more than three
            classes, how often the right one is among the three first. Labels outside the classes
            are in no cell of the matrix, and count as wrong elsewhere.

    Returns:
        `loss`, each metric, `calibration_error`, `top_3_accuracy`, `num_examples` (the sum of the
        weights), `num_skipped` (bad files), and `confusion` (nested lists of summed weights, rows
        are the labels).

    Raises:
        ValueError: no batch, or none with a row that counts.
    """
    totals: dict[str, float] = {}
    num_examples, num_skipped = 0.0, 0
    confusion = np.zeros((num_classes or 0,) * 2, np.float64)
    answers: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    double = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(state.learner.params))
    with jax.enable_x64(double):
        for torch_batch in batches:
            batch, _ = to_jax(torch_batch)
            loss, aux = eval_step(
                task, state.physics.params, state.learner.params, state.collections, batch
            )
            weight = float(aux["weight"])
            num_examples += weight
            # Padding rows have no id; a file that was skipped keeps its own.
            ignored = np.asarray(batch["weights"]) <= 0
            num_skipped += int(np.sum(ignored & (np.asarray(batch["ids"]) >= 0)))
            for name, value in {"loss": loss, **aux["metrics"]}.items():
                # A batch of weight 0 has no mean; it must not turn the totals into NaN.
                totals[name] = totals.get(name, 0.0) + (weight * float(value) if weight else 0.0)
            if num_classes and "predictions" in aux["outputs"]:
                weights, labels = (np.asarray(batch[name]) for name in ("weights", "labels"))
                predictions = aux["outputs"]["predictions"]
                given = batch["labels"], predictions, batch["weights"]
                confusion += np.asarray(_confusion(*given, num_classes))
                logits = np.asarray(aux["outputs"].get("logits", 0.0))
                if logits.ndim == 2:
                    answers.append((logits, labels, weights))
    if not num_examples:
        raise ValueError(
            "evaluation needs at least one row of weight > 0, got none: is the split empty, or "
            "were all of its files skipped?"
        )
    result: dict[str, Any] = {name: total / num_examples for name, total in totals.items()}
    if answers:
        with jax.enable_x64(double):
            logits, labels, weights = (
                jnp.asarray(np.concatenate(x)) for x in zip(*answers, strict=True)
            )
            error = metrics.calibration_error(logits, labels, weights=weights)
            result["calibration_error"] = float(error)
            if logits.shape[1] > 3:
                result["top_3_accuracy"] = float(metrics.top_k(logits, labels, 3, weights))
    result["num_examples"] = _count(num_examples)
    result["num_skipped"] = num_skipped
    if num_classes:
        result["confusion"] = [[_count(cell) for cell in row] for row in confusion.tolist()]
    return result


@functools.partial(jax.jit, static_argnames="num_classes")
def _confusion(
    labels: Int[Array, "batch *axes"],
    predictions: Int[Array, "batch *axes"],
    weights: Float[Array, " batch"],
    num_classes: int,
) -> Float[Array, "classes classes"]:
    """Of clips, or of frames, which have the weight of their clip."""
    axes = (1,) * (labels.ndim - 1)
    weights = jnp.broadcast_to(weights.reshape(-1, *axes), labels.shape)
    return metrics.confusion(labels.ravel(), predictions.ravel(), num_classes, weights.ravel())


def _count(total: float) -> float | int:
    """A sum of weights, whole where it is whole: weights are rarely anything but 0 and 1."""
    return int(total) if total.is_integer() else total
