import csv
import math

import pytest
import torch

from torch_geometric_crystal.benchmark.evaluation import evaluate, mean_predictor, write_evaluation


def test_errors_are_those_of_the_predictions(tiny, make_crystals):
    model, crystals = tiny(), make_crystals(9)
    metrics, predictions = evaluate(model, crystals, 4, device="cpu")
    expected = (predictions.prediction - predictions.target).abs().mean().item()
    assert metrics["targets"]["target0"]["mae"] == pytest.approx(expected)
    bound = pytest.approx(4e-6)
    assert metrics["truncation"] == {"max": bound, "median": bound, "tolerance": None, "above": None}


def test_crystals_above_the_graphs_tolerance_are_counted(tiny, make_crystals, monkeypatch):
    model, crystals = tiny(), make_crystals(6)
    crystals[2].edge_cutoff = crystals[2].edge_cutoff * 100
    transform = model.neighborhood()
    transform.tol, transform.cutoff = 1e-5, None
    monkeypatch.setattr(model, "neighborhood", lambda **options: transform)
    truncation = evaluate(model, crystals, device="cpu")[0]["truncation"]
    assert (truncation["tolerance"], truncation["above"]) == (1e-5, 1)


def test_units_stand_beside_the_errors(trained, parts):
    metrics, _ = evaluate(trained[1], parts.parts["test"], device="cpu")
    assert metrics["targets"]["energy"]["unit"] == "eV/atom"


def test_models_without_a_certificate_state_none(tiny, make_crystals, monkeypatch):
    model = tiny()
    monkeypatch.delattr(type(model), "truncation_report")
    assert "truncation" not in evaluate(model, make_crystals(3), device="cpu")[0]


def test_mean_predictor_predicts_the_training_mean():
    errors = mean_predictor(torch.tensor([[1.0], [3.0], [math.nan]]), torch.tensor([[2.0], [5.0]]), ["a"])
    assert errors["a"]["mae"] == pytest.approx(1.5)


def test_files_are_written(tiny, make_crystals, tmp_path):
    model = tiny(num_targets=2)
    _, predictions = evaluate(model, make_crystals(4, num_targets=2), device="cpu")
    write_evaluation(predictions, model.card, tmp_path, "title")
    with (tmp_path / "predictions.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == predictions.ids
    assert (tmp_path / "parity.png").exists()
