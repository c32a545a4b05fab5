"""Synthesisers are held to the contract, and the vocoder to what it hears and says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics import Parameter, synth, testing
from physics.synth import source_filter

pytestmark = pytest.mark.usefixtures("compiled_quickly")


HARMONIC = synth.HarmonicNoise(
    sample_rate_hz=8000, hop_samples=16, n_harmonics=7, n_noise_bands=9, reverb_s=0.005
)
VOCODER = synth.ChannelVocoder(sample_rate_hz=8000, hop_samples=20, n_bands=5, min_hz=200, n_fft=64)
# What its base class does, and what the other synthesiser shows already: 10 s of compilation.
SHARED = (testing.check_batch, testing.check_purity, testing.check_controls_padding)


@pytest.mark.slow
@pytest.mark.parametrize("check", testing.SYNTHESISER_CHECKS, ids=lambda check: check.__name__)
def test_partials_of_their_own(check):
    check(dataclasses.replace(HARMONIC, own_amplitudes=True))


@pytest.mark.parametrize("check", testing.SYNTHESISER_CHECKS, ids=lambda check: check.__name__)
def test_harmonic_noise(check):
    check(HARMONIC)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, marks=[pytest.mark.slow] * (check in SHARED))
        for check in testing.SYNTHESISER_CHECKS
    ],
    ids=lambda check: check.__name__,
)
def test_vocoder(check):
    check(VOCODER)


def test_partials_alone_need_no_key():
    model = synth.HarmonicNoise(8000, hop_samples=16, n_harmonics=3, n_noise_bands=0)
    assert set(model.control_sizes) == {"f0_hz", "amplitude", "harmonics"}
    given = {"f0_hz": jnp.full((1, 4), 200.0), "amplitude": jnp.zeros((1, 4))}
    audio, state = model.apply({}, given | {"harmonics": jnp.zeros((1, 4, 3))})
    assert np.any(audio)
    assert set(state) == {"tones"}


def test_controls_along_frequency_say_where_they_lie():
    f0_hz = jnp.array([[100.0, 0.0], [900.0, 250.0]])
    places = HARMONIC.places_hz(f0_hz)
    sizes = HARMONIC.control_sizes
    assert {name: x.shape for name, x in places.items()} == {
        name: (2, 2, sizes[name]) for name in ("harmonics", "noise")
    }
    np.testing.assert_allclose(places["harmonics"][1, 1], 250 * np.arange(1, 8))
    np.testing.assert_allclose(places["noise"][0, 0], np.linspace(0, 4000, 9))
    assert VOCODER.places_hz(f0_hz) == {}


def test_partials_with_amplitudes_of_their_own_do_not_share():
    model = dataclasses.replace(HARMONIC, own_amplitudes=True, n_noise_bands=0, reverb_s=0)
    f0_hz = jnp.full((1, 8), 1500.0)
    given = {"f0_hz": f0_hz, "amplitude": jnp.zeros((1, 8)), "harmonics": jnp.zeros((1, 8, 7))}
    louder = given | {"harmonics": given["harmonics"].at[..., 0].add(1.0)}
    before, after = (np.asarray(model.harmonic_part(g)[0])[0, 64:] for g in (given, louder))
    wave = np.exp(2j * np.pi * 1500 / 8000 * np.arange(before.size))
    # Amplitudes, by partial; of the seven only two are below half the sample rate.
    parts = [[2 * abs(np.mean(x * wave**k)) for k in (1, 2)] for x in (before, after)]
    expected = 2 * (1 / (1 + np.exp(2.0))) ** np.log(10)
    np.testing.assert_allclose(parts[0], expected, rtol=1e-4)
    assert parts[1][1] == pytest.approx(expected, rel=1e-4)
    assert parts[1][0] == pytest.approx(2 * (1 / (1 + np.exp(1.0))) ** np.log(10), rel=1e-4)
    assert not np.any(model.harmonic_part(given | {"f0_hz": 0 * f0_hz})[0])


@pytest.mark.parametrize("own", [False, True])
def test_one_partial_is_a_tone(own):
    model = dataclasses.replace(
        HARMONIC, n_harmonics=1, n_noise_bands=0, reverb_s=0, own_amplitudes=own
    )
    given = {"f0_hz": jnp.full((2, 8), 1000.0), "amplitude": jnp.zeros((2, 8))}
    audio, _ = model.apply({}, given | {"harmonics": jnp.zeros((2, 8, 1))})
    wave = np.exp(2j * np.pi * 1000 / 8000 * np.arange(64))
    found = 2 * np.abs(np.asarray(audio)[:, 64:] @ wave) / 64
    raw = -2.0 if own else 0.0
    np.testing.assert_allclose(found, 2 * (1 / (1 + np.exp(-raw))) ** np.log(10), rtol=1e-4)


@dataclasses.dataclass(frozen=True)
class Buzz(synth.Synthesiser):
    """A synthesiser that breaks no rule: a level, smoothed a little, of a fixed wave."""

    hop_samples: int = 8  # type: ignore[misc]
    broken: str = ""

    @property
    def control_sizes(self):
        return {"level": 1, "tint": 2}

    @property
    def needs_key(self):
        return False

    def specs(self):
        return {"gain": Parameter("1", 0.1, 9.0, "Gain.", "None.", "log_logit")}

    def init(self, key):
        return self.raw({"gain": 1.0})

    def init_state(self, batch_shape):
        return jnp.zeros((batch_shape, 1))

    def apply(self, params, inputs, state=None, lengths=None):
        if self.broken == "missing":
            inputs = {"level": jnp.zeros(inputs["tint"].shape[:2])} | inputs
        controls = self.checked(inputs)
        heard, mask = self.heard(controls, lengths)
        if self.broken == "padding":
            heard = {"level": jnp.nan_to_num(controls["level"]), "tint": heard["tint"]}
            heard["level"] = heard["level"] + jnp.nanmean(controls["level"])
        level = heard["level"] + heard["tint"].sum(-1)
        state = jnp.zeros_like(level[:, :1]) if state is None else state.astype(level.dtype)
        level = (level + jnp.concatenate([state, level[:, :-1]], 1)) / 2
        state = heard["level"][:, -1:] + heard["tint"].sum(-1)[:, -1:]
        match self.broken:
            case "streaming":
                state = jnp.zeros_like(state)
            case "gradient":
                level = jax.lax.stop_gradient(level)
            case "silence":
                level = jnp.sqrt(level**2)
        level = level * self.physical(params)["gain"]
        wave = jnp.asarray(np.cos(np.arange(self.hop_samples)), level.dtype)
        audio = (level[..., None] * wave[None, None]).reshape(level.shape[0], -1)
        if self.broken == "short":
            audio = audio[:, 1:]
        return self.told(audio, mask), state


@pytest.mark.parametrize("check", testing.SYNTHESISER_CHECKS, ids=lambda check: check.__name__)
def test_nothing_is_found_where_nothing_is_wrong(check):
    check(Buzz())


BROKEN = {
    "short": (testing.check_sound, r"Sound of 1 frames is \[3, num_samples = 8\]"),
    "missing": (testing.check_sound, "Controls without level are refused"),
    "padding": (testing.check_controls_padding, "beyond a clip's length"),
    "streaming": (testing.check_controls_streaming, "Pieces give what the whole gives"),
    "gradient": (testing.check_controls_gradients, "must equal central differences"),
    "silence": (testing.check_hostile_controls, "for controls of 0 must be finite"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_found(broken):
    check, rule = BROKEN[broken]
    with pytest.raises(AssertionError, match=rule):
        check(Buzz(broken=broken))


def test_pulses_are_the_sum_of_all_partials():
    angle = np.linspace(-3.1, 3.1, 501)
    for f0_hz in (50.0, 441.0, 2000.0):
        k = np.arange(1, np.ceil(8000 / f0_hz))
        wanted = 2 * np.sqrt(f0_hz / 16000) * np.cos(angle[:, None] * k).sum(1)
        got = source_filter.pulse_train(
            jnp.asarray(angle, jnp.float32), jnp.full(501, f0_hz), 16000
        )
        np.testing.assert_allclose(got, wanted, atol=1e-3 * np.abs(wanted).max())


def test_filters_of_minimum_phase_have_the_spectrum_and_no_delay():
    hz = np.linspace(0, 1, 129)
    power = np.exp(np.cos(3 * hz))[None]
    taps = source_filter.minimum_phase(jnp.asarray(power, jnp.float32), 256, 128)
    np.testing.assert_allclose(np.abs(np.fft.rfft(taps, 256)) ** 2, power, rtol=1e-3)
    assert np.argmax(np.abs(taps)) == 0
    roots = np.roots(np.asarray(taps[0, :12], np.float64))
    assert np.abs(roots).max() < 1


@pytest.fixture(scope="module")
def vocoder():
    return synth.ChannelVocoder(
        sample_rate_hz=16000, hop_samples=160, n_bands=32, min_hz=80, window_s=0.03
    )


@pytest.mark.parametrize("f0_hz", [0.0, 150.0])
def test_the_vocoder_says_what_it_hears(f0_hz, vocoder):
    """Bands of its sound are those it was asked for, within 2 dB: hiss and buzz alike."""
    params, n_frames = vocoder.init(), 50
    shape = -50 + 12 * np.sin(np.linspace(0, 7, 32))
    controls = {
        "f0_hz": jnp.full((1, n_frames), f0_hz, jnp.float32),
        "bands_db": jnp.broadcast_to(jnp.asarray(shape, jnp.float32), (1, n_frames, 32)),
        "key": jax.random.key(0),
    }
    audio, _ = vocoder.apply(params, controls)
    heard = vocoder.analyse(params, audio)[0, 10:-10]
    assert heard.shape == (n_frames - 20, 32)
    levels = 10 * np.log10(np.mean(10 ** (np.asarray(heard) / 10), axis=0))
    hz = np.asarray(vocoder.channel_frequencies_hz(params))
    # Below a few partials a band holds one of them or none.
    there = hz > (2000 if f0_hz else 200)
    assert np.abs(levels - shape)[there].max() < 2.0


def test_the_vocoder_hears_an_instant_when_it_is(vocoder):
    """A click sounds loudest in the frame at whose end it is, or beside it."""
    audio = jnp.zeros((1, 160 * 40)).at[0, 160 * 20].set(1.0)
    loudest = np.argmax(vocoder.analyse(vocoder.init(), audio)[0], axis=0)
    hz = np.asarray(vocoder.channel_frequencies_hz(vocoder.init()))
    assert np.all(np.abs(loudest - 19)[hz > 300] <= 1)


def test_all_of_the_vocoder_can_be_tuned(vocoder):
    params = vocoder.init()
    audio = 0.1 * jax.random.normal(jax.random.key(1), (1, 3200))
    f0_hz = jnp.full((1, 20), 120.0)

    @jax.jit
    @jax.grad
    def slopes(params):
        controls = {"bands_db": vocoder.analyse(params, audio), "f0_hz": f0_hz}
        sound, _ = vocoder.apply(params, controls | {"key": jax.random.key(0)})
        return jnp.mean(jnp.abs(jnp.fft.rfft(sound)))

    for path, slope in jax.tree_util.tree_leaves_with_path(slopes(params)):
        assert np.all(np.isfinite(slope)), path
        assert np.count_nonzero(slope) == 32, path
