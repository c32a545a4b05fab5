"""Exists to lay coefficients and state out in the rows that the C++ sources name, and back."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from physics.carfac.structures import Coefficients, State, Structure

# The order of the fields of `CarCoefficients` in car.h, and so on: change both or neither.
_CAR = (
    "one_minus_cos",
    "sin",
    "damping",
    "undamping_range",
    "zero",
    "gain_quadratic",
    "gain_linear",
    "gain_constant",
    "velocity_scale",
    "velocity_offset",
    "ac_rate",
    "ohc_health",
)
_TWO_CAP = (
    "lpf_rate",
    "out1_rate",
    "in1_rate",
    "out2_rate",
    "in2_rate",
    "output_gain",
    "rest_output",
    "rest_cap1",
)
_IHC = {
    "just_hwr": (),
    "one_cap": ("lpf_rate", "out1_rate", "in1_rate", "output_gain", "rest_output"),
    "two_cap": _TWO_CAP,
    "two_cap_with_syn": _TWO_CAP,
}
_SYNAPSE = (
    "v_width",
    "feedback_gain",
    "output_gain",
    "reservoir_rate",
    "lpf_rate",
    "rest_output",
)
_CLASSES = ("n_fibers", "v_half", "agc_weights")
_AGC_STAGES = ("epsilon", "fir_low", "fir_middle", "fir_high", "mix")
_AGC = ("stage_gain", "detect_scale")
_CAR_STATE = (
    "z1",
    "z2",
    "z2_before",
    "undamping",
    "undamping_step",
    "gain",
    "gain_step",
    "ac",
    "stage_out",
)
_IHC_STATE = {
    "just_hwr": (),
    "one_cap": ("cap1", "lpf1", "lpf2"),
    "two_cap": ("cap1", "cap2", "lpf1"),
    "two_cap_with_syn": ("cap1", "cap2", "lpf1"),
}
STYLES = tuple(_IHC)


def pack_coefficients(
    coefficients: Coefficients, structure: Structure
) -> tuple[Float[Array, "rows ears channels"], Float[Array, "agc_rows ears"]]:
    """Rows per ear and channel, and rows of the gain control per ear."""
    rows = [getattr(coefficients.car, name) for name in _CAR]
    rows += [getattr(coefficients.ihc, name) for name in _IHC[structure.ihc]]
    packed = jnp.stack(rows)
    if coefficients.synapse is not None:
        synapse = coefficients.synapse
        classes = [jnp.moveaxis(getattr(synapse, name), -1, 0) for name in _CLASSES]
        packed = jnp.concatenate(
            [packed, jnp.stack([getattr(synapse, name) for name in _SYNAPSE]), *classes]
        )
    agc = coefficients.agc
    shared = jnp.stack([getattr(agc, name) for name in _AGC])
    if not structure.n_stages:
        return packed, shared
    return packed, jnp.concatenate([*(getattr(agc, name) for name in _AGC_STAGES), shared])


def pack_state(state: State, structure: Structure) -> Float[Array, "batch rows ears channels"]:
    """All memories but the phase; a stage's output is zero where it is not kept."""
    rows = []
    for name in _CAR_STATE + _IHC_STATE[structure.ihc]:
        value = getattr(state, name)
        rows.append(jnp.zeros_like(state.z1) if value is None else value)
    packed = [jnp.stack(rows, axis=1)]
    if structure.n_classes:
        assert state.reservoir is not None
        assert state.fibre_lpf is not None
        packed += [jnp.moveaxis(value, -1, 1) for value in (state.reservoir, state.fibre_lpf)]
    if structure.n_stages:
        packed += [state.agc_memory, state.agc_sum]
    return jnp.concatenate(packed, axis=1)


def unpack_state(
    packed: Float[Array, "batch rows ears channels"],
    structure: Structure,
    like: State,
    n_samples: int,
) -> State:
    """The opposite, `n_samples` after `like`."""
    names = _CAR_STATE + _IHC_STATE[structure.ihc]
    fields: dict[str, Any] = {name: packed[:, i] for i, name in enumerate(names)}
    if not structure.use_delay_buffer:
        del fields["stage_out"]
    at, classes, stages = len(names), structure.n_classes, structure.n_stages
    for name in ("reservoir", "fibre_lpf") if classes else ():
        fields[name] = jnp.moveaxis(packed[:, at : at + classes], 1, -1)
        at += classes
    for name in ("agc_memory", "agc_sum") if stages else ():
        fields[name] = packed[:, at : at + stages]
        at += stages
    period = structure.period_samples
    phase = (like.phase + n_samples % period) % period
    return dataclasses.replace(like, phase=phase, **fields)


def state_rows(structure: Structure) -> int:
    """Rows that `pack_state` makes."""
    names = len(_CAR_STATE) + len(_IHC_STATE[structure.ihc])
    return names + 2 * structure.n_classes + 2 * structure.n_stages
