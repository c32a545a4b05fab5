"""What CAR-FAC refuses, and how it says so: the rule, the value met, the way out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from physics.audio import check_audio
from physics.carfac import Carfac, reference
from physics.carfac.checks import check_state

MODEL = Carfac(sample_rate_hz=8000, agc_decimations=(8, 3))
TWO = dataclasses.replace(MODEL, n_ears=2)
FRAMED = dataclasses.replace(MODEL, hop_s=0.01)
SHORT = dataclasses.replace(FRAMED, window_s=0.01)
THREE_STAGES = dataclasses.replace(MODEL, agc_decimations=(8, 3, 2))


def with_ear(phase):
    return dataclasses.replace(MODEL, ear_filter=phase)


def spoiled(value, place, shape=(3, 80)):
    audio = np.zeros(shape, np.float32)
    audio[place] = value
    return audio


@pytest.mark.parametrize(
    ("fields", "rule", "value", "way_out"),
    [
        ({"ihc": "two_caps"}, "ihc must be one of", "'two_caps'", "Did you mean 'two_cap'?"),
        ({"ihc": "rubbish"}, "'two_cap_with_syn')", "'rubbish'", "Choose one of them"),
        ({"sample_rate_hz": 7999}, "between 8000 and 96000", "got 7999", "Resample the audio"),
        ({"sample_rate_hz": 192e3}, "between 8000 and 96000", "got 192000", "Resample"),
        ({"sample_rate_hz": float("nan")}, "between 8000 and 96000", "got nan", "Resample"),
        ({"n_ears": 0}, "n_ears must be at least 1", "got 0", "Count the ears"),
        ({"hop_s": float("nan")}, "hop_s must be positive", "got nan", "Give seconds"),
        ({"agc_decimations": (8, 0)}, "whole numbers from 1 up", "(8, 0)", "() is no gain control"),
        (
            {"n_ears": 2, "initial": {"car.ohc_health": np.ones((3, 1))}},
            "car.ohc_health may have the shapes",
            "got (3, 1)",
            "(or what broadcasts to them)",
        ),
    ],
)
def test_a_model_that_cannot_be(fields, rule, value, way_out):
    with pytest.raises(ValueError, match="got") as error:
        Carfac(**fields)
    for part in (rule, value, way_out):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("model", "shape", "rule", "value", "way_out"),
    [
        (MODEL, (80,), "[batch, time] or [batch, time, ears]", "got shape (80,)", "audio[None]"),
        (MODEL, (2, 0), "at least one sample", "got shape (2, 0)", "Skip empty clips"),
        (MODEL, (2, 80, 2), "one signal for each ear", "(2, 80, 2) has 2", "Set n_ears=2"),
        (TWO, (2, 80), "one signal for each ear", "(2, 80) has 1", "stack the ears on a third"),
        (TWO, (2, 80, 3), "one signal for each ear", "(2, 80, 3) has 3", "Set n_ears=3"),
    ],
)
@pytest.mark.parametrize("entry", ["run", "apply", "framed"])
def test_audio_of_a_wrong_shape(entry, model, shape, rule, value, way_out):
    model = dataclasses.replace(model, hop_s=0.01 if entry == "framed" else None)
    function = model.run if entry == "run" else model.apply
    with pytest.raises(ValueError, match="Audio must") as error:
        # By eval_shape: shapes are refused under jit, too.
        jax.eval_shape(function, model.init(), jnp.zeros(shape))
    for part in (rule, value, way_out):
        assert part in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("entry", "kind"),
    [("run", jnp.asarray), ("apply", jnp.asarray), ("framed", jnp.asarray), ("framed", np.asarray)],
)
def test_audio_that_is_not_finite(value, kind, entry):
    model = FRAMED if entry == "framed" else MODEL
    function = model.run if entry == "run" else model.apply
    audio = spoiled(value, ([1, 1, 2], [70, 71, 3]))
    with pytest.raises(ValueError, match="Audio must be finite") as error:
        function(model.init(), kind(audio))
    message = str(error.value)
    assert f"got {value} first at clip 1, sample 70, ear 0, and 3 such samples" in message
    assert "numpy.nan_to_num" in message


def test_the_ear_is_named():
    with pytest.raises(ValueError, match="clip 2, sample 5, ear 1, and 1 such"):
        TWO.run(TWO.init(), jnp.asarray(spoiled(np.nan, (2, 5, 1), (3, 80, 2))))


def test_what_lies_beyond_a_clip_may_be_anything():
    audio, lengths = spoiled(np.nan, (1, slice(50, None))), jnp.array([80, 50, 80], jnp.int32)
    for sound in (audio, jnp.asarray(audio)):
        features, _ = FRAMED.apply(FRAMED.init(), sound, lengths=lengths)
        assert jnp.isfinite(features).all()
    with pytest.raises(ValueError, match="clip 1, sample 50, ear 0, and 1 such"):
        FRAMED.apply(FRAMED.init(), audio, lengths=lengths + jnp.array([0, 1, 0], jnp.int32))


def test_values_are_looked_at_only_where_they_are_known(quick_jit):
    params, audio = FRAMED.init(), jnp.asarray(spoiled(np.nan, (1, 5)))
    features, _ = quick_jit(FRAMED.apply)(params, audio)
    assert jnp.isnan(features[1]).any()
    assert jnp.isfinite(features[::2]).all()
    program = str(jax.make_jaxpr(FRAMED.apply)(params, audio))
    assert "is_finite" not in program  # the step of training pays nothing
    # What a traced function closes over is known.
    with pytest.raises(ValueError, match="clip 1, sample 5"):
        jax.eval_shape(lambda params: FRAMED.apply(params, audio), params)
    whole = jax.make_jaxpr(lambda params: FRAMED.apply(params, audio[::2]))(params)
    assert "is_finite" not in str(whole)


@pytest.mark.parametrize(
    ("state", "model", "rule", "value", "way_out"),
    [
        (FRAMED, MODEL, "full rate (`run`", "got FramedState", "None to start afresh"),
        (MODEL, FRAMED, "frames (`apply`", "got State", "None to start afresh"),
        (TWO, MODEL, "same model, clips, ears and channels", "(3, 2, 53)", "init_state(3)"),
        (with_ear("linear"), with_ear("minimum"), "same model", "past_audio", "init_state(3)"),
        (with_ear("linear"), MODEL, "same model", "past_audio", "init_state(3)"),
        (MODEL, with_ear("linear"), "same model", "past_audio has the shape None", "(3)"),
        (SHORT, FRAMED, "same model", "past has the shape", "init_state(3)"),
        (THREE_STAGES, MODEL, "same model", "agc_memory", "init_state(3)"),
    ],
)
def test_a_state_of_another_model(state, model, rule, value, way_out):
    with pytest.raises(ValueError, match="state must be") as error:
        check_state(state.init_state(3), model.init_state(3))
    for part in (rule, value, way_out):
        assert part in str(error.value)


def test_a_state_of_other_clips():
    with pytest.raises(ValueError, match=r"frames .*got State"):
        FRAMED.apply(FRAMED.init(), jnp.zeros((3, 80)), MODEL.init_state(3))
    for model in (MODEL, FRAMED):
        with pytest.raises(ValueError, match=r"shape \(2, .*\) and not \(3, .*init_state\(3\)"):
            model.apply(model.init(), jnp.zeros((3, 80)), model.init_state(2))


@pytest.mark.parametrize(
    ("options", "audio", "parts"),
    [
        ({"ihc_style": "rubbish"}, None, ("is one of", "'rubbish'", "choose one")),
        ({"sample_rate_hz": 7999.0}, None, ("8000 to 96000", "7999", "resample")),
        ({}, np.zeros((0, 1)), ("time >= 1", "(0, 1)", "reshape")),
        ({"num_ears": 2}, np.zeros((80, 1)), ("ears = 2", "(80, 1)", "reshape")),
        ({}, spoiled(np.nan, 3, (80, 1)), ("finite", "NaN or Inf", "clean it")),
        ({}, spoiled(np.inf, 3, (80, 1)), ("finite", "NaN or Inf", "clean it")),
    ],
)
def test_the_yardstick_refuses_the_same(options, audio, parts):
    with pytest.raises(ValueError, match="got") as error:
        reference.run(reference.design(**options), audio)
    for part in parts:
        assert part in str(error.value)


def test_audio_of_integers():
    rule = r"full scale 1\.0; got int16\. Divide 16-bit"
    audio = np.ones((1, 80), np.int16)
    with pytest.raises(ValueError, match=rule):
        FRAMED.apply(FRAMED.init(), audio)
    with pytest.raises(ValueError, match=rule):
        check_audio(audio, n_ears=1)


def test_state_of_another_ear_filter():
    linear, minimum = with_ear("linear"), with_ear("minimum")
    audio = jnp.zeros((1, 80))
    _, state = linear.run(linear.init(), audio)
    with pytest.raises(ValueError, match="past_audio has the shape"):
        minimum.run(minimum.init(), audio, state)
