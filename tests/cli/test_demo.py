import copy
import csv

import pytest

from torch_geometric_crystal.benchmark import tasks
from torch_geometric_crystal.cli import demo


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """The official task with a fold of twelve crystals to train on and four to test on; small models."""
    official = tasks.load_task("matbench_phonons")
    fold = official.validation["fold_0"]

    def load(name, data_folder=None):
        task = copy.copy(official)
        task.results = type(official.results)({})
        small = type(fold)({"train": list(fold.train[:12]), "test": list(fold.test[:4])})
        task.validation = type(official.validation)({"fold_0": small})
        task.folds_keys, task.folds_nums, task.folds, task.folds_map = ["fold_0"], [0], [0], {0: "fold_0"}
        return task

    monkeypatch.setattr(tasks, "load_task", load)
    short = {"epochs": 1, "batch_size": 6, "averaging_epochs": 1}
    monkeypatch.setattr(demo, "RECIPES", {"crystalformer": short, "cgcnn": {"preset": "common"} | short})


def test_demo_shows_models_mean_predictor_leaderboard_and_how_short_it_was(run, tmp_path):
    result = run("demo", "--output", tmp_path / "demo", "--minutes", "1")
    assert result.code == 0, result.err
    for text in (
        "crystalformer, here",
        "cgcnn, here",
        "mean of the training part",
        "MegNet (kgcnn v2.1.0)",
        "CGCNN v2019",
    ):
        assert text in result.out
    assert "fold 0, 1 epoch, 0.0 min" in result.out
    assert "one fold after a short training says that things work" in result.out
    assert "Try next:" in result.out
    for model in ("crystalformer", "cgcnn"):
        assert (tmp_path / "demo" / model / "parity.png").exists()


def test_demo_predicts_cif_files_that_were_not_trained_on(run, tmp_path):
    run("demo", "--output", tmp_path / "demo", "--minutes", "1")
    with (tmp_path / "demo" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == demo.NUM_EXAMPLES
    assert all(row["prediction"] and float(row["truncation_bound"]) < 1e-2 and not row["error"] for row in rows)
    tested = list(tasks.load_task("").validation["fold_0"].test)
    assert [row["id"] for row in rows] == tested[: demo.NUM_EXAMPLES]


def test_demo_can_be_run_again_in_the_same_folder(run, tmp_path):
    for _ in range(2):
        assert run("demo", "--output", tmp_path / "demo", "--minutes", "0.01").code == 0


def test_one_fold_is_compared_with_the_leaderboard(run, tmp_path):
    flags = ["--epochs", "1", "--batch-size", "6", "--averaging-epochs", "0", "--device", "cpu"]
    result = run("benchmark", "matbench", "--model", "cgcnn", "--output", tmp_path / "fold", *flags)
    assert result.code == 0, result.err
    assert "cgcnn, here" in result.out
    assert "Dummy" in result.out
    result = run("benchmark", "matbench", "--model", "cgcnn", "--output", tmp_path / "fold", *flags)
    assert result.code == 2
    assert "holds a run already" in result.err


def test_fold_outside_the_task_is_named(run, tmp_path):
    result = run("benchmark", "matbench", "--fold", "9", "--output", tmp_path / "fold")
    assert result.code == 2
    assert "fold: expected 0 to 0, received 9" in result.err
