"""Times front ends and filters against torchaudio and SciPy, and a training step of ear and cortex.

    python -m experiments.benchmark_frontends --out=runs/benchmark [--famularo_path=CHECKOUT]

Each and its peer take turns, so that what else the machine does hits both alike. Times
are medians over the rounds, wall clock and processor time of the whole process (all its threads);
ratios are medians over the rounds, below 1 where ours is faster. Writes `frontends.md`.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import benchmark_peers as peers
from experiments import launch, markdown

RATE_HZ = 16000


@dataclasses.dataclass(frozen=True)
class Pair:
    """A front end, and who does the same work.

    Attributes:
        name: of the front end.
        ours: computes its features once.
        peer_name: who else does, and how.
        peer: computes the same, or None.
    """

    name: str
    ours: Callable[[], Any]
    peer_name: str = ""
    peer: Callable[[], Any] | None = None


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("out", "runs/benchmark", "Directory for the table.")
    flags.DEFINE_integer("rounds", 9, "Timed runs of each.", lower_bound=1)
    flags.DEFINE_integer("clips", 16, "Clips in a batch of the forward rows.", lower_bound=1)
    flags.DEFINE_float("seconds", 1.0, "Length of the clips.", lower_bound=0.1)
    flags.DEFINE_string(
        "famularo_path", None, "A checkout of pirl-lab/diffAuditoryProcessing, to compare with."
    )


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    if len(argv) > 1:
        raise ValueError(f"benchmark_frontends takes flags only, got {' '.join(argv[1:])}: --help")
    values = flags.FLAGS
    out = Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    audio = noise(values.clips, values.seconds)
    rows = [measured(pair, values.rounds) for pair in pairs(audio)]
    filters = [measured(pair, values.rounds) for pair in filter_pairs(audio)]
    how = (
        f"{values.clips} clips of {values.seconds:g} s at {RATE_HZ} Hz, float32; milliseconds per "
        f"second of audio, median of {values.rounds} rounds; load {os.getloadavg()[0]:.1f} on "
        f"{os.cpu_count()} processors."
    )
    lines = [
        "# Front ends: time of a forward pass",
        how,
        table(rows, values.clips * values.seconds),
        "## Filters: forward, and gradient for signal and filter",
        table(filters, values.clips * values.seconds),
        "## Training step of ear and cortex",
        training(values.rounds, values.famularo_path),
    ]
    text = "\n\n".join(lines) + "\n"
    (out / "frontends.md").write_text(text)
    print(text)


def noise(clips: int, seconds: float) -> np.ndarray:
    """The same noise for everybody, `[clips, time]` float32, as loud as speech."""
    rng = np.random.default_rng(0)
    return (0.05 * rng.standard_normal((clips, int(RATE_HZ * seconds)))).astype(np.float32)


def pairs(audio: np.ndarray) -> list[Pair]:
    """Everybody, compiled and warm.

    Args:
        audio: `[clips, time]`.
    """
    import jax

    from physics.compressors import Pcen
    from physics.cortex import AuditorySpectrogram, Strf
    from physics.filterbanks import Gammatone, Leaf, SincNet
    from physics.spectra import Mel
    from physics.stages import FeatureLayout

    mel = Mel(window_s=0.025, n_fft=512)
    found = [Pair("mel", forward(mel, audio), "torchaudio", peers.mel(audio))]
    for name, module in (
        ("gammatone", Gammatone()),
        ("Gabor (LEAF)", Leaf()),
        ("SincNet", SincNet()),
    ):
        peer = peers.filterbank(module, audio)
        found.append(Pair(name, forward(module, audio), "SciPy, oaconvolve", peer))
    energies = np.asarray(forward(mel, audio)())
    layout = FeatureLayout(mel.sample_rate_hz / mel.hop_samples, energies.shape[2:])
    pcen = Pcen()
    found.append(
        Pair("PCEN", after(pcen, layout, energies), "SciPy, lfilter", peers.pcen(pcen, energies))
    )
    ear = AuditorySpectrogram(n_channels=128)
    peer = peers.auditory_spectrogram(ear, audio)
    found.append(
        Pair("auditory spectrogram", forward(ear, audio), "SciPy, oaconvolve and lfilter", peer)
    )
    heard = np.asarray(jax.block_until_ready(forward(ear, audio)()))
    layout = FeatureLayout(ear.sample_rate_hz / ear.hop_samples, heard.shape[2:])
    found.append(Pair("40 STRFs", after(Strf(), layout, heard)))
    return found


def filter_pairs(audio: np.ndarray, n_taps: int = 512) -> list[Pair]:
    """Filters and their gradients beside SciPy, compiled and warm.

    Args:
        audio: `[clips, time]`.
        n_taps: of the FIR filter.
    """
    import jax
    import jax.numpy as jnp
    import scipy.signal

    from physics.filters import analytic_signal, convolve, lfilter, sosfilt

    rng = np.random.default_rng(1)
    taps = (rng.standard_normal(n_taps) / n_taps).astype(np.float32)
    cotangent = rng.standard_normal(audio.shape).astype(np.float32)
    design: Any = scipy.signal.butter
    sections = np.asarray(design(8, 0.3, output="sos"), np.float32)
    b, a = np.asarray(design(2, 0.3), np.float32)
    x, w = jnp.asarray(audio), jnp.asarray(cotangent)

    def gradient(function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.grad(lambda *arguments: jnp.vdot(function(*arguments), w), argnums=(0, 1))

    def fir(x: Any, h: Any) -> Any:
        return convolve(x, h)[0]

    def cascade(x: Any, sos: Any) -> Any:
        return sosfilt(sos, x)[0]

    def pole_zero(x: Any, b: Any, a: Any) -> Any:
        return lfilter(b, a, x)[0]

    filters = jnp.asarray(taps), jnp.asarray(sections)
    return [
        Pair(
            f"FIR, {n_taps} taps",
            compiled(fir, x, filters[0]),
            "SciPy, oaconvolve",
            peers.fir(audio, taps),
        ),
        Pair(
            f"FIR, {n_taps} taps, gradient",
            compiled(gradient(fir), x, filters[0]),
            "SciPy, oaconvolve and fftconvolve",
            peers.fir_gradient(audio, taps, cotangent),
        ),
        Pair(
            "second order",
            compiled(pole_zero, x, jnp.asarray(b), jnp.asarray(a[1:])),
            "SciPy, lfilter",
            lambda: scipy.signal.lfilter(b, a, audio),
        ),
        Pair(
            "4 second-order sections",
            compiled(cascade, x, filters[1]),
            "SciPy, sosfilt",
            lambda: scipy.signal.sosfilt(sections, audio),
        ),
        Pair("the same, gradient", compiled(gradient(cascade), x, filters[1])),
        Pair(
            "analytic signal",
            compiled(analytic_signal, x),
            "SciPy, hilbert",
            lambda: scipy.signal.hilbert(audio),
        ),
    ]


def forward(module: Any, audio: np.ndarray) -> Callable[[], Any]:
    """Features of a front end, compiled."""
    import jax
    import jax.numpy as jnp

    params = module.init(jax.random.key(0))
    return compiled(lambda p, x: module.apply(p, x)[0], params, jnp.asarray(audio))


def after(stage: Any, layout: Any, features: np.ndarray) -> Callable[[], Any]:
    """Features of a stage after those of a front end, compiled."""
    import jax
    import jax.numpy as jnp

    physical = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), stage.initial(layout))
    return compiled(lambda p, x: stage.apply(p, x, layout)[0], physical, jnp.asarray(features))


def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    """A call with these arguments that waits for its result."""
    import jax

    ready = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(ready(*arguments))


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of wall clock and of processor time."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def measured(pair: Pair, rounds: int) -> dict[str, Any]:
    """Times of both by round, after a run of each that does not count."""
    calls = [call for call in (pair.ours, pair.peer) if call is not None]
    for call in calls:
        call()
    times = np.array([[timed(call) for call in calls] for _ in range(rounds)])
    return {"pair": pair, "times": times}


def table(rows: Sequence[dict[str, Any]], audio_s: float) -> str:
    """Rows of `measured` as Markdown."""
    head = ["front end", "ours, ms", "processor, ms", "peer", "peer, ms", "processor, ms"]
    head += ["ours / peer", "processor"]
    lines = []
    for row in rows:
        pair, times = row["pair"], row["times"]
        cells = [pair.name, *(f"{1e3 * t / audio_s:.3g}" for t in np.median(times[:, 0], axis=0))]
        cells += [pair.peer_name or "none"]
        if pair.peer is None:
            cells += [""] * 4
        else:
            cells += [f"{1e3 * t / audio_s:.3g}" for t in np.median(times[:, 1], axis=0)]
            cells += [f"{r:.2f}" for r in np.median(times[:, 0] / times[:, 1], axis=0)]
        lines.append(cells)
    return markdown.table(head, lines)


def training(rounds: int, famularo_path: str | None, clips: int = 4, seconds: float = 1.0) -> str:
    """The training step of the config `strf_cnn` in words, and that of its authors' code."""
    import jax

    from experiments.configs import strf_cnn
    from hybrid.build import build
    from hybrid.parts import start
    from hybrid.step import make_step

    config = strf_cnn.get_config()
    config.batch_size = clips
    config.data.kwargs = {"sample_rate_hz": RATE_HZ, "seconds": seconds}
    experiment = build(config)
    state, optimizers = start(experiment)
    step = make_step(experiment.task, *optimizers)
    audio = noise(clips, seconds)
    batch = {
        "audio": audio,
        "lengths": np.full(clips, audio.shape[1], np.int32),
        "labels": np.arange(clips, dtype=np.int32) % 4,
        "weights": np.ones(clips, np.float32),
        "ids": np.arange(clips, dtype=np.int32),
    }
    batch = jax.tree.map(jax.numpy.asarray, batch)

    def call() -> None:
        nonlocal state
        state, report = step(state, batch, update_physics=True, update_learner=True)
        jax.block_until_ready((state, report))

    begin = time.perf_counter()
    call()
    compile_s = time.perf_counter() - begin
    wall, processor = np.median([timed(call) for _ in range(rounds)], axis=0) / (clips * seconds)
    ours = (
        f"Config `strf_cnn`, batch of {clips} clips of {seconds:g} s, float32, both trees updated: "
        f"{wall:.3f} s per second of audio (processor time {processor:.3f} s), after "
        f"{compile_s:.0f} s of compilation."
    )
    theirs = "The authors' code: left out, for --famularo_path does not say where it is."
    if famularo_path is not None:
        theirs = famularo(Path(famularo_path), clips, seconds, wall, processor)
    return f"{ours}\n\n{theirs}"


def famularo(checkout: Path, clips: int, seconds: float, wall: float, processor: float) -> str:
    """The same step by the authors' code, in a process of its own: it switches JAX to float64.

    Raises:
        ValueError: this is no checkout of it.
    """
    if not (checkout / "supervisedSTRF.py").is_file():
        raise ValueError(
            "--famularo_path must be a checkout of pirl-lab/diffAuditoryProcessing; "
            f"{checkout} has no supervisedSTRF.py. Make one with: git clone "
            "https://github.com/pirl-lab/diffAuditoryProcessing"
        )
    command = [sys.executable, "-m", "experiments.benchmark_famularo", str(checkout.resolve())]
    done = subprocess.run(
        [*command, str(clips), str(seconds)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        return f"The authors' code: left out, for it ended with: {done.stderr.strip()[-500:]}"
    theirs = [float(x) for x in done.stdout.split()[-2:]]
    ratios = theirs[0] / wall, theirs[1] / processor
    return (
        f"The authors' code, float64: {theirs[0]:.2f} s (processor time {theirs[1]:.2f} s), "
        f"{ratios[0]:.0f} times as long ({ratios[1]:.0f} times)."
    )


def app() -> None:
    """Runs from the command line."""
    define_flags()
    launch.run(main)


if __name__ == "__main__":
    app()
