"""The benchmark of losses: all compute what they should, and all are in the table."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags

from experiments import benchmark_losses as benchmark


def test_both_compute_the_same():
    """Gradients are compared in the tests of the loss itself."""
    from hybrid.losses import Esr, MultiResolutionStft

    estimate, target = benchmark.sounds(2, 0.15)
    theirs, gradient = benchmark.auraloss(estimate, target)()
    quick = {"xla_backend_optimization_level": 0}
    ours = jax.jit(MultiResolutionStft(), compiler_options=quick)(estimate, target)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)
    value, slopes = benchmark.ours(Esr(), estimate, target)()
    assert float(value) > 0
    assert slopes.shape == gradient.shape == estimate.shape


def test_the_whole_table(tmp_path, monkeypatch, capsys):
    """With small losses, for compiling the real ones takes minutes."""
    from hybrid import losses

    small = losses.MultiResolutionStft((64,), (32,), (64,))
    monkeypatch.setattr(losses, "MultiResolutionStft", lambda: small)
    for name in ("StrfLoss", "CochlearLoss", "CorticalLoss"):
        monkeypatch.setattr(losses, name, lambda rate_hz: losses.L2())
    monkeypatch.setattr(benchmark, "auraloss", lambda estimate, target: None)
    given = SimpleNamespace(out=tmp_path / "new", rounds=2, clips=2, seconds=0.1)
    monkeypatch.setattr(flags, "FLAGS", given)
    benchmark.main(["benchmark_losses"])
    text = (tmp_path / "new" / "losses.md").read_text()
    assert text in capsys.readouterr().out
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if "|" in line]
    assert rows[2:] == [
        benchmark.OURS,
        f"{benchmark.OURS}, with lengths",
        "STRF",
        "cochlear",
        "cortical",
        "SI-SDR",
    ]
    assert "2 clips of 0.1 s at 16000 Hz" in text
    assert text.endswith("auraloss is left out, for it is not installed: pip install auraloss\n")
    with pytest.raises(ValueError, match="takes flags only, got x"):
        benchmark.main(["benchmark_losses", "x"])


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
