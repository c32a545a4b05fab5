"""Times sound makers, forward and gradient, against DDSP's formulae written down as they stand.

    python -m experiments.benchmark_synth --out=runs/benchmark

Milliseconds per second of audio, medians over the rounds, wall clock and processor time of the
whole process (all its threads), in which all take turns; and the memory that a call needs beside
its arguments and results. Writes `synth.md`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import launch, markdown
from experiments.benchmark_frontends import timed

RATE_HZ = 16000


@dataclasses.dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        name: what is timed.
        call: does it once, and waits for the result.
        audio_s: seconds of audio that a call is about, all clips together.
        memory_bytes: what the call needs beside arguments and results.
    """

    name: str
    call: Callable[[], Any]
    audio_s: float
    memory_bytes: int


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("out", "runs/benchmark", "Directory for the table.")
    flags.DEFINE_integer("rounds", 7, "Timed runs of each.", lower_bound=1)
    flags.DEFINE_integer("clips", 16, "Clips in a batch.", lower_bound=1)
    flags.DEFINE_float("seconds", 4.0, "Length of the clips.", lower_bound=0.1)
    flags.DEFINE_integer("hop_samples", 64, "Samples per frame of controls.", lower_bound=1)
    flags.DEFINE_integer("plain_clips", 1, "Clips of the formulae as they stand; 0: leave out.")


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    if len(argv) > 1:
        raise ValueError(f"benchmark_synth takes flags only, got {' '.join(argv[1:])}: --help")
    values = flags.FLAGS
    out = Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    found = entries(values.clips, values.seconds, values.hop_samples, values.plain_clips)
    times = measured(found, values.rounds)
    how = (
        f"{values.clips} clips of {values.seconds:g} s at {RATE_HZ} Hz, 100 partials and 65 bands "
        f"of noise, frames of {values.hop_samples} samples, float32; milliseconds per second of "
        f"audio, median of {values.rounds} rounds (fastest in brackets); load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors."
    )
    text = "\n\n".join(["# Sound makers", how, table(found, times)]) + "\n"
    (out / "synth.md").write_text(text)
    print(text)


def controls(module: Any, clips: int, seconds: float) -> dict[str, Any]:
    """Controls of a synthesiser, float32: a voice of 80 to 320 Hz, the rest normal."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    frames = int(seconds * module.sample_rate_hz) // module.hop_samples
    found: dict[str, Any] = {}
    for name, size in module.control_sizes.items():
        shape = (clips, frames) if size == 1 else (clips, frames, size)
        found[name] = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    walk = np.cumsum(rng.standard_normal((clips, frames)) * 0.02, axis=1)
    found["f0_hz"] = jnp.asarray(160 * 2 ** np.sin(walk), jnp.float32)
    return found | {"key": jax.random.split(jax.random.key(0), clips)}


def entries(clips: int, seconds: float, hop: int, plain_clips: int) -> list[Entry]:
    """Everything that is timed, compiled."""
    import jax
    import jax.numpy as jnp

    from physics import pitch, synth

    model = synth.HarmonicNoise(RATE_HZ, hop_samples=hop)
    room = dataclasses.replace(model, reverb_s=1.0)
    vocoder = synth.ChannelVocoder(RATE_HZ, hop_samples=hop)

    def harmonics(params, given):
        del params
        return model.harmonic_part(given)[0]

    def noise(params, given):
        del params
        return model.noise_part(given)[0]

    def plain_harmonics(params, given):
        del params
        return plain(given, RATE_HZ, hop)

    cases = [
        ("harmonics", model, harmonics, clips),
        ("noise", model, noise, clips),
        ("harmonics and noise", model, lambda p, given: model.apply(p, given)[0], clips),
        ("with a room of 1 s", room, lambda p, given: room.apply(p, given)[0], clips),
        ("channel vocoder, 32 bands", vocoder, lambda p, c: vocoder.apply(p, c)[0], clips),
    ]
    if plain_clips:
        name = f"harmonics, as published, {plain_clips} clip(s)"
        cases.append((name, model, plain_harmonics, plain_clips))
    found = []
    for name, module, function, n in cases:
        given = controls(module, n, seconds)
        key = {"key": given.pop("key")}
        params = module.init(jax.random.key(1))

        def sound(params, given, function=function, key=key):
            return function(params, given | key)

        def loss(params, given, sound=sound):
            return jnp.sum(sound(params, given) ** 2)

        audio_s = n * given["f0_hz"].shape[1] * hop / RATE_HZ
        found.append(entry(f"{name}, forward", sound, audio_s, params, given))
        both = jax.value_and_grad(loss, (0, 1))
        found.append(entry(f"{name}, forward and gradient", both, audio_s, params, given))
    audio = jnp.asarray(np.random.default_rng(0).standard_normal((clips, int(seconds * RATE_HZ))))
    front = pitch.PitchLoudness(RATE_HZ)

    def heard(audio):
        return front.run({}, audio)[0]

    found.append(entry("f0 and loudness, forward", heard, clips * seconds, 0.1 * audio))
    return found


def entry(name: str, function: Callable[..., Any], audio_s: float, *arguments: Any) -> Entry:
    """A call with these arguments, compiled, that waits for its result."""
    import jax

    ready = jax.jit(function).lower(*arguments).compile()
    needs = ready.memory_analysis()
    memory_bytes = needs.temp_size_in_bytes if needs is not None else 0
    return Entry(name, lambda: jax.block_until_ready(ready(*arguments)), audio_s, memory_bytes)


def plain(given: dict[str, Any], sample_rate_hz: int, hop: int) -> Any:
    """DDSP's harmonics as their formulae stand, an array of all partials at every sample."""
    import jax.numpy as jnp

    from physics import synth

    f0_hz = given["f0_hz"]
    amplitudes = synth.harmonic_amplitudes(
        f0_hz, given["amplitude"], given["harmonics"], sample_rate_hz
    )
    fade = jnp.asarray(0.5 - 0.5 * np.cos(np.pi * np.arange(hop) / hop), f0_hz.dtype)
    before = jnp.pad(amplitudes[:, :-1], ((0, 0), (1, 0), (0, 0)))[:, :, None]
    whole = before + (amplitudes[:, :, None] - before) * fade[None, None, :, None]
    first = jnp.concatenate([f0_hz[:, :1], f0_hz[:, :-1]], axis=1)[..., None]
    glide = jnp.asarray(np.arange(hop) / hop, f0_hz.dtype)[None, None]
    hz = (first + (f0_hz[..., None] - first) * glide).reshape(f0_hz.shape[0], -1, 1)
    k = jnp.arange(1, amplitudes.shape[-1] + 1, dtype=f0_hz.dtype)[None, None]
    whole = jnp.where(hz * k < sample_rate_hz / 2, whole.reshape(hz.shape[0], hz.shape[1], -1), 0)
    angle = jnp.cumsum(2 * np.pi * hz * k / sample_rate_hz, axis=1)
    return jnp.sum(whole * jnp.sin(angle), axis=-1)


def measured(found: Sequence[Entry], rounds: int) -> np.ndarray:
    """Seconds by round, entry, and clock (wall, processor), after a run that does not count."""
    for one in found:
        one.call()
    return np.array([[timed(one.call) for one in found] for _ in range(rounds)])


def table(found: Sequence[Entry], times: np.ndarray) -> str:
    """Times as from `measured`, as Markdown."""
    head = ["", "wall, ms", "processor, ms", "times real time, a clip", "memory, MB"]
    rows = []
    for i, one in enumerate(found):
        each = 1e3 * times[:, i] / one.audio_s
        cells = [f"{np.median(each[:, c]):.3g} ({each[:, c].min():.3g})" for c in (0, 1)]
        cells += [f"{np.median(each[:, 0]) / 1e3:.4f}", f"{one.memory_bytes / 1e6:.0f}"]
        rows.append([one.name, *cells])
    return markdown.table(head, rows)


def app() -> None:
    """Runs from the command line."""
    define_flags()
    launch.run(main)


if __name__ == "__main__":
    app()
