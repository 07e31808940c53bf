import pytest
import torch
from torch import nn

from torch_geometric_crystal.nn.batch_norm import BatchNorm, _WeightedNorm


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


@pytest.mark.parametrize("training", [True, False])
def test_a_row_can_stand_for_several(norm, training):
    """As if each row were there as often: outputs, gradients and running statistics."""
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    count = torch.tensor([1, 4, 2, 1, 7])
    factor = torch.randn(5, 3, dtype=torch.float64)
    start = {name: value.clone() for name, value in norm.state_dict().items()}
    out = norm.train(training)(x, count)
    (out * factor * count.unsqueeze(-1)).sum().backward()
    found = [out, x.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()]
    found = [value.clone() for value in found]
    norm.load_state_dict(start)
    norm.zero_grad()
    every = torch.arange(5).repeat_interleave(count)
    again = x.detach().clone().requires_grad_()
    repeated = norm(again[every])
    (repeated * factor[every]).sum().backward()
    first = count.cumsum(0) - count
    expected = [repeated[first], again.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()]
    for value, right in zip(found, expected, strict=True):
        torch.testing.assert_close(value, right, rtol=1e-11, atol=1e-11)


def test_gradients_of_rows_that_stand_for_several_are_those_of_differences(norm):
    count = torch.tensor([3, 1, 2, 5])
    weight, bias = norm.weight.detach().requires_grad_(), norm.bias.detach().requires_grad_()

    def normalized(x, weight, bias):
        return _WeightedNorm.apply(x, count, weight, bias, norm.eps)[0]

    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalized, (x, weight, bias))


def test_one_row_that_stands_for_one_takes_the_running_statistics(norm):
    x = torch.randn(1, 3, dtype=torch.float64)
    before = norm.running_mean.clone()
    assert torch.equal(norm.train()(x, torch.tensor([1])), norm(x))
    assert torch.equal(norm.running_mean, before)
    norm(x, torch.tensor([2]))
    assert not torch.equal(norm.running_mean, before)
