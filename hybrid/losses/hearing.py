"""Losses between what models of hearing make of two sounds: the auditory nerve's, and cortex's."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybrid.losses.base import Lengths, RowLoss, Rows
from physics.base import frame_mask
from physics.carfac import Carfac
from physics.carfac.setup import hashable
from physics.cortex import AuditorySpectrogram, Strf
from physics.stages import FeatureLayout


@dataclasses.dataclass(frozen=True)
class CochlearLoss(RowLoss):
    """Energy of the error over that of the target, of the neural activity of a cochlea.

    Estimate and target are heard by the same CAR-FAC, whose physical parameters stay as they are.
    The ratio is averaged over clips. Clips shorter than a frame are equal to anything.

    Attributes:
        sample_rate_hz: of the audio.
        initial: of `Carfac`: {"car.ohc_health": 0.5} is an impaired ear, () a healthy one.
        hop_s: seconds per frame; None compares the activity sample by sample, which is slower.
        compression: of frames: "none", "root" or "log"; of samples none is.
        ihc: style of the inner hair cells.
        full_scale_db_spl: level in dB SPL of a peak of 1.0 in the audio.
        kernel: "auto", "native" or "xla".
        floor: added to the mean square of the target's activity, so that what is nearly silent does
            not count without bound. The default is 1 % of what speech has under the compression
            "root", and fits no other: give 1 % of what your targets have.
    """

    sample_rate_hz: float | int
    initial: Any = ()
    hop_s: float | int | None = 0.01
    compression: str = "root"
    ihc: str = "two_cap"
    full_scale_db_spl: float | int = 100.0
    kernel: str = "auto"
    floor: float = 1e-3

    def __post_init__(self) -> None:
        """Checks the settings.

        Raises:
            ValueError: settings that `Carfac` refuses.
        """
        object.__setattr__(self, "initial", hashable(self.initial))
        _check_floor(self.floor)
        _ = self.ear

    @property
    def ear(self) -> Carfac:
        """The cochlea that hears."""
        return Carfac(
            sample_rate_hz=self.sample_rate_hz,
            initial=self.initial,
            hop_s=self.hop_s,
            compression="none" if self.hop_s is None else self.compression,
            ihc=self.ihc,
            full_scale_db_spl=self.full_scale_db_spl,
            kernel=self.kernel,
        )

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """See `RowLoss.rows`."""
        ear = self.ear
        params = jax.lax.stop_gradient(ear.init())
        heard, target = (ear.apply(params, x, lengths=lengths)[0] for x in (estimate, target))
        return _ratio(heard - target, target, self.floor, ear.hop_samples, lengths)


@dataclasses.dataclass(frozen=True)
class CorticalLoss(RowLoss):
    """Energy of the error over that of the target, of what cortical receptive fields hear of them.

    The auditory spectrogram of Chi, Ru & Shamma (2005), and `physics.cortex.Strf` on it, with
    their initial parameters, which stay as they are. The ratio is averaged over clips. Clips
    shorter than a frame are equal to anything.

    Attributes:
        sample_rate_hz: of the audio.
        ear: an `AuditorySpectrogram`, or a mapping of its settings.
        cortex: a `Strf`, or a mapping of its settings.
        floor: added to the mean square of what the target's receptive fields give, so that what is
            nearly silent does not count without bound. The default is about 1 % of what speech has
            whose root mean square is 50 dB below 1.0.
    """

    sample_rate_hz: float | int
    ear: Any = None
    cortex: Any = None
    floor: float = 1e-8

    def __post_init__(self) -> None:
        """Builds ear and cortex.

        Raises:
            ValueError: settings that they refuse, or an ear of another sample rate.
        """
        _check_floor(self.floor)
        rate = {"sample_rate_hz": self.sample_rate_hz}
        ear = _built("ear", AuditorySpectrogram, self.ear, rate)
        spacing = {"channels_per_octave": ear.channels_per_octave}
        cortex = _built("cortex", Strf, self.cortex, spacing)
        object.__setattr__(self, "ear", ear)
        object.__setattr__(self, "cortex", cortex)
        if float(ear.sample_rate_hz) != float(self.sample_rate_hz):
            raise ValueError(
                f"ear must hear the sample rate of the audio, {float(self.sample_rate_hz):g} Hz; "
                f"got one for {float(ear.sample_rate_hz):g} Hz. Leave its sample_rate_hz out."
            )

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """See `RowLoss.rows`."""
        params = jax.lax.stop_gradient(self.ear.init(None))
        heard, target = (self.ear.apply(params, x, lengths=lengths)[0] for x in (estimate, target))
        # Receptive fields are linear: what they make of the error is the error of what they make.
        error, target = (self._fields(x, lengths) for x in (heard - target, target))
        return _ratio(error, target, self.floor, self.ear.hop_samples, lengths)

    def _fields(
        self, features: Float[Array, "rows frames channels"], lengths: Lengths | None
    ) -> Float[Array, "rows frames fields channels"]:
        layout = FeatureLayout(self.sample_rate_hz / self.ear.hop_samples, features.shape[2:])
        initial = self.cortex.initial(layout)
        physical = jax.tree.map(lambda x: jnp.asarray(x, features.dtype), initial)
        fields, _ = self.cortex.apply(physical, features, layout)
        if lengths is None:
            return fields
        mask = frame_mask(fields.shape[1], self.ear.hop_samples, lengths)
        return jnp.where(mask[:, :, None, None], fields, jnp.zeros((), fields.dtype))


def _built(field: str, kind: Any, given: Any, known: dict[str, Any]) -> Any:
    if isinstance(given, kind):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(
            f"{field} must be a {kind.__name__} or a mapping of its settings; got {given!r}. Leave "
            "it out for the usual one."
        )
    try:
        return kind(**(known | dict(given or {})))
    except TypeError as error:
        names = ", ".join(each.name for each in dataclasses.fields(kind))
        raise ValueError(
            f"{field} must hold settings of {kind.__name__}: {error}. It has {names}."
        ) from error


def _check_floor(floor: float) -> None:
    if not floor > 0:
        raise ValueError(
            f"floor must be positive, for silence has no energy; got {floor:g}. Give a small one."
        )


def _ratio(
    error: Float[Array, "rows frames *axes"],
    target: Float[Array, "rows frames *axes"],
    floor: float,
    hop_samples: int,
    lengths: Lengths | None,
) -> Float[Array, " rows"]:
    """Mean square of the error over that of the target plus `floor`, of the frames of each clip."""
    axes = tuple(range(1, error.ndim))
    size = error.size // max(error.shape[0] * error.shape[1], 1)
    if lengths is None:
        count: Any = max(error.shape[1], 1) * size
    else:
        count = jnp.maximum(lengths // hop_samples, 1).astype(error.dtype) * size
    return jnp.sum(error**2, axis=axes) / (jnp.sum(target**2, axis=axes) + floor * count)
