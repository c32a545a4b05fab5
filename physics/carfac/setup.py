"""Exists to settle once per model what is fixed: its discrete structure and initial values."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from physics.bounds import Parameter, to_raw
from physics.carfac import parameters as tables
from physics.carfac import places
from physics.carfac.structures import Structure

# May differ between ears; other leaves may also differ between channels.
_MAP = places.NAMES


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The structure of a model and its parameters: path, specification, initial value (nested)."""

    structure: Structure
    entries: tuple[tuple[str, Parameter, Any], ...]

    def specs(self) -> dict[str, Any]:
        """Nested dict of `Parameter`."""
        return _nest({path: parameter for path, parameter, _ in self.entries})

    def initial(self) -> dict[str, Any]:
        """Nested dict of initial physical values, float64."""
        return _nest({path: np.array(value, np.float64) for path, _, value in self.entries})


def hashable(initial: Any) -> tuple[tuple[str, Any], ...]:
    """Initial values as sorted (dotted path, nested tuple); from a flat or nested mapping."""
    if not isinstance(initial, Mapping):
        return tuple(initial)
    flat: dict[str, Any] = {}
    for name, value in initial.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{path}": leaf for path, leaf in hashable(value)})
        else:
            flat[name] = _tuples(np.asarray(value, np.float64).tolist())
    return tuple(sorted(flat.items()))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        group, name = path.split(".")
        nested.setdefault(group, {})[name] = value
    return nested


@functools.lru_cache(maxsize=256)
def prepare(model: Any) -> Prepared:
    """The structure and initial values of a `Carfac`.

    Raises:
      ValueError: `initial` names no parameter, has a wrong shape or lies out of bounds; or gain
        control asks for more smoothing than 16 passes of 5 taps give.
    """
    given = dict(model.initial)
    ears, stages = model.n_ears, len(model.agc_decimations)
    n_channels = _count_channels(model, given)
    groups = {
        "car": tables.car_table(ears, n_channels),
        "ihc": tables.ihc_table(model.ihc, model.sample_rate_hz),
        "agc": tables.agc_table(stages, ears) if stages else {},
    }
    if model.ihc == "two_cap_with_syn":
        groups["synapse"] = tables.synapse_table(ears, n_channels, model.healthy_fibres)
    entries = []
    for group, table in groups.items():
        for name, (parameter, default) in table.items():
            path, value = f"{group}.{name}", np.asarray(default, np.float64)
            if path in given:
                value = _shaped(path, given.pop(path), value, ears, n_channels)
            to_raw(parameter, value, path)
            entries.append((path, parameter, value))
    if given:
        known = [path for path, _, _ in entries]
        wrong = next(iter(given))
        near = difflib.get_close_matches(wrong, known, 3, 0.4) or known
        raise ValueError(
            f"initial must name parameters of this model; {wrong!r} is none. Nearest: {near}."
        )
    agc = {path.split(".")[1]: value for path, _, value in entries if path.startswith("agc.")}
    taps, iterations = _count_taps(model, agc) if stages else ((), ())
    structure = Structure(
        sample_rate_hz=float(model.sample_rate_hz),
        n_ears=ears,
        n_channels=n_channels,
        ihc=model.ihc,
        use_delay_buffer=model.use_delay_buffer,
        open_loop=model.open_loop,
        linear_car=model.linear_car,
        decimations=model.agc_decimations,
        fir_taps=taps,
        fir_iterations=iterations,
        n_classes=len(model.healthy_fibres) if model.ihc == "two_cap_with_syn" else 0,
    )
    return Prepared(structure, tuple((path, p, _tuples(v.tolist())) for path, p, v in entries))


def _count_channels(model: Any, given: Mapping[str, Any]) -> int:
    """Channels of the initial map whose poles are above `min_pole_hz`, in every ear."""
    table = tables.car_table(1, 1)
    theta, step, corner, q = np.broadcast_arrays(
        *(np.ravel(given.get(f"car.{name}", table[name][1])) for name in _MAP)
    )
    counts = []
    for ear in range(theta.size):
        pole_hz, count = theta[ear] * model.sample_rate_hz / (2 * np.pi), 0
        while pole_hz > model.min_pole_hz:
            count += 1
            pole_hz -= step[ear] * (corner[ear] + pole_hz) / q[ear]
        counts.append(count)
    if min(counts) < 2:
        raise ValueError(
            f"A cochlea needs at least 2 channels; poles from {theta[0] * 180 / np.pi:.0f} degrees "
            f"down to min_pole_hz={model.min_pole_hz:g} make {min(counts)}. Lower min_pole_hz."
        )
    return min(counts)


def _shaped(path: str, value: Any, default: np.ndarray, ears: int, channels: int) -> np.ndarray:
    """Gives an initial value the shape of its leaf: the default's, or wider if it is wider."""
    array = np.asarray(value, np.float64)
    group, name = path.split(".")
    if group == "agc":
        allowed = [default.shape, (ears, *(default.shape or (1,)))]
    elif group == "synapse":
        classes = default.shape[-1:] if default.ndim else ()
        allowed = [classes, (ears, channels, *classes), (ears, 1, *classes)]
        allowed = [default.shape] if default.ndim == 3 else allowed
    elif name in _MAP:
        allowed = [(), (ears, 1)]
    else:
        allowed = [default.shape, (ears, 1), (ears, channels)]
    if (
        array.ndim == 1
        and default.ndim < 2
        and array.shape == (channels,)
        and group in ("car", "ihc")
    ):
        array = array[None]
    elif array.ndim == 1 and array.shape == (ears,) and ears > 1 and default.shape != (ears,):
        array = array.reshape(ears, *(1,) * max(1, default.ndim - 1))
    for shape in sorted(set(allowed), key=lambda s: (len(s), s)):
        if np.broadcast_shapes(shape, default.shape) != shape:
            continue
        try:
            return np.broadcast_to(array, shape).copy()
        except ValueError:
            continue
    raise ValueError(
        f"The initial value of {path} may have the shapes {sorted(set(allowed))} "
        f"(or what broadcasts to them); got {array.shape}."
    )


def _count_taps(
    model: Any, agc: Mapping[str, np.ndarray]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Taps and passes of each smoother: the least that leave the middle tap enough weight."""
    decimations: Sequence[int] = model.agc_decimations
    taps, iterations = [], []
    for stage, net in enumerate(np.cumprod(decimations)):
        tau, low, high = (
            np.atleast_1d(agc[name][..., stage])
            for name in ("time_constants_s", "agc1_scales", "agc2_scales")
        )
        updates = tau * model.sample_rate_hz / net
        mean, variance = (high - low) / updates, (low**2 + high**2) / updates
        for n_taps, passes in [(3, 1)] + [(5, n) for n in range(1, 17)]:
            moment = variance / passes + (mean / passes) ** 2
            fits = 1 - moment >= 0.25 if n_taps == 3 else 1 - 0.4 * moment >= 0.15
            if fits.all():
                break
        else:
            raise ValueError(
                "The smoother of a gain control stage has at most 16 passes of 5 taps; stage "
                f"{stage} asks for a variance of {variance.max():.3g} squared channels an update. "
                "Lower agc.agc1_scales and agc.agc2_scales, or update more often (agc_decimations)."
            )
        taps.append(n_taps)
        iterations.append(passes)
    return tuple(taps), tuple(iterations)
