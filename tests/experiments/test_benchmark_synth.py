"""The benchmark of sound makers: plain formulae give the same sound, and all are in the table."""

import numpy as np
import pytest

from experiments import benchmark_synth as benchmark
from physics.synth import HarmonicNoise


def test_the_plain_formulae_give_the_same_sound():
    model = HarmonicNoise(16000, hop_samples=50, n_harmonics=9)
    given = benchmark.controls(model, 2, 0.1)
    ours, _ = model.harmonic_part(given)
    np.testing.assert_allclose(benchmark.plain(given, 16000, 50), ours, atol=1e-4)


def test_the_table_has_everyone():
    calls = []
    found = [
        benchmark.Entry("first", lambda: calls.append(1), 2.0, 3_000_000),
        benchmark.Entry("second", lambda: calls.append(2), 4.0, 0),
    ]
    times = benchmark.measured(found, 3)
    assert times.shape == (3, 2, 2)
    assert calls == [1, 2] * 4
    text = benchmark.table(found, np.full((3, 2, 2), 0.1))
    first, second = text.splitlines()[2:]
    assert first == "| first | 50 (50) | 50 (50) | 0.0500 | 3 |"
    assert second == "| second | 25 (25) | 25 (25) | 0.0250 | 0 |"


@pytest.mark.slow  # compiles a dozen programs
def test_everything_is_timed():
    found = benchmark.entries(1, 0.1, 64, 1)
    assert len(found) == 13
    assert len({one.name for one in found}) == 13
    assert np.all(benchmark.measured(found, 1) > 0)
