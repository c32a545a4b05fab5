"""Imports torchaudio on machines where its compiled part cannot load, as on CPU builds of torch.

torchaudio's wheels are compiled against CUDA builds of torch, and `import torchaudio` fails where
that library cannot be loaded. Its data sets, resampling and filters are plain Python and need
nothing compiled: torchaudio itself takes that road when it was built without the extension. Here
the extension is declared absent in the same way, and only after it has failed to load.
"""

import functools
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

_EXTENSION = "torchaudio._extension"


@functools.cache
def load_torchaudio() -> types.ModuleType:
    """Returns the module torchaudio, its compiled part declared absent if that cannot load.

    Nothing happens before the first call; where the extension loads, this is a plain import.

    Raises:
        ImportError: torchaudio is not installed, or not usable even without its extension.
    """
    try:
        return importlib.import_module("torchaudio")
    except OSError as error:  # the dynamic loader could not find or link the library
        reason = str(error)
    # Submodules of the attempt that failed would otherwise be mixed with those of the next.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]
    sys.modules[_EXTENSION] = _absent_extension(reason)
    try:
        return importlib.import_module("torchaudio")
    except Exception as error:  # of whatever fails inside torchaudio on import
        del sys.modules[_EXTENSION]
        raise ImportError(
            "torchaudio's Python layer must import without its compiled extension; it did not "
            f"({error}), and the extension fails with: {reason}. Install the torchaudio that "
            "constraints.txt names"
        ) from error


def _absent_extension(reason: str) -> types.ModuleType:
    """Returns what torchaudio's extension module holds in a build that has no extension."""

    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def fail(*args: Any, **kwargs: Any) -> Any:
            del args, kwargs
            raise RuntimeError(
                f"{function.__name__} needs torchaudio's compiled extension, which cannot load "
                f"here: {reason}"
            )

        return fail

    def no_library(lib: str) -> bool:
        del lib
        return False

    module = types.ModuleType(_EXTENSION, "Stands for an extension that cannot load.")
    contents: dict[str, object] = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "_load_lib": no_library,
        "fail_if_no_align": fail_if_no_align,
    }
    vars(module).update(contents)
    return module
