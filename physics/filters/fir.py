"""Exists to convolve signals with short filters that are learned, as a stream, at FFT speed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from scipy import fft

from physics import audio as ears
from physics.base import Parameter, Params
from physics.filters.frames import Filters
from physics.spectra import short_time

METHODS = ("auto", "direct", "fft")

# Up to so many taps a sum of shifted signals is quicker than transforms, its gradient included;
# measured on a CPU.
_FEW_TAPS = 8
# A transform of this size and its spectrum stay in a core's nearest caches.
_SMALL_FFT = 4096


def convolve(
    audio: Float[Array, "*channels time"],
    taps: Float[Array, "*own taps"],
    past: Float[Array, "*channels past"] | None = None,
    method: str = "auto",
) -> tuple[Float[Array, "*filtered time"], Float[Array, "*channels past"]]:
    """y[n] = taps[0] x[n] + taps[1] x[n-1] + ...: causal convolution of a piece of a stream.

    Differentiable in the audio, the taps and the past. Long signals are cut into overlapping blocks
    (overlap-save; Oppenheim & Schafer, Discrete-Time Signal Processing, section 8.7.3), which also
    keeps the rounding errors of loud passages away from soft ones.

    Args:
      audio: x, at least one sample.
      taps: `[taps]`, or with axes before, which are broadcast against the last axes before time.
      past: the `taps - 1` samples before, as returned for the piece before; None is silence.
      method: "direct" sums shifted signals, "fft" multiplies spectra, "auto" takes the quicker one.

    Returns:
      y, and the `past` of the next piece.

    Raises:
      ValueError: no such method.
    """
    ears.one_of("method", method, METHODS)
    n_past = taps.shape[-1] - 1
    if past is None:
        past = jnp.zeros((*audio.shape[:-1], n_past), audio.dtype)
    whole = jnp.concatenate([past, audio], axis=-1)
    taps = taps.reshape((1,) * (audio.ndim - taps.ndim) + taps.shape)
    direct = n_past < _FEW_TAPS if method == "auto" else method == "direct"
    y = (_direct if direct else _by_blocks)(whole, taps)
    return y, whole[..., audio.shape[-1] :]


@jax.custom_vjp
def _direct(whole: Any, taps: Any) -> Any:
    n_past = taps.shape[-1] - 1
    time = whole.shape[-1] - n_past
    return sum(
        (taps[..., k : k + 1] * whole[..., n_past - k : n_past - k + time] for k in range(n_past)),
        taps[..., n_past:] * whole[..., :time],
    )


def _direct_forward(whole, taps):
    return _direct(whole, taps), (whole, taps)


def _direct_backward(saved, y_bar):
    whole, taps = saved
    n_past, time = taps.shape[-1] - 1, y_bar.shape[-1]
    ends = [(0, 0)] * (y_bar.ndim - 1) + [(n_past, n_past)]
    whole_bar = _direct(jnp.pad(y_bar, ends), taps[..., ::-1])
    # A product with ones, which on CPUs is far quicker than a sum over time.
    ones = jnp.ones((time, 1), y_bar.dtype)
    products = (whole[..., n_past - k : n_past - k + time] * y_bar for k in range(n_past + 1))
    sums = [jnp.matmul(p, ones, precision=lax.Precision.HIGHEST) for p in products]
    return _unbroadcast(whole_bar, whole), _unbroadcast(jnp.concatenate(sums, axis=-1), taps)


_direct.defvjp(_direct_forward, _direct_backward)


def _unbroadcast(x: Array, like: Array) -> Array:
    """Sums over the axes along which `like` was repeated, and over those that it lacks."""
    x = jnp.sum(x, axis=tuple(range(x.ndim - like.ndim)))
    axes = tuple(i for i, n in enumerate(like.shape) if n == 1 and x.shape[i] != 1)
    return jnp.sum(x, axis=axes, keepdims=True)


def _by_blocks(whole: Array, taps: Array) -> Array:
    n_past = taps.shape[-1] - 1
    time = whole.shape[-1] - n_past
    least = int(fft.next_fast_len(whole.shape[-1], real=True) or 0)
    size = min(least, max(_SMALL_FFT, 1 << (8 * n_past - 1).bit_length()))
    hop = size - n_past
    blocks = -(-time // hop)
    ends = [(0, 0)] * (whole.ndim - 1) + [(0, blocks * hop + n_past - whole.shape[-1])]
    pieces = short_time.frames(jnp.pad(whole, ends), size, hop)
    spectrum = jnp.fft.rfft(pieces) * jnp.fft.rfft(taps, size)[..., None, :]
    # What the circle wraps around falls into the first `n_past` samples of a block.
    y = jnp.fft.irfft(spectrum, size)[..., n_past:]
    return y.reshape(*y.shape[:-2], blocks * hop)[..., :time]


@dataclasses.dataclass(frozen=True)
class Fir(Filters):
    """Filters of learned taps, a channel each: their outputs, or their levels in frames.

    Attributes:
      n_taps: of each filter.
      initial_taps: those to begin with, a sequence for each channel, filled up with zeros.
      limit: taps stay within plus and minus this.
    """

    n_taps: int = 64
    initial_taps: Sequence[Any] = ((1.0,),)
    limit: float | int = 4.0

    def __post_init__(self):
        super().__post_init__()
        ears.check_positive(self, "n_taps", "limit")
        rows = tuple(tuple(map(float, row)) for row in self.initial_taps)
        object.__setattr__(self, "initial_taps", rows)
        if not rows or max(map(len, rows)) > self.n_taps:
            raise ValueError(
                "initial_taps must be a sequence of at most n_taps numbers for each channel; got "
                f"{len(rows)} of lengths {[len(row) for row in rows]} with n_taps={self.n_taps}. "
                "Take a larger n_taps."
            )

    def specs(self) -> Params:
        """The taps, `[channels, n_taps]`."""
        doc = "Response of a channel, so many samples after a click as its number says."
        source = "Initial: the caller's (by default the sound itself). Bounds are ours."
        return {"taps": Parameter("1", -self.limit, self.limit, doc, source)}

    def init(self, key: Any = None) -> Params:
        """Initial params; `key` is not used."""
        del key
        taps = np.zeros((len(self.initial_taps), self.n_taps))
        for channel, row in enumerate(self.initial_taps):
            taps[channel, : len(row)] = row
        return self.raw({"taps": taps})

    def init_filters(self, batch: int) -> Array:
        """Silence before the clip."""
        return jnp.zeros((batch, self.n_ears, 1, self.n_taps - 1))

    def filtered(self, physical: Params, audio: Any, state: Any) -> tuple[Any, Any]:
        """Outputs of the channels."""
        return convolve(audio[:, :, None], physical["taps"], state)
