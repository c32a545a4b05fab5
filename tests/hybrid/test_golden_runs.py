"""What the first release wrote loads for ever after, and goes on; newer formats are refused."""

import json
import pathlib
import shutil

import pytest
from ml_collections import ConfigDict

import hybrid
from hybrid import manifest as manifests
from hybrid.bookkeeping import Bookkeeping
from hybrid.checkpoints import CheckpointError, Checkpoints
from hybrid.config import complete_config
from hybrid.parts import evaluation_loader
from hybrid.workdir import claim, read_config
from hybrid.writers import read_rows

GOLDEN = pathlib.Path(__file__).parents[1] / "golden_runs"
RUN = GOLDEN / "first_release"
RELEASES = ("first_release", "second_release", "third_release")
each_release = pytest.mark.parametrize("release", RELEASES)


@each_release
def test_every_leaf_comes_back_bit_for_bit(release):
    store = Checkpoints(GOLDEN / release / "checkpoints")
    step, leaves = store.read_leaves()
    store.close()
    # And the loop still knows what it remembered.
    extras = json.loads((store.directory / "step_000000004" / "extras.json").read_text())
    assert Bookkeeping(**extras["book"]).best["step"] == 4
    expected = json.loads((GOLDEN / f"{release}.json").read_text())
    assert step == 4
    assert {
        name: {**description, "bytes": "" if array is None else array.tobytes().hex()}
        for name, (array, description) in leaves.items()
    } == expected


@each_release
def test_the_run_loads_and_evaluates_as_it_did(release):
    run = hybrid.load(GOLDEN / release)
    logged = [row for row in run.metrics if row["split"] == "validation"][-1]
    assert (int(run.state.step), logged["step"]) == (4, 4)
    result = hybrid.evaluate(run.task, run.state, evaluation_loader(run, "validation"))
    assert result["loss"] == pytest.approx(logged["loss"], rel=1e-4)


@pytest.mark.slow  # compiles all of the run again; what it reads is read by the tests above
@each_release
def test_the_run_goes_on(tmp_path, release):
    workdir = tmp_path / "copy"
    shutil.copytree(GOLDEN / release, workdir)
    config = complete_config(ConfigDict(read_config(workdir)))
    config.num_steps = 5
    assert int(hybrid.fit(config, workdir).step) == 5
    assert [r["step"] for r in read_rows(workdir) if r["split"] == "validation"] == [2, 4, 5]


def test_a_config_of_a_release_that_had_fewer_fields_is_the_same_config(tmp_path):
    now = hybrid.default_config()
    before = now.to_dict()
    for field in ("init_from", "init_leaves", "checkpoint_best_metric", "nonfinite"):
        del before[field]
    del before["data"]["timeout_s"]
    (tmp_path / "config.json").write_text(json.dumps(before))
    with claim(tmp_path, now) as held:
        assert held.changes == ()


def test_what_a_newer_release_wrote_is_refused_with_the_way_out(tmp_path):
    shutil.copytree(RUN, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "step_000000004" / "manifest.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    content["format"] = manifests.FORMAT_VERSION + 1
    content["sha256"] = manifests._own_checksum(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"has format 4.*reads up to 3: install the release"):
        hybrid.load(tmp_path / "run")
    # Not taken for damage, so not passed over, and not removed.
    assert 4 in Checkpoints(tmp_path / "run" / "checkpoints").steps()
