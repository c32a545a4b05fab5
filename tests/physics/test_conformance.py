"""Holds every front end to the contract, and shows that the checks catch what breaks it."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from physics import Parameter, Physics, frame_mask, sample_mask, testing
from physics.carfac import Carfac

FRONT_ENDS = {
    "carfac": Carfac(sample_rate_hz=8000, min_pole_hz=400, initial={"car.erb_per_step": 1.0}),
    "carfac in frames": Carfac(
        sample_rate_hz=8000, min_pole_hz=400, hop_s=0.004, ihc="one_cap", compression="root"
    ),
    "carfac, two ears": Carfac(
        sample_rate_hz=8000, min_pole_hz=800, initial={"car.erb_per_step": 1.0}, n_ears=2
    ),
}


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_front_end(check, name):
    check(FRONT_ENDS[name])


@dataclasses.dataclass(frozen=True)
class Sound(Physics):
    """A front end that breaks no rule: gain, smoothed a little, in frames."""

    hop_samples: int = 4  # type: ignore[misc]
    broken: str = ""

    def specs(self):
        return {"gain": Parameter("1", 0.1, 9.0, "Gain.", "None.", "log_logit")}

    def init(self, key):
        return self.raw({"gain": 1.0})

    def init_state(self, batch_shape):
        return jnp.zeros((batch_shape, 1))

    def apply(self, params, inputs, state=None, lengths=None):
        state = self.init_state(inputs.shape[0]) if state is None else state
        heard = inputs.sum(1, keepdims=True)
        if lengths is not None:
            inputs = jnp.where(sample_mask(inputs.shape[1], lengths), inputs, 0)
        frames = self.num_frames(inputs.shape[1])
        means = inputs[:, : 4 * frames].reshape(inputs.shape[0], frames, 4).mean(2)
        means = means * self.physical(params)["gain"]
        features = (means + jnp.concatenate([state.astype(means.dtype), means[:, :-1]], 1)) / 2
        state = means[:, -1:]
        match self.broken:
            case "streaming":
                state = jnp.zeros_like(state)
            case "padding":
                features = features + heard
            case "batch":
                features = features + features.mean()
            case "callback":
                features = jax.pure_callback(lambda x: x, features, features)
            case "gradient":
                features = jax.lax.stop_gradient(features) * 1.0
            case "silence":
                features = jnp.sqrt(features**2)
            case "frames":
                features = features[:, 1:]
        if lengths is not None:
            features = jnp.where(frame_mask(frames, 4, lengths), features, 0)
        return features[..., None], state


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_nothing_is_found_where_nothing_is_wrong(check):
    check(Sound())


BROKEN = {
    "padding": (testing.check_padding, "beyond a clip's length"),
    "streaming": (testing.check_streaming, "Pieces give what the whole gives"),
    "batch": (testing.check_batch, "in a batch as alone"),
    "callback": (testing.check_purity, "must not call back"),
    "gradient": (testing.check_gradients, "gain must equal central differences"),
    "silence": (testing.check_hostile_sounds, "gradient of the audio of silence|gain for silence"),
    "frames": (testing.check_frames, "num_frames"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_found(broken):
    check, rule = BROKEN[broken]
    with pytest.raises(AssertionError, match=rule):
        check(Sound(broken=broken))


class Hollow(Sound):
    """Says too little of itself."""

    causal = False

    def specs(self):
        return {"gain": Parameter("1", 0.1, 9.0, "Gain.")}


class Loose(Sound):
    """Forgets its bounds."""

    def project(self, params):
        return params

    def physical(self, params):
        return {"gain": jnp.exp(params["gain"])}


@pytest.mark.parametrize(
    ("module", "check", "rule"),
    [
        (Hollow(), testing.check_streaming, "not_causal_because"),
        (Hollow(), testing.check_specs, "source"),
        (Loose(), testing.check_bounds, "must stay between"),
        (Sound(hop_samples=jnp.int32(4)), testing.check_protocol, "hash|no arrays"),
        (Sound(broken={1, 2}), testing.check_config, "Fields must be plain"),
    ],
)
def test_what_is_missing_is_found(module, check, rule):
    with pytest.raises((AssertionError, TypeError), match=rule):
        check(module)
