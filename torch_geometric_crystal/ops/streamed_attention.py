"""Infinite attention over edges that do not fit into memory: piece by piece, forward and backward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from torch_geometric_crystal.ops.edge_stream import EdgeStream, StreamedEdges
from torch_geometric_crystal.ops.infinite_attention import infinite_attention
from torch_geometric_crystal.ops.precision import at_least_float32
from torch_geometric_crystal.ops.radial_basis import GaussianBasis


def streamed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    stream: EdgeStream,
    *,
    r0: float = 1.4,
    scale: float | None = None,
    value_encoding: Tensor | None = None,
    basis: GaussianBasis | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`~torch_geometric_crystal.ops.infinite_attention` over an :class:`.edge_stream.EdgeStream`.

    Output, log-sum-exp, arguments and errors are those of that function. The backward pass searches the edges anew and
    repeats the forward pass of each piece. Gradients also flow to the positions and cells of the stream. It is
    differentiable once: forces can be predicted, but not trained on.
    """
    settings = {"r0": r0, "scale": scale, "basis": basis}
    tensors = (query, key, value, rho, stream.pos, stream.cell, value_encoding)
    results: tuple[Tensor, Tensor] = _StreamedAttention.apply(stream, settings, *tensors)
    return results


class _StreamedAttention(torch.autograd.Function):
    """Only the inputs and the stream are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        stream: EdgeStream,
        settings: dict[str, Any],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rho: Tensor,
        pos: Tensor,
        cell: Tensor,
        value_encoding: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.stream, ctx.settings = stream, settings
        ctx.save_for_backward(query, key, value, rho, pos, cell, value_encoding)
        ctx.set_materialize_grads(False)
        out, lse = torch.empty_like(value, memory_format=torch.contiguous_format), torch.empty_like(rho)
        for piece in stream.pieces():
            local = (*(tensor[piece.atoms] for tensor in (query, key, value, rho)), value_encoding)
            targets = piece.atoms[piece.rows]
            out[targets], lse[targets] = _attend(piece, piece.edges.edge_dist, local, settings)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        if grad_out is None and grad_lse is None:
            return (None,) * (2 + len(inputs))
        grads = [
            torch.zeros_like(x) if need else None for x, need in zip(inputs, ctx.needs_input_grad[2:], strict=True)
        ]
        for piece in ctx.stream.pieces():
            found = _gradients_of(ctx, piece, inputs, grads, grad_out, grad_lse)
            for total, grad, of_atoms in zip(grads, found, _OF_ATOMS, strict=True):
                if total is not None and grad is not None:
                    total.index_add_(0, piece.atoms, grad) if of_atoms else total.add_(grad)
        return None, None, *grads


_OF_ATOMS = (True, True, True, True, True, False, False)
"""Which inputs have a row for each atom: query, key, value, rho and positions, but not cells and W^E."""


def _gradients_of(
    ctx: Any,
    piece: StreamedEdges,
    inputs: tuple[Tensor | None, ...],
    wanted: list[Tensor | None],
    grad_out: Tensor | None,
    grad_lse: Tensor | None,
) -> list[Tensor | None]:
    """What the rows of one piece add to the gradient of each input, None where none is wanted."""
    local = [
        None if x is None else (x[piece.atoms] if of_atoms else x).detach().requires_grad_(grad is not None)
        for x, of_atoms, grad in zip(inputs, _OF_ATOMS, wanted, strict=True)
    ]
    *features, pos, cell, value_encoding = local
    targets = piece.atoms[piece.rows]
    with torch.enable_grad():
        moving = wanted[4] is not None or wanted[5] is not None
        dist = ctx.stream.distances(piece, pos, cell) if moving else piece.edges.edge_dist
        results = _attend(piece, dist, (*features, value_encoding), ctx.settings)
        given = [
            (result, grad[targets])
            for result, grad in zip(results, (grad_out, grad_lse), strict=True)
            if grad is not None
        ]
    leaves = [leaf for leaf in local if leaf is not None and leaf.requires_grad]
    outputs, weights = zip(*given, strict=True)
    found = iter(torch.autograd.grad(outputs, leaves, weights, allow_unused=True))
    return [next(found) if leaf is not None and leaf.requires_grad else None for leaf in local]


def _attend(
    piece: StreamedEdges, dist: Tensor, inputs: Sequence[Any], settings: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of the targets of a piece, from query, key, value, rho of its atoms, and W^E or None."""
    query, key, value, rho, value_encoding = inputs
    neighborhood = piece.neighborhood(dist.to(at_least_float32(query.dtype)))
    out, lse = infinite_attention(query, key, value, rho, neighborhood, value_encoding=value_encoding, **settings)
    return out[piece.rows], lse[piece.rows]
