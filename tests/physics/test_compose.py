"""Holds a front end with stages after it to the contract of one module."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import Parameter, testing
from physics.carfac import Carfac
from physics.compose import Compose
from physics.stages import Stage


@dataclasses.dataclass(frozen=True)
class Leak(Stage):
    """A low-pass over frames, one for each channel."""

    rate: float = 0.3

    def specs(self, layout):
        return {"rate": Parameter("1", 0.01, 0.99, "Share of the new.", "None.")}

    def initial(self, layout):
        return {"rate": np.full(layout.n_channels, self.rate)}

    def init_state(self, layout, batch):
        return jnp.zeros((batch, *layout.channels))

    def apply(self, physical, features, layout, state=None, mask=None):
        if state is None:
            state = jnp.zeros((features.shape[0], *layout.channels), features.dtype)

        def step(level, x):
            level = level + physical["rate"][None] * (x - level)
            return level, level

        state, out = jax.lax.scan(step, state, jnp.moveaxis(features, 1, 0))
        return jnp.moveaxis(out, 0, 1), state


@dataclasses.dataclass(frozen=True)
class Pairs(Stage):
    """Sums of neighbours: half as many channels, and no parameters."""

    def specs(self, layout):
        return {}

    def initial(self, layout):
        return {}

    def apply(self, physical, features, layout, state=None, mask=None):
        even = features.shape[-1] // 2 * 2
        return features[..., :even:2] + features[..., 1:even:2], state


EAR = Carfac(sample_rate_hz=8000, min_pole_hz=800, hop_s=0.004)


def module():
    return Compose(front=EAR, stages=(Leak(), Pairs(), Leak(0.5)))


@pytest.mark.parametrize(
    "check",
    [c for c in testing.CHECKS if c is not testing.check_config],
    ids=lambda check: check.__name__,
)
def test_contract(check):
    check(module())


def test_stages_see_what_the_one_before_gives(key):
    composed = module()
    assert composed.names == ("leak", "pairs", "leak_2")
    channels = [layout.n_channels for layout in composed.layouts()]
    assert channels == [EAR.structure.n_channels] * 2 + [EAR.structure.n_channels // 2] * 2
    assert {layout.frame_rate_hz for layout in composed.layouts()} == {250.0}
    params = composed.init(key)
    audio = 0.1 * jax.random.normal(key, (2, 320))
    features, _ = composed.apply(params, audio)
    by_hand, _ = EAR.apply(params["front"], audio)
    for name, stage, layout in zip(
        composed.names, composed.stages, composed.layouts(), strict=False
    ):
        by_hand, _ = stage.apply(composed.physical(params)[name], by_hand, layout)
    np.testing.assert_allclose(features, by_hand, rtol=1e-6)
    assert composed.channel_frequencies_hz(params).shape == (EAR.structure.n_channels,)


def test_settings_and_modules_make_the_same():
    settings = {"target": "physics.carfac:Carfac", "min_pole_hz": 800, "hop_s": 0.004}
    assert Compose(sample_rate_hz=8000, front=settings) == Compose(front=EAR)


@pytest.mark.parametrize(
    ("kwargs", "rule"),
    [
        ({"stages": (3,)}, "stages must be `Stage`s"),
        ({"stages": ({"target": "subprocess:Popen", "args": "true"},)}, "lacks specs"),
        ({"front": {"target": "subprocess:Popen", "args": "true"}}, "lacks num_frames"),
        ({"front": {"target": "physics.carfac:Carfact"}}, "Carfact"),
        ({"front": EAR, "sample_rate_hz": 16000}, "share its sample rate"),
    ],
)
def test_what_cannot_be_composed_is_refused(kwargs, rule):
    with pytest.raises(ValueError, match=rule):
        Compose(**kwargs)


class Blind(Stage):
    """Needs the future."""

    causal = False
    not_causal_because = "It looks ahead."

    def specs(self, layout):
        return {}

    def initial(self, layout):
        return {}

    def apply(self, physical, features, layout, state=None, mask=None):
        return features, state


def test_it_can_be_streamed_if_all_parts_can():
    assert module().causal
    blind = Compose(front=EAR, stages=(Leak(), Blind()))
    assert not blind.causal
    assert blind.not_causal_because == "Blind: It looks ahead."
