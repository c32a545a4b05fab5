"""Checkpoints that are complete or invisible, checked by checksum, restored whole or not at all.

On disk, below one directory (format 3):

    step_000000040/
      manifest.json    format version, step, every leaf (shape, dtype), every file (size, SHA-256),
                       and a SHA-256 of itself
      extras.json      what the caller saves beside the state
      state/           Orbax: for each dtype one flat array, the leaves in the manifest's order

A checkpoint is written under a hidden name, synced, and renamed, so a process killed at any moment
leaves only whole ones in sight. What is left of the others goes at the next save.

Format 1 had an array for each leaf under its name, and is still read. TensorStore 0.1 leaks memory
for each array that is saved, which a long run of many leaves and checkpoints would feel. The
manifest's checksum did not see the order of the leaves in format 2, which is read too.
"""

import contextlib
import json
import logging as python_logging
import os
import re
import shutil
import urllib.parse
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from hybrid.disk import DiskFullError
from hybrid.leaves import decode, encode, pack, require_match, unique_leaves, unpack
from hybrid.manifest import (
    FORMAT_VERSION,
    CheckpointDamaged,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    read_manifest,
    write_manifest,
)
from hybrid.retention import to_keep
from hybrid.workdir import sync_directory

__all__ = [
    "FORMAT_VERSION",
    "CheckpointDamaged",
    "CheckpointError",
    "CheckpointMismatch",
    "CheckpointNotFound",
    "Checkpoints",
]

_NAME = re.compile(r"step_(\d{9,})")
_PARTIAL, _DISCARDED, _REPLACED = ".partial-", ".discarded-", ".replaced-"
# Beside the arrays: metadata, and the room that the file system itself wants.
_SPARE_BYTES = 4 << 20


class NoRoomError(CheckpointError, DiskFullError):
    """A checkpoint was not begun, for the disk has no room for the whole of it."""


Tree = Any
T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run.

    Any process may read; only the one that has claimed the work directory may save. Files are
    touched from the first `save` on, never by construction.
    """

    def __init__(self, directory: str | Path, keep: int = 3, keep_every: int = 0) -> None:
        """Names the directory.

        Args:
            directory: where the checkpoints are; made by the first `save`.
            keep: how many of the newest to keep, >= 1.
            keep_every: those of every so many steps are kept too; 0: none are.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1, or a run could not resume; got {keep}")
        self.directory = Path(directory).absolute()
        self.keep, self.keep_every = keep, keep_every
        with _quiet_orbax():
            # Compression takes three times as long as the disk, and weights hardly shrink.
            handler = ocp.PyTreeCheckpointHandler(use_zarr3=True, use_compression=False)
            self._orbax = ocp.Checkpointer(handler)

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        matches = (_NAME.fullmatch(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, without checking its contents."""
        return max(self.steps(), default=None)

    def save(
        self,
        step: int,
        state: Tree,
        extras: dict[str, Any],
        protected: Collection[int] = (),
    ) -> None:
        """Writes a checkpoint; when this returns it is on the disk, whole.

        Rows and files that must not be missing after a resume from here have to be flushed before.
        Later checkpoints, left by a run that went back, are removed; of the others those stay that
        `hybrid.retention` names.

        Args:
            step: steps done; one checkpoint a step, an older one of that step is replaced.
            state: a tree of arrays (typed PRNG keys and zero-size arrays too), whole on this host.
            extras: anything JSON can hold. Tuples come back as lists.
            protected: steps whose checkpoints stay whatever their age.

        Raises:
            CheckpointError: a leaf or an extra that cannot be saved, or, as a `DiskFullError` too,
                no space on the disk. The checkpoints from before are untouched.
            OSError: the disk failed; likewise.
        """
        leaves = {name: encode(name, leaf) for name, leaf in unique_leaves(state).items()}
        text = _dump_extras(extras)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.recover()
        self._sweep()
        self._require_space(sum(array.nbytes for array, _ in leaves.values()) + len(text), step)
        partial, replaced = self.directory / f"{_PARTIAL}{step}-{os.getpid()}", None
        try:
            partial.mkdir()
            (partial / "extras.json").write_text(text, encoding="utf-8")
            self._write_state(partial / "state", {k: array for k, (array, _) in leaves.items()})
            write_manifest(partial, step, {k: entry for k, (_, entry) in leaves.items()})
            replaced = self._hide(step, _REPLACED)
            partial.rename(self._path(step))
            sync_directory(self.directory)
        except BaseException as error:
            with contextlib.suppress(OSError):
                if replaced is not None:
                    replaced.rename(self._path(step))
            shutil.rmtree(partial, ignore_errors=True)
            error.add_note(f"checkpoint of step {step} was not written; {self._last()}")
            raise
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)
        self.discard_after(step)
        steps = self.steps()
        kept = to_keep(steps, newest=self.keep, every=self.keep_every, protected=protected)
        for old in set(steps) - kept:
            self._discard(old)

    def restore(self, like: Tree, step: int | None = None) -> tuple[Tree, dict[str, Any]]:
        """Reads a checkpoint into the structure of `like`, bit for bit.

        Args:
            like: a state of the same leaves, concrete or abstract (`jax.eval_shape`); its values
                are not looked at. A leaf committed to a device, or with a sharding, comes back so.
            step: which one; None for the newest intact one. Damaged ones are then passed over with
                a warning: call `discard_after` with the restored step before training goes on.

        Returns:
            The state and the extras that were saved.

        Raises:
            CheckpointNotFound: there is none.
            CheckpointDamaged: the one asked for, or every one, is damaged.
            CheckpointMismatch: its leaves are not those of `like`; all that differ are named.
            CheckpointError: it was written by a newer release.
        """
        return self._choose(lambda chosen: self._read(chosen, like), step)[1]

    def read_leaves(
        self, step: int | None = None
    ) -> tuple[int, dict[str, tuple[np.ndarray | None, dict[str, Any]]]]:
        """Reads every leaf by its name, whatever the model that it belongs to.

        Args:
            step: which checkpoint; None for the newest intact one.

        Returns:
            The step, and for each leaf what `hybrid.leaves.decode` takes: the array that was stored
            (None if it has no elements), and its description.

        Raises:
            CheckpointNotFound: there is none.
            CheckpointDamaged: the one asked for, or every one, is damaged.
            CheckpointError: it was written by a newer release.
        """

        def read(chosen: int) -> dict[str, tuple[np.ndarray | None, dict[str, Any]]]:
            manifest = self.verify(chosen)
            stored = self._stored(chosen, manifest)
            return {name: (stored.get(name), entry) for name, entry in manifest["leaves"].items()}

        return self._choose(read, step)

    def extras(self, step: int) -> dict[str, Any]:
        """Returns what was saved beside the state, without checking that it is undamaged."""
        return json.loads((self._path(step) / "extras.json").read_text(encoding="utf-8"))

    def verify(self, step: int) -> dict[str, Any]:
        """Checks the checksum of every file of a checkpoint and returns its manifest.

        Raises:
            CheckpointNotFound: there is none at this step.
            CheckpointDamaged: a file is missing, truncated or changed, all are named; or it is of
                another step.
            CheckpointError: it was written by a newer release.
        """
        path = self._path(step)
        if not path.is_dir():
            raise CheckpointNotFound(
                f"no checkpoint of step {step} in {self.directory}: there are {self.steps()}"
            )
        manifest = read_manifest(path)
        if manifest["step"] != step:
            raise CheckpointDamaged(
                f"checkpoint {path} is damaged: it was written at step {manifest['step']}"
            )
        return manifest

    def discard_after(self, step: int) -> None:
        """Removes checkpoints later than `step`, which a run that went back to it will rewrite."""
        for later in self.steps():
            if later > step:
                logging.info("removing checkpoint %d, later than step %d", later, step)
                self._discard(later)

    def recover(self) -> None:
        """Puts back what a process that was killed in the middle of a replacement had taken away.

        For the process that writes here; call it before asking what there is.
        """
        if not self.directory.is_dir():
            return
        for path in self.directory.glob(f"{_REPLACED}*"):
            name = path.name.removeprefix(_REPLACED).rpartition("-")[0]
            if _NAME.fullmatch(name) and not (self.directory / name).exists():
                path.rename(self.directory / name)
                sync_directory(self.directory)
            else:
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Frees Orbax's resources. Nothing is pending: `save` returns when all is written."""
        self._orbax.close()

    def _path(self, step: int) -> Path:
        return self.directory / f"step_{step:09d}"

    def _last(self) -> str:
        last = self.latest_step()
        return "there is none yet" if last is None else f"the last complete one is of step {last}"

    def _choose(self, read: Callable[[int], T], step: int | None) -> tuple[int, T]:
        """Returns `read(step)`, or of the newest checkpoint that can be read, with its step."""
        if step is not None:
            return step, read(step)
        damaged: dict[int, CheckpointError] = {}
        # Listed anew each time: a run under way may remove one that a reader has just chosen.
        while candidates := [found for found in self.steps() if found not in damaged]:
            newest = max(candidates)
            try:
                result = read(newest)
            except (CheckpointDamaged, CheckpointNotFound) as error:
                damaged[newest] = error
                logging.warning("%s", error)
                continue
            if damaged:
                logging.warning("%s: using step %d instead", self.directory, newest)
            return newest, result
        if damaged:
            raise CheckpointDamaged(
                f"no intact checkpoint in {self.directory}:\n"
                + "\n".join(str(error) for error in damaged.values())
            )
        raise CheckpointNotFound(
            f"no checkpoint in {self.directory}: train first, or look elsewhere"
        )

    def _stored(self, step: int, manifest: dict[str, Any]) -> dict[str, np.ndarray]:
        """Reads the arrays of a checkpoint that has been verified, by the names of the leaves."""
        leaves = manifest["leaves"]
        if all(0 in entry["shape"] for entry in leaves.values()):
            return {}
        with _quiet_orbax():
            stored = self._orbax.restore(self._path(step) / "state")
        if manifest["format"] == 1:
            # Orbax takes "/" for a level of its own.
            named = {name: stored.get(urllib.parse.quote(name, safe="")) for name in leaves}
            arrays = {name: array for name, array in named.items() if array is not None}
        else:
            try:
                arrays = unpack(stored, leaves)
            except CheckpointDamaged as error:
                raise CheckpointDamaged(
                    f"checkpoint {self._path(step)} is damaged: {error}"
                ) from error
        missing = [n for n, entry in leaves.items() if n not in arrays and 0 not in entry["shape"]]
        if missing:
            raise CheckpointDamaged(
                f"checkpoint {self._path(step)} is damaged: nothing is stored of "
                f"{', '.join(missing)}"
            )
        return arrays

    def _read(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
        manifest = self.verify(step)
        path = self._path(step)
        saved, asked = manifest["leaves"], unique_leaves(like)
        require_match(path, saved, asked)
        stored = self._stored(step, manifest)
        leaves = [decode(name, stored.get(name), saved[name], asked[name]) for name in asked]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), self.extras(step)

    def _write_state(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        # Orbax refuses arrays without elements; the manifest alone says all about those.
        if packed := pack(arrays):
            with _quiet_orbax():
                self._orbax.save(path, ocp.args.PyTreeSave(packed))

    def _require_space(self, num_bytes: int, step: int) -> None:
        free, needed = shutil.disk_usage(self.directory).free, num_bytes + _SPARE_BYTES
        if free < needed:
            raise NoRoomError(
                f"the checkpoint of step {step} needs {needed / 1e6:.0f} MB, {self.directory} has "
                f"{free / 1e6:.0f} MB free; {self._last()}. Free some space and run the same "
                "command again"
            )

    def _hide(self, step: int, prefix: str = _DISCARDED) -> Path | None:
        """Takes a checkpoint out of sight, all of it at once; returns where its files are now."""
        path = self._path(step)
        hidden = self.directory / f"{prefix}{path.name}-{os.getpid()}"
        shutil.rmtree(hidden, ignore_errors=True)
        try:
            return path.rename(hidden)
        except FileNotFoundError:
            return None

    def _discard(self, step: int) -> None:
        if (hidden := self._hide(step)) is not None:
            shutil.rmtree(hidden, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes what killed processes left behind."""
        for path in self.directory.iterdir():
            if path.name.startswith((_PARTIAL, _DISCARDED)):
                shutil.rmtree(path, ignore_errors=True)


def _dump_extras(extras: dict[str, Any]) -> str:
    try:
        return json.dumps(extras, indent=1)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"extras hold what JSON can hold: {error}") from error


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Drops Orbax's progress notes, some thirty lines a save, from the log; warnings stay."""
    logger = logging.get_absl_logger()

    def keep(record: python_logging.LogRecord) -> bool:
        return record.levelno >= python_logging.WARNING or "orbax" not in record.pathname

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
