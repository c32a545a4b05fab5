"""Builds whole batches inside a DataLoader worker, without jax, which workers must never hold."""

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from data.audio_files import AudioFileError
from data.order import Key
from data.source import ItemDataset
from data.transforms import Transform

PADDING_ID = -1


@dataclasses.dataclass(frozen=True)
class Built:
    """A batch on its way from a worker to the loader.

    Attributes:
        tensors: arrays [batch_size, ...] of float32, int32 or bool.
        faults: why rows were left out, by index.
        error: set instead of both where a file may not be left out.
    """

    tensors: dict[str, torch.Tensor]
    faults: dict[int, str]
    error: AudioFileError | None = None


class BatchBuilder(Dataset):
    """Turns keys into one padded batch; what the DataLoader takes for its data set."""

    def __init__(
        self,
        dataset: ItemDataset,
        batch_size: int,
        seed: int,
        transforms: Sequence[Transform],
        reading: torch.Tensor,
    ):
        """Initializes a builder.

        Args:
            dataset: the clips.
            batch_size: rows in every batch.
            seed: of the augmentation.
            transforms: applied one after the other to every item that counts.
            reading: shared memory, int64 [max(num_workers, 1)]: the index that each process reads.
        """
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.transforms = tuple(transforms)
        self.reading = reading

    def __getitems__(self, keys: Sequence[Key]) -> Built:
        """Returns the batch of `keys`; rows that are missing at its end have weight 0."""
        rows, faults = [], {}
        try:
            for epoch, index in keys:
                row = self._item(epoch, index)
                known = getattr(self.dataset, "faults", {})
                if index in known and not row["weights"]:
                    faults[index] = known[index]
                rows.append(row)
        except AudioFileError as error:
            return Built({}, {}, AudioFileError(str(error)))
        finally:
            self._note(-1)
        return Built(self._stack(rows, keys), faults)

    def _item(self, epoch: int, index: int) -> dict[str, Any]:
        """Returns one item, augmented, with its id and weight."""
        self._note(index)
        item = {"ids": index, "weights": 1.0, **self.dataset[index]}
        if item["weights"]:
            rng = np.random.default_rng((self.seed, epoch, index))
            for transform in self.transforms:
                item = transform(item, rng)
        return item

    def _stack(self, rows: Sequence[Mapping[str, Any]], keys: Sequence[Key]) -> dict[str, Any]:
        """Returns tensors [batch_size, ...], each in memory of its own, ready to be aliased."""
        batch = {}
        for name in rows[0]:
            first = np.asarray(rows[0][name])
            stacked = torch.zeros((self.batch_size, *first.shape), dtype=_dtype(name, first.dtype))
            view = stacked.numpy()
            for row, (item, (_, index)) in enumerate(zip(rows, keys, strict=True)):
                value = np.asarray(item[name])
                if value.shape != first.shape:
                    raise ValueError(
                        f"items of a data set must have equal shapes; {name!r} of item {index} has "
                        f"{value.shape}, of item {keys[0][1]} {first.shape}; pad it to one length"
                    )
                if value.dtype.kind in "iu" and np.any(value.astype(np.int32) != value):
                    raise ValueError(
                        f"batches hold int32; {name!r} of item {index} is out of its range; "
                        "give smaller numbers, or float32"
                    )
                view[row] = value
            batch[name] = stacked
        batch["ids"][len(rows) :] = PADDING_ID
        return batch

    def _note(self, index: int) -> None:
        """Tells who waits which item is being read, for the message of a timeout."""
        worker = get_worker_info()
        self.reading[0 if worker is None else worker.id] = index


def unchanged(built: Any) -> Any:
    """Collates nothing: the builder has made the batch already."""
    return built


def start_worker(worker_id: int) -> None:
    """Ties a worker's life to the main process.

    Ctrl-C is left to the main process, which saves a checkpoint and then ends its workers. If it is
    killed instead, the worker ends by itself: torch's workers watch their parent, but that of these
    is the fork server, which in turn lives as long as they do.
    """
    del worker_id
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    """Waits for the end of the process that made this one, and ends it at once."""
    main_process = multiprocessing.parent_process()
    if main_process is not None:
        main_process.join()
        os._exit(1)


def _dtype(name: str, dtype: np.dtype) -> torch.dtype:
    """Returns the type that values of `dtype` have in a batch."""
    kinds = {"b": torch.bool, "i": torch.int32, "u": torch.int32, "f": torch.float32}
    if dtype.kind not in kinds:
        raise TypeError(
            f"items hold numbers; {name!r} holds {dtype}; leave it out, or give its index instead"
        )
    return kinds[dtype.kind]
