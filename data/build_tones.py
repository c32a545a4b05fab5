"""Writes the embedded corpus of spoken tones, so that its file names and its split can be checked.

    python -m data.build_tones /usr/share/gcin-voice/ogg data/corpora/spoken_tones

The source is Debian's package `gcin-voice`: one folder for each spoken syllable, named in bopomofo
and ending in the tone (no digit: tone 1; `1`: neutral; 2, 3, 4: themselves). Only the recordings
called `5.ogg` are taken; the others are under another licence.
"""

import argparse
import csv
import hashlib
import pathlib
import shutil
from collections import defaultdict
from collections.abc import Mapping

import soundfile

# One ASCII spelling for each bopomofo letter, so that file names survive any archive or disk.
_BOPOMOFO = "ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄓㄔㄕㄖㄗㄘㄙㄚㄛㄜㄝㄞㄟㄠㄡㄢㄣㄤㄥㄦㄧㄨㄩ"
_ASCII = "b p m f d t n l g k h j q x zh ch sh r z c s a o e eh ai ei ao ou an en ang eng er i u v"
LETTERS = dict(zip(_BOPOMOFO, _ASCII.split(), strict=True))
COLUMNS = ("file", "folder", "syllable", "tone", "split", "frames")


def parse_folder(folder: str) -> tuple[str, int]:
    """Returns the syllable, in ASCII, and the tone (0: neutral) that a folder's name states.

    Raises:
        ValueError: the name is not bopomofo letters with at most one final digit out of 1 to 4.
    """
    digits = {"1": 0, "2": 2, "3": 3, "4": 4}
    letters, tone = (folder[:-1], digits[folder[-1]]) if folder[-1:] in digits else (folder, 1)
    if not letters or any(letter not in LETTERS for letter in letters):
        raise ValueError(
            "a folder is named by bopomofo letters and at most one digit out of 1, 2, 3, 4; "
            f"got {folder!r}; give the `ogg` folder of the package gcin-voice"
        )
    return "".join(LETTERS[letter] for letter in letters), tone


def split_syllables(tones: Mapping[str, frozenset[int]]) -> dict[str, str]:
    """Assigns each syllable, with all its tones, to one split: 8 in 10 train, 1 each to the others.

    Syllables that exist in the same tones are dealt out together, in an order made by a hash, so
    that the splits hold the tones in nearly equal shares.

    Args:
        tones: the tones (1 to 4) in which each syllable was recorded.

    Returns:
        "train", "validation" or "test" for each syllable.
    """

    def dealing_order(syllable: str) -> tuple[list[int], bytes]:
        return sorted(tones[syllable]), hashlib.sha256(syllable.encode()).digest()

    deal = {3: "validation", 7: "test"}
    return {
        syllable: deal.get(i % 10, "train")
        for i, syllable in enumerate(sorted(tones, key=dealing_order))
    }


def build(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the clips to `target/clips` and writes `target/index.csv`.

    Args:
        source: the package's folder `ogg`.
        target: folder of the corpus; it must not hold clips yet.
    """
    folders = sorted(path.parent.name for path in source.glob("*/5.ogg"))
    if not folders:
        raise FileNotFoundError(f"clips are read from FOLDER/5.ogg; found none under {source}")
    parsed = {folder: parse_folder(folder) for folder in folders}
    tones: defaultdict[str, set[int]] = defaultdict(set)
    for syllable, tone in parsed.values():
        if tone:
            tones[syllable].add(tone)
    splits = split_syllables({syllable: frozenset(seen) for syllable, seen in tones.items()})

    (target / "clips").mkdir(parents=True)
    with (target / "index.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for folder, (syllable, tone) in sorted(parsed.items(), key=lambda item: item[1]):
            clip = source / folder / "5.ogg"
            name = f"clips/{syllable}{tone}.ogg"
            shutil.copyfile(clip, target / name)
            split = splits[syllable] if tone else "none"
            frames = soundfile.info(str(clip)).frames
            writer.writerow((name, folder, syllable, tone, split, frames))


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description="Writes the corpus of spoken tones.")
    parser.add_argument("source", type=pathlib.Path, help="the package's folder `ogg`")
    parser.add_argument("target", type=pathlib.Path, help="folder of the corpus, to be made")
    arguments = parser.parse_args()
    build(arguments.source, arguments.target)


if __name__ == "__main__":
    main()
