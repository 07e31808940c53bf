import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from torch_geometric_crystal.benchmark.tasks import fold, fold_crystals, load_task, read_records, run_fold
from torch_geometric_crystal.benchmark.tasks.record import read_record
from torch_geometric_crystal.datasets import OnDiskCrystals


def test_test_part_has_no_targets_and_is_disjoint(tiny_task, tiny_config):
    crystals = fold_crystals(tiny_task, 0, tiny_config())
    parts = crystals.parts
    assert [len(parts[name]) for name in ("train", "val", "test")] == [22, 2, 6]
    assert all(crystal.get("y") is None for crystal in parts["test"])
    names = [crystal.structure_id for part in parts.values() for crystal in part]
    assert len(set(names)) == 30
    assert (crystals.target_names, crystals.units) == (("last phdos peak",), ("1/cm",))
    one = parts["train"][0]
    assert one.y.item() == pytest.approx(tiny_task.values[tiny_task.ids.index(one.structure_id)])


def test_graphs_are_made_once_for_all_folds(tiny_task, tiny_config, monkeypatch):
    from torch_geometric_crystal.datasets import crystal_dataset

    fold_crystals(tiny_task, 0, tiny_config())
    monkeypatch.setattr(crystal_dataset, "process", None)
    fold_crystals(tiny_task, 1, tiny_config())


def test_a_large_task_is_read_from_the_disk(tiny_task, tiny_config, monkeypatch):
    expected = fold_crystals(tiny_task, 0, tiny_config())
    monkeypatch.setattr(fold, "ON_DISK_FROM", 30)
    crystals = fold_crystals(tiny_task, 0, tiny_config())
    assert all(isinstance(part, OnDiskCrystals) for part in crystals.parts.values())
    assert all(crystal.get("y") is None for crystal in crystals.parts["test"])
    for part, kept in expected.parts.items():
        for first, second in zip(crystals.parts[part], kept, strict=True):
            assert first.to_dict().keys() == second.to_dict().keys()
            assert all(torch.equal(first[k], v) for k, v in second.to_dict().items() if isinstance(v, torch.Tensor))
            assert first.structure_id == second.structure_id


@pytest.mark.parametrize("model", ["cgcnn", "crystalformer"])
def test_a_fold_on_the_disk_has_the_result_of_one_in_memory(model, tiny_task, tiny_config, tmp_path, monkeypatch):
    options = {"channels": 8} | ({"num_blocks": 1, "num_heads": 2, "num_basis": 8} if model == "crystalformer" else {})
    config = dataclasses.replace(tiny_config(), model=model, model_options=options)
    first = run_fold(tiny_task, 1, config, tmp_path / "memory").record
    monkeypatch.setattr(fold, "ON_DISK_FROM", 30)
    second = run_fold(tiny_task, 1, config, tmp_path / "disk").record
    assert second.predictions == first.predictions
    assert second.scores == first.scores


def test_fold_is_trained_predicted_recorded_and_scored(tiny_task, tiny_config, tmp_path):
    result = run_fold(tiny_task, 0, tiny_config(), tmp_path / "fold")
    record = result.record
    test = list(tiny_task.fold(0).test)
    assert list(record.predictions) == [tiny_task.ids[k] for k in test]
    errors = np.abs(np.array(list(record.predictions.values())) - tiny_task.values[test])
    assert record.score == record.scores["mae"] == pytest.approx(errors.mean())
    assert record.scores.keys() == {"mae", "rmse", "mape", "max_error"}
    metrics = json.loads((tmp_path / "fold/metrics.json").read_text())
    assert metrics["test"]["averaged"]["targets"]["last phdos peak"]["mae"] == pytest.approx(record.score, rel=1e-5)
    assert metrics["crystals"] == {"train": 22, "val": 2, "test": 6}
    assert record.parameters["epochs"] == 2
    assert record.parameters["validation"] == "0.1 of the training part, drawn by numpy default_rng(0)"
    assert read_record(tmp_path / "fold") == record
    with (tmp_path / "fold/predictions.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == list(record.predictions)


@pytest.mark.parametrize("on_disk_from", [30, 31])
def test_without_validation_the_last_epochs_predict(tiny_task, tiny_config, tmp_path, monkeypatch, on_disk_from):
    monkeypatch.setattr(fold, "ON_DISK_FROM", on_disk_from)
    recipe = dataclasses.replace(tiny_config().recipe, averaging_epochs=0)
    result = run_fold(tiny_task, 0, tiny_config(val_fraction=0.0, recipe=recipe), tmp_path)
    assert result.run.metrics["crystals"] == {"train": 24, "val": 0, "test": 6}
    assert (result.record.parameters["weights"], result.run.metrics["validation"]) == ("last", {})
    assert result.record.parameters["settings"]["val_fraction"] == 0.0
    assert result.record.parameters["validation"].startswith("none: all of the training part")
    files = {path.name for path in tmp_path.iterdir()}
    assert "best.ckpt" not in files
    assert {"last.ckpt", "learning_curve.png", "parity.png", "predictions.csv"} <= files
    averaged = run_fold(tiny_task, 0, tiny_config(val_fraction=0.0), tmp_path / "averaged")
    assert averaged.record.parameters["weights"] == "averaged"


def test_without_validation_there_is_no_early_stop(tiny_task, tiny_config, tmp_path):
    recipe = dataclasses.replace(tiny_config().recipe, patience=1)
    with pytest.raises(ValueError, match="patience: expected 0 where no crystals validate, received 1"):
        run_fold(tiny_task, 0, tiny_config(val_fraction=0.0, recipe=recipe), tmp_path)


def test_scores_are_those_that_matbench_records(tiny_task, tiny_config, tmp_path, monkeypatch):
    from matbench.task import MatbenchTask

    recorded = []
    original = MatbenchTask.record

    def record(self, number, predictions, **settings):
        original(self, number, predictions, **settings)
        recorded.append((number, predictions, self.results[f"fold_{number}"].scores.mae))

    monkeypatch.setattr(MatbenchTask, "record", record)
    result = run_fold(tiny_task, 2, tiny_config("mean"), tmp_path)
    assert recorded == [(2, list(result.record.predictions.values()), result.record.score)]


def test_a_prediction_that_is_no_number_is_not_recorded(tiny_task, tiny_config, tmp_path):
    with pytest.raises(ArithmeticError, match=r"cgcnn predicts no number for 1 crystals, the first mb-phonons-"):
        fold.record_of(tiny_task, 0, tiny_config(), np.array([1.0, np.nan, 1, 1, 1, 1]), {})


def test_a_damaged_record_is_named(tmp_path):
    folder = tmp_path / "cgcnn/task/fold_0"
    folder.mkdir(parents=True)
    (folder / "fold.json").write_text("{")
    with pytest.raises(ValueError, match=r"fold.json is damaged .*remove it"):
        read_records(tmp_path)


@pytest.fixture
def metals(pretend_official, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pretend_official(tmp_path, "matbench_mp_is_metal", column="is_metal", values=[k % 3 == 0 for k in range(30)])
    return load_task("matbench_mp_is_metal", tmp_path)


def test_a_classification_is_recorded_with_probabilities(metals, tiny_config, tmp_path):
    assert (metals.kind, metals.metric, metals.values[:4].tolist()) == ("classification", "rocauc", [1, 0, 0, 1])
    record = run_fold(metals, 0, tiny_config("composition"), tmp_path / "fold").record
    values = np.array(list(record.predictions.values()))
    assert ((values > 0) & (values < 1)).all()
    assert record.scores.keys() == {"accuracy", "balanced_accuracy", "f1", "rocauc", "rocauc_probabilities"}


def test_matbench_scores_labels_so_the_area_of_the_probabilities_stands_beside_it():
    from sklearn.metrics import roc_auc_score

    from torch_geometric_crystal.benchmark.tasks.matbench_package import score_predictions

    truth = np.array([1.0, 0.0, 1.0, 0.0])
    probabilities = np.array([0.4, 0.3, 0.9, 0.2])
    scores = score_predictions("classification", truth, probabilities)
    assert scores["rocauc_probabilities"] == roc_auc_score(truth, probabilities) == 1.0
    assert scores["rocauc"] == scores["balanced_accuracy"] == 0.75


def test_a_model_is_recorded_with_the_probability_of_being_true(metals, tiny_config, tmp_path):
    record = run_fold(metals, 0, tiny_config(), tmp_path / "fold").record
    with (tmp_path / "fold/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(record.predictions)
    stated = [float(row["probability_True"]) for row in rows]
    assert stated == pytest.approx(list(record.predictions.values()), rel=1e-6)
