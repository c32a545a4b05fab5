"""Pictures are drawn for the shapes that occur, and leave nothing behind in Matplotlib."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import plots
from physics.base import Parameter

ROOT = Path(__file__).resolve().parents[2]


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("classes", [1, 2, 4, 15, 35])
def test_confusion_matrix(tmp_path, classes):
    counts = np.random.default_rng(0).integers(0, 9, (classes, classes)).tolist()
    names = [f"word{index}" for index in range(classes)]
    figure = plots.confusion_matrix(counts, names)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert len(axes.texts) == (classes**2 if classes <= 20 else 0)
    right = 100 * np.trace(np.array(counts)) / np.sum(counts)
    assert axes.get_title().startswith(f"{right:.1f} % right")
    if classes == 4:
        assert is_png(plots.save(figure, tmp_path / "confusion.png", dpi=60))


def test_confusion_matrix_with_an_empty_class_and_wrong_names():
    figure = plots.confusion_matrix([[3, 0], [0, 0]], ["a", "b"])
    assert texts(figure.axes[0]) == ["3\n100 %", "0", "0", "0"]
    plots.confusion_matrix([[0, 0], [0, 0]], ["a", "b"])
    with pytest.raises(ValueError, match=r"\[3, 3\] for 3 class names, got \[2, 2\]"):
        plots.confusion_matrix([[3, 0], [0, 0]], ["a", "b", "c"])


@pytest.mark.parametrize("falling", [False, True])
def test_cochleagram_has_low_frequencies_at_the_bottom(falling):
    frequencies = np.geomspace(100, 8000, 32)
    features = np.tile(np.arange(32.0), (10, 1))
    if falling:
        frequencies, features = frequencies[::-1], features[:, ::-1]
    axes = plots.cochleagram(features, 0.01, frequencies).axes[0]
    image = axes.images[0]
    np.testing.assert_array_equal(image.get_array()[:, 0], np.arange(32))
    assert image.origin == "lower"
    np.testing.assert_allclose(image.get_extent(), (0, 0.1, -0.5, 31.5))
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["100", "200", "500", "1k", "2k", "5k"]
    # A tick stands where the channel of that frequency is.
    assert axes.get_yticks()[0] == pytest.approx(0, abs=1e-6)


def test_cochleagram_without_frequencies_and_with_wrong_ones():
    assert plots.cochleagram(np.ones((3, 4)), 0.01).axes[0].get_ylabel() == "channel"
    with pytest.raises(ValueError, match=r"each of 4 channels, got \[3\]"):
        plots.cochleagram(np.ones((3, 4)), 0.01, np.ones(3))


def test_training_curves_of_two_runs():
    rows = [
        {"step": step, "split": split, "loss": 10.0 ** (-step / 10), "accuracy": 0.5}
        for step in (0, 10, 20)
        for split in ("train", "validation", "physics")
    ]
    rows.append({"step": 30, "split": "train", "loss": float("nan")})
    loss, accuracy = plots.training_curves({"frozen": rows, "learned": rows[:4]}).axes
    assert len(loss.lines) == len(accuracy.lines) == 4
    assert loss.get_yscale() == "log"
    np.testing.assert_array_equal(accuracy.lines[0].get_ydata(), [50.0, 50.0, 50.0])
    plots.training_curves({"empty": []})


def test_parameter_movement_names_values_and_units(tmp_path):
    specs = {
        "car": {
            "zeta": Parameter("1", 0.0, 1.0, "damping"),
            "health": Parameter("1", 0.0, 1.0, "health", transform="project"),
        },
        "agc": {
            "tau_s": Parameter("s", 0.0, 1.0, "times"),
            "offset": Parameter("Hz", -1.0, 1.0, ""),
        },
    }
    initial = {
        "car": {"zeta": 0.1, "health": np.ones((2, 20))},
        "agc": {"tau_s": np.array([0.002, 0.5]), "offset": 0.0},
    }
    learned = {
        "car": {"zeta": 0.15, "health": np.full((2, 20), 0.8)},
        "agc": {"tau_s": np.array([0.001, 0.5]), "offset": 0.2},
    }
    frequencies = np.geomspace(100, 8000, 20)
    figure = plots.parameter_movement(initial, learned, specs, frequencies, most=3)
    changes, health = figure.axes
    assert texts(changes) == ["0 → 0.2 Hz", "0.1 → 0.15", "2 → 1 ms"]
    names = [label.get_text() for label in changes.get_yticklabels()]
    assert names == ["agc.offset", "car.zeta", "agc.tau_s[0]"]
    assert "1 more moved less" in changes.get_xlabel()
    assert len(health.lines) == 4
    assert is_png(plots.save(figure, tmp_path / "movement.png", dpi=60))
    plots.parameter_movement(initial, initial, specs)
    plots.parameter_movement({}, {}, {})


def test_pixels():
    array = plots.pixels(plots.cochleagram(np.ones((3, 4)), 0.01), dpi=50)
    assert array.dtype == np.uint8
    assert array.ndim == 3
    assert array.shape[2] == 3


def test_no_pyplot_no_window_no_state():
    script = (
        "import sys; from experiments import plots; import numpy as np\n"
        "assert 'matplotlib' not in sys.modules and 'jax' not in sys.modules\n"
        "plots.pixels(plots.confusion_matrix([[1, 0], [0, 1]], ['a', 'b']))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=120)
