"""Exists to let google/carfac's own models, from a checkout, take part in the benchmark.

Its NumPy and JAX models are imported, its C++ model is compiled for this processor into a folder
that goes when the process ends. They hear what ours hear, with 71 channels and two-cap hair cells;
the C++ model has one-cap hair cells only.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark_models import RATE_HZ, Contestant, compiled, noise, silently

NUMPY, JAX = "google/carfac NumPy", "google/carfac JAX, jitted"
CPP = "google/carfac C++ (one-cap)"


def check_checkout(checkout: Path) -> None:
    """Looks for what is used of a checkout.

    Raises:
        ValueError: it is not there.
    """
    for part in ("python/src/carfac", "cpp/carfac.h"):
        if not (checkout / part).exists():
            raise ValueError(
                f"--carfac_path must be a checkout of google/carfac; {checkout / part} does not "
                "exist. Make one with: git clone https://github.com/google/carfac"
            )


def google_numpy(checkout: Path, seconds: float) -> Contestant:
    """google/carfac's NumPy model, one clip."""
    carfac = _import(checkout, "carfac.np.carfac")
    audio = noise(1, seconds)[0][:, None]

    def run():
        # It keeps its state in its design.
        design = carfac.carfac_init(carfac.design_carfac(fs=RATE_HZ, ihc_style="two_cap"))
        return carfac.run_segment(design, audio)[0]

    return Contestant(NUMPY, "forward", 1, seconds, silently(run), nap=lambda: run()[:, :, 0])


def google_jax(checkout: Path, mode: str, clips: int, seconds: float) -> Contestant:
    """google/carfac's JAX model, jitted, several clips by `vmap`.

    The gradient is for the audio and everything that it calls weights.
    """
    import jax
    import jax.numpy as jnp

    carfac = _import(checkout, "carfac.jax.carfac")
    parameters = carfac.CarfacDesignParameters(fs=RATE_HZ, n_ears=1)
    hypers, weights, state = carfac.design_and_init_carfac(parameters)
    audio = jnp.asarray(noise(clips, seconds))[..., None]

    def activity(weights, audio):
        def one(clip):
            return carfac.run_segment(clip, hypers, weights, state)[0]

        return one(audio[0])[None] if clips == 1 else jax.vmap(one)(audio)

    def loss(weights, audio):
        nap = activity(weights, audio)
        return jnp.vdot(nap, nap)

    function = activity if mode == "forward" else jax.grad(loss, argnums=(0, 1))
    call, compile_s = compiled(function, weights, audio)
    nap = (lambda: np.asarray(call()[0, :, :, 0])) if mode == "forward" else None
    return Contestant(JAX, mode, clips, seconds, silently(call), compile_s, nap)


# Reads clips from a file; at each byte from outside runs them all, every processor the next that
# is left, and says how long it took.
_MAIN = """
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "carfac.h"

int main(int, char** argv) {
  const int clips = std::atoi(argv[2]), samples = std::atoi(argv[3]);
  FILE* file = std::fopen(argv[1], "rb");
  if (!file) return 1;
  std::vector<ArrayXX> sounds(clips, ArrayXX(1, samples));
  std::vector<std::unique_ptr<CARFAC>> models;
  std::vector<std::unique_ptr<CARFACOutput>> outputs;
  for (ArrayXX& sound : sounds) {
    if (std::fread(sound.data(), sizeof(float), samples, file) != size_t(samples)) return 1;
    models.emplace_back(new CARFAC(1, RATE_HZ, CARParams(), IHCParams(), AGCParams()));
    outputs.emplace_back(new CARFACOutput(true, false, false, false));
  }
  const unsigned processors = std::thread::hardware_concurrency();
  const int threads = std::min<int>(clips, processors ? processors : 1);
  for (char byte; std::fread(&byte, 1, 1, stdin) == 1;) {
    const auto start = std::chrono::steady_clock::now();
    std::atomic<int> next{0};
    const auto work = [&] {
      for (int i; (i = next++) < clips;) {
        models[i]->RunSegment(sounds[i], false, outputs[i].get());
      }
    };
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("%.9f\\n", took.count());
    std::fflush(stdout);
  }
}
"""


def google_cpp(checkout: Path, eigen: Path, clips: int, seconds: float) -> Contestant:
    """google/carfac's C++ model; several clips on as many threads as there are processors.

    Raises:
        FileNotFoundError: no compiler, or no Eigen.
        subprocess.CalledProcessError: it does not compile.
    """
    program, folder = _compile(checkout, eigen), Path(tempfile.mkdtemp(prefix="carfac_audio_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "audio").write_bytes(noise(clips, seconds).tobytes())
    process = subprocess.Popen(
        [program, folder / "audio", str(clips), str(int(RATE_HZ * seconds))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.kill)

    def call() -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("x")
        process.stdin.flush()
        return float(process.stdout.readline())

    return Contestant(CPP, "forward", clips, seconds, call)


@functools.cache
def _compile(checkout: Path, eigen: Path) -> Path:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or not (eigen / "Eigen").is_dir():
        raise FileNotFoundError(
            f"google's C++ model needs a C++ compiler (found: {compiler}) and Eigen; {eigen} has "
            "no folder Eigen. Install libeigen3-dev, or say where it is by --eigen_path."
        )
    folder = Path(tempfile.mkdtemp(prefix="carfac_cpp_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "main.cc").write_text(_MAIN)
    sources = [checkout / "cpp" / name for name in ("carfac.cc", "car.cc", "ear.cc")]
    flags = ["-std=c++17", "-O3", "-march=native", "-DNDEBUG", "-w", "-pthread"]
    flags += [f"-DRATE_HZ={RATE_HZ}", "-I", checkout / "cpp", "-I", eigen]
    command = [compiler, *flags, folder / "main.cc", *sources, "-o", folder / "run"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "run"


def _import(checkout: Path, module: str) -> Any:
    source = str(checkout / "python" / "src")
    if source not in sys.path:
        sys.path.insert(0, source)
    return importlib.import_module(module)
