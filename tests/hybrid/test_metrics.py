"""Metrics agree with NumPy, ignore rows of weight 0, and never reward a NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid import metrics


def example(seed=0, rows=50, classes=7):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)).astype(np.float32)
    labels = rng.integers(classes, size=rows).astype(np.int32)
    weights = (rng.random(rows) < 0.7).astype(np.float32)
    return tuple(map(jnp.asarray, (logits, labels, weights)))


def test_weighted_mean_and_sum():
    values = jnp.asarray([1.0, 2.0, jnp.nan, 4.0])
    weights = jnp.asarray([1.0, 0.5, 0.0, 1.0])
    total, weight = metrics.weighted_sum(values, weights)
    assert (float(total), float(weight)) == (6.0, 2.5)
    assert float(metrics.weighted_mean(values, weights)) == pytest.approx(2.4)
    assert float(metrics.weighted_mean(values, jnp.zeros(4))) == 0.0


def test_gradient_passes_only_through_rows_that_count():
    weights = jnp.asarray([1.0, 0.0, 1.0])
    gradient = jax.grad(metrics.weighted_mean)(jnp.asarray([1.0, jnp.inf, 2.0]), weights)
    np.testing.assert_array_equal(gradient, [0.5, 0.0, 0.5])


@pytest.mark.parametrize("k", [1, 2, 7])
def test_top_k_agrees_with_sorting(k):
    logits, labels, weights = example()
    order = np.argsort(-np.asarray(logits), axis=1, kind="stable")[:, :k]
    expected = np.average((order == np.asarray(labels)[:, None]).any(1), weights=weights)
    got = jax.jit(metrics.top_k, static_argnums=2)(logits, labels, k, weights)
    assert float(got) == pytest.approx(expected, abs=1e-6)


def test_accuracy_breaks_ties_as_argmax_does():
    logits = np.random.default_rng(1).integers(3, size=(200, 5)).astype(np.float32)
    labels = np.random.default_rng(2).integers(5, size=200).astype(np.int32)
    expected = (logits.argmax(1) == labels).mean()
    got = metrics.accuracy(jnp.asarray(logits), jnp.asarray(labels))
    assert float(got) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_nan_logits_and_unknown_labels_are_never_hits(k):
    logits = jnp.asarray([[jnp.nan] * 4, [9.0, jnp.nan, 0.0, 0.0], [9.0, 0, 0, 0], [9.0, 0, 0, 0]])
    labels = jnp.asarray([0, 1, -1, 4], jnp.int32)
    np.testing.assert_array_equal(metrics.hits(logits, labels, k), jnp.zeros(4))


def test_rows_without_a_softmax_are_wrong_and_masked_classes_are_legitimate():
    inf = jnp.inf
    broken = jnp.asarray([[inf, 0.0, 0.0], [9.0, jnp.nan, 0.0], [0.0, inf, -1.0], [-inf] * 3])
    labels = jnp.zeros(4, jnp.int32)
    for k in (1, 2, 3):
        np.testing.assert_array_equal(metrics.hits(broken, labels, k), jnp.zeros(4))
    error = jax.jit(metrics.calibration_error)
    for row in np.asarray(broken):
        assert float(error(np.stack([row] * 3), labels[:3])) == 1
    masked = jnp.asarray([[0.0, -inf, -inf], [0.0, -inf, -inf], [-inf, 2.0, -inf], [0.0] * 3])
    np.testing.assert_array_equal(metrics.hits(masked, labels), [1.0, 1.0, 0.0, 1.0])
    assert float(error(masked[:3], jnp.asarray([0, 0, 1], jnp.int32))) == 0


def test_k_out_of_range_is_refused():
    logits, labels, _ = example()
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.7.*got 8\. Take fewer"):
        metrics.top_k(logits, labels, 8)


def test_confusion_counts_rows_as_labels():
    logits, labels, weights = example()
    predictions = logits.argmax(1).astype(jnp.int32)
    expected = np.zeros((7, 7), np.float32)
    np.add.at(expected, (labels, predictions), weights)
    got = jax.jit(metrics.confusion, static_argnums=2)(labels, predictions, 7, weights)
    np.testing.assert_array_equal(got, expected)
    assert float(metrics.confusion(labels, predictions, 7).sum()) == 50.0


def test_confusion_leaves_out_what_is_no_class():
    labels = jnp.asarray([0, -1, 2, 1], jnp.int32)
    predictions = jnp.asarray([0, 0, 1, -1], jnp.int32)
    got = metrics.confusion(labels, predictions, 2)
    np.testing.assert_array_equal(got, [[1.0, 0.0], [0.0, 0.0]])


def test_float64(x64):
    logits, labels, weights = example()
    got = metrics.accuracy(logits.astype(jnp.float64), labels, weights)
    assert got.dtype == jnp.float64


def test_reliability_and_calibration_agree_with_numpy():
    logits, labels, weights = example(seed=3, rows=300)
    got = jax.jit(metrics.reliability, static_argnums=2)(logits, labels, 10, weights)
    raw = np.exp(np.asarray(logits, np.float64))
    confidence = (raw / raw.sum(1, keepdims=True)).max(1)
    right = np.asarray(logits).argmax(1) == np.asarray(labels)
    edges, error = np.linspace(0, 1, 11), 0.0
    for i in range(10):
        mine = np.asarray(weights) * ((confidence > edges[i]) & (confidence <= edges[i + 1]))
        assert float(got.weight[i]) == mine.sum()
        if mine.sum():
            expected = np.average(confidence, weights=mine), np.average(right, weights=mine)
            assert (float(got.confidence[i]), float(got.accuracy[i])) == pytest.approx(
                expected, abs=1e-5
            )
            error += mine.sum() * abs(expected[0] - expected[1])
    error /= np.asarray(weights).sum()
    calibration = jax.jit(metrics.calibration_error, static_argnums=2)
    assert float(calibration(logits, labels, 10, weights)) == pytest.approx(error, abs=1e-5)


def test_calibration_of_the_sure_and_of_the_honest():
    error = jax.jit(metrics.calibration_error)
    labels = jnp.asarray([0, 1, 0, 1], jnp.int32)
    sure_and_wrong = jnp.asarray([[-50.0, 50.0], [50.0, -50.0]] * 2)
    assert float(error(sure_and_wrong, labels)) == pytest.approx(1)
    assert float(error(-sure_and_wrong, labels)) == pytest.approx(0)
    # Sure to three quarters, and right three times of four.
    honest = jnp.log(jnp.asarray([[0.75, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.25]]))
    assert float(error(honest, labels)) == pytest.approx(0, abs=1e-6)
    nothing = jnp.asarray([[jnp.nan, 0.0]] * 4)
    assert float(error(nothing, labels)) == 1
    assert float(error(nothing, labels, weights=jnp.zeros(4))) == 0
    with pytest.raises(ValueError, match=r"num_bins must be at least 1; got 0\. Take 15"):
        metrics.reliability(honest, labels, 0)
