"""Exists to choose who computes: the compiled kernel where there is one, else XLA."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from physics.carfac import framing, native, scan
from physics.carfac.structures import Coefficients, State, Structure

KERNELS = ("auto", "native", "xla")


def choose(kernel: str) -> str:
    """Returns "native" or "xla" for one of `KERNELS`.

    "auto" takes the native kernel if JAX's default device is the CPU and the kernel was compiled,
    and says once if it was not. "native" insists. "xla" serves every device, forward mode and
    second derivatives, which the native kernel does not have.

    Raises:
      RuntimeError: "native" was asked for and cannot be; the message says why.
    """
    if kernel == "xla":
        return "xla"
    on_cpu = jax.default_backend() == "cpu"
    if kernel == "native":
        if not on_cpu:
            raise RuntimeError(
                f"kernel='native' computes on the CPU; JAX's device is {jax.default_backend()!r}. "
                "Take kernel='xla', or set JAX_PLATFORMS=cpu."
            )
        reason = native.reason_unavailable()
        if reason is not None:
            raise RuntimeError(reason)
        return "native"
    if not on_cpu:
        return "xla"
    native.warn_once()
    return "xla" if native.reason_unavailable() else "native"


def run(
    kernel: str,
    coefficients: Coefficients,
    structure: Structure,
    state: State,
    audio: Float[Array, "batch time ears"],
    outputs: tuple[str, ...],
    aligned: bool = False,
) -> tuple[dict[str, Array], State]:
    """Runs the model at full rate; arguments and results as of `scan.run`."""
    coefficients, state, audio = _vary_alike((coefficients, state, audio))
    if choose(kernel) == "native":
        return native.run(coefficients, structure, state, audio, outputs)
    return scan.run(coefficients, structure, state, audio, outputs, aligned)


def run_hops(
    kernel: str,
    coefficients: Coefficients,
    structure: Structure,
    state: State,
    audio: Float[Array, "batch time ears"],
    segments: Float[np.ndarray, "segments hop"],
    aligned: bool = False,
) -> tuple[Float[Array, "batch hops segments ears channels"], State]:
    """Runs the model for `framing.overlap`, with no more of the activity in memory than it needs.

    Args:
      kernel: see `choose`.
      coefficients: from `design`.
      structure: what is discrete.
      state: before the piece.
      audio: at least one sample; what is over after the last whole hop moves the state alone.
      segments: from `framing.window_segments`.
      aligned: see `scan.run`.

    Returns:
      What `framing.hop_sums` would give of the activity, and the state after the piece.
    """
    coefficients, state, audio = _vary_alike((coefficients, state, audio))
    if choose(kernel) == "native":
        given, state = native.run(coefficients, structure, state, audio, (), segments=segments)
        return given["hops"], state
    given, state = scan.run(coefficients, structure, state, audio, ("nap",), aligned)
    hop = segments.shape[1]
    whole = given["nap"][:, : audio.shape[1] // hop * hop]
    return framing.hop_sums(whole, jnp.asarray(segments, audio.dtype)), state


def _vary_alike(tree: Any) -> Any:
    """Under `shard_map`, marks what is the same on all devices as what differs between them.

    Loops carry both together, so JAX asks for it; that the gradients of what was the same are
    summed over the devices follows from it.
    """

    def varying(leaf):
        return jax.typeof(leaf).manual_axis_type.varying

    axes = frozenset().union(*(varying(leaf) for leaf in jax.tree.leaves(tree)))

    def vary(leaf):
        missing = tuple(axes - varying(leaf))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, tree)
