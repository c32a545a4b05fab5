"""Exists to join the compiled forward pass and its transpose into one differentiable function."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics.carfac.native import loader, packing
from physics.carfac.structures import OUTPUTS, Coefficients, State, Structure

# Samples between two checkpoints: a gradient keeps the state that often, and holds everything of
# as many samples while it works on them: 3 MB for eight clips, which fit into the last cache.
# With 48 they would fit the second one, but all that is kept takes three times as much memory; that
# is 5 % slower.
_INTERVAL = 128


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How, not what, to compute; the results do not depend on it but for rounding by `isa`.

    Attributes:
      interval: samples between two checkpoints.
      threads: at most so many threads of XLA's pool; 0 for all.
      isa: 0 baseline, 1 AVX2 with FMA, 2 AVX-512; -1 for the best there is. What the processor
        lacks is never used.
    """

    interval: int = _INTERVAL
    threads: int = 0
    isa: int = -1


@dataclasses.dataclass(frozen=True)
class _Call:
    structure: Structure
    outputs: tuple[str, ...]
    n_frames: int
    tuning: Tuning

    def attributes(self, n_samples: int) -> dict[str, Any]:
        s = self.structure
        return {
            "style": np.int64(packing.STYLES.index(s.ihc)),
            "classes": np.int64(s.n_classes),
            "delay": np.int64(s.use_delay_buffer),
            "open_loop": np.int64(s.open_loop),
            "linear": np.int64(s.linear_car),
            "interval": np.int64(self.interval(n_samples)),
            "threads": np.int64(self.tuning.threads),
            "isa": np.int64(self.tuning.isa),
            "decimations": np.array(s.decimations, np.int64),
            "taps": np.array(s.fir_taps, np.int64),
            "iterations": np.array(s.fir_iterations, np.int64),
        }

    def interval(self, n_samples: int) -> int:
        return max(1, min(self.tuning.interval, n_samples))

    def shapes(self, audio: Any, window: Any) -> list[jax.ShapeDtypeStruct]:
        """Of the traces and frames, those that are not wanted empty."""
        batch, n_samples, ears = audio.shape
        trace = (batch, n_samples, ears, self.structure.n_channels)
        shapes = []
        for name in OUTPUTS:
            shape = (*trace, self.structure.n_classes) if name == "firings" else trace
            shapes.append(shape if name in self.outputs else (0,))
        frames = (batch, self.n_frames, window.shape[0], *trace[2:])
        shapes.append(frames if self.n_frames else (0,))
        return [_result(shape, audio) for shape in shapes]


def _result(shape: tuple[int, ...], like: Any) -> jax.ShapeDtypeStruct:
    """A result of that shape; under `shard_map` it differs between devices if `like` does."""
    kind = jax.typeof(like)
    if not kind.manual_axis_type.varying:
        return jax.ShapeDtypeStruct(shape, like.dtype)
    return jax.ShapeDtypeStruct(
        shape,
        like.dtype,
        sharding=kind.sharding.update(spec=jax.P(*(None for _ in shape))),
        manual_axis_type=kind.manual_axis_type,
    )


def run(
    coefficients: Coefficients,
    structure: Structure,
    state: State,
    audio: Float[Array, "batch time ears"],
    outputs: tuple[str, ...],
    segments: Float[np.ndarray, "segments hop"] | None = None,
    tuning: Tuning = Tuning(),
) -> tuple[dict[str, Array], State]:
    """Runs the model over a piece of audio; differentiable once, in reverse mode.

    Args:
      coefficients: from `design`.
      structure: what is discrete.
      state: before the piece.
      audio: in the dtype of the coefficients, float32 or float64; at least one sample.
      outputs: which of `structures.OUTPUTS` to give; what is not asked for is not stored.
      segments: weights of a frame's window, cut into hops. If given, the result has `hops` too,
        `[batch, frames, segments, ears, channels]`: the neural activity of each whole hop, summed
        with the weights of each segment. The full-rate activity is then never stored, neither
        forward nor backward, unless `outputs` asks for it.
      tuning: how to compute it.

    Returns:
      `[batch, time, ears, channels]` for each output (firings `[..., classes]`), and the state
      after the piece.

    Raises:
      RuntimeError: the kernel is not there; the message says why, and what to do.
    """
    reason = loader.reason_unavailable()
    if reason is not None:
        raise RuntimeError(reason)
    dtype = audio.dtype
    n_samples = audio.shape[1]
    window = np.ones((1, 1)) if segments is None else np.asarray(segments)
    n_frames = 0 if segments is None else n_samples // window.shape[1]
    call = _Call(structure, tuple(outputs), n_frames, tuning)
    rows, agc_rows = packing.pack_coefficients(coefficients, structure)
    results: Any = _run(
        call,
        audio,
        rows,
        agc_rows,
        packing.pack_state(state, structure),
        jnp.asarray(window, dtype),
        state.phase,
    )
    traces, packed = results
    given = {name: value for name, value in zip(OUTPUTS, traces, strict=False) if name in outputs}
    if segments is not None:
        shape = (audio.shape[0], 0, window.shape[0], *packed.shape[2:])
        given["hops"] = traces[-1] if n_frames else jnp.zeros(shape, dtype)
    return given, packing.unpack_state(packed, structure, state, n_samples)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(call: _Call, audio, rows, agc_rows, state, window, phase):
    traces, state, _ = _forward(call, audio, rows, agc_rows, state, window, phase, keep=False)
    return traces, state


def _run_forward(call: _Call, audio, rows, agc_rows, state, window, phase):
    traces, state, checkpoints = _forward(
        call, audio, rows, agc_rows, state, window, phase, keep=True
    )
    return (traces, state), (audio, rows, agc_rows, window, phase, checkpoints)


def _run_backward(call: _Call, kept, cotangents):
    audio, rows, agc_rows, window, phase, checkpoints = kept
    traces, state = cotangents
    like = (audio, rows, agc_rows, state)
    gradients = jax.ffi.ffi_call(
        loader.BACKWARD,
        [_result(a.shape, audio) for a in like],
        vmap_method="sequential",
    )(
        audio,
        rows,
        agc_rows,
        window,
        phase,
        checkpoints,
        *traces,
        state,
        **call.attributes(audio.shape[1]),
    )
    return (*gradients, None, None)


_run.defvjp(_run_forward, _run_backward)


def _forward(call: _Call, audio, rows, agc_rows, state, window, phase, keep: bool):
    n_samples = audio.shape[1]
    n_checkpoints = -(-n_samples // call.interval(n_samples))
    checkpoints = (n_checkpoints, *state.shape) if keep else (0,)
    results: Any = jax.ffi.ffi_call(
        loader.FORWARD,
        [
            *call.shapes(audio, window),
            _result(state.shape, audio),
            _result(checkpoints, audio),
        ],
        vmap_method="sequential",
    )(audio, rows, agc_rows, state, window, phase, **call.attributes(n_samples))
    *traces, state, checkpoints = results
    return tuple(traces), state, checkpoints
