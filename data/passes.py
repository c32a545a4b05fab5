"""Exists to pass over an iterable from elsewhere, and to save where it stands if it can tell."""

from collections.abc import Callable, Iterable
from typing import Any

from data.convert import IterableError
from data.states import decoded, encoded

# Of torchdata and Hugging Face datasets, and of grain.
_PAIRS = (("state_dict", "load_state_dict"), ("get_state", "set_state"))


class Pass:
    """One pass over an iterable of batches.

    What knows its own place is asked for it: an iterable, or else its iterator, with `state_dict`
    and `load_state_dict`, or `get_state` and `set_state`.
    """

    def __init__(self, iterable: Iterable[Any], state: str | None = None):
        """Begins a pass.

        Args:
            iterable: whose batches to give.
            state: what `state()` returned earlier, to go on there.

        Raises:
            IterableError: there is a state, but nothing here that can load it.
        """
        pair = state_functions(iterable)
        if pair is not None and state is not None:
            pair[1](decoded(state))
        self._iterator = iter(iterable)
        if pair is None:
            pair = state_functions(self._iterator)
            if pair is None and state is not None:
                raise IterableError(
                    "a position that holds an iterable's own state needs an iterable that can load "
                    f"it; got a {type(iterable).__name__}, without load_state_dict or set_state; "
                    "give the one that the run was started with, or start a new run"
                )
            if pair is not None and state is not None:
                pair[1](decoded(state))
        self._save = None if pair is None else pair[0]

    def __next__(self) -> Any:
        """Returns the next batch, as it comes."""
        return next(self._iterator)

    def state(self) -> str | None:
        """Returns the place behind the last batch, for JSON; None if the iterable cannot tell."""
        return None if self._save is None else encoded(self._save())


def state_functions(thing: Any) -> tuple[Callable[[], Any], Callable[[Any], Any]] | None:
    """Returns what saves and what loads the place of an iterable or iterator, if it has both."""
    for save, load in _PAIRS:
        if hasattr(thing, save) and hasattr(thing, load):
            return getattr(thing, save), getattr(thing, load)
    return None
