"""What `experiments.describe` says of a model is what the model is, and what the optimizer does."""

import importlib.util
import io
import json
import os
import pathlib
import pkgutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

import hybrid
from experiments import describe, launch
from hybrid.workdir import WorkdirError
from physics.bounds import is_parameter
from physics.carfac import Carfac

ROOT = pathlib.Path(__file__).parents[2]
TOYS = ROOT / "tests" / "hybrid"
CONFIGS = sorted(p for p in launch.CONFIG_FOLDER.glob("*.py") if p.stem != "__init__")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def tones(**fields):
    config = load(launch.CONFIG_FOLDER / "tones.py")
    for path, value in fields.items():
        config.physics_optimizer[path] = value
    return config


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.syspath_prepend(str(TOYS))
    config = hybrid.default_config()
    config.physics.target, config.physics.kwargs = "toy_parts:ToyEar", {"bands": 4}
    config.learner.target = "toy_parts:ToyNet"
    config.data.target, config.data.num_workers = "toy_parts:ToySource", 0
    config.batch_size, config.num_steps = 8, 2
    config.log_every_steps, config.eval_every_steps = 1, 0
    return config


def printed(description, **console):
    console = Console(file=io.StringIO(), **({"width": 80} | console))
    describe.print_description(description, console)
    return console.file.getvalue()


def leaves(tree):
    found, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_parameter)
    return {".".join(key.key for key in path): leaf for path, leaf in found}


def command(*args):
    return subprocess.run(
        [sys.executable, "-m", "experiments.describe", *args],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(TOYS)])},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_parameter_of_every_config_is_described(path):
    config = load(path)
    description = describe.describe_config(config)  # without the data, which may not be here
    rows = {row["name"]: row for row in description["parameters"]}
    rate = config.data.kwargs.sample_rate_hz
    target = pkgutil.resolve_name(config.physics.target)
    model = target(sample_rate_hz=rate, **config.physics.kwargs.to_dict())
    params = model.init(jax.random.key(0))
    specs, values = leaves(model.specs()), leaves(model.physical(params))
    assert rows.keys() == specs.keys()
    for name, spec in specs.items():
        row, value = rows[name], values[name]
        assert (row["unit"], row["low"], row["high"]) == (spec.unit, spec.low, spec.high)
        assert (row["transform"], row["source"], row["doc"]) == (
            spec.transform,
            spec.source,
            spec.doc,
        )
        assert (row["count"], tuple(row["shape"])) == (value.size, value.shape)
        np.testing.assert_allclose(row["value"]["values"], value)
        assert row["trained"] == (config.physics_optimizer.start_step < config.num_steps)
        assert row["decided_by"] is None or not row["trained"]
    assert json.loads(json.dumps(description)) == description
    physics = description["physics"]
    audio = jnp.zeros((1, rate))
    features = jax.eval_shape(lambda params: model.apply(params, audio)[0], params)
    assert physics["features_of_1_s"] == list(features.shape)
    assert (physics["sample_rate_hz"], physics["hop_samples"]) == (rate, model.hop_samples)
    if target is not Carfac:
        return
    assert physics["channels"] == model.structure.n_channels
    low, high = physics["frequency_range_hz"]
    assert 30 < low < 40
    assert high == pytest.approx(0.425 * rate, rel=1e-4)


def test_the_table_has_a_line_for_each_and_cuts_nothing_off():
    description = describe.describe_config(tones())
    lines = printed(description).splitlines()
    for row in description["parameters"]:
        numbers, words = (line for line in lines if line.split()[:1] == [row["name"]])
        assert f"{row['low']:.4g} to {row['high']:.4g}" in numbers
        assert f" {row['unit']} " in numbers
        assert " yes " in numbers
        assert row["doc"] in words
        assert row["source"] in words
    text = "\n".join(lines)
    for expected in (
        "8000 Hz, a frame each 80 samples (10 ms), causal",
        "[100, 53] of 1 s, from 34 to 3400 Hz",
        "21 of 21 parameters, 82 of 82 numbers",
        "0.002, 0.008, 0.032, 0.128",
        "all 1 ",
        "53 (1x53)",
        "from step 60 of 200",
    ):
        assert expected in text
    narrow = Text.from_ansi(printed(description, width=70, force_terminal=True)).plain
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) == 70


def test_overrides_decide_and_are_named():
    overrides = (
        (r"car\.(?!ohc).*", None),
        (r"car\.ohc_health", 10.0),
        (r"[a]gc.*", 0.0),
        (".*", 1.0),
    )
    description = describe.describe_config(tones(overrides=overrides))
    for row in description["parameters"]:
        index = {"agc": 2, "ihc": 3, "car": int(row["name"] == "car.ohc_health")}
        pattern, multiplier = overrides[index[row["name"].split(".")[0]]]
        assert (row["decided_by"], row["multiplier"]) == (pattern, multiplier)
        assert row["trained"] == bool(multiplier)
    lines = {
        line.split()[0]: line
        for line in reversed(printed(description).splitlines())
        if line.strip()
    }
    assert "frozen (car\\.(?!ohc).*)" in lines["car.min_zeta"]
    assert "frozen ([a]gc.*)" in lines["agc.stage_gain"]
    assert "yes, x10 (car\\.ohc_health)" in lines["car.ohc_health"]
    assert " yes " in lines["ihc.tau_lpf_s"]
    with pytest.raises(ValueError, match=r"config.physics_optimizer.overrides: the pattern 'cra"):
        describe.describe_config(tones(overrides=(("cra.*", None), (".*", 1.0))))


def test_an_optimizer_that_never_begins_trains_nothing():
    for field in ({"start_step": 200}, {"learning_rate": 0.0}):
        description = describe.describe_config(tones(**field))
        assert not any(row["trained"] for row in description["parameters"])
        text = printed(description)
        assert "never begins" in text
        assert "0 of 21 parameters" in text


def test_markdown_is_one_table():
    overrides = ((r"car.*|ihc.*", None), (".*", 1.0))
    text = describe.markdown(describe.describe_config(tones(overrides=overrides)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 21
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_ones_own_module_and_a_run_of_it(toy, tmp_path):
    toy.physics_optimizer.overrides = ((".*gain", 1.0), (".*", None))
    description = describe.describe_config(toy)
    assert [row["trained"] for row in description["parameters"]] == [True, False]
    assert "start" not in description["parameters"][0]
    hybrid.fit(toy, tmp_path)
    description = describe.describe_run(str(tmp_path), trusted=("toy_parts",))
    gain, health = description["parameters"]
    np.testing.assert_allclose(gain["start"]["values"], 0.5, rtol=1e-6)
    assert np.all(np.abs(np.subtract(gain["value"]["values"], 0.5)) > 1e-5)
    assert health["start"] == health["value"]
    text = printed(description)
    assert "toy_parts:ToyEar, step 2" in text
    assert "start" in text
    assert description["physics"]["frequency_range_hz"] is None


def test_a_module_without_audio_or_parameters():
    class Synthesiser:
        sample_rate_hz, hop_samples, causal = 16000, 1, True

        def apply(self, params, inputs, state=None, lengths=None):
            return inputs["f0_hz"] * 2, state

    contract = describe.frame_contract(Synthesiser(), {})
    assert contract["features_of_1_s"] is None
    training = {"num_steps": 1, "begins": True, "name": "adam", "learning_rate": 1e-3}
    training |= {"schedule": "constant", "start_step": 0, "every": 1}
    text = printed(
        {"physics": {"target": "a:B"} | contract, "training": training, "parameters": []}
    )
    assert "does not take audio alone" in text
    assert "0 of 0 parameters" in text


def test_a_workdir_that_is_none(tmp_path):
    with pytest.raises(WorkdirError, match=str(tmp_path)):
        describe.describe_run(str(tmp_path), trusted=("toy_parts",))


def test_command():
    swapped = command(
        "--config=tones",
        "--format=json",
        "--config.physics.target=toy_parts:ToyEar",
        '--physics_kwargs={"bands": 6}',
    )
    assert swapped.returncode == 0, swapped.stderr
    description = json.loads(swapped.stdout)
    assert [row["name"] for row in description["parameters"]] == ["gain", "health"]
    assert description["parameters"][0]["count"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=tonse"], "one of " + ", ".join(path.stem for path in CONFIGS)),
        ([], "one of --config and --workdir, got neither"),
    ],
)
def test_command_refuses(arguments, message):
    result = command(*arguments)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
