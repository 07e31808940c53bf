"""The reciprocal sum as matrix products, streamed over blocks: any device, any number of atoms and waves.

With E_ihm = exp(-sigma_ih^2 g_m^2 / 2), cos g.(p_j - p_i) splits into cos cos + sin sin, so that the sum over waves is
one product (rows x heads, 2 M) (2 M, atoms) and no (atoms, atoms, M) tensor exists. Backward recomputes the sums.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from torch_geometric_crystal.ops.exponential import floored_exp_
from torch_geometric_crystal.ops.reciprocal_attention.crystal_blocks import CrystalBlock, crystal_blocks
from torch_geometric_crystal.ops.reciprocal_attention.gradients import Gradients
from torch_geometric_crystal.ops.wave_vectors import WaveVectors


class _Sums(NamedTuple):
    """What forward and backward both need of a block, over G crystals, R rows, n atoms, H heads and 2 M wave terms."""

    length_sq: Tensor  # (G, M)
    gaussian: Tensor  # (G, H, R, M), with the multiplicity of the waves
    row_phase: Tensor  # (G, 1, R, 2M): cosines, then sines
    atom_phase: Tensor  # (G, 1, n, 2M)
    lattice_sum: Tensor  # (G, H, R, n)
    logit: Tensor  # (G, H, R, n)


def forward_blocked(
    query: Tensor, key: Tensor, value: Tensor, sigma_sq: Tensor, waves: WaveVectors, scale: float, floor: float
) -> tuple[Tensor, Tensor]:
    """Softmax over a crystal's atoms of ``scale q.k + log max(S, floor)``: output (N, H, d), log-sum-exp (N, H).

    Crystals without waves have zero output, log-sum-exp minus infinity, and no gradients.
    """
    out, lse = torch.zeros_like(value), torch.full_like(sigma_sq, -torch.inf)
    for block in crystal_blocks(waves):
        logit = _block_sums(query, key, sigma_sq, waves, block, scale, floor).logit
        block_lse = logit.logsumexp(-1)
        weight = (logit - block_lse.unsqueeze(-1)).exp()
        mean = weight @ _heads_first(value[block.atoms])  # (G, H, R, d)
        kept = ~block.row_padding
        out[block.rows[kept]] = mean.transpose(1, 2)[kept]
        lse[block.rows[kept]] = block_lse.transpose(1, 2)[kept]
    return out, lse


def backward_blocked(
    grad_out: Tensor,
    grad_lse: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sigma_sq: Tensor,
    waves: WaveVectors,
    scale: float,
    floor: float,
    out: Tensor,
    lse: Tensor,
    need_pos: bool,
) -> Gradients:
    """Gradients of every input; autograd can run through it, which is how second derivatives are taken."""
    grad_query, grad_key, grad_value = torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)
    grad_sigma_sq = torch.zeros_like(sigma_sq)
    grad_pos, grad_vector = torch.zeros_like(waves.pos), torch.zeros_like(waves.vector)
    centred = (grad_out * out).sum(-1) - grad_lse  # (N, H)
    for block in crystal_blocks(waves):
        sums = _block_sums(query, key, sigma_sq, waves, block, scale, floor)
        weight = (sums.logit - _rows_last(lse[block.rows])).exp()
        block_grad_out = _heads_first(grad_out[block.rows]).masked_fill(block.row_padding[:, None, :, None], 0.0)
        grad_weight = block_grad_out @ _heads_first(value[block.atoms]).transpose(2, 3)
        grad_logit = weight * (grad_weight - _rows_last(centred[block.rows]))
        grad_logit = grad_logit.masked_fill(block.row_padding[:, None, :, None], 0.0)
        above = sums.lattice_sum > floor
        grad_sum = torch.where(above, grad_logit / torch.where(above, sums.lattice_sum, 1.0), 0.0)

        block_query, block_key = _heads_first(query[block.rows]), _heads_first(key[block.atoms])
        _add(grad_query, block.rows, (grad_logit @ block_key * scale).transpose(1, 2))
        _add(grad_key, block.atoms, (grad_logit.transpose(2, 3) @ block_query * scale).transpose(1, 2))
        _add(grad_value, block.atoms, (weight.transpose(2, 3) @ block_grad_out).transpose(1, 2))

        # d S / d (E phase): (G, H, R, 2M); folding the phases of the rows back in leaves d / d E, (G, H, R, M).
        spectrum = grad_sum @ sums.atom_phase
        grad_gaussian = _fold(spectrum * sums.row_phase) * sums.gaussian
        _add(grad_sigma_sq, block.rows, (grad_gaussian * sums.length_sq[:, None, None]).sum(-1).transpose(1, 2) * -0.5)
        if need_pos:
            _add_position_gradients(
                grad_pos, grad_vector, grad_sum, grad_gaussian, spectrum, sums, sigma_sq, waves, block
            )
    grads = Gradients(grad_query, grad_key, grad_value, grad_sigma_sq, grad_pos, grad_vector)
    return grads if need_pos else grads._replace(pos=None, vector=None)


def _block_sums(
    query: Tensor, key: Tensor, sigma_sq: Tensor, waves: WaveVectors, block: CrystalBlock, scale: float, floor: float
) -> _Sums:
    vector = waves.vector[block.waves]  # (G, M, 3)
    length_sq = vector.square().sum(-1)
    multiplicity = torch.full_like(length_sq, 2.0).masked_fill(block.wave_padding, 0.0)
    multiplicity[:, 0] = 1.0
    gaussian = floored_exp_(_rows_last(sigma_sq[block.rows]) * length_sq[:, None, None] * -0.5)
    gaussian = gaussian * multiplicity[:, None, None]
    atom_phase = _phase(waves.pos[block.atoms] @ vector.transpose(1, 2)).unsqueeze(1)
    row_phase = _phase(waves.pos[block.rows] @ vector.transpose(1, 2)).unsqueeze(1)
    lattice_sum = (torch.cat([gaussian, gaussian], -1) * row_phase) @ atom_phase.transpose(2, 3)
    dot = (_heads_first(query[block.rows]) * scale) @ _heads_first(key[block.atoms]).transpose(2, 3)
    logit = dot + lattice_sum.clamp(min=floor).log()
    logit = logit.masked_fill(block.atom_padding[:, None, None], -torch.inf)
    return _Sums(length_sq, gaussian, row_phase, atom_phase, lattice_sum, logit)


def _add_position_gradients(
    grad_pos: Tensor,
    grad_vector: Tensor,
    grad_sum: Tensor,
    grad_gaussian: Tensor,
    spectrum: Tensor,
    sums: _Sums,
    sigma_sq: Tensor,
    waves: WaveVectors,
    block: CrystalBlock,
) -> None:
    """Through the phases g.p of rows and atoms, and through the length of g in the Gaussian."""
    vector = waves.vector[block.waves]
    twice = torch.cat([sums.gaussian, sums.gaussian], -1)
    grad_row_phase = (spectrum * twice).sum(1)  # (G, R, 2M)
    # Heads and rows are summed over together: (G, n, H R) (G, H R, 2M).
    grad_atom_phase = grad_sum.flatten(1, 2).transpose(1, 2) @ (twice * sums.row_phase).flatten(1, 2)
    row_angle = _angle_gradient(grad_row_phase, sums.row_phase.squeeze(1))
    atom_angle = _angle_gradient(grad_atom_phase, sums.atom_phase.squeeze(1))
    _add(grad_pos, block.rows, row_angle @ vector)
    _add(grad_pos, block.atoms, atom_angle @ vector)
    per_vector = row_angle.transpose(1, 2) @ waves.pos[block.rows] + atom_angle.transpose(1, 2) @ waves.pos[block.atoms]
    stretch = (grad_gaussian * _rows_last(sigma_sq[block.rows])).sum((1, 2))  # (G, M)
    _add(grad_vector, block.waves, per_vector - stretch.unsqueeze(-1) * vector)


def _phase(angle: Tensor) -> Tensor:
    return torch.cat([angle.cos(), angle.sin()], -1)


def _angle_gradient(grad_phase: Tensor, phase: Tensor) -> Tensor:
    grad_cos, grad_sin = grad_phase.chunk(2, -1)
    cos, sin = phase.chunk(2, -1)
    return grad_sin * cos - grad_cos * sin


def _fold(terms: Tensor) -> Tensor:
    """Sum the cosine and the sine half: (..., 2M) to (..., M)."""
    cosines, sines = terms.chunk(2, -1)
    return cosines + sines


def _heads_first(tensor: Tensor) -> Tensor:
    """(G, n, H, d) to (G, H, n, d)."""
    return tensor.transpose(1, 2)


def _rows_last(tensor: Tensor) -> Tensor:
    """(G, R, H) to (G, H, R, 1)."""
    return tensor.transpose(1, 2).unsqueeze(-1)


def _add(total: Tensor, index: Tensor, rows: Tensor) -> None:
    """Add padded rows (G, n, ...), zero where they are padding, to the entries (G, n) of `total`."""
    total.index_add_(0, index.flatten(), rows.flatten(0, 1))
