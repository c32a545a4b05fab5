"""Somebody else's work directory runs none of its code, and no target is called unchecked."""

import contextlib
import importlib
import json
import pathlib
import pkgutil
import sys
import types

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

import hybrid
from data import Iterables
from hybrid import targets
from hybrid.build import BuildError, build
from hybrid.config import default_config
from hybrid.losses import build_losses
from hybrid.nonfinite import replay
from hybrid.targets import OWN_PACKAGES, check_targets, import_paths, packages, resolve
from learners import NnxLearner
from physics.compose import Compose
from physics.sai import Sai

EVIL = """
import pathlib
pathlib.Path(__file__).with_name("imported").touch()

class Ear:
    def __init__(self, **kwargs):
        pathlib.Path(__file__).with_name("built").touch()

    init = apply = specs = physical = num_frames = init_state = loss = project_physics = None
    dataset = initial = __call__ = init

def make(**kwargs) -> Ear:
    return Ear()

TEXT = "text"
"""
TARGET = "evil_parts:Ear"
PLACES = {
    "physics": {"physics.target": TARGET},
    "learner": {"learner.target": TARGET},
    "task": {"task.target": TARGET},
    "data": {"data.target": TARGET},
    "a front end inside": {
        "physics.target": "physics.compose:Compose",
        "physics.kwargs": {"front": {"target": TARGET}},
    },
    "a stage inside": {
        "physics.target": "physics.compose:Compose",
        "physics.kwargs": {"stages": [{"target": TARGET}]},
    },
    "a cochlea inside an inside": {
        "physics.target": "physics.pitchogram:Pitchogram",
        "physics.kwargs": {"sai": {"cochlea": {"target": TARGET}}},
    },
    "an nnx network": {
        "learner.target": "learners:NnxLearner",
        "learner.kwargs": {"target": TARGET},
    },
    "a function of batches": {
        "data.target": "data:Iterables",
        "data.kwargs": {"target": "evil_parts:make"},
    },
    "a loss": {"task.kwargs": {"losses": {"one": {"target": TARGET}}}},
    "a loss of a name": {"task.kwargs": {"losses": [{"deep": {"target": [TARGET]}}]}},
    "a path under another name": {"task.kwargs": {"metric": "evil_parts:make"}},
}
# What `pkgutil.resolve_name` takes for a path too.
NEARLY = (
    "evil_parts:Ear\n",
    " evil_parts:Ear",
    "evil_parts:",
    "evil_parts:Ear ",
    "evil_parts:E\u00e4r",
    "evil_parts\n:Ear",
    "\u00e9vil_parts:Ear",
    "evil_parts:Ear:",
)
NEVER = {
    "subprocess:Popen": {"args": ["touch", "made"]},
    "os:system": {"command": "touch made"},
    "pathlib:Path.touch": {"self": "made"},
    "builtins:open": {"file": "made", "mode": "w"},
    "shutil:rmtree": {"path": "."},
    "experiments.benchmark:subprocess.Popen": {"args": ["touch", "made"]},
    "hybrid.workdir:write_atomic": {"path": "made", "data": "text"},
    "hybrid.workdir:Path": {},
    "importlib:import_module": {"name": "antigravity"},
}


def config_of(changes):
    config = default_config().to_dict()
    for field, value in changes.items():
        part, name = field.split(".")
        config[part][name] = value
    return ConfigDict(config)


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A package that would leave its mark; its folder is where this process works."""
    (tmp_path / "evil_parts.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("evil_parts", None)


@pytest.mark.parametrize("place", PLACES)
def test_a_run_that_was_sent_runs_none_of_its_code(evil, place):
    config = config_of(PLACES[place])
    (evil / "config.json").write_text(config.to_json())
    with pytest.raises(BuildError, match=r"evil_parts:\w+'.*--trust=evil_parts"):
        hybrid.load(evil)
    assert not (evil / "imported").exists()
    assert packages(config)[1] == "evil_parts" or "evil_parts" in packages(config)


@pytest.mark.parametrize("nearly", NEARLY)
@pytest.mark.parametrize("place", [p for p in PLACES if p != "a path under another name"])
def test_nor_by_a_path_that_is_nearly_one(evil, place, nearly):
    text = json.dumps(PLACES[place])
    for path in (TARGET, "evil_parts:make"):
        text = text.replace(json.dumps(path), json.dumps(nearly))
    config = config_of(json.loads(text))
    (evil / "config.json").write_text(config.to_json())
    for open_it in (lambda: hybrid.load(evil), lambda: check_targets(config, ("other",))):
        with pytest.raises(BuildError, match="must be an import path"):
            open_it()
    assert not (evil / "imported").exists()


PIECES = st.sampled_from(
    ["evil_parts", "numpy", "data", "json", "Ear", "load", "\u00e9", ":", ".", "\n", " ", "-", "\0"]
)


@pytest.mark.parametrize("place", ["a front end inside", "an nnx network", "a function of batches"])
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(path=st.lists(PIECES, max_size=5).map("".join) | st.text(max_size=12))
def test_whatever_stands_in_a_nested_target_imports_nothing_of_others(
    tmp_path_factory, place, path
):
    text = json.dumps(PLACES[place])
    for known in (TARGET, "evil_parts:make"):
        text = text.replace(json.dumps(known), json.dumps(path))
    changes = json.loads(text)
    for part in changes.values():
        if isinstance(part, dict) and "sample_rate_hz" not in part and place.startswith("a func"):
            part |= {"class_names": ["a", "b"], "sample_rate_hz": 16000, "num_samples": 160}
    workdir = tmp_path_factory.mktemp("sent")
    (workdir / "config.json").write_text(config_of(changes).to_json())
    asked, really = [], importlib.import_module

    def watched(name):
        if name.partition(".")[0] in OWN_PACKAGES:
            return really(name)
        asked.append(name)
        raise ImportError(name)

    with pytest.MonkeyPatch.context() as patch:
        for module in (pkgutil, targets):
            patch.setattr(module, "importlib", types.SimpleNamespace(import_module=watched))
        with pytest.raises(ValueError):  # noqa: PT011  # each has words of its own
            hybrid.load(workdir)
        assert not asked
        # Nor does what builds the parts look at anything that the check above does not see.
        seen = import_paths(config_of(changes))
        # ImportError is what `watched` answers, where nobody has other words for it.
        with contextlib.suppress(ValueError, AttributeError, ImportError):
            if place == "a front end inside":
                Compose(front={"target": path})
            elif place == "an nnx network":
                NnxLearner(path).init({}, jnp.ones((1, 2, 3)), train=False)
            else:
                Iterables(target=path, class_names=("a",), sample_rate_hz=8, num_samples=8)
    assert not asked or path in seen.values()


def test_the_caller_may_trust_it(evil):
    config = config_of({"physics.target": TARGET})
    check_targets(config, trusted=("evil_parts",))
    assert (evil / "imported").exists()
    assert not (evil / "built").exists()


def test_what_a_trusted_package_has_only_imported_is_not_its_own(evil):
    (evil / "my_ears.py").write_text("from evil_parts import Ear\n")
    with pytest.raises(BuildError, match="code of 'evil_parts'"):
        check_targets(config_of({"physics.target": "my_ears:Ear"}), trusted=("my_ears",))


def test_a_replay_trusts_as_little(evil):
    config = config_of({"learner.target": TARGET})
    (evil / "config.json").write_text(config.to_json())
    report = {"format": 1, "step": 1, "update_physics": True, "update_learner": True, "text": ""}
    report |= {"faults": {"loss": "nan", "loss_finite": False}, "clips": []}
    report["faults"] |= {"gradients": {}, "updates": {}, "collections": []}
    report["place"] = dict.fromkeys(("part", "direction", "stage", "value"), "")
    report["place"] |= {"index": {}, "rows": []}
    (evil / "report.json").write_text(json.dumps(report))
    with pytest.raises(BuildError, match="--trust=evil_parts"):
        replay(evil)
    assert not (evil / "imported").exists()


@pytest.mark.parametrize("path", NEVER)
@pytest.mark.parametrize("part", ["physics", "learner", "task", "data"])
def test_what_satisfies_no_protocol_is_never_called(tmp_path, monkeypatch, part, path):
    monkeypatch.chdir(tmp_path)
    config = config_of({f"{part}.target": path, f"{part}.kwargs": NEVER[path]})
    for trusted in (None, ("subprocess", "os", "pathlib", "builtins", "shutil", "importlib")):
        with pytest.raises(BuildError, match=rf"config\.{part}"):
            build(config, trusted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [*NEVER, *NEARLY, "evil_parts:TEXT", "evil_parts.Ear", 5, None])
def test_nor_where_it_is_nested(evil, path):
    before = set(evil.iterdir())
    for build_it in (
        lambda: Compose(front={"target": path} | NEVER.get(path, {})),
        lambda: Compose(front={"target": "physics.spectra:Mel"}, stages=[{"target": path}]),
        lambda: Sai(cochlea={"target": path}),
        lambda: build_losses({"one": {"target": path, "kwargs": NEVER.get(path, {})}}, 8000),
        lambda: build(
            config_of(
                {
                    "data.target": "data:Iterables",
                    "data.kwargs": {
                        "target": path,
                        "kwargs": NEVER.get(path, {}),
                        "class_names": ("a", "b"),
                        "sample_rate_hz": 8000,
                        "num_samples": 8,
                    },
                }
            )
        ),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  # each has words of its own
            build_it()
    assert path not in NEARLY or not (evil / "imported").exists()
    if isinstance(path, str):
        with pytest.raises((ValueError, ImportError)):
            NnxLearner(path).init({}, jnp.ones((1, 2, 3)), train=False)
    assert path not in NEARLY or not (evil / "imported").exists()
    assert {p for p in evil.iterdir() if p.name not in ("__pycache__", "imported")} == before


def test_a_function_says_what_it_makes(evil):
    assert resolve("evil_parts:make", "config.physics.target")() is not None
    config = config_of({"physics.target": "evil_parts:make"})
    with pytest.raises(BuildError, match=r"lacks sample_rate_hz|config\.physics"):
        build(config)


def test_paths_are_found_wherever_they_stand():
    config = config_of(
        {
            "data.root": "c:folder",
            "task.kwargs": {"a": [{"b": ("x.y:Z", "no path: text", "http://a.b:80/c")}]},
        }
    )
    named = import_paths(config)
    assert named["config.task.kwargs.a[0].b[0]"] == "x.y:Z"
    assert len(named) == 5
    assert pathlib.Path("x").name not in named


def test_opening_a_run_fetches_nothing(tmp_path, monkeypatch):
    config = config_of({"data.target": "data:SpeechCommands"})
    config.data.root = str(tmp_path)
    config.data.kwargs = {"download": True}
    (tmp_path / "config.json").write_text(config.to_json())
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(BuildError, match="exists but lacks that folder"):
        hybrid.load(tmp_path)
