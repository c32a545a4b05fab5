"""Exists to give the benchmark its contestants of this package: both kernels and the yardstick.

All hear the same noise at 22.05 kHz with 71 channels and two-cap hair cells. A contestant computes
once when it is called, and waits for the result.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

RATE_HZ = 22050.0
FRAME_S = 0.01
YARDSTICK = "NumPy reference (float64)"
NAMES = {"native": "native kernel", "xla": "jitted scan (XLA)"}


@dataclasses.dataclass
class Contestant:
    """Something to time.

    Attributes:
        name: in the table.
        mode: "forward" gives the full activity; "gradient" is that of a loss on it, "frames" of a
            loss on frames of 10 ms, both for the audio and all coefficients.
        clips: in a batch.
        seconds: of audio in each clip.
        call: computes once; returns the seconds it took, or None to be timed from outside.
        compile_s: what tracing and compiling took, if it is compiled.
        nap: computes the activity of the first clip, `[time, channels]`, to be compared.
    """

    name: str
    mode: str
    clips: int
    seconds: float
    call: Callable[[], float | None]
    compile_s: float | None = None
    nap: Callable[[], np.ndarray] | None = None


def noise(clips: int, seconds: float) -> np.ndarray:
    """The same noise for everybody, `[clips, time]` float32, as loud as speech."""
    rng = np.random.default_rng(0)
    return (0.05 * rng.standard_normal((clips, int(RATE_HZ * seconds)))).astype(np.float32)


def compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], Any], float]:
    """A call with these arguments that waits for its result, and the seconds of compiling it."""
    import jax

    start = time.perf_counter()
    ready = jax.jit(function).lower(*arguments).compile()
    took = time.perf_counter() - start
    return lambda: jax.block_until_ready(ready(*arguments)), took


def silently(call: Callable[[], Any]) -> Callable[[], None]:
    """The same call without its result."""

    def run() -> None:
        call()

    return run


def ours(
    kernel: str,
    mode: str,
    clips: int,
    seconds: float,
    initial: Mapping[str, float] | None = None,
) -> Contestant:
    """Our model on one of its kernels.

    Args:
        kernel: "native" or "xla".
        mode: see `Contestant`.
        clips: in the batch.
        seconds: of audio in each clip.
        initial: as of `Carfac`, to vary the number of channels.

    Raises:
        RuntimeError: there is no native kernel here.
    """
    import jax
    import jax.numpy as jnp

    from physics.carfac import Carfac, framing, kernels, rest

    kernels.choose(kernel)
    model = Carfac(RATE_HZ, kernel=kernel, initial=dict(initial or {}))
    structure = model.structure

    @jax.jit
    def begin():
        coefficients = model.design(model.init())
        return coefficients, rest.initial_state(coefficients, structure, clips, settled=False)

    coefficients, state = begin()
    audio = jnp.asarray(noise(clips, seconds))[..., None]
    hop = round(FRAME_S * RATE_HZ)
    segments = framing.window_segments("hann", 2 * hop, hop)

    def activity(coefficients, audio):
        return kernels.run(kernel, coefficients, structure, state, audio, ("nap",), True)[0]["nap"]

    def loss(coefficients, audio):
        nap = activity(coefficients, audio)
        return jnp.vdot(nap, nap)

    def loss_on_frames(coefficients, audio):
        hops, _ = kernels.run_hops(kernel, coefficients, structure, state, audio, segments, True)
        return jnp.vdot(hops, hops)

    functions = {
        "forward": activity,
        "gradient": jax.grad(loss, argnums=(0, 1)),
        "frames": jax.grad(loss_on_frames, argnums=(0, 1)),
    }
    call, compile_s = compiled(functions[mode], coefficients, audio)
    nap = (lambda: np.asarray(call()[0, :, 0])) if mode == "forward" else None
    return Contestant(NAMES[kernel], mode, clips, seconds, silently(call), compile_s, nap)


def channels(initial: Mapping[str, float]) -> int:
    """How many channels `ours` has with these initial values."""
    from physics.carfac import Carfac

    return Carfac(RATE_HZ, initial=dict(initial)).structure.n_channels


def yardstick(seconds: float) -> Contestant:
    """Our NumPy reference, one clip."""
    from physics.carfac import reference

    design, audio = reference.design(sample_rate_hz=RATE_HZ), noise(1, seconds)[0][:, None]
    return Contestant(
        YARDSTICK,
        "forward",
        1,
        seconds,
        silently(lambda: reference.run(design, audio)),
        nap=lambda: reference.run(design, audio)[0].nap[:, 0],
    )


def uncompiled(seconds: float) -> Contestant:
    """The XLA kernel without compilation, operation by operation."""
    import jax
    import jax.numpy as jnp

    from physics.carfac import Carfac

    model = Carfac(RATE_HZ, kernel="xla")
    params, audio = model.init(), jnp.asarray(noise(1, seconds))

    def call():
        with jax.disable_jit():
            return jax.block_until_ready(model.run(params, audio, outputs=("nap",))[0].nap)

    return Contestant(
        "JAX without jit",
        "forward",
        1,
        seconds,
        silently(call),
        nap=lambda: np.asarray(call()[0, :, 0]),
    )
