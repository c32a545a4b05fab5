"""What an evaluation says of a classification beside its loss, over batches with ignored rows."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import hybrid
from hybrid import metrics


@dataclasses.dataclass(frozen=True)
class Told:
    """A task whose answers are in the batch."""

    def loss(self, physics_params, learner_params, collections, batch, key, train):
        del physics_params, learner_params, key, train
        logits = batch["logits"]
        outputs = {"logits": logits, "predictions": jnp.argmax(logits, axis=-1)}
        aux = {"metrics": {}, "collections": collections, "outputs": outputs}
        return jnp.mean(batch["weights"]), aux


@pytest.fixture
def state(key):
    branch = hybrid.Branch({}, ())
    return hybrid.HybridState(jnp.zeros((), jnp.int32), key, branch, branch, {})


def batches(logits, labels, weights):
    for i in range(0, len(logits), 4):
        part = slice(i, i + 4)
        yield {
            "logits": torch.from_numpy(logits[part]),
            "labels": torch.from_numpy(labels[part]),
            "weights": torch.from_numpy(weights[part]),
            "ids": torch.arange(i, i + 4, dtype=torch.int32),
        }


@pytest.mark.parametrize("classes", [3, 5])
def test_trust_in_confidence_and_near_misses(state, classes):
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((8, classes)).astype(np.float32)
    labels = rng.integers(classes, size=8).astype(np.int32)
    weights = np.array([1, 0.25, 1, 1, 0.5, 0, 1, 0], np.float32)
    logits[5] = np.nan  # of weight 0: nobody's business
    result = hybrid.evaluate(Told(), state, batches(logits, labels, weights), classes)
    counted = weights > 0
    arguments = jnp.asarray(logits[counted]), jnp.asarray(labels[counted])
    given = jnp.asarray(weights[counted])
    expected = float(metrics.calibration_error(*arguments, weights=given))
    assert result["calibration_error"] == pytest.approx(expected, rel=1e-6)
    assert 0 < expected < 1
    if classes > 3:
        first = [
            label in np.argsort(-row)[:3]
            for row, label in zip(*map(np.asarray, arguments), strict=True)
        ]
        assert result["top_3_accuracy"] == pytest.approx(np.average(first, weights=given))
    cells = np.zeros((classes, classes))
    np.add.at(cells, (labels[counted], logits[counted].argmax(1)), weights[counted])
    assert result["confusion"] == cells.tolist()
    assert result["num_examples"] == 4.75
    if classes <= 3:
        assert "top_3_accuracy" not in result


def test_labels_that_are_no_class_are_in_no_cell(state):
    logits = np.eye(4, 3, dtype=np.float32)
    labels = np.array([0, -1, 3, 0], np.int32)
    told = hybrid.evaluate(Told(), state, batches(logits, labels, np.ones(4, np.float32)), 3)
    assert told["confusion"] == [[2, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert told["num_examples"] == 4
    for count in (told["num_examples"], told["confusion"][0][0]):
        assert isinstance(count, int)


def test_without_classes_nothing_is_said_of_them(state):
    logits, labels = np.zeros((4, 3), np.float32), np.zeros(4, np.int32)
    result = hybrid.evaluate(Told(), state, batches(logits, labels, np.ones(4, np.float32)))
    assert set(result) == {"loss", "num_examples", "num_skipped"}
