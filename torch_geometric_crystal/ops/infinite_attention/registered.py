"""Infinite attention as operators of ``torch.library``, so that torch.compile, export and autograd see one node."""

from typing import Any, Sequence  # noqa: UP035 (torch 2.6 reads no other spelling in a schema)

import torch
from torch import Tensor

from torch_geometric_crystal.ops.infinite_attention.dispatch import backward, forward
from torch_geometric_crystal.ops.infinite_attention.row_blocks import without_basis_values
from torch_geometric_crystal.ops.neighborhood import Neighborhood
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
    groups: Sequence[Tensor],
    blocks: Sequence[Tensor],
    backend: str,
    r0: float,
    scale: float,
    num_basis: int,
    basis_spacing: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`groups` are the fields of a Neighborhood after `dist`, `blocks` come from flatten_blocks or are none.

    The outputs are those of dispatch.forward.
    """
    return forward(
        backend, query, key, value, rho, dist, Neighborhood(dist, *groups), blocks, r0, scale, value_encoding,
        _basis(num_basis, basis_spacing),
    )  # fmt: skip


@infinite_attention_op.register_fake
def _forward_fake(
    query: Tensor, key: Tensor, value: Tensor, rho: Tensor, dist: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    num_basis = rest[-2]
    return value.new_empty(value.shape), rho.new_empty(rho.shape), rho.new_empty(*rho.shape, num_basis)


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
    groups: Sequence[Tensor],
    blocks: Sequence[Tensor],
    out: Tensor,
    lse: Tensor,
    mean_basis: Tensor,
    backend: str,
    r0: float,
    scale: float,
    num_basis: int,
    basis_spacing: float,
    need_dist: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, rho, dist and value_encoding; empty where there is none."""
    grads = backward(
        backend, grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, Neighborhood(dist, *groups), blocks,
        r0, scale, value_encoding, _basis(num_basis, basis_spacing), out, lse, mean_basis, need_dist,
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
        query.new_empty(query.shape),
        key.new_empty(key.shape),
        value.new_empty(value.shape),
        rho.new_empty(rho.shape),
        dist.new_empty(dist.shape) if need_dist else none,
        none.clone() if value_encoding is None else value_encoding.new_empty(value_encoding.shape),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    query, key, value, rho, dist, value_encoding, groups, blocks, *ctx.settings = inputs
    ctx.num_groups, ctx.num_blocks = len(groups), len(blocks)
    ctx.save_for_backward(query, key, value, rho, dist, value_encoding, *output, *groups, *blocks)


def _backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor, grad_mean_basis: Tensor) -> tuple[Any, ...]:
    query, key, value, rho, dist, value_encoding, out, lse, mean_basis, *rest = ctx.saved_tensors
    groups, blocks = rest[: ctx.num_groups], rest[ctx.num_groups :]
    backend, r0, scale, num_basis, basis_spacing = ctx.settings
    need_dist = ctx.needs_input_grad[4]
    if torch.is_grad_enabled():
        # Second derivatives: autograd records the blocked backward, with the basis as a function of the distances.
        grads = backward(
            "blocked", grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, Neighborhood(dist, *groups),
            without_basis_values(blocks), r0, scale, value_encoding, _basis(num_basis, basis_spacing),
            out, lse, mean_basis, need_dist,
        )  # fmt: skip
        in_order = (*grads[:4], grads.dist, grads.value_encoding)
    else:
        in_order = infinite_attention_backward_op(
            grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, value_encoding, groups, blocks,
            out, lse, mean_basis, backend, r0, scale, num_basis, basis_spacing, need_dist,
        )  # fmt: skip
    grads_qkvr, grad_dist, grad_encoding = in_order[:4], in_order[4], in_order[5]
    return (
        *grads_qkvr,
        grad_dist if need_dist else None,
        None if value_encoding is None else grad_encoding,
        [None] * ctx.num_groups,
        [None] * ctx.num_blocks,
        *[None] * 5,
    )


infinite_attention_op.register_autograd(_backward, setup_context=_setup_context)
