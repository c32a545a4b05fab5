"""Gives tests of CAR-FAC the yardstick in the model's own terms, sounds, quick compilation."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from physics.carfac import Carfac, ear, reference

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@dataclasses.dataclass(frozen=True)
class Case:
    """One of google/carfac's outputs, and the model that should give it."""

    model: Carfac
    audio: np.ndarray
    outputs: dict[str, np.ndarray]
    pole_frequencies_hz: np.ndarray


@pytest.fixture
def golden():
    def load(name):
        case = dict(np.load(GOLDEN / f"{name}.npz"))
        model = Carfac(
            sample_rate_hz=float(case["sample_rate_hz"]),
            n_ears=int(case["n_ears"]),
            ihc=str(case["ihc"]),
            use_delay_buffer=bool(case["use_delay_buffer"]),
            open_loop=bool(case["open_loop"]),
            linear_car=bool(case["linear_car"]),
            initial={"car.ohc_health": float(case["ohc_health"])},
            kernel="xla",
        )
        outputs = {name: case[name].transpose(0, 2, 1) for name in ("nap", "bm", "agc")}
        return Case(model, case["audio"].astype(np.float32), outputs, case["pole_freqs"])

    return load


@pytest.fixture
def quick_jit():
    """`jax.jit` that compiles faster code less: most of a short test is compilation."""

    def compile_quickly(function):
        return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})

    return compile_quickly


@pytest.fixture(scope="module")
def compiled_quickly():
    """Likewise for all of a module: `pytestmark = pytest.mark.usefixtures("compiled_quickly")`."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def yardstick():
    """Runs the NumPy reference with a model's options and parameters, in float64.

    `move`, if given, is what befalls, before each sample, every memory that samples round anew.
    """

    def run(model, params, audio, state=None, move=None):
        physical = jax.tree.map(lambda a: np.asarray(a, np.float64), model.physical(params))
        if model.ihc == "two_cap_with_syn":
            synapse = physical["synapse"]
            for name in ("sat_rate_hz", "sat_reservoir", "v_width", "tau_lpf_s", "reservoir_tau_s"):
                synapse[name] = synapse[name][..., None]  # the yardstick's has an axis of classes
            synapse["healthy_n_fibers"] = np.asarray(model.healthy_fibres)
        design = reference.design(
            physical,
            model.sample_rate_hz,
            num_ears=model.n_ears,
            ihc_style=model.ihc,
            use_delay_buffer=model.use_delay_buffer,
            decimation=model.agc_decimations,
            num_channels=model.structure.n_channels,
        )
        scaled = np.asarray(audio, np.float64) * 10 ** ((model.full_scale_db_spl - 100) / 20)
        if state is None:
            state = reference.init_state(design, settled=model.settled)
        taps = (1.0,)
        if model.ear_filter != "none":
            taps = ear.fir_taps(model.sample_rate_hz, model.sound_field, model.ear_filter)
        how = {"open_loop": model.open_loop, "linear_car": model.linear_car, "ear_taps": taps}
        if move is None:
            return reference.run(design, scaled, state, **how)[0]
        rows = []
        for sample in scaled:
            car = {name: move(state["car"][name]) for name in ("z1", "z2", "zy", "ac")}
            cells = {g: jax.tree.map(move, state[g]) for g in ("ihc", "synapse") if g in state}
            state = state | cells | {"car": state["car"] | car}
            row, state = reference.run(design, sample[None], state, **how)
            rows.append(row)
        return jax.tree.map(lambda *parts: np.concatenate(parts), *rows)

    return run


@pytest.fixture
def sounds():
    """Short sounds by name, `[samples]` each."""

    def make(samples, seed=0):
        rng = np.random.default_rng(seed)
        word = np.load(GOLDEN / "two_cap_speech_16k.npz")["audio"][:, 0]
        loud = word[np.argmax(np.abs(word)) - samples // 2 :]
        click = np.zeros(samples)
        click[samples // 10] = 1.0
        return {
            "silence": np.zeros(samples),
            "speech": np.resize(loud if loud.size >= samples else word, samples),
            "dc": np.ones(samples),
            "click": click,
            "noise": np.clip(0.5 * rng.standard_normal(samples), -1, 1),
            "square": np.sign(np.sin(np.arange(samples) * 0.3) + 1e-9),
            "denormal": np.full(samples, 1e-41),
        }

    return make
