"""Exists to draw how a cochlea meets loud sounds: its compression, and how its gain settles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import gallery_style as look
from experiments.plots import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TONES_HZ = (1000.0, 2000.0, 4000.0)
_FIT_DB_SPL = (40.0, 80.0)
_STEP_DB_SPL = (40.0, 80.0)
_STEP_TONE_HZ = 4000.0
_SOFT_S = 0.2
_DASHES = ("-", "--", "-.", ":")


def compression(setting: look.Setting) -> Figure:
    """Steady motion of the basilar membrane at its best place against the level of a tone."""
    levels = np.arange(0, 100 + setting.level_step_db / 2, setting.level_step_db)
    figure = look.figure(look.WIDE, 2.5)
    panels = figure.subplots(1, len(_TONES_HZ), sharey=True)
    curves = {health: _steady_db(setting, health, levels) for health in look.HEALTH_NAMES}
    fitted = (levels >= _FIT_DB_SPL[0]) & (levels <= _FIT_DB_SPL[1])
    for index, (axes, tone_hz) in enumerate(zip(panels, _TONES_HZ, strict=True)):
        top = max(curve[index].max() for curve in curves.values())
        # What a linear ear would do, through its loudest point.
        axes.plot(levels, top + levels - levels[-1], color="#b0b0b0", lw=0.8, label="1 dB/dB")
        for health, curve in curves.items():
            colour, dashes = look.HEALTH_COLOURS[health], look.HEALTH_STYLES[health]
            name = look.HEALTH_NAMES[health]
            axes.plot(levels, curve[index], color=colour, ls=dashes, label=name)
        slope = np.polyfit(levels[fitted], curves[1.0][index][fitted], 1)[0]
        text = f"{slope:.2f} dB/dB\n{_FIT_DB_SPL[0]:.0f} to {_FIT_DB_SPL[1]:.0f} dB SPL"
        axes.annotate(
            text, (0.97, 0.04), xycoords="axes fraction", ha="right", color=look.HEALTH_COLOURS[1.0]
        )
        axes.set_title(f"{tone_hz / 1000:g} kHz tone")
        axes.set(xlim=(0, 100), xlabel="level of the tone (dB SPL)")
        axes.grid()
    panels[0].set_ylabel("BM motion at its place\n(dB re 1, peak)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, handlelength=2.6)
    return figure


def _steady_db(setting: look.Setting, health: float, levels: np.ndarray) -> np.ndarray:
    """BM amplitude in dB, `[tones, levels]`, of the channel that a soft tone moves most."""
    import jax
    import jax.numpy as jnp

    from physics.carfac import Carfac

    rate = setting.sample_rate_hz
    ear = Carfac(sample_rate_hz=rate, initial={"car.ohc_health": health}, settled=True)
    times = np.arange(round(setting.settle_s * rate)) / rate
    # Whole cycles of every tone, at the end.
    last = round(0.05 * rate)

    @jax.jit
    def amplitude(audio):
        bm: Any = ear.run(ear.init(), audio, outputs=("bm",))[0].bm
        return jnp.sqrt(2 * jnp.mean(bm[:, -last:, 0] ** 2, axis=1))

    rows = []
    for tone_hz in _TONES_HZ:
        ramp = np.minimum(1, times / 0.005)
        tone = ramp * np.sin(2 * np.pi * tone_hz * times)
        peaks = 10 ** ((levels - 100) / 20)
        response = np.asarray(amplitude(jnp.asarray(peaks[:, None] * tone, jnp.float32)))
        rows.append(20 * np.log10(response[:, np.argmax(response[0])]))
    return np.stack(rows)


def agc_settling(setting: look.Setting) -> Figure:
    """Motion at the place of a tone that steps up and down, and how each stage alone recovers."""
    import jax
    import jax.numpy as jnp

    from physics.carfac import Carfac

    rate, loud_s = setting.sample_rate_hz, setting.settle_s
    ear = Carfac(sample_rate_hz=rate, settled=True)
    params = ear.init()
    times_s = np.arange(round((_SOFT_S + 2 * loud_s) * rate)) / rate - _SOFT_S
    level = np.where((times_s >= 0) & (times_s < loud_s), _STEP_DB_SPL[1], _STEP_DB_SPL[0])
    tone = 10 ** ((level - 100) / 20) * np.sin(2 * np.pi * _STEP_TONE_HZ * times_s)
    place = int(np.argmin(np.abs(ear.channel_frequencies_hz(params) - _STEP_TONE_HZ)))

    @jax.jit
    def motion(audio: Any) -> Any:
        bm: Any = ear.run(params, audio, outputs=("bm",))[0].bm
        return bm[0, :, 0, place]

    envelope = _envelope(np.asarray(motion(jnp.asarray(tone[None], "f4"))))
    after_s, memory = _recovery(ear, params, 2 * loud_s)
    taus_s = np.asarray(ear.physical(params)["agc"]["time_constants_s"])

    figure = look.figure(look.WIDE, 2.9)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.25, 1), height_ratios=(1, 3.2))
    above, left = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    right = figure.add_subplot(grid[:, 1])
    above.plot(1000 * times_s, level, color=look.GREY)
    above.set(ylabel="tone\n(dB SPL)", ylim=(30, 90), yticks=_STEP_DB_SPL)
    above.tick_params(axis="x", labelbottom=False)
    above.set_title(f"The gain settles after steps of a {_STEP_TONE_HZ / 1000:g} kHz tone")
    left.plot(1000 * times_s, 20 * np.log10(envelope), color=COLOURS[0])
    left.set(xlabel="time from the step up (ms)", ylabel="BM motion (dB re 1, peak)")
    left.set_ylim(-45, 22)
    for axes in (above, left):
        # Without the onset of the first tone, and the end of the last.
        axes.set_xlim(-500 * _SOFT_S, 1000 * times_s[-1] - 20)
        axes.grid()
    share = 100 * np.exp(-1)
    right.axhline(share, color="#b0b0b0", lw=0.8, zorder=0)
    for stage, tau_s in enumerate(taus_s):
        colour, dashes = COLOURS[stage % len(COLOURS)], _DASHES[stage % len(_DASHES)]
        right.plot(1000 * after_s, 100 * memory[:, stage], color=colour, ls=dashes)
        right.plot(1000 * tau_s, share, "o", ms=4, color=colour)
        right.axvline(1000 * tau_s, color=colour, lw=0.6, ymax=0.88, zorder=0)
        name = f"stage {stage + 1}\n{1000 * tau_s:.3g} ms"
        right.annotate(name, (1000 * tau_s, 106), color=colour, ha="center", fontsize=7)
    right.set_xscale("log")
    right.set(xlim=(0.3, 1000 * after_s[-1]), ylim=(0, 119), xlabel="time in silence (ms)")
    right.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
    right.set_yticks([0, share, 50, 100], ["0", "37", "50", "100"])
    right.set_ylabel("memory of the stage (% of its start)")
    right.set_title("Each stage, alone, recovers")
    return figure


def _recovery(ear: Any, params: Any, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Times, and what each stage of the gain control that began at 1, alone, still remembers.

    A clip of silence for each stage; the state is passed on from piece to piece and looked at.
    """
    import jax
    import jax.numpy as jnp

    stages = ear.structure.n_stages
    state = ear.init_state(stages)
    alone = jnp.eye(stages, dtype=state.agc_memory.dtype)[:, :, None, None]
    state = state.replace(agc_memory=jnp.broadcast_to(alone, state.agc_memory.shape))
    silence = jnp.zeros((stages, ear.structure.block_samples))

    def step(state: Any, _: None) -> Any:
        _, state = ear.run(params, silence, state, outputs=())
        return state, jnp.diagonal(state.agc_memory[:, :, 0, 0])

    pieces = round(seconds * ear.sample_rate_hz) // silence.shape[1]
    memory = np.asarray(jax.jit(lambda state: jax.lax.scan(step, state, None, pieces)[1])(state))
    return np.arange(1, pieces + 1) * silence.shape[1] / ear.sample_rate_hz, memory


def _envelope(signal: np.ndarray) -> np.ndarray:
    from scipy.signal import hilbert

    return np.maximum(np.abs(np.asarray(hilbert(signal))), 1e-6)
