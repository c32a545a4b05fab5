"""A sound enhanced in pieces equals the sound enhanced as a whole, whatever the cuts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrid.enhance_stream import EnhanceStream
from hybrid.state import Branch, HybridState
from hybrid.tasks_enhance import Enhancement
from learners import GRU, MaskNet
from physics.carfac import Carfac
from physics.spectra import LogMel, Stft

RATE_HZ = 8000
LONGEST = 3601
CAUSAL = MaskNet(121, width=6, dilations=(1, 2))


def started(physics, learner):
    """A task and a state, whose statistics are not those of a new network."""
    task = Enhancement(physics, learner)
    batch = {
        "audio": jnp.zeros((1, 800)),
        "clean": jnp.zeros((1, 800)),
        "lengths": jnp.full(1, 800, jnp.int32),
    }
    physics_params, learner_params, collections = jax.jit(task.init)(jax.random.key(0), batch)
    collections = jax.tree.map(lambda x: x * 2 - 1.5, collections)
    branches = Branch(physics_params, ()), Branch(learner_params, ())
    return task, HybridState(jnp.int32(0), jax.random.key(0), *branches, collections)


@functools.partial(jax.jit, static_argnums=0)
def enhanced(task, state, batch):
    return task.enhance(state.physics.params, state.learner.params, state.collections, batch)[0]


def as_whole(task, state, audio):
    """The estimate in one go; padded to one length, which changes nothing, for one program."""
    padded = np.pad(audio, ((0, 0), (0, LONGEST - audio.shape[1])))
    batch = {
        "audio": jnp.asarray(padded),
        "lengths": jnp.full(audio.shape[0], audio.shape[1], jnp.int32),
        "weights": jnp.ones(audio.shape[0]),
    }
    return enhanced(task, state, batch)[:, : audio.shape[1]]


def in_pieces(stream, audio, sizes):
    given, start = [], 0
    for size in sizes:
        given.append(stream.push(audio[:, start : start + size]))
        start += size
    given += [stream.push(audio[:, start:]), stream.finish()]
    return np.concatenate(given, axis=1)


def sound(channels, samples):
    rng = np.random.default_rng(samples)
    return rng.uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("physics", "learner"),
    [
        (LogMel(sample_rate_hz=RATE_HZ, n_mels=6), CAUSAL),
        (LogMel(sample_rate_hz=RATE_HZ, n_mels=6), CAUSAL.clone(causal=False)),
        (Stft(sample_rate_hz=RATE_HZ, hop_s=0.03), CAUSAL),
        (Stft(sample_rate_hz=RATE_HZ, hop_s=0.005), CAUSAL),
        (Carfac(sample_rate_hz=RATE_HZ, hop_s=0.01), CAUSAL),
    ],
    ids=["causal", "both ways", "slow front end", "fast front end", "carfac"],
)
def test_pieces_equal_the_whole(physics, learner):
    task, state = started(physics, learner)
    # Short of a window, of a piece, of two pieces; cut and not cut at frames.
    for samples in (1, 79, 800, 1111, LONGEST):
        audio = sound(2, samples)
        whole = as_whole(task, state, audio)
        stream = EnhanceStream(task, state, channels=2, piece_frames=10)
        result = in_pieces(stream, audio, [1, 500, 0, 803])
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, whole, atol=2e-5)


def test_nothing_gives_nothing():
    stream = EnhanceStream(*started(LogMel(sample_rate_hz=RATE_HZ, n_mels=6), CAUSAL))
    with pytest.raises(ValueError, match=r"channels of the sound, 1; got \[2, 30\]: give"):
        stream.push(sound(2, 30))
    assert stream.finish().shape == (1, 0)
    for late in (stream.finish, lambda: stream.push(sound(1, 30))):
        with pytest.raises(ValueError, match="takes nothing after finish"):
            late()


def test_memory_does_not_grow_with_the_sound():
    parts = started(LogMel(sample_rate_hz=RATE_HZ, n_mels=6), CAUSAL)
    stream = EnhanceStream(*parts, piece_frames=10)
    kept = []
    for _ in range(12):
        stream.push(sound(1, 1000))
        arrays = (stream._waiting, stream._frames, stream._spectra, stream._heard, stream._carried)
        kept.append(sum(0 if array is None else array.nbytes for array in arrays))
    assert max(kept[6:]) <= max(kept[:6])


def test_what_cannot_be_streamed_is_refused():
    task, state = started(LogMel(sample_rate_hz=RATE_HZ, n_mels=6), CAUSAL)
    unaware = Enhancement(task.physics, GRU(2))
    with pytest.raises(ValueError, match="GRU has none: add them, or train learners:MaskNet"):
        EnhanceStream(unaware, state)

    class Waiting(LogMel):
        causal = False
        not_causal_because = "It waits for the end."

    waiting = Enhancement(Waiting(sample_rate_hz=RATE_HZ, n_mels=6), CAUSAL)
    with pytest.raises(
        ValueError, match=r"a causal front end; got a Waiting. It waits for the end"
    ):
        EnhanceStream(waiting, state)
