"""The blocked backend as operators of ``torch.library``, so that torch.compile, export and autograd see one node."""

from typing import Any, Sequence  # noqa: UP035 (torch 2.6 reads no other spelling in a schema)

import torch
from torch import Tensor

from torch_geometric_crystal.ops.infinite_attention.blocked import backward_blocked, forward_blocked
from torch_geometric_crystal.ops.infinite_attention.row_blocks import unflatten_blocks
from torch_geometric_crystal.ops.radial_basis import GaussianBasis


def _basis(num_basis: int, basis_spacing: float) -> GaussianBasis | None:
    return GaussianBasis(num_basis, basis_spacing) if num_basis else None


@torch.library.custom_op("torch_geometric_crystal::infinite_attention", mutates_args=())
def infinite_attention_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    value_encoding: Tensor | None,
    blocks: Sequence[Tensor],
    r0: float,
    scale: float,
    num_basis: int,
    basis_spacing: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`blocks` come from flatten_blocks; the outputs are those of forward_blocked."""
    basis = _basis(num_basis, basis_spacing)
    return forward_blocked(query, key, value, rho, dist, unflatten_blocks(blocks), r0, scale, value_encoding, basis)


@infinite_attention_op.register_fake
def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, rho: Tensor, dist: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    num_basis = rest[-2]
    return torch.empty_like(value), torch.empty_like(rho), value.new_empty(*rho.shape, num_basis)


@torch.library.custom_op("torch_geometric_crystal::infinite_attention_backward", mutates_args=())
def infinite_attention_backward_op(
    grad_out: Tensor,
    grad_lse: Tensor,
    grad_mean_basis: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    value_encoding: Tensor | None,
    blocks: Sequence[Tensor],
    out: Tensor,
    lse: Tensor,
    mean_basis: Tensor,
    r0: float,
    scale: float,
    num_basis: int,
    basis_spacing: float,
    need_dist: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, rho, dist and value_encoding; empty where there is none."""
    grads = backward_blocked(
        grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, unflatten_blocks(blocks), r0, scale,
        value_encoding, _basis(num_basis, basis_spacing), out, lse, mean_basis, need_dist,
    )  # fmt: skip
    none = query.new_empty(0)
    return (
        grads.query,
        grads.key,
        grads.value,
        grads.rho,
        none if grads.dist is None else grads.dist,
        none.clone() if grads.value_encoding is None else grads.value_encoding,
    )


@infinite_attention_backward_op.register_fake
def _backward_fake(
    grad_out: Tensor,
    grad_lse: Tensor,
    grad_mean_basis: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    value_encoding: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    need_dist = rest[-1]
    none = query.new_empty(0)
    return (
        torch.empty_like(query),
        torch.empty_like(key),
        torch.empty_like(value),
        torch.empty_like(rho),
        torch.empty_like(dist) if need_dist else none,
        none.clone() if value_encoding is None else torch.empty_like(value_encoding),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, rho, dist, value_encoding, blocks, *ctx.settings = inputs
    ctx.num_blocks = len(blocks)
    ctx.save_for_backward(query, key, value, rho, dist, value_encoding, *blocks, *output)


def _backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor, grad_mean_basis: Tensor) -> tuple[Any, ...]:
    query, key, value, rho, dist, value_encoding, *rest = ctx.saved_tensors
    blocks, (out, lse, mean_basis) = rest[: ctx.num_blocks], rest[ctx.num_blocks :]
    r0, scale, num_basis, basis_spacing = ctx.settings
    need_dist = ctx.needs_input_grad[4]
    if torch.is_grad_enabled():
        recorded = (block._replace(basis_values=None) for block in unflatten_blocks(blocks))
        grads = backward_blocked(
            grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, recorded, r0, scale,
            value_encoding, _basis(num_basis, basis_spacing), out, lse, mean_basis, need_dist,
        )  # fmt: skip
        in_order = (*grads[:4], grads.dist, grads.value_encoding)
    else:
        in_order = infinite_attention_backward_op(
            grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, value_encoding, blocks,
            out, lse, mean_basis, r0, scale, num_basis, basis_spacing, need_dist,
        )  # fmt: skip
    grads_qkvr, grad_dist, grad_encoding = in_order[:4], in_order[4], in_order[5]
    return (
        *grads_qkvr,
        grad_dist if need_dist else None,
        None if value_encoding is None else grad_encoding,
        [None] * len(blocks),
        *[None] * 4,
    )


infinite_attention_op.register_autograd(_backward, setup_context=_setup_context)
