"""The torture in short: killed and stopped, a run still ends with the bits it would have had."""

import pathlib
import random
import shutil
import sys

import pytest
from ml_collections import ConfigDict

import hybrid
from experiments import torture
from experiments.torture_compare import differences, tensorboard_events
from experiments.torture_faults import Outcome, Victim
from hybrid.workdir import read_config

ROOT = pathlib.Path(__file__).parents[2]
TOYS = ROOT / "tests" / "hybrid"
COMMAND = (
    "--config=tones",
    "--config.num_steps=60",
    "--config.batch_size=8",
    "--config.log_every_steps=5",
    "--config.eval_every_steps=20",
    "--config.checkpoint_every_steps=10",
    "--config.checkpoint_best_metric=loss",
    "--config.physics.target=toy_parts:ToyEar",
    "--config.physics_optimizer.start_step=10",
    "--config.physics_optimizer.every=2",
    "--config.learner.target=toy_parts:ToyNet",
    "--config.data.target=toy_parts:ToySource",
    # Slow enough that the kills come before the end.
    '--data_kwargs={"delay_s": 0.005}',
)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
def test_a_kill_and_ctrl_c_leave_no_trace_and_no_process(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{TOYS}")
    monkeypatch.syspath_prepend(str(TOYS))
    whole, tortured = tmp_path / "whole", tmp_path / "tortured"
    command = [sys.executable, "-m", "experiments.train", *COMMAND, f"--workdir={tortured}"]
    # Ctrl-C comes while the workers start.
    victim = Victim(command, tortured, random.Random(0), window_s=-1.5)
    for fault in ("kill_while_evaluating", "interrupt"):
        outcome = getattr(victim, fault)()
        assert outcome.expected, outcome
    config = ConfigDict(read_config(tortured))
    for workdir in (tortured, whole):
        hybrid.fit(config, workdir)
    assert differences(whole, tortured) == []
    # And it would have seen a difference.
    events = tensorboard_events(whole)
    assert [step for step, _ in events["validation/loss"]] == [20, 40, 60]
    assert len(events["cochleagram"]) == 3
    rows = (whole / "metrics.jsonl").read_text().splitlines(keepends=True)
    broken = tmp_path / "broken"
    shutil.copytree(whole, broken)
    for name, lines in (("twice", [*rows, rows[-1]]), ("missing", rows[1:])):
        (broken / "metrics.jsonl").write_text("".join(lines))
        assert differences(whole, broken), name


def test_the_report_counts_and_says_whether_the_bits_are_the_same():
    outcomes = [
        Outcome("SIGKILL", "at random", "killed while it trains", True),
        Outcome("SIGKILL", "at random", "killed while it saves", True),
        Outcome("SIGKILL", "at random", "killed while it trains", True),
        Outcome("full disk", "limit", "no error", False),
    ]
    text = torture.report(outcomes, 4, [], 100, 1.5)
    told = "| SIGKILL | at random | 3 | killed while it trains (2); killed while it saves (1) |"
    assert told in text
    assert "4 of 4 faults in a run of 100 steps, 1 of them with another outcome" in text
    assert "the same bits" in text
    assert "- checkpoint: x" in torture.report(outcomes, 4, ["checkpoint: x"], 100, 1.5)


def test_the_schedule_holds_every_fault_as_often_as_asked_for():
    faults = torture.schedule(5, 2, random.Random(0))
    assert sorted(faults) == sorted(["kill"] * 5 + 2 * list(torture.OTHERS))
    assert all(callable(getattr(Victim, name)) for name in faults)
