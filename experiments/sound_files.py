"""Reads and writes sound files of any length in blocks, strictly, and never half a file."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import soundfile
from jaxtyping import Float32

from data.audio_files import AudioFileError, shortfall

BLOCK_SAMPLES = 65_536


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[soundfile.SoundFile]:
    """Opens a sound file.

    Raises:
        AudioFileError: it is missing, empty, cut short or no sound file.
    """
    if not path.is_file():
        found = "this is a folder" if path.is_dir() else "there is no such file"
        raise AudioFileError(f"{path}: a sound file must be given; {found}; look at its path")
    if path.stat().st_size == 0:
        raise AudioFileError(f"{path}: a sound file must hold samples; it is empty (0 bytes)")
    try:
        stream = soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise _undecodable(path, error) from error
    with stream:
        if stream.frames == 0:
            raise AudioFileError(f"{path}: a sound file must hold samples; its header says 0")
        if found := shortfall(stream):
            raise AudioFileError(f"{path}: a sound file must be complete; {found}; copy it again")
        yield stream


def blocks(
    stream: soundfile.SoundFile, size: int = BLOCK_SAMPLES
) -> Iterator[Float32[np.ndarray, "channels time"]]:
    """Yields the samples of a file, full scale 1.0.

    Args:
        stream: a file from `reading`.
        size: samples of each channel in a block.

    Raises:
        AudioFileError: the file ends before its header says so, cannot be decoded further, or holds
            a value that is not finite.
    """
    path, done = pathlib.Path(stream.name), 0
    while done < stream.frames:
        try:
            block = stream.read(size, dtype="float32", always_2d=True).T
        except (soundfile.SoundFileError, OSError) as error:
            raise _undecodable(path, error) from error
        if not block.shape[1]:
            raise AudioFileError(
                f"{path}: a sound file must be complete; {done} of {stream.frames} samples could "
                "be decoded; copy it again"
            )
        if not np.isfinite(block).all():
            bad = done + int(np.flatnonzero(~np.isfinite(block).all(axis=0))[0])
            raise AudioFileError(
                f"{path}: every sample must be finite; sample {bad} is not; write the file again"
            )
        done += block.shape[1]
        yield np.ascontiguousarray(block)


def check_output(path: pathlib.Path, source: pathlib.Path) -> None:
    """Looks at where a file is to be written, before any work is done.

    Raises:
        ValueError: it is the source itself, a folder, in a folder that does not exist, or of a
            format that cannot be written.
    """
    if path.exists() and source.exists() and path.samefile(source):
        raise ValueError(f"--out must not be the input, which is never changed; got {path} for it")
    if path.is_dir() or not path.parent.is_dir():
        found = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise ValueError(f"--out must name a file in a folder that exists; {path} {found}")
    formats = sorted(set(soundfile.available_formats()) - {"RAW"})
    if path.suffix[1:].upper() not in formats:
        raise ValueError(
            f"--out must end in a format that can be written; {path.name} does not; give one of "
            f"{', '.join(name.lower() for name in formats)}, such as {path.stem}.wav"
        )


@contextlib.contextmanager
def writing(path: pathlib.Path, like: soundfile.SoundFile) -> Iterator[soundfile.SoundFile]:
    """Opens a file to write; it appears under its name only when all went well.

    Args:
        path: as `check_output` allows.
        like: whose rate and channels it has, and whose samples, if the format has such ones.

    Raises:
        ValueError: the format cannot hold that rate or number of channels.
    """
    kind = path.suffix[1:].upper()
    fits = soundfile.check_format(kind, like.subtype)
    subtype = like.subtype if fits else soundfile.default_subtype(kind)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        try:
            stream = soundfile.SoundFile(partial, "w", like.samplerate, like.channels, subtype)
        except (soundfile.SoundFileError, OSError) as error:
            text = getattr(error, "error_string", str(error)).rstrip(".")
            raise ValueError(
                f"--out must be able to hold {like.channels} channels of {like.samplerate} Hz; "
                f"{path} cannot be written: {text}; give another folder or format, such as .wav"
            ) from error
        with stream:
            yield stream
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _undecodable(path: pathlib.Path, error: Exception) -> AudioFileError:
    text = getattr(error, "error_string", str(error)).rstrip(".")
    return AudioFileError(
        f"{path}: a sound file must decode; got: {text}; give a format that libsndfile reads (wav, "
        "flac, ogg, mp3, aiff)"
    )
