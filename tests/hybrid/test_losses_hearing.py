"""Losses of hearing models are what the models themselves say of both sounds."""

import jax
import numpy as np
import pytest

from hybrid.losses import CochlearLoss, CorticalLoss
from physics.carfac import Carfac
from physics.compose import Compose
from physics.cortex import AuditorySpectrogram, Strf

RATE_HZ = 8000.0


def sounds(noise=0.01, time=1600):
    rng = np.random.default_rng(0)
    tones = np.sin(2 * np.pi * np.array([[500.0], [1500.0]]) * np.arange(time) / RATE_HZ)
    target = (0.05 * tones * np.hanning(time)).astype(np.float32)
    return target + (noise * rng.standard_normal(target.shape)).astype(np.float32), target


def ratio(heard, clean, floor):
    heard, clean = (np.asarray(x, np.float64).reshape(2, -1) for x in (heard, clean))
    return np.mean(np.mean((heard - clean) ** 2, 1) / (np.mean(clean**2, 1) + floor))


def test_cochlear_loss_is_the_distance_of_activity(quickly):
    initial = {"car.ohc_health": 0.2}
    loss = CochlearLoss(RATE_HZ, initial=initial)
    ear = Carfac(sample_rate_hz=RATE_HZ, initial=initial, hop_s=0.01, compression="root")
    assert loss.ear == ear
    hear = quickly(lambda x: ear.apply(ear.init(), x)[0])
    heard, clean = map(hear, sounds())
    assert float(quickly(loss)(*sounds())) == pytest.approx(ratio(heard, clean, 1e-3), rel=1e-3)


def test_an_impaired_ear_hears_a_faint_error_less(quickly):
    healthy, impaired = (
        float(quickly(CochlearLoss(RATE_HZ, initial={"car.ohc_health": health}))(*sounds(0.001)))
        for health in (1.0, 0.2)
    )
    assert impaired < 0.7 * healthy


def test_sample_by_sample_hears_what_frames_do_not(quickly):
    """Activity at full rate keeps the fine structure that frames of 10 ms smooth away."""
    _, target = sounds()
    later = np.roll(target, 4, axis=1)
    frames = float(quickly(CochlearLoss(RATE_HZ))(later, target))
    full = float(quickly(CochlearLoss(RATE_HZ, hop_s=None))(later, target))
    assert full > 10 * frames


def test_cortical_loss_is_the_distance_of_receptive_fields(quickly):
    ear = AuditorySpectrogram(
        sample_rate_hz=RATE_HZ, channels_per_octave=6, n_channels=15, memory_s=0.02
    )
    cortex = Strf((8.0, 16.0), (0.5,), channels_per_octave=6, memory_s=0.2)
    loss = CorticalLoss(RATE_HZ, ear=ear, cortex=cortex)
    whole = Compose(front=ear, stages=(cortex,))
    params = whole.init(jax.random.key(0))
    heard, clean = map(quickly(lambda x: whole.apply(params, x)[0]), sounds())
    assert heard.shape == (2, 40, 4, 15)
    assert float(quickly(loss)(*sounds())) == pytest.approx(ratio(heard, clean, 1e-8), rel=1e-3)
    # Soft syllables: harmonics of 150 Hz that come and go, 50 dB below full scale.
    phases = 2 * np.pi * 150 * np.outer(np.arange(1, 20), np.arange(1600)) / RATE_HZ
    soft = (np.sin(phases) / np.arange(1, 20)[:, None]).sum(0, keepdims=True)
    soft *= np.maximum(0, np.sin(2 * np.pi * 8 * np.arange(1600) / RATE_HZ))
    soft = (soft * 10 ** (-50 / 20) / np.sqrt(np.mean(soft**2))).astype(np.float32)
    assert 0.95 < float(quickly(loss)(np.zeros_like(soft), soft)) < 1


@pytest.mark.parametrize("kind", ["cochlear", "cortical"])
def test_more_noise_is_worse(kind, quickly):
    small = {"ear": {"channels_per_octave": 6}, "cortex": {"rates_hz": (8,), "memory_s": 0.2}}
    loss = CochlearLoss(RATE_HZ) if kind == "cochlear" else CorticalLoss(RATE_HZ, **small)
    compiled = quickly(loss)
    values = [float(compiled(*sounds(noise))) for noise in (0.0, 1e-3, 1e-2, 1e-1)]
    assert values[0] == 0
    assert values == sorted(values)


def test_settings_from_a_config_make_the_same_loss():
    settings = {"ear": {"n_channels": 12}, "cortex": {"rates_hz": [4.0, 8.0]}}
    loss = CorticalLoss(RATE_HZ, **settings)
    assert loss.ear == AuditorySpectrogram(sample_rate_hz=RATE_HZ, n_channels=12)
    assert loss.cortex == Strf((4.0, 8.0))
    assert hash(loss) == hash(CorticalLoss(RATE_HZ, **settings))


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="floor must be positive"):
        CochlearLoss(RATE_HZ, floor=0.0)
    with pytest.raises(ValueError, match=r"car\.ohc_heath"):
        CochlearLoss(RATE_HZ, initial={"car.ohc_heath": 0.5})
    with pytest.raises(ValueError, match=r"8000 Hz; got one for 16000 Hz.*sample_rate_hz out"):
        CorticalLoss(RATE_HZ, ear=AuditorySpectrogram(sample_rate_hz=16000))
    with pytest.raises(
        ValueError,
        match=r"ear must hold settings of AuditorySpectrogram.*n_chanels.*n_channels",
    ):
        CorticalLoss(RATE_HZ, ear={"n_chanels": 3})
    with pytest.raises(ValueError, match=r"cortex must be a Strf or a mapping.*Leave it out"):
        CorticalLoss(RATE_HZ, cortex=3)
