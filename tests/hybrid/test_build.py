"""Building from import paths: what is filled in, and what each wrong part is told."""

import dataclasses

import pytest

from hybrid.build import BuildError, build
from hybrid.targets import resolve


def test_known_facts_are_filled_in(toy_config):
    experiment = build(toy_config)
    assert experiment.physics.sample_rate_hz == experiment.source.sample_rate_hz
    assert experiment.learner.num_classes == len(experiment.source.class_names)
    assert dataclasses.is_dataclass(experiment.task)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("toy_parts", "import path 'package.module:Name'"),
        ("no_such_package.ears:Ear", "cannot be imported"),
        ("toy_parts:ToyEra", "ToyEar"),
    ],
)
def test_import_paths_are_checked(toy_config, path, message):
    with pytest.raises(BuildError, match=message):
        resolve(path, "config.physics.target")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("physics.target", "toy_parts:not_a_physics", "does not say what it returns"),
        ("physics.target", "toy_parts:HOP", "must be a class or function, got 16"),
        ("physics.target", "toy_parts:WrongFrames", "make apply and num_frames agree"),
        ("physics.kwargs", {"band": 4}, "did you mean bands"),
        ("physics.kwargs", {"bands": 3}, r"config.physics \(toy_parts:ToyEar\) apply failed"),
        ("physics.kwargs", {"sample_rate_hz": 8000.0}, "must share a sample rate"),
        ("learner.target", "toy_parts:ToySource", "lacks init, apply"),
        ("learner.kwargs", {"num_classes": 7}, r"one logit a class, \[8, 2\], got \(8, 7\)"),
        (
            "learner.kwargs",
            {"num_classes": -1},
            r"config.learner \(toy_parts:ToyNet\) failed on features",
        ),
        ("task.kwargs", {"label_smoothing": 2.0}, "label_smoothing must lie in"),
        ("data.target", "toy_parts:ToyNet", "dataset"),
    ],
)
def test_parts_that_do_not_fit_are_named(toy_config, field, value, message):
    part, name = field.split(".")
    toy_config[part][name] = value
    with pytest.raises(BuildError, match=message):
        build(toy_config)


def test_lists_of_json_become_tuples_so_that_modules_stay_hashable(toy_config):
    toy_config.learner.target = "learners:ConvNet"
    toy_config.learner.kwargs = {"features": [4, 8], "strides": [2]}
    experiment = build(toy_config)
    assert experiment.learner.features == (4, 8)
    hash(experiment.task)
