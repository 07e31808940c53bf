"""Weights of attention heads in reciprocal space: one for each pair of atoms, all images of the source together."""

import torch
from torch import Tensor

from torch_geometric_crystal.nn.conv.periodic_infinite_attention import PeriodicInfiniteAttention
from torch_geometric_crystal.ops import WaveVectors

COSINES_AT_ONCE = 2**24
"""Cosines of phases that are in memory together."""


def reciprocal_head_weights(
    layer: PeriodicInfiniteAttention, states: Tensor, waves: WaveVectors
) -> tuple[Tensor, Tensor]:
    r"""Weights of the layer's heads in reciprocal space on one crystal.

    .. math::
        a_{ij} = \mathrm{softmax}_j \left( \frac{\mathbf{q}_i^{\top} \mathbf{k}_j}{\sqrt{d}} +
        \ln \sum_{\mathbf{g}} e^{-\sigma_i^2 g^2 / 2} \cos \mathbf{g} \cdot (\mathbf{p}_j - \mathbf{p}_i) \right)

    Args:
        layer: with heads in reciprocal space, not of the domain "auto".
        states: what the layer takes (N, C).
        waves: of one crystal.

    Returns:
        The weights (H', N, N), target first, and the widths :math:`\sigma` in A (H', N), in float64.
    """
    query, key, _ = layer.qkv(states).view(-1, 3, layer.heads, layer.head_dim).unbind(1)
    sigma_sq = layer.decay(query)[:, layer.real_heads :].double() * layer.r0_reciprocal**2  # (N, H')
    query, key = query[:, layer.real_heads :].double(), key[:, layer.real_heads :].double()
    lattice_sum = _lattice_sums(sigma_sq, waves)
    logit = torch.einsum("ihd,jhd->hij", query, key) * layer.scale + lattice_sum.clamp(min=layer.reciprocal_floor).log()
    return logit.softmax(-1), sigma_sq.sqrt().T


def _lattice_sums(sigma_sq: Tensor, waves: WaveVectors) -> Tensor:
    """Sum of Gaussians times cosines over all waves, of which `waves` has one of each pair g, -g; (H', N, N)."""
    pos, vector = waves.pos.double(), waves.vector.double()
    length_sq = vector.square().sum(-1)
    multiplicity = torch.full_like(length_sq, 2.0)
    multiplicity[0] = 1.0
    number = pos.size(0)
    rows = max(1, COSINES_AT_ONCE // (number * vector.size(0)))
    sums = []
    for start in range(0, number, rows):
        part = slice(start, start + rows)
        displacement = pos.unsqueeze(0) - pos[part].unsqueeze(1)  # (i, j, 3)
        cosine = (displacement @ vector.T).cos() * multiplicity  # (i, j, M)
        gaussian = (-0.5 * sigma_sq[part].unsqueeze(-1) * length_sq).exp()  # (i, h, M)
        sums.append(torch.einsum("ihm,ijm->hij", gaussian, cosine))
    return torch.cat(sums, dim=1)
