"""Feeds batches in an order that a seed decides and a position continues, whatever was killed."""

import contextlib
import dataclasses
import logging
import multiprocessing
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from data.batches import BatchBuilder, Built, start_worker, unchanged
from data.order import Order
from data.patience import TooLateError, within
from data.source import ItemDataset
from data.transforms import Transform

Batch = dict[str, torch.Tensor]
StartMethod = Literal["forkserver", "spawn"]
# Loaded once by the fork server: workers then start in a few hundredths of a second.
_PRELOADED = ["numpy", "soundfile", "torch", "torch.utils.data"]
_POLL_S = 5.0


class LoaderError(RuntimeError):
    """A worker died or answers no more; the message says what it was reading."""


class Loader:
    """Iterates over batches of a data set: dicts of torch tensors, float32, int32 or bool.

    With `repeat` the iteration never ends: epochs follow each other, each in an order of its own,
    without a pause between them; `iter()` goes on where the last batch was consumed. Without it,
    every `iter()` is one pass from the start, and the last batch is filled up with rows of zeros
    (`weights` 0, `ids` -1). Every batch has `batch_size` rows, so nothing recompiles.

    The bytes of a batch depend on the data, `seed`, `batch_size` and the position alone: not on the
    number of workers, and not on how often a run was interrupted.

    Example:
        loader = Loader(source.dataset("train"), batch_size=64, seed=0, num_workers=2)
        batch = next(loader)                  # one batch has been consumed
        saved = loader.position()             # goes into the checkpoint
        loader = Loader(source.dataset("train"), batch_size=64, seed=0, position=saved)
    """

    def __init__(
        self,
        dataset: ItemDataset,
        *,
        batch_size: int,
        seed: int = 0,
        num_workers: int = 0,
        shuffle: bool = True,
        drop_last: bool | None = None,
        repeat: bool = True,
        transforms: Sequence[Transform] = (),
        position: Mapping[str, Any] | None = None,
        start_method: StartMethod | None = None,
        timeout_s: int | float = 120,
        prefetch_batches: int = 2,
    ):
        """Initializes a loader; workers start with the first batch.

        Args:
            dataset: the split, as a source gives it. With workers it must be picklable.
            batch_size: rows in every batch.
            seed: decides order and augmentation, 0 to 2**32 - 1.
            num_workers: processes that decode; 0 does it in this one.
            shuffle: whether an epoch's order is random.
            drop_last: whether items that fill no whole batch are left out of an epoch; otherwise
                they come in a batch filled up with rows of weight 0. By default it is `repeat`.
            repeat: whether epochs follow each other without end.
            transforms: augmentation of each item, by a generator of (seed, epoch, index).
            position: what `position()` returned, to continue there; only with `repeat`.
            start_method: how workers start; by default a fork server, where the system has one.
            timeout_s: how long to wait for a batch of the workers, or without them for an item,
                before `LoaderError`.
            prefetch_batches: batches that each worker prepares ahead.

        Raises:
            ValueError: an argument breaks one of these rules, or the position belongs to another
                order (other data, seed, batch size, shuffle or drop_last).
        """
        if num_workers < 0:
            raise ValueError(f"num_workers is 0 (no worker processes) or more; got {num_workers}")
        fingerprint = getattr(dataset, "fingerprint", lambda: "")()
        self._order = Order(
            num_items=len(dataset),
            batch_size=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=repeat if drop_last is None else drop_last,
            repeat=repeat,
            fingerprint=fingerprint,
        )
        self._dataset = dataset
        self._num_workers = num_workers
        self._timeout_s = timeout_s
        self._skipped_rows = 0
        self._stream: Iterator[Built] | None = None
        self.faults: dict[str, str] = {}
        if position is not None:
            self._order = self._order.at(position)
            self._skipped_rows = int(position["skipped_rows"])
        self._epoch, self._batch = self._order.epoch, self._order.batch

        self._reading = torch.full((max(num_workers, 1),), -1, dtype=torch.int64).share_memory_()
        self._builder = BatchBuilder(dataset, batch_size, seed, transforms, self._reading)
        self._worker_options: dict[str, Any] = {}
        if num_workers:
            self._worker_options = {
                "multiprocessing_context": _context(start_method),
                "worker_init_fn": start_worker,
                "persistent_workers": True,
                "prefetch_factor": prefetch_batches,
                "timeout": min(_POLL_S, timeout_s),
            }
        self._loader: DataLoader | None = None

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._order.batches_per_epoch

    @property
    def repeat(self) -> bool:
        """Whether the iteration is endless."""
        return self._order.repeat

    @property
    def skipped_rows(self) -> int:
        """How many consumed rows stood for a bad file, since the very start; see also `faults`.

        `faults` tells why, by file, for those met in this process.
        """
        return self._skipped_rows

    def position(self) -> dict[str, Any]:
        """Returns where the next batch to be consumed stands, for JSON.

        Batches that were prepared ahead but not yet consumed do not count.
        """
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "skipped_rows": self._skipped_rows,
            "order": self._order.signature(),
        }

    def __iter__(self) -> "Loader":
        """Begins a pass, or with `repeat` goes on."""
        if self._stream is None or not self._order.repeat:
            self._start()
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
            AudioFileError: a file is bad and the data set does not skip it; the position stays.
            LoaderError: a worker died, or `timeout_s` passed without an answer; the position stays.
        """
        if self._stream is None:
            self._start()
        built = self._wait()
        if built.error is not None:
            self.close()
            raise built.error
        for index, reason in built.faults.items():
            name = self._name(index)
            if name not in self.faults:
                logging.getLogger(__name__).warning("left out: %s", reason)
            self.faults[name] = reason
        self._skipped_rows += len(built.faults)
        self._batch += 1
        if self._order.repeat and self._batch == self.batches_per_epoch:
            self._epoch, self._batch = self._epoch + 1, 0
        return built.tensors

    def close(self) -> None:
        """Ends the workers; iterating again starts new ones at the same position."""
        stream, self._stream, self._loader = self._stream, None, None
        # Torch ends workers when the last reference is gone, which a traceback may delay.
        shutdown = getattr(stream, "_shutdown_workers", None)
        if shutdown is not None:
            shutdown()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _start(self) -> None:
        """Starts a pass, or continues the endless one, at the consumed position."""
        if not self._order.repeat:
            self._batch = 0
        if self._loader is None:
            order = dataclasses.replace(self._order, epoch=self._epoch, batch=self._batch)
            self._loader = _TorchLoader(
                self._builder,
                batch_sampler=order,  # pyright: ignore[reportArgumentType]  # any iterable will do
                collate_fn=unchanged,
                num_workers=self._num_workers,
                # Torch draws a seed for its workers; its global generator is left alone.
                generator=torch.Generator().manual_seed(self._order.seed),
                **self._worker_options,
            )
        with _interrupts_held(self._num_workers):
            self._stream = iter(self._loader)

    def _wait(self) -> Built:
        """Returns the stream's next element, or says who keeps it waiting."""
        assert self._stream is not None
        if not self._num_workers:
            return self._wait_here(self._stream)
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return next(self._stream)
            except StopIteration as error:
                raise self._ended(error) from None
            except (RuntimeError, OSError, EOFError) as error:
                trouble = self._trouble(error, time.monotonic() < deadline)
                if trouble is None:
                    self.close()
                    raise
                if not trouble:
                    continue
            except BaseException:
                # Of the data set, say: torch would go on behind the batch that it has lost.
                self.close()
                raise
            # A worker that hangs would make `close` wait for it; nothing of theirs is needed.
            for worker in getattr(self._stream, "_workers", ()):
                worker.kill()
            self.close()
            raise LoaderError(trouble)

    def _wait_here(self, stream: Iterator[Built]) -> Built:
        """Returns the next element, read in this process while each item takes its time at most."""
        reading = self._reading
        try:
            return within(lambda: next(stream), self._timeout_s, lambda: int(reading[0]))
        except StopIteration as error:
            raise self._ended(error) from None
        except TooLateError:
            message = (
                f"an item must be read within timeout_s={self._timeout_s:g} s; this one was not: "
                f"{self._being_read()}; look at the file and its disk, or raise timeout_s"
            )
            self.close()
            raise LoaderError(message) from None
        except BaseException:
            # What was being read is lost to this stream; a new one starts at the same position.
            self.close()
            raise

    def _ended(self, error: StopIteration) -> Exception:
        """Returns the end of a pass, or what to say of one that comes too early."""
        if not self._order.repeat and self._batch >= self.batches_per_epoch:
            return error
        self.close()
        return LoaderError(
            f"an item must be given or refused by an error of its own; batch {self._batch} of "
            f"epoch {self._epoch} met StopIteration; look for a `next` that finds nothing"
        )

    def _trouble(self, error: Exception, patient: bool) -> str | None:
        """Returns what to say of an error: nothing if it is not about workers, "" to wait on."""
        text = str(error)
        if text.startswith("Caught"):
            return None  # raised by the data set itself
        if text.startswith("DataLoader timed out"):
            if patient:
                return ""
            found = f"none came within {self._timeout_s:g} s"
            way_out = "look at these files and their disk, or raise timeout_s"
        elif text.startswith("DataLoader worker (pid") or isinstance(error, (OSError, EOFError)):
            found = f"a worker died ({text})"
            way_out = (
                "look for what ended it (memory? a script that starts work outside of "
                "`if __name__ == '__main__'`?), then go on from the last position"
            )
        else:
            return None
        return (
            f"workers must deliver batch {self._batch} of epoch {self._epoch}; {found}; "
            f"being read: {self._being_read()}; {way_out}"
        )

    def _being_read(self) -> str:
        """Returns what each worker was reading when last heard of."""
        reading = [
            f"worker {worker}: {self._name(index)}" if self._num_workers else self._name(index)
            for worker, index in enumerate(self._reading.tolist())
            if index >= 0
        ]
        return ", ".join(reading) or "no file"

    def _name(self, index: int) -> str:
        """Returns what an item is called in messages."""
        with contextlib.suppress(AttributeError):
            return self._dataset.name(index)  # pyright: ignore[reportAttributeAccessIssue]
        return f"item {index}"


class _Workers(_MultiProcessingDataLoaderIter):
    """Torch's, but that its end is quiet if a signal has come while it was still being made."""

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            super().__del__()


class _TorchLoader(DataLoader):
    """Torch's, with workers of that kind."""

    def _get_iterator(self) -> Any:
        if self.num_workers == 0:
            return super()._get_iterator()
        self.check_worker_number_rationality()
        return _Workers(self)


@contextlib.contextmanager
def _interrupts_held(num_workers: int) -> Iterator[None]:
    """Lets processes start with SIGINT blocked; workers ignore it later, as the fork server does.

    Ctrl-C in a terminal reaches all of them, and would end them while they still import.
    """
    if not num_workers:
        yield
        return
    # If it were started on the way, it would take the block away.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context(start_method: StartMethod | None) -> Any:
    """Returns the way to start workers, never by forking this process and its threads."""
    if start_method is None:
        known = multiprocessing.get_all_start_methods()
        start_method = "forkserver" if "forkserver" in known else "spawn"
    context = multiprocessing.get_context(start_method)
    if start_method == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    return context
