"""torchaudio's Python layer works with and without its compiled extension."""

import subprocess
import sys

import pytest

from data.torchaudio_compat import load_torchaudio

PROGRAM = """
import sys
import data, data.audio_files, data.speech_commands
early = {name.split(".")[0] for name in sys.modules} & {"torchaudio", "jax", "jaxlib", "flax"}
assert not early, early  # the package takes neither long to import nor workers into danger
from data.torchaudio_compat import load_torchaudio
{preparation}
torchaudio = load_torchaudio()
assert sys.modules["torchaudio"] is torchaudio
import torchaudio.functional, torch
print(torchaudio.functional.resample(torch.ones(100), 100, 50).shape[0])
print(getattr(sys.modules["torchaudio._extension"], "_IS_TORCHAUDIO_EXT_AVAILABLE"))
"""
# An extension that cannot load, and one that is not there: the second needs no help of ours.
BROKEN = "import torch; torch.ops.load_library = lambda path: (_ for _ in ()).throw(OSError('no'))"
ABSENT = "import pathlib; pathlib.Path.glob = lambda self, pattern: iter(())"


def test_resampling_and_data_sets_are_there():
    torchaudio = load_torchaudio()
    assert load_torchaudio() is torchaudio
    assert callable(torchaudio.functional.resample)
    assert callable(torchaudio.datasets.SPEECHCOMMANDS)


@pytest.mark.parametrize("preparation", [BROKEN, ABSENT], ids=["broken", "absent"])
def test_without_the_extension(preparation):
    program = PROGRAM.replace("{preparation}", preparation)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["50", "False"], done.stderr


def test_what_needs_the_extension_says_so():
    torchaudio = load_torchaudio()
    import torch

    if sys.modules["torchaudio._extension"]._IS_TORCHAUDIO_EXT_AVAILABLE:
        pytest.skip("the extension loads on this machine")
    with pytest.raises(RuntimeError, match="compiled extension, which cannot load"):
        torchaudio.functional.forced_align(
            torch.zeros(1, 4, 3), torch.ones(1, 2, dtype=torch.int32)
        )
