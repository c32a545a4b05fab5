"""Spectral front ends: the contract, functions they agree with, and what they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from physics import spectra, testing
from physics.spectra import LogMel, Mel, Mfcc, Stft

SMALL = {"sample_rate_hz": 8000, "hop_s": 0.005, "window_s": 0.012}
FRONT_ENDS = {
    "log spectra, a window shorter than the hop, two ears": Stft(
        8000, n_ears=2, hop_s=0.005, window_s=0.004
    ),
    # Ends between bins: where a band ends at one, its width has no derivative.
    "log-mel, learned": LogMel(
        **SMALL, n_mels=8, filters="learned", norm="slaney", min_hz=100, max_hz=3900
    ),
    "MFCC": Mfcc(**SMALL, n_mels=8, n_mfcc=5, exponent=1, mel_scale="slaney", initial_floor=1e-3),
}


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_front_end(check, name):
    check(FRONT_ENDS[name])


def test_frames_look_back_and_are_those_of_the_functions(key):
    """A model's frame is the function's over the same samples."""
    audio = 0.1 * jax.random.normal(key, (2, 1000))
    settings = {"sample_rate_hz": 8000, "hop_s": 0.01, "window_s": 0.025, "n_fft": 200}

    def run(model):
        return model.apply(model.init(), audio)[0]

    past = jnp.concatenate([jnp.zeros((2, 120)), audio], axis=1)
    x = spectra.stft(past, spectra.window_taps("hann", 200), 80, center=False)
    np.testing.assert_allclose(run(Stft(**settings, size="power")), spectra.power(x), rtol=1e-4)
    size = run(Stft(**settings, size="magnitude"))
    np.testing.assert_allclose(size, spectra.magnitude(x), rtol=1e-4)
    bands = run(Mel(**settings, n_mels=20))
    assert bands.shape == (2, 12, 20)
    weights = jnp.asarray(spectra.filterbank(101, 20, 8000), jnp.float32)
    np.testing.assert_allclose(bands, spectra.power(x) @ weights, rtol=1e-4)
    logs = run(LogMel(**settings, n_mels=20))
    np.testing.assert_allclose(logs, np.log(bands + 1e-6), rtol=1e-4, atol=1e-5)
    dct = spectra.dct_matrix(20, 20)
    cepstra = np.asarray(run(Mfcc(**settings, n_mels=20, n_mfcc=20)))
    np.testing.assert_allclose(cepstra @ dct.T, logs, rtol=1e-4, atol=1e-5)
    # A longer transform looks at the same samples, at more frequencies.
    assert Stft(sample_rate_hz=8000).bins_hz().size == 129


@pytest.mark.parametrize("norm", ["none", "slaney"])
def test_learned_bands_begin_as_the_mel_scale(norm, key):
    fixed = Mel(n_mels=40, norm=norm)
    learned = Mel(n_mels=40, norm=norm, filters="learned")
    audio = 0.1 * jax.random.normal(key, (1, 3200))
    params = learned.init()
    wanted = fixed.apply({}, audio)[0]
    np.testing.assert_allclose(
        learned.apply(params, audio)[0], wanted, rtol=0, atol=1e-4 * float(wanted.max())
    )
    np.testing.assert_allclose(
        learned.channel_frequencies_hz(params), fixed.channel_frequencies_hz({}), rtol=1e-4
    )


def test_a_band_finds_a_tone(key):
    """Gradients move a centre to where the sound is."""
    mel = LogMel(8000, n_mels=1, min_hz=600, max_hz=1600, filters="learned")
    tone = 0.5 * jnp.sin(2 * jnp.pi * 1300 / 8000 * jnp.arange(1600, dtype=float))[None]
    params, optimizer = mel.init(), optax.sign_sgd(0.02)
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state):
        gradients = jax.grad(lambda p: -mel.apply(p, tone)[0][:, 4:].mean())(params)
        updates, opt_state = optimizer.update(
            {**gradients, "floor": 0 * gradients["floor"]}, opt_state
        )
        return mel.project(optax.apply_updates(params, updates)), opt_state

    before = float(mel.channel_frequencies_hz(params)[0])
    for _ in range(60):
        params, opt_state = step(params, opt_state)
    assert abs(before - 1300) > 200
    assert abs(float(mel.channel_frequencies_hz(params)[0]) - 1300) < 30


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Stft(hop_s=0.0), "hop_s must be positive"),
        (lambda: Stft(n_fft=256), "as long as the window"),
        (lambda: Stft(size="db"), "size must be one of"),
        (lambda: Stft(window="hat"), "scipy.signal.get_window"),
        (lambda: Mel(filters="free"), "filters must be one of"),
        (lambda: Mel(mel_scale="bark"), "mel_scale must be one of"),
        (lambda: Mel(exponent=3), "exponent must be"),
        (lambda: Mel(max_hz=9000), "half the sample rate"),
        (lambda: Mel(n_mels=200), "Every band must hold a bin"),
        (lambda: Mfcc(n_mfcc=41), "n_mfcc must lie between"),
        (lambda: Mel().apply({}, jnp.zeros(160)), "A single clip is"),
        (lambda: Mel().apply({}, jnp.zeros((1, 160, 2))), "Set n_ears=2"),
        (lambda: Mel().apply({}, jnp.zeros((1, 0))), "at least one sample"),
        (lambda: Mel().apply({}, jnp.zeros((1, 160), jnp.int16)), "Divide 16-bit"),
        (
            lambda: Mel().apply({}, jnp.zeros((1, 100)), Mel().init_state(1)),
            "multiples of hop_samples",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
