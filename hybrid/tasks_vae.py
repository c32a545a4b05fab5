"""A generative model of what an ear hears: a variational autoencoder of cochleagrams as a task."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from hybrid import metrics
from hybrid.tasks import Aux, Batch, FrontEndTask, Tree

_SCHEDULE = "schedule"


@dataclasses.dataclass(frozen=True)
class Vae(FrontEndTask):
    """Front end, encoder, decoder; in training the loss is minus the evidence lower bound.

    Squared error over 2 sigma^2 (Gaussian noise of `noise_std`) plus the weighted divergence of the
    latents from a standard normal (Kingma and Welling, ICLR 2014), both divided by the number of
    values of a cochleagram: minus the bound for each value where the weight is 1, but for the
    constant log(noise_std sqrt(2 pi)), which is left out. The weight rises linearly over the first
    steps (Bowman et al., CoNLL 2016), which are counted in the collection "schedule" and so survive
    a resume.

    A cochleagram is the clip and the silence behind it, up to the padded length of the data set.
    The target is what the front end gives, without a gradient: if it had one, a front end would
    learn to give nothing, which is easy to reconstruct. A front end that learns all the same moves
    the target, so errors can be compared only between runs in which it is frozen (configs freeze
    it by `physics_optimizer.start_step`).

    Attributes:
        noise_std: standard deviation of the noise, in units of the features.
        kl_weight: final weight of the divergence; 1 is the bound itself.
        kl_warmup_steps: steps until the weight is reached.
    """

    noise_std: float = 0.05
    kl_weight: float = 1.0
    kl_warmup_steps: int = 400

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not self.noise_std > 0:
            raise ValueError(f"noise_std must be above 0, got {self.noise_std}: take 0.05")
        if self.kl_weight < 0 or self.kl_warmup_steps < 0:
            raise ValueError(
                "kl_weight and kl_warmup_steps must be 0 or more, got "
                f"{self.kl_weight} and {self.kl_warmup_steps}: 0 steps give the weight at once"
            )

    def init(self, key: Key[Array, ""], batch: dict[str, Any]) -> tuple[Tree, Tree, Tree]:
        """Returns initial parameters; the network sees the shape of the cochleagrams."""
        physics_params, learner_params, collections = super().init(key, batch)
        collections[_SCHEDULE] = {"steps": jnp.zeros((), jnp.int32)}
        return physics_params, learner_params, collections

    def features(
        self, physics_params: Tree, batch: Batch
    ) -> tuple[Float[Array, "batch frames channels"], Bool[Array, "batch frames"]]:
        """Cochleagrams, 0 behind a clip's end, and which of their frames lie within it."""
        features, mask = super().features(physics_params, batch)
        return jnp.where(mask[..., None], features, jnp.zeros_like(features)), mask

    def loss(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
        key: Key[Array, ""] | None,
        train: bool,
    ) -> tuple[Float[Array, ""], Aux]:
        """Nats for each value, see the class; an evaluation takes the means for latents.

        Metrics: `squared_error` (mean over a cochleagram), `kl` (nats a clip), `kl_weight`.
        Outputs: `cochleagrams`, `reconstructions`, `latents`.
        """
        features, _ = self.features(physics_params, batch)
        target = jax.lax.stop_gradient(features)
        counted = batch["weights"] > 0
        collections = dict(learner_collections)
        steps = collections.pop(_SCHEDULE)["steps"]
        variables = {"params": learner_params, **collections}
        rngs: list[dict[str, Any]] = [{}, {}]
        noise_key = None
        if train and key is not None:
            noise_key, first, second = jax.random.split(key, 3)
            rngs = [{"dropout": first}, {"dropout": second}]
        (mean, log_variance), changed = self.learner.apply(
            variables,
            features,
            train=train,
            mask=jnp.broadcast_to(counted[:, None], features.shape[:2]),
            method="encode",
            rngs=rngs[0],
            mutable=list(collections) if train else [],
        )
        latents = mean
        if noise_key is not None:
            noise = jax.random.normal(noise_key, mean.shape, mean.dtype)
            latents = mean + jnp.exp(0.5 * log_variance) * noise
        guess = self.learner.apply(
            variables, latents, *features.shape[1:], train=train, method="decode", rngs=rngs[1]
        )
        error = jnp.mean((guess - target) ** 2, axis=(1, 2))
        kl = 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, axis=1)
        weight = self._kl_weight(steps, error.dtype) if train else self.kl_weight
        size = features.shape[1] * features.shape[2]
        weights = batch["weights"].astype(error.dtype)
        scores = {"squared_error": error, "kl": kl}
        averages = {name: metrics.weighted_mean(score, weights) for name, score in scores.items()}
        loss = averages["squared_error"] / (2 * self.noise_std**2) + weight * averages["kl"] / size
        counter = {"steps": steps + 1 if train else steps}
        aux = {
            "metrics": averages | {"kl_weight": jnp.asarray(weight, error.dtype)},
            "weight": jnp.sum(weights),
            "collections": {**collections, **changed, _SCHEDULE: counter},
            "outputs": {"cochleagrams": target, "reconstructions": guess, "latents": mean},
        }
        return loss, aux

    def examples(
        self,
        physics_params: Tree,
        learner_params: Tree,
        learner_collections: Tree,
        batch: Batch,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Sounds, and pictures `[batch, frames, channels]`, by name.

        What was heard, its reconstruction, and a sample of latents that are always the same.
        """
        _, aux = self.loss(physics_params, learner_params, learner_collections, batch, None, False)
        outputs = aux["outputs"]
        means = outputs["latents"]
        latents = jax.random.normal(jax.random.key(0), means.shape, means.dtype)
        shape = outputs["cochleagrams"].shape[1:]
        drawn = self.decode(learner_params, learner_collections, latents, *shape)
        pictures = {name: outputs[name] for name in ("cochleagrams", "reconstructions")}
        return {"clip": batch["audio"]}, pictures | {"samples": drawn}

    def decode(
        self,
        learner_params: Tree,
        learner_collections: Tree,
        latents: Float[Array, "batch latents"],
        frames: int,
        channels: int,
    ) -> Float[Array, "batch frames channels"]:
        """Returns the cochleagrams of latents, drawn from a standard normal or made otherwise."""
        collections = {n: tree for n, tree in learner_collections.items() if n != _SCHEDULE}
        variables = {"params": learner_params, **collections}
        return self.learner.apply(
            variables, latents, frames, channels, train=False, method="decode"
        )

    def _kl_weight(self, steps: Array, dtype: Any) -> Array:
        done = (steps + 1).astype(dtype) / max(self.kl_warmup_steps, 1)
        return self.kl_weight * jnp.minimum(done, jnp.ones_like(done))
