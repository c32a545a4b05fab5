"""Exists to fit features to what networks and ears can take in: stages that compress."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from physics.audio import check_positive
from physics.base import Params, State
from physics.bounds import Parameter
from physics.stages import FeatureLayout, Stage

Features = Float[Array, "batch frames *channels"]

_PCEN = "Wang et al. (2017), ICASSP; Zeghidour et al. (2021), LEAF; google-research/leaf-audio"
_PUBLISHED_FRAMES_HZ = 100.0


@dataclasses.dataclass(frozen=True)
class Pcen(Stage):
    """Per-channel energy normalisation: gain control by a smoothed past, then a root.

    (x / (eps + M)^alpha + delta)^(1 / root) - delta^(1 / root), where M[t] = s x[t] + (1 - s)
    M[t - 1] begins at the first frame, all learned for each channel: LEAF's, with its initial
    values, and its bounds where it has some (alpha <= 1, root >= 1, 0 <= s <= 1).

    Features are taken as energies: what is negative counts as 0.

    Attributes:
      alpha: initial strength of the gain control.
      delta: initial bias.
      root: initial root, the inverse of an exponent.
      smoothing: initial s of 100 frames/s; other frame rates get the same time constant.
      eps: keeps silence from being divided by 0.
    """

    alpha: float | int = 0.96
    delta: float | int = 2.0
    root: float | int = 2.0
    smoothing: float | int = 0.04
    eps: float | int = 1e-12

    def __post_init__(self):
        check_positive(self, "eps")

    def specs(self, layout: FeatureLayout) -> Params:
        """alpha, delta, root and smoothing of every channel."""
        del layout
        return {
            "alpha": Parameter("1", 0.0, 1.0, "Strength of the gain control.", _PCEN, "project"),
            "delta": Parameter("1", 1e-3, 1e3, "Bias before the root.", _PCEN, "log_logit"),
            "root": Parameter("1", 1.0, 16.0, "Inverse of the exponent.", _PCEN, "project"),
            "smoothing": Parameter(
                "1", 0.0, 1.0, "Share of a new frame in the smoothed energy.", _PCEN
            ),
        }

    def initial(self, layout: FeatureLayout) -> Params:
        """The published values in every channel."""
        smoothing = 1 - (1 - self.smoothing) ** (_PUBLISHED_FRAMES_HZ / layout.frame_rate_hz)
        values = {
            "alpha": self.alpha,
            "delta": self.delta,
            "root": self.root,
            "smoothing": smoothing,
        }
        return {name: np.full(layout.n_channels, value) for name, value in values.items()}

    def init_state(self, layout: FeatureLayout, batch: int) -> State:
        """Smoothed energy, and whether a frame has come yet."""
        return {"smoothed": jnp.zeros((batch, *layout.channels)), "begun": jnp.zeros((), bool)}

    def apply(
        self,
        physical: Params,
        features: Features,
        layout: FeatureLayout,
        state: State = None,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> tuple[Features, State]:
        """Normalised features; the smoothing only looks back, so `mask` changes nothing."""
        del mask
        energy = jax.nn.relu(features)
        if features.shape[1] == 0:
            return energy, self.init_state(layout, features.shape[0]) if state is None else state
        before = energy[:, 0]
        if state is not None:
            past = jnp.asarray(state["smoothed"], energy.dtype)
            before = jnp.where(state["begun"], past, before)
        smoothed = _smooth(energy, physical["smoothing"], before)
        after = {"smoothed": smoothed[:, -1], "begun": jnp.ones((), bool)}
        compressed = _normalised(energy, smoothed, physical, self.eps)
        return compressed, after


@dataclasses.dataclass(frozen=True)
class PowerLaw(Stage):
    """sign(x) |x|^exponent, the exponent learned for each channel; a straight line next to 0.

    Attributes:
      exponent: initial; 0.3 is that of loudness.
      floor: of |x|, below which the law is a line through 0: its slope there, floor^(exponent - 1),
        is the largest there is, and finite.
    """

    exponent: float | int = 0.3
    floor: float | int = 1e-7

    def __post_init__(self):
        check_positive(self, "floor")

    def specs(self, layout: FeatureLayout) -> Params:
        """The exponent of every channel."""
        del layout
        source = "Stevens (1957), Psychol. Rev. 64; learned by Famularo et al., arXiv 2409.08997"
        return {"exponent": Parameter("1", 0.05, 2.0, "Exponent.", source, "log_logit")}

    def initial(self, layout: FeatureLayout) -> Params:
        """The same in every channel."""
        return {"exponent": np.full(layout.n_channels, self.exponent)}

    def apply(
        self,
        physical: Params,
        features: Features,
        layout: FeatureLayout,
        state: State = None,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> tuple[Features, State]:
        """Features raised to the exponent."""
        del layout, mask
        size = jnp.maximum(jnp.abs(features), self.floor)
        slope = jnp.exp((_wide(physical["exponent"], features) - 1) * jnp.log(size))
        return features * slope, state


@dataclasses.dataclass(frozen=True)
class Log(Stage):
    """log(x + floor), of energies: what is negative counts as 0.

    Attributes:
      floor: initial, in every channel.
      learned: is it learned for each channel? Else it stays.
    """

    floor: float | int = 1e-5
    learned: bool = False

    def __post_init__(self):
        check_positive(self, "floor")

    def specs(self, layout: FeatureLayout) -> Params:
        """The floor of every channel, if learned."""
        del layout
        if not self.learned:
            return {}
        source = "google-research/leaf-audio, log_compression (1e-5)"
        return {
            "floor": Parameter(
                "1", 1e-3 * self.floor, 1e3 * self.floor, "Added to energies.", source, "log_logit"
            )
        }

    def initial(self, layout: FeatureLayout) -> Params:
        """The same in every channel."""
        return {"floor": np.full(layout.n_channels, self.floor)} if self.learned else {}

    def apply(
        self,
        physical: Params,
        features: Features,
        layout: FeatureLayout,
        state: State = None,
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> tuple[Features, State]:
        """Logarithms of features."""
        del layout, mask
        floor: Any = _wide(physical["floor"], features) if self.learned else self.floor
        return jnp.log(jax.nn.relu(features) + floor), state


@jax.jit
def _normalised(energy: Features, smoothed: Features, physical: Params, eps: Any) -> Features:
    """(x / (eps + M)^alpha + delta)^(1/root) - delta^(1/root), without loss by the difference."""
    alpha, delta, root = (_wide(physical[name], energy) for name in ("alpha", "delta", "root"))
    normal = energy * jnp.exp(-alpha * jnp.log(eps + smoothed))
    return jnp.exp(jnp.log(delta) / root) * jnp.expm1(jnp.log1p(normal / delta) / root)


@jax.jit
def _smooth(energy: Features, rate: Float[Array, " channels"], before: Array) -> Features:
    """m[t] = rate x[t] + (1 - rate) m[t - 1], with m[-1] = `before`.

    One step per frame: XLA makes a single loop of it, which on CPU takes a quarter of the time of
    products with triangular matrices, and in reverse a half of an associative scan.
    """
    rate = _wide(rate, before)

    def step(smoothed, x):
        smoothed = smoothed + rate * (x - smoothed)
        return smoothed, smoothed

    return jnp.moveaxis(jax.lax.scan(step, before, jnp.moveaxis(energy, 1, 0))[1], 0, 1)


def _wide(value: Float[Array, " channels"], like: Array) -> Array:
    """A value per channel, with leading axes of one."""
    return value.reshape((1,) * (like.ndim - 1) + value.shape)


__all__ = ["Log", "Pcen", "PowerLaw"]
