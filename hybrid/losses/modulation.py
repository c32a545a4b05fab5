"""The loss of modulations of a log-mel spectrogram, as spectrotemporal receptive fields hear them.

Vuong, Xia & Stern, "A modulation-domain loss for neural-network-based real-time speech enhancement"
(ICASSP 2021, arXiv 2102.07330).
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from hybrid.losses import clips
from hybrid.losses.base import Lengths, RowLoss, Rows
from physics.audio import check_positive, samples
from physics.spectra import filterbank, frames, power

Pairs = tuple[tuple[float, float], ...]

_REACH = 15
_SUPPORT = 2 * _REACH + 1
# Frames that are filtered in time by one matrix product.
_BLOCK = 32


def log_grid(
    rates_hz: Sequence[float] = tuple(np.geomspace(4.8, 28.0, 5).tolist()),
    scales_cyc_per_channel: Sequence[float] = tuple(np.geomspace(0.04, 0.32, 3).tolist()),
) -> Pairs:
    """Each rate with each scale, in both directions, within the ranges that the authors learned.

    A ripple moves down in frequency where rate and scale have the same sign, up where not.
    """
    signed = [*scales_cyc_per_channel, *(-scale for scale in scales_cyc_per_channel)]
    return tuple((float(rate), float(scale)) for rate in rates_hz for scale in signed)


@dataclasses.dataclass(frozen=True)
class StrfLoss(RowLoss):
    """Energy of the error over that of the target, of what receptive fields make of them.

    A log-mel spectrogram is correlated with pairs of kernels, a cosine and a sine of a rate and a
    scale under Hann windows of 31 frames and 31 channels, each of norm one; beyond its edges it is
    0. Energies are sums over kernels, frames and channels; the ratio is averaged over clips.

    Attributes:
        sample_rate_hz: of the audio.
        pairs: (rate in Hz, scale in cycles per channel) of each pair of kernels.
        n_mels: channels (HTK's scale, triangles of peak 1).
        hop_s: seconds per frame.
        window_s: length of the Hann window.
        n_fft: size of the transform; None takes the next power of two from the window on.
        floor: added to the power of a band before the natural logarithm.
    """

    sample_rate_hz: float | int
    pairs: Sequence[Sequence[float | int]] = log_grid()
    n_mels: int = 80
    hop_s: float | int = 0.01
    window_s: float | int = 0.032
    n_fft: int | None = None
    floor: float = 1e-8

    def __post_init__(self) -> None:
        """Checks the settings."""
        pairs = tuple((float(rate), float(scale)) for rate, scale in self.pairs)
        object.__setattr__(self, "pairs", pairs)
        check_positive(self, "sample_rate_hz", "n_mels", "hop_s", "window_s", "n_fft", "floor")
        clips.check_transform(self.transform_samples, self.window_samples, self.hop_samples, "hann")
        fastest = self.sample_rate_hz / self.hop_samples / 2
        if not pairs or any(abs(r) > fastest or abs(s) > 0.5 for r, s in pairs):
            raise ValueError(
                f"pairs must hold a rate within {fastest:g} Hz (half the frame rate) and a scale "
                f"within 0.5 cycles per channel, once or more; got {pairs}. Leave the others out."
            )

    @property
    def hop_samples(self) -> int:
        """Samples per frame."""
        return samples(self.hop_s, self.sample_rate_hz)

    @property
    def window_samples(self) -> int:
        """Samples that a frame sees."""
        return samples(self.window_s, self.sample_rate_hz)

    @property
    def transform_samples(self) -> int:
        """Size of the Fourier transform."""
        least = max(2, 1 << (self.window_samples - 1).bit_length())
        return least if self.n_fft is None else self.n_fft

    def rows(self, estimate: Rows, target: Rows, lengths: Lengths | None) -> Float[Array, " rows"]:
        """See `RowLoss.rows`."""
        heard = self.log_mel(target, lengths)
        # Receptive fields are linear: what they make of the error is the error of what they make.
        error = self._energy(self.log_mel(estimate, lengths) - heard, lengths)
        energy = self._energy(heard, lengths)
        return error / jnp.where(energy > 0, energy, jnp.ones_like(energy))

    def log_mel(self, audio: Rows, lengths: Lengths | None) -> Float[Array, "rows frames channels"]:
        """Natural logarithm of mel bands, frames centred; 0 in frames that a clip does not have."""
        reach = clips.reach_samples(self.window_samples)
        longer = clips.mirrored(audio, lengths, reach)
        settings = (self.window_samples, self.hop_samples, self.transform_samples)
        powers = power(clips.spectra(longer, reach, "hann", *settings))
        bands = filterbank(powers.shape[-1], self.n_mels, self.sample_rate_hz)
        logs = jnp.log(powers @ jnp.asarray(bands, powers.dtype) + self.floor)
        if lengths is None:
            return logs
        mask = clips.frame_mask(logs.shape[1], self.hop_samples, lengths)
        return jnp.where(mask[..., None], logs, jnp.zeros((), logs.dtype))

    def kernels(self) -> Float[np.ndarray, "pairs parts frames channels"]:
        """The kernels, `[pairs, 2, 31, 31]`: cosine and sine."""
        return _kernels(self.pairs, self.sample_rate_hz / self.hop_samples)[0]

    def _energy(
        self, features: Float[Array, "rows frames channels"], lengths: Lengths | None
    ) -> Float[Array, " rows"]:
        """Sum of squares over kernels, frames and channels.

        A plane wave under separable windows is one filter in time and one along the channels, in
        complex numbers. And as no more than the energy is asked for, all scales of a rate share one
        matrix, whose product with a frame has the sum of their squares.
        """
        rows, n_frames, channels = features.shape
        in_time, along = _filters(self.pairs, self.sample_rate_hz / self.hop_samples, channels)
        in_time, along = (jnp.asarray(x, features.dtype) for x in (in_time, along))
        blocks = -(-n_frames // _BLOCK)
        after = _REACH + blocks * _BLOCK - n_frames
        padded = jnp.pad(jnp.swapaxes(features, 1, 2), ((0, 0), (0, 0), (_REACH, after)))
        pieces = frames(padded, _BLOCK + 2 * _REACH, _BLOCK)
        filtered = jnp.einsum("bckj,jrpi->rbkipc", pieces, in_time)
        filtered = filtered.reshape(along.shape[0], rows, blocks * _BLOCK, 2 * channels)
        # Beyond the end of a clip filters still hear it; what they say there does not count.
        if lengths is None:
            filtered = filtered[:, :, :n_frames]
        else:
            mask = clips.frame_mask(blocks * _BLOCK, self.hop_samples, lengths)
            filtered = jnp.where(mask[None, :, :, None], filtered, jnp.zeros((), filtered.dtype))
        return jnp.sum(jnp.einsum("rbtc,rdc->rbtd", filtered, along) ** 2, axis=(0, 2, 3))


def _waves(turns: float) -> Float[np.ndarray, "parts taps"]:
    """Cosine and sine under the window, for so many turns from tap to tap."""
    taps = np.arange(_SUPPORT)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (taps + 1) / (_SUPPORT + 1))
    phase = 2 * np.pi * turns * (taps - _REACH)
    return np.stack([np.cos(phase), np.sin(phase)]) * window


@functools.lru_cache(maxsize=16)
def _kernels(
    pairs: Pairs, frame_rate_hz: float
) -> tuple[Float[np.ndarray, "pairs parts n k"], Float[np.ndarray, "pairs parts"]]:
    """Kernels of norm one, and the norms that they had."""
    kernels = []
    for rate_hz, scale in pairs:
        (c, s), (cos, sin) = _waves(rate_hz / frame_rate_hz), _waves(scale)
        real = np.outer(c, cos) - np.outer(s, sin)
        kernels.append(np.stack([real, np.outer(s, cos) + np.outer(c, sin)]))
    norms = np.linalg.norm(kernels, axis=(2, 3))
    # The sine of a pair that does not turn is nothing, and stays so.
    norms = np.where(norms > 1e-9, norms, np.inf)
    return np.stack(kernels) / norms[:, :, None, None], norms


@functools.lru_cache(maxsize=16)
def _filters(
    pairs: Pairs, frame_rate_hz: float, channels: int
) -> tuple[Float[np.ndarray, "taps rates parts block"], Float[np.ndarray, "rates both both"]]:
    """Each rate's filter in time as a matrix, and what stands for its scales; see `_energy`."""
    rates = sorted({rate for rate, _ in pairs})
    _, norms = _kernels(pairs, frame_rate_hz)
    in_time = np.zeros((_BLOCK + 2 * _REACH, len(rates), 2, _BLOCK))
    along = np.zeros((len(rates), 2 * channels, 2 * channels))
    for i, own_hz in enumerate(rates):
        waves = _waves(own_hz / frame_rate_hz)
        for frame in range(_BLOCK):
            in_time[frame : frame + _SUPPORT, i, :, frame] = waves.T
        stack = []
        for (rate_hz, scale), norm in zip(pairs, norms, strict=True):
            if rate_hz == own_hz:
                cos, sin = (_correlation(wave, channels) for wave in _waves(scale))
                stack += [np.hstack([cos, -sin]) / norm[0], np.hstack([sin, cos]) / norm[1]]
        # R of Q R: Q, whose columns are orthonormal, changes no sum of squares.
        along[i] = np.linalg.qr(np.vstack(stack), mode="r")
    return in_time, along


def _correlation(taps: np.ndarray, channels: int) -> Float[np.ndarray, "channels channels"]:
    """The matrix that correlates channels with taps, with 0 beyond the edges."""
    after, before = np.zeros(channels), np.zeros(channels)
    within = min(_REACH + 1, channels)
    after[:within] = taps[_REACH:][:within]
    before[:within] = taps[_REACH::-1][:within]
    return scipy.linalg.toeplitz(before, after)
