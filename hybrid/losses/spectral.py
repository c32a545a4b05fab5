"""Losses between magnitude spectra of several resolutions, with the defaults of auraloss 0.4."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hybrid.losses import clips
from hybrid.losses.base import Lengths, Loss, Rows, absolute
from physics.audio import one_of
from physics.spectra import filterbank, power
from physics.spectra.short_time import root

DISTANCES = ("l1", "l2")


@dataclasses.dataclass(frozen=True)
class Stft(Loss):
    """Spectral convergence, and distances of log and linear magnitudes, at one resolution.

    Arik, Jun & Diamos, "Fast spectrogram inversion using multi-head convolutional neural networks"
    (IEEE SPL 2019), section III.A, as auraloss 0.4 computes it: magnitudes m = sqrt(max(|X|^2,
    eps)), frames centred and mirrored at the ends of each clip, convergence the norm of the error
    over that of the target, the others means over all frames and bins of the batch. What is fainter
    than eps has the gradient 0, so that silence has one.

    Attributes:
        n_fft: size of the transform.
        hop_samples: samples from frame to frame.
        window_samples: length of the window, at most `n_fft`.
        window: a name that scipy.signal.get_window knows.
        convergence_weight: weight of the spectral convergence.
        log_weight: weight of the distance of natural logarithms.
        linear_weight: weight of the distance of magnitudes.
        distance: "l1" or "l2", the mean absolute or squared difference.
        n_mels: take magnitudes to so many mel bands (Slaney's scale and areas); None does not.
        sample_rate_hz: of the audio; mel bands need it.
        eps: least power of a bin.
    """

    n_fft: int = 1024
    hop_samples: int = 256
    window_samples: int = 1024
    window: str = "hann"
    convergence_weight: float | int = 1.0
    log_weight: float | int = 1.0
    linear_weight: float | int = 0.0
    distance: str = "l1"
    n_mels: int | None = None
    sample_rate_hz: float | int | None = None
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Checks the settings."""
        clips.check_transform(self.n_fft, self.window_samples, self.hop_samples, self.window)
        one_of("distance", self.distance, DISTANCES)
        if not self.eps >= 1e-15:
            raise ValueError(
                f"eps must be 1e-15 or more, for it is divided by; got {self.eps:g}. Take 1e-8, as "
                "auraloss does."
            )
        if self.n_mels is not None:
            if self.sample_rate_hz is None:
                raise ValueError(
                    f"Mel bands need sample_rate_hz; got None with n_mels={self.n_mels}. Give the "
                    "sample rate of the audio."
                )
            self._bands()

    def value(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, ""]:
        """See `Loss.value`."""
        reach = clips.reach_samples(self.window_samples)
        estimate, target = (clips.mirrored(x, lengths, reach) for x in (estimate, target))
        return self.of_mirrored(estimate, target, reach, lengths)

    def of_mirrored(
        self,
        estimate: Float[Array, "rows longer"],
        target: Float[Array, "rows longer"],
        reach: int,
        lengths: Lengths | None,
    ) -> Float[Array, ""]:
        """The loss of what `clips.mirrored` gave, by which several resolutions share it."""
        x, y = (self._powers(longer, reach) for longer in (estimate, target))
        mask = None
        if lengths is not None:
            mask = clips.frame_mask(x.shape[1], self.hop_samples, lengths)
        magnitudes = (x, y)
        if self.n_mels is None and (self.convergence_weight or self.linear_weight):
            magnitudes = (jnp.sqrt(x), jnp.sqrt(y))
        loss = jnp.zeros((), x.dtype)
        if self.convergence_weight:
            loss += self.convergence_weight * _convergence(*magnitudes, mask)
        if self.log_weight:
            loss += self.log_weight * self._distance(self._log_ratio(x, y), mask)
        if self.linear_weight:
            loss += self.linear_weight * self._distance(magnitudes[0] - magnitudes[1], mask)
        return loss

    def _powers(
        self, longer: Float[Array, "rows longer"], reach: int
    ) -> Float[Array, "rows frames bins"]:
        """Powers of bins, at least eps; or the magnitudes of mel bands."""
        spectrum = clips.spectra(
            longer, reach, self.window, self.window_samples, self.hop_samples, self.n_fft
        )
        powers = jnp.maximum(power(spectrum), self.eps)
        if self.n_mels is None:
            return powers
        return jnp.sqrt(powers) @ jnp.asarray(self._bands(), powers.dtype)

    def _log_ratio(
        self, x: Float[Array, "rows frames bins"], y: Float[Array, "rows frames bins"]
    ) -> Float[Array, "rows frames bins"]:
        """Difference of the logarithms of magnitudes."""
        if self.n_mels is None:
            # Of powers, and one logarithm for two.
            return 0.5 * jnp.log(x / y)
        # A band without a bin is 0 on both sides, and says nothing.
        tiny = np.finfo(x.dtype).tiny
        return jnp.log(jnp.maximum(x, tiny)) - jnp.log(jnp.maximum(y, tiny))

    def _bands(self) -> Float[np.ndarray, "bins bands"]:
        assert self.n_mels is not None
        assert self.sample_rate_hz is not None
        return filterbank(
            self.n_fft // 2 + 1,
            self.n_mels,
            self.sample_rate_hz,
            mel_scale="slaney",
            norm="slaney",
        )

    def _distance(
        self, error: Float[Array, "rows frames bins"], mask: Bool[Array, "rows frames"] | None
    ) -> Float[Array, ""]:
        each = absolute(error) if self.distance == "l1" else error**2
        if mask is None:
            return jnp.mean(each)
        count = jnp.maximum(jnp.sum(mask), 1).astype(each.dtype) * each.shape[-1]
        return _sum(each, mask) / count


@dataclasses.dataclass(frozen=True)
class MultiResolutionStft(Loss):
    """The mean of `Stft` over resolutions.

    Yamamoto, Song & Kim, "Parallel WaveGAN" (ICASSP 2020), section 2.2, with the defaults of
    auraloss 0.4. The attributes are those of `Stft`: a list has an entry for each resolution,
    anything else holds for all.
    """

    n_fft: Sequence[int] = (1024, 2048, 512)
    hop_samples: int | Sequence[int] = (120, 240, 50)
    window_samples: int | Sequence[int] = (600, 1200, 240)
    window: str | Sequence[str] = "hann"
    convergence_weight: float | int | Sequence[float | int] = 1.0
    log_weight: float | int | Sequence[float | int] = 1.0
    linear_weight: float | int | Sequence[float | int] = 0.0
    distance: str | Sequence[str] = "l1"
    n_mels: int | Sequence[int | None] | None = None
    sample_rate_hz: float | int | None = None
    eps: float | Sequence[float] = 1e-8

    def __post_init__(self) -> None:
        """Checks the settings of every resolution."""
        count = len(self.n_fft)
        for name, value in vars(self).items():
            if isinstance(value, Sequence) and not isinstance(value, str):
                object.__setattr__(self, name, tuple(value))
                if len(value) != count or not count:
                    raise ValueError(
                        f"There is one entry for each resolution, {count} of them by n_fft; "
                        f"{name} has {len(value)}. Give one for each, or one for all."
                    )
        _ = self.resolutions

    @property
    def resolutions(self) -> tuple[Stft, ...]:
        """The loss at each resolution."""
        settings = []
        for i in range(len(self.n_fft)):
            mine: dict[str, Any] = {
                name: value[i] if isinstance(value, tuple) else value
                for name, value in vars(self).items()
            }
            settings.append(Stft(**mine))
        return tuple(settings)

    def value(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, ""]:
        """See `Loss.value`."""
        resolutions = self.resolutions
        reach = max(clips.reach_samples(each.window_samples) for each in resolutions)
        estimate, target = (clips.mirrored(x, lengths, reach) for x in (estimate, target))
        losses = [each.of_mirrored(estimate, target, reach, lengths) for each in resolutions]
        return jnp.mean(jnp.stack(losses))


def _convergence(
    x: Float[Array, "rows frames bins"],
    y: Float[Array, "rows frames bins"],
    mask: Bool[Array, "rows frames"] | None,
) -> Float[Array, ""]:
    """Norm of the error over that of the target, over the whole batch."""
    size = root(_sum(y**2, mask))
    return root(_sum((y - x) ** 2, mask)) / jnp.where(size > 0, size, jnp.ones_like(size))


def _sum(
    x: Float[Array, "rows frames bins"], mask: Bool[Array, "rows frames"] | None
) -> Float[Array, ""]:
    if mask is not None:
        x = jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))
    return jnp.sum(x)
