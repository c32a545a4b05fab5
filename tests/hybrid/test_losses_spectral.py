"""Spectral losses are those of the auraloss package, to rounding."""

import inspect
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from auraloss.freq import MultiResolutionSTFTLoss, STFTLoss

from data.torchaudio_compat import load_torchaudio
from hybrid.losses import MultiResolutionStft, Stft, clips

RATE_HZ = 16000

# Name: their loss, and ours.
CASES = {
    "default": ({}, {}),
    "weights, window, L2": (
        {
            "fft_sizes": [512, 300],
            "hop_sizes": [100, 64],
            "win_lengths": [401, 300],
            "window": "hamming_window",
            "w_sc": 0.5,
            "w_log_mag": 2.0,
            "w_lin_mag": 0.3,
            "mag_distance": "L2",
            "eps": 1e-5,
        },
        {
            "n_fft": [512, 300],
            "hop_samples": [100, 64],
            "window_samples": [401, 300],
            "window": "hamming",
            "convergence_weight": 0.5,
            "log_weight": 2.0,
            "linear_weight": 0.3,
            "distance": "l2",
            "eps": 1e-5,
        },
    ),
    "mel": (
        {
            "fft_sizes": [512, 1024],
            "hop_sizes": [128, 256],
            "win_lengths": [512, 800],
            "scale": "mel",
            "n_bins": 32,
            "sample_rate": RATE_HZ,
            "w_lin_mag": 1.0,
        },
        {
            "n_fft": (512, 1024),
            "hop_samples": (128, 256),
            "window_samples": (512, 800),
            "n_mels": 32,
            "sample_rate_hz": RATE_HZ,
            "linear_weight": 1.0,
        },
    ),
}


@pytest.fixture(autouse=True)
def librosa(monkeypatch):
    """Gives auraloss the one function of librosa that it calls, by torchaudio."""

    def mel(sr, n_fft, n_mels):
        bands = load_torchaudio().functional.melscale_fbanks(
            n_fft // 2 + 1, 0.0, sr / 2, n_mels, sr, norm="slaney", mel_scale="slaney"
        )
        return bands.T.numpy()

    package, filters = types.ModuleType("librosa"), types.ModuleType("librosa.filters")
    filters.mel = mel
    package.filters = filters
    monkeypatch.setitem(sys.modules, "librosa", package)
    monkeypatch.setitem(sys.modules, "librosa.filters", filters)


@pytest.fixture
def sounds():
    rng = np.random.default_rng(0)
    target = 0.1 * rng.standard_normal((3, 2500)) * np.hanning(2500)
    estimate = 0.8 * target + 0.02 * rng.standard_normal((3, 2500))
    # A pause, in which powers lie below eps.
    target[1, 500:1800] = estimate[1, 600:1700] = 0
    return estimate, target


def theirs(settings, estimate, target, dtype, loss=MultiResolutionSTFTLoss):
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        loss = loss(**settings).to(dtype)
        estimate, target = (
            torch.tensor(x, dtype=dtype, requires_grad=True) for x in (estimate, target)
        )
        value = loss(estimate[:, None], target[:, None])
        value.backward()
    finally:
        torch.set_default_dtype(default)
    return float(value.detach()), estimate.grad.numpy(), target.grad.numpy()


def ours(quickly, loss, estimate, target, dtype):
    both = quickly(jax.value_and_grad(loss, argnums=(0, 1)))
    value, gradients = both(jnp.asarray(estimate, dtype), jnp.asarray(target, dtype))
    assert value.dtype == dtype
    return float(value), *map(np.asarray, gradients)


def distance(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("case", CASES)
def test_parity_in_float64(case, sounds, x64, quickly):
    expected = theirs(CASES[case][0], *sounds, torch.float64)
    got = ours(quickly, MultiResolutionStft(**CASES[case][1]), *sounds, jnp.float64)
    assert got[0] == pytest.approx(expected[0], abs=1e-9)
    assert distance(got[1], expected[1]) < 1e-6
    assert distance(got[2], expected[2]) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_parity_in_float32(case, sounds, quickly):
    expected = theirs(CASES[case][0], *sounds, torch.float32)
    got = ours(quickly, MultiResolutionStft(**CASES[case][1]), *sounds, jnp.float32)
    assert got[0] == pytest.approx(expected[0], abs=1e-5)
    assert distance(got[1], expected[1]) < 1e-3
    assert distance(got[2], expected[2]) < 1e-3


def test_one_resolution_has_their_defaults(sounds, quickly):
    expected = theirs({}, *sounds, torch.float32, STFTLoss)
    got = ours(quickly, Stft(), *sounds, jnp.float32)
    assert got[0] == pytest.approx(expected[0], abs=1e-5)
    assert distance(got[1], expected[1]) < 1e-3


def test_settings_by_resolution(quickly):
    loss = MultiResolutionStft(
        n_fft=[256, 128],
        hop_samples=32,
        window_samples=[200, 100],
        n_mels=[8, None],
        log_weight=[1.0, 0.5],
        sample_rate_hz=8000,
    )
    first, second = loss.resolutions
    assert (first.n_fft, first.hop_samples, first.n_mels, first.log_weight) == (256, 32, 8, 1.0)
    assert (second.n_fft, second.hop_samples, second.n_mels, second.log_weight) == (
        128,
        32,
        None,
        0.5,
    )
    audio = jnp.sin(jnp.arange(2000.0))[None]
    parts = [float(quickly(each)(audio, 0.5 * audio)) for each in loss.resolutions]
    assert float(quickly(loss)(audio, 0.5 * audio)) == pytest.approx(np.mean(parts), rel=1e-5)


def test_clips_shorter_than_a_window_are_mirrored_again_and_again(quickly):
    audio = np.random.default_rng(1).standard_normal((1, 9))
    loss = Stft(n_fft=64, hop_samples=4, window_samples=64, convergence_weight=0)
    spectra = []
    for clip in (audio, 0.5 * audio + 0.1):
        padded = np.pad(clip[0], 32, mode="reflect")
        pieces = [padded[i * 4 : i * 4 + 64] for i in range(3)]
        spectra.append(np.abs(np.fft.rfft(pieces * np.asarray(np.hanning(65)[:64]))))
    expected = np.mean(np.abs(np.log(np.maximum(spectra[0], 1e-4) / np.maximum(spectra[1], 1e-4))))
    short = jnp.asarray(audio, jnp.float32)
    assert float(quickly(loss)(short, 0.5 * short + 0.1)) == pytest.approx(expected, rel=1e-4)
    one = short[:, :1]
    assert np.isfinite(float(quickly(loss)(one, 0.5 * one)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_fft": 255}, "n_fft must be even; got 255"),
        ({"hop_samples": 0}, "hop_samples must be an integer of at least 1; got 0"),
        ({"window_samples": 0}, "window_samples must be an integer of at least 1; got 0"),
        ({"window_samples": 2048}, "1 to n_fft=1024 samples; got window_samples=2048"),
        ({"window": "hanning-ish"}, "scipy.signal.get_window"),
        ({"distance": "l3"}, r"distance must be one of \('l1', 'l2'\); got 'l3'"),
        ({"n_mels": 20}, "need sample_rate_hz; got None with n_mels=20"),
        ({"eps": 0.0}, "eps must be 1e-15 or more.*got 0"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Stft(**settings)


def test_seconds_for_samples_are_refused():
    check = inspect.unwrap(clips.check_transform)  # no test of types comes before it
    for name in ("n_fft", "hop_samples", "window_samples"):
        settings = {"n_fft": 512, "hop_samples": 128, "window_samples": 512} | {name: 0.032}
        with pytest.raises(ValueError, match=rf"{name} must be an integer.*0\.032.*and round"):
            check(window="hann", **settings)


def test_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"one entry for each resolution, 3 .* hop_samples has 2"):
        MultiResolutionStft(hop_samples=(10, 20))
