"""Exists so that settings published for google/carfac carry over: its names in, a `Carfac` out.

The names are those of its NumPy design (`CarParams`, `AgcParams`, `Ihc...Params`, `IhcSynParams`,
the arguments of `design_carfac` and `run_segment`), of its JAX design (`CarfacDesignParameters` and
what it holds) and of its Matlab design, which has the same but for capitals; these do not count
here. `ohc_health` and `n_fibers` are those that its users set in the designed coefficients.

Where its versions differ the NumPy model is followed: smoothers over channels have 5 taps where 3
do not spread enough (its JAX model at commit 3a69467 then puts the weights of 5 on 3 taps).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physics.carfac import parameters as tables
from physics.carfac import setup

_TAUS = ("tau_lpf", "tau_out", "tau_in", "tau1_out", "tau1_in", "tau2_out", "tau2_in")
_PATHS = {
    "car": {
        "velocity_scale": "car.velocity_scale",
        "v_offset": "car.velocity_offset",
        "min_zeta": "car.min_zeta",
        "max_zeta": "car.max_zeta",
        "first_pole_theta": "car.first_pole_theta",
        "zero_ratio": "car.zero_ratio",
        "high_f_damping_compression": "car.high_f_damping_compression",
        "erb_per_step": "car.erb_per_step",
        "erb_break_freq": "car.erb_break_hz",
        "erb_q": "car.erb_q",
        "ac_corner_hz": "car.ac_corner_hz",
        "ohc_health": "car.ohc_health",
    },
    "ihc": {name: f"ihc.{name}_s" for name in _TAUS},
    "agc": {
        "time_constants": "agc.time_constants_s",
        "agc_stage_gain": "agc.stage_gain",
        "agc1_scales": "agc.agc1_scales",
        "agc2_scales": "agc.agc2_scales",
        "agc_mix_coeff": "agc.mix_coeff",
        "agc_mix_coeffs": "agc.mix_coeff",
    },
    "syn": {
        "spont_rates": "synapse.spont_rates_hz",
        "sat_rates": "synapse.sat_rate_hz",
        "sat_reservoir": "synapse.sat_reservoir",
        "v_width": "synapse.v_width",
        "tau_lpf": "synapse.tau_lpf_s",
        "reservoir_tau": "synapse.reservoir_tau_s",
        "agc_weights": "synapse.agc_weights",
        "n_fibers": "synapse.n_fibers",
    },
}
"""Names of what is trainable here, by google/carfac's groups, and its path here."""

_DERIVED = ("n_ch", "pole_freqs", "max_channels_per_octave")
_OTHERS = {
    "model": (
        "fs",
        "n_ears",
        "ihc_style",
        "use_delay_buffer",
        "open_loop",
        "linear_car",
        "tau_lpf",
        *_DERIVED,
    ),
    "car": ("min_pole_hz", "use_delay_buffer", "linear_car"),
    "ihc": ("ihc_style", "just_hwr", "one_cap", "do_syn"),
    "agc": ("n_stages", "decimation", "simpler_decimating"),
    "syn": ("do_syn", "n_classes", "healthy_n_fibers", "ihcs_per_channel"),
}
"""Names of what is not; "model" is what google/carfac has in no group."""

_KNOWN = {group: {*_PATHS.get(group, ()), *names} for group, names in _OTHERS.items()}

Groups = dict[str, dict[str, Any]]


def build(cls: Any, settings: Any, fields: Mapping[str, Any]) -> Any:
    """The `Carfac` that computes what google/carfac does with these settings.

    Args:
      cls: `Carfac`.
      settings: names and values; what is left out has google/carfac's default. In any of the forms
        - of the arguments of its NumPy `design_carfac`: {"fs": 16000, "n_ears": 2, "ihc_style":
          "one_cap", "car_params": {...}, "agc_params": {...}, "ihc_params": {...}, ...};
        - of its JAX design: {"fs": 16000, "ears": [{"car": {...}, "agc": {...}, "ihc": {...},
          "syn": {...}}, ...]}, where ears may differ;
        - of one flat mapping.
        An object with such attributes, say an instance of its `CarParams`, may stand in the place
        of any mapping. As in google/carfac the first `n_stages` (4) values of a list over stages
        count, and values that the style of inner hair cells has no use for do not.
      fields: of `Carfac`, for what google/carfac has no name: `kernel`, `hop_s` and so on.

    Raises:
      ValueError: a name that google/carfac does not have, a value that cannot be represented here,
        or settings that contradict each other.
    """
    plain = _mapping(settings)
    ears = plain.pop("ears", None)
    groups = _grouped(plain)
    translated = _translate(groups) if ears is None else _join(cls, plain, ears)
    model = _make(cls, translated, fields)
    _check_derived(model, groups["model"])
    return model


def _mapping(settings: Any) -> dict[str, Any]:
    """What a mapping or an object holds, names in lower case."""
    if hasattr(settings, "items"):
        items = dict(settings.items())
    elif dataclasses.is_dataclass(settings):
        items = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    elif hasattr(settings, "__dict__"):
        items = vars(settings)
    else:
        raise ValueError(
            "Settings of google/carfac are a mapping of names to values, or an object with such "
            f"attributes; got {settings!r}. Give a dict."
        )
    return {str(name).lower(): value for name, value in items.items()}


def _grouped(plain: Mapping[str, Any]) -> Groups:
    """Sorts what is given, flat or nested, into google/carfac's groups."""
    groups: Groups = {group: {} for group in _KNOWN}
    for name, value in plain.items():
        group = name.removesuffix("_params")
        if group in _PATHS:
            given = {} if value is None else _mapping(value)
        else:
            given = {name: value}
            group = next((group for group, names in _KNOWN.items() if name in names), "")
        known = _KNOWN.get(group) or {*_PATHS, *set().union(*_KNOWN.values())}
        for inner, inner_value in given.items():
            if inner not in known or not group:
                near = difflib.get_close_matches(inner, sorted(known), 3, 0.4) or sorted(known)
                where = f" in {name!r}" if given.keys() != {name} else ""
                raise ValueError(
                    f"google/carfac has no design parameter {inner!r}{where}. Nearest: {near}. "
                    "Leave out what only follows from the design."
                )
            if inner in groups[group]:
                raise ValueError(f"{inner!r} is given twice. Give it once.")
            groups[group][inner] = inner_value
    return groups


def _translate(groups: Groups) -> dict[str, Any]:
    """Fields of `Carfac`; of ears that are alike, or that differ within arrays `[ears, ...]`."""
    model, car, agc = groups["model"], groups["car"], groups["agc"]
    ihc, syn = dict(groups["ihc"]), dict(groups["syn"])
    style = _style(groups)
    if "tau_lpf" in model:
        if style == "two_cap_with_syn":
            raise ValueError(
                "tau_lpf names two things with a synapse. Put it in ihc_params or syn_params."
            )
        ihc["tau_lpf"] = model["tau_lpf"]
    n_ears = int(model.get("n_ears", 1))
    fields: dict[str, Any] = {"ihc": style, "n_ears": n_ears}
    fields |= {
        here: float(group[there])
        for group, there, here in (
            (model, "fs", "sample_rate_hz"),
            (car, "min_pole_hz", "min_pole_hz"),
        )
        if there in group
    }
    for name in ("use_delay_buffer", "linear_car", "open_loop"):
        values = {bool(group[name]) for group in (model, car) if name in group}
        if len(values) > 1:
            raise ValueError(f"{name} is given as both True and False. Give it once.")
        fields[name] = values == {True}
    agc, fields["agc_decimations"] = _stages(agc)
    if style == "two_cap_with_syn":
        syn, fields["healthy_fibres"] = _fibres(syn)
    used = {f"ihc.{name}" for name in tables.ihc_table(style, 22050.0)}
    used |= set(_PATHS["car"].values())
    used |= set(_PATHS["agc"].values()) if fields["agc_decimations"] else set()
    used -= {"agc.mix_coeff"} if n_ears == 1 else set()
    used |= set(_PATHS["syn"].values()) if style == "two_cap_with_syn" else set()
    initial = {}
    for group, values in (("car", car), ("ihc", ihc), ("agc", agc), ("syn", syn)):
        for name, value in values.items():
            path = _PATHS[group].get(name)
            if path in initial:
                raise ValueError(f"{name!r} is given in two spellings. Give it once.")
            if path in used:
                initial[path] = np.asarray(value, np.float64)
    return {**fields, "initial": initial}


def _style(groups: Groups) -> str:
    """The style of hair cell, which google/carfac's versions say by a name or by flags."""
    styles = {groups[g]["ihc_style"] for g in ("model", "ihc") if "ihc_style" in groups[g]}
    styles |= {flag for flag in ("just_hwr", "one_cap") if groups["ihc"].get(flag)}
    do_syn = [bool(groups[g]["do_syn"]) for g in ("ihc", "syn") if "do_syn" in groups[g]]
    if any(do_syn) or "two_cap_with_syn" in styles:
        styles = styles - {"two_cap"} | {"two_cap_with_syn"}
    if len(styles) > 1 or ("two_cap_with_syn" in styles and not all(do_syn)):
        raise ValueError(
            "ihc_style, just_hwr, one_cap and do_syn must name one style of inner hair cells; got "
            f"{sorted(map(str, styles))} and do_syn={do_syn}. Give ihc_style alone."
        )
    return str(styles.pop()) if styles else "two_cap"


def _stages(agc: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The group with its lists cut to the stages in use, and the decimations."""
    agc, n_stages = dict(agc), int(agc.get("n_stages", 4))
    agc.setdefault("decimation", (8, 2, 2, 2))
    for name in ("decimation", "time_constants", "agc1_scales", "agc2_scales"):
        size = np.size(agc[name]) if name in agc else 4
        if size < n_stages:
            raise ValueError(
                f"{name} must have a value for each of n_stages={n_stages} (4 if not given); got "
                f"{size}. Give n_stages, or more values."
            )
        if name in agc:
            agc[name] = np.ravel(agc[name])[:n_stages]
    decimations = tuple(int(d) for d in agc["decimation"])
    simpler = all(decimation == 1 for decimation in decimations[1:])
    if bool(agc.get("simpler_decimating", simpler)) != simpler:
        raise ValueError(
            "simpler_decimating follows from the decimations after the first, all 1 or not; got "
            f"{agc['simpler_decimating']} with decimation={decimations}. Leave it out."
        )
    return agc, decimations


def _fibres(syn: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[float, ...]]:
    """The group with the values that follow from hair cells per channel, and healthy fibres."""
    syn = dict(syn)
    healthy = syn.get("healthy_n_fibers", tables.HEALTHY_FIBRES)
    if "ihcs_per_channel" in syn:
        if "healthy_n_fibers" in syn or "agc_weights" in syn:
            raise ValueError(
                "ihcs_per_channel stands for healthy_n_fibers and agc_weights. Give either."
            )
        ratio = float(syn["ihcs_per_channel"]) / 10  # to the ten cells of the defaults
        healthy = np.multiply(healthy, ratio)
        syn["agc_weights"] = np.full(len(healthy), 1.2 / 22050 / 10 / ratio)
    if int(syn.get("n_classes", len(healthy))) != len(healthy):
        raise ValueError(
            f"n_classes must be the length of healthy_n_fibers, {len(healthy)}; got "
            f"{syn['n_classes']}. Give both."
        )
    if "n_fibers" in syn:  # [classes] or [channels, classes]; here [ears, channels, classes]
        fibres = np.asarray(syn["n_fibers"], np.float64)
        syn["n_fibers"] = fibres.reshape((1,) * (3 - fibres.ndim) + fibres.shape)
    return syn, tuple(float(n) for n in healthy)


def _join(cls: Any, plain: Mapping[str, Any], ears: Sequence[Any]) -> dict[str, Any]:
    """Fields of the model whose ears are those of a JAX design."""
    if not len(ears) or int(plain.get("n_ears", len(ears))) != len(ears):
        raise ValueError(
            f"ears must list n_ears={plain.get('n_ears', 'one or more')} of them; got {len(ears)}. "
            "Leave n_ears out."
        )
    grouped = [_grouped({**plain, **_mapping(ear), "n_ears": 1}) for ear in ears]
    translated = [_translate(groups) for groups in grouped]
    models = [_make(cls, fields, {}) for fields in translated]
    first = models[0]
    for model in models[1:]:
        alike = dataclasses.replace(model, initial=first.initial) == first
        if not alike or model.structure != first.structure:
            raise ValueError(
                "Ears must agree in what is discrete (style, stages, decimations, channels, taps); "
                f"got {model.structure} and {first.structure}. Model them apart."
            )
    initial = {}
    values = [setup.prepare(model).initial() for model in models]
    for path in sorted(set().union(*(fields["initial"] for fields in translated))):
        group, name = path.split(".")
        by_ear = [value[group][name] for value in values]
        initial[path] = by_ear[0] if _equal(by_ear) else _stack(group, by_ear)
    mixes = [
        m.get("agc_mix_coeff", m.get("agc_mix_coeffs", 0.5)) for m in (g["agc"] for g in grouped)
    ]
    taus = [value.get("agc", {}).get("time_constants_s", 0.0) for value in values]
    if not _equal(mixes) or (not _equal(taus) and mixes[0] > 0):
        # google/carfac lets the first ear's rule for all; here each ear moves by its own.
        raise ValueError(
            "Ears that are coupled must agree in agc_mix_coeffs and time_constants. Set "
            "agc_mix_coeffs to 0, or make them agree."
        )
    if len(ears) > 1 and first.agc_decimations:
        initial["agc.mix_coeff"] = np.asarray(mixes[0], np.float64)
    return {**translated[0], "n_ears": len(ears), "initial": initial}


def _equal(values: Sequence[Any]) -> bool:
    return all(np.array_equal(value, values[0]) for value in values[1:])


def _stack(group: str, by_ear: Sequence[np.ndarray]) -> np.ndarray:
    """Values of one-eared models as those of one with several."""
    if by_ear[0].ndim > 1:
        return np.concatenate(by_ear)  # they have an axis of ears, of one
    stacked = np.stack([np.atleast_1d(value) for value in by_ear])
    return stacked[:, None] if group == "synapse" and by_ear[0].ndim else stacked


def _make(cls: Any, translated: Mapping[str, Any], fields: Mapping[str, Any]) -> Any:
    if twice := sorted(set(translated) & set(fields)):
        raise ValueError(
            "Fields of Carfac may be given beside google/carfac's settings where it has no name "
            f"for them; got {', '.join(twice)}, which the settings decide. Give these by "
            "google/carfac's names: {'car_params': {'ohc_health': 0.5}}, say."
        )
    try:
        return cls(**translated, **fields)
    except ValueError as error:
        pairs = [pair for group in _PATHS.values() for pair in group.items()]
        names = sorted({name for name, path in pairs if path in str(error)})
        hint = f" In google/carfac: {', '.join(names)}." if names else ""
        raise ValueError(
            f"These settings of google/carfac have no equal here. {error}{hint}"
        ) from error


def _check_derived(model: Any, given: Mapping[str, Any]) -> None:
    """Refuses channels that do not follow from the frequency map."""
    if not any(name in given for name in _DERIVED):
        return
    poles = np.atleast_2d(model.channel_frequencies_hz(model.init()))[0]
    derived = {
        "n_ch": poles.size,
        "pole_freqs": poles,
        "max_channels_per_octave": 1 / np.log2(poles[0] / poles[1]),
    }
    for name in _DERIVED:
        wanted = derived[name]
        value = np.asarray(given.get(name, wanted), np.float64)
        if value.shape != np.shape(wanted) or not np.allclose(value, wanted, rtol=1e-4):
            raise ValueError(
                f"{name} must follow from fs and the frequency map: {wanted}; got {value}. "
                "Leave it out, and set first_pole_theta, erb_per_step, erb_break_freq, erb_q and "
                "min_pole_hz."
            )
