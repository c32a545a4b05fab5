"""Exists to say which sounds an ear hears: absolute thresholds in dB SPL and in dB HL.

A tone is heard where the basilar membrane moves by a criterion amplitude at the channel that it
moves most. The criterion stands for all that comes behind (hair cells, nerve, decision) and is one
number, so an audiogram's shape is the cochlea's, and the ear's before it where the model has one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import PchipInterpolator

from physics.carfac import analysis, ear
from physics.carfac.model import Carfac

CRITERION_BM = 0.011574
"""Amplitude of `bm` at threshold: that of the default, healthy `Carfac()` in a tone of 1 kHz at
2.4 dB SPL, the reference threshold there. What a cascade amplifies depends on how densely its
channels lie; for another `car.erb_per_step` take `calibrated_criterion`."""

_NONE = np.nan
REFERENCE = np.array(
    [  # Hz; dB SPL of tones from the front in a free field, of third-octave noise in a diffuse one
        [20, 78.5, _NONE], [25, 68.7, _NONE], [31.5, 59.5, _NONE], [40, 51.1, _NONE],
        [50, 44.0, _NONE], [63, 37.5, _NONE], [80, 31.5, _NONE], [100, 26.5, _NONE],
        [125, 22.1, 22.1], [160, 17.9, 17.9], [200, 14.4, 14.4], [250, 11.4, 11.4],
        [315, 8.6, 8.4], [400, 6.2, 5.8], [500, 4.4, 3.8], [630, 3.0, 2.1],
        [800, 2.2, 1.0], [1000, 2.4, 0.8], [1250, 3.5, 1.9], [1600, 1.7, 0.5],
        [2000, -1.3, -1.5], [2500, -4.2, -3.1], [3150, -6.0, -4.0], [4000, -5.4, -3.8],
        [5000, -1.5, -1.8], [6300, 6.0, 2.5], [8000, 12.6, 6.8], [10000, 13.9, _NONE],
        [12500, 12.3, _NONE], [14000, 18.4, _NONE], [16000, 40.2, _NONE],
    ]
)  # fmt: skip
"""Reference threshold of hearing with two ears, 18 to 25 years: ISO 389-7:2005 and ISO 226:2003.

Checked against the Auditory Modeling Toolbox 1.4 (`arg_absolutethreshold.m`: both fields, 125 Hz to
8 kHz) and the `isothr` of openMHA and of pyclarity (free field, all frequencies).
"""

# Of `measured_levels_db_spl`: levels tried, and halvings of their span (to 0.01 dB).
_LOWEST_DB_SPL, _HIGHEST_DB_SPL, _HALVINGS = -40.0, 120.0, 14


def absolute_thresholds_db_spl(
    model: Carfac,
    params: Any,
    frequencies_hz: Any,
    criterion: Any = CRITERION_BM,
    *,
    undamping: Any = None,
    state: Any = None,
) -> Float[Array, "*axes frequencies"]:
    """Level of a tone that the most sensitive channel just answers to; small signals, exact.

    Args:
      model: the cochlea; its outer and middle ear counts if it has one.
      params: as from `init`.
      frequencies_hz: `[frequencies]`, above 0, to half of the sample rate.
      criterion: amplitude (peak) of `bm` at threshold.
      undamping: see `analysis.transfer_functions`.
      state: see `analysis.transfer_functions`.

    Returns:
      dB SPL, `[frequencies]`, or `[ears, frequencies]` for several ears, each on its own; with a
      `state` a leading axis of its clips. Differentiable in the parameters.

    Raises:
      ValueError: as of `analysis.transfer_functions`.
    """
    gains = analysis.gain_db(model, params, frequencies_hz, undamping=undamping, state=state)
    return analysis.level_db_spl(model, frequencies_hz, jnp.max(gains, axis=-2), criterion)


def thresholds_db_hl(
    model: Carfac,
    params: Any,
    frequencies_hz: Any,
    criterion: Any = CRITERION_BM,
    *,
    undamping: Any = None,
    state: Any = None,
) -> Float[Array, "*axes frequencies"]:
    """`absolute_thresholds_db_spl` above the reference threshold of the model's sound field.

    Raises:
      ValueError: as of `analysis.transfer_functions` and `reference_db_spl`.
    """
    reference = reference_db_spl(frequencies_hz, model.sound_field)
    levels = absolute_thresholds_db_spl(
        model, params, frequencies_hz, criterion, undamping=undamping, state=state
    )
    return levels - jnp.asarray(reference, levels.dtype)[(None,) * (levels.ndim - 1)]


def calibrated_criterion(model: Carfac, params: Any) -> Float[Array, ""]:
    """The criterion at which 1 kHz is heard (by the better ear) at 0 dB HL."""
    levels = thresholds_db_hl(model, params, np.array([1000.0]), 1.0)
    return 10 ** (-jnp.min(levels) / 20)


def reference_db_spl(frequencies_hz: Any, sound_field: str = "free") -> Float[np.ndarray, "*shape"]:
    """Reference threshold of hearing, 0 dB HL: `REFERENCE`, and PCHIP between its frequencies.

    Args:
      frequencies_hz: 20 Hz to 16 kHz; in a diffuse field 125 Hz to 8 kHz.
      sound_field: "free" or "diffuse"; or "eardrum", the pressure there in a free field, by the
        outer ear of `physics.carfac.ear`.

    Raises:
      ValueError: there is no such sound field, or no value at that frequency.
    """
    frequencies = np.asarray(frequencies_hz, np.float64)
    to_cochlea_db = ear.transfer_db(frequencies, sound_field)  # refuses a field that is none
    column = REFERENCE[:, 2 if sound_field == "diffuse" else 1]
    table_hz, levels = REFERENCE[np.isfinite(column), 0], column[np.isfinite(column)]
    if not np.all((frequencies >= table_hz[0]) & (frequencies <= table_hz[-1])):
        raise ValueError(
            f"Reference thresholds (sound_field={sound_field!r}) are known from {table_hz[0]:g} to "
            f"{table_hz[-1]:g} Hz; got {frequencies.min():g} to {frequencies.max():g}. Leave the "
            "others out, or stay with dB SPL."
        )
    reference = PchipInterpolator(np.log(table_hz), levels)(np.log(frequencies))
    if sound_field == "eardrum":
        reference = reference + ear.transfer_db(frequencies, "free") - to_cochlea_db
    return reference


def measured_levels_db_spl(
    model: Carfac,
    params: Any,
    frequencies_hz: Any,
    criterion: Any = CRITERION_BM,
    *,
    channel: int | None = None,
    output: str = "bm",
    duration_s: float = 0.4,
) -> Float[np.ndarray, "*ears frequencies"]:
    """Level at which a tone brings the running model to a criterion, gain control and all.

    Tones of all frequencies are run as one batch, again and again at other levels, until each
    level is known to 0.01 dB.

    Args:
      model: the cochlea; its outer and middle ear counts if it has one.
      params: as from `init`.
      frequencies_hz: `[frequencies]`, above 0, to half of the sample rate.
      criterion: amplitude of `bm` at the tone's frequency, or mean of `nap`.
      channel: whose response counts: a tuning curve. None takes the one that answers most: absolute
        thresholds.
      output: "bm" or "nap".
      duration_s: of the tones; the second half is looked at.

    Returns:
      dB SPL, `[frequencies]`, or `[ears, frequencies]` for several ears that hear the same tone;
      NaN where levels from -40 to 120 dB SPL do not hold the one wanted.

    Raises:
      ValueError: as of `analysis.tuning_curve`; or `output` is another.
    """
    if output not in ("bm", "nap"):
        raise ValueError(f"output must be one of ('bm', 'nap'); got {output!r}.")
    if channel is not None:
        analysis.check_channel(model, channel)
    frequencies = np.asarray(analysis.check_frequencies(model, frequencies_hz), np.float64)
    ears, samples = model.n_ears, max(2, round(duration_s * model.sample_rate_hz))
    half = samples // 2
    time_s = np.arange(samples) / model.sample_rate_hz
    tones = np.sin(2 * np.pi * frequencies[:, None] * time_s)
    tones *= np.sin(0.5 * np.pi * np.minimum(1, time_s / 0.01)) ** 2  # no click at the onset
    tones = np.repeat(np.tile(tones, (ears, 1))[:, :, None], ears, axis=2)
    # A Hann window over the second half, and the tone itself to pick the response at its frequency.
    probe = np.hanning(samples - half) * np.ones((ears * frequencies.size, 1))
    probe = (probe / probe.sum(axis=1, keepdims=True)).astype(complex)
    if output == "bm":
        turn = np.exp(-2j * np.pi * np.tile(frequencies, ears)[:, None] * time_s[half:])
        probe = 2 * probe * turn
    whose = np.repeat(np.arange(ears), frequencies.size)

    @jax.jit
    def responses(levels_db, tones, real, imaginary):
        audio = 10 ** ((levels_db[:, None, None] - model.full_scale_db_spl) / 20) * tones
        outputs, _ = model.run(params, audio, outputs=(output,))
        late = getattr(outputs, output)[np.arange(whose.size), half:, whose]
        parts = [jnp.einsum("btc,bt->bc", late, part) for part in (real, imaginary)]
        size = jnp.hypot(*parts) if output == "bm" else parts[0]
        return jnp.max(size, axis=-1) if channel is None else size[:, channel]

    dtype = params["car"]["ohc_health"].dtype
    sounds = [jnp.asarray(value, dtype) for value in (tones, probe.real, probe.imag)]
    low = np.full(whose.size, _LOWEST_DB_SPL)
    high = np.full(whose.size, _HIGHEST_DB_SPL)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        heard = np.asarray(responses(jnp.asarray(middle, dtype), *sounds)) >= float(criterion)
        low, high = np.where(heard, low, middle), np.where(heard, middle, high)
    levels = np.where((low > _LOWEST_DB_SPL) & (high < _HIGHEST_DB_SPL), high, np.nan)
    return levels if ears == 1 else levels.reshape(ears, -1)
