"""Holds compressors to the contract, to plain recursions, and to what they do to levels."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import Parameter, Physics, frame_mask, sample_mask, testing
from physics.compose import Compose
from physics.compressors import Log, Pcen, PowerLaw
from physics.filterbanks import Leaf
from physics.stages import FeatureLayout

LAYOUT = FeatureLayout(100.0, (3,))


@dataclasses.dataclass(frozen=True)
class Energy(Physics):
    """Mean squares of hops of 4 samples, in two channels; of more than one ear if asked."""

    sample_rate_hz: float | int = 400.0
    n_ears: int = 1

    @property
    def hop_samples(self):
        return 4

    def specs(self):
        return {"gain": Parameter("1", 0.1, 9.0, "Gain.", "None.", "log_logit")}

    def init(self, key):
        return self.raw({"gain": np.array([0.5, 2.0])})

    def apply(self, params, inputs, state=None, lengths=None):
        audio = inputs if inputs.ndim == 3 else inputs[:, :, None]
        if lengths is not None:
            audio = jnp.where(sample_mask(audio.shape[1], lengths)[:, :, None], audio, 0)
        frames = self.num_frames(audio.shape[1])
        hops = audio[:, : 4 * frames].reshape(audio.shape[0], frames, 4, audio.shape[2])
        energy = (
            jnp.mean(hops**2, axis=2)[..., None] * self.physical(params)["gain"][None, None, None]
        )
        if lengths is not None:
            energy = jnp.where(frame_mask(frames, 4, lengths)[:, :, None, None], energy, 0)
        return (energy if self.n_ears > 1 else energy[:, :, 0]), state


MODULES = {
    "pcen": Compose(front=Energy(n_ears=2), stages=(Pcen(),)),
    "power law and log": Compose(front=Energy(), stages=(PowerLaw(), Log(1e-3, learned=True))),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    "check",
    [c for c in testing.CHECKS if c is not testing.check_config],
    ids=lambda check: check.__name__,
)
def test_contract(check, name):
    check(MODULES[name])


@pytest.mark.parametrize("stage", [Pcen(), PowerLaw(0.5), Log(1e-4, learned=True)])
def test_settings_make_the_same_stage(stage):
    """As `Compose` reads them from a config."""
    settings = {"target": f"physics.compressors:{type(stage).__name__}"}
    settings |= dataclasses.asdict(stage)
    assert Compose(front=Energy(), stages=(settings,)).stages == (stage,)


def plain_pcen(energy, alpha, delta, root, smoothing, eps=1e-12):
    """As google-research/leaf-audio has it, one clip and channel."""
    out, smoothed = [], energy[0]
    for x in energy:
        smoothed = smoothing * x + (1 - smoothing) * smoothed
        out.append((x / (eps + smoothed) ** alpha + delta) ** (1 / root) - delta ** (1 / root))
    return np.array(out)


def test_pcen_equals_a_plain_recursion(x64):
    rng = np.random.default_rng(0)
    energy = rng.exponential(size=(2, 150, 3)) * np.array([1e-6, 1.0, 1e4])
    energy[:, 40:60] = 0
    values = {
        "alpha": np.array([0.96, 0.5, 1.0]),
        "delta": np.array([2.0, 0.1, 10.0]),
        "root": np.array([2.0, 5.0, 1.0]),
        "smoothing": np.array([0.04, 0.5, 0.9]),
    }
    physical = jax.tree.map(jnp.asarray, values)
    run = jax.jit(lambda x, state=None: Pcen().apply(physical, x, LAYOUT, state))
    got, state = run(energy)
    for b in range(2):
        for c in range(3):
            expected = plain_pcen(energy[b, :, c], *(v[c] for v in values.values()))
            np.testing.assert_allclose(got[b, :, c], expected, rtol=1e-9, atol=1e-12)
    again, _ = run(energy, state)
    assert not np.allclose(again[:, 0], got[:, 0])  # it goes on from the end


def test_pcen_begins_and_is_bounded_as_published():
    initial = Pcen().initial(LAYOUT)
    for name, value in (("alpha", 0.96), ("delta", 2.0), ("root", 2.0), ("smoothing", 0.04)):
        np.testing.assert_allclose(initial[name], np.full(3, value), rtol=1e-12)
    specs = Pcen().specs(LAYOUT)
    assert specs["alpha"].high == 1
    assert specs["root"].low == 1
    assert (specs["smoothing"].low, specs["smoothing"].high) == (0, 1)


def test_pcen_has_one_time_constant_at_any_frame_rate():
    for rate_hz in (50.0, 100.0, 16000.0):
        smoothing = Pcen().initial(FeatureLayout(rate_hz, (1,)))["smoothing"][0]
        np.testing.assert_allclose(-1 / (rate_hz * np.log1p(-smoothing)), 0.24497, rtol=1e-4)


def test_pcen_of_full_strength_does_not_know_the_level(x64):
    """With alpha 1, 60 dB more give the same; with 0 they do not."""
    energy = jnp.asarray(np.random.default_rng(1).exponential(size=(1, 50, 3)))
    physical = jax.tree.map(jnp.asarray, Pcen(alpha=1.0).initial(LAYOUT))
    soft, loud = (Pcen().apply(physical, g * energy, LAYOUT)[0] for g in (1e-3, 1e3))
    np.testing.assert_allclose(soft, loud, rtol=1e-6)
    plain = physical | {"alpha": jnp.zeros(3)}
    soft, loud = (Pcen().apply(plain, g * energy, LAYOUT)[0] for g in (1e-3, 1e3))
    assert float(jnp.min(loud / soft)) > 10


def test_pcen_hears_silence_without_harm():
    """Negative features count as silence, and gradients are finite at both."""
    physical = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), Pcen(alpha=1.0).initial(LAYOUT))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def gradient(physical, x):
        features, _ = Pcen().apply(physical, x, LAYOUT)
        return jnp.sum(features), features

    for level in (0.0, -1.0, 1e-38):
        x = np.full((1, 8, 3), level, np.float32)
        x[:, 5] = 1.0
        gradients, features = gradient(physical, x)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
        assert np.abs(features[:, :5]).max() < 1e-6


def test_leaf_complete_is_a_config():
    """As the docstring of `Leaf` gives it."""
    kwargs = {
        "front": {"target": "physics.filterbanks:Leaf"},
        "stages": [{"target": "physics.compressors:Pcen"}],
    }
    module = Compose(**kwargs)
    assert module == Compose(front=Leaf(), stages=(Pcen(),))
    params = module.init(jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 40 * 7
    audio = 0.1 * jax.random.normal(jax.random.key(1), (1, 1600))
    features, _ = jax.jit(module.apply)(params, audio)
    energy, _ = jax.jit(Leaf().apply)(params["front"], audio)
    expected = plain_pcen(np.asarray(energy[0, :, 20], np.float64), 0.96, 2.0, 2.0, 0.04)
    np.testing.assert_allclose(features[0, :, 20], expected, rtol=1e-3)


def test_power_laws_compress_by_their_exponent(x64):
    stage = PowerLaw()
    physical = {"exponent": jnp.array([0.3, 1.0, 0.5])}
    x = jnp.asarray([1e-6, 1e-3, 1.0, 1e3])[None, :, None] * jnp.ones((1, 1, 3))
    y, _ = stage.apply(physical, x, LAYOUT)
    np.testing.assert_allclose(y[0], np.asarray(x[0]) ** [0.3, 1.0, 0.5], rtol=1e-12)
    odd, _ = stage.apply(physical, -x, LAYOUT)
    np.testing.assert_allclose(odd, -y)


def test_power_laws_have_a_slope_at_zero():
    stage = PowerLaw(floor=1e-4)
    physical = {"exponent": jnp.full(3, 0.5)}

    def total(physical, x):
        return jnp.sum(stage.apply(physical, x, LAYOUT)[0])

    for level in (0.0, 1e-40, 1e-5):
        of_exponent, of_x = jax.grad(total, (0, 1))(physical, jnp.full((1, 2, 3), level))
        np.testing.assert_allclose(of_x, 100.0, rtol=1e-5)
        assert np.isfinite(of_exponent["exponent"]).all()


def test_logarithms_of_energies():
    x = jnp.asarray([-1.0, 0.0, 1.0])[None, :, None] * jnp.ones((1, 1, 3))
    fixed, _ = Log(1e-5).apply({}, x, LAYOUT)
    np.testing.assert_allclose(fixed[0, :, 0], np.log([1e-5, 1e-5, 1 + 1e-5]), rtol=1e-6, atol=1e-7)
    assert Log().specs(LAYOUT) == Log().initial(LAYOUT) == {}
    stage = Log(1e-2, learned=True)
    physical = {"floor": jnp.full(3, 1e-2)}
    slope = jax.grad(lambda p: jnp.sum(stage.apply(p, x, LAYOUT)[0]))(physical)["floor"]
    np.testing.assert_allclose(slope, 100 + 100 + 1 / 1.01, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda: Log(0), lambda: PowerLaw(floor=-1), lambda: Pcen(eps=0)])
def test_floors_are_positive(make):
    with pytest.raises(ValueError, match=r"(floor|eps) must be positive"):
        make()
