"""Losses on the samples themselves: errors, and ratios of signal to error."""

import abc
import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from hybrid.losses.base import Lengths, RowLoss, Rows, Signals, absolute, mean_of_samples
from physics.audio import check_positive
from physics.base import sample_mask

_DB = 10 / math.log(10)


@dataclasses.dataclass(frozen=True)
class L1(RowLoss):
    """Mean absolute error of each clip's samples, averaged over clips."""

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """See `RowLoss.rows`."""
        return mean_of_samples(absolute(estimate - target), lengths)


@dataclasses.dataclass(frozen=True)
class L2(RowLoss):
    """Mean squared error of each clip's samples, averaged over clips."""

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """See `RowLoss.rows`."""
        return mean_of_samples((estimate - target) ** 2, lengths)


@dataclasses.dataclass(frozen=True)
class LogCosh(RowLoss):
    """Mean of log(cosh(a e)) / a over samples of the error e: L2 for small ones, L1 for large.

    Chen et al., "Log hyperbolic cosine loss improves variational auto-encoder" (2019).

    Attributes:
        sharpness: a; errors well below 1 / a are squared.
    """

    sharpness: float | int = 1.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        if not self.sharpness > 0:
            raise ValueError(
                f"sharpness must be positive; got {self.sharpness:g}. Give a larger number."
            )

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """See `RowLoss.rows`."""
        x = self.sharpness * (estimate - target)
        # cosh overflows for large arguments, and log(cosh) of small ones loses all its digits.
        small = jnp.abs(x) < 1
        near = jnp.log1p(2 * jnp.sinh(jnp.where(small, x, 0) / 2) ** 2)
        size = jnp.abs(x)
        far = size + jnp.log1p(jnp.exp(-2 * size)) - math.log(2)
        return mean_of_samples(jnp.where(small, near, far), lengths) / self.sharpness


@dataclasses.dataclass(frozen=True)
class _Ratio(RowLoss):
    """Negative ratio in dB of what of an estimate is the target to what is not.

    Attributes:
        zero_mean: take the means out of estimate and target first.
        eps: added to energies that are divided by, and to the ratio: bounds the loss on both sides.
    """

    zero_mean: bool = True
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_positive(self, "eps")

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """See `RowLoss.rows`."""
        if self.zero_mean:
            estimate, target = (_centred(x, lengths) for x in (estimate, target))
        wanted = self.wanted(estimate, target)
        return -_ratio_db(wanted, estimate - wanted, self.eps)

    @abc.abstractmethod
    def wanted(self, estimate: Rows, target: Rows) -> Rows:
        """What of an estimate counts as the target."""


@dataclasses.dataclass(frozen=True)
class Snr(_Ratio):
    """Negative signal-to-noise ratio in dB, averaged over clips.

    Attributes:
        zero_mean: take the means out of estimate and target first.
        eps: added to the energy of the error, and to the ratio: bounds the loss on both sides.
    """

    def wanted(self, estimate: Rows, target: Rows) -> Rows:
        """The target itself."""
        del estimate
        return target


@dataclasses.dataclass(frozen=True)
class SiSdr(_Ratio):
    """Negative scale-invariant signal-to-distortion ratio in dB, averaged over clips.

    Le Roux et al., "SDR: half-baked or well done?" (ICASSP 2019), equation 5.

    Attributes:
        zero_mean: take the means out of estimate and target first.
        eps: added to energies that are divided by, and to the ratio: bounds the loss on both sides.
    """

    def wanted(self, estimate: Rows, target: Rows) -> Rows:
        """The target at the level at which it comes nearest to the estimate."""
        energy = jnp.sum(target**2, axis=-1, keepdims=True)
        return jnp.sum(estimate * target, axis=-1, keepdims=True) / (energy + self.eps) * target


@dataclasses.dataclass(frozen=True)
class Esr(RowLoss):
    """Energy of the error over that of the target, both pre-emphasised, averaged over clips.

    Wright & Välimäki, "Perceptual loss function for neural modelling of audio systems" (ICASSP
    2020), equations 2 and 3.

    Attributes:
        pre_emphasis: c of the filter 1 - c z^-1; their 0.85 is for 44.1 kHz. 0 takes signals as
            they are.
        eps: added to the energy of the target.
    """

    pre_emphasis: float | int = 0.85
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_positive(self, "eps")

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """See `RowLoss.rows`."""
        del lengths  # zeros beyond add no energy, and the filter's last sample lies there
        error, target = self._emphasised(estimate - target), self._emphasised(target)
        return jnp.sum(error**2, axis=-1) / (jnp.sum(target**2, axis=-1) + self.eps)

    def _emphasised(self, x: Rows) -> Float[Array, "rows longer"]:
        return jnp.pad(x, ((0, 0), (0, 1))) - self.pre_emphasis * jnp.pad(x, ((0, 0), (1, 0)))


def si_sdr_db(
    estimate: Signals, target: Signals, lengths: Integer[Array, " batch"] | None = None
) -> Float[Array, "..."]:
    """Scale-invariant signal-to-distortion ratio of each clip (and source) in dB, higher is better.

    Means are taken out first. Energies have the eps of `SiSdr` added, so that a faint signal
    (energy near 1e-8) has another ratio than the same one louder.

    Args:
        estimate: `[batch, time]` or `[batch, sources, time]`.
        target: likewise.
        lengths: `[batch]` valid samples; a clip of length 0 gets 0, to be left out by its weight.

    Returns:
        `[batch]` or `[batch, sources]`, from -80 dB for a silent estimate. A silent target gives
        -80 dB too, whatever the estimate: leave such clips out of a mean.

    Raises:
        ValueError: as `Loss.__call__` does.
    """
    return -SiSdr().per_clip(estimate, target, lengths)


def _centred(x: Rows, lengths: Lengths | None) -> Rows:
    x = x - mean_of_samples(x, lengths)[:, None]
    if lengths is None:
        return x
    return jnp.where(sample_mask(x.shape[-1], lengths), x, jnp.zeros((), x.dtype))


def _ratio_db(signal: Rows, error: Rows, eps: float) -> Float[Array, " rows"]:
    ratio = jnp.sum(signal**2, axis=-1) / (jnp.sum(error**2, axis=-1) + eps)
    return _DB * jnp.log(ratio + eps)
