"""What `experiments.evaluate` prints and saves, for a result that is given."""

import io
import json

from rich.console import Console

from experiments import evaluate

RESULT = {
    "split": "test",
    "step": 40,
    "class_names": ["one", "two", "three"],
    "loss": 0.51,
    "accuracy": 0.75,
    "num_examples": 8,
    "confusion": [[3, 1, 0], [0, 3, 0], [1, 0, 0]],
}


def test_class_rows():
    assert evaluate.class_rows(RESULT["confusion"], RESULT["class_names"]) == [
        ("one", "4", "75.0 %", "75.0 %", "two (1)"),
        ("two", "3", "100.0 %", "75.0 %", ""),
        ("three", "1", "0.0 %", "-", "one (1)"),
    ]


def test_table_and_files(tmp_path):
    console = Console(file=io.StringIO(), width=100)
    evaluate.print_result(RESULT, console)
    text = console.file.getvalue()
    for expected in ("test split, 8 clips, step 40", "75.0 %", "accuracy 75.00 %", "loss 0.51"):
        assert expected in text
    names = [path.name for path in evaluate.write_result(RESULT, tmp_path)]
    assert names == ["evaluate_test.json", "confusion_test.png"]
    assert json.loads((tmp_path / names[0]).read_text()) == RESULT
    assert (tmp_path / names[1]).stat().st_size > 5000


def test_a_task_without_classes(tmp_path):
    result = {"split": "test", "step": 3, "class_names": [], "loss": 0.5, "num_examples": 2}
    console = Console(file=io.StringIO(), width=100)
    evaluate.print_result(result, console)
    assert "loss 0.5" in console.file.getvalue()
    assert [path.name for path in evaluate.write_result(result, tmp_path)] == ["evaluate_test.json"]
