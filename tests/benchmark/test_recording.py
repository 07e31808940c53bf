import csv
import json
import math

import pytest
import torch

from torch_geometric_crystal.benchmark.recording import (
    read_history,
    write_history,
    write_json,
    write_predictions,
    write_table,
)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_of_one_target(tmp_path):
    path = tmp_path / "p.csv"
    write_predictions(path, ["b", "a,1"], torch.tensor([[1.5], [math.nan]]), torch.tensor([[2.0], [3.0]]), ["gap"])
    assert path.read_text().splitlines()[0] == "id,target,prediction"
    assert rows(path) == [
        {"id": "b", "target": "1.5", "prediction": "2"},
        {"id": "a,1", "target": "", "prediction": "3"},
    ]


def test_predictions_of_several_targets(tmp_path):
    write_predictions(tmp_path / "p.csv", ["a"], torch.ones(1, 2), torch.zeros(1, 2), ["k", "g"])
    assert list(rows(tmp_path / "p.csv")[0]) == ["id", "target_k", "target_g", "prediction_k", "prediction_g"]


def test_predictions_must_fit_the_ids(tmp_path):
    with pytest.raises(ValueError, match="prediction: expected shape"):
        write_predictions(tmp_path / "p.csv", ["a"], torch.ones(1, 1), torch.ones(2, 1), ["k"])


def test_history_round_trip(tmp_path):
    history = [{"epoch": 1, "train_loss": 0.123456789, "val_mae_e": math.nan}]
    write_history(tmp_path / "h.csv", history)
    read = read_history(tmp_path / "h.csv")
    assert read[0]["train_loss"] == pytest.approx(0.123456789)
    assert math.isnan(read[0]["val_mae_e"])


def test_empty_table(tmp_path):
    write_table(tmp_path / "t.csv", [])
    assert (tmp_path / "t.csv").read_text() == ""


def test_json_has_null_for_what_is_not_finite(tmp_path):
    write_json(tmp_path / "m.json", {"a": [math.nan, 1.0], "b": {"c": math.inf}, "d": "1/cm"})
    assert json.loads((tmp_path / "m.json").read_text()) == {"a": [None, 1.0], "b": {"c": None}, "d": "1/cm"}
