"""Holds bounds to their word, and shows that a front end of one's own is short."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from physics import Parameter, Physics, PhysicsModule, bounds, frame_mask, sample_mask
from physics.bounds import map_specs
from physics.carfac import Carfac


@dataclasses.dataclass(frozen=True)
class Loudness(Physics):
    """Loudness of each hundred samples, the knee of its compression learned: a whole front end."""

    @property
    def hop_samples(self) -> int:
        return 100

    def specs(self):
        return {"knee": Parameter("1", 1e-6, 1.0, "Power below.", transform="log_logit")}

    def init(self, key):
        return self.raw({"knee": 0.01})

    def apply(self, params, inputs, state=None, lengths=None):
        frames = self.num_frames(inputs.shape[1])
        power = jnp.mean(inputs[:, : 100 * frames].reshape(-1, frames, 100, 1) ** 2, axis=2)
        return jnp.log1p(power / self.physical(params)["knee"]), state


def test_a_front_end_of_ones_own(key):
    module = Loudness()
    assert isinstance(module, PhysicsModule)
    assert hash(module) == hash(Loudness())
    params = module.init(key)
    np.testing.assert_allclose(module.physical(params)["knee"], 0.01, rtol=1e-6)
    audio = jnp.sin(0.3 * jnp.arange(450.0))[None]
    features, state = module.apply(params, audio)
    assert features.shape == (1, module.num_frames(450), 1)
    assert module.init_state(1) is state is None
    assert module.channel_frequencies_hz(params) is None
    assert jnp.isfinite(jax.grad(lambda p: module.apply(p, audio)[0].sum())(params)["knee"])


PARAMETERS = {
    "linear": Parameter("1", -3.0, 7.0, "d"),
    "narrow": Parameter("rad", 2.5, 2.6, "d"),
    "decades": Parameter("s", 1e-5, 10.0, "d", transform="log_logit"),
    "part": Parameter("1", 0.0, 1.0, "d", transform="project"),
    "count": Parameter("1", 0.0, 2000.0, "d", transform="project"),
}


class Some(Physics):
    """Nothing but parameters."""

    def specs(self):
        return PARAMETERS

    def init(self, key):
        return self.raw({"linear": 0.0, "narrow": 2.55, "decades": 1e-3, "part": 1.0, "count": 5.0})

    def apply(self, params, inputs, state=None, lengths=None):
        return inputs, state


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=5), st.sampled_from([1e-3, 1.0, 1e4]))
def test_no_update_leaves_the_bounds(gradient, rate):
    module = Some()
    params = module.init(None)
    optimizer = optax.sgd(rate)
    gradients = dict(zip(PARAMETERS, map(jnp.float32, gradient), strict=True))
    updates, _ = optimizer.update(gradients, optimizer.init(params))
    physical = module.physical(module.project(optax.apply_updates(params, updates)))
    for name, p in PARAMETERS.items():
        if p.transform == "project":
            assert p.low <= physical[name] <= p.high
        else:
            assert p.low < physical[name] < p.high


def test_raw_is_the_inverse_of_physical(x64):
    module = Some()
    values = {"linear": 6.9, "narrow": 2.501, "decades": 2e-5, "part": 0.0, "count": 2000.0}
    back = module.physical(module.raw(values))
    for name, value in values.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-12)
        assert back[name].dtype == jnp.float64


def test_moves_are_exact_in_float32_where_values_are_rounded():
    """A move of 1e-4 to 1e-5 of itself, though the value has only 7 digits; none is exactly 0."""
    module = Some()
    values = {"linear": 6.9, "narrow": 2.501, "decades": 2e-5}
    specs = {name: module.specs()[name] for name in values}
    start = {name: module.raw(values | {"part": 0.0, "count": 2.0})[name] for name in values}
    still = bounds.moved(specs, start, values)
    assert all(leaf == 0 and leaf.dtype == jnp.float32 for leaf in still.values())
    for step in (1e-4, -3.0, 20.0):
        params = {name: leaf + step for name, leaf in start.items()}
        found = bounds.moved(specs, params, values)
        with jax.enable_x64(True):
            before, after = (
                bounds.to_physical(specs, jax.tree.map(lambda a: jnp.asarray(a, float), tree))
                for tree in (start, params)
            )
        for name, p in specs.items():
            move = np.log if p.transform == "log_logit" else np.asarray
            expected = move(after[name]) - move(before[name])
            np.testing.assert_allclose(found[name], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("linear", 7.0), ("linear", np.nan), ("decades", 0.0), ("part", 1.1), ("count", -1.0)],
)
def test_values_out_of_bounds_are_named(name, value):
    values = {"linear": 0.0, "narrow": 2.55, "decades": 1e-3, "part": 1.0, "count": 5.0}
    with pytest.raises(ValueError, match=rf"{name} must lie in .* got {value:g}"):
        Some().raw(values | {name: value})


def test_parameters_that_cannot_be():
    with pytest.raises(ValueError, match="low < high"):
        Parameter("1", 2.0, 1.0, "d")
    with pytest.raises(ValueError, match="one of"):
        Parameter("1", 0.0, 1.0, "d", transform="exp")
    with pytest.raises(ValueError, match="low > 0"):
        Parameter("1", 0.0, 1.0, "d", transform="log_logit")


def test_masks():
    lengths = jnp.array([0, 99, 100, 450], jnp.int32)
    assert sample_mask(450, lengths).sum(1).tolist() == [0, 99, 100, 450]
    assert frame_mask(4, 100, lengths).sum(1).tolist() == [0, 0, 1, 4]


@pytest.mark.parametrize("ihc", ["just_hwr", "one_cap", "two_cap", "two_cap_with_syn"])
def test_every_parameter_of_carfac_is_described(ihc):
    model = Carfac(ihc=ihc, n_ears=2)
    params = model.init()
    seen = []
    map_specs(lambda p, raw: seen.append((p, raw)), model.specs(), params)
    for p, _ in seen:
        assert p.doc.endswith(".")
        assert p.source
        assert p.unit in ("1", "Hz", "s", "rad")
    physical = model.physical(params)
    assert (physical["car"]["ohc_health"] == 1).all()
    assert model.project(params)["car"]["ohc_health"].shape == (2, model.structure.n_channels)
