"""A kernel that was compiled against another jaxlib, or could not be: one message, and XLA."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap

import jaxlib
import pytest

ROOT = pathlib.Path(__file__).parents[2]
HEADERS = pathlib.Path(jaxlib.__file__).parent / "include"
COMPILER = shutil.which("g++") or shutil.which("clang++")
# What the loader looks for, and nothing behind it.
LIBRARY = """
    #include "xla/ffi/api/ffi.h"
    namespace ffi = xla::ffi;
    XLA_FFI_DEFINE_HANDLER(kNothing, [](ffi::AnyBuffer) { return ffi::Error::Success(); },
                           ffi::Ffi::Bind().Arg<ffi::AnyBuffer>());
    extern "C" XLA_FFI_Error* hybrid_carfac_forward(XLA_FFI_CallFrame* f) { return kNothing(f); }
    extern "C" XLA_FFI_Error* hybrid_carfac_backward(XLA_FFI_CallFrame* f) { return kNothing(f); }
    extern "C" int64_t hybrid_carfac_interface() { return INTERFACE; }
"""
COMPUTE = """
    import logging, pathlib, sys
    logging.basicConfig(format="said: %(message)s")
    import numpy as np
    from physics.carfac import Carfac
    from physics.carfac.native import loader
    loader._find = lambda: pathlib.Path(sys.argv[1])
    ear = Carfac(8000, min_pole_hz=2000)
    for _ in range(3):
        nap, _ = ear.apply(ear.init(), np.ones((1, 9), np.float32))
    assert np.isfinite(nap).all()
    try:
        Carfac(8000, min_pole_hz=2000, kernel="native").apply(ear.init(), np.ones((1, 9), "f4"))
    except RuntimeError as error:
        print(error)
"""


def build_library(folder, change=None):
    """Compiles the stand-in with jaxlib's headers, one number in them changed."""
    headers = folder / "include"
    shutil.copytree(HEADERS / "xla" / "ffi", headers / "xla" / "ffi")
    if change:
        file = headers / "xla" / "ffi" / "api" / "c_api.h"
        name, value = change
        text, count = re.subn(rf"#define {name} \d+", f"#define {name} {value}", file.read_text())
        assert count == 1
        file.write_text(text)
    loader = (ROOT / "physics/carfac/native/loader.py").read_text()
    interface = re.search(r"^_INTERFACE = (\d+)", loader, re.MULTILINE)[1]
    (folder / "library.cc").write_text(textwrap.dedent(LIBRARY))
    command = [COMPILER, "-std=c++17", "-O0", "-shared", "-fPIC", "-w", f"-DINTERFACE={interface}"]
    files = ["-I", headers, folder / "library.cc", "-o", folder / "library.so"]
    subprocess.run([*command, *files], check=True)
    return folder / "library.so"


def compute(folder, library):
    (folder / "compute.py").write_text(textwrap.dedent(COMPUTE))
    return subprocess.run(
        [sys.executable, "compute.py", library],
        check=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow  # compiles
@pytest.mark.skipif(COMPILER is None, reason="there is no compiler here")
@pytest.mark.parametrize("change", [("XLA_FFI_API_MAJOR", 7), ("XLA_FFI_API_MINOR", 99)])
def test_headers_of_another_jaxlib(tmp_path, change):
    """The version that XLA asks each handler for does not fit: said once, and XLA computes."""
    result = compute(tmp_path, build_library(tmp_path, change))
    said = [line for line in result.stderr.splitlines() if line.startswith("said: ")]
    assert len(said) == 1, result.stderr
    assert "does not fit this jaxlib" in said[0]
    assert "install the package again" in said[0]
    assert "kernel='xla'" in said[0]
    assert "does not fit this jaxlib" in result.stdout


@pytest.mark.slow  # compiles
@pytest.mark.skipif(COMPILER is None, reason="there is no compiler here")
def test_headers_of_this_jaxlib_fit(tmp_path):
    """The stand-in is refused for its version, and for nothing else."""
    code = (
        "import pathlib, sys; from physics.carfac.native import loader;"
        "loader._find = lambda: pathlib.Path(sys.argv[1]); print(loader.reason_unavailable())"
    )
    library = build_library(tmp_path)
    command = [sys.executable, "-c", code, library]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        command, check=True, env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stdout.strip() == "None"


def build_wheel(folder, stand_in):
    """Builds a wheel, without isolation, by a Python that sees setuptools and perhaps a jaxlib."""
    tree, seen = folder / "tree", folder / "seen"
    for package in ("physics", "hybrid"):
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / package, tree / package, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    seen.mkdir()
    site = pathlib.Path(sysconfig.get_paths()["purelib"])
    for part in (*site.glob("setuptools*"), site / "_distutils_hack"):
        (seen / part.name).symlink_to(part)
    if stand_in:
        (seen / "jaxlib").mkdir()
        (seen / "jaxlib" / "__init__.py").touch()
    result = subprocess.run(
        [sys.executable, "-S", "-c", "from setuptools import build_meta as b; b.build_wheel('.')"],
        check=False,
        cwd=tree,
        # Should it come as far as compiling, no more than that needs to be seen.
        env=os.environ | {"PYTHONPATH": str(seen), "HYBRID_NATIVE_FLAGS": "-fsyntax-only"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = tree.glob("*.whl")
    return wheel, result.stdout + result.stderr


@pytest.mark.parametrize("stand_in", [False, True], ids=["no_jaxlib", "no_headers_in_it"])
def test_without_the_headers_it_installs(tmp_path, stand_in):
    """Where nothing is isolated, and the environment has no jaxlib or one without headers."""
    wheel, said = build_wheel(tmp_path, stand_in)
    assert wheel.stat().st_size
    assert "_kernels" in said
    assert "install jaxlib first" in said
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], check=True, capture_output=True, text=True
    ).stdout
    assert "physics/carfac/native/loader.py" in names
    assert ".so" not in names
