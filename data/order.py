"""Decides which items a batch holds: a function of seed, epoch and place, and of nothing else."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

Key = tuple[int, int]  # epoch and index: all that an augmented item depends on, beside the seed


@dataclasses.dataclass(frozen=True)
class Order:
    """Yields the keys of one batch after the other, from a place on.

    Attributes:
        num_items: size of the data set.
        batch_size: items in a batch; the last one of an epoch may have fewer.
        seed: decides the order, 0 to 2**32 - 1.
        shuffle: whether each epoch has a random order of its own.
        drop_last: whether a last batch with fewer items is left out.
        repeat: whether epochs follow each other without end.
        epoch: where the iteration starts.
        batch: which batch of that epoch comes first.
        fingerprint: digest of the data set: a place means something in equal data only.
    """

    num_items: int
    batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool
    repeat: bool
    epoch: int = 0
    batch: int = 0
    fingerprint: str = ""

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"a batch has at least one row; got batch_size={self.batch_size}")
        if self.num_items == 0:
            raise ValueError("a data set must hold items; this one has none; look at its root")
        if (self.repeat or self.drop_last) and self.batch_size > self.num_items:
            raise ValueError(
                f"a batch cannot be larger than the set; got batch_size={self.batch_size} for "
                f"{self.num_items} items; give {self.num_items} or less"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"a seed lies in 0 to 2**32 - 1; got {self.seed}")
        if self.epoch < 0 or not 0 <= self.batch < self.batches_per_epoch:
            raise ValueError(
                f"a position lies at batch 0 to {self.batches_per_epoch - 1} of an epoch; got "
                f"batch {self.batch} of epoch {self.epoch}; give what position() returned"
            )

    @property
    def batches_per_epoch(self) -> int:
        """How many batches an epoch has."""
        rounding = 0 if self.drop_last else self.batch_size - 1
        return (self.num_items + rounding) // self.batch_size

    def indices(self, epoch: int) -> list[int]:
        """Returns the order of the items in an epoch."""
        if not self.shuffle:
            return list(range(self.num_items))
        # The spawn key sets this stream apart from those of the augmentation.
        seeds = np.random.SeedSequence((self.seed, epoch), spawn_key=(1,))
        return np.random.default_rng(seeds).permutation(self.num_items).tolist()

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, first = self.epoch, self.batch
        while True:
            indices = self.indices(epoch)
            for batch in range(first, self.batches_per_epoch):
                start = batch * self.batch_size
                yield [(epoch, index) for index in indices[start : start + self.batch_size]]
            if not self.repeat:
                return
            epoch, first = epoch + 1, 0

    def signature(self) -> dict[str, Any]:
        """Returns all that the order depends on, for JSON."""
        return {
            "num_items": self.num_items,
            "fingerprint": self.fingerprint,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
        }

    def at(self, position: Mapping[str, Any]) -> "Order":
        """Returns this order from a saved place on.

        Args:
            position: `epoch`, `batch`, and `order`, the signature where it was saved.

        Raises:
            ValueError: it was saved in another order or lies outside of this one, or this one is
                not endless.
        """
        if not self.repeat:
            raise ValueError(
                "only an endless loader continues at a position; this one makes single passes "
                "(repeat=False); leave the position out"
            )
        saved = position["order"]
        changes = [
            f"{field}: saved {saved.get(field)!r}, now {value!r}"
            for field, value in self.signature().items()
            if saved.get(field) != value
        ]
        if changes:
            raise ValueError(
                "a position continues only the order that it was saved in; "
                f"{'; '.join(changes)}; give the saved values and data, or start a new run"
            )
        return dataclasses.replace(self, epoch=position["epoch"], batch=position["batch"])
