"""Losses on samples are those of auraloss where it has them, and keep their digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from auraloss.perceptual import FIRFilter
from auraloss.time import ESRLoss, LogCoshLoss, SISDRLoss, SNRLoss

from hybrid.losses import L1, L2, Esr, LogCosh, SiSdr, Snr, si_sdr_db


def esr(estimate, target):
    return ESRLoss()(*FIRFilter("hp", coef=0.85)(estimate, target))


CASES = {
    "l1": (L1(), torch.nn.L1Loss()),
    "l2": (L2(), torch.nn.MSELoss()),
    "log_cosh": (LogCosh(sharpness=2.5), LogCoshLoss(a=2.5, eps=0.0)),
    "snr": (Snr(), SNRLoss()),
    "si_sdr": (SiSdr(), SISDRLoss()),
    "si_sdr, means kept": (SiSdr(zero_mean=False), SISDRLoss(zero_mean=False)),
    "esr": (Esr(pre_emphasis=0), ESRLoss()),
    "esr, pre-emphasised": (Esr(), esr),
}


def sounds(time=500):
    rng = np.random.default_rng(0)
    target = rng.standard_normal((3, time)) + 0.3
    return 0.7 * target + 0.2 * rng.standard_normal((3, time)), target


@pytest.mark.parametrize("case", CASES)
def test_parity_with_torch(case, quickly):
    loss, peer = CASES[case]
    estimate, target = sounds()
    heard = torch.tensor(estimate, dtype=torch.float32)[:, None].requires_grad_()
    expected = peer(heard, torch.tensor(target, dtype=torch.float32)[:, None])
    expected.backward()
    value, gradient = quickly(jax.value_and_grad(loss))(
        jnp.asarray(estimate, jnp.float32), jnp.asarray(target, jnp.float32)
    )
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-5)
    wanted = heard.grad.numpy()[:, 0]
    assert np.linalg.norm(gradient - wanted) < 1e-5 * np.linalg.norm(wanted)


def test_si_sdr_does_not_hear_levels(quickly):
    estimate, target = (jnp.asarray(x, jnp.float32) for x in sounds())
    ratio_db = quickly(si_sdr_db)
    values = ratio_db(estimate, target)
    assert values.shape == (3,)
    np.testing.assert_allclose(ratio_db(0.2 * estimate + 0.1, 3 * target), values, rtol=1e-3)
    # An error at right angles to the target, 20 dB below it.
    time = np.arange(500) * (2 * np.pi / 100) + np.zeros((3, 1))
    clean, error = (jnp.asarray(x, jnp.float32) for x in (np.sin(time), np.cos(time)))
    np.testing.assert_allclose(ratio_db(clean + 0.1 * error, clean), 20, atol=1e-3)
    assert float(quickly(Snr())(clean + 0.1 * error, clean)) == pytest.approx(-20, abs=1e-3)


def test_si_sdr_of_sources_and_of_no_sample(quickly):
    estimate, target = (jnp.asarray(x, jnp.float32).reshape(1, 3, -1) for x in sounds())
    ratio_db = quickly(si_sdr_db)
    assert ratio_db(estimate, target, jnp.full(1, 500, jnp.int32)).shape == (1, 3)
    np.testing.assert_array_equal(ratio_db(estimate, target, jnp.zeros(1, jnp.int32)), 0)
    silent = ratio_db(jnp.zeros_like(estimate), target, jnp.full(1, 500, jnp.int32))
    np.testing.assert_allclose(silent, -80, atol=0.1)


def test_log_cosh_keeps_its_digits(quickly):
    size = np.array([1e-4, 0.01, 0.999, 1.001, 30.0, 1e4])
    error = jnp.asarray(size, jnp.float32)[:, None]
    loss = LogCosh()
    values = quickly(loss.per_clip)(error, jnp.zeros_like(error))
    gradient = quickly(jax.grad(loss))(error, jnp.zeros_like(error))
    exact = np.where(
        size > 100, size - np.log(2), np.log1p(2 * np.sinh(size.clip(0, 100) / 2) ** 2)
    )
    np.testing.assert_allclose(values, exact, rtol=1e-5)
    np.testing.assert_allclose(gradient[:, 0], np.tanh(size) / size.size, rtol=1e-5)


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match="sharpness must be positive; got 0"):
        LogCosh(sharpness=0)
    for kind in (Snr, SiSdr, Esr):
        with pytest.raises(ValueError, match="eps must be positive; got 0"):
            kind(eps=0.0)
