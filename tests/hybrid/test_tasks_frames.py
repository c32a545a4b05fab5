"""The task of labelling frames: its loss by hand, and frames that do not count."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid.tasks_frames import FrameClassification

TASK = FrameClassification(physics=None, learner=None)


@pytest.fixture
def judged():
    logits = np.random.default_rng(0).standard_normal((3, 5, 4)).astype(np.float32)
    mask = np.arange(5)[None] < np.array([5, 2, 0])[:, None]
    return logits, mask


def losses(logits, mask, labels):
    """Mean over the valid frames of minus the logarithm of the right class's probability."""
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    right = np.take_along_axis(probabilities, labels[..., None], -1)[..., 0]
    return [-np.log(right[i, m]).mean() if m.any() else 0.0 for i, m in enumerate(mask)]


def test_a_clips_label_is_that_of_all_its_frames(judged):
    logits, mask = judged
    labels = np.array([0, 3, 1], np.int32)
    value, scores, outputs = TASK.judge(jnp.asarray(logits), jnp.asarray(mask), jnp.asarray(labels))
    of_frames = np.broadcast_to(labels[:, None], mask.shape)
    np.testing.assert_allclose(value, losses(logits, mask, of_frames), rtol=1e-5)
    hits = logits.argmax(-1) == of_frames
    np.testing.assert_allclose(scores["frame_accuracy"], [hits[0].mean(), hits[1, :2].mean(), 0])
    # The clip: the class whose probability, multiplied over its frames, is largest.
    together = np.asarray(jax.nn.log_softmax(logits))
    best = [together[0].sum(0).argmax(), together[1, :2].sum(0).argmax(), 0]
    np.testing.assert_array_equal(outputs["predictions"], best)
    np.testing.assert_array_equal(scores["accuracy"], np.array(best) == labels)
    assert outputs["logits"].shape == (3, 4)


def test_labels_of_frames(judged):
    logits, mask = judged
    labels = np.random.default_rng(1).integers(0, 4, (3, 5)).astype(np.int32)
    value, scores, outputs = TASK.judge(jnp.asarray(logits), jnp.asarray(mask), jnp.asarray(labels))
    np.testing.assert_allclose(value, losses(logits, mask, labels), rtol=1e-5)
    hits = logits.argmax(-1) == labels
    np.testing.assert_allclose(scores["accuracy"], [hits[0].mean(), hits[1, :2].mean(), 0])
    np.testing.assert_array_equal(outputs["predictions"], logits.argmax(-1))


def test_frames_that_are_not_valid_change_nothing(judged):
    logits, mask = judged
    labels = jnp.array([0, 3, 1], jnp.int32)
    dirty = np.where(mask[..., None], logits, 1e4).astype(np.float32)

    def loss(logits):
        return TASK.judge(logits, jnp.asarray(mask), labels)[0].sum()

    assert loss(jnp.asarray(dirty)) == loss(jnp.asarray(logits))
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(dirty)))
    assert np.any(gradient[mask])
    assert not np.any(gradient[~mask])


def test_label_smoothing(judged):
    logits, mask = judged
    labels = jnp.array([0, 3, 1], jnp.int32)
    smooth = dataclasses.replace(TASK, label_smoothing=0.2)
    value, _, _ = smooth.judge(jnp.asarray(logits), jnp.asarray(mask), labels)
    evenly = [losses(logits, mask, np.full((3, 5), c))[0] for c in range(4)]
    plain = losses(logits, mask, np.zeros((3, 5), int))[0]
    assert float(value[0]) == pytest.approx(0.8 * plain + 0.2 * np.mean(evenly), rel=1e-5)


def test_a_network_that_labels_clips_is_refused(judged):
    _, mask = judged
    with pytest.raises(ValueError, match="labels frames"):
        TASK.judge(jnp.zeros((3, 4)), jnp.asarray(mask), jnp.zeros(3, jnp.int32))
