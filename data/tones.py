"""Serves the embedded corpus: Mandarin syllables, to be told apart by their four tones."""

import csv
import dataclasses
import functools
import pathlib

from data.source import AudioSource, ClipDataset, DataRootError, check_split

FILE_RATE_HZ = 44_100
TONES = (1, 2, 3, 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpokenTones(AudioSource):
    """1,147 recorded syllables in four tones, split by syllable; no network and no root needed.

    Source, licence and figures: `data/corpora/spoken_tones/README.md`.

    Attributes:
        root: another folder with `index.csv` and the clips; `None` or empty: the installed one.
        sample_rate_hz: see `AudioSource`, as the other fields.
        seconds: the longest clip lasts 0.424 s, half of them 0.294 s.
    """

    sample_rate_hz: int | float = 22_050
    seconds: int | float = 0.425

    def __post_init__(self):
        super().__post_init__()
        _ = self.transforms, self._rows  # whatever is wrong with them is said now

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels 0 to 3."""
        return tuple(f"tone {tone}" for tone in TONES)

    def dataset(self, split: str) -> ClipDataset:
        """Returns the clips of "train", "validation" or "test", sorted by syllable and tone."""
        check_split(split)
        rows = [row for row in self._rows if row["split"] == split]
        return self.clips(
            self._folder,
            [row["file"] for row in rows],
            [TONES.index(int(row["tone"])) for row in rows],
            FILE_RATE_HZ,
            [int(row["frames"]) for row in rows],
        )

    @property
    def _folder(self) -> pathlib.Path:
        embedded = pathlib.Path(__file__).parent / "corpora" / "spoken_tones"
        return pathlib.Path(self.root).expanduser() if self.root else embedded

    @functools.cached_property
    def _rows(self) -> list[dict[str, str]]:
        """The index: one dict a clip."""
        index = self._folder / "index.csv"
        if not index.is_file():
            raise DataRootError(
                f"the spoken tones lie in a folder with index.csv; {self._folder} has none; leave "
                "the data root empty to use the installed corpus, or install the package again"
            )
        with index.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        wanted = {"file", "tone", "split", "frames"}
        if not rows or not wanted <= set(rows[0]):
            raise DataRootError(
                f"{index} must list clips in the columns {', '.join(sorted(wanted))}; it has "
                f"{len(rows)} rows with {', '.join(rows[0]) if rows else 'none'}; leave the data "
                "root empty to use the installed corpus"
            )
        return rows
