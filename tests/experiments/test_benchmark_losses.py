"""The benchmark of losses: all compute what they should, and all are in the table."""

import numpy as np
import pytest

from experiments import benchmark_losses as benchmark


def test_both_compute_the_same():
    from hybrid.losses import MultiResolutionStft

    estimate, target = benchmark.sounds(2, 0.15)
    value, gradient = benchmark.ours(MultiResolutionStft(), estimate, target)()
    their_value, their_gradient = benchmark.auraloss(estimate, target)()
    assert float(value) == pytest.approx(float(their_value), abs=1e-5)
    error = np.linalg.norm(gradient - their_gradient) / np.linalg.norm(their_gradient)
    assert error < 1e-3


def test_ratios_are_of_rounds():
    calls = {benchmark.OURS: lambda: None, benchmark.THEIRS: lambda: None, "STRF": lambda: None}
    times = benchmark.measured(calls, 2)
    assert {name: mine.shape for name, mine in times.items()} == dict.fromkeys(calls, (2, 2))
    times = {
        benchmark.OURS: np.array([[0.1, 0.2], [0.2, 0.2], [0.1, 0.2]]),
        benchmark.THEIRS: np.array([[0.2, 0.4], [0.8, 0.4], [0.5, 0.4]]),
        "STRF": np.array([[0.4, 0.1], [0.4, 0.1], [0.4, 0.1]]),
    }
    lines = benchmark.table(times).splitlines()
    assert all(line.count("|") == 7 for line in lines)
    assert lines[2] == f"| {benchmark.OURS} | 100 | 100 | 200 | 0.25 | 1.00 |"
    assert lines[4] == "| STRF | 400 | 400 | 100 | 0.80 | 4.00 |"
    del times[benchmark.THEIRS]
    assert benchmark.THEIRS not in benchmark.table(times)
