"""A regression is what it was before there were other tasks."""

import math

import pytest
import torch

from torch_geometric_crystal.benchmark.checkpoint import ModelCard
from torch_geometric_crystal.benchmark.objectives import make_objective
from torch_geometric_crystal.nn.readout import TargetNormalization

NAN = math.nan


@pytest.fixture
def objective():
    card = ModelCard(model="cgcnn", model_options={}, target_names=["a", "b"], units=["eV", ""])
    return make_objective(card)


def test_normalization_is_that_of_the_training_targets_or_none(objective):
    normalization, target = TargetNormalization(2), torch.tensor([[1.0, NAN], [3.0, 5.0]])
    objective.fit_normalization(normalization, target, standardize=True)
    assert normalization.mean.tolist() == [2.0, 5.0]
    objective.fit_normalization(normalization, target, standardize=False)
    assert normalization.mean.tolist() == [0.0, 0.0]


def test_epochs_are_compared_in_standard_deviations_over_known_values(objective):
    output, target = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0, NAN], [6.0, 5.0]])
    columns, error = objective.validate(output, target, torch.tensor([2.0, 10.0]))
    assert columns == {"val_mae_a": 2.0, "val_mae_b": 1.0}
    assert error == pytest.approx((2.0 / 2.0 + 1.0 / 10.0) / 2)


def test_cells_are_named_by_the_targets(objective):
    assert objective.target_cells([1.0, NAN]).keys() == {"target_a", "target_b"}
    assert objective.prediction_cells([1.0, 2.0]) == {"prediction_a": 1.0, "prediction_b": 2.0}
    assert objective.prediction_cells(()) == {"prediction_a": None, "prediction_b": None}


def test_metrics_have_their_units(objective):
    metrics = objective.metrics(torch.ones(2, 2), torch.zeros(2, 2))
    assert (metrics["a"]["unit"], metrics["a"]["mae"]) == ("eV", 1.0)
    assert objective.baseline(torch.ones(3, 2), torch.zeros(2, 2))["b"]["mae"] == 1.0
