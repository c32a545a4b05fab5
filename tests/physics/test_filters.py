"""Filters: SciPy's numbers, streams, and gradients, which plain loops and differences confirm."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import signal

from physics import filters
from physics.filters import fir

RNG = np.random.default_rng(0)


def agree(got, wanted, tolerance):
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    scale = np.abs(wanted).max(initial=0.0)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * scale)


def stable(order, rng, largest=0.98):
    """A polynomial with poles inside the unit circle, `[order + 1]`."""
    radius = rng.uniform(0.3, largest, order // 2)
    poles = radius * np.exp(1j * rng.uniform(0.05, 3.1, order // 2))
    real = rng.uniform(-largest, largest, order % 2)
    return np.poly(np.concatenate([poles, poles.conj(), real])).real


def cookbook(center_hz, q, gain_db, rate_hz):
    """Bristow-Johnson's BPF and peakingEQ, `[6]` each."""
    angle = 2 * np.pi * center_hz / rate_hz
    alpha, height = np.sin(angle) / (2 * q), 10 ** (gain_db / 40)
    up, down, turn = alpha * height, alpha / height, -2 * np.cos(angle)
    return (
        np.array([alpha, 0, -alpha, 1 + alpha, turn, 1 - alpha]) / (1 + alpha),
        np.array([1 + up, turn, 1 - up, 1 + down, turn, 1 - down]) / (1 + down),
    )


@pytest.mark.parametrize(
    ("order", "zeros", "time"),
    [(1, 0, 1), (1, 4, 33), (2, 2, 100), (3, 1, 2), (6, 4, 32), (40, 0, 70)],
)
def test_recursion_is_scipys(order, zeros, time, x64, quick_jit):
    rng = np.random.default_rng(order)
    comb = np.eye(41)[0] + 0.5 * np.eye(41)[40] - 0.3 * np.eye(41)[7]
    a, b = comb if order == 40 else stable(order, rng), rng.standard_normal(zeros + 1)
    x = rng.standard_normal((2, 2, time))
    before_x, before_y = rng.standard_normal((2, 2, zeros)), rng.standard_normal((2, 2, order))
    wanted = np.empty_like(x)
    for at in np.ndindex(2, 2):
        zi = signal.lfiltic(b, a, before_y[at], before_x[at])
        wanted[at], _ = signal.lfilter(b, a, x[at], zi=zi)
    past = jnp.asarray(before_x[..., ::-1]), jnp.asarray(before_y)
    run = quick_jit(filters.lfilter)
    y, (inputs, outputs) = run(jnp.asarray(b), jnp.asarray(a[1:]), jnp.asarray(x), past)
    agree(y, wanted, 1e-9)
    heard = np.concatenate([before_y[..., ::-1], wanted], axis=2)
    agree(outputs, heard[..., : -order - 1 : -1], 1e-9)
    agree(inputs, np.concatenate([before_x[..., ::-1], x], axis=2)[..., time:], 0)


@pytest.mark.parametrize("order", [2, 8])
def test_recursion_in_single_precision(order, quick_jit):
    a = np.stack([stable(order, np.random.default_rng(s), 0.95) for s in range(3)])
    a = a.astype(np.float32)
    x = RNG.standard_normal((2, 3, 4000)).astype(np.float32)
    run = quick_jit(lambda a, x: filters.all_pole(x, a)[0])
    y = run(jnp.asarray(a[:, 1:]), jnp.asarray(x))
    for i in range(3):
        wanted = signal.lfilter([1.0], a[i].astype(float), x[:, i].astype(float))
        agree(y[:, i], wanted, 2e-4)


# Where poles lie near z = 1 or z = -1 filters in single precision lose their precision.
@pytest.mark.parametrize(
    ("center_hz", "q"), [(20.0, 0.7), (20.0, 50.0), (1000.0, 5.0), (7900.0, 50.0)]
)
def test_resonators_keep_their_precision(center_hz, q, quick_jit):
    section, _ = cookbook(center_hz, q, 0.0, 16_000)
    x = RNG.standard_normal(8000)
    heard = jnp.asarray(x, jnp.float32)
    rounded = section.astype(np.float32)

    @quick_jit
    def run(x, center_hz, q, sos):
        return filters.resonate(x, center_hz, q, 16_000)[0], filters.sosfilt(sos, x)[0]

    designed, given = run(heard, jnp.float32(center_hz), jnp.float32(q), rounded[None])
    agree(designed, signal.sosfilt(section[None], x), 2e-5)
    agree(given, signal.sosfilt(rounded.astype(float)[None], x), 2e-5)


def test_sections_are_scipys(x64, quick_jit):
    sos = signal.butter(3, [0.02, 0.3], btype="band", output="sos")
    sos[1] *= 2.0  # a0 need not be 1
    x = RNG.standard_normal((2, 500))
    wanted = signal.sosfilt(sos / sos[:, 3:4], x)
    run = quick_jit(filters.sosfilt)
    first, past = run(sos, x[:, :250])
    second, _ = run(sos, x[:, 250:], past)
    agree(np.concatenate([first, second], axis=1), wanted, 1e-9)


def plain(x, a, past):
    """The recursion as it is written down, a sample at a time."""

    def step(past, x):
        y = x - jnp.sum(a * past, axis=-1)
        return jnp.concatenate([y[..., None], past[..., :-1]], axis=-1), y

    return jnp.moveaxis(jax.lax.scan(step, past, jnp.moveaxis(x, -1, 0))[1], 0, -1)


def mirrored(a):
    """Poles on the other side of the imaginary axis."""
    return a * (-1.0) ** np.arange(1, a.shape[-1] + 1)


@pytest.mark.parametrize(("order", "time"), [(1, 40), (2, 3), (2, 70), (5, 3)])
def test_recursive_gradients_are_those_of_a_plain_loop(order, time, x64, quick_jit):
    a = np.stack([stable(order, np.random.default_rng(s))[1:] for s in range(2)])
    a[1] = mirrored(a[0])
    x, past = RNG.standard_normal((2, 2, time)), RNG.standard_normal((2, 2, order))
    weights = jnp.asarray(RNG.standard_normal((2, 2, time)))
    args = tuple(map(jnp.asarray, (x, a, past)))

    def ours(x, a, past):
        y, after = filters.all_pole(x, a, past)
        return jnp.sum(weights * jnp.tanh(y)) + jnp.sum(after**2)

    def wanted(x, a, past):
        y = plain(x, a[None], past)
        after = jnp.concatenate([past[..., ::-1], y], axis=-1)[..., -order:]
        return jnp.sum(weights * jnp.tanh(y)) + jnp.sum(after**2)

    def twice(function):
        first = jax.grad(function, (0, 1, 2))
        return jax.grad(lambda *args: sum(jnp.sum(g**2) for g in first(*args)), (0, 1, 2))

    derive = twice if (order, time) == (2, 3) else lambda function: jax.grad(function, (0, 1, 2))
    for own, theirs in zip(
        quick_jit(derive(ours))(*args), quick_jit(derive(wanted))(*args), strict=True
    ):
        agree(own, theirs, 1e-9)


def test_recursive_gradients_are_central_differences(x64):
    a = stable(3, np.random.default_rng(0))[1:]
    args = tuple(jnp.asarray(RNG.standard_normal(shape)) for shape in ((2, 40), (2, 3)))
    run = jax.jit(lambda x, past, a: filters.all_pole(x, a, past))
    check_grads(run, (*args, jnp.asarray(a)), 1, modes=["rev"], rtol=1e-5, atol=1e-5)


def test_recursive_gradients_of_a_long_signal(quick_jit):
    """10 s, single precision: as in double precision, to 1e-3 of each gradient's norm."""
    x, weights = RNG.standard_normal((2, 1, 160_000))

    def gradients(dtype):
        w, audio = jnp.asarray(weights, dtype), jnp.asarray(x, dtype)

        def loss(audio, center_hz, q):
            return jnp.sum(w * filters.resonate(audio, center_hz, q, 16_000)[0] ** 2)

        at = jnp.asarray([80.0], dtype), jnp.asarray([9.0], dtype)
        return [np.array(g) for g in quick_jit(jax.grad(loss, (0, 1, 2)))(audio, *at)]

    with jax.enable_x64(True):
        wanted = gradients(jnp.float64)
    for got, exact in zip(gradients(jnp.float32), wanted, strict=True):
        assert np.linalg.norm(got - exact) < 1e-3 * np.linalg.norm(exact)


def test_the_backward_pass_is_one_more_recursion(x64):
    """No chain through samples: as many loops for the gradient as for two filters."""

    def loss(x, a):
        return jnp.sum(filters.all_pole(x, a)[0] ** 2)

    jaxpr = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(jnp.zeros((1, 4000)), jnp.zeros(2)))
    assert jaxpr.count(" scan[") == 2
    assert jaxpr.count("length=125\n") == jaxpr.count("length=") == 2  # blocks, not samples


@pytest.mark.parametrize(
    ("time", "taps", "method"),
    [(20, 1, "auto"), (300, 8, "auto"), (10, 40, "fft"), (9000, 301, "auto")],
)
@pytest.mark.parametrize("double", [False, True])
def test_convolution_is_scipys(time, taps, method, double, quick_jit):
    x, h = RNG.standard_normal((2, 1, time)), RNG.standard_normal((3, taps))
    wanted = signal.oaconvolve(x, h[None], axes=2)[..., :time]
    with jax.enable_x64(double):
        dtype = jnp.float64 if double else jnp.float32
        audio, response = jnp.asarray(x, dtype), jnp.asarray(h, dtype)
        tolerance = 1e-12 if double else 1e-5
        run = quick_jit(functools.partial(filters.convolve, method=method))
        first, past = run(audio[..., : time // 2], response)
        second, _ = run(audio[..., time // 2 :], response, past)
        agree(np.concatenate([first, second], axis=2), wanted, tolerance)
        whole = quick_jit(functools.partial(filters.convolve, method=method))(audio, response)[0]
        agree(whole, wanted, tolerance)


@pytest.mark.parametrize("method", ["direct", "fft"])
def test_convolution_gradients_are_right(method, x64, monkeypatch):
    monkeypatch.setattr(fir, "_SMALL_FFT", 16)  # several blocks
    args = [jnp.asarray(RNG.standard_normal(shape)) for shape in ((2, 1, 60), (3, 5), (2, 1, 4))]

    filtered = jax.jit(lambda *args: filters.convolve(*args, method=method))
    check_grads(filtered, tuple(args), 1, modes=["rev"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("time", [64, 101])
def test_analytic_signals_are_scipys(time, x64, quick_jit):
    x = RNG.standard_normal((2, time))
    wanted = signal.hilbert(x)
    audio = jnp.asarray(x)

    def both(x):
        return filters.envelope(x), filters.instantaneous_frequency_hz(x, 8000)

    envelope, frequency_hz = quick_jit(both)(audio)
    agree(envelope, np.abs(wanted), 1e-12)
    agree(frequency_hz, np.diff(np.unwrap(np.angle(wanted))) * 8000 / (2 * np.pi), 1e-9)
    run = quick_jit(filters.analytic_signal)
    agree(run(audio), wanted, 1e-12)
    agree(run(jnp.asarray(x, jnp.float32)), wanted, 1e-5)
    check_grads(jax.jit(both), (audio,), 1, modes=["rev"], rtol=1e-5, atol=1e-5)


def test_envelopes_and_frequencies_have_finite_gradients_in_silence(quick_jit):
    click = jnp.zeros(64).at[10].set(1.0)

    @quick_jit
    def gradients(x):
        of_envelope = jax.grad(lambda x: jnp.sum(filters.envelope(x)))
        of_frequency = jax.grad(lambda x: jnp.sum(filters.instantaneous_frequency_hz(x, 16_000)))
        return of_envelope(x), of_frequency(x)

    for audio in (jnp.zeros(64), click, jnp.full(64, 1e-40)):
        assert np.isfinite(gradients(audio)).all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="channels of the filter"):
        filters.all_pole(jnp.zeros((2, 9)), jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match="channels of the filter"):
        filters.sosfilt(jnp.zeros((3, 1, 6)), jnp.zeros((2, 9)))
    with pytest.raises(ValueError, match="method must be one of"):
        filters.convolve(jnp.zeros(9), jnp.ones(3), method="slow")


@pytest.mark.parametrize(("clips", "order"), [(0, 2), (0, 3), (1, 0)])
def test_nothing_is_filtered_too(clips, order):
    """No clip, or no coefficient."""
    args = jnp.zeros((clips, 9)), jnp.zeros(order)
    y, past = jax.eval_shape(filters.all_pole, *args)
    assert (y.shape, past.shape) == ((clips, 9), (clips, order))


@pytest.mark.parametrize(("audio_axes", "taps_axes"), [((), (3,)), ((3,), ()), ((2, 1), (1, 3))])
def test_short_and_long_filters_have_the_same_gradients(audio_axes, taps_axes, x64):
    rng = np.random.default_rng(0)
    audio, taps = (
        jnp.asarray(rng.standard_normal((*s, n))) for s, n in ((audio_axes, 10), (taps_axes, 3))
    )
    with jax.numpy_rank_promotion("allow"):
        gradients = {
            method: jax.grad(
                lambda a, t, m=method: jnp.sum(filters.convolve(a, t, method=m)[0] ** 2), (0, 1)
            )(audio, taps)
            for method in ("direct", "fft")
        }
    for direct, fft in zip(gradients["direct"], gradients["fft"], strict=True):
        np.testing.assert_allclose(direct, fft, rtol=1e-9, atol=1e-9)
