"""Holds gradients to central differences, and to being finite whatever is heard.

Not differentiable, and so left out of the comparison: the clipping of just_hwr where it clips. The
conductance of the other styles is a cube where it opens, smooth enough for central differences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.carfac import Carfac

SAMPLES = 260
TWO_CAP = Carfac(sample_rate_hz=16000, kernel="xla")
MODELS = {
    "two_cap": TWO_CAP,
    "two_ears_synapse": Carfac(
        sample_rate_hz=8000,
        n_ears=2,
        ihc="two_cap_with_syn",
        agc_decimations=(8, 2),
        kernel="xla",
    ),
    "one_cap_delay": Carfac(
        sample_rate_hz=8000,
        ihc="one_cap",
        use_delay_buffer=True,
        settled=True,
        agc_decimations=(4,),
        kernel="xla",
    ),
}


def objective(model, audio):
    """A scalar of the NAP in which every sample and channel counts differently."""
    rng = np.random.default_rng(5)
    weights = jnp.asarray(rng.standard_normal((audio.shape[1], model.structure.n_channels)))

    def of(params, audio):
        features, _ = model.apply(params, audio)
        features = features.reshape(*features.shape[:2], -1, weights.shape[1])
        mixed = jnp.asarray(weights, features.dtype)[None, :, None] * features
        return jnp.mean(features * features) + jnp.mean(mixed)

    return of


@pytest.mark.parametrize("sound", ["silence", "speech", "click", "noise", "square", "denormal"])
def test_finite(sounds, value_and_grad, sound):
    value, (by_params, by_audio) = value_and_grad(
        jnp.asarray(sounds(400)[sound], jnp.float32)[None]
    )
    assert jnp.isfinite(value)
    assert jnp.isfinite(by_audio).all()
    assert jax.tree.structure(by_params) == jax.tree.structure(TWO_CAP.specs())
    for path, leaf in jax.tree.leaves_with_path(by_params):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.any(leaf != 0) or sound in ("silence", "denormal"), path


@pytest.fixture(scope="module")
def value_and_grad():
    params, of = TWO_CAP.init(), objective(TWO_CAP, jnp.zeros((1, 400)))
    options = {"xla_backend_optimization_level": 0}
    run = jax.jit(jax.value_and_grad(of, (0, 1)), compiler_options=options)
    return lambda audio: run(params, audio)


@pytest.fixture(scope="module")
def compiled():
    """Value and gradient of `objective` for one of MODELS, compiled once, in float64."""
    options = {"xla_backend_optimization_level": 0}

    @functools.cache
    def get(name):
        of = objective(MODELS[name], jnp.zeros((1, SAMPLES)))
        return (
            jax.jit(of, compiler_options=options),
            jax.jit(jax.grad(of), compiler_options=options),
        )

    return get


@pytest.mark.parametrize("name", MODELS)
def test_equals_central_differences(sounds, compiled, x64, name):
    """To 1e-5 of each leaf's norm (floor: 1e-9 of the gradient's), at the best of four steps."""
    model = MODELS[name]
    params = model.init()
    found = sounds(SAMPLES, seed=1)
    clips = [np.stack([found[sound]] * model.n_ears, -1) for sound in ("speech", "noise")]
    clips = [clip * np.linspace(1.0, 0.5, model.n_ears) for clip in clips]
    value, gradient = compiled(name)
    for clip in clips:
        audio = jnp.asarray(clip)[None]
        exact = gradient(params, audio)
        floor = 1e-9 * np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(exact)))
        for error, path in differences(
            lambda p, audio=audio: value(p, audio), params, exact, floor
        ):
            assert error < 1e-5, (path, error)


def differences(value, params, exact, floor):
    """Worst error of each leaf: all coordinates of small ones, some directions of large ones."""
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    for i, (path, gradient) in enumerate(jax.tree.leaves_with_path(exact)):
        norm = np.sqrt(np.sum(np.square(gradient))) + floor
        size = gradient.size
        picks = np.eye(size) if size <= 4 else np.eye(size)[rng.choice(size, 3, replace=False)]
        if size > 4:
            picks = np.concatenate([picks, rng.standard_normal((2, size)) / np.sqrt(size)])
        worst = 0.0
        for pick in picks:
            direction = jnp.asarray(pick.reshape(gradient.shape))
            errors = []
            for step in (1e-4, 1e-5, 1e-3, 1e-6):
                ends = []
                for sign in (step, -step):
                    moved = [*leaves[:i], leaves[i] + sign * direction, *leaves[i + 1 :]]
                    ends.append(float(value(structure.unflatten(moved))))
                slope = (ends[0] - ends[1]) / (2 * step)
                errors.append(abs(slope - float(jnp.sum(gradient * direction))) / norm)
                if errors[-1] < 1e-6:  # ten times better than asked: no need to sweep on
                    break
            worst = max(worst, min(errors))
        yield worst, jax.tree_util.keystr(path)


def test_forward_mode_agrees_with_reverse(sounds, quick_jit, compiled, x64):
    model = MODELS["one_cap_delay"]
    params, audio = model.init(), jnp.asarray(sounds(SAMPLES)["noise"])[None, :, None]
    gradient = compiled("one_cap_delay")[1]
    value = objective(model, audio)
    direction = jax.tree.map(lambda a: jnp.full_like(a, 0.1), params)
    _, forward = quick_jit(lambda p: jax.jvp(lambda p: value(p, audio), (p,), (direction,)))(params)
    reverse = sum(jnp.sum(0.1 * leaf) for leaf in jax.tree.leaves(gradient(params, audio)))
    np.testing.assert_allclose(forward, reverse, rtol=1e-10)
