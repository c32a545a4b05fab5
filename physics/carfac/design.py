"""Exists to turn physical parameters into filter coefficients, differentiably, safe in float32.

Written after Lyon, "Human and Machine Hearing" (2017), chapters 16 to 19, and the equations of
google/carfac's NumPy model (v3; Apache 2.0). Parameters arrive as a nested dict of arrays in
physical units; shared values are scalars, values per ear `[ears, 1]`, per channel
`[ears, channels]`; in `agc`, `[stages]` or `[ears, stages]`; in `synapse`, per class with a last
axis `classes`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics.carfac import structures
from physics.carfac.structures import Structure


def conductance(x):
    """Conductance (0 to 1) of an inner hair cell's channels at BM displacement `x`; any shape."""
    z = jnp.maximum(x + 0.175, 0.0)
    cubed = z * z * z
    # The denominator stays above 0.1, so value and gradient are finite (up to z = 1e12, where the
    # cube leaves float32's range; full scale is of the order of one).
    return cubed / (cubed + z * z + 0.1)


@jax.custom_jvp
def inverse(x):
    """1 / x, and without a further division its derivative; any shape.

    Divisions are what XLA will not compute twice: around each it compiles kernels of their own, on
    which most of a design's compilation would go. Hence those that there are go together.
    """
    return 1 / x


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    y = inverse(*primals)
    return y, -(y * y) * tangents[0]


def _conductance_at(x: float) -> float:
    return (x + 0.175) ** 3 / ((x + 0.175) ** 3 + (x + 0.175) ** 2 + 0.1)


CONDUCTANCE_AT_REST = _conductance_at(0.0)
CONDUCTANCE_WHEN_LOUD = _conductance_at(10.0)  # by convention of the model, "very loud" is 10


def design_car(
    car: dict[str, Any], poles: Float[Array, "ears channels"], structure: Structure
) -> structures.CarCoefficients:
    """Coefficients of the cascade, its poles being at `poles` Hz; every field as these."""
    rate = structure.sample_rate_hz
    theta = poles * (2 * math.pi / rate)
    sin = jnp.sin(theta)
    half = jnp.sin(0.5 * theta)
    one_minus_cos = 2 * half * half
    # Damping is theta * zeta, compressed near Nyquist to keep some sharpness there.
    x = theta / math.pi
    compressed = 1 - car["high_f_damping_compression"] * x * x
    damping = theta * compressed * car["max_zeta"]
    # Least damping: three parts min_zeta, one part the relative spacing of the channels (which is
    # wide at low frequencies), multiplied out so that nothing is divided by the pole frequency.
    erb_hz = (car["erb_break_hz"] + poles) / car["erb_q"]
    least = compressed * (theta * 0.75 * car["min_zeta"] + erb_hz * (0.25 * 2 * math.pi / rate))
    undamping_range = damping - least
    zero = sin * (car["zero_ratio"] * car["zero_ratio"] - 1)

    # Stage gain for unity at DC, (1 - 2 r cos + r^2) / (that + zero r sin), at three undampings,
    # and its differences between them, which simplify to products: subtracting the gains
    # themselves would leave float32 few digits of the curvature.
    loss = [damping - undamping_range * undamping for undamping in (0.0, 0.5, 1.0)]
    at_dc = [d * d + 2 * (1 - d) * one_minus_cos for d in loss]
    below = [n + zero * sin * (1 - d) for n, d in zip(at_dc, loss, strict=True)]

    over = inverse(jnp.stack(below))

    def rise(i: int):
        between = loss[i + 1] + loss[i] - loss[i + 1] * loss[i]
        return -0.5 * undamping_range * zero * sin * between * (over[i + 1] * over[i])

    first, second = rise(0), rise(1)
    fields = {
        "one_minus_cos": one_minus_cos,
        "sin": sin,
        "damping": damping,
        "undamping_range": undamping_range,
        "zero": zero,
        "gain_quadratic": 2 * (second - first),
        "gain_linear": 3 * first - second,
        "gain_constant": at_dc[0] * over[0],
        "gain_healthy": at_dc[2] * over[2],
        "velocity_scale": car["velocity_scale"],
        "velocity_offset": car["velocity_offset"],
        "ac_rate": car["ac_corner_hz"] * (2 * math.pi / rate),
        "ohc_health": car["ohc_health"],
    }
    return structures.CarCoefficients(**_widen(fields, structure))


def design_ihc(ihc: dict[str, Any], structure: Structure) -> structures.IhcCoefficients:
    """Coefficients of the inner hair cells, from the equilibria of their capacitors."""
    rate = structure.sample_rate_hz
    r_rest, r_loud = 1 / CONDUCTANCE_AT_REST, 1 / CONDUCTANCE_WHEN_LOUD
    if structure.ihc == "just_hwr":
        return structures.IhcCoefficients()
    taus = {name: value for name, value in ihc.items() if name.startswith("tau")}
    over = dict(zip(taus, inverse(jnp.stack(jnp.broadcast_arrays(*taus.values()))), strict=True))
    if structure.ihc == "one_cap":
        r_in = ihc["tau_in_s"] * over["tau_out_s"] * r_loud
        # Loud sound opens the channels half of the time, hence twice the resistance.
        rest_current, loud_current = inverse(jnp.stack([r_in + r_rest, r_in + 2 * r_loud]))
        fields = {
            "out1_rate": r_loud / rate * over["tau_out_s"],
            "in1_rate": 1 / rate * over["tau_in_s"],
            "rest_cap1": 1 - rest_current * r_in,
        }
    else:
        # Of the receptor potential at rest, and of the conductance of the second stage, which is
        # that potential, when it is loud.
        fall = ihc["tau1_out_s"] * over["tau1_in_s"]
        over_rest, over_loud = 1 + r_rest / r_loud * fall, 1 + fall
        r2 = ihc["tau2_in_s"] * over["tau2_out_s"] * over_loud
        rest_potential, rest_current, loud_current = inverse(
            jnp.stack([over_rest, r2 + over_rest, r2 + 2 * over_loud])
        )
        fields = {
            "out1_rate": r_loud / rate * over["tau1_out_s"],
            "in1_rate": 1 / rate * over["tau1_in_s"],
            "out2_rate": over_loud * over["tau2_out_s"] * (1 / rate),
            "in2_rate": 1 / rate * over["tau2_in_s"],
            "rest_cap1": 1 - rest_potential,
            "rest_cap2": 1 - rest_current * r2,
        }
    fields["lpf_rate"] = -jnp.expm1(-1 / rate * over["tau_lpf_s"])
    fields["output_gain"] = inverse(loud_current - rest_current)
    fields["rest_output"] = rest_current * fields["output_gain"]
    return structures.IhcCoefficients(**_widen(fields, structure))


def design_synapse(
    synapse: dict[str, Any], structure: Structure, healthy_fibres: tuple[float, ...]
) -> structures.SynapseCoefficients:
    """Coefficients of the synapse, so that each class fires at its spontaneous and saturated rate.

    Args:
      synapse: physical parameters.
      structure: of the model.
      healthy_fibres: fibres per channel and class in an ear without synaptopathy; the output is
        relative to *their* spontaneous activity, whatever `n_fibers` is left.
    """
    rate = structure.sample_rate_hz
    shape = (structure.n_ears, structure.n_channels, structure.n_classes)
    per_class = ("n_fibers", "spont_rates_hz", "agc_weights")
    p = {
        name: _broadcast(value if name in per_class else value[..., None], shape)
        for name, value in synapse.items()
    }
    release_sat = 0.5 * p["sat_reservoir"]  # a sigmoid that is open half of the time
    feedback_gain = (1 - p["sat_reservoir"]) / release_sat
    output_gain = p["sat_rate_hz"] / (rate * release_sat)
    release_rest = release_sat * (p["spont_rates_hz"] / p["sat_rate_hz"])
    reservoir_rest = release_rest * feedback_gain
    sigmoid_rest = release_rest / (1 - reservoir_rest)
    spontaneous = p["spont_rates_hz"] / rate
    agc_weights = p["agc_weights"] * rate
    healthy = _broadcast(jnp.asarray(healthy_fibres, spontaneous.dtype), shape)
    return structures.SynapseCoefficients(
        n_fibers=p["n_fibers"],
        v_half=(jnp.log1p(-sigmoid_rest) - jnp.log(sigmoid_rest)) * p["v_width"],
        rest_probability=spontaneous,
        rest_reservoir=reservoir_rest,
        agc_weights=agc_weights,
        v_width=p["v_width"][..., 0],
        feedback_gain=feedback_gain[..., 0],
        output_gain=output_gain[..., 0],
        reservoir_rate=-jnp.expm1(-1 / (p["reservoir_tau_s"] * rate))[..., 0],
        lpf_rate=-jnp.expm1(-1 / (p["tau_lpf_s"] * rate))[..., 0],
        rest_output=jnp.sum(healthy * spontaneous * agc_weights, axis=-1),
    )


def design_agc(
    agc: dict[str, Any] | None, structure: Structure, dtype: Any
) -> structures.AgcCoefficients:
    """Coefficients of the gain control; every stage and ear at once, `[stages, ears]`."""
    if agc is None:
        none, ears = jnp.zeros((0, structure.n_ears), dtype), jnp.zeros(structure.n_ears, dtype)
        return structures.AgcCoefficients(none, none, none, none, none, ears, ears)
    by_ear = (structure.n_ears, structure.n_stages)
    tau_s, scale1, scale2 = (
        _broadcast(agc[name], by_ear).T
        for name in ("time_constants_s", "agc1_scales", "agc2_scales")
    )
    gain = _broadcast(agc["stage_gain"], (structure.n_ears, 1))[:, 0]
    net_decimations = np.cumprod(np.asarray(structure.decimations, np.int64))
    update_hz = jnp.asarray(structure.sample_rate_hz / net_decimations, tau_s.dtype)[:, None]
    updates = tau_s * update_hz  # in one time constant
    # One pass of the smoother has these moments of its distribution over channels.
    passes = updates * jnp.asarray(structure.fir_iterations, tau_s.dtype)[:, None]
    low, middle, high = _fir(
        mean=(scale2 - scale1) / passes,
        variance=(scale1 * scale1 + scale2 * scale2) / passes,
        five_taps=np.asarray(structure.fir_taps)[:, None] == 5,
    )
    mix = jnp.zeros_like(updates)
    if "mix_coeff" in agc:  # the fastest stage never couples the ears
        coupled = _broadcast(agc["mix_coeff"], (structure.n_ears, 1)).T / updates
        mix = jnp.minimum(coupled, 1).at[:1].set(0)
    dc_gain = jnp.zeros_like(gain)
    for _ in range(structure.n_stages):
        dc_gain = 1 + gain * dc_gain
    return structures.AgcCoefficients(
        epsilon=-jnp.expm1(-1 / updates),
        fir_low=low,
        fir_middle=middle,
        fir_high=high,
        mix=mix,
        stage_gain=gain,
        detect_scale=1 / dc_gain,
    )


def _fir(mean, variance, five_taps: np.ndarray):
    """Weights (low side, middle, high side) of smoothers with the given moments; never negative.

    With 3 taps the weights are [a, 1 - a - b, b]; with 5, [a/2, a/2, 1 - a - b, b/2, b/2]. The
    clips act only far from the initial values, where learned scales ask for more spread than
    the number of taps and passes, fixed at the start, can give.
    """
    dtype = mean.dtype
    total = (variance + mean * mean) * jnp.asarray(np.where(five_taps, 2 / 5, 1.0), dtype)
    skew = mean * jnp.asarray(np.where(five_taps, 2 / 3, 1.0), dtype)
    total = jnp.minimum(total, 1)
    skew = jnp.clip(skew, -total, total)
    a, b = 0.5 * (total - skew), 0.5 * (total + skew)
    share = jnp.asarray(np.where(five_taps, 0.5, 1.0), dtype)
    return share * a, 1 - total, share * b


def design(
    physical: dict[str, Any],
    poles: Float[Array, "ears channels"],
    structure: Structure,
    healthy_fibres: tuple[float, ...],
) -> structures.Coefficients:
    """All coefficients of a model.

    Args:
      physical: nested dict of arrays in physical units, as from `Carfac.physical`.
      poles: pole frequencies in Hz, from `places`.
      structure: what is discrete.
      healthy_fibres: see `design_synapse`.

    Returns:
      Coefficients in the dtype of the parameters.
    """
    with_synapse = structure.ihc == "two_cap_with_syn"
    physical = {**physical, **_spread({g: physical.get(g, {}) for g in ("car", "ihc")}, structure)}
    return structures.Coefficients(
        car=design_car(physical["car"], poles, structure),
        ihc=design_ihc(physical["ihc"], structure),
        agc=design_agc(physical.get("agc"), structure, physical["car"]["ohc_health"].dtype),
        synapse=design_synapse(physical["synapse"], structure, healthy_fibres)
        if with_synapse
        else None,
    )


def _spread(groups: dict[str, Any], structure: Structure) -> dict[str, Any]:
    """Gives every channel its copy of the shared values, all at once.

    In reverse, what reaches the copies is then summed over channels by a single operation.
    """
    shared = [(g, name) for g, leaves in groups.items() for name in leaves if not leaves[name].ndim]
    if not shared:
        return groups
    column = jnp.stack([groups[g][name] for g, name in shared])[:, None, None]
    rows = jnp.broadcast_to(column, (len(shared), structure.n_ears, structure.n_channels))
    spread = {g: dict(leaves) for g, leaves in groups.items()}
    for (g, name), row in zip(shared, rows, strict=True):
        spread[g][name] = row
    return spread


def _broadcast(value, shape: tuple[int, ...]):
    """`jnp.broadcast_to` with leading ones added, which strict rank promotion asks for."""
    value = jnp.asarray(value)
    return jnp.broadcast_to(value.reshape((1,) * (len(shape) - value.ndim) + value.shape), shape)


def _widen(fields: dict[str, Any], structure: Structure) -> dict[str, Any]:
    shape = (structure.n_ears, structure.n_channels)
    return {name: _broadcast(value, shape) for name, value in fields.items()}
