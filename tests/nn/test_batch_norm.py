import pytest
import torch
from torch import nn

from torch_geometric_crystal.nn.batch_norm import BatchNorm


@pytest.fixture
def norm():
    norm = BatchNorm(3).double()
    for values in (norm.weight.data, norm.bias.data, norm.running_mean):
        values.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return norm


@pytest.mark.parametrize("training", [True, False])
def test_several_rows_are_normalised_as_torch_does(norm, training):
    usual = nn.BatchNorm1d(3).double()
    usual.load_state_dict(norm.state_dict())
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(norm.train(training)(x), usual.train(training)(x))
    assert all(torch.equal(value, usual.state_dict()[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_take_the_running_statistics_and_leave_them(norm, rows):
    x = torch.randn(rows, 3, dtype=torch.float64)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    out = norm.train()(x)
    assert out.shape == (rows, 3)
    assert torch.equal(out, norm.eval()(x))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_one_row_has_gradients(norm):
    norm.train()(torch.randn(1, 3, dtype=torch.float64)).sum().backward()
    assert norm.weight.grad.abs().min() > 0
    assert torch.equal(norm.bias.grad, torch.ones(3, dtype=torch.float64))
