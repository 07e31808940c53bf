"""What torch.compile needs to record the C++ attention as a node of its own: shapes and a derivative.

Called from Python without a record the kernels are an autograd node of ``ops.infinite_attention.registered`` instead.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor


def register_recorded_form(namespace: str) -> None:
    """Give the operators of a library that was just loaded shapes, and ``infinite_attention_node`` its derivative."""
    node = f"{namespace}::infinite_attention_node"
    torch.library.register_fake(node, _forward_shapes)
    torch.library.register_fake(f"{namespace}::infinite_attention_backward", _backward_shapes)
    torch.library.register_autograd(node, partial(_gradients, namespace), setup_context=_setup_context)


def _gradients(
    namespace: str, ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, grad_mean_basis: Tensor | None
) -> tuple[Any, ...]:
    query, key, value, rho, dist, out, lse, mean_basis, *indices = ctx.saved_tensors
    need_dist = ctx.needs_input_grad[4]
    *grads, grad_dist = getattr(torch.ops, namespace).infinite_attention_backward(
        torch.zeros_like(out) if grad_out is None else grad_out.contiguous(),
        torch.zeros_like(lse) if grad_lse is None else grad_lse.contiguous(),
        None if grad_mean_basis is None else grad_mean_basis.contiguous(),
        query, key, value, rho, dist, indices, ctx.r0, ctx.scale, None, ctx.num_basis, ctx.basis_spacing,
        out, lse, mean_basis, need_dist,
    )  # fmt: skip
    return *grads, grad_dist if need_dist else None, [None] * len(indices), None, None, None, None


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, rho, dist, indices, ctx.r0, ctx.scale, ctx.num_basis, ctx.basis_spacing = inputs
    ctx.save_for_backward(query, key, value, rho, dist, *output, *indices)


def _forward_shapes(
    query: Tensor, key: Tensor, value: Tensor, rho: Tensor, dist: Tensor, indices: list[Tensor], r0: float,
    scale: float, num_basis: int, basis_spacing: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return query.new_empty(query.shape), rho.new_empty(rho.shape), rho.new_empty(*rho.shape, num_basis)


def _backward_shapes(
    grad_out: Tensor, grad_lse: Tensor, grad_mean_basis: Tensor | None, query: Tensor, key: Tensor, value: Tensor,
    rho: Tensor, dist: Tensor, indices: list[Tensor], r0: float, scale: float, encoding: Tensor | None, num_basis: int,
    basis_spacing: float, out: Tensor, lse: Tensor, mean_basis: Tensor, need_dist: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    grad_query, grad_key, grad_value = (query.new_empty(query.shape) for _ in range(3))
    return grad_query, grad_key, grad_value, rho.new_empty(rho.shape), dist.new_empty(dist.numel() if need_dist else 0)
