"""Exists so that batches made elsewhere (tf.data, grain, a list, a generator) train like ours."""

import contextlib
import dataclasses
import inspect
import itertools
import pkgutil
import re
import sys
from collections.abc import Mapping
from typing import Any

from data.convert import IterableError
from data.passes import state_functions
from data.source import check_split
from data.states import decoded, encoded

# Packages whose functions are no iterables, and may do harm if they are called as if they were.
_NOT_BATCHES = ("hybrid", "physics", "learners", "data", "experiments")

# What `pkgutil.resolve_name` imports besides these, nobody who checks a config takes for a path.
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Batches:
    """An iterable whose elements are batches, or a function that makes one.

    A source's `dataset(split)` may return one in place of an `ItemDataset`; any iterable without
    `__getitem__` and `__len__` is taken for one.

    A batch is a dict of arrays [batch_size, ...]: NumPy, torch, or whatever speaks DLPack or
    `__array__`. `audio` float32, zero behind `lengths`; `lengths` (all samples, if left out);
    `labels`; `ids` (counted, if left out); `weights` (1, if left out); and what a task asks for.
    Wider types are narrowed to float32 and int32. A batch of fewer rows is filled up with rows of
    weight 0. An array must not be written to after it was given: it may not have been copied.

    Order and augmentation are the iterable's own business, and so is how long it takes: no time
    limit holds for it, unlike for files. For training it is passed over again and again; for
    evaluation one pass must end.
    """

    def __init__(
        self,
        batches: Any,
        *,
        rename: Mapping[str, str] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **offered: Any,
    ):
        """Initializes an iterable of batches; nothing is read yet.

        Args:
            batches: an iterable; or a function, given what it has arguments for of `offered` and of
                `epoch`, `seed` and `batch_size`. It is called for each pass if it takes `epoch` or
                returns an iterator, otherwise once.
            rename: names of arrays, theirs to ours: {"waveform": "audio"}.
            kwargs: further arguments of the function.
            **offered: what the function may ask for, such as `split`.

        Raises:
            ValueError: it is neither, or the function does not take the `kwargs`.
        """
        self._is_function = isinstance(batches, type) or not hasattr(batches, "__iter__")
        if self._is_function and not callable(batches):
            raise ValueError(
                "batches come from an iterable, or a function that makes one; got a "
                f"{type(batches).__name__}; give a list or a generator of dicts of arrays"
            )
        self._batches: Any = batches
        self._rename = dict(rename or {})
        self._kwargs = dict(kwargs or {})
        self._offered = offered
        self._made: Any = None
        self._made_for: tuple[int, int] | None = None
        self._kept: list[Any] = []
        if self._is_function:
            self._names, self._takes_any = _parameters(batches)
            unknown = [name for name in self._kwargs if name not in self._names]
            if unknown and not self._takes_any:
                raise ValueError(
                    f"kwargs must be arguments of the function; {unknown[0]!r} is none of "
                    f"{', '.join(self._names) or 'its (it has none)'}; leave it out"
                )

    def iterable(self, *, epoch: int, seed: int, batch_size: int) -> Any:
        """Returns the iterable to pass over next.

        Args:
            epoch: number of passes before this one.
            seed: the run's.
            batch_size: the run's.
        """
        if not self._is_function:
            kept, self._kept = self._kept, []
            return itertools.chain(kept, _rest(self._batches)) if kept else self._batches
        if self._made is not None and self._made_for == (seed, batch_size):
            return self._made
        offered = {"epoch": epoch, "seed": seed, "batch_size": batch_size} | self._offered
        taken = {k: v for k, v in offered.items() if self._takes_any or k in self._names}
        made = self._batches(**(taken | self._kwargs))
        if not hasattr(made, "__iter__"):
            raise IterableError(
                "a function of batches must return an iterable of them, got a "
                f"{type(made).__name__}: let it return a list, or yield dicts of arrays"
            )
        if not (self._takes_any or "epoch" in self._names or hasattr(made, "__next__")):
            self._made, self._made_for = made, (seed, batch_size)
        return made

    def first(self, *, seed: int, batch_size: int) -> Any:
        """Returns the first batch, which will still come in the first pass."""
        if self._kept:
            return self._kept[0]
        iterable = self.iterable(epoch=0, seed=seed, batch_size=batch_size)
        pair = state_functions(iterable)
        state = "" if pair is None else encoded(pair[0]())
        batch = next(iter(iterable), None)
        if batch is None:
            raise IterableError(
                "an iterable of batches must give at least one; this one gave none, or was used up "
                "before; look at where it reads, or give a list or a function in place of a "
                "generator"
            )
        if pair is not None:
            pair[1](decoded(state))
        elif iterable is self._batches and hasattr(iterable, "__next__"):
            self._kept.append(batch)
        return batch

    def renamed(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a batch under our names."""
        return {self._rename.get(name, name): value for name, value in batch.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Iterables:
    """A source of batches made elsewhere, for `config.data.target="data:Iterables"`.

    Example:
        # my_data.py
        def batches(split, batch_size, seed, epoch):      # or any of these arguments, or none
            for waveforms, words in my_pipeline(split, batch_size, seed + epoch):
                yield {"audio": waveforms, "labels": words}

        config.data.target = "data:Iterables"
        config.data.kwargs = {
            "target": "my_data:batches", "class_names": ("no", "yes"),
            "sample_rate_hz": 16000, "num_samples": 16000,
        }

    Attributes:
        target: import path of a function as `Batches` takes it, given `split` and `root` too if it
            has such arguments; or of a mapping from "train", "validation", "test" to iterables.
        kwargs: further arguments of the function.
        class_names: the name of each label.
        sample_rate_hz: of the audio.
        num_samples: length of the audio of every batch.
        rename: names of arrays, theirs to ours.
        root: a folder, for a function that wants one.
    """

    target: str
    class_names: tuple[str, ...]
    sample_rate_hz: int | float
    num_samples: int
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    root: str | None = None
    _splits: dict[str, Batches] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self):
        found = self._found()
        if not callable(found) and not isinstance(found, Mapping):
            raise ValueError(
                "target names a function, or a mapping from splits to iterables; "
                f"{self.target!r} is a {type(found).__name__}; put it into a dict: "
                "{'train': ..., 'validation': ..., 'test': ...}"
            )
        if isinstance(found, Mapping) and self.kwargs:
            raise ValueError(
                f"kwargs are arguments of a function; got {dict(self.kwargs)} for {self.target!r}, "
                "which is a mapping; leave them out"
            )

    def dataset(self, split: str) -> Batches:
        """Returns the batches of "train", "validation" or "test".

        Raises:
            ValueError: there are none for this split.
        """
        check_split(split)
        if split not in self._splits:
            found = self._found()
            if isinstance(found, Mapping):
                if split not in found:
                    raise ValueError(
                        f"{self.target!r} must hold each split that a run uses; it lacks {split!r} "
                        f"and has {', '.join(map(str, found))}; add an iterable of that name"
                    )
                self._splits[split] = Batches(found[split], rename=self.rename)
            else:
                self._splits[split] = Batches(
                    found, rename=self.rename, kwargs=self.kwargs, split=split, root=self.root
                )
        return self._splits[split]

    def _found(self) -> Any:
        if not isinstance(self.target, str) or not _IMPORT_PATH.fullmatch(self.target):
            raise ValueError(
                f"target must be an import path 'package.module:name', got {self.target!r}: write "
                "the module, a colon and the name, and nothing around them"
            )
        module = self.target.partition(":")[0]
        # A function of batches has any arguments: only where it lies tells it from one that does
        # something else with them.
        if module.partition(".")[0] in {*_NOT_BATCHES, *sys.stdlib_module_names}:
            raise ValueError(
                f"target must name batches of your own, got {self.target!r}: none are made in "
                "this library or in Python's"
            )
        try:
            return pkgutil.resolve_name(self.target)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"target must be an import path 'package.module:name', got {self.target!r} "
                f"({error}): is its folder on PYTHONPATH or its package installed?"
            ) from error


def _rest(iterator: Any) -> Any:
    """Yields what is left, without asking for `iter()`, by which some begin anew."""
    with contextlib.suppress(StopIteration):
        while True:
            yield next(iterator)


def _parameters(function: Any) -> tuple[list[str], bool]:
    """Returns the names of the arguments that a function takes, and whether it takes any."""
    parameters = inspect.signature(function).parameters.values()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD], takes_any
