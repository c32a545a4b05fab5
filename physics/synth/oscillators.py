"""Exists to sound a hundred partials of one fundamental in the memory of a few.

Partials are made one after the other, by a recurrence, and summed up; time is cut into blocks that
fit the caches. The gradient makes them again.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from physics.synth import phase
from physics.synth.scale import scale_function

# Samples of all clips in a block: what is kept of each stays in the second cache.
_BLOCK_SAMPLES = 8192

# Partials between two evaluations of sines: the error grows with their number, to 1e-6 here.
_RUN_PARTIALS = 25

# A hundred partials of controls 0 lie, in power, between one partial of DDSP's and a hundred.
_OWN_BIAS = -2.0

Tones = dict[str, Array]


@functools.partial(jax.jit, static_argnames="sample_rate_hz")
def harmonic_amplitudes(
    f0_hz: Float[Array, "batch frames"],
    amplitude: Float[Array, "batch frames"],
    harmonics: Float[Array, "batch frames partials"],
    sample_rate_hz: float | int,
) -> Float[Array, "batch frames partials"]:
    """Amplitudes of partials: a loudness, shared out among those below half the sample rate.

    Engel et al. (2020), DDSP, ICLR, section 3.2: `scale_function` of both, the shares divided by
    their sum once those of partials at or above half the sample rate are 0. Unvoiced frames, those
    of f0 0, have no partial.

    Args:
      f0_hz: fundamental.
      amplitude: of all together, before the scale function.
      harmonics: shares of the partials from the first on, likewise.
      sample_rate_hz: of the audio.
    """
    shares = scale_function(harmonics)
    shares = jnp.where(_silent(f0_hz, harmonics.shape[-1], sample_rate_hz), 0, shares)
    total = jnp.sum(shares, axis=-1, keepdims=True)
    shares = shares / jnp.where(total > 0, total, 1e-7)
    return scale_function(amplitude)[..., None] * shares


@functools.partial(jax.jit, static_argnames="sample_rate_hz")
def own_amplitudes(
    f0_hz: Float[Array, "batch frames"],
    amplitude: Float[Array, "batch frames"],
    harmonics: Float[Array, "batch frames partials"],
    sample_rate_hz: float | int,
) -> Float[Array, "batch frames partials"]:
    """Amplitudes of partials that know nothing of each other; none at or above half the rate.

    `scale_function` of the sum of both and of a bias: what is learned about a partial stays true
    where a change of pitch adds others, or takes them away. DDSP's are shares of a whole.

    Args:
      f0_hz: fundamental.
      amplitude: of all together, before the scale function.
      harmonics: of each partial from the first on, likewise.
      sample_rate_hz: of the audio.
    """
    each = scale_function(amplitude[..., None] + harmonics + _OWN_BIAS)
    return jnp.where(_silent(f0_hz, harmonics.shape[-1], sample_rate_hz), 0, each)


def silence(batch: int, n_partials: int, dtype: Any) -> Tones:
    """What is before the first piece: no partial sounds."""
    return {
        "f0_hz": jnp.zeros((batch,), dtype),
        "amplitudes": jnp.zeros((batch, n_partials), dtype),
        "turns": phase.still((batch,), dtype),
    }


@functools.partial(jax.jit, static_argnames=("sample_rate_hz", "hop_samples"))
def harmonic(
    f0_hz: Float[Array, "batch frames"],
    amplitudes: Float[Array, "batch frames partials"],
    sample_rate_hz: float | int,
    hop_samples: int,
    before: Tones | None = None,
) -> tuple[Float[Array, "batch time"], Tones]:
    """Sum of amplitudes[k] sin(k phase), in which the phase is the sum of 2 pi f0 / sample rate.

    DDSP's oscillators (Engel et al., 2020), as a stream. Hop i leads from frame i - 1 to frame i:
    amplitudes by the flanks of Hann windows that overlap by half, f0 linearly. Published frames
    begin a hop where these end it, so that this is what is published for frames before which one is
    silent. Partials at or above half the sample rate are left out at every sample. A frame of f0 0
    is unvoiced: f0 is then held and not led to 0, for its amplitudes are meant to be 0.

    The phase is exact, see `phase`; its gradient passes from frame to frame, not from piece to
    piece.

    Args:
      f0_hz: fundamental at the end of each hop; 0 is unvoiced.
      amplitudes: of the partials from the first on, there.
      sample_rate_hz: of the audio.
      hop_samples: samples for each frame.
      before: as returned for the piece before; None is silence.

    Returns:
      Audio of `frames * hop_samples` samples, and what the next piece needs.
    """
    batch, n_frames, n_partials = amplitudes.shape
    if before is None:
        before = silence(batch, n_partials, f0_hz.dtype)
    after = {"f0_hz": f0_hz[:, -1], "amplitudes": amplitudes[:, -1]}
    # Phases are integers, which NaN would leave unseen.
    amplitudes = jnp.where(jnp.isnan(f0_hz)[..., None], jnp.nan, amplitudes)
    from_hz, to_hz = ends_of_hops(f0_hz, before["f0_hz"], sample_rate_hz)
    angle, turns, after["turns"] = phase.gliding(
        from_hz, to_hz, before["turns"], sample_rate_hz, hop_samples
    )
    glide = jnp.asarray(np.arange(hop_samples) / hop_samples, f0_hz.dtype)
    now_hz = from_hz[..., None] + (to_hz - from_hz)[..., None] * glide[None, None]
    earlier = jnp.concatenate(
        [before["amplitudes"].astype(amplitudes.dtype)[:, None], amplitudes[:, :-1]], axis=1
    )
    both = jnp.stack([earlier, amplitudes], axis=2)
    audio = _in_blocks(angle, turns, now_hz, both, sample_rate_hz / 2)
    return audio.reshape(batch, n_frames * hop_samples), after


def ends_of_hops(
    f0_hz: Float[Array, "batch frames"], before_hz: Float[Array, " batch"], sample_rate_hz: Any
) -> tuple[Float[Array, "batch frames"], Float[Array, "batch frames"]]:
    """f0 at the first sample of each hop, and at the first after it; held where one is unvoiced."""
    f0_hz = jnp.clip(f0_hz, 0, sample_rate_hz / 2)
    before_hz = jnp.clip(before_hz.astype(f0_hz.dtype), 0, sample_rate_hz / 2)
    from_hz = jnp.concatenate([before_hz[:, None], f0_hz[:, :-1]], axis=1)
    return jnp.where(from_hz > 0, from_hz, f0_hz), jnp.where(f0_hz > 0, f0_hz, from_hz)


def flanks(hop_samples: int) -> Float[np.ndarray, "two hop"]:
    """Weights of the frame before and of this one within a hop: halves of Hann windows."""
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(hop_samples) / hop_samples)
    return np.stack([1 - rise, rise])


def _in_blocks(angle: Array, turns: Array, now_hz: Array, both: Array, limit_hz: float) -> Array:
    """Audio `[batch, frames, hop]`, of a few frames at a time."""
    batch, n_frames, hop = turns.shape
    frames = min(n_frames, max(1, _BLOCK_SAMPLES // (batch * hop)))
    blocks = -(-n_frames // frames)
    if blocks == 1:
        return _sum(limit_hz, angle, turns, now_hz, both)

    def cut(x):
        x = jnp.pad(x, [(0, 0), (0, blocks * frames - n_frames)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(batch, blocks, frames, *x.shape[2:]), 1, 0)

    pieces = tuple(cut(x) for x in (angle, turns, now_hz, both))
    audio = lax.map(lambda piece: _sum(limit_hz, *piece), pieces)
    return jnp.moveaxis(audio, 0, 1).reshape(batch, blocks * frames, hop)[:, :n_frames]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sum(limit_hz: float, angle: Array, turns: Array, now_hz: Array, both: Array) -> Array:
    """Partials in sine phase, weighted and summed; `turns` is only there for its gradient."""
    del turns
    angle, sign = phase.near_half_turns(angle)
    weights = jnp.asarray(flanks(now_hz.shape[-1]), both.dtype)[:, None, None]

    def partial(sums, sine, k, amplitude):
        term = jnp.where(now_hz * k >= limit_hz, 0, _faded(amplitude, weights) * sine)
        return (sums[0] + term * (k % 2), sums[1] + term * (1 - k % 2)), None

    sums = (jnp.zeros_like(now_hz), jnp.zeros_like(now_hz))
    (odd, even), _ = _over_partials(partial, sums, angle, both, (jnp.sin,))
    return even + sign * odd


def _sum_forward(limit_hz, angle, turns, now_hz, both):
    return _sum(limit_hz, angle, turns, now_hz, both), (angle, turns, now_hz, both)


def _sum_backward(limit_hz, saved, audio_bar):
    angle, turns, now_hz, both = saved
    nothing = np.zeros(angle.shape, jax.dtypes.float0)
    no_angle = nothing if angle.dtype == jnp.uint32 else jnp.zeros_like(angle)
    audio_bar = audio_bar + 0 * _once(turns)
    angle, sign = phase.near_half_turns(angle)
    batch, n_frames, hop = now_hz.shape
    weights = jnp.asarray(flanks(hop), both.dtype)
    # A product, which on CPUs is quicker than sums over time.
    columns, spread = weights.T, weights[:, None, None]

    def partial(sums, sine, cosine, k, amplitude):
        silent, odd = now_hz * k >= limit_hz, k % 2
        term = jnp.where(silent, 0, k * _faded(amplitude, spread) * cosine)
        wave = jnp.where(silent, 0, audio_bar * sine * (1 - odd + odd * sign))
        of_frames = jnp.matmul(
            wave.reshape(-1, hop), columns, precision=lax.Precision.HIGHEST
        ).reshape(batch, n_frames, 2)
        return (sums[0] + term * odd, sums[1] + term * (1 - odd)), of_frames

    sums = (jnp.zeros_like(now_hz), jnp.zeros_like(now_hz))
    (odd, even), of_both = _over_partials(partial, sums, angle, both, (jnp.sin, jnp.cos))
    turns_bar = 2 * math.pi * audio_bar * (even + sign * odd)
    return no_angle, turns_bar, jnp.zeros_like(now_hz), jnp.moveaxis(of_both, 0, -1)


_sum.defvjp(_sum_forward, _sum_backward)


def _over_partials(step: Any, sums: Any, angle: Array, both: Array, functions: Any) -> Any:
    """Runs `step(sums, *waves, number, amplitude)` over all partials.

    Waves are `functions` of k times the angle, by Reinsch's recurrence of their differences (Stoer
    and Bulirsch, Introduction to Numerical Analysis, section 2.3.3), which is exact as long as the
    angle is near 0; it begins anew, at exact phases, after every few partials.
    """
    n_partials = both.shape[-1]
    runs = -(-n_partials // min(_RUN_PARTIALS, n_partials))
    length = -(-n_partials // runs)
    rows = jnp.pad(both, [(0, 0)] * 3 + [(0, runs * length - n_partials)])
    rows = jnp.moveaxis(rows, -1, 0).reshape(runs, length, *both.shape[:-1])
    numbers = jnp.arange(1, runs * length + 1, dtype=both.dtype).reshape(runs, length)
    bend = 4 * jnp.sin(phase.radians(angle, jnp.ones((), both.dtype)) / 2) ** 2

    def run(sums, given):
        now, before = (phase.radians(angle, given[0][0] - n) for n in (0, 1))
        waves = tuple((f(now), f(now) - f(before)) for f in functions)

        def one(carry, given):
            sums, waves = carry
            sums, told = step(sums, *(wave for wave, _ in waves), *given)
            turned = [(wave, slope - bend * wave) for wave, slope in waves]
            return (sums, tuple((wave + slope, slope) for wave, slope in turned)), told

        (sums, _), told = lax.scan(one, (sums, waves), given)
        return sums, told

    sums, told = lax.scan(run, sums, (numbers, rows))
    return sums, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n_partials], told)


def _faded(amplitude: Array, weights: Array) -> Array:
    """Amplitude in a hop, of those of the frame before and of this one, `[batch, frames, 2]`."""
    return amplitude[..., :1] * weights[0] + amplitude[..., 1:] * weights[1]


@jax.custom_jvp
def _once(turns: Array) -> Array:
    """The same; a gradient of the gradient, in which the phase would be left out, is refused."""
    return turns


@_once.defjvp
def _once_jvp(primals, tangents):
    raise NotImplementedError(
        "Oscillators have first derivatives only, for their phases are integers; a derivative of a "
        "gradient was asked for. Leave f0 and amplitudes out of it (jax.lax.stop_gradient)."
    )


def partials_hz(
    f0_hz: Float[Array, "batch frames"], n_partials: int
) -> Float[Array, "batch frames partials"]:
    """Frequencies of the partials of a fundamental, from the first on."""
    return f0_hz[..., None] * _numbers(n_partials, f0_hz.dtype)[None, None]


def _silent(f0_hz: Array, n_partials: int, sample_rate_hz: float | int) -> Array:
    return (partials_hz(f0_hz, n_partials) >= sample_rate_hz / 2) | (f0_hz <= 0)[..., None]


def _numbers(n_partials: int, dtype: Any) -> Array:
    return jnp.asarray(np.arange(1, n_partials + 1), dtype)
