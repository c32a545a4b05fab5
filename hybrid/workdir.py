"""A work directory belongs to one config and to one living process; both are checked here."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import socket
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from hybrid.config import complete_config

CONFIG_NAME = "config.json"
LOCK_NAME = ".lock"

# Fields that say how long a run goes on and how it is watched, not what it computes.
RUNTIME_FIELDS = frozenset(
    {
        "num_steps",
        "log_every_steps",
        "eval_every_steps",
        "checkpoint_every_steps",
        "keep_checkpoints",
        "checkpoint_keep_every_steps",
        "checkpoint_best_metric",
        "checkpoint_best_mode",
        "early_stop_evals",
        "data.root",
        "data.num_workers",
        "data.timeout_s",
        "nonfinite.policy",
        "nonfinite.limit",
        "nonfinite.keep",
    }
)

_BRANCHES = ("physics_optimizer", "learner_optimizer")
_ABSENT = "(absent)"
_PARTIAL = ".partial"
_STALE_S = 60.0


class WorkdirError(RuntimeError):
    """A work directory cannot be used as it is."""


class WorkdirConflict(WorkdirError):
    """The work directory holds a run with another config."""


class WorkdirBusy(WorkdirError):
    """Another living process uses the work directory."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """The right of this process to write into a work directory, until released or dead.

    Attributes:
        workdir: the directory.
        fresh: True where no config was found there.
        changes: accepted differences from the config found there, one `field: old -> new` each.
        config: the config, as JSON would give it back.
    """

    workdir: Path
    fresh: bool
    changes: tuple[str, ...]
    config: Mapping[str, Any]
    # A bare descriptor: a file object would drop the lock whenever the claim is garbage-collected.
    _lock: int | None = dataclasses.field(repr=False, default=None)

    def commit(self) -> None:
        """Writes the config, if it is new or has changed."""
        if self.fresh or self.changes:
            write_atomic(self.workdir / CONFIG_NAME, json.dumps(self.config, indent=2) + "\n")

    def release(self) -> None:
        """Lets another process have the directory. Safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
            object.__setattr__(self, "_lock", None)

    def __enter__(self) -> "Claim":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def claim(
    workdir: str | Path, config: Any, allow_change: bool = False, *, commit: bool = True
) -> Claim:
    """Locks a work directory and makes sure that it holds this config, or none yet.

    Args:
        workdir: the directory; made if missing.
        config: an `ml_collections.ConfigDict` or a nested dict of JSON values.
        allow_change: take the directory over even where the config differs.
        commit: write the config at once; otherwise `Claim.commit` does, when the caller knows that
            a run can start with it. A config that fails must not bar the way to the corrected one.

    Returns:
        The claim. Keep it, or use it in a `with` block; the kernel drops it when the process dies.

    Raises:
        WorkdirBusy: another process holds the directory.
        WorkdirConflict: its config differs in more than `RUNTIME_FIELDS`; names all differences.
        WorkdirError: its config cannot be read.
    """
    workdir = Path(workdir)
    given = plain(config)
    workdir.mkdir(parents=True, exist_ok=True)
    lock = _lock(workdir)
    try:
        found = read_config(workdir) if (workdir / CONFIG_NAME).exists() else None
        changes = {} if found is None else differences(*map(_with_new_fields, (found, given)))
        refused = {field: line for field, line in changes.items() if field not in RUNTIME_FIELDS}
        if refused and not allow_change:
            raise WorkdirConflict(
                f"{workdir} holds a run with another config:\n"
                + "".join(f"  {line}\n" for line in refused.values())
                + "A work directory keeps one config (more steps, other cadences, another data "
                "root and more workers are not another config). Give another work directory, "
                "undo these changes, or allow the change explicitly."
            )
        for line in refused.values():
            logging.warning("%s: config changed, as allowed: %s", workdir, line)
        bent = [b for b in _BRANCHES if given.get(b, {}).get("schedule", "constant") != "constant"]
        if "num_steps" in changes and bent:
            logging.warning(
                "%s: %s; the learning rates of %s follow from it, so that they jump here to where "
                "a run of that many steps would be",
                workdir,
                changes["num_steps"],
                " and ".join(bent),
            )
        taken = Claim(workdir, found is None, tuple(changes.values()), given, lock)
        if commit:
            taken.commit()
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    return taken


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Returns the config of a work directory as nested dicts.

    Raises:
        WorkdirError: there is none, or it is damaged.
    """
    path = Path(workdir) / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WorkdirError(
            f"{workdir} is not a work directory: it has no {CONFIG_NAME}. Give the --workdir of a "
            "training run"
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise WorkdirError(
            f"{path} is not valid JSON ({error}). Every checkpoint holds a copy of the config in "
            "its extras.json: restore the file from there, or give another work directory"
        ) from error
    if not isinstance(config, dict):
        raise WorkdirError(f"{path} must hold a JSON object, got a {type(config).__name__}")
    return config


def plain(config: Any) -> dict[str, Any]:
    """Returns a config as JSON would give it back: dicts, lists, strings, numbers, None.

    Raises:
        WorkdirError: a value that JSON cannot hold, by its field.
    """
    nested = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    return _plain(nested, "config")


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise WorkdirError(
        f"a config holds what JSON can hold, but {where} is {value!r}, a {type(value).__name__}: "
        "give a number, a string, a list or a dict"
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Returns `{dotted field: "field: old -> new"}` for every field in which two configs differ."""
    before, after = _flat(old), _flat(new)
    return {
        field: f"{field}: {_show(before, field)} -> {_show(after, field)}"
        for field in before | after
        # The types matter as well: 1 == 1.0 == True in Python.
        if _show(before, field) != _show(after, field)
    }


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves.update(_flat(value, f"{prefix}{name}."))
        elif not isinstance(value, Mapping):
            leaves[f"{prefix}{name}"] = value
    return leaves


def _show(leaves: Mapping[str, Any], field: str) -> str:
    return repr(leaves[field]) if field in leaves else _ABSENT


def _with_new_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config with the fields that have come since the release that wrote it."""
    return plain(complete_config(ConfigDict(config)))


def _lock(workdir: Path) -> int | None:
    """Takes the directory's lock; None where the file system has no locks."""
    descriptor = os.open(workdir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise WorkdirBusy(
                f"{workdir} is in use by {holder or 'another process'}: one process at a time may "
                "write there. Wait for it, stop it, or give another work directory"
            ) from None
        logging.warning("%s: no file locks here (%s); do not start a second run", workdir, error)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return descriptor


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Writes a file so that readers, and the next start after a kill, see all of it or the old one.

    Args:
        path: where; its directory must exist.
        data: text (as UTF-8) or bytes.
    """
    path = Path(path)
    # Not the name of the file in it: TensorBoard takes whatever has "tfevents" in its name.
    partial = path.with_name(f".{zlib.crc32(path.name.encode()):08x}-{os.getpid()}{_PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sweep(directory: str | Path) -> None:
    """Removes what killed processes left of atomic writes; what another may still write stays."""
    for path in Path(directory).glob(f".*{_PARTIAL}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()


def sync_directory(path: str | Path) -> None:
    """Makes renames, new names and deletions in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
