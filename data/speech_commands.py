"""Serves Speech Commands: torchaudio knows files, labels and splits, soundfile decodes."""

import dataclasses
import gzip
import hashlib
import pathlib
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from typing import Any

import torch.hub

from data.source import AudioSource, ClipDataset, DataRootError, check_split
from data.torchaudio_compat import load_torchaudio
from data.transforms import Transform, build

FILE_RATE_HZ = 16_000
# The archive that torchaudio fetches, and the digest that it checks (torchaudio 2.11).
ARCHIVE_URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
ARCHIVE_SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
_FOLDER = pathlib.Path("SpeechCommands")
_VERSION = "speech_commands_v0.02"
_SUBSETS = {"train": "training", "validation": "validation", "test": "testing"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechCommands(AudioSource):
    """One-second words by many speakers (Warden, 2018, CC BY 4.0), split by speaker.

    Attributes:
        root: folder that holds `SpeechCommands/speech_commands_v0.02`, as torchaudio lays it out.
        sample_rate_hz: see `AudioSource`, as the other fields.
        seconds: none of the corpus is longer than 1 s.
        words: classes, in the order of their labels; `None`: every word there is, sorted.
        download: fetch the whole corpus (2.3 GB) into `root` if it is not there.
    """

    sample_rate_hz: int | float = FILE_RATE_HZ
    seconds: int | float = 1.0
    words: Sequence[str] | None = None
    download: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.download and self.root and not self._folder.is_dir():
            _download(self._folder.parent.parent)
        self._check_root()
        _ = self.class_names, self.transforms  # whatever is wrong with them is said now

    @property
    def class_names(self) -> tuple[str, ...]:
        """The word of each label."""
        spoken = sorted(
            folder.name
            for folder in self._folder.iterdir()
            if folder.is_dir() and not folder.name.startswith("_")
        )
        if self.words is None:
            return tuple(spoken)
        if not self.words or len(set(self.words)) != len(self.words):
            raise ValueError(f"words are one or more, without repetition; got {list(self.words)}")
        if missing := sorted(set(self.words) - set(spoken)):
            raise ValueError(
                f"every word must have a folder in {self._folder}; {', '.join(missing)} has none; "
                f"choose from {', '.join(spoken)}"
            )
        return tuple(self.words)

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """Augmentation of the training split; `background` takes its noise from the corpus."""
        return build(self.augment, int(self.sample_rate_hz), self.noise_files, FILE_RATE_HZ)

    @property
    def noise_files(self) -> tuple[str, ...]:
        """The corpus' recordings of noise, sorted."""
        files = sorted((self._folder / "_background_noise_").glob("*.wav"))
        return tuple(str(file) for file in files)

    def dataset(self, split: str) -> ClipDataset:
        """Returns the clips of "train", "validation" or "test", in torchaudio's order.

        Raises:
            DataRootError: the list of a split is missing, or holds no clip of the chosen words.
        """
        check_split(split)
        names, labels = [], []
        label_of = {word: label for label, word in enumerate(self.class_names)}
        corpus = self._corpus(_SUBSETS[split])
        for index in range(len(corpus)):
            file, _, word, _, _ = corpus.get_metadata(index)
            if word in label_of:
                names.append(file)
                labels.append(label_of[word])
        if not names:
            raise DataRootError(
                f"a split must hold clips; {self._folder} has none of "
                f"{', '.join(self.class_names)} in {split!r}; choose other words or another root"
            )
        return self.clips(self._folder.parent, names, labels, FILE_RATE_HZ)

    @property
    def _folder(self) -> pathlib.Path:
        """The folder of the words."""
        return pathlib.Path(self.root or "").expanduser() / _FOLDER / _VERSION

    def _corpus(self, subset: str) -> Any:
        """Returns torchaudio's view of one subset."""
        load_torchaudio()
        from torchaudio.datasets import SPEECHCOMMANDS

        try:
            return SPEECHCOMMANDS(self._folder.parent.parent, url=_VERSION, subset=subset)
        except OSError as error:
            raise DataRootError(
                "Speech Commands lists its splits in validation_list.txt and testing_list.txt; "
                f"{error}; take these files from the original corpus"
            ) from error

    def _check_root(self) -> None:
        """Raises DataRootError unless `root` holds the corpus."""
        way_out = (
            "set --config.data.root=DIR to the folder that holds it, or fetch it (2.3 GB) with "
            """--data_kwargs='{"download": true}'"""
        )
        rule = f"Speech Commands is read from ROOT/{_FOLDER}/{_VERSION}/WORD/*.wav"
        if not self.root:
            raise DataRootError(f"{rule}; no root was given; {way_out}")
        if not self._folder.is_dir():
            state = (
                "exists but lacks that folder"
                if self._folder.parent.parent.is_dir()
                else ("does not exist")
            )
            raise DataRootError(f"{rule}; the root {self.root!r} {state}; {way_out}")
        if next(self._folder.glob("[!_]*/*.wav"), None) is None:
            raise DataRootError(f"{rule}; {self._folder} holds no clip; {way_out}")


def _download(root: pathlib.Path) -> None:
    """Fetches and unpacks the corpus; its folder appears only when it is complete."""
    partial = root / ".download"
    archive, unpacked = partial / f"{_VERSION}.tar.gz", partial / _VERSION
    partial.mkdir(parents=True, exist_ok=True)
    # An unpacking that was cut short, or an archive that somebody else put there, must not count.
    shutil.rmtree(unpacked, ignore_errors=True)
    if archive.is_file() and _sha256(archive) != ARCHIVE_SHA256:
        archive.unlink()
    if not archive.is_file():
        torch.hub.download_url_to_file(ARCHIVE_URL, str(archive), hash_prefix=ARCHIVE_SHA256)
    unpack(archive, unpacked)
    (root / _FOLDER).mkdir(exist_ok=True)
    unpacked.rename(root / _FOLDER / _VERSION)
    shutil.rmtree(partial)


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Unpacks a tar archive; nothing is written outside of `folder`.

    Raises:
        DataRootError: a member that is neither a file nor a folder, or would lie elsewhere, or an
            archive that cannot be read. What was unpacked before stays in `folder`.
    """

    def inside(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        # Links and devices have no place in a corpus, and links are how an archive gets out.
        if not (member.isfile() or member.isdir()) or member.name.startswith(("/", "\\")):
            raise DataRootError(
                f"an archive may hold files and folders below its own; {archive} holds "
                f"{member.name!r} of another kind or place; fetch the archive from its source"
            )
        return tarfile.data_filter(member, path)

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(str(folder), filter=inside)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataRootError(
            f"an archive must be whole and stay in its folder; {archive}: {error}; fetch it from "
            "its source"
        ) from error


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
