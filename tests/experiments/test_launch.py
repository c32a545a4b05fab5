"""The command line, in processes of its own: train, resume, swap, evaluate, and what is refused."""

import json
import os
import pathlib
import subprocess
import sys

from experiments.launch import CONFIG_FOLDER

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(p.stem for p in CONFIG_FOLDER.glob("*.py") if p.stem != "__init__")
TOYS = ROOT / "tests" / "hybrid"
TOY = [
    "--config=tones",
    "--config.batch_size=8",
    "--config.data.num_workers=0",
    "--config.physics_optimizer.start_step=0",
    "--config.physics.target=toy_parts:ToyEar",
    '--physics_kwargs={"bands": 4}',
    "--config.learner.target=toy_parts:ToyNet",
]


def command(name, *args):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(TOYS)])}
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *args],
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_train_resume_and_evaluate_with_parts_of_ones_own(tmp_path):
    workdir = f"--workdir={tmp_path}"
    first = command("train", *TOY, workdir, "--config.num_steps=2")
    assert first.returncode == 0, first.stderr
    config = json.loads((tmp_path / "config.json").read_text())
    # The kwargs of CAR-FAC went with it.
    assert config["physics"] == {"target": "toy_parts:ToyEar", "kwargs": {"bands": 4}}
    again = command("train", *TOY, workdir, "--config.num_steps=4")
    assert again.returncode == 0, again.stderr
    assert "from step 2" in again.stderr
    assert "step 4/4" in again.stderr
    other = command("train", *TOY, workdir, "--config.seed=1")
    assert other.returncode != 0
    assert "seed: 0 -> 1" in other.stderr
    assert "Traceback" not in other.stderr
    result = command("evaluate", workdir, "--trust=toy_parts")
    assert result.returncode == 0, result.stderr
    assert "accuracy" in result.stdout
    saved = json.loads((tmp_path / "evaluate_test.json").read_text())
    assert saved["num_examples"] == 114
    assert (tmp_path / "confusion_test.png").stat().st_size > 1000


def test_an_unknown_field_is_named_with_its_neighbours(tmp_path):
    for argument, message in (
        ("--config.physics_optimizer.learnin_rate=1", "did you mean learning_rate"),
        ("--config.physics.kwargs.bands=4", "--physics_kwargs='{\"bands\": ...}'"),
        ("--config=tonse", f"one of {', '.join(CONFIGS)}; tonse does not exist"),
    ):
        base = [] if argument.startswith("--config=") else ["--config=tones"]
        result = command("train", *base, argument, f"--workdir={tmp_path}")
        assert result.returncode != 0
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_missing_data_root_is_an_error_without_a_stack(tmp_path):
    result = command(
        "train", "--config=keywords", f"--workdir={tmp_path}", f"--config.data.root={tmp_path}/no"
    )
    assert result.returncode != 0
    assert f"{tmp_path}/no" in result.stderr
    assert "Traceback" not in result.stderr
