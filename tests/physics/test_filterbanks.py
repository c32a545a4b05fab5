"""Holds banks of learned filters to the contract, to direct convolution, to what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physics import testing
from physics.filterbanks import Gammatone, Leaf, SincNet, pooling

SMALL = {"sample_rate_hz": 8000, "n_channels": 3, "hop_s": 0.004, "window_s": 0.01}

FRONT_ENDS = {
    "gammatone": Gammatone(**SMALL, min_hz=400, n_ears=2, detector="halfwave"),
    # The last band would end at half the sample rate, where a kink has no derivative; nor has the
    # modulus where an output is 0, which with this range happens at no sample.
    "sinc": SincNet(**SMALL, max_hz=3700),
    "leaf": Leaf(**SMALL),
}
CENTRED = Leaf(**SMALL, centred=True, n_ears=2)


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_contract(check, name):
    check(FRONT_ENDS[name])


@pytest.mark.parametrize(
    "check",
    [
        testing.check_config,
        testing.check_frames,
        testing.check_padding,
        testing.check_streaming,
        testing.check_gradients,
    ],
    ids=lambda check: check.__name__,
)
def test_contract_of_centred_frames(check):
    """What differs from causal ones."""
    check(CENTRED)


def direct(audio, filters, windows, hop, detector):
    """Frames by loops, as the docstring of `pooled` says."""
    taps, window = filters.shape[1], windows.shape[1]
    n_frames = (audio.size - taps + 1 - window) // hop + 1
    frames = np.zeros((n_frames, len(filters)))
    for c, h in enumerate(filters):
        y = np.convolve(audio, h)[taps - 1 :]
        level = {
            "square": np.abs(y) ** 2,
            "modulus": np.abs(y),
            "halfwave": np.maximum(np.real(y), 0),
        }[detector]
        for i in range(n_frames):
            frames[i, c] = windows[c] @ level[i * hop : i * hop + window]
    return frames


@pytest.mark.parametrize(
    ("time", "taps", "hop", "segments", "detector"),
    [
        (300, 33, 8, 3, "square"),
        (700, 600, 10, 2, "modulus"),  # a filter longer than the blocks that are kept of it
        (5000, 101, 25, 1, "halfwave"),  # many blocks, not all full
        (64, 1, 8, 2, "modulus"),
    ],
)
@pytest.mark.parametrize("analytic", [True, False], ids=["analytic", "real"])
def test_pooling_equals_convolution(x64, quick_jit, time, taps, hop, segments, detector, analytic):
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((2, time))
    filters = rng.standard_normal((2, taps)) + (1j * rng.standard_normal((2, taps)) * analytic)
    filters = filters if analytic else filters.real
    windows = rng.random((2, segments * hop))
    got = quick_jit(lambda *a: pooling.pooled(*a, hop, detector))(audio, filters, windows)
    for clip, frames in zip(audio, got, strict=True):
        expected = direct(clip, filters, windows, hop, detector)
        np.testing.assert_allclose(frames, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_no_output_at_full_rate_is_stored():
    """Outputs of 40 complex filters for 16 s of audio would take 82 MB."""
    model = Leaf()
    audio = jax.ShapeDtypeStruct((16, 16000), jnp.float32)

    def loss(params, audio):
        return jnp.sum(model.apply(params, audio)[0])

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(model.init(), audio).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 40e6


def test_vmap_over_parameters_and_clips(quick_jit, key):
    model = FRONT_ENDS["leaf"]
    audio = 0.1 * jax.random.normal(key, (2, 160))
    many = jax.tree.map(lambda a: jnp.stack([a, 0.9 * a]), model.init(key))

    def run(params, clip):
        return model.apply(params, clip[None])[0][0]

    both = quick_jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(many, audio)
    for i in range(2):
        one, _ = model.apply(jax.tree.map(lambda a, i=i: a[i], many), audio)
        np.testing.assert_allclose(both[i], one, atol=2e-4 * float(jnp.max(one)))


def test_ears_share_filters_and_hear_for_themselves(key):
    model = FRONT_ENDS["gammatone"]
    audio = 0.1 * jax.random.normal(key, (2, 160, 2))
    both, state = model.apply(model.init(), audio)
    assert both.shape == (2, 5, 2, 3)
    assert state.shape[:2] == (2, 2)
    for ear in range(2):
        alone, _ = dataclasses.replace(model, n_ears=1).apply(model.init(), audio[:, :, ear])
        np.testing.assert_allclose(both[:, :, ear], alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "learned", "tone_hz", "rate"),
    [
        (Gammatone(n_channels=1, min_hz=900), "center_frequency_hz", 1000, 0.03),
        (
            Leaf(n_channels=1, min_hz=700, max_hz=1100, window_s=0.02, floor=0),
            "center_frequency_hz",
            1000,
            0.003,
        ),
        (SincNet(n_channels=1, max_hz=150), "low_hz", 300, 0.2),
    ],
    ids=["gammatone", "leaf", "sinc"],
)
def test_a_filter_finds_a_tone_by_gradient_descent(model, learned, tone_hz, rate):
    """Within 30 steps, to 1 %, from a tenth away or more."""
    audio = 0.1 * jnp.sin(2 * np.pi * tone_hz / 16000 * jnp.arange(1600.0))[None]
    params = model.init()
    start_hz = float(model.channel_frequencies_hz(params)[0])
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, 30), b1=0.5)
    others = {name: leaf for name, leaf in params.items() if name != learned}

    def loss(leaf):
        features, _ = model.apply(others | {learned: leaf}, audio)
        return -jnp.log(jnp.mean(features[:, 4:]))

    @jax.jit
    def step(leaf, opt_state):
        gradient = jax.grad(loss)(leaf)
        with jax.numpy_dtype_promotion("standard"):  # optax's own counting needs it
            updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(leaf, updates), opt_state

    leaf, opt_state = params[learned], optimizer.init(params[learned])
    for _ in range(30):
        leaf, opt_state = step(leaf, opt_state)
    found_hz = float(model.channel_frequencies_hz(others | {learned: leaf})[0])
    assert abs(start_hz - tone_hz) > 0.09 * tone_hz
    assert abs(found_hz - tone_hz) < 0.01 * tone_hz


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Leaf(window_s=0.005), "window must be at least its hop"),
        (lambda: Leaf(max_hz=9000), "max_hz <= half the sample rate"),
        (lambda: Leaf(detector="cubic"), "detector must be one of"),
        (lambda: Gammatone(n_channels=0), "n_channels must be positive"),
        (lambda: Gammatone(max_hz=8000), "max_hz < half the sample rate"),
        (lambda: SincNet(min_low_hz=0), "min_low_hz > 0"),
        (lambda: SincNet(sample_rate_hz=200), "Raise the sample rate"),
    ],
)
def test_what_has_no_meaning_is_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()


def test_audio_and_states_that_do_not_fit_are_refused():
    model, centred = FRONT_ENDS["leaf"], dataclasses.replace(CENTRED, n_ears=1)
    params, clip = model.init(), jnp.zeros((1, 64))
    _, state = model.apply(params, clip)
    with pytest.raises(ValueError, match="multiples of hop_samples"):
        model.apply(params, clip[:, :40], state)
    with pytest.raises(ValueError, match="cannot be streamed"):
        centred.apply(params, clip, state)
    with pytest.raises(ValueError, match="one signal for each ear"):
        model.apply(params, jnp.zeros((1, 64, 2)))
