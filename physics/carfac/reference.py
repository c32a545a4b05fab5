"""The yardstick: CAR-FAC in plain NumPy float64, to be read beside Lyon's book, not to be fast.

A cascade of resonators from base to apex (CAR) is undamped by outer hair cells (OHC); inner hair
cells and synapses (IHC) detect its motion; filters over time and place (AGC) turn that to damping.
Sources: R. F. Lyon, *Human and Machine Hearing* (2017), by chapter; arXiv 2404.17490 (v2);
google/carfac (Apache 2.0, commit 3a69467, v3 synapse), whose NumPy model settles the details.

    coefficients = design({"car": {"ohc_health": 0.5}}, sample_rate_hz=16000.0)
    outputs, state = run(coefficients, audio)            # audio [time, ears], full scale 1
    more, state = run(coefficients, next_audio, state)   # goes on where the first piece ended

Within a sample arrays are `[ears, channels]`, channel 0 at the base. What differs between ears has
shape `[ears, 1]` or `[ears, channels]` in `car` and `ihc` (the frequency map only `[ears, 1]`),
`[ears, 1, 1]` to `[ears, channels, classes]` in `synapse`, `[ears, stages or 1]` in `agc`.
"""

import copy
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

IHC_STYLES = ("just_hwr", "one_cap", "two_cap", "two_cap_with_syn")
SMOOTHERS = ((3, 1), *((5, iterations) for iterations in range(1, 17)))  # taps, iterations


def default_parameters(num_stages: int = 4) -> dict[str, dict[str, Any]]:
    """Physical parameters, google/carfac's values for `num_stages` AGC stages; no unit: a ratio."""
    stage = np.arange(num_stages)
    car = {
        "velocity_scale": 0.1, "velocity_offset": 0.04,  # where velocity saturates the OHC; bias
        "min_zeta": 0.10, "max_zeta": 0.35,  # damping: fully undamped, and passive
        "first_pole_theta": 0.85 * np.pi,  # angle of the most basal pole, radians a sample
        "zero_ratio": np.sqrt(2.0),  # zero frequency over pole frequency
        "high_f_damping_compression": 0.5,  # 0 to 1: less damping near the Nyquist frequency
        "erb_per_step": 0.5, "min_pole_hz": 30.0,  # from channel to channel; where they end
        "erb_break_hz": 165.3, "erb_q": 1000.0 / (24.7 * 4.37),  # Greenwood; Glasberg and Moore
        "ac_corner_hz": 20.0, "ohc_health": 1.0,  # high-pass of the output (new in v2); 0 to 1
    }  # fmt: skip
    ihc = {
        "tau_lpf_s": 80e-6,  # output smoothing: twice in one_cap, once in two_cap
        "tau_out_s": 0.5e-3, "tau_in_s": 10e-3,  # one_cap: depletion, recovery
        "tau1_out_s": 0.5e-3, "tau1_in_s": 0.2e-3,  # two_cap: receptor potential
        "tau2_out_s": 1e-3, "tau2_in_s": 10e-3,  # two_cap: transmitter
    }  # fmt: skip
    synapse = {
        "n_fibers": np.array([500.0, 350.0, 250.0]),  # a channel; fewer is synaptopathy
        "healthy_n_fibers": np.array([500.0, 350.0, 250.0]),  # whose resting drive is subtracted
        "spont_rates_hz": np.array([50.0, 6.0, 1.0]),  # of the three fibre classes
        "sat_rate_hz": 200.0, "sat_reservoir": 0.2,  # at saturation: spikes, transmitter left
        "v_width": 0.02,  # of the release sigmoid, in units of receptor potential
        "tau_lpf_s": 80e-6, "reservoir_tau_s": 20e-3,  # of firing, of transmitter depletion
        "agc_weights": np.full(3, 1.2 / 22050.0 / 10.0),  # s: output for one spike a second
    }  # fmt: skip
    agc = {
        "time_constants_s": 0.002 * 4.0**stage,
        "stage_gain": 2.0, "mix_coeff": 0.5,  # of a slower stage in a faster one; between ears
        "agc1_scales": np.sqrt(2.0) ** stage,  # spread toward the apex, channels
        "agc2_scales": 1.65 * np.sqrt(2.0) ** stage,  # spread toward the base, channels
    }  # fmt: skip
    return {"car": car, "ihc": ihc, "synapse": synapse, "agc": agc}


class Coefficients(NamedTuple):
    """A designed model. Arrays `[ears, channels]`, the synapse's `[ears, channels, classes]`."""

    sample_rate_hz: float
    ihc_style: str
    use_delay_buffer: bool
    pole_frequencies_hz: np.ndarray
    car: SimpleNamespace
    ihc: SimpleNamespace
    synapse: SimpleNamespace | None
    agc: tuple[SimpleNamespace, ...]  # one for each stage, arrays [ears, 1]


class Outputs(NamedTuple):
    """What `run` gives, `[time, ears, channels]`."""

    nap: np.ndarray  # neural activity pattern
    bm: np.ndarray  # basilar membrane motion, AC-coupled
    ohc: np.ndarray  # displacement before this sample, whose change drives the outer hair cells
    agc: np.ndarray  # undamping in force, as pole radius
    receptor_potential: np.ndarray  # 0 at rest; all 0 for just_hwr and one_cap
    firings: np.ndarray | None  # spikes a sample, [..., classes]; only with the synapse


def design(
    parameters: Mapping[str, Mapping[str, Any]] | None = None, sample_rate_hz: float = 22050.0, *,
    num_ears: int = 1, ihc_style: str = "two_cap", use_delay_buffer: bool = False,
    decimation: Sequence[int] = (8, 2, 2, 2), pole_frequencies_hz: Any = None,
    num_channels: int | None = None, smoothing: Sequence[tuple[int, int]] | None = None,
) -> Coefficients:  # fmt: skip
    """Turns physical parameters into coefficients; ValueError for what cannot be.

    Args:
        parameters: nested dict; what it leaves out keeps the value of `default_parameters`.
        sample_rate_hz: 8000 to 96000.
        num_ears: columns of the audio.
        ihc_style: one of `IHC_STYLES`.
        use_delay_buffer: a sample of delay from channel to channel, so that all can step at once.
        decimation: of each AGC stage, relative to the faster one before it; () for no AGC.
        pole_frequencies_hz: `[channels]` or `[ears, channels]`, in place of the ERB map.
        num_channels: in place of counting the poles above `min_pole_hz`.
        smoothing: (taps, iterations) for each AGC stage, in place of the smallest that serve.
    """
    if ihc_style not in IHC_STYLES:
        raise ValueError(f"ihc_style is one of {IHC_STYLES}; got {ihc_style!r}; choose one.")
    if not 8000.0 <= sample_rate_hz <= 96000.0:
        raise ValueError(f"sample_rate_hz is 8000 to 96000; got {sample_rate_hz}; resample first.")
    merged = default_parameters(len(decimation))
    for group, values in (parameters or {}).items():
        if unknown := set(values) - set(merged.get(group, {})):
            raise ValueError(f"{group} has no parameters {unknown}; it has {merged.get(group)}.")
        merged[group].update(values)
    car, ihc, synapse, agc = (
        SimpleNamespace(**{name: np.asarray(value, np.float64) for name, value in group.items()})
        for group in merged.values()
    )
    fs, given = float(sample_rate_hz), pole_frequencies_hz
    poles = _erb_map(car, fs, num_ears, num_channels) if given is None else np.asarray(given)
    poles = np.broadcast_to(np.asarray(poles, np.float64), (num_ears, poles.shape[-1]))
    return Coefficients(
        fs, ihc_style, use_delay_buffer, pole_frequencies_hz=poles,
        car=_design_car(car, fs, poles),
        ihc=_design_ihc(ihc, fs, ihc_style == "one_cap", poles.shape),
        synapse=_design_synapse(synapse, fs) if ihc_style == "two_cap_with_syn" else None,
        agc=tuple(_design_agc(agc, fs, num_ears, tuple(decimation), smoothing)),
    )  # fmt: skip


def _erb_map(car: SimpleNamespace, fs: float, ears: int, count: int | None) -> np.ndarray:
    """Pole frequencies from base to apex, an equal part of the local ERB apart."""
    pole = np.broadcast_to(car.first_pole_theta * fs / (2.0 * np.pi), (ears, 1))
    poles = []
    while np.all(pole > car.min_pole_hz) if count is None else len(poles) < count:
        poles.append(pole)
        pole = pole - car.erb_per_step * (car.erb_break_hz + pole) / car.erb_q
    return np.concatenate([np.empty((ears, 0)), *poles], axis=1)


def _design_car(car: SimpleNamespace, fs: float, poles: np.ndarray) -> SimpleNamespace:
    """Coupled-form resonators whose pole radius is r1 + zr * undamping (chapters 16 and 17)."""
    if poles.shape[1] < 2 or not np.all((poles > 0.0) & (poles < fs / 2.0)):
        raise ValueError(f"2 or more poles from 0 to {fs / 2} Hz; got {poles}; change the map.")
    x = 2.0 * poles / fs  # pole angle, half turns
    a0, c0 = np.cos(np.pi * x), np.sin(np.pi * x)
    h = c0 * (car.zero_ratio**2 - 1.0)  # places the zeros
    angle = np.pi * (x - car.high_f_damping_compression * x**3)  # lowered at high frequencies
    # Where channels are sparse the least damping rises, a quarter of the way to the relative ERB.
    relative_erb = (car.erb_break_hz + poles) / (car.erb_q * poles)
    min_zeta = car.min_zeta + 0.25 * (relative_erb - car.min_zeta)
    r1, zr = 1.0 - angle * car.max_zeta, angle * (car.max_zeta - min_zeta)
    if not np.all((np.abs(r1) < 1.0) & (np.abs(r1 + zr) < 1.0)):
        raise ValueError(f"pole radii are less than 1; got {r1} and {r1 + zr}; change the zetas.")

    def unity_gain(undamping: float) -> np.ndarray:
        r = r1 + zr * undamping
        poles_at_dc = 1.0 - 2.0 * r * a0 + r**2
        return poles_at_dc / (poles_at_dc + h * r * c0)

    # The gain that makes a stage 1 at DC: a parabola through its values at undamping 0, 1/2 and 1.
    g0, g_half, g1 = unity_gain(0.0), unity_gain(0.5), unity_gain(1.0)
    return SimpleNamespace(
        a0=a0, c0=c0, h=h, r1=r1, zr=zr,
        ga=2.0 * (g0 + g1 - 2.0 * g_half), gb=4.0 * g_half - 3.0 * g0 - g1, gc=g0,
        ac_rate=2.0 * np.pi * car.ac_corner_hz / fs, velocity_scale=car.velocity_scale,
        velocity_offset=car.velocity_offset, ohc_health=np.broadcast_to(car.ohc_health, a0.shape),
    )  # fmt: skip


def stage_gain(car: SimpleNamespace, undamping: np.ndarray | float) -> np.ndarray:
    """The gain that keeps each resonator at (nearly) 1 at DC, `[ears, channels]`."""
    return car.ga * undamping**2 + car.gb * undamping + car.gc


def _conductance(x: Any) -> Any:
    """What motion opens in the inner hair cell, from 0 to about 1 (section 18.3)."""
    z = np.maximum(0.0, x + 0.175)
    return z**3 / (z**3 + z**2 + 0.1)


def _design_ihc(ihc: SimpleNamespace, fs: float, one_cap: bool, shape: Any) -> SimpleNamespace:
    """Capacitors emptied by a conductance, filled by a resistor from a supply of 1 (chapter 18)."""

    def cap(g_rest: Any, g_max: Any, tau_out: Any, tau_in: Any) -> tuple[Any, ...]:
        resistor = tau_in / (tau_out * g_max)
        current = 1.0 / (resistor + 1.0 / g_rest)  # at rest
        rest = np.broadcast_to(1.0 - current * resistor, shape)
        return resistor, current, rest, 1.0 / (g_max * tau_out * fs), 1.0 / (tau_in * fs)

    taus = (ihc.tau_out_s, ihc.tau_in_s) if one_cap else (ihc.tau1_out_s, ihc.tau1_in_s)
    g_max, rest2, out2, in2 = _conductance(10.0), 0.0, 0.0, 0.0
    resistor, current, rest1, out1, in1 = cap(_conductance(0.0), g_max, *taus)
    if not one_cap:
        # The receptor potential, by which cap 1 falls short of 1, is what opens cap 2.
        g_rest, g_max = resistor * current, resistor / (1.0 / g_max + resistor)
        resistor, current, rest2, out2, in2 = cap(g_rest, g_max, ihc.tau2_out_s, ihc.tau2_in_s)
    # A saturating tone opens the cell half of the time, which doubles the least resistance.
    gain = 1.0 / (1.0 / (2.0 / g_max + resistor) - current)
    return SimpleNamespace(
        rest1=rest1, out1=out1, in1=in1, rest2=rest2, out2=out2, in2=in2, gain=gain,
        lpf_rate=1.0 - np.exp(-1.0 / (ihc.tau_lpf_s * fs)),
        rest_output=np.broadcast_to(current * gain, shape),
    )  # fmt: skip


def _design_synapse(synapse: SimpleNamespace, fs: float) -> SimpleNamespace:
    """Gains and midpoints that give the saturated and the spontaneous rates (the v3 synapse)."""
    release_max = 0.5 * synapse.sat_reservoir  # a saturating tone releases half of the time
    depletion_gain = (1.0 - synapse.sat_reservoir) / release_max
    firing_gain = synapse.sat_rate_hz / fs / release_max
    release = synapse.spont_rates_hz / fs / firing_gain  # at rest, as all that follows
    depletion = release * depletion_gain
    opening = release / (1.0 - depletion)
    agc_weights = fs * synapse.agc_weights
    return SimpleNamespace(
        n_fibers=synapse.n_fibers, agc_weights=agc_weights, width=synapse.v_width,
        midpoint=synapse.v_width * np.log((1.0 - opening) / opening),
        depletion_gain=depletion_gain, firing_gain=firing_gain, depletion=depletion,
        drive=np.sum(synapse.healthy_n_fibers * firing_gain * release * agc_weights, axis=-1),
        depletion_rate=1.0 - np.exp(-1.0 / (synapse.reservoir_tau_s * fs)),
        firing=firing_gain * release, lpf_rate=1.0 - np.exp(-1.0 / (synapse.tau_lpf_s * fs)),
    )  # fmt: skip


def smoothing_fir(taps: int, iterations: int, variance: Any, delay: Any) -> tuple[Any, Any, Any]:
    """Weights (basal, centre, apical) by mean and variance; 5 taps use the outer ones twice."""
    delay, variance = delay / iterations, variance / iterations
    moment = variance + delay**2
    if taps == 3:
        return (moment - delay) / 2.0, 1.0 - moment, (moment + delay) / 2.0
    if taps == 5:
        return moment / 10.0 - delay / 6.0, 1.0 - moment * 0.4, moment / 10.0 + delay / 6.0
    raise ValueError(f"spatial smoothing has 3 or 5 taps; got {taps}; choose one.")


def _design_agc(agc: Any, fs: float, ears: int, decimation: tuple[int, ...], smoothing: Any) -> Any:
    """Smoothing filters from fast to slow, each fed by the one before (chapter 19)."""
    count = len(decimation)
    tau, toward_apex, toward_base = (
        np.broadcast_to(value, (ears, count)).T[..., None]  # [stages, ears, 1]
        for value in (agc.time_constants_s, agc.agc1_scales, agc.agc2_scales)
    )
    for k in range(count):
        updates = tau[k] * fs / np.prod(decimation[: k + 1])  # in one time constant
        variance = (toward_apex[k] ** 2 + toward_base[k] ** 2) / updates
        delay = (toward_base[k] - toward_apex[k]) / updates
        # Without advice, the first filter that leaves the centre its weight, in every ear.
        for taps, iterations in (smoothing[k],) if smoothing else SMOOTHERS:
            fir = smoothing_fir(taps, iterations, variance, delay)
            if smoothing or np.all(fir[1] >= (0.25 if taps == 3 else 0.15)):
                break
        else:
            raise ValueError(f"AGC stage {k} spreads too far: {variance}; lower agc1_scales.")
        yield SimpleNamespace(
            decimation=decimation[k], taps=taps, iterations=iterations, gain=agc.stage_gain,
            fir=fir, rate=1.0 - np.exp(-1.0 / updates), mix=agc.mix_coeff / updates if k else 0.0,
            detect_scale=1.0 / sum(agc.stage_gain**j for j in range(count)),  # 1 at DC in all
        )  # fmt: skip


def init_state(coefficients: Coefficients, settled: bool = False) -> dict[str, Any]:
    """The state in silence, a nested dict; undamping starts healthy, `settled` at `ohc_health`."""
    c, k, shape = coefficients, coefficients.synapse, coefficients.pole_frequencies_hz.shape
    # As in google/carfac, whatever `ohc_health` is, until the AGC first closes its loop.
    undamping = c.car.ohc_health if settled or not c.agc else np.ones(shape)
    car = {name: np.zeros(shape) for name in ("z1", "z2", "za", "zy", "dzb", "dg", "ac")}
    car |= {"zb": c.car.zr * undamping, "g": stage_gain(c.car, undamping)}
    ihc = {"cap1": c.ihc.rest1, "cap2": c.ihc.rest2}
    ihc |= {"lpf1": c.ihc.rest_output, "lpf2": c.ihc.rest_output}
    agc = [{"memory": np.zeros(shape), "sum": np.zeros(shape), "phase": 0} for _ in c.agc]
    state: dict[str, Any] = {"car": car, "ihc": ihc, "agc": agc}
    if k:
        state["synapse"] = {n: np.ones((*shape, 1)) * vars(k)[n] for n in ("depletion", "firing")}
    return state


def run(
    coefficients: Coefficients, audio: Any, state: dict[str, Any] | None = None, *,
    open_loop: bool = False, linear_car: bool = False, ear_taps: Any = (1.0,),
) -> tuple[Outputs, dict[str, Any]]:  # fmt: skip
    """Runs audio through the model; ValueError if it is empty, not finite, or not for these ears.

    Args:
        coefficients: from `design`.
        audio: `[time, ears]`, full scale 1.
        state: where an earlier piece ended (not altered); None starts from silence.
        open_loop: damping stays where it is; the AGC still runs.
        linear_car: outer hair cells ignore velocity. The AGC still acts: linear only if open too.
        ear_taps: an FIR filter before all else, outer and middle ear (`physics.carfac.ear`).
    """
    c, shape = coefficients, coefficients.pole_frequencies_hz.shape
    audio = np.asarray(audio, np.float64)
    if audio.shape[1:] != shape[:1] or not audio.size:
        raise ValueError(f"audio is [time >= 1, ears = {shape[0]}]; got {audio.shape}; reshape it.")
    if not np.all(np.isfinite(audio)):
        raise ValueError("audio is finite; got NaN or Inf; clean it first.")
    state = init_state(c) if state is None else copy.deepcopy(state)
    heard = np.concatenate([state.get("ear", np.zeros((len(ear_taps) - 1, shape[0]))), audio])
    state["ear"] = heard[len(audio) :]
    audio = np.stack([np.convolve(ear, ear_taps, "valid") for ear in heard.T], axis=1)
    car = state["car"]
    if open_loop:
        car["dzb"], car["dg"] = np.zeros(shape), np.zeros(shape)
    rows, firings = [], None
    for sample in audio:
        bm = _car_step(c, car, sample, linear_car)
        nap, potential = _ihc_step(c, state["ihc"], bm)
        if c.synapse:
            nap, firings = _synapse_step(c.synapse, state["synapse"], potential)
        rows.append((nap, bm, car["za"], car["zb"], potential, firings))
        if c.agc and _agc_step(c.agc, state["agc"], 0, c.agc[0].detect_scale * nap):
            for k, s in zip(c.agc, state["agc"], strict=True):
                if s["phase"]:  # this stage, and so every slower one, was not due
                    break
                s["memory"] = s["memory"] + k.mix * (np.mean(s["memory"], axis=0) - s["memory"])
            if not open_loop:
                # Damping glides to its new value over the samples before the next update.
                undamping = (1.0 - state["agc"][0]["memory"]) * c.car.ohc_health
                car["dzb"] = (c.car.zr * undamping - car["zb"]) / c.agc[0].decimation
                car["dg"] = (stage_gain(c.car, undamping) - car["g"]) / c.agc[0].decimation
    *columns, spikes = map(np.stack, zip(*rows, strict=True))
    return Outputs(*columns, firings=spikes if c.synapse else None), state


def _car_step(c: Coefficients, car: dict[str, Any], sample: np.ndarray, linear: bool) -> np.ndarray:
    """One sample through the cascade (sections 16.4 and 17.2); returns AC-coupled motion."""
    k = c.car
    g, zb, z1, z2 = car["g"] + car["dg"], car["zb"] + car["dzb"], car["z1"], car["z2"]
    active = 1.0 / (1.0 + (k.velocity_scale * (z2 - car["za"]) + k.velocity_offset) ** 2)
    r = k.r1 + zb * (1.0 if linear else active)
    new_z1, new_z2 = r * (k.a0 * z1 - k.c0 * z2), r * (k.c0 * z1 + k.a0 * z2)
    inflow, zy = sample[:, None] * np.ones_like(z1), np.empty_like(z1)  # all but channel 0 to come
    if c.use_delay_buffer:
        inflow[:, 1:] = car["zy"][:, :-1]
        zy = g * (inflow + k.h * new_z2)
    else:
        for i in range(inflow.shape[1]):  # a ripple from base to apex within the sample
            zy[:, i] = g[:, i] * (inflow[:, i] + k.h[:, i] * new_z2[:, i])
            inflow[:, i + 1 : i + 2] = zy[:, i : i + 1]
    bm = zy - car["ac"]
    car.update(z1=new_z1 + inflow, z2=new_z2, za=z2, zb=zb, g=g, zy=zy)
    car["ac"] = car["ac"] + k.ac_rate * bm
    return bm


def _ihc_step(c: Coefficients, s: dict[str, Any], bm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One sample of the inner hair cells; returns their output and the receptor potential."""
    k, potential = c.ihc, np.zeros_like(bm)
    if c.ihc_style == "just_hwr":
        return np.clip(bm, 0.0, 2.0), potential
    flow = _conductance(bm) * s["cap1"]
    s["cap1"] = s["cap1"] - flow * k.out1 + (1.0 - s["cap1"]) * k.in1
    if c.ihc_style != "one_cap":
        potential = k.rest1 - s["cap1"]
        flow = (1.0 - s["cap1"]) * s["cap2"]
        s["cap2"] = s["cap2"] - flow * k.out2 + (1.0 - s["cap2"]) * k.in2
    s["lpf1"] = s["lpf1"] + k.lpf_rate * (k.gain * flow - s["lpf1"])
    s["lpf2"] = s["lpf2"] + k.lpf_rate * (s["lpf1"] - s["lpf2"])
    return s["lpf2" if c.ihc_style == "one_cap" else "lpf1"] - k.rest_output, potential


def _synapse_step(k: Any, s: dict[str, Any], potential: Any) -> tuple[np.ndarray, np.ndarray]:
    """One sample of the synapses; returns their sum above healthy rest, and spikes by class."""
    opening = 1.0 / (1.0 + np.exp((k.midpoint - potential[..., None]) / k.width))
    release = (1.0 - s["depletion"]) * opening
    s["firing"] += k.lpf_rate * (k.firing_gain * release - s["firing"])
    s["depletion"] += k.depletion_rate * (k.depletion_gain * release - s["depletion"])
    firings = k.n_fibers * s["firing"]
    return np.sum(firings * k.agc_weights, axis=-1) - k.drive, firings


def _agc_step(stages: Any, states: list[dict[str, Any]], i: int, inflow: np.ndarray) -> bool:
    """Feeds AGC stage i and, when it is due, those after it; says whether it was due."""
    k, s = stages[i], states[i]
    s["sum"], s["phase"] = s["sum"] + inflow, (s["phase"] + 1) % k.decimation
    if s["phase"]:
        return False
    inflow, s["sum"] = s["sum"] / k.decimation, np.zeros_like(inflow)
    if i + 1 < len(stages):
        _agc_step(stages, states, i + 1, inflow)
        inflow = inflow + k.gain * states[i + 1]["memory"]  # the slower stage's newest
    s["memory"] = smooth_channels(k, s["memory"] + k.rate * (inflow - s["memory"]))
    return True


def smooth_channels(stage: Any, x: np.ndarray) -> np.ndarray:
    """Spatial smoothing of `[ears, channels]`; what the ends lack is google/carfac's choice."""
    (basal, centre, apical), n = stage.fir, np.arange(x.shape[1])
    left1, right1 = np.r_[0, n[:-1]], np.r_[n[1:], n[-1]]
    left2, right2 = np.r_[0, 1, n[:-2]], np.r_[n[2:], n[-1], n[-2]]
    for _ in range(stage.iterations):
        left, right = x[:, left1], x[:, right1]
        if stage.taps == 5:
            left, right = left + x[:, left2], right + x[:, right2]
        x = basal * left + centre * x + apical * right
    return x
