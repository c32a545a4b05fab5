"""Spectra, mel bands and cepstra: torchaudio's numbers, finite gradients, and the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from data.torchaudio_compat import load_torchaudio
from physics import spectra
from physics.spectra import scales, short_time

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def torchaudio():
    return load_torchaudio()


@pytest.fixture(scope="module")
def audio():
    """`[2, 6000]`: noise, and a chirp."""
    time = np.arange(6000) / RATE_HZ
    noise = 0.1 * np.random.default_rng(0).standard_normal(6000)
    return np.stack([noise, 0.5 * np.sin(2 * np.pi * (200 + 4000 * time) * time)])


def agree(got, wanted, tolerance):
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


CASES = {
    "whole window": (512, 512, 128, True),
    "short window, odd hop": (512, 400, 161, True),
    "window of odd length": (400, 301, 100, True),
    "not centred": (256, 200, 80, False),
    "hop longer than the window": (64, 64, 100, False),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("double", [False, True])
def test_spectra_are_torchaudios(case, double, audio, torchaudio):
    n_fft, length, hop, center = CASES[case]
    dtype = np.float64 if double else np.float32
    transform = torchaudio.transforms.Spectrogram(
        n_fft,
        length,
        hop,
        power=None,
        center=center,
        window_fn=lambda n: torch.hann_window(n, dtype=torch.float64),
    )
    wanted = transform(torch.from_numpy(audio)).numpy().swapaxes(1, 2)
    with jax.enable_x64(double):
        window = spectra.window_taps("hann", length)
        got = spectra.stft(jnp.asarray(audio, dtype), window, hop, n_fft, center)
        assert got.real.dtype == dtype
        tolerance = 1e-12 if double else 2e-6
        agree(got, wanted, tolerance)
        agree(spectra.magnitude(got), np.abs(wanted), tolerance)
        agree(spectra.power(got), np.abs(wanted) ** 2, tolerance)
        agree(np.cos(spectra.phase(got)), np.cos(np.angle(got)), 1e-6)


@pytest.mark.parametrize("mel_scale", scales.MEL_SCALES)
@pytest.mark.parametrize("norm", scales.NORMS)
def test_mel_bands_are_torchaudios(mel_scale, norm, audio, torchaudio):
    settings = {"f_min": 50.0, "f_max": 7000.0, "n_mels": 40, "mel_scale": mel_scale}
    torchs_norm = None if norm == "none" else norm
    transform = torchaudio.transforms.MelSpectrogram(
        RATE_HZ, 512, 400, 160, norm=torchs_norm, **settings
    )
    wanted = transform(torch.from_numpy(audio.astype(np.float32))).numpy().swapaxes(1, 2)
    weights = spectra.filterbank(257, 40, RATE_HZ, 50.0, 7000.0, mel_scale, norm)
    x = spectra.stft(jnp.asarray(audio, jnp.float32), spectra.window_taps("hann", 400), 160, 512)
    got = spectra.power(x) @ jnp.asarray(weights, jnp.float32)
    agree(got, wanted, 1e-5)
    hz = np.array([0.0, 60.0, 999.0, 1000.0, 4000.0])
    np.testing.assert_allclose(
        spectra.mel_to_hz(spectra.hz_to_mel(hz, mel_scale), mel_scale), hz, rtol=1e-12
    )


@pytest.mark.parametrize("log_mels", [False, True])
def test_cepstra_and_decibels_are_torchaudios(log_mels, audio, torchaudio):
    settings = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40}
    transform = torchaudio.transforms.MFCC(
        RATE_HZ, n_mfcc=20, log_mels=log_mels, melkwargs=settings
    )
    # With an axis of channels, the loudest value is that of a clip and not that of the batch.
    wanted = transform(torch.from_numpy(audio.astype(np.float32))[:, None]).numpy()[:, 0]
    x = spectra.stft(jnp.asarray(audio, jnp.float32), spectra.window_taps("hann", 400), 160, 512)
    weights = jnp.asarray(spectra.filterbank(257, 40, RATE_HZ), jnp.float32)
    bands = spectra.power(x) @ weights
    logs = jnp.log(bands + 1e-6) if log_mels else spectra.to_db(bands, top_db=80.0)
    got = logs @ jnp.asarray(spectra.dct_matrix(40, 20), jnp.float32)
    agree(got, wanted.swapaxes(1, 2), 1e-5)


@pytest.mark.parametrize("case", ["whole window", "short window, odd hop", "window of odd length"])
def test_inverse_gives_the_signal_back(case, audio, x64):
    n_fft, length, hop, _ = CASES[case]
    window = spectra.window_taps("hann", length)
    x = spectra.stft(jnp.asarray(audio), window, hop, n_fft)
    back = spectra.istft(x, window, hop, n_fft, 6000)
    covered = (x.shape[1] - 1) * hop  # what the centres of the frames enclose
    agree(back[:, :covered], audio[:, :covered], 1e-12)
    # What no signal has as its transform goes to the nearest one, as torch has it.
    bent = np.array(x) * np.random.default_rng(1).uniform(0.5, 1.5, x.shape)
    taps = torch.from_numpy(np.array(window))
    wanted = torch.istft(torch.from_numpy(bent).swapaxes(1, 2), n_fft, hop, length, taps)
    agree(spectra.istft(jnp.asarray(bent), window, hop, n_fft, wanted.shape[1]), wanted, 1e-12)


def test_short_time_gradients_are_right(x64):
    audio = jnp.asarray(np.random.default_rng(0).standard_normal((2, 90)))
    window = spectra.window_taps("hann", 16)

    def sizes(audio):
        x = spectra.stft(jnp.asarray(audio), window, 7, 20)
        back = spectra.istft(x**2, window, 7, 20)
        # The reflected first frame is even and its transform real: phases jump from -pi to pi.
        return spectra.magnitude(x), spectra.phase(x[:, 1:, 1:-1]), back

    check_grads(sizes, (audio,), 1, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["magnitude", "power", "phase"])
@pytest.mark.parametrize("value", [0.0, 1e-25, 1e-40, 1e-18])
def test_gradients_are_finite_at_zero_magnitude(name, value):
    with jax.debug_nans(True):
        audio = jnp.zeros(64).at[20].set(value)

        def loss(audio):
            x = spectra.stft(audio, spectra.window_taps("hann", 16), 4)
            return jnp.sum(getattr(spectra, name)(x))

        slope = jax.grad(loss)
        both = jax.jit(lambda a: (slope(a), jax.grad(lambda b: jnp.sum(slope(b) ** 2))(a)))
        assert all(np.isfinite(gradient).all() for gradient in both(audio))


def test_griffin_lim_is_torchaudios(audio, torchaudio):
    window = spectra.window_taps("hann", 400)
    taps = torch.from_numpy(np.array(window))
    x = torch.stft(torch.from_numpy(audio), 400, 100, window=taps, return_complex=True).abs()
    wanted = torchaudio.functional.griffinlim(
        x, taps, 400, 100, 400, 1.0, 8, 0.9, 6000, rand_init=False
    )
    with jax.enable_x64(True):
        size = jnp.asarray(x.numpy().swapaxes(1, 2))
        got = spectra.griffin_lim(size, window, 100, 400, 6000, 8, 0.9)
        agree(got, wanted, 1e-9)


def test_a_signal_comes_back_from_its_mel_bands(audio, key):
    """Spectral convergence: distance of magnitudes, relative; phases of 0 alone give above 0.5."""
    window, weights = spectra.window_taps("hann", 400), spectra.filterbank(201, 80, RATE_HZ)
    chirp = jnp.asarray(audio[1:], jnp.float32)

    def size(signal):
        return spectra.magnitude(spectra.stft(signal, window, 100))

    def away(got, wanted):
        return float(jnp.linalg.norm(got - wanted) / jnp.linalg.norm(wanted))

    wanted = size(chirp)
    found = [
        away(size(spectra.griffin_lim(wanted, window, 100, None, 6000, n, key=key)), wanted)
        for n in (0, 32)
    ]
    assert found[1] < 0.1 < 0.3 < found[0]
    mels = wanted**2 @ jnp.asarray(weights, jnp.float32)
    spectrum = spectra.unmel(mels, weights)
    assert spectrum.min() >= 0
    assert away(spectrum @ jnp.asarray(weights, jnp.float32), mels) < 0.02
    back = spectra.mel_to_audio(mels, weights, window, 100, length=6000)
    assert away(size(back) ** 2 @ jnp.asarray(weights, jnp.float32), mels) < 0.3


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: spectra.window_taps("hat", 16), "scipy.signal.get_window"),
        (lambda: short_time.stft(jnp.zeros(99), np.ones(16), 4, 8), "as long as the window"),
        (lambda: short_time.stft(jnp.zeros(8), np.ones(16), 4), "reflected at its ends"),
        (
            lambda: short_time.istft(jnp.zeros((3, 9), jnp.complex64), np.ones(16), 20),
            "smaller hop",
        ),
        (lambda: spectra.filterbank(9, 4, 16e3, 900.0, 300.0), "min_hz < max_hz"),
        (lambda: spectra.filterbank(9, 0, 16e3), "n_mels must be at least 1"),
        (lambda: spectra.filterbank(9, 4, 16e3, mel_scale="bark"), "mel_scale must be one of"),
        (lambda: spectra.filterbank(9, 4, 16e3, norm="l1"), "norm must be one of"),
        (lambda: spectra.dct_matrix(10, 11), "n_mfcc must lie between"),
        (
            lambda: spectra.griffin_lim(jnp.zeros((3, 9)), np.ones(16), 4, momentum=1.0),
            "momentum must be",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()
