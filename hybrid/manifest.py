"""The contents list of a checkpoint: format, leaves, and a checksum for every file and itself."""

import concurrent.futures
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

FORMAT_VERSION = 3

_NAME = "manifest.json"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """There is no such checkpoint."""


class CheckpointDamaged(CheckpointError):
    """A file of the checkpoint is missing, truncated or changed."""


class CheckpointMismatch(CheckpointError):
    """The checkpoint holds other leaves than the state asked for."""


def write_manifest(path: Path, step: int, leaves: dict[str, Any]) -> None:
    """Lists and checksums all files below `path`, then has everything there synced to the disk.

    Args:
        path: directory of a checkpoint, complete but for its manifest.
        step: steps done.
        leaves: `{dotted name: {"shape": [...], "dtype": "..."}}`, in the order in which they are
            stored, which the checksum covers.
    """
    files = sorted(item for item in path.rglob("*") if item.is_file())
    manifest = {
        "format": FORMAT_VERSION,
        "step": step,
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "orbax-checkpoint")
        },
        "leaves": leaves,
        "files": {str(item.relative_to(path)): _describe_file(item) for item in files},
    }
    manifest["sha256"] = _own_checksum(manifest)
    (path / _NAME).write_bytes(_text(manifest))
    # All at once, so that the file system's journal commits once and not a file at a time.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(_sync, [path, *path.rglob("*")]))


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads and checks the manifest and every file that it lists.

    Args:
        path: directory of a checkpoint.

    Raises:
        CheckpointDamaged: the manifest or a file is missing, truncated or changed; all are named.
        CheckpointError: a newer release wrote it.
    """
    try:
        text = (path / _NAME).read_bytes()
        manifest = json.loads(text.decode())
        # JSON reads the same from many texts; only one of them was written.
        as_written = text == _text(manifest)
        checksum = manifest.pop("sha256")
        if checksum != _own_checksum(manifest):
            raise ValueError("its checksum is wrong")
        _check_form(manifest)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointDamaged(f"checkpoint {path} is damaged:\n  {_NAME}: {error}") from error
    if manifest["format"] > FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {path} has format {manifest['format']}, and this release reads up to "
            f"{FORMAT_VERSION}: install the release that wrote it, or a newer one"
        )
    problems = [] if as_written else [f"  {_NAME}: it is not as it was written"]
    problems += [
        f"  {name}: {problem}"
        for name, expected in manifest["files"].items()
        if (problem := _check_file(path / name, expected))
    ]
    if problems:
        raise CheckpointDamaged("\n".join([f"checkpoint {path} is damaged:", *problems]))
    return manifest


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _text(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1) + "\n").encode()


def _own_checksum(manifest: dict[str, Any]) -> str:
    # The order of the leaves says where each is; up to format 2 the checksum did not see it.
    text = json.dumps(manifest, sort_keys=manifest["format"] in (1, 2))
    return hashlib.sha256(text.encode()).hexdigest()


def _check_form(manifest: dict[str, Any]) -> None:
    """Raises a ValueError unless what every release relies on is there."""
    version = manifest["format"]
    if not isinstance(version, int) or version < 1:
        raise ValueError(f"its format must be 1 or more, got {version!r}")
    for name, kind in (("step", int), ("leaves", dict), ("files", dict)):
        if not isinstance(manifest.get(name), kind):
            raise ValueError(
                f"it must have {name!r}, a {kind.__name__}; got {manifest.get(name)!r}"
            )


def _describe_file(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": checksum}


def _check_file(path: Path, expected: dict[str, Any]) -> str | None:
    try:
        if not path.is_file():
            return "missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{path.stat().st_size} bytes, not {expected['bytes']}"
        return None if _describe_file(path) == expected else "its checksum is wrong"
    except OSError as error:
        return f"cannot be read: {error}"
