"""The head and the atoms' parts of its output."""

import pytest
import torch

from torch_geometric_crystal.nn.property_head import PropertyHead

BATCH = torch.tensor([0, 0, 0, 1, 2, 2])


def states():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_contributions_of_a_crystals_atoms_sum_to_its_output(pooling):
    head = PropertyHead(4, 16, 3, pooling).double()
    out, pooled = head(states(), BATCH, 3)
    parts = head.atom_contributions(states(), BATCH, 3)
    summed = torch.zeros(3, 3, dtype=torch.float64).index_add(0, BATCH, parts)
    torch.testing.assert_close(summed, out, rtol=1e-12, atol=1e-12)
    assert pooled.shape == (3, 16 if pooling == "max" else 4)


def test_contributions_are_the_integral_of_the_gradient_along_the_path():
    head = PropertyHead(4, 16, 1).double()
    x, steps = states(), 20_000
    parts = head.atom_contributions(x, BATCH, 3)
    pooled = head(x, BATCH, 3)[1]
    position = ((torch.arange(steps, dtype=torch.float64) + 0.5) / steps).view(-1, 1, 1)
    path = (position * pooled).requires_grad_()
    (gradient,) = torch.autograd.grad(head.out(head.hidden(path).relu()).sum(), path)
    count = torch.bincount(BATCH)[BATCH].unsqueeze(-1)
    integral = (gradient.mean(0)[BATCH] * x).sum(-1, keepdim=True) / count
    start = head.out(head.hidden.bias.relu()) / count
    torch.testing.assert_close(parts, integral + start, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_equal_atoms_get_equal_parts(pooling):
    head = PropertyHead(4, 16, 1, pooling).double()
    x = states()[:1].expand(3, 4)
    parts = head.atom_contributions(x, torch.zeros(3, dtype=torch.long), 1)
    torch.testing.assert_close(parts, parts[:1].expand(3, 1))


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling: expected one of 'mean', 'sum', 'max'"):
        PropertyHead(4, 16, 1, "median")


def test_max_pooling_takes_each_hidden_unit_where_it_is_largest():
    head = PropertyHead(4, 16, 2, "max").double()
    out, pooled = head(states(), BATCH, 3)
    hidden = head.hidden(states()).relu()
    expected = torch.stack([hidden[crystal == BATCH].amax(0) for crystal in range(3)])
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(out, head.out(expected))


def test_an_atom_without_the_largest_value_of_any_unit_gets_its_share_of_the_bias_alone():
    head = PropertyHead(2, 2, 1, "max").double()
    with torch.no_grad():
        head.hidden.weight.copy_(torch.eye(2))
        head.hidden.bias.zero_()
        head.out.weight.copy_(torch.tensor([[1.0, 10.0]]))
        head.out.bias.fill_(0.3)
    x = torch.tensor([[3.0, 1.0], [1.0, 2.0], [0.5, 0.5]], dtype=torch.float64)
    parts = head.atom_contributions(x, torch.zeros(3, dtype=torch.long), 1)
    torch.testing.assert_close(parts.flatten(), torch.tensor([3.1, 20.1, 0.1], dtype=torch.float64))
