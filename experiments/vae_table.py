"""Answers "what is a network worth as a code of cochleagrams?": against principal components.

    python -m experiments.vae_table --config=experiments/configs/vae.py --workdir=runs/vae

Trains the variational autoencoder (resumes it, or finds it finished) and writes `vae_table.md`:
squared error on held-out clips, beside that of principal components of the training clips, as many
as there are latents. Pictures and sounds of reconstructions, samples and interpolations go beside
it, sounds also into TensorBoard; they are found by descent through the ear, which is told nothing
but cochleagrams.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.launch import define_kwargs_flags, launch_config, run
from experiments.listening import write_sounds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 6
_PEAK = 0.5
# What a search that begins with noise needs at 8 kHz; see `hybrid.inversion.invert`.
_INVERSION_STEPS = 600


def define_flags() -> None:
    """Defines the flags."""
    config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
    flags.DEFINE_string("workdir", None, "Where the run, the table, pictures and sounds go.")
    flags.mark_flags_as_required(["config", "workdir"])
    define_kwargs_flags()


def make_table(
    config: ConfigDict, workdir: pathlib.Path, inversion_steps: int = _INVERSION_STEPS
) -> dict[str, Any]:
    """Trains, compares on the test split, and writes table, pictures and sounds.

    Returns:
        `errors`, squared, by code; `latents`, how many; and `inversion`, what the search for sounds
        reached: relative squared errors by picture.
    """
    import hybrid
    from hybrid.workdir import write_atomic

    hybrid.fit(config, workdir)
    loaded = hybrid.load(workdir)
    train, _, _ = collect(loaded, "train")
    test, guesses, latents = collect(loaded, "test")
    components = principal_components(train, latents.shape[1])
    errors = {
        "the mean of the training clips": squared_error(test, components["mean"][None]),
        f"{latents.shape[1]} principal components": squared_error(test, project(components, test)),
        f"autoencoder, {latents.shape[1]} latents": squared_error(test, guesses),
    }
    pictures = make_pictures(loaded, test, guesses, latents)
    for name, clips in pictures.items():
        figure = picture_grid(clips, loaded.physics.hop_samples / loaded.physics.sample_rate_hz)
        _save(figure, workdir / f"{name}.png")
    sounds, reached = find_sounds(loaded, pictures, inversion_steps)
    rate_hz, step = loaded.physics.sample_rate_hz, int(loaded.state.step)
    write_sounds(sounds, rate_hz, workdir, "sounds", step)
    write_atomic(workdir / "vae_table.md", render(errors, len(test), reached))
    return {"errors": errors, "latents": latents.shape[1], "inversion": reached}


def collect(loaded: Any, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cochleagrams of a split [clips, frames, channels], reconstructions, latents [clips, n]."""
    from data.bridge import to_jax
    from hybrid.evaluation import eval_step
    from hybrid.parts import evaluation_loader

    state, parts = loaded.state, []
    for torch_batch in evaluation_loader(loaded, split):
        batch, _ = to_jax(torch_batch)
        _, aux = eval_step(
            loaded.task, state.physics.params, state.learner.params, state.collections, batch
        )
        rows = np.asarray(batch["weights"]) > 0
        outputs = aux["outputs"]
        names = ("cochleagrams", "reconstructions", "latents")
        parts.append([np.asarray(outputs[name])[rows] for name in names])
    cochleagrams, guesses, latents = map(np.concatenate, zip(*parts, strict=True))
    return cochleagrams, guesses, latents


def principal_components(train: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Mean and the first components [count, values] of training examples, in float64."""
    flat = train.reshape(len(train), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    _, _, rows = np.linalg.svd(flat - mean, full_matrices=False)
    return {"mean": mean.reshape(train.shape[1:]), "rows": rows[:count]}


def project(components: Mapping[str, np.ndarray], examples: np.ndarray) -> np.ndarray:
    """The nearest points to the examples in the space of the components."""
    rows, mean = components["rows"], components["mean"]
    flat = (examples - mean[None]).reshape(len(examples), -1)
    return (flat @ rows.T @ rows).reshape(examples.shape) + mean[None]


def squared_error(examples: np.ndarray, guesses: np.ndarray) -> float:
    """Mean squared error over all values, in float64."""
    return float(np.mean((examples.astype(np.float64) - guesses) ** 2))


def make_pictures(
    loaded: Any, test: np.ndarray, guesses: np.ndarray, latents: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Cochleagrams by title, by picture: reconstructions, samples, interpolations."""
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(test), min(SHOWN, len(test)), replace=False)
    rebuilt = {f"clip {i}": test[i] for i in chosen} | {f"rebuilt {i}": guesses[i] for i in chosen}
    drawn = rng.standard_normal((SHOWN, latents.shape[1])).astype(latents.dtype)
    first, last = latents[chosen[0]], latents[chosen[-1]]
    ways = np.linspace(0, 1, SHOWN, dtype=latents.dtype)[:, None]
    between = _decode(loaded, first * (1 - ways) + last * ways, test.shape[1:])
    samples = _decode(loaded, drawn, test.shape[1:])
    return {
        "reconstructions": rebuilt,
        "samples": {f"sample {i}": clip for i, clip in enumerate(samples)},
        "interpolations": {
            f"{100 * way:.0f} %": clip for way, clip in zip(ways[:, 0], between, strict=True)
        },
    }


def picture_grid(clips: Mapping[str, np.ndarray], hop_s: float) -> "Figure":
    """Draws cochleagrams [frames, channels] side by side, `SHOWN` a row, high channels on top."""
    from matplotlib.figure import Figure

    columns = min(SHOWN, len(clips))
    rows = -(-len(clips) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.7 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    top = max(float(np.quantile(clip, 0.998)) for clip in clips.values())
    for axes, (title, clip) in zip(grid.flat, clips.items(), strict=False):
        extent = (0, 1000 * hop_s * len(clip), 0, clip.shape[1])
        # Channels run from base to apex: the first is the highest.
        axes.imshow(clip.T, aspect="auto", cmap="magma", vmin=0, vmax=top, extent=extent)
        axes.set_title(title, fontsize=8)
        axes.set_yticks([])
    for axes in grid[-1]:
        axes.set_xlabel("time (ms)", fontsize=8)
    return figure


def find_sounds(
    loaded: Any, pictures: Mapping[str, Mapping[str, np.ndarray]], steps: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """A sound of each cochleagram, all of one peak, and what inversion reached, by picture."""
    import jax
    import jax.numpy as jnp

    from hybrid.inversion import invert

    sounds, reached = {}, {}
    for name, clips in pictures.items():
        targets = jnp.asarray(np.stack(list(clips.values())))
        samples = targets.shape[1] * loaded.physics.hop_samples
        params = loaded.state.physics.params
        audio, errors = jax.device_get(
            invert(loaded.physics, params, targets, samples, jax.random.key(0), steps=steps)
        )
        reached[name] = float(np.mean(errors[-1]))
        for title, clip in zip(clips, audio, strict=True):
            scale = _PEAK / max(float(np.abs(clip).max()), 1e-9)
            sounds[f"{name} {title}"] = clip * scale
    return sounds, reached


def render(errors: Mapping[str, float], clips: int, reached: Mapping[str, float]) -> str:
    """Returns the table in Markdown."""
    mean = next(iter(errors.values()))
    lines = [
        f"Held-out reconstruction, {clips} clips of the test split:",
        "",
        "| code | mean squared error | of the variance |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {e:.3e} | {100 * e / mean:.1f} % |" for name, e in errors.items()]
    lines += ["", "Sounds found for cochleagrams; squared error relative to their energy:", ""]
    lines += ["| cochleagrams | error |", "|---|---|"]
    lines += [f"| {name} | {100 * error:.2f} % |" for name, error in reached.items()]
    return "\n".join(lines) + "\n"


def _decode(loaded: Any, latents: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    import jax
    import jax.numpy as jnp

    state = loaded.state
    clips = loaded.task.decode(
        state.learner.params, state.collections, jnp.asarray(latents), *shape
    )
    return np.asarray(jax.device_get(clips))


def _save(figure: Any, path: pathlib.Path) -> None:
    from experiments import plots

    plots.save(figure, path)


def main(argv: Sequence[str]) -> None:
    """Trains, compares and prints."""
    if len(argv) > 1:
        raise ValueError(f"vae_table takes flags only, got {' '.join(argv[1:])}: see --help")
    workdir = pathlib.Path(flags.FLAGS.workdir)
    make_table(launch_config(), workdir)
    print((workdir / "vae_table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    define_flags()
    run(main)
