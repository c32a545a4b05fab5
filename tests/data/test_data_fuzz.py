"""Whatever bytes a recording holds: an error that names it, or finite audio; never a crash.

FUZZ_INPUTS=100000 in the environment tries more than the default, and prints how many.
"""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
INPUTS = int(os.environ.get("FUZZ_INPUTS", "400"))


def test_damaged_recordings_are_refused_or_read(tmp_path):
    script = pathlib.Path(__file__).parent / "run_audio_fuzz.py"
    seed = "FUZZ_INPUTS" in os.environ
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(int(seed)), str(INPUTS)],
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    kept = tmp_path / "input"
    assert done.returncode == 0, (done.stderr, kept.read_bytes() if kept.exists() else "no input")
    ends = json.loads(done.stdout.splitlines()[-1])
    print(f"damaged recordings tried: {INPUTS}; {ends}")
    assert ends["refused"] + ends["read"] == INPUTS
    assert ends["refused"] > INPUTS / 2
    assert {"wav", "flac", "ogg"} <= set(ends["formats"])
