"""State leaves as plain arrays and back: typed PRNG keys, exact dtypes, exact names."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore

from hybrid.manifest import CheckpointDamaged, CheckpointError, CheckpointMismatch
from hybrid.paths import named_leaves

Tree = Any


def unique_leaves(tree: Tree) -> dict[str, Any]:
    """Returns `{dotted name: leaf}` in flattening order.

    Raises:
        CheckpointError: two leaves have the same name.
    """
    leaves, count = named_leaves(tree), len(jax.tree.leaves(tree))
    if len(leaves) != count:
        raise CheckpointError(
            f"leaf names must differ, but {count} leaves have {len(leaves)} names: is there a dot "
            "in a dictionary key?"
        )
    return leaves


def encode(name: str, leaf: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Returns the array to store for a leaf, and the leaf's description in the manifest.

    Raises:
        CheckpointError: the leaf is no array of numbers, or of ones that cannot be stored, or it
            has been donated.
    """
    if not isinstance(leaf, jax.Array | np.ndarray):
        raise CheckpointError(
            f"a state holds arrays, but {name} is {leaf!r}, a {type(leaf).__name__}: make it one "
            "with jnp.asarray, or save it in extras"
        )
    if isinstance(leaf, jax.Array) and leaf.is_deleted():
        raise CheckpointError(
            f"a state is saved before its arrays are donated, but {name} has been deleted: save "
            "the state that the step returned"
        )
    if isinstance(leaf, np.ndarray):
        leaf = leaf.astype(leaf.dtype.newbyteorder("="), copy=False)
    description = describe(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        description["key_impl"] = str(jax.random.key_impl(leaf))
        leaf = jax.random.key_data(leaf)
        description["stored"] = describe(leaf)
    array = np.asarray(leaf)
    try:
        tensorstore.dtype(array.dtype)
        storable = array.dtype.kind not in "OSUMm" and array.dtype.names is None
        storable = storable and not isinstance(leaf, np.ma.MaskedArray)
    except (TypeError, ValueError):
        storable = False
    if not storable:
        raise CheckpointError(
            f"a state holds numbers, but {name} is a {type(leaf).__name__} of {array.dtype}: make "
            "it an array of a type that checkpoints store, or save it in extras"
        )
    return array, description


def pack(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns `{dtype: one flat array}`, all that have this dtype one behind the other.

    What is packed is copied: a save needs as much memory again as the state has.
    """
    by_dtype: dict[str, list[np.ndarray]] = {}
    for array in arrays.values():
        if array.size:
            by_dtype.setdefault(str(array.dtype), []).append(array.reshape(-1))
    return {
        dtype: parts[0] if len(parts) == 1 else np.concatenate(parts)
        for dtype, parts in by_dtype.items()
    }


def unpack(
    packed: Mapping[str, np.ndarray], descriptions: Mapping[str, dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Takes apart what `pack` made; arrays without elements are left out.

    Args:
        packed: flat arrays by dtype.
        descriptions: of the leaves, from `encode`, in the order in which they were packed.

    Raises:
        CheckpointDamaged: they need another number of elements than there are.
    """
    arrays: dict[str, np.ndarray] = {}
    used = dict.fromkeys(packed, 0)
    for name, description in descriptions.items():
        stored = description.get("stored", description)
        dtype, shape = stored["dtype"], tuple(stored["shape"])
        if count := math.prod(shape):
            begin = used.get(dtype, 0)
            used[dtype] = begin + count
            part = packed.get(dtype, np.empty(0))[begin : begin + count]
            if part.size == count:
                arrays[name] = part.reshape(shape)
    found = {dtype: array.size for dtype, array in packed.items()}
    if used != found:
        raise CheckpointDamaged(f"its leaves need {used} elements, and it has {found}")
    return arrays


def describe(leaf: Any) -> dict[str, Any]:
    """Returns the shape and dtype of a leaf, concrete or abstract, as the manifest has them."""
    return {
        "shape": list(jnp.shape(leaf)),
        "dtype": str(getattr(leaf, "dtype", type(leaf).__name__)),
    }


def decode(name: str, array: np.ndarray | None, description: dict[str, Any], like: Any) -> Any:
    """Returns the leaf that was stored.

    Args:
        name: its dotted name, for errors.
        array: what was stored; None for an array without elements, and for no other.
        description: its entry in the manifest.
        like: an array or `jax.ShapeDtypeStruct` that says where it goes: NumPy stays NumPy, and
            what is committed to a device or has a sharding is put there.

    Raises:
        CheckpointDamaged: there is no array, although the leaf has elements.
        CheckpointMismatch: JAX here cannot hold the dtype.
    """
    shape, dtype = tuple(description["shape"]), description["dtype"]
    if array is None and 0 not in shape:
        raise CheckpointDamaged(f"{name}, {show(description)}, is not among what was stored")
    if "key_impl" in description:
        # `like` has the same dtype, and no key is made of no numbers.
        leaf = (
            jnp.empty(shape, like.dtype)
            if array is None
            else jax.random.wrap_key_data(jnp.array(array), impl=description["key_impl"])
        )
    else:
        array = np.zeros(shape, jnp.dtype(dtype)) if array is None else array
        # Copies: nothing else may refer to a buffer that the first step will donate, and a leaf
        # that is kept must not keep all those that were packed with it.
        leaf = array.copy() if isinstance(like, np.ndarray) else jnp.array(array, copy=True)
    if (str(leaf.dtype), leaf.shape) != (dtype, shape):
        raise CheckpointMismatch(
            f"{name} was saved as {show(description)}, and JAX here makes it "
            f"{leaf.dtype}{list(leaf.shape)}: 64-bit types need jax.enable_x64(True)"
        )
    committed = getattr(like, "committed", isinstance(like, jax.ShapeDtypeStruct))
    sharding = getattr(like, "sharding", None) if committed else None
    return leaf if sharding is None else jax.device_put(leaf, sharding)


def require_match(path: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """Compares the leaves of a checkpoint with those asked for.

    Args:
        path: the checkpoint, for the error.
        saved: descriptions from the manifest.
        asked: the leaves of the state asked for, by name.

    Raises:
        CheckpointMismatch: names every leaf that is missing, left over, or of other shape or dtype.
    """
    wanted = {name: describe(leaf) for name, leaf in asked.items()}
    lines = []
    for name in sorted(saved | wanted):
        if name not in saved:
            lines.append(f"  {name}: not in the checkpoint, asked for {show(wanted[name])}")
        elif name not in wanted:
            lines.append(f"  {name}: saved {show(saved[name])}, not asked for")
        elif show(saved[name]) != show(wanted[name]):
            lines.append(f"  {name}: saved {show(saved[name])}, asked for {show(wanted[name])}")
    if lines:
        raise CheckpointMismatch(
            f"checkpoint {path} is of another state; leaves that differ: {len(lines)}\n"
            + "\n".join(lines)
            + "\nNothing was restored. Use the config (physics, learner, optimizers, precision) "
            "that it was written with, or another work directory; a new run takes what fits by "
            "--init_from and --init_leaves."
        )


def show(description: dict[str, Any]) -> str:
    """Writes a leaf's type as `float32[71,3]`."""
    return f"{description['dtype']}[{','.join(map(str, description['shape']))}]"
