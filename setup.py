"""Exists to compile the native CAR-FAC kernel while the package is installed, if it can be.

Everything else about the package is in pyproject.toml. Without a compiler, or on a system that the
kernel was not written for, the installation goes on and XLA computes in the kernel's place.
"""

import concurrent.futures
import importlib.util
import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import PlatformError

_SOURCES = Path("physics/carfac/native")
_FLAGS = [
    "-std=c++17",
    "-O2",
    "-g0",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    # Every fused multiply-add is written out: the compiler must not make some of its own, or the
    # same clip would have other bits in another place of its batch.
    "-ffp-contract=off",
    "-Wno-psabi",
    "-Wno-maybe-uninitialized",  # false alarms in GCC's own AVX-512 headers
]
_AVX2 = ["-mavx2", "-mfma"]
_AVX512 = [*_AVX2, "-mavx512f", "-mavx512vl", "-mavx512dq"]
# Set by `make sanitize`: further flags for compiler and linker.
_MORE = os.environ.get("HYBRID_NATIVE_FLAGS", "").split()


class BuildKernels(build_ext):
    """Compiles each source for its own instruction set; which one runs is chosen at run time."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles and links; a failure is reported by setuptools and is not fatal."""
        if sys.platform not in ("linux", "darwin"):
            raise PlatformError(f"the native kernel is for Linux and macOS, not {sys.platform}")
        jaxlib = importlib.util.find_spec("jaxlib")
        folders = jaxlib.submodule_search_locations if jaxlib is not None else None
        headers = Path(next(iter(folders or ["."]))) / "include"
        if not (headers / "xla" / "ffi" / "api" / "ffi.h").exists():
            # Of the errors that an optional extension may end with, unlike RuntimeError.
            raise PlatformError("the native kernel needs jaxlib's headers; install jaxlib first")
        flags = {"isa_baseline.cc": [], "ffi.cc": ["-isystem", str(headers)]}
        if sys.platform == "linux" and platform.machine() in ("x86_64", "AMD64"):
            flags["isa_avx2.cc"] = _AVX2
            flags["isa_avx512.cc"] = _AVX512
            flags["ffi.cc"] += ["-DHYBRID_WITH_AVX2", "-DHYBRID_WITH_AVX512"]
        # The slowest first, as many at a time as there are processors.
        order = sorted(flags, key=lambda source: -len(flags[source]))
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda source: self._compile(source, flags[source]), order))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            [path for paths in objects for path in paths],
            str(target),
            extra_postargs=_MORE,
            target_lang="c++",
        )

    def _compile(self, source: str, flags: list[str]) -> list[str]:
        return self.compiler.compile(
            [str(_SOURCES / source)],
            output_dir=self.build_temp,
            extra_postargs=[*_FLAGS, *flags, *_MORE],
        )


setup(
    ext_modules=[
        Extension(
            "physics.carfac.native._kernels",
            sources=sorted(str(path) for path in _SOURCES.glob("*.cc")),
            depends=sorted(str(path) for path in _SOURCES.glob("*.h")),
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
