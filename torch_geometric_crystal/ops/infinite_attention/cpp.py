"""The C++ backend for the CPU: float32, built by ``tgcrystal build``, first derivatives only."""

import torch
from torch import Tensor

from torch_geometric_crystal.ops.cpp import extension
from torch_geometric_crystal.ops.infinite_attention.blocked import project_basis
from torch_geometric_crystal.ops.infinite_attention.gradients import Gradients
from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.radial_basis import NO_BASIS, GaussianBasis
from torch_geometric_crystal.ops.strides import with_dense_rows


def forward_cpp(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    neighborhood: Neighborhood,
    r0: float,
    scale: float,
    value_encoding: Tensor | None,
    basis: GaussianBasis | None,
    recorded: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (N, H, d), log-sum-exp (N, H) and the mean basis u (N, H, K) of every row (K = 0 without encoding).

    For graphs that are `recorded` the operator is one that has a derivative of its own.

    Raises:
        ExtensionError: if the kernels are not built or cannot be loaded.
    """
    num_basis, spacing = basis or NO_BASIS
    kernels = extension.load()
    out, lse, mean_basis = (kernels.infinite_attention_node if recorded else kernels.infinite_attention)(
        with_dense_rows(query), with_dense_rows(key), with_dense_rows(value), rho.contiguous(), dist.contiguous(),
        neighborhood.kernel_indices(), r0, scale, num_basis, spacing,
    )  # fmt: skip
    if value_encoding is not None:
        out = out + project_basis(mean_basis, value_encoding)
    return out, lse, mean_basis


def backward_cpp(
    grad_out: Tensor,
    grad_lse: Tensor,
    grad_mean_basis: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    neighborhood: Neighborhood,
    r0: float,
    scale: float,
    value_encoding: Tensor | None,
    basis: GaussianBasis | None,
    out: Tensor,
    lse: Tensor,
    mean_basis: Tensor,
    need_dist: bool,
) -> Gradients:
    """Gradients with respect to every input, given those of the three outputs of :func:`forward_cpp`.

    `grad_mean_basis` may be None where it is zero, which saves reading it.

    Raises:
        ExtensionError: if the kernels are not built or cannot be loaded.
    """
    num_basis, spacing = basis or NO_BASIS
    encoding = None if value_encoding is None else value_encoding.permute(2, 0, 1).contiguous()  # (K, H, d)
    grad_query, grad_key, grad_value, grad_rho, grad_dist = extension.load().infinite_attention_backward(
        grad_out.contiguous(), grad_lse.contiguous(), None if grad_mean_basis is None else grad_mean_basis.contiguous(),
        with_dense_rows(query), with_dense_rows(key), with_dense_rows(value), rho.contiguous(), dist.contiguous(),
        neighborhood.kernel_indices(), r0, scale, encoding, num_basis, spacing,
        out.contiguous(), lse.contiguous(), mean_basis.contiguous(), need_dist,
    )  # fmt: skip
    grad_encoding = None
    if value_encoding is not None:
        grad_encoding = torch.bmm(grad_out.permute(1, 2, 0), mean_basis.transpose(0, 1))  # (H, d, K)
    return Gradients(grad_query, grad_key, grad_value, grad_rho, grad_dist if need_dist else None, grad_encoding)
