"""How good enhanced speech is: SI-SDR, and PESQ and STOI by the packages `pesq` and `pystoi`.

PESQ and STOI come with the extra `metrics` (pip install 'hybrid-audio[metrics]'). Where a package
is missing, `missing` says so, and `scores` leaves its figure out.
"""

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from hybrid.losses.time_domain import si_sdr_db

Clips = Float[np.ndarray, "batch time"]

# STOI looks at 384 ms of speech at a time, without the pauses: single words are too short for it.
JOINED_S = 3.0
_PACKAGES = {"pesq": "pesq", "stoi": "pystoi"}
_MODES = {8000: "nb", 16000: "wb"}
_si_sdr_db = jax.jit(si_sdr_db)


def missing() -> dict[str, str]:
    """Which metrics cannot be computed here, and why: {"pesq": "PESQ needs the package ..."}."""
    return {
        metric: f"{metric.upper()} needs the package {package}, which is missing: pip install "
        "'hybrid-audio[metrics]'"
        for metric, package in _PACKAGES.items()
        if importlib.util.find_spec(package) is None
    }


def scores(
    estimate: Any, target: Any, sample_rate_hz: float | int, lengths: Any = None
) -> dict[str, float]:
    """Means over clips of every metric that can be computed: `si_sdr_db`, `pesq`, `stoi`.

    Args:
        estimate: `[batch, time]`.
        target: likewise, the clean speech.
        sample_rate_hz: of both; PESQ is left out at rates that it is not defined for.
        lengths: `[batch]` valid samples; clips of length 0 are left out.

    Returns:
        Means in dB, MOS-LQO (1 to 4.6) and 0 to 1; NaN where a metric is defined for no clip.
    """
    lengths = _lengths(estimate, lengths)
    kept = lengths > 0
    # Before clips are left out: a new number of clips would be compiled anew.
    ratios_db = _si_sdr_db(jnp.asarray(estimate), jnp.asarray(target), jnp.asarray(lengths))
    found = {"si_sdr_db": _mean(np.asarray(ratios_db)[kept])}
    estimate, target, lengths = (np.asarray(x)[kept] for x in (estimate, target, lengths))
    absent = missing()
    if "pesq" not in absent and sample_rate_hz in _MODES:
        found["pesq"] = _mean(pesq(estimate, target, sample_rate_hz, lengths))
    if "stoi" not in absent:
        found["stoi"] = _mean(stoi(estimate, target, sample_rate_hz, lengths))
    return found


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
        A score for each clip, 1 to 4.6; NaN for a clip without speech or shorter than 0.25 s.

    Raises:
        ImportError: the package pesq is not installed.
        ValueError: another sample rate.
    """
    _require("pesq")
    if sample_rate_hz not in _MODES:
        raise ValueError(
            f"PESQ is defined at 8000 and 16000 Hz; got {float(sample_rate_hz):g} Hz. Resample "
            "both signals."
        )
    from pesq import PesqError
    from pesq import pesq as score

    values = []
    for heard, clean in _clips(estimate, target, lengths):
        value = -1.0
        # The package divides by the largest sample.
        if np.any(heard) and np.any(clean):
            value = score(
                int(sample_rate_hz),
                clean,
                heard,
                _MODES[int(sample_rate_hz)],
                on_error=PesqError.RETURN_VALUES,
            )
        values.append(value if value >= 0 else np.nan)
    return np.asarray(values, np.float64)


def stoi(
    estimate: Any,
    target: Any,
    sample_rate_hz: float | int,
    lengths: Any = None,
    extended: bool = False,
) -> Float[np.ndarray, " pieces"]:
    """Short-time objective intelligibility (Taal et al., IEEE TASLP 2011) of clips joined to 3 s.

    Args:
        estimate: `[batch, time]`.
        target: likewise, the clean speech.
        sample_rate_hz: of both; the package resamples to 10 kHz.
        lengths: `[batch]` valid samples.
        extended: ESTOI (Jensen & Taal, IEEE/ACM TASLP 2016).

    Returns:
        A score for each piece of `joined`, at most 1; NaN for one with too little speech.

    Raises:
        ImportError: the package pystoi is not installed.
    """
    _require("stoi")
    from pystoi import stoi as score

    values = []
    for heard, clean in joined(_clips(estimate, target, lengths), sample_rate_hz):
        value = np.nan
        if np.any(clean):
            with warnings.catch_warnings():
                # It warns, and returns 1e-5, where too little is left without the pauses.
                warnings.simplefilter("error", RuntimeWarning)
                try:
                    value = float(score(clean, heard, int(sample_rate_hz), extended=extended))
                except RuntimeWarning:
                    value = np.nan
        values.append(value)
    return np.asarray(values, np.float64)


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


def _clips(estimate: Any, target: Any, lengths: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each clip by itself in float64, without its padding."""
    estimate, target = (np.asarray(x, np.float64) for x in (estimate, target))
    if estimate.shape != target.shape or estimate.ndim != 2:
        raise ValueError(
            "Estimate and target must have one shape, [batch, time]; got "
            f"{estimate.shape} and {target.shape}. A single clip is audio[None]."
        )
    return [
        (heard[:n], clean[:n])
        for heard, clean, n in zip(estimate, target, _lengths(estimate, lengths), strict=True)
    ]


def _lengths(estimate: Any, lengths: Any) -> np.ndarray:
    if lengths is None:
        return np.full(estimate.shape[0], estimate.shape[1], np.int32)
    return np.clip(np.asarray(lengths, np.int32), 0, estimate.shape[1])


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(np.mean(there)) if len(there) else float("nan")


def _require(metric: str) -> None:
    reason = missing().get(metric)
    if reason is not None:
        raise ImportError(reason)
