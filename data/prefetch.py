"""Takes batches to the device ahead of their use, and still knows which of them were used."""

import collections
from typing import Any

import jax

from data.bridge import BridgeReport, to_jax
from data.iterable_loader import IterableLoader
from data.loader import Loader


class Prefetch:
    """Iterates over (batch, report): batches of a loader as JAX arrays, fetched ahead.

    While JAX still computes with one batch (it does so asynchronously), the next ones are taken
    from the loader and sent to the device. No thread is involved: fetching happens inside `next()`.

    Example:
        with Prefetch(loader) as batches:
            for batch, report in batches:
                state = step(state, batch)
                saved = batches.position()    # batches fetched ahead do not count
    """

    def __init__(self, loader: Loader | IterableLoader, size: int = 2):
        """Initializes the iterator; nothing is fetched yet.

        Args:
            loader: where batches come from. Use its `position` through this object only.
            size: batches on the device at a time, the one in use included; 1 fetches none ahead.
        """
        if size < 1:
            raise ValueError(f"at least one batch is in use at a time; got size={size}; give 2")
        self._loader = loader
        self._size = size
        self._fetched: collections.deque[
            tuple[dict[str, jax.Array], BridgeReport, dict[str, Any]]
        ] = collections.deque()
        self._failure: Exception | None = None
        self._position = loader.position()

    def position(self) -> dict[str, Any]:
        """Returns the position behind the last batch that was handed out; see `Loader`."""
        return self._position

    def __iter__(self) -> "Prefetch":
        """Begins a pass, or goes on if the loader is an endless one."""
        if not self._loader.repeat:
            self._fetched.clear()
            self._failure = None
        iter(self._loader)
        return self

    def __next__(self) -> tuple[dict[str, jax.Array], BridgeReport]:
        """Returns the next batch; an error comes where its batch would have come."""
        while len(self._fetched) < self._size and self._failure is None:
            try:
                batch = next(self._loader)
            except Exception as error:  # noqa: BLE001  # raised below, in its turn
                self._failure = error
            else:
                arrays, report = to_jax(batch)
                report = report.with_earlier(getattr(self._loader, "copied", {}), arrays)
                self._fetched.append((arrays, report, self._loader.position()))
        if not self._fetched:
            failure, self._failure = self._failure, None
            assert failure is not None
            raise failure
        arrays, report, self._position = self._fetched.popleft()
        return arrays, report

    def close(self) -> None:
        """Drops what was fetched ahead and ends the workers."""
        self._fetched.clear()
        self._loader.close()

    def __enter__(self) -> "Prefetch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
