import math

import pytest
import torch

from torch_geometric_crystal.benchmark.metrics import mean_absolute_errors, regression_metrics, total_error

NAN = math.nan


def test_errors_of_known_values():
    metrics = regression_metrics(torch.tensor([[1.0], [2.0], [6.0]]), torch.tensor([[1.0], [4.0], [4.0]]), ["a"])["a"]
    assert metrics["mae"] == pytest.approx(4 / 3)
    assert metrics["rmse"] == pytest.approx(math.sqrt(8 / 3))
    assert metrics["r2"] == pytest.approx(1 - 8 / 6)
    assert metrics["count"] == 3


def test_missing_values_are_left_out_per_target():
    prediction = torch.tensor([[1.0, 5.0], [2.0, 9.0]])
    metrics = regression_metrics(prediction, torch.tensor([[2.0, NAN], [4.0, 8.0]]), ["a", "b"])
    assert (metrics["a"]["mae"], metrics["a"]["count"]) == (1.5, 2)
    assert (metrics["b"]["mae"], metrics["b"]["count"]) == (1.0, 1)
    assert math.isnan(metrics["b"]["r2"])


def test_target_without_values_has_no_errors():
    metrics = regression_metrics(torch.ones(2, 1), torch.full((2, 1), NAN), ["a"])["a"]
    assert metrics["count"] == 0
    assert math.isnan(metrics["mae"])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="prediction: expected"):
        regression_metrics(torch.ones(2, 1), torch.ones(2, 2), ["a", "b"])


def test_mean_absolute_errors_equal_the_full_metrics():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 30, 2, generator=generator)
    y[::3, 1] = NAN
    metrics = regression_metrics(x, y, ["a", "b"])
    assert mean_absolute_errors(x, y).tolist() == pytest.approx([metrics["a"]["mae"], metrics["b"]["mae"]])


@pytest.mark.parametrize(("loss", "expected"), [("l1", 1.0 + 2.0), ("mse", 1.0 + 4.0)])
def test_error_is_a_sum_in_standard_deviations_of_known_targets(loss, expected):
    prediction = torch.tensor([[1.0, 3.0], [10.0, 0.0]], requires_grad=True)
    value = total_error(prediction, torch.tensor([[3.0, NAN], [NAN, 1.0]]), torch.tensor([2.0, 0.5]), loss)
    assert value.item() == pytest.approx(expected)
    value.backward()
    assert prediction.grad[0, 1] == prediction.grad[1, 0] == 0
    assert bool(prediction.grad.isfinite().all())


def test_batch_without_known_targets_has_no_loss_and_no_gradient():
    prediction = torch.ones(2, 1, requires_grad=True)
    value = total_error(prediction, torch.full((2, 1), NAN), torch.ones(1), "l1")
    value.backward()
    assert value.item() == 0
    assert prediction.grad.abs().sum() == 0
