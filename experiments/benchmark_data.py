"""Measures what it costs to hand a torch batch to JAX: the bridge against two ways that copy.

    python -m experiments.benchmark_data [--repeats=100] [--large_mb=256]

Prints a Markdown table of median times until the arrays are ready, and what was copied.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from absl import app, flags

_REPEATS = flags.DEFINE_integer("repeats", 100, "timed calls for each cell", lower_bound=1)
_LARGE_MB = flags.DEFINE_integer("large_mb", 256, "size of the largest batch, MB", lower_bound=1)


def median_us(call: Callable[[], Any], repeats: int, budget_s: float = 5.0) -> float:
    """Returns the median time of `call` in microseconds, its result being ready.

    Args:
        call: returns any tree of arrays.
        repeats: timed calls, after one that does not count.
        budget_s: stops early when this much time has gone, after three calls at least.
    """
    import jax

    jax.block_until_ready(call())
    times: list[float] = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < budget_s):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def measure(shape: tuple[int, ...], repeats: int) -> dict[str, float | int]:
    """Returns the times of the three ways, for float32 of one shape, and what the bridge copied."""
    import jax.numpy as jnp

    from data.bridge import to_jax

    tensor = torch.randn(shape)
    _, report = to_jax({"audio": tensor})
    return {
        "bridge_us": median_us(lambda: to_jax({"audio": tensor})[0], repeats),
        "array_us": median_us(lambda: jnp.array(tensor), repeats),
        "asarray_us": median_us(lambda: jnp.asarray(tensor.numpy()), repeats),
        "aliased_bytes": report.aliased_bytes,
        "copied_bytes": report.copied_bytes,
    }


def table(rows: dict[str, dict[str, float | int]]) -> str:
    """Returns the measurements as a Markdown table."""
    ways = "bridge | `jnp.array(t)` | `jnp.asarray(t.numpy())` | bridge is faster"
    head = f"| float32 batch, times in µs | {ways} | bytes aliased | bytes copied |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name, row in rows.items():
        slower = [row["array_us"] / row["bridge_us"], row["asarray_us"] / row["bridge_us"]]
        lines.append(
            f"| {name} | {row['bridge_us']:.0f} | {row['array_us']:.0f} | {row['asarray_us']:.0f} "
            f"| {slower[0]:.1f}x, {slower[1]:.1f}x "
            f"| {row['aliased_bytes']:,} | {row['copied_bytes']:,} |"
        )
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Measures and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"there are flags only; got {argv[1:]}")
    large = _LARGE_MB.value
    shapes = {"64 x 16000": (64, 16_000), "1 MB": (2**18,), f"{large} MB": (large, 2**18)}
    rows = {name: measure(shape, _REPEATS.value) for name, shape in shapes.items()}
    print(table(rows))


def run() -> None:
    """Runs from the command line."""
    app.run(main)


if __name__ == "__main__":
    run()
