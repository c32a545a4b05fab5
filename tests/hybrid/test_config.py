"""The fields of a run: unknown ones are named, kwargs follow their target."""

import pytest

from hybrid.config import apply_kwargs, check_config, default_config

TARGETS = {part: default_config()[part].target for part in ("physics", "learner", "task", "data")}


def test_the_default_is_valid():
    check_config(default_config())


def test_an_unknown_field_offers_near_names():
    config = default_config()
    config.physics_optimizer.learnin_rate = 1.0
    with pytest.raises(ValueError, match="did you mean learning_rate"):
        check_config(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_steps", 0), ("batch_size", "many"), ("precision", "float16"), ("keep_checkpoints", 0)],
)
def test_values_out_of_range_are_named(field, value):
    config = default_config()
    with config.ignore_type():
        config[field] = value
    with pytest.raises(ValueError, match=f"config.{field}"):
        check_config(config)


def test_kwargs_are_laid_over_those_of_the_same_target():
    config = default_config()
    config.physics.kwargs = {"ihc": "one_cap", "hop_s": 0.01}
    new = apply_kwargs(config, {"physics": '{"hop_s": 0.02}'}, TARGETS)
    assert new.physics.kwargs.to_dict() == {"ihc": "one_cap", "hop_s": 0.02}
    assert config.physics.kwargs.hop_s == 0.01


def test_another_target_loses_the_old_kwargs():
    config = default_config()
    config.physics.kwargs = {"ihc": "one_cap"}
    config.physics.target = "my_pkg.ears:MyEar"
    new = apply_kwargs(config, {"physics": '{"bands": 8}'}, TARGETS)
    assert new.physics.kwargs.to_dict() == {"bands": 8}


@pytest.mark.parametrize("text", ["{bands: 8}", "[1]", "8"])
def test_kwargs_must_be_a_json_object(text):
    with pytest.raises(ValueError, match="--physics_kwargs must be a JSON object"):
        apply_kwargs(default_config(), {"physics": text}, TARGETS)


def test_dotted_names_in_json_become_nested_ones():
    text = '{"initial": {"car.ohc_health": 0.5, "car.min_zeta": 0.2}}'
    new = apply_kwargs(default_config(), {"physics": text}, TARGETS)
    nested = {"initial": {"car": {"ohc_health": 0.5, "min_zeta": 0.2}}}
    assert new.physics.kwargs.to_dict() == nested
