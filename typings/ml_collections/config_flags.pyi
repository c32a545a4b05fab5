"""Flags that read configs; untyped in the library too."""

from typing import Any

def __getattr__(name: str) -> Any: ...
