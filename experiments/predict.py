r"""Puts a trained run to use on a sound file of any length, rate and number of channels.

    python -m experiments.predict --workdir=runs/enhance in.wav --out=out.wav

A run of enhancement writes the sound without its noise, with the rate, channels and length of the
input; a run of classification prints the likeliest labels of each stretch as long as its clips. The
file is worked through in pieces, in constant memory. What lies above half the run's sample rate is
not in the result.
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
    check_use(loaded.task, out)
    if out is not None:
        enhance_file(loaded, source, out)
        print(out)
    else:
        print_labels(label_file(loaded, source), list(loaded.source.class_names))


def check_use(task: Any, out: pathlib.Path | None) -> None:
    """Raises ValueError unless a file is to be written exactly where a task enhances."""
    enhances = hasattr(task, "enhance")
    if enhances != (out is not None):
        raise ValueError(
            f"a run of {'enhancement' if enhances else 'classification'} "
            f"{'writes a file: give --out=FILE' if enhances else 'prints: leave --out out'}"
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
        ValueError: the output cannot be written, or the run cannot be used in pieces.
    """
    import jax

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

        left = heard.frames  # rounding of rates may give a sample more
        for estimate in estimates():
            written.write(estimate[:, :left].T)
            left -= min(left, estimate.shape[1])


def label_file(
    loaded: Any, source: pathlib.Path, console: Any = None
) -> list[tuple[float, np.ndarray]]:
    """Probabilities of the labels, stretch by stretch; several channels are averaged first.

    Args:
        loaded: a `hybrid.Run` of a classification.
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
            batch = {
                "audio": np.pad(clip, (0, size - len(clip)))[None],
                "lengths": np.array([len(clip)], np.int32),
                "labels": np.zeros(1, np.int32),
                "ids": np.zeros(1, np.int32),
                "weights": np.ones(1, np.float32),
            }
            params = state.physics.params, state.learner.params, state.collections
            _, aux = eval_step(loaded.task, *params, batch)
            if "logits" not in aux["outputs"]:
                raise ValueError(
                    "predict needs a task that enhances or gives `logits`; "
                    f"{type(loaded.task).__name__} gives {', '.join(aux['outputs']) or 'nothing'}"
                )
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
