"""Serves spoken words in noise, each with the clean word that it was made of.

Words and splits are those of Speech Commands, hence by speaker. The noise comes from the corpus'
`_background_noise_`, whose recordings are shared out whole: none is heard in more than one split.
"""

import dataclasses
import hashlib
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from scipy import signal
from torch.utils.data import Dataset

from data.source import SPLITS, AudioSource, ClipDataset, DataRootError, check_split
from data.speech_commands import FILE_RATE_HZ, SpeechCommands
from data.torchaudio_compat import load_torchaudio
from data.transforms import Item, Transform, build, read_noise

_BEFORE_NOISE = ("shift", "gain")
_NAMED = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisySpeech(AudioSource):
    """One-second words in noise; `audio` is what is heard, `clean` [time] what was said.

    In training the noise is drawn anew for (seed, epoch, index). In validation and test it belongs
    to the item: recording, stretch and ratio are the same in every evaluation.

    Attributes:
        root: folder that holds `SpeechCommands/speech_commands_v0.02`, as torchaudio lays it out.
        sample_rate_hz: see `AudioSource`, as the other fields.
        seconds: none of the corpus is longer than 1 s.
        augment: `shift` and `gain`, applied to the words before noise is added.
        words: classes, in the order of their labels; `None`: every word there is, sorted.
        download: fetch the whole corpus (2.3 GB) into `root` if it is not there.
        low_snr_db: lowest ratio of the energies of word and noise.
        high_snr_db: highest one; ratios are drawn evenly between them.
        colour: how far the spectrum of noise is bent at random in training, see `NoiseMix`; no
            choice of recordings holds all the noise there is.
        noise_seed: decides the noise of validation and test.
        held_out: recordings of noise by name, without `.wav`: those of "validation" and of "test",
            and those "unused"; all others are for training. Where files are cut from longer
            recordings, all of one must be named together. Names that the corpus lacks are logged;
            if it has none of these names, a fifth each is held out, by a hash of the name.
    """

    sample_rate_hz: int | float = FILE_RATE_HZ
    seconds: int | float = 1.0
    words: Sequence[str] | None = None
    download: bool = False
    low_snr_db: int | float = -5.0
    high_snr_db: int | float = 10.0
    colour: int | float = 0.0
    noise_seed: int = 0
    held_out: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        super().__post_init__()
        if not self.low_snr_db <= self.high_snr_db:
            raise ValueError(
                f"low_snr_db must not exceed high_snr_db; got {self.low_snr_db} and "
                f"{self.high_snr_db}; swap them"
            )
        if wrong := sorted(set(self.augment) - set(_BEFORE_NOISE)):
            raise ValueError(
                f"words are augmented by {' and '.join(_BEFORE_NOISE)} before noise is added; got "
                f"{', '.join(wrong)}, which would be taken for speech; set low_snr_db and "
                "high_snr_db instead"
            )
        names = [name for share in self.held_out.values() for name in share]
        if set(self.held_out) - {"validation", "test", "unused"} or len(set(names)) < len(names):
            raise ValueError(
                "held_out names recordings for 'validation', 'test' or as 'unused', each once; got "
                f"{dict(self.held_out)}; name each in one list"
            )
        _ = self.class_names, self.transforms  # whatever is wrong with them is said now
        there = {pathlib.Path(file).stem for file in self._speech.noise_files}
        if absent := sorted(set(names) - there):
            logging.getLogger(__name__).warning(
                "held_out: of %d names %d are of no recording in _background_noise_: %s%s",
                *(len(names), len(absent), ", ".join(absent[:_NAMED])),
                ", ..." if len(absent) > _NAMED else "",
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The word of each label."""
        return self._speech.class_names

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """What happens to words of the training split; noise comes last."""
        return (*build(self.augment, int(self.sample_rate_hz)), self._mix("train"))

    def noise_files(self, split: str) -> tuple[str, ...]:
        """Returns the recordings of noise that are heard in a split, and in no other.

        Raises:
            DataRootError: some split would have none.
        """
        check_split(split)
        shares = shared_out(self._speech.noise_files, self.held_out)
        if empty := [name for name in SPLITS if not shares[name]]:
            raise DataRootError(
                "noise is held out whole, so each split needs a recording of its own in "
                f"_background_noise_; of those in {self.root!r} none is for {', '.join(empty)}; "
                f"add recordings there (mono, {FILE_RATE_HZ} Hz), or name them in held_out"
            )
        return shares[split]

    def dataset(self, split: str) -> "NoisyClips":
        """Returns the words of "train" (not mixed yet), "validation" or "test", in noise."""
        if split != "train":
            return self.evaluation_dataset(split)
        return NoisyClips(self._speech.dataset(split), self._mix(split), None)

    def evaluation_dataset(self, split: str) -> "NoisyClips":
        """Returns the words of a split in noise that belongs to them, those of "train" too."""
        seed = self.noise_seed, SPLITS.index(split)
        return NoisyClips(self._speech.dataset(split), self._mix(split), seed)

    @property
    def _speech(self) -> SpeechCommands:
        return SpeechCommands(
            root=self.root,
            sample_rate_hz=self.sample_rate_hz,
            seconds=self.seconds,
            on_bad_file=self.on_bad_file,
            cache_bytes=self.cache_bytes,
            words=self.words,
            download=self.download,
        )

    def _mix(self, split: str) -> "NoiseMix":
        return NoiseMix(
            self.noise_files(split),
            FILE_RATE_HZ,
            int(self.sample_rate_hz),
            self.low_snr_db,
            self.high_snr_db,
            self.colour if split == "train" else 0.0,
        )


@dataclasses.dataclass(frozen=True)
class NoiseMix:
    """Adds a random stretch of a random recording, and keeps the item's audio as `clean`.

    A recording is taken as a loop: a stretch may begin anywhere in it and go on at its beginning.
    The ratio is that of energies over the valid samples, as in `torchaudio.functional.add_noise`.

    Attributes:
        files: mono recordings at `file_rate_hz`.
        file_rate_hz: the rate that the recordings must have.
        sample_rate_hz: the rate of the items.
        low_snr_db: lowest ratio.
        high_snr_db: highest ratio; they are drawn evenly.
        colour: the noise goes through two filters (1 + b z^-1) / (1 + a z^-1), whose a and b are
            drawn evenly from -colour to colour, below 1; 0 leaves it as recorded. After Valin, "A
            hybrid DSP/deep learning approach to real-time full-band speech enhancement" (MMSP
            2018), section IV, where it is one filter of second order.
    """

    files: tuple[str, ...]
    file_rate_hz: int
    sample_rate_hz: int
    low_snr_db: int | float
    high_snr_db: int | float
    colour: int | float = 0.0

    def __post_init__(self):
        if not 0 <= self.colour < 1:
            raise ValueError(
                f"colour lies in [0, 1), or filters are not stable; got {self.colour!r}; give 0.9"
            )

    def __call__(self, item: Item, rng: np.random.Generator) -> Item:
        """Returns the item with noise in `audio`; of silent words or noise, as it is, weight 0."""
        clean, length = item["audio"], int(item["lengths"])
        snr_db = rng.uniform(self.low_snr_db, self.high_snr_db)
        recording = read_noise(
            self.files[int(rng.integers(len(self.files)))], self.file_rate_hz, self.sample_rate_hz
        )
        start = int(rng.uniform() * len(recording))
        noise = np.take(recording, np.arange(start, start + length), mode="wrap")
        if self.colour:
            ends = rng.uniform(-self.colour, self.colour, (2, 2)).tolist()
            for b, a in ends:
                noise = signal.lfilter([1.0, b], [1.0, a], noise)
            noise = np.asarray(noise, np.float32)
        if not all(np.sum(np.square(sound)) > 0 for sound in (clean[:length], noise)):
            # Ratios to nothing are infinite, whether nothing is to be heard or nothing in its way.
            return item | {"clean": clean, "weights": np.asarray(0, np.float32)}
        noisy = clean.copy()
        noisy[:length] = _mixed(clean[:length], noise, snr_db)
        return item | {"audio": noisy, "clean": clean}


class NoisyClips(Dataset):
    """Words of one split with their clean selves; see `ItemDataset`.

    Attributes:
        clips: the words.
        mix: what adds noise.
        seed: of the noise that belongs to each item; None leaves it to the loader's transforms.
    """

    def __init__(self, clips: ClipDataset, mix: NoiseMix, seed: tuple[int, int] | None):
        self.clips, self.mix, self.seed = clips, mix, seed

    @property
    def faults(self) -> Mapping[int, str]:
        """Why each skipped clip was skipped, by index."""
        return self.clips.faults

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one word with `clean` [time], zero behind `lengths` as `audio` is."""
        item = self.clips[index]
        if self.seed is None or not item["weights"]:
            return item | {"clean": item["audio"]}
        return self.mix(item, np.random.default_rng((*self.seed, index)))

    def name(self, index: int) -> str:
        """Returns the file of item `index`, for messages."""
        return self.clips.name(index)

    def fingerprint(self) -> str:
        """Returns a digest of words, noise and ratios: equal for equal splits."""
        names = [pathlib.Path(file).name for file in self.mix.files]
        ratios = (self.mix.low_snr_db, self.mix.high_snr_db, self.mix.colour, self.seed)
        text = "\n".join([self.clips.fingerprint(), *names, repr(ratios)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def shared_out(
    files: Sequence[str], held_out: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Gives each recording of noise to one split.

    Args:
        files: in any order; folders do not matter.
        held_out: see `NoisySpeech`.

    Returns:
        The files of "train", "validation", "test" and "unused", sorted.
    """
    stems = {pathlib.Path(file).stem for file in files}
    if not stems & {name for share in held_out.values() for name in share}:
        by_hash = sorted(files, key=_hash)
        size = max(1, len(files) // 5) if len(files) >= len(SPLITS) else 0
        by_hash = [pathlib.Path(file).stem for file in by_hash]
        held_out = {"validation": by_hash[:size], "test": by_hash[size : 2 * size]}
    split_of = {name: split for split in held_out for name in held_out[split]}
    shares: dict[str, list[str]] = {split: [] for split in (*SPLITS, "unused")}
    for file in sorted(files):
        shares[split_of.get(pathlib.Path(file).stem, "train")].append(file)
    return {split: tuple(share) for split, share in shares.items()}


def _hash(file: str) -> bytes:
    return hashlib.sha256(pathlib.Path(file).stem.encode()).digest()


def _mixed(
    clean: Float32[np.ndarray, " time"], noise: Float32[np.ndarray, " time"], snr_db: float
) -> Float32[np.ndarray, " time"]:
    """Returns the sum, the noise scaled to the ratio."""
    load_torchaudio()
    from torchaudio.functional import add_noise

    threads = torch.get_num_threads()
    # Torch shares out the sums of long clips among its threads, which changes rounding.
    torch.set_num_threads(1)
    try:
        mixed = add_noise(
            torch.from_numpy(clean), torch.from_numpy(noise), torch.tensor(snr_db).float()
        )
    finally:
        torch.set_num_threads(threads)
    return mixed.numpy()
