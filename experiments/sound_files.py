"""Reads and writes sound files of any length in blocks, strictly, and never half a file."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import soundfile
from jaxtyping import Float32

from data.audio_files import AudioFileError, shortfall
from experiments.stopping import unwinding

BLOCK_SAMPLES = 65_536
# By the end of the file's name. The others that libsndfile knows hold few rates, and round.
FORMATS = ("wav", "wavex", "w64", "rf64", "flac", "ogg", "mp3", "aiff", "au", "caf")
# These say their size in 32 bits, headers included.
LARGEST_BYTES: dict[str, int] = dict.fromkeys(("wav", "wavex", "aiff", "au"), 2**32 - 2**16)
# Samples that are coded one by one, in so many bytes; others are made anew by each encoder.
_SAMPLE_BYTES: dict[str, int] = dict.fromkeys(("PCM_S8", "PCM_U8", "ULAW", "ALAW"), 1)
_SAMPLE_BYTES |= {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
# libvorbis does not refuse more: it crashes.
_OGG_HIGHEST_HZ, _OGG_MOST_CHANNELS = 200_000, 255


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
    stream: soundfile.SoundFile, size: int | None = None
) -> Iterator[Float32[np.ndarray, "channels time"]]:
    """Yields the samples of a file, full scale 1.0.

    Args:
        stream: a file from `reading`.
        size: samples of each channel in a block; None: `BLOCK_SAMPLES`.

    Raises:
        AudioFileError: the file ends before its header says so, cannot be decoded further, or holds
            a value that is not finite.
    """
    path, done = pathlib.Path(stream.name), 0
    while done < stream.frames:
        try:
            block = stream.read(size or BLOCK_SAMPLES, dtype="float32", always_2d=True).T
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
    if _extension(path) not in FORMATS:
        raise ValueError(
            f"--out must end in a format that can be written; {path.name} does not; give one of "
            f"{', '.join(FORMATS)}, such as {path.stem}.wav"
        )


def subtype_for(path: pathlib.Path, like: soundfile.SoundFile) -> str:
    """How samples are coded in a file: as in `like` if the format can, else by its default.

    Floats become 24 bits where a format has none.
    """
    kind, given = _extension(path).upper(), like.subtype
    if given in _SAMPLE_BYTES:
        if soundfile.check_format(kind, given):
            return given
        if _SAMPLE_BYTES[given] > 2 and soundfile.check_format(kind, "PCM_24"):
            return "PCM_24"
    default = soundfile.default_subtype(kind)
    assert default is not None  # that of RAW alone
    return default


@contextlib.contextmanager
def writing(path: pathlib.Path, like: soundfile.SoundFile) -> Iterator[soundfile.SoundFile]:
    """Opens a file to write; it appears under its name only when all went well.

    Args:
        path: as `check_output` allows.
        like: whose rate, channels and length it has, and whose way of coding samples, if the format
            has it.

    Raises:
        ValueError: the format cannot hold that rate, number of channels or length, or what was
            written does not have them.
    """
    subtype = subtype_for(path, like)
    _check_size(path, like, subtype)
    rule = f"--out must be able to hold {like.channels} channels of {like.samplerate} Hz; {path}"
    if _extension(path) == "ogg" and (
        like.samplerate > _OGG_HIGHEST_HZ or like.channels > _OGG_MOST_CHANNELS
    ):
        raise ValueError(
            f"{rule} cannot: Vorbis ends at {_OGG_HIGHEST_HZ} Hz and {_OGG_MOST_CHANNELS} channels;"
            " give another format, such as .wav"
        )
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    with unwinding():
        try:
            try:
                stream = soundfile.SoundFile(partial, "w", like.samplerate, like.channels, subtype)
            except (soundfile.SoundFileError, OSError) as error:
                text = getattr(error, "error_string", str(error)).rstrip(".")
                raise ValueError(
                    f"{rule} cannot be written: {text}; give another folder or format, such as .wav"
                ) from error
            with stream:
                yield stream
            _check_written(path, partial, like)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _extension(path: pathlib.Path) -> str:
    return path.suffix[1:].lower()


def _check_size(path: pathlib.Path, like: soundfile.SoundFile, subtype: str) -> None:
    """Raises ValueError for more samples than the format can count."""
    size = like.frames * like.channels * _SAMPLE_BYTES.get(subtype, 0)
    limit = LARGEST_BYTES.get(_extension(path))
    if limit is not None and size > limit:
        raise ValueError(
            f"--out must be able to hold all samples; {path} would have {size} bytes of them, and "
            f"the format has room for {limit}; give one of .w64, .rf64 and .flac"
        )


def _check_written(path: pathlib.Path, partial: pathlib.Path, like: soundfile.SoundFile) -> None:
    """Raises ValueError unless a file reads back with the rate, channels and length of another."""
    made = soundfile.info(partial)
    found = made.samplerate, made.channels, made.frames
    wanted = like.samplerate, like.channels, like.frames
    if found != wanted:
        raise ValueError(
            f"--out must have the rate, channels and samples of the input, {wanted}; {path} would "
            f"have {found}; give another format, such as .wav"
        )


def _undecodable(path: pathlib.Path, error: Exception) -> AudioFileError:
    text = getattr(error, "error_string", str(error)).rstrip(".")
    return AudioFileError(
        f"{path}: a sound file must decode; got: {text}; give a format that libsndfile reads (wav, "
        "flac, ogg, mp3, aiff)"
    )
