"""How kernels that take a stride of rows want their (N, H, d) inputs in memory."""

from torch import Tensor


def with_dense_rows(tensor: Tensor) -> Tensor:
    """The tensor itself where each (H, d) row is contiguous, whatever the stride of rows (fused q, k, v), or a copy."""
    row_is_dense = tensor.stride(2) == 1 and tensor.stride(1) == tensor.size(2)
    return tensor if row_is_dense else tensor.contiguous()
