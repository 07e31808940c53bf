"""Infinite attention as one node of autograd, and as operators of ``torch.library`` for graphs that are recorded."""

from typing import Any, Sequence  # noqa: UP035 (torch 2.6 reads no other spelling in a schema)

import torch
from torch import Tensor

from torch_geometric_crystal.ops.infinite_attention.dispatch import backward, forward
from torch_geometric_crystal.ops.infinite_attention.row_blocks import without_basis_values
from torch_geometric_crystal.ops.neighborhood import Neighborhood
from torch_geometric_crystal.ops.radial_basis import GaussianBasis
from torch_geometric_crystal.ops.tracing import is_recorded


def attend(query: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Run the operation, with the arguments and outputs of :func:`infinite_attention_op`."""
    if not is_recorded(query):
        return _InfiniteAttention.apply(query, *arguments)
    key, value, rho, dist, value_encoding, groups, _, backend, r0, scale, num_basis, spacing = arguments
    if backend == "cpp" and torch.compiler.is_dynamo_compiling():  # an exported program needs no kernels to be read
        from torch_geometric_crystal.ops.infinite_attention.cpp import forward_cpp

        hood, basis = Neighborhood(dist, *groups), _basis(num_basis, spacing)
        return forward_cpp(query, key, value, rho, dist, hood, r0, scale, value_encoding, basis, recorded=True)
    return infinite_attention_op(query, *arguments)


def _basis(num_basis: int, basis_spacing: float) -> GaussianBasis | None:
    return GaussianBasis(num_basis, basis_spacing) if num_basis else None


def _run(
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


infinite_attention_op = torch.library.custom_op("torch_geometric_crystal::infinite_attention", _run, mutates_args=())


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


def _gradients(
    ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, grad_mean_basis: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of query, key, value, rho, dist and value_encoding."""
    query, key, value, rho, dist, value_encoding, out, lse, mean_basis, *rest = ctx.saved_tensors
    groups, blocks = rest[: ctx.num_groups], rest[ctx.num_groups :]
    backend, r0, scale, num_basis, basis_spacing = ctx.settings
    need_dist = ctx.needs_input_grad[4]
    grad_out = torch.zeros_like(out) if grad_out is None else grad_out
    grad_lse = torch.zeros_like(lse) if grad_lse is None else grad_lse
    if is_recorded(query) and not torch.is_grad_enabled():
        grad_mean_basis = torch.zeros_like(mean_basis) if grad_mean_basis is None else grad_mean_basis
        *grads_qkvr, grad_dist, grad_encoding = infinite_attention_backward_op(
            grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, value_encoding, groups, blocks,
            out, lse, mean_basis, backend, r0, scale, num_basis, basis_spacing, need_dist,
        )  # fmt: skip
    else:
        if torch.is_grad_enabled():
            # Second derivatives: autograd records the blocked backward, with the basis as a function of the distances.
            backend, blocks = "blocked", without_basis_values(blocks)
        *grads_qkvr, grad_dist, grad_encoding = backward(
            backend, grad_out, grad_lse, grad_mean_basis, query, key, value, rho, dist, Neighborhood(dist, *groups),
            blocks, r0, scale, value_encoding, _basis(num_basis, basis_spacing), out, lse, mean_basis, need_dist,
        )  # fmt: skip
    return *grads_qkvr, grad_dist if need_dist else None, None if value_encoding is None else grad_encoding


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    return *_gradients(ctx, *grads), [None] * ctx.num_groups, [None] * ctx.num_blocks, *[None] * 5


infinite_attention_op.register_autograd(_backward, setup_context=_setup_context)


class _InfiniteAttention(torch.autograd.Function):
    """The operation where it runs at once; arguments and outputs of :func:`infinite_attention_op`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output = _run(*inputs)
        ctx.set_materialize_grads(False)
        _setup_context(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return *_gradients(ctx, *grads), *[None] * 7
