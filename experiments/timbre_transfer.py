"""One instrument plays what another has played: pitch and loudness of one, timbre of the other.

    python -m experiments.timbre_transfer --workdir=runs/ddsp --source=flute --target=brass

Writes WAV files below `WORKDIR/transfer`: each held-out note of the source, the note of the target
that lends its timbre, and the result, which no instrument has played. TensorBoard has them too.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.launch import run
from experiments.listening import write_sounds


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("workdir", None, "Directory of a run of resynthesis.", required=True)
    flags.DEFINE_string("source", None, "Instrument that plays.", required=True)
    flags.DEFINE_string("target", None, "Instrument that is to be heard.", required=True)
    flags.DEFINE_integer("notes", 4, "How many notes.", lower_bound=1)
    flags.DEFINE_string("data_root", None, "Where the data lie, if not where the run had them.")


def transfer(loaded: Any, source: str, target: str, notes: int) -> dict[str, np.ndarray]:
    """Plays held-out notes of one instrument with the timbre of another.

    Args:
        loaded: a `hybrid.Run` of `hybrid.tasks_resynthesis:Resynthesis`.
        source: name of the instrument that plays, a class of the data.
        target: name of the one that is heard.
        notes: how many.

    Returns:
        `source`, `timbre` and `result`, each [notes, time].

    Raises:
        ValueError: the data have no such class, or the run is of another task.
    """
    import jax

    if not hasattr(loaded.task, "hear"):
        raise ValueError(
            f"timbre is transferred by a run of resynthesis; this one is of "
            f"{loaded.config.task.target}: train experiments/configs/ddsp.py"
        )
    playing, lending = (_notes(loaded, name, notes) for name in (source, target))
    task, state = loaded.task, loaded.state
    physics = state.physics.params

    @jax.jit
    def play(playing: Any, lending: Any) -> Any:
        lent = task.hear(physics, lending)
        heard = task.hear(physics, playing)
        heard |= {"timbre": lent["timbre"], "timbre_mask": lent["mask"]}
        controls, _ = task.decode(state.learner.params, state.collections, heard)
        time = playing["audio"].shape[1]
        return task.sound(physics, controls, jax.random.key(0), time, playing["lengths"])

    result = np.asarray(play(playing, lending))
    return {
        "source": np.asarray(playing["audio"]),
        "timbre": np.asarray(lending["audio"]),
        "result": result,
    }


def write_transfer(
    loaded: Any, sounds: Mapping[str, np.ndarray], folder: str
) -> list[pathlib.Path]:
    """Writes what `transfer` gives into a folder of the run, the three of a note at one gain."""
    from hybrid.summaries import at_one_gain

    named = {}
    for number, clips in enumerate(zip(*sounds.values(), strict=True)):
        together = at_one_gain(dict(zip(sounds, clips, strict=True)))
        named |= {f"{number} {name}": clip for name, clip in together.items()}
    rate_hz, step = loaded.physics.sample_rate_hz, int(loaded.state.step)
    return write_sounds(named, rate_hz, loaded.workdir, folder, step)


def _notes(loaded: Any, name: str, count: int) -> dict[str, Any]:
    """A batch of held-out notes of a class, repeated if there are fewer."""
    import jax.numpy as jnp

    names = loaded.source.class_names
    if name not in names:
        raise ValueError(f"the run knows {', '.join(names)}; got {name!r}: take one of these")
    dataset = loaded.source.dataset("test")
    items = (dataset[index] for index in range(len(dataset)))
    own = [item for item in items if item["labels"] == names.index(name)]
    if not own:
        raise ValueError(f"held-out notes are needed; the test split has none of {name!r}")
    chosen = [own[round(place)] for place in np.linspace(0, len(own) - 1, count)]
    keys = [key for key in chosen[0] if key != "ids"]
    return {key: jnp.asarray(np.stack([item[key] for item in chosen])) for key in keys}


def main(argv: Sequence[str]) -> None:
    """Transfers, writes and prints where to."""
    if len(argv) > 1:
        raise ValueError(f"timbre_transfer takes flags only, got {' '.join(argv[1:])}: see --help")
    import hybrid

    values = flags.FLAGS
    loaded = hybrid.load(values.workdir, data_root=values.data_root)
    sounds = transfer(loaded, values.source, values.target, values.notes)
    for file in write_transfer(loaded, sounds, f"transfer/{values.source}_to_{values.target}"):
        print(file)


if __name__ == "__main__":
    define_flags()
    run(main)
