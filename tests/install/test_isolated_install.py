"""Installation as users do it, into empty environments; minutes long, and needs a package index."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SHORT = (
    "--config=tones",
    "--workdir=run",
    "--config.num_steps=2",
    "--config.batch_size=8",
    "--config.eval_every_steps=0",
    "--config.checkpoint_every_steps=2",
    "--config.log_every_steps=1",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


NO_COMPILER = {"CC": "/no/such/compiler", "CXX": "/no/such/compiler"}
HAS_COMPILER = bool(shutil.which("c++") or shutil.which("g++") or shutil.which("clang++"))


def run(*command, cwd, **environment):
    command = [str(part) for part in command]
    options = {"cwd": cwd, "capture_output": True, "text": True, "timeout": 1500}
    options["env"] = os.environ | environment
    result = subprocess.run(command, check=False, **options)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    return result.stdout


@pytest.fixture
def empty(tmp_path):
    """An environment with nothing but pip, and a copy of the sources as a clone has them."""
    venv.create(tmp_path / "env", with_pip=True)
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    for name in tracked:
        target = tmp_path / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def install(empty, *arguments, **environment):
    pip = [empty / "env" / "bin" / "python", "-m", "pip"]
    run(
        *pip,
        "install",
        "-c",
        ROOT / "constraints.txt",
        *arguments,
        cwd=empty / "tree",
        **environment,
    )


def check(empty, native=HAS_COMPILER):
    """Trains two steps and evaluates, by the console scripts, far from the sources.

    Returns where the packages were found.
    """
    scripts, elsewhere = empty / "env" / "bin", empty / "elsewhere"
    frozen = run(scripts / "pip", "freeze", cwd=elsewhere)
    assert "nvidia" not in frozen
    assert "jax==0.10.1" in frozen
    run(scripts / "hybrid-train", *SHORT, cwd=elsewhere)
    run(scripts / "hybrid-evaluate", "--workdir=run", cwd=elsewhere)
    rows = (elsewhere / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows]
    code = (
        "import hybrid, physics.carfac.native as native;"
        "print(native.reason_unavailable() is None, hybrid.__file__)"
    )
    found, where = run(scripts / "python", "-c", code, cwd=elsewhere).split()
    assert found == str(native)
    return pathlib.Path(where)


def test_a_plain_install(empty):
    install(empty, ".")
    assert empty / "env" in check(empty).parents


def test_a_built_wheel(empty):
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", empty, ".", cwd=empty / "tree")
    (wheel,) = empty.glob("*.whl")
    shutil.rmtree(empty / "tree")
    (empty / "tree").mkdir()
    install(empty, wheel)
    assert empty / "env" in check(empty).parents


def test_an_editable_install(empty):
    install(empty, "-e", ".")
    assert empty / "tree" in check(empty).parents


def test_an_install_without_a_compiler(empty):
    install(empty, ".", **NO_COMPILER)
    assert empty / "env" in check(empty, native=False).parents
