"""The newest, every n-th and the best checkpoint stay, all others go."""

import importlib
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest

import hybrid
from hybrid.bookkeeping import Bookkeeping
from hybrid.checkpoints import CheckpointError, Checkpoints
from hybrid.config import check_config
from hybrid.retention import to_keep
from hybrid.writers import read_rows

STEPS = st.sets(st.integers(0, 60), max_size=20)


@hypothesis.given(STEPS, st.integers(1, 5), st.integers(0, 7), STEPS)
def test_what_stays(steps, newest, every, protected):
    kept = to_keep(steps, newest=newest, every=every, protected=protected)
    assert kept <= steps
    for step in steps:
        last = len([later for later in steps if later > step]) < newest
        milestone = every > 0 and step > 0 and step % every == 0
        assert (step in kept) == (last or milestone or step in protected)


def test_the_best_is_the_first_of_equals_and_never_a_nan():
    book = Bookkeeping()
    values = [float("nan"), 0.5, 0.5, float("inf"), 0.4, 0.6]
    better = [book.rank(step, value, "loss", "min") for step, value in enumerate(values)]
    assert better == [False, True, False, False, True, False]
    assert book.best == {"step": 4, "value": 0.4, "metric": "loss", "mode": "min"}
    # Another question has another answer.
    assert book.rank(7, 0.1, "accuracy", "max")
    assert not book.rank(8, 0.1, "accuracy", "max")
    assert book.rank(9, 0.2, "accuracy", "max")


def test_a_book_of_a_later_release_is_refused_and_one_of_an_earlier_read():
    assert Bookkeeping.saved({"best_loss": 0.5}) == Bookkeeping(best_loss=0.5)
    with pytest.raises(CheckpointError, match="holds mood, omens too"):
        Bookkeeping.saved({"omens": 1, "mood": 2, "best_loss": 0.5})


def test_a_run_keeps_the_best_and_loads_it(toy_config, tmp_path):
    toy_config.num_steps, toy_config.eval_every_steps = 18, 3
    toy_config.checkpoint_every_steps, toy_config.keep_checkpoints = 4, 1
    toy_config.checkpoint_keep_every_steps = 8
    toy_config.checkpoint_best_metric = "loss"
    # It learns, and then is thrown off.
    toy_config.learner_optimizer.update({"name": "sgd", "schedule": "linear"})
    toy_config.learner_optimizer.update({"learning_rate": 30.0, "clip_norm": 0.0})
    hybrid.fit(toy_config, tmp_path)
    losses = {r["step"]: r["loss"] for r in read_rows(tmp_path) if r["split"] == "validation"}
    best = min(losses, key=losses.get)
    assert Checkpoints(tmp_path / "checkpoints").steps() == sorted({best, 8, 16, 18})
    trusted = ("toy_parts",)
    assert int(hybrid.load(tmp_path, "best", trusted=trusted).state.step) == best
    with pytest.raises(ValueError, match="got 'worst'"):
        hybrid.load(tmp_path, "worst", trusted=trusted)


def test_the_best_that_a_run_may_go_back_to_stays(toy_config, tmp_path, monkeypatch):
    toy_config.num_steps, toy_config.eval_every_steps = 8, 2
    toy_config.checkpoint_every_steps, toy_config.keep_checkpoints = 6, 1
    toy_config.checkpoint_best_metric = "loss"
    losses = iter([0.9, 0.5, 0.7, 0.1])
    loop = importlib.import_module("hybrid.fit")
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"loss": next(losses)})
    hybrid.fit(toy_config, tmp_path)
    # The one of step 6 was due, and knows of that of step 4.
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.steps() == [4, 6, 8]
    assert store.extras(6)["book"]["best"]["step"] == 4
    shutil.rmtree(store.directory / "step_000000004")
    shutil.rmtree(store.directory / "step_000000008")
    with pytest.raises(ValueError, match="of step 4, is gone"):
        hybrid.load(tmp_path, "best", trusted=("toy_parts",))


def test_settings_that_cannot_work_are_refused_before_the_start(toy_config, tmp_path):
    toy_config.checkpoint_best_metric = "acuracy"
    with pytest.raises(ValueError, match=r"got 'acuracy'; there are loss, accuracy"):
        hybrid.fit(toy_config, tmp_path)
    for changes, message in (
        ({"checkpoint_best_mode": "least"}, "'min' .* or 'max'"),
        ({"checkpoint_keep_every_steps": 15}, "multiple of checkpoint_every_steps"),
        ({"init_leaves": "("}, "must be a regular expression"),
    ):
        config = hybrid.default_config()
        config.checkpoint_every_steps = 10
        config.update(changes)
        with pytest.raises(ValueError, match=message):
            check_config(config)
