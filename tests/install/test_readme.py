"""The code in the README runs as it stands there, from an empty folder."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return [code for tag, code in BLOCK.findall(README) if tag == language]


def python_block(start):
    (code,) = [code for code in blocks("python") if start in code]
    return code


def run(folder, *command):
    """Runs Python in a folder from which the packages are found, and nothing else of the tree."""
    environment = os.environ | {
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONWARNINGS": "ignore",
    }
    result = subprocess.run(
        [sys.executable, *command],
        check=False,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.mark.timeout(600)
def test_the_tour(tmp_path):
    tour = python_block("import hybrid")
    statements = [line for line in tour.splitlines() if line and not line.startswith("#")]
    assert len(statements) <= 26
    (tmp_path / "tour.py").write_text(tour)
    audio, features, moved = run(tmp_path, "tour.py").splitlines()[:3]
    assert audio == "(8, 3400) 0", "shape, and no byte copied"
    assert features.startswith("(8, 42, ")
    assert moved.startswith("4 {'name': 'car.ohc_health'")


@pytest.mark.timeout(600)
def test_the_cochlea(tmp_path):
    (tmp_path / "cochlea.py").write_text(python_block("analysis, thresholds"))
    bm, *_, images = run(tmp_path, "cochlea.py").splitlines()
    assert bm == "(1, 2205, 1, 71) (1, 2205, 1, 71, 3)"
    assert images.startswith("(1, 13, 1, ")


@pytest.mark.parametrize("file", ["my_ears.py", "my_nets.py"])
def test_the_text_names_the_files(file):
    assert f"`{file}`" in README


@pytest.mark.timeout(600)
def test_an_ear_and_a_network_from_outside(tmp_path):
    """The command of the README, shortened to a few steps; swapped by import path alone."""
    (tmp_path / "my_ears.py").write_text(python_block("class GaussianBands"))
    (tmp_path / "my_nets.py").write_text(python_block("class Gru"))
    (tmp_path / "test_my_ear.py").write_text(python_block("import CHECKS"))
    run(tmp_path, "-m", "pytest", "-q", "test_my_ear.py")
    (command,) = [c for c in blocks("sh") if "my_ears:GaussianBands" in c]
    line = command.replace("\\\n", " ").split("\n")[1]
    python, *arguments = shlex.split(line)
    assert python == "python"
    short = ["num_steps=3", "batch_size=8", "data.num_workers=1", "log_every_steps=1"]
    run(tmp_path, *arguments, *(f"--config.{field}" for field in short))
    assert (tmp_path / "runs" / "mine" / "metrics.jsonl").exists()
