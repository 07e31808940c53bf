"""The fast path in pure torch, for the CPU and any other device: one pass over the edges, streamed over blocks of rows.

Per block of B rows and S sources the logits q.k and the sums over v are dense (H, B, S) products, each pair once; per
edge and head there is one exponential; the value encoding is accumulated as u = sum w b(r), shape (N, H, K), and
projected once. Backward recomputes the weights from the saved log-sum-exp. Nothing of size (E, H, d) or (E, H, K)
exists, and nothing of size (E, H) outlives its block. All of it is deterministic: no atomics.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from torch_geometric_crystal.ops.exponential import floored_exp_
from torch_geometric_crystal.ops.infinite_attention.gradients import Gradients
from torch_geometric_crystal.ops.infinite_attention.row_blocks import RowBlock
from torch_geometric_crystal.ops.radial_basis import GaussianBasis


def forward_blocked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    blocks: Iterable[RowBlock],
    r0: float,
    scale: float,
    value_encoding: Tensor | None,
    basis: GaussianBasis | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output (N, H, d), log-sum-exp (N, H) and the mean basis u (N, H, K) of every row (K = 0 without encoding)."""
    num_rows, num_heads = rho.shape
    out = torch.zeros_like(value)
    lse = torch.full_like(rho, -torch.inf)
    mean_basis = value.new_zeros(num_rows, num_heads, basis.num if basis is not None else 0)
    for block in blocks:
        rows = slice(block.first, block.last)
        slot_dist = block.slot_dist(dist)
        logit = _block_logit(query[rows], key, rho[rows], slot_dist, block, r0, scale)  # (B, W, H)
        largest = _largest(logit)
        weight = floored_exp_(logit.sub_(largest.unsqueeze(1)))
        total = weight.sum(1)
        sums = block.slots_to_cells(weight) @ value[block.sources].transpose(0, 1)  # (H, B, d)
        lse[rows] = largest + total.log()
        out[rows] = sums.transpose(0, 1) / total.unsqueeze(-1)
        if basis is not None:
            u = torch.bmm(weight.transpose(1, 2), _block_basis(slot_dist, block, basis))
            mean_basis[rows] = u / total.unsqueeze(-1)
    if value_encoding is not None:
        out += project_basis(mean_basis, value_encoding)
    return out, lse, mean_basis


def backward_blocked(
    grad_out: Tensor,
    grad_lse: Tensor,
    grad_mean_basis: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rho: Tensor,
    dist: Tensor,
    blocks: Iterable[RowBlock],
    r0: float,
    scale: float,
    value_encoding: Tensor | None,
    basis: GaussianBasis | None,
    out: Tensor,
    lse: Tensor,
    mean_basis: Tensor,
    need_dist: bool,
) -> Gradients:
    """Gradients with respect to every input, given those of the three outputs of :func:`forward_blocked`.

    Written with out-of-place operations on whatever carries a gradient, so that autograd can run through it: that is
    how second derivatives (training on forces) are taken.
    """
    grad_encoding = None
    centred = (grad_out * out).sum(-1) - grad_lse  # sum_e w_e dL/dw_e, less the log-sum-exp's own share; (N, H)
    if value_encoding is not None:
        grad_encoding = torch.bmm(grad_out.permute(1, 2, 0), mean_basis.transpose(0, 1))  # (H, d, K)
        centred = centred + (grad_mean_basis * mean_basis).sum(-1)
        grad_mean_basis = grad_mean_basis + torch.bmm(grad_out.transpose(0, 1), value_encoding).transpose(0, 1)

    grad_query, grad_key, grad_value = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    grad_rho, grad_dist = torch.zeros_like(rho), []
    for block in blocks:
        rows = slice(block.first, block.last)
        slot_dist = block.slot_dist(dist)
        logit = _block_logit(query[rows], key, rho[rows], slot_dist, block, r0, scale)
        weight = floored_exp_(logit - lse[rows].unsqueeze(1))  # (B, W, H)
        block_grad_out = grad_out[rows].transpose(0, 1)  # (H, B, d)

        grad_weight = block.cells_to_slots(block_grad_out @ value[block.sources].permute(1, 2, 0))
        if basis is not None:
            values = _block_basis(slot_dist, block, basis)
            block_grad_basis = grad_mean_basis[rows]  # (B, H, K)
            grad_weight = grad_weight + torch.bmm(block_grad_basis, values.transpose(1, 2)).transpose(1, 2)
        grad_logit = weight * (grad_weight - centred[rows].unsqueeze(1))

        weight_cells, logit_cells = block.slots_to_cells(weight), block.slots_to_cells(grad_logit) * scale
        block_query = query[rows].transpose(0, 1)
        _add_rows(grad_value, block, weight_cells.transpose(1, 2) @ block_grad_out)
        _add_rows(grad_key, block, logit_cells.transpose(1, 2) @ block_query)
        grad_query[rows] = (logit_cells @ key[block.sources].transpose(0, 1)).transpose(0, 1)
        grad_rho[rows] = -(grad_logit * slot_dist.square().unsqueeze(-1)).sum(1) / (2 * r0**2)
        if need_dist:
            per_edge = -slot_dist / r0**2 * (grad_logit * rho[rows].unsqueeze(1)).sum(-1)  # (B, W)
            if basis is not None:
                slope = basis.derivative(slot_dist, values)
                per_edge = per_edge + (torch.bmm(weight, block_grad_basis) * slope).sum(-1)
            grad_dist.append(per_edge if block.padding is None else per_edge[~block.padding])
    return Gradients(
        query=grad_query,
        key=grad_key,
        value=grad_value,
        rho=grad_rho,
        dist=torch.cat([part.flatten() for part in grad_dist]) if grad_dist else None,
        value_encoding=grad_encoding,
    )


def project_basis(mean_basis: Tensor, value_encoding: Tensor) -> Tensor:
    """W^E u: (N, H, K) and (H, d, K) to (N, H, d)."""
    return torch.bmm(mean_basis.transpose(0, 1), value_encoding.transpose(1, 2)).transpose(0, 1)


def _block_logit(
    query: Tensor, key: Tensor, rho: Tensor, dist: Tensor, block: RowBlock, r0: float, scale: float
) -> Tensor:
    """Logits q.k - rho r^2 / (2 r0^2) of the slots, (B, W, H)."""
    cells = (query * scale).transpose(0, 1) @ key[block.sources].permute(1, 2, 0)  # (H, B, S)
    decay = rho / (2 * r0**2)
    return torch.addcmul(block.cells_to_slots(cells), dist.square().unsqueeze(-1), decay.unsqueeze(1), value=-1.0)


def _block_basis(dist: Tensor, block: RowBlock, basis: GaussianBasis) -> Tensor:
    """Basis values of the slots, (B, W, K)."""
    return basis(dist) if block.basis_values is None else block.basis_values


def _largest(logit: Tensor) -> Tensor:
    """Maximum over the middle dimension, (B, W, H) to (B, H): halved first, for reductions there are not vectorised."""
    while logit.size(1) > 16:
        half = logit.size(1) // 2
        logit = (
            torch.maximum(logit[:, :half], logit[:, -half:])
            if logit.size(1) % 2 == 0
            else torch.maximum(logit[:, : half + 1], logit[:, half:])
        )
    return logit.amax(1)


def _add_rows(total: Tensor, block: RowBlock, rows: Tensor) -> None:
    """Add (H, S, d) to the block's sources in (N, H, d)."""
    total.index_add_(0, block.sources, rows.transpose(0, 1))
