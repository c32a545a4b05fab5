"""What a run tells about itself: `metrics.jsonl` and TensorBoard, without gaps or repeats.

Both are written by the calling thread, in order. `tensorboardX.SummaryWriter` hands events to a
queue that its `flush` does not empty, so a kill loses rows that seemed written; here its record
writer is used directly.
"""

import contextlib
import io
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging
from google.protobuf.message import DecodeError
from tensorboardX import RecordWriter, summary
from tensorboardX.proto.event_pb2 import (  # made at run time by protobuf
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.record_writer import masked_crc32c

from hybrid.workdir import sweep, sync_directory, write_atomic

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_NAME = "tensorboard"

# Scalars that read a clock, or tell where batches from elsewhere came to lie in memory; a task's
# own are to start with the prefix. Everything else in a row is the same, bit for bit, whether a run
# was interrupted or not.
CLOCK_FIELDS = frozenset(
    {
        "clips_per_s",
        "audio_s_per_s",
        "steps_per_s",
        "step_s",
        "data_wait_s",
        "wall_s",
        "aliased_bytes_per_batch",
        "copied_bytes_per_batch",
    }
)
CLOCK_PREFIX = "clock/"

_FLUSH_S = 5.0
_LENGTH_BYTES, _CRC_BYTES = 8, 4


class Writer:
    """Writes scalars, images, sounds and texts of a run; one process at a time.

    A run that goes back to a checkpoint opens a writer with the checkpoint's step: all that was
    written for later steps is then taken out of both logs, to be written again. So whatever belongs
    to a step must be written, and `flush` called, before the checkpoint of that step is saved; of
    an evaluation that was interrupted, what is there already is not repeated.
    """

    def __init__(self, workdir: str | Path, start_step: int = 0) -> None:
        """Opens the logs.

        Args:
            workdir: the run's directory; `metrics.jsonl` and `tensorboard/` are in there.
            start_step: steps done. 0 starts anew: everything goes, rows of step 0 too.
        """
        self._metrics_path = Path(workdir) / METRICS_NAME
        self._events_dir = Path(workdir) / TENSORBOARD_NAME
        self._events_dir.mkdir(parents=True, exist_ok=True)
        sweep(workdir)
        sweep(self._events_dir)
        keep_until = start_step if start_step > 0 else -1
        self._start_step = keep_until
        self._splits_there = _truncate_rows(self._metrics_path, keep_until)
        self._tags_there: set[str] = set()
        for path in event_files(self._events_dir):
            self._tags_there |= _truncate_events(path, keep_until)
        self._metrics = self._metrics_path.open("ab")
        self._events = RecordWriter(str(_new_event_file(self._events_dir)))
        self._add(Event(file_version="brain.Event:2"))
        # A TensorBoard that is open meanwhile drops from its memory what was taken out here.
        start = SessionLog(status=SessionLog.START)
        self._add(Event(step=keep_until + 1, session_log=start))
        self.flush()
        sync_directory(self._events_dir)
        sync_directory(workdir)

    def scalars(self, step: int, values: Mapping[str, Any], split: str = "train") -> None:
        """Writes one row.

        Args:
            step: steps done.
            values: scalars: Python numbers, or arrays of one element. Anything else (a confusion
                matrix) goes into the row of `metrics.jsonl` only, and must be what JSON can hold.
            split: what the values are about; the first part of their TensorBoard tags.
        """
        row = {name: _plain(name, value) for name, value in values.items()}
        line = json.dumps({"step": int(step), "split": split, **row}) + "\n"
        if step != self._start_step or split not in self._splits_there:
            # One write call for a line: a kill leaves it whole, or torn at the end of the file.
            self._metrics.write(line.encode())
            self._metrics.flush()
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        record = summary.Summary()
        for name, value in numbers.items():
            record.MergeFrom(summary.scalar(f"{split}/{name}", value))
        if numbers:
            self._add_summary(step, record)
        if time.monotonic() - self._flushed > _FLUSH_S:
            self.flush()

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Writes a picture to TensorBoard.

        Args:
            step: steps done.
            name: its tag.
            pixels: uint8 [height, width, 1, 3 or 4].

        Raises:
            ValueError: another dtype or shape.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
            raise ValueError(
                f"an image must be uint8 [height, width, 1, 3 or 4], {name!r} is "
                f"{pixels.dtype} {list(pixels.shape)}"
            )
        picture = summary.image(name, pixels, dataformats="HWC")
        self._add_summary(step, picture)

    def audio(self, step: int, name: str, samples: np.ndarray, sample_rate_hz: float | int) -> None:
        """Writes a sound to TensorBoard, as 16-bit WAV.

        Args:
            step: steps done.
            name: its tag.
            samples: floats [time] or [time, 1 or 2]; what exceeds full scale, 1.0, is cut off.
            sample_rate_hz: a whole number.

        Raises:
            ValueError: another dtype or shape, samples that are not finite, or another rate.
        """
        channels = samples.shape[1] if samples.ndim == 2 else 1
        if samples.dtype.kind != "f" or samples.ndim not in (1, 2) or channels not in (1, 2):
            raise ValueError(
                f"a sound must be floats [time] or [time, 1 or 2], {name!r} is "
                f"{samples.dtype} {list(samples.shape)}"
            )
        if not samples.size or not np.isfinite(samples).all():
            raise ValueError(f"a sound must hold samples, all of them finite; {name!r} does not")
        if sample_rate_hz <= 0 or sample_rate_hz != int(sample_rate_hz):
            raise ValueError(
                f"a sound has a whole number of samples a second; {name!r} has {sample_rate_hz!r}"
            )
        within = np.clip(samples.astype(np.float32), -1, 1)
        sound = summary.audio(name, within, sample_rate=int(sample_rate_hz))
        self._add_summary(step, sound)

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text (Markdown) to TensorBoard."""
        self._add_summary(step, summary.text(name, text))

    def flush(self) -> None:
        """Returns when everything written so far is on the disk."""
        os.fsync(self._metrics.fileno())
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes and closes both logs, even where the disk has no room for the rest."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._events.close)
            stack.callback(self._metrics.close)
            self.flush()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _add_summary(self, step: int, made: Any) -> None:
        if step != self._start_step or made.value[0].tag not in self._tags_there:
            self._add(Event(step=int(step), summary=made))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """Returns the rows of `metrics.jsonl`, oldest first; none where there is no such file.

    A line that is being written, or was torn by a kill, is left out.
    """
    path = Path(workdir) / METRICS_NAME
    return [row for _, row in _rows(path)] if path.exists() else []


def without_clock(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row without the fields that read a clock, for comparing runs bit for bit."""
    return {
        name: value
        for name, value in row.items()
        if name not in CLOCK_FIELDS and not name.startswith(CLOCK_PREFIX)
    }


def event_files(directory: str | Path) -> list[Path]:
    """Returns TensorBoard's event files in the order in which TensorBoard reads them."""
    return sorted(path for path in Path(directory).iterdir() if ".tfevents." in path.name)


def _plain(name: str, value: Any) -> Any:
    """Returns a Python number for a scalar; other JSON values as they are."""
    if isinstance(value, np.generic | np.ndarray) or hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.size != 1:
            raise ValueError(
                f"a scalar has one element, {name!r} has shape {list(array.shape)}: write its mean "
                "or give nested lists"
            )
        value = array.reshape(()).astype(np.float64) if array.dtype.kind in "fV" else array
        value = value.item()
    return int(value) if isinstance(value, bool) else value


def _rows(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yields whole lines and their rows."""
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            row = json.loads(line)
            if not (line.endswith(b"\n") and isinstance(row["step"], int)):
                raise ValueError("a torn line")
        except (ValueError, KeyError, TypeError):
            logging.warning("%s: line %d is no whole row; left out", path, number)
            continue
        yield line, row


def _truncate_rows(path: Path, last_step: int) -> set[str]:
    """Takes rows after a step, and what is no row, out; returns the splits that the step has."""
    if not path.exists():
        return set()
    rows = [(line, row) for line, row in _rows(path) if row["step"] <= last_step]
    kept = b"".join(line for line, _ in rows)
    if len(kept) != path.stat().st_size:
        write_atomic(path, kept)
    return {row.get("split", "") for _, row in rows if row["step"] == last_step}


def _truncate_events(path: Path, last_step: int) -> set[str]:
    """Takes events after a step, and a torn record at the end, out of an event file.

    Returns:
        The tags that the step has.
    """
    kept, events, tags = io.BytesIO(), 0, set()
    for record, event in _records(path.read_bytes()):
        if not event.HasField("summary"):
            kept.write(record)
        elif event.step <= last_step:
            kept.write(record)
            events += 1
            if event.step == last_step:
                tags |= {value.tag for value in event.summary.value}
    if not events:
        path.unlink()
    elif kept.tell() != path.stat().st_size:
        write_atomic(path, kept.getvalue())
    return tags


def _records(data: bytes) -> Iterator[tuple[bytes, Event]]:
    """Yields the whole records of an event file, framed and decoded, up to the first bad one.

    A record is its length (8 bytes), the length's CRC (4), the event, the event's CRC (4).
    """
    start = 0
    while start < len(data):
        header = data[start : start + _LENGTH_BYTES]
        body = start + _LENGTH_BYTES + _CRC_BYTES
        end = body + int.from_bytes(header, "little")
        crc = data[body - _CRC_BYTES : body]
        if end + _CRC_BYTES > len(data) or crc != masked_crc32c(header).to_bytes(4, "little"):
            return
        try:
            # Not checked by its CRC, which would take a quarter of a second a megabyte.
            event = Event.FromString(data[body:end])
        except DecodeError:
            return
        yield data[start : end + _CRC_BYTES], event
        start = end + _CRC_BYTES


def _new_event_file(directory: Path) -> Path:
    """Names an event file that sorts after all others, even if the clock was set back."""
    names = (path.name.partition(".tfevents.")[2] for path in event_files(directory))
    stamps = [int(match[0]) for name in names if (match := re.match(r"\d+", name))]
    stamp = max([math.floor(time.time()), *(stamp + 1 for stamp in stamps)])
    return directory / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}"
