"""The benchmark of front ends: peers compute the same, and all are in the table."""

import types

import jax
import numpy as np
import pytest

from experiments import benchmark_frontends as benchmark
from experiments import benchmark_peers
from physics.spectra import Mel


@pytest.fixture(scope="module")
def pairs():
    return benchmark.pairs(benchmark.noise(2, 0.1))


def test_peers_compute_the_same(pairs):
    """All but mel, whose frames are centred: that is the same by another framing."""
    compared = [pair for pair in pairs if pair.peer is not None and pair.name != "mel"]
    assert len(compared) == 5
    for pair in compared:
        ours, theirs = np.asarray(pair.ours()), np.asarray(pair.peer())
        np.testing.assert_allclose(theirs, ours, atol=1e-3 * np.abs(ours).max(), err_msg=pair.name)


def test_peers_filter_alike():
    compared = [pair for pair in benchmark.filter_pairs(benchmark.noise(2, 0.1), 32) if pair.peer]
    assert len(compared) == 5
    for pair in compared:
        both = (jax.tree.leaves(call()) for call in (pair.ours, pair.peer))
        for ours, theirs in zip(*both, strict=True):
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(theirs, ours, atol=1e-4 * scale, err_msg=pair.name)


def test_mel_does_the_same_work():
    audio = benchmark.noise(1, 1.0)
    ours = np.asarray(benchmark.forward(Mel(window_s=0.025, n_fft=512), audio)())
    theirs = np.asarray(benchmark_peers.mel(audio)())
    assert ours.shape == (1, 100, 40)
    assert theirs.shape == (1, 40, 101)
    # Frames lie elsewhere, but bands gather the same energy over a second of noise.
    np.testing.assert_allclose(ours.mean((0, 1)), theirs.mean((0, 2)), rtol=0.1)


def test_everyone_is_in_the_table(pairs):
    rows = [benchmark.measured(pair, 2) for pair in pairs[:1] + pairs[-1:]]
    text = benchmark.table(rows, 0.2)
    mel, strf = text.splitlines()[2:]
    assert mel.startswith("| mel |")
    assert "torchaudio" in mel
    assert strf.startswith("| 40 STRFs |")
    assert "| none |" in strf
    assert all(line.count("|") == 9 for line in text.splitlines())
    names = [pair.name for pair in pairs]
    for name in ("mel", "gammatone", "Gabor (LEAF)", "PCEN", "auditory spectrogram"):
        assert name in names


def test_ratios_are_of_pairs():
    times = np.array([[[2.0, 4.0], [1.0, 1.0]], [[3.0, 9.0], [1.0, 3.0]], [[4.0, 4.0], [2.0, 4.0]]])
    pair = benchmark.Pair("x", lambda: None, "y", lambda: None)
    (line,) = benchmark.table([{"pair": pair, "times": times}], 1.0).splitlines()[2:]
    assert line == "| x | 3e+03 | 4e+03 | y | 1e+03 | 3e+03 | 2.00 | 3.00 |"


def test_the_authors_code_is_run_by_path(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="has no supervisedSTRF"):
        benchmark.famularo(tmp_path, 4, 1.0, 0.1, 0.2)
    (tmp_path / "supervisedSTRF.py").touch()
    result = types.SimpleNamespace(returncode=0, stdout="chatter\n14.0 28.0\n", stderr="")
    monkeypatch.setattr(benchmark.subprocess, "run", lambda *a, **k: result)
    text = benchmark.famularo(tmp_path, 4, 1.0, 0.1, 0.2)
    assert "14.00 s" in text
    assert "140 times" in text
    result.returncode, result.stderr = 1, "no such filter"
    assert "left out, for it ended with: no such filter" in benchmark.famularo(
        tmp_path, 4, 1.0, 0.1, 0.2
    )
