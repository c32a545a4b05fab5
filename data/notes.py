"""Serves musical notes of known pitch, recorded or generated, for instruments to be learned from.

Recordings are the packages `tonejs-instrument-NAME-mp3` of the npm registry: notes from several
public sources, gathered, trimmed and levelled by Nicholaus Brosowsky for tonejs-instruments and
packed by Makefully Studios (samples: CC BY 3.0; see README.md in each package).
"""

import dataclasses
import hashlib
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import soundfile
from jaxtyping import Float32

from data.audio_files import AudioFileError, resample
from data.note_synthesis import INSTRUMENTS, make_note, note_hz
from data.source import AudioSource, ClipDataset, DataRootError, OnBadFile, check_split
from data.transforms import Item

RECORDED = ("bassoon", "cello", "clarinet", "flute", "french-horn", "trumpet", "violin")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_NOTE_FILE = re.compile(r"([A-G])([s#]?)(\d)\.(mp3|ogg|wav)")
_INSTRUMENT = re.compile(r"[a-z]+(-[a-z]+)*")
_FADE_S = 0.02
_MOST_SEMITONES = 6
_SPEED_STEP_HZ = 50
_NPM_TIMEOUT_S = 600
# What the formats of names and the checks were made for; of other instruments npm has the newest.
_VERSIONS = dict.fromkeys(RECORDED, "1.1.2") | {"cello": "1.1.1", "violin": "1.1.1"}
_KEPT = re.compile(r"(README|LICENSE)[\w.-]*")
_PACKAGE_BYTES = 64 * 1024**2


class Note(NamedTuple):
    """One note: where it lies (or what it is called), its instrument's label, pitch and take.

    `semitones` is how much higher than its pitch a recording is played, by playing it faster.
    """

    name: str
    label: int
    midi: int
    take: int = 0
    semitones: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notes(AudioSource):
    """Notes of several instruments, which are the labels; items have their pitch as `f0_hz` too.

    A pitch belongs to one split, whatever the instrument: a MIDI number that leaves 2 when divided
    by five is a test note, one that leaves 4 is for validation, the rest is for training. That is
    so without `detune_semitones`: with it training recordings are heard at other pitches too, those
    of the other splits among them, and it is the recordings that are held out.

    Attributes:
        root: folder of the packages `tonejs-instrument-NAME-mp3`; None: notes are generated.
        sample_rate_hz: see `AudioSource`, as the other fields.
        seconds: what lasts longer is cut, and faded out.
        instruments: names of packages, or of generated instruments; none: `RECORDED`, or all that
            can be generated.
        low_midi: lowest note.
        high_midi: highest note.
        takes: notes of each pitch and instrument, where they are generated; of recordings, with
            `detune_semitones`, how many speeds.
        detune_semitones: recordings for training are played at speeds that raise their pitch by so
            many semitones, lower it by as many, and lie in equal steps between (if `takes` is odd,
            one is the recording's own); 0 leaves them.
        download: fetch missing packages by npm into `root` (about 3 MB each), of one version for
            good if they are among `RECORDED`.
    """

    sample_rate_hz: int | float = 16_000
    seconds: int | float = 4.0
    instruments: Sequence[str] = ()
    low_midi: int = 48
    high_midi: int = 84
    takes: int = 2
    detune_semitones: float | int = 0.0
    download: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.download and not self.root:
            raise ValueError(
                "notes are downloaded into a folder; download=True came without one; set "
                "--config.data.root=DIR"
            )
        if not 0 <= self.detune_semitones <= _MOST_SEMITONES:
            raise ValueError(
                f"detune_semitones must lie between 0 and {_MOST_SEMITONES}, got "
                f"{self.detune_semitones}: beyond, an instrument is another one; take 2.5"
            )
        if self.takes != int(self.takes) or self.takes < (2 if self.detune_semitones else 1):
            raise ValueError(
                "takes must be a whole number, 1 or more, and 2 or more where recordings are "
                f"detuned, got {self.takes}: take 9"
            )
        for name in self.class_names:
            self._check_instrument(name)
        _ = self.transforms
        if missing := set(range(len(self.class_names))) - {n.label for n in self.notes("train")}:
            names = ", ".join(self.class_names[label] for label in sorted(missing))
            raise DataRootError(
                f"every instrument must have training notes from {self.low_midi} to "
                f"{self.high_midi}; {names} has none; widen low_midi and high_midi or leave it out"
            )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the instruments."""
        return tuple(self.instruments) or (RECORDED if self.root else tuple(INSTRUMENTS))

    def notes(self, split: str) -> list[Note]:
        """Returns the notes of a split, sorted by instrument, pitch and take."""
        check_split(split)
        notes = []
        for label, name in enumerate(self.class_names):
            notes += self._recorded(name, label) if self.root else self._generated(name, label)
        inside = (n for n in notes if self.low_midi <= n.midi <= self.high_midi)
        chosen = [note for note in inside if split_of(note.midi) == split]
        if not (self.root and self.detune_semitones and split == "train"):
            return chosen
        speeds = np.linspace(
            -self.detune_semitones, self.detune_semitones, int(self.takes)
        ).tolist()
        return [
            note._replace(take=take, semitones=semitones)
            for note in chosen
            for take, semitones in enumerate(speeds)
        ]

    def dataset(self, split: str) -> "NoteDataset":
        """Returns the notes of "train", "validation" or "test"."""
        return NoteDataset(
            self._folder if self.root else None,
            self.notes(split),
            sample_rate_hz=int(self.sample_rate_hz),
            num_samples=self.num_samples,
            on_bad_file=self.on_bad_file,
            cache_bytes=self.cache_bytes,
        )

    @property
    def _folder(self) -> pathlib.Path:
        return pathlib.Path(self.root or "").expanduser()

    def _generated(self, name: str, label: int) -> list[Note]:
        pitches = range(self.low_midi, self.high_midi + 1)
        takes = range(int(self.takes))
        return [
            Note(f"{name}/{midi}/{take}", label, midi, take) for midi in pitches for take in takes
        ]

    def _recorded(self, name: str, label: int) -> list[Note]:
        folder = self._folder / package(name)
        found = ((file, midi_of(file.name)) for file in sorted(folder.iterdir()))
        notes = [
            Note(str(file.relative_to(self._folder)), label, midi)
            for file, midi in found
            if midi is not None
        ]
        return sorted(notes, key=lambda note: note.midi)

    def _check_instrument(self, name: str) -> None:
        if not self.root:
            if name not in INSTRUMENTS:
                raise ValueError(
                    f"without a data root notes are generated for {', '.join(INSTRUMENTS)}; got "
                    f"{name!r}; set --config.data.root=DIR for recordings"
                )
            return
        if not _INSTRUMENT.fullmatch(name):
            raise ValueError(
                f"an instrument is named in small letters and hyphens; got {name!r}; take one of "
                f"{', '.join(RECORDED)}"
            )
        if not (self._folder / package(name)).is_dir():
            if not self.download:
                raise DataRootError(
                    f"notes of {name!r} lie in ROOT/{package(name)}; {self._folder} has no such "
                    """folder; fetch it with --data_kwargs='{"download": true}', or leave the """
                    "data root empty for generated notes"
                )
            fetch(name, self._folder)


class NoteDataset(ClipDataset):
    """Notes of one split; an item has `f0_hz`, float32, the nominal pitch, beside a clip's keys.

    That of a recording at another speed is right to 1.5 cents where files have 44.1 kHz.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        notes: Sequence[Note],
        *,
        sample_rate_hz: int,
        num_samples: int,
        on_bad_file: OnBadFile = "error",
        cache_bytes: int = 1 << 30,
    ):
        """Initializes a data set; nothing is read or generated yet.

        Args:
            folder: what the names are relative to; None: notes are generated.
            notes: what there is.
            sample_rate_hz: the sample rate of the items.
            num_samples: length that items are padded or cut to.
            on_bad_file: see `ClipDataset`.
            cache_bytes: see `ClipDataset`.
        """
        super().__init__(
            folder or pathlib.Path("generated"),
            [note.name for note in notes],
            [note.label for note in notes],
            file_rate_hz=sample_rate_hz,
            sample_rate_hz=sample_rate_hz,
            num_samples=num_samples,
            on_bad_file=on_bad_file,
            cache_bytes=cache_bytes,
        )
        self.notes = tuple(notes)
        self.generated = folder is None

    def __getitem__(self, index: int) -> Item:
        """Returns one note; see `ItemDataset`."""
        note = self.notes[index]
        f0_hz = np.asarray(note_hz(note.midi) * 2 ** (note.semitones / 12), np.float32)
        return super().__getitem__(index) | {"f0_hz": f0_hz}

    def _decode(self, index: int) -> Float32[np.ndarray, " time"]:
        note = self.notes[index]
        if self.generated:
            name = note.name.partition("/")[0]
            return make_note(name, note.midi, note.take, self.sample_rate_hz, self.num_samples)
        path = self.root / note.name
        return read_note(path, self.sample_rate_hz, self.num_samples, note.semitones)

    def fingerprint(self) -> str:
        """Returns a digest as `ClipDataset` does, of the speeds of recordings too."""
        plain = super().fingerprint()
        speeds = ",".join(f"{note.semitones:g}" for note in self.notes)
        if not any(note.semitones for note in self.notes):
            return plain
        return hashlib.sha256(f"{plain}\t{speeds}".encode()).hexdigest()[:16]


def split_of(midi: int) -> str:
    """Returns the split that a pitch belongs to."""
    return {2: "test", 4: "validation"}.get(midi % 5, "train")


def midi_of(file_name: str) -> int | None:
    """Returns the MIDI number that a file of the packages is named by (`As3.mp3`: 58), or None."""
    match = _NOTE_FILE.fullmatch(file_name)
    if match is None:
        return None
    return 12 * (int(match[3]) + 1) + _SEMITONES[match[1]] + bool(match[2])


def package(instrument: str) -> str:
    """Returns the name of an instrument's package."""
    return f"tonejs-instrument-{instrument}-mp3"


def read_note(
    path: pathlib.Path, sample_rate_hz: int, max_samples: int, semitones: float = 0.0
) -> Float32[np.ndarray, " time"]:
    """Decodes a recording, mixes its channels, resamples it, and cuts it with a short fade.

    Args:
        path: the file.
        sample_rate_hz: of the result.
        max_samples: what is longer is cut.
        semitones: how much higher it is to sound, and how much shorter to last.

    Raises:
        AudioFileError: it is missing, cannot be decoded, or is empty or not finite.
    """
    try:
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioFileError.about(path, "a note must decode as audio", f"got: {error}") from error
    if not len(samples) or not np.isfinite(samples).all():
        found = "it is empty" if not len(samples) else "it has others"
        raise AudioFileError.about(path, "a note must have samples, finite ones", found)
    if semitones:
        # A round number of samples a second: the resampler has few phases then.
        rate_hz = round(rate_hz * 2 ** (semitones / 12) / _SPEED_STEP_HZ) * _SPEED_STEP_HZ
    mono = resample(samples.mean(axis=1), rate_hz, sample_rate_hz)
    if len(mono) <= max_samples:
        return mono
    fade = min(max_samples, round(_FADE_S * sample_rate_hz))
    mono = mono[:max_samples].copy()
    mono[max_samples - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return mono


def fetch(instrument: str, root: pathlib.Path) -> None:
    """Fetches the package of an instrument by the npm client; its folder appears when complete.

    Nothing of the package is run: the archive is fetched, and notes, README and licence are taken
    out of it. A folder that another process has put there meanwhile is as good.

    Raises:
        DataRootError: there is no npm, it failed, or the archive holds no notes or is too large.
    """
    name, npm = package(instrument), shutil.which("npm")
    pinned = f"{name}@{_VERSIONS[instrument]}" if instrument in _VERSIONS else name
    rule = f"the notes of {instrument!r} are fetched as the npm package {name}"
    way_out = "put the unpacked package there by hand, or leave the root empty for generated notes"
    if npm is None:
        raise DataRootError(f"{rule}; there is no npm here; install Node.js, {way_out}")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as partial:
        command: list[Any] = [npm, "pack", "--ignore-scripts", "--silent", pinned]
        try:
            subprocess.run(
                command,
                cwd=partial,
                check=True,
                capture_output=True,
                text=True,
                timeout=_NPM_TIMEOUT_S,
            )
            (archive,) = pathlib.Path(partial).glob("*.tgz")
            unpacked = _unpack(archive, pathlib.Path(partial) / "package")
        except (subprocess.SubprocessError, OSError, ValueError, tarfile.TarError) as error:
            said = getattr(error, "stderr", None) or error
            raise DataRootError(f"{rule}; that failed: {said}; {way_out}") from error
        if not any(midi_of(file.name) is not None for file in unpacked.glob("*")):
            raise DataRootError(f"{rule}; it holds no notes such as A4.mp3; {way_out}")
        try:
            unpacked.rename(root / name)
        except OSError as error:
            if not (root / name).is_dir():
                raise DataRootError(
                    f"{rule}; it cannot be put there: {error}; {way_out}"
                ) from error


def _unpack(archive: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Takes regular files with names of notes, README and licence out; links are left out."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        size = 0
        for member in tar:
            size += member.size
            if size > _PACKAGE_BYTES:
                raise ValueError(f"a package must have {_PACKAGE_BYTES} bytes at most, it has more")
            parent, _, file = member.name.rpartition("/")
            wanted = midi_of(file) is not None or _KEPT.fullmatch(file)
            content = tar.extractfile(member) if member.isreg() else None
            if parent == "package" and wanted and content is not None:
                (folder / file).write_bytes(content.read())
    return folder
