"""Hands torch batches to JAX by DLPack, and proves by their addresses that nothing was copied."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.dlpack
import numpy as np
import torch

ALIGNMENT = 64  # bytes; what XLA's CPU runtime asks of memory that is not its own


@dataclasses.dataclass(frozen=True)
class BridgeReport:
    """What crossing the bridge cost.

    Attributes:
        aliased_bytes: bytes that JAX reads where torch wrote them.
        copied_bytes: bytes that were copied.
        reasons: why, for each array that was copied.
    """

    aliased_bytes: int
    copied_bytes: int
    reasons: Mapping[str, str]

    def with_earlier(
        self, copied: Mapping[str, str], arrays: Mapping[str, jax.Array]
    ) -> "BridgeReport":
        """Returns this report with copies that were made before the bridge, and why."""
        size = sum(arrays[name].nbytes for name in copied if name not in self.reasons)
        reasons = {**self.reasons, **copied}
        return BridgeReport(self.aliased_bytes - size, self.copied_bytes + size, reasons)


def to_jax(
    batch: Mapping[str, torch.Tensor | np.ndarray],
) -> tuple[dict[str, jax.Array], BridgeReport]:
    """Returns a batch on JAX's default device, as arrays that share its memory where they can.

    An aliased array keeps the memory alive for as long as JAX needs it; the batch itself may be
    dropped. It must not be written to any more, and the arrays must never be donated.

    Args:
        batch: torch tensors or NumPy arrays in CPU memory, by name. For a device with memory of its
            own everything is copied, and reported so.

    Returns:
        The arrays, and the report. An array counts as aliased only if it has the same address.
    """
    device = _default_device()
    share = device.platform == "cpu"
    arrays, reasons = {}, {}
    aliased = copied = 0
    for name, value in batch.items():
        tensor = _as_tensor(value)
        if share:
            arrays[name], reason = _alias(tensor)
        else:
            arrays[name] = jax.device_put(tensor.numpy(), device)
            reason = f"transfer to {device}"
        if reason is None:
            aliased += arrays[name].nbytes
        else:
            copied += arrays[name].nbytes
            reasons[name] = reason
    return arrays, BridgeReport(aliased, copied, reasons)


def _alias(tensor: torch.Tensor) -> tuple[jax.Array, str | None]:
    """Returns a tensor as an array in CPU memory, and why it had to be copied, if it had to."""
    source = tensor if tensor.is_contiguous() else tensor.contiguous()
    # Without `copy=False`: the report must say why a copy was made, not fail.
    array = jax.dlpack.from_dlpack(source)
    if array.unsafe_buffer_pointer() == tensor.data_ptr() or not tensor.numel():
        return array, None
    return array, _reason(tensor, array)


def _default_device() -> Any:
    """Returns the device that JAX puts new arrays on."""
    chosen = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return jax.devices(chosen)[0] if chosen is None or isinstance(chosen, str) else chosen


def _as_tensor(value: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Returns a tensor over the same memory that may leave torch's bookkeeping."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    return torch.from_numpy(value)


def _reason(tensor: torch.Tensor, array: jax.Array) -> str:
    """Returns why an array does not lie where the tensor does."""
    given, got = str(tensor.dtype).removeprefix("torch."), str(array.dtype)
    if given != got:
        return f"dtype: {given} became {got}; collate {got}"
    if not tensor.is_contiguous():
        return (
            f"strides: {tuple(tensor.stride())} of shape {tuple(tensor.shape)} are not contiguous"
        )
    if offset := tensor.data_ptr() % ALIGNMENT:
        power = math.gcd(offset, ALIGNMENT)
        return f"alignment: the address is a multiple of {power} bytes, not of {ALIGNMENT}"
    return "unknown: JAX copied a contiguous and aligned array"
