"""Classification metrics as pure functions: jittable, masked by weights, honest about NaN.

Rows of weight 0 (padding of the last batch, skipped clips) never change a result, whatever they
hold. A row whose logits hold a NaN or +inf counts as wrong; -inf is a class that is masked out.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def weighted_sum(
    values: Float[Array, " batch"], weights: Float[Array, " batch"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sums values over the rows that count, ready to be added up over batches.

    Args:
        values: one value a row; what a row of weight 0 holds, NaN included, is ignored.
        weights: weight of each row, >= 0.

    Returns:
        The sum of `weights * values`, and the sum of `weights`, both in the values' dtype.
    """
    weights = weights.astype(values.dtype)
    counted = jnp.where(weights > 0, values, jnp.zeros_like(values))
    return jnp.sum(weights * counted), jnp.sum(weights)


def weighted_mean(
    values: Float[Array, " batch"], weights: Float[Array, " batch"]
) -> Float[Array, ""]:
    """Returns the weighted mean of one value a row; 0 where every weight is 0."""
    total, weight = weighted_sum(values, weights)
    return total / jnp.where(weight > 0, weight, jnp.ones_like(weight))


def hits(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], k: int = 1
) -> Float[Array, " batch"]:
    """Says for each row whether its label is among the `k` largest logits.

    Ties go to the lower class, as in `argmax`. A row that has no softmax (a NaN, +inf, or nothing
    but -inf) is never a hit, and a label outside the classes neither.

    Args:
        logits: a score per class.
        labels: the right class of each row.
        k: how many guesses a row has, 1 to the number of classes.

    Returns:
        1 or 0 a row, in the logits' dtype.

    Raises:
        ValueError: `k` is not in that range.
    """
    num_classes = logits.shape[-1]
    if not 1 <= k <= num_classes:
        raise ValueError(
            f"k must lie in 1..{num_classes}, the number of classes; got {k}. Take fewer guesses, "
            "one at least."
        )
    classes = jnp.arange(num_classes, dtype=labels.dtype)[None, :]
    labels = labels[:, None]
    own = jnp.sum(jnp.where(classes == labels, logits, jnp.zeros_like(logits)), 1, keepdims=True)
    before = (logits > own) | ((logits == own) & (classes < labels))
    rank = jnp.sum(before, axis=1)
    known = (labels[:, 0] >= 0) & (labels[:, 0] < num_classes)
    # The largest of a row is NaN if any of it is.
    sound = jnp.isfinite(jnp.max(logits, axis=1))
    return ((rank < k) & known & sound).astype(logits.dtype)


def top_k(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    k: int,
    weights: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted share of rows whose label is among the `k` largest logits."""
    values = hits(logits, labels, k)
    return weighted_mean(values, jnp.ones_like(values) if weights is None else weights)


def accuracy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    weights: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted share of rows whose label has the largest logit."""
    return top_k(logits, labels, 1, weights)


def confusion(
    labels: Int[Array, " batch"],
    predictions: Int[Array, " batch"],
    num_classes: int,
    weights: Float[Array, " batch"] | None = None,
) -> Float[Array, "classes classes"]:
    """Counts how often each class was taken for each.

    Args:
        labels: the right classes.
        predictions: the guessed classes.
        num_classes: number of classes; a row with a class outside them is left out.
        weights: weight of each row; 1 if None.

    Returns:
        The summed weights, `[label, prediction]`, in the weights' dtype (float32 by default).
    """
    if weights is None:
        weights = jnp.ones(labels.shape, jnp.float32)
    # Negative indices would wrap around; beyond the end they are dropped.
    rows, columns = (jnp.where(x < 0, num_classes, x) for x in (labels, predictions))
    empty = jnp.zeros((num_classes, num_classes), weights.dtype)
    return empty.at[rows, columns].add(weights, mode="drop")


class Reliability(NamedTuple):
    """How confident predictions are and how often they are right, bin by bin of confidence.

    Attributes:
        confidence: mean probability of the predicted class; 0 in an empty bin.
        accuracy: weighted share of the rows that were right; 0 in an empty bin.
        weight: sum of the weights of the rows.
    """

    confidence: Float[Array, " bins"]
    accuracy: Float[Array, " bins"]
    weight: Float[Array, " bins"]


def reliability(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    num_bins: int = 15,
    weights: Float[Array, " batch"] | None = None,
) -> Reliability:
    """Sorts rows into equal bins of confidence, the largest softmax probability.

    Niculescu-Mizil & Caruana, "Predicting good probabilities with supervised learning" (ICML 2005).
    A row on the boundary of two bins belongs to the lower one. A row without a softmax (a NaN or
    +inf) is in the highest bin and wrong, so that it never looks well calibrated.

    Args:
        logits: a score per class.
        labels: the right class of each row.
        num_bins: bins between 0 and 1.
        weights: weight of each row; 1 if None.

    Raises:
        ValueError: less than one bin.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1; got {num_bins}. Take 15, as Guo et al. do.")
    right = hits(logits, labels)
    confidence = jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1)
    confidence = jnp.where(jnp.isnan(confidence), jnp.ones_like(confidence), confidence)
    weights = jnp.ones_like(right) if weights is None else weights.astype(right.dtype)
    bins = jnp.clip(jnp.ceil(confidence * num_bins).astype(jnp.int32) - 1, 0, num_bins - 1)
    member = jax.nn.one_hot(bins, num_bins, dtype=right.dtype, axis=0) * weights[None]
    weight = jnp.sum(member, axis=1)
    some = jnp.where(weight > 0, weight, jnp.ones_like(weight))
    return Reliability((member @ confidence) / some, (member @ right) / some, weight)


def calibration_error(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    num_bins: int = 15,
    weights: Float[Array, " batch"] | None = None,
) -> Float[Array, ""]:
    """Returns the expected calibration error: how far confidence and accuracy lie apart, 0 to 1.

    The mean over bins, by their weight, of |accuracy - confidence|: Guo, Pleiss, Sun & Weinberger,
    "On calibration of modern neural networks" (ICML 2017), equation 3. Arguments as of
    `reliability`; 0 where every weight is 0.
    """
    bins = reliability(logits, labels, num_bins, weights)
    return weighted_mean(jnp.abs(bins.accuracy - bins.confidence), bins.weight)
