"""States what a source of data is, and serves clips on disk as padded arrays of one length."""

import abc
import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch.utils.data import Dataset

from data.audio_files import AudioFileError, read_clip
from data.transforms import Item, Transform, build

SPLITS = ("train", "validation", "test")
OnBadFile = Literal["error", "skip"]


class DataRootError(ValueError):
    """The folder of a corpus is not given, not there, or does not hold the corpus."""


@runtime_checkable
class ItemDataset(Protocol):
    """A split: a torch Dataset of known length whose items are dicts of NumPy arrays."""

    def __len__(self) -> int:
        """Returns the number of clips."""
        ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Returns item `index`, of the same shapes for every index.

        `audio` float32 [num_samples], zero behind `lengths`; `lengths` int32, the valid samples;
        `labels` int32; `ids` int32, the index itself; `weights` float32: 1, or 0 for a row that is
        to be ignored. `ids` and `weights` may be left out.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioSource(abc.ABC):
    """A corpus at one sample rate; a frozen dataclass, built from the config.

    The config's `data.target` is called with `root`, `sample_rate_hz` and `data.kwargs`. A class of
    one's own need not inherit from this one, if it has `sample_rate_hz`, `num_samples`,
    `class_names`, `dataset` and, if it augments, `transforms`; `evaluation_dataset` may be left
    out. Its `dataset` may return batches made elsewhere, see `data.Batches`.

    Attributes:
        root: folder of the corpus.
        sample_rate_hz: rate to resample to, a whole number.
        seconds: length that clips are padded to.
        augment: augmentation of the training split, see `data.transforms.build`.
        on_bad_file: "error", or "skip" to leave bad files out and count them.
        cache_bytes: memory for decoded clips, in each process.
    """

    root: str | None = None
    sample_rate_hz: int | float
    seconds: int | float
    augment: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    on_bad_file: OnBadFile = "error"
    cache_bytes: int = 1 << 30

    def __post_init__(self):
        if self.sample_rate_hz <= 0 or self.sample_rate_hz != int(self.sample_rate_hz):
            raise ValueError(
                "a sample rate is a whole number of hertz above 0; "
                f"got {self.sample_rate_hz!r}; give for instance 22050"
            )
        if not 0 < self.seconds < math.inf:
            raise ValueError(
                f"clips are padded to a length above 0 s; got seconds={self.seconds!r}; give 1.0"
            )
        if self.on_bad_file not in ("error", "skip"):
            raise ValueError(f"on_bad_file is 'error' or 'skip'; got {self.on_bad_file!r}")

    @property
    def num_samples(self) -> int:
        """Length that every clip is padded to."""
        return math.ceil(round(self.seconds * self.sample_rate_hz, 6))

    @property
    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """The name of each label."""

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """Augmentation of the training split, for `Loader(transforms=...)`; may be empty."""
        return build(self.augment, int(self.sample_rate_hz))

    @abc.abstractmethod
    def dataset(self, split: str) -> ItemDataset:
        """Returns the split "train", "validation" or "test"; always in the same order."""

    def evaluation_dataset(self, split: str) -> ItemDataset:
        """Returns a split as it is judged: with all of the task that is left to transforms."""
        return self.dataset(split)

    def clips(
        self,
        root: pathlib.Path,
        names: Sequence[str],
        labels: Sequence[int],
        file_rate_hz: int,
        frames: Sequence[int] | None = None,
    ) -> "ClipDataset":
        """Returns a data set of recordings; arguments as those of `ClipDataset`."""
        return ClipDataset(
            root,
            names,
            labels,
            file_rate_hz=file_rate_hz,
            sample_rate_hz=int(self.sample_rate_hz),
            num_samples=self.num_samples,
            frames=frames,
            on_bad_file=self.on_bad_file,
            cache_bytes=self.cache_bytes,
        )


def holds_items(dataset: Any) -> bool:
    """Tells a split of clips, an `ItemDataset`, from an iterable of batches, as in `Batches`."""
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


class ClipDataset(Dataset):
    """Recordings of one split, decoded when first asked for and then kept in memory.

    Each process keeps its own clips (workers get none by pickling), at the asked sample rate, until
    `cache_bytes` are used; what does not fit is decoded every time. Nothing is evicted, so memory
    stops growing.

    Attributes:
        faults: in this process, why each skipped clip was skipped, by index.
    """

    def __init__(
        self,
        root: pathlib.Path,
        names: Sequence[str],
        labels: Sequence[int],
        *,
        file_rate_hz: int,
        sample_rate_hz: int,
        num_samples: int,
        frames: Sequence[int] | None = None,
        on_bad_file: OnBadFile = "error",
        cache_bytes: int = 1 << 30,
    ):
        """Initializes a data set; no file is read yet.

        Args:
            root: folder that the names are relative to.
            names: path of each clip.
            labels: class of each clip.
            file_rate_hz: the sample rate that each file must have.
            sample_rate_hz: the sample rate of the items.
            num_samples: length that items are padded to; a longer clip is a bad file.
            frames: samples in each file, where known.
            on_bad_file: "error" raises `AudioFileError`; "skip" leaves the clip's place to a row of
                zeros with weight 0, so that neither order nor shapes change.
            cache_bytes: memory for decoded clips in each process.
        """
        self.root = root
        self.names = tuple(names)
        self.labels = np.asarray(labels, np.int32)
        self.file_rate_hz = file_rate_hz
        self.sample_rate_hz = sample_rate_hz
        self.num_samples = num_samples
        self.frames = None if frames is None else tuple(frames)
        self.on_bad_file = on_bad_file
        self.cache_bytes = cache_bytes
        self.faults: dict[int, str] = {}
        self._clips: dict[int, np.ndarray] = {}
        self._cached_bytes = 0

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        """Returns one clip, padded; see `ItemDataset`.

        Raises:
            AudioFileError: the file is bad and `on_bad_file` is "error".
        """
        audio = np.zeros(self.num_samples, np.float32)
        samples = np.zeros(0, np.float32)
        weight = 1.0
        try:
            samples = self._samples(index)
        except AudioFileError as error:
            if self.on_bad_file == "error":
                raise
            self.faults[index] = str(error)
            weight = 0.0
        audio[: len(samples)] = samples
        return {
            "audio": audio,
            "lengths": np.asarray(len(samples), np.int32),
            "labels": np.asarray(self.labels[index], np.int32),
            "ids": np.asarray(index, np.int32),
            "weights": np.asarray(weight, np.float32),
        }

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_clips": {}, "_cached_bytes": 0, "faults": {}}

    def name(self, index: int) -> str:
        """Returns the file of item `index`, for messages."""
        return str(self.root / self.names[index])

    def fingerprint(self) -> str:
        """Returns a digest of names and labels: equal for equal splits, wherever they lie."""
        digest = hashlib.sha256()
        for name, label in zip(self.names, self.labels.tolist(), strict=True):
            digest.update(f"{name}\t{label}\n".encode())
        return digest.hexdigest()[:16]

    def _samples(self, index: int) -> np.ndarray:
        """Returns the decoded clip [time], from memory where possible."""
        clip = self._clips.get(index)
        if clip is None:
            clip = self._decode(index)
            if self._cached_bytes + clip.nbytes <= self.cache_bytes:
                self._clips[index] = clip
                self._cached_bytes += clip.nbytes
        return clip

    def _decode(self, index: int) -> np.ndarray:
        """Returns one clip [time] from its file; what a subclass does in its own way."""
        return read_clip(
            self.root / self.names[index],
            file_rate_hz=self.file_rate_hz,
            sample_rate_hz=self.sample_rate_hz,
            max_samples=self.num_samples,
            frames=None if self.frames is None else self.frames[index],
        )


def check_split(split: str) -> None:
    """Raises ValueError unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"a split is one of {', '.join(SPLITS)}; got {split!r}")
