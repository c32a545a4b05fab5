"""Filters as front ends: the contract, the functions behind them, and what they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import signal

from physics import testing
from physics.filters import Biquads, Fir, HilbertEnvelope

FRONT_ENDS = {
    "FIR, two ears": Fir(8000, n_ears=2, n_taps=6, initial_taps=((1.0,), (0.5, -0.5))),
    "biquads, a bank in frames": Biquads(8000, hop_s=0.003, initial_center_hz=(300.0, 1500.0)),
    "biquads, an equaliser": Biquads(
        8000, arrangement="cascade", initial_center_hz=(300.0, 3500.0), initial_gain_db=(6.0, -6.0)
    ),
    "Hilbert, in frames": HilbertEnvelope(8000, hop_s=0.003, reach_s=0.002, frequency=True),
}


@pytest.mark.parametrize("name", FRONT_ENDS)
@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_front_end(check, name):
    check(FRONT_ENDS[name])


def test_equaliser_and_bank_are_the_cookbooks(quick_jit):
    """Bristow-Johnson's peakingEQ in turn, and his BPF side by side, in single precision."""
    settings = {
        "initial_center_hz": (60.0, 1000.0, 7500.0),
        "initial_q": (4.0, 1.0, 9.0),
        "initial_gain_db": (9.0, -12.0, 6.0),
    }
    bank, equaliser = Biquads(**settings), Biquads(**settings, arrangement="cascade")
    x = 0.1 * np.random.default_rng(0).standard_normal((1, 4000))
    angle = 2 * np.pi * np.array(settings["initial_center_hz"]) / 16_000
    alpha = np.sin(angle) / (2 * np.array(settings["initial_q"]))
    gain_db, cosine, one = np.array(settings["initial_gain_db"]), np.cos(angle), np.ones(3)
    up, down = alpha * 10 ** (gain_db / 40), alpha / 10 ** (gain_db / 40)
    peaking = np.stack([one + up, -2 * cosine, 1 - up, one + down, -2 * cosine, 1 - down], axis=1)
    band = np.stack([alpha, 0 * one, -alpha, one + alpha, -2 * cosine, 1 - alpha], axis=1)
    equalised = signal.sosfilt(peaking / peaking[:, 3:4], x)
    bands = [signal.sosfilt(row[None] / row[3], x) for row in band]
    bands = np.stack(bands, axis=2) * 10 ** (gain_db / 20)
    for module, wanted in ((equaliser, equalised[..., None]), (bank, bands)):
        got, _ = quick_jit(module.apply)(module.init(), x.astype(np.float32))
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


def test_levels_are_root_mean_squares(quick_jit):
    fir = Fir(8000, n_taps=4, initial_taps=((1.0,), (0.0, 0.0, 2.0)), hop_s=0.01)
    x = 0.1 * np.random.default_rng(0).standard_normal((1, 800)).astype(np.float32)
    got, _ = quick_jit(fir.apply)(fir.init(), x)
    late = np.concatenate([np.zeros((1, 2)), x[:, :-2]], axis=1)
    wanted = np.stack([x, 2 * late], axis=2).reshape(1, 10, 80, 2)
    np.testing.assert_allclose(got, np.sqrt((wanted**2).mean(axis=2)), rtol=1e-5)


def test_filters_are_learned(quick_jit):
    """Gradients find the taps of an unknown filter: what system identification asks for."""
    unknown = np.array([0.5, -0.3, 0.2, 0.1])
    x = np.random.default_rng(0).standard_normal((1, 400)).astype(np.float32)
    wanted = signal.lfilter(unknown, [1.0], x).astype(np.float32)[..., None]
    fir = Fir(8000, n_taps=4)
    sgd = optax.sgd(0.15)

    def loss(params):
        return jnp.mean((fir.apply(params, x)[0] - wanted) ** 2)

    @quick_jit
    def step(params, opt_state):
        updates, opt_state = sgd.update(jax.grad(loss)(params), opt_state)
        return fir.project(optax.apply_updates(params, updates)), opt_state

    params = fir.init()
    opt_state = sgd.init(params)
    for _ in range(60):
        params, opt_state = step(params, opt_state)
    np.testing.assert_allclose(fir.physical(params)["taps"][0], unknown, atol=1e-3)


def test_envelope_and_frequency_of_a_modulated_tone(quick_jit):
    """As `scipy.signal.hilbert` has them, but late; compressed, and averaged over frames."""
    model = HilbertEnvelope(16_000, hop_s=0.005, frequency=True, initial_exponent=1.0)
    time = np.arange(8000) / 16_000
    x = 0.3 * (1 + 0.5 * np.sin(2 * np.pi * 7 * time)) * np.sin(2 * np.pi * 1500 * time)
    got, _ = quick_jit(model.apply)(model.init(), x.astype(np.float32)[None])
    late = np.roll(np.abs(signal.hilbert(x)), model.latency_samples)
    inside = slice(10, -10)
    np.testing.assert_allclose(
        got[0, inside, 0], late.reshape(-1, 80).mean(axis=1)[inside], rtol=0.01
    )
    np.testing.assert_allclose(got[0, inside, 1], 1500 / 8000, rtol=0.005)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Fir(n_taps=2, initial_taps=((1.0, 2.0, 3.0),)), "Take a larger n_taps"),
        (lambda: Fir(initial_taps=()), "for each channel"),
        (lambda: Fir(hop_s=-1.0), "hop_s must be positive"),
        (lambda: Fir(initial_taps=((9.0,),)).init(), "taps must lie in"),
        (lambda: Biquads(arrangement="ring"), "arrangement must be one of"),
        (lambda: Biquads(initial_q=(1.0, 2.0)), "one for each of the 6"),
        (lambda: Biquads(8000).init(), "center_hz must lie in"),
        (lambda: HilbertEnvelope(reach_s=0.0), "reach_s must be positive"),
    ],
)
def test_what_has_no_meaning_is_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
