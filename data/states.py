"""Exists to keep the place of an iterable from elsewhere as text, of which reading runs no code."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from data.convert import IterableError


def encoded(state: Any) -> str:
    """Returns a state as text for a checkpoint.

    Args:
        state: numbers, text, bytes, None, tensors and arrays, in lists, tuples and dicts.

    Raises:
        IterableError: it holds something else.
    """
    try:
        text = json.dumps(state)
        if json.loads(text) == state:
            return f"json:{text}"
    except (TypeError, ValueError):
        pass
    return f"tagged:{json.dumps(_tagged(state))}"


def decoded(text: str) -> Any:
    """Inverse of `encoded`."""
    kind, _, content = text.partition(":")
    found = json.loads(content)
    return found if kind == "json" else _plain(found)


def _tagged(value: Any) -> Any:
    """Returns a value as JSON can hold it; what JSON has no name for is a dict of one tag."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_tagged(item) for item in value]
    if type(value) is tuple:
        return {"tuple": [_tagged(item) for item in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_tagged(name), _tagged(item)] for name, item in value.items()]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, torch.Tensor):
        return {"tensor": _tagged(value.detach().cpu().numpy())}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        content = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": [value.dtype.str, list(value.shape), content]}
    raise IterableError(
        "the state of an iterable is kept as numbers, text, bytes, arrays, lists, tuples and "
        f"dicts; got a {type(value).__name__}; return such from state_dict or get_state"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "tuple":
        return tuple(_plain(item) for item in content)
    if tag == "dict":
        return {_plain(name): _plain(item) for name, item in content}
    if tag == "bytes":
        return base64.b64decode(content)
    if tag == "tensor":
        return torch.from_numpy(np.array(_plain(content)))
    dtype, shape, text = content
    return np.frombuffer(base64.b64decode(text), np.dtype(dtype)).reshape(shape).copy()
