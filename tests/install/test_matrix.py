"""Wheel, source distribution, editable; isolated or not; with a compiler and without: all install.

An environment of its own for each, which takes the dependencies from this one: what is tested is
that the package comes in, with a native kernel where it can have one, and computes.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import venv

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("hybrid", "physics", "learners", "data", "experiments")
HAS_COMPILER = bool(shutil.which("g++") or shutil.which("clang++"))
NO_COMPILER = {"CC": "/no/such/compiler", "CXX": "/no/such/compiler"}
# Whether it is there and right is the question here, not whether it is fast.
COMPILED_QUICKLY = {"HYBRID_NATIVE_FLAGS": "-O0"}
COMPUTE = """
    import logging
    logging.basicConfig(format="said: %(message)s")
    import numpy as np, physics
    from physics.carfac import Carfac, native
    ear = Carfac(8000, min_pole_hz=2000)
    for _ in range(2):
        nap, _ = ear.apply(ear.init(), np.ones((1, 9), np.float32))
    assert nap.shape[:2] == (1, 9) and np.isfinite(nap).all()
    print(native.reason_unavailable() is None, physics.__file__)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*command, cwd, **environment):
    options = {"capture_output": True, "text": True, "timeout": 1500, "cwd": cwd}
    options["env"] = os.environ | environment
    result = subprocess.run([str(part) for part in command], check=False, **options)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    return result


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of the sources without what was compiled, so that nothing lands in the checkout."""
    tree = tmp_path_factory.mktemp("sources") / "tree"
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "clips")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    return tree


@pytest.fixture
def python(tmp_path):
    """Python of an environment that has no package of its own, and this one's to fall back on."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env").glob("lib/*/site-packages")
    shutil.rmtree(site / "setuptools", ignore_errors=True)  # the old one that ensurepip brings
    for stale in site.glob("setuptools-*"):
        shutil.rmtree(stale)
    # A line of a .pth file adds a folder, but not the .pth files (editable installs) in it.
    (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def make(form, python, sources, folder, options, environment):
    """Installs from the sources, or from a wheel or source distribution that is made of them."""
    tree = folder / "tree"
    shutil.copytree(sources, tree)
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--no-deps", "--ignore-installed", *options]
    if form == "editable":
        run(*install, "-e", tree, cwd=folder, **environment)
        return
    if form == "wheel":
        build = [*pip, "wheel", "--no-deps", *options, "-w", folder]
        run(*build, tree, cwd=folder, **environment)
        (made,) = folder.glob("*.whl")
        environment = NO_COMPILER  # a wheel needs none
    else:
        code = f"from setuptools import build_meta; build_meta.build_sdist({str(folder)!r})"
        run(sys.executable, "-c", code, cwd=tree)
        (made,) = folder.glob("*.tar.gz")
    shutil.rmtree(tree)
    run(*install, made, cwd=folder, **environment)


@pytest.mark.parametrize("form", ["wheel", "sdist", "editable"])
@pytest.mark.parametrize("isolated", [True, False], ids=["isolated", "not_isolated"])
@pytest.mark.parametrize("compiler", [True, False], ids=["compiler", "no_compiler"])
def test_install(tmp_path, python, sources, form, isolated, compiler):
    if compiler and not HAS_COMPILER:
        pytest.skip("there is no compiler here")
    options = [] if isolated else ["--no-build-isolation"]
    make(form, python, sources, tmp_path, options, COMPILED_QUICKLY if compiler else NO_COMPILER)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "compute.py").write_text(textwrap.dedent(COMPUTE))
    result = run(python, "compute.py", cwd=elsewhere, JAX_PLATFORMS="cpu")
    found, where = result.stdout.split()
    assert found == str(compiler)
    assert tmp_path in pathlib.Path(where).parents, "another installation was used"
    warnings = [line for line in result.stderr.splitlines() if line.startswith("said: ")]
    if compiler:
        assert warnings == []
    else:
        assert len(warnings) == 1, "said once"
        assert "was not compiled" in warnings[0]
        assert "install a C++17 compiler" in warnings[0]
