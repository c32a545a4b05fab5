"""Every front end trains the spoken tones, swapped by flags alone."""

import json
import subprocess
import sys

import pytest

from experiments import front_ends
from experiments.configs import tones
from hybrid.build import build

SMALL = ("num_steps=2", "batch_size=8", "log_every_steps=1", "eval_every_steps=2")


@pytest.mark.parametrize("name", front_ends.FRONT_ENDS)
def test_fits_the_demo(name):
    """Shapes, protocols and the gradient's trace, without compiling anything."""
    experiment = build(front_ends.variant(tones.get_config(), name))
    assert experiment.physics.sample_rate_hz == 8000


@pytest.mark.parametrize("name", ["log-mel", "LEAF (Gabor, PCEN)"])
def test_by_flags(name, tmp_path):
    target, kwargs = front_ends.FRONT_ENDS[name]
    command = [sys.executable, "-m", "experiments.train", "--config=tones"]
    command += [f"--workdir={tmp_path}", f"--config.physics.target={target}"]
    command += [f"--physics_kwargs={json.dumps(kwargs)}"]
    command += [f"--config.{field}" for field in (*SMALL, "physics_optimizer.start_step=0")]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=280)
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2]


@pytest.mark.slow  # ten compilations of a training step
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", front_ends.FRONT_ENDS)
def test_trains(name, tmp_path):
    config = tones.get_config()
    config.num_steps, config.batch_size, config.data.num_workers = 3, 8, 0
    config.log_every_steps, config.physics_optimizer.start_step = 1, 0
    (result,) = front_ends.compare(config, tmp_path, [name])
    assert 0 <= result["accuracy"] <= 1
    assert result["step_ms"] > 0
    assert result["learns"] >= 0
    assert name in (tmp_path / "front_ends.md").read_text()


def test_an_unknown_name(tmp_path):
    with pytest.raises(ValueError, match="--only takes names of CAR-FAC, STFT"):
        front_ends.compare(tones.get_config(), tmp_path, ["FFT"])
