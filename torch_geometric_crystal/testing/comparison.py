"""Strict comparison of numbers."""

import torch
from torch import Tensor


def relative_error(actual: Tensor, expected: Tensor) -> float:
    r"""Return :math:`\max |a - b| / \max |b|`, in float64; 0 where both are 0 everywhere."""
    difference = (actual.detach().double() - expected.detach().double()).abs().max().item()
    scale = expected.detach().double().abs().max().item()
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0.0 else float("inf")


def assert_close_relative(actual: Tensor, expected: Tensor, rtol: float, name: str = "result") -> None:
    r"""Fail unless :math:`\max |a - b| \leq rtol \cdot \max |b|`.

    There is no absolute tolerance, and no way to pass by default: another shape, an empty tensor, and a NaN or infinite
    value on either side all fail.

    Args:
        actual: what came out, any shape.
        expected: what should have, the same shape.
        rtol: largest relative error.
        name: what is compared, for the message.

    Raises:
        AssertionError: if the comparison fails.
        TypeError: if one of the two is not a tensor.
    """
    for side, tensor in (("actual", actual), ("expected", expected)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}, {side}: expected a torch.Tensor, received {type(tensor).__name__}")
    if actual.shape != expected.shape:
        raise AssertionError(f"{name}: expected shape {tuple(expected.shape)}, received {tuple(actual.shape)}")
    if actual.numel() == 0:
        raise AssertionError(f"{name}: nothing to compare, the shape is {tuple(actual.shape)}")
    for side, tensor in (("actual", actual), ("expected", expected)):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise AssertionError(f"{name}: {bad} of {tensor.numel()} values are NaN or infinite in the {side} tensor")
    error = relative_error(actual, expected.to(actual.device))
    if not error <= rtol:
        raise AssertionError(f"{name}: relative error {error:.3g} is above {rtol:.3g}")
