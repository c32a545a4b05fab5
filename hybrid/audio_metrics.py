"""How good enhanced speech is: SI-SDR, and PESQ and STOI by the packages `pesq` and `pystoi`.

PESQ and STOI come with the extra `metrics` (pip install 'hybrid-audio[metrics]'). Where a package
is missing, `missing` says so, and `scores` leaves its figure out. Whether a clip counts is decided
by its clean speech alone: no enhancer gains by estimates that cannot be scored.
"""

import importlib.util
import itertools
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from hybrid.losses.time_domain import si_sdr_db

# STOI looks at 384 ms of speech at a time, without the pauses: single words are too short for it.
STOI_LEAST_S = 0.384
JOINED_S = 3.0
# The lowest grade of the scale of opinions.
PESQ_LEAST = 1.0
_TOO_LITTLE = "Not enough STFT frames"
_PACKAGES = {"pesq": "pesq", "stoi": "pystoi"}
_MODES = {8000: "nb", 16000: "wb"}
_si_sdr_db = jax.jit(si_sdr_db)


def missing(sample_rate_hz: float | int | None = None) -> dict[str, str]:
    """Which metrics cannot be computed here, and why: {"pesq": "PESQ needs the package ..."}.

    Args:
        sample_rate_hz: of the sounds; None asks for packages alone.
    """
    reasons = {
        metric: f"{metric.upper()} needs the package {package}, which is missing: pip install "
        "'hybrid-audio[metrics]'"
        for metric, package in _PACKAGES.items()
        if importlib.util.find_spec(package) is None
    }
    if sample_rate_hz is not None and sample_rate_hz not in _MODES:
        # Whatever is installed: the package would be no way out.
        reasons["pesq"] = _no_pesq_at(sample_rate_hz)
    return reasons


def scores(
    estimate: Any, target: Any, sample_rate_hz: float | int, lengths: Any = None
) -> dict[str, float | int]:
    """Means over clips of every metric that can be computed: `si_sdr_db`, `pesq`, `stoi`.

    Clips whose clean speech is not `audible` are left out of all. PESQ and STOI
    leave out those whose clean speech they are not defined for. An estimate that is not finite
    makes the means NaN, and a silent one has the lowest score.

    Args:
        estimate: `[batch, time]`.
        target: likewise, the clean speech.
        sample_rate_hz: of both; PESQ is left out at rates that it is not defined for.
        lengths: `[batch]` valid samples.

    Returns:
        Means in dB, MOS-LQO (1 to 4.6) and 0 to 1, NaN where there is nothing to take one of; and
        what they are means of: `si_sdr_clips`, `pesq_clips`, and `stoi_pieces` of 3 s.

    Raises:
        ValueError: arrays of other shapes, or clean speech that is not finite.
    """
    lengths = _lengths(estimate, target, lengths)
    pairs = _clips(estimate, target, lengths)
    kept = audible(target, lengths)
    # Before clips are left out: a new number of clips would be compiled anew.
    ratios_db = _si_sdr_db(*(jnp.asarray(x) for x in (estimate, target, lengths)))
    found = _mean("si_sdr_db", "si_sdr_clips", np.asarray(ratios_db)[kept].tolist())
    pairs = list(itertools.compress(pairs, kept))
    absent = missing(sample_rate_hz)
    if "pesq" not in absent:
        each = [_pesq(heard, clean, sample_rate_hz) for heard, clean in pairs]
        found |= _mean("pesq", "pesq_clips", each)
    if "stoi" not in absent:
        pieces = joined([levelled(*pair) for pair in pairs], sample_rate_hz)
        each = [_stoi(heard, clean, sample_rate_hz, False) for heard, clean in pieces]
        found |= _mean("stoi", "stoi_pieces", each)
    return found


def audible(target: Any, lengths: Any = None) -> Bool[np.ndarray, " batch"]:
    """Which clips of clean speech `[batch, time]` are neither silent nor constant."""
    lengths = _lengths(target, target, lengths)
    return np.array([_varies(x[:n]) for x, n in zip(np.asarray(target), lengths, strict=True)])


def pesq(
    estimate: Any, target: Any, sample_rate_hz: float | int, lengths: Any = None
) -> Float[np.ndarray, " batch"]:
    """Perceptual evaluation of speech quality (ITU-T P.862, at 16 kHz P.862.2), as MOS-LQO.

    Args:
        estimate: `[batch, time]`.
        target: likewise, the clean speech.
        sample_rate_hz: 16000 (wide band) or 8000 (narrow band).
        lengths: `[batch]` valid samples.

    Returns:
        A score for each clip, 1 to 4.6, and 1 for an estimate in which nothing can be heard; NaN
        where the clean clip has no speech or is shorter than 0.25 s, or the estimate is not finite.

    Raises:
        ImportError: the package pesq is not installed.
        ValueError: another sample rate, arrays of other shapes, or clean speech that is not finite.
    """
    _require("pesq")
    if sample_rate_hz not in _MODES:
        raise ValueError(_no_pesq_at(sample_rate_hz))
    pairs = _clips(estimate, target, lengths)
    return _array([_pesq(heard, clean, sample_rate_hz) for heard, clean in pairs])


def stoi(
    estimate: Any,
    target: Any,
    sample_rate_hz: float | int,
    lengths: Any = None,
    extended: bool = False,
) -> Float[np.ndarray, " pieces"]:
    """Short-time objective intelligibility (Taal et al., IEEE TASLP 2011) of clips joined to 3 s.

    Clips are brought to one level of their clean speech first, or the soft words would count as the
    pauses of the loud ones; silent clean clips are left out.

    Args:
        estimate: `[batch, time]`.
        target: likewise, the clean speech.
        sample_rate_hz: of both; the package resamples to 10 kHz.
        lengths: `[batch]` valid samples.
        extended: ESTOI (Jensen & Taal, IEEE/ACM TASLP 2016).

    Returns:
        A score for each piece of `joined`, at most 1; NaN for one with too little clean speech, or
        an estimate that is not finite.

    Raises:
        ImportError: the package pystoi is not installed.
        ValueError: arrays of other shapes, or clean speech that is not finite.
    """
    _require("stoi")
    pairs = [levelled(*pair) for pair in _clips(estimate, target, lengths) if _varies(pair[1])]
    pieces = joined(pairs, sample_rate_hz)
    return _array([_stoi(heard, clean, sample_rate_hz, extended) for heard, clean in pieces])


def levelled(
    heard: Float[np.ndarray, " time"], clean: Float[np.ndarray, " time"]
) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, " time"]]:
    """Both by the one gain that gives the clean signal a mean square of 1."""
    gain = 1 / np.sqrt(np.mean(clean**2))
    return gain * heard, gain * clean


def joined(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    sample_rate_hz: float | int,
    seconds: float = JOINED_S,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of signals strung together, in order, into pieces of at least `seconds`.

    What is left over at the end joins the last piece; all of it together may be shorter.
    """
    pieces: list[list[tuple[np.ndarray, np.ndarray]]] = [[]]
    size = 0
    for pair in pairs:
        if size >= seconds * sample_rate_hz:
            pieces.append([])
            size = 0
        pieces[-1].append(pair)
        size += len(pair[0])
    if len(pieces) > 1 and size < seconds * sample_rate_hz:
        rest = pieces.pop()
        pieces[-1] += rest
    return [
        (np.concatenate([a for a, _ in piece]), np.concatenate([b for _, b in piece]))
        for piece in pieces
        if piece
    ]


def _varies(clean: np.ndarray) -> bool:
    return bool(clean.size) and bool(np.ptp(clean) > 0)


def _pesq(heard: np.ndarray, clean: np.ndarray, sample_rate_hz: float | int) -> float | None:
    """PESQ of a clip; None if the clean one has none, NaN if the estimate is not finite."""
    from pesq import PesqError  # pyright: ignore[reportMissingImports]  # it is an extra
    from pesq import pesq as score  # pyright: ignore[reportMissingImports]

    def of(estimate: np.ndarray) -> float:
        rate, never = int(sample_rate_hz), PesqError.RETURN_VALUES
        return float(score(rate, clean, estimate, _MODES[rate], on_error=never))

    # The package divides by the largest sample.
    if not _varies(clean):
        return None
    finite = bool(np.all(np.isfinite(heard)))
    value = of(heard) if finite and np.any(heard) else -1.0
    if value >= 0:
        return value
    # It does not say whose fault it was; clean speech is at no fault if it has a score by itself.
    if of(clean) < 0:
        return None
    return PESQ_LEAST if finite else np.nan


def _stoi(
    heard: np.ndarray, clean: np.ndarray, sample_rate_hz: float | int, extended: bool
) -> float | None:
    """STOI of a piece; None for too little clean speech, NaN if the estimate is not finite."""
    from pystoi import stoi as score

    if len(clean) < STOI_LEAST_S * sample_rate_hz:
        return None
    finite = bool(np.all(np.isfinite(heard)))
    with warnings.catch_warnings():
        # It warns, and returns 1e-5, where too little is left without the pauses of the clean one.
        warnings.filterwarnings("error", _TOO_LITTLE, RuntimeWarning)
        try:
            rate = int(sample_rate_hz)
            value = float(score(clean, heard if finite else clean, rate, extended=extended))
        except RuntimeWarning as warning:
            if _TOO_LITTLE not in str(warning):
                raise
            return None
    return value if finite else np.nan


def _clips(estimate: Any, target: Any, lengths: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each clip by itself in float64, without its padding."""
    lengths = _lengths(estimate, target, lengths)
    rows = zip(*(np.asarray(x, np.float64) for x in (estimate, target)), lengths, strict=True)
    pairs = [(heard[:n], clean[:n]) for heard, clean, n in rows]
    bad = [row for row, (_, clean) in enumerate(pairs) if not np.all(np.isfinite(clean))]
    if bad:
        raise ValueError(
            f"Clean speech must be finite; clips {bad} are not. Leave them out, by the length 0."
        )
    return pairs


def _lengths(estimate: Any, target: Any, lengths: Any) -> Int[np.ndarray, " batch"]:
    """Lengths from 0 to time, after a look at the shapes."""
    shape = np.shape(estimate)
    if shape != np.shape(target) or len(shape) != 2 or 0 in shape:
        raise ValueError(
            "Estimate and target must have one shape, [batch, time], and hold a sample; got "
            f"{shape} and {np.shape(target)}. A single clip is audio[None]."
        )
    if lengths is None:
        return np.full(shape[0], shape[1], np.int32)
    lengths = np.asarray(lengths)
    if lengths.shape != shape[:1] or not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(
            f"There must be one length for each clip, {shape[0]} integers; got {lengths.dtype} of "
            f"shape {lengths.shape}. They count samples."
        )
    return np.clip(lengths, 0, min(shape[1], np.iinfo(lengths.dtype).max)).astype(np.int32)


def _mean(name: str, count: str, values: Sequence[float | None]) -> dict[str, float | int]:
    """The mean of those that are defined, NaN among them, and how many they are."""
    there = [value for value in values if value is not None]
    return {name: float(np.mean(there)) if there else float("nan"), count: len(there)}


def _array(values: Sequence[float | None]) -> Float[np.ndarray, " values"]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _no_pesq_at(sample_rate_hz: float | int) -> str:
    return (
        f"PESQ is defined at 8000 and 16000 Hz; got {float(sample_rate_hz):g} Hz. Resample both "
        "signals."
    )


def _require(metric: str) -> None:
    reason = missing().get(metric)
    if reason is not None:
        raise ImportError(reason)
