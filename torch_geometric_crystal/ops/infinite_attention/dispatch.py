"""From the name of a backend to its forward and backward pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_geometric_crystal.ops.infinite_attention.blocked import backward_blocked, forward_blocked
from torch_geometric_crystal.ops.infinite_attention.gradients import Gradients
from torch_geometric_crystal.ops.infinite_attention.row_blocks import RowBlock, row_blocks, unflatten_blocks
from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.precision import outside_autocast
from torch_geometric_crystal.ops.radial_basis import GaussianBasis


@outside_autocast
def forward(
    backend: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    neighborhood: Neighborhood,
    blocks: Sequence[Tensor],
    r0: float,
    scale: float,
    value_encoding: Tensor | None,
    basis: GaussianBasis | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (N, H, d), log-sum-exp (N, H) and mean basis (N, H, K) by one backend."""
    if backend == "triton":
        from torch_geometric_crystal.ops.infinite_attention.triton_forward import forward_triton

        return forward_triton(query, key, value, rho, dist, neighborhood, r0, scale, value_encoding, basis)
    if backend == "cpp":
        from torch_geometric_crystal.ops.infinite_attention.cpp import forward_cpp

        return forward_cpp(query, key, value, rho, dist, neighborhood, r0, scale, value_encoding, basis)
    out, lse, mean_basis = forward_blocked(
        query.to(rho.dtype), key.to(rho.dtype), value.to(rho.dtype), rho, dist, _blocks(neighborhood, blocks),
        r0, scale, value_encoding, basis,
    )  # fmt: skip
    return out.to(value.dtype), lse, mean_basis


@outside_autocast
def backward(
    backend: str,
    grad_out: Tensor,
    grad_lse: Tensor,
    grad_mean_basis: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    neighborhood: Neighborhood,
    blocks: Sequence[Tensor],
    r0: float,
    scale: float,
    value_encoding: Tensor | None,
    basis: GaussianBasis | None,
    out: Tensor,
    lse: Tensor,
    mean_basis: Tensor,
    need_dist: bool,
) -> Gradients:
    """Gradients of the inputs by one backend; no gradient of the mean basis stands for zeros.

    Autograd can run through the backend ``"blocked"``.
    """
    if backend == "cpp":
        from torch_geometric_crystal.ops.infinite_attention.cpp import backward_cpp

        return backward_cpp(
            grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, neighborhood, r0, scale,
            value_encoding, basis, out, lse, mean_basis, need_dist,
        )  # fmt: skip
    grad_mean_basis = torch.zeros_like(mean_basis) if grad_mean_basis is None else grad_mean_basis
    if backend == "triton":
        from torch_geometric_crystal.ops.infinite_attention.triton_backward import backward_triton

        return backward_triton(
            grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, neighborhood, r0, scale,
            value_encoding, basis, out, lse, mean_basis, need_dist,
        )  # fmt: skip
    grads = backward_blocked(
        grad_out.to(rho.dtype), grad_lse, grad_mean_basis, query.to(rho.dtype), key.to(rho.dtype), value.to(rho.dtype),
        rho, dist, _blocks(neighborhood, blocks), r0, scale, value_encoding, basis,
        out.to(rho.dtype), lse, mean_basis, need_dist,
    )  # fmt: skip
    return grads._replace(
        query=grads.query.to(query.dtype), key=grads.key.to(key.dtype), value=grads.value.to(value.dtype)
    )


def _blocks(neighborhood: Neighborhood, blocks: Sequence[Tensor]) -> list[RowBlock]:
    return unflatten_blocks(blocks) if blocks else list(row_blocks(neighborhood))
