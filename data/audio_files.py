"""Reads one recording into memory, strictly: a file that is not what it should be is an error."""

import functools
import pathlib
import re

import numpy as np
import soundfile
import torch
from jaxtyping import Float32

from data.torchaudio_compat import load_torchaudio

WAY_OUT = (
    "replace or remove the file, or set on_bad_file='skip' to leave such files out and count them"
)
# libsndfile reads what there is of a truncated WAV file and only notes the shortfall in its log.
_SHORTFALL = re.compile(r"^data\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
_CUT_OGG = "File ended unexpectedly"


class AudioFileError(ValueError):
    """A recording that cannot be used; the message names the file, the rule and the way out."""

    @classmethod
    def about(cls, path: pathlib.Path, rule: str, found: str) -> "AudioFileError":
        """Returns the error for one file, which broke `rule` by `found`."""
        return cls(f"{path}: {rule}; {found}; {WAY_OUT}")


def read_clip(
    path: pathlib.Path,
    *,
    file_rate_hz: int,
    sample_rate_hz: int,
    max_samples: int,
    frames: int | None = None,
) -> Float32[np.ndarray, " time"]:
    """Decodes a mono recording and resamples it.

    Args:
        path: file in any format that libsndfile decodes.
        file_rate_hz: the sample rate that the file must have.
        sample_rate_hz: the sample rate of the result.
        max_samples: the longest result allowed, in samples at `sample_rate_hz`.
        frames: how many samples the file must hold, where that is known.

    Returns:
        The samples; full scale is 1.0.

    Raises:
        AudioFileError: the file is missing, empty, truncated or undecodable, has another rate, more
            than one channel, values that are not finite, or is too long.
    """
    try:
        if not path.is_file():
            raise AudioFileError.about(path, "a clip must exist while it is used", _absence(path))
        if path.stat().st_size == 0:
            found = "the file is empty (0 bytes)"
            raise AudioFileError.about(path, "a clip must hold samples", found)
        with soundfile.SoundFile(path) as stream:
            _check_header(path, stream, file_rate_hz, sample_rate_hz, max_samples, frames)
            promised = stream.frames if frames is None else frames
            samples = stream.read(dtype="float32", always_2d=True)[:, 0]
    except (soundfile.SoundFileError, OSError) as error:
        text = getattr(error, "error_string", str(error)).rstrip(".")
        raise AudioFileError.about(path, "a clip must decode as audio", f"got: {text}") from error
    if len(samples) == 0 or len(samples) != promised:
        found = f"{len(samples)} of {promised} samples could be decoded"
        raise AudioFileError.about(path, "a clip must hold samples, all that it promises", found)
    resampled = resample(_finite(path, samples), file_rate_hz, sample_rate_hz)
    # Of numbers near the largest there are, the filter's sums may have no end.
    return _finite(path, resampled)


def resampled_length(num_samples: int, from_hz: int, to_hz: int) -> int:
    """Returns how many samples `resample` makes of `num_samples`."""
    return -(-num_samples * to_hz // from_hz)


def resample(
    samples: Float32[np.ndarray, " time"], from_hz: int, to_hz: int
) -> Float32[np.ndarray, " resampled"]:
    """Changes the sample rate by torchaudio's windowed sinc interpolation.

    The result does not depend on the process or on its number of threads, bit for bit.
    """
    if from_hz == to_hz:
        return samples
    threads = torch.get_num_threads()
    # Torch shares out the sums of a long convolution among its threads, which changes rounding.
    torch.set_num_threads(1)
    try:
        resampled = _resampler(from_hz, to_hz)(torch.from_numpy(samples))
    finally:
        torch.set_num_threads(threads)
    return resampled.numpy()


@functools.lru_cache(maxsize=8)
def _resampler(from_hz: int, to_hz: int) -> torch.nn.Module:
    """Returns the interpolator for two rates; its kernel is designed once."""
    load_torchaudio()
    from torchaudio.transforms import Resample

    return Resample(from_hz, to_hz)


def shortfall(stream: soundfile.SoundFile) -> str:
    """Says what is missing of a file that was cut short; nothing if all seems to be there."""
    log = stream.extra_info
    noted = _SHORTFALL.search(log)
    if noted and int(noted[1]) > int(noted[2]):
        return f"the header promises {noted[1]} bytes of samples, {noted[2]} are there"
    return "the file ends in mid-stream" if _CUT_OGG in log else ""


def _finite(
    path: pathlib.Path, samples: Float32[np.ndarray, " time"]
) -> Float32[np.ndarray, " time"]:
    """Returns the samples, or raises AudioFileError for the first that is not a number."""
    if not np.isfinite(samples).all():
        bad = int(np.flatnonzero(~np.isfinite(samples))[0])
        found = f"sample {bad} is {samples[bad]}"
        raise AudioFileError.about(path, "every sample must be finite", found)
    return samples


def _absence(path: pathlib.Path) -> str:
    """Says what is in the place of a file: a pipe, say, from which reading would wait for ever."""
    return "it is no regular file" if path.exists() else "there is no file"


def _check_header(
    path: pathlib.Path,
    stream: soundfile.SoundFile,
    file_rate_hz: int,
    sample_rate_hz: int,
    max_samples: int,
    frames: int | None,
) -> None:
    """Raises AudioFileError for what can be told before a single sample is decoded."""
    if stream.samplerate != file_rate_hz:
        found = f"this one has {stream.samplerate} Hz"
        rule = f"all clips of this corpus must have {file_rate_hz} Hz"
        raise AudioFileError.about(path, rule, found)
    if stream.channels != 1:
        found = f"this one has {stream.channels} channels, which are not mixed silently"
        raise AudioFileError.about(path, "a clip must have one channel", found)
    if found := shortfall(stream):
        raise AudioFileError.about(path, "a clip must be complete", found)
    if frames is not None and stream.frames != frames:
        found = f"the header says {stream.frames}"
        raise AudioFileError.about(path, f"the clip must hold {frames} samples", found)
    length = resampled_length(stream.frames, file_rate_hz, sample_rate_hz)
    if length > max_samples:
        rule = f"a clip may last {max_samples / sample_rate_hz:g} s here"
        found = f"this one lasts {stream.frames / file_rate_hz:g} s (raise `seconds` to admit it)"
        raise AudioFileError.about(path, rule, found)
