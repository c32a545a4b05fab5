"""Exists to see the cochlea as a bank of filters: its response to sounds too small to change it.

At rest the outer hair cells feel no velocity, so their non-linearity stands at its value there,
nlf(0) = 1 / (1 + velocity_offset^2), and to first order does not move: the cascade is linear. With
the names of `structures.CarCoefficients`, q = exp(-2 pi i f / sample rate), u the undamping that
the gain control leaves (`undamping_range` * relative undamping * OHC health) and g the stage gain:

    d = damping - u * nlf(0)                            (linear_car: d = damping - u)
    r = 1 - d
    stage(f) = g * (1 + zero * r * sin * q / ((1 - r q)^2 + 2 r one_minus_cos q))
    coupling(f) = (1 - q) / (1 - q + ac_rate * q)
    H_c(f) = coupling_c(f) * stage_0(f) * ... * stage_c(f)

and with a delay buffer H_c(f) is multiplied by q^c. The denominator of a stage is that of a
coupled-form resonator, 1 - 2 r cos q + r^2 q^2 (Lyon, "Human and Machine Hearing", 2017,
chapter 16), written so that nothing cancels near 0 Hz.

Everything is differentiable in the parameters and has their dtype. Where functions take
`undamping` and `state`, these mean what `transfer_functions` says.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from physics.carfac import agc, ear
from physics.carfac.model import Carfac, FramedState
from physics.carfac.structures import CarCoefficients, State

# Of the grid on which peaks are found, to be refined by Newton's method, and skirts are measured.
_LOWEST_HZ, _POINTS_PER_OCTAVE = 2.0, 150
_NEWTON_STEPS = 4


def transfer_functions(
    model: Carfac,
    params: Any,
    frequencies_hz: Any,
    *,
    undamping: Any = None,
    state: State | FramedState | None = None,
) -> Complex[Array, "*axes channels frequencies"]:
    """Small-signal response of each channel, from the cochlea's input to BM motion (`bm`).

    The input is that of the cascade, where 1.0 is 100 dB SPL: neither `full_scale_db_spl` nor an
    outer and middle ear has a part in it.

    Args:
      model: whose options (delay buffer, linear CAR, ears) count.
      params: as from `init`; OHC health is among them.
      frequencies_hz: `[frequencies]`, from 0 to half of the sample rate.
      undamping: relative undamping that the gain control leaves, 1 at rest, 0 where it acts fully;
        OHC health multiplies it. A scalar, `[channels]`, `[ears, 1]` or `[ears, channels]`; None
        is 1, the equilibrium of silence.
      state: take undamping and stage gains from this state of a run instead.

    Returns:
      `[channels, frequencies]`, or `[ears, channels, frequencies]` for several ears; with a `state`
      a leading axis of its clips.

    Raises:
      ValueError: frequencies are empty, not `[frequencies]`, or out of range; `undamping` has
        another shape, or is given together with `state`.
    """
    car, held, gain = _cascade(model, params, undamping, state)
    frequencies = check_frequencies(model, frequencies_hz).astype(gain.dtype)
    frequencies = frequencies[(None,) * held.ndim]
    return _drop_ear(model, _response(model, car, held, gain, frequencies), 3)


def gain_db(
    model: Carfac,
    params: Any,
    frequencies_hz: Any,
    *,
    undamping: Any = None,
    state: State | FramedState | None = None,
) -> Float[Array, "*axes channels frequencies"]:
    """Magnitude of `transfer_functions` in dB, which does not underflow far above a channel."""
    car, held, gain = _cascade(model, params, undamping, state)
    frequencies = check_frequencies(model, frequencies_hz).astype(gain.dtype)
    level = _log_gain(model, car, held, gain, frequencies[(None,) * held.ndim])
    return _drop_ear(model, level * (20 / math.log(10)), 3)


def best_frequencies_hz(
    model: Carfac,
    params: Any,
    *,
    undamping: Any = None,
    state: State | FramedState | None = None,
) -> Float[Array, "*axes channels"]:
    """Frequency at which each channel responds most to small signals.

    Returns:
      `[channels]` or `[ears, channels]`; with a `state` a leading axis of its clips.
    """
    peaks, _, _ = _peaks(model, *_cascade(model, params, undamping, state))
    return _drop_ear(model, jnp.exp(peaks), 2)


def q10(
    model: Carfac,
    params: Any,
    *,
    undamping: Any = None,
    state: State | FramedState | None = None,
) -> Float[Array, "*axes channels"]:
    """Best frequency over the bandwidth 10 dB below the peak; shaped as `best_frequencies_hz`.

    NaN where a side of the response does not fall by 10 dB, as between a basal channel's peak and
    half of the sample rate. Where the peak hardly rises above the tail, as without outer hair
    cells, the lower edge is where the high-pass before the inner hair cells lets the tail fall.
    """
    peaks, top, level = _peaks(model, *_cascade(model, params, undamping, state))
    grid, drop = _grid(model, level.dtype), math.log(10) / 2
    outside = level < (top - drop)[..., None]
    along = (None,) * peaks.ndim
    above, position = grid[along] >= peaks[..., None], jnp.arange(grid.size)[along]
    # The nearest points outside, on either side of the peak.
    low = jnp.max(jnp.where(outside & ~above, position, -1), axis=-1)
    high = jnp.min(jnp.where(outside & above, position, grid.size), axis=-1)

    def edge(nearest: Array, toward: int) -> Array:
        found = (nearest >= 0) & (nearest < grid.size)
        a = jnp.where(found, nearest, 1)
        fall = jnp.take_along_axis(level, a[..., None], -1)[..., 0]
        rise = jnp.take_along_axis(level, (a + toward)[..., None], -1)[..., 0] - fall
        share = (top - drop - fall) / jnp.where(found, rise, 1)
        crossing = grid[a] + share * (grid[a + toward] - grid[a])
        return jnp.where(found, jnp.exp(crossing), jnp.nan)

    return _drop_ear(model, jnp.exp(peaks) / (edge(high, -1) - edge(low, 1)), 2)


def erb_hz(
    model: Carfac,
    params: Any,
    *,
    undamping: Any = None,
    state: State | FramedState | None = None,
) -> Float[Array, "*axes channels"]:
    """Equivalent rectangular bandwidth: the integral of the power response over its peak.

    Shaped as `best_frequencies_hz`.
    """
    peaks, top, level = _peaks(model, *_cascade(model, params, undamping, state))
    frequencies = jnp.exp(_grid(model, level.dtype))
    power = jnp.exp(2 * (level - top[..., None]))
    widths = (frequencies[1:] - frequencies[:-1])[(None,) * peaks.ndim]
    area = jnp.sum(0.5 * (power[..., 1:] + power[..., :-1]) * widths, axis=-1)
    return _drop_ear(model, area, 2)


def tuning_curve(
    model: Carfac,
    params: Any,
    frequencies_hz: Any,
    channel: int,
    criterion: Any,
    *,
    undamping: Any = None,
    state: State | FramedState | None = None,
) -> Float[Array, "*axes frequencies"]:
    """Level at which a tone moves a channel's BM by `criterion`, if nothing saturates.

    Args:
      model: the cochlea.
      params: as from `init`.
      frequencies_hz: `[frequencies]`, from above 0 to half of the sample rate.
      channel: from 0 at the base; negative ones count from the apex.
      criterion: amplitude (peak) of `bm`.
      undamping: see `transfer_functions`.
      state: see `transfer_functions`.

    Returns:
      Levels in dB SPL, `[frequencies]`, or `[ears, frequencies]` for several ears; with a `state` a
      leading axis of its clips.

    Raises:
      ValueError: as of `transfer_functions`; or there is no such channel.
    """
    check_channel(model, channel)
    gains = gain_db(model, params, frequencies_hz, undamping=undamping, state=state)
    return level_db_spl(model, frequencies_hz, gains[..., channel, :], criterion)


def level_db_spl(
    model: Carfac, frequencies_hz: Any, gains_db: Float[Array, "*axes frequencies"], criterion: Any
) -> Float[Array, "*axes frequencies"]:
    """Level in the sound field of a tone that moves the BM by `criterion`.

    Args:
      model: whose outer and middle ear counts, if it has one; then JAX must not trace frequencies.
      frequencies_hz: of the tone.
      gains_db: what the cochlea makes of it, as from `gain_db`.
      criterion: amplitude (peak) of `bm`.
    """
    if model.ear_filter != "none":
        ear_db = ear.transfer_db(np.asarray(frequencies_hz, np.float64), model.sound_field)
        gains_db = gains_db + jnp.asarray(ear_db, gains_db.dtype)[(None,) * (gains_db.ndim - 1)]
    return 100 + 20 * jnp.log10(jnp.asarray(criterion, gains_db.dtype)) - gains_db


def check_channel(model: Carfac, channel: int) -> None:
    """Raises ValueError for a channel that the model does not have."""
    channels = model.structure.n_channels
    if not -channels <= channel < channels:
        raise ValueError(
            f"channel must be one of the model's {channels}, 0 (base) to {channels - 1}; got "
            f"{channel}. Channels are sorted from high frequencies to low."
        )


def check_frequencies(model: Carfac, frequencies_hz: Any) -> Float[Array, " frequencies"]:
    """Frequencies as an array.

    Raises:
      ValueError: they are empty, not `[frequencies]`, or outside 0 to half of the sample rate
        (which is not looked at while JAX traces them).
    """
    frequencies = jnp.asarray(frequencies_hz)
    if frequencies.ndim != 1 or not frequencies.size:
        raise ValueError(
            "frequencies_hz must be [frequencies], at least one; got shape "
            f"{frequencies.shape}. A single one is [frequency]."
        )
    if not isinstance(frequencies, Tracer):
        low, high = float(frequencies.min()), float(frequencies.max())
        if not (low >= 0 and high <= model.sample_rate_hz / 2):  # NaN is neither
            raise ValueError(
                f"frequencies_hz must lie between 0 and {model.sample_rate_hz / 2:g}, half of the "
                f"sample rate; got {low:g} to {high:g}. Raise sample_rate_hz, or leave them out."
            )
    return frequencies


def _cascade(
    model: Carfac, params: Any, undamping: Any, state: State | FramedState | None
) -> tuple[CarCoefficients, Array, Array]:
    """Coefficients, and undamping and gain of each stage, `[..., ears, channels]`."""
    if state is not None and undamping is not None:
        raise ValueError(
            "What the gain control leaves is given by undamping or by state; got both. Drop one of "
            "them."
        )
    car = _design(model, params)
    if state is not None:
        cochlea = state.cochlea if isinstance(state, FramedState) else state
        return car, cochlea.undamping, cochlea.gain
    relative = jnp.asarray(1 if undamping is None else undamping, car.sin.dtype)
    ears, channels = car.sin.shape
    allowed = ((), (channels,), (ears, 1), (ears, channels))
    if relative.shape not in allowed:
        raise ValueError(
            f"undamping must have one of the shapes {allowed}; got {relative.shape}. Give one "
            "number for all, or one for each channel."
        )
    relative = relative[(None,) * (2 - relative.ndim)]
    held, gain = agc.targets(car, jnp.broadcast_to(1 - relative, (1, ears, channels)))
    return car, held[0], gain[0]


@functools.partial(jax.jit, static_argnums=0)
def _design(model: Carfac, params: Any) -> CarCoefficients:
    return model.design(params).car


def _filters(
    model: Carfac, car: CarCoefficients, held: Array, gain: Array, frequencies: Array
) -> tuple[Array, Array]:
    """Each stage and its coupling, by the formulas of the module's docstring.

    `held` and `gain` are `[..., ears, channels]`, the frequencies `[..., ears or 1, 1,
    frequencies]`.
    """

    def column(value: Array) -> Array:
        return value[(None,) * (held.ndim - value.ndim)][..., None]

    def real(value: Array) -> Array:  # as strict promotion of types asks
        return lax.complex(value, jnp.zeros_like(value))

    angle = frequencies * (2 * math.pi / model.sample_rate_hz)
    half = jnp.sin(0.5 * angle)
    step = lax.complex(2 * half * half, jnp.sin(angle))  # 1 - q
    q = 1 - step
    offset = column(car.velocity_offset)
    active = column(held) / (1 if model.linear_car else 1 + offset * offset)
    damping = column(car.damping) - active
    radius = 1 - damping
    pole = step + real(damping) * q  # 1 - r q
    denominator = pole * pole + real(2 * radius * column(car.one_minus_cos)) * q
    numerator = real(column(car.zero * car.sin) * radius) * q
    stages = real(column(gain)) * (1 + numerator / denominator)
    return stages, step / (step + real(column(car.ac_rate)) * q)


@functools.partial(jax.jit, static_argnums=0)
def _response(
    model: Carfac, car: CarCoefficients, held: Array, gain: Array, frequencies: Array
) -> Array:
    """Each channel's response, `[..., ears, channels, frequencies]`."""
    stages, coupling = _filters(model, car, held, gain, frequencies)
    response = coupling * jnp.cumprod(stages, axis=-2)
    if model.use_delay_buffer:
        samples = jnp.arange(held.shape[-1], dtype=gain.dtype)
        samples = samples[(None,) * (held.ndim - 1)][..., None]
        late = samples * frequencies * (2 * math.pi / model.sample_rate_hz)
        response = response * lax.complex(jnp.cos(late), -jnp.sin(late))
    return response


@functools.partial(jax.jit, static_argnums=0)
def _log_gain(
    model: Carfac, car: CarCoefficients, held: Array, gain: Array, frequencies: Array
) -> Array:
    """Natural logarithm of the magnitude of each channel's response."""
    stages, coupling = _filters(model, car, held, gain, frequencies)
    return jnp.log(jnp.abs(coupling)) + jnp.cumsum(jnp.log(jnp.abs(stages)), axis=-2)


def _grid(model: Carfac, dtype: Any) -> Array:
    """Logarithms of frequencies, evenly spaced, to half of the sample rate."""
    octaves = math.log2(model.sample_rate_hz / 2 / _LOWEST_HZ)
    points = math.ceil(octaves * _POINTS_PER_OCTAVE) + 1
    top = math.log(model.sample_rate_hz / 2)
    return jnp.asarray(np.linspace(top - octaves * math.log(2), top, points), dtype)


@functools.partial(jax.jit, static_argnums=0)
def _peaks(
    model: Carfac, car: CarCoefficients, held: Array, gain: Array
) -> tuple[Array, Array, Array]:
    """Log frequency and log gain of each channel's peak, and its log gain on the grid."""
    grid = _grid(model, gain.dtype)
    level = _log_gain(model, car, held, gain, jnp.exp(grid)[(None,) * held.ndim])
    spacing = math.log(2) / _POINTS_PER_OCTAVE

    def at(x: Array, car: CarCoefficients, held: Array, gain: Array) -> Array:
        each = _log_gain(model, car, held, gain, jnp.exp(x)[..., None, :])
        return jnp.diagonal(each, axis1=-2, axis2=-1)  # channel c at its own frequency

    def newton(x: Array, *cascade: Any) -> Array:
        slope, curvature = jax.jvp(
            jax.grad(lambda x: at(x, *cascade).sum()), (x,), (jnp.ones_like(x),)
        )
        step = jnp.clip(slope / jnp.maximum(-curvature, 1e-3), -spacing, spacing)
        return jnp.clip(x + step, grid[0], grid[-1])

    start = (grid[jnp.argmax(level, axis=-1)], (car, held, gain))
    x = lax.fori_loop(
        0, _NEWTON_STEPS, lambda _, s: (newton(s[0], *s[1]), s[1]), lax.stop_gradient(start)
    )[0]
    x = newton(x, car, held, gain)  # its derivative is that of the peak, by the implicit function
    return x, at(x, car, held, gain), level


def _drop_ear(model: Carfac, value: Array, axis_from_end: int) -> Array:
    """Without the axis of ears, if there is but one."""
    return jnp.squeeze(value, -axis_from_end) if model.n_ears == 1 else value
