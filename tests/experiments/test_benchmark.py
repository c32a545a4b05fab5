"""The benchmark: everyone in it computes the same, takes turns, and is in the table."""

import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from experiments import benchmark, benchmark_google, benchmark_models, benchmark_report
from experiments.benchmark_models import Contestant
from experiments.benchmark_train import measure_training, write_noise
from experiments.configs import keywords
from hybrid.build import build
from physics.carfac import native

ROOT = pathlib.Path(__file__).parents[2]
NATIVE = pytest.mark.skipif(
    native.reason_unavailable() is not None, reason=str(native.reason_unavailable())
)
FLAGS = {
    "carfac_path": None,
    "eigen_path": "/usr/include/eigen3",
    "rounds": 2,
    "seconds": 0.05,
    "quick": False,
    "train": True,
    "train_root": None,
    "train_steps": 2,
}


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.benchmark", *arguments],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=3000,
    )


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


@NATIVE
@pytest.mark.parametrize("mode", ["forward", "gradient", "frames"])
def test_the_native_kernel_runs_in_each_mode(mode):
    contestant = benchmark_models.ours("native", mode, 2, 0.03)
    assert contestant.call() is None
    assert contestant.compile_s > 0
    if mode == "forward":
        others = [contestant, benchmark_models.yardstick(0.02)]
        others = [Contestant(o.name, "forward", 1, 0.02, o.call, nap=o.nap) for o in others]
        ((name, error),) = benchmark.compare(others).items()
        assert name == "native kernel"
        assert 0 < error < 2e-4


@pytest.mark.slow  # compiles hundreds of operations, one by one
def test_without_jit_the_result_is_the_same():
    contestants = [benchmark_models.yardstick(0.0005), benchmark_models.uncompiled(0.0005)]
    assert benchmark.compare(contestants)["JAX without jit"] < 2e-4


def test_all_hear_the_same():
    first = benchmark_models.noise(1, 0.1)[0]
    np.testing.assert_array_equal(benchmark_models.noise(1, 0.2)[0, : len(first)], first)
    np.testing.assert_array_equal(benchmark_models.noise(16, 0.1)[0], first)


def test_they_take_turns_and_the_slow_ones_rest():
    order = []

    def make(name, took):
        return Contestant(name, "forward", 1, 1.0, lambda: order.append(name) or took)

    times = benchmark.race([make("fast", 0.1), make("slow", 9.0)], 5)
    # From the second round on, the fast run once before they are timed.
    twice = ["fast", "fast"]
    assert order == ["fast", "slow", *twice, *twice, *twice, "slow", *twice]
    assert [sorted(t) for t in times] == [[0, 1, 2, 3, 4], [0, 3]]


def test_ratios_are_medians_over_common_rounds():
    ours = Contestant("native kernel", "frames", 2, 0.5, lambda: None, compile_s=0.4)
    peer = Contestant(benchmark_google.JAX, "gradient", 2, 0.25, lambda: None)
    times = [{0: 1.0, 1: 2.0, 2: 100.0, 3: 3.0}, {0: 10.0, 1: 30.0, 3: 60.0}]
    entry, _ = benchmark_report.summarise([ours, peer], times, [20.0, None])
    assert entry["ms_per_second"] == 2500.0
    assert entry["fastest_ms_per_second"] == 1000.0
    # 20, 30 and 40: google's clip is half as long.
    assert entry["ratio"] == {benchmark_google.JAX: 30.0}
    assert (entry["rounds"], entry["memory_mb"], entry["compile_s"]) == (4, 20.0, 0.4)
    row = benchmark_report.table([entry]).splitlines()[-1]
    assert row == "| 2 | native kernel | 0.5 s, 4 | 2.5e+03 (1e+03) | 30 | 0.4 | 20 |"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read in /proc")
def test_memory_is_the_growth_of_the_peak():
    def hold():
        np.ones(50_000_000, np.uint8)

    hold()
    for _ in range(2):
        assert 45 < benchmark.memory_growth_mb(hold) < 60
    assert benchmark.memory_growth_mb(lambda: None) < 5
    assert benchmark.memory_growth_mb(lambda: 1.0) is None


def test_growth_is_the_slope_of_the_upper_half():
    at = [1.0, 2.0, 4.0, 8.0]
    sweep = {"at": at, "forward": [5.0, 5.0, 8.0, 16.0], "frames": [1.0, 1.0, 1.0, 4.0]}
    assert benchmark_report.exponents({"clips": sweep}) == {
        "clips": {"forward": pytest.approx(1), "frames": pytest.approx(2)}
    }


def test_every_row_that_is_asked_for_is_there(tmp_path, monkeypatch):
    """All contestants stubbed: the run, its table, its JSON and its plot."""

    def stub(name, mode="forward", clips=1, seconds=0.05):
        comparable = (mode, clips) == ("forward", 1) and name != benchmark_google.CPP
        nap = (lambda: np.ones((3, 2))) if comparable else None
        return Contestant(name, mode, clips, seconds, lambda: None, 0.1, nap)

    def ours(kernel, mode, clips, seconds, initial=None):
        return stub(benchmark_models.NAMES[kernel], mode, clips, seconds)

    monkeypatch.setattr(benchmark_models, "ours", ours)
    monkeypatch.setattr(benchmark_models, "yardstick", lambda s: stub(benchmark_models.YARDSTICK))
    monkeypatch.setattr(benchmark_models, "uncompiled", lambda s: stub("JAX without jit"))
    monkeypatch.setattr(benchmark_google, "google_numpy", lambda p, s: stub(benchmark_google.NUMPY))
    monkeypatch.setattr(
        benchmark_google, "google_cpp", lambda p, e, n, s: stub(benchmark_google.CPP, clips=n)
    )
    monkeypatch.setattr(
        benchmark_google, "google_jax", lambda p, m, n, s: stub(benchmark_google.JAX, m, n, s)
    )
    monkeypatch.setattr(benchmark_google, "check_checkout", lambda path: None)
    trained = {"clips_per_s": 70.0, "step_clips_per_s": 80.0, "compile_s": 9.0}
    trained |= {"batch_size": 32, "sample_rate_hz": 16000}
    monkeypatch.setattr(benchmark, "measure_training", lambda root, steps: trained)
    values = types.SimpleNamespace(**FLAGS | {"out": str(tmp_path), "carfac_path": "/x"})
    monkeypatch.setattr(benchmark.flags, "FLAGS", values)
    benchmark.main(["benchmark"])
    everything = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {(r["name"], r["mode"], r["clips"]) for r in everything["results"]}
    wanted = {
        (name, mode, clips)
        for name in benchmark_models.NAMES.values()
        for mode in ("forward", "gradient", "frames")
        for clips in (1, 16, 64)
    }
    wanted |= {
        (benchmark_google.JAX, mode, n) for mode in ("forward", "gradient") for n in (1, 16, 64)
    }
    wanted |= {(benchmark_google.CPP, "forward", n) for n in (1, 16, 64)}
    alone = (benchmark_models.YARDSTICK, "JAX without jit", benchmark_google.NUMPY)
    assert rows == wanted | {(name, "forward", 1) for name in alone}
    text = (tmp_path / "benchmark.md").read_text()
    for name, _, clips in rows:
        assert f"| {clips} | {name} |" in text
    assert "70 clips/s" in text
    assert "one-cap" in text
    assert set(everything["scaling"]) == {"clips", "channels", "seconds"}
    at = everything["scaling"]["channels"]["at"]
    assert at == sorted(set(at))
    assert set(everything["largest_difference_from_numpy_reference"]) == {
        benchmark_models.NAMES["native"],
        benchmark_models.NAMES["xla"],
        "JAX without jit",
        benchmark_google.NUMPY,
        benchmark_google.JAX,
    }
    assert is_png(tmp_path / "benchmark.png")


def test_what_cannot_take_part_says_why(capsys):
    def missing():
        raise RuntimeError("no kernel here")

    assert list(benchmark.attempt(missing)) == []
    assert "left out: missing: no kernel here" in capsys.readouterr().err


def test_a_wrong_checkout_is_an_error_without_a_stack(tmp_path):
    result = command(f"--carfac_path={tmp_path}/no", f"--out={tmp_path}/out")
    assert result.returncode != 0
    assert "--carfac_path must be a checkout of google/carfac" in result.stderr
    assert "git clone" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_eigen_the_cpp_model_stays_away(tmp_path):
    with pytest.raises(FileNotFoundError, match="--eigen_path"):
        benchmark_google.google_cpp(tmp_path, tmp_path / "eigen", 1, 0.05)


def test_noise_takes_the_place_of_the_words(tmp_path):
    write_noise(tmp_path, keywords.WORDS, 16000)
    config = keywords.get_config()
    config.data.root = str(tmp_path)
    source = build(config).source
    assert len(source.dataset("train")) == 80
    assert source.class_names == keywords.WORDS


@pytest.mark.slow  # XLA compiles nine gradients and a training step
@pytest.mark.timeout(3000)
def test_a_short_run_of_everything(tmp_path):
    """With google's models if CARFAC_PATH names a checkout."""
    checkout = os.environ.get("CARFAC_PATH")
    arguments = ["--seconds=0.05", "--rounds=1", "--train_steps=2", f"--out={tmp_path}"]
    result = command(*arguments, *([f"--carfac_path={checkout}"] if checkout else []))
    assert result.returncode == 0, result.stderr
    everything = json.loads((tmp_path / "benchmark.json").read_text())
    names = {entry["name"] for entry in everything["results"]}
    assert {*benchmark_models.NAMES.values(), benchmark_models.YARDSTICK} <= names
    if checkout:
        google = {benchmark_google.NUMPY, benchmark_google.JAX, benchmark_google.CPP}
        assert google <= names, result.stderr
    differences = everything["largest_difference_from_numpy_reference"]
    assert differences
    assert all(error < 1e-3 for error in differences.values())
    assert everything["training"]["clips_per_s"] > 0
    assert is_png(tmp_path / "benchmark.png")


@pytest.mark.slow  # compiles the training step
@pytest.mark.timeout(1200)
def test_a_training_step_is_timed():
    measured = measure_training(None, 2, batch_size=4)
    assert measured["clips_per_s"] > 0
    assert measured["batch_size"] == 4
