"""Answers "what does the network add?": notes made anew, beside a channel vocoder's.

    python -m experiments.ddsp_table --config=experiments/configs/ddsp.py --workdir=runs/ddsp

Trains the autoencoder (resumes it, or finds it finished), tunes a channel vocoder on the same loss,
pitch and training notes, and writes `ddsp_table.md`: the loss of both on held-out notes; the loss
between two sounds of the same controls that differ in their noise alone, which is what the noise
costs; and the error of the measured pitch where the data know it. Two more rows are of controls
that were then fitted to each note by gradient descent on the same loss (`hybrid.refinement`), those
of the network and those of the tuned vocoder. Sounds of all are in `WORKDIR/sounds`, and in
TensorBoard.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments.ddsp_vocoder import (
    VOCODER_BANDS,
    fit_vocoder,
    make_vocoder,
    tune_vocoder,
    vocode,
)
from experiments.launch import define_kwargs_flags, launch_config, run
from experiments.listening import write_sounds

TUNING_STEPS = 200
FITTING_STEPS = 50
_FITTING_RATE = 0.1
FITTED = ", fitted to each note"
_SOUNDS = 12
# A pitch is judged in frames that are this periodic.
_CONFIDENCE = 0.8


def define_flags() -> None:
    """Defines the flags."""
    config_flags.DEFINE_config_file("config", None, "Name or file of a config.")
    flags.DEFINE_string("workdir", None, "Where the run, the table and the sounds go.")
    flags.DEFINE_integer("tuning_steps", TUNING_STEPS, "Steps of the vocoder's tuning.", 1)
    flags.DEFINE_integer("fitting_steps", FITTING_STEPS, "Steps of fitting to a note; 0: none.", 0)
    flags.mark_flags_as_required(["config", "workdir"])
    define_kwargs_flags()


def make_table(
    config: ConfigDict,
    workdir: pathlib.Path,
    tuning_steps: int = TUNING_STEPS,
    fitting_steps: int = FITTING_STEPS,
) -> dict[str, Any]:
    """Trains, tunes, fits, compares on the test split, and writes the table and sounds.

    Returns:
        `losses` by name, `cents` (see `summarise`), `clips`.
    """
    import hybrid
    from hybrid.workdir import write_atomic

    hybrid.fit(config, workdir)
    loaded = hybrid.load(workdir)
    vocoder = make_vocoder(loaded)
    plain = vocoder.init()
    tuned, course = tune_vocoder(loaded, vocoder, plain, tuning_steps)
    vocoders = {"vocoder as it is": plain, "vocoder, tuned": tuned}
    results = judge(loaded, vocoder, vocoders, fitting_steps)
    rate_hz, step = loaded.physics.sample_rate_hz, int(loaded.state.step)
    write_sounds(some_sounds(results["sounds"]), rate_hz, workdir, "sounds", step)
    title = f"{VOCODER_BANDS} bands, tuned {len(course)} steps: {course[0]:.3f} to {course[-1]:.3f}"
    title += f"; fitted to each note: {fitting_steps} steps" if fitting_steps else ""
    write_atomic(workdir / "ddsp_table.md", render(results, title))
    return {name: results[name] for name in ("losses", "cents", "clips")}


def judge(
    loaded: Any, vocoder: Any, vocoders: Mapping[str, Any], fitting_steps: int = 0
) -> dict[str, Any]:
    """Losses of network, vocoders and noise on the test split, errors of pitch, and sounds.

    Args:
        loaded: a `hybrid.Run`.
        vocoder: the module.
        vocoders: its parameters, by name.
        fitting_steps: for how many steps the controls of the network, and of the last vocoder, are
            fitted to each note.
    """
    import jax
    import jax.numpy as jnp

    from data.bridge import to_jax
    from hybrid.losses import MultiResolutionStft
    from hybrid.parts import evaluation_loader

    task, state, usual = loaded.task, loaded.state, MultiResolutionStft()

    @jax.jit
    def sounds_of(batch: Any) -> Any:
        physics = state.physics.params
        heard = task.hear(physics, batch)
        controls, _ = task.decode(state.learner.params, state.collections, heard)
        time, lengths = batch["audio"].shape[1], batch["lengths"]
        keys = jax.random.split(jax.random.key(1), 2 + len(vocoders))
        ours, again = (task.sound(physics, controls, k, time, lengths) for k in keys[:2])
        found = {"network": ours, "other noise": again}
        for (name, params), key in zip(vocoders.items(), keys[2:], strict=True):
            found[name] = vocode(loaded, vocoder, params, batch, key)
        if fitting_steps:
            last = list(vocoders)[-1]
            found[last + FITTED] = fit_vocoder(
                loaded, vocoder, vocoders[last], batch, keys[-1], fitting_steps, _FITTING_RATE
            )
            own = jax.random.fold_in(keys[0], 1)
            fitted = task.fit_controls(physics, controls, batch, own, fitting_steps, _FITTING_RATE)
            found["network" + FITTED] = task.sound(physics, fitted, keys[0], time, lengths)
        lengths = jnp.where(batch["weights"] > 0, lengths, 0)
        targets = {name: (audio, batch["audio"]) for name, audio in found.items()}
        targets["floor"] = (again, ours)
        del targets["other noise"]
        losses = {
            name: {
                "loss": task.losses(*pair, lengths),
                "auraloss": usual(*pair, lengths),
            }
            for name, pair in targets.items()
        }
        # Measured whatever the task is given: known pitches would be held against themselves.
        measured, _ = task.pitch_loudness.run({}, batch["audio"], lengths=batch["lengths"])
        return found, losses, measured["f0_hz"], measured["confidence"]

    totals: dict[str, dict[str, float]] = {}
    sounds: dict[str, list[np.ndarray]] = {}
    clips, cents = 0, []
    for torch_batch in evaluation_loader(loaded, "test"):
        batch, _ = to_jax(torch_batch)
        found, losses, f0_hz, confidence = jax.device_get(sounds_of(batch))
        rows = np.flatnonzero(np.asarray(batch["weights"]) > 0)
        clips += len(rows)
        for name, values in losses.items():
            own = totals.setdefault(name, dict.fromkeys(values, 0.0))
            for kind, value in values.items():
                own[kind] += len(rows) * float(value)
        if "f0_hz" in batch:
            cents += pitch_errors(f0_hz[rows], confidence[rows], np.asarray(batch["f0_hz"])[rows])
        for name, audio in {"original": np.asarray(batch["audio"]), **found}.items():
            sounds.setdefault(name, []).extend(audio[rows])
    losses = {n: {k: v / clips for k, v in values.items()} for n, values in totals.items()}
    return {"losses": losses, "cents": summarise(cents), "clips": clips, "sounds": sounds}


def pitch_errors(f0_hz: np.ndarray, confidence: np.ndarray, known_hz: np.ndarray) -> list[float]:
    """Error in cents of each note's median pitch [notes, frames], where it is periodic.

    NaN for a note that is nowhere so.
    """
    errors = []
    for found, sure, known in zip(f0_hz, confidence >= _CONFIDENCE, known_hz, strict=True):
        heard = found[sure & (found > 0)]
        error = abs(1200 * float(np.log2(np.median(heard) / known))) if heard.size else np.nan
        errors.append(error)
    return errors


def summarise(cents: Sequence[float]) -> dict[str, float | int] | None:
    """What pitch errors come to; None without notes.

    Returns:
        `notes`, and how many of them were `periodic` somewhere; `median` and `largest` error of
        these, NaN if there are none; the share `within` 20 cents, of all notes.
    """
    if not cents:
        return None
    errors = np.asarray(cents)
    heard = errors[~np.isnan(errors)]
    return {
        "notes": errors.size,
        "periodic": heard.size,
        "median": float(np.median(heard)) if heard.size else np.nan,
        "largest": float(heard.max()) if heard.size else np.nan,
        "within": float(np.mean(errors < 20)),
    }


def some_sounds(sounds: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """Some clips of each kind, by number and kind, at one gain for each number."""
    from hybrid.summaries import at_one_gain

    chosen, count = {}, len(sounds["original"])
    for place in sorted({round(p) for p in np.linspace(0, count - 1, min(_SOUNDS, count))}):
        clips = at_one_gain({name: clips[place] for name, clips in sounds.items()})
        chosen |= {f"{place:03d} {name}": clip for name, clip in clips.items()}
    return chosen


def render(results: Mapping[str, Any], about_vocoder: str) -> str:
    """Returns the table in Markdown."""
    losses = results["losses"]
    vocoders = {name: v for name, v in losses.items() if name.startswith("vocoder")}
    vocoder = min(v["loss"] for name, v in vocoders.items() if not name.endswith(FITTED))
    lines = [
        f"Held-out notes, {results['clips']} clips of the test split ({about_vocoder}):",
        "",
        "| sound | loss | beside the vocoder | multi-resolution STFT of auraloss |",
        "|---|---|---|---|",
    ]
    names = {
        "network": "autoencoder",
        "network" + FITTED: "autoencoder" + FITTED,
        "floor": "two draws of the same noise",
    }
    lines += [
        f"| {names.get(name, name)} | {v['loss']:.4f} | {100 * (v['loss'] / vocoder - 1):+.0f} % | "
        f"{v['auraloss']:.4f} |"
        for name, v in losses.items()
    ]
    fitted = [v["loss"] for name, v in vocoders.items() if name.endswith(FITTED)]
    if fitted:
        less = 100 * (losses["network" + FITTED]["loss"] / min(fitted) - 1)
        lines += [
            "",
            f"Both fitted to each note: the autoencoder {less:+.0f} % beside the vocoder.",
        ]
    if results["cents"]:
        cents = results["cents"]
        found = f"{cents['median']:.1f} cents off in the median, {cents['largest']:.1f} at most"
        share = f"{100 * cents['within']:.0f} % of all within 20"
        about = "Pitch of a note (median of its periodic frames) against the known one"
        heard = f"{cents['periodic']} of {cents['notes']} notes had periodic frames"
        lines += ["", f"{about}: {heard}; {found}; {share}."]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> None:
    """Trains, compares and prints."""
    if len(argv) > 1:
        raise ValueError(f"ddsp_table takes flags only, got {' '.join(argv[1:])}: see --help")
    workdir = pathlib.Path(flags.FLAGS.workdir)
    make_table(launch_config(), workdir, flags.FLAGS.tuning_steps, flags.FLAGS.fitting_steps)
    print((workdir / "ddsp_table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    define_flags()
    run(main)
