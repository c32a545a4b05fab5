"""Any value in any field of a config, any damage to a checkpoint: an error that says what is wrong.

FUZZ_INPUTS=20000 in the environment tries more than the default, and prints how many.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from hybrid.build import build
from hybrid.checkpoints import CheckpointError, Checkpoints
from hybrid.config import check_config
from hybrid.optimizers import build_optimizer

INPUTS = int(os.environ.get("FUZZ_INPUTS", "0"))
OPTIONS = {
    "deadline": None,
    "derandomize": not INPUTS,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 3, 2**31, 2**32, 2**63, 10**30, 0.5, -0.0, 1e-300, 1e300]),
    st.integers(-100, 10**6),
    st.floats(allow_nan=True, allow_infinity=True),
)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "toy_parts:ToyEar",
            "toy_parts:nothing",
            "toy_parts:",
            ":ToyEar",
            "toy_parts.ToyEar",
            "subprocess:Popen",
            "physics.carfac:Carfac",
            "../../etc",
            "float64",
            "roll_back",
            "a" * 1000,
            "(",
            "\0",
        ]
    ),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=3),
    ),
    max_leaves=6,
)


def fields_of(tree, prefix=()):
    for name, value in tree.items():
        yield (*prefix, name)
        if isinstance(value, dict):
            yield from fields_of(value, (*prefix, name))


KWARGS = {
    "physics": ("bands", "hop_samples", "sample_rate_hz", "causal", "nonsense"),
    "learner": ("num_classes", "dropout", "name", "parent"),
    "task": ("label_smoothing", "physics", "learner"),
    "data": ("sample_rate_hz", "num_samples", "num_clips", "poisoned"),
}


def test_any_value_in_any_field(toy_config):
    tried, built = [0], [0]
    plain = toy_config.to_dict()
    fields = [*fields_of(plain)]
    fields += [(part, "kwargs", name) for part, names in KWARGS.items() for name in names]

    @settings(max_examples=INPUTS or 120, **OPTIONS)
    @given(field=st.sampled_from(fields), value=VALUES)
    def check(field, value):
        tried[0] += 1
        config = ConfigDict(plain).to_dict()
        node = config
        for name in field[:-1]:
            node = node[name]
        node[field[-1]] = value
        try:
            everything_but_compiling(ConfigDict(config))
            built[0] += 1
        except (ValueError, TypeError) as error:
            message = str(error)
            assert any(name in message for name in field), (field, value, message)

    check()
    print(f"configs tried: {tried[0]}, of which {built[0]} are a run")


def everything_but_compiling(config):
    check_config(config)
    build(config)
    shapes = {"ear": jax.ShapeDtypeStruct((3,), np.float32)}
    for branch in ("physics", "learner"):
        settings_of = config[f"{branch}_optimizer"]
        try:
            build_optimizer(settings_of, shapes, config.num_steps, anchor=branch == "physics")
        except ValueError as error:
            raise ValueError(f"config.{branch}_optimizer.{error}") from error


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "checkpoints"
    checkpoints = Checkpoints(folder)
    state = {"a": jnp.arange(300.0), "b": {"c": jnp.ones((2, 3)), "n": jnp.int32(7)}}
    checkpoints.save(5, state, {"position": {"epoch": 1}, "window": [0.1, 0.2]})
    yield checkpoints
    checkpoints.close()


def test_any_damage_to_a_checkpoint_is_noticed(saved):
    checkpoints = saved
    (folder,) = [path for path in checkpoints.directory.iterdir() if path.name.startswith("step")]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in files}
    tried = [0]

    @settings(max_examples=INPUTS or 150, **OPTIONS)
    @given(
        path=st.sampled_from(files),
        deed=st.sampled_from(["flip", "cut", "grow", "delete", "empty", "overwrite"]),
        place=st.floats(0, 1, exclude_max=True),
        bit=st.integers(0, 7),
        junk=st.binary(min_size=1, max_size=16),
    )
    def check(path, deed, place, bit, junk):
        tried[0] += 1
        before = contents[path]
        at = int(place * len(before))
        after = bytearray(before)
        if deed == "flip":
            after[at] ^= 1 << bit
        elif deed == "cut":
            del after[at:]
        elif deed == "grow":
            after += junk
        elif deed == "empty":
            after.clear()
        elif deed == "overwrite":
            after[at : at + len(junk)] = junk
        try:
            if deed == "delete":
                path.unlink()
            else:
                path.write_bytes(after)
            if deed == "delete" or bytes(after) != before:
                with pytest.raises(CheckpointError):
                    checkpoints.verify(5)
        finally:
            path.write_bytes(before)

    check()
    checkpoints.verify(5)
    print(f"damaged checkpoints tried: {tried[0]}, {len(files)} files")
