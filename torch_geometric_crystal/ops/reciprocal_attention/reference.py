"""The definition of reciprocal attention, written plainly in float64, one crystal after the other: the judge."""

import torch
from torch import Tensor

from torch_geometric_crystal.ops.wave_vectors import WaveVectors


def reciprocal_attention_reference(
    query: Tensor, key: Tensor, value: Tensor, sigma_sq: Tensor, waves: WaveVectors, scale: float, floor: float
) -> tuple[Tensor, Tensor]:
    """As :func:`~torch_geometric_crystal.ops.reciprocal_attention.blocked.forward_blocked`, in the dtype of `query`."""
    dtype = query.dtype
    query, key, value, sigma_sq = query.double(), key.double(), value.double(), sigma_sq.double()
    pos, vector = waves.pos.double(), waves.vector.double()
    outs, lses = [], []
    for crystal in range(waves.atom_ptr.numel() - 1):
        atoms = slice(int(waves.atom_ptr[crystal]), int(waves.atom_ptr[crystal + 1]))
        wave = vector[int(waves.wave_ptr[crystal]) : int(waves.wave_ptr[crystal + 1])]
        if wave.size(0) == 0:
            outs.append(torch.zeros_like(value[atoms]))
            lses.append(torch.full_like(sigma_sq[atoms], -torch.inf))
            continue
        length_sq = wave.square().sum(-1)
        multiplicity = torch.full_like(length_sq, 2.0)
        multiplicity[0] = 1.0
        displacement = pos[atoms].unsqueeze(0) - pos[atoms].unsqueeze(1)  # (i, j, 3)
        cosine = (displacement @ wave.T).cos() * multiplicity  # (i, j, M)
        gaussian = (-0.5 * sigma_sq[atoms].unsqueeze(-1) * length_sq).exp()  # (i, H, M)
        lattice_sum = torch.einsum("ihm,ijm->ijh", gaussian, cosine)
        dot = torch.einsum("ihd,jhd->ijh", query[atoms], key[atoms])
        logit = dot * scale + lattice_sum.clamp(min=floor).log()
        outs.append(torch.einsum("ijh,jhd->ihd", logit.softmax(1), value[atoms]))
        lses.append(logit.logsumexp(1))
    if not outs:
        return torch.zeros_like(value).to(dtype), torch.zeros_like(sigma_sq).to(dtype)
    return torch.cat(outs).to(dtype), torch.cat(lses).to(dtype)
