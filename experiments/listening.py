"""Hands sounds over to be compared by ear: as WAV files, and in TensorBoard beside a run's own."""

import pathlib
import re
import shutil
from collections.abc import Mapping

import numpy as np


def write_sounds(
    sounds: Mapping[str, np.ndarray],
    sample_rate_hz: float,
    workdir: pathlib.Path,
    folder: str,
    step: int,
) -> list[pathlib.Path]:
    """Writes sounds into a folder of a run, and of the run's `tensorboard`.

    TensorBoard shows the latter as a run of its own. It is written anew each time; the logs of
    training, which a resume cuts and goes on with, are not touched.

    Args:
        sounds: `[time]` each, full scale 1.0, by name; the names make those of files and tags.
        sample_rate_hz: of all of them.
        workdir: the run's directory.
        folder: where in there, and in its `tensorboard`; the first part of the tags.
        step: steps that the run has done.

    Returns:
        The files.
    """
    import soundfile
    from tensorboardX import SummaryWriter

    from hybrid.writers import TENSORBOARD_NAME

    rate_hz = int(sample_rate_hz)
    (workdir / folder).mkdir(parents=True, exist_ok=True)
    events = workdir / TENSORBOARD_NAME / folder
    shutil.rmtree(events, ignore_errors=True)
    files = []
    with SummaryWriter(str(events)) as writer:
        for name, clip in sounds.items():
            plain = re.sub(r"[^\w-]+", "_", name).strip("_")
            files.append(workdir / folder / f"{plain}.wav")
            soundfile.write(files[-1], clip, rate_hz, subtype="PCM_16")
            writer.add_audio(
                f"{folder}/{plain}", clip.astype(np.float32), step, sample_rate=rate_hz
            )
    return files
