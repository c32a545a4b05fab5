"""What is minimised: a task joins a physical model, a network and a batch into one scalar."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from hybrid import metrics
from learners.base import call_learner, init_learner
from physics.audio import check_floating
from physics.base import frame_mask, sample_mask
from physics.bounds import map_specs, project

Tree = Any
Batch = dict[str, Array]
Aux = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task(abc.ABC):
    """The contract of a task. The order of physics and network is its own.

    Attributes:
        physics: a `PhysicsModule`.
        learner: a Flax module.
    """

    physics: Any
    learner: Any

    @abc.abstractmethod
    def init(self, key: Key[Array, ""], batch: dict[str, Any]) -> tuple[Tree, Tree, Tree]:
        """Returns initial (physics parameters, learner parameters, learner collections).

        Args:
            key: PRNG key.
            batch: arrays, or `jax.ShapeDtypeStruct`s: only their shapes and dtypes matter.
        """

    @abc.abstractmethod
    def loss(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
        key: Key[Array, ""] | None,
        train: bool,
    ) -> tuple[Float[Array, ""], Aux]:
        """Returns the scalar to minimise and `aux`.

        `aux` holds `metrics` (a dict of scalars, weighted means over the batch's real rows),
        `weight` (the sum of the rows' weights, by which batches are averaged in evaluation),
        `collections` (the new learner collections) and `outputs` (a dict of arrays that evaluation
        may collect). A row of weight 0 and samples beyond `lengths` change nothing.

        Args:
            physics_params: parameters of `physics`.
            learner_params: parameters of `learner`.
            learner_collections: its other collections.
            batch: `audio [batch, time]`, `lengths [batch]`, `weights [batch]` and the task's own.
            key: for dropout and augmentation; None where `train` is False.
            train: whether this is a training step.
        """

    def project_physics(self, params: Tree) -> Tree:
        """Brings physics parameters back inside their bounds after an update."""
        if hasattr(self.physics, "project"):
            return self.physics.project(params)
        return map_specs(project, self.physics.specs(), params)


@dataclasses.dataclass(frozen=True)
class FrontEndTask(Task):
    """Base of tasks whose physics hears the batch first; gives them all but `loss`."""

    def init(self, key: Key[Array, ""], batch: dict[str, Any]) -> tuple[Tree, Tree, Tree]:
        """Returns initial parameters; the network sees the shape of the physics' features."""
        physics_key, learner_key = jax.random.split(key)
        physics_params = self.physics.init(physics_key)
        features, _ = jax.eval_shape(self.given, physics_params, batch)
        variables = init_learner(
            self.learner,
            learner_key,
            jnp.zeros(features.shape, features.dtype),
            jnp.ones(features.shape[:2], bool),
        )
        return physics_params, *split_params(variables, features.dtype)

    def features(
        self, physics_params: Tree, batch: Batch
    ) -> tuple[Float[Array, "batch frames channels"], Bool[Array, "batch frames"]]:
        """The features of a batch and which of their frames are valid."""
        audio, lengths = self.audio(batch), batch["lengths"]
        features, _ = self.physics.apply(physics_params, audio, lengths=lengths)
        # Ears become channels: a network sees one feature axis, whatever the number of ears.
        features = features.reshape(*features.shape[:2], -1)
        return features, frame_mask(features.shape[1], self.physics.hop_samples, lengths)

    def given(
        self, physics_params: Tree, batch: Batch
    ) -> tuple[Float[Array, "batch frames channels"], Bool[Array, "batch frames"]]:
        """What the network is given, and which frames of it are valid; by default `features`."""
        return self.features(physics_params, batch)

    def audio(self, batch: Batch) -> Float[Array, "batch time *ears"]:
        """The audio of a batch in the precision of the run, silent behind each clip's end."""
        check_floating(batch["audio"])
        audio = batch["audio"].astype(jnp.result_type(float))
        valid = sample_mask(audio.shape[1], batch["lengths"])
        valid = valid.reshape(*valid.shape, *(1,) * (audio.ndim - 2))
        return jnp.where(valid, audio, jnp.zeros_like(audio))

    def answer(
        self,
        learner_params: Tree,
        learner_collections: Tree,
        features: Float[Array, "batch frames channels"],
        mask: Bool[Array, "batch frames"],
        key: Key[Array, ""] | None,
        train: bool,
    ) -> tuple[Array, Tree]:
        """What the network gives for features, and its collections after it.

        Args:
            learner_params: parameters of `learner`.
            learner_collections: its other collections; outside of training they stay as they are.
            features: as from `features`.
            mask: which frames count.
            key: for dropout and augmentation; None where `train` is False.
            train: whether this is a training step.
        """
        rngs = {}
        if train and key is not None:
            rngs = dict(zip(("dropout", "augment"), jax.random.split(key), strict=True))
        given, collections = call_learner(
            self.learner,
            {"params": learner_params, **learner_collections},
            features,
            train=train,
            mask=mask,
            rngs=rngs,
            mutable=tuple(learner_collections) if train else (),
        )
        return jnp.asarray(given), collections if train else learner_collections


@dataclasses.dataclass(frozen=True)
class Classification(FrontEndTask):
    """Front end, then network, then cross-entropy over the clip's label.

    Attributes:
        label_smoothing: share of the target spread over all classes, in [0, 1).
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")

    def loss(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
        key: Key[Array, ""] | None,
        train: bool,
    ) -> tuple[Float[Array, ""], Aux]:
        """Weighted mean cross-entropy; metrics `accuracy`; outputs `logits`, `predictions`."""
        features, mask = self.features(physics_params, batch)
        counted = mask & (batch["weights"] > 0)[:, None]
        logits, collections = self.answer(
            learner_params, learner_collections, features, counted, key, train
        )
        value, scores, outputs = self.judge(logits, mask, batch["labels"])
        weights = batch["weights"].astype(value.dtype)
        loss = metrics.weighted_mean(value, weights)
        aux = {
            "metrics": {
                name: metrics.weighted_mean(score, weights) for name, score in scores.items()
            },
            "weight": jnp.sum(weights),
            "collections": collections,
            "outputs": outputs,
        }
        return loss, aux

    def judge(
        self,
        logits: Float[Array, "batch *axes classes"],
        mask: Bool[Array, "batch frames"],
        labels: Int[Array, "batch ..."],
    ) -> tuple[Float[Array, " batch"], dict[str, Array], dict[str, Array]]:
        """Loss of each clip, further figures of each clip by name, and outputs of the batch.

        Args:
            logits: what the network gave.
            mask: which frames are valid.
            labels: the right classes.
        """
        del mask
        value = cross_entropy(logits, labels, self.label_smoothing)
        scores = {"accuracy": metrics.hits(logits, labels)}
        return value, scores, {"logits": logits, "predictions": jnp.argmax(logits, axis=-1)}


def split_params(variables: Mapping[str, Tree], dtype: Any) -> tuple[Tree, dict[str, Tree]]:
    """Returns the parameters of a network and its other collections, floats in `dtype`."""
    cast = {name: cast_floats(tree, dtype) for name, tree in variables.items()}
    return cast.pop("params"), cast


def cast_floats(tree: Tree, dtype: Any) -> Tree:
    """Returns `tree` with every floating-point leaf in `dtype`; other leaves are left alone."""
    return jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], smoothing: float = 0.0
) -> Float[Array, " batch"]:
    """Cross-entropy of each row in nats, with label smoothing (Szegedy et al., CVPR 2016)."""
    num_classes = logits.shape[-1]
    targets = jax.nn.one_hot(labels, num_classes, dtype=logits.dtype)
    targets = optax.smooth_labels(targets, smoothing) if smoothing else targets
    return optax.softmax_cross_entropy(logits, targets)
