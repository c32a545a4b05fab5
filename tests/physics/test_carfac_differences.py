"""Holds derivatives to central differences, leaf by leaf, in float64.

What is scored has a kink in one style only: just_hwr where its input crosses 0 or 2. A step small
enough for no sample to cross finds the slope between kinks, which is the derivative; at a kink
itself (an input of exactly 0 that parameters move) there is none to compare. The conductance of the
other styles opens as a cube, and compressed frames have a continuous slope: both are smooth enough.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.base import dotted
from physics.carfac import Carfac
from physics.carfac.structures import OUTPUTS

SAMPLES = 160  # the slowest stage of gain control updates more than once in each model
SMALL = {"sample_rate_hz": 8000, "min_pole_hz": 250, "kernel": "xla"}
WIDE = {"car.erb_per_step": 1.3}
MODELS = {
    "half_wave": Carfac(**SMALL, ihc="just_hwr", agc_decimations=(4, 3), initial=WIDE),
    "one_cap_delay": Carfac(
        **SMALL,
        ihc="one_cap",
        use_delay_buffer=True,
        settled=True,
        agc_decimations=(5,),
        initial=WIDE,
        hop_s=0.004,
        compression="root",
    ),
    "two_cap_impaired": Carfac(
        **SMALL,
        agc_decimations=(8, 2, 2, 2),
        initial=WIDE
        | {
            "car.ohc_health": 0.6,
            "agc.agc1_scales": [1.0, 3.0, 4.0, 8.0],  # up to three passes of five taps
            "agc.agc2_scales": [1.65, 3.0, 5.0, 9.0],
        },
        hop_s=0.005,
        compression="log",
    ),
    "two_ears_synapse": Carfac(
        **SMALL,
        n_ears=2,
        ihc="two_cap_with_syn",
        agc_decimations=(4, 2),
        initial=WIDE
        | {
            "car.ohc_health": [[1.0], [0.5]],
            "car.first_pole_theta": [2.6, 2.5],
            "ihc.tau2_in_s": [0.01, 0.02],
            "agc.stage_gain": [2.0, 1.5],
        },
    ),
    "linear_open_loop": Carfac(**SMALL, linear_car=True, open_loop=True, initial=WIDE),
    "no_gain_control": Carfac(
        **SMALL, ihc="just_hwr", agc_decimations=(), initial=WIDE | {"car.ohc_health": 0.8}
    ),
}
# Leaves on which nothing that a model gives depends, and why.
WITHOUT_EFFECT = {
    "one_cap_delay": {"agc.stage_gain"},  # of a stage that hears no slower one
    # The synapse hears the receptor potential, before the hair cell's own transmitter.
    "two_ears_synapse": {"ihc.tau_lpf_s", "ihc.tau2_in_s", "ihc.tau2_out_s"},
    # Open, the loop leaves undamping as it starts: healthy. Cells that feel no velocity are linear.
    "linear_open_loop": {
        "car.ohc_health",
        "car.velocity_scale",
        "car.velocity_offset",
        "agc.time_constants_s",
        "agc.stage_gain",
        "agc.agc1_scales",
        "agc.agc2_scales",
    },
}
STEPS = 4e-3 / 4.0 ** np.arange(8)


def objective(model):
    """A scalar of all that a model gives: each number counts, and differently."""

    def of(variables):
        params, audio = variables["params"], variables["audio"]
        if model.hop_s is None:
            names = OUTPUTS if model.ihc == "two_cap_with_syn" else OUTPUTS[:-1]
            given, _ = model.run(params, audio, outputs=names)
        else:
            given, _ = model.apply(params, audio)
        rng = np.random.default_rng(5)
        return sum(
            jnp.mean(jnp.asarray(rng.standard_normal(leaf.shape)) * leaf) + jnp.mean(leaf * leaf)
            for leaf in jax.tree.leaves(given)
        )

    return of


@pytest.fixture(scope="module")
def slopes():
    """Value and gradient of `objective`, for many `variables` at once, compiled once a model."""

    @functools.cache
    def get(name):
        options = {"xla_backend_optimization_level": 0}
        return jax.jit(
            jax.vmap(jax.value_and_grad(objective(MODELS[name]))), compiler_options=options
        )

    return get


@pytest.fixture
def variables(sounds):
    """Params and audio: speech into one ear, noise into the other."""

    def make(name):
        model, found = MODELS[name], sounds(SAMPLES, seed=1)
        audio = np.stack([found["speech"], 0.5 * found["noise"]], -1)[None, :, : model.n_ears]
        return {"params": model.init(), "audio": jnp.asarray(audio)}

    return make


@pytest.mark.parametrize("name", MODELS)
def test_equals_central_differences(variables, slopes, x64, name):
    """Every leaf, and the audio, to 1e-5 of its norm (floor: 1e-9 of the whole gradient's)."""
    start, rng = variables(name), np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(start)
    rows = [(i, d) for i, leaf in enumerate(leaves) for d in directions(leaf, rng)]
    steps = np.stack([STEPS, -STEPS], -1).ravel()
    many = [np.repeat(np.asarray(leaf)[None], 1 + len(rows) * steps.size, 0) for leaf in leaves]
    for row, (i, direction) in enumerate(rows):
        many[i][1 + row * steps.size :][: steps.size] += np.multiply.outer(steps, direction)
    values, gradients = slopes(name)(structure.unflatten(many))
    ends = np.asarray(values[1:]).reshape(len(rows), STEPS.size, 2)
    central = (ends[..., 0] - ends[..., 1]) / (2 * STEPS)

    gradient = [np.asarray(leaf[0]) for leaf in jax.tree.leaves(gradients)]
    norms = [np.linalg.norm(leaf) for leaf in gradient]
    paths = [dotted(path).removeprefix("params.") for path, _ in jax.tree.leaves_with_path(start)]
    whole = np.linalg.norm(norms)
    unused = {path for path, norm in zip(paths, norms, strict=True) if norm < 1e-12 * whole}
    assert unused == WITHOUT_EFFECT.get(name, set())
    for (i, direction), by_step in zip(rows, central, strict=True):
        error = abs(np.vdot(gradient[i], direction) - plateau(by_step)) / (norms[i] + 1e-9 * whole)
        assert error < 1e-5, (paths[i], error)


def directions(leaf, rng):
    """Of a number itself; of an array two draws, along which an error shows with its whole norm."""
    return [np.ones(leaf.shape)] if leaf.size == 1 else rng.standard_normal((2, *leaf.shape))


def plateau(central):
    """The extrapolated slope where it changes least from step to step, whatever is expected."""
    better = (16 * central[1:] - central[:-1]) / 15
    changes = np.abs(np.diff(better, axis=0)).reshape(len(better) - 1, -1).sum(1)
    return better[1 + np.argmin(changes)]


def test_second_derivatives_and_forward_mode(variables, quick_jit, x64):
    """Products with the Hessian equal differences of gradients; both modes give one slope."""
    name, rng = "one_cap_delay", np.random.default_rng(1)
    start = variables(name)
    direction = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), start)

    @quick_jit
    @jax.vmap
    def expand(step):
        at = jax.tree.map(lambda a, d: a + step * d, start, direction)
        both = jax.value_and_grad(objective(MODELS[name]))
        (_, gradient), (slope, product) = jax.jvp(both, (at,), (direction,))
        return gradient, slope, product

    steps = np.concatenate([[0.0], STEPS, -STEPS])
    gradients, slope, products = jax.tree.map(np.asarray, expand(jnp.asarray(steps)))
    terms = jax.tree.map(lambda g, d: np.vdot(g[0], d), gradients, direction)
    np.testing.assert_allclose(slope[0], sum(jax.tree.leaves(terms)), rtol=1e-10)
    whole = np.linalg.norm([np.linalg.norm(leaf[0]) for leaf in jax.tree.leaves(products)])
    for (path, product), gradient in zip(
        jax.tree.leaves_with_path(products), jax.tree.leaves(gradients), strict=True
    ):
        assert np.isfinite(product).all(), path
        up, down = gradient[1:].reshape(2, STEPS.size, -1)
        central = (up - down) / (2 * STEPS[:, None])
        error = np.linalg.norm(plateau(central) - product[0].ravel())
        assert error < 1e-5 * (np.linalg.norm(product[0]) + 1e-6 * whole), path
