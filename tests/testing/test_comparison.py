import pytest
import torch

from torch_geometric_crystal.testing import assert_close_relative, relative_error

NAN, INF = float("nan"), float("inf")


def test_the_error_is_the_largest_difference_over_the_largest_value():
    expected = torch.tensor([[1.0, -4.0], [0.0, 2.0]])
    assert relative_error(expected + torch.tensor([[0.0, 0.5], [-1.0, 0.0]]), expected) == 0.25
    assert relative_error(torch.zeros(3), torch.zeros(3)) == 0.0
    assert relative_error(torch.ones(3), torch.zeros(3)) == INF


def test_an_error_at_the_tolerance_passes_and_one_above_fails():
    expected = torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert_close_relative(expected + 0.5, expected, rtol=0.25)
    with pytest.raises(AssertionError, match=r"energy: relative error 0.25 is above 0.24"):
        assert_close_relative(expected + 0.5, expected, rtol=0.24, name="energy")


def test_small_values_are_compared_in_double_precision():
    expected = torch.tensor([1.0, 1.0])
    actual = torch.tensor([1.0, 1.0 + 2e-7])
    with pytest.raises(AssertionError, match="relative error"):
        assert_close_relative(actual, expected, rtol=1e-7)


@pytest.mark.parametrize(
    ("actual", "expected", "message"),
    [
        ([1.0, NAN], [1.0, 2.0], "result: 1 of 2 values are NaN or infinite in the actual tensor"),
        ([1.0, 2.0], [NAN, NAN], "result: 2 of 2 values are NaN or infinite in the expected tensor"),
        ([NAN, 2.0], [NAN, 2.0], "in the actual tensor"),
        ([INF, 2.0], [INF, 2.0], "in the actual tensor"),
        ([1.0], [1.0, 1.0], r"result: expected shape \(2,\), received \(1,\)"),
        ([[1.0], [1.0]], [1.0, 1.0], r"expected shape \(2,\), received \(2, 1\)"),
        ([], [], "result: nothing to compare"),
        ([1e-30], [0.0], "relative error inf"),
        ([0.0], [1e-30], "relative error 1 "),
    ],
)
def test_there_is_no_way_to_pass_by_default(actual, expected, message):
    with pytest.raises(AssertionError, match=message):
        assert_close_relative(torch.tensor(actual), torch.tensor(expected), rtol=0.5)


def test_what_is_not_a_tensor_is_refused():
    with pytest.raises(TypeError, match=r"result, actual: expected a torch\.Tensor, received list"):
        assert_close_relative([1.0], torch.ones(1), rtol=0.5)
