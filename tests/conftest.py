"""Makes JAX strict, and checks the shapes and types of the packages while they are tested."""

import os

# Read when the libraries load, hence before any import below. The suite is a CPU suite (results
# are compared bit for bit), and torch's own threads would only compete with XLA's.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pathlib
import signal

import jax
import numpy as np
import pytest
import soundfile
from jaxtyping import install_import_hook

# A shell starts what runs in the background deaf to Ctrl-C, and so would be what tests start and
# stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

RATE_HZ = 16_000
WORDS = ("go", "no", "yes")

install_import_hook(["hybrid", "physics", "learners", "data"], "beartype.beartype")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(request, tmp_path_factory):
    """Lets programs that several tests need be compiled once, whichever process runs the tests.

    Commands that tests start do without: one that is killed while it writes leaves a torn entry.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if hasattr(request.config, "workerinput") else base
    (shared / "compiled").mkdir(exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(shared / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@pytest.fixture
def x64():
    """Switches 64-bit types on for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    """A fixed random key."""
    return jax.random.key(0)


@pytest.fixture
def write_clip():
    """Returns a function that writes one second (or less) of noise as a WAV file."""

    def write(
        path: pathlib.Path, samples: int = RATE_HZ, rate_hz: int = RATE_HZ, channels: int = 1
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(sum(path.as_posix().encode()))
        noise = rng.uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)
        soundfile.write(path, noise, rate_hz, subtype="PCM_16")
        return path

    return write


@pytest.fixture
def commands_root(tmp_path, write_clip) -> pathlib.Path:
    """A tree as torchaudio lays out Speech Commands: 3 words by 8 speakers, and two noises."""
    folder = tmp_path / "SpeechCommands" / "speech_commands_v0.02"
    lists = {"validation": [], "testing": []}
    for word in WORDS:
        for speaker in range(8):
            name = f"{word}/{speaker:08x}_nohash_0.wav"
            write_clip(folder / name, samples=RATE_HZ - 1000 * speaker)
            if speaker >= 6:
                lists["validation" if speaker == 6 else "testing"].append(name)
    for split, names in lists.items():
        (folder / f"{split}_list.txt").write_text("".join(f"{name}\n" for name in names))
    for name, samples in (("hum", 3 * RATE_HZ), ("tick", 4000)):
        write_clip(folder / "_background_noise_" / f"{name}.wav", samples=samples)
    return tmp_path


@pytest.fixture
def noisy_root(commands_root, write_clip) -> pathlib.Path:
    """The same tree with three noises more, so that every split may have some of its own."""
    folder = commands_root / "SpeechCommands" / "speech_commands_v0.02" / "_background_noise_"
    for name in ("rain", "saw", "wind"):
        write_clip(folder / f"{name}.wav", samples=RATE_HZ)
    return commands_root
