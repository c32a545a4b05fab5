"""The STRF loss is what correlating with every kernel gives, by SciPy and torchaudio."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import torch

from data.torchaudio_compat import load_torchaudio
from hybrid.losses import StrfLoss
from hybrid.losses.modulation import log_grid


def sounds(time=8000):
    rng = np.random.default_rng(0)
    target = 0.1 * rng.standard_normal((2, time)) * np.hanning(time)
    return target + 0.03 * rng.standard_normal((2, time)), target


def test_kernels_are_windowed_waves_of_norm_one():
    loss = StrfLoss(16000)
    kernels = loss.kernels()
    assert kernels.shape == (30, 2, 31, 31)
    np.testing.assert_allclose(np.linalg.norm(kernels, axis=(2, 3)), 1)
    rate_hz, scale = loss.pairs[7]
    n, k = np.meshgrid(np.arange(31), np.arange(31), indexing="ij")
    window = (0.5 - 0.5 * np.cos(2 * np.pi * (n + 1) / 32)) * (
        0.5 - 0.5 * np.cos(2 * np.pi * (k + 1) / 32)
    )
    phase = 2 * np.pi * (rate_hz / 100 * (n - 15) + scale * (k - 15))
    for kernel, wave in zip(kernels[7], (np.cos(phase), np.sin(phase)), strict=True):
        np.testing.assert_allclose(
            kernel, window * wave / np.linalg.norm(window * wave), atol=1e-12
        )


def test_the_grid_covers_what_the_authors_learned():
    rates, scales = map(np.array, zip(*log_grid(), strict=True))
    assert (rates.min(), rates.max()) == (pytest.approx(4.8), pytest.approx(28))
    assert (scales.min(), scales.max()) == (pytest.approx(-0.32), pytest.approx(0.32))
    ratios = np.diff(np.log(np.unique(rates)))
    np.testing.assert_allclose(ratios, ratios[0])
    assert len(set(log_grid())) == 30


def test_agrees_with_correlation_by_every_kernel(x64, quickly):
    pairs = ((0.0, 0.0), (12.0, 0.1), (12.0, -0.2), (-3.0, 0.05))
    loss = StrfLoss(8000, pairs=pairs, n_mels=20)
    # 101 frames: three blocks of 32 that are filtered at a time, and a part of another.
    estimate, target = sounds()
    log_mel = quickly(lambda x: loss.log_mel(x, None))
    heard = [np.asarray(log_mel(jnp.asarray(x))) for x in (estimate, target)]
    assert heard[0].shape == (2, 101, loss.n_mels)
    errors, energies = np.zeros(2), np.zeros(2)
    for kernel in loss.kernels().reshape(-1, 31, 31):
        for row in range(2):
            out = [scipy.signal.correlate(x[row], kernel, method="fft") for x in heard]
            out = [x[15:-15, 15:-15] for x in out]
            errors[row] += np.sum((out[0] - out[1]) ** 2)
            energies[row] += np.sum(out[1] ** 2)
    expected = np.mean(errors / energies)
    got = quickly(loss)(jnp.asarray(estimate), jnp.asarray(target))
    assert float(got) == pytest.approx(expected, rel=1e-9)


def test_log_mel_is_torchaudios(quickly):
    transform = load_torchaudio().transforms.MelSpectrogram(
        16000, n_fft=512, win_length=512, hop_length=160, n_mels=80
    )
    audio, _ = sounds()
    theirs = np.log(transform(torch.tensor(audio, dtype=torch.float32)).numpy() + 1e-8)
    ours = quickly(lambda x: StrfLoss(16000).log_mel(x, None))(jnp.asarray(audio, jnp.float32))
    np.testing.assert_allclose(np.asarray(ours), theirs.swapaxes(1, 2), atol=2e-3)


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match=r"within 50 Hz .* got \(\(60.0, 0.1\),\)"):
        StrfLoss(16000, pairs=((60, 0.1),))
    with pytest.raises(ValueError, match="pairs must hold"):
        StrfLoss(16000, pairs=())
    with pytest.raises(ValueError, match="n_mels must be positive; got 0"):
        StrfLoss(16000, n_mels=0)
