"""Exists to let an iterable of batches stand where the loader stands, position and all."""

from collections.abc import Mapping
from typing import Any

from data.convert import Batch, IterableError, complete, digest
from data.foreign import Batches
from data.passes import Pass


class IterableLoader:
    """Iterates over batches made elsewhere, checked and completed: float32, int32 or bool tensors.

    With `repeat` one pass follows the other without end; without it, every `iter()` is one pass.

    A position is exact in either of two ways. An iterable, or iterator, that knows its own place
    (`state_dict` and `load_state_dict`, or `get_state` and `set_state`) is put back there. Any
    other is passed over anew and its first batches are skipped, which comes to the same if it gives
    the same batches each time, or each time for the same `epoch` and `seed`. The last batch that is
    skipped is compared with the one that it was; if they differ, going on is refused.
    """

    def __init__(
        self,
        batches: Any,
        *,
        batch_size: int,
        seed: int = 0,
        repeat: bool = True,
        position: Mapping[str, Any] | None = None,
    ):
        """Initializes a loader; nothing is read yet.

        Args:
            batches: a `Batches`, or an iterable as it describes it.
            batch_size: rows in every batch.
            seed: given to a function that makes the iterable, if it takes one.
            repeat: whether passes follow each other without end.
            position: what `position()` returned, to continue there; only with `repeat`.

        Raises:
            ValueError: the position is not of such a loader, or of another batch size or seed.
        """
        self._batches = batches if isinstance(batches, Batches) else Batches(batches)
        self._batch_size = batch_size
        self._seed = seed
        self._repeat = repeat
        self._epoch, self._batch = 0, 0
        self._state: str | None = None
        self._digest = 0
        self._last: Batch = {}
        self._pass: Pass | None = None
        self._layout: dict[str, str] = {}
        self.copied: dict[str, str] = {}
        if position is not None:
            self._go_to(position)

    @property
    def repeat(self) -> bool:
        """Whether the iteration is endless."""
        return self._repeat

    @property
    def skipped_rows(self) -> int:
        """Rows that stood for a bad file: none are known of."""
        return 0

    def first(self) -> Batch:
        """Returns the first batch, without consuming it."""
        raw = self._batches.first(seed=self._seed, batch_size=self._batch_size)
        return self._complete(raw, 0)[0]

    def position(self) -> dict[str, Any]:
        """Returns where the next batch to be consumed stands, for JSON."""
        return {
            "epoch": self._epoch,
            "batch": self._batch,
            "skipped_rows": 0,
            "state": self._state,
            "digest": self._digest,
            "order": self._signature(),
        }

    def __iter__(self) -> "IterableLoader":
        """Begins a pass, or with `repeat` goes on."""
        if not self._repeat:
            self._epoch, self._batch, self._state, self._pass = 0, 0, None, None
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
            IterableError: a batch breaks a rule, or there are no more; the position stays.
        """
        try:
            raw = self._fetch()
            if self._last and digest(self._last) != self._digest:
                raise IterableError(
                    "an array must not be written to after it was given, for it may not have been "
                    f"copied; one of the batch before {self._where()} was; give a new array each "
                    "time, such as array.copy()"
                )
            batch, copied = self._complete(raw, self._batch)
            self._check(batch)
        except StopIteration:
            raise
        except BaseException:
            # A generator that has raised is dead, and would look like one that is at its end.
            self.close()
            raise
        assert self._pass is not None
        self.copied = copied
        self._batch += 1
        self._state = self._pass.state()
        self._last, self._digest = batch, digest(batch)
        return batch

    def close(self) -> None:
        """Ends the pass; iterating again goes on at the same position."""
        self._pass, self._last = None, {}

    def __enter__(self) -> "IterableLoader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _signature(self) -> dict[str, Any]:
        return {"iterable": True, "batch_size": self._batch_size, "seed": self._seed}

    def _go_to(self, position: Mapping[str, Any]) -> None:
        if not self._repeat:
            raise ValueError(
                "only an endless loader continues at a position; this one makes single passes "
                "(repeat=False); leave the position out"
            )
        saved = position["order"]
        changes = [
            f"{field}: saved {saved.get(field)!r}, now {value!r}"
            for field, value in self._signature().items()
            if saved.get(field) != value
        ]
        if changes:
            raise ValueError(
                "a position continues only the iteration that it was saved in; "
                f"{'; '.join(changes)}; give the saved values and data, or start a new run"
            )
        self._epoch, self._batch = position["epoch"], position["batch"]
        self._state, self._digest = position["state"], position["digest"]

    def _fetch(self) -> Any:
        """Returns the next batch as it comes; begins the next pass where one ends."""
        if self._pass is None:
            self._open()
        assert self._pass is not None
        try:
            return next(self._pass)
        except StopIteration:
            if not self._batch:
                raise self._exhausted() from None
        if not self._repeat:
            raise StopIteration
        self._epoch, self._batch, self._state = self._epoch + 1, 0, None
        self._open()
        try:
            return next(self._pass)
        except StopIteration:
            raise self._exhausted() from None

    def _open(self) -> None:
        """Begins a pass where the position is."""
        iterable = self._batches.iterable(
            epoch=self._epoch, seed=self._seed, batch_size=self._batch_size
        )
        self._pass = Pass(iterable, self._state)
        if self._state is not None or not self._batch:
            return
        raw = None
        for skipped in range(self._batch):
            try:
                raw = next(self._pass)
            except StopIteration:
                raise self._changed(f"it ended after {skipped} batches") from None
        if digest(self._complete(raw, self._batch - 1)[0]) != self._digest:
            raise self._changed(f"batch {self._batch - 1} is another one")

    def _complete(self, raw: Any, index: int) -> tuple[Batch, dict[str, str]]:
        if isinstance(raw, Mapping):
            raw = self._batches.renamed(raw)
        first_id = index * self._batch_size
        return complete(raw, self._batch_size, first_id=first_id, where=self._where())

    def _check(self, batch: Batch) -> None:
        """Raises unless names and shapes are those of the batches before."""
        layout = {
            name: f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
            for name, value in batch.items()
        }
        self._layout = self._layout or layout
        for name in self._layout | layout:
            before, now = self._layout.get(name, "absent"), layout.get(name, "absent")
            if before != now:
                raise IterableError(
                    f"all batches must have the same arrays, of equal types and shapes; {name!r} "
                    f"of {self._where()} is {now}, before it was {before}; pad it to one length "
                    "and give it always"
                )

    def _where(self) -> str:
        return f"batch {self._batch} of pass {self._epoch}"

    def _exhausted(self) -> IterableError:
        return IterableError(
            "an iterable of batches must give some in every pass; there was none in pass "
            f"{self._epoch}: what is used up after one pass, as a generator is, cannot be passed "
            "over again; give a list, or the function that makes the generator"
        )

    def _changed(self, what: str) -> IterableError:
        return IterableError(
            "an iterable without a state of its own is resumed by skipping, so it must give the "
            f"same batches again; in pass {self._epoch} {what}; let its order follow from `epoch` "
            "and `seed`, or give it state_dict and load_state_dict"
        )
