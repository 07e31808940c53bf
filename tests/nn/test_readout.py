import numpy as np
import pytest
import torch

from torch_geometric_crystal.nn.readout import TargetNormalization, pool_atoms
from torch_geometric_crystal.testing import assert_close_relative

NAN = float("nan")


def test_before_a_fit_nothing_changes():
    normalization, x = TargetNormalization(2), torch.randn(5, 2)
    assert torch.equal(normalization(x), x)
    assert torch.equal(normalization.standardize(x), x)


def test_fit_takes_mean_and_deviation_of_the_values_that_are_there():
    y = torch.tensor([[1.0, NAN], [2.0, 10.0], [NAN, 20.0], [6.0, NAN]])
    normalization = TargetNormalization(2).fit(y)
    np.testing.assert_allclose(normalization.mean, [3.0, 15.0])
    np.testing.assert_allclose(normalization.std, [np.std([1, 2, 6]), 5.0], rtol=1e-6)


def test_standardized_targets_have_mean_0_and_deviation_1_and_come_back():
    y = 7.0 + 3.0 * torch.randn(200, 3)
    normalization = TargetNormalization(3).fit(y)
    standardized = normalization.standardize(y)
    assert standardized.mean(dim=0).abs().max() < 1e-5
    assert (standardized.std(dim=0, correction=0) - 1).abs().max() < 1e-5
    assert_close_relative(normalization(standardized), y, 1e-6)


def test_a_large_offset_does_not_spoil_the_deviation():
    y = 1e5 + torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    assert_close_relative(TargetNormalization().fit(y).std, torch.tensor([1.25]).sqrt(), 1e-6)


@pytest.mark.parametrize("y", [[[5.0]], [[5.0], [5.0]], [[0.1], [0.1], [0.1]], [[5.0], [NAN]], [[0.0], [0.0]]])
def test_a_target_that_does_not_vary_gets_deviation_1(y):
    normalization = TargetNormalization().fit(torch.tensor(y))
    assert normalization.std.tolist() == [1.0]
    assert normalization.standardize(torch.tensor(y))[0].abs().item() < 1e-6


def test_after_a_reset_nothing_changes():
    x = torch.tensor([[1.0, -2.0], [3.0, 5.0]])
    normalization = TargetNormalization(2).fit(x)
    assert not torch.equal(normalization(x), x)
    assert torch.equal(normalization.reset()(x), x)
    assert torch.equal(normalization.standardize(x), x)


def test_missing_targets_stay_missing():
    normalization = TargetNormalization(2).fit(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    assert normalization.standardize(torch.tensor([[NAN, 2.0]])).isnan().tolist() == [[True, False]]


def test_the_fit_is_stored_with_the_weights():
    fitted = TargetNormalization(2).fit(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    loaded = TargetNormalization(2)
    loaded.load_state_dict(fitted.state_dict())
    assert torch.equal(loaded.mean, fitted.mean)
    assert torch.equal(loaded.std, fitted.std)
    assert list(fitted.parameters()) == []


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[1.0, NAN], [2.0, NAN]], r"y: expected at least one value for each target, received 'none .*\[1\]'"),
        ([[1.0, float("inf")]], "y: expected finite values or NaN"),
        ([[1.0]], r"y: expected shape \(\*, 2\), received \(1, 1\)"),
    ],
)
def test_targets_that_cannot_be_fitted_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        TargetNormalization(2).fit(torch.tensor(y))


def test_no_targets_are_refused():
    with pytest.raises(ValueError, match="num_targets: expected a positive number, received 0"):
        TargetNormalization(0)


def test_repr():
    assert repr(TargetNormalization(3)) == "TargetNormalization(3)"


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_atoms_are_pooled_crystal_by_crystal(reduce):
    x, batch = torch.randn(9, 4, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 1, 1, 2, 3, 3])
    pool = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[reduce]
    expected = torch.stack([pool(x[batch == crystal], dim=0) for crystal in range(4)])
    assert_close_relative(pool_atoms(x, batch, 4, reduce), expected, 1e-14)
    assert_close_relative(pool_atoms(x, None, 1, reduce), pool(x, dim=0, keepdim=True), 1e-14)


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_pooling_can_be_differentiated_twice_and_an_empty_crystal_gives_zero(reduce):
    x, ptr = torch.randn(7, 2, dtype=torch.float64, requires_grad=True), torch.tensor([0, 2, 2, 7])
    batch = torch.arange(3).repeat_interleave(ptr.diff())
    assert torch.autograd.gradcheck(lambda x: pool_atoms(x, batch, 3, reduce, ptr), x)
    assert torch.autograd.gradgradcheck(lambda x: pool_atoms(x, batch, 3, reduce, ptr).square(), x)
    assert torch.equal(pool_atoms(x, batch, 3, reduce, ptr), pool_atoms(x, batch, 3, reduce))
    assert (pool_atoms(x, batch, 3, reduce)[1] == 0).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pooling_on_a_gpu_equals_that_on_the_cpu_and_is_repeatable():
    ptr = torch.tensor([0, 500, 500, 4000])
    batch = torch.arange(3).repeat_interleave(ptr.diff())
    x = torch.randn(4000, 16)
    for reduce in ("sum", "max"):
        first, second = (pool_atoms(x.cuda(), batch.cuda(), 3, reduce, ptr.cuda()) for _ in range(2))
        assert torch.equal(first, second)
        assert_close_relative(first.cpu(), pool_atoms(x, batch, 3, reduce, ptr), 1e-5)


def test_the_mean_of_many_atoms_keeps_single_precision():
    x = torch.rand(30_000, 2) + 1.0
    batch = torch.zeros(30_000, dtype=torch.long)
    assert_close_relative(pool_atoms(x, batch, 1).double(), x.double().mean(dim=0, keepdim=True), 1e-7)


def test_an_unknown_way_to_pool_is_refused():
    with pytest.raises(ValueError, match="reduce: expected one of 'mean', 'sum', 'max', received 'median'"):
        pool_atoms(torch.zeros(1, 1), None, 1, "median")
