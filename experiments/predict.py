r"""Puts a trained run to use on a sound file of any length, rate and number of channels.

    python -m experiments.predict --workdir=runs/enhance in.wav --out=out.wav

A run of enhancement writes the sound without its noise, with the rate, channels and length of the
input; a run of classification prints the likeliest labels of each stretch as long as its clips. The
file is worked through in pieces, in constant memory. Channels are enhanced each for itself. What
lies above half the run's sample rate is not in the result, nor are title, artist and other tags.
Samples are coded as those of the input where the format can, floats in 24 bits where it has none;
all but floats are cut off at full scale, and how many were is said.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from data.stream_resample import StreamResampler
from experiments import sound_files
from experiments.launch import define_trust_flag, run

_SHOWN = 3
# A step of 16 bits above full scale: less is rounding.
_CUT_FROM = 1 + 2.0**-15


def define_flags() -> None:
    """Defines the flags; not on import, so that other commands may use this module."""
    flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    flags.DEFINE_string("out", None, "File to write, of a run of enhancement.")
    flags.DEFINE_string("data_root", None, "Where the data lie, if not where the run had them.")
    flags.DEFINE_integer(
        "step", None, "Which checkpoint; the newest one by default.", lower_bound=0
    )
    define_trust_flag()


def main(argv: Sequence[str]) -> None:
    """Predicts; what is wrong with the files is said before anything is loaded."""
    if len(argv) != 2:
        raise ValueError(
            f"predict takes one sound file, got {' '.join(argv[1:]) or 'none'}: "
            "python -m experiments.predict --workdir=DIR in.wav --out=out.wav"
        )
    values, source = flags.FLAGS, pathlib.Path(argv[1])
    with sound_files.reading(source):
        pass
    out = pathlib.Path(values.out) if values.out else None
    if out is not None:
        sound_files.check_output(out, source)
    import hybrid

    loaded = hybrid.load(values.workdir, values.step, values.data_root, values.trust)
    check_use(loaded, out)
    if out is not None:
        enhance_file(loaded, source, out)
        print(out)
    else:
        print_labels(label_file(loaded, source), list(loaded.source.class_names))


def check_use(loaded: Any, out: pathlib.Path | None) -> None:
    """Looks at what a run gives, before any work is done.

    Args:
        loaded: a `hybrid.Run`.
        out: the file to be written, if one is.

    Raises:
        ValueError: the run neither enhances nor gives one label a clip, or a file is not to be
            written exactly where it enhances.
    """
    enhances = hasattr(loaded.task, "enhance")
    if not enhances:
        _check_labels(loaded)
    if enhances != (out is not None):
        raise ValueError(
            f"a run of {'enhancement' if enhances else 'classification'} "
            f"{'writes a file: give --out=FILE' if enhances else 'prints: leave --out out'}"
        )


def _check_labels(loaded: Any) -> None:
    """Raises ValueError unless a run gives a logit for each name of its labels."""
    import jax

    from hybrid.evaluation import eval_step

    name, source = type(loaded.task).__name__, loaded.source
    rule = "predict needs a run of enhancement, or one that gives a label to each clip"
    num_classes = len(source.class_names)
    batch = _one_clip(np.zeros(source.num_samples, np.float32), source.num_samples)
    state = loaded.state
    params = state.physics.params, state.learner.params, state.collections
    try:
        with jax.enable_x64(loaded.config.precision == "float64"):
            _, aux = jax.eval_shape(lambda *given: eval_step(loaded.task, *given), *params, batch)
    except Exception as error:  # of whatever code the task and its parts are
        raise ValueError(
            f"{rule}; {name} cannot be given sound alone ({type(error).__name__}: {error}): take "
            "another run"
        ) from error
    logits = aux["outputs"].get("logits")
    if logits is None or logits.shape != (1, num_classes):
        given = ", ".join(f"{key} {list(x.shape)}" for key, x in aux["outputs"].items())
        raise ValueError(
            f"{rule}: `logits` [1, {num_classes}] for the {num_classes} class_names of its data; "
            f"{name} gives {given or 'nothing'}: take another run"
        )


def enhance_file(loaded: Any, source: pathlib.Path, out: pathlib.Path, console: Any = None) -> None:
    """Writes a file without its noise.

    Args:
        loaded: a `hybrid.Run` of `hybrid.tasks_enhance:Enhancement`.
        source: sound file; it is never changed.
        out: where to; a file that is there is replaced once the new one is complete.
        console: where progress is shown; standard error by default.

    Raises:
        AudioFileError: the source is missing, empty, or cannot be read to its end.
        ValueError: the output cannot be written, the run cannot be used in pieces, or its estimate
            is not finite.
    """
    import jax
    from rich.console import Console

    from hybrid.enhance_stream import EnhanceStream

    sound_files.check_output(out, source)
    rate_hz = int(loaded.source.sample_rate_hz)
    with (
        jax.enable_x64(loaded.config.precision == "float64"),
        sound_files.reading(source) as heard,
        sound_files.writing(out, heard) as written,
    ):
        channels = heard.channels
        there = StreamResampler(heard.samplerate, rate_hz, channels)
        back = StreamResampler(rate_hz, heard.samplerate, channels)
        enhancer = EnhanceStream(loaded.task, loaded.state, channels)

        def estimates() -> Iterator[np.ndarray]:
            for block in _shown(heard, console):
                yield back.push(enhancer.push(there.push(block)))
            yield back.push(enhancer.push(there.finish()))
            yield back.push(enhancer.finish())
            yield back.finish()

        done = cut = 0
        for estimate in estimates():
            kept = estimate[:, : heard.frames - done]  # rounding of rates may give a sample more
            if not np.isfinite(kept).all():
                bad = done + int(np.flatnonzero(~np.isfinite(kept).all(axis=0))[0])
                raise ValueError(
                    f"every sample of an estimate must be finite; that of {source} is not from "
                    f"sample {bad} ({bad / heard.samplerate:.3f} s) on; lower its level if it is "
                    "extreme, or give another checkpoint by --step"
                )
            cut += np.count_nonzero(np.abs(kept) > _CUT_FROM)
            written.write(kept.T)
            done += kept.shape[1]
        clips = written.subtype not in ("FLOAT", "DOUBLE")
    if cut and clips:
        (console or Console(stderr=True)).print(
            f"{out}: {cut} of {done * channels} samples lay beyond full scale and were cut off; "
            "give a softer input, or one of floats and --out=FILE.wav",
            soft_wrap=True,
            highlight=False,
        )


def label_file(
    loaded: Any, source: pathlib.Path, console: Any = None
) -> list[tuple[float, np.ndarray]]:
    """Probabilities of the labels, stretch by stretch; several channels are averaged first.

    Args:
        loaded: a `hybrid.Run` of a classification, as `check_use` allows.
        source: sound file.
        console: where progress is shown; standard error by default.

    Returns:
        For each stretch where it begins in seconds, and a probability for each label.
    """
    import jax

    from hybrid.evaluation import eval_step

    size, state = loaded.source.num_samples, loaded.state
    rows = []
    with (
        jax.enable_x64(loaded.config.precision == "float64"),
        sound_files.reading(source) as heard,
    ):
        rate_hz = int(loaded.source.sample_rate_hz)
        for clip in _stretches(heard, rate_hz, size, console):
            batch = _one_clip(clip, size)
            params = state.physics.params, state.learner.params, state.collections
            _, aux = eval_step(loaded.task, *params, batch)
            probabilities = np.asarray(jax.nn.softmax(aux["outputs"]["logits"][0], axis=-1))
            rows.append((len(rows) * size / rate_hz, probabilities))
    return rows


def print_labels(rows: Sequence[tuple[float, np.ndarray]], class_names: Sequence[str]) -> None:
    """Prints the likeliest labels of each stretch."""
    from rich.console import Console
    from rich.table import Table

    table = Table("from")
    for place in range(min(_SHOWN, len(class_names))):
        table.add_column("label" if not place else "then")
    for begin_s, probabilities in rows:
        best = np.argsort(-probabilities, kind="stable")[:_SHOWN]
        texts = [f"{class_names[k]} {100 * probabilities[k]:.1f} %" for k in best]
        table.add_row(f"{begin_s:.2f} s", *texts)
    Console().print(table)


def _one_clip(clip: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """A batch of one clip, padded to `size` samples; its label is anything."""
    return {
        "audio": np.pad(clip, (0, size - len(clip)))[None],
        "lengths": np.array([len(clip)], np.int32),
        "labels": np.zeros(1, np.int32),
        "ids": np.zeros(1, np.int32),
        "weights": np.ones(1, np.float32),
    }


def _stretches(heard: Any, rate_hz: int, size: int, console: Any) -> Iterator[np.ndarray]:
    """Mono stretches of `size` samples at the run's rate; the last one may be shorter."""
    resampler = StreamResampler(heard.samplerate, rate_hz)
    waiting = np.zeros(0, np.float32)
    for block in _shown(heard, console):
        mono = block.mean(axis=0, keepdims=True)
        waiting = np.concatenate([waiting, resampler.push(mono)[0]])
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
    waiting = np.concatenate([waiting, resampler.finish()[0]])
    for start in range(0, len(waiting), size):
        yield waiting[start : start + size]


def _shown(heard: Any, console: Any) -> Iterator[np.ndarray]:
    """The blocks of a file, with a line that says how far they have come."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True)) as progress:
        total_s = heard.frames / heard.samplerate
        line = progress.add_task(pathlib.Path(heard.name).name, total=total_s)
        for block in sound_files.blocks(heard):
            yield block
            progress.advance(line, block.shape[1] / heard.samplerate)


def app() -> None:
    """Console script `hybrid-predict`."""
    define_flags()
    run(main)


if __name__ == "__main__":
    app()
