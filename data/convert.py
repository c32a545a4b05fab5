"""Exists to make torch tensors of arrays from elsewhere, and to say what of them was copied."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from data.batches import PADDING_ID
from data.loader import LoaderError

Batch = dict[str, torch.Tensor]

_SAMPLED = 4096  # values of an array that its digest looks at


class IterableError(LoaderError, ValueError):
    """Batches from elsewhere break a rule; the message says which, and where."""


def as_tensor(name: str, value: Any) -> tuple[torch.Tensor, str | None]:
    """Returns an array as a tensor in CPU memory: float32, int32 or bool, shared if it can be.

    Args:
        name: of the array, for messages.
        value: a torch tensor, a NumPy array, numbers, or anything that speaks DLPack or
            `__array__`, such as arrays of JAX and TensorFlow.

    Returns:
        The tensor, and why it is a copy, if it is one.

    Raises:
        IterableError: it holds no real numbers, or integers beyond 32 bits.
    """
    reason = None
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        if tensor.device.type != "cpu":
            tensor, reason = tensor.cpu(), f"transfer from {tensor.device}"
    else:
        tensor = _by_dlpack(value)
        if tensor is None:
            tensor, reason = _by_numpy(name, value)
    if tensor.dtype == torch.bool or tensor.dtype in (torch.float32, torch.int32):
        return tensor, reason
    if tensor.dtype.is_complex:
        raise _not_numbers(name, str(tensor.dtype).removeprefix("torch."))
    target = torch.float32 if tensor.dtype.is_floating_point else torch.int32
    converted = tensor.to(target)
    wraps = tensor.dtype == torch.uint64 and bool((tensor.long() < 0).any())
    if target == torch.int32 and (
        wraps or not torch.equal(converted.to(torch.int64), tensor.long())
    ):
        raise IterableError(
            f"batches hold int32; {name!r} holds a number out of its range; give smaller numbers, "
            "or float32"
        )
    given, got = (str(t.dtype).removeprefix("torch.") for t in (tensor, converted))
    return converted, f"dtype: {given} became {got}; give {got}"


def complete(
    raw: Any, batch_size: int, *, first_id: int, where: str
) -> tuple[Batch, dict[str, str]]:
    """Returns a batch with all that every batch has, and with all of its rows.

    Args:
        raw: a dict of arrays [rows, ...]; `lengths`, `ids` and `weights` may be left out.
        batch_size: rows to fill it up to, by zeros: `weights` 0, `ids` -1.
        first_id: from which `ids` are counted, where there are none.
        where: which batch this is, for messages.

    Returns:
        Tensors [batch_size, ...], and why each that was copied was copied.

    Raises:
        IterableError: it is no dict of arrays, or they differ in rows, or have too many.
    """
    if not isinstance(raw, Mapping):
        raise IterableError(
            f"a batch is a dict of arrays; {where} is a {type(raw).__name__}; give "
            "{'audio': ..., 'labels': ...}"
        )
    batch, copied = {}, {}
    for name, value in raw.items():
        batch[name], reason = as_tensor(name, value)
        if reason is not None:
            copied[name] = reason
    rows = {value.shape[0] if value.ndim else 0 for value in batch.values()}
    num_rows = max(rows, default=0)
    if rows != {num_rows} or not 0 < num_rows <= batch_size:
        found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in batch.items())
        raise IterableError(
            f"all arrays of a batch must have the same number of rows, 1 to batch_size={batch_size}"
            f"; {where} has {found or 'none'}; batch the iterable so, or set config.batch_size"
        )
    if "lengths" not in batch and "audio" in batch and batch["audio"].ndim > 1:
        batch["lengths"] = torch.full((num_rows,), batch["audio"].shape[1], dtype=torch.int32)
    batch.setdefault("ids", torch.arange(first_id, first_id + num_rows, dtype=torch.int32))
    batch.setdefault("weights", torch.ones(num_rows))
    if num_rows < batch_size:
        for name, value in batch.items():
            batch[name] = torch.zeros((batch_size, *value.shape[1:]), dtype=value.dtype)
            batch[name][:num_rows] = value
            copied[name] = f"rows: {num_rows} were filled up to {batch_size}"
        batch["ids"][num_rows:] = PADDING_ID
    return batch, copied


def digest(batch: Mapping[str, torch.Tensor]) -> int:
    """Returns a number that tells one batch from another, by some thousands of its values."""
    value = 0
    for name in sorted(batch):
        flat = batch[name].reshape(-1)
        some = flat[:: max(1, flat.numel() // _SAMPLED)].contiguous().numpy()
        value = zlib.crc32(f"{name} {tuple(batch[name].shape)}".encode(), value)
        value = zlib.crc32(some.tobytes(), value)
    return value


def _by_dlpack(value: Any) -> torch.Tensor | None:
    """Returns a tensor over the same memory; None where that cannot be."""
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
        return None
    try:
        return torch.from_dlpack(value)
    except (RuntimeError, BufferError, TypeError, ValueError):
        # Of another device, or of a type that torch does not have: NumPy may still read it.
        if not hasattr(value, "__array__"):
            raise
        return None


def _by_numpy(name: str, value: Any) -> tuple[torch.Tensor, str | None]:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise _not_numbers(name, str(array.dtype))
    reason = None
    if not array.dtype.isnative:
        reason = f"byte order: {array.dtype.str} is not this machine's"
        array = array.astype(array.dtype.newbyteorder("="))
    elif any(stride < 0 for stride in array.strides):
        reason = f"strides: {array.strides} bytes run backwards"
        array = array.copy()
    elif not array.flags.writeable:
        reason = "read-only: torch shares no memory that must not be written to"
        array = array.copy()
    return torch.from_numpy(array), reason


def _not_numbers(name: str, dtype: str) -> IterableError:
    return IterableError(
        f"batches hold real numbers; {name!r} holds {dtype}; leave it out, or give an index instead"
    )
