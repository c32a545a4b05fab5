"""Exists to show what the cochlea does, in pictures worth putting in a paper.

    python -m experiments.gallery --out=pictures [--only=tuning,audiogram]

Speech is the syllable "ma" in its four tones, from the recordings that come along. Nothing is
trained and nothing random: the same code draws the same pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import gallery_levels, gallery_sounds, gallery_tuning, plots
from experiments.gallery_style import Setting, style
from experiments.launch import run

PICTURES: dict[str, Callable[[Setting], Any]] = {
    "cochleagram": gallery_sounds.cochleagram,
    "tuning": gallery_tuning.tuning,
    "audiogram": gallery_tuning.audiogram,
    "compression": gallery_levels.compression,
    "agc_settling": gallery_levels.agc_settling,
    "stabilized_image": gallery_sounds.stabilized_image,
    "pitchogram": gallery_sounds.pitchogram,
}


def define_flags() -> None:
    """Defines the flags; not on import, so that other commands may use this module."""
    flags.DEFINE_string("out", None, "Directory that the pictures are written to.", required=True)
    flags.DEFINE_list("only", list(PICTURES), "Which pictures to draw.")
    flags.DEFINE_integer("dpi", 200, "Dots per inch.", lower_bound=20, upper_bound=1200)


def main(argv: Sequence[str]) -> None:
    """Draws, and prints what it wrote."""
    if len(argv) > 1:
        raise ValueError(f"gallery takes flags only, got {' '.join(argv[1:])}: see --help")
    # It reports at every start which accelerators this machine does not have.
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)
    values = flags.FLAGS
    for path, about in draw(values.out, values.only, Setting(dpi=values.dpi)):
        print(f"{path}  {about}", flush=True)


def draw(
    out: str | Path, names: Sequence[str] = tuple(PICTURES), setting: Setting | None = None
) -> Iterator[tuple[Path, str]]:
    """Draws pictures one after the other.

    Args:
        out: directory; made if it is not there.
        names: of `PICTURES`.
        setting: sample rate, lengths, resolution.

    Yields:
        The file of each picture, and a sentence on what it shows.

    Raises:
        ValueError: a name that no picture has, or `out` cannot be a directory.
    """
    setting, folder = setting or Setting(), Path(out)
    if unknown := [name for name in names if name not in PICTURES]:
        raise ValueError(
            f"the gallery has the pictures {', '.join(PICTURES)}; got {unknown[0]!r}: leave --only "
            "out for all of them"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"--out must be a directory that can be written to, got {folder}: {error}; give another"
        ) from error
    for name in names:
        picture = PICTURES[name]
        with style():
            path = plots.save(picture(setting), folder / f"{name}.png", setting.dpi)
        yield path, (picture.__doc__ or "").splitlines()[0]


def app() -> None:
    """Console script `hybrid-gallery`."""
    define_flags()
    run(main)


if __name__ == "__main__":
    app()
