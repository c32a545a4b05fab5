"""Holds stabilized images to google/carfac's, to cuts, padding and batches, and to calculus."""

import dataclasses
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import Parameter, Physics, PhysicsModule
from physics.carfac import Carfac
from physics.sai import Layout, Sai, sai_frames

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
LAYOUT = Layout(hop_samples=20, past_lags=10, future_lags=14, window_samples=48)
EAR = {"sample_rate_hz": 8000, "agc_decimations": (8, 3)}
SAI = Sai(cochlea=EAR, hop_s=0.01, past_lag_s=0.004, future_lag_s=0.006, trigger_window_s=0.0125)


@dataclasses.dataclass(frozen=True)
class Rectifier(Physics):
    """A cochlea of three channels, one per rectified power of the sound."""

    sample_rate_hz: float | int = 1000.0

    def specs(self):
        return {"gain": Parameter("1", 0.1, 10.0, "Gain.", transform="log_logit")}

    def init(self, key):
        return self.raw({"gain": 1.0})

    def apply(self, params, inputs, state=None, lengths=None):
        heard = jax.nn.relu(self.physical(params)["gain"] * inputs)
        return jnp.stack([heard, heard**2, heard**3], axis=-1), state


def noise(*shape, seed=0):
    return jnp.asarray(0.1 * np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("name", ["pulses", "speech", "noise"])
def test_equals_google(x64, quick_jit, name):
    """Outputs of google/carfac (its NumPy `sai.py`) at commit 3a69467, on the same activity.

    Pulses that begin at another phase in each channel; the activity that its cochlea gave to
    speech; noise that falls below zero for a while, so that no trigger is found, with an odd window
    and frames that share most of what they look at.
    """
    case = np.load(GOLDEN / f"sai_{name}.npz")
    layout = Layout(
        hop_samples=int(case["input_segment_width"]),
        past_lags=int(case["sai_width"]) - 1 - int(case["future_lags"]),
        future_lags=int(case["future_lags"]),
        window_samples=int(case["trigger_window_width"]),
        triggers_per_frame=int(case["num_triggers_per_frame"]),
    )
    nap = jnp.asarray(case["nap"].T, jnp.float64)[None, :, None]
    images, _ = quick_jit(lambda nap: sai_frames(nap, layout))(nap)
    assert images.dtype == jnp.float64
    assert np.abs(images[0, :, 0] - case["frames"]).max() < 1e-9 * np.abs(case["frames"]).max()


def test_a_periodic_sound_stands_still(frames):
    """Pulses stay at multiples of their period from the trigger, at any phase and in any frame."""
    period = 7
    phases = np.arange(5)
    nap = (np.arange(400)[:, None] % period == phases).astype(np.float32)
    images, _ = frames(jnp.asarray(nap)[None, :, None])
    lags = np.arange(LAYOUT.n_lags) - LAYOUT.past_lags
    for image in images[0, 6:, 0].reshape(-1, LAYOUT.n_lags):
        assert (image[lags % period == 0] > 0.9).all()
        assert (image[lags % period != 0] < 0.1).all()


def test_fades_when_nothing_is_heard(frames):
    nap = jnp.concatenate([jnp.ones((1, 200, 1, 5)), jnp.zeros((1, 200, 1, 5))], axis=1)
    images, _ = frames(nap)
    # A blank stretch replaces the share (0.025 + 1) / (0.5 + 1), twice a frame.
    np.testing.assert_allclose(images[0, 17] / images[0, 16], (1 - 1.025 / 1.5) ** 2, rtol=1e-3)


@pytest.fixture(scope="module")
def frames():
    """`sai_frames` in LAYOUT, compiled once a shape."""
    options = {"xla_backend_optimization_level": 0}
    return jax.jit(
        lambda nap, memory=None: sai_frames(nap, LAYOUT, memory), compiler_options=options
    )


def test_any_cut_at_a_frame_gives_the_same(frames):
    nap = noise(2, 180, 2, 3)
    whole, end = frames(nap)
    memory, pieces = None, []
    for start, stop in itertools.pairwise((0, 40, 120, 120, 160, 180)):
        piece, memory = frames(nap[:, start:stop], memory)
        pieces.append(piece)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)
    assert jax.tree.all(jax.tree.map(np.array_equal, memory, end))


def test_a_batch_is_its_clips(frames):
    nap = noise(2, 180, 2, 3)
    np.testing.assert_array_equal(frames(nap)[0][1:], frames(nap[1:])[0])


def test_frames_hear_nothing_that_comes_later(frames):
    nap = noise(2, 180, 2, 3)
    images, others = frames(nap)[0], frames(nap.at[:, 100:].set(7.0))[0]
    np.testing.assert_array_equal(images[:, :5], others[:, :5])
    assert (images[:, 5] != others[:, 5]).any()


def test_reduce_keeps_what_it_gives(frames, quick_jit):
    nap = noise(2, 180, 2, 3)
    sums = quick_jit(lambda nap: sai_frames(nap, LAYOUT, reduce=lambda x: x.sum(axis=2))[0])(nap)
    np.testing.assert_allclose(sums, frames(nap)[0].sum(axis=3), atol=1e-6)


def test_gradients_are_values_not_choices(x64, quick_jit):
    """By the activity itself, against central differences, in every direction tried."""
    rng = np.random.default_rng(1)
    nap = jnp.asarray(rng.standard_normal((2, 200, 1, 3)))
    weights = jnp.asarray(rng.standard_normal((2, 10, 1, 3, LAYOUT.n_lags)))
    value_and_grad = quick_jit(
        jax.value_and_grad(lambda nap: jnp.sum(weights * sai_frames(nap, LAYOUT)[0] ** 2))
    )
    gradient = value_and_grad(nap)[1]
    for _ in range(8):
        direction = jnp.asarray(rng.standard_normal(nap.shape))
        ends = [value_and_grad(nap + step * direction)[0] for step in (1e-6, -1e-6)]
        slope, expected = (ends[0] - ends[1]) / 2e-6, jnp.sum(gradient * direction)
        assert abs(slope - expected) < 1e-6 * jnp.linalg.norm(gradient)


@pytest.fixture(scope="module")
def value_and_grad():
    """Of a sum over the image, by the params and by the audio; compiled once a dtype."""

    def of(params, audio):
        features, _ = SAI.apply(params, audio)
        weights = np.random.default_rng(2).standard_normal(features.shape)
        weights = jnp.asarray(weights, features.dtype)
        return jnp.mean(weights * features) + jnp.mean(features**2)

    options = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.value_and_grad(of, (0, 1)), compiler_options=options)


@pytest.mark.parametrize("sound", ["silence", "speech", "click"])
def test_gradients_are_finite(sounds, value_and_grad, sound):
    params, audio = SAI.init(), jnp.asarray(sounds(480)[sound], jnp.float32)[None]
    value, (by_params, by_audio) = value_and_grad(params, audio)
    assert jnp.isfinite(value)
    assert jnp.isfinite(by_audio).all()
    assert jax.tree.structure(by_params) == jax.tree.structure(SAI.specs())
    for path, leaf in jax.tree.leaves_with_path(by_params):
        assert jnp.isfinite(leaf).all(), path
        assert jnp.any(leaf != 0) or sound == "silence", path


def test_gradients_reach_the_cochlea(sounds, value_and_grad, x64):
    """Central differences in float64 of some physical parameters; steps that move no trigger."""
    params, audio = SAI.init(), jnp.asarray(sounds(480)["speech"])[None]
    _, (by_params, _) = value_and_grad(params, audio)
    for group, name in (
        ("car", "first_pole_theta"),
        ("car", "min_zeta"),
        ("ihc", "tau1_out_s"),
        ("agc", "stage_gain"),
    ):
        ends = []
        for step in (1e-6, -1e-6):
            moved = {**params, group: {**params[group], name: params[group][name] + step}}
            ends.append(value_and_grad(moved, audio)[0])
        expected = jnp.sum(by_params[group][name])
        assert abs((ends[0] - ends[1]) / 2e-6 - expected) < 1e-5 * abs(expected), name


def test_streams_from_audio(quick_jit):
    params, audio, run = SAI.init(), noise(2, 480), quick_jit(SAI.run)
    whole, end = run(params, audio)
    assert whole.shape == (2, SAI.num_frames(480), 1, 53, SAI.layout.n_lags)
    first, state = run(params, audio[:, :240], SAI.init_state(2))
    second, state = run(params, audio[:, 240:], state)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, atol=2e-4)
    assert jax.tree.structure(SAI.init_state(2)) == jax.tree.structure(end)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, 1e-3, 1e-4), state, end))


def test_what_lies_beyond_a_clip_changes_nothing(quick_jit):
    params = SAI.init()

    @quick_jit
    def loss(audio, lengths):
        def of(params, audio):
            features, state = SAI.apply(params, audio, lengths=lengths)
            return jnp.sum(features**2), (features, state)

        return jax.value_and_grad(of, (0, 1), has_aux=True)(params, audio)

    audio, lengths = noise(2, 480), jnp.array([480, 290], jnp.int32)
    clean = loss(audio, lengths)
    spoiled = loss(audio.at[1, 290:].set(jnp.nan), lengths)
    assert jax.tree.all(jax.tree.map(np.array_equal, clean, spoiled))
    features = clean[0][1][0]
    assert (features[1, 3:] == 0).all()
    assert (features[1, 2] != 0).any()


def test_two_ears():
    two = dataclasses.replace(SAI, cochlea=EAR | {"n_ears": 2})
    shapes = jax.eval_shape(two.apply, two.init(), jnp.zeros((3, 240, 2)))[0].shape
    assert shapes == (3, 3, 2, 53 * SAI.layout.n_lags)
    assert two.init_state((3,)).memory.image.shape == (3, 2, 53, SAI.layout.n_lags)


def test_a_cochlea_of_ones_own():
    """Anything at full rate will do, and cells are means of the image."""
    model = Sai(cochlea=Rectifier(), hop_s=0.02, channels_per_cell=2, lags_per_cell=4)
    assert isinstance(model, PhysicsModule)
    assert model.sample_rate_hz == 1000
    params, audio = model.init(), noise(2, 110)
    features, _ = model.apply(params, audio)
    image = model.run(params, audio)[0][:, :, 0]
    assert image.shape == (2, 5, 3, 25)
    assert features.shape == (2, 5, 2 * 7)
    np.testing.assert_allclose(features[..., 0], image[:, :, :2, :4].mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(features[..., -1], image[:, :, 2, 24], atol=1e-6)
    np.testing.assert_allclose(model.lags_s()[[0, 12, 24]], [-0.012, 0, 0.012], atol=1e-9)
    assert model.channel_frequencies_hz(params) is None
    assert model.apply(params, audio[:, :19])[0].shape == (2, 0, 14)


def test_is_a_recipe_of_json():
    target = {"target": "physics.carfac:Carfac", "ihc": "one_cap"}
    model = Sai(sample_rate_hz=16000, cochlea=target)
    assert model == Sai(cochlea=Carfac(sample_rate_hz=16000, ihc="one_cap"))
    assert hash(model) == hash(Sai(cochlea=Carfac(sample_rate_hz=16000, ihc="one_cap")))
    assert model.hop_samples == 320
    assert dataclasses.replace(model, hop_s=0.01).hop_samples == 160
    np.testing.assert_array_equal(
        model.channel_frequencies_hz(model.init()),
        model.cochlea.channel_frequencies_hz(model.init()),
    )


def test_under_shard_map(frames):
    mesh = jax.make_mesh((1,), ("clips",), axis_types=(jax.sharding.AxisType.Auto,))
    clips = jax.sharding.PartitionSpec("clips")
    mapped = jax.shard_map(
        lambda nap: sai_frames(nap, LAYOUT)[0], mesh=mesh, in_specs=clips, out_specs=clips
    )
    nap = noise(2, 180, 2, 3)
    np.testing.assert_allclose(jax.jit(mapped)(nap), frames(nap)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cochlea": {"hop_s": 0.01}}, r"full rate; got one with hop_samples=220. Leave out"),
        ({"cochlea": {"target": "physics.carfac:Ear"}}, r"'physics.carfac:Ear' with .* failed"),
        ({"cochlea": {"icc": "one_cap"}}, r"failed: .*icc"),
        ({"cochlea": 3}, r"must be a PhysicsModule, or the settings of one .*got 3"),
        ({"cochlea": Carfac(), "sample_rate_hz": 8000}, r"sample_rate_hz=8000 and 22050 inside"),
        ({"hop_s": 0.2}, r"got hop_samples=4410 with 1876 samples looked at. Shorten the hop"),
        ({"hop_s": 0.0}, r"hop_samples of an image must be at least 1; got 0"),
        ({"future_lag_s": -1}, r"future_lags of an image must be at least 0; got -22050"),
        ({"triggers_per_frame": 0}, r"triggers_per_frame of an image must be at least 1; got 0"),
        ({"lags_per_cell": 0}, r"lags_per_cell must be at least 1.*got 0"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        Sai(**fields)


def test_bad_audio():
    with pytest.raises(ValueError, match=r"multiples of hop_samples.*250"):
        SAI.apply(SAI.init(), jnp.zeros((1, 250)), SAI.init_state(1))
    with pytest.raises(ValueError, match=r"must be \[batch, time\]"):
        SAI.apply(SAI.init(), jnp.zeros(250))


def test_streams_only_what_its_cochlea_streams():
    blind = Sai(
        cochlea={
            "target": "physics.filterbanks:Leaf",
            "sample_rate_hz": 8000,
            "hop_s": 1 / 8000,
            "centred": True,
        }
    )
    assert not blind.causal
    assert blind.not_causal_because
    assert Sai(cochlea={"sample_rate_hz": 8000}).causal
