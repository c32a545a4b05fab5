"""Exists to do with torchaudio and SciPy what our front ends do, for the benchmark and its test.

Each function returns a call that computes once; what can be prepared is prepared before. SciPy's
transforms may use all processors, as JAX and torch do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal

Call = Callable[[], np.ndarray]


def mel(audio: np.ndarray, rate_hz: int = 16000) -> Call:
    """40 mel bands, windows of 25 ms every 10 ms, by torchaudio; `[clips, bands, frames]`."""
    import torch

    from data.torchaudio_compat import load_torchaudio

    transform = load_torchaudio().transforms.MelSpectrogram(
        rate_hz, n_fft=512, win_length=rate_hz // 40, hop_length=rate_hz // 100, n_mels=40
    )
    clips = torch.from_numpy(audio)

    def call() -> np.ndarray:
        with torch.no_grad():
            return transform(clips).numpy()

    return call


def filterbank(module: Any, audio: np.ndarray) -> Call:
    """A `physics.filterbanks.Filterbank` at its initial values; `[clips, frames, channels]`."""
    import jax

    physical = module.physical(module.init(jax.random.key(0)))
    taps = np.asarray(module.filters(physical))
    windows = np.asarray(module.windows(physical))
    detect = {
        "modulus": np.abs,
        "square": lambda x: x.real**2 + x.imag**2 if np.iscomplexobj(x) else x * x,
        "halfwave": lambda x: np.maximum(x.real, 0),
    }[module.detector]
    hop, before = module.hop_samples, windows.shape[1] - module.hop_samples

    def call() -> np.ndarray:
        detected = detect(_convolved(audio, taps))
        padded = np.pad(detected, ((0, 0), (0, 0), (before, 0)))
        framed = np.lib.stride_tricks.sliding_window_view(padded, windows.shape[1], axis=-1)
        features = np.einsum("bcfw,cw->bfc", framed[:, :, ::hop], windows, optimize=True)
        return np.asarray(module.finish(jax.numpy.asarray(features)))

    return call


def pcen(stage: Any, energies: np.ndarray) -> Call:
    """`physics.compressors.Pcen` at its initial values; `[clips, frames, channels]`."""
    smoothing = np.float32(stage.smoothing)
    numerator = np.array([smoothing], np.float32)
    denominator = np.array([1, smoothing - 1], np.float32)
    root = 1 / stage.root

    def call() -> np.ndarray:
        start = (1 - smoothing) * energies[:, :1]
        smoothed, _ = scipy.signal.lfilter(numerator, denominator, energies, axis=1, zi=start)
        normal = energies / (stage.eps + smoothed) ** stage.alpha
        return (normal + stage.delta) ** root - stage.delta**root

    return call


def auditory_spectrogram(module: Any, audio: np.ndarray) -> Call:
    """`physics.cortex.AuditorySpectrogram` at its initial values; `[clips, frames, channels]`."""
    from physics.cortex import roex

    taps = roex.impulse_responses(
        module.sample_rate_hz,
        module.num_taps,
        module.lowest_hz,
        module.channels_per_octave,
        module.n_filters,
        module.q_erb,
    ).astype(np.float32)
    exponent = np.float32(module.exponent)
    pole = np.exp(-1 / (module.sample_rate_hz * module.time_constant_s))
    denominator, hop = np.array([1, -pole], np.float32), module.hop_samples

    def call() -> np.ndarray:
        filtered = _convolved(audio, taps)
        compressed = np.copysign(np.abs(filtered) ** exponent, filtered)
        sharpened = np.maximum(compressed[:, :-1] - compressed[:, 1:], 0)
        level = scipy.signal.lfilter(np.ones(1, np.float32), denominator, sharpened, axis=-1)
        return np.asarray(level)[:, :, hop - 1 :: hop].swapaxes(1, 2)

    return call


def fir(audio: np.ndarray, taps: np.ndarray) -> Call:
    """A causal FIR filter of every clip; `[clips, time]`."""
    return lambda: _convolved(audio, taps[None])[:, 0]


def fir_gradient(
    audio: np.ndarray, taps: np.ndarray, cotangent: np.ndarray
) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """Gradients of `sum(cotangent * fir(audio, taps))` for the audio and for the taps."""

    def call() -> tuple[np.ndarray, np.ndarray]:
        by_audio = _convolved(cotangent[:, ::-1], taps[None])[:, 0, ::-1]
        with scipy.fft.set_workers(os.cpu_count() or 1):
            lags = scipy.signal.fftconvolve(cotangent, audio[:, ::-1], axes=-1)
        start = audio.shape[-1] - 1
        return by_audio, lags[:, start : start + taps.size].sum(axis=0)

    return call


def _convolved(audio: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """`[clips, channels, time]`, from the first sample on."""
    with scipy.fft.set_workers(os.cpu_count() or 1):
        out = scipy.signal.oaconvolve(audio[:, None], taps[None], axes=-1)
    return out[..., : audio.shape[-1]]
