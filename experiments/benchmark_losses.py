"""Times losses with their gradients, beside auraloss in PyTorch on the same cores: a table.

    python -m experiments.benchmark_losses --out=runs/benchmark

All take turns, so that what else the machine does hits them alike. Times are medians over the
rounds, wall clock and processor time of the whole process (all its threads); ratios are medians
over the rounds of the ratio in a round, below 1 where ours is faster. Writes `losses.md`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments import launch, markdown
from experiments.benchmark_frontends import RATE_HZ, compiled, noise, timed

# The yardsticks, which every loss is divided by.
THEIRS = "auraloss, multi-resolution STFT"
OURS = "multi-resolution STFT"


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("out", "runs/benchmark", "Directory for the table.")
    flags.DEFINE_integer("rounds", 15, "Timed runs of each.", lower_bound=1)
    flags.DEFINE_integer("clips", 16, "Clips in a batch.", lower_bound=1)
    flags.DEFINE_float("seconds", 1.0, "Length of the clips.", lower_bound=0.1)


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark."""
    if len(argv) > 1:
        raise ValueError(f"benchmark_losses takes flags only, got {' '.join(argv[1:])}: --help")
    values = flags.FLAGS
    out = Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    clips, seconds = values.clips, values.seconds
    times = measured(contestants(clips, seconds), values.rounds)
    how = (
        f"{clips} clips of {seconds:g} s at {RATE_HZ} Hz, float32; milliseconds for the loss of "
        f"the batch and its gradient for the estimate, median of {values.rounds} rounds; load "
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} processors."
    )
    lines = ["# Losses: time of value and gradient", how, table(times)]
    if THEIRS not in times:
        lines.append("auraloss is left out, for it is not installed: pip install auraloss")
    text = "\n\n".join(lines) + "\n"
    (out / "losses.md").write_text(text)
    print(text)


def sounds(clips: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Estimate and target, `[clips, time]` float32: noise, and the same noise disturbed."""
    target = noise(clips, seconds)
    return target + 0.3 * np.roll(target, 1, axis=1), target


def contestants(clips: int, seconds: float) -> dict[str, Callable[[], Any]]:
    """Everybody, compiled: calls that give the value and the gradient for the estimate."""
    from hybrid import losses

    estimate, target = sounds(clips, seconds)
    lengths = np.full(clips, estimate.shape[1], np.int32)
    found = {OURS: ours(losses.MultiResolutionStft(), estimate, target)}
    theirs = auraloss(estimate, target)
    if theirs is not None:
        found[THEIRS] = theirs
    padded = ours(losses.MultiResolutionStft(), estimate, target, lengths)
    found[f"{OURS}, with lengths"] = padded
    for name, loss in (
        ("STRF", losses.StrfLoss(RATE_HZ)),
        ("cochlear", losses.CochlearLoss(RATE_HZ)),
        ("cortical", losses.CorticalLoss(RATE_HZ)),
        ("SI-SDR", losses.SiSdr()),
    ):
        found[name] = ours(loss, estimate, target)
    return found


def ours(
    loss: Any, estimate: np.ndarray, target: np.ndarray, lengths: np.ndarray | None = None
) -> Callable[[], Any]:
    """Value and gradient of one of our losses, compiled."""
    import jax
    import jax.numpy as jnp

    arrays = [jnp.asarray(x) for x in (estimate, target, lengths) if x is not None]
    return compiled(jax.value_and_grad(loss), *arrays)


def auraloss(estimate: np.ndarray, target: np.ndarray) -> Callable[[], Any] | None:
    """Value and gradient of auraloss's multi-resolution STFT loss; None if it is not installed."""
    try:
        from auraloss.freq import MultiResolutionSTFTLoss
    except ImportError:
        return None
    import torch

    loss = MultiResolutionSTFTLoss()
    clean = torch.from_numpy(target)[:, None]

    def call() -> tuple[Any, Any]:
        heard = torch.from_numpy(estimate)[:, None].requires_grad_()
        value = loss(heard, clean)
        value.backward()
        assert heard.grad is not None
        return value.detach().numpy(), heard.grad.numpy()[:, 0]

    return call


def measured(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Times of each, `[rounds, 2]`: wall clock and processor, in seconds; they take turns."""
    for call in calls.values():
        call()
    times = [{name: timed(call) for name, call in calls.items()} for _ in range(rounds)]
    return {name: np.array([each[name] for each in times]) for name in calls}


def table(times: Mapping[str, np.ndarray]) -> str:
    """Times as Markdown."""
    peers = [name for name in (THEIRS, OURS) if name in times]
    head = ["loss and gradient", "ms", "fastest", "processor, ms"]
    head += [f"/ {name}" for name in peers]
    rows = []
    for name, mine in times.items():
        wall, processor = 1e3 * np.median(mine, axis=0)
        ratios = [np.median(mine[:, 0] / times[peer][:, 0]) for peer in peers]
        cells = [name, f"{wall:.3g}", f"{1e3 * mine[:, 0].min():.3g}", f"{processor:.3g}"]
        rows.append(cells + [f"{ratio:.2f}" for ratio in ratios])
    return markdown.table(head, rows)


def app() -> None:
    """Runs from the command line."""
    define_flags()
    launch.run(main)


if __name__ == "__main__":
    app()
