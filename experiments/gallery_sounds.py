"""Exists to draw what a cochlea makes of speech: cochleagram, stabilized image, pitchogram."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import gallery_style as look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SYLLABLES = ("mā", "má", "mǎ", "mà")
_LEVEL_DB_SPL = 65.0
_GAP_S = 0.06
_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000)


def cochleagram(setting: look.Setting) -> Figure:
    """Neural activity of four syllables that differ in nothing but the course of their pitch."""
    import jax

    from physics.carfac import Carfac

    audio, middles = speech(setting.sample_rate_hz)
    ear = Carfac(sample_rate_hz=setting.sample_rate_hz, hop_s=0.002, window_s=0.01)
    features, _ = jax.jit(ear.apply)(ear.init(), audio[None])
    image = np.sqrt(np.maximum(np.asarray(features[0]).T[::-1], 0))
    poles = np.asarray(ear.channel_frequencies_hz(ear.init()))[::-1]
    figure = look.figure(look.WIDE, 2.6)
    axes = figure.subplots()
    end_ms = 1000 * audio.size / setting.sample_rate_hz
    extent = (0, end_ms, -0.5, len(poles) - 0.5)
    drawn = look.picture(axes, image, extent, vmin=0, vmax=np.quantile(image, 0.998))
    look.channel_ticks(axes, poles, _TICKS_HZ)
    axes.set_xlabel("time (ms)")
    look.colour_bar(axes, drawn, "neural activity (square root)")
    _name_syllables(axes, middles)
    axes.set_title("Cochleagram of four Mandarin tones")
    return figure


def stabilized_image(setting: look.Setting) -> Figure:
    """The stabilized auditory image in the middle of a vowel, and its mean over channels."""
    import jax

    from physics.sai import Sai

    audio, middles = speech(setting.sample_rate_hz)
    ear = Sai(sample_rate_hz=setting.sample_rate_hz, cochlea={}, hop_s=0.02)
    images, _ = jax.jit(ear.run)(ear.init(), audio[None])
    image = np.asarray(images[0, round(middles[0] / 0.02), 0])[::-1]
    poles = np.asarray(ear.channel_frequencies_hz(ear.init()))[::-1]
    lags_ms = 1000 * ear.lags_s()
    figure = look.figure(look.NARROW, 3.3)
    axes, below = figure.subplots(2, 1, height_ratios=(3.2, 1), sharex=True)
    drawn = look.picture(
        axes,
        np.sqrt(np.maximum(image, 0)),
        (lags_ms[0], lags_ms[-1], -0.5, len(poles) - 0.5),
        vmin=0,
    )
    look.channel_ticks(axes, poles, _TICKS_HZ)
    look.colour_bar(axes, drawn, "activity (square root)")
    axes.set_title(f"Stabilized image of the vowel of {SYLLABLES[0]}")
    below.plot(lags_ms, image.mean(axis=0), color=look.GREY, lw=1.2)
    below.set(xlabel="lag from the trigger (ms)", ylabel="mean over\nchannels")
    below.set_xlim(lags_ms[0], lags_ms[-1])
    below.grid(axis="x")
    return figure


def pitchogram(setting: look.Setting) -> Figure:
    """Which lags the activity repeats after, over time: the courses of the four tones."""
    import jax

    from physics.pitchogram import Pitchogram

    audio, middles = speech(setting.sample_rate_hz)
    hop_s = 0.005
    ear = Pitchogram(
        sample_rate_hz=setting.sample_rate_hz,
        sai={"hop_s": hop_s, "past_lag_s": 0.0, "future_lag_s": 0.0105},
        lags_per_octave=48,
        log_offset_s=0.0,
        min_lag_s=0.0015,
    )
    features, _ = jax.jit(ear.apply)(ear.init(), audio[None])
    pitch_hz = 1 / ear.lags_s()
    image = np.asarray(features[0]).T[::-1]
    figure = look.figure(look.WIDE, 2.6)
    axes = figure.subplots()
    extent = (0, 1000 * hop_s * image.shape[1], -0.5, len(pitch_hz) - 0.5)
    drawn = look.picture(axes, np.sqrt(np.maximum(image, 0)), extent, vmin=0)
    look.channel_ticks(axes, pitch_hz[::-1], (100, 150, 200, 300, 400, 500))
    axes.set(xlabel="time (ms)", ylabel="1 / lag (Hz)")
    look.colour_bar(axes, drawn, "activity (square root)")
    _name_syllables(axes, middles)
    axes.set_title("Pitchogram of four Mandarin tones: the upper ridge is the pitch")
    return figure


def speech(sample_rate_hz: int) -> tuple[np.ndarray, list[float]]:
    """The syllable "ma" in its four tones, one after the other, from the embedded recordings.

    Returns:
        Audio `[samples]` at 65 dB SPL (if 1.0 is a peak of 100 dB SPL), and the middle of each
        syllable in seconds.
    """
    from data import SpokenTones

    clips = SpokenTones(sample_rate_hz=sample_rate_hz).dataset("test")
    gap = np.zeros(round(_GAP_S * sample_rate_hz), np.float32)
    pieces, middles = [], []
    for tone in range(1, 5):
        item = clips[clips.names.index(f"clips/ma{tone}.ogg")]
        clip = item["audio"][: item["lengths"]]
        spoken = np.flatnonzero(np.abs(clip) > 0.02 * np.abs(clip).max())
        clip = clip[spoken[0] : spoken[-1]]
        middles.append((sum(map(len, pieces)) + len(clip) / 2) / sample_rate_hz)
        pieces += [clip, gap]
    audio = np.concatenate(pieces)
    rms = np.sqrt(np.mean(audio**2))
    # A sine at 100 dB SPL has the peak 1.0, hence the rms 0.707.
    return (audio * (10 ** ((_LEVEL_DB_SPL - 100) / 20) * 0.5**0.5 / rms)).astype("f4"), middles


def _name_syllables(axes: Any, middles: list[float]) -> None:
    for middle, name in zip(middles, SYLLABLES, strict=True):
        place, inside = (1000 * middle, 0.955), axes.get_xaxis_transform()
        axes.annotate(
            name, place, xycoords=inside, ha="center", va="top", color="white", fontsize=9
        )
