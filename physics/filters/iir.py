"""Exists because recursive filters are slow and dear to derive sample by sample, and need not be.

Within a block of samples a recursion is a product with its impulse response, and between blocks
only its last outputs matter: one product of matrices over all blocks, and a short loop over their
ends. Its derivative by the signal is the same recursion run backwards in time, and that by its
coefficients a correlation of the result with the output, so the gradient costs one more filter.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from physics.filters import fir

# Samples in a block: measured on a CPU, 16 to 64 cost the same, larger ones more.
_BLOCK = 32

# Orders whose coefficients are those of differences.
_SLOW = (1, 2)


def all_pole(
    audio: Float[Array, "*channels time"],
    a: Float[Array, "*own order"],
    past: Float[Array, "*channels order"] | None = None,
) -> tuple[Float[Array, "*channels time"], Float[Array, "*channels order"]]:
    """y[n] = x[n] - a[0] y[n-1] - ... - a[p-1] y[n-p].

    Differentiable, to any order, in reverse mode. In float32 first and second orders are as exact
    as their coefficients; higher ones suffer from poles that lie close together, as everywhere:
    split them into sections (`sosfilt`).

    Args:
      audio: x; its last axes before time are the channels of `a`.
      a: coefficients after the leading 1, `[order]`, or `[..., order]` for channels of their own.
      past: y[-1], y[-2], ..., as returned for the piece before; None is silence.

    Returns:
      y, and the `past` of the next piece.

    Raises:
      ValueError: `audio` lacks the channels of `a`.
    """
    if a.shape[-1] == 0:
        return audio, audio[..., :0]
    if a.shape[-1] not in _SLOW:
        return recursion(audio, a, jnp.zeros(a.shape[:-1], bool), past)
    fast = a[..., 0] > 0
    first = jnp.where(fast, -a[..., 0], a[..., 0])
    if a.shape[-1] == 1:
        return recursion(audio, (1 + first)[..., None], fast, past)
    # In this order the differences are exact where they are small.
    damping = 1 - a[..., 1]
    return recursion(audio, jnp.stack([(2 + first) - damping, damping], axis=-1), fast, past)


def recursion(
    audio: Float[Array, "*channels time"],
    c: Float[Array, "*own order"],
    fast: Bool[Array, "*own"],
    past: Float[Array, "*channels order"] | None = None,
) -> tuple[Float[Array, "*channels time"], Float[Array, "*channels order"]]:
    """`all_pole` by coefficients that keep their precision where poles are slow.

    Slow poles lie near z = 1, where a[0] is nearly -2, a[1] nearly 1, and all that matters is how
    far they are from that. So the second order takes c[0] = 1 + a[0] + a[1], the stiffness, and
    c[1] = 1 - a[1], the damping, and the first c[0] = 1 + a[0], the leak: both small and exact.
    Above that c = a. Compare the delta operator of Middleton & Goodwin (1986), IEEE Trans.
    Automatic Control 31, 1015. Poles near z = -1 are brought there by turning every other sample.

    Args:
      audio: as for `all_pole`.
      c: as above; where `fast`, those of the filter with -a[0] in place of a[0].
      fast: filters whose poles are nearer to z = -1; none of order 3 or more.
      past: as for `all_pole`.

    Returns:
      As `all_pole`.

    Raises:
      ValueError: as `all_pole`.
    """
    order, own = c.shape[-1], c.shape[:-1]
    lead = _lead(audio, own)
    if past is None:
        past = jnp.zeros((*audio.shape[:-1], order), audio.dtype)
    flat = (int(np.prod(lead)), int(np.prod(own)), audio.shape[-1])
    x, before = audio.reshape(flat), past.reshape(*flat[:2], order)
    y = _either_end(x, c.reshape(-1, order), fast.reshape(-1), before).reshape(audio.shape)
    return y, jnp.concatenate([past[..., ::-1], y], axis=-1)[..., : -order - 1 : -1]


def lfilter(
    b: Float[Array, "*own taps"],
    a: Float[Array, "*own order"],
    audio: Float[Array, "*channels time"],
    past: tuple[Array, Array] | None = None,
) -> tuple[Float[Array, "*channels time"], tuple[Array, Array]]:
    """A filter of zeros and poles; `scipy.signal.lfilter` with its leading 1 of `a` left out.

    Args:
      b: of x[n], x[n-1], ...
      a: of y[n-1], y[n-2], ..., divided by that of y[n].
      audio: see `all_pole`.
      past: as returned for the piece before; None is silence.

    Returns:
      The filtered audio, and the `past` of the next piece.
    """
    inputs, outputs = (None, None) if past is None else past
    driven, inputs = fir.convolve(audio, b, inputs)
    y, outputs = all_pole(driven, a, outputs)
    return y, (inputs, outputs)


def sosfilt(
    sos: Float[Array, "*own sections 6"],
    audio: Float[Array, "*channels time"],
    past: tuple[Array, Array] | None = None,
) -> tuple[Float[Array, "*channels time"], tuple[Array, Array]]:
    """Second-order sections in turn, rows [b0, b1, b2, a0, a1, a2]; as `scipy.signal.sosfilt`.

    Args:
      sos: the sections, `[sections, 6]`, or `[..., sections, 6]` for channels of their own.
      audio: see `all_pole`.
      past: as returned for the piece before; None is silence.

    Returns:
      The filtered audio, and the `past` of the next piece.

    Raises:
      ValueError: as `all_pole`.
    """
    _lead(audio, sos.shape[:-2])
    rows = jnp.moveaxis(sos / sos[..., 3:4], -2, 0)
    if past is None:
        rest = jnp.zeros((rows.shape[0], *audio.shape[:-1], 2), audio.dtype)
        past = (rest, rest)

    def section(audio, row_and_past):
        row, before = row_and_past
        return lfilter(row[..., :3], row[..., 4:], audio, before)

    return lax.scan(section, audio, (rows, past))


def _lead(audio: Any, own: tuple[int, ...]) -> tuple[int, ...]:
    """Axes of audio before those of the filters' channels."""
    lead = audio.shape[: audio.ndim - 1 - len(own)]
    if (*lead, *own) != audio.shape[:-1]:
        raise ValueError(
            "Audio must have the channels of the filter before time; got audio of shape "
            f"{audio.shape} and filters of shape {own}. Broadcast the audio first."
        )
    return lead


@jax.jit
def _either_end(x, c, fast, past):
    order = c.shape[1]
    if order not in _SLOW:
        return _recursion(x, c, past)
    odd = np.arange(-order, x.shape[-1]) % 2 == 1
    sign = jnp.where(fast[:, None] & odd[None], -1, 1).astype(x.dtype)[None]
    before, now = sign[..., order - 1 :: -1], sign[..., order:]
    return _recursion(x * now, c, past * before) * now


@jax.custom_vjp
def _recursion(x, c, past):
    """Of `[batch, channels, time]`, c `[channels, order]`, past `[batch, channels, order]`."""
    batch, channels, time = x.shape
    blocks = -(-time // _BLOCK)
    powers = _powers(c)
    # What the memory is after an input of 1, and n samples later.
    kick = jnp.ones_like(c) if c.shape[1] in _SLOW else jnp.zeros_like(c).at[:, 0].set(1)
    echo = kick[:, None] + _einsum("cnpq,cq->cnp", powers[:, :-1], kick)
    echo = jnp.concatenate([kick[:, None], echo], axis=1)
    delay = np.arange(_BLOCK)[:, None] - np.arange(_BLOCK)
    from_x = jnp.where((delay >= 0)[None], echo[:, :, 0][:, np.maximum(delay, 0)], 0)
    first = np.zeros((1, 1, c.shape[1]))
    first[..., 0] = 1
    from_memory = powers[:, :, 0] + jnp.asarray(first, c.dtype)

    padded = jnp.pad(x, ((0, 0), (0, 0), (0, blocks * _BLOCK - time)))
    padded = padded.reshape(batch, channels, blocks, _BLOCK)
    forced = _einsum("bcjl,cml->bcjm", padded, from_x)
    ends = _einsum("bcjl,clp->jbcp", padded, echo[:, ::-1])

    def step(memory, end):
        return memory + (_einsum("cpq,bcq->bcp", powers[:, -1], memory) + end), memory

    _, memories = lax.scan(step, jnp.stack(_basis(list(jnp.moveaxis(past, -1, 0))), -1), ends)
    y = forced + _einsum("jbcp,clp->bcjl", memories, from_memory)
    return y.reshape(batch, channels, blocks * _BLOCK)[..., :time]


def _basis(delayed: list[Array]) -> list[Array]:
    """What coefficients multiply, of y[n-1], y[n-2], ...: differences, for low orders."""
    if len(delayed) == 2:
        return [delayed[0], delayed[0] - delayed[1]]
    return delayed


def _powers(c: Array) -> Array:
    """A^1 - 1, A^2 - 1, ..., `[channels, block, order, order]`, of the step A of the memory.

    By doubling. The 1 is left out so that slow decays keep their precision.
    """
    channels, order = c.shape
    if order in _SLOW:
        ahead = np.triu(np.ones((order, order)), 1)
        power = jnp.asarray(ahead, c.dtype)[None] - c[:, None]
    else:
        shift = np.eye(order, k=-1) - np.eye(order)
        power = jnp.asarray(np.broadcast_to(shift, (channels, order, order)), c.dtype)
        power = power.at[:, 0].add(-c)
    powers = power[:, None]
    while powers.shape[1] < _BLOCK:
        last = powers[:, -1]
        further = powers + (last[:, None] + _einsum("cnpq,cqr->cnpr", powers, last))
        powers = jnp.concatenate([powers, further], axis=1)
    return powers


def _forward(x, c, past):
    y = _recursion(x, c, past)
    return y, (c, past, y)


def _backward(saved, y_bar):
    c, past, y = saved
    time, order = y.shape[-1], c.shape[1]
    x_bar = _recursion(y_bar[..., ::-1], c, jnp.zeros_like(past))[..., ::-1]
    whole = jnp.concatenate([past[..., ::-1], y], axis=-1)
    delayed = _basis([whole[..., order - k : order - k + time] for k in range(1, order + 1)])
    # A product with ones, which on CPUs is far quicker than a sum over time.
    products = jnp.stack([x_bar * y for y in delayed], axis=2)
    c_bar = -jnp.sum(_einsum("bcpt,tu->bcpu", products, jnp.ones((time, 1), y.dtype)), axis=(0, 3))
    # y[n] hears the output m + 1 samples before the piece by -a[n + m], for as long as it has it.
    a = {1: lambda: c - 1, 2: lambda: jnp.stack([c[:, 0] + c[:, 1] - 2, 1 - c[:, 1]], axis=1)}.get(
        order, lambda: c
    )()
    first = x_bar[..., :order]
    first = jnp.pad(first, ((0, 0), (0, 0), (0, order - first.shape[-1])))
    hears = np.arange(order)[:, None] + np.arange(order)
    weights = jnp.where((hears < order)[None], a[:, np.minimum(hears, order - 1)], 0)
    return x_bar, c_bar, -_einsum("bcn,cnm->bcm", first, weights)


_recursion.defvjp(_forward, _backward)


def _einsum(formula: str, *arrays: Array) -> Array:
    return jnp.einsum(formula, *arrays, precision=lax.Precision.HIGHEST)
