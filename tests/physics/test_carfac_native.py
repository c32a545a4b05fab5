"""The compiled kernel gives what XLA and the yardstick give, and its own derivatives are right."""

import dataclasses
import os

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from physics.carfac import Carfac, framing, native, rest, scan
from physics.carfac.native import Tuning
from physics.carfac.structures import IHC_STYLES, OUTPUTS

pytestmark = pytest.mark.skipif(
    native.reason_unavailable() is not None, reason=str(native.reason_unavailable())
)

ALL_BUT_FIRINGS = tuple(name for name in OUTPUTS if name != "firings")
MODELS = {
    "two_cap": Carfac(16000),
    "one_cap_delay": Carfac(16000, ihc="one_cap", use_delay_buffer=True, linear_car=True),
    "half_wave_two_ears": Carfac(22050, n_ears=2, ihc="just_hwr", agc_decimations=(4, 3)),
    "synapse_two_ears": Carfac(8000, n_ears=2, ihc="two_cap_with_syn"),
    "no_gain_control": Carfac(8000, agc_decimations=(), settled=True),
}


def quick(function):
    """`jax.jit` that compiles faster code less: most of these tests is compilation."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@dataclasses.dataclass
class Problem:
    """A model's coefficients, a state that no run begins with, audio, and a loss of everything."""

    model: Carfac
    batch: int
    samples: int
    dtype: type = jnp.float64
    seed: int = 0
    names: tuple[str, ...] = ("nap",)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        structure = self.model.structure
        self.structure = structure
        self.audio = self.draw((self.batch, self.samples, structure.n_ears), 0.1)

        @quick
        def begin():
            coefficients = self.model.design(self.model.init())
            return coefficients, rest.initial_state(
                coefficients, structure, self.batch, self.model.settled
            )

        self.coefficients, state = jax.tree.map(np.asarray, begin())
        fields = {k: v for k, v in vars(state).items() if v is not None and k != "phase"}
        jolted = {
            k: v * (1 + self.draw(v.shape, 0.05)) + self.draw(v.shape, 0.002)
            for k, v in fields.items()
        }
        self.phase = np.int32(self.seed % structure.period_samples)
        self.state = dataclasses.replace(state, phase=self.phase, **jolted)
        self.weights = {}

    def draw(self, shape, scale=1.0):
        return np.asarray(scale * self.rng.standard_normal(shape), self.dtype)

    def weigh(self, name, value):
        """Sum of a value, each of its numbers with a weight of its own."""
        if name not in self.weights:
            self.weights[name] = self.rng.standard_normal(value.shape)
        return jnp.sum(np.asarray(self.weights[name], value.dtype) * value)

    def arguments(self):
        return self.coefficients, self.structure, self.state, self.audio

    def variables(self):
        state = {k: v for k, v in vars(self.state).items() if v is not None and k != "phase"}
        # What no kernel reads has no gradient to compare.
        return {"coefficients": self.coefficients, "state": state, "audio": self.audio}

    def loss(self, run):
        def of(variables):
            state = dataclasses.replace(self.state, **variables["state"])
            outputs, state = run(
                variables["coefficients"], self.structure, state, variables["audio"], self.names
            )
            total = sum(self.weigh(name, value) for name, value in outputs.items())
            after = {k: v for k, v in vars(state).items() if v is not None and k != "phase"}
            return total + sum(self.weigh(name, value) for name, value in after.items()), outputs

        return of


def tuned(**options):
    """`native.run` with a `Tuning`."""

    def run(*arguments):
        return native.run(*arguments, tuning=Tuning(**options))

    return run


def run_now(coefficients, structure, state, audio, names, segments=None, **options):
    """The same, compiled and called."""

    @quick
    def run(coefficients, state, audio):
        return native.run(coefficients, structure, state, audio, names, segments, Tuning(**options))

    return run(coefficients, state, audio)


def worst(given, expected):
    """Largest error of any leaf, relative to the leaf's largest value."""
    given, expected = jax.tree.leaves(given), jax.tree.leaves(expected)
    assert len(given) == len(expected)
    errors = [
        np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)), initial=0)
        / max(np.max(np.abs(np.asarray(b, np.float64)), initial=0), 1e-30)
        for a, b in zip(given, expected, strict=True)
    ]
    return max(errors)


def worst_in_norm(given, expected):
    """Largest error of a leaf's norm, by path."""

    def error(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-12))

    errors = jax.tree.map(error, given, expected)
    return max(jax.tree_util.tree_leaves_with_path(errors), key=lambda pair: pair[1])


def names_for(model):
    return OUTPUTS if model.ihc == "two_cap_with_syn" else ALL_BUT_FIRINGS


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("one_cap_delay", 1),
        ("synapse_two_ears", 2),
        pytest.param("two_cap", 3, marks=SLOW),
        pytest.param("half_wave_two_ears", 5, marks=SLOW),
        pytest.param("no_gain_control", 9, marks=SLOW),
    ],
)
def test_outputs_and_gradients_equal_those_of_xla(quick_jit, x64, name, batch):
    model = MODELS[name]
    problem = Problem(model, batch, samples=70, seed=5, names=names_for(model))
    (_, expected), expected_slope = quick_jit(
        jax.value_and_grad(problem.loss(scan.run), has_aux=True)
    )(problem.variables())
    (_, given), slope = quick(jax.value_and_grad(problem.loss(native.run), has_aux=True))(
        problem.variables()
    )
    assert worst(given, expected) < 1e-9
    path, error = worst_in_norm(slope, expected_slope)
    assert error < 1e-8, jax.tree_util.keystr(path)


def test_float32_equals_xla(quick_jit):
    problem = Problem(MODELS["two_cap"], 2, samples=400, dtype=jnp.float32, names=ALL_BUT_FIRINGS)
    (_, expected), expected_slope = quick_jit(
        jax.value_and_grad(problem.loss(scan.run), has_aux=True)
    )(problem.variables())
    (_, given), slope = quick(jax.value_and_grad(problem.loss(native.run), has_aux=True))(
        problem.variables()
    )
    assert worst(given, expected) < 2e-4
    path, error = worst_in_norm(slope, expected_slope)
    assert error < 1e-3, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "no_gain_control"])
def test_equals_the_yardstick(yardstick, x64, name):
    model = dataclasses.replace(MODELS[name], kernel="native")
    audio = 0.1 * np.random.default_rng(3).standard_normal((300, model.n_ears))
    given, _ = model.run(model.init(), jnp.asarray(audio)[None], outputs=names_for(model))
    expected = yardstick(model, model.init(), audio)
    for output in names_for(model):
        assert worst(getattr(given, output)[0], getattr(expected, output)) < 1e-9, output


@st.composite
def problems(draw):
    """Models of all kinds, with odd batches and any length from one sample."""
    ihc = draw(st.sampled_from(IHC_STYLES))
    model = Carfac(
        sample_rate_hz=draw(st.sampled_from((8000, 11025, 16000))),
        n_ears=draw(st.integers(1, 3)),
        ihc=ihc,
        use_delay_buffer=draw(st.booleans()),
        open_loop=draw(st.booleans()),
        linear_car=draw(st.booleans()),
        agc_decimations=draw(st.sampled_from(((8, 2, 2, 2), (1, 3), (20, 2), (5,), ()))),
        initial={"car.ohc_health": draw(st.floats(0.1, 0.9))},
        min_pole_hz=draw(st.sampled_from((30, 200, 1000))),
    )
    names = draw(st.sets(st.sampled_from(names_for(model)), min_size=1))
    seed, batch, samples = draw(st.integers(0, 99)), draw(st.integers(1, 10)), draw(LENGTHS)
    return model, batch, samples, seed, tuple(name for name in OUTPUTS if name in names)


LENGTHS = st.sampled_from((1, 2, 7, 8, 9, 33, 60))
FEW = hypothesis.settings(
    max_examples=int(os.environ.get("NATIVE_EXAMPLES", "5")),
    deadline=None,
    derandomize=True,
    phases=[hypothesis.Phase.generate],  # to shrink is to compile anew, hundreds of times
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


@FEW
@hypothesis.given(problems())
def test_gradients_equal_central_differences(x64, drawn):
    model, batch, samples, seed, names = drawn
    problem = Problem(model, batch, samples, seed=seed, names=names)
    variables = problem.variables()
    loss = quick(jax.value_and_grad(problem.loss(tuned(interval=16)), has_aux=True))
    slope = loss(variables)[1]
    direction = jax.tree.map(lambda a: problem.draw(a.shape) * (np.abs(a) + 1e-3), variables)

    def at(step):
        moved = jax.tree.map(lambda a, d: a + step * d, variables, direction)
        return float(loss(moved)[0][0])

    differences = [(at(h) - at(-h)) / (2 * h) for h in (1e-4, 1e-5, 1e-6)]
    terms = jax.tree.leaves(jax.tree.map(lambda a, d: np.sum(a * d), slope, direction))
    scale = np.linalg.norm(terms)
    assert min(abs(sum(terms) - d) for d in differences) < 1e-6 * scale


@FEW
@hypothesis.given(problems(), st.integers(0, 2))
def test_bits_do_not_depend_on_batch_cut_or_threads(drawn, isa):
    model, batch, samples, seed, _ = drawn
    names = names_for(model)
    problem = Problem(model, batch, samples, jnp.float32, seed, names)

    def run(state, audio, **options):
        return run_now(
            problem.coefficients, problem.structure, state, audio, names, isa=isa, **options
        )

    whole, after = run(problem.state, problem.audio)
    one = seed % batch
    alone, _ = run(clip(problem.state, one), problem.audio[one : one + 1], threads=1)
    same_bits(alone, clip(whole, one))
    cut = samples // 3
    if cut:
        first, state = run(problem.state, problem.audio[:, :cut])
        second, state = run(state, problem.audio[:, cut:])
        same_bits({k: np.concatenate([first[k], second[k]], 1) for k in whole}, whole)
        same_bits(state, after)
    slopes = [
        quick(jax.grad(problem.loss(tuned(isa=isa, threads=threads)), has_aux=True))(
            problem.variables()
        )[0]
        for threads in (1, 2)
    ]
    same_bits(*slopes)


def clip(tree, i):
    """One clip of a batch; the phase belongs to all."""
    return jax.tree.map(lambda a: a[i : i + 1] if a.ndim else a, tree)


def same_bits(given, expected):
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("isa", [0, 1, 2])
def test_instruction_sets_agree(isa):
    problem = Problem(MODELS["synapse_two_ears"], 6, 200, jnp.float32, names=OUTPUTS)
    best, slope = (
        quick(jax.value_and_grad(problem.loss(tuned(isa=i)), has_aux=True))(problem.variables())
        for i in (-1, isa)
    )
    assert worst(slope[0][1], best[0][1]) < 2e-4
    assert worst_in_norm(slope[1], best[1])[1] < 1e-3


@pytest.mark.parametrize("isa", [0, 1, 2])
def test_many_clips_equal_each_alone(isa):
    """More than fill the widest vectors, and some over."""
    problem = Problem(MODELS["two_cap"], 39, 50, jnp.float32)

    def run(state, audio):
        return run_now(problem.coefficients, problem.structure, state, audio, ("nap",), isa=isa)[0][
            "nap"
        ]

    outputs = run(problem.state, problem.audio)
    for i in (0, 20, 38):
        alone = run(clip(problem.state, i), problem.audio[i : i + 1])
        np.testing.assert_array_equal(alone[0], outputs[i])


@pytest.mark.parametrize(("batch", "ears", "hop", "n_segments"), [(3, 2, 20, 2), (9, 1, 12, 3)])
def test_frames_equal_pooled_activity(x64, batch, ears, hop, n_segments):
    """Forward and gradient; the last samples make no frame, but move the state."""
    problem = Problem(Carfac(8000, n_ears=ears), batch, samples=205)
    segments = framing.window_segments("hann", n_segments * hop, hop)

    def fused(*arguments):
        outputs, state = native.run(*arguments[:4], (), segments=segments)
        return {"hops": outputs["hops"]}, state

    def apart(*arguments):
        outputs, state = native.run(*arguments)
        whole = outputs["nap"][:, : 205 // hop * hop]
        return {"hops": framing.hop_sums(whole, jnp.asarray(segments))}, state

    given, expected = (
        quick(jax.value_and_grad(problem.loss(run), has_aux=True))(problem.variables())
        for run in (fused, apart)
    )
    assert worst(given[0][1], expected[0][1]) < 1e-12
    assert worst_in_norm(given[1], expected[1])[1] < 1e-12


def test_frames_leave_the_activity_out():
    """Both may be asked for at once; a clip shorter than a hop has no frames, but a gradient."""
    problem = Problem(MODELS["two_cap"], 2, 30, jnp.float32)
    window = framing.window_segments("boxcar", 20, 10)
    both = run_now(*problem.arguments(), ("nap",), segments=window)[0]
    alone = run_now(*problem.arguments(), (), segments=window)[0]
    assert set(alone) == {"hops"}
    assert alone["hops"].shape == (2, 3, 2, 1, both["nap"].shape[-1])
    np.testing.assert_array_equal(alone["hops"], both["hops"])

    @quick
    @jax.grad
    def slope(audio):
        long = framing.window_segments("boxcar", 80, 40)
        outputs, after = native.run(*problem.arguments()[:3], audio, (), segments=long)
        assert outputs["hops"].shape[1] == 0
        return jnp.sum(after.z1)

    assert np.all(np.isfinite(slope(problem.audio)))
    assert np.any(slope(problem.audio))


def test_long_clips_stay_exact():
    """100 s in one call: float32 gives the mean and the gradient that float64 gives."""
    model = Carfac(8000, min_pole_hz=1500, hop_s=0.01, kernel="native")
    audio = 0.05 * np.random.default_rng(0).standard_normal((1, 800_000)).astype(np.float32)

    @quick
    @jax.value_and_grad
    def mean_and_slope(params, audio):
        return jnp.mean(model.apply(params, audio)[0])

    params = model.init()
    single = mean_and_slope(params, audio)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
        double = mean_and_slope(wide, audio.astype(np.float64))
    assert worst(single[0], double[0]) < 2e-4
    assert worst_in_norm(*(jax.tree.map(np.asarray, s[1]) for s in (single, double)))[1] < 1e-3
