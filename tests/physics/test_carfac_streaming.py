"""Any cut of a clip into pieces gives what the whole gives; what is not asked for costs nothing.

What hypothesis draws is fixed in a default run, and XLA gets pieces of few lengths, for it compiles
each; STREAMING_EXAMPLES=20 draws so many cuts of any lengths anew, for each model.
"""

import dataclasses
import functools
import os

import hypothesis
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from physics.carfac import Carfac, native
from physics.carfac.structures import OUTPUTS

SMALL = {"sample_rate_hz": 8000, "min_pole_hz": 300, "agc_decimations": (8, 3)}
MODELS = {
    "just_hwr": Carfac(**SMALL, ihc="just_hwr", initial={"car.ohc_health": 0.5}),
    "one_cap": Carfac(**SMALL, ihc="one_cap", use_delay_buffer=True),
    "two_cap": Carfac(**SMALL),
    "two_cap_with_syn": Carfac(**SMALL, n_ears=2, ihc="two_cap_with_syn"),
}
SKIP = pytest.mark.skipif(
    native.reason_unavailable() is not None, reason=str(native.reason_unavailable())
)
TOLERANCES = {"float64": 1e-12, "float32": 2e-4}
FEW_LENGTHS = (1, 1, 1, 1, 1, 19, 19)  # shorter and longer than a block of 8
EXAMPLES = os.environ.get("STREAMING_EXAMPLES")
DRAWN = hypothesis.settings(
    max_examples=int(EXAMPLES or 4),
    deadline=None,
    derandomize=EXAMPLES is None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)


@st.composite
def any_cut(draw, whole):
    """Lengths of one sample or more whose sum is `whole`."""
    cuts = sorted(draw(st.sets(st.integers(1, whole - 1), max_size=8)))
    return np.diff([0, *cuts, whole]).tolist()


def lengths(kernel, whole, few):
    return st.permutations(few) if kernel == "xla" and EXAMPLES is None else any_cut(whole)


@pytest.fixture(scope="module")
def runs():
    """`run` with all outputs, or `apply` of a framed model; XLA's compiled once for each length."""

    @functools.cache
    def get(model):
        names = OUTPUTS if model.ihc == "two_cap_with_syn" else OUTPUTS[:-1]

        def run(params, audio, state=None):
            if model.hop_s is not None:
                return model.apply(params, audio, state)
            return model.run(params, audio, state, names)

        options = {"xla_backend_optimization_level": 0}
        # Step by step, the native kernel needs no compilation for each length.
        return run if model.kernel == "native" else jax.jit(run, compiler_options=options)

    return get


def check_cut(run, model, audio, pieces, tolerance):
    """Outputs and the state after, to a part of each one's largest value."""
    params, state, given, start = model.init(), None, [], 0
    whole, after = run(params, jnp.asarray(audio))
    for length in pieces:
        piece, state = run(params, jnp.asarray(audio[:, start : start + length]), state)
        given.append(piece)
        start += length
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *given)
    for (path, expected), found in zip(
        jax.tree.leaves_with_path((whole, after)), jax.tree.leaves((joined, state)), strict=True
    ):
        largest = np.abs(expected).max(initial=1e-3)
        assert np.abs(found - expected).max(initial=0) <= tolerance * largest, path


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("one_cap", "float64"),
        ("two_cap", "float32"),
        ("two_cap_with_syn", "float64"),
        # Each is compiled for some lengths, and does nothing that the others do not.
        pytest.param("just_hwr", "float64", marks=pytest.mark.slow),
        pytest.param("two_cap", "float64", marks=pytest.mark.slow),
    ],
)
@DRAWN
@hypothesis.given(data=st.data())
def test_any_cut_gives_the_same(runs, data, name, dtype):
    model = dataclasses.replace(MODELS[name], kernel="xla")
    pieces = data.draw(lengths("xla", sum(FEW_LENGTHS), FEW_LENGTHS))
    with jax.enable_x64(dtype == "float64"):
        check_cut(runs(model), model, noise(model, sum(pieces), dtype), pieces, TOLERANCES[dtype])


@SKIP
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float64") for name in MODELS), ("two_cap_with_syn", "float32")]
)
@DRAWN
@hypothesis.given(data=st.data())
def test_any_cut_gives_the_same_natively(runs, data, name, dtype):
    model = dataclasses.replace(MODELS[name], kernel="native")
    pieces = data.draw(any_cut(250))
    with jax.enable_x64(dtype == "float64"):
        check_cut(runs(model), model, noise(model, 250, dtype), pieces, TOLERANCES[dtype])


@pytest.mark.parametrize("kernel", ["xla", pytest.param("native", marks=SKIP)])
@DRAWN
@hypothesis.given(data=st.data())
def test_any_cut_between_frames_gives_the_same(runs, x64, data, kernel):
    """Also where windows reach back over several pieces."""
    model = dataclasses.replace(
        MODELS["two_cap"], kernel=kernel, hop_s=10 / 8000, window_s=40 / 8000, compression="root"
    )
    hops = data.draw(lengths(kernel, 12, (1, 1, 1, 3, 3, 3)))
    pieces = [hop * model.hop_samples for hop in hops]
    check_cut(runs(model), model, noise(model, sum(pieces)), pieces, 1e-12)


def noise(model, samples, dtype="float64"):
    audio = 0.1 * np.random.default_rng(0).standard_normal((2, samples, model.n_ears))
    return audio.astype(dtype)


@pytest.mark.parametrize("kernel", ["xla", pytest.param("native", marks=SKIP)])
@pytest.mark.parametrize("name", ["just_hwr", "two_cap_with_syn"])
def test_what_is_not_asked_for_costs_nothing(name, kernel):
    """Nowhere in the program is there an array of full rate for it, in its gradient neither."""
    model = dataclasses.replace(MODELS[name], kernel=kernel)
    names = OUTPUTS if model.ihc == "two_cap_with_syn" else OUTPUTS[:-1]
    costs = {output: full_rate_arrays(model, (output,)) for output in names}
    assert full_rate_arrays(model, ()) == 0
    assert min(costs.values()) > 0
    assert full_rate_arrays(model, names) == sum(costs.values())
    assert full_rate_arrays(model, (), gradient=True) == 0


def full_rate_arrays(model, names, gradient=False):
    """How many arrays of a program, its loops included, have a number per sample and channel."""
    samples = 4096
    audio = jax.ShapeDtypeStruct((1, samples, model.n_ears), jnp.float32)

    def run(params, audio):
        given, after = model.run(params, audio, outputs=names)
        return jnp.sum(after.z1) + jnp.sum(after.agc_memory) if gradient else (given, after)

    program = jax.make_jaxpr(jax.grad(run) if gradient else run)(model.init(), audio)
    least = samples * model.n_ears * model.structure.n_channels
    return sum(
        variable.aval.size >= least
        for equation in every_equation(program.jaxpr)
        for variable in equation.outvars
    )


def every_equation(jaxpr):
    """Of a program and of the programs within it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from every_equation(inner)
