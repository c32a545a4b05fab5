"""Holds filter banks to what was published, stated plainly, and to the laws of filters."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from physics.filterbanks import Gammatone, Leaf, SincNet, gammatone
from physics.filterbanks.gabor import mel_gabors

RATE_HZ = 16000


def mel(hz):
    return 1127 * math.log(1 + hz / 700)


def published_gabors(n_filters=40, min_hz=60.0, max_hz=7800.0, n_fft=512):
    """Eta and sigma as google-research/leaf-audio begins with, filter by filter, bin by bin."""
    low, high = mel(min_hz), mel(max_hz)
    step = (high - low) / (n_filters + 1)
    etas, sigmas = [], []
    for i in range(n_filters):
        left, middle, right = (low + (i + k) * step for k in range(3))
        root = [0.0]  # that recipe leaves out 0 Hz
        for k in range(1, n_fft // 2 + 1):
            m = mel(k * RATE_HZ / n_fft)
            triangle = min((m - left) / (middle - left), (right - m) / (right - middle))
            root.append(math.sqrt(max(0.0, triangle)))
        peak = max(root)
        width = sum(r >= peak / 2 for r in root)
        etas.append(root.index(peak) * 2 * math.pi / n_fft)
        sigma = math.sqrt(2 * math.log(2)) * n_fft / (math.pi * width)
        least, most = (n * math.sqrt(2 * math.log(2)) / math.pi for n in (4, 401))
        sigmas.append(min(max(sigma, least), most))
    return np.array(etas), np.array(sigmas)


def published_leaf(audio, etas, sigmas, pooling=0.4, taps=401, stride=160):
    """Features of a clip of a multiple of the stride, with "same" padding, by loops."""
    half = taps // 2
    t = np.arange(taps) - half
    n_frames = audio.size // stride
    before = ((n_frames - 1) * stride + taps - audio.size) // 2
    window = np.exp(-0.5 * (t / (half * pooling)) ** 2)
    features = np.zeros((n_frames, etas.size))
    for c, (eta, sigma) in enumerate(zip(etas, sigmas, strict=True)):
        phi = np.exp(1j * eta * t - t**2 / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma)
        energy = np.abs(np.convolve(audio, phi, mode="same")) ** 2
        padded = np.concatenate([np.zeros(before), energy, np.zeros(taps)])
        for i in range(n_frames):
            features[i, c] = window @ padded[i * stride : i * stride + taps]
    return np.maximum(features, 1e-5)


@pytest.fixture
def clip():
    """A quarter of a second: noise that swells, and a tone."""
    n = np.arange(4000)
    noise = np.random.default_rng(0).standard_normal(4000)
    return 0.1 * noise * n / 4000 + 0.2 * np.sin(2 * np.pi * 440 / RATE_HZ * n)


def test_leaf_begins_as_published(x64):
    physical = Leaf().physical(Leaf().init())
    etas, sigmas = published_gabors()
    assert Leaf().taps == Leaf().window_samples == 401
    assert Leaf().hop_samples == 160
    np.testing.assert_allclose(
        physical["center_frequency_hz"] * 2 * np.pi / RATE_HZ, etas, rtol=1e-9
    )
    np.testing.assert_allclose(physical["envelope_std_s"] * RATE_HZ, sigmas, rtol=1e-9)
    np.testing.assert_allclose(physical["pooling_std"], 0.4, rtol=1e-9)


def test_leaf_is_bounded_as_published():
    specs = Leaf().specs()
    scale = math.sqrt(2 * math.log(2)) / math.pi
    for name, unit, low, high in (
        ("center_frequency_hz", RATE_HZ / (2 * math.pi), 0, math.pi),
        ("envelope_std_s", 1 / RATE_HZ, 4 * scale, 401 * scale),
        ("pooling_std", 1, 2 / 401, 0.5),
    ):
        assert specs[name].transform == "project"
        np.testing.assert_allclose([specs[name].low, specs[name].high], [low * unit, high * unit])


def test_leaf_gives_what_is_published(quick_jit, clip):
    model = Leaf(centred=True)
    expected = published_leaf(clip, *published_gabors())
    for double, tolerance in ((False, 2e-4), (True, 1e-9)):
        with jax.enable_x64(double):
            features, _ = quick_jit(model.apply)(model.init(), jnp.asarray(clip)[None])
        np.testing.assert_allclose(features[0], expected, atol=tolerance * expected.max())


def test_causal_frames_are_the_centred_ones_later(quick_jit, clip):
    """By `latency_samples`, away from the ends of the clip."""
    causal, centred = Leaf(), Leaf(centred=True)
    latency, hop = causal.latency_samples, causal.hop_samples
    assert latency == centred.lookahead_samples == 321
    assert not centred.causal
    assert "321 samples ahead" in centred.not_causal_because
    shift = -(-latency // hop)
    late = np.concatenate([np.zeros(shift * hop - latency), clip, np.zeros(latency)])
    params = causal.init()
    ahead, _ = quick_jit(centred.apply)(params, jnp.asarray(clip, jnp.float32)[None])
    behind, _ = quick_jit(causal.apply)(params, jnp.asarray(late, jnp.float32)[None])
    whole = ahead[:, 3:-3]
    np.testing.assert_allclose(
        behind[:, shift + 3 :][:, : whole.shape[1]], whole, atol=2e-4 * float(whole.max())
    )


@pytest.mark.parametrize("rate_hz", [8000, 22050, 48000])
def test_leaf_at_other_rates_has_the_same_filters(rate_hz):
    """Over the same range: to a bin in frequency, and to one of the bins counted in width."""
    center_hz, std_s = mel_gabors(20, rate_hz, 60, 3900)
    expected_hz, expected_s = mel_gabors(20, RATE_HZ, 60, 3900)
    np.testing.assert_allclose(center_hz, expected_hz, atol=31.25)
    bins = 512 * math.sqrt(2 * math.log(2)) / (math.pi * RATE_HZ * np.stack([std_s, expected_s]))
    assert np.abs(bins[0] - bins[1]).max() < 1.1


def test_mel_filters_between_bins_begin_as_narrow_as_can_be():
    center_hz, std_s = mel_gabors(120, RATE_HZ, 60, 7800)
    assert np.isfinite(std_s).all()
    assert (np.diff(center_hz) >= 0).all()
    spec = Leaf(n_channels=120).specs()["envelope_std_s"]
    physical = Leaf(n_channels=120).physical(Leaf(n_channels=120).init())
    assert float(physical["envelope_std_s"].max()) == pytest.approx(spec.high)


def test_sincs_are_as_published(x64):
    """Initial edges and filters of mravanelli/SincNet, whose formula divides by the time."""
    model = SincNet()
    edges = [30.0, RATE_HZ / 2 - 100]
    mels = np.linspace(*(2595 * np.log10(1 + np.array(edges) / 700)), 81)
    hz = 700 * (10 ** (mels / 2595) - 1)
    low = 50 + hz[:-1]
    high = np.minimum(low + 50 + np.diff(hz), RATE_HZ / 2)
    taps = 251
    side = 0.54 - 0.46 * np.cos(2 * np.pi * np.linspace(0, taps / 2 - 1, taps // 2) / taps)
    n = 2 * np.pi * np.arange(-(taps // 2), 0) / RATE_HZ
    left = (np.sin(high[:, None] * n) - np.sin(low[:, None] * n)) / (n / 2) * side
    width = (high - low)[:, None]
    expected = np.concatenate([left, 2 * width, left[:, ::-1]], axis=1) / (2 * width)
    physical = model.physical(model.init())
    np.testing.assert_allclose(model.edges_hz(physical), [low, high], rtol=1e-9)
    np.testing.assert_allclose(model.filters(physical), expected, atol=1e-9)


def test_gammatones_are_scipys(x64):
    model = Gammatone(n_channels=8, min_hz=200)
    physical = model.physical(model.init())
    ours = np.real(jax.jit(model.filters)(physical))
    for mine, f in zip(ours, np.asarray(physical["center_frequency_hz"]), strict=True):
        theirs, _ = scipy.signal.gammatone(f, "fir", order=4, numtaps=model.taps, fs=RATE_HZ)
        h, theirs = (x / np.linalg.norm(x) for x in (mine, theirs))
        np.testing.assert_allclose(h, theirs, atol=2e-3 * np.abs(theirs).max())


def response(model, size=2**16):
    """Magnitude at frequencies from 0 Hz to the sample rate, `[channels, size]`, and physical."""
    physical = model.physical(model.init())
    filters = jax.jit(model.filters)(physical)
    return np.abs(np.fft.fft(np.asarray(filters), size)), physical


BANKS = [
    Gammatone(sample_rate_hz=16000),
    Gammatone(sample_rate_hz=44100, min_hz=20, n_channels=20),
    Leaf(),
]


@pytest.mark.parametrize("model", BANKS, ids=["gammatone", "gammatone, 44 kHz", "leaf"])
def test_filters_peak_at_their_centre_frequencies(x64, model):
    magnitude, physical = response(model)
    step_hz = model.sample_rate_hz / magnitude.shape[1]
    at_hz = magnitude.argmax(axis=1) * step_hz
    np.testing.assert_allclose(at_hz, physical["center_frequency_hz"], atol=0.51 * step_hz)


@pytest.mark.parametrize("model", BANKS[:2], ids=["16 kHz", "44 kHz"])
def test_gammatones_have_the_bandwidth_that_is_set(x64, model):
    """To 2 %, and initially that of normal hearing."""
    magnitude, physical = response(model)
    power = magnitude**2
    erb_hz = power.sum(axis=1) / power.max(axis=1) * model.sample_rate_hz / power.shape[1]
    np.testing.assert_allclose(erb_hz, physical["erb_hz"], rtol=0.02)
    center_hz = np.asarray(physical["center_frequency_hz"])
    np.testing.assert_allclose(physical["erb_hz"], 24.7 * (4.37 * center_hz / 1000 + 1), rtol=1e-6)
    steps = np.diff(gammatone.hz_to_erb_rate(center_hz))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    assert center_hz[0] == pytest.approx(model.min_hz)


def test_gammatones_keep_their_bandwidth_at_its_bounds(x64):
    model = Gammatone(n_channels=2)
    low, high = model.specs()["erb_hz"].low * 1.001, 1500.0
    erb = jnp.array([low, high])
    h = np.asarray(
        model.filters({"center_frequency_hz": jnp.array([500.0, 4000.0]), "erb_hz": erb})
    )
    power = np.abs(np.fft.fft(h, 2**16)) ** 2
    np.testing.assert_allclose(
        power.sum(axis=1) / power.max(axis=1) * RATE_HZ / 2**16, erb, rtol=0.02
    )


def test_gabors_are_as_wide_as_their_duration_says(x64):
    """Full width at half maximum of magnitude is 0.375 / standard deviation, if not cut short."""
    magnitude, physical = response(Leaf())
    std_s = np.asarray(physical["envelope_std_s"])
    whole = std_s * RATE_HZ < 60
    assert whole.sum() > 10
    peak = magnitude.max(axis=1, keepdims=True)
    width_hz = (magnitude > peak / 2).sum(axis=1) * RATE_HZ / magnitude.shape[1]
    wide = 2 * math.sqrt(2 * math.log(2)) / (2 * math.pi) / std_s
    np.testing.assert_allclose(width_hz[whole], wide[whole], rtol=0.01)


def test_sincs_pass_what_lies_between_their_edges(x64):
    model = SincNet(n_channels=8)
    magnitude, physical = response(model)
    low, high = (np.asarray(edge) for edge in model.edges_hz(physical))
    at = lambda hz: np.rint(hz * magnitude.shape[1] / RATE_HZ).astype(int)  # noqa: E731
    for c in range(2, 7):  # bands much wider than the 64 Hz that filters of 1 / 64 s tell apart
        middle = magnitude[c, at(0.5 * (low[c] + high[c]))]
        np.testing.assert_allclose(middle, RATE_HZ / (2 * (high[c] - low[c])), rtol=0.02)
        edges = magnitude[c, [at(low[c]), at(high[c])]]
        np.testing.assert_allclose(edges, middle / 2, rtol=0.05)
        assert magnitude[c, at(low[c] - 200)] < 0.01 * middle


@pytest.mark.parametrize(
    ("detector", "expected"), [("modulus", 0.2), ("square", 0.04), ("halfwave", 0.2 / np.pi)]
)
def test_a_tone_at_the_centre_has_gain_one(quick_jit, detector, expected):
    model = Gammatone(n_channels=3, min_hz=500, max_hz=2000, detector=detector)
    hz = float(model.channel_frequencies_hz(model.init())[1])
    audio = 0.2 * jnp.sin(2 * np.pi * hz / RATE_HZ * jnp.arange(3200.0))[None]
    features, _ = quick_jit(model.apply)(model.init(), audio)
    assert float(features[0, -1, 1]) == pytest.approx(expected, rel=0.01)
    assert features[0, -1].argmax() == 1
