"""Holds the model to its promises about cuts, padding, batches, frames, levels and bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import PhysicsModule
from physics.carfac import Carfac
from physics.carfac.framing import compress, window_segments

MODEL = Carfac(sample_rate_hz=8000, agc_decimations=(8, 3), kernel="xla")
FRAMED = dataclasses.replace(
    MODEL, kernel="auto", hop_s=0.0125, window_s=0.0375, compression="root"
)


def noise(*shape, seed=0):
    return jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture(scope="module")
def run():
    """`run` of MODEL, compiled once for each shape and kind of state."""
    options = {"xla_backend_optimization_level": 0}
    params = MODEL.init()
    compiled = jax.jit(
        lambda audio, state: MODEL.run(params, audio, state, ("nap", "agc")),
        compiler_options=options,
    )
    return lambda audio, state=None: compiled(audio, state)


def test_a_batch_is_its_clips(run):
    audio = noise(2, 95)
    together, _ = run(audio)
    alone, _ = run(audio[1:])
    np.testing.assert_allclose(together.nap[1], alone.nap[0], atol=1e-6)


def test_what_lies_beyond_a_clip_changes_nothing(quick_jit):
    params = FRAMED.init()

    @quick_jit
    def loss(audio, lengths):
        def of(params, audio):
            features, state = FRAMED.apply(params, audio, lengths=lengths)
            return jnp.sum(features**2), (features, state)

        return jax.value_and_grad(of, (0, 1), has_aux=True)(params, audio)

    audio, lengths = noise(2, 600), jnp.array([600, 370], jnp.int32)
    spoiled = audio.at[1, 370:].set(jnp.nan)
    (value, (features, state)), gradients = loss(audio, lengths)
    (value2, (features2, state2)), gradients2 = loss(spoiled, lengths)
    assert value == value2
    same = jax.tree.map(
        np.array_equal, (features, state, gradients), (features2, state2, gradients2)
    )
    assert jax.tree.all(same)
    assert (features[1, 3:] == 0).all()
    assert (features[1, :3] != 0).any()
    assert (gradients[1][1, 370:] == 0).all()


def test_frames_and_pieces_are_whole_hops(quick_jit):
    params, audio, apply = FRAMED.init(), noise(1, 600), quick_jit(FRAMED.apply)
    whole, end = apply(params, audio)
    assert whole.shape == (1, FRAMED.num_frames(600), FRAMED.structure.n_channels)
    assert FRAMED.hop_samples == 100
    assert FRAMED.window_samples == 300
    assert jax.tree.structure(end) == jax.tree.structure(FRAMED.init_state(1))
    with pytest.raises(ValueError, match=r"multiples of hop_samples.*250"):
        FRAMED.apply(params, audio[:, :250], end)


def test_frames_are_causal_means_of_the_activity(run, quick_jit):
    model = dataclasses.replace(FRAMED, compression="none", kernel="xla")
    audio = noise(1, 600)
    frames, _ = quick_jit(model.apply)(model.init(), audio)
    nap = np.concatenate([np.zeros((1, 200, 1, MODEL.structure.n_channels)), run(audio)[0].nap], 1)
    window = window_segments("hann", 300, 100).ravel()
    for i in range(6):
        expected = np.einsum("t,tc->c", window, nap[0, i * 100 : i * 100 + 300, 0])
        np.testing.assert_allclose(frames[0, i], expected, atol=1e-5)
    assert window.sum() == pytest.approx(1)
    np.testing.assert_allclose(window_segments("boxcar", 300, 100), 1 / 300)


@pytest.mark.parametrize("kind", ["none", "root", "log"])
def test_compression_is_odd_and_smooth_at_zero(kind):
    x = jnp.array([-1.0, -1e-3, -1e-12, 0.0, 1e-12, 1e-3, 1.0])
    y = compress(x, kind)
    np.testing.assert_allclose(y, -y[::-1], atol=0)
    slope = jax.vmap(jax.grad(lambda v: compress(v, kind)))(x)
    assert jnp.isfinite(slope).all()
    assert (slope > 0).all()
    np.testing.assert_allclose(slope[2:4], slope[4:2:-1], rtol=1e-5)


def test_level_is_a_matter_of_definition(run, quick_jit):
    audio = noise(1, 95)
    louder = dataclasses.replace(MODEL, full_scale_db_spl=120)
    outputs, _ = quick_jit(louder.run)(louder.init(), audio)
    np.testing.assert_allclose(outputs.nap, run(audio * 10)[0].nap, atol=1e-3)


def test_settled_starts_where_silence_ends(quick_jit):
    model = dataclasses.replace(MODEL, initial={"car.ohc_health": 0.4}, settled=True)
    fresh = model.init_state(1)
    _, later = quick_jit(model.run)(model.init(), jnp.zeros((1, 64)))
    np.testing.assert_allclose(later.gain, fresh.gain, atol=1e-6)
    np.testing.assert_allclose(later.undamping, fresh.undamping, atol=1e-6)
    healthy = dataclasses.replace(model, settled=False).init_state(1)
    assert not np.allclose(healthy.gain, fresh.gain, atol=1e-3)


def test_is_a_recipe_not_a_container():
    assert isinstance(MODEL, PhysicsModule)
    nested = Carfac(initial={"car": {"ohc_health": 0.5}, "agc.stage_gain": 2})
    flat = Carfac(initial={"agc.stage_gain": 2.0, "car.ohc_health": 0.5})
    assert nested == flat
    assert hash(nested) == hash(flat)
    assert dataclasses.replace(flat, sample_rate_hz=8000).initial == flat.initial
    assert MODEL.init(None)["car"]["ohc_health"].dtype == jnp.float32


def test_shapes_and_what_is_not_asked_for():
    two = dataclasses.replace(MODEL, n_ears=2)
    shape = jax.eval_shape(two.apply, two.init(), jnp.zeros((3, 50, 2)))[0].shape
    assert shape == (3, 50, 2, two.structure.n_channels)
    out = jax.eval_shape(
        lambda p, a: two.run(p, a, outputs=("bm",))[0], two.init(), jnp.zeros((3, 50, 2))
    )
    assert out.nap is None
    assert out.bm.shape == shape


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ihc": "three_cap"}, r"ihc must be one of .*two_cap.*got 'three_cap'"),
        ({"sample_rate_hz": 4000}, r"between 8000 and 96000.*got 4000"),
        ({"n_ears": 0}, r"n_ears must be at least 1; got 0"),
        ({"compression": "cube"}, r"compression must be one of .*got 'cube'"),
        ({"kernel": "cuda"}, r"kernel must be one of .*got 'cuda'"),
        ({"hop_s": 0.0}, r"hop_s must be positive"),
        ({"agc_decimations": (8, 0)}, r"agc_decimations must be whole numbers from 1 up"),
        (
            {"initial": {"car.ohc_helth": 0.5}},
            r"'car.ohc_helth' is none. Nearest: \['car.ohc_health'",
        ),
        ({"initial": {"car.ohc_health": 1.5}}, r"car.ohc_health must lie in \[0, 1\] 1; got 1.5"),
        ({"initial": {"car.ohc_health": [0.5, 1.0, 0.2]}}, r"car.ohc_health may have the shapes"),
        ({"initial": {"agc.agc1_scales": 90.0}}, r"at most 16 passes of 5 taps"),
        ({"min_pole_hz": 1e5}, r"at least 2 channels"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Carfac(**fields)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((80,), r"must be \[batch, time\] or \[batch, time, ears\]; got shape \(80,\)"),
        ((1, 0), r"at least one sample; got shape \(1, 0\)"),
        ((1, 80, 2), r"n_ears=1, the audio of shape \(1, 80, 2\) has 2. Set n_ears=2"),
    ],
)
def test_bad_audio(shape, message):
    with pytest.raises(ValueError, match=message):
        MODEL.apply(MODEL.init(), jnp.zeros(shape))


def test_bad_outputs():
    with pytest.raises(ValueError, match=r"outputs must be one of .*got 'naps'"):
        MODEL.run(MODEL.init(), jnp.zeros((1, 8)), outputs=("naps",))
    with pytest.raises(ValueError, match="firings are those of the synapse"):
        MODEL.run(MODEL.init(), jnp.zeros((1, 8)), outputs=("firings",))
