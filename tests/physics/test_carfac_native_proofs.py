"""The native kernel over drawn options, long clips, any number of threads, any cut."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from physics.carfac import Carfac, framing, kernels, native, rest, scan
from physics.carfac.structures import IHC_STYLES, OUTPUTS

pytestmark = pytest.mark.skipif(
    native.reason_unavailable() is not None, reason=str(native.reason_unavailable())
)
# Errors of outputs relative to the largest value, of gradients relative to a leaf's norm. A leaf
# that matters a million times less than the largest (1e-8 of it in float64) is compared with that.
LIMITS = {"float32": (2e-4, 1e-3, 1e-6), "float64": (1e-9, 1e-8, 1e-8)}


def quick(function):
    """`jax.jit` that compiles faster code less: most of these tests is compilation."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def names_for(model):
    return OUTPUTS if model.ihc == "two_cap_with_syn" else OUTPUTS[:-1]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A model, what is asked of it, and the seed of its sound, its state and its loss."""

    model: Carfac
    outputs: tuple[str, ...]
    segments: int
    hop: int
    batch: int
    samples: int
    seed: int


@st.composite
def drawn(draw):
    """All options that the kernel knows, batches that fill no vector, lengths from one sample."""
    ihc = draw(st.sampled_from(IHC_STYLES))
    ears = draw(st.integers(1, 3))
    model = Carfac(
        sample_rate_hz=draw(st.sampled_from((8000, 16000, 22050, 44100))),
        n_ears=ears,
        ihc=ihc,
        use_delay_buffer=draw(st.booleans()),
        open_loop=draw(st.booleans()),
        linear_car=draw(st.booleans()),
        settled=draw(st.booleans()),
        agc_decimations=draw(st.sampled_from(((8, 2, 2, 2), (1, 3), (20, 2), (5,), (2, 1, 4), ()))),
        initial={
            "car.ohc_health": draw(st.floats(0.05, 0.95)),
            "car.erb_per_step": draw(st.floats(0.4, 1.5)),
        },
        min_pole_hz=draw(st.sampled_from((30, 200, 1000))),
    )
    names = draw(st.sets(st.sampled_from(names_for(model)), min_size=1))
    return Drawn(
        model,
        tuple(name for name in OUTPUTS if name in names),
        segments=draw(st.integers(0, 3)),  # none: no frames
        hop=draw(st.integers(1, 12)),
        batch=draw(st.integers(1, 11)),
        samples=draw(st.sampled_from((1, 2, 3, 7, 8, 9, 31, 49, 65))),
        seed=draw(st.integers(0, 99)),
    )


class Setting:
    """Arrays of a drawn case, in one dtype, and a loss of all that a run gives."""

    def __init__(self, case, dtype):
        self.case, self.dtype, self.structure = case, dtype, case.model.structure
        rng = np.random.default_rng(case.seed)

        def draw(shape, scale):
            return np.asarray(scale * rng.standard_normal(shape), dtype)

        @quick
        def begin():
            coefficients = case.model.design(case.model.init())
            return coefficients, rest.initial_state(
                coefficients, self.structure, case.batch, case.model.settled
            )

        coefficients, state = jax.tree.map(np.asarray, begin())
        fields = {k: v for k, v in vars(state).items() if v is not None and k != "phase"}
        self.phase = np.int32(case.seed % self.structure.period_samples)
        self.state = state
        self.variables = {
            "audio": draw((case.batch, case.samples, case.model.n_ears), 0.1),
            "coefficients": coefficients,
            # A state that no clip begins with.
            "state": {k: v * (1 + draw(v.shape, 0.05)) for k, v in fields.items()},
        }

    def run(self, who, variables):
        """All that is asked for, by one of the kernels."""
        case = self.case
        state = dataclasses.replace(self.state, phase=self.phase, **variables["state"])
        rest_of = variables["coefficients"], self.structure, state, variables["audio"]
        given, after = kernels.run(who, *rest_of, case.outputs)
        if case.segments:
            window = framing.window_segments("hann", case.segments * case.hop, case.hop)
            given["hops"], _ = kernels.run_hops(who, *rest_of, window)
        fields = {k: v for k, v in vars(after).items() if v is not None}
        phase = fields.pop("phase")
        return {"given": given, "after": fields}, phase

    def all_of(self, who):
        """Outputs, gradients and the phase."""

        @quick
        def compute(variables):
            def loss(variables):
                values, phase = self.run(who, variables)
                leaves = jax.tree.leaves(values)
                rng = np.random.default_rng(1)
                weights = [rng.standard_normal(leaf.shape).astype(self.dtype) for leaf in leaves]
                total = sum(jnp.sum(w * leaf) for w, leaf in zip(weights, leaves, strict=True))
                return total, (values, phase)

            return jax.value_and_grad(loss, has_aux=True)(variables)

        (_, (values, phase)), slope = compute(self.variables)
        return values, slope, phase


def check_equal(case, dtype):
    setting = Setting(case, dtype)
    values, slope, phase = setting.all_of("native")
    expected, expected_slope, expected_phase = setting.all_of("xla")
    of_values, of_slopes, floor = LIMITS[dtype]
    assert phase == expected_phase
    for (path, a), b in zip(
        jax.tree.leaves_with_path(values), jax.tree.leaves(expected), strict=True
    ):
        allowed = of_values * np.max(np.abs(b), initial=0)
        # A step is a difference of two such values, of which a dtype knows the last digit.
        stepped = expected["after"].get(path[-1].key.removesuffix("_step"))
        if path[-1].key.endswith("_step") and stepped is not None:
            allowed += np.finfo(dtype).eps * np.max(np.abs(stepped), initial=0)
        assert np.max(np.abs(a - b), initial=0) <= allowed, jax.tree_util.keystr(path)
    norms = [np.linalg.norm(leaf) for leaf in jax.tree.leaves(expected_slope)]
    pairs = zip(
        jax.tree.leaves_with_path(slope), jax.tree.leaves(expected_slope), norms, strict=True
    )
    for (path, a), b, norm in pairs:
        error = np.linalg.norm(np.asarray(a) - np.asarray(b))
        scale = max(norm, floor * max(norms))
        assert error <= of_slopes * scale, (jax.tree_util.keystr(path), error / scale)


def few(examples):
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],  # to shrink is to compile anew, hundreds of times
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@few(2)
@hypothesis.given(drawn())
def test_drawn_models_in_float32(case):
    check_equal(case, "float32")


@few(2)
@hypothesis.given(drawn())
def test_drawn_models_in_float64(x64, case):
    check_equal(case, "float64")


@pytest.mark.slow  # XLA compiles a gradient for each example: seconds each
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@few(int(os.environ.get("NATIVE_EXAMPLES", "30")))
@hypothesis.given(case=drawn())
def test_many_drawn_models(dtype, case):
    with jax.enable_x64(dtype == "float64"):
        check_equal(case, dtype)


@pytest.mark.parametrize("ihc", IHC_STYLES)
def test_one_sample_of_one_clip(ihc, x64):
    case = Drawn(
        Carfac(8000, ihc=ihc, min_pole_hz=1000), names_for(Carfac(8000, ihc=ihc)), 1, 1, 1, 1, 3
    )
    setting = Setting(case, "float64")
    given, expected = (
        quick(lambda v, who=who: setting.run(who, v)[0])(setting.variables)
        for who in ("native", "xla")
    )
    for (path, a), b in zip(
        jax.tree.leaves_with_path(given), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow  # the scan over 800,000 samples takes 20 s
def test_a_hundred_seconds_equal_those_of_xla():
    audio = 0.05 * np.random.default_rng(0).standard_normal((1, 800_000)).astype(np.float32)

    def of(who):
        model = Carfac(8000, min_pole_hz=1500, hop_s=0.01, kernel=who)

        @jax.jit
        def compute(params, audio):
            def loss(params, audio):
                frames, _ = model.apply(params, audio)
                return jnp.mean(frames), frames

            return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, audio)

        return compute(model.init(), audio)

    ((_, frames), slope), ((_, expected), expected_slope) = of("native"), of("xla")
    assert frames.shape == (1, 10_000, frames.shape[-1])
    assert np.max(np.abs(frames - expected)) <= 2e-4 * np.max(np.abs(expected))
    for (path, a), b in zip(
        jax.tree.leaves_with_path(slope), jax.tree.leaves(expected_slope), strict=True
    ):
        error = np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(b)
        assert error <= 1e-3, (jax.tree_util.keystr(path), error)


def test_the_scan_sums_the_gradients_of_long_clips_in_groups():
    """One after the other, 100,000 blocks in float32 cost the time constants their third digit."""
    assert scan._groups(2756, 1) == (2756,)  # a second at 22.05 kHz
    outer, inner = scan._groups(100_000, 1)
    assert outer * inner >= 100_000
    assert max(outer, inner) < 400


BITS = """
    import functools, hashlib, pathlib
    import jax, jax.numpy as jnp, numpy as np
    from physics.carfac import Carfac

    digest = hashlib.sha256()
    model = Carfac(8000, n_ears=2, ihc="two_cap_with_syn", min_pole_hz=500, kernel="native")

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def slopes(params, audio):
        def loss(params, audio):
            nap, state = model.apply(params, audio)
            return jnp.sum(nap**2), (nap, state.z1)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, audio)

    for clips in (1, 19):
        audio = np.random.default_rng(clips).standard_normal((clips, 150, 2)).astype("f4") / 10
        for leaf in jax.tree.leaves(slopes(model.init(), audio)):
            digest.update(np.asarray(leaf).tobytes())
    names = [t.joinpath("comm").read_text() for t in pathlib.Path("/proc/self/task").iterdir()]
    print(sum(name.startswith("tf_XLAEigen") for name in names), digest.hexdigest())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_bits_do_not_depend_on_the_number_of_processors(tmp_path):
    """XLA makes its pool as large as NPROC says; the sums of gradients have one order."""
    seen = []
    for processors in ("1", "16"):
        result = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(BITS)],
            check=False,
            env=os.environ | {"NPROC": processors, "JAX_COMPILATION_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert result.returncode == 0, result.stderr
        seen.append(result.stdout.split())
    assert seen[0][0] != seen[1][0], "the pool was not made larger"
    assert len({digest for _, digest in seen}) == 1


@pytest.mark.parametrize(("isa", "decimations"), [(0, (8, 2)), (1, (3,)), (2, (2, 4)), (-1, ())])
def test_any_cut_of_a_stream_gives_the_same_bits(isa, decimations):
    model = Carfac(8000, ihc="two_cap_with_syn", agc_decimations=decimations, min_pole_hz=800)
    structure, tuning = model.structure, native.Tuning(isa=isa)
    coefficients = quick(lambda: model.design(model.init()))()
    audio = np.random.default_rng(0).standard_normal((3, 90, 1)).astype(np.float32) / 10

    @quick
    def run(state, piece):
        return native.run(coefficients, structure, state, piece, OUTPUTS, tuning=tuning)

    start = rest.initial_state(coefficients, structure, 3, settled=False)
    whole, after = run(start, audio)
    for lengths in ((1,) * 90, (7,) * 12 + (1,) * 6, (31, 1, 7, 31, 1, 7, 7, 1, 1, 1, 1, 1)):
        assert sum(lengths) == 90
        state, pieces, at = start, [], 0
        for length in lengths:
            given, state = run(state, audio[:, at : at + length])
            pieces.append(given)
            at += length
        joined = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *pieces)
        for a, b in zip(
            jax.tree.leaves((joined, state)), jax.tree.leaves((whole, after)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_any_cut_of_a_framed_stream_gives_the_same_bits():
    model = Carfac(8000, hop_s=0.002, window_s=0.006, min_pole_hz=800, kernel="native")
    audio = np.random.default_rng(0).standard_normal((2, 160)).astype(np.float32) / 10
    apply, params = quick(model.apply), model.init()
    whole, after = apply(params, audio, model.init_state(2))
    state, pieces, at = model.init_state(2), [], 0
    for length in (16, 16, 48, 16, 48, 16):
        frames, state = apply(params, audio[:, at : at + length], state)
        pieces.append(frames)
        at += length
    np.testing.assert_array_equal(np.concatenate(pieces, 1), whole)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_clips_and_no_samples():
    """Empty batches and empty pieces give empty outputs and gradients."""
    model = Carfac(8000, min_pole_hz=800)
    coefficients = quick(lambda: model.design(model.init()))()
    for batch, samples in ((0, 5), (2, 0)):
        state = rest.initial_state(coefficients, model.structure, batch, settled=False)

        @quick
        @jax.value_and_grad
        def loss(coefficients, state=state, shape=(batch, samples, 1)):
            audio = jnp.zeros(shape, jnp.float32)
            given, after = native.run(coefficients, model.structure, state, audio, ("nap",))
            assert given["nap"].shape[:2] == shape[:2]
            return jnp.sum(given["nap"]) + jnp.sum(after.agc_sum)

        value, slope = loss(coefficients)
        assert value == 0
        assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(slope))
