"""What is shipped: a wheel made from the source distribution has all that runs, and no more."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("hybrid", "physics", "learners", "data", "experiments")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def run(*command, **options):
    """Returns the standard output of a command that succeeds."""
    options |= {"capture_output": True, "text": True, "timeout": 240}
    result = subprocess.run(command, check=False, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Source distribution of a copy of the sources, and a wheel of it, made without a compiler.

    That the native kernel is optional is tested so, and a minute of compiling is saved.
    """
    folder = tmp_path_factory.mktemp("build")
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    for package in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / package, folder / "tree" / package, ignore=ignore)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, folder / "tree")
    code = f"from setuptools import build_meta; print(build_meta.build_sdist({str(folder)!r}))"
    name = run(sys.executable, "-c", code, cwd=folder / "tree").splitlines()[-1]
    options = ("--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder / "wheels"))
    no_compiler = os.environ | {"CC": "/no/such/compiler", "CXX": "/no/such/compiler"}
    run(*PIP, "wheel", *options, str(folder / name), env=no_compiler)
    return folder / name, next((folder / "wheels").glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(distributions):
    return distributions[1]


@pytest.fixture(scope="module")
def names(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


def test_every_module_and_every_recording_is_shipped(names):
    modules = {p for package in PACKAGES for p in (ROOT / package).rglob("*.py")}
    corpora = {p for p in (ROOT / "data" / "corpora").rglob("*") if p.is_file()}
    wanted = {p.relative_to(ROOT).as_posix() for p in modules | corpora}
    assert "experiments/configs/tones.py" in wanted
    assert len([p for p in wanted if p.endswith(".ogg")]) == 1158
    assert sorted(wanted - names) == []


def test_the_sources_of_the_native_kernel_are_in_the_source_distribution(distributions):
    with tarfile.open(distributions[0]) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    folder = ROOT / "physics" / "carfac" / "native"
    native = [p for pattern in ("*.cc", "*.h") for p in folder.glob(pattern)]
    assert {p.relative_to(ROOT).as_posix() for p in native} | {"setup.py"} <= packed


def test_nothing_else_is_shipped(names):
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in names if "test" in name.split("/")]


def test_licences_of_code_and_recordings_are_shipped(names):
    licences = [name.split(".dist-info/licenses/")[1] for name in names if "/licenses/" in name]
    assert {"LICENSE", "data/corpora/spoken_tones/LICENSE"} <= set(licences)


def test_the_installed_wheel_runs_away_from_the_sources(wheel, tmp_path):
    """Its files, its configs by name and its console scripts; the dependencies are this one's."""
    site = tmp_path / "site"
    run(*PIP, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    environment |= {"JAX_PLATFORMS": "cpu", "MPLCONFIGDIR": str(tmp_path)}
    code = (
        "import hybrid, physics, learners, data, experiments, data.tones as t;"
        "d = t.SpokenTones(sample_rate_hz=8000).dataset('test');"
        "print(len(d), *{m.__file__ for m in (hybrid, physics, learners, data, experiments)})"
    )
    count, *files = run(sys.executable, "-c", code, cwd=tmp_path, env=environment).split()
    assert int(count) == 114
    assert all(file.startswith(str(site)) for file in files)
    for script in ("hybrid-train", "hybrid-evaluate"):
        command = [sys.executable, str(site / "bin" / script), "--workdir=no_such_run"]
        shown = subprocess.run(
            command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert shown.returncode
        assert "no_such_run" in shown.stderr or "--config" in shown.stderr
        assert "Traceback" not in shown.stderr
