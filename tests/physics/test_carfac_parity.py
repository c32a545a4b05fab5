"""Holds the JAX model to google/carfac's outputs and to the NumPy yardstick, option by option.

Errors are relative to the largest value of an output, or to FLOORS where it is (nearly) silent; the
activity of just_hwr, motion that is clipped at 2, to the largest motion. A dense cascade magnifies
in the slow channels what was rounded in the fast ones, hair cells add up what they round: memories
of float32 can cost more than the tolerance, whatever the arithmetic. What they cost is measured, by
rounding those of the yardstick, and nothing else is ever allowed.
What hypothesis draws is fixed in a default run; PARITY_EXAMPLES=150 draws so many anew.
"""

import dataclasses
import os

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from physics.carfac import Carfac, native, setup
from physics.carfac.structures import IHC_STYLES, OUTPUTS

CASES = [
    "binaural_speech_44k",
    "delay_buffer_noise_22k",
    "just_hwr_speech_16k",
    "linear_noise_16k",
    "ohc_half_speech_16k",
    "one_cap_tone_22k",
    "open_loop_tone_22k",
    "synapse_noise_22k",
    "two_cap_noise_22k",
    "two_cap_speech_16k",
]
MODELS = {
    "two_cap": Carfac(sample_rate_hz=22050),
    "one_cap_delay": Carfac(
        sample_rate_hz=8000, ihc="one_cap", use_delay_buffer=True, agc_decimations=(5, 3)
    ),
    "just_hwr_linear_open": Carfac(
        sample_rate_hz=16000,
        ihc="just_hwr",
        linear_car=True,
        open_loop=True,
        full_scale_db_spl=120,
        settled=True,
        initial={"car.ohc_health": 0.7},
    ),
    "two_ears_synapse": Carfac(
        sample_rate_hz=48000,
        n_ears=2,
        ihc="two_cap_with_syn",
        initial={
            "car.ohc_health": [[1.0], [0.4]],
            "car.first_pole_theta": [2.6, 2.5],
            "car.erb_q": [9.3, 9.2],
            "car.min_zeta": [0.1, 0.15],
            "ihc.tau2_in_s": [0.01, 0.02],
            "synapse.sat_rate_hz": [200.0, 180.0],
            "agc.time_constants_s": [[0.002, 0.01, 0.03, 0.1], [0.003, 0.01, 0.04, 0.2]],
            "agc.stage_gain": [2.0, 1.5],
            "synapse.n_fibers": [[[500.0, 350.0, 250.0]], [[500.0, 100.0, 20.0]]],
            "agc.mix_coeff": 0.9,
        },
    ),
    "every_sample_dense": Carfac(
        sample_rate_hz=11025, agc_decimations=(1,), initial={"car.erb_per_step": 0.25}
    ),
    "three_ears_five_taps": Carfac(
        sample_rate_hz=22050,
        n_ears=3,
        agc_decimations=(8, 2, 4),
        initial={"agc.agc1_scales": [2.0, 3.0, 8.0], "agc.agc2_scales": [2.5, 4.0, 9.0]},
    ),
    "no_gain_control": Carfac(
        sample_rate_hz=96000,
        ear_filter="minimum",
        agc_decimations=(),
        use_delay_buffer=True,
        initial={"car.ohc_health": 0.5},
    ),
}
KERNELS = [
    "xla",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(
            native.reason_unavailable() is not None, reason=str(native.reason_unavailable())
        ),
    ),
]
# Activity and potential are differences from a rest of the order of one, which float32 rounds: what
# noise at 20 dB SPL gives is as little as a relative error can be asked for. Motion rests at zero.
FLOORS = {"nap": 0.1, "receptor_potential": 0.01, "bm": 1e-9, "ohc": 1e-9}
MAP = {f"car.{name}" for name in ("first_pole_theta", "erb_per_step", "erb_break_hz", "erb_q")}
# Of a resonator's memory, each by up to half a unit in its last place, in one sample: two products,
# their sum, its subtraction, the product and subtraction of the damping, and the input. Hair cells'
# take fewer.
ROUNDINGS = 7
TOLERANCES = {"float64": 1e-9, "float32": 2e-4}

RATES_HZ = (8000.0, 11025.0, 16000.0, 22050.0, 32000.0, 44100.0, 48000.0, 96000.0)
SOUNDS = ("noise", "tone", "click", "silence", "dc", "square", "denormal")
EXAMPLES = os.environ.get("PARITY_EXAMPLES")
DRAWN = hypothesis.settings(
    max_examples=int(EXAMPLES or 3),
    deadline=None,
    derandomize=EXAMPLES is None,
    phases=[hypothesis.Phase.generate],  # to shrink is to compile anew, hundreds of times
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)


def error(name, given, expected, largest=0.0):
    """Largest error of an output relative to its largest value, `largest`, or its floor."""
    largest = max(np.abs(expected).max(), largest, FLOORS.get(name, 1e-12))
    return float(np.abs(np.asarray(given, np.float64) - expected).max() / largest)


def outputs_of(model):
    return OUTPUTS if model.ihc == "two_cap_with_syn" else OUTPUTS[:-1]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", CASES)
def test_golden_case(golden, quick_jit, name, kernel):
    case = golden(name)
    model = dataclasses.replace(case.model, kernel=kernel)
    params = model.init()
    outputs = ("nap", "bm", "agc")
    run = quick_jit(lambda params, audio: model.run(params, audio, outputs=outputs)[0])
    given = run(params, jnp.asarray(case.audio)[None])
    for output in outputs:
        found, expected = getattr(given, output)[0], case.outputs[output]
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max(), output
    poles = np.asarray(model.channel_frequencies_hz(params)).reshape(model.n_ears, -1)
    np.testing.assert_allclose(poles[0], case.pole_frequencies_hz, rtol=5e-6)


def as_float32(a):
    return a.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("kernel", KERNELS)
def test_dense_cascades_lose_what_float32_memories_cost(yardstick, quick_jit, kernel):
    """Rounding only its memories, the exact yardstick errs as much as the model: 1e-3."""
    model = Carfac(
        sample_rate_hz=16000,
        ihc="just_hwr",
        open_loop=True,
        linear_car=True,
        initial={"car.erb_per_step": 0.25},
        kernel=kernel,
    )
    params, audio = model.init(), np.zeros((1, 200, 1), np.float32)
    audio[:, 10] = 1e-3
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        exact = yardstick(model, wide, audio[0]).bm
        rounded = yardstick(model, wide, audio[0], move=as_float32).bm
    least = error("bm", rounded, exact)
    assert least > 2 * TOLERANCES["float32"]
    run = quick_jit(lambda params, audio: model.run(params, audio, outputs=("bm",))[0].bm)
    assert error("bm", run(params, jnp.asarray(audio))[0], exact) < 5 * least
    check(yardstick, quick_jit, model, audio, "float32", at_cost=True)


def draw_model(draw):
    """Any model that google/carfac could be, the gain control's update not overshooting."""
    ears = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    log_rate = st.floats(np.log(8000), np.log(96000))
    fields = {
        "sample_rate_hz": draw(st.sampled_from(RATES_HZ) | log_rate.map(np.exp)),
        "n_ears": ears,
        "ihc": draw(st.sampled_from(IHC_STYLES)),
        "use_delay_buffer": draw(st.booleans()),
        "open_loop": draw(st.booleans()),
        "linear_car": draw(st.booleans()),
        "settled": draw(st.booleans()),
        # The filter of linear phase answers after 50 ms: see test_carfac_ear.
        "ear_filter": draw(st.sampled_from(("none", "minimum"))),
        "sound_field": draw(st.sampled_from(("free", "diffuse", "eardrum"))),
        "full_scale_db_spl": draw(st.sampled_from((100.0, 94.0, 110.0))),
        "min_pole_hz": draw(st.sampled_from((30.0, 100.0, 500.0))),
        "agc_decimations": draw(
            st.just((8, 2, 2, 2)) | st.lists(st.integers(1, 10), max_size=5).map(tuple)
        ),
        "healthy_fibres": draw(st.sampled_from(((500.0, 350.0, 250.0), (300.0,), (9.0,) * 4))),
    }
    initial = {"car.erb_per_step": draw(st.sampled_from((0.25, 0.5, 2.0)) | st.floats(0.25, 2.0))}
    apart = draw(st.booleans())  # values of its own for each ear, where the leaf may have them
    if apart:
        initial |= per_ear(rng, accepted(fields, initial), MAP)
    plain = accepted(fields, initial)
    if apart:
        others = {path for path, *_ in setup.prepare(plain).entries} - MAP - {"car.ohc_health"}
        initial |= per_ear(rng, plain, others)
    health = {
        "scalar": (1, 1),
        "by ear": (ears, 1),
        "by channel": (1, plain.structure.n_channels),
        "by both": (ears, plain.structure.n_channels),
    }[draw(st.sampled_from(("scalar", "by ear", "by channel", "by both")))]
    initial["car.ohc_health"] = rng.uniform(0, 1, health) if draw(st.booleans()) else 1.0
    stages = len(plain.agc_decimations)
    if stages:
        spread = draw(st.floats(0.5, 4.0))
        for scale, default in (("agc1_scales", 1.0), ("agc2_scales", 1.65)):
            initial[f"agc.{scale}"] = spread * default * 2 ** (0.5 * np.arange(stages))
    if stages and ears > 1:
        initial["agc.mix_coeff"] = draw(st.sampled_from((0.0, 0.5)) | st.floats(0.0, 1.0))
    model = accepted(fields, initial)
    hypothesis.assume(mixes_at_most_wholly(model))
    return model


def accepted(fields, initial):
    """The model, but for what would spread over more channels in an update than is allowed."""
    try:
        return Carfac(**fields, initial=initial)
    except ValueError as refusal:
        if "at most 16 passes" not in str(refusal):
            raise
        hypothesis.reject()


def per_ear(rng, model, paths):
    """Initial values, up to a quarter above the model's, that differ between ears."""
    values = {}
    for path, _, initial in setup.prepare(model).entries:
        if path not in paths or rng.random() < 0.3:
            continue
        value = np.asarray(initial)
        shape = {
            "agc": (model.n_ears, *(value.shape[-1:] or (1,))),
            "synapse": (model.n_ears, *(value.shape[-2:] if value.ndim > 1 else (1, *value.shape))),
        }.get(path.split(".")[0], (model.n_ears, 1))
        top = 0.94 * np.pi if path == "car.first_pole_theta" else np.inf
        values[path] = np.minimum(value * rng.uniform(1.0, 1.25, shape), top)
    return values


def mixes_at_most_wholly(model):
    """The design stops at full mixing of the ears, the yardstick (as google/carfac) overshoots."""
    if model.n_ears == 1 or not model.agc_decimations:
        return True
    agc = setup.prepare(model).initial()["agc"]
    updates = agc["time_constants_s"] * model.sample_rate_hz / np.cumprod(model.agc_decimations)
    return np.all(agc["mix_coeff"] <= updates[..., 1:])


def draw_clips(draw, ears):
    """A batch of one to four clips, `[batch, time, ears]`, up to twice full scale."""
    samples = draw(st.sampled_from((1, 2, 7, 8, 9)) | st.integers(1, 300))
    time = np.arange(samples)[:, None]
    batch = []
    for kind in draw(st.lists(st.sampled_from(SOUNDS), min_size=1, max_size=4)):
        rng = np.random.default_rng(draw(st.integers(0, 999)))
        level = 10 ** (draw(st.floats(-80, 6)) / 20)
        period = draw(st.floats(2.0, 200.0)) * rng.uniform(0.9, 1.1, ears)
        unit = {
            "noise": rng.standard_normal((samples, ears)),
            "tone": np.sin(2 * np.pi * time / period),
            "click": 1.0 * (time == rng.integers(samples, size=ears)),
            "silence": np.zeros((samples, ears)),
            "dc": np.ones((samples, ears)),
            "square": np.where(np.sin(2 * np.pi * (time + 0.5) / period) >= 0, 1.0, -1.0),
            "denormal": np.full((samples, ears), 1e-41),
        }[kind]
        batch.append(level * unit)
    return np.stack(batch).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float64") for name in MODELS),
        *((name, "float32") for name in ("two_cap", "two_ears_synapse", "no_gain_control")),
    ],
)
def test_equals_the_yardstick(yardstick, quick_jit, name, dtype):
    model = dataclasses.replace(MODELS[name], kernel="xla")
    audio = 0.1 * np.random.default_rng(3).standard_normal((1, 150, model.n_ears))
    check(yardstick, quick_jit, model, audio.astype(dtype), dtype)


def test_equals_the_yardstick_without_jit(yardstick):
    model = Carfac(8000, ihc="just_hwr", agc_decimations=(8,), min_pole_hz=500, kernel="xla")
    audio = 0.1 * np.random.default_rng(0).standard_normal((1, 20, 1))
    check(yardstick, lambda function: function, model, audio.astype("float32"), "float32")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", TOLERANCES)
@DRAWN
@hypothesis.given(data=st.data())
def test_equals_the_yardstick_whatever_is_drawn(yardstick, quick_jit, data, dtype, kernel):
    model = dataclasses.replace(draw_model(data.draw), kernel=kernel)
    check(yardstick, quick_jit, model, draw_clips(data.draw, model.n_ears), dtype, at_cost=True)


def check(yardstick, quick_jit, model, audio, dtype, at_cost=False):
    """Within the tolerance, or `at_cost` within what rounding costs where that is more."""
    names = outputs_of(model)
    with jax.enable_x64(dtype == "float64"):
        params = model.init()
        run = quick_jit(lambda params, audio: model.run(params, audio, outputs=names)[0])
        given = run(params, jnp.asarray(audio, dtype))
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    for i, clip in enumerate(audio):
        found = {name: np.asarray(getattr(given, name))[i] for name in names}
        with jax.enable_x64(True):
            exact = yardstick(model, wide, clip)
        errors = errors_of(model, found, exact._asdict())
        assert all(value.dtype == dtype for value in found.values())
        cost = dict.fromkeys(names, 0.0)
        if at_cost and max(errors.values()) >= TOLERANCES[dtype]:
            cost = cost_of_rounding(yardstick, model, wide, clip, dtype)
        for name, worst in errors.items():
            assert worst < max(TOLERANCES[dtype], cost[name]), (name, worst, cost[name])


def errors_of(model, found, exact):
    """Errors of a clip's outputs by name, relative as the module's docstring says."""
    hwr = model.ihc == "just_hwr"
    return {
        name: error(name, value, exact[name], np.abs(exact["bm"]).max() * (hwr and name == "nap"))
        for name, value in found.items()
    }


def cost_of_rounding(yardstick, model, wide, clip, dtype):
    """How far outputs move if inputs and memories are rounded, by name; the worst of five draws.

    The yardstick is exact but for that: audio and params move by up to one unit in the last place
    of the dtype; memories by as much as ROUNDINGS may, another way at every sample, or by half a
    unit that is the same at every sample, as in what hardly changes.
    """
    with jax.enable_x64(True):
        exact, costs = yardstick(model, wide, clip)._asdict(), []
        for seed in range(5):
            rng = np.random.default_rng(seed)
            inputs = jax.tree.map(lambda a, rng=rng: nudge(a, dtype, 1, rng), (wide, clip))

            def move(a, rng=rng, seed=seed):
                if seed < 3:
                    return nudge(a, dtype, ROUNDINGS / 2, rng)
                return nudge(a, dtype, 0.5, np.random.default_rng(seed))

            found = yardstick(model, *inputs, move=move)._asdict()
            found = {name: found[name] for name in outputs_of(model)}
            costs.append(errors_of(model, found, exact))
    return {name: max(cost[name] for cost in costs) for name in costs[0]}


def nudge(a, dtype, units, rng):
    """The same numbers, each moved by up to so many units in the last place."""
    a = np.asarray(a, np.float64)
    return a * (1 + units * np.finfo(dtype).eps * rng.uniform(-1, 1, a.shape))
